"""Moments and the time between them as the few numbers that the network has vectors for."""

from __future__ import annotations

import datetime

import numpy as np

from palate.schema import GAP_BUCKETS, UNKNOWN_TIME, IntArray

HOUR = 3_600_000_000
"""Microseconds."""
DAY = 24 * HOUR


def microseconds(moment: datetime.datetime) -> int:
    """Since 1970; a moment without a zone is in UTC, as all times are."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1_000_000)


def gap_buckets(later: IntArray, earlier: IntArray) -> IntArray:
    """1 + ⌊log2(1 + seconds)⌋ from the earlier to the later time, at most the last bucket.

    Below zero counts as zero. 0 where one of the two is ``UNKNOWN_TIME``.
    """
    known = (later != UNKNOWN_TIME) & (earlier != UNKNOWN_TIME)
    seconds = np.maximum(np.where(known, later, 0) - np.where(known, earlier, 0), 0) // 1_000_000
    buckets = np.minimum(1 + np.floor(np.log2(1.0 + seconds)).astype(np.int64), GAP_BUCKETS - 1)
    return np.where(known, buckets, 0)


def hours(time: IntArray) -> IntArray:
    """1 + the hour of the day in UTC of each time; 0 where it is ``UNKNOWN_TIME``."""
    return np.where(time == UNKNOWN_TIME, 0, 1 + time // HOUR % 24)


def weekdays(time: IntArray) -> IntArray:
    """1 on Mondays … 7 on Sundays, in UTC; 0 where the time is ``UNKNOWN_TIME``."""
    return np.where(time == UNKNOWN_TIME, 0, 1 + (time // DAY + 3) % 7)  # 1970 began on a Thursday
