"""Events of the store go back into training, beside the data set's own interactions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from palate.schema import Dataset, Note
from palate.store.opening import open_store
from palate.store.records import StoredEvent
from palate.store.store import EventStore

_EVENTS_AT_ONCE = 50_000
_KEYS = ("user", "item")


def with_events(dataset: Dataset, store: EventStore | str) -> Dataset:
    """The data set with all events of the store behind its interactions, before any cleaning.

    They have the same columns, and go through the same rules: what is in both, with the same person,
    item, type and time, counts once. Where the data set's keys are integers and some of the store are
    not, all of them become text. A note says how many events came.

    Args:
        store: an open store, or the URL of one.

    Raises:
        StoreError: there is no store at the URL, or it does not answer.
    """
    if isinstance(store, str):
        with open_store(store, create=False) as opened:
            return with_events(dataset, opened)
    pieces = list(_pieces(store))
    if not pieces:
        return replace(dataset, notes=(*dataset.notes, Note("events of the store", 0, 0, "there is none")))
    events = pl.concat([frame for _, frame in pieces])
    for key in _KEYS:
        dataset, events = _of_one_type(dataset, events, key)
    schema = dataset.interactions.collect_schema()
    first_row, rows = (
        dataset.interactions.select(pl.col("row").max().fill_null(-1) + 1, pl.len().alias("rows"))
        .collect(engine="streaming")
        .row(0)
    )
    events = events.with_row_index("row", offset=first_row)
    if "positive" in schema:
        events = events.with_columns(positive=pl.lit(True))
    joined = pl.concat(
        [dataset.interactions, events.lazy().select(pl.col(name).cast(of) for name, of in schema.items())]
    )
    came = f"{events.height:,} events joined {rows:,} of the data set, as rows {first_row:,} and on"
    note = Note("events of the store", 0, rows + events.height, came)
    mark = (
        dataset.fingerprint
        and hashlib.sha256(
            f"{dataset.fingerprint} {store!r} {events.height} {pieces[-1][0]}".encode()
        ).hexdigest()
    )
    return replace(dataset, interactions=joined, notes=(*dataset.notes, note), fingerprint=mark)


def _pieces(store: EventStore) -> Iterator[tuple[int, pl.DataFrame]]:
    """All events in the order of their arrival, each piece with its last number."""
    types = {"event_id": pl.String, "user": pl.String, "item": pl.String, "event": pl.String}
    schema = {**types, "time": pl.Int64, "value": pl.Float64}
    assert tuple(schema) == StoredEvent._fields
    found = store.after(0, _EVENTS_AT_ONCE)
    while found:
        last = found[-1][0]
        yield last, pl.DataFrame([each for _, each in found], schema=schema, orient="row").drop("event_id")
        found = store.after(last, _EVENTS_AT_ONCE)


def _of_one_type(dataset: Dataset, events: pl.DataFrame, key: str) -> tuple[Dataset, pl.DataFrame]:
    """The keys of people or items are integers in both, or text in both."""
    if dataset.interactions.collect_schema()[key] == pl.String:
        return dataset, events
    # 007 and +7 are integers for a reader of numbers, but other keys than 7.
    as_integers = events[key].cast(pl.Int64, strict=False)
    if (as_integers.cast(pl.String) == events[key]).fill_null(False).all():
        return dataset, events.with_columns(as_integers)
    text = pl.col(key).cast(pl.String)
    items, users = dataset.items, dataset.users
    if key == "item" and items is not None:
        items = items.with_columns(text)
    if key == "user" and users is not None:
        users = users.with_columns(text)
    longer = replace(
        dataset,
        interactions=dataset.interactions.with_columns(text),
        items=items,
        users=users,
        relations=tuple(_with_text_keys(relation, key) for relation in dataset.relations),
    )
    return longer, events


def _with_text_keys(relation: pl.DataFrame, key: str) -> pl.DataFrame:
    """A relation of people or of items, whose kind is the same in every row."""
    if not (relation["kind"] == f"{key}-{key}").all():
        return relation
    return relation.with_columns(pl.col("from", "to").cast(pl.String))
