"""The few nouns that everything shares.

Outside, people and items have *keys*: whatever the caller's tables say. Inside, they have *ids*:
dense integers, where 0 is padding (as an item: the start of a history) and 1 is unknown.
``IdMap`` is the only door between the two.

Shape letters: E events, P people (reserved ids included), V items (reserved ids included),
Q questions, N packed positions, B histories of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.errors import DataError

PADDING = 0
UNKNOWN = 1
FIRST_ID = 2
"""Ids 0 and 1 are reserved; the first real person or item has id 2."""

GAP_BUCKETS = 34
"""Buckets of the time between events: 0 unknown, else 1 + ⌊log2(1 + seconds)⌋, up to some 270 years."""

HOURS = 25
"""Hour of the day in UTC: 0 unknown, else 1 + hour."""
WEEKDAYS = 8
"""Day of the week in UTC: 0 unknown, else 1 on Mondays to 7 on Sundays."""
UNKNOWN_TIME = int(np.iinfo(np.int64).min)
"""The time of an event of which only the order is known, and of a question that leaves its time open."""

LAG_BUCKETS = 10
"""Buckets of how many events ago something was: ⌊log2(1 + events)⌋, the last for 512 and more."""
MOST_TIMES = 7
"""How often somebody has met an item is counted up to here."""
NEVER = -30.0
"""Added to the score of what was met, where nobody takes a thing twice: a chance of e^−30 is none, and −∞
would be a trap for odd rows."""

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]

Numbers = TypeVar("Numbers")
"""What holds the numbers: arrays of NumPy, or tensors of the network."""
Other = TypeVar("Other")

Key = int | str


class FieldKind(StrEnum):
    """What a column of an item (or a person) holds."""

    TEXT = "text"
    CATEGORY = "category"
    CATEGORIES = "categories"
    NUMBER = "number"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    VECTOR = "vector"


MEDIA = (FieldKind.IMAGE, FieldKind.AUDIO, FieldKind.VIDEO)
"""Kinds whose cells are paths of files."""


class Part(StrEnum):
    """Which side of the split an event is on."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


PART_CODES: dict[Part, int] = {Part.TRAIN: 0, Part.VALIDATION: 1, Part.TEST: 2}
PART_UNUSED = 3
"""Code of events that no part may see (after a held-out target, or of a dropped target)."""


class Among(StrEnum):
    """Which items are ranked and asked for."""

    ALL = "all"
    COLD = "cold"
    """Only those without a training event."""


@dataclass(frozen=True)
class Field:
    """One column of content."""

    name: str
    kind: FieldKind


@dataclass(frozen=True)
class Schema:
    """What a prepared data set is made of: its fields, its event types, its clock."""

    fields: tuple[Field, ...] = ()
    events: tuple[str, ...] = ("interaction",)
    """Event type of code 0, 1, 2, …"""
    event_weights: tuple[float, ...] = (1.0,)
    """Weight of each event type as a training target."""
    target_events: tuple[str, ...] = ("interaction",)
    """Event types that are predicted and judged; all types are inputs."""
    has_time: bool = True
    """False where ``time`` only orders the events and distances between times mean nothing."""

    @property
    def target_codes(self) -> IntArray:
        return np.array([self.events.index(name) for name in self.target_events], dtype=np.int64)


class IdMap:
    """Keys outside, ids inside.

    >>> people = IdMap(pl.Series(["ann", "bob"]))
    >>> people.ids(["bob", "eve"]).tolist()
    [3, 1]
    >>> people.keys([2, 3])
    ['ann', 'bob']

    Keys are int64 or text, as in the caller's tables; a key given as text to an integer map (the
    command line can give nothing else) is read as a number, and the other way round.
    """

    def __init__(self, keys: pl.Series) -> None:
        if keys.dtype not in (pl.Int64, pl.String):
            keys = keys.cast(pl.Int64 if keys.dtype.is_integer() else pl.String)
        if keys.null_count() or keys.n_unique() != len(keys):
            raise DataError("Keys must be present and unique to become ids; clean them first.")
        self.series = keys.rename("key")
        self._table = pl.DataFrame(
            {"key": self.series, "id": np.arange(FIRST_ID, FIRST_ID + len(keys), dtype=np.int64)}
        )

    def __len__(self) -> int:
        """The number of keys; ids run from 2 to ``len + 1``."""
        return len(self.series)

    @property
    def size(self) -> int:
        """Rows of a table indexed by id: the keys and the two reserved ids."""
        return len(self.series) + FIRST_ID

    def __contains__(self, key: Key) -> bool:
        return bool(self.ids([key])[0] != UNKNOWN)

    def ids(self, keys: Sequence[Key] | pl.Series) -> IntArray:
        """The id of each key; 1 where the key is unknown."""
        given = (
            keys if isinstance(keys, pl.Series) else pl.Series([str(key) for key in keys], dtype=pl.String)
        )
        given = given.cast(self.series.dtype, strict=False).rename("key")
        found = given.to_frame().join(self._table, on="key", how="left", maintain_order="left")
        return found["id"].fill_null(UNKNOWN).to_numpy().astype(np.int64)

    def keys(self, ids: Sequence[int] | IntArray) -> list[Key]:
        """The key of each id.

        Raises:
            DataError: an id is reserved or out of range.
        """
        rows = np.asarray(ids, dtype=np.int64) - FIRST_ID
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.series)):
            raise DataError(f"Ids must lie between {FIRST_ID} and {len(self.series) + 1}.")
        return self.series.gather(rows).to_list()

    def extended(self, keys: pl.Series) -> IdMap:
        """A map with further keys behind the present ones; present ids do not change."""
        return IdMap(pl.concat([self.series, keys.cast(self.series.dtype).rename("key")]))


@dataclass(frozen=True)
class Histories:
    """Many histories as flat columns with offsets; may be memory-mapped.

    History ``p`` is ``item[offsets[p]:offsets[p + 1]]``, in time order, stable for equal times::

        offsets  0     3  4
        item     7 9 7 | 8      history 0 is 7, 9, 7; history 1 is 8
    """

    offsets: IntArray  # int64 [rows + 1]
    item: IntArray  # int32 [E], item ids
    event: IntArray  # uint8 [E], codes into Schema.events
    time: IntArray  # int64 [E], microseconds since 1970 or, where Schema.has_time is false, an order;
    # UNKNOWN_TIME where not even that

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    def select(self, rows: IntArray) -> Histories:
        """The histories of these rows, copied, in the order asked."""
        rows = np.asarray(rows, dtype=np.int64)
        starts, lengths = self.offsets[rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Histories(offsets, self.item[where], self.event[where], self.time[where])

    def keep(self, mask: BoolArray) -> Histories:
        """The same rows with only the events where ``mask`` is true."""
        kept = np.zeros(len(mask) + 1, np.int32 if len(mask) < 2**31 else np.int64)
        np.cumsum(mask, out=kept[1:])
        offsets = kept[self.offsets].astype(np.int64)
        return Histories(offsets, self.item[mask], self.event[mask], self.time[mask])

    def latest(self, events: int) -> Histories:
        """The same rows with only the last so many events of each."""
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.item))
        return self.keep(from_end <= events)

    def rows(self) -> IntArray:
        """The row of each event, int64 [E]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @staticmethod
    def of(items: Sequence[Sequence[int]]) -> Histories:
        """Histories from lists of item ids, all of event code 0, at unknown times."""
        lengths = np.array([len(history) for history in items], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.array([item for history in items for item in history], dtype=np.int32)
        return Histories(offsets, flat, np.zeros(len(flat), np.uint8), np.full(len(flat), UNKNOWN_TIME))


class QuestionPart(StrEnum):
    """What a question may say beside the history."""

    TIME = "time"
    EVENT = "event"


@dataclass(frozen=True)
class Questions:
    """What evaluation asks: given these histories, which items came next?

    A question may say when it is asked (``at``) and for which type of event (``event``). Those of
    evaluation say neither, unless ``telling`` takes it from the answer.
    """

    people: IntArray  # int64 [Q], person ids
    histories: Histories  # Q rows: everything known before the question
    target_offsets: IntArray  # int64 [Q + 1]
    target_items: IntArray  # int32, ids of the distinct held-out items, in time order
    target_events: IntArray  # uint8, code of the event in which each of them was met
    target_times: IntArray | None = None  # int64, its time
    at: IntArray | None = None  # int64 [Q], time of each question
    event: IntArray | None = None  # int64 [Q], code of the event type that each asks for

    def __len__(self) -> int:
        return len(self.people)

    def select(self, rows: IntArray) -> Questions:
        """These questions, copied, in the order asked."""
        lengths = np.diff(self.target_offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.arange(offsets[-1]) + np.repeat(self.target_offsets[rows] - offsets[:-1], lengths)
        return Questions(
            self.people[rows],
            self.histories.select(rows),
            offsets,
            self.target_items[where],
            self.target_events[where],
            None if self.target_times is None else self.target_times[where],
            None if self.at is None else self.at[rows],
            None if self.event is None else self.event[rows],
        )

    def spread(self, size: int) -> Questions:
        """At most ``size`` of the questions, evenly spaced."""
        if len(self) <= size:
            return self
        return self.select(np.linspace(0, len(self) - 1, size).astype(np.int64))

    def knowing_only(self, events: int) -> Questions:
        """These questions with nothing but the last so many events of each history."""
        return replace(self, histories=self.histories.latest(events))

    def telling(self, part: QuestionPart) -> Questions:
        """These questions with the time, or the event type, of each one's first target."""
        first = self.target_offsets[:-1]
        if part == QuestionPart.EVENT:
            return replace(self, event=self.target_events[first].astype(np.int64))
        assert self.target_times is not None, "these questions were made without the times of their targets"
        return replace(self, at=self.target_times[first])

    @staticmethod
    def without_answer(histories: Histories, at: int | None = None, event: int | None = None) -> Questions:
        """Requests: what comes next is not known. ``at`` and ``event`` are asked of all of them."""
        rows = len(histories)
        return Questions(
            np.full(rows, UNKNOWN),
            histories,
            np.zeros(rows + 1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.uint8),
            at=None if at is None else np.full(rows, at),
            event=None if event is None else np.full(rows, event),
        )

    def chunks(self, size: int) -> Iterator[Questions]:
        for start in range(0, len(self), size):
            yield self.select(np.arange(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Note:
    """What one named rule did to the data: a line of the data report."""

    rule: str
    removed: int
    remaining: int
    detail: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class FieldShape:
    """What the network must know of a field before it sees a value."""

    name: str
    kind: FieldKind
    size: int
    """text, category, categories: number of codes, 0 and 1 included; number: 2; vector: its length; image,
    video: height and width of a picture; audio: bands of the spectrogram."""


@dataclass(frozen=True)
class EncodedField:
    """One field of every item as numbers. A missing value is all zeros and false in ``present``.

    ==========  ==================================================================================
    kind        values
    ==========  ==================================================================================
    text        int32 [V, T] tokens; 0 padding, 1 unknown
    category    int32 [V]; 0 missing, 1 never seen in training, 2, 3, … the training categories
    categories  int32, codes as above laid end to end: item v has values[offsets[v]:offsets[v + 1]]
    number      float32 [V, 2]: standardised value within ±5, and 1 where present
    vector      float32 [V, size]
    image,      int64, rows of ``media`` laid end to end: item v shows
    video,      media[values[offsets[v]:offsets[v + 1]]], and the same picture of two items is there once
    audio
    ==========  ==================================================================================
    """

    shape: FieldShape
    values: IntArray | FloatArray
    present: BoolArray  # [V]
    offsets: IntArray | None = None  # int64 [V + 1], of categories and media only
    media: npt.NDArray[Any] | None = None  # see ``Media.values``


@dataclass(frozen=True)
class Media:
    """What is to be seen or heard of V items, decoded once: item v has
    ``values[row[offsets[v]:offsets[v + 1]]]``, and most have one of it or none.

    =====  ===========================================================================
    kind   values, M distinct ones, memory-mapped where prepared data are on disk
    =====  ===========================================================================
    image  uint8 [M, S, S, 3], red, green, blue
    video  uint8 [M, F, S, S, 3], F frames evenly spaced over the clip
    audio  float16 [M, bands, T], log-mel spectrogram of the middle of the track
    =====  ===========================================================================
    """

    values: npt.NDArray[Any]
    row: IntArray  # int64 [pictures of all items]
    offsets: IntArray  # int64 [V + 1]
    digest: IntArray | None = None
    """uint8 [M, 32], SHA-256 of each file and of all that shaped its values; where they came from files."""

    def first(self, item: int) -> npt.NDArray[Any] | None:
        """The first entry of ``values`` that the item has; None where it has none, or came later."""
        if item >= len(self.offsets) - 1 or self.offsets[item] == self.offsets[item + 1]:
            return None
        found: npt.NDArray[Any] = self.values[self.row[self.offsets[item]]]
        return found


@dataclass(frozen=True)
class Content:
    """The fields of V items, in the order of their ids, and what could not be read of them."""

    rows: int
    fields: tuple[EncodedField, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def shapes(self) -> tuple[FieldShape, ...]:
        return tuple(encoded.shape for encoded in self.fields)


@dataclass(frozen=True)
class Dataset:
    """A stranger's tables with Palate's column names, before cleaning.

    ``interactions`` has the columns ``user``, ``item`` (int64 or text keys), ``time`` (int64:
    microseconds since 1970, or an order), ``event`` (text), ``value`` (float64) and ``row`` (the
    order of the rows in the source); cells that could not be read are null. Where
    ``require_positive`` names columns there is also ``positive`` (bool, never null).
    ``items`` has ``item`` and one column per field, several rows per item where the source has
    them. Where it comes from the interactions themselves, each row is one distinct content of an
    item, with ``row``, where it first appears there (if possible, in a row with a
    person), and ``count``, how often.
    Fields are text (text, category), float64 (number), lists of text (categories), lists of float32
    (vector), or text or lists of text (image, audio, video): paths relative to ``media_folder``.
    """

    name: str
    interactions: pl.LazyFrame
    fields: tuple[Field, ...] = ()
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    relations: tuple[pl.DataFrame, ...] = ()
    has_time: bool = True
    event_weights: dict[str, float] = field(default_factory=dict)
    negative_value: str | None = None
    """Event type of rows whose value is below zero; None leaves them to the cleaning rules."""
    exclude_items: tuple[str, ...] = ()
    """Regular expressions; items whose key matches one entirely are not things to recommend."""
    require_positive: tuple[str, ...] = ()
    """Source columns that must be above zero; column ``positive`` says which rows comply."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that belong to this data set (its protocol); the run's own come later and win."""
    fingerprint: str = ""
    """Changes when the source changes; empty for frames in memory."""
    media_folder: Path | None = None
    """Where the paths in the items' fields begin; None where nobody said so."""
    notes: tuple[Note, ...] = ()


class Past(NamedTuple, Generic[Numbers]):
    """The items met before each of N moments, as ragged lists; each item once, in its latest event."""

    offsets: Numbers  # int64 [N + 1]
    item: Numbers  # int64 [S]
    lag: Numbers  # int64 [S], ⌊log2(1 + events since)⌋
    times: Numbers  # int64 [S], how often it was met before that, at most MOST_TIMES
    since: Numbers  # int64 [S], bucket of the time since, 0 where unknown

    def map(self, change: Callable[[Numbers], Other]) -> Past[Other]:
        """The same in what ``change`` makes of each part."""
        return Past(*map(change, self))


class Condition(NamedTuple, Generic[Numbers]):
    """What is asked at each of N moments beside their histories; 0 leaves a part open."""

    event: Numbers  # int64 [N], 1 + code of the event type asked for
    gap: Numbers  # int64 [N], bucket of the time since the last event
    hour: Numbers  # int64 [N], as in ``Batch``
    weekday: Numbers  # int64 [N], as in ``Batch``

    def map(self, change: Callable[[Numbers], Other]) -> Condition[Other]:
        """The same in what ``change`` makes of each part."""
        return Condition(*map(change, self))


class Batch(NamedTuple, Generic[Numbers]):
    """Histories laid end to end; every history begins with a start position (item id 0).

    Position ``n`` knows item ``item[n]`` and everything before it in the same history, and is asked
    for ``target[n]``, the item that came next (0 where nothing is asked)::

        item      0 7 9 | 0 8        position  0 1 2 | 0 1
        target    7 9 0 | 8 0        last      2, 4
    """

    item: Numbers  # int64 [N]
    event: Numbers  # int64 [N], 0 at the start position, else 1 + code of the event type
    gap: Numbers  # int64 [N], bucket of the time since the previous event, 0 where unknown
    hour: Numbers  # int64 [N], 0 where unknown, else 1 + hour of the day
    weekday: Numbers  # int64 [N], 0 where unknown, else 1 on Mondays to 7 on Sundays
    position: Numbers  # int64 [N], place inside the own history
    last: Numbers  # int64 [B], index of each history's last position
    target: Numbers  # int64 [N]
    weight: Numbers  # float32 [N], 0 where nothing is asked
    past: Past[Numbers] | None = (
        None  # what each position has met, its own event included; None where nobody asks
    )

    def map(self, change: Callable[[Numbers], Other]) -> Batch[Other]:
        """The same in what ``change`` makes of each part, for example ``torch.from_numpy``."""
        return Batch(
            item=change(self.item),
            event=change(self.event),
            gap=change(self.gap),
            hour=change(self.hour),
            weekday=change(self.weekday),
            position=change(self.position),
            last=change(self.last),
            target=change(self.target),
            weight=change(self.weight),
            past=None if self.past is None else self.past.map(change),
        )
