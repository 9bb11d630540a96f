"""Vectors of items from their content, without PyTorch: new items, and known ones that are described anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.additions import checked_items
from palate.data.content import ContentEncoder
from palate.data.prepared import Prepared
from palate.runtime.graph import Graph
from palate.schema import UNKNOWN, AnyArray, BoolArray, EncodedField, FieldKind, IntArray, Media

AT_A_TIME = 64
"""Texts, pictures, clips or tracks in one pass of their encoder."""

Vectors = npt.NDArray[np.float32]


class Described(NamedTuple):
    """What a table says of its items."""

    ids: IntArray  # int64 [rows], 1 where the key is new
    base: IntArray  # int64 [rows], the ids whose fields hold where the table does not have them, or 1
    fields: tuple[EncodedField, ...]  # as they are now
    kept: tuple[BoolArray, ...]  # by field, bool [rows]: the vector that was kept of it still holds
    present: tuple[BoolArray, ...]  # by field, bool [rows]: there is a value


@dataclass(frozen=True)
class ItemEncoder:
    """From tables of items to their vectors."""

    prepared: Prepared
    content: ContentEncoder
    fields: Mapping[str, Graph]
    """By field, from ``values`` to vectors [rows, width]."""
    tower: Graph
    """From id vectors, and by field vectors and whether there is one, to vectors of items [rows, D]."""
    tensors: Mapping[str, AnyArray]
    """``ids``, ``warm``, and by field that is kept ``kept.FIELD`` and ``present.FIELD``."""

    def described(self, table: pl.DataFrame, media: Mapping[str, Media]) -> Described:
        """What is known of the table's items if it holds.

        Raises:
            DataError: the table or the media cannot be used; the message says why.
        """
        prepared = self.prepared
        table = checked_items(prepared, table, media)
        ids = prepared.items.ids(table["item"])
        base = np.where(np.isin(ids, prepared.removed), UNKNOWN, ids)  # of 1 the catalogue says nothing
        rows = prepared.catalogue[base].with_columns(table[name] for name in table.columns)
        return self._as_told(ids, base, rows, media, {*table.columns, *media})

    def known(self, ids: IntArray) -> Described:
        """What the data say of items, removed ones as well."""
        return self._as_told(ids, ids, self.prepared.catalogue[ids], {}, ())

    def _as_told(
        self,
        ids: IntArray,
        base: IntArray,
        rows: pl.DataFrame,
        media: Mapping[str, Media],
        names: Collection[str],
    ) -> Described:
        """``names`` of the fields that are said anew in ``rows`` and ``media``."""
        fields = self.content.encode(rows, media).fields
        kept, present = [], []
        for field in fields:
            name, has_value = field.shape.name, field.present.copy()
            told = name in names or f"kept.{name}" not in self.tensors
            holds = (base != UNKNOWN) & (not told)
            if not told:
                has_value[holds] = self.tensors[f"present.{name}"][base[holds]]
            kept.append(holds)
            present.append(has_value)
        return Described(ids, base, fields, tuple(kept), tuple(present))

    def vectors(self, items: Described) -> Vectors:
        """Their vectors, float32 [rows, D]."""
        return self.tower(**self._inputs(items))[0]

    def contributions(self, items: Described) -> list[tuple[str, Vectors]]:
        """What ``id`` and each field add to their vectors, named parts float32 [rows, D]."""
        known = self._inputs(items)
        absent = {name: np.zeros_like(of) for name, of in known.items() if name.startswith("present_")}
        parts = [("id", known["ids"])]
        for n, field in enumerate(items.fields):
            name = f"present_{n}"
            alone = {**known, **absent, name: known[name], "ids": np.zeros_like(known["ids"])}
            parts.append((field.shape.name, self.tower(**alone)[0]))
        return parts

    def _inputs(self, items: Described) -> dict[str, Vectors]:
        """What the tower reads of them."""
        warm, rows = self.tensors["warm"], len(items.ids)
        has_own = (items.ids < len(warm)) & warm[np.minimum(items.ids, len(warm) - 1)]
        known = {"ids": self.tensors["ids"][np.where(has_own, items.ids, UNKNOWN)]}
        for n, (field, kept, present) in enumerate(zip(items.fields, items.kept, items.present, strict=True)):
            name = field.shape.name
            vectors = np.zeros((rows, self.tower.widths[f"vectors_{n}"]), np.float32)
            fresh = present & ~kept
            if fresh.any():
                vectors[fresh] = encoded(self.fields[name], field, fresh)
            if kept.any():
                vectors[kept] = self.tensors[f"kept.{name}"][items.base[kept]]
            known |= {f"vectors_{n}": vectors, f"present_{n}": present[:, None].astype(np.float32)}
        return known


def encoded(graph: Graph, field: EncodedField, chosen: BoolArray) -> Vectors:
    """What the encoder in the graph says of the chosen items, all of which have a value, [chosen, width]."""
    if field.offsets is None:
        values = field.values[chosen]
        return in_parts(graph, values[:, None] if field.shape.kind == FieldKind.CATEGORY else values)
    lengths = np.diff(field.offsets)
    flat, counts = field.values[np.repeat(chosen, lengths)], lengths[chosen]
    if field.media is None:
        codes = np.zeros((len(counts), counts.max()), flat.dtype)
        codes[np.arange(codes.shape[1]) < counts[:, None]] = flat
        return in_parts(graph, codes)
    distinct, which = np.unique(flat, return_inverse=True)
    vectors = in_parts(graph, field.media[distinct])[which]
    sums = np.zeros((len(counts), vectors.shape[1]), np.float32)
    np.add.at(sums, np.repeat(np.arange(len(counts)), counts), vectors)
    sums /= counts[:, None]
    return sums


def in_parts(graph: Graph, values: AnyArray) -> Vectors:
    """What the graph gives of these values, a few of them at a time."""
    parts = [
        graph(values=np.ascontiguousarray(values[start : start + AT_A_TIME]))[0]
        for start in range(0, len(values), AT_A_TIME)
    ]
    return np.concatenate(parts)
