"""Requests that wait at the same time are answered together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from palate.errors import BusyError, PalateError

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """One thread that answers whatever waits, all of it at once; nobody waits for others to come.

    Under little load a request is answered alone, and under much load together with those that came while the
    ones before were being answered.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Answer | PalateError]],
        *,
        most_waiting: int,
        most_together: int,
    ) -> None:
        """A thread that waits for questions.

        Args:
            answer: gives for each question its answer, or the error that its asker is to be told.
            most_waiting: questions that wait; the next is refused.
            most_together: questions of one call of ``answer``.
        """
        self._answer = answer
        self._most_waiting = most_waiting
        self._most_together = most_together
        self._queue: deque[tuple[Question, Future[Answer]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="palate-answers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that nobody has begun to answer."""
        return len(self._queue)

    def submit(self, question: Question) -> Future[Answer]:
        """The answer to come.

        Raises:
            BusyError: too many wait already, or the server is stopping.
        """
        future: Future[Answer] = Future()
        with self._changed:
            if self._closed or len(self._queue) >= self._most_waiting:
                raise BusyError(
                    "The server is stopping." if self._closed else "Too many requests are waiting. Try again."
                )
            self._queue.append((question, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """What waits is answered, and nothing more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                taken = [self._queue.popleft() for _ in range(min(len(self._queue), self._most_together))]
            # Who has given up waiting is not answered.
            asked = [each for each in taken if each[1].set_running_or_notify_cancel()]
            if asked:
                self._tell(asked)

    def _tell(self, asked: Sequence[tuple[Question, Future[Answer]]]) -> None:
        try:
            answers = self._answer([question for question, _ in asked])
        except Exception as error:
            for _, future in asked:
                future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if isinstance(answer, PalateError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
