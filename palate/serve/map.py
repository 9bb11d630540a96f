"""``GET /v1/items/map``: items as points of a plane, as many of a view as a screen can show."""

from __future__ import annotations

import logging
import os
import sys
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from palate.runtime.items import Vectors
from palate.schema import FIRST_ID, UNKNOWN, AnyArray, BoolArray, IntArray
from palate.serve.landscape import AT_A_TIME, Landscape, Points
from palate.serve.live import Live
from palate.serve.overview import Now, label_field, title_field

KEPT = "map.safetensors"
LEAST_KEPT = 1_000
"""The plane of fewer items is laid out as quickly as it is read."""
MOST_POINTS = 20_000
MOST_TITLES = 1_500
LAST = 19
"""The lowest priority there is."""
LABELS = 8
"""Labels that have a colour of their own: those of most items."""


logger = logging.getLogger(__name__)


class PointView(BaseModel):
    item: str
    title: str | None
    """Only where few points are shown."""
    x: float
    y: float
    label: int
    """Place of its label in ``labels``; −1 where it has none."""
    new: bool


class MapView(BaseModel):
    """A part of the plane from (0, 0) to (1, 1)."""

    total: int
    """Points in this part; the same ones of them are shown whenever fewer than these may be."""
    labels: list[str]
    points: list[PointView]


@dataclass(frozen=True)
class Plane:
    """Of one model; nothing in it changes."""

    landscape: Landscape
    places: Points
    """[V, 2] of the model's items, by their ids."""


@dataclass(frozen=True)
class Drawn:
    """The plane at one state of the catalogue."""

    digest: str
    version: int
    plane: Plane
    places: Points  # [V, 2]
    shown: BoolArray  # [V]
    new: BoolArray  # [V]
    label: IntArray  # [V]
    labels: list[str]
    order: IntArray  # [V]: whoever has a lower number is shown earlier


class Maps:
    """The plane of the present model, laid out once and kept, here and beside the run.

    Items that come later, or have changed, are placed in it without moving the others.
    """

    def __init__(self) -> None:
        self._drawn: Drawn | None = None
        self._drawing = threading.Lock()

    def of(self, live: Live) -> Drawn:
        with self._drawing:
            drawn, version = self._drawn, live.catalogue.version
            if drawn is None or drawn.digest != live.digest:
                model = live.model
                plane = plane_of(model.vectors, model.allowed, live.digest, live.run / KEPT)
                drawn = self._draw(live, version, plane)
            elif drawn.version != version:
                drawn = self._draw(live, version, drawn.plane)
            self._drawn = drawn
            return drawn

    def _draw(self, live: Live, version: int, plane: Plane) -> Drawn:
        places = places_of(live, plane)
        V = min(len(places), live.catalogue.size)
        label, labels = _labels(live, V)
        order = np.random.default_rng(0).permutation(V)
        shown, new = live.catalogue.allowed()[:V], live.catalogue.new()[:V]
        return Drawn(live.digest, version, plane, places[:V], shown, new, label, labels, order)


def plane_of(vectors_VD: Vectors, allowed: BoolArray, digest: str, path: Path) -> Plane:
    """The plane of the items of the model that this digest names, from ``path`` where another start or worker
    left it; a large one is left there."""
    try:
        with safe_open(path, "np") as kept:
            if (kept.metadata() or {}).get("model") == digest:
                landmarks, places, items = map(kept.get_tensor, ("landmarks", "places", "items"))
                return Plane(Landscape(landmarks, places), items)
    except (OSError, SafetensorError):
        pass  # not there yet, or half of one
    landscape = Landscape.of(vectors_VD[allowed])
    plane = Plane(landscape, landscape.place(vectors_VD))
    if len(vectors_VD) < LEAST_KEPT:
        return plane
    writing = path.with_name(f".{KEPT}.{uuid.uuid4().hex[:8]}.writing")
    tensors = {"landmarks": landscape.landmarks, "places": landscape.places, "items": plane.places}
    try:
        save_file(tensors, writing, {"model": digest})
        writing.replace(path)
    except (OSError, SafetensorError) as error:  # a folder that is only read
        logger.warning("the map cannot be kept in %s and is laid out at each start: %s", path, error)
    finally:
        with suppress(OSError):
            writing.unlink(missing_ok=True)
    return plane


def places_of(live: Live, plane: Plane) -> Points:
    """[V, 2]: who is as the model had it lies where it lay; new and changed items are placed."""
    size, known = live.index.size, live.model.vectors
    found = np.empty((size, 2), np.float32)
    for start in range(0, size, AT_A_TIME):
        vectors = live.index.vectors_of(np.arange(start, min(start + AT_A_TIME, size)))
        before = known[start : start + AT_A_TIME]
        same = np.zeros(len(vectors), np.bool_)
        same[: len(before)] = (vectors[: len(before)] == before).all(axis=1)
        part = found[start : start + AT_A_TIME]
        part[same] = plane.places[start : start + AT_A_TIME][same[: len(before)]]
        part[~same] = plane.landscape.place(vectors[~same])
    return found


def map_router(now: Now) -> APIRouter:
    """The route of the map, whose plane is laid out meanwhile: nobody is to wait for it."""
    router, maps = APIRouter(prefix="/v1", tags=["page"]), Maps()

    def meanwhile() -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own; who asks for lists goes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LAST)
        maps.of(now())

    threading.Thread(target=meanwhile, name="map", daemon=True).start()

    @router.get("/items/map")
    def items_map(
        left: float = Query(0, ge=-10, le=10, allow_inf_nan=False),
        right: float = Query(1, ge=-10, le=10, allow_inf_nan=False),
        top: float = Query(0, ge=-10, le=10, allow_inf_nan=False),
        bottom: float = Query(1, ge=-10, le=10, allow_inf_nan=False),
        limit: int = Query(6_000, ge=1, le=MOST_POINTS),
        item: str | None = Query(None, max_length=1024),
    ) -> MapView:
        """The points of a rectangle; or of one item, if one is named."""
        live = now()
        drawn = maps.of(live)
        if item is not None:
            number = live.id_of(item)
            found = np.array([number] if number != UNKNOWN and number < len(drawn.places) else [], np.int64)
            return _view(live, drawn, found, len(found))
        low, high = np.array([left, top]), np.array([right, bottom])
        inside = drawn.shown & ((drawn.places >= low) & (drawn.places <= high)).all(axis=1)
        found = np.flatnonzero(inside)
        kept = found[np.argsort(drawn.order[found], kind="stable")[:limit]]
        return _view(live, drawn, kept, len(found))

    return router


def _labels(live: Live, V: int) -> tuple[IntArray, list[str]]:
    """Of each item the place of its first label, most frequent first, and the labels in that order."""
    found, name = np.full(V, -1, np.int64), label_field(live)
    if name is None:
        return found, []
    column = live.catalogue.labels(name)
    for item in range(FIRST_ID, V):
        codes = column.labels_of(item)
        if codes:
            found[item] = codes[0]
    counts = np.bincount(found[found >= 0], minlength=len(column.values))
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    found[found >= 0] = place[found[found >= 0]]
    names = list(column.values)
    return found, [names[code] for code in order if counts[code]]


def _view(live: Live, drawn: Drawn, ids: IntArray, total: int) -> MapView:
    name = title_field(live) if len(ids) <= MOST_TITLES else None
    items = live.items_of(ids) if name else None
    keys = [item["item"] for item in items] if items else live.keys_of(ids)
    titles = [str(item["fields"].get(name) or "") or None for item in items] if items else [None] * len(ids)
    columns: list[AnyArray] = [
        drawn.places[ids].astype(np.float64).round(5),
        drawn.label[ids],
        drawn.new[ids],
    ]
    points = [
        PointView(item=key, title=title, x=place[0], y=place[1], label=label, new=new)
        for key, title, place, label, new in zip(
            keys, titles, *(each.tolist() for each in columns), strict=True
        )
    ]
    return MapView(total=total, labels=drawn.labels[: LABELS + 1], points=points)
