"""The event store: what people did and how items changed, kept durably in SQLite or PostgreSQL.

Every write is one transaction under one lock of the database, so that numbers come into sight in their
order: whoever has read up to a number has missed nothing before it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from palate.data.databases import reason, shown
from palate.errors import ConflictError, StoreError, UnknownKeyError
from palate.store.layout import AUDIT, EVENTS, FORGOTTEN, ITEM_CHANGES, ITEM_MEDIA, MODELS
from palate.store.records import (
    AppendResult,
    AuditLine,
    Heads,
    ItemChange,
    ItemState,
    ModelChoice,
    StoredEvent,
    checked_event,
    checked_key,
    digest_of,
    fields_as_json,
)

PATIENCE = 30
"""Seconds that a write waits for other processes' writes, and a call for a free connection."""
_IDS_AT_ONCE = 1_000  # a statement of SQLite has at most 32,766 parameters
_CHANGES_AT_ONCE = 50  # each may hold pictures

_COLUMNS = tuple(EVENTS.c[name] for name in StoredEvent._fields)
_OF_USER = select(*_COLUMNS).where(EVENTS.c.user == bindparam("user"))
_LATEST = _OF_USER.order_by(EVENTS.c.time.desc(), EVENTS.c.sequence.desc()).limit(bindparam("limit"))
_ALL_OF_USER = _OF_USER.order_by(EVENTS.c.time, EVENTS.c.sequence)
_AFTER = (
    select(EVENTS.c.sequence, *_COLUMNS)
    .where(EVENTS.c.sequence > bindparam("sequence"))
    .order_by(EVENTS.c.sequence)
    .limit(bindparam("limit"))
)
_KNOWN = select(*_COLUMNS).where(EVENTS.c.event_id.in_(bindparam("ids", expanding=True)))
_PAGE = (
    select(ITEM_CHANGES)
    .where(ITEM_CHANGES.c.sequence > bindparam("sequence"))
    .order_by(ITEM_CHANGES.c.sequence)
    .limit(bindparam("limit"))
    .subquery()
)
# One statement sees one state of both tables.
_CHANGES = (
    select(_PAGE, ITEM_MEDIA.c.field, ITEM_MEDIA.c.content)
    .select_from(_PAGE.outerjoin(ITEM_MEDIA, _PAGE.c.item == ITEM_MEDIA.c.item))
    .order_by(_PAGE.c.sequence, ITEM_MEDIA.c.field)
)
_HEADS = select(
    *(
        select(func.coalesce(func.max(table.c.sequence), 0)).scalar_subquery()
        for table in (EVENTS, ITEM_CHANGES, FORGOTTEN)
    )
)
_FORGOTTEN = select(FORGOTTEN.c.sequence, FORGOTTEN.c.digest).where(
    FORGOTTEN.c.sequence > bindparam("sequence")
)
_LINES = select(*(AUDIT.c[name] for name in AuditLine._fields)).order_by(AUDIT.c.sequence.desc())

_CHOICE = (
    select(*(MODELS.c[name] for name in ModelChoice._fields))
    .where(MODELS.c.run == bindparam("run"))
    .order_by(MODELS.c.number.desc())
    .limit(1)
)

Answer = TypeVar("Answer")


class _Call:
    """One thread's call of ``append`` on its way through a common commit."""

    def __init__(self, events: Sequence[StoredEvent]) -> None:
        self.events = events
        self.result: AppendResult | None = None
        self.error: StoreError | None = None

    @property
    def open(self) -> bool:
        return self.result is None and self.error is None


class EventStore:
    """Events of people, changes of items and the audit, in a database; made by ``open_store``.

    Every method may be called by many threads at once. When a method that writes returns, what it wrote
    is on the disk: SQLite with write-ahead log and ``synchronous=FULL``, PostgreSQL with
    ``synchronous_commit`` at least ``on``.

    All methods raise ``StoreError`` where the database does not answer or the store is closed. A write
    that raised it may have happened or not: append the same events again, the known ones are counted.
    """

    def __init__(self, url: URL, writing: Engine, reading: Engine) -> None:
        self._url = url
        self._writing_engine = writing
        self._reading_engine = reading
        self._turn = threading.RLock()
        self._arrivals = threading.Lock()
        self._waiting: list[_Call] = []
        self._closed = False
        self._asking = threading.Lock()
        self._heads = Heads(0, 0, 0)
        self._heads_of: int | None = None
        self._looking: Any = None

    def __repr__(self) -> str:
        return f"EventStore({shown(self._url)!r})"

    # Events

    def append(self, events: Sequence[StoredEvent]) -> AppendResult:
        """All the events are stored durably, or none of them.

        An event whose id is known with the same content is counted and not stored again. Calls that come
        while another is being committed share the next commit.

        Raises:
            ConflictError: an id is known, or there twice, with other content; nothing of the call is stored.
            DataError: an event that cannot be kept; nothing of the call is stored.
        """
        call = _Call([checked_event(each) for each in events])
        if not call.events:
            return AppendResult(0, 0)
        with self._arrivals:
            self._waiting.append(call)
        with self._turn:
            if call.open:  # else whoever had the turn before has committed it too
                with self._arrivals:
                    calls, self._waiting = self._waiting, []
                self._commit(calls)
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    def _commit(self, calls: list[_Call]) -> None:
        """Each of the calls has its result or its error, and the stored events are durable."""
        try:
            with self.writing() as connection:
                known = _known(connection, [each.event_id for call in calls for each in call.events])
                results, new = _sorted_out(calls, known)
                if new:
                    connection.execute(insert(EVENTS), [each._asdict() for each in new])
            for call, result in results:
                call.result = result
        except StoreError as error:
            for call in calls:  # each thread raises its own; a conflict may be with what is not there now
                call.error = StoreError(str(error))
        finally:
            for call in calls:
                if call.open:  # interrupted, for example by Ctrl-C in the thread that had the turn
                    call.error = StoreError(
                        "The store was interrupted before it knew of a commit. Try again."
                    )

    def latest(self, user: str, limit: int) -> list[StoredEvent]:
        """The person's last ``limit`` events by time, then by arrival; oldest first."""
        rows = self._read(
            lambda connection: connection.execute(_LATEST, {"user": user, "limit": limit}).all()
        )
        return [StoredEvent._make(row) for row in reversed(rows)]

    def events_of(self, user: str) -> list[StoredEvent]:
        """All events of the person, in the order of ``latest``."""
        rows = self._read(lambda connection: connection.execute(_ALL_OF_USER, {"user": user}).all())
        return [StoredEvent._make(row) for row in rows]

    def after(self, sequence: int, limit: int) -> list[tuple[int, StoredEvent]]:
        """The first ``limit`` events that arrived after number ``sequence``, with their numbers.

        Numbers grow with arrival and begin above 0; some are left out. Ask again from the last one.
        """
        asked = {"sequence": sequence, "limit": limit}
        rows = self._read(lambda connection: connection.execute(_AFTER, asked).all())
        return [(row[0], StoredEvent._make(row[1:])) for row in rows]

    def count(self) -> int:
        """How many events there are; the database counts them one by one."""
        counting = select(func.count()).select_from(EVENTS)
        return int(self._read(lambda connection: connection.execute(counting).scalar_one()))

    def forget(self, user: str) -> int:
        """No event of the person is left, and ``forgotten_after`` tells it; how many events there were.

        Their ids are forgotten too: an event that is posted again afterwards is stored again. Of an
        SQLite file the bytes are overwritten; PostgreSQL clears them at its next VACUUM.
        """
        with self.writing() as connection:
            gone = connection.execute(delete(EVENTS).where(EVENTS.c.user == user)).rowcount
            connection.execute(insert(FORGOTTEN).values(digest=digest_of(user)))
        if self._reading_engine.dialect.name == "sqlite":
            self._read(_empty_log)
        return int(gone)

    def forgotten_after(self, sequence: int) -> list[tuple[int, str]]:
        """Who was forgotten after number ``sequence``, by ``digest_of`` their keys, in order."""
        rows = self._read(
            lambda connection: connection.execute(
                _FORGOTTEN.order_by(FORGOTTEN.c.sequence), {"sequence": sequence}
            ).all()
        )
        return [(row.sequence, row.digest) for row in rows]

    def heads(self) -> Heads:
        """How far the numbers of events, changes of items and forgotten people have come.

        Every answer begins with this question, so SQLite is only asked whether anybody wrote since the last
        time: that takes microseconds.
        """
        with self._asking:
            # Asked first: what is written after that is found the next time.
            version = self._version()
            if version is None or version != self._heads_of:
                self._heads = Heads(*self._read(lambda connection: connection.execute(_HEADS).one()))
                self._heads_of = version
            return self._heads

    def _version(self) -> int | None:
        """A number that another one follows whenever somebody commits; None where the database has none."""
        if self._reading_engine.dialect.name != "sqlite":
            return None
        with self._translated():
            if self._looking is None:
                pooled = self._reading_engine.raw_connection()
                self._looking = pooled.driver_connection
                pooled.detach()  # ours alone, since the numbers of two connections say nothing of each other
            try:
                cursor = self._looking.execute("PRAGMA data_version")
                found: int = cursor.fetchone()[0]
                cursor.close()
            except sqlite3.Error as error:
                raise StoreError(f"The event store {shown(self._url)} answered: {error}") from None
            return found

    # Items

    def put_item(self, item: str, fields: Mapping[str, Any], media: Mapping[str, bytes]) -> None:
        """The item is shown, and described by this alone; whatever was said of it before is gone.

        Args:
            fields: by field, a value of JSON.
            media: by field, the bytes of a file.

        Raises:
            DataError: a key that cannot be kept, or fields that are not JSON.
        """
        described = fields_as_json(fields)
        self._check_item(item, media)
        with self.writing() as connection:
            connection.execute(delete(ITEM_MEDIA).where(ITEM_MEDIA.c.item == item))
            _renew(connection, item, ItemState.SHOWN, whole=True, fields=described)
            _keep_media(connection, item, media)

    def patch_item(self, item: str, fields: Mapping[str, Any], media: Mapping[str, bytes]) -> None:
        """These fields of the item are described anew; its other fields, and whether it is hidden, stay.

        Args:
            fields: by field, a value of JSON; null clears the field, also if it has a file.
            media: by field, the bytes of a file; they take the place of a value.

        Raises:
            UnknownKeyError: the item was removed.
            DataError: as ``put_item``.
        """
        fields_as_json(fields)
        self._check_item(item, media)
        with self.writing() as connection:
            before = _state(connection, item)
            known = {name: of for name, of in {**before.fields, **fields}.items() if name not in media}
            gone = delete(ITEM_MEDIA).where(ITEM_MEDIA.c.item == item)
            connection.execute(gone.where(ITEM_MEDIA.c.field.in_([*fields, *media])))
            _renew(connection, item, before.state, whole=before.whole, fields=fields_as_json(known))
            _keep_media(connection, item, media)

    def hide_item(self, item: str) -> None:
        """The item is hidden; its description stays.

        Raises:
            UnknownKeyError: the item was removed.
        """
        self._set_state(item, ItemState.HIDDEN)

    def show_item(self, item: str) -> None:
        """The item is not hidden any more.

        Raises:
            UnknownKeyError: the item was removed.
        """
        self._set_state(item, ItemState.SHOWN)

    def _set_state(self, item: str, state: ItemState) -> None:
        self._check_item(item, {})
        with self.writing() as connection:
            before = _state(connection, item)
            _renew(connection, item, state, whole=before.whole, fields=fields_as_json(before.fields))

    def remove_item(self, item: str) -> None:
        """The item is removed, and its description is gone; ``put_item`` brings it back."""
        self._check_item(item, {})
        with self.writing() as connection:
            connection.execute(delete(ITEM_MEDIA).where(ITEM_MEDIA.c.item == item))
            _renew(connection, item, ItemState.REMOVED, whole=True, fields="{}")

    def item_changes_after(self, sequence: int) -> Iterator[tuple[int, ItemChange]]:
        """What items are now that changed after number ``sequence``, with their numbers; oldest change first.

        Of each item only the latest state comes. Rows are read a few at a time, while one goes through them.
        """
        changes = self._changes(sequence)
        while changes:
            yield from changes
            changes = self._changes(changes[-1][0])

    def _changes(self, sequence: int) -> list[tuple[int, ItemChange]]:
        asked = {"sequence": sequence, "limit": _CHANGES_AT_ONCE}
        rows = self._read(lambda connection: connection.execute(_CHANGES, asked).all())
        changes: dict[int, ItemChange] = {}
        for number, item, state, whole, fields, name, content in rows:
            if number not in changes:
                changes[number] = ItemChange(item, ItemState(state), whole, json.loads(fields), {})
            if name is not None:
                changes[number].media[name] = bytes(content)
        return list(changes.items())

    def item_media(self, item: str, field: str) -> bytes | None:
        """The file of this field of the item, as it came, if there is one."""
        asked = select(ITEM_MEDIA.c.content).where(ITEM_MEDIA.c.item == item, ITEM_MEDIA.c.field == field)
        content = self._read(lambda connection: connection.execute(asked).scalar_one_or_none())
        return None if content is None else bytes(content)

    def _check_item(self, item: str, media: Mapping[str, bytes]) -> None:
        checked_key(item, "item")
        for name in media:
            checked_key(name, "name of a field")

    # The model

    def choice(self, run: str) -> ModelChoice | None:
        """Which export of the run answers, as was chosen last; None where nobody has chosen."""
        row = self._read(lambda connection: connection.execute(_CHOICE, {"run": run}).one_or_none())
        return None if row is None else ModelChoice._make(row)

    def choose(
        self, run: str, model: str, previous: str | None, exported: str, *, after: int | None = None
    ) -> ModelChoice:
        """From now on this export of the run answers; which one does now.

        Args:
            after: the number of the choice that this one follows, 0 for none; where somebody has chosen since
                then, theirs stays and is returned.

        Raises:
            DataError: a text that cannot be kept.
        """
        line = {"run": run, "model": model, "previous": previous, "exported": exported}
        for name, text in line.items():
            if text is not None:
                checked_key(text, name)
        with self.writing() as connection:
            now = connection.execute(_CHOICE, {"run": run}).one_or_none()
            if now is not None and after is not None and now.number != after:
                return ModelChoice._make(now)
            connection.execute(insert(MODELS).values(line))
            return ModelChoice._make(connection.execute(_CHOICE, {"run": run}).one())

    # The audit

    def audit(self, who: str, action: str, subject: str, time: int) -> None:
        """A line says who did what to whom, and when: microseconds since 1970 in UTC.

        Raises:
            DataError: a text that cannot be kept.
        """
        line = AuditLine(time, who, action, subject)
        for name in ("who", "action", "subject"):
            checked_key(getattr(line, name), name)
        with self.writing() as connection:
            connection.execute(insert(AUDIT).values(line._asdict()))

    def audit_lines(self, limit: int) -> list[AuditLine]:
        """The last ``limit`` lines of the audit, oldest first."""
        rows = self._read(lambda connection: connection.execute(_LINES.limit(limit)).all())
        return [AuditLine._make(row) for row in reversed(rows)]

    # The database

    def close(self) -> None:
        """What is being written is finished, and all connections are given back; may be called twice."""
        with self._turn:
            self._closed = True
            with self._asking:
                if self._looking is not None:
                    self._looking.close()
            self._reading_engine.dispose()
            self._writing_engine.dispose()

    def __enter__(self) -> EventStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, question: Callable[[Connection], Answer]) -> Answer:
        with self._translated(), self._reading_engine.connect() as connection:
            return question(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of which no other writer sees or disturbs a part; committed at the end."""
        with self._turn, self._translated(), self._writing_engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"The event store {shown(self._url)} is closed.")
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(
                f"The event store {shown(self._url)} answered: {reason(error, self._url)}"
            ) from None


def _empty_log(connection: Connection) -> None:
    """SQLite's log holds no older state of a page, unless somebody reads on for more than a second."""
    for pragma in ("busy_timeout=1000", "wal_checkpoint(TRUNCATE)", f"busy_timeout={PATIENCE * 1000}"):
        connection.exec_driver_sql(f"PRAGMA {pragma}").close()


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, StoredEvent]:
    """Those of the events that are stored already, by id."""
    known = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        rows = connection.execute(_KNOWN, {"ids": ids[start : start + _IDS_AT_ONCE]})
        known.update({row[0]: StoredEvent._make(row) for row in rows})
    return known


def _sorted_out(
    calls: Sequence[_Call], known: dict[str, StoredEvent]
) -> tuple[list[tuple[_Call, AppendResult]], list[StoredEvent]]:
    """What each call will be told once the new events are stored, and these; conflicts are told already."""
    results: list[tuple[_Call, AppendResult]] = []
    new: list[StoredEvent] = []
    for call in calls:
        of_call: dict[str, StoredEvent] = {}
        for each in call.events:
            before = known.get(each.event_id) or of_call.get(each.event_id)
            if before is None:
                of_call[each.event_id] = each
            elif before != each:
                call.error = ConflictError(
                    f"The event {each.event_id!r} is known with other content; nothing of this call is "
                    "stored. Give every event an id of its own, and leave it as it was when sending again."
                )
                break
        else:
            known.update(of_call)
            new += of_call.values()
            results.append((call, AppendResult(len(of_call), len(call.events) - len(of_call))))
    return results, new


def _state(connection: Connection, item: str) -> ItemChange:
    """What the item's earlier changes say, without media; of an item without any, nothing.

    Raises:
        UnknownKeyError: it was removed.
    """
    row = connection.execute(select(ITEM_CHANGES).where(ITEM_CHANGES.c.item == item)).one_or_none()
    if row is None:
        return ItemChange(item, ItemState.SHOWN, False, {}, {})
    if row.state == ItemState.REMOVED:
        raise UnknownKeyError(f"The item {item!r} was removed. Put it again with all its fields.")
    return ItemChange(item, ItemState(row.state), row.whole, json.loads(row.fields), {})


def _renew(connection: Connection, item: str, state: ItemState, *, whole: bool, fields: str) -> None:
    """The item has this state under a new number, so that every reader meets it again."""
    connection.execute(delete(ITEM_CHANGES).where(ITEM_CHANGES.c.item == item))
    connection.execute(insert(ITEM_CHANGES).values(item=item, state=state.value, whole=whole, fields=fields))


def _keep_media(connection: Connection, item: str, media: Mapping[str, bytes]) -> None:
    if media:
        rows = [{"item": item, "field": name, "content": content} for name, content in media.items()]
        connection.execute(insert(ITEM_MEDIA), rows)
