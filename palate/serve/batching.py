"""Requests that wait are answered together: one pass of the network and one search for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from palate.errors import BusyError

AT_ONCE = 32
"""Requests of one batch; more would let the first one wait for the last."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class _Waiting(NamedTuple):
    asked: object
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[object]


class Batcher(Generic[Asked, Answer]):
    """One thread that answers whatever has come meanwhile; it waits for nobody.

    While one batch is answered the next one gathers, so batches grow with the load and are of one request
    without it.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]], queue: int) -> None:
        """A thread that begins at once.

        Args:
            answer: of a batch, an answer or an error for each.
            queue: so many requests may wait.
        """
        self._answer, self._most = answer, queue
        self._waiting: deque[_Waiting] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="palate-answers", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def ask(self, asked: Asked) -> Answer:
        """The answer.

        Raises:
            BusyError: too many wait already, or the batcher was closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        with self._arrived:
            if self._closed or len(self._waiting) >= self._most:
                raise BusyError(f"{len(self._waiting)} requests wait already. Ask again in a moment.")
            self._waiting.append(_Waiting(asked, loop, future))
            self._arrived.notify()
        return await future  # type: ignore[return-value]

    def close(self) -> None:
        """What waits is answered; nothing more is taken."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._arrived:
                while not self._waiting and not self._closed:
                    self._arrived.wait()
                if not self._waiting:
                    return
                batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                answers: Sequence[object] = self._answer([each.asked for each in batch])  # type: ignore[misc]
            except Exception as error:  # whoever asked is told; the thread goes on
                answers = [error] * len(batch)
            for each, answer in zip(batch, answers, strict=True):
                each.loop.call_soon_threadsafe(_resolve, each.future, answer)


def _resolve(future: asyncio.Future[object], answer: object) -> None:
    if future.cancelled():  # the client has gone
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
