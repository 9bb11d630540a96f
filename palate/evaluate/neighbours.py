"""Baselines of likeness: items met by the same people, items of like content, popularity of the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from palate.evaluate.evidence import (
    LARGEST_DENSE,
    CannotFitError,
    Evidence,
    FromEvidence,
    Scores,
    popular_where_silent,
    product,
)
from palate.evaluate.vectors import history_matrix
from palate.schema import Questions

COLD_BLOCK = 4096
"""Items without training events whose neighbours are found at a time."""


@dataclass
class ItemKnn(FromEvidence):
    """By cosine similarity to the items of the history (Deshpande and Karypis, 2004).

    sim(i, j) = people with both / (√(people with i · people with j) + shrinkage), the 200 nearest of
    each item; an item's score is the sum over the ``latest`` items of the history (None: all).
    Items that are nobody's neighbour follow by popularity.
    """

    latest: int | None = None
    shrinkage: float = 10.0
    neighbours: int = 200

    @property
    def name(self) -> str:
        return "item_knn" if self.latest is None else "recent_item_knn"

    @property
    def description(self) -> str:
        return f"{_latest(self.latest)}, shrinkage {self.shrinkage:g}, {self.neighbours} neighbours"

    def learn(self, evidence: Evidence) -> Self:
        together = evidence.together.tocoo()
        people = evidence.together.diagonal()
        similarity = together.data / (np.sqrt(people[together.row] * people[together.col]) + self.shrinkage)
        similarity[together.row == together.col] = 0.0
        table = sp.csr_array((similarity, (together.row, together.col)), shape=together.shape)
        self.similarity = _nearest(table, self.neighbours)
        self.popularity = evidence.popularity
        return self

    def score(self, questions: Questions) -> Scores:
        history = history_matrix(questions.histories, len(self.popularity), self.latest)
        scores = product(history, self.similarity)
        # Real similarities are at least 1 / (people + shrinkage), far above 1e-9.
        return np.where(scores > 0, scores, self.popularity * np.float32(1e-9))


@dataclass
class ContentKnn(FromEvidence):
    """By the likeness of content: cosine of TF-IDF, summed over the ``latest`` items of the history.

    The only personal baseline here that can rank an item nobody has met.
    """

    latest: int | None = None

    @property
    def name(self) -> str:
        return "content_knn" if self.latest is None else "recent_content_knn"

    @property
    def description(self) -> str:
        return f"TF-IDF, {_latest(self.latest)}"

    def learn(self, evidence: Evidence) -> Self:
        if evidence.content is None:
            raise CannotFitError("the items have no content that can be read as words.")
        self.content, self.popularity = evidence.content, evidence.popularity
        dense = self.content.shape[0] <= LARGEST_DENSE
        self.similarity = (self.content @ self.content.T).toarray() if dense else None
        return self

    def score(self, questions: Questions) -> Scores:
        history = history_matrix(questions.histories, len(self.popularity), self.latest)
        if self.similarity is None:
            scores = ((history @ self.content) @ self.content.T).toarray()
        else:
            scores = product(history, self.similarity)
        return popular_where_silent(scores, sp.csr_array(history @ self.content), self.popularity)


@dataclass
class NeighbourPopularity(FromEvidence):
    """By popularity; that of an item without training events is the mean of its nearest neighbours'.

    The neighbours are the ``neighbours`` nearest items with training events by cosine of TF-IDF (more
    where the last are equal), weighted by it; an item that resembles none has popularity 0.
    """

    neighbours: int = 10
    name = "neighbour_popularity"

    @property
    def description(self) -> str:
        return f"TF-IDF, {self.neighbours} neighbours"

    def learn(self, evidence: Evidence) -> Self:
        if evidence.content is None:
            raise CannotFitError("the items have no content that can be read as words.")
        warm, cold = np.flatnonzero(evidence.warm), np.flatnonzero(~evidence.warm)
        content = evidence.content
        self.popularity = evidence.popularity.copy()
        for start in range(0, len(cold), COLD_BLOCK):
            block = cold[start : start + COLD_BLOCK]
            nearest = _nearest(sp.csr_array(content[block] @ content[warm].T), self.neighbours)
            weights = np.asarray(nearest.sum(axis=1)).ravel()
            means = (nearest @ evidence.popularity[warm]) / np.maximum(weights, 1e-12)
            self.popularity[block] = means.astype(np.float32)
        return self

    def score(self, questions: Questions) -> Scores:
        return np.tile(self.popularity, (len(questions), 1))


def _latest(latest: int | None) -> str:
    return "whole history" if latest is None else f"latest {latest} events"


def _nearest(table: sp.csr_array, neighbours: int, block: int = 512) -> sp.csr_array:
    """The table with only the highest ``neighbours`` entries of each row (more where the last are equal)."""
    parts = []
    for start in range(0, table.shape[0], block):
        rows = table[start : start + block].toarray()
        if neighbours < rows.shape[1]:
            last = -np.partition(-rows, neighbours - 1, axis=1)[:, neighbours - 1 : neighbours]
            rows[rows < last] = 0.0
        parts.append(sp.csr_array(rows))
    return sp.csr_array(sp.vstack(parts))
