"""What somebody did: the events of the data that the model was trained on, then those of the event store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl

from palate.data.prepared import Prepared
from palate.schema import FIRST_ID, UNKNOWN, UNKNOWN_TIME, Histories, Key
from palate.store.records import StoredEvent, digest_of

MOST_EVENTS = 4_096
"""Of the store that count for one person: the latest."""

Row = tuple[int, int, int]
"""Item id, event code and time."""


class People:
    """The people of one model's data, and who of them was forgotten since."""

    def __init__(self, prepared: Prepared, item_of: Callable[[str], int]) -> None:
        """Everybody in the data is known.

        Args:
            item_of: the id of an item's key, 1 where it is unknown.
        """
        self._prepared = prepared
        self._item_of = item_of
        self._ids = ids_by_text(prepared.people.series)
        self._codes = {name: code for code, name in enumerate(prepared.schema.events)}
        self._forgotten: set[str] = set()

    def forget(self, digest: str) -> None:
        """Events in the data do not count any more, of the person whose key has this ``digest_of``."""
        self._forgotten.add(digest)

    def is_forgotten(self, user: str) -> bool:
        """Whether the person was forgotten since the data were made."""
        return bool(self._forgotten) and digest_of(user) in self._forgotten

    def trained(self, user: str) -> list[Row]:
        """The person's events in the data, oldest first."""
        person = self._ids.get(user)
        if person is None or self.is_forgotten(user):
            return []
        of = self._prepared.histories
        part = slice(int(of.offsets[person]), int(of.offsets[person + 1]))
        return list(zip(of.item[part].tolist(), of.event[part].tolist(), of.time[part].tolist(), strict=True))

    def row(self, event: StoredEvent) -> Row | None:
        """The event in ids and codes; None where its item or its type is not known."""
        item, code = self._item_of(event.item), self._codes.get(event.event)
        return None if item == UNKNOWN or code is None else (item, code, event.time)

    def history(self, user: str, stored: Iterable[StoredEvent]) -> Histories:
        """All that counts of the person, as one history.

        What is in both, with the same item, type and time, counts once. Where the data have times the events
        are in their order, otherwise those of the store come last.
        """
        rows = self.trained(user)
        seen = set(rows)
        for event in stored:
            row = self.row(event)
            if row is not None and row not in seen:
                seen.add(row)
                rows.append(row)
        return self.one(rows)

    def sent(self, rows: Sequence[tuple[int, int, int | None]]) -> Histories:
        """One history of events that came with a request, in the order they came in."""
        times = [UNKNOWN_TIME if time is None else time for _, _, time in rows]
        columns = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
        return Histories(
            np.array([0, len(rows)]),
            columns[:, 0].astype(np.int32),
            columns[:, 1].astype(np.uint8),
            np.array(times, np.int64),
        )

    def one(self, rows: Sequence[Row]) -> Histories:
        """One history of these events; in the order of their times, where the data have times."""
        if self._prepared.schema.has_time:
            rows = sorted(rows, key=lambda row: row[2])  # stable
        columns = np.array(rows, np.int64).reshape(-1, 3)
        time = columns[:, 2] if self._prepared.schema.has_time else np.full(len(rows), UNKNOWN_TIME)
        return Histories(
            np.array([0, len(rows)]), columns[:, 0].astype(np.int32), columns[:, 1].astype(np.uint8), time
        )

    def code(self, event: str) -> int | None:
        """Of an event type; None where it is not known."""
        return self._codes.get(event)


def joined(histories: Sequence[Histories]) -> Histories:
    """The rows of all of them, one behind the other."""
    lengths = np.concatenate([each.lengths for each in histories])
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([each.item for each in histories]),
        np.concatenate([each.event for each in histories]),
        np.concatenate([each.time for each in histories]),
    )


def texts(keys: pl.Series) -> list[str]:
    """Keys as they come over the network."""
    found: list[Key] = keys.to_list()
    return [str(key) for key in found]


def ids_by_text(keys: pl.Series) -> dict[str, int]:
    """The id of each key as it comes over the network."""
    return {key: number for number, key in enumerate(texts(keys), FIRST_ID)}
