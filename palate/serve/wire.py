"""What comes in and what goes out: the shapes of requests and answers, and their limits."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from palate.data.moments import microseconds
from palate.errors import DataError
from palate.store.records import checked_key

MOST_EVENTS = 1_000
"""Events of one call, and of one history."""
MOST_K = 200
MOST_NAMED = 1_000
"""Items that a request may name."""
LATEST = 2**62


def _kept(key: str) -> str:
    try:
        return checked_key(key, "key")
    except DataError as error:
        raise ValueError(str(error)) from None


Key = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_kept)]
"""A key of a person, an item, an event."""
Moment = Annotated[int, Field(ge=-LATEST, le=LATEST)] | AwareDatetime
"""ISO 8601 with a zone, or microseconds since 1970."""


class Wire(BaseModel):
    """Unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


def moment(told: int | datetime.datetime) -> int:
    """Microseconds since 1970."""
    return told if isinstance(told, int) else microseconds(told)


class EventIn(Wire):
    """Something that somebody did."""

    event_id: Key
    user: Key
    item: Key
    event: Key
    time: Moment
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None


class StoredView(BaseModel):
    """What became of the events of a call."""

    stored: int
    known: int
    """Those that were there before, with the same content."""
    unknown_items: list[str]
    """Items that the model does not know; their events are kept, and count when it does."""
    unknown_events: list[str]
    """Types of event, likewise."""


class MetIn(Wire):
    """An event of a history that the request tells."""

    item: Key
    event: Key | None = None
    time: Moment | None = None


class HistoryIn(Wire):
    """A list is asked for somebody of whom nothing is stored."""

    history: Annotated[list[Key | MetIn], Field(max_length=MOST_EVENTS)]
    """Oldest first: keys of items, or events."""
    k: Annotated[int, Field(ge=1, le=MOST_K)] = 10
    filter_seen: bool | None = None
    any_of: Annotated[list[Key], Field(max_length=MOST_NAMED)] = []
    none_of: Annotated[list[Key], Field(max_length=MOST_NAMED)] = []
    exclude: Annotated[list[Key], Field(max_length=MOST_NAMED)] = []
    context: Annotated[list[Key], Field(max_length=MOST_NAMED)] = []
    page: Annotated[str, Field(max_length=256)] = ""
    at: Moment | None = None
    event: Key | None = None
    explain: bool = False
    language: Literal["en", "zh"] = "en"


class EventShareView(BaseModel):
    item: Any
    event: str
    share: float


class FieldShareView(BaseModel):
    field: str
    share: float


class ReasonsView(BaseModel):
    """Why an item is in a list."""

    events: list[EventShareView]
    fields: list[FieldShareView]
    difference: float
    """The score less that with no history; the shares of the events add up to it."""
    sentence: str


class ItemView(BaseModel):
    """An item as it is now."""

    item: str
    fields: dict[str, Any]
    new: bool
    """Whether training has not met it."""
    shown: bool
    """Whether it may be recommended."""
    media: list[str]
    """Fields of which it has a picture."""


class PickView(ItemView):
    """An item of a list."""

    rank: int
    score: float
    source: str
    """Why it is there: taste, pinned, new, context or popular."""
    reasons: ReasonsView | None = None


class ListView(BaseModel):
    """A list of recommendations."""

    user: str | None = None
    model: str
    """Names the model that made it."""
    items: list[PickView]


class NearView(ItemView):
    score: float
    """Cosine of the vectors."""


class NearItemsView(BaseModel):
    model: str
    items: list[NearView]


class ItemsView(BaseModel):
    total: int
    items: list[ItemView]


class ItemIn(Wire):
    """What is said of an item."""

    fields: dict[Annotated[str, Field(max_length=256)], Any]


class NearPersonView(BaseModel):
    user: str
    score: float


class NearPeopleView(BaseModel):
    model: str
    users: list[NearPersonView]


class EventView(BaseModel):
    event_id: str
    item: str
    event: str
    time: int
    value: float | None


class TrainedEventView(BaseModel):
    item: str
    event: str
    time: int


class PersonView(BaseModel):
    """Everything that is kept of a person."""

    user: str
    events: list[EventView]
    trained: list[TrainedEventView]
    """Events of the data that the model was trained on."""


class ForgottenView(BaseModel):
    user: str
    forgotten: int
    """Events that were in the store."""


class ReloadIn(Wire):
    to: Literal["latest", "previous"] = "latest"


class ModelView(BaseModel):
    model: str
