"""Chance, and baselines that count: popularity, recent popularity, and what the person met before."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import numpy as np

from palate.evaluate.evidence import Evidence, FromEvidence, Scores, events_after
from palate.schema import Questions


@dataclass
class Random(FromEvidence):
    """In an order drawn anew for each history, by the seed and the items of the history."""

    seed: int = 0
    name = "random"
    description: str = field(default="", init=False)

    def learn(self, evidence: Evidence) -> Self:
        self.items = evidence.prepared.items.size
        return self

    def score(self, questions: Questions) -> Scores:
        scores = np.empty((len(questions), self.items), np.float32)
        offsets, item = questions.histories.offsets, questions.histories.item
        for row, (start, stop) in enumerate(pairwise(offsets)):
            generator = np.random.default_rng([self.seed, *item[start:stop].tolist()])
            generator.random(dtype=np.float32, out=scores[row])
        return scores


@dataclass
class Popularity(FromEvidence):
    """By the number of training events of the types that are predicted."""

    name = "popularity"
    description: str = field(default="", init=False)

    def learn(self, evidence: Evidence) -> Self:
        self.popularity = evidence.popularity
        return self

    def score(self, questions: Questions) -> Scores:
        return np.tile(self.popularity, (len(questions), 1))


@dataclass
class RecentPopularity(FromEvidence):
    """By the number of training events of target types, each counting half after every half-life.

    The age of an event runs from 0 (latest) to 1 (first): over the time span of training, or, where
    times only order the events of one person, over that person's own history.
    """

    half_life: float = 0.05
    name = "recent_popularity"

    @property
    def description(self) -> str:
        return f"half-life {self.half_life:.0%} of the {'time' if self.has_time else 'history'}"

    def learn(self, evidence: Evidence) -> Self:
        self.has_time = evidence.prepared.schema.has_time
        histories = evidence.training
        if self.has_time:
            clock = np.asarray(histories.time, np.float64)
            age = (clock.max(initial=0) - clock) / max(1.0, np.ptp(clock) if len(clock) else 0.0)
        else:
            age = events_after(histories) / np.repeat(histories.lengths, histories.lengths)
        weights = np.exp2(-age / self.half_life) * evidence.wanted
        counts = np.bincount(histories.item, weights, minlength=evidence.prepared.items.size)
        self.popularity = (counts / max(counts.max(), 1e-30)).astype(np.float32)
        return self

    def score(self, questions: Questions) -> Scores:
        return np.tile(self.popularity, (len(questions), 1))


@dataclass
class BoughtBefore(FromEvidence):
    """What the person met before, by frequency and recency; then everything else by popularity.

    An item of the history scores 1 + Σ 2^(−n / half-life) over its occurrences, where n counts the
    events after it; other items score their popularity in [0, ½]. Means something only where seen items
    may be recommended again.
    """

    half_life: float = 20.0
    name = "bought_before"

    @property
    def description(self) -> str:
        return f"half-life {self.half_life:g} events"

    def learn(self, evidence: Evidence) -> Self:
        self.popularity = (evidence.popularity / 2).astype(np.float32)
        return self

    def score(self, questions: Questions) -> Scores:
        scores = np.tile(self.popularity, (len(questions), 1))
        histories = questions.histories
        rows, items = histories.rows(), histories.item
        scores[rows, items] = 1.0
        weights = np.exp2(-events_after(histories) / self.half_life).astype(np.float32)
        np.add.at(scores, (rows, items), weights)
        return scores
