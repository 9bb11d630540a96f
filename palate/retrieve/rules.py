"""What a shop wants of its lists, as data: what may be shown, to whom, where, and how much of one kind.

Every rule holds for every list. Rules apply inside the search, so a list has k items whenever the walk down
all of them, best first, finds k.
"""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from palate.errors import SettingsError, did_you_mean
from palate.retrieve.catalogue import Catalogue
from palate.retrieve.index import Bonus, Index, Searchable
from palate.retrieve.rule_settings import AvailableRule, CategoryRule, Labels, RuleSettings
from palate.retrieve.walk import Cap, Pick, Stream, Walk, fill
from palate.schema import UNKNOWN, UNKNOWN_TIME, BoolArray, FloatArray, IntArray

DAY = 24 * 3_600 * 1_000_000
"""Microseconds."""
MOST_MASKS = 64
"""So many combinations of filters are kept worked out."""

_NONE = np.zeros(0, np.int64)
_ALL: Mapping[str, Labels] = {}


@dataclass(frozen=True)
class Past:
    """What somebody did, in ids and codes: three columns of the same length."""

    item: IntArray = field(default_factory=lambda: _NONE)
    event: IntArray = field(default_factory=lambda: _NONE)
    time: IntArray = field(default_factory=lambda: _NONE)
    """Microseconds since 1970; ``UNKNOWN_TIME`` where it is not known."""


@dataclass(frozen=True)
class Request:
    """One list that is asked for."""

    state: FloatArray
    """[D], the state after the history; of somebody without events, that of the empty history."""
    k: int = 10
    past: Past = field(default_factory=Past)
    now: int = UNKNOWN_TIME
    """Microseconds since 1970. Unknown, it is after everything: rules that end with time do not end, pins
    that begin or end with time do not hold."""
    filter_seen: bool = False
    """Nothing of the past is shown, beside what the rules leave out anyway."""
    any_of: Mapping[str, Labels] = field(default_factory=dict)
    """By field: only items with one of these labels. What no item has is no error and finds nothing."""
    none_of: Mapping[str, Labels] = field(default_factory=dict)
    """By field: no item with one of these labels."""
    exclude: IntArray = field(default_factory=lambda: _NONE)
    """Ids that are not shown."""
    bonus: Bonus | None = None
    """Items whose scores are raised."""
    page: str = ""
    """Where the list is shown; pins may ask for it."""
    draw: int = 0
    """Which places are for new items depends on this number and the rule's seed alone."""
    context: IntArray = field(default_factory=lambda: _NONE)
    """Ids of items that are being looked at; fallbacks begin with what is near to them."""


class Source(NamedTuple):
    """Where a walk may take items from."""

    items: Searchable
    state: FloatArray  # [D]
    without: IntArray = _NONE
    """Ids that are not taken from it."""
    bonus: Bonus | None = None


@dataclass(frozen=True)
class _Pin:
    """A pin, its moments in microseconds."""

    item: str
    place: int  # from 0
    pages: frozenset[str]
    audience: str
    since: int | None
    until: int | None

    def holds(self, request: Request) -> bool:
        known = len(request.past.item) > 0
        if self.pages and request.page not in self.pages:
            return False
        if self.audience != "everyone" and known != (self.audience == "known"):
            return False
        if (self.since is None and self.until is None) or request.now == UNKNOWN_TIME:
            return self.since is None and self.until is None
        return (self.since is None or request.now >= self.since) and (
            self.until is None or request.now < self.until
        )


class Rules:
    """Rules bound to a catalogue; what they say of all items is worked out once for each of its versions."""

    def __init__(
        self,
        settings: RuleSettings,
        catalogue: Catalogue,
        source: str = "rules",
        awaited: Collection[str] = (),
    ) -> None:
        """Rules that name only what the catalogue has.

        Args:
            source: what the rules are called in messages.
            awaited: keys of items that rules may name, although the catalogue does not have them now.

        Raises:
            SettingsError: a field, label, item or event type that is not there, a field of another kind, or
                days where events have no times; every fault in one message.
        """
        self.settings, self.catalogue = settings, catalogue
        named = [*settings.unavailable, *(pin.item for pin in settings.pins)]
        self._ids = dict(zip(named, catalogue.items.ids(named).tolist(), strict=True))
        unknown = {key for key in named if self._id(key) == UNKNOWN}.difference(awaited)
        faults = list(_faults(settings, catalogue, unknown))
        if faults:
            raise SettingsError(f"{source}: " + "; ".join(faults))
        self._pins = [
            _Pin(
                pin.item,
                pin.place - 1,
                frozenset(pin.pages),
                pin.audience,
                _microseconds(pin.since),
                _microseconds(pin.until),
            )
            for pin in sorted(settings.pins, key=lambda pin: pin.place)
        ]
        self._caps = [Cap(catalogue.labels(cap.field), cap.most) for cap in settings.caps]
        self._seen = [
            (
                None if rule.event is None else catalogue.events.index(rule.event),
                None if rule.days is None else int(rule.days * DAY),
            )
            for rule in settings.seen
        ]
        self._masks: OrderedDict[tuple[object, ...], BoolArray] = OrderedDict()
        self._version = -1
        self._keeping = threading.Lock()

    @classmethod
    def load(cls, path: Path, catalogue: Catalogue, awaited: Collection[str] = ()) -> Self:
        """The rules of a YAML file.

        Raises:
            SettingsError: no such file, an unknown name, an impossible value, or as the constructor.
        """
        return cls(RuleSettings.load(path), catalogue, str(path), awaited)

    def select(self, index: Index, request: Request) -> list[Pick]:
        """The list: at most k picks, best first but for what is pinned and for the places of new items."""
        return self.select_all(index, [request])[0]

    def select_all(self, index: Index, requests: Sequence[Request]) -> list[list[Pick]]:
        """The list of each request; one search for all that ask with the same filters.

        Raises:
            SettingsError: k below 1, or a filter by a field that has no labels.
        """
        walks = []
        for request in requests:
            taste = Source(index, request.state, bonus=request.bonus)
            walks.append(self.walk(index, request, {"taste": taste}, ("taste",)))
        return fill(walks)

    def walk(
        self,
        index: Index,
        request: Request,
        sources: Mapping[str, Source],
        names: tuple[str, ...],
        lead: tuple[str, float] | None = None,
    ) -> Walk:
        """The list of a request, not yet filled, with pins and the places of new items.

        Args:
            sources: by name; ``new`` is there without being given.
            names: which sources each place asks, in order.
            lead: a source that a share of the places asks before, the first ones.

        Raises:
            SettingsError: as ``select_all``.
        """
        if request.k < 1:
            raise SettingsError(f"k is {request.k}; wanted at least 1.")
        allowed, excluded = self.allowed(request.any_of, request.none_of), self.excluded(request)
        streams = {
            name: Stream(
                source.items,
                source.state,
                allowed,
                np.concatenate([excluded, source.without]),
                source.bonus,
            )
            for name, source in sources.items()
        }
        new = self.allowed(request.any_of, request.none_of, new=True)
        streams["new"] = Stream(index, request.state, new, excluded, request.bonus)
        walk = Walk([names] * request.k, streams, self._caps)
        self._pin(walk, index, request, allowed, excluded)
        free = [place for place in range(request.k) if place not in walk.pinned]
        if lead is not None:
            for place in free[: round(lead[1] * len(free))]:
                walk.places[place] = (lead[0], *names)
        for place in self._places_of_new(free, request.draw):
            walk.places[place] = ("new", *names)
        return walk

    def allowed(
        self, any_of: Mapping[str, Labels] = _ALL, none_of: Mapping[str, Labels] = _ALL, *, new: bool = False
    ) -> BoolArray:
        """[V], not to be written: what the catalogue, these rules and these filters allow; of it, with
        ``new``, what is new.

        Raises:
            SettingsError: a filter by a field that has no labels.
        """
        key = (_key(any_of), _key(none_of), new)
        with self._keeping:
            if self._version != self.catalogue.version:
                self._masks.clear()
                self._version = self.catalogue.version
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        with self.catalogue.unchanging:
            version = self.catalogue.version
            mask = self._worked_out(any_of, none_of)
            if new:
                mask &= self.catalogue.new()
        mask.flags.writeable = False
        with self._keeping:
            if self._version == version:
                self._masks[key] = mask
                if len(self._masks) > MOST_MASKS:
                    self._masks.popitem(last=False)
        return mask

    def excluded(self, request: Request) -> IntArray:
        """Ids that this person is not shown now; some may come twice."""
        past, gone = request.past, [request.exclude]
        if request.filter_seen:
            gone.append(past.item)
        for event, span in self._seen:
            hidden = np.ones(len(past.item), np.bool_) if event is None else past.event == event
            if span is not None and request.now != UNKNOWN_TIME:
                hidden &= (past.time == UNKNOWN_TIME) | (past.time > request.now - span)
            gone.append(past.item[hidden])
        return np.concatenate(gone).astype(np.int64)

    def _worked_out(self, any_of: Mapping[str, Labels], none_of: Mapping[str, Labels]) -> BoolArray:
        mask = self.catalogue.allowed()
        mask[[self._id(key) for key in self.settings.unavailable]] = False
        for rule in self.settings.available:
            mask &= self._can_be_had(rule)
        for category in self.settings.categories:
            if category.any_of:
                mask &= self._having(category.field, category.any_of)
            mask &= ~self._having(category.field, category.none_of)
        for name, labels in any_of.items():
            mask &= self._having(name, labels)
        for name, labels in none_of.items():
            mask &= ~self._having(name, labels)
        return mask

    def _can_be_had(self, rule: AvailableRule) -> BoolArray:
        if rule.above is not None:
            numbers = self.catalogue.numbers(rule.field)
            found: BoolArray = numbers > rule.above
            return found | np.isnan(numbers) if rule.missing else found
        column = self.catalogue.labels(rule.field)
        found = column.mask(column.codes(rule.any_of))
        return found | ~column.mask(column.values.values()) if rule.missing else found

    def _having(self, name: str, labels: Labels) -> BoolArray:
        column = self.catalogue.labels(name)
        return column.mask(column.codes(labels))

    def _pin(
        self, walk: Walk, index: Index, request: Request, allowed: BoolArray, excluded: IntArray
    ) -> None:
        """The pins that hold and are allowed have their places."""
        for pin in self._pins:
            item = self._id(pin.item)
            if (
                pin.place < request.k
                and pin.holds(request)
                and item < len(allowed)
                and allowed[item]
                and item not in excluded
            ):
                walk.pin(pin.place, Pick(item, _score(index, request, item), "pinned"))

    def _id(self, key: str) -> int:
        """The id of an item that the rules name; 1, which is no item, while it is not there."""
        found: int = self.catalogue.later.get(key, self._ids[key])
        return found

    def _places_of_new(self, free: Sequence[int], draw: int) -> list[int]:
        """Which of the free places are for new items."""
        explore = self.settings.explore
        if not explore.share or not free:
            return []
        generator = np.random.default_rng([explore.seed, draw])
        number = int(explore.share * len(free) + generator.random())
        drawn = generator.choice(len(free), min(number, len(free)), replace=False)
        return [free[place] for place in drawn.tolist()]


def _score(index: Index, request: Request, item: int) -> float:
    """The item's score by the person's taste."""
    score = float(index.vectors_of(np.array([item]))[0] @ request.state)
    if request.bonus is not None:
        items, values = request.bonus
        score += float(values[items == item].sum())
    return score


def _key(filters: Mapping[str, Labels]) -> tuple[object, ...]:
    return tuple(sorted((name, tuple(sorted(set(labels)))) for name, labels in filters.items()))


def _microseconds(moment: datetime.datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1_000_000)


def _faults(settings: RuleSettings, catalogue: Catalogue, unknown: Collection[str]) -> Iterator[str]:
    """What the rules name and the catalogue does not have."""
    for rule in settings.available:
        if rule.above is not None:
            yield from _field_fault(catalogue, "available", rule.field, numbers=True)
        else:
            yield from _label_faults(catalogue, "available", rule)
    for category in settings.categories:
        yield from _label_faults(catalogue, "categories", category)
    for cap in settings.caps:
        yield from _field_fault(catalogue, "caps", cap.field)
    named = [("unavailable", key) for key in settings.unavailable]
    named += [("pins", pin.item) for pin in settings.pins]
    yield from (f"{of}: '{key}' is no item" for of, key in named if key in unknown)
    for seen in settings.seen:
        if seen.event is not None and seen.event not in catalogue.events:
            hint = did_you_mean(seen.event, catalogue.events)
            yield f"seen: '{seen.event}' is no event type. {hint}"
        if seen.days is not None and not catalogue.has_time:
            yield "seen: days mean nothing, since the events have an order and no times; leave them out"


def _field_fault(catalogue: Catalogue, of: str, name: str, *, numbers: bool = False) -> Iterator[str]:
    try:
        catalogue.numbers(name) if numbers else catalogue.labels(name)
    except SettingsError as error:
        yield f"{of}: {error}"


def _label_faults(catalogue: Catalogue, of: str, rule: AvailableRule | CategoryRule) -> Iterator[str]:
    faults = list(_field_fault(catalogue, of, rule.field))
    yield from faults
    if not faults:
        known = catalogue.labels(rule.field).values
        none_of = rule.none_of if isinstance(rule, CategoryRule) else ()
        for label in (*rule.any_of, *none_of):
            if label not in known:
                yield f"{of}: no item has '{label}' in '{rule.field}'. {_nearest(label, known)}"


def _nearest(label: str, known: Mapping[str, int]) -> str:
    """A hint, but no list of a thousand labels."""
    hint = did_you_mean(label, known)
    return hint if len(known) <= 20 or hint.startswith("Did") else f"There are {len(known):,} labels."
