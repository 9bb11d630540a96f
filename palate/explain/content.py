"""Which words of a text, regions of a picture and seconds of a track carried a recommendation.

By occlusion (Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014): the field is
encoded anew with a part hidden, and the share of the part is what the score loses. These shares need not add
up to that of the field, since an encoder may read the same thing in two places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from palate.data.prepared import Prepared
from palate.errors import SettingsError
from palate.explain.shapley import Scores
from palate.runtime.model import ServingModel
from palate.schema import MEDIA, AnyArray, FieldKind, Media

WORD = re.compile(r"[㐀-鿿豈-﫿]|[^\s㐀-鿿豈-﫿]+")
"""A word is what stands between spaces; every Chinese character is one."""
MOST_WORDS = 128
PATCHES = 8
"""A picture is hidden patch by patch, so many in a row and as many in a column."""
STRETCHES = 16
"""A track or clip is hidden stretch by stretch."""


class Word(NamedTuple):
    """A word of a text and what the score loses without it."""

    start: int
    stop: int
    """Places in the text, in characters."""
    share: float


@dataclass(frozen=True)
class Told:
    """What one item says in those of its fields that have parts; a field that is not there has no shares."""

    texts: Mapping[str, str]
    media: Mapping[str, AnyArray]
    """Of each field one picture, clip or spectrogram, as in ``region_shares``."""


def told_by(prepared: Prepared, item: int) -> Told:
    """What the data say of an item; of several pictures, clips or tracks the first."""
    row = prepared.catalogue.row(item, named=True)
    texts = {
        field.name: str(row[field.name])
        for field in prepared.schema.fields
        if field.kind == FieldKind.TEXT and row.get(field.name)
    }
    media = {name: of.first(item) for name, of in prepared.media.items()}
    return Told(texts, {name: values for name, values in media.items() if values is not None})


def inside(model: ServingModel, change: Scores, told: Told) -> dict[str, list[dict[str, Any]]]:
    """Which parts of an item's fields carried it, as they are shown::

        words    {"field", "start", "stop", "share"}: places in the text, in characters
        regions  {"field", "shares"}: of a picture, 8 rows of 8 numbers, the uppermost first
        frames   {"field", "start", "stop", "share"}: of a clip, from 0 to 1
        seconds  {"field", "start", "stop", "share"}: of a track, from where the model begins to listen

    Args:
        model: as in ``word_shares``.
        change: as in ``word_shares``.
        told: what the item says.
    """
    kinds = {column.shape.name: column.shape.kind for column in model.items.content.columns}
    found: dict[str, list[dict[str, Any]]] = {"words": [], "regions": [], "frames": [], "seconds": []}
    for name, text in told.texts.items():
        if kinds.get(name) == FieldKind.TEXT:
            words = word_shares(model, change, name, text)
            found["words"] += [{"field": name} | word._asdict() for word in words]
    length = model.settings.model.audio.seconds
    for name, values in told.media.items():
        if name not in kinds:
            continue
        shares = region_shares(model, change, name, values).tolist()
        if kinds[name] == FieldKind.IMAGE:
            found["regions"].append({"field": name, "shares": shares})
        elif kinds[name] == FieldKind.VIDEO:
            found["frames"] += in_time(name, shares, len(values), 1.0)
        else:
            found["seconds"] += in_time(name, shares, values.shape[1], length)
    return found


def in_time(name: str, shares: Sequence[float], places: int, length: float) -> list[dict[str, Any]]:
    """Shares of even stretches of so many places, which last ``length`` together."""
    return [
        {
            "field": name,
            "start": part.start * length / places,
            "stop": part.stop * length / places,
            "share": share,
        }
        for part, share in zip(stretches(places, STRETCHES), shares, strict=True)
    ]


def word_shares(model: ServingModel, change: Scores, field: str, text: str) -> list[Word]:
    """The share of each of the first words of a text, in the order of the text.

    Args:
        model: that recommends.
        change: float64 [D], state with the history less state with none: what the history adds to the score
            of an item is the product of this and the item's vector.
        field: of kind text.
        text: what the item has in it.

    Raises:
        SettingsError: no such field of texts.
    """
    _check_kind(model, field, (FieldKind.TEXT,))
    words = [(found.start(), found.end()) for found in islice(WORD.finditer(text), MOST_WORDS)]
    cells = [text, *(f"{text[:start]} {text[stop:]}" for start, stop in words)]
    table = pl.DataFrame({"item": _any_keys(len(cells)), field: cells})
    lost = _lost(model, change, field, table, {})
    return [Word(start, stop, share) for (start, stop), share in zip(words, lost.tolist(), strict=True)]


def region_shares(model: ServingModel, change: Scores, field: str, values: AnyArray) -> Scores:
    """What the score loses where a part of one picture, clip or track is hidden behind its mean.

    Args:
        model: as in ``word_shares``.
        change: as in ``word_shares``.
        field: of kind image, video or audio.
        values: one picture [S, S, 3], clip [F, S, S, 3] or spectrogram [bands, T], as in ``schema.Media``.

    Returns:
        float64 [PATCHES, PATCHES] of a picture, the uppermost row first; [STRETCHES] of a clip or a track, in
        the order of time, or as many as it has frames.

    Raises:
        SettingsError: no such field of media.
        DataError: values of another size than the model reads.
    """
    kind = _check_kind(model, field, MEDIA)
    if kind == FieldKind.IMAGE:
        down, across = (stretches(length, PATCHES) for length in values.shape[:2])
        parts: list[tuple[slice, ...]] = [(rows, columns) for rows in down for columns in across]
        shape: tuple[int, ...] = (len(down), len(across))
    else:
        axis = 0 if kind == FieldKind.VIDEO else 1
        parts = [(slice(None),) * axis + (part,) for part in stretches(values.shape[axis], STRETCHES)]
        shape = (len(parts),)
    hidden = np.repeat(values[None], len(parts) + 1, axis=0)
    for version, part in zip(hidden[1:], parts, strict=True):
        version[part] = values.mean(dtype=np.float64)
    versions = np.arange(len(hidden))
    media = {field: Media(hidden, versions, np.arange(len(hidden) + 1))}
    return _lost(model, change, field, pl.DataFrame({"item": _any_keys(len(hidden))}), media).reshape(shape)


def stretches(length: int, parts: int) -> list[slice]:
    """The length in even stretches, none of them empty."""
    bounds = np.unique(np.arange(parts + 1) * length // parts).tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _lost(
    model: ServingModel, change: Scores, field: str, table: pl.DataFrame, media: Mapping[str, Media]
) -> Scores:
    """What the first row's field adds to the score and that of each of the others does not."""
    described = model.items.described(table, media)
    part = dict(model.items.contributions(described))[field].astype(np.float64) @ change
    found: Scores = part[0] - part[1:]
    return found


def _any_keys(rows: int) -> list[str]:
    """Keys that differ; what else is known under them does not matter, since one field alone is looked at."""
    return [str(row) for row in range(rows)]


def _check_kind(model: ServingModel, field: str, kinds: Sequence[FieldKind]) -> FieldKind:
    found = {shape.name: shape.kind for shape in (column.shape for column in model.items.content.columns)}
    if field not in found or found[field] not in kinds:
        fitting = [name for name, kind in found.items() if kind in kinds]
        wanted = ", ".join(fitting) or "none that this model has"
        raise SettingsError(f"'{field}' is no field of kind {' or '.join(kinds)}; wanted {wanted}.")
    return found[field]
