"""What stands behind the routes: the model that answers now, the one before it, and the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from palate.errors import ConflictError, PalateError
from palate.serve.answers import Asked, Listed, answer_all
from palate.serve.batching import Batcher
from palate.serve.loaded import Loaded
from palate.serve.metrics import Metrics
from palate.store.records import ItemChange, ItemState
from palate.store.store import EventStore

log = logging.getLogger("palate.serve")

FORGET = "forget user"
"""The audit's word for it. Whom it names has no events of training any more."""
EVENTS_AT_ONCE = 10_000
LISTENS = 0.25
"""Seconds between looks at what other workers wrote."""

Change = Callable[[], None]


class Engine:
    """The model that answers now. A request sees one model, whole, also while another takes its place."""

    def __init__(
        self, run: Path, store: EventStore, metrics: Metrics, *, rules: Path | None, threads: int, queue: int
    ) -> None:
        """The model of the run, with all that the store says of items and people.

        Raises:
            PalateError: run, rules or store cannot be used.
        """
        self.run, self.store, self.metrics = run, store, metrics
        self._rules, self._threads = rules, threads
        self._changing = threading.Lock()
        self._loading = threading.Lock()
        self.previous: Loaded | None = None
        self.forgotten = frozenset(store.audited(FORGET))
        self.present = self._load()
        self._tell()
        self._batcher: Batcher[Asked, Listed] = Batcher(self._answer, queue)
        self._stopping = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="palate-listens", daemon=True)
        self._listener.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for an answer."""
        return len(self._batcher)

    # Lists

    async def recommend(self, asked: Asked) -> Listed:
        """The list that is asked for.

        Raises:
            BusyError: too many requests wait.
            PalateError: it cannot be answered; the message says why.
        """
        return await self._batcher.ask(asked)

    def _answer(self, asked: Sequence[Asked]) -> list[Listed | Exception]:
        self.metrics.queue.set(self.waiting)
        return self._answer_by(self.present, asked)

    def _answer_by(self, loaded: Loaded, asked: Sequence[Asked]) -> list[Listed | Exception]:
        return answer_all(loaded, self.store, self.forgotten, self.metrics, asked)

    def _list_by(self, loaded: Loaded, user: str, k: int) -> list[dict[str, Any]]:
        answer = self._answer_by(loaded, [Asked(user=user, k=k)])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.items

    # Items

    def change_item(self, write: Change, proposed: ItemChange | None = None) -> None:
        """The change is durable and heard when this returns.

        Args:
            write: writes it to the store.
            proposed: what it says, to be refused before anything is written.

        Raises:
            DataError: it cannot be used.
        """
        if proposed is not None:
            self.present.check(proposed)
        write()
        self.listen()

    def audit(self, who: str, action: str, subject: str) -> None:
        """A line of the audit says that this was done now."""
        self.store.audit(who, action, subject, time.time_ns() // 1_000)

    # Other workers, and other models

    def listen(self) -> None:
        """What the store says of items and people until now is heard."""
        with self._changing:
            self._hear(self.present)
        self.metrics.items.set(int(self.present.rules.allowed().sum()))

    def _hear(self, loaded: Loaded) -> None:
        for sequence, change in self.store.item_changes_after(loaded.applied):
            try:
                loaded.apply([(sequence, change)])
            except PalateError as error:  # a model with other fields: the item keeps what it can
                log.warning("item %r cannot be described for model %s: %s", change.item, loaded.digest, error)
                loaded.applied = sequence
                if change.state != ItemState.SHOWN:
                    loaded.apply([(sequence, ItemChange(change.item, ItemState.REMOVED, True, {}, {}))])
        while events := self.store.after(loaded.counted, EVENTS_AT_ONCE):
            loaded.count(events)
        self.forgotten = frozenset(self.store.audited(FORGET))

    def _listen(self) -> None:
        while not self._stopping.wait(LISTENS):
            try:
                self.listen()
            except Exception:
                log.exception("listening to the store failed; trying again")

    def reload(self, to: Literal["latest", "previous"]) -> str:
        """Another model answers from the next request on; the one that answered stays, to go back to.

        Returns:
            The digest of the model that answers now.

        Raises:
            ConflictError: there is no previous one.
            BundleError: what was exported is missing or damaged; the present model goes on.
        """
        with self._loading:
            if to == "previous":
                if self.previous is None:
                    raise ConflictError("There is no previous model: none was loaded since the start.")
                other = self.previous
                with self._changing:
                    self._hear(other)
            else:
                other = self._load()
            with self._changing:
                self._hear(other)
                self.previous, self.present = self.present, other
            self._tell()
            return other.digest

    def _load(self) -> Loaded:
        """The exported model, warm, with everything heard."""
        started = time.perf_counter()
        loaded = Loaded.load(self.run, self._rules, self._threads)
        loaded.lists = partial(self._list_by, loaded)
        self._hear(loaded)
        everyone = loaded.model.prepared.people.series
        some = [Asked(user=str(everyone[0]))] if len(everyone) else []
        self._answer_by(loaded, [*some, Asked(user="")])
        seconds = time.perf_counter() - started
        log.info("model %s of %s is ready after %.1f s", loaded.digest, self.run.name, seconds)
        return loaded

    def _tell(self) -> None:
        self.metrics.model(self.present.digest)

    def close(self) -> None:
        """What waits is answered; nothing is read or written any more."""
        self._stopping.set()
        self._listener.join()
        self._batcher.close()
