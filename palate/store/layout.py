"""The tables of the event store, and the steps that lead from one version of them to the next."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from palate.errors import StoreError

METADATA = MetaData()
# SQLite numbers rows by itself in columns of exactly this type only.
_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")

# A number is never given twice, also when the latest row is deleted: readers go by the numbers.
EVENTS = Table(
    "palate_events",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("user", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("value", Double),
    sqlite_autoincrement=True,
)
Index("palate_events_of_user", EVENTS.c.user, EVENTS.c.time, EVENTS.c.sequence)

ITEM_CHANGES = Table(
    "palate_item_changes",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("item", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("whole", Boolean, nullable=False),
    Column("fields", Text, nullable=False),
    sqlite_autoincrement=True,
)

ITEM_MEDIA = Table(
    "palate_item_media",
    METADATA,
    Column("item", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

AUDIT = Table(
    "palate_audit",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    sqlite_autoincrement=True,
)

# People whose events in the data of any model count no more, by the digests of their keys: the keys
# themselves are to be gone. A person may come here again.
FORGOTTEN = Table(
    "palate_forgotten",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("digest", Text, nullable=False),
    sqlite_autoincrement=True,
)

# Which export of a run answers, since when: each line takes the place of those before it. Every process that
# serves the run goes by the last one.
MODELS = Table(
    "palate_models",
    METADATA,
    Column("number", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("run", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("previous", Text),
    Column("exported", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("palate_models_of_run", MODELS.c.run, MODELS.c.number)

VERSION = Table("palate_store_version", METADATA, Column("version", Integer, nullable=False))

Step = Callable[[Connection], None]

STEPS: tuple[Step, ...] = (MODELS.create,)
"""Step n leads the tables of version n + 1 to version n + 2."""


def bring_up_to_date(connection: Connection, steps: tuple[Step, ...] = STEPS) -> None:
    """The database has the tables above, made anew or led there step by step.

    All of it happens in the caller's transaction, so that a step is taken whole or not at all.

    Raises:
        StoreError: a newer Palate has made the tables.
    """
    newest = len(steps) + 1
    if not inspect(connection).has_table(VERSION.name):
        METADATA.create_all(connection)
        connection.execute(insert(VERSION).values(version=newest))
        return
    version = connection.execute(select(VERSION.c.version)).scalar_one()
    if version > newest:
        raise StoreError(
            f"The event store has version {version}, and this Palate knows versions up to {newest}. "
            "Use a newer Palate, or another store."
        )
    for step in steps[version - 1 :]:
        step(connection)
    connection.execute(update(VERSION).values(version=newest))
