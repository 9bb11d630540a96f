"""Fields of items as numbers, by what the training items teach and nothing else.

``ContentEncoder.fit`` learns vocabularies, means and tokenizers from the rows it is told are training
items; ``encode`` turns any rows into ``Content``: the whole catalogue, or items that came later. Cells
that cannot be used are counted in the notes and are missing; none stops anything. Pictures, clips and
tracks come decoded, as ``Media``, beside the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from palate.data.columns import ColumnEncoder, MediaColumn, fit_column, plain, restored
from palate.errors import DataError
from palate.schema import MEDIA, BoolArray, Content, EncodedField, Field, FieldKind, FieldShape, Media, Note
from palate.settings import TextSettings

NO_MEDIA: Mapping[str, Media] = {}


@dataclass(frozen=True)
class ContentEncoder:
    """Everything learned from the training items that turning fields into numbers needs."""

    columns: tuple[ColumnEncoder | MediaColumn, ...]
    skipped: tuple[Field, ...] = ()
    """Fields of pictures, clips and tracks of which there were none."""

    @staticmethod
    def fit(
        table: pl.DataFrame,
        fields: tuple[Field, ...],
        rows: BoolArray,
        text: TextSettings,
        media: Mapping[str, Media] = NO_MEDIA,
    ) -> ContentEncoder:
        """An encoder that has looked at the rows where ``rows`` is true and at no other.

        ``media``, by field, are those of all the table's items; a field of which no item has any is skipped.

        Raises:
            DataError: ``rows`` has another length than the table.
        """
        if len(rows) != table.height:
            raise DataError(f"A mask of {len(rows)} rows for a table of {table.height}.")
        training = table.filter(pl.Series(rows, dtype=pl.Boolean))
        fitted = [
            fit_column(field, _cells(training, field.name), text)
            if field.kind not in MEDIA
            else MediaColumn.fit(field, media[field.name])
            if field.name in media and len(media[field.name].row)
            else None
            for field in fields
        ]
        skipped = tuple(field for field, column in zip(fields, fitted, strict=True) if column is None)
        return ContentEncoder(tuple(column for column in fitted if column is not None), skipped)

    @property
    def shapes(self) -> tuple[FieldShape, ...]:
        return tuple(column.shape for column in self.columns)

    def encode(self, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> Content:
        """One row of numbers per row of the table; a column that the table lacks is missing throughout.

        ``media``, by field, are those of the table's items, row by row.

        Raises:
            DataError: media of another number of items, or of other sizes than the encoder was fitted to.
        """
        encoded: list[tuple[EncodedField, Note]] = [
            column.encode(table.height, media.get(column.name))
            if isinstance(column, MediaColumn)
            else column.encode(_cells(table, column.name))
            for column in self.columns
        ]
        notes = [note for _, note in encoded]
        for field in self.skipped:
            notes.append(Note(f"field '{field.name}'", 0, 0, f"no {field.kind} was read"))
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
