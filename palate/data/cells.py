"""What a cell means: keys, numbers, lists and paths of media, as Polars expressions.

Nothing here raises for a cell: what cannot be read becomes null, and the caller counts it.
"""

from __future__ import annotations

import posixpath
import re

import polars as pl

from palate.data.tables import Table
from palate.errors import DataError

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N")
"""Texts that say that there is nothing."""


def present(column: str) -> pl.Expr:
    """The trimmed text of a column, null where it says that there is nothing."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~text.is_in(list(MISSING))).then(text)


def has_integer_keys(table: Table, column: str) -> bool:
    """Whether a column's keys are integers: by its type, and for a column of floats by its values."""
    dtype = table.schema[column]
    if dtype.is_integer():
        return dtype != pl.UInt64
    if dtype.is_float() or dtype.is_decimal():
        number = pl.col(column).cast(pl.Float64)
        return not _any(table, number.is_finite() & (number != number.round()))
    return False


def key(table: Table, column: str, *, integer: bool) -> pl.Expr:
    """The keys of a column as int64 or text: trimmed, whole floats as integers, nothing as null.

    Raises:
        DataError: a column of lists, objects or bytes.
    """
    dtype = table.schema[column]
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(f"{table.name}: column '{column}' holds {dtype}; keys are numbers or texts.")
    if dtype.is_integer():
        return pl.col(column).cast(pl.Int64 if integer else pl.String)
    if dtype.is_float() or dtype.is_decimal():
        number = pl.col(column).cast(pl.Float64)
        whole = pl.when(number == number.round()).then(number).cast(pl.Int64, strict=False)
        return whole if integer else pl.coalesce(whole.cast(pl.String), number.fill_nan(None).cast(pl.String))
    text = _text(table, column)
    # A column of integers with gaps is often written as 17850.0 into CSV.
    return text.str.replace(r"^(-?\d+)\.0$", "$1") if table.untyped else text


def number(table: Table, column: str) -> pl.Expr:
    """float64; texts may have a decimal comma, thousands separators, a currency or a percent sign.

    ``1,234`` and ``1.234`` are read as the rest of the column is written: with a decimal comma
    where some cell has one without doubt (``2,55``, ``1.234,5``) and none a decimal point.

    Raises:
        DataError: the column cannot hold numbers.
    """
    dtype = table.schema[column]
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        value = pl.col(column).cast(pl.Float64, strict=False)
        return pl.when(value.is_finite()).then(value)
    if dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(f"{table.name}: column '{column}' holds {dtype}; wanted numbers.")
    plain = present(column).cast(pl.Float64, strict=False)
    if not _any(table, present(column).is_not_null() & plain.is_null()):
        return pl.when(plain.is_finite()).then(plain)
    return _written_number(table, present(column))


def _any(table: Table, condition: pl.Expr) -> bool:
    return bool(table.frame.select(condition.any()).collect(engine="streaming").item())


def _written_number(table: Table, given: pl.Expr) -> pl.Expr:
    """Numbers as people write them; slower by far than those that machines write."""
    text = given.str.replace_all(r"[\s€$£¥￥元%\u00a0]", "")
    comma = text.str.contains(r"^[-+]?\d+,(\d{1,2}|\d{4,})$|^[-+]?\d{1,3}(\.\d{3})+,\d+$")
    point = text.str.contains(r"^[-+]?\d*\.(\d{1,2}|\d{4,})$|^[-+]?\d{1,3}(,\d{3})+\.\d+$")
    with_point = text.str.replace_all(",", "", literal=True)
    with_comma = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    if _any(table, comma) and not _any(table, point):
        # Thousands are grouped by points only where every group has three digits.
        grouped = text.str.contains(r"^[-+]?\d{1,3}(\.\d{3})+$|,")
        chosen = pl.when(grouped).then(with_comma).otherwise(text)
    else:
        thousands = text.str.contains(r"^[-+]?\d{1,3}(,\d{3})+(\.\d+)?$")
        chosen = pl.when(thousands).then(with_point).when(comma).then(with_comma).otherwise(text)
    value = chosen.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def content_text(table: Table, column: str) -> pl.Expr:
    """Text or a category; whole floats as integers, nothing as null.

    Raises:
        DataError: a column of lists, objects or bytes.
    """
    dtype = table.schema[column]
    if dtype.is_numeric():
        return key(table, column, integer=False)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(f"{table.name}: column '{column}' holds {dtype}; wanted texts.")
    return _text(table, column)


def _text(table: Table, column: str) -> pl.Expr:
    """Trimmed text; where the format itself can say that there is nothing, "None" may be a title."""
    if table.untyped:
        return present(column)
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def entries(table: Table, column: str, separator: str | None) -> pl.Expr:
    """The distinct entries of a list: of a column of lists, or of texts such as ``a|b`` or ``['a', 'b']``."""
    dtype = table.schema[column]
    if isinstance(dtype, (pl.List, pl.Array)):
        listed = pl.col(column).cast(pl.List(pl.String))
    else:
        text = present(column)
        if separator is None:
            separator = _list_separator(table, text)
        # An apostrophe before a letter is inside a word: ['Barbera d'Asti', 'Nebbiolo'].
        quoted = text.str.extract_all(r"""\"[^\"]*\"|'(?:[^']|'\w)*'|[^,\[\](){}"'\s][^,\[\](){}]*""")
        listed = (
            pl.when(text.str.contains(r"^[\[({].*[\])}]$")).then(quoted).otherwise(text.str.split(separator))
        )
    each = pl.element().str.strip_chars(" \t\r\n\"'")
    kept = listed.list.eval(each.filter(each.is_not_null() & (each != "")).unique(maintain_order=True))
    return pl.when(kept.list.len() > 0).then(kept)


def _list_separator(table: Table, text: pl.Expr) -> str:
    """Of ``|``, ``;`` and ``,``, the one in most cells."""
    marks = ("|", ";", ",")
    counts = table.frame.select(text.str.contains(mark, literal=True).sum().alias(mark) for mark in marks)
    row = counts.collect(engine="streaming").row(0)
    return marks[max(range(3), key=lambda place: row[place] or 0)]


def vector(table: Table, column: str, separator: str | None) -> pl.Expr:
    """Lists of float32, of a column of lists or of texts such as ``[0.1, 0.2]`` or ``0.1 0.2``."""
    dtype = table.schema[column]
    if isinstance(dtype, (pl.List, pl.Array)):
        return pl.col(column).cast(pl.List(pl.Float32))
    text = present(column).str.strip_chars("[](){} ")
    split = text.str.replace_all(separator or r"[\s,;|]+", " ", literal=separator is not None)
    numbers = split.str.strip_chars().str.split(" ").cast(pl.List(pl.Float32), strict=False)
    # One number that cannot be read spoils the vector: its places would no longer fit the others'.
    return pl.when(~numbers.list.eval(pl.element().is_null()).list.any()).then(numbers)


def inside(path: str) -> bool:
    """Whether a media path stays in its table's folder: relative, no drive, no way out by ``..``."""
    plain = path.replace("\\", "/")
    if plain.startswith(("/", "~")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", plain):
        return False
    return posixpath.normpath(plain).split("/")[0] != ".."
