"""Small tables of interactions, written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from palate.schema import Dataset

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOON = 15_000 * DAY + 12 * HOUR
"""A moment in January 2011, in microseconds."""

Row = tuple[Any, Any, int | None, str | None, float | None]


def dataset(rows: Sequence[Row], **further: Any) -> Dataset:
    """Rows of user, item, time, event, value; text keys where the first present one is text."""

    def kind(column: int) -> type[pl.DataType]:
        first = next((row[column] for row in rows if row[column] is not None), 0)
        return pl.String if isinstance(first, str) else pl.Int64

    schema = {"user": kind(0), "item": kind(1), "time": pl.Int64, "event": pl.String, "value": pl.Float64}
    table = pl.DataFrame(list(rows), schema=schema, orient="row")
    table = table.with_row_index("row").with_columns(positive=pl.col("value").fill_null(1.0) > 0)
    return Dataset(further.pop("name", "small"), table.lazy(), **further)


def views(histories: dict[Any, str], **further: Any) -> Dataset:
    """One view per letter, an hour apart: ``{"ann": "abc"}``."""
    rows = [
        (user, item, NOON + hour * HOUR, "view", None)
        for user, items in histories.items()
        for hour, item in enumerate(items)
    ]
    return dataset(rows, **further)


SIX_PEOPLE = dataset(
    [
        ("ann", "tea", NOON, "View", 1.0),
        ("ann", "cup", NOON + HOUR, "view", 1.0),
        ("ann", "cup", NOON + HOUR, " view ", 1.0),  # the same again
        ("bob", "cup", NOON + 3 * HOUR, "buy", 2.0),  # later than the next
        ("bob", "tea", NOON + 2 * HOUR, "buy", 1.0),
        ("bob", "cup", NOON + 4 * HOUR, "buy", -1.0),  # brought back
        ("cat", "POST", NOON, "buy", 1.0),  # not a thing to recommend
        ("cat", "pot", NOON, "view", 1.0),
        ("cat", "tea", NOON, "view", 1.0),  # the same moment: the order of the rows counts
        ("dan", "tea", -DAY, "view", 1.0),  # 1969
        ("dan", "tea", None, "view", 1.0),
        ("dan", "pot", NOON, "view", 0.0),  # nothing bought
        (None, "tea", NOON, "view", 1.0),
        ("eve", None, NOON, "view", 1.0),
        ("eve", "  ", NOON, "view", 1.0),
        ("eve", "cup", NOON, None, 1.0),
        ("eve", "tea", NOON, "view", 1.0),
        ("fay", "pot", NOON, "buy", 1.0),
    ],
    negative_value="return",
    exclude_items=("post", "POST|D"),
)
