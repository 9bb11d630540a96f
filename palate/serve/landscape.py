"""Items as points of a plane, so that alike ones lie together.

A few thousand landmarks are laid out from their nearest neighbours, by the attraction and repulsion of
UMAP (McInnes et al. 2018) with the curve 1 / (1 + distance²); every other item lies among the landmarks that
are nearest to it, and so does one that comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from palate.schema import FloatArray, IntArray

LANDMARKS = 5_000
NEIGHBOURS = 10
PASSES = 150
OTHERS = 3
"""Points that each point is pushed away from in a pass, drawn anew."""
AMONG = 3
"""Landmarks that an item lies among."""
AT_A_TIME = 2_048
FARTHEST_MOVE = 4.0
INSIDE = 0.005
"""Share of the points on each side that may lie on the edge, so that a few far ones do not press the rest."""

Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Landscape:
    """A plane from (0, 0) to (1, 1), in which items have places by their directions."""

    landmarks: npt.NDArray[np.float32]  # [L, D], of length one
    places: Points  # [L, 2]

    @classmethod
    def of(cls, vectors_VD: FloatArray, *, seed: int = 0) -> Self:
        """The plane of these items; the same items and the same seed give the same plane."""
        generator = np.random.default_rng(seed)
        count = min(len(vectors_VD), LANDMARKS)
        chosen = np.sort(generator.permutation(len(vectors_VD))[:count])
        landmarks = _directions(vectors_VD[chosen])
        places = _laid_out(landmarks, generator)
        low, high = np.quantile(places, [INSIDE, 1 - INSIDE], axis=0) if count else (0.0, 1.0)
        return cls(landmarks, np.clip((places - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32))

    def place(self, vectors_ND: FloatArray) -> Points:
        """Where items with these vectors lie, float32 [N, 2]."""
        found = np.full((len(vectors_ND), 2), 0.5, np.float32)
        if not len(self.landmarks):
            return found
        for start in range(0, len(vectors_ND), AT_A_TIME):
            nearness = _directions(vectors_ND[start : start + AT_A_TIME]) @ self.landmarks.T
            nearest = _highest(nearness, AMONG)
            near = np.take_along_axis(nearness, nearest, axis=1)
            # A landmark that is the item itself, or its twin, decides alone.
            weights = 1 / np.maximum(1 - near, 1e-4) ** 2
            weights /= weights.sum(axis=1, keepdims=True)
            found[start : start + AT_A_TIME] = (self.places[nearest] * weights[:, :, None]).sum(axis=1)
        return found


def _directions(vectors: FloatArray) -> npt.NDArray[np.float32]:
    given = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    found: npt.NDArray[np.float32] = given / np.maximum(lengths, 1e-12)
    return found


def _highest(scores: FloatArray, count: int) -> IntArray:
    """The columns of the highest scores of each row, in no order; all where there are not so many."""
    count = min(count, scores.shape[1])
    found: IntArray = np.argpartition(scores, -count, axis=1)[:, -count:]
    return found


def _laid_out(directions: npt.NDArray[np.float32], generator: np.random.Generator) -> FloatArray:
    """Places of directions [L, D] that begin at their two principal components, [L, 2]."""
    L = len(directions)
    places = np.zeros((L, 2))
    if L < 3:
        return places
    centred = directions - directions.mean(axis=0)
    axes = np.linalg.svd(centred.T @ centred)[0][:, :2]
    components = centred @ axes
    places[:, : components.shape[1]] = components * (10 / max(float(np.abs(components).max()), 1e-9))
    places += generator.normal(0, 1e-3, places.shape)  # twins must be able to part
    one = np.repeat(np.arange(L), min(NEIGHBOURS, L - 1))
    other = np.concatenate(
        [_neighbours(directions, start, min(start + AT_A_TIME, L)) for start in range(0, L, AT_A_TIME)]
    )
    for step in range(PASSES):
        rate = 1 - step / PASSES
        apart = places[one] - places[other]
        pull = -2 / (1 + (apart**2).sum(axis=1))
        _move(places, one, other, pull, apart, rate / NEIGHBOURS)
        for _ in range(OTHERS):
            drawn = generator.integers(0, L, L)
            apart = places - places[drawn]
            square = (apart**2).sum(axis=1)
            push = 2 / ((0.01 + square) * (1 + square))
            push[drawn == np.arange(L)] = 0
            _move(places, np.arange(L), drawn, push, apart, rate)
    return places


def _neighbours(directions: npt.NDArray[np.float32], start: int, stop: int) -> IntArray:
    """The nearest others of rows start to stop, row after row."""
    nearness = directions[start:stop] @ directions.T
    nearness[np.arange(stop - start), np.arange(start, stop)] = -np.inf
    return _highest(nearness, min(NEIGHBOURS, len(directions) - 1)).ravel()


def _move(
    places: FloatArray, one: IntArray, other: IntArray, force: FloatArray, apart: FloatArray, rate: float
) -> None:
    """Both ends of each pair move along the line between them, none far at once."""
    moves = np.clip(force[:, None] * apart, -FARTHEST_MOVE, FARTHEST_MOVE) * rate
    for axis in (0, 1):
        places[:, axis] += np.bincount(one, moves[:, axis], len(places))
        places[:, axis] -= np.bincount(other, moves[:, axis], len(places))
