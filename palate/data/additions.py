"""Items that come, change and go after training; ids that exist never change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from palate.data import cells
from palate.data.canonical import read_content
from palate.data.catalogue import clean_texts
from palate.data.columns import MediaColumn
from palate.data.content import NO_MEDIA, ContentEncoder
from palate.data.media import read_media
from palate.data.prepared import Prepared
from palate.data.spec import FieldSpec, ItemsSpec, TableSpec
from palate.data.tables import is_table, open_table
from palate.errors import DataError, UnknownKeyError, did_you_mean
from palate.schema import MEDIA, UNKNOWN, BoolArray, IntArray, Media, Note, Schema
from palate.settings import ModelSettings


def add_items(prepared: Prepared, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> Prepared:
    """The data with further items behind the present ones.

    A key that was removed comes back under its id, described by this table alone.

    Args:
        table: a column ``item`` with keys and any of the fields; absent fields are null.
        media: by field, what is to be seen or heard of the items of ``table``, row by row.

    Raises:
        DataError: no column ``item``; a key that is missing, known already or there twice; a column that
            is no field; a cell that is not of its field's kind; media of another number of items.
    """
    table = checked_items(prepared, table, media)
    ids = prepared.items.ids(table["item"])
    gone = np.isin(ids, prepared.removed)
    if ((ids != UNKNOWN) & ~gone).any():
        raise DataError(
            f"Keys of new items are known already: {_named(table, (ids != UNKNOWN) & ~gone)}. "
            "Use items.update to describe them anew."
        )
    items = prepared.items.extended(table["item"].filter(pl.Series(~gone)))
    bare = pl.DataFrame({"item": items.series}).select(
        pl.col("item") if name == "item" else pl.lit(None, dtype).alias(name)
        for name, dtype in prepared.catalogue.schema.items()
    )
    longer = replace(
        prepared,
        items=items,
        catalogue=pl.concat([prepared.catalogue, bare.slice(len(prepared.items))]),
        media={name: _with_rows(of, items.size) for name, of in prepared.media.items()},
        removed=prepared.removed[~np.isin(prepared.removed, ids)],
    )
    absent = [name for name in prepared.catalogue.columns if name not in table.columns]
    whole = table.with_columns(pl.lit(None, prepared.catalogue.schema[name]).alias(name) for name in absent)
    return _described(longer, whole, media)


def update_items(prepared: Prepared, table: pl.DataFrame, media: Mapping[str, Media] = NO_MEDIA) -> Prepared:
    """The data in which the cells of ``table`` describe its items; fields it does not have stay.

    A null cell clears its field. A cell of a picture, clip or track shows nothing until it comes in
    ``media``.

    Raises:
        UnknownKeyError: a key is not known.
        DataError: as ``add_items``, but that keys be new.
    """
    table = checked_items(prepared, table, media)
    unknown = prepared.items.ids(table["item"]) == UNKNOWN
    if unknown.any():
        raise UnknownKeyError(
            f"{int(unknown.sum()):,} of {len(unknown):,} items to update are not known: "
            f"{_named(table, unknown)}. Check the spelling, or add them with items.add."
        )
    return _described(prepared, table, media)


def remove_items(prepared: Prepared, ids: IntArray) -> Prepared:
    """The data in which these items are not recommended any more; histories still hold them.

    Raises:
        DataError: an item is there twice, or removed already.
    """
    distinct, counts = np.unique(ids, return_counts=True)
    for wrong, what in (
        (distinct[counts > 1], "come twice"),
        (distinct[np.isin(distinct, prepared.removed)], "were removed before"),
    ):
        if len(wrong):
            names = ", ".join(repr(key) for key in prepared.items.keys(wrong[:5]))
            raise DataError(f"Keys of items to remove {what}: {names}. Leave them out.")
    return replace(prepared, removed=np.union1d(prepared.removed, distinct).astype(np.int64))


def media_of_files(
    table: pl.DataFrame, encoder: ContentEncoder, folder: Path | None, settings: ModelSettings
) -> tuple[dict[str, Media], list[Note]]:
    """By field that the encoder reads, what the table's files show, and what cannot be used of them.

    Args:
        folder: where the paths begin, and which none may leave; may be None where the table names no file.

    Raises:
        DataError: files are named, but no folder.
        MissingExtraError: a library that decodes sound or film is not installed.
    """
    media: dict[str, Media] = {}
    notes: list[Note] = []
    for column in encoder.columns:
        if not isinstance(column, MediaColumn) or column.name not in table.columns:
            continue
        paths = table[column.name]
        if paths.null_count() == len(paths):
            continue
        if folder is None:
            raise DataError(
                f"The column '{column.name}' names files, but not where they are: give media_folder. What "
                f"was decoded already is given as media={{'{column.name}': Media(…)}}."
            )
        found = read_media(paths, folder, column.kind, settings, name=column.name)
        media[column.name] = found.media
        notes += [note for note in found.notes if note.rule.startswith("unreadable")]
    return media, notes


def _named(table: pl.DataFrame, which: BoolArray) -> str:
    return ", ".join(repr(key) for key in table["item"].filter(pl.Series(which)).head(5))


def checked_items(prepared: Prepared, table: pl.DataFrame, media: Mapping[str, Media]) -> pl.DataFrame:
    """The table with keys and fields of the right kinds and in one form.

    Raises:
        DataError: no column ``item``; a key that is missing or there twice; a column that is no field; a cell
            that is not of its field's kind; media of no such field, or of another number of items.
    """
    known = prepared.catalogue.schema
    if "item" not in table.columns:
        raise DataError(f"Items need a column 'item' with their keys; there are: {', '.join(table.columns)}.")
    for name in table.columns:
        if name not in known:
            raise DataError(f"'{name}' is no field of this data. {did_you_mean(name, known.names())}")
    try:
        table = table.select(pl.col(name).cast(known[name]) for name in table.columns)
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"A cell of the items is not of its field's kind: {reason}.") from None
    keys = table["item"]
    if keys.null_count():
        raise DataError(f"{keys.null_count()} of {len(keys)} items have no key.")
    twice = keys.is_duplicated()
    if twice.any():
        names = ", ".join(repr(key) for key in keys.filter(twice).unique(maintain_order=True).head(5))
        raise DataError(f"Keys of items come twice: {names}.")
    _check_media(prepared.schema, media, table.height)
    cleaned, _ = clean_texts(table, tuple(f for f in prepared.schema.fields if f.name in table.columns))
    return cleaned


def _check_media(schema: Schema, media: Mapping[str, Media], rows: int) -> None:
    names = [field.name for field in schema.fields if field.kind in MEDIA]
    for name, of in media.items():
        if name not in names:
            raise DataError(f"'{name}' is no field of pictures, clips or tracks. {did_you_mean(name, names)}")
        if len(of.offsets) != rows + 1:
            raise DataError(f"'{name}' has media of {len(of.offsets) - 1} items; the table has {rows}.")


def _described(prepared: Prepared, table: pl.DataFrame, media: Mapping[str, Media]) -> Prepared:
    """The data whose catalogue and media say of the items of ``table`` what it and ``media`` say."""
    ids = prepared.items.ids(table["item"])
    place = np.arange(prepared.items.size)
    place[ids] = prepared.items.size + np.arange(len(ids))
    catalogue = prepared.catalogue.with_columns(
        pl.concat([prepared.catalogue[name], table[name]]).gather(place)
        for name in table.columns
        if name != "item"
    )
    shown = dict(prepared.media)
    for name in shown.keys() & set(table.columns) | media.keys():
        shown[name] = _replaced(shown.get(name), media.get(name), ids, prepared.items.size)
    return replace(prepared, catalogue=catalogue, media=shown)


def _with_rows(media: Media, rows: int) -> Media:
    """The same media with further items that show nothing."""
    further = np.full(rows + 1 - len(media.offsets), media.offsets[-1])
    return replace(media, offsets=np.concatenate([media.offsets, further]))


def _replaced(old: Media | None, new: Media | None, ids: IntArray, rows: int) -> Media:
    """Media of ``rows`` items, in which item ``ids[n]`` shows what item n of ``new`` does, if anything.

    Pictures that no item shows any more stay among the values.
    """
    counts = np.zeros(rows, np.int64) if old is None else np.diff(old.offsets)
    kept = np.ones(rows, np.bool_)
    kept[ids] = False
    parts = [] if old is None else [(np.repeat(np.arange(rows), counts), old.row)]
    both = [of for of in (old, new) if of is not None]
    if new is not None:
        parts.append(
            (np.repeat(ids, np.diff(new.offsets)), new.row + (0 if old is None else len(old.values)))
        )
    item = np.concatenate([item for item, _ in parts])
    row = np.concatenate([row for _, row in parts])
    from_old = np.arange(len(item)) < (0 if old is None else len(old.row))
    shown = kept[item] | ~from_old
    item, row = item[shown], row[shown]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=rows))])
    values = [of.values for of in both if len(of.values)] or [both[0].values]
    digests = [of.digest for of in both if of.digest is not None]
    return Media(
        values[0] if len(values) == 1 else np.concatenate(values),
        row[np.argsort(item, kind="stable")],
        offsets,
        np.concatenate(digests) if len(digests) == len(both) else None,
    )


def read_items(prepared: Prepared, path: Path) -> tuple[pl.DataFrame, list[Note]]:
    """New items of a file, for ``add_items``: the column ``item`` and the fields that the file has; what of
    its cells could not be read.

    Raises:
        DataError: no such file or no table; no column ``item``, or one that is no field of this data.
    """
    if not is_table(path):
        raise DataError(f"{path} is no table; wanted a .csv, .tsv, .jsonl or .parquet file of new items.")
    table = open_table(TableSpec(table=(str(path.absolute()),)), Path())
    kinds = {field.name: field.kind for field in prepared.schema.fields}
    table.require("item", "the keys of new items")
    for name in table.schema.names():
        if name != "item" and name not in kinds:
            raise DataError(f"'{name}' is no field of this data. {did_you_mean(name, kinds)}")
    named = {name: FieldSpec(kind=kinds[name]) for name in table.schema.names() if name != "item"}
    spec = ItemsSpec(table=(str(path),), id="item", fields=named)
    return read_content(spec, table, "item", integer=cells.has_integer_keys(table, "item"))
