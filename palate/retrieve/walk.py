"""One list from several sources, place by place, under caps.

Each place names its sources in order; it takes the best item of the first source that has one left. So a list
of pure taste, a list with places for new items and the fallbacks for people without events are all the same
walk with other places.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from palate.retrieve.catalogue import LabelColumn
from palate.retrieve.index import NOBODY, Bonus, Found, Searchable
from palate.schema import BoolArray, FloatArray, IntArray

SPARE = 3
"""Where caps may refuse items, so many times as many are fetched at first."""


class Pick(NamedTuple):
    """One place of a list."""

    id: int
    score: float
    """What the source orders its items by: comparable within one source only."""
    source: str
    """Why it is there: ``taste``, ``pinned``, ``new``, ``context`` or ``popular``."""


@dataclass(frozen=True)
class Cap:
    """At most so many items of a list share a label of this field."""

    column: LabelColumn
    most: int


@dataclass
class Stream:
    """The items of one source for one request, best first, fetched as they are needed."""

    source: Searchable
    state: FloatArray  # [D]
    allowed: BoolArray  # [V]
    excluded: IntArray
    bonus: Bonus | None = None
    fetched: list[tuple[int, float]] = field(default_factory=list)
    at: int = 0
    exhausted: bool = False

    def receive(self, ids: IntArray, scores: FloatArray) -> None:
        """These come next; fewer than were asked for are the last."""
        there = int(np.count_nonzero(ids != NOBODY))
        self.fetched = list(zip(ids[:there].tolist(), scores[:there].tolist(), strict=True))
        self.at, self.exhausted = 0, there < len(ids)


@dataclass
class Walk:
    """A list while it is filled."""

    places: list[tuple[str, ...]]
    """For each place the names of its streams, in order."""
    streams: dict[str, Stream]
    caps: Sequence[Cap] = ()
    pinned: dict[int, Pick] = field(default_factory=dict)
    """By place from 0; as ``pin`` put them."""
    taken: set[int] = field(default_factory=set)
    counts: list[Counter[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [Counter() for _ in self.caps]

    @property
    def wanted(self) -> int:
        """How many items are fetched of a stream at once."""
        return len(self.places) * (SPARE if self.caps else 1)

    def pin(self, place: int, pick: Pick) -> bool:
        """The item has this place, if the place is free, the item is not in the list and caps allow it."""
        if place in self.pinned or self._refuses(pick.id):
            return False
        self.pinned[place] = pick
        self._take(pick.id)
        return True

    def fill(self) -> list[Pick]:
        """The list: shorter where no source has anything left; what is pinned further down then moves up."""
        picks = []
        for place, names in enumerate(self.places):
            pick = self.pinned.get(place) or self._next(names)
            if pick is not None:
                picks.append(pick)
        return picks

    def _next(self, names: Iterable[str]) -> Pick | None:
        for name in names:
            found = self._next_of(self.streams[name])
            if found is not None:
                self._take(found[0])
                return Pick(*found, name)
        return None

    def _next_of(self, stream: Stream) -> tuple[int, float] | None:
        """The best item of the stream that is not refused. What is refused once is refused for good."""
        while True:
            while stream.at < len(stream.fetched):
                found = stream.fetched[stream.at]
                stream.at += 1
                if not self._refuses(found[0]):
                    return found
            if stream.exhausted:
                return None
            self._fetch(stream)

    def _fetch(self, stream: Stream) -> None:
        """The stream's best items without all that would be refused now."""
        allowed = stream.allowed
        for cap, count in zip(self.caps, self.counts, strict=True):
            full = [label for label, number in count.items() if number >= cap.most]
            if full:
                capped = cap.column.mask(full)[: len(allowed)]
                allowed = allowed[: len(capped)] & ~capped
        excluded = np.concatenate([stream.excluded, np.fromiter(self.taken, np.int64, len(self.taken))])
        found = stream.source.search(
            stream.state[None],
            self.wanted,
            allowed=allowed,
            excluded=[excluded],
            bonuses=None if stream.bonus is None else [stream.bonus],
        )
        stream.receive(found.ids[0], found.scores[0])

    def _refuses(self, item: int) -> bool:
        return item in self.taken or any(
            count[label] >= cap.most
            for cap, count in zip(self.caps, self.counts, strict=True)
            for label in cap.column.labels_of(item)
        )

    def _take(self, item: int) -> None:
        self.taken.add(item)
        for cap, count in zip(self.caps, self.counts, strict=True):
            count.update(cap.column.labels_of(item))


def fill(walks: Sequence[Walk]) -> list[list[Pick]]:
    """The lists of all walks. What comes first in any place is searched for together, source by source."""
    together: defaultdict[tuple[int, int], list[tuple[Stream, int]]] = defaultdict(list)
    for walk in walks:
        for name in {names[0]: None for place, names in enumerate(walk.places) if place not in walk.pinned}:
            stream = walk.streams[name]
            together[id(stream.source), id(stream.allowed)].append((stream, walk.wanted))
    for group in together.values():
        streams = [stream for stream, _ in group]
        found = _search(streams, max(wanted for _, wanted in group))
        for row, stream in enumerate(streams):
            stream.receive(found.ids[row], found.scores[row])
    return [walk.fill() for walk in walks]


def _search(streams: Sequence[Stream], k: int) -> Found:
    none = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    return streams[0].source.search(
        np.stack([stream.state for stream in streams]),
        k,
        allowed=streams[0].allowed,
        excluded=[stream.excluded for stream in streams],
        bonuses=[stream.bonus or none for stream in streams] if any(s.bonus for s in streams) else None,
    )
