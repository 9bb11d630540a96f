"""What the event store keeps: events, changes of items, and lines of the audit.

Keys are text here, as they come over the network; the catalogue's own types are for the caller.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from palate.errors import DataError

LONGEST_KEY = 1024
"""Bytes of a key in UTF-8; an index entry of PostgreSQL holds some 2,700."""
_LARGEST_TIME = 2**63 - 1


class StoredEvent(NamedTuple):
    """One interaction, as it was posted."""

    event_id: str
    """The poster's own name for it: the same event posted twice is stored once."""
    user: str
    item: str
    event: str
    """Its type: view, purchase …"""
    time: int
    """Microseconds since 1970 in UTC."""
    value: float | None = None
    """An amount or a rating."""


class AppendResult(NamedTuple):
    """What became of the events of one call."""

    stored: int
    known: int
    """Events that were there before, with the same content."""


def digest_of(user: str) -> str:
    """SHA-256 of a person's key: tells whom it is about to whoever knows the key already, and nobody else."""
    return hashlib.sha256(user.encode()).hexdigest()


class Heads(NamedTuple):
    """The highest number given so far to an event, to a change of an item, and to a person's being forgotten;
    0 where there is none."""

    event: int
    item_change: int
    forgotten: int


class ItemState(StrEnum):
    """What an item's latest change says."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    """Recommended to nobody until it is shown again; its description stays."""
    REMOVED = "removed"
    """Gone with its description until it is put again."""


class ItemChange(NamedTuple):
    """All changes of one item since the model was trained, taken together."""

    item: str
    state: ItemState
    whole: bool
    """True: ``fields`` and ``media`` are all that is known of the item. False: they are laid over what the
    model's own catalogue says of it."""
    fields: dict[str, Any]
    """By field, a value of JSON; null clears the field."""
    media: dict[str, bytes]
    """By field, the bytes of a file, as they came."""


class ModelChoice(NamedTuple):
    """Which export of a run answers."""

    number: int
    """Grows with every choice."""
    model: str
    """The digest of the export that answers."""
    previous: str | None
    """The digest of the one that answered before."""
    exported: str
    """The digest of what had been exported last when this was chosen."""


class AuditLine(NamedTuple):
    """One call that changed or read what is guarded."""

    time: int
    """Microseconds since 1970 in UTC."""
    who: str
    action: str
    subject: str


def checked_event(event: StoredEvent) -> StoredEvent:
    """The event in a form that every database gives back as it is.

    Raises:
        DataError: a key that is empty, too long or no text; a time or a value out of range.
    """
    for name in ("event_id", "user", "item", "event"):
        checked_key(getattr(event, name), name)
    if type(event.time) is not int or not -_LARGEST_TIME <= event.time <= _LARGEST_TIME:
        raise DataError(
            f"The event {event.event_id!r} has the time {event.time!r}; wanted whole microseconds since 1970."
        )
    if event.value is None:
        return event
    try:
        value = float(event.value)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"The event {event.event_id!r} has the value {event.value!r}; wanted a finite number or nothing."
        )
    return event._replace(value=value)


def checked_key(key: str, name: str) -> str:
    """The key, if every database can hold it.

    Raises:
        DataError: it is empty, too long, or holds a character that no database takes.
    """
    if not isinstance(key, str) or not key:
        raise DataError(f"'{name}' is {key!r}; wanted a text that is not empty.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise DataError(f"'{name}' is {key!r}, which is no Unicode text; send it as UTF-8.") from None
    if size > LONGEST_KEY:
        raise DataError(f"'{name}' has {size:,} bytes; at most {LONGEST_KEY:,} are kept. Use a shorter key.")
    if "\0" in key:
        raise DataError(f"'{name}' is {key!r}; a text may not hold the character 0.")
    return key


def fields_as_json(fields: Mapping[str, Any]) -> str:
    """The fields of an item as JSON.

    Raises:
        DataError: a value that JSON has no word for.
    """
    try:
        return json.dumps(dict(fields), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"The fields of an item must be values of JSON: {error}.") from None
