"""What is near to an item or a person, by cosine over all that there are."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from palate.retrieve.index import Vectors
from palate.schema import FIRST_ID, UNKNOWN, Histories, IntArray
from palate.serve.live import Live

MOST_PEOPLE = 20_000
"""People of the data that are compared: evenly spread over them where there are more."""


def similar_items(live: Live, item: int, k: int) -> tuple[IntArray, Vectors]:
    """Ids and cosines of the k nearest items that may be shown, best first; without the item itself."""
    return nearest_items(live, live.index.vectors_of(np.array([item]))[0], k, without=item)


def nearest_items(live: Live, vector: Vectors, k: int, *, without: int = UNKNOWN) -> tuple[IntArray, Vectors]:
    """Ids and cosines of the k items that may be shown and are nearest to this vector [D], best first."""
    allowed = live.rules.allowed()
    with live.index.guard.reading():
        present, table = live.index.contents()
        cosines = table @ vector
        lengths = np.sqrt(np.einsum("vd,vd->v", table, table))
        there = present.copy()
    cosines /= np.maximum(lengths * np.linalg.norm(vector), 1e-12)
    end = min(len(there), len(allowed))
    there[:end] &= allowed[:end]
    there[end:] = False
    if without < len(there):
        there[without] = False
    return _best(np.where(there, cosines, -np.inf), k)


class Neighbours(NamedTuple):
    """People of a model's data."""

    people: IntArray
    directions: Vectors  # float32 [people, D], of length one


class Everybody:
    """The states of the people of each model's data, worked out when they are first asked for."""

    def __init__(self) -> None:
        self._of: tuple[Live, Neighbours] | None = None
        self._working = threading.Lock()

    def near(self, live: Live, user: str, k: int) -> tuple[int, list[str], Vectors]:
        """How many people were compared; keys and cosines of the k whose taste is nearest to this one's."""
        own = live.history(user)
        direction = _directions(live.states(own).states)[0]
        others = self._neighbours(live)
        keys = [str(key) for key in live.model.prepared.people.keys(others.people)]
        cosines = others.directions @ direction
        hidden = [n for n, key in enumerate(keys) if key == user or live.people.is_forgotten(key)]
        cosines[hidden] = -np.inf
        places, scores = _best(cosines, k)
        return len(keys) - len(hidden), [keys[place] for place in places.tolist()], scores

    def _neighbours(self, live: Live) -> Neighbours:
        with self._working:
            if self._of is None or self._of[0] is not live:
                known: Histories = live.model.prepared.known()
                having = np.flatnonzero(known.lengths > 0)
                having = having[having >= FIRST_ID]
                spread = np.linspace(0, len(having) - 1, min(len(having), MOST_PEOPLE)).astype(np.int64)
                people = having[spread]
                states = live.model.states(known.select(people)).states
                self._of = live, Neighbours(people, _directions(states))
            return self._of[1]


def _directions(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _best(scores: Vectors, k: int) -> tuple[IntArray, Vectors]:
    """Places and values of the k highest finite scores, equal ones by place."""
    order = np.argsort(-scores, kind="stable")[:k]
    order = order[np.isfinite(scores[order])]
    return order, scores[order]
