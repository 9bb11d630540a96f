"""What rules know of items: which may be shown, which are new, and what their fields say.

It changes while requests run; each change is counted, so that whatever was worked out before is done anew.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.prepared import Prepared
from palate.errors import SettingsError, did_you_mean
from palate.schema import FIRST_ID, BoolArray, FieldKind, IdMap, IntArray, Schema

LABELS = (FieldKind.CATEGORY, FieldKind.CATEGORIES)
"""Kinds of fields that rules may ask for a value."""


class LabelColumn:
    """The labels of each item: none, one or several.

    Items with the same labels share a combination, so that all items that have a label are found by one look
    into a short table of combinations.
    """

    def __init__(self, cells: Iterable[Any], rows: int) -> None:
        self.values: dict[str, int] = {}
        """Code of each label."""
        self._combination = np.zeros(rows, np.int32)  # [V]
        self._labels: list[tuple[int, ...]] = [()]
        self._number: dict[tuple[int, ...], int] = {(): 0}
        self._having: list[list[int]] = []
        # A combination that is looked up has to be in the table, so nobody adds one meanwhile.
        self._changing = threading.Lock()
        for row, cell in enumerate(cells):
            if cell is not None:
                self._combination[row] = self._number_of(cell)

    def labels_of(self, item: int) -> tuple[int, ...]:
        """Codes of the item's labels."""
        return self._labels[int(self._combination[item])]

    def mask(self, codes: Iterable[int]) -> BoolArray:
        """[V]: the item has one of these labels."""
        with self._changing:
            found = np.zeros(len(self._labels), np.bool_)
            for code in codes:
                found[self._having[code]] = True
            return found[self._combination]

    def codes(self, labels: Iterable[str]) -> list[int]:
        """Of those labels that any item has ever had."""
        return [self.values[label] for label in labels if label in self.values]

    def put(self, item: int, cell: Any) -> None:
        """The item has the labels of the cell."""
        with self._changing:
            self._combination[item] = 0 if cell is None else self._number_of(cell)

    def grow(self, rows: int) -> None:
        """There are so many items; those that come have no labels."""
        with self._changing:
            self._combination = _grown(self._combination, rows, 0)

    def _number_of(self, cell: Any) -> int:
        labels = (cell,) if isinstance(cell, str) else tuple(cell)
        codes = tuple(sorted({self.values.setdefault(label, len(self.values)) for label in labels}))
        if codes not in self._number:
            self._having += [[] for _ in range(len(self.values) - len(self._having))]
            self._labels.append(codes)
            for code in codes:
                self._having[code].append(len(self._labels) - 1)
            self._number[codes] = len(self._labels) - 1
        return self._number[codes]


class Catalogue:
    """Items by id, as rules see them."""

    def __init__(
        self, items: IdMap, table: pl.DataFrame, schema: Schema, *, allowed: BoolArray, new: BoolArray
    ) -> None:
        """A catalogue of V items.

        Args:
            items: keys of the items, for rules that name them.
            table: V rows, the first two of them null, cleaned; a column for each field of labels or numbers.
            allowed: [V], the items that may be shown at all.
            new: [V], the items that count as new.
        """
        self.items = items
        self.later: dict[str, int] = {}
        """Ids of the items that came after ``items`` was made, by key; of one that came twice, the last."""
        self.kinds = {field.name: field.kind for field in schema.fields}
        self.events = schema.events
        self.has_time = schema.has_time
        self.version = 0
        """Counts the changes."""
        self._allowed = allowed.copy()
        self._allowed[:FIRST_ID] = False
        self._new = new.copy()
        self._columns = {
            name: LabelColumn(table[name].to_list(), table.height)
            for name, kind in self.kinds.items()
            if kind in LABELS
        }
        self._numbers = {
            name: table[name].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
            for name, kind in self.kinds.items()
            if kind == FieldKind.NUMBER
        }
        self.unchanging = threading.Lock()
        """Held by whoever changes the catalogue, and by whoever reads whole columns of it."""

    @classmethod
    def of(cls, prepared: Prepared, allowed: BoolArray) -> Self:
        """The items of prepared data, new where they have no training event."""
        return cls(prepared.items, prepared.catalogue, prepared.schema, allowed=allowed, new=~prepared.warm)

    @property
    def size(self) -> int:
        """V."""
        return len(self._allowed)

    def allowed(self) -> BoolArray:
        """[V], a copy: the items that may be shown."""
        return self._allowed.copy()

    def new(self) -> BoolArray:
        """[V], a copy: the items that count as new."""
        return self._new.copy()

    def is_allowed(self, item: int) -> bool:
        """Whether the item may be shown; one beyond the end may not."""
        return item < self.size and bool(self._allowed[item])

    def is_new(self, item: int) -> bool:
        """Whether the item counts as new; one beyond the end does."""
        return item >= self.size or bool(self._new[item])

    def labels(self, name: str) -> LabelColumn:
        """The column of a field of labels.

        Raises:
            SettingsError: there is none of this name.
        """
        if name not in self._columns:
            raise _no_field(name, self.kinds, self._columns, "category or categories")
        return self._columns[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """[V]: the values of a field of numbers, NaN where it has none.

        Raises:
            SettingsError: there is none of this name.
        """
        if name not in self._numbers:
            raise _no_field(name, self.kinds, self._numbers, "number")
        return self._numbers[name]

    def put(
        self,
        ids: IntArray,
        table: pl.DataFrame,
        *,
        new: bool,
        shown: bool = True,
        keys: Sequence[str] = (),
    ) -> None:
        """The fields of these items say what the table says; fields it does not have stay.

        Args:
            ids: of the rows of the table; those beyond the end make the catalogue longer.
            new: whether they count as new.
            shown: whether they may be shown.
            keys: by which rules may name them, where ``items`` does not have them.
        """
        items = np.asarray(ids, np.int64)
        with self.unchanging:
            self.later.update(zip(keys, items.tolist(), strict=bool(keys)))
            self._grow(int(items.max(initial=-1)) + 1)
            for name in set(table.columns) & self._columns.keys():
                for item, cell in zip(items.tolist(), table[name].to_list(), strict=True):
                    self._columns[name].put(item, cell)
            for name in set(table.columns) & self._numbers.keys():
                self._numbers[name][items] = table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            self._allowed[items] = shown
            self._new[items] = new
            self.version += 1

    def hide(self, ids: IntArray) -> None:
        """These items are shown to nobody."""
        self._show(ids, False)

    def show(self, ids: IntArray) -> None:
        """These items, which were hidden, may be shown."""
        self._show(ids, True)

    def _show(self, ids: IntArray, allowed: bool) -> None:
        with self.unchanging:
            self._allowed[ids] = allowed
            self.version += 1

    def _grow(self, rows: int) -> None:
        if rows > self.size:
            for column in self._columns.values():
                column.grow(rows)
            self._numbers = {name: _grown(of, rows, np.nan) for name, of in self._numbers.items()}
            self._new = _grown(self._new, rows, False)
            self._allowed = _grown(self._allowed, rows, False)


def _grown(column: npt.NDArray[Any], rows: int, missing: float) -> npt.NDArray[Any]:
    longer = np.full(rows, missing, column.dtype)
    longer[: len(column)] = column
    return longer


def _no_field(name: str, kinds: Collection[str], fitting: Collection[str], kind: str) -> SettingsError:
    if name in kinds:
        return SettingsError(f"The field '{name}' is not of kind {kind}. {did_you_mean(name, fitting)}")
    return SettingsError(f"'{name}' is no field of the items. {did_you_mean(name, fitting)}")
