"""The best k of very many scores: the maxima of groups first, then only groups that can hold one of them.

Scores stand as [W, B], one column for each of B rows of a search: so a product of a long table with a few
states comes out, which libraries compute sooner than its transpose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.schema import IntArray

GROUP = 128
"""Scores of one group: member m of group g stands at ``g + m · groups``, so that their maxima are taken by
comparing long stretches with each other, which processors do many at a time."""

Scores = npt.NDArray[np.float32]


def room(candidates: int, rows: int) -> Scores:
    """Where scores of so many candidates are written: float32 [W, rows], W the next multiple of ``GROUP``.

    What is beyond the candidates is −∞.
    """
    scores = np.empty((-(-candidates // GROUP) * GROUP, rows), np.float32)
    scores[candidates:] = -np.inf
    return scores


def best(scores_WB: Scores, k: int) -> list[IntArray]:
    """For each column, where its k best scores stand, best first, equal ones in order.

    They are fewer where the rest is −∞.

    The k-th best of the groups' maxima is at most the k-th best score, so groups below it hold none of the k.

    Args:
        scores_WB: of a shape that ``room`` gives.
    """
    members = scores_WB.reshape(GROUP, -1, scores_WB.shape[1])
    tops = members.max(axis=0)
    return [_best(members[:, :, row], np.ascontiguousarray(tops[:, row]), k) for row in range(tops.shape[1])]


def _best(members: Scores, tops: Scores, k: int) -> IntArray:
    groups = len(tops)
    least = np.partition(tops, groups - k)[groups - k] if k < groups else np.float32(-np.inf)
    chosen = np.flatnonzero((tops >= least) & (tops > -np.inf))
    scores = members[:, chosen]
    member, group = np.nonzero((scores >= least) & (scores > -np.inf))
    places, values = member * groups + chosen[group], scores[member, group]
    if len(values) > 4 * k:
        kept = values >= np.partition(values, len(values) - k)[len(values) - k]
        places, values = places[kept], values[kept]
    return places[np.lexsort((places, -values))[:k]]
