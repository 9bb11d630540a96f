"""Guessing what a stranger's tables mean: which is which, and what each column is.

Nothing is asked. Every guess comes with its reason, and ``write_spec`` writes both into a
``dataset.yaml`` for the eye of a person who knows better.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from palate.data import cells
from palate.data.profile import Column, Sample, take_sample
from palate.data.roles import Notebook, belonging, find_roles, likeness
from palate.data.spec import DatasetSpec
from palate.data.words import means
from palate.errors import DataError
from palate.settings import validated


@dataclass(frozen=True)
class Guess:
    """A data set's description, and why it is so."""

    spec: DatasetSpec
    """With absolute paths."""
    reasons: dict[str, str]
    """By the place in the YAML: ``interactions.user``, ``items.fields.price``."""
    left_out: dict[str, str]
    """By ``table.column``: why the column has no role."""

    @property
    def lines(self) -> list[str]:
        """One readable line per guess."""
        return [f"{place}: {reason}" for place, reason in {**self.reasons, **self.left_out}.items()]


def guess_spec(
    tables: Sequence[Path],
    *,
    items: Path | None = None,
    users: Path | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    event: str | None = None,
    value: str | None = None,
) -> Guess:
    """The most plausible reading of some tables; what is given as an option is not guessed.

    Looks at the first 50,000 rows of each table.

    Raises:
        DataError: no column can be the people or the items, a named column does not exist, or a
            table cannot be read.
    """
    asked = {"user": user, "item": item, "time": time, "event": event, "value": value}
    named = {path.resolve() for path in (items, users) if path is not None}
    samples = [take_sample(path) for path in tables if path.resolve() not in named]
    if not samples:
        raise DataError(
            "No table is left for the interactions; name at least one besides --items and --users."
        )
    main = max(samples, key=lambda sample: likeness(sample, asked))
    book = Notebook()
    book.put("interactions", "table", str(main.path.resolve()), _table_reason(main, len(samples)))
    roles = find_roles(main, asked, book)
    others = [sample for sample in samples if sample is not main]
    described = take_sample(items) if items else _described(others, roles["item"], "item")
    known = take_sample(users) if users else _described(others, roles["user"], "user")
    if known is described and not (items or users):
        known = None
    _content("items", described, main, roles["item"], book)
    _content("users", known, main, roles["user"], book)
    used = {column.name for column in roles.values()}
    _own_columns(main, roles, used, described is None, book)
    for sample in others:
        if sample not in (described, known):
            book.left_out[sample.path.name] = (
                "none of its columns matches the people or items of the interactions"
            )
    return Guess(validated(DatasetSpec, book.tree, "the guess"), book.reasons, book.left_out)


def _described(others: list[Sample], key: Column, role: str) -> Sample | None:
    """The table that describes the items, or people: a column without repeats holds most of their keys."""
    found = [(points, sample) for sample in others if (points := _id_of(sample, key, role)[1]) > 0]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _id_of(sample: Sample, key: Column, role: str) -> tuple[Column | None, float]:
    """The column with the same keys, and how well it fits; small integers fit anything, so names count."""
    wanted = _keys(key).unique()
    best: tuple[Column | None, float] = (None, 0.0)
    for column in sample.columns:
        if not column.could_be_key or column.distinct < 0.9 * column.filled:
            continue
        shared = float(wanted.is_in(_keys(column).unique().implode()).mean() or 0.0)  # type: ignore[arg-type]
        other = "user" if role == "item" else "item"
        if shared < 0.3 or (means(column.name, other) > means(column.name, role)):
            continue
        points = shared + 2.0 * (column.name == key.name) + 0.5 * means(column.name, role)
        if points > best[1]:
            best = (column, points)
    return best


def _keys(column: Column) -> pl.Series:
    expression = cells.key(column.table, column.name, integer=False)
    return column.table.frame.select(expression.alias("")).collect()[""].drop_nulls()


def _content(part: str, sample: Sample | None, main: Sample, key: Column, book: Notebook) -> None:
    """The id and fields of the table that describes items or people."""
    if sample is None:
        return
    role = part[:-1]
    identity, _ = _id_of(sample, key, role)
    if identity is None:
        raise DataError(
            f"{sample.path.name}: no column holds the keys of '{key.name}' in {main.path.name}. "
            f"Write {part}.id into a dataset.yaml by hand."
        )
    book.put(part, "table", str(sample.path.resolve()), f"one row for each {role}")
    book.put(part, "id", identity.name, f"the same keys as '{key.name}' of the interactions")
    for column in sample.columns:
        if column is not identity:
            book.put_field(part, column)


def _own_columns(
    sample: Sample, roles: dict[str, Column], used: set[str], fields: bool, book: Notebook
) -> None:
    """Columns of the interactions without a role: content of items where each item has its own value."""
    for column in sample.columns:
        if column.name in used:
            continue
        by_item = belonging(sample, column, roles["item"])
        place = f"{sample.path.name}.{column.name}"
        if not fields or by_item < 0.5 or by_item <= belonging(sample, column, roles["user"]):
            same = column.distinct < 2 and not column.dtype.is_nested()
            why = "it is empty or always the same" if same else "it belongs to the event or the person"
            book.left_out[place] = why
            continue
        if "items" not in book.tree:
            book.put("items", "id", roles["item"].name, "each item has its own values in the interactions")
        book.put_field("items", _per_item(sample, column, roles["item"]))
    if fields and not book.tree.get("items", {}).get("fields"):
        book.tree.pop("items", None)


def _per_item(sample: Sample, column: Column, key: Column) -> Column:
    """The column with one row for each item, so that a title does not seem to repeat."""
    frame = sample.frame.filter(pl.col(column.name).is_not_null()).unique(key.name, maintain_order=True)
    table = replace(column.table, frame=frame.lazy())
    return Column(column.name, table, column.dtype)


def _table_reason(sample: Sample, tables: int) -> str:
    rows = f"{sample.frame.height:,} rows read"
    return rows if tables == 1 else f"of {tables} tables the one with people and items that repeat; {rows}"


def write_spec(path: Path, guess: Guess) -> None:
    """``path`` holds the guess as YAML, each line with its reason, with paths relative to its folder."""
    tree = guess.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    lines = [
        "# What the columns seem to mean, and why. Correct what is wrong; remove what is not wanted.",
        "",
    ]
    for part in ("interactions", "items", "users"):
        if part in tree:
            table = tree[part].pop("table")
            if part == "interactions" or table != guess.spec.model_dump(mode="json")["interactions"]["table"]:
                tree[part] = {"table": _relative(table, path.parent), **tree[part]}
            lines += [f"{part}:", *_lines(tree[part], part, 2, guess.reasons)]
    if guess.left_out:
        lines += ["", "# Left out:"]
        lines += [_plain(f"#   {place}: {reason}") for place, reason in guess.left_out.items()]
    lines += ["", "# Rare people and items teach little; to leave them out:", "# settings:"]
    lines += ["#   data: {min_user_events: 5, min_item_events: 5}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _relative(tables: list[str], folder: Path) -> str | list[str]:
    paths = [Path(os.path.relpath(table, folder.resolve())).as_posix() for table in tables]
    return paths[0] if len(paths) == 1 else paths


def _lines(tree: dict[str, Any], place: str, indent: int, reasons: dict[str, str]) -> list[str]:
    lines = []
    for name, value in tree.items():
        here = f"{place}.{name}"
        if name == "fields" and place.count(".") == 0:
            lines += [" " * indent + "fields:", *_lines(value, here, indent + 2, reasons)]
            continue
        line = " " * indent + f"{_flow(name)}: {_flow(value)}"
        reason = _plain(reasons.get(here, ""))
        lines.append(f"{line:<50}  # {reason}" if reason else line)
    return lines


def _plain(text: str) -> str:
    """One printable line: cells and column names may hold anything, and a comment ends with its line."""
    return "".join(mark if mark.isprintable() else " " for mark in text).rstrip()


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
