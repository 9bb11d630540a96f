"""Which past events carried a recommendation.

The share of an event is its Shapley value in the game in which the events of a history may be there or not
and the score of an item is what they win together: what the event adds, averaged over the orders in which the
events may come in (Shapley, 1953). The shares add up to score(history) − score(no history).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from palate.runtime.items import Vectors
from palate.runtime.model import Answer
from palate.schema import BoolArray, Histories, IntArray

Scores = npt.NDArray[np.float64]

EVALUATIONS = 400
"""Histories that one explanation asks for, about."""
SINGLE = 16
"""So many of the latest events come and go one by one …"""
STRETCHES = 8
"""… and those before in so many stretches, whose events share alike: what each of them adds is less than the
noise of the few orderings that there is time for. Measured in docs/reasons.md."""


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

    Exact where all sets of events are at most ``evaluations``; otherwise estimated along random orderings,
    each followed by the same in reverse, always the same ones for as many events. All items share them. Of
    more than ``SINGLE + STRETCHES`` events the earlier ones are taken in stretches (``players``).

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
    player = players(len(heard.item))
    n = int(player.max(initial=-1)) + 1
    exact = 2**n <= evaluations
    sets = every_set(n) if exact else prefixes(orderings(n, evaluations))
    scores = scorer.scores(subsets(heard, sets[:, player]), items)
    won = shapley_values(scores) if exact else along(scores, orderings(n, evaluations))
    shares = np.zeros((len(history.item), len(items)))
    shares[earlier:] = (won / np.bincount(player, minlength=n)[:, None])[player]
    difference, score = scores[-1] - scores[0], scores[-1]
    if earlier:
        whole = scorer.scores(history, items)[0]
        met = history.item[:earlier, None] == items
        shares[:earlier] = met * ((whole - score) / np.maximum(met.sum(axis=0), 1))
        difference, score = difference + shares[:earlier].sum(axis=0), whole
    return EventShares(shares, difference, score)


def players(events: int) -> IntArray:
    """Who comes and goes together, int64 [E]: the latest events alone, those before in even stretches."""
    if events <= SINGLE + STRETCHES:
        return np.arange(events)
    old = events - SINGLE
    return np.concatenate([np.arange(old) * STRETCHES // old, STRETCHES + np.arange(SINGLE)])


def subsets(history: Histories, sets: BoolArray) -> Histories:
    """Of one history the events of each set, bool [B, E], as histories B."""
    offsets = np.concatenate([[0], np.cumsum(sets.sum(axis=1))]).astype(np.int64)
    columns = (np.broadcast_to(of, sets.shape)[sets] for of in (history.item, history.event, history.time))
    return Histories(offsets, *columns)


def every_set(n: int) -> BoolArray:
    """All sets of n events, bool [2^n, n]; the event e is in the sets whose number has the bit e."""
    found: BoolArray = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    return found


def shapley_values(scores: Scores) -> Scores:
    """Exact Shapley values [n, I] of what every set wins, [2^n, I], in the order of ``every_set``."""
    n = len(scores).bit_length() - 1
    sets = every_set(n)
    size = sets.sum(axis=1)
    shares = np.zeros((n, scores.shape[1]))
    for event in range(n):
        without = np.flatnonzero(~sets[:, event])
        weight = np.array([1 / (n * comb(n - 1, s)) for s in size[without].tolist()])
        shares[event] = weight @ (scores[without + (1 << event)] - scores[without])
    return shares


def orderings(n: int, evaluations: int) -> IntArray:
    """Random orderings of n events [M, n] that visit about so many sets; every second is the one before it in
    reverse, which evens out what depends on coming early or late (antithetic pairs)."""
    pairs = max(1, round(evaluations / (2 * max(1, n - 1))))
    generator = np.random.default_rng(n)
    forward = np.stack([generator.permutation(n) for _ in range(pairs)])
    return np.stack([forward, forward[:, ::-1]], axis=1).reshape(2 * pairs, n)


def prefixes(orders_MN: IntArray) -> BoolArray:
    """The sets that the orderings go through: none, then of each the first 1 … n − 1 events, then all."""
    M, n = orders_MN.shape
    rank = np.argsort(orders_MN, axis=1)
    between = (rank[:, None] < np.arange(1, n)[:, None]).reshape(M * (n - 1), n)
    return np.concatenate([np.zeros((1, n), np.bool_), between, np.ones((1, n), np.bool_)])


def along(scores: Scores, orders_MN: IntArray) -> Scores:
    """What each event adds where it comes in, as a mean over the orderings, [n, I]; of the scores of
    ``prefixes``."""
    M, n = orders_MN.shape
    shape = (M, 1, scores.shape[1])
    first, last = np.broadcast_to(scores[0], shape), np.broadcast_to(scores[-1], shape)
    chains = np.concatenate([first, scores[1:-1].reshape(M, n - 1, -1), last], axis=1)
    gains = np.diff(chains, axis=1)
    rank = np.argsort(orders_MN, axis=1)
    found: Scores = np.take_along_axis(gains, rank[:, :, None], axis=1).mean(axis=0)
    return found
