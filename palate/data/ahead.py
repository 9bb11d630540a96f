"""Batches made ahead: the next ones are laid out while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")
IN_STORE = 2


def made_ahead(make: Callable[[int], Made], numbers: range) -> Iterator[Made]:
    """``make(n)`` for each number in order, up to ``IN_STORE`` of them made in another thread beforehand.

    An exception of ``make`` is raised where its result would have come.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        store = deque(thread.submit(make, number) for number in numbers[:IN_STORE])
        for number in numbers:
            made = store.popleft().result()
            if number + IN_STORE in numbers:
                store.append(thread.submit(make, number + IN_STORE))
            yield made
