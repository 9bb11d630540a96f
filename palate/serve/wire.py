"""What comes in and what goes out: every text, list and number of a request has its limit here."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from palate.serve.paths import with_slashes
from palate.store.records import LONGEST_KEY

MOST_K = 500
MOST_EVENTS = 1_000
"""Of one call."""
MOST_HISTORY = 5_000
MOST_KEYS = 1_000
"""Of a list of items."""
MOST_FILTERS = 50
MOST_INSIDE = 10
"""Items that are looked into at once: a picture is encoded 65 times for it."""
MOST_OFFSET = 10_000_000
LONGEST_TEXT = 256
LARGEST_TIME = 2**63 - 1
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _key(text: str) -> str:
    """Raises ValueError where no database could keep the key."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("wanted Unicode text") from None
    if size > LONGEST_KEY:
        raise ValueError(f"has {size:,} bytes; at most {LONGEST_KEY:,} are kept")
    if "\0" in text:
        raise ValueError("may not hold the character 0")
    return text


def _microseconds(moment: object) -> int:
    """Of a whole number of them, or of a text in ISO 8601 with its zone."""
    if isinstance(moment, str):
        parsed = datetime.datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError("wanted a time with its zone, for example 2026-12-01T10:00:00Z")
        return (parsed - _EPOCH) // datetime.timedelta(microseconds=1)
    if type(moment) is not int:
        raise ValueError("wanted a time in ISO 8601 with its zone, or whole microseconds since 1970")
    return moment


def _moment_of_text(moment: object) -> object:
    """In a query everything is a text."""
    digits = moment.removeprefix("-") if isinstance(moment, str) else ""
    # Longer ones are no time, and Python refuses to read the longest.
    return int(str(moment)) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else moment


def _filter(text: str) -> str:
    if not text.partition(":")[0] or not text.partition(":")[2]:
        raise ValueError("wanted FIELD:LABEL, for example brand:Acme")
    return text


Key = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_KEY), AfterValidator(_key)]
PathKey = Annotated[Key, BeforeValidator(with_slashes), Path()]
"""A key that stands in a path, where ``%2F`` is a slash of the key."""
Moment = Annotated[
    int,
    BeforeValidator(_microseconds),
    Field(ge=-LARGEST_TIME, le=LARGEST_TIME),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": -LARGEST_TIME, "maximum": LARGEST_TIME},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]
TextMoment = Annotated[Moment, BeforeValidator(_moment_of_text)]
Filter = Annotated[str, StringConstraints(min_length=3, max_length=LONGEST_KEY), AfterValidator(_filter)]
ShortText = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_key)]
Count = Annotated[int, Field(ge=1, le=MOST_K)]
Language = Literal["en", "zh"]


class Read(BaseModel):
    """What a client sends: nothing that is not known here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EventIn(Read):
    """Somebody did something."""

    event_id: Key
    """The sender's own name for it: the same event sent twice is stored once."""
    user: Key
    item: Key
    event: Key
    time: Moment
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None


class Options(Read):
    """How a list of recommendations is wanted."""

    k: Count = 10
    filter_seen: bool | None = None
    """Whether what was met before is left out; by default as the model was judged."""
    any_of: Annotated[list[Filter], Field(max_length=MOST_FILTERS)] = []
    """FIELD:LABEL; of the same field one of the labels, and every field."""
    none_of: Annotated[list[Filter], Field(max_length=MOST_FILTERS)] = []
    exclude: Annotated[list[Key], Field(max_length=MOST_KEYS)] = []
    context: Annotated[list[Key], Field(max_length=MOST_KEYS)] = []
    """Items that are being looked at: people without events are shown what is near to them."""
    page: ShortText = ""
    """Where the list is shown; pins may ask for it."""
    event: Key | None = None
    explain: bool = False
    language: Language = "en"
    inside: Annotated[list[Key], Field(max_length=MOST_INSIDE)] = []
    """Items of the list whose reasons also say which words, regions and seconds carried them."""


class QueryOptions(Options):
    """Options in a query."""

    at: TextMoment | None = None


class MetIn(Read):
    """An event of a history that is sent along."""

    item: Key
    event: Key | None = None
    """By default the first type that is predicted."""
    time: Moment | None = None


class HistoryIn(Options):
    """A history, oldest first, and how the list is wanted. Nothing of it is stored."""

    history: Annotated[list[Key | MetIn], Field(max_length=MOST_HISTORY)]
    at: Moment | None = None


class ReloadIn(Read):
    to: Literal["latest", "previous"] = "latest"


class EventsOut(BaseModel):
    """What became of the events of a call. They are on the disk."""

    stored: int
    known: int
    """That were there before, with the same content."""
    unknown_items: list[str]
    """Items that the model has not heard of yet; their events count from the day it has."""
    unknown_events: list[str]


class ItemOut(BaseModel):
    item: str
    fields: dict[str, Any]
    """Without pictures, clips and tracks."""
    new: bool
    """Without an event in training."""
    shown: bool
    media: list[str]
    """Fields of which there is something to see or hear."""


class PickOut(ItemOut):
    """One place of a list."""

    rank: int
    score: float
    source: str
    """Why it is there; scores compare within one source."""
    reasons: dict[str, Any] | None = None


class NearItemOut(ItemOut):
    score: float
    """Cosine."""


class RecommendationsOut(BaseModel):
    user: str | None
    model: str
    """Names the bundle that gave the whole answer."""
    items: list[PickOut]


class ItemsOut(BaseModel):
    total: int
    items: list[ItemOut]


class RemovedOut(BaseModel):
    item: str


class SimilarItemsOut(BaseModel):
    item: str
    model: str
    items: list[NearItemOut]


class NearUserOut(BaseModel):
    user: str
    score: float
    """Cosine."""


class SimilarUsersOut(BaseModel):
    user: str
    model: str
    among: int
    """People of the data that were compared."""
    users: list[NearUserOut]


class EventOut(BaseModel):
    event_id: str
    item: str
    event: str
    time: int
    value: float | None


class TrainedEventOut(BaseModel):
    """An event of the data that the model was trained on."""

    item: str
    event: str
    time: int | None
    """Microseconds since 1970, where the data have times."""


class UserOut(BaseModel):
    """All that is kept of a person."""

    user: str
    events: list[EventOut]
    trained: list[TrainedEventOut]


class ForgottenOut(BaseModel):
    user: str
    forgotten: int
    """Events that were deleted."""


class ReloadOut(BaseModel):
    model: str
    previous: str | None
