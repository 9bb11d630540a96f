"""Reading times: typed columns, texts in the usual forms, and numbers since 1970."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from palate.data import cells
from palate.data.spec import TimeUnit
from palate.data.tables import Table
from palate.errors import DataError
from palate.schema import Note

SAMPLE_ROWS = 10_000
"""Filled cells that tell whether a column holds numbers, and of which size."""

_DATE = (
    r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{8}"
    r"|\d{1,2}\.?[ -][A-Za-z]{3,9}\.?,?[ -]\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}"
)
_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
)
_STAMP = rf"^(?:[A-Za-z]{{3,9}}, )?(?P<date>{_DATE})(?:(?:T|,? +){_CLOCK})?$"
_CERTAIN_FORMATS = ("%Y-%m-%d", "%Y%m%d", "%d-%b-%Y", "%d-%B-%Y", "%b-%d-%Y", "%B-%d-%Y", "%d-%b-%y")
_DAY_FIRST = ("%d-%m-%Y", "%d-%m-%y")
_MONTH_FIRST = ("%m-%d-%Y", "%m-%d-%y")

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds in each unit; nanoseconds are divided instead."""


@dataclass(frozen=True)
class Clock:
    """How a column of times is read."""

    expression: pl.Expr
    """int64: microseconds since 1970 in UTC, or an order."""
    has_time: bool
    notes: tuple[Note, ...] = ()


def clock(table: Table, column: str, unit: TimeUnit, day_first: bool | None) -> Clock:
    """How to read a column of times: dates by type, texts by form, numbers by size or by ``unit``.

    Raises:
        DataError: the column cannot hold times, or its unit contradicts its type.
    """
    dtype = table.schema[column]
    if isinstance(dtype, pl.Datetime):
        moment = pl.col(column)
        moment = moment.dt.convert_time_zone("UTC") if dtype.time_zone else moment
        return Clock(moment.dt.epoch("us"), True)
    if dtype == pl.Date:
        return Clock(pl.col(column).cast(pl.Datetime("us")).dt.epoch("us"), True)
    if dtype == pl.String:
        sample = (
            table.frame.select(cells.present(column).alias("")).drop_nulls().head(SAMPLE_ROWS).collect()[""]
        )
        numeric = sample.cast(pl.Float64, strict=False)
        if 2 * numeric.count() > len(sample):
            exact = cells.present(column).cast(pl.Int64, strict=False)
            return _epoch(
                numeric.drop_nulls(), exact, cells.present(column).cast(pl.Float64, strict=False), unit
            )
        return _text_clock(table, column, day_first)
    if not dtype.is_numeric():
        raise DataError(f"{table.name}: column '{column}' holds {dtype}; wanted dates or times.")
    numbers = table.frame.select(pl.col(column).cast(pl.Float64).alias("")).drop_nulls().head(SAMPLE_ROWS)
    exact = pl.col(column).cast(pl.Int64, strict=False)
    return _epoch(numbers.collect()[""], exact, pl.col(column), unit)


def _epoch(sample: pl.Series, exact: pl.Expr, value: pl.Expr, unit: TimeUnit) -> Clock:
    """Epoch numbers by the size of the middle one: seconds have 9 or 10 digits, each finer unit 3 more.

    Eight digits that read as a day (20110304) and fourteen that read as a second are dates.
    """
    middle = abs(float(sample.median() or 0.0))  # type: ignore[arg-type]
    if unit == "auto":
        for digits, form in ((8, "%Y%m%d"), (14, "%Y%m%d%H%M%S")):
            texts = sample.cast(pl.Int64, strict=False).cast(pl.String)
            if texts.len() and (texts.str.contains(rf"^(19|20)\d{{{digits - 2}}}$")).all():
                read = texts.str.to_datetime(form, strict=False, time_unit="us")
                if read.null_count() == 0:
                    packed = exact.cast(pl.String).str.to_datetime(form, strict=False, time_unit="us")
                    return Clock(packed.dt.epoch("us"), True)
        bounds: list[tuple[float, TimeUnit]] = [(1e8, "order"), (1e11, "s"), (1e14, "ms"), (1e17, "us")]
        unit = next((name for bound, name in bounds if middle < bound), "ns")
    if unit == "order":
        return Clock(exact, False)
    if unit == "ns":
        return Clock(exact // 1_000, True)
    scale = _UNITS[unit]
    whole = exact == value.cast(pl.Float64, strict=False)
    scaled = (value.cast(pl.Float64, strict=False) * scale).round().cast(pl.Int64, strict=False)
    return Clock(pl.when(whole).then(exact * scale).otherwise(scaled), True)


def _text_clock(table: Table, column: str, day_first: bool | None) -> Clock:
    """Whether days or months come first is decided by the whole column: what reads more of it."""
    groups = cells.present(column).str.extract_groups(_STAMP)
    date = groups.struct.field("date").str.strip_chars_end("日").str.replace_all(r"\.? |[/.年月]|, ?", "-")
    date = date.str.replace_all(r"-+", "-")
    first, second = _first_of(date, _DAY_FIRST), _first_of(date, _MONTH_FIRST)
    notes: tuple[Note, ...] = ()
    if day_first is None:
        counts = table.frame.select(first.count().alias("d"), second.count().alias("m"), pl.len().alias("n"))
        days, months, rows = counts.collect(engine="streaming").row(0)
        day_first = days >= months
        if days == months and days:
            detail = (
                f"{table.name}: '{column}' reads equally well day first and month first; read day first. "
                "Set interactions.day_first to settle it."
            )
            notes = (Note("ambiguous dates", 0, rows, detail),)
    day = pl.coalesce(_first_of(date, _CERTAIN_FORMATS), first if day_first else second)
    return Clock(day.cast(pl.Datetime("us")).dt.epoch("us") + _time_of_day(groups), True, notes)


def _first_of(date: pl.Expr, formats: tuple[str, ...]) -> pl.Expr:
    """The date by the first format that gives a year of our times (``%Y`` alone also reads ``11``)."""
    tries = [date.str.to_date(form, strict=False) for form in formats]
    return pl.coalesce([pl.when(t.dt.year().is_between(1900, 2200)).then(t) for t in tries])


def _time_of_day(groups: pl.Expr) -> pl.Expr:
    """Microseconds since midnight in UTC; 0 where only a day is given."""

    def part(name: str) -> pl.Expr:
        return groups.struct.field(name).cast(pl.Int64, strict=False).fill_null(0)

    half = groups.struct.field("half").str.to_lowercase()
    hour = pl.when(half.is_not_null()).then(part("hour") % 12 + 12 * (half == "p").cast(pl.Int64))
    fraction = groups.struct.field("fraction").str.pad_end(6, "0").str.head(6)
    zone = groups.struct.field("zone").str.extract_groups(
        r"(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?"
    )
    east = zone.struct.field("hours").cast(pl.Int64).fill_null(0) * 60
    east = east + zone.struct.field("minutes").cast(pl.Int64).fill_null(0)
    east = pl.when(zone.struct.field("sign") == "-").then(-east).otherwise(east)
    minutes = hour.otherwise(part("hour")) * 60 + part("minute") - east
    return (minutes * 60 + part("second")) * 1_000_000 + fraction.cast(pl.Int64, strict=False).fill_null(0)
