"""Events of items that nobody knows yet: they count from the day the item comes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from palate.schema import IntArray

MOST_EVENTS = 100_000
"""That are remembered; then those of the item that was named first are let go until the next start."""


class Awaited:
    """When each item that is not known was met. To be called by one thread at a time."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most, self._count = most, 0
        self._times: OrderedDict[str, list[int]] = OrderedDict()

    def add(self, item: str, time: int) -> None:
        """Somebody met this item."""
        self._times.setdefault(item, []).append(time)
        self._count += 1
        while self._count > self._most:
            _, times = self._times.popitem(last=False)
            self._count -= len(times)

    def take(self, item: str) -> IntArray:
        """When this item was met; it is not awaited any more."""
        times = self._times.pop(item, [])
        self._count -= len(times)
        return np.array(times, np.int64)
