"""Whether reasons are faithful: what happens to a recommendation when the events they name go, or come.

Deletion: the events of a history are taken away, those with the largest shares first; if the shares are right
the recommended item leaves the top k early. Insertion: into an empty history the same events come first; the
item should enter the top k early (Petsiuk, Das and Saenko, "RISE", 2018, of pixels). Both are compared with
taking the events at random, latest first, and most popular first.

How far the curves go is told in two ways: by the number of events, as in Baklanov et al., "Refining fidelity
metrics for explainable recommendations" (2025), since reasons name a few events however long the history is;
and by their share of the history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.explain.events import EVALUATIONS, Scorer, event_shares, subsets
from palate.schema import BoolArray, Histories, IntArray

NUMBERS = tuple(range(1, 11))
"""So many events are taken away, or put in; of a shorter history all."""
TENTHS = tuple(range(1, 10))
"""So many tenths of the history are, rounded up."""
SHARES = "shares"
OTHERS = ("random", "recency", "popularity")
"""The orders that shares are compared with."""
SHUFFLED = "shuffled"
"""The order by the shares of a network whose weights say nothing (Adebayo et al., "Sanity checks for saliency
maps", 2018)."""
BACKWARDS = "shuffled backwards"
"""The same order from its end. Even a network that learned nothing hears late events more than early ones, so
that these lie at both ends of its order; what its shares say *for* an item is nothing if the order does as
well in either direction."""

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """By order of the events, whether each of P people's first recommendation is among the k best."""

    levels: tuple[int, ...]
    deletion: Mapping[str, Curve]
    """float64 [P, levels], 1 where it still is; a low curve is a faithful one."""
    insertion: Mapping[str, Curve]
    """float64 [P, levels], 1 where it is already; a high curve is a faithful one."""

    def area(self, kind: str, order: str) -> Curve:
        """Of each person the mean over the levels, float64 [P]; ``kind`` is deletion or insertion."""
        curves = {"deletion": self.deletion, "insertion": self.insertion}[kind]
        found: Curve = curves[order].mean(axis=1)
        return found


@dataclass(frozen=True)
class Fidelity:
    """Whether the shares of P people's first recommendations are faithful."""

    k: int
    by_number: Curves
    """At ``NUMBERS``."""
    by_tenths: Curves
    """At ``TENTHS``."""
    agreement: Curve | None
    """Of each person the rank correlation of the shares with those of the shuffled network, float64 [P]; None
    where there is none."""


def fidelity(
    scorer: Scorer,
    histories: Histories,
    allowed: BoolArray,
    popularity: IntArray,
    *,
    k: int,
    filter_seen: bool,
    evaluations: int = EVALUATIONS,
    shuffled: Scorer | None = None,
    seed: int = 0,
) -> Fidelity:
    """The curves of the people with these histories, of whom those with fewer than two events are left out.

    What is taken away does not come back as a recommendation: seen is what the whole history holds.

    Args:
        scorer: the model that recommends.
        histories: P rows.
        allowed: bool [V], items that may be recommended.
        popularity: [V], events of each item.
        k: length of the lists.
        filter_seen: whether items of the history are left out.
        evaluations: as in ``event_shares``.
        shuffled: a network whose weights say nothing, for the orders ``SHUFFLED`` and ``BACKWARDS``.
        seed: of the random order.
    """
    generator = np.random.default_rng(seed)
    names = (SHARES, *OTHERS, *((SHUFFLED, BACKWARDS) if shuffled is not None else ()))
    cuts, agreement = [], []
    everything = np.flatnonzero(allowed)
    for row in np.flatnonzero(histories.lengths > 1):
        history = histories.select(np.array([row])).latest(scorer.window)
        n = len(history.item)
        items = np.setdiff1d(everything, history.item) if filter_seen else everything
        if not len(items):
            continue
        top = items[[int(scorer.scores(history, items)[0].argmax())]]
        own = event_shares(scorer, history, top, evaluations=evaluations).shares[:, 0]
        orders = [
            np.argsort(-own, kind="stable"),
            generator.permutation(n),
            np.arange(n)[::-1],
            np.argsort(-popularity[history.item], kind="stable"),
        ]
        if shuffled is not None:
            strange = event_shares(shuffled, history, top, evaluations=evaluations).shares[:, 0]
            orders += [np.argsort(-strange, kind="stable"), np.argsort(strange, kind="stable")]
            agreement.append(rank_correlation(own, strange))
        cuts.append(_among(scorer, history, items, top, orders, k))
    # [P, 2 kinds, orders, levels]
    among = np.array(cuts).reshape(len(cuts), 2, len(names), len(NUMBERS) + len(TENTHS))
    numbers, tenths = np.split(among, [len(NUMBERS)], axis=3)
    return Fidelity(
        k,
        _curves(NUMBERS, names, numbers),
        _curves(TENTHS, names, tenths),
        np.array(agreement) if shuffled is not None else None,
    )


def _curves(levels: tuple[int, ...], names: tuple[str, ...], among: Curve) -> Curves:
    deletion, insertion = (
        {name: of[:, place] for place, name in enumerate(names)} for of in among.swapaxes(0, 1)
    )
    return Curves(levels, deletion, insertion)


def _among(
    scorer: Scorer, history: Histories, items: IntArray, top: IntArray, orders: Sequence[IntArray], k: int
) -> Curve:
    """Whether the item is among the k best of ``items`` without, and with nothing but, the first events of
    each order, [2, orders, levels]."""
    n = len(history.item)
    taken = np.concatenate([np.minimum(NUMBERS, n), -(-np.array(TENTHS) * n // 10)])[:, None]
    first = np.concatenate([np.argsort(order)[None] < taken for order in orders])
    scores = scorer.scores(subsets(history, np.concatenate([~first, first])), items)
    place = int(np.searchsorted(items, top[0]))
    among: Curve = ((scores > scores[:, [place]]).sum(axis=1) < k).astype(np.float64)
    return among.reshape(2, len(orders), len(taken))


def rank_correlation(one: Curve, other: Curve) -> float:
    """Spearman's, of two rows of numbers; 0 where either says the same of everything."""
    found = pl.select(pl.corr(pl.Series(one), pl.Series(other), method="spearman")).item()
    return float(found) if np.isfinite(found) else 0.0
