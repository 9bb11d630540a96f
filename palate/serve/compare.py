"""``/v1/compare/…``: two runs beside each other, for one person and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel

from palate.runtime.model import ServingModel
from palate.schema import UNKNOWN, BoolArray, Histories, IntArray
from palate.serve.live import Live
from palate.serve.overview import Now
from palate.serve.record import judgements
from palate.serve.standing import Sample
from palate.serve.wire import PathKey

MOST_K = 100
K = 10
UNKNOWN_EVENT = -1


class RunView(BaseModel):
    name: str
    model: str
    items: list[dict[str, Any]]


class ComparedView(BaseModel):
    """What two runs recommend to one person."""

    runs: list[RunView]
    shared: int
    """Items that both lists hold."""


class RunSummary(BaseModel):
    """One of two runs, over many people."""

    name: str
    model: str
    events: int
    items: int
    distinct: int
    """Different items in the first places of all these people."""
    new_share: float
    """Share of these places that hold items without training events."""
    results: list[dict[str, Any]]


class SummaryView(BaseModel):
    """Two runs, over the same sampled people."""

    asked: int
    k: int
    overlap: float
    """Mean share of the first k that both lists hold."""
    runs: list[RunSummary]


def compare_router(now: Now, beside: Now | None) -> APIRouter:
    """The routes of the second run, which are there without one too, and say so."""
    router = APIRouter(prefix="/v1/compare", tags=["page"])

    def both() -> list[Live]:
        if beside is None:
            raise HTTPException(404, "There is no second run. Start the server with --beside OTHER.")
        return [now(), beside()]

    @router.get("/users/{user}")
    def person(user: PathKey, k: int = Query(K, ge=1, le=MOST_K)) -> ComparedView:
        """What each of the two runs recommends to this person, by the same events and rules."""
        runs = [
            RunView(name=run.run.name, model=run.digest, items=run.recommended(user, k)) for run in both()
        ]
        first, second = ({item["item"] for item in run.items} for run in runs)
        return ComparedView(runs=runs, shared=len(first & second))

    @router.get("/summary")
    def summary() -> SummaryView:
        """How alike the first places are by taste alone, without rules, for people of the first."""
        runs = both()
        sample = Sample.of(runs[0].model)
        lists = [_lists(run, runs[0].model, sample) for run in runs]
        keys = [[set(run.keys_of(ids)) for ids in of] for run, of in zip(runs, lists, strict=True)]
        overlap = [len(one & other) / K for one, other in zip(*keys, strict=True)]
        return SummaryView(
            asked=len(sample.keys),
            k=K,
            overlap=float(np.mean(overlap)) if overlap else 0.0,
            runs=[_summary(run, of) for run, of in zip(runs, lists, strict=True)],
        )

    return router


def _lists(run: Live, source: ServingModel, sample: Sample) -> list[IntArray]:
    """The first items of each person of the sample, by the run's own model."""
    histories, model = _translated(sample.histories, source, run.model), run.model
    states, bonuses = model.states(histories)
    rows = range(len(histories))
    met = [histories.item[slice(*histories.offsets[row : row + 2])] for row in rows]
    found = run.index.search(
        states,
        K,
        allowed=run.catalogue.allowed(),
        excluded=met if model.filter_seen else None,
        bonuses=[bonuses.of(row) for row in rows],
    )
    return [ids[ids >= 0].astype(np.int64) for ids in found.ids]


def _translated(histories: Histories, source: ServingModel, target: ServingModel) -> Histories:
    """The same events in the ids and codes of another run; events that it does not know are left out."""
    if source is target:
        return histories
    item = target.prepared.items.ids(source.prepared.items.keys(histories.item))
    codes = {name: code for code, name in enumerate(target.prepared.schema.events)}
    event = np.array([codes.get(name, UNKNOWN_EVENT) for name in source.prepared.schema.events])[
        histories.event
    ]
    known: BoolArray = (item != UNKNOWN) & (event != UNKNOWN_EVENT)
    renamed = Histories(histories.offsets, item, np.maximum(event, 0), histories.time)
    return renamed.keep(known)


def _summary(run: Live, lists: list[IntArray]) -> RunSummary:
    shown, new = np.concatenate([*lists, np.zeros(0, np.int64)]), run.catalogue.new()
    return RunSummary(
        name=run.run.name,
        model=run.digest,
        events=len(run.model.prepared.histories.item),
        items=int(run.catalogue.allowed().sum()),
        distinct=len(np.unique(shown)),
        new_share=float(new[shown].mean()) if len(shown) else 0.0,
        results=judgements(run.run),
    )
