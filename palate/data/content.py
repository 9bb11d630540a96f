"""Fields of items as numbers, by what the training items teach and nothing else.

``ContentEncoder.fit`` learns vocabularies, means and tokenizers from the rows it is told are training
items; ``encode`` turns any rows into ``Content``: the whole catalogue, or items that came later. Cells
that cannot be used are counted in the notes and are missing; none stops anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from palate.data.columns import ColumnEncoder, fit_column, plain, restored
from palate.errors import DataError
from palate.schema import BoolArray, Content, Field, FieldKind, FieldShape, Note
from palate.settings import TextSettings


@dataclass(frozen=True)
class ContentEncoder:
    """Everything learned from the training items that turning fields into numbers needs."""

    columns: tuple[ColumnEncoder, ...]
    skipped: tuple[Field, ...] = ()
    """Fields of kinds that have no numbers here: pictures, clips and tracks."""

    @staticmethod
    def fit(
        table: pl.DataFrame, fields: tuple[Field, ...], rows: BoolArray, text: TextSettings
    ) -> ContentEncoder:
        """An encoder that has looked at the rows where ``rows`` is true and at no other.

        Raises:
            DataError: ``rows`` has another length than the table.
        """
        if len(rows) != table.height:
            raise DataError(f"A mask of {len(rows)} rows for a table of {table.height}.")
        training = table.filter(pl.Series(rows, dtype=pl.Boolean))
        fitted = [fit_column(field, _cells(training, field.name), text) for field in fields]
        skipped = tuple(field for field, column in zip(fields, fitted, strict=True) if column is None)
        return ContentEncoder(tuple(column for column in fitted if column is not None), skipped)

    @property
    def shapes(self) -> tuple[FieldShape, ...]:
        return tuple(column.shape for column in self.columns)

    def encode(self, table: pl.DataFrame) -> Content:
        """One row of numbers per row of the table; a column that the table lacks is missing throughout."""
        encoded = [column.encode(_cells(table, column.name)) for column in self.columns]
        notes = [note for _, note in encoded]
        for field in self.skipped:
            notes.append(Note(f"field '{field.name}'", 0, 0, f"kind '{field.kind}' is not read"))
        return Content(table.height, tuple(field for field, _ in encoded), tuple(notes))

    def to_state(self) -> dict[str, Any]:
        """Plain lists, texts and numbers, for JSON."""
        return {
            "columns": [{"kind": str(column.shape.kind)} | plain(column) for column in self.columns],
            "skipped": [{"name": field.name, "kind": str(field.kind)} for field in self.skipped],
        }

    @staticmethod
    def from_state(state: dict[str, Any]) -> ContentEncoder:
        """The encoder that ``to_state`` was taken of."""
        skipped = tuple(Field(each["name"], FieldKind(each["kind"])) for each in state["skipped"])
        return ContentEncoder(tuple(restored(dict(each)) for each in state["columns"]), skipped)


def _cells(table: pl.DataFrame, name: str) -> pl.Series:
    return table[name] if name in table.columns else pl.Series(name, [None] * table.height, dtype=pl.Null)
