"""``GET /v1/overview``: what answers, what it was trained on, and how well it foretells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from fastapi import APIRouter, Query
from pydantic import BaseModel

from palate.retrieve.approximate import ApproximateIndex
from palate.schema import FIRST_ID, FieldKind
from palate.serve.live import Live
from palate.serve.record import judgements, passes
from palate.version import __version__

MOST_PEOPLE = 100

Now = Callable[[], Live]
"""Gives what answers now; a request asks once, and is answered by one model."""


class FieldView(BaseModel):
    name: str
    kind: str


class IndexView(BaseModel):
    kind: str
    recall: float


class OverviewView(BaseModel):
    """What the overview answers."""

    model: str
    name: str
    version: str
    people: int
    items: int
    new_items: int
    events: int
    event_types: list[str]
    has_time: bool
    fields: list[FieldView]
    title: str | None
    """The field that things are called by."""
    label: str | None
    """The field whose values things are told apart by."""
    filter_seen: bool
    index: IndexView
    results: list[dict[str, Any]]
    training: list[dict[str, Any]]
    metric: str
    data: dict[str, Any]
    """The data report."""
    beside: str | None
    """The name of the second run, where there is one."""


class PersonView(BaseModel):
    user: str
    events: int


class PeopleView(BaseModel):
    """Some people of the data that the model was trained on."""

    total: int
    users: list[PersonView]


def overview_router(now: Now, beside: Now | None) -> APIRouter:
    """The routes of the first screen, and of finding a person."""
    router = APIRouter(prefix="/v1", tags=["page"])

    @router.get("/overview")
    def overview() -> OverviewView:
        """What answers now, and what is known of it."""
        return _overview(now(), None if beside is None else beside().run.name)

    @router.get("/users")
    def users(
        search: str = Query("", max_length=256), limit: int = Query(20, ge=1, le=MOST_PEOPLE)
    ) -> PeopleView:
        """People of the training data whose key holds the text, those with most events first."""
        live = now()
        prepared = live.model.prepared
        keys = prepared.people.series.cast(pl.String)
        rows = np.flatnonzero(keys.str.contains(search, literal=True).to_numpy())
        rows = rows[[not live.people.is_forgotten(key) for key in keys.gather(rows)]]
        counts = prepared.known().lengths[rows + FIRST_ID]
        best = rows[np.argsort(-counts, kind="stable")[:limit]]
        lengths = prepared.known().lengths[best + FIRST_ID]
        found = zip(keys.gather(best).to_list(), lengths.tolist(), strict=True)
        return PeopleView(
            total=len(rows), users=[PersonView(user=user, events=events) for user, events in found]
        )

    return router


def title_field(live: Live) -> str | None:
    """The first text that items have."""
    fields = live.model.prepared.schema.fields
    return next((field.name for field in fields if field.kind == FieldKind.TEXT), None)


def label_field(live: Live) -> str | None:
    """The field of labels with the fewest different ones, but more than one."""
    fields = live.model.prepared.schema.fields
    counts = {
        field.name: len(live.catalogue.labels(field.name).values)
        for field in fields
        if field.kind in (FieldKind.CATEGORY, FieldKind.CATEGORIES)
    }
    return min((name for name, count in counts.items() if count > 1), key=counts.__getitem__, default=None)


def _overview(live: Live, beside: str | None) -> OverviewView:
    prepared, settings = live.model.prepared, live.model.settings
    allowed, new = live.catalogue.allowed(), live.catalogue.new()
    return OverviewView(
        model=live.digest,
        name=prepared.name,
        version=__version__,
        people=len(prepared.people),
        items=int(allowed.sum()),
        new_items=int((allowed & new).sum()),
        events=len(prepared.histories.item),
        event_types=list(prepared.schema.events),
        has_time=prepared.schema.has_time,
        fields=[FieldView(name=field.name, kind=str(field.kind)) for field in prepared.schema.fields],
        title=title_field(live),
        label=label_field(live),
        filter_seen=live.model.filter_seen,
        index=IndexView(kind=_kind(live), recall=live.index.recall),
        results=judgements(live.run),
        training=passes(live.run),
        metric=settings.train.validate_metric,
        data={name: prepared.report.get(name) for name in ("before", "after", "rules", "history_lengths")},
        beside=beside,
    )


def _kind(live: Live) -> str:
    return "approximate" if isinstance(live.index, ApproximateIndex) else "exact"
