"""A graph of near neighbours in front of the exact index: few vectors are compared instead of all.

The graph is the hierarchical navigable small world of Malkov and Yashunin (arXiv:1603.09320), in USearch. It
proposes; scores are exact, and so is every search that its filters make narrow.

By inner product a vector may be far from itself, and a graph of such neighbours leads nowhere where items
lie in groups. So each vector v has one more number, √(L² − |v|²) for the length L of the longest, and each
state a zero: then all vectors are of length L, and the nearest by distance are those of the highest product
(Bachrach et al., RecSys 2014, doi:10.1145/2645710.2645741).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import MissingExtraError
from palate.retrieve.index import Bonus, ExactIndex, Found, Vectors, nothing, positions
from palate.schema import FIRST_ID, BoolArray, FloatArray, IntArray

NEIGHBOURS = 32
"""Edges of each item in each layer; the lowest has twice as many."""
CARE = 256
"""Candidates kept while an item finds its place in the graph."""
RESCORED = 64
"""So many proposals at least are scored anew, if so many are kept: half precision orders them roughly."""
SLACK = 2
"""The last of many proposals are less sure to be the next best, so more are asked for than are needed, unless
the search keeps so many candidates anyway."""
MOST_PROPOSED = 1024
"""Where more proposals than this would be needed, an exact search is asked instead."""


class ApproximateIndex(ExactIndex):
    """The best of what the graph proposes, scored exactly in float32.

    It asks for as many more proposals as filters are likely to refuse, and for four times as many while fewer
    than k are left; where that is more than ``MOST_PROPOSED``, the search is exact. So k items are found
    whenever k exist. Items with a bonus are always among the candidates.
    """

    def __init__(
        self, vectors_VD: FloatArray, absent: IntArray | None = None, *, graph_file: Path | None = None
    ) -> None:
        """An index of the rows from ``FIRST_ID`` on but the absent ones.

        Args:
            graph_file: the graph of the very same vectors, as ``save_graph`` wrote it; otherwise it is built,
                which takes long.

        Raises:
            MissingExtraError: USearch is not installed.
            DataError: as ``ExactIndex``.
        """
        super().__init__(vectors_VD, absent)
        self.recall = 1.0
        there = np.flatnonzero(self._present)
        self._longest = _lengths(self._table[there]).max(initial=0.0)
        # Items that came later and are longer have no place in the graph; each search looks at all of them.
        self._outsized = np.zeros(0, np.int64)
        self._graph = _empty_graph(self.width + 1)
        # USearch gives each of its own threads a place to work in, and knows nothing of those of the caller.
        self._one_at_a_time = threading.Lock()
        if graph_file is not None:
            self._graph.load(str(graph_file))
        else:
            self._graph.add(there.astype(np.uint64), self._lifted(self._table[there]), threads=1)

    @property
    def expansion(self) -> int:
        """Candidates kept while the graph is searched: more find more, and take longer."""
        return int(self._graph.expansion_search)

    @expansion.setter
    def expansion(self, candidates: int) -> None:
        self._graph.expansion_search = candidates

    def save_graph(self, path: Path) -> None:
        """``path`` holds the graph as it is now."""
        with self.guard.writing():
            self._graph.save(str(path))

    def search_exactly(self, states_BD: FloatArray, k: int) -> Found:
        """What an exact search finds, to compare with."""
        states = np.ascontiguousarray(states_BD, np.float32)
        none, nothing_more = np.zeros(0, np.int64), np.zeros(0, np.float32)
        with self.guard.reading():
            return super()._search(
                states,
                k,
                self._eligible(None),
                [none] * len(states),
                [(none, nothing_more)] * len(states),
            )

    def _search(
        self,
        states: Vectors,
        k: int,
        eligible: BoolArray | None,
        excluded: Sequence[IntArray],
        bonuses: Sequence[Bonus],
    ) -> Found:
        there = len(self._graph)
        left = there if eligible is None else int(np.count_nonzero(eligible))
        outsized = self._outsized if eligible is None else self._outsized[eligible[self._outsized]]
        pending = list(range(len(states)))
        refused = [
            np.sort(np.concatenate([avoided, of[0]])) for avoided, of in zip(excluded, bonuses, strict=True)
        ]
        proposals = -(-(k + max(map(len, refused), default=0)) * there // max(left, 1))
        if proposals * SLACK > self.expansion:
            proposals *= SLACK
        proposals = max(proposals, min(RESCORED, self.expansion, there))
        found = nothing(len(states), k)
        while pending and 0 < proposals <= min(MOST_PROPOSED, there):
            short = []
            for row, proposed in zip(pending, self._near(states[pending], proposals), strict=True):
                left_over = proposed if eligible is None else proposed[eligible[proposed]]
                left_over = np.concatenate([left_over, outsized])
                left_over = left_over[~positions(refused[row], left_over)[1]]
                if len(left_over) < k:
                    short.append(row)
                    continue
                raised = self._raised(eligible, excluded[row], bonuses[row])
                self._rank(found, row, states[row], left_over, raised)
            pending, proposals = short, proposals * 4
        if pending:
            rest = super()._search(
                states[pending],
                k,
                eligible,
                [excluded[row] for row in pending],
                [bonuses[row] for row in pending],
            )
            found.ids[pending], found.scores[pending] = rest
        return found

    def _near(self, states: Vectors, count: int) -> list[IntArray]:
        """For each state, the ids of so many items that the graph holds for the nearest."""
        lengths = np.maximum(_lengths(states), 1e-12)
        # The order is the same for a state of any length; one like the items' loses the fewest digits.
        directed = states * (self._longest / lengths)
        directed = np.concatenate([directed, np.zeros((len(states), 1), np.float32)], axis=1)
        with self._one_at_a_time:
            matches = self._graph.search(directed, count, threads=1)
        if len(states) == 1:
            return [matches.keys.astype(np.int64)]
        return [
            keys[:number].astype(np.int64) for keys, number in zip(matches.keys, matches.counts, strict=True)
        ]

    def _raised(self, eligible: BoolArray | None, excluded: IntArray, bonus: Bonus) -> Bonus:
        """Those of the items with a bonus that may be found."""
        items, values = bonus
        kept = (items >= FIRST_ID) & (items < self._size)
        if eligible is not None:
            kept[kept] = eligible[items[kept]]
        kept &= ~positions(np.sort(excluded), items)[1]
        return items[kept], np.asarray(values, np.float32)[kept]

    def _rank(self, found: Found, row: int, state: Vectors, proposed: IntArray, raised: Bonus) -> None:
        """The row of ``found`` has the best of the proposed and the raised items."""
        ids = np.concatenate([proposed, raised[0]])
        scores = self._table[ids] @ state
        scores[len(proposed) :] += raised[1]
        order = np.lexsort((ids, -scores))[: found.ids.shape[1]]
        order = order[scores[order] > -np.inf]
        found.ids[row, : len(order)] = ids[order]
        found.scores[row, : len(order)] = scores[order]

    def _set(self, ids: IntArray, rows: Vectors) -> None:
        self._forget(ids[self._present[ids]])
        super()._set(ids, rows)
        too_long = _lengths(rows)[:, 0] > self._longest
        self._outsized = np.concatenate([self._outsized, ids[too_long]])
        if not too_long.all():
            self._graph.add(ids[~too_long].astype(np.uint64), self._lifted(rows[~too_long]), threads=1)

    def _unset(self, ids: IntArray) -> None:
        super()._unset(ids)
        self._forget(ids)

    def _forget(self, ids: IntArray) -> None:
        """The graph does not propose these items any more."""
        outsized = np.isin(ids, self._outsized)
        if outsized.any():
            self._outsized = np.setdiff1d(self._outsized, ids)
        if not outsized.all():
            self._graph.remove(ids[~outsized].astype(np.uint64))

    def _lifted(self, rows: Vectors) -> Vectors:
        """The vectors with the number that makes them as long as the longest."""
        missing = np.sqrt(np.maximum(self._longest**2 - _lengths(rows) ** 2, 0.0))
        found: Vectors = np.concatenate([rows, missing], axis=1, dtype=np.float32)
        return found


def _lengths(rows: Vectors) -> Vectors:
    """[rows, 1]"""
    found: Vectors = np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def _empty_graph(width: int) -> Any:
    try:
        from usearch.index import Index as Graph
    except ImportError:
        raise MissingExtraError("USearch", "serve") from None
    # Half precision halves what a search reads from memory; what it proposes is scored anew in float32.
    return Graph(ndim=width, metric="l2sq", dtype="f16", connectivity=NEIGHBOURS, expansion_add=CARE)
