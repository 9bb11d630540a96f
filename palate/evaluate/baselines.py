"""The rankers that every model has to beat, each with settings chosen on validation data.

A person is nothing but a history, for these as for the model: whatever was learned of items in training
is applied to the history in the question. Where a history says nothing to a ranker (it is empty, or
holds only items without training events) the order is that of popularity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from palate.data.prepared import Prepared
from palate.evaluate.evidence import CannotFitError, Evidence, FromEvidence
from palate.evaluate.linear import Als, Ease
from palate.evaluate.neighbours import ContentKnn, ItemKnn, NeighbourPopularity
from palate.evaluate.newcomers import by_events_seen, newcomers
from palate.evaluate.popular import BoughtBefore, Popularity, Random, RecentPopularity
from palate.evaluate.protocol import Evaluation, Skipped, evaluate, mean_metric
from palate.evaluate.vectors import item_vectors
from palate.schema import Among, Part, Questions
from palate.settings import EvaluateSettings

LARGEST_GRID = 8_000
"""Items up to which EASE tries more than one λ: each inversion takes (items / 8,000)³ · 15 s or so."""
CHOOSING_PEOPLE = 2_000
CHOOSING_METRIC = "ndcg@10"


def candidates(name: str, items: int, seed: int) -> Sequence[FromEvidence]:
    """The settings of a baseline that are tried on validation data; the first where there is none."""
    grid: dict[str, Callable[[], Sequence[FromEvidence]]] = {
        "random": lambda: [Random(seed)],
        "popularity": lambda: [Popularity()],
        "recent_popularity": lambda: [RecentPopularity(share) for share in (0.05, 0.01, 0.2)],
        "bought_before": lambda: [BoughtBefore(events) for events in (20.0, 2.0, 200.0)],
        "item_knn": lambda: [ItemKnn()],
        "recent_item_knn": lambda: [ItemKnn(latest) for latest in (5, 2, 1)],
        "ease": lambda: [
            Ease(strength) for strength in ((200.0, 50.0, 800.0) if items <= LARGEST_GRID else (200.0,))
        ],
        "als": lambda: [
            Als(f, confidence=alpha, seed=seed) for f, alpha in ((64, 2.0), (64, 20.0), (128, 2.0))
        ],
        "content_knn": lambda: [ContentKnn()],
        "recent_content_knn": lambda: [ContentKnn(latest) for latest in (5, 2, 1)],
        "neighbour_popularity": lambda: [NeighbourPopularity(neighbours) for neighbours in (10, 3, 30)],
    }
    return grid[name]()


def rows_beside(prepared: Prepared, settings: EvaluateSettings, among: Among) -> tuple[str, ...]:
    """Names of the rows that are judged: where only cold items are ranked, those that can tell them apart."""
    if among == Among.COLD:
        return settings.cold_baselines
    usual = (*settings.baselines, *settings.references)
    return tuple(dict.fromkeys((*usual, *(settings.cold_baselines if prepared.has_cold_split else ()))))


def fit_baselines(
    prepared: Prepared,
    settings: EvaluateSettings,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    part: Part = Part.TEST,
    among: Among = Among.ALL,
) -> list[Evaluation | Skipped]:
    """Every row of ``rows_beside``, chosen on validation, judged on ``part``.

    Of each baseline's ``candidates`` the one with the best ndcg@10 over at most 2,000 validation questions
    is judged. What does not suit the data becomes a ``Skipped`` row with the reason. ``progress`` is
    called with the name of each baseline as it begins. ``fit_seconds`` includes the choosing.

    Raises:
        DataError: the part has no questions.
    """
    ask = {"filter_seen": settings.filter_seen, "cold_targets": settings.cold_targets}
    questions = prepared.questions(part, **ask, among=among)
    validation = prepared.questions(Part.VALIDATION, **ask, among=among).spread(CHOOSING_PEOPLE)
    few = newcomers(questions) if among == Among.ALL else None
    evidence = Evidence(prepared)
    vectors = evidence.content if evidence.content is not None else item_vectors(prepared)
    rows: list[Evaluation | Skipped] = []
    for name in rows_beside(prepared, settings, among):
        if progress is not None:
            progress(name)
        started = time.perf_counter()
        try:
            tried = candidates(name, len(prepared.items), seed)
            chosen = _choose(tried, evidence, validation, settings, among)
        except CannotFitError as error:
            rows.append(Skipped(name, str(error)))
            continue
        row = evaluate(
            chosen,
            prepared,
            questions,
            settings=settings,
            among=among,
            seed=seed,
            fit_seconds=time.perf_counter() - started,
            description=chosen.description,
            item_vectors=vectors,
        )
        rows.append(replace(row, events_seen=by_events_seen(chosen, prepared, few, settings, seed)))
    return rows


def _choose(
    tried: Sequence[FromEvidence],
    evidence: Evidence,
    validation: Questions,
    settings: EvaluateSettings,
    among: Among,
) -> FromEvidence:
    if len(tried) == 1 or not len(validation):
        return tried[0].learn(evidence)
    best, best_value = tried[0], -np.inf
    for baseline in tried:
        value = mean_metric(
            baseline.learn(evidence), evidence.prepared, validation, CHOOSING_METRIC, settings, among
        )
        if value > best_value:
            best, best_value = baseline, value
    return best
