"""``GET /v1/items/map``: items as points of a plane, as many of a view as a screen can show."""

from __future__ import annotations

import logging
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
from palate.serve.landscape import Landscape, Points
from palate.serve.live import Live
from palate.serve.overview import Now, label_field, title_field

KEPT = "map.safetensors"
LEAST_KEPT = 1_000
"""The plane of fewer items is laid out as quickly as it is read."""
MOST_POINTS = 20_000
MOST_TITLES = 1_500
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
class Drawn:
    """The plane at one state of the catalogue."""

    digest: str
    version: int
    plane: Landscape
    places: Points  # [V, 2]
    shown: BoolArray  # [V]
    new: BoolArray  # [V]
    label: IntArray  # [V]
    labels: list[str]
    order: IntArray  # [V]: whoever has a lower number is shown earlier


class Maps:
    """The plane of the present model, laid out once and kept, here and beside the run.

    Items that come later are placed in it, without moving the others.
    """

    def __init__(self) -> None:
        self._drawn: Drawn | None = None
        self._drawing = threading.Lock()

    def of(self, live: Live) -> Drawn:
        with self._drawing:
            drawn, version = self._drawn, live.catalogue.version
            if drawn is None or drawn.digest != live.digest:
                model = live.model
                plane = plane_of(model.vectors[model.allowed], live.digest, live.run / KEPT)
                drawn = self._draw(live, version, plane)
            elif drawn.version != version:
                drawn = self._draw(live, version, drawn.plane)
            self._drawn = drawn
            return drawn

    def _draw(self, live: Live, version: int, plane: Landscape) -> Drawn:
        places = plane.place(live.index.vectors_of(np.arange(live.index.size)))
        V = min(len(places), live.catalogue.size)
        label, labels = _labels(live, V)
        order = np.random.default_rng(0).permutation(V)
        shown, new = live.catalogue.allowed()[:V], live.catalogue.new()[:V]
        return Drawn(live.digest, version, plane, places[:V], shown, new, label, labels, order)


def plane_of(vectors: Vectors, digest: str, path: Path) -> Landscape:
    """The plane of the items of the model that this digest names, from ``path`` where another start or worker
    left it; a large one is left there."""
    try:
        with safe_open(path, "np") as kept:
            if (kept.metadata() or {}).get("model") == digest:
                return Landscape(kept.get_tensor("landmarks"), kept.get_tensor("places"))
    except (OSError, SafetensorError):
        pass  # not there yet, or half of one
    plane = Landscape.of(vectors)
    if len(vectors) < LEAST_KEPT:
        return plane
    writing = path.with_name(f".{KEPT}.{uuid.uuid4().hex[:8]}.writing")
    try:
        save_file({"landmarks": plane.landmarks, "places": plane.places}, writing, {"model": digest})
        writing.replace(path)
    except (OSError, SafetensorError) as error:  # a folder that is only read
        logger.warning("the map cannot be kept in %s and is laid out at each start: %s", path, error)
    finally:
        with suppress(OSError):
            writing.unlink(missing_ok=True)
    return plane


def map_router(now: Now) -> APIRouter:
    """The route of the map, whose plane is laid out meanwhile: nobody is to wait for it."""
    router, maps = APIRouter(prefix="/v1", tags=["page"]), Maps()
    threading.Thread(target=lambda: maps.of(now()), name="map", daemon=True).start()

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
