"""One exported model and the items as they are now: what answers a request, swapped whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from palate.data.media import media_of_bytes
from palate.data.prepared import Prepared
from palate.data.store import load_prepared
from palate.errors import BundleError, DataError, NotFittedError, did_you_mean
from palate.explain.answer import parts_of
from palate.explain.fields import Part
from palate.retrieve.build import DESCRIPTION, build_index, exact_limit, load_index, save_index
from palate.retrieve.catalogue import Catalogue
from palate.retrieve.fallback import Fallback
from palate.retrieve.index import Index, Vectors
from palate.retrieve.rule_settings import RuleSettings
from palate.retrieve.rules import Rules
from palate.runtime.model import MANIFEST, ServingModel
from palate.schema import FIRST_ID, MEDIA, UNKNOWN, FieldKind, Histories, IntArray, Media
from palate.store.records import ItemChange, ItemState, StoredEvent

SERVING, INDEX = "serving", "index"
SMALL = 20_000
"""Up to so many items an exact search is quick on any machine, and nothing is measured."""
STATES = 1_000
"""People whose states choose and judge an approximate index."""
WORDS: Mapping[FieldKind, pl.DataType | type[pl.DataType]] = {
    FieldKind.CATEGORY: pl.String,
    FieldKind.CATEGORIES: pl.List(pl.String),
    FieldKind.TEXT: pl.String,
}


class Loaded:
    """A model, its index, and what is known of items now. Fulfils ``Present``.

    Reading is for many threads; ``apply`` and ``count`` for one at a time.
    """

    def __init__(self, run: Path, digest: str, model: ServingModel, index: Index, rules: Rules) -> None:
        self.run, self.digest, self.model, self.index = run, digest, model, index
        self.rules, self.catalogue, self.fallback = rules, rules.catalogue, Fallback(rules)
        self.applied = 0
        """Number of the last change of an item that is heard."""
        self.counted = 0
        """Number of the last event that counts as popular."""
        self.lists: Callable[[str, int], list[dict[str, Any]]] = _nobody_answers
        """Gives the list of a person by this model; whoever answers by it says how."""
        self.reading = threading.Lock()
        """Held while vectors are read that no search guards, and while vectors change."""
        prepared = model.prepared
        self._keys: list[str] = ["", "", *(str(key) for key in prepared.items.series)]
        self._id = {key: number for number, key in enumerate(self._keys) if number >= FIRST_ID}
        self._person = {str(key): row for row, key in enumerate(prepared.people.series, start=FIRST_ID)}
        self._plain = [field.name for field in prepared.schema.fields if field.kind not in MEDIA]
        self._codes = {name: code for code, name in enumerate(prepared.schema.events)}
        self._gone: set[int] = set(prepared.removed.tolist())
        self._fields: dict[int, dict[str, Any]] = {}
        self._uploads: dict[int, dict[str, bytes]] = {}
        self._parts: dict[int, dict[str, Vectors]] = {}
        self._pictures = pictures_of(run)
        self._taste: Vectors | None = None
        known = prepared.known()
        rows = np.asarray(known.item, np.int64)
        if prepared.schema.has_time and len(rows):
            self.fallback.popularity.add(rows, np.asarray(known.time))

    @classmethod
    def load(cls, run: Path, rules: Path | None, threads: int) -> Self:
        """What ``palate export`` wrote beside a run, ready to answer; an approximate index is kept.

        Raises:
            BundleError: it is missing or damaged.
            SettingsError: rules that cannot be.
        """
        folder = run / SERVING
        model = ServingModel.load(folder, threads=threads)
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
        catalogue = Catalogue.of(model.prepared, model.allowed)
        bound = Rules(RuleSettings(), catalogue) if rules is None else Rules.load(rules, catalogue)
        return cls(run, digest, model, index_of(model, folder / INDEX), bound)

    def recommended(self, user: str, k: int) -> list[dict[str, Any]]:
        """The list of this person, as the recommendations of the interface show it."""
        return self.lists(user, k)

    # Keys and fields

    def id_of(self, item: str) -> int:
        """The item's id, 1 where it is unknown."""
        return self._id.get(item, UNKNOWN)

    def is_there(self, number: int) -> bool:
        """Whether the item was not removed."""
        return number not in self._gone

    def keys_of(self, ids: IntArray) -> list[str]:
        """The key of each."""
        return [self._keys[number] for number in ids.tolist()]

    def fields_of(self, number: int) -> dict[str, Any]:
        """The plain fields of an item that have a value."""
        if number not in self._fields:
            row = self.model.prepared.catalogue.row(number, named=True)
            self._fields[number] = {name: row[name] for name in self._plain if row[name] is not None}
        return self._fields[number]

    def items_of(self, ids: IntArray) -> list[dict[str, Any]]:
        """Of each ``{"item", "fields", "new", "shown", "media"}``, the last the fields with a picture."""
        allowed, new = self.catalogue.is_allowed(ids), self.catalogue.is_new(ids)
        return [
            {
                "item": self._keys[number],
                "fields": self.fields_of(number),
                "new": fresh,
                "shown": shown,
                "media": self.pictures(number),
            }
            for number, shown, fresh in zip(ids.tolist(), allowed.tolist(), new.tolist(), strict=True)
        ]

    def titles_of(self, ids: IntArray) -> list[dict[str, Any]]:
        """``{"item", "title"}`` of each, as reasons call them."""
        name = next((name for name, kind in self.catalogue.kinds.items() if kind == FieldKind.TEXT), "")
        return [
            {"item": self._keys[number], "title": self.fields_of(number).get(name)} for number in ids.tolist()
        ]

    def searched(self, text: str, allowed: IntArray) -> IntArray:
        """Of these ids those whose key or text holds ``text``, without regard to capitals."""
        wanted = text.casefold()
        texts = [name for name, kind in self.catalogue.kinds.items() if kind == FieldKind.TEXT]

        def holds(number: int) -> bool:
            found = self.fields_of(number) if texts else {}
            return wanted in self._keys[number].casefold() or any(
                wanted in str(found.get(name, "")).casefold() for name in texts
            )

        return np.array([number for number in allowed.tolist() if holds(number)], np.int64)

    # Pictures

    def pictures(self, number: int) -> list[str]:
        """The fields of which this item has a picture that can be shown."""
        uploads = self._uploads.get(number)
        if uploads is not None:
            return list(uploads)
        return [
            name
            for name, media in self._pictures.items()
            if number + 1 < len(media.offsets) and media.offsets[number] < media.offsets[number + 1]
        ]

    def picture(self, number: int, name: str) -> bytes | np.ndarray | None:
        """The bytes that were uploaded, or the pixels that training saw; None where there is none."""
        uploads = self._uploads.get(number)
        if uploads is not None:
            return uploads.get(name)
        if name not in self.pictures(number):
            return None
        media = self._pictures[name]
        pixels: np.ndarray = media.values[media.row[media.offsets[number]]]
        return pixels

    # People

    def history_of(self, user: str, events: Sequence[StoredEvent], *, trained: bool) -> Histories:
        """What is known of a person, oldest first, as one history: events of training and of the store.

        An event of both, with the same item, type and time, counts once. Items and types of event that the
        model does not know are left out. Where the data have an order and no times, the store's come last.

        Args:
            trained: whether the events of training count.
        """
        row = self._person.get(user) if trained else None
        known = self.model.prepared.known()
        own = known.select(np.array([row])) if row is not None else Histories.of([[]])
        came = [
            (self._id[each.item], self._codes[each.event], each.time)
            for each in events
            if each.item in self._id and each.event in self._codes
        ]
        if self.model.prepared.schema.has_time and len(own.item):
            there = set(zip(own.item.tolist(), own.event.tolist(), own.time.tolist(), strict=True))
            came = [each for each in came if each not in there]
        if not came:
            return own
        item, event, time = (np.array(column) for column in zip(*came, strict=True))
        return self._one(
            np.concatenate([own.item, item]),
            np.concatenate([own.event, event]),
            np.concatenate([own.time, time]),
        )

    def history_from(self, entries: Iterable[tuple[str, str | None, int | None]]) -> Histories:
        """A history that a request tells: item, type of event and time of each, oldest first; what is not
        known is left out."""
        told = [(self._id[item], event, time) for item, event, time in entries if item in self._id]
        told = [each for each in told if each[1] is None or each[1] in self._codes]
        whole = Histories.of([[number for number, _, _ in told]])
        whole.event[:] = [0 if event is None else self._codes[event] for _, event, _ in told]
        whole.time[:] = [
            before if time is None else time for (_, _, time), before in zip(told, whole.time, strict=True)
        ]
        if all(time is not None for _, _, time in told):
            return self._one(whole.item, whole.event, whole.time)
        return whole

    def trained_events(self, user: str) -> list[dict[str, Any]]:
        """The events of this person that the model's data hold."""
        row = self._person.get(user)
        if row is None:
            return []
        own, names = self.model.prepared.known().select(np.array([row])), self.model.prepared.schema.events
        columns = zip(own.item.tolist(), own.event.tolist(), own.time.tolist(), strict=True)
        return [
            {"item": self._keys[item], "event": names[code], "time": time} for item, code, time in columns
        ]

    def event_code(self, name: str) -> int:
        """The code of a type of event that the model can be asked for.

        Raises:
            DataError: it cannot.
        """
        schema = self.model.prepared.schema
        if not self.model.settings.model.question_event or name not in schema.target_events:
            told = schema.target_events if self.model.settings.model.question_event else ()
            raise DataError(f"The model cannot be asked for the event '{name}'. {did_you_mean(name, told)}")
        return self._codes[name]

    def similar_people(self, user: str, k: int) -> list[tuple[str, float]]:
        """The k people of the model's data whose taste is nearest by cosine."""
        row = self._person.get(user)
        if row is None:
            return []
        if self._taste is None:
            states = self.model.states(self.model.prepared.known()).states
            self._taste = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
        cosine = self._taste @ self._taste[row]
        cosine[[0, 1, row]] = -np.inf
        best = np.argsort(-cosine, kind="stable")[:k]
        people = self.model.prepared.people.series
        return [(str(people[int(each) - FIRST_ID]), float(cosine[each])) for each in best if each >= FIRST_ID]

    def _one(self, item: IntArray, event: IntArray, time: IntArray) -> Histories:
        """One history of these events, in the order of their times where there are any."""
        order = np.arange(len(item))
        if self.model.prepared.schema.has_time:
            order = np.argsort(time, kind="stable")
        offsets = np.array([0, len(item)], np.int64)
        return Histories(
            offsets, item[order].astype(np.int32), event[order].astype(np.uint8), time[order].astype(np.int64)
        )

    # Items come, change and go

    def check(self, change: ItemChange) -> None:
        """The change can be applied.

        Raises:
            DataError: a field or a file that cannot be used.
        """
        self._described(change)

    def apply(self, changes: Iterable[tuple[int, ItemChange]]) -> None:
        """Items are as these changes say, one after another."""
        for sequence, change in changes:
            self._apply(change)
            self.applied = sequence

    def parts(self, ids: IntArray) -> list[Part]:
        """What the id and each field add to the vectors of these items."""
        found = list(parts_of(self.model)(ids))
        for place, number in enumerate(ids.tolist()):
            for name, vectors in found if number in self._parts else ():
                vectors[place] = self._parts[number][name]
        return found

    def _described(self, change: ItemChange) -> tuple[pl.DataFrame, dict[str, Media], Vectors, bool]:
        """The change as a table of one item, what is to be seen of it, its vector, and if it is known."""
        model, schema = self.model, self.model.prepared.schema
        kinds = {field.name: field.kind for field in schema.fields}
        for name in (*change.fields, *change.media):
            if name not in kinds:
                raise DataError(f"'{name}' is no field of the items. {did_you_mean(name, kinds)}")
        for name, value in change.fields.items():
            if kinds[name] in MEDIA and value is not None:
                raise DataError(f"'{name}' is a field of files; send the file itself, as a part of a form.")
        named = kinds if change.whole else {**change.fields, **change.media}
        table = pl.DataFrame({"item": [change.item]}).with_columns(
            column_of(name, change.fields.get(name), kinds[name], model.prepared) for name in named
        )
        media = model.media_of({name: [[content]] for name, content in change.media.items()})
        for name in named:
            if kinds[name] in MEDIA and name not in media:
                media[name] = media_of_bytes([[]], kinds[name], model.settings.model, name=name)
        return (
            table,
            media,
            model.encode_items(table, media),
            bool(model.may_be_recommended(table, media)[0]),
        )

    def _apply(self, change: ItemChange) -> None:
        number = self._id.get(change.item, len(self._keys))
        if change.state == ItemState.REMOVED:
            if change.item in self._id:
                self._leave(number)
                self._fields[number], self._uploads[number] = {}, {}
                self._gone.add(number)
            return
        table, media, vectors, told = self._described(change)
        if change.item not in self._id:
            self._keys.append(change.item)
        own = (
            {}
            if change.whole or number >= self.model.prepared.catalogue.height
            else self._trained_fields(number)
        )
        own |= {name: value for name, value in change.fields.items() if name in self._plain}
        self._fields[number] = {name: value for name, value in own.items() if value is not None}
        if change.whole or change.media:
            self._uploads[number] = dict(change.media)
        described = self.model.items.described(table, media)
        self._parts[number] = {name: part[0] for name, part in self.model.items.contributions(described)}
        ids = np.array([number])
        with self.reading:
            there = number < self.index.size and bool(self.index.contents()[0][number])
            (self.index.replace if there else self.index.add)(ids, vectors)
        labels = table.select(name for name in table.columns if name in self._plain)
        self.catalogue.put(
            ids, labels, new=number >= len(self.model.prepared.warm) or not self.model.prepared.warm[number]
        )
        self._id[change.item] = number
        self._gone.discard(number)
        if change.state == ItemState.HIDDEN or not told:
            self.catalogue.hide(ids)

    def _leave(self, number: int) -> None:
        ids = np.array([number])
        self.catalogue.hide(ids)
        if self.index.contents()[0][number]:
            self.index.remove(ids)

    def _trained_fields(self, number: int) -> dict[str, Any]:
        row = self.model.prepared.catalogue.row(number, named=True)
        return {name: row[name] for name in self._plain}

    # What is popular

    def count(self, events: Iterable[tuple[int, StoredEvent]]) -> None:
        """These events count as popular."""
        ids, times = [], []
        for sequence, each in events:
            self.counted = sequence
            if each.item in self._id and each.event in self._codes:
                ids.append(self._id[each.item])
                times.append(each.time)
        if ids:
            self.fallback.popularity.add(np.array(ids), np.array(times))


def _nobody_answers(user: str, k: int) -> list[dict[str, Any]]:
    raise NotFittedError(f"Nobody answers by this model yet: the {k} best for {user!r} were asked for.")


def column_of(name: str, value: Any, kind: FieldKind, prepared: Prepared) -> pl.Series:
    """A field of one item as a column.

    Raises:
        DataError: a value of another kind.
    """
    wanted = WORDS.get(kind, prepared.catalogue.schema.get(name))
    try:
        if kind == FieldKind.NUMBER and (
            isinstance(value, bool) or not isinstance(value, int | float | None)
        ):
            raise TypeError
        return pl.Series(name, [value], wanted, strict=kind != FieldKind.NUMBER)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise DataError(f"'{name}' cannot be read as {kind}: a value of another kind came.") from None


def index_of(model: ServingModel, folder: Path) -> Index:
    """The index that was kept of this model, or a new one; an approximate one is kept.

    How many items are compared one by one is measured on this machine.
    """
    vectors = np.asarray(model.vectors)
    absent = np.flatnonzero(~model.allowed)
    absent = absent[absent >= FIRST_ID]
    if len(vectors) <= SMALL:
        return build_index(vectors, np.zeros((0, vectors.shape[1]), np.float32), absent=absent)
    if (folder / DESCRIPTION).exists():
        try:
            return load_index(folder, vectors, absent=absent)
        except BundleError:
            pass  # of another export: it is built again
    known = model.prepared.known()
    having = np.flatnonzero(known.lengths > 0)
    drawn = np.random.default_rng(0).permutation(having)[:STATES]
    states = model.states(known.select(np.sort(drawn))).states
    limit = exact_limit(vectors.shape[1])
    index = build_index(
        vectors, states, absent=absent, exact_up_to=limit if len(states) > 1 else len(vectors)
    )
    save_index(index, folder)
    return index


def pictures_of(run: Path) -> Mapping[str, Media]:
    """By field, the pictures that training saw, where the run's prepared data are still there."""
    try:
        prepared = load_prepared(run / "data")
    except BundleError:
        return {}
    kinds = {field.name: field.kind for field in prepared.schema.fields}
    return {name: media for name, media in prepared.media.items() if kinds[name] == FieldKind.IMAGE}
