"""Which past events carried a recommendation.

The share of an event is its Shapley value in the game in which the events of a history may be there or not
and the score of an item is what they win together: what the event adds, averaged over the orders in which the
events may come in (Shapley, 1953). The shares add up to score(history) − score(no history).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palate.explain.shapley import Scores, drawn_sets, estimated_values, every_set, shapley_values
from palate.runtime.items import Vectors
from palate.runtime.model import Answer
from palate.schema import BoolArray, Histories, IntArray

EVALUATIONS = 600
"""Histories that one explanation asks for, about."""
OWN = 0.5
"""How much of an event's share is expected to be its own, beside what it has in common with others."""


@dataclass(frozen=True)
class Scorer:
    """What scores a few items for many histories: a network, or what was exported of it."""

    states: Callable[[Histories], Answer]
    vectors: Vectors
    """float32 [V, D] of every item."""
    window: int
    """Latest events that the state hears of; of earlier ones only that an item was met."""

    def scores(self, histories: Histories, items: IntArray) -> Scores:
        """Of distinct items I for histories B, float64 [B, I]."""
        states, bonuses = self.states(histories)
        found = states.astype(np.float64) @ self.vectors[items].astype(np.float64).T
        order = np.argsort(items)
        place = np.searchsorted(items[order], bonuses.item).clip(max=len(items) - 1)
        asked = items[order][place] == bonuses.item
        rows = np.repeat(np.arange(len(found)), np.diff(bonuses.offsets))
        found[rows[asked], order[place[asked]]] += bonuses.value[asked]
        return found

    def change(self, history: Histories) -> Scores:
        """State with one history less state with none, float64 [D].

        Its product with an item's vector is what the history adds to the item's score, apart from the item's
        having been met.
        """
        nobody, somebody = (self.states(each).states[0] for each in (Histories.of([[]]), history))
        found: Scores = somebody.astype(np.float64) - nobody.astype(np.float64)
        return found


@dataclass(frozen=True)
class EventShares:
    """Why I items have their scores, by the E events of one history."""

    shares: Scores
    """float64 [E, I]; over the events they add up to ``difference``."""
    difference: Scores
    """float64 [I], score with the history less score with none."""
    score: Scores
    """float64 [I], with the history."""


def event_shares(
    scorer: Scorer, history: Histories, items: IntArray, *, evaluations: int = EVALUATIONS
) -> EventShares:
    """The share of each event of one history in the scores of distinct items.

    Exact where all sets of events are at most ``evaluations``; otherwise estimated from random ones, always
    the same for as many events. All items share them.

    Events before the window are not heard by the state; what they change, by having met the item, is theirs
    in equal parts.

    Args:
        scorer: what gives the scores.
        history: one row.
        items: int64 ids, each once.
        evaluations: histories to ask for, about.
    """
    earlier = max(0, len(history.item) - scorer.window)
    heard = history.latest(scorer.window)
    n = len(heard.item)
    exact = 2**n <= evaluations
    drawn = every_set(n) if exact else drawn_sets(n, evaluations // 2)
    ends = np.zeros((2, n), np.bool_)
    ends[1] = True
    scores = scorer.scores(subsets(heard, np.concatenate([ends, drawn])), items)
    none, everybody, rest = scores[0], scores[1], scores[2:]
    shares = np.zeros((len(history.item), len(items)))
    shares[earlier:] = (
        shapley_values(rest)
        if exact
        else estimated_values(rest, drawn, none, everybody, expected(scorer.vectors[heard.item]))
    )
    difference, score = everybody - none, everybody
    if earlier:
        whole = scorer.scores(history, items)[0]
        met = history.item[:earlier, None] == items
        shares[:earlier] = met * ((whole - score) / np.maximum(met.sum(axis=0), 1))
        difference, score = difference + shares[:earlier].sum(axis=0), whole
    return EventShares(shares, difference, score)


def expected(vectors_ED: Vectors) -> Scores:
    """How shares of events with these items are expected to vary together before any is known, [E, E].

    The latest are the largest, falling with the root of the place from the end; neighbours are alike, the
    more so the further back they lie; and more alike if their items are.
    """
    E = len(vectors_ED)
    place = np.arange(E, 0, -1.0)  # from the end, 1 is the latest
    near = np.minimum(place[:, None], place) / np.maximum(place[:, None], place)
    apart = vectors_ED.astype(np.float64) - vectors_ED.mean(axis=0, dtype=np.float64)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
    found: Scores = (OWN * np.eye(E) + near * (1 + apart @ apart.T)) / np.sqrt(np.outer(place, place))
    return found


def subsets(history: Histories, sets: BoolArray) -> Histories:
    """Of one history the events of each set, bool [B, E], as histories B."""
    offsets = np.concatenate([[0], np.cumsum(sets.sum(axis=1))]).astype(np.int64)
    columns = (np.broadcast_to(of, sets.shape)[sets] for of in (history.item, history.event, history.time))
    return Histories(offsets, *columns)
