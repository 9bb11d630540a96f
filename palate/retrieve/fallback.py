"""Lists for people without events: what is near to the request's items, what is popular, what is new."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from palate.errors import DataError
from palate.retrieve.best import best, room
from palate.retrieve.index import Bonus, Found, Index, nothing
from palate.retrieve.rules import DAY, Request, Rules, Source
from palate.retrieve.walk import Pick, fill
from palate.schema import FIRST_ID, UNKNOWN_TIME, BoolArray, FloatArray, IntArray

FARTHEST = 256.0
"""Where an event is so many half-lives after the moment that counts refer to, they refer to its moment."""


class Popularity:
    """How many events each item had of late; every event counts half after every half-life.

    An event at time t adds 2^((t − r) / half-life) to its item, where the moment r is the same for all. So
    time that passes leaves the order as it is, events may come in any order, and an event changes one number.
    """

    def __init__(self, half_life_days: float, size: int = FIRST_ID) -> None:
        """No events yet.

        Args:
            size: one more than the highest id there is; it grows by itself.
        """
        self._half_life = half_life_days * DAY
        self._counts = np.zeros(size, np.float64)
        self._moment: int | None = None
        self._latest = 0
        self._changing = threading.Lock()

    def add(self, ids: IntArray, times: IntArray, weights: FloatArray | float = 1.0) -> None:
        """These events are counted; those of an unknown time are not.

        Args:
            times: microseconds since 1970.
            weights: how much each of them counts.

        Raises:
            DataError: an id is negative.
        """
        items, moments = np.asarray(ids, np.int64), np.asarray(times, np.int64)
        amounts = np.broadcast_to(np.asarray(weights, np.float64), items.shape)
        known = moments != UNKNOWN_TIME
        items, moments, amounts = items[known], moments[known], amounts[known]
        if not len(items):
            return
        if items.min() < 0:
            raise DataError(f"Id {items.min()} is negative; wanted ids of items.")
        with self._changing:
            self._refer_to(int(moments.max()))
            self._grow(int(items.max()) + 1)
            assert self._moment is not None
            np.add.at(self._counts, items, amounts * np.exp2((moments - self._moment) / self._half_life))

    def move(self, old: int, new: int) -> None:
        """What was counted for one id counts for another from now on."""
        with self._changing:
            self._grow(max(old, new) + 1)
            self._counts[new] += self._counts[old]
            self._counts[old] = 0.0

    def counts(self) -> FloatArray:
        """float64 [V]: the decayed count of each item at the time of the latest event."""
        with self._changing:
            since = 0 if self._moment is None else self._latest - self._moment
            counts: FloatArray = self._counts * 2.0 ** (-since / self._half_life)
            return counts

    def search(
        self,
        states_BD: FloatArray,
        k: int,
        *,
        allowed: BoolArray | None = None,
        excluded: Sequence[IntArray] | None = None,
        bonuses: Sequence[Bonus] | None = None,
    ) -> Found:
        """The k most popular items with any event, the same for every state; scores are counts in float32."""
        del bonuses  # of one person's taste
        counts = self.counts().astype(np.float32)
        reach = len(counts) if allowed is None else min(len(counts), len(allowed))
        counts[:FIRST_ID] = 0
        if allowed is not None:
            counts[:reach][~allowed[:reach]] = 0
        scores = room(reach, len(states_BD))
        scores[:reach] = np.where(counts[:reach] > 0, counts[:reach], -np.inf)[:, None]
        for row, ids in enumerate(excluded or ()):
            scores[ids[ids < reach], row] = -np.inf
        found = nothing(len(states_BD), k)
        for row, top in enumerate(best(scores, k)):
            found.ids[row, : len(top)], found.scores[row, : len(top)] = top, scores[top, row]
        return found

    def _refer_to(self, latest: int) -> None:
        """Counts refer to a moment from which no event is too far."""
        if self._moment is None:
            self._moment = self._latest = latest
        self._latest = max(self._latest, latest)
        later = (self._latest - self._moment) / self._half_life
        if later > FARTHEST:
            self._counts *= np.exp2(-later)
            self._moment = self._latest

    def _grow(self, size: int) -> None:
        if size > len(self._counts):
            counts = np.zeros(max(size, len(self._counts) * 3 // 2), np.float64)
            counts[: len(self._counts)] = self._counts
            self._counts = counts


class Fallback:
    """An ordered list of sources for people without events, under all rules.

    The first places are for what is near to the items of the request's ``context``, if it has any. Then
    comes what is popular of late, then new items, then all the rest by the state of an empty history. Pins
    and places for new items are as in every list.
    """

    def __init__(self, rules: Rules, popularity: Popularity | None = None) -> None:
        """Lists under these rules.

        Args:
            popularity: what counted events before the rules were there; otherwise nothing is popular yet.
        """
        half_life = rules.settings.fallback.half_life_days
        self.popularity = popularity or Popularity(half_life, rules.catalogue.size)
        """To be told every event."""
        self._rules = rules

    def select(self, index: Index, request: Request) -> list[Pick]:
        """The list: at most k picks, each with its source."""
        rules, share = self._rules, self._rules.settings.fallback.context_share
        sources = {
            "popular": Source(self.popularity, request.state),
            "taste": Source(index, request.state, bonus=request.bonus),
        }
        names, lead = ("popular", "new", "taste"), None
        context = request.context[(request.context >= FIRST_ID) & (request.context < index.size)]
        if len(context):
            vectors = index.vectors_of(context)
            lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            sources["context"] = Source(index, (vectors / lengths).mean(axis=0), context)
            lead = ("context", share)
        return fill([rules.walk(index, request, sources, names, lead)])[0]
