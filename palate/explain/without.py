"""What would have to be undone: the smallest set of past events without which an item leaves the top k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb

import numpy as np

from palate.errors import DataError
from palate.explain.events import Scorer, event_shares, subsets
from palate.schema import BoolArray, Histories, IntArray

LIMIT = 4000
"""Sets that are tried to prove that no smaller one does, at most."""
SCORES_AT_A_TIME = 4_000_000
SETS_AT_A_TIME = 256


@dataclass(frozen=True)
class Without:
    """Events whose absence takes an item out of the top k."""

    events: IntArray | None
    """Places in the history, in order; None where no set was found whose absence does."""
    proven: bool
    """Every smaller set was tried, and none does; where none was found, every set."""


def without(
    scorer: Scorer, history: Histories, item: int, candidates: IntArray, *, k: int, limit: int = LIMIT
) -> Without:
    """The smallest set that was found.

    Found by taking away the events with the largest shares until the item leaves, and giving back each that
    was not needed; then sets of fewer events are tried, the smallest first, as far as ``limit`` allows.

    Args:
        scorer: what gives the scores.
        history: one row.
        item: id of the item, one of ``candidates``.
        candidates: int64 ids, each once, of what may be recommended.
        k: length of the list.
        limit: sets to try.

    Raises:
        DataError: the item is not among the k best to begin with.
    """
    n, place = len(history.item), int(np.flatnonzero(candidates == item)[0])

    def leaves(kept: BoolArray) -> BoolArray:
        """Of each set of events, whether the item is not among the k best."""
        rows = max(1, SCORES_AT_A_TIME // len(candidates))
        found = []
        for start in range(0, len(kept), rows):
            scores = scorer.scores(subsets(history, kept[start : start + rows]), candidates)
            found.append((scores > scores[:, [place]]).sum(axis=1) >= k)
        return np.concatenate(found)

    everything = np.ones((1, n), np.bool_)
    if leaves(everything)[0]:
        raise DataError(f"The item is not among the {k} best of this history, so it cannot leave them.")
    order = np.argsort(-event_shares(scorer, history, candidates[[place]]).shares[:, 0], kind="stable")
    rank = np.argsort(order)
    left = leaves(rank >= np.arange(1, n + 1)[:, None]) if n else np.zeros(0, np.bool_)
    chosen = order[: int(left.argmax()) + 1].tolist() if left.any() else []
    for event in reversed(chosen[:]):
        fewer = [other for other in chosen if other != event]
        if fewer and leaves(_all_but(n, [fewer]))[0]:
            chosen = fewer
    best = np.sort(np.array(chosen)) if chosen else None
    for size in range(1, len(chosen) if chosen else n + 1):
        if comb(n, size) > limit:
            return Without(best, proven=False)
        limit -= comb(n, size)
        sets = combinations(order.tolist(), size)
        while some := list(islice(sets, SETS_AT_A_TIME)):
            found = leaves(_all_but(n, some))
            if found.any():
                return Without(np.sort(np.array(some[int(found.argmax())])), proven=True)
    return Without(best, proven=True)


def _all_but(n: int, sets: Sequence[Sequence[int]]) -> BoolArray:
    """The sets of the n events that these leave, bool [sets, n]."""
    kept = np.ones((len(sets), n), np.bool_)
    np.put_along_axis(kept, np.array(sets), False, axis=1)
    return kept
