"""Shapley values from what sets of players win together: exact from all sets, estimated from a few hundred.

The estimate is the regression of Lundberg and Lee ("A unified approach to interpreting model predictions",
2017) on random sets and their complements (Covert and Lee, "Improving KernelSHAP", 2021): the difference of
the two is the sum of the values of who is in the set less that of who is not, and an error. A few hundred
equations for a hundred players leave much open, so the values have a Gaussian prior: it says which of them
are expected to be large, and which alike.
"""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt

from palate.schema import BoolArray

Scores = npt.NDArray[np.float64]

ERRORS = (1e-6, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.4, 1.0)
"""Variances of the error that are tried, as parts of that of a sum of n values; the likeliest counts."""
BY_SIZE = 3.0
"""How much of a difference may come of the number of players alone, beside what they are worth: what a late
comer adds to many is less than what the first one adds."""


def every_set(n: int) -> BoolArray:
    """All sets of n players, bool [2^n, n]; player e is in the sets whose number has the bit e."""
    found: BoolArray = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    return found


def shapley_values(scores: Scores) -> Scores:
    """Exact Shapley values [n, I] of what every set wins, [2^n, I], in the order of ``every_set``."""
    n = len(scores).bit_length() - 1
    sets = every_set(n)
    size = sets.sum(axis=1)
    values = np.zeros((n, scores.shape[1]))
    for player in range(n):
        without = np.flatnonzero(~sets[:, player])
        weight = np.array([1 / (n * comb(n - 1, s)) for s in size[without].tolist()])
        values[player] = weight @ (scores[without + (1 << player)] - scores[without])
    return values


def drawn_sets(n: int, pairs: int) -> BoolArray:
    """Random sets of n ≥ 2 players, and then their complements, bool [2 · pairs, n]; always the same ones.

    A size s comes in proportion to 1 / (s (n − s)), with which the regression's values are Shapley's.
    """
    generator = np.random.default_rng(n)
    sizes = np.arange(1, n)
    chance = np.cumsum(1 / (sizes * (n - sizes)))
    even = (np.arange(pairs) + generator.random()) / pairs  # so that no size is left to luck
    size = sizes[np.searchsorted(chance / chance[-1], even).clip(max=n - 2)]
    rank = np.argsort(generator.random((pairs, n)), axis=1).argsort(axis=1)
    first: BoolArray = rank < size[:, None]
    return np.concatenate([first, ~first])


def estimated_values(
    scores: Scores, sets: BoolArray, none: Scores, everybody: Scores, prior: Scores
) -> Scores:
    """Values [n, I] that add up to ``everybody`` − ``none``, estimated from what some sets win.

    Args:
        scores: [2P, I], what the sets win.
        sets: bool [2P, n], P sets and then their complements.
        none: [I], what nobody wins.
        everybody: [I], what all win.
        prior: [n, n], covariance of the values before anything is known; its scale does not matter.
    """
    P, n = len(sets) // 2, sets.shape[1]
    sign = 2.0 * sets[:P] - 1.0
    size = sign.mean(axis=1)  # −1 is nobody, 1 is everybody
    even = (everybody - none) / n
    surprise = scores[:P] - scores[P:] - np.outer(n * size, even)
    # What is estimated are the values' distances from even ones: those add up to nothing, in each prior draw.
    centred = prior - prior.mean(axis=0) - prior.mean(axis=1, keepdims=True) + prior.mean()
    centred = centred * (n / np.trace(prior))
    room = 1 - np.abs(size)  # both ends are known
    by_size = n * BY_SIZE * np.minimum(room[:, None], room) * np.sign(np.outer(size, size))
    variance, axes = np.linalg.eigh(sign @ centred @ sign.T + by_size)
    variance, along = np.maximum(variance, 0.0)[:, None], axes.T @ surprise
    error = n * max(ERRORS, key=lambda each: likelihood(along, variance + n * each))
    found: Scores = even + centred @ sign.T @ (axes @ (along / (variance + error)))
    return found


def likelihood(along: Scores, variance: Scores) -> float:
    """Logarithm, but for a constant, of that of ``along`` [P, I] as independent Gaussian numbers of
    ``variance`` [P, 1] times a scale of each column, the likeliest one."""
    scale = np.maximum((along**2 / variance).mean(axis=0), np.finfo(np.float64).tiny)
    return float(-0.5 * (len(along) * np.log(scale) + np.log(variance).sum()).sum())
