"""Items that come after training."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from palate.data.catalogue import clean_texts
from palate.data.prepared import Prepared
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
