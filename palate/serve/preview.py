"""Where an item stands: one that is there, and one that is only described.

``GET /v1/items/{item}/people`` and ``POST /v1/items/preview``. Nothing is stored.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import polars as pl
from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from palate.errors import DataError
from palate.retrieve.index import Vectors
from palate.runtime.items import Described
from palate.runtime.model import ServingModel
from palate.schema import UNKNOWN, IntArray
from palate.serve.present import Now, Present
from palate.serve.standing import Sample, parts, standing

SHOWN = 12
DRAFT = "\\N{BULLET} draft"
"""The key under which an item that is not there is described."""


class FitView(BaseModel):
    user: str
    rank: int
    score: float


class PartView(BaseModel):
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
    """Shares of its fields of its score, over these people together."""


class NearView(BaseModel):
    item: str
    fields: dict[str, Any]
    new: bool
    shown: bool
    media: list[str] = []
    score: float


class PreviewView(StandingView):
    """Where an item would stand."""

    recommendable: bool
    """Whether anything that is described says anything to the model."""
    neighbours: list[NearView]


class Samples:
    """The sample of each model, drawn when it is first asked for; the two latest are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Sample] = {}
        self._drawing = threading.Lock()

    def of(self, present: Present) -> Sample:
        with self._drawing:
            if present.digest not in self._kept:
                self._kept = dict([*self._kept.items()][-1:]) | {present.digest: Sample.of(present.model)}
            return self._kept[present.digest]


def preview_router(now: Now) -> APIRouter:
    """The routes that say whom an item suits."""
    router, samples = APIRouter(prefix="/v1", tags=["page"]), Samples()

    @router.get("/items/{item}/people")
    def people(item: str, limit: int = Query(SHOWN, ge=1, le=100)) -> StandingView:
        """Where this item stands for sampled people, and for whom it stands highest."""
        present = now()
        number = present.id_of(item)
        if number == UNKNOWN:
            raise HTTPException(404, "There is no such item.")
        vector = present.index.vectors_of(np.array([number]))[0]
        described = None
        if number < present.model.prepared.items.size:
            described = present.model.items.described(pl.DataFrame({"item": [item]}), {})
        return StandingView(**_standing(present, samples.of(present), vector, number, described, limit))

    @router.post(
        "/items/preview",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"type": "object", "properties": {"fields": {"type": "object"}}}
                    },
                    "multipart/form-data": {
                        "schema": {"type": "object", "properties": {"fields": {"type": "string"}}}
                    },
                },
            }
        },
    )
    async def preview(request: Request) -> PreviewView:
        """Where an item with these fields and files would stand, and what it would stand near to."""
        fields, uploads = await draft_of(request)
        return await run_in_threadpool(_preview, now(), samples, fields, uploads)

    return router


async def draft_of(request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The fields and the files of a request, as JSON or as a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=8, max_fields=8) as form:
                part = form.get("fields", "{}")
                text = await part.read() if isinstance(part, UploadFile) else part
                uploads = {
                    name: await file.read()
                    for name, file in form.items()
                    if name != "fields" and isinstance(file, UploadFile)
                }
                fields = json.loads(text)
        elif kind == "application/json":
            body = await request.json()
            fields, uploads = body.get("fields") if isinstance(body, dict) else None, {}
        else:
            raise HTTPException(415, "Send JSON, or a form with the part 'fields' and files.")
    except ValueError:
        raise HTTPException(400, "The fields are no JSON.") from None
    if not isinstance(fields, dict):
        raise HTTPException(422, "'fields' has to be an object: from names of fields to values.")
    return fields, uploads


def table_of(model: ServingModel, fields: dict[str, Any], uploads: dict[str, bytes]) -> pl.DataFrame:
    """The draft as a table of one item.

    Raises:
        DataError: a value that is not of its field's kind.
    """
    schema = model.prepared.catalogue.schema
    columns: dict[str, pl.Series] = {"item": pl.Series([DRAFT])}
    if "item" in fields:
        raise DataError("'item' is the key, and no field: an item that is not there yet has none.")
    for name, value in fields.items():
        try:
            columns[name] = pl.Series(name, [value], schema.get(name), strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            raise DataError(f"'{name}' is {value!r}; wanted {schema.get(name)}.") from None
    for name in uploads:
        columns[name] = pl.Series(name, [None], schema.get(name))
    return pl.DataFrame(columns)


def _preview(
    present: Present, samples: Samples, fields: dict[str, Any], uploads: dict[str, bytes]
) -> PreviewView:
    model = present.model
    media = model.media_of({name: [[content]] for name, content in uploads.items()})
    described = model.items.described(table_of(model, fields, uploads), media)
    vector = model.items.vectors(described)[0]
    found = _standing(present, samples.of(present), vector, UNKNOWN, described, SHOWN)
    near = present.index.search(_direction(vector)[None], SHOWN, allowed=present.catalogue.allowed())
    ids = near.ids[0][near.ids[0] >= 0].astype(np.int64)
    neighbours = [
        item | {"score": score}
        for item, score in zip(present.items_of(ids), _cosines(present, ids, vector), strict=True)
    ]
    told = any(bool(each.any()) for each in described.present)
    return PreviewView(**found, recommendable=told, neighbours=[NearView(**each) for each in neighbours])


def _standing(
    present: Present, sample: Sample, vector: Vectors, item: int, described: Described | None, limit: int
) -> dict[str, Any]:
    model, allowed = present.model, present.catalogue.allowed()
    table = present.index.vectors_of(np.arange(present.index.size))
    found = standing(sample, table, allowed, vector, item=item, filter_seen=model.filter_seen)
    order = np.lexsort((-found.score, found.rank))[:limit]
    carried = {}
    if described is not None and len(order):
        carried = parts(model.items, described, sample.answer.states[order].mean(axis=0))
    whole = sum(abs(value) for value in carried.values()) or 1.0
    return {
        "asked": len(found.rank),
        "among": int(allowed.sum()),
        "median_rank": float(np.median(found.rank)) if len(found.rank) else 0.0,
        "in_top_10": float(np.mean(found.rank <= 10)) if len(found.rank) else 0.0,
        "in_top_100": float(np.mean(found.rank <= 100)) if len(found.rank) else 0.0,
        "people": [
            {"user": sample.keys[row], "rank": int(found.rank[row]), "score": float(found.score[row])}
            for row in order
        ],
        "parts": [
            {"field": name, "share": value / whole}
            for name, value in sorted(carried.items(), key=lambda part: -abs(part[1]))
        ],
    }


def _direction(vector: Vectors) -> Vectors:
    found: Vectors = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
    return found


def _cosines(present: Present, ids: IntArray, vector: Vectors) -> list[float]:
    vectors = present.index.vectors_of(ids)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    found: list[float] = ((vectors @ _direction(vector)) / lengths).tolist()
    return found
