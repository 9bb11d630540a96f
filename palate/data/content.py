"""Fields of items as numbers, by what the training items teach and nothing else.

``ContentEncoder.fit`` learns vocabularies, means and tokenizers from the rows it is told are training
items; ``encode`` turns any rows into ``Content``: the whole catalogue, or items that came later. Cells
that cannot be used are counted in the notes and are missing; none stops anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from palate.data.columns import ColumnEncoder, fit_column, plain, restored
from palate.errors import DataError
from palate.schema import BoolArray, Content, EncodedField, Field, FieldKind, FieldShape, Media, Note
from palate.settings import TextSettings

NO_MEDIA: Mapping[str, Media] = {}


@dataclass(frozen=True)
class ContentEncoder:
    """Everything learned from the training items that turning fields into numbers needs."""

    columns: tuple[ColumnEncoder, ...]
    skipped: tuple[Field, ...] = ()
    """Fields of pictures, clips and tracks of which none was decoded."""
    media: tuple[FieldShape, ...] = ()
    """Fields of pictures, clips and tracks."""

    @staticmethod
    def fit(
        table: pl.DataFrame,
        fields: tuple[Field, ...],
        rows: BoolArray,
        text: TextSettings,
        media: Mapping[str, Media] = NO_MEDIA,
    ) -> ContentEncoder:
        """An encoder that has looked at the rows where ``rows`` is true and at no other.

        Raises:
            DataError: ``rows`` has another length than the table.
        """
        if len(rows) != table.height:
            raise DataError(f"A mask of {len(rows)} rows for a table of {table.height}.")
        training = table.filter(pl.Series(rows, dtype=pl.Boolean))
        fitted = [fit_column(field, _cells(training, field.name), text) for field in fields]
        without = [field for field, column in zip(fields, fitted, strict=True) if column is None]
        return ContentEncoder(
            tuple(column for column in fitted if column is not None),
            tuple(field for field in without if field.name not in media),
            tuple(_media_shape(field, media[field.name]) for field in without if field.name in media),
        )

    @property
    def shapes(self) -> tuple[FieldShape, ...]:
        return tuple(column.shape for column in self.columns) + self.media

    def encode(self, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> Content:
        """One row of numbers per row of the table; a column that the table lacks is missing throughout.

        Args:
            media: by field, what is to be seen or heard of the rows; a field that it lacks is missing.
        """
        encoded = [column.encode(_cells(table, column.name)) for column in self.columns]
        notes = [note for _, note in encoded]
        for field in self.skipped:
            notes.append(Note(f"field '{field.name}'", 0, 0, f"kind '{field.kind}' is not read"))
        shown = [_media_field(shape, media.get(shape.name), table.height) for shape in self.media]
        return Content(table.height, (*(field for field, _ in encoded), *shown), tuple(notes))

    def to_state(self) -> dict[str, Any]:
        """Plain lists, texts and numbers, for JSON."""
        return {
            "columns": [{"kind": str(column.shape.kind)} | plain(column) for column in self.columns],
            "skipped": [{"name": field.name, "kind": str(field.kind)} for field in self.skipped],
            "media": [
                {"name": shape.name, "kind": str(shape.kind), "size": shape.size} for shape in self.media
            ],
        }

    @staticmethod
    def from_state(state: dict[str, Any]) -> ContentEncoder:
        """The encoder that ``to_state`` was taken of."""
        skipped = tuple(Field(each["name"], FieldKind(each["kind"])) for each in state["skipped"])
        media = tuple(
            FieldShape(each["name"], FieldKind(each["kind"]), each["size"]) for each in state.get("media", ())
        )
        return ContentEncoder(tuple(restored(dict(each)) for each in state["columns"]), skipped, media)


def _cells(table: pl.DataFrame, name: str) -> pl.Series:
    return table[name] if name in table.columns else pl.Series(name, [None] * table.height, dtype=pl.Null)


def _media_shape(field: Field, media: Media) -> FieldShape:
    return FieldShape(field.name, field.kind, media.values.shape[2 if field.kind == FieldKind.VIDEO else 1])


def _media_field(shape: FieldShape, media: Media | None, rows: int) -> EncodedField:
    if media is None:
        nothing = np.zeros(0, np.int64)
        return EncodedField(shape, nothing, np.zeros(rows, np.bool_), np.zeros(rows + 1, np.int64))
    return EncodedField(shape, media.row, np.diff(media.offsets) > 0, media.offsets, media.values)
