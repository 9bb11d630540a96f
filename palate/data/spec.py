"""``dataset.yaml``: where a stranger's tables are and what their columns mean.

The models here only say what was written; ``palate.data.source`` reads the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from palate.errors import SettingsError
from palate.schema import FieldKind
from palate.settings import Frozen, Settings, read_yaml, validated

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "order"]


def _listed(value: Any) -> Any:
    """YAML's single text as a list of one."""
    return (value,) if isinstance(value, str) else value


def _text_keys(value: Any) -> Any:
    """Event codes are often numbers, and YAML reads ``1: view`` as one."""
    return {str(key): entry for key, entry in value.items()} if isinstance(value, Mapping) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class TableSpec(Frozen):
    """One table: files, or a query to a database."""

    table: Texts = Field(min_length=1)
    """Paths relative to the YAML file, or one SQLAlchemy URL; ``${NAME}`` in a URL is read from the
    environment."""
    query: str | None = None
    """With a URL: the SELECT statement."""
    sql_table: str | None = None
    """With a URL: the table to read, with its schema before a dot."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Between the cells of CSV; by default, found out."""
    encoding: str | None = None
    """Of text files; by default, found out."""

    @property
    def is_url(self) -> bool:
        return len(self.table) == 1 and ("://" in self.table[0] or self.table[0].startswith("${"))

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = (self.query is not None) + (self.sql_table is not None)
        if asked != int(self.is_url):
            raise ValueError("A database URL needs either 'query' or 'sql_table'; files take neither")
        return self


class FieldSpec(Frozen):
    """One field of content."""

    kind: FieldKind
    column: str | None = None
    """The column; by default, the one of the field's own name."""
    separator: str | None = Field(default=None, min_length=1)
    """Between the entries of a text that lists categories or numbers (by default, found out), or paths of
    pictures, clips or tracks (by default, a text is one path)."""


class InteractionsSpec(TableSpec):
    """Who met what, when and how."""

    user: str
    item: str
    time: str | None = None
    """Without it the order of the rows is the order of the events."""
    time_unit: TimeUnit = "auto"
    day_first: bool | None = None
    """How to read 3/4/2011; by default, as most of the column can be read."""
    event: str | None = None
    """Column with the names of events."""
    event_default: str = "interaction"
    """The event where there is no such column or its cell is empty."""
    event_names: Annotated[dict[str, str], BeforeValidator(_text_keys)] = Field(default_factory=dict)
    """Renames: what the column says, and what we call it."""
    event_weights: Annotated[dict[str, float], BeforeValidator(_text_keys)] = Field(default_factory=dict)
    """Weight of an event type as a training target; 1 unless named."""
    value: str | None = None
    """Column with an amount or a rating."""
    negative_value: str | None = None
    """Event type of rows whose value is below zero."""
    require_positive: Texts = ()
    """Columns that must be above zero for a row to count (a price of 0 is a correction, not a sale)."""
    exclude_items: Texts = ()
    """Regular expressions; an item whose whole key matches one is not a thing to recommend."""

    @field_validator("exclude_items")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return patterns


class ItemsSpec(TableSpec):
    """What the items are."""

    id: str
    fields: dict[str, FieldSpec] = Field(default_factory=dict)

    @field_validator("fields")
    @classmethod
    def _names_are_free(cls, fields: dict[str, FieldSpec]) -> dict[str, FieldSpec]:
        taken = sorted({"item", "user", "row", "count"} & set(fields))
        if taken:
            raise ValueError(f"A field may not be called {', '.join(taken)}; name it otherwise")
        return fields


class UsersSpec(ItemsSpec):
    """Who the people are."""


class RelationSpec(TableSpec):
    """Pairs of people, or of items, that belong together."""

    kind: Literal["user-user", "item-item"]
    from_column: str = Field(alias="from")
    to_column: str = Field(alias="to")
    weight: str | None = None


class DatasetSpec(Frozen):
    """The whole of ``dataset.yaml``."""

    name: str | None = None
    interactions: InteractionsSpec
    items: ItemsSpec | None = None
    users: UsersSpec | None = None
    relations: tuple[RelationSpec, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of a run that belong to this data; ``--config`` and ``--set`` win over them."""

    @model_validator(mode="before")
    @classmethod
    def _one_table(cls, tree: Any) -> Any:
        """``items`` and ``users`` without a table are columns of the interactions."""
        main = tree.get("interactions") if isinstance(tree, Mapping) else None
        if not isinstance(main, Mapping):
            return tree
        shared = {name: main[name] for name in TableSpec.model_fields if name in main}
        filled = dict(tree)
        for role in ("items", "users"):
            part = tree.get(role)
            if isinstance(part, Mapping) and "table" not in part:
                filled[role] = {**shared, **part}
        return filled


def read_spec(path: Path) -> DatasetSpec:
    """What a ``dataset.yaml`` says.

    Raises:
        SettingsError: an unknown key (with the nearest known one), an impossible value, not YAML.
    """
    spec = validated(DatasetSpec, read_yaml(path), str(path))
    try:
        Settings.build(spec.settings)
    except SettingsError as error:
        raise SettingsError(f"{path}: in its 'settings', {error}") from None
    return spec
