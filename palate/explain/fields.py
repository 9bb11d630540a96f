"""Which fields of an item carried its recommendation.

An item's vector is one sum over its id and its fields, and a score is a product with it, so a history says of
each part exactly what it adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.explain.shapley import Scores
from palate.runtime.items import Vectors

AGAIN = "again"
"""Part of the difference that is not of the item's vector, but of its having been met before."""
Part = tuple[str, Vectors]
"""The name of a field, or ``id``, and what it adds to the vectors of the items that are explained, [I, D]."""


def field_shares(change: Scores, parts: Sequence[Part], difference: Scores) -> list[tuple[str, Scores]]:
    """By part of the items' vectors, its share of ``difference``, [I]; last, what is left over for ``AGAIN``.

    Args:
        change: float64 [D], state with the history less state with none.
        parts: of I items.
        difference: float64 [I], score with the history less score with none.
    """
    found = [(name, vectors.astype(np.float64) @ change) for name, vectors in parts]
    left = difference - np.sum([share for _, share in found], axis=0)
    return [*found, (AGAIN, left)]
