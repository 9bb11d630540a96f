"""What a column seems to hold, from a sample of its table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from palate.data import cells, times
from palate.data.spec import TableSpec
from palate.data.tables import Table, open_table
from palate.data.words import means, words_of
from palate.errors import DataError
from palate.schema import FieldKind

SAMPLE_ROWS = 50_000
_SUFFIXES = {
    FieldKind.IMAGE: r"(?i)\.(jpe?g|png|gif|webp|bmp|tiff?)$",
    FieldKind.AUDIO: r"(?i)\.(mp3|wav|flac|ogg|m4a)$",
    FieldKind.VIDEO: r"(?i)\.(mp4|mkv|mov|avi|webm)$",
}
_FLOATS = r"^[\[(]?\s*-?\d+\.\d+(e-?\d+)?([,;\s]+-?\d+\.\d+(e-?\d+)?){2,}\s*[\])]?$"
_BRACKETS = r"^[\[({].*[\])}]$"


@dataclass(frozen=True)
class Column:
    """A column of a sample, with what guessing asks of it."""

    name: str
    table: Table
    dtype: pl.DataType

    @cached_property
    def texts(self) -> pl.Series:
        """Its filled cells as trimmed text; of lists, nothing."""
        if self.dtype.is_nested() or self.dtype in (pl.Binary, pl.Object):
            return pl.Series([], dtype=pl.String)
        return self._read(cells.present(self.name)).drop_nulls()

    @cached_property
    def distinct(self) -> int:
        return self.texts.n_unique()

    @property
    def filled(self) -> int:
        return len(self.texts)

    @cached_property
    def is_unique(self) -> bool:
        return self.filled > 0 and self.distinct == self.filled

    @cached_property
    def is_time(self) -> bool:
        """Whether its cells read as moments; numbers of 2000 to 2040, or where the name says so."""
        if isinstance(self.dtype, pl.Datetime) or self.dtype == pl.Date:
            return True
        if not self.filled or not (self.dtype == pl.String or self.dtype.is_numeric()):
            return False
        clock = times.clock(self.table, self.name, "auto", None)
        if not clock.has_time:
            return False
        moments = self._read(clock.expression).drop_nulls()
        if len(moments) < 0.8 * self.filled:
            return False
        if self.is_number:
            recent = bool(moments.is_between(946_684_800_000_000, 2_208_988_800_000_000).all())
            keyed = means_identifier(self.name) or means(self.name, "user") or means(self.name, "item")
            return means(self.name, "time") > 0 or (recent and not keyed)
        return True

    @cached_property
    def numbers(self) -> pl.Series:
        """Its cells as numbers, where they are that."""
        if self.dtype.is_numeric() or self.dtype == pl.String:
            return self._read(cells.number(self.table, self.name)).drop_nulls()
        return pl.Series([], dtype=pl.Float64)

    @cached_property
    def is_number(self) -> bool:
        return self.filled > 0 and len(self.numbers) >= 0.95 * self.filled

    @cached_property
    def is_whole(self) -> bool:
        return self.is_number and bool((self.numbers == self.numbers.round()).all())

    @cached_property
    def mean_length(self) -> float:
        return float(self.texts.str.len_chars().mean() or 0.0)  # type: ignore[arg-type]

    @cached_property
    def could_be_key(self) -> bool:
        """Whether it may identify people or items: short, not a moment, not a measured number."""
        if not self.filled or self.distinct < 2 or self.is_time or self.mean_length > 64:
            return False
        return not self.is_number or self.is_whole

    def _read(self, expression: pl.Expr) -> pl.Series:
        return self.table.frame.select(expression.alias("")).collect()[""]

    def share(self, pattern: str) -> float:
        """Share of the filled cells that contain a pattern."""
        return float(self.texts.str.contains(pattern).mean() or 0.0)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sample:
    """The first rows of a table file, in memory."""

    path: Path
    table: Table
    frame: pl.DataFrame
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        self.table.require(name, "as asked for")
        return next(column for column in self.columns if column.name == name)


def take_sample(path: Path) -> Sample:
    """The first rows of a table file.

    Raises:
        DataError: the file cannot be read as a table, or has no rows.
    """
    table = open_table(TableSpec(table=(str(path.resolve()),)), Path())
    frame = table.frame.head(SAMPLE_ROWS).collect()
    held = Table(table.name, frame.lazy(), table.untyped)
    columns = tuple(Column(name, held, dtype) for name, dtype in frame.schema.items())
    if all(re.fullmatch(r"[\d.,:-]*", name) for name in frame.columns):
        raise DataError(
            f"{path} seems to have no line of column names: its first line is {', '.join(frame.columns)}. "
            "Add one, for example user,item,time."
        )
    return Sample(path, held, frame, columns)


def means_identifier(name: str) -> bool:
    return bool({"id", "key", "nr", "no", "code", "uuid", "zip", "phone"} & set(words_of(name))) or (
        name.lower().endswith("id") or "编号" in name
    )


def field_kind(column: Column) -> tuple[FieldKind | None, str, str | None]:
    """The kind of a content column, why, and the separator of its lists; no kind where it teaches nothing."""
    dtype = column.dtype
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = dtype.inner
        numbers = isinstance(inner, pl.DataType) and inner.is_float()
        return FieldKind.VECTOR if numbers else FieldKind.CATEGORIES, f"its cells are lists of {inner}", None
    if column.distinct < 2 or column.is_time:
        return None, "it is a date" if column.is_time else "it is empty or always the same", None
    for kind, suffix in _SUFFIXES.items():
        if column.share(suffix) > 0.8:
            return kind, f"its cells are names of {kind} files", None
    if column.share(_FLOATS) > 0.8:
        return FieldKind.VECTOR, "its cells are lists of numbers with decimals", None
    return _numeric_kind(column) if column.is_number else _textual_kind(column)


def _numeric_kind(column: Column) -> tuple[FieldKind | None, str, str | None]:
    repeats = f"{column.distinct:,} distinct values in {column.filled:,} rows"
    if means_identifier(column.name) or means(column.name, "category") == 2:
        if column.distinct > 0.5 * column.filled:
            return None, f"a number that names something, but hardly repeats ({repeats})", None
        return FieldKind.CATEGORY, f"a number that names something, and repeats: {repeats}", None
    return FieldKind.NUMBER, "its cells are numbers", None


def _textual_kind(column: Column) -> tuple[FieldKind | None, str, str | None]:
    repeats = f"{column.distinct:,} distinct values in {column.filled:,} rows"
    says_text = means(column.name, "text") > 0
    if column.share(_BRACKETS) > 0.8:
        return FieldKind.CATEGORIES, "its cells are lists in brackets", None
    separator = None if says_text else _separator(column)
    if separator is not None:
        return FieldKind.CATEGORIES, f"its cells list entries between '{separator}', which repeat", separator
    has_words = column.share(r"\S\s+\S|[\u3400-\u9fff]{3}") > 0.3
    if column.is_unique and column.filled > 2 and not has_words and not says_text:
        return None, "every cell differs, and none is a text of words", None
    few = column.distinct <= max(0.2 * column.filled, 2) or means(column.name, "category") > 0
    if says_text and not few:
        return FieldKind.TEXT, "its name means a text", None
    if (few or not has_words) and column.mean_length <= 40 and column.distinct < column.filled:
        return FieldKind.CATEGORY, f"short texts that repeat: {repeats}", None
    return FieldKind.TEXT, f"texts of words: {repeats}", None


def _separator(column: Column) -> str | None:
    """The mark between short entries that occur in many cells."""
    for mark, least in (("|", 0.1), (";", 0.2), (",", 0.3)):
        if column.share(re.escape(mark)) < least:
            continue
        listed = column.texts.str.split(mark).explode(empty_as_null=True).str.strip_chars()
        short = float(listed.str.len_chars().mean() or 0.0) <= 25  # type: ignore[arg-type]
        if short and listed.n_unique() <= 0.5 * len(listed):
            return mark
    return None
