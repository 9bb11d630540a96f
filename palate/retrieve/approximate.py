"""Lists of near vectors in front of the exact index: few vectors are compared instead of all.

Items are put into lists around middles found by k-means, and a search looks at the lists whose middles are
nearest (an inverted file: Sivic and Zisserman, ICCV 2003; Jégou, Douze and Schmid, TPAMI 2011), in Faiss. The
lists propose; scores are exact, and so is every search that its filters make narrow. How much is found grows
with the lists that are looked at up to everything, however the vectors lie; a graph of neighbours stops
short where states lie far from the items that they score highest (docs/log.md).

By inner product a vector may be far from itself. So each vector v has one more number, √(L² − |v|²) for the
length L of the longest, and each state a zero: then all vectors are of length L, and the nearest by distance
are those of the highest product (Bachrach et al., RecSys 2014, doi:10.1145/2645710.2645741).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import MissingExtraError
from palate.retrieve.index import Bonus, ExactIndex, Found, Vectors, nothing, positions
from palate.schema import FIRST_ID, BoolArray, FloatArray, IntArray

LISTS_BY_ROOT = 2
"""So many lists, times the square root of the number of items."""
SAMPLE = 40
"""So many items of each list teach where the middles lie,"""
ROUNDS = 8
"""in so many rounds of k-means."""
LANES = 16
"""Numbers that a processor compares at once; Faiss has its quick ways for widths that this divides."""
RESCORED = 64
"""So many proposals at least are scored anew: half precision orders them roughly."""
SLACK = 2
"""Of more results than that, so many times as many."""
AROUND = 16
"""Lists that are looked at hold at least so many items for each proposal: the last of many lie far apart."""
HALF = 2
"""Where more than one in so many lists would be looked at, the search is exact, which takes no longer."""
AT_A_TIME = 1 << 16
"""So many vectors are put into the lists at once."""


class ApproximateIndex(ExactIndex):
    """The best of what the nearest lists propose, scored exactly in float32.

    Where filters refuse items, more are proposed from more lists, and from four times as many while fewer
    than k are left; soon that is an exact search. So k items are found whenever k exist. Items with a bonus
    are always among the candidates.
    """

    def __init__(
        self, vectors_VD: FloatArray, absent: IntArray | None = None, *, lists_file: Path | None = None
    ) -> None:
        """An index of the rows from ``FIRST_ID`` on but the absent ones.

        Args:
            lists_file: the lists of the very same vectors, as ``save_lists`` wrote them; otherwise they are
                worked out, which takes long.

        Raises:
            MissingExtraError: Faiss is not installed.
            DataError: as ``ExactIndex``.
        """
        super().__init__(vectors_VD, absent)
        self._faiss = _faiss()
        self.recall = 1.0
        there = np.flatnonzero(self._present)
        self._longest = _lengths(self._table[there]).max(initial=0.0)
        # Items that came later and are longer have no place in the lists; each search looks at all of them.
        self._outsized = np.zeros(0, np.int64)
        if lists_file is not None:
            self._lists = self._faiss.read_index(str(lists_file))
        else:
            self._lists = self._worked_out(there)
        self.probes = self.lists
        """How many of them a search looks at: more find more, and take longer."""

    @property
    def lists(self) -> int:
        """How many there are."""
        return int(self._lists.nlist)

    def save_lists(self, path: Path) -> None:
        """``path`` holds the lists as they are now."""
        with self.guard.writing():
            self._faiss.write_index(self._lists, str(path))

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

    def _worked_out(self, there: IntArray) -> Any:
        """The lists of these items."""
        number = max(1, min(len(there), int(LISTS_BY_ROOT * len(there) ** 0.5)))
        width = _width(self.width)
        # Half precision halves what a search reads from memory; what it proposes is scored anew in float32.
        lists = self._faiss.IndexIVFScalarQuantizer(
            self._faiss.IndexFlatL2(width),
            width,
            number,
            self._faiss.ScalarQuantizer.QT_fp16,
            self._faiss.METRIC_L2,
            False,  # vectors as they are, not what they differ by from the middles
        )
        lists.cp.niter, lists.cp.min_points_per_centroid = ROUNDS, 1
        sample = np.random.default_rng(0).permutation(there)[: SAMPLE * number]
        lists.train(self._lifted(self._table[sample]) if len(there) else np.zeros((1, width), np.float32))
        for first in range(0, len(there), AT_A_TIME):
            some = there[first : first + AT_A_TIME]
            lists.add_with_ids(self._lifted(self._table[some]), some)
        return lists

    def _search(
        self,
        states: Vectors,
        k: int,
        eligible: BoolArray | None,
        excluded: Sequence[IntArray],
        bonuses: Sequence[Bonus],
    ) -> Found:
        there = self._lists.ntotal
        left = there if eligible is None else int(np.count_nonzero(eligible))
        outsized = self._outsized if eligible is None else self._outsized[eligible[self._outsized]]
        pending = list(range(len(states)))
        refused = [
            np.sort(np.concatenate([avoided, of[0]])) for avoided, of in zip(excluded, bonuses, strict=True)
        ]
        share = there / max(left, 1)
        proposals = math.ceil(share * max(RESCORED, SLACK * (k + max(map(len, refused), default=0))))
        probes = max(self.probes, AROUND * proposals * self.lists // max(there, 1))
        # What is allowed may lie far from the state, so more lists are looked at than would hold as many.
        probes = math.ceil(probes * share**2)
        found = nothing(len(states), k)
        while pending and 0 < probes * HALF <= self.lists:
            short = []
            near = self._near(states[pending], min(proposals, there), probes)
            for row, proposed in zip(pending, near, strict=True):
                left_over = proposed if eligible is None else proposed[eligible[proposed]]
                left_over = np.concatenate([left_over, outsized])
                left_over = left_over[~positions(refused[row], left_over)[1]]
                if len(left_over) < k:
                    short.append(row)
                    continue
                raised = self._raised(eligible, excluded[row], bonuses[row])
                self._rank(found, row, states[row], left_over, raised)
            pending, proposals, probes = short, proposals * 4, probes * 4
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

    def _near(self, states: Vectors, count: int, probes: int) -> list[IntArray]:
        """For each state, the ids of so many items, or fewer, that so many lists hold for the nearest."""
        lengths = np.maximum(_lengths(states), 1e-12)
        # The order is the same for a state of any length; one like the items' loses the fewest digits.
        directed = np.zeros((len(states), _width(self.width)), np.float32)
        directed[:, : self.width] = states * (self._longest / lengths)
        self._faiss.omp_set_num_threads(1)  # of the thread that calls: others search at the same time
        ids = self._lists.search(directed, count, params=self._faiss.SearchParametersIVF(nprobe=probes))[1]
        return [row[row >= 0] for row in ids]

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
            self._faiss.omp_set_num_threads(1)
            self._lists.add_with_ids(self._lifted(rows[~too_long]), ids[~too_long])

    def _unset(self, ids: IntArray) -> None:
        super()._unset(ids)
        self._forget(ids)

    def _forget(self, ids: IntArray) -> None:
        """The lists do not propose these items any more."""
        outsized = np.isin(ids, self._outsized)
        if outsized.any():
            self._outsized = np.setdiff1d(self._outsized, ids)
        if not outsized.all():
            # Where each item stands is worked out once, when the first one goes.
            self._lists.set_direct_map_type(self._faiss.DirectMap.Hashtable)
            self._lists.remove_ids(ids[~outsized])

    def _lifted(self, rows: Vectors) -> Vectors:
        """The vectors with the number that makes them as long as the longest, and zeros."""
        found = np.zeros((len(rows), _width(self.width)), np.float32)
        found[:, : self.width] = rows
        found[:, self.width] = np.sqrt(np.maximum(self._longest**2 - _lengths(rows)[:, 0] ** 2, 0.0))
        return found


def _lengths(rows: Vectors) -> Vectors:
    """[rows, 1]"""
    found: Vectors = np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def _width(width: int) -> int:
    """Of the vectors in the lists."""
    return -(-(width + 1) // LANES) * LANES


def _faiss() -> Any:
    """The library, which is imported only where there is such an index."""
    # At every start it would tell which of its builds it has tried to load.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("Faiss", "serve") from None
    return faiss
