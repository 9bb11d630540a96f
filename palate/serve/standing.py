"""Where one item stands among all, for a sample of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from palate.explain.fields import Part
from palate.retrieve.index import Vectors
from palate.runtime.model import Answer, ServingModel
from palate.schema import BoolArray, Histories, IntArray

PEOPLE = 256
MOST_SCORES = 1 << 23
"""So many scores are held at once."""


@dataclass(frozen=True)
class Sample:
    """People drawn from the data that the model was trained on, and what is known of them."""

    keys: tuple[str, ...]
    histories: Histories
    answer: Answer

    @classmethod
    def of(cls, model: ServingModel, people: int = PEOPLE, *, seed: int = 0) -> Self:
        """At most so many people who have events; the same seed draws the same."""
        known = model.prepared.known()
        having = np.flatnonzero(known.lengths > 0)
        drawn = np.sort(np.random.default_rng(seed).permutation(having)[:people])
        histories = known.select(drawn)
        keys = tuple(str(key) for key in model.prepared.people.keys(drawn))
        return cls(keys, histories, model.states(histories))


class Standing(NamedTuple):
    """Of each person of a sample: where an item would come, from 1, and its score."""

    rank: IntArray  # int64 [B]
    score: npt.NDArray[np.float32]  # [B]


def standing(
    sample: Sample, vectors_VD: Vectors, allowed: BoolArray, vector: Vectors, *, item: int, filter_seen: bool
) -> Standing:
    """Where an item with this vector stands among the allowed items of a table.

    Equal scores do not come before it. With ``filter_seen`` what a person has met is not in the way.

    Args:
        vectors_VD: the vectors of all items, by id.
        allowed: bool [V].
        vector: float32 [D].
        item: its id, so that it is not compared with itself and gets its bonuses; ``UNKNOWN`` of an item
            that is not there yet.
    """
    states, bonuses = sample.answer
    score = states @ vector
    for row in range(len(score)):
        ids, values = bonuses.of(row)
        score[row] += values[ids == item].sum()
    rank = np.ones(len(states), np.int64)
    rows = max(1, MOST_SCORES // max(len(vectors_VD), 1))
    others = allowed[: len(vectors_VD)].copy()
    others[item] = False
    for start in range(0, len(states), rows):
        scores = states[start : start + rows] @ vectors_VD.T
        for row, of_person in enumerate(scores, start):
            ids, values = bonuses.of(row)
            of_person[ids] += values
            if filter_seen:
                part = slice(*sample.histories.offsets[row : row + 2])
                of_person[sample.histories.item[part]] = -np.inf
            rank[row] += np.count_nonzero((of_person > score[row]) & others)
    return Standing(rank, score)


def parts(own: Sequence[Part], state: Vectors) -> dict[str, float]:
    """By field, and ``id``, what it adds to the score, where it adds any.

    Args:
        own: of one item, [1, D] each.
        state: float32 [D], a person's, or the mean of several.
    """
    added = {name: float(vectors[0] @ state) for name, vectors in own}
    return {name: value for name, value in added.items() if value}
