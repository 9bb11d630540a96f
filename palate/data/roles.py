"""Which table holds the interactions, and which of its columns is what."""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from palate.data import cells, times
from palate.data.profile import Column, Sample, field_kind, means_identifier
from palate.data.words import TABLES, event_name, means
from palate.errors import DataError


class Notebook:
    """The description as it grows, with its reasons."""

    def __init__(self) -> None:
        self.tree: dict[str, dict[str, Any]] = {}
        self.reasons: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def put(self, part: str, name: str, value: Any, reason: str = "") -> None:
        self.tree.setdefault(part, {})[name] = value
        if reason:
            self.reasons[f"{part}.{name}"] = reason

    def put_field(self, part: str, column: Column) -> None:
        kind, reason, separator = field_kind(column)
        if kind is None:
            self.left_out[f"{column.table.name}.{column.name}"] = reason
            return
        name = f"{column.name} field" if column.name in ("item", "user", "row", "count") else column.name
        wish = (
            ({"column": column.name} if name != column.name else {})
            | {"kind": str(kind)}
            | ({"separator": separator} if separator else {})
        )
        self.tree[part].setdefault("fields", {})[name] = wish
        self.reasons[f"{part}.fields.{name}"] = reason


def likeness(sample: Sample, asked: dict[str, str | None]) -> tuple[float, int]:
    """How much a table looks like interactions: people and items that both repeat, a time, its name."""
    names = {column.name for column in sample.columns}
    points = 10.0 * sum(name in names for name in asked.values() if name)
    points += 2 * bool(means(sample.path.stem.split(".")[0], "interactions", TABLES))
    for role in ("user", "item"):
        points += max((_key_points(column, role) for column in sample.columns), default=0.0)
    points += any(column.is_time for column in sample.columns)
    return points, sample.frame.height


def _key_points(column: Column, role: str) -> float:
    """How well a column may identify people, or items; 0 where it cannot.

    A name counts most. A column that never repeats numbers its rows, whatever it is called.
    """
    if not column.could_be_key or (column.is_unique and column.filled > 2):
        return 0.0
    said, other = means(column.name, role), means(column.name, "item" if role == "user" else "user")
    receipt = means(column.name, "receipt")
    content = means(column.name, "text") or means(column.name, "category")
    if said == 2 or (said == 1 and not other):
        return 2.0 * said - (0.5 if content else 0.0) - (1.5 if receipt else 0.0)
    return 0.0


def find_roles(sample: Sample, asked: dict[str, str | None], book: Notebook) -> dict[str, Column]:
    """The columns of the interactions' roles, people and items always among them."""
    roles: dict[str, Column] = {}
    for role, name in asked.items():
        if name is not None:
            roles[role] = sample.column(name)
            book.put("interactions", role, name, "as asked for")
    for role in ("user", "item"):
        if role not in roles:
            roles[role] = _key(sample, role, roles, book)
    if "time" not in roles:
        _guess_time(sample, roles, book)
    if "event" not in roles:
        _guess_event(sample, roles, book)
    if "value" not in roles:
        _guess_value(sample, roles, book)
    _describe_time(roles.get("time"), book)
    _describe_events(sample, roles, book)
    return roles


def _key(sample: Sample, role: str, roles: dict[str, Column], book: Notebook) -> Column:
    free = [column for column in sample.columns if column not in roles.values()]
    best = max(free, key=lambda column: _key_points(column, role), default=None)
    if best is not None and _key_points(best, role) > 0:
        why = f"its name means {'a person' if role == 'user' else 'an item'}"
    else:
        other = "item" if role == "user" else "user"
        best = next((column for column in free if _nameless_key(column, other)), None)
        if best is None:
            raise DataError(_no_key(sample, role))
        why = "no name says so; the first free column that repeats and is no time, measure or text"
    repeats = f"{best.distinct:,} distinct values in {best.filled:,} rows"
    book.put("interactions", role, best.name, f"{why}; {repeats}")
    return best


def _nameless_key(column: Column, other: str) -> bool:
    """Whether a column whose name says nothing may identify people or items."""
    says_else = [other, "receipt", "event", "rating", "amount", "text", "category", "time", "order"]
    if any(means(column.name, role) for role in says_else):
        return False
    return column.could_be_key and not column.is_unique and column.mean_length <= 40


def _no_key(sample: Sample, role: str) -> str:
    what = "people" if role == "user" else "items"
    names = ", ".join(column.name for column in sample.columns)
    if any(re.fullmatch(r"-?\d[\d.,]*", column.name) for column in sample.columns):
        names += " (which look like data: is the line of column names missing?)"
    return (
        f"{sample.path.name}: no column looks like the {what} of interactions (a short key that repeats). "
        f"Its columns are: {names}. Name the right one with --{role} COLUMN."
    )


def _guess_time(sample: Sample, roles: dict[str, Column], book: Notebook) -> None:
    free = [column for column in sample.columns if column not in roles.values()]
    times = [column for column in free if column.is_time]
    orders = [
        column
        for column in free
        if column.is_whole
        and not means_identifier(column.name)
        and (means(column.name, "order") == 2 or means(column.name, "time") > 0)
    ]
    if times:
        best = max(times, key=lambda column: means(column.name, "time"))
        roles["time"] = best
        book.put("interactions", "time", best.name, f"its cells are times, such as {best.texts[0]}")
    elif orders:
        roles["time"] = orders[0]
        book.put(
            "interactions", "time", orders[0].name, "its name means an order, and its cells are whole numbers"
        )


def _describe_time(column: Column | None, book: Notebook) -> None:
    if column is not None and not times.clock(column.table, column.name, "auto", None).has_time:
        book.put(
            "interactions", "time_unit", "order", "too small for clock times: they only order the events"
        )


def _guess_event(sample: Sample, roles: dict[str, Column], book: Notebook) -> None:
    for column in sample.columns:
        if column in roles.values() or not 2 <= column.distinct <= 20 or column.mean_length > 30:
            continue
        if column.is_number and not (column.is_whole and means(column.name, "event")):
            continue
        values = column.texts.unique(maintain_order=True).to_list()
        familiar = sum(event_name(text) is not None for text in values) >= len(values) / 2
        named = means(column.name, "event") and not means(column.name, "item")
        if familiar or (named and belonging(sample, column, roles["item"]) < 0.5):
            roles["event"] = column
            why = "its cells are usual events" if familiar else "its name means an event"
            book.put("interactions", "event", column.name, f"{why}: {', '.join(values[:5])}")
            return


def _describe_events(sample: Sample, roles: dict[str, Column], book: Notebook) -> None:
    if "event" in roles:
        values = roles["event"].texts.unique(maintain_order=True).to_list()
        renames = {text: ours for text in values if (ours := event_name(text)) and ours != text}
        if renames:
            book.put("interactions", "event_names", renames, "the usual names of these events")
        return
    if "value" in roles and means(roles["value"].name, "rating"):
        book.put("interactions", "event_default", "rating", "the rows have ratings")
    elif any(means(column.name, "receipt") and "invoice" in column.name.lower() for column in sample.columns):
        book.put("interactions", "event_default", "purchase", "the rows have invoices")


def _guess_value(sample: Sample, roles: dict[str, Column], book: Notebook) -> None:
    for role in ("rating", "amount"):
        for column in sample.columns:
            if column in roles.values() or not column.is_number or not means(column.name, role):
                continue
            if means_identifier(column.name) or (means(column.name, role) < 2 and means(column.name, "item")):
                continue
            roles["value"] = column
            book.put(
                "interactions",
                "value",
                column.name,
                f"numbers, and its name means {'an' if role == 'amount' else 'a'} {role}",
            )
            if role == "amount" and (column.numbers < 0).any():
                book.put("interactions", "negative_value", "return", "some amounts are below zero")
            return


def belonging(sample: Sample, column: Column, key: Column) -> float:
    """How far a column depends on a key: 1 where each key has one value, 0 where knowing it does not help.

    Of the rows whose key repeats, ``k`` have their key's commonest value and ``g`` the commonest of
    all: ``(k - g) / (1 - g)``.
    """
    if column.dtype.is_nested():
        return 1.0
    pairs = sample.frame.lazy().select(
        cells.key(key.table, key.name, integer=False).alias("key"), cells.present(column.name).alias("cell")
    )
    frame = pairs.drop_nulls().filter(pl.len().over("key") > 1).collect()
    if frame.is_empty():
        return 0.0
    counts = frame.group_by("key", "cell").len()
    own = int(counts.group_by("key").agg(pl.col("len").max())["len"].sum()) / frame.height
    common = int(frame["cell"].value_counts()["count"].max()) / frame.height  # type: ignore[arg-type]
    return (own - common) / (1 - common) if common < 1 else 0.0
