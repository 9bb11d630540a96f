"""Where an item stands: one that is there, and one that is only described.

``GET /v1/items/{item}/people`` and ``POST /v1/items/preview``. Nothing is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from palate.explain.fields import Part
from palate.retrieve.index import Vectors
from palate.schema import UNKNOWN
from palate.serve.items import number_of
from palate.serve.live import Live
from palate.serve.overview import Now
from palate.serve.similar import nearest_items
from palate.serve.standing import Sample, parts, standing
from palate.serve.uploads import DESCRIBED_BY, Sent, sent
from palate.serve.wire import NearItemOut, PathKey
from palate.store.records import ItemChange, ItemState

SHOWN = 12
DRAFT = "\ue000"
"""The key under which an item that is not there is described: a character that is nobody's."""


class FitView(BaseModel):
    """A person, and where an item stands for them."""

    user: str
    rank: int
    score: float


class PartView(BaseModel):
    """A field, or ``id``, and what it carries."""

    field: str
    share: float


class StandingView(BaseModel):
    """Where an item stands for sampled people."""

    asked: int
    among: int
    median_rank: float
    in_top_10: float
    in_top_100: float
    people: list[FitView]
    """Those for whom it stands highest."""
    parts: list[PartView]
    """Shares of its score with these people together."""


class PreviewView(StandingView):
    """Where an item would stand."""

    recommendable: bool
    """Whether anything that is described says anything to the model."""
    neighbours: list[NearItemOut]


class Samples:
    """The sample of the present model, drawn when it is first asked for."""

    def __init__(self) -> None:
        self._of: tuple[Live, Sample] | None = None
        self._drawing = threading.Lock()

    def of(self, live: Live) -> Sample:
        """People of this model's data."""
        with self._drawing:
            if self._of is None or self._of[0] is not live:
                self._of = live, Sample.of(live.model)
            return self._of[1]


def preview_router(now: Now) -> APIRouter:
    """The routes that say whom an item suits."""
    router, samples = APIRouter(prefix="/v1/items", tags=["page"]), Samples()

    @router.get("/{item}/people")
    def people(item: PathKey, limit: int = Query(SHOWN, ge=1, le=100)) -> StandingView:
        """Where this item stands for sampled people, and for whom it stands highest."""
        live = now()
        number = number_of(live, item)
        ids = np.array([number])
        vector, own = live.index.vectors_of(ids)[0], live.parts()(ids)
        return StandingView(**_standing(live, samples.of(live), vector, number, own, limit))

    @router.post("/preview", openapi_extra=DESCRIBED_BY)
    async def preview(request: Request) -> PreviewView:
        """Where an item with these fields and files would stand, and what it would stand near to."""
        return await run_in_threadpool(_preview, now, samples, await sent(request))

    return router


def _preview(now: Now, samples: Samples, said: Sent) -> PreviewView:
    live = now()
    live.reader.check(said.fields, said.files)
    goods = live.reader.read([ItemChange(DRAFT, ItemState.SHOWN, True, said.fields, said.files)])
    vector = goods.vectors[0]
    found = _standing(live, samples.of(live), vector, UNKNOWN, goods.parts, SHOWN)
    ids, cosines = nearest_items(live, vector, SHOWN)
    near = zip(live.items_of(ids), cosines.tolist(), strict=True)
    neighbours = [NearItemOut(**each, score=score) for each, score in near]
    return PreviewView(**found, recommendable=bool(goods.told[0]), neighbours=neighbours)


def _standing(
    live: Live, sample: Sample, vector: Vectors, item: int, own: Sequence[Part], limit: int
) -> dict[str, Any]:
    allowed = live.catalogue.allowed()
    remembered = np.array([not live.people.is_forgotten(key) for key in sample.keys], np.bool_)
    with live.index.guard.reading():
        table = live.index.contents()[1]
        found = standing(sample, table, allowed, vector, item=item, filter_seen=live.model.filter_seen)
    rank, score = found.rank[remembered], found.score[remembered]
    keys = [key for key, kept in zip(sample.keys, remembered, strict=True) if kept]
    order = np.lexsort((-score, rank))[:limit]
    states = sample.answer.states[remembered][order]
    carried = parts(own, states.mean(axis=0)) if len(order) else {}
    whole = sum(abs(value) for value in carried.values())
    return {
        "asked": len(rank),
        "among": int(allowed.sum()),
        "median_rank": float(np.median(rank)) if len(rank) else 0.0,
        "in_top_10": float(np.mean(rank <= 10)) if len(rank) else 0.0,
        "in_top_100": float(np.mean(rank <= 100)) if len(rank) else 0.0,
        "people": [FitView(user=keys[row], rank=int(rank[row]), score=float(score[row])) for row in order],
        "parts": [
            PartView(field=name, share=value / whole)
            for name, value in sorted(carried.items(), key=lambda part: -abs(part[1]))
        ],
    }
