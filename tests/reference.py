"""The server in the slow and obvious way: dictionaries in memory, and every item scored for every list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID, MEDIA, FieldKind, Histories

TOLERANCE = 1e-3


@dataclass
class Thing:
    """An item as it is now."""

    number: int
    """Its row of the table of vectors."""
    fields: dict[str, Any]
    """Without those that are empty."""
    pictures: dict[str, bytes | None]
    """By field that has one; None is the picture of training."""
    told: bool
    """Whether anything is known of it."""
    hidden: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    """What was said of it since training, by field; None clears."""
    whole: bool = False
    """Whether ``changes`` are all that is known."""


class Reference:
    """What a server on this export has to answer after everything that it was told."""

    def __init__(self, model: ServingModel) -> None:
        self.model = model
        prepared = model.prepared
        self.kinds = {each.name: each.kind for each in prepared.schema.fields}
        self.vectors = [*np.asarray(model.vectors)]
        self.things = {
            str(key): self._of_training(number)
            for number, key in enumerate(prepared.items.series, start=FIRST_ID)
        }
        self.ids = {key: thing.number for key, thing in self.things.items()}
        """Of the items of training."""
        known = prepared.known()
        rows = [*zip(known.item.tolist(), known.event.tolist(), known.time.tolist(), strict=True)]
        self.of_training = {
            str(key): rows[known.offsets[row] : known.offsets[row + 1]]
            for row, key in enumerate(prepared.people.series, start=FIRST_ID)
        }
        self.removed: set[str] = set()
        """Items of training that were removed."""
        self.events: dict[str, list[dict[str, Any]]] = {}
        """Of each person, in the order of arrival."""
        self.known: dict[str, dict[str, Any]] = {}
        """By event id."""
        self.forgotten: set[str] = set()

    # Items

    def _of_training(self, number: int) -> Thing:
        row = self.model.prepared.catalogue.row(number, named=True)
        fields = {
            name: row[name]
            for name, kind in self.kinds.items()
            if kind not in MEDIA and row[name] is not None
        }
        pictures = dict.fromkeys(name for name, kind in self.kinds.items() if kind == FieldKind.IMAGE)
        return Thing(number, fields, pictures, bool(self.model.allowed[number]))

    def put(self, key: str, fields: dict[str, Any], files: dict[str, bytes]) -> None:
        thing = self.things.get(key)
        number = self._number(key) if thing is None else thing.number
        self.removed.discard(key)
        self.things[key] = Thing(number, {}, {}, False, whole=True)
        self._describe(key, fields | files)

    def patch(self, key: str, fields: dict[str, Any], files: dict[str, bytes]) -> None:
        self._describe(key, fields | files)

    def remove(self, key: str) -> None:
        thing = self.things.pop(key)
        if self._is_trained(thing.number):
            self.removed.add(key)
            self.vectors[thing.number] = self.model.vectors[thing.number]

    def _number(self, key: str) -> int:
        if key in self.removed:
            return self.ids[key]
        self.vectors.append(np.zeros(self.model.vectors.shape[1], np.float32))
        return len(self.vectors) - 1

    def _is_trained(self, number: int) -> bool:
        return number < len(self.model.vectors)

    def _describe(self, key: str, said: dict[str, Any]) -> None:
        thing = self.things[key]
        thing.changes |= said
        for name, value in said.items():
            kept = thing.pictures if self.kinds[name] in MEDIA else thing.fields
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value
        named = list(self.kinds) if thing.whole else list(thing.changes)
        schema = self.model.prepared.catalogue.schema
        columns: dict[str, pl.Series] = {"item": pl.Series([key])}
        for name in named:
            value = None if self.kinds[name] in MEDIA else thing.changes.get(name)
            columns[name] = pl.Series(name, [value], schema[name], strict=False)
        table = pl.DataFrame(columns)
        files = {
            name: [[thing.changes[name]] if thing.changes.get(name) else []]
            for name in named
            if self.kinds[name] in MEDIA
        }
        media = self.model.media_of(files)
        self.vectors[thing.number] = self.model.encode_items(table, media)[0]
        thing.told = bool(self.model.may_be_recommended(table, media)[0])

    def view(self, key: str) -> dict[str, Any]:
        thing = self.things[key]
        warm = self.model.prepared.warm
        return {
            "item": key,
            "fields": thing.fields,
            "new": not (self._is_trained(thing.number) and bool(warm[thing.number])),
            "shown": thing.told and not thing.hidden,
            "media": sorted(thing.pictures),
        }

    def shown(self) -> set[str]:
        return {key for key, thing in self.things.items() if thing.told and not thing.hidden}

    # People

    def post(self, events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        """What is answered; None where an id is known with other content."""
        new, again = {}, 0
        for event in events:
            before = self.known.get(event["event_id"]) or new.get(event["event_id"])
            if before is None:
                new[event["event_id"]] = event
            elif before == event:
                again += 1
            else:
                return None
        for event in new.values():
            self.known[event["event_id"]] = event
            self.events.setdefault(event["user"], []).append(event)
        return {"stored": len(new), "known": again}

    def forget(self, user: str) -> int:
        gone = self.events.pop(user, [])
        for event in gone:
            del self.known[event["event_id"]]
        self.forgotten.add(user)
        return len(gone)

    def trained(self, user: str) -> list[tuple[int, int, int]]:
        """Item, type of event and time of the events that training saw."""
        return [] if user in self.forgotten else self.of_training.get(user, [])

    def kept(self, user: str) -> list[dict[str, Any]]:
        """The stored events of a person by time, then by arrival."""
        return sorted(self.events.get(user, []), key=lambda event: event["time"])

    def number_in_histories(self, key: str) -> int | None:
        if key in self.things:
            return self.things[key].number
        return self.ids[key] if key in self.removed else None

    def history(self, user: str) -> Histories:
        trained, types = self.trained(user), self.model.prepared.schema.events
        rows = list(trained)
        for event in self.kept(user):
            number = self.number_in_histories(event["item"])
            if number is None or event["event"] not in types:
                continue
            row = (number, types.index(event["event"]), event["time"])
            if row not in rows:
                rows.append(row)
        rows.sort(key=lambda row: row[2])
        history = Histories.of([[row[0] for row in rows]])
        history.event[:] = [row[1] for row in rows]
        history.time[:] = [row[2] for row in rows]
        return history

    # Lists

    def candidates(
        self, history: Histories, *, glaze: str | None, exclude: Iterable[str], filter_seen: bool
    ) -> set[str]:
        met = set(history.item.tolist()) if filter_seen else set()
        return {
            key
            for key in self.shown() - set(exclude)
            if self.things[key].number not in met
            and (glaze is None or self.things[key].fields.get("glaze") == glaze)
        }

    def scores(self, history: Histories) -> dict[str, float]:
        table = np.stack(self.vectors)
        row = self.model.states(history, vectors=table).scores(table)[0]
        return {key: float(row[thing.number]) for key, thing in self.things.items()}

    def assert_list(
        self, listed: list[dict[str, Any]], history: Histories, k: int, candidates: set[str]
    ) -> None:
        """The list holds the best of the candidates, each as it is, as many as there are."""
        keys = [each["item"] for each in listed]
        assert len(keys) == len(set(keys)) == min(k, len(candidates)), (len(keys), k, len(candidates))
        assert set(keys) <= candidates
        assert [each["rank"] for each in listed] == list(range(1, len(keys) + 1))
        for each in listed:
            same = {name: each[name] for name in ("item", "fields", "new", "shown", "media")}
            assert same | {"media": sorted(same["media"])} == self.view(each["item"])
        if not len(history.item):
            assert {each["source"] for each in listed} <= {"popular", "new", "taste", "context"}
            return
        assert {each["source"] for each in listed} <= {"taste"}
        right = self.scores(history)
        best = sorted((right[key] for key in candidates), reverse=True)[: len(keys)]
        told = [each["score"] for each in listed]
        np.testing.assert_allclose(told, [right[key] for key in keys], rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(told, best, rtol=TOLERANCE, atol=TOLERANCE)

    def nearest(self, key: str) -> dict[str, float]:
        """By item that may be recommended, the cosine with this one."""
        table = np.stack(self.vectors)
        table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        cosine = table @ table[self.things[key].number]
        return {other: float(cosine[self.things[other].number]) for other in self.shown() - {key}}
