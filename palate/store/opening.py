"""Opening an event store by URL: which databases can be one, and how their connections are set."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, inspect

from palate.data.databases import database_url, open_engine, shown
from palate.errors import StoreError
from palate.store.layout import VERSION, bring_up_to_date
from palate.store.store import PATIENCE, EventStore

CONNECT_PATIENCE = 10
"""Seconds that a database may take to answer at all."""
READERS = 16
"""Connections that read at the same time; further readers wait for one of them."""

# One writer at a time, over all processes. PostgreSQL gives the lock back with the commit; the number only
# has to be nobody else's: the bytes of "palate".
_BEGIN = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": f"SELECT pg_advisory_xact_lock({int.from_bytes(b'palate', 'big')})",
}


def open_store(url: str, *, create: bool = True) -> EventStore:
    """The event store in the database at this URL; its tables are made if they are not there.

    Args:
        url: ``sqlite:///PATH``, ``sqlite://`` (in memory, gone when closed) or
            ``postgresql://USER:PASSWORD@HOST/DATABASE``; ``${NAME}`` is read from the environment.
        create: false where a store without tables is a mistake.

    Raises:
        StoreError: another kind of database, one that does not answer, a newer version of the tables; none
            at all without ``create``. No message holds a password.
        DataError: it is no URL.
        MissingExtraError: PostgreSQL's driver is not installed.
    """
    given = place = database_url(url)
    backend = place.get_backend_name()
    if backend == "sqlite":
        place = _file(place, create)
        options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}}
    elif backend == "postgresql":
        waiting = {} if "connect_timeout" in place.query else {"connect_timeout": CONNECT_PATIENCE}
        options = {"connect_args": waiting, "pool_pre_ping": True}
    else:
        raise StoreError(f"{backend} holds no event store; wanted sqlite:///PATH or postgresql://….")
    options |= {"pool_timeout": PATIENCE, "hide_parameters": True}  # errors and logs hold nobody's events
    writing = open_engine(place, pool_size=1, max_overflow=0, **options)
    reading = open_engine(place, pool_size=READERS, max_overflow=0, isolation_level="AUTOCOMMIT", **options)
    for engine in (writing, reading):
        event.listen(engine, "connect", _CONNECTED[backend])
    event.listen(writing, "begin", lambda connection: connection.exec_driver_sql(_BEGIN[backend]))
    store = EventStore(given, writing, reading)
    try:
        with store.writing() as connection:
            if not create and not inspect(connection).has_table(VERSION.name):
                raise StoreError(f"There is no event store in {shown(given)}. Check the URL.")
            _refuse_other_encodings(connection)
            bring_up_to_date(connection)
    except BaseException:
        store.close()
        raise
    return store


def _file(url: URL, create: bool) -> URL:
    """The URL of a file that is there and that only its owner can read, or of a named place in memory."""
    if url.database in (None, "", ":memory:"):
        # A named database in memory is shared by all connections of the process, and locked as a file is.
        return url.set(database=f"file:/{uuid.uuid4().hex}", query={"vfs": "memdb", "uri": "true"})
    path = Path(str(url.database))
    if not create and not path.is_file():
        raise StoreError(f"There is no event store {path}. Check the URL.")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}); wanted a file in a folder that can be written to."
        ) from None
    return url


def _connected_to_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "fullfsync=ON",  # macOS: past the disk's own cache
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _connected_to_postgresql(connection: Any, _: object) -> None:
    """A server may be set to tell of commits before they are durable; these sessions wait."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
        cursor.execute(f"SET lock_timeout = '{PATIENCE}s'")
    connection.commit()


_CONNECTED = {"sqlite": _connected_to_sqlite, "postgresql": _connected_to_postgresql}


def _refuse_other_encodings(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise StoreError(f"The database is encoded as {encoding}; wanted UTF8, which holds every key.")
