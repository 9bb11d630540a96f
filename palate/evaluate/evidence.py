"""What the baselines read, worked out once for all of them, and the few operations they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from palate.data.prepared import Prepared
from palate.errors import DataError
from palate.evaluate.vectors import content_matrix, history_matrix
from palate.schema import BoolArray, Histories, IntArray, Questions

Scores = npt.NDArray[np.float32]

LARGEST_DENSE = 20_000
"""Items up to which an item × item table is kept (float32: 1.6 GB)."""
MOST_PAIRS = 4_000_000_000
"""Pairs of items in one history, over all histories, up to which they are counted (a minute or so)."""


class CannotFitError(DataError):
    """A baseline does not suit this data; the message becomes the reason of a ``Skipped`` row."""


@dataclass(frozen=True)
class Evidence:
    """What several baselines read, worked out once: training as tables of people and items."""

    prepared: Prepared

    @cached_property
    def training(self) -> Histories:
        return self.prepared.training()

    @cached_property
    def people_items(self) -> sp.csr_array:
        """Binary float32 [P, V]."""
        return history_matrix(self.training, self.prepared.items.size)

    @cached_property
    def wanted(self) -> BoolArray:
        """Whether each training event is of a type that is predicted."""
        return np.isin(self.training.event, self.prepared.schema.target_codes)

    @cached_property
    def warm(self) -> BoolArray:
        """Whether somebody met the item in training, of any event type; bool [V]."""
        return np.bincount(self.training.item, minlength=self.prepared.items.size) > 0

    @cached_property
    def popularity(self) -> Scores:
        """Training events of target types, as a share of the most popular item's, float32 [V] in [0, 1]."""
        counts = np.bincount(self.training.item, self.wanted, self.prepared.items.size)
        return np.asarray(counts / max(1.0, float(counts.max())), dtype=np.float32)

    @cached_property
    def together(self) -> sp.csr_array:
        """How many people met both items in training, float32 [V, V].

        Raises:
            CannotFitError: the histories are too long and too many for counting pairs.
        """
        pairs = float((np.diff(self.people_items.indptr).astype(np.float64) ** 2).sum())
        if pairs > MOST_PAIRS:
            raise CannotFitError(f"{pairs:.1e} pairs of items to count; the limit is {MOST_PAIRS:.0e}.")
        return sp.csr_array(self.people_items.T @ self.people_items)

    @cached_property
    def content(self) -> sp.csr_array | None:
        return content_matrix(self.prepared)


class FromEvidence(ABC):
    """A ranker that learns from evidence it may share with others; ``fit`` is ``learn`` from its own."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What was chosen for it, in words."""

    @abstractmethod
    def learn(self, evidence: Evidence) -> Self:
        """The ranker, fitted.

        Raises:
            CannotFitError: it does not suit this data.
        """

    @abstractmethod
    def score(self, questions: Questions) -> Scores:
        """As ``Ranker.score``."""

    def fit(self, prepared: Prepared) -> Self:
        return self.learn(Evidence(prepared))


def events_after(histories: Histories) -> IntArray:
    """How many events of the same history follow each event, int64 [E]."""
    return np.repeat(histories.offsets[1:], histories.lengths) - np.arange(len(histories.item)) - 1


def product(history: sp.csr_array, table: Any) -> Scores:
    """history @ table, dense; by whichever way is faster.

    Dense matrix products run some fifty times as many operations a second as sparse ones.
    """
    if not sp.issparse(table) and history.nnz > 0.02 * history.shape[0] * history.shape[1]:
        return np.asarray(history.toarray() @ table, dtype=np.float32)
    product = history @ table
    return np.asarray(product.toarray() if sp.issparse(product) else product, dtype=np.float32)


def popular_where_silent(scores: Scores, history: sp.csr_array, popularity: Scores) -> Scores:
    scores[np.diff(history.indptr) == 0] = popularity
    return scores
