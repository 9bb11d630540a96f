"""How sure a mean is, and whether two rankers differ: resampling over people.

People are the independent draws, so they are what is resampled (Efron and Tibshirani, 1993;
Smucker et al., 2007). Everything is seeded, and rankers judged on the same questions with the same seed
see the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from palate.errors import DataError
from palate.schema import FloatArray

BLOCK = 500_000
"""Draws held at once: bounds the memory to some 10 MB."""


@dataclass(frozen=True)
class PairedTest:
    """What is known of the difference of two means, second − first."""

    difference: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def bootstrap_intervals(
    values: FloatArray, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> FloatArray:
    """Percentile intervals of the column means, float64 [M, 2] (low, high), for ``values`` [people, M]."""
    means = np.concatenate([weights @ values for weights in _resample_weights(len(values), resamples, seed)])
    tail = (1.0 - confidence) / 2
    return np.asarray(np.quantile(means, [tail, 1.0 - tail], axis=0).T)


def paired_test(
    first: FloatArray,
    second: FloatArray,
    *,
    resamples: int = 1000,
    permutations: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """The difference of two rankers on the same people, its bootstrap interval and two-sided p-value.

    The p-value is of the sign-flip permutation test (Fisher, 1935): were both rankers equal, every
    person's difference could as well have the other sign. p = (1 + flips with a mean as far from 0 as
    the observed one) / (1 + permutations), never 0.

    Raises:
        DataError: the arrays do not belong to the same questions.
    """
    tests = compare(
        {"": first},
        {"": second},
        [""],
        resamples=resamples,
        permutations=permutations,
        confidence=confidence,
        seed=seed,
    )
    return tests[""]


def compare(
    first: Mapping[str, FloatArray],
    second: Mapping[str, FloatArray],
    metrics: Iterable[str],
    *,
    resamples: int = 1000,
    permutations: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedTest]:
    """A paired test, second − first, of each metric, from the ``per_question`` of two evaluations.

    All metrics see the same resamples and the same flips.

    Raises:
        DataError: a metric is missing on one side, or the questions differ.
    """
    names = list(metrics)
    differences = [_differences(first, second, name) for name in names]
    if not differences:
        return {}
    table = np.column_stack(differences)
    bounds = bootstrap_intervals(table, resamples=resamples, confidence=confidence, seed=seed)
    p_values = _sign_flips(table, permutations, seed)
    return {
        name: PairedTest(float(column.mean()), float(low), float(high), float(p_value))
        for name, column, (low, high), p_value in zip(names, table.T, bounds, p_values, strict=True)
    }


def _differences(
    first: Mapping[str, FloatArray], second: Mapping[str, FloatArray], metric: str
) -> FloatArray:
    if metric not in first or metric not in second:
        raise DataError(f"'{metric}' was not measured on both sides; compare what both have.")
    a, b = first[metric], second[metric]
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(
            f"A paired test needs two arrays over the same questions; got shapes {a.shape} and {b.shape}."
        )
    return b - a


def _sign_flips(differences: FloatArray, permutations: int, seed: int) -> FloatArray:
    """The p-value of each column of ``differences`` [people, M]."""
    moved = differences[(differences != 0).any(axis=1)]  # zeros keep their value under any sign
    total = moved.sum(axis=0)
    bound = np.abs(total) - 1e-9 * np.abs(moved).sum(axis=0)  # equal sums may differ in the last bit
    generator = np.random.default_rng([seed, 1])
    as_far = np.zeros(differences.shape[1], np.int64)
    size = max(1, BLOCK // max(1, len(moved)))
    for start in range(0, permutations, size):
        block = min(size, permutations - start)
        draws = generator.integers(0, 256, (block, (len(moved) + 7) // 8), dtype=np.uint8)
        kept = np.unpackbits(draws, axis=1, count=len(moved)).astype(np.float64)
        as_far += np.count_nonzero(np.abs(2.0 * (kept @ moved) - total) >= bound, axis=0)
    return np.asarray((1 + as_far) / (1 + permutations))


def _resample_weights(people: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Multinomial weights in blocks [b, people], each row summing to 1."""
    generator = np.random.default_rng([seed, 0])
    size = max(1, BLOCK // people)
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        draws = generator.integers(0, people, (block, people)) + np.arange(block)[:, None] * people
        counts = np.bincount(draws.ravel(), minlength=block * people).reshape(block, people)
        yield counts / people
