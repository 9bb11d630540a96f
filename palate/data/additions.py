"""Items that come after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from palate.data import cells
from palate.data.canonical import read_content
from palate.data.catalogue import clean_texts
from palate.data.prepared import Prepared
from palate.data.spec import FieldSpec, ItemsSpec, TableSpec
from palate.data.tables import is_table, open_table
from palate.errors import DataError, did_you_mean
from palate.schema import UNKNOWN


def add_items(prepared: Prepared, table: pl.DataFrame) -> Prepared:
    """The data with further items behind the present ones; ids that exist do not change.

    Args:
        table: a column ``item`` with keys and any of the fields; absent fields are null.

    Raises:
        DataError: no column ``item``; a key that is missing, known already or there twice; a column that
            is no field; a cell that is not of its field's kind.
    """
    known = prepared.catalogue.schema
    if "item" not in table.columns:
        raise DataError(
            f"New items need a column 'item' with their keys; there are: {', '.join(table.columns)}."
        )
    for name in table.columns:
        if name not in known:
            raise DataError(f"'{name}' is no field of this data. {did_you_mean(name, known.names())}")
    try:
        new = table.select(
            pl.col(name).cast(dtype) if name in table.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in known.items()
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"A cell of the new items is not of its field's kind: {error}") from None
    keys = new["item"]
    if keys.null_count():
        raise DataError(f"{keys.null_count()} of {len(keys)} new items have no key.")
    twice = keys.filter(keys.is_duplicated()).unique().to_list()
    there = keys.filter(pl.Series(prepared.items.ids(keys) != UNKNOWN)).to_list()
    if twice or there:
        names = ", ".join(repr(key) for key in (twice or there)[:5])
        raise DataError(f"Keys of new items {'come twice' if twice else 'are known already'}: {names}.")
    cleaned, _ = clean_texts(new, prepared.schema.fields)
    return replace(
        prepared,
        items=prepared.items.extended(keys),
        catalogue=pl.concat([prepared.catalogue, cleaned.select(known.names())]),
    )


def read_items(prepared: Prepared, path: Path) -> pl.DataFrame:
    """New items of a file, for ``add_items``: the column ``item`` and the fields that the file has.

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
    return read_content(spec, table, "item", integer=cells.has_integer_keys(table, "item"))[0]
