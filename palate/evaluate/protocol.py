"""One way to judge every ranker: the whole catalogue, seen items filtered, ties counted half.

A ``Ranker`` scores every item of the catalogue for a history. ``evaluate`` does the rest, the same for the
model, the baselines and anything a caller brings along::

    Questions ──score──▶ [chunk, V] ──mask──▶ ranks of the targets, top lists ──▶ Evaluation

Memory is bounded: a few hundred histories are scored at a time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, Self, TypeGuard

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from palate.data.prepared import Prepared
from palate.errors import DataError
from palate.evaluate import metrics, vectors
from palate.evaluate.segments import Segment, segments, summary
from palate.evaluate.ties import tied_ranks, top_k
from palate.schema import Among, BoolArray, FloatArray, IntArray, Questions
from palate.settings import EvaluateSettings

CHUNK_FLOATS = 4_000_000
"""Scores held at once: 16 MB, and some three times that while ranks and lists are found."""


class Ranker(Protocol):
    """Anything that orders the catalogue for a history."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def fit(self, prepared: Prepared) -> Self:
        """The ranker, fitted on ``prepared.training()`` and the catalogue's content, and on nothing else."""
        ...

    def score(self, questions: Questions) -> npt.NDArray[np.float32]:
        """A new array [Q, items.size], column = item id, higher = better, −inf = never.

        A function of each question's history alone: not of the person's id, the targets, or the other
        questions. The caller may overwrite the array.
        """
        ...


class ProbabilisticRanker(Ranker, Protocol):
    """A ranker whose scores are logits: their softmax over the catalogue is its probability."""

    scores_are_logits: bool


@dataclass(frozen=True)
class Ranking:
    """What one pass over the questions leaves behind."""

    ranks: FloatArray  # float64 [T], rank of each target, questions end to end
    offsets: IntArray  # int64 [Q + 1]
    top: npt.NDArray[np.int32]  # int32 [Q, K], best first, 0 where fewer may be recommended
    loss: FloatArray | None  # float64 [Q], −log probability of the next item
    seconds: float


@dataclass(frozen=True)
class Skipped:
    """A ranker that could not be judged, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class EventsSeen:
    """How a ranker did for people of whom only the last ``events`` events before the question are known."""

    events: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """How a ranker did."""

    name: str
    description: str
    """What was chosen, for example ``shrinkage 10``; may be empty."""
    questions: int
    catalogue: int
    """Items that could be recommended."""
    filter_seen: bool
    means: dict[str, float]
    """Mean over questions of every metric of ranks, by written name; ``loss`` only for probabilities."""
    intervals: dict[str, tuple[float, float]]
    """Bootstrap interval of each mean."""
    lists: dict[str, float]
    """Coverage, novelty, diversity and Gini coefficient of the lists."""
    segments: tuple[Segment, ...]
    fit_seconds: float
    score_seconds: float
    per_question: dict[str, FloatArray] = field(repr=False)
    """Every metric's value for each question, float64 [Q]: what paired tests compare."""
    ranking: Ranking = field(repr=False)
    events_seen: tuple[EventsSeen, ...] = ()
    """``newcomers.METRIC`` by how much is known of the same people; empty where it was not asked."""

    @property
    def top(self) -> npt.NDArray[np.int32]:
        """Item ids recommended to each person, int32 [Q, K]."""
        return self.ranking.top

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as plain numbers, lists and mappings."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del kept["per_question"], kept["ranking"]
        kept["events_seen"] = [asdict(point) for point in self.events_seen]
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        segments = [
            {**asdict(segment), "intervals": {k: list(v) for k, v in segment.intervals.items()}}
            for segment in self.segments
        ]
        return {**kept, "intervals": intervals, "segments": segments}


def evaluate(
    ranker: Ranker,
    prepared: Prepared,
    questions: Questions,
    *,
    settings: EvaluateSettings,
    among: Among = Among.ALL,
    seed: int = 0,
    fit_seconds: float = 0.0,
    description: str = "",
    item_vectors: sp.csr_array | None = None,
) -> Evaluation:
    """The judgement of a fitted ranker on these questions, which were asked with the same ``among``.

    ``item_vectors`` are what diversity is measured with (by default ``vectors.item_vectors(prepared)``;
    pass them when judging several rankers).

    Raises:
        DataError: there are no questions, a target cannot be recommended under these settings, or a
            score is not a number.
    """
    candidates = prepared.candidates(cold_targets=settings.cold_targets, among=among)
    cutoffs = sorted(set(settings.cutoffs))
    ranking = rank(ranker, questions, candidates, filter_seen=settings.filter_seen, k=cutoffs[-1])
    values = metrics.per_question(ranking.ranks, ranking.offsets, cutoffs)
    if ranking.loss is not None:
        values["loss"] = ranking.loss
    popularity = vectors.training_popularity(prepared)
    means, intervals = summary(values, settings, seed)
    return Evaluation(
        name=ranker.name,
        description=description,
        questions=len(questions),
        catalogue=int(np.count_nonzero(candidates)),
        filter_seen=settings.filter_seen,
        means=means,
        intervals=intervals,
        lists=metrics.of_lists(
            ranking.top,
            candidates,
            popularity,
            vectors.item_vectors(prepared) if item_vectors is None else item_vectors,
            cutoffs,
        ),
        segments=segments(values, questions, popularity, prepared.schema.events, settings, seed),
        fit_seconds=fit_seconds,
        score_seconds=ranking.seconds,
        per_question=values,
        ranking=ranking,
    )


def mean_metric(
    ranker: Ranker,
    prepared: Prepared,
    questions: Questions,
    metric: str,
    settings: EvaluateSettings,
    among: Among = Among.ALL,
) -> float:
    """One metric's mean and nothing else, for choosing while training.

    Raises:
        SettingsError: the metric is unknown, or one of lists.
        DataError: as ``evaluate``; or ``loss`` is asked of a ranker without probabilities.
    """
    wanted = metrics.Metric.parse(metric)
    candidates = prepared.candidates(cold_targets=settings.cold_targets, among=among)
    ranking = rank(ranker, questions, candidates, filter_seen=settings.filter_seen, k=0)  # no lists
    return float(metrics.of_ranks(wanted, ranking.ranks, ranking.offsets, ranking.loss).mean())


def rank(
    ranker: Ranker, questions: Questions, candidates: BoolArray, *, filter_seen: bool, k: int
) -> Ranking:
    """The ranks of all targets and the first k of every list, over the candidate catalogue.

    Raises:
        DataError: as ``evaluate``.
    """
    if not len(questions):
        raise DataError("There is nothing to evaluate: no person has a held-out item under these settings.")
    if not candidates[questions.target_items].all():
        raise DataError(
            "A target lies outside the catalogue; ask for questions with the same `cold_targets` and `among`."
        )
    ranks, tops, losses, seconds = [], [], [], 0.0
    for chunk in questions.chunks(max(1, CHUNK_FLOATS // len(candidates))):
        started = time.perf_counter()
        scores = ranker.score(chunk)
        seconds += time.perf_counter() - started
        if np.isnan(scores).any():
            raise DataError(f"{ranker.name} gave scores that are not numbers; it cannot be ranked.")
        rows = np.repeat(np.arange(len(chunk)), np.diff(chunk.target_offsets))
        targets = scores[rows, chunk.target_items]
        if gives_probabilities(ranker):
            losses.append(_next_item_loss(scores, candidates, targets[chunk.target_offsets[:-1]]))
        allowed = _mask(scores, chunk, candidates, filter_seen)
        if not np.array_equal(scores[rows, chunk.target_items], targets):
            raise DataError("A target was already seen; ask for questions with the same `filter_seen`.")
        ranks.append(tied_ranks(scores, chunk.target_offsets, targets, allowed))
        tops.append(top_k(scores, k))
    return Ranking(
        np.concatenate(ranks),
        np.asarray(questions.target_offsets),
        np.concatenate(tops),
        np.concatenate(losses) if losses else None,
        seconds,
    )


def gives_probabilities(ranker: Ranker) -> TypeGuard[ProbabilisticRanker]:
    """Whether the softmax of the ranker's scores is its probability."""
    return bool(getattr(ranker, "scores_are_logits", False))


def _mask(scores: FloatArray, chunk: Questions, candidates: BoolArray, filter_seen: bool) -> IntArray:
    """Everything that may not be recommended is −inf in place; the number of the others, [Q]."""
    scores[:, ~candidates] = -np.inf
    allowed = np.full(len(chunk), np.count_nonzero(candidates))
    if filter_seen:
        seen = vectors.history_matrix(chunk.histories, len(candidates))
        rows = np.repeat(np.arange(len(chunk)), np.diff(seen.indptr))
        scores[rows, seen.indices] = -np.inf
        allowed -= np.bincount(rows, weights=candidates[seen.indices], minlength=len(chunk)).astype(np.int64)
    return allowed


def _next_item_loss(scores: FloatArray, candidates: BoolArray, targets: FloatArray) -> FloatArray:
    """Cross-entropy in nats over the candidates, seen items included: −(s_target − log Σ exp s)."""
    logits = scores[:, candidates]
    highest = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - highest).sum(axis=1, dtype=np.float64)
    return np.asarray(np.log(total) + highest[:, 0] - targets, dtype=np.float64)
