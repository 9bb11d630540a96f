"""One loaded model and the items as they are now: what a request is answered from, as a whole."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from palate.data.store import load_prepared, replacing
from palate.errors import BundleError, DataError, PalateError
from palate.explain.answer import Parts, parts_of
from palate.retrieve.approximate import ApproximateIndex
from palate.retrieve.build import (
    ALWAYS_EXACT,
    DESCRIPTION,
    build_index,
    exact_limit,
    load_index,
    save_index,
)
from palate.retrieve.catalogue import Catalogue
from palate.retrieve.fallback import Fallback, Popularity
from palate.retrieve.index import ExactIndex, Vectors
from palate.retrieve.rule_settings import RuleSettings
from palate.retrieve.rules import Rules
from palate.runtime.model import Answer, Bonuses, ServingModel
from palate.schema import FIRST_ID, PADDING, UNKNOWN, BoolArray, FieldKind, Histories, IntArray, Media
from palate.serve.asking import Asked, answers, untimed
from palate.serve.awaited import Awaited
from palate.serve.goods import UNSHOWN, Goods, Reader
from palate.serve.kept import INDEX, SERVING, digest_of
from palate.serve.people import MOST_EVENTS, People, ids_by_text, texts
from palate.store.records import Heads, ItemChange, ItemState, StoredEvent
from palate.store.store import EventStore

STATES = 1_000
"""Real histories that recall is measured with."""
MOST_CARDS = 50_000
"""Items of which the fields are kept as they are shown."""
MOST_HISTORIES = 10_000
"""People whose history is kept."""
CHANGES_AT_ONCE = 50
EVENTS_AT_ONCE = 10_000

logger = logging.getLogger(__name__)


class Card(NamedTuple):
    """What is shown of an item, and the change after which it holds."""

    change: ItemChange | None
    fields: dict[str, Any]
    media: list[str]


class Live:
    """A model, an index, a catalogue and rules that belong together, and the people of the model's data.

    What the store says after the model was trained is applied by ``catch_up``; everything else only reads.
    """

    def __init__(
        self,
        run: Path,
        place: Path,
        digest: str,
        model: ServingModel,
        store: EventStore,
        *,
        rules: Path | None,
        exact_up_to: int | None,
    ) -> None:
        """The model as it was exported, with all that the store says.

        Args:
            place: the folder that the index is kept in.

        Raises:
            SettingsError: rules that cannot be read, or name what is not there.
        """
        settings = RuleSettings() if rules is None else RuleSettings.load(rules)
        self.run, self.digest, self.model, self.store = run, digest, model, store
        self._keys = ["", "", *texts(model.prepared.items.series)]
        self._ids = ids_by_text(model.prepared.items.series)
        self.reader = Reader(model, dict(self._ids))
        self._absent = set(np.flatnonzero(~model.allowed)[FIRST_ID:].tolist())
        self._removed_by_model = frozenset(model.prepared.removed.tolist())
        self._gone = set(self._removed_by_model)
        self.index = index_of(model, place / INDEX, exact_up_to)
        self.catalogue = Catalogue.of(model.prepared, model.allowed)
        self._popularity = Popularity(settings.fallback.half_life_days, self.catalogue.size)
        if model.prepared.schema.has_time:
            self._popularity.add(model.prepared.histories.item, model.prepared.histories.time)
        self._awaited = Awaited()
        self._former: dict[str, int] = {}
        """Ids that items of the store had before they were removed."""
        self.people = People(model.prepared, self.id_of)
        self._changes: dict[int, ItemChange] = {}  # without the bytes of files
        self._parts: dict[int, list[Vectors]] = {}
        self._cards: dict[int, Card] = {}
        self._media = _media_of(run, model)
        self._plain = [f.name for f in model.prepared.schema.fields if f.kind not in UNSHOWN]
        self._texts = [f.name for f in model.prepared.schema.fields if f.kind == FieldKind.TEXT]
        self._spoken = self._lowered()
        self._histories: dict[str, Histories] = {}
        self._counted: tuple[BoolArray | None, int] = (None, 0)
        self._applied = Heads(0, 0, 0)
        self._applying = threading.Lock()
        self.catch_up()  # first, since rules may name what came after training
        named = "rules" if rules is None else str(rules)
        self.rules = Rules(settings, self.catalogue, named, self._former)
        self.fallback = Fallback(self.rules, self._popularity)

    @classmethod
    def load(
        cls,
        run: Path,
        store: EventStore,
        place: Path,
        *,
        rules: Path | None,
        threads: int,
        exact_up_to: int | None,
    ) -> Self:
        """What PLACE/serving holds, with all that the store says.

        Args:
            place: RUN, or the folder of an earlier export of it.
            rules: a YAML file.
            threads: that work on one pass of the network.
            exact_up_to: items up to which a search compares all of them; None measures it.

        Raises:
            BundleError: there is none, or it is incomplete, altered, damaged or of another format.
            SettingsError: the rules name what is not there, or cannot be read.
            MissingExtraError: ONNX Runtime or Faiss is not installed.
        """
        model, before = None, None
        while model is None:  # an export may take the folder's place meanwhile
            before = digest_of(place)
            loaded = ServingModel.load(place / SERVING, threads=threads)
            if before is not None and digest_of(place) == before:
                model = loaded
        return cls(run, place, str(before), model, store, rules=rules, exact_up_to=exact_up_to)

    # What is there

    @property
    def shown(self) -> int:
        """Items that may be recommended."""
        allowed = self.rules.allowed()
        if allowed is not self._counted[0]:
            self._counted = allowed, int(np.count_nonzero(allowed))
        return self._counted[1]

    def id_of(self, item: str) -> int:
        """The item's id; 1 where it is unknown. Removed items of the model have one."""
        return self._ids.get(item, UNKNOWN)

    def ids_of(self, items: Sequence[str]) -> IntArray:
        """The ids of those of the items that are known."""
        found = [self._ids[item] for item in items if item in self._ids]
        return np.array(found, np.int64)

    def keys_of(self, ids: IntArray) -> list[str]:
        """The key of each."""
        return [self._keys[number] for number in np.asarray(ids).tolist()]

    def there(self, item: str) -> int | None:
        """The id of an item that is known and not removed."""
        number = self._ids.get(item)
        return None if number is None or number in self._gone else number

    def items_of(self, ids: IntArray) -> list[dict[str, Any]]:
        """``{"item", "fields", "new", "shown", "media"}`` of each, as every answer shows items."""
        numbers = np.asarray(ids).tolist()
        cards = self._cards_of(numbers)
        return [
            {
                "item": self._keys[number],
                "fields": cards[number].fields,
                "new": self.catalogue.is_new(number),
                "shown": self.catalogue.is_allowed(number),
                "media": cards[number].media,
            }
            for number in numbers
        ]

    def found(self, search: str, mask: np.ndarray | None) -> IntArray:
        """Ids of the items that are not removed and whose key or texts hold this text, in any case.

        Args:
            mask: bool [V], the only ones that may be found; None allows all.
        """
        wanted = search.lower()
        base = self._spoken.str.contains(wanted, literal=True).to_numpy().copy()
        there = np.zeros(len(self._keys), np.bool_)
        there[: len(base)] = base
        for number, change in list(self._changes.items()):
            if number < len(there):
                there[number] = wanted in self._said(number, change)
        there[:FIRST_ID] = False
        there[[number for number in list(self._gone) if number < len(there)]] = False
        if mask is not None:
            there[len(mask) :] = False
            there[: len(mask)] &= mask[: len(there)]
        return np.flatnonzero(there)

    def picture(self, item: int, field: str) -> np.ndarray | None:
        """What training saw of this field of an item, uint8 [height, width, 3]; the first of several."""
        values = self.seen(item, field)
        if values is None or values.dtype != np.uint8:
            return None
        return values[len(values) // 2] if values.ndim == 4 else values

    def seen(self, item: int, field: str) -> np.ndarray | None:
        """What training saw or heard of this field of an item, one entry of ``schema.Media.values``."""
        media = self._media.get(field)
        return None if media is None else media.first(item)

    def change_of(self, item: int) -> ItemChange | None:
        """What the store says of the item; the bytes of its files are empty here."""
        return self._changes.get(item)

    def recommended(self, user: str, k: int) -> list[dict[str, Any]]:
        """The list of this person, as every answer shows it."""
        (answered,) = answers(self, [Asked(user=user, k=k)], untimed)
        if isinstance(answered, PalateError):
            raise answered
        return answered.items()

    # What is said

    def history(self, user: str) -> Histories:
        """All that counts of the person, as one history; kept until ``catch_up`` hears more of them."""
        kept = self._histories.get(user)
        if kept is not None:
            return kept
        before = self._applied
        found = self.people.history(user, self.store.latest(user, MOST_EVENTS))
        with self._applying:
            if self._applied == before:  # else it may be older than what was heard meanwhile
                if len(self._histories) >= MOST_HISTORIES:
                    self._histories.clear()
                self._histories[user] = found
        return found

    def states(self, histories: Histories, at: int | None = None, event: int | None = None) -> Answer:
        """As ``ServingModel.states``, of histories that may hold items which came later."""
        ids = np.unique(histories.item)
        table = self.index.vectors_of(np.concatenate([[PADDING, UNKNOWN], ids]))
        renamed = (np.searchsorted(ids, histories.item) + FIRST_ID).astype(np.int32)
        compact = Histories(histories.offsets, renamed, histories.event, histories.time)
        answer = self.model.states(compact, at, event, vectors=table)
        offsets, item, value = answer.bonuses
        return Answer(answer.states, Bonuses(offsets, ids[item - FIRST_ID].astype(np.int64), value))

    def parts(self) -> Parts:
        """What the id and each field add to the vectors of ids, also of those that came later."""
        of_model = parts_of(self.model)

        def of(ids: IntArray) -> list[tuple[str, Vectors]]:
            found = list(of_model(ids))
            for row, number in enumerate(ids.tolist()):
                for (_, whole), own in zip(found, self._parts.get(number, ()), strict=False):
                    whole[row] = own
            return found

        return of

    def titles(self, ids: IntArray) -> list[dict[str, Any]]:
        """``{"item", "title"}`` of each."""
        return [
            {"item": each["item"], "title": each["fields"].get(self._texts[0]) if self._texts else None}
            for each in self.items_of(ids)
        ]

    # What changes

    def catch_up(self) -> None:
        """All that the store says up to this moment holds here.

        Raises:
            StoreError: the store does not answer.
        """
        heads = self.store.heads()
        if not _is_beyond(heads, self._applied):
            return
        with self._applying:
            for number, digest in self.store.forgotten_after(self._applied.forgotten):
                self.people.forget(digest)
                self._histories.clear()
                self._applied = self._applied._replace(forgotten=number)
            changes = self.store.item_changes_after(self._applied.item_change)
            while some := list(islice(changes, CHANGES_AT_ONCE)):
                self._apply([change for _, change in some])
                self._histories.clear()  # events of an item count from when it is known
                self._applied = self._applied._replace(item_change=some[-1][0])
            while events := self.store.after(self._applied.event, EVENTS_AT_ONCE):
                self._count([event for _, event in events])
                for _, event in events:
                    self._histories.pop(event.user, None)
                self._applied = self._applied._replace(event=events[-1][0])

    def _count(self, events: Sequence[StoredEvent]) -> None:
        rows = []
        trained: dict[str, set[tuple[int, int, int]]] = {}
        for event in events:
            row = self.people.row(event)
            if row is None:
                if self.people.code(event.event) is not None:
                    self._awaited.add(event.item, event.time)
                continue
            if event.user not in trained:
                trained[event.user] = set(self.people.trained(event.user))
            if row not in trained[event.user]:
                rows.append(row)
        columns = np.array(rows, np.int64).reshape(-1, 3)
        self._popularity.add(columns[:, 0], columns[:, 2])

    def _apply(self, changes: Sequence[ItemChange]) -> None:
        """These items, each there once, are what the changes say."""
        alike: defaultdict[tuple[str, ...], list[ItemChange]] = defaultdict(list)
        for change in map(self.reader.known, changes):
            if change.state == ItemState.REMOVED:
                self._remove(change)
            elif not change.whole and self._ids.get(change.item) in self._removed_by_model:
                continue  # said before the model's own data let it go
            elif not self._described_anew(change):
                self._set_shown(change)
            else:
                alike[self.reader.columns(change)].append(change)
        for group in alike.values():
            for some, goods in self._read(group):
                self._put(some, goods)

    def _described_anew(self, change: ItemChange) -> bool:
        """Whether the change says more than whether the item is shown."""
        number = self._ids.get(change.item)
        if number is None or number in self._gone:
            return True
        before = self._changes.get(number, ItemChange(change.item, ItemState.SHOWN, False, {}, {}))
        return _without_files(change)._replace(state=before.state) != before

    def _read(self, group: list[ItemChange]) -> list[tuple[list[ItemChange], Goods]]:
        try:
            return [(group, self.reader.read(group))]
        except DataError as error:
            if len(group) > 1:
                return [found for change in group for found in self._read([change])]
            # Written for another model, or by another version: everybody else's item is served.
            logger.warning("an item of the store cannot be read and is left out: %s", error)
            self._remove(group[0])
            return []

    def _remove(self, change: ItemChange) -> None:
        number = self._ids.get(change.item)
        if number is None:
            self._former.setdefault(change.item, UNKNOWN)
            return
        one = np.array([number])
        self._gone.add(number)
        self._changes[number] = _without_files(change)
        self.catalogue.hide(one)
        if number < len(self.model.vectors):  # histories hold it as training knew it, now and after a restart
            (self.index.add if number in self._absent else self.index.replace)(one, self.model.vectors[one])
            self.index.remove(one)
        else:  # nothing is known of it any more
            del self._ids[change.item]
            self._former[change.item] = number
            if number not in self._absent:
                self.index.remove(one)
        self._absent.add(number)

    def _set_shown(self, change: ItemChange) -> None:
        number = self._ids[change.item]
        self._changes[number] = _without_files(change)
        if change.state == ItemState.SHOWN and number not in self._absent:
            self.catalogue.show(np.array([number]))
        else:
            self.catalogue.hide(np.array([number]))

    def _put(self, changes: Sequence[ItemChange], goods: Goods) -> None:
        warm = self.model.prepared.warm
        for row, change in enumerate(changes):
            number = self._ids.get(change.item, len(self._keys))
            one, vector, told = np.array([number]), goods.vectors[row : row + 1], bool(goods.told[row])
            is_new = number == len(self._keys)
            if is_new or number in self._absent:
                self.index.add(one, vector)
            else:
                self.index.replace(one, vector)
            self._absent.discard(number)
            self._parts[number] = [part[row] for _, part in goods.parts]
            self._changes[number] = _without_files(change)
            if is_new:
                self._keys.append(change.item)
            self.catalogue.put(
                one,
                goods.table[row : row + 1].drop("item"),
                new=number >= len(warm) or not warm[number],
                shown=told and change.state == ItemState.SHOWN,
                keys=[change.item] if is_new else (),
            )
            if is_new:
                former = self._former.pop(change.item, UNKNOWN)
                if former != UNKNOWN:
                    self._popularity.move(former, number)
                times = self._awaited.take(change.item)
                self._popularity.add(np.full(len(times), number), times)
            self._gone.discard(number)
            self._ids[change.item] = number
            if not told:  # nothing is known of it but its name
                self._absent.add(number)
                self.index.remove(one)

    # How items look

    def _cards_of(self, numbers: Sequence[int]) -> dict[int, Card]:
        if len(self._cards) > MOST_CARDS:
            self._cards = {}
        kept = self._cards
        found = {number: kept[number] for number in numbers if number in kept}
        missing = [
            number
            for number in numbers
            if number not in found or found[number].change is not self._changes.get(number)
        ]
        if missing:
            found |= self._made(missing)
            kept |= {number: found[number] for number in missing}
        return found

    def _made(self, numbers: Sequence[int]) -> dict[int, Card]:
        table = self.model.prepared.catalogue
        base = [number for number in numbers if number < table.height]
        columns = {name: table[name].gather(base).to_list() for name in self._plain}
        own = {number: {name: of[row] for name, of in columns.items()} for row, number in enumerate(base)}
        cards = {}
        for number in numbers:
            change = self._changes.get(number)
            fields = own.get(number, {}) if change is None or not change.whole else {}
            media = {
                name
                for name, of in self._media.items()
                if number < table.height and of.offsets[number] < of.offsets[number + 1]
            }
            if change is not None:
                fields |= {name: change.fields[name] for name in self._plain if name in change.fields}
                media = set() if change.whole else media - change.fields.keys()
                media |= change.media.keys()
            shown = {name: value for name, value in fields.items() if value is not None}
            cards[number] = Card(change, shown, sorted(media))
        return cards

    def _lowered(self) -> pl.Series:
        """Of each of the model's items its key and its texts, in small letters."""
        table = self.model.prepared.catalogue
        parts = [table["item"].cast(pl.String), *(table[name] for name in self._texts)]
        return (
            pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
            .select(pl.concat_str(pl.all(), separator="\n", ignore_nulls=True).str.to_lowercase())
            .to_series()
        )

    def _said(self, number: int, change: ItemChange) -> str:
        said = [str(change.fields.get(name) or "") for name in self._texts]
        if not change.whole and number < len(self._spoken):
            said.append(str(self._spoken[number]))
        return "\n".join([change.item, *said]).lower()


def index_of(model: ServingModel, folder: Path, exact_up_to: int | None) -> ExactIndex | ApproximateIndex:
    """The index of the model's items. One that is approximate takes long to build, so it is kept in the
    folder, where that can be written; so is what was measured, for every later start.

    Raises:
        MissingExtraError: it is approximate, and Faiss is not installed.
    """
    absent = np.flatnonzero(~model.allowed)[FIRST_ID:]
    if len(model.vectors) - len(absent) <= (ALWAYS_EXACT if exact_up_to is None else exact_up_to):
        return ExactIndex(model.vectors, absent)
    try:
        kept = load_index(folder, model.vectors, absent=absent)
        if exact_up_to is None or isinstance(kept, ApproximateIndex):
            return kept
    except BundleError:
        logger.info("building the index of %s items", f"{len(model.vectors):,}")
    limit = exact_limit(model.vectors.shape[1]) if exact_up_to is None else exact_up_to
    index = build_index(model.vectors, _states(model), absent=absent, exact_up_to=limit)
    try:
        with replacing(folder, DESCRIPTION, "an index") as writing:
            save_index(index, writing)
    except OSError as error:  # a folder that is only read, or another worker that was quicker
        logger.warning("the index cannot be kept in %s and is built at each start: %s", folder, error)
    return index


def _states(model: ServingModel) -> Vectors:
    """Of people evenly spread over the data; of nobody, where there are too few."""
    known = model.prepared.known()
    having = np.flatnonzero(known.lengths > 0)
    spread = np.unique(np.linspace(0, len(having) - 1, min(len(having), STATES)).astype(np.int64))
    histories = known.select(having[spread])
    if len(histories) < 2:
        return model.states(Histories.of([[], []])).states
    return model.states(histories).states


def _media_of(run: Path, model: ServingModel) -> dict[str, Media]:
    """What training saw and heard, where the run folder is here and of the same items."""
    try:
        prepared = load_prepared(run / "data")
    except BundleError:
        return {}
    return prepared.media if prepared.items.series.equals(model.prepared.items.series) else {}


def _without_files(change: ItemChange) -> ItemChange:
    """The same, with the digests of files in the place of their bytes."""
    digests = {name: hashlib.sha256(content).digest() for name, content in change.media.items()}
    return change._replace(media=digests)


def _is_beyond(heads: Heads, applied: Heads) -> bool:
    return any(head > done for head, done in zip(heads, applied, strict=True))
