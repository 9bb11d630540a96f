"""Whether reasons are faithful: what happens to a recommendation when the events they name go, or come.

Deletion: the events of a history are taken away, those with the largest shares first; if the shares are right
the recommended item leaves the top k early. Insertion: into an empty history the same events come first; the
item should enter the top k early (Petsiuk, Das and Saenko, "RISE", 2018, of pixels). Both are compared with
taking the events at random, latest first, and most popular first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.explain.events import EVALUATIONS, Scorer, event_shares, subsets
from palate.schema import BoolArray, Histories, IntArray

LEVELS = tuple(step / 10 for step in range(1, 10))
"""Shares of the history that are taken away, or put in."""
SHARES = "shares"
OTHERS = ("random", "recency", "popularity")
"""The orders that shares are compared with."""
SHUFFLED = "shuffled"
"""The order by the shares of a network whose weights say nothing. Were it as good, shares would not speak of
what was learned (Adebayo et al., "Sanity checks for saliency maps", 2018)."""

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """By order of the events, whether each of P people's first recommendation is among the k best."""

    k: int
    deletion: Mapping[str, Curve]
    """float64 [P, LEVELS], 1 where it still is; a low curve is a faithful one."""
    insertion: Mapping[str, Curve]
    """float64 [P, LEVELS], 1 where it is already; a high curve is a faithful one."""

    def area(self, kind: str, order: str) -> Curve:
        """Of each person the mean over the levels, float64 [P]; ``kind`` is deletion or insertion."""
        curves = {"deletion": self.deletion, "insertion": self.insertion}[kind]
        found: Curve = curves[order].mean(axis=1)
        return found


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
        shuffled: a network whose weights say nothing, for the order ``SHUFFLED``.
        seed: of the random order.
    """
    generator = np.random.default_rng(seed)
    orders = (SHARES, *OTHERS, *([SHUFFLED] if shuffled is not None else []))
    deletion: dict[str, list[Curve]] = {name: [] for name in orders}
    insertion: dict[str, list[Curve]] = {name: [] for name in orders}
    everything = np.flatnonzero(allowed)
    for row in np.flatnonzero(histories.lengths > 1):
        history = histories.select(np.array([row])).latest(scorer.window)
        n = len(history.item)
        items = np.setdiff1d(everything, history.item) if filter_seen else everything
        if not len(items):
            continue
        place = int(scorer.scores(history, items)[0].argmax())
        top = items[[place]]
        by_order = {
            SHARES: _by_shares(scorer, history, top, evaluations),
            "random": generator.permutation(n),
            "recency": np.arange(n)[::-1],
            "popularity": np.argsort(-popularity[history.item], kind="stable"),
        }
        if shuffled is not None:
            by_order[SHUFFLED] = _by_shares(shuffled, history, top, evaluations)
        taken = np.ceil(np.array(LEVELS) * n)[:, None]
        first = np.concatenate([np.argsort(order)[None] < taken for order in by_order.values()])
        scores = scorer.scores(subsets(history, np.concatenate([~first, first])), items)
        among = ((scores > scores[:, [place]]).sum(axis=1) < k).astype(np.float64)
        cut = among.reshape(2, len(orders), len(LEVELS))
        for number, name in enumerate(by_order):
            deletion[name].append(cut[0, number])
            insertion[name].append(cut[1, number])
    shape = (-1, len(LEVELS))
    return Fidelity(
        k,
        {name: np.array(rows).reshape(shape) for name, rows in deletion.items()},
        {name: np.array(rows).reshape(shape) for name, rows in insertion.items()},
    )


def _by_shares(scorer: Scorer, history: Histories, item: IntArray, evaluations: int) -> IntArray:
    """The events, those with the largest shares in the item's score first."""
    found = event_shares(scorer, history, item, evaluations=evaluations)
    return np.argsort(-found.shares[:, 0], kind="stable")
