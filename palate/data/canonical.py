"""From opened tables to the columns that everything after reads; nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from palate.data import cells, times
from palate.data.spec import DatasetSpec, FieldSpec, InteractionsSpec, ItemsSpec, RelationSpec
from palate.data.tables import Table
from palate.schema import MEDIA, FieldKind, Note

_ROW = "row of the source"
"""A name that no column has by chance."""


@dataclass(frozen=True)
class Tables:
    """The opened tables of one data set; ``items`` may be the very table of the interactions."""

    interactions: Table
    items: Table | None = None
    users: Table | None = None
    relations: tuple[Table, ...] = ()


def integer_keys(spec: DatasetSpec, tables: Tables) -> dict[str, bool]:
    """Whether people's and items' keys are integers: where every column of them is."""
    main = tables.interactions
    columns = {
        "user": [(main, main.require(spec.interactions.user, "interactions.user"))],
        "item": [(main, main.require(spec.interactions.item, "interactions.item"))],
    }
    if spec.items is not None and tables.items is not None:
        columns["item"].append((tables.items, tables.items.require(spec.items.id, "items.id")))
    if spec.users is not None and tables.users is not None:
        columns["user"].append((tables.users, tables.users.require(spec.users.id, "users.id")))
    for relation, table in zip(spec.relations, tables.relations, strict=True):
        for column in (relation.from_column, relation.to_column):
            columns[relation.kind.split("-")[0]].append((table, table.require(column, "relations")))
    return {role: all(cells.has_integer_keys(*each) for each in where) for role, where in columns.items()}


def read_interactions(
    spec: InteractionsSpec, table: Table, integer: Mapping[str, bool]
) -> tuple[pl.LazyFrame, bool, list[Note]]:
    """The canonical columns, not yet read; whether there are times; what could not be read."""
    columns = {
        "user": cells.key(table, spec.user, integer=integer["user"]),
        "item": cells.key(table, spec.item, integer=integer["item"]),
    }
    has_time, notes, doubtful = False, list(table.notes), {}
    if spec.time is not None:
        clock = times.clock(
            table, table.require(spec.time, "interactions.time"), spec.time_unit, spec.day_first
        )
        columns["time"], has_time = clock.expression, clock.has_time
        notes += clock.notes
        doubtful["times"] = (spec.time, clock.expression)
    else:
        columns["time"] = pl.col(_ROW).cast(pl.Int64)
    columns["event"] = _event(spec, table)
    columns["value"] = pl.lit(None, dtype=pl.Float64)
    if spec.value is not None:
        columns["value"] = cells.number(table, table.require(spec.value, "interactions.value"))
        doubtful["values"] = (spec.value, columns["value"])
    for name in spec.require_positive:
        positive = cells.number(table, table.require(name, "interactions.require_positive"))
        doubtful[f"numbers of {name}"] = (name, positive)
        columns["positive"] = columns.get("positive", pl.lit(True)) & (positive > 0).fill_null(False)
    notes += _unreadable(table, doubtful)
    numbered = table.frame.with_row_index(_ROW)
    return numbered.select(**columns, row=pl.col(_ROW).cast(pl.Int64)), has_time, notes


def sound_rows(spec: InteractionsSpec, table: Table) -> pl.Expr:
    """Whether a row has a person and is positive where it must be."""
    sound = cells.key(table, spec.user, integer=False).is_not_null()
    for name in spec.require_positive:
        sound = sound & (cells.number(table, name) > 0).fill_null(False)
    return sound


def _event(spec: InteractionsSpec, table: Table) -> pl.Expr:
    if spec.event is None:
        return pl.lit(spec.event_default)
    column = table.require(spec.event, "interactions.event")
    name = cells.content_text(table, column)
    if spec.event_names:
        name = name.replace(dict(spec.event_names))
    return name.fill_null(spec.event_default)


def _unreadable(table: Table, doubtful: Mapping[str, tuple[str, pl.Expr]]) -> list[Note]:
    """A note per column of texts that holds something else than its role wants."""
    schema = table.schema
    asked = {role: pair for role, pair in doubtful.items() if schema[pair[0]] == pl.String}
    if not asked:
        return []
    counts: list[pl.Expr] = [pl.len().alias("rows")]
    for role, (column, parsed) in asked.items():
        given = cells.present(column)
        bad = given.is_not_null() & parsed.is_null()
        counts.append(bad.sum().alias(f"{role} count"))
        counts.append(given.filter(bad).head(3).implode().alias(f"{role} examples"))
    found = table.frame.select(counts).collect(engine="streaming").row(0, named=True)
    return [
        Note(
            f"unreadable {role}",
            0,
            found["rows"],
            f"{table.name}: {found[f'{role} count']:,} cells unreadable in column '{column}', taken as empty",
            tuple(found[f"{role} examples"]),
        )
        for role, (column, _) in asked.items()
        if found[f"{role} count"]
    ]


def read_content(
    spec: ItemsSpec, table: Table, role: str, integer: bool, *, sound: pl.Expr | None = None
) -> tuple[pl.DataFrame, list[Note]]:
    """The content of items or people, read: key and fields.

    Of columns of the interactions, each distinct content once, with ``count`` and ``row``: where it
    first appears, if possible in a ``sound`` row (a row that cleaning drops says nothing of training).
    """
    columns = {name: _field(table, name, field) for name, field in spec.fields.items()}
    numbers = {
        f"numbers of {name}": (field.column or name, columns[name])
        for name, field in spec.fields.items()
        if field.kind in (FieldKind.NUMBER, FieldKind.VECTOR)
    }
    notes = _unreadable(table, numbers)
    keyed = {role: cells.key(table, table.require(spec.id, f"{role}s.id"), integer=integer), **columns}
    if sound is not None:
        # Millions of events repeat the content of a few thousand items.
        row = pl.col(_ROW).cast(pl.Int64)
        rows = table.frame.with_row_index(_ROW).select(**keyed, row=row, sound=pl.when(sound).then(row))
        first = pl.coalesce(pl.col("sound").min(), pl.col("row").min()).alias("row")
        said = rows.group_by(list(keyed)).agg(first, pl.len().cast(pl.Int64).alias("count"))
        frame = said.collect(engine="streaming").sort("row")
    else:
        notes = [*table.notes, *notes]
        frame = table.frame.select(**keyed).collect()
    for name, field in spec.fields.items():
        if field.kind in MEDIA:
            frame, more = _without_escapes(frame, name, table)
            notes = notes + more
    return frame, notes


def _field(table: Table, name: str, field: FieldSpec) -> pl.Expr:
    column = table.require(field.column or name, f"the field '{name}'")
    if field.kind == FieldKind.NUMBER:
        return cells.number(table, column)
    if field.kind == FieldKind.CATEGORIES:
        return cells.entries(table, column, field.separator)
    if field.kind == FieldKind.VECTOR:
        return cells.vector(table, column, field.separator)
    if field.kind in MEDIA and (field.separator or isinstance(table.schema[column], (pl.List, pl.Array))):
        return cells.entries(table, column, field.separator)
    return cells.content_text(table, column)


def _without_escapes(frame: pl.DataFrame, name: str, table: Table) -> tuple[pl.DataFrame, list[Note]]:
    several = isinstance(frame.schema[name], pl.List)
    paths = frame[name].explode() if several else frame[name]
    outside = paths.drop_nulls().unique(maintain_order=True)
    outside = outside.filter(pl.Series([not cells.inside(path) for path in outside], dtype=pl.Boolean))
    count = int(paths.is_in(outside.implode()).sum())
    if not count:
        return frame, []
    detail = (
        f"{table.name}: {count:,} cells unreadable in field '{name}': absolute paths, or paths that leave "
        "the table's folder; taken as empty"
    )
    examples = tuple(outside.head(3).to_list())
    if several:
        kept = pl.col(name).list.eval(pl.element().filter(~pl.element().is_in(outside.implode())))
        cleaned = frame.with_columns(pl.when(kept.list.len() > 0).then(kept).alias(name))
    else:
        cleaned = frame.with_columns(pl.when(~pl.col(name).is_in(outside.implode())).then(pl.col(name)))
    return cleaned, [Note("unreadable media paths", 0, frame.height, detail, examples)]


def read_relation(spec: RelationSpec, table: Table, integer: Mapping[str, bool]) -> pl.DataFrame:
    """Columns ``kind``, ``from``, ``to`` (keys) and ``weight`` (float64, 1 where the table has none)."""
    whole = integer[spec.kind.split("-")[0]]
    weight: pl.Expr = pl.lit(1.0)
    if spec.weight is not None:
        weight = cells.number(table, table.require(spec.weight, "relations.weight"))
    columns = {
        "kind": pl.lit(spec.kind),
        "from": cells.key(table, spec.from_column, integer=whole),
        "to": cells.key(table, spec.to_column, integer=whole),
        "weight": weight,
    }
    return table.frame.select(**columns).collect()
