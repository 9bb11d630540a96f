"""The event log: interactions as flat arrays, keys already turned into small integers.

A row of a table with text keys weighs a hundred bytes and more; here it weighs 21. Everything that
cleaning does afterwards is a mask over these arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from palate.errors import DataError
from palate.schema import BoolArray, Dataset, FloatArray, IntArray

MISSING = -1
"""Code of a person or item whose key is missing."""
MISSING_EVENT = 255
MISSING_TIME = np.iinfo(np.int64).min
CHUNK = 1 << 20
"""Events that are looked at in one go where a step in between would not fit into the cache."""
COLUMNS = ("user", "item", "event", "time", "row", "value", "positive")


@dataclass(frozen=True)
class Log:
    """Events with their keys as codes: ``people[user[e]]`` met ``items[item[e]]``.

    Codes follow the sorted keys, so that they depend on the keys alone and not on the row order.
    """

    user: IntArray  # int32 [E], codes into people; -1 missing
    item: IntArray  # int32 [E], codes into items; -1 missing
    event: IntArray  # uint8 [E], codes into events; 255 missing
    time: IntArray  # int64 [E], microseconds or an order; the smallest int64 where missing
    row: IntArray  # int32 or int64 [E], place in the source
    value: FloatArray | None  # float32 [E], only where a rule reads it
    positive: BoolArray | None  # [E], only where a rule reads it
    people: pl.Series  # sorted keys, int64 or text
    items: pl.Series
    events: tuple[str, ...]
    has_time: bool

    def __len__(self) -> int:
        return len(self.user)

    def keep(self, mask: BoolArray) -> Log:
        """Only the events where ``mask`` is true; the same log if that is all of them."""
        return self if mask.all() else self._take(mask)

    def without_amounts(self) -> Log:
        """The log once no further rule reads the amounts."""
        return replace(self, value=None, positive=None)

    def sorted(self) -> Log:
        """The same events by person, then time, then place in the source."""
        by_time = _order_of_times(self.time)
        user = self.user if by_time is None else self.user[by_time]
        by_user, ends = _grouped(user, len(self.people))
        order = by_user if by_time is None else by_time[by_user]
        grouped = np.repeat(np.arange(len(self.people), dtype=np.int32), np.diff(ends))
        return replace(self._take(order, COLUMNS[1:]), user=grouped)

    def compact(self) -> Log:
        """The same events with only the people, items and event types that occur.

        Event types are in order of how often they occur, then by name.
        """
        user, people = _renumbered(self.user, self.people)
        item, items = _renumbered(self.item, self.items)
        counts = count_codes(self.event, len(self.events))
        kept = [code for code in range(len(self.events)) if counts[code]]
        kept.sort(key=lambda code: (-counts[code], self.events[code]))
        new_codes = np.full(256, MISSING_EVENT, np.uint8)
        new_codes[kept] = np.arange(len(kept))
        events = tuple(self.events[code] for code in kept)
        return replace(
            self, user=user, people=people, item=item, items=items, event=new_codes[self.event], events=events
        )

    def describe(self, where: BoolArray, limit: int = 3) -> tuple[str, ...]:
        """The first few of the events where the mask is true, in words."""
        return tuple(self._words(int(e)) for e in np.flatnonzero(where)[:limit])

    def _words(self, e: int) -> str:
        user = "no user" if self.user[e] == MISSING else f"user {self.people[int(self.user[e])]}"
        item = "no item" if self.item[e] == MISSING else f"item {self.items[int(self.item[e])]}"
        event = "no event" if self.event[e] == MISSING_EVENT else self.events[self.event[e]]
        value = "" if self.value is None or np.isnan(self.value[e]) else f", value {self.value[e]:g}"
        return f"row {self.row[e]}: {user}, {item}, {event} at {self._clock(int(self.time[e]))}{value}"

    def _clock(self, time: int) -> str:
        if time == MISSING_TIME:
            return "no time"
        if not self.has_time:
            return f"place {time}"
        return str(np.datetime64(time, "us").astype("datetime64[s]")).replace("T", " ")

    def _take(self, which: BoolArray | IntArray, columns: Sequence[str] = COLUMNS) -> Log:
        names = [name for name in columns if getattr(self, name) is not None]
        # NumPy lets go of the interpreter while it gathers, so columns go side by side.
        with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
            taken = list(pool.map(lambda name: getattr(self, name)[which], names))
        return replace(self, **dict(zip(names, taken, strict=True)))


def count_codes(codes: IntArray, size: int) -> IntArray:
    """How often each code occurs, int64 [size]: ``bincount`` without its copy of the codes in int64."""
    counts = np.zeros(size, np.int64)
    for part in _chunks(len(codes), max(CHUNK, size)):
        counts += np.bincount(codes[part], minlength=size)
    return counts


def _chunks(size: int, step: int = CHUNK) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, size, step))


def read_log(dataset: Dataset) -> Log:
    """The interactions in one pass over the source, in the order of their ``row``.

    ``has_time`` of the log is false where the dataset says so and where no row has a time; then the
    order of the rows is the order of the events.

    Raises:
        DataError: a column is missing, or there are more than 254 event types.
    """
    frame = _collect(dataset)
    user, people = _factorised(frame["user"])
    item, items = _factorised(frame["item"])
    event, events = _event_codes(frame["event"])
    row = frame["row"].to_numpy()
    times, has_time = frame["time"], dataset.has_time
    if times.null_count() == len(times):
        time, has_time = row.astype(np.int64), False
    else:
        time = times.fill_null(MISSING_TIME).to_numpy()
    value = frame["value"].fill_null(float("nan")).to_numpy() if "value" in frame.columns else None
    positive = frame["positive"].to_numpy() if "positive" in frame.columns else None
    log = Log(user, item, event, time, row, value, positive, people, items, events, has_time)
    in_order = bool((row[1:] >= row[:-1]).all())
    return log if in_order else log._take(np.argsort(row, kind="stable"))


def _collect(dataset: Dataset) -> pl.DataFrame:
    """The columns that cleaning reads, in their smallest types; text as codes while it is read."""
    schema = dataset.interactions.collect_schema()
    amounts = ["value"] if dataset.negative_value is not None else []
    amounts += ["positive"] if dataset.require_positive else []
    wanted = ["user", "item", "event", "time", "row", *amounts]
    missing = [name for name in wanted if name not in schema]
    if missing:
        raise DataError(
            f"The interactions of '{dataset.name}' have no column {', '.join(missing)}; "
            f"they have {', '.join(schema.names())}. Rename the columns or name them in dataset.yaml."
        )
    types = {"value": pl.Float32(), "positive": pl.Boolean(), "time": pl.Int64()}
    columns = [pl.col(name).cast(types[name]) for name in ("time", *amounts)]
    columns += [_as_codes(name, schema[name]) for name in ("user", "item", "event")]
    frame = dataset.interactions.select(*columns, pl.col("row").cast(pl.Int64)).collect(engine="streaming")
    last = frame["row"].max()
    small = last is None or int(str(last)) < 2**31
    return frame.with_columns(pl.col("row").cast(pl.Int32)) if small else frame


def _as_codes(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_integer():
        return pl.col(name).cast(pl.Int64)
    return pl.col(name).cast(pl.String).cast(pl.Categorical(pl.Categories.random()))


def _factorised(keys: pl.Series) -> tuple[IntArray, pl.Series]:
    """Codes int32 into the sorted distinct keys, -1 where the key is null or blank."""
    if keys.dtype != pl.Int64:
        return _factorised_text(keys)
    if keys.null_count() == len(keys):
        return np.full(len(keys), MISSING, np.int32), keys.clear()
    low, high = int(str(keys.min())), int(str(keys.max()))
    if high - low < 4 * len(keys) + 1024:
        return _factorised_by_table(keys, low, high)
    distinct = keys.drop_nulls().unique().sort()
    numbered = pl.DataFrame({"key": distinct, "code": np.arange(len(distinct), dtype=np.int32)})
    joined = keys.rename("key").to_frame().join(numbered, on="key", how="left", maintain_order="left")
    return joined["code"].fill_null(MISSING).to_numpy(), distinct


def _factorised_by_table(keys: pl.Series, low: int, high: int) -> tuple[IntArray, pl.Series]:
    """The quickest way where the keys lie close together: one entry for every number between."""
    values = (keys.fill_null(low) if keys.null_count() else keys).to_numpy()
    present = np.zeros(high - low + 1, np.bool_)
    for part in _chunks(len(values)):
        present[values[part] - low] = True
    table = np.cumsum(present, dtype=np.int32) - np.int32(1)
    codes = np.empty(len(values), np.int32)
    for part in _chunks(len(values)):
        codes[part] = table[values[part] - low]
    if keys.null_count():
        codes[keys.is_null().to_numpy()] = MISSING
    return codes, pl.Series("key", np.flatnonzero(present) + low)


def _factorised_text(keys: pl.Series) -> tuple[IntArray, pl.Series]:
    texts, table = _numbered_texts(keys)
    return _looked_up(keys, table), texts


def _numbered_texts(keys: pl.Series) -> tuple[pl.Series, IntArray]:
    """The sorted distinct texts of a categorical column, and each one's place by its category.

    The table has -1 for blank texts and, in one more entry at the end, for none.
    """
    found = keys.drop_nulls().unique()
    numbered = pl.DataFrame({"key": found.cast(pl.String), "category": found.to_physical()})
    last = numbered["category"].max()
    numbered = numbered.filter(pl.col("key").str.strip_chars() != "").sort("key")
    table = np.full(1 if last is None else int(str(last)) + 2, MISSING, np.int32)
    table[numbered["category"].to_numpy()] = np.arange(len(numbered), dtype=np.int32)
    return numbered["key"], table


def _looked_up(keys: pl.Series, table: IntArray) -> IntArray:
    categories = keys.to_physical()
    if keys.null_count():
        categories = categories.fill_null(len(table) - 1)
    values = categories.to_numpy()
    codes = np.empty(len(values), table.dtype)
    for part in _chunks(len(values)):
        codes[part] = table[values[part]]
    return codes


def _event_codes(names: pl.Series) -> tuple[IntArray, tuple[str, ...]]:
    """Codes uint8 into the names, which are trimmed and in lower case; 255 where there is none."""
    raw, table = _numbered_texts(names)
    tidy = raw.str.strip_chars().str.to_lowercase()
    events = tuple(tidy.unique().sort().to_list())
    if len(events) >= MISSING_EVENT:
        raise DataError(
            f"There are {len(events)} event types; at most {MISSING_EVENT - 1} can be told apart. "
            "Is the column of events the right one?"
        )
    codes = np.full(len(raw) + 1, MISSING_EVENT, np.uint8)
    codes[:-1] = [events.index(name) for name in tidy]
    return _looked_up(names, codes[table]), events  # -1 reads the last entry


def _order_of_times(time: IntArray) -> IntArray | None:
    """The stable order of the times, or None where they are in order already.

    Time (in the largest unit that loses nothing) and place fit into one 64-bit number for all but
    extreme tables; sorting such numbers is several times faster than sorting places by time.
    """
    if bool((time[1:] >= time[:-1]).all()):
        return None
    first, last = int(time.min()), int(time.max())
    unit = _largest_unit(time, first)
    place_bits = len(time).bit_length()
    if ((last - first) // unit).bit_length() + place_bits > 63:
        return np.argsort(time, kind="stable")
    both = np.empty(len(time), np.int64)
    for part in _chunks(len(time)):
        places = np.arange(part.start, min(part.stop, len(time)))
        both[part] = (((time[part] - first) // unit) << place_bits) | places
    both.sort()
    order: IntArray = np.empty(len(time), np.int32 if place_bits < 32 else np.int64)
    for part in _chunks(len(time)):
        order[part] = both[part] & ((1 << place_bits) - 1)
    return order


def _largest_unit(time: IntArray, first: int) -> int:
    """Minutes, seconds, milliseconds or microseconds: all times are whole ones after the first."""
    for unit in (60_000_000, 1_000_000, 1_000):
        if not any(((time[part] - first) % unit).any() for part in _chunks(len(time))):
            return unit
    return 1


def _grouped(codes: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The places by code, in their old order within a code, and where each code begins and ends.

    SciPy's conversion to compressed rows is a counting sort: stable, and linear in time.
    """
    from scipy import sparse  # which only cleaning needs, and not what answers

    places = np.arange(len(codes), dtype=np.int32 if len(codes) < 2**31 else np.int64)
    ones = np.ones(len(codes), np.bool_)
    rows = sparse.csr_array((ones, (codes, places)), shape=(size, len(codes)))
    return rows.indices, rows.indptr


def _renumbered(codes: IntArray, keys: pl.Series) -> tuple[IntArray, pl.Series]:
    used = count_codes(codes, len(keys)) > 0
    if used.all():
        return codes, keys
    table = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return table[codes], keys.filter(pl.Series(used))
