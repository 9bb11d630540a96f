"""The best k of very many scores: the maxima of groups first, then only groups that can hold one of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.schema import IntArray

GROUP = 128
"""Scores of one group: member m of group g stands at ``g + m · groups``, so that their maximum is taken by
comparing long rows with each other, which processors do many at a time."""


def room(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Where scores of so many columns are written: float32 [rows, W], W the next multiple of ``GROUP``; what
    is beyond the columns is −∞."""
    width = -(-columns // GROUP) * GROUP
    scores = np.empty((rows, width), np.float32)
    scores[:, columns:] = -np.inf
    return scores


def best(scores_W: npt.NDArray[np.float32], k: int) -> IntArray:
    """Columns of the k best scores, best first, equal ones by column; fewer where the rest is −∞.

    The k-th best of the groups' maxima is at most the k-th best score, so groups below it hold none of the k.

    Args:
        scores_W: of a length that ``room`` gives.
    """
    groups = len(scores_W) // GROUP
    members = scores_W.reshape(GROUP, groups)
    tops = members.max(axis=0)
    if k < groups:
        least = np.partition(tops, groups - k)[groups - k]
        chosen = np.flatnonzero((tops >= least) & (tops > -np.inf))
    else:
        least = np.float32(-np.inf)
        chosen = np.flatnonzero(tops > -np.inf)
    values = members[:, chosen]
    member, group = np.nonzero((values >= least) & (values > -np.inf))
    columns = member * groups + chosen[group]
    values = scores_W[columns]
    if len(values) > 4 * k:
        kept = values >= np.partition(values, len(values) - k)[len(values) - k]
        columns, values = columns[kept], values[kept]
    return columns[np.lexsort((columns, -values))[:k]]
