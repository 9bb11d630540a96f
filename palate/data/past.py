"""What somebody has met before each moment: the items that a score may treat as known ones."""

from __future__ import annotations

import numpy as np

from palate.data.moments import gap_buckets
from palate.schema import LAG_BUCKETS, MOST_TIMES, AnyArray, Histories, IntArray, Past

LONGEST_PAST = 1024
"""Events looked back on; a longer past would cost more than the rest of a training step."""


def past_of(histories: Histories, row_N: IntArray, known_N: IntArray, *, has_time: bool) -> Past[AnyArray]:
    """The items met before each of N moments, each item once, in its latest event.

    Args:
        histories: item ids and times.
        row_N: the history of each moment.
        known_N: how many of its events have happened by then.
        has_time: whether differences between times mean anything.
    """
    counts = np.minimum(known_N, LONGEST_PAST)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    moment = np.repeat(np.arange(len(counts)), counts)
    lag = np.arange(offsets[-1]) - offsets[moment]  # 0 is the latest event
    latest = np.maximum(histories.offsets[row_N] + known_N - 1, 0)
    where = latest[moment] - lag
    following, before = _occurrences(histories)
    met_later = following[where] <= latest[moment]
    if met_later.any():
        moment, lag, where = moment[~met_later], lag[~met_later], where[~met_later]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(moment, minlength=len(counts)))])
    since = (
        gap_buckets(histories.time[latest[moment]], histories.time[where])
        if has_time
        else np.zeros(len(where), np.int64)
    )
    return Past(
        offsets=offsets,
        item=histories.item[where].astype(np.int64),
        lag=np.minimum(np.frexp(lag + 1)[1].astype(np.int64) - 1, LAG_BUCKETS - 1),
        times=np.minimum(before[where], MOST_TIMES),
        since=since,
    )


def _occurrences(histories: Histories) -> tuple[IntArray, IntArray]:
    """For each event, where its item is met next in the same history, and how often before::

    items      7 9 7 7 | 7        following  2 ∞ 3 ∞ | ∞        before  0 0 1 2 | 0
    """
    events = len(histories.item)
    order = np.lexsort((histories.item, histories.rows()))  # stable: equal pairs stay in order of time
    pair = histories.rows()[order] * (2**32) + histories.item[order]
    same = np.concatenate([pair[1:] == pair[:-1], [False]])[:events]
    following = np.full(events, np.iinfo(np.int64).max)
    following[order[:-1][same[:-1]]] = order[1:][same[:-1]]
    place = np.arange(events)
    begins = np.concatenate([[True], ~same[:-1]])[:events]
    before = np.empty(events, np.int64)
    before[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return following, before
