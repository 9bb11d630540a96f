"""Which items score highest for a state: the contract of every index, and the exact one.

The score of an item is the product of the state and the item's vector, and a bonus for some items of some
rows (``palate.nn.again``). Beyond the letters of ``palate.schema``: k results of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from palate.errors import DataError
from palate.retrieve.best import best, room
from palate.retrieve.guard import Guard
from palate.schema import FIRST_ID, BoolArray, FloatArray, IntArray

Vectors = npt.NDArray[np.float32]
Bonus = tuple[IntArray, FloatArray]
"""Ids of distinct items of one row, and what each one's score is raised by."""

NOBODY = -1
"""Stands in a list where nothing more was found."""

MOST_SCORES = 1 << 24
"""So many scores are held at once."""
NARROW = 4
"""Where less than one in so many items is allowed, their vectors are gathered, and no others multiplied."""
AT_ONCE = 256
"""So many vectors are written while searches wait."""


class Found(NamedTuple):
    """The best items of B rows, best first, equal scores by id."""

    ids: npt.NDArray[np.int32]  # [B, k], −1 where fewer exist
    scores: npt.NDArray[np.float32]  # [B, k], −∞ there


class Searchable(Protocol):
    """Whatever gives the best items for a state."""

    def search(
        self,
        states_BD: FloatArray,
        k: int,
        *,
        allowed: BoolArray | None = None,
        excluded: Sequence[IntArray] | None = None,
        bonuses: Sequence[Bonus] | None = None,
    ) -> Found:
        """The k best items of each row.

        Args:
            allowed: by id, the only items that may be found; ids beyond its end may not. None allows all.
            excluded: for each row, ids that may not be found.
            bonuses: for each row, items whose scores are raised.
        """


class Index(Searchable, Protocol):
    """Items found by their vectors, which may come, change and go while others search.

    A search sees each of a change's vectors whole or not at all. Nothing is found that was never added, or
    was removed. Reserved ids are no items.
    """

    recall: float
    """Share of the exact ten best that a search finds, measured on a sample when the index was built."""

    @property
    def size(self) -> int:
        """One more than the highest id."""

    def __len__(self) -> int:
        """Items that can be found."""

    def contents(self) -> tuple[BoolArray, Vectors]:
        """By id, whether the item is there, and its vector; as they are now, not copied."""

    def vectors_of(self, ids: IntArray) -> Vectors:
        """float32 [n, D], a copy; of items that were removed, the vectors they had.

        Raises:
            DataError: an id is beyond the end.
        """

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """These items can be found from now on.

        Raises:
            DataError: an id is reserved, comes twice or is there already; vectors of another shape or not
                finite.
        """

    def replace(self, ids: IntArray, vectors: FloatArray) -> None:
        """These items, which are there, have other vectors from now on.

        Raises:
            DataError: an id is not there or comes twice; vectors as for ``add``.
        """

    def remove(self, ids: IntArray) -> None:
        """These items cannot be found any more; ``add`` brings them back.

        Raises:
            DataError: an id is not there or comes twice.
        """


class ExactIndex:
    """All scores by matrix product in float32, and the best of them."""

    recall = 1.0

    def __init__(self, vectors_VD: FloatArray, absent: IntArray | None = None) -> None:
        """An index of the rows of ``vectors_VD`` from ``FIRST_ID`` on, but of the ``absent`` ids.

        The array is kept and only read; the first change copies it.

        Raises:
            DataError: not a table of finite numbers, or an absent id that is not in it.
        """
        table = np.ascontiguousarray(vectors_VD, np.float32)
        if table.ndim != 2 or not np.isfinite(table).all():
            raise DataError(
                f"Vectors of shape {np.shape(vectors_VD)}; wanted a table [V, D] of finite numbers."
            )
        self.guard = Guard()
        self._table = table.view()
        self._table.flags.writeable = False
        self._size = len(table)
        self._present = np.ones(self._size, np.bool_)
        self._present[:FIRST_ID] = False
        if absent is not None:
            self._check_range(np.asarray(absent))
            self._present[absent] = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def width(self) -> int:
        """D."""
        return int(self._table.shape[1])

    def __len__(self) -> int:
        return int(np.count_nonzero(self._present))

    def vectors_of(self, ids: IntArray) -> Vectors:
        wanted = np.asarray(ids, np.int64)
        with self.guard.reading():
            self._check_range(wanted)
            return self._table[wanted]

    def search(
        self,
        states_BD: FloatArray,
        k: int,
        *,
        allowed: BoolArray | None = None,
        excluded: Sequence[IntArray] | None = None,
        bonuses: Sequence[Bonus] | None = None,
    ) -> Found:
        """As ``Index`` says.

        Raises:
            DataError: states of another width or not finite, k below 1, or as many rows of ``excluded`` or
                ``bonuses`` as there are not states.
        """
        states = np.ascontiguousarray(states_BD, np.float32)
        if states.ndim != 2 or states.shape[1] != self.width or not np.isfinite(states).all():
            raise DataError(
                f"States of shape {states.shape}; wanted finite numbers of shape [B, {self.width}]."
            )
        if k < 1:
            raise DataError(f"k is {k}; wanted at least 1.")
        for name, given in (("excluded", excluded), ("bonuses", bonuses)):
            if given is not None and len(given) != len(states):
                raise DataError(f"{name} has {len(given)} rows; wanted one for each of {len(states)} states.")
        avoided = [np.asarray(ids) for ids in excluded] if excluded is not None else [_NONE] * len(states)
        raised = list(bonuses) if bonuses is not None else [(_NONE, _NOTHING)] * len(states)
        with self.guard.reading():
            return self._search(states, k, self._eligible(allowed), avoided, raised)

    def contents(self) -> tuple[BoolArray, Vectors]:
        """By id, whether the item is there, and its vector; as they are now, not copied."""
        return self._present, self._table[: self._size]

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        self._write(ids, vectors, new=True)

    def replace(self, ids: IntArray, vectors: FloatArray) -> None:
        self._write(ids, vectors, new=False)

    def remove(self, ids: IntArray) -> None:
        gone = np.asarray(ids, np.int64)
        with self.guard.writing():
            self._check_known(gone)
            self._unset(gone)

    def _search(
        self,
        states: Vectors,
        k: int,
        eligible: BoolArray | None,
        excluded: Sequence[IntArray],
        bonuses: Sequence[Bonus],
    ) -> Found:
        """The search itself, while nobody writes."""
        found = nothing(len(states), k)
        table, ids = self._table[: self._size], None
        if eligible is not None and np.count_nonzero(eligible) * NARROW < self._size:
            ids = np.flatnonzero(eligible)
            table, eligible = table[ids], None
        step = max(1, MOST_SCORES // max(len(table), 1))
        for first in range(0, len(states), step):
            rows = range(first, min(first + step, len(states)))
            scores = room(len(table), len(rows))
            np.matmul(table, states[first : first + step].T, out=scores[: len(table)])
            if eligible is not None:
                scores[np.flatnonzero(~eligible)] = -np.inf
            elif ids is None:
                scores[:FIRST_ID] = -np.inf
            for column, row in enumerate(rows):
                items, values = bonuses[row]
                at, known = self._places(items, ids)
                scores[at, column] += np.asarray(values, np.float32)[known]
                scores[self._places(excluded[row], ids)[0], column] = -np.inf
            for row, column, top in zip(rows, scores.T, best(scores, k), strict=True):
                found.ids[row, : len(top)] = top if ids is None else ids[top]
                found.scores[row, : len(top)] = column[top]
        return found

    def _places(self, items: IntArray, ids: IntArray | None) -> tuple[IntArray, BoolArray]:
        """Where those of the items stand that are among the ids (None: all up to the end); which they are."""
        if ids is None:
            known = (items >= 0) & (items < self._size)
            return items[known], known
        return positions(ids, items)

    def _eligible(self, allowed: BoolArray | None) -> BoolArray | None:
        """By id, what may be found; None where that is everything from ``FIRST_ID`` on."""
        if allowed is None:
            return None if self._present[FIRST_ID:].all() else self._present
        if len(allowed) >= self._size:
            return self._present & allowed[: self._size]
        eligible = np.zeros(self._size, np.bool_)
        np.logical_and(self._present[: len(allowed)], allowed, out=eligible[: len(allowed)])
        return eligible

    def _write(self, ids: IntArray, vectors: FloatArray, *, new: bool) -> None:
        items, rows = np.asarray(ids, np.int64), np.asarray(vectors, np.float32)
        if rows.shape != (len(items), self.width) or not np.isfinite(rows).all():
            raise DataError(
                f"Vectors of shape {rows.shape} for {len(items)} items; wanted finite numbers of shape "
                f"({len(items)}, {self.width})."
            )
        with self.guard.writing():
            if new:
                self._check_new(items)
                self._make_room(int(items.max(initial=-1)) + 1)
            else:
                self._check_known(items)
                self._make_room(self._size)
        for first in range(0, len(items), AT_ONCE):
            with self.guard.writing():
                self._set(items[first : first + AT_ONCE], rows[first : first + AT_ONCE])

    def _set(self, ids: IntArray, rows: Vectors) -> None:
        """These items have these vectors; while nobody reads."""
        self._table[ids] = rows
        self._present[ids] = True

    def _unset(self, ids: IntArray) -> None:
        """These items are gone; while nobody reads."""
        self._present[ids] = False

    def _make_room(self, size: int) -> None:
        """The table may be written and has at least so many rows; it grows by half, to be copied seldom."""
        if size > len(self._table) or not self._table.flags.writeable:
            spare = max(size, self._size * 3 // 2) if size > self._size else self._size
            table = np.zeros((spare, self.width), np.float32)
            table[: self._size] = self._table[: self._size]
            self._table = table
        if size > self._size:
            more = np.zeros(size - self._size, np.bool_)
            self._present = np.concatenate([self._present, more])
            self._size = size

    def _check_range(self, ids: IntArray) -> None:
        if ids.size and (ids.min() < 0 or ids.max() >= self._size):
            raise DataError(f"Ids run from {ids.min()} to {ids.max()}; the index ends at {self._size - 1}.")

    def _check_new(self, ids: IntArray) -> None:
        _check_distinct(ids)
        if ids.size and ids.min() < FIRST_ID:
            raise DataError(f"Id {ids.min()} is reserved; items have ids from {FIRST_ID} on.")
        known = ids[ids < self._size]
        there = known[self._present[known]]
        if there.size:
            raise DataError(f"Ids are in the index already: {_named(there)}. Use replace.")

    def _check_known(self, ids: IntArray) -> None:
        _check_distinct(ids)
        inside = (ids >= 0) & (ids < self._size)
        known = np.zeros(len(ids), np.bool_)
        known[inside] = self._present[ids[inside]]
        if not known.all():
            raise DataError(f"Ids are not in the index: {_named(ids[~known])}. Add them first.")


def nothing(rows: int, k: int) -> Found:
    """Lists in which nothing was found."""
    return Found(np.full((rows, k), NOBODY, np.int32), np.full((rows, k), -np.inf, np.float32))


def positions(ids: IntArray, items: IntArray) -> tuple[IntArray, BoolArray]:
    """Where those of the items stand that are among the sorted ids, and which of the items they are."""
    if not len(ids):
        return _NONE, np.zeros(len(items), np.bool_)
    at = np.minimum(np.searchsorted(ids, items), len(ids) - 1)
    known: BoolArray = ids[at] == items
    return at[known], known


def _check_distinct(ids: IntArray) -> None:
    if len(np.unique(ids)) < len(ids):
        raise DataError("An id comes twice; wanted each once.")


def _named(ids: IntArray) -> str:
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")


_NONE = np.zeros(0, np.int64)
_NOTHING = np.zeros(0, np.float32)
