"""What the event store says of items, as what a model reads: tables, vectors, and what each field adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from palate.errors import DataError, did_you_mean
from palate.retrieve.index import Vectors
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID, MEDIA, BoolArray, FieldKind
from palate.store.records import ItemChange

UNSHOWN = (*MEDIA, FieldKind.VECTOR)
"""Kinds that say nothing to the eye as text."""


class Goods(NamedTuple):
    """Items as the model reads them."""

    table: pl.DataFrame
    vectors: Vectors  # float32 [rows, D]
    told: BoolArray  # [rows]: training met it, or a field says something
    parts: list[tuple[str, Vectors]]
    """What the id and each field add to the vectors, [rows, D] each."""


@dataclass(frozen=True)
class Reader:
    """Reads changes of items for one model."""

    model: ServingModel
    ids: Mapping[str, int]
    """Of the model's own items."""

    def check(self, fields: Mapping[str, Any], media: Mapping[str, bytes]) -> None:
        """What is said of an item is something that this model's items may have.

        Raises:
            DataError: no such field, or a file where a value belongs and the other way round.
        """
        kinds = {field.name: field.kind for field in self.model.prepared.schema.fields}
        for name in (*fields, *media):
            if name not in kinds:
                raise DataError(f"'{name}' is no field of the items. {did_you_mean(name, kinds)}")
        for name, value in fields.items():
            if kinds[name] in MEDIA and value is not None:
                raise DataError(
                    f"'{name}' is of kind {kinds[name]}; send it as a file, in a part of its name."
                )
        for name in media:
            if kinds[name] not in MEDIA:
                raise DataError(f"'{name}' is of kind {kinds[name]}; send it in 'fields', not as a file.")

    def known(self, change: ItemChange) -> ItemChange:
        """The change without what this model's items cannot have: another model may have had it."""
        kinds = {field.name: field.kind for field in self.model.prepared.schema.fields}
        fields = {
            name: value
            for name, value in change.fields.items()
            if name in kinds and (value is None or kinds[name] not in MEDIA)
        }
        media = {name: content for name, content in change.media.items() if kinds.get(name) in MEDIA}
        return change._replace(fields=fields, media=media)

    def columns(self, change: ItemChange) -> tuple[str, ...]:
        """The fields that a change says anything of."""
        names = [field.name for field in self.model.prepared.schema.fields]
        return tuple(name for name in names if change.whole or name in change.fields or name in change.media)

    def read(self, changes: Sequence[ItemChange]) -> Goods:
        """What the changed items are, all of them of the same ``columns``.

        Raises:
            DataError: a value or a file that cannot be used; the message says which and why.
            MissingExtraError: a library that decodes sound or film is not installed.
        """
        model = self.model
        schema = model.prepared.catalogue.schema
        columns = {"item": pl.Series("item", self._spelled(changes), schema["item"])}
        for name in self.columns(changes[0]):
            values = [None if name in each.media else each.fields.get(name) for each in changes]
            try:
                columns[name] = pl.Series(name, values, schema[name], strict=True)
            except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
                raise DataError(
                    f"'{name}' is not of its field's kind: wanted {_wanted(schema[name])}, or null."
                ) from None
        uploads = {
            name: [[each.media[name]] if name in each.media else [] for each in changes]
            for name in sorted({name for each in changes for name in each.media})
        }
        table, media = pl.DataFrame(columns), model.media_of(uploads)
        described = model.items.described(table, media)
        vectors = model.items.vectors(described)
        if not np.isfinite(vectors).all():
            raise DataError("A number of an item is too large to be read. Send it in another unit.")
        told = model.may_be_recommended(table, media)
        return Goods(table, vectors, told, model.items.contributions(described))

    def _spelled(self, changes: Sequence[ItemChange]) -> list[Any]:
        """Keys as the model's table spells them; a new item has one that the model does not know."""
        keys = self.model.prepared.items.series
        if keys.dtype == pl.String:
            return [each.item for each in changes]
        highest = int(keys.max() or 0)  # type: ignore[arg-type]
        return [
            int(keys[self.ids[each.item] - FIRST_ID]) if each.item in self.ids else highest + 1 + row
            for row, each in enumerate(changes)
        ]


def _wanted(of: pl.DataType) -> str:
    if isinstance(of, pl.List):
        return "a list of texts" if of.inner == pl.String else "a list of numbers"
    return "a text" if of == pl.String else "a number"
