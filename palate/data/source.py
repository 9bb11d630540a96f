"""Reading a stranger's data: from ``dataset.yaml``, a folder, a table or frames to a ``Dataset``.

Nothing is judged here. Cells that cannot be read become null and are counted in ``Dataset.notes``;
what to do with them is for the cleaning rules. Interactions stay unread as far as their format
allows: Parquet and UTF-8 CSV are scanned, whatever their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError

from palate.data.canonical import (
    Tables,
    integer_keys,
    read_content,
    read_interactions,
    read_relation,
    sound_rows,
)
from palate.data.guess import guess_spec
from palate.data.spec import (
    DatasetSpec,
    TimeUnit,
    read_spec,
)
from palate.data.tables import Table, fingerprint, is_table, open_table
from palate.errors import DataError
from palate.schema import Dataset, Field, FieldKind, Note
from palate.settings import Settings, validated

if TYPE_CHECKING:
    import pandas as pd

    Frame = pl.DataFrame | pl.LazyFrame | pd.DataFrame

FieldWish = FieldKind | str | tuple[str, FieldKind | str]
"""A field's kind, or its column and kind."""


def read_dataset(path: str | Path) -> Dataset:
    """The data set that a ``dataset.yaml``, the folder of one, or a folder or file of tables describes.

    Without a ``dataset.yaml`` the roles of the columns are guessed, as ``palate init`` does.

    Raises:
        SettingsError: the YAML has unknown keys or impossible values.
        DataError: a table or column is missing, empty or unreadable, or no roles can be guessed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is nothing at {path}; wanted a dataset.yaml, a folder or a table file.")
    written = path / "dataset.yaml" if path.is_dir() else path
    if written.suffix in (".yaml", ".yml") and written.is_file():
        spec, text, base = read_spec(written), written.read_text("utf-8-sig"), written.parent
        name = written.resolve().parent.name
    else:
        files = sorted(file for file in path.iterdir() if is_table(file)) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds neither a dataset.yaml nor a table (CSV, TSV, JSONL, Parquet).")
        spec, base = guess_spec(files).spec, path if path.is_dir() else path.parent
        text, name = spec.model_dump_json(), path.resolve().name.split(".")[0]
    specs = [spec.interactions, *filter(None, [spec.items, spec.users]), *spec.relations]
    return _assembled(spec, _opened(spec, base), spec.name or name, fingerprint(text, specs, base))


def dataset_from_frames(
    interactions: Frame,
    *,
    user: str,
    item: str,
    time: str | None = None,
    event: str | None = None,
    value: str | None = None,
    items: Frame | None = None,
    item_id: str | None = None,
    fields: Mapping[str, FieldWish] | None = None,
    users: Frame | None = None,
    user_id: str | None = None,
    user_fields: Mapping[str, FieldWish] | None = None,
    event_default: str = "interaction",
    event_names: Mapping[str, str] | None = None,
    event_weights: Mapping[str, float] | None = None,
    negative_value: str | None = None,
    require_positive: Sequence[str] = (),
    exclude_items: Sequence[str] = (),
    time_unit: TimeUnit = "auto",
    day_first: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    media_folder: str | Path | None = None,
    name: str = "data",
) -> Dataset:
    """The data set in pandas or Polars frames.

    ``fields`` maps a field's name to its kind, or to its column and kind; without ``items`` they
    are columns of the interactions. Paths of pictures, clips and tracks begin at ``media_folder``;
    without it these fields are not read.

    Raises:
        SettingsError: an impossible value.
        DataError: a missing column, no rows, or a column that cannot have its role.
    """
    tree: dict[str, Any] = {
        "interactions": {
            "table": "interactions",
            "user": user,
            "item": item,
            "time": time,
            "time_unit": time_unit,
            "day_first": day_first,
            "event": event,
            "event_default": event_default,
            "event_names": dict(event_names or {}),
            "event_weights": dict(event_weights or {}),
            "value": value,
            "negative_value": negative_value,
            "require_positive": list(require_positive),
            "exclude_items": list(exclude_items),
        },
        "settings": dict(settings or {}),
    }
    if items is not None or fields:
        tree["items"] = {"table": "items", "id": item_id or item, "fields": _wishes(fields)}
    if users is not None:
        tree["users"] = {"table": "users", "id": user_id or user, "fields": _wishes(user_fields)}
    spec = validated(DatasetSpec, tree, "dataset_from_frames")
    Settings.build(spec.settings)
    main = _frame_table("interactions", interactions)
    described = main if items is None else _frame_table("items", items)
    described = replace(described, folder=Path(media_folder) if media_folder is not None else None)
    main = described if items is None else main
    tables = Tables(
        main,
        described if spec.items is not None else None,
        _frame_table("users", users) if users is not None else None,
    )
    return _assembled(spec, tables, name, "")


def _wishes(fields: Mapping[str, FieldWish] | None) -> dict[str, dict[str, str]]:
    wishes = {}
    for name, wish in (fields or {}).items():
        column, kind = (name, wish) if isinstance(wish, str) else wish
        wishes[name] = {"column": column, "kind": str(kind)}
    return wishes


def _frame_table(name: str, frame: Any) -> Table:
    if type(frame).__module__.split(".")[0] == "pandas":  # pandas need not be installed to ask
        frame = pl.DataFrame([_pandas_column(str(label), frame[label]) for label in frame.columns])
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        raise DataError(f"{name} is a {type(frame).__name__}; wanted a pandas or Polars frame.")
    table = Table(name, frame.lazy())
    if table.frame.head(1).collect().is_empty():
        raise DataError(f"{name} has no rows.")
    return table


def _pandas_column(name: str, column: Any) -> pl.Series:
    try:
        read: pl.Series = pl.from_pandas(column, nan_to_null=True)
        return read.rename(name)
    except (TypeError, ValueError, PolarsError):  # mixed types, which Arrow refuses
        texts = [None if missing else str(cell) for cell, missing in zip(column, column.isna(), strict=True)]
        return pl.Series(name, texts, dtype=pl.String)


def _opened(spec: DatasetSpec, base: Path) -> Tables:
    main = open_table(spec.interactions, base)
    items = spec.items
    asked = (spec.interactions.table, spec.interactions.query, spec.interactions.sql_table)
    same = items is not None and (items.table, items.query, items.sql_table) == asked
    return Tables(
        main,
        main if same else open_table(items, base) if items is not None else None,
        open_table(spec.users, base) if spec.users is not None else None,
        tuple(open_table(relation, base) for relation in spec.relations),
    )


def _assembled(spec: DatasetSpec, tables: Tables, name: str, mark: str) -> Dataset:
    integer = integer_keys(spec, tables)
    interactions, has_time, notes = read_interactions(spec.interactions, tables.interactions, integer)
    dataset = Dataset(
        name,
        interactions,
        has_time=has_time,
        event_weights=dict(spec.interactions.event_weights),
        negative_value=spec.interactions.negative_value,
        exclude_items=spec.interactions.exclude_items,
        require_positive=spec.interactions.require_positive,
        settings=spec.settings,
        fingerprint=mark,
    )
    return _with_read(dataset, spec, tables, integer, notes)


def _with_read(
    dataset: Dataset, spec: DatasetSpec, tables: Tables, integer: Mapping[str, bool], notes: list[Note]
) -> Dataset:
    items = users = None
    fields: tuple[Field, ...] = ()
    if spec.items is not None and tables.items is not None:
        fields = tuple(Field(name, field.kind) for name, field in spec.items.fields.items())
        main = tables.interactions
        sound = sound_rows(spec.interactions, main) if tables.items is main else None
        items, more = read_content(spec.items, tables.items, "item", integer["item"], sound=sound)
        notes = notes + more
    if spec.users is not None and tables.users is not None:
        users, more = read_content(spec.users, tables.users, "user", integer["user"])
        notes = notes + more
    relations = tuple(
        read_relation(relation, table, integer)
        for relation, table in zip(spec.relations, tables.relations, strict=True)
    )
    return replace(
        dataset,
        items=items,
        users=users,
        fields=fields,
        relations=relations,
        notes=tuple(notes),
        media_folder=tables.items.folder if tables.items is not None else None,
    )
