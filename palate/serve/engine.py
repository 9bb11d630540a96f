"""What answers: one model that may be swapped, the event store, and the thread that answers who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from palate.errors import PalateError, UnknownKeyError
from palate.serve.asking import Answered, Asked, answers
from palate.serve.batching import Batcher
from palate.serve.live import Live
from palate.serve.metrics import Metrics
from palate.serve.models import Models
from palate.store.records import AppendResult, ItemChange, ItemState, ModelChoice, StoredEvent
from palate.store.store import EventStore

MOST_WAITING = 1_024
MOST_TOGETHER = 64


class Engine:
    """A run that is served, with the store beside it. Many threads may call it at once.

    Whatever is asked is answered by one ``Live`` as a whole; a reload puts another one in its place while
    requests that have begun are finished by the old one.
    """

    def __init__(
        self,
        run: Path,
        store: EventStore,
        *,
        rules: Path | None = None,
        threads: int = 1,
        exact_up_to: int | None = None,
        most_waiting: int = MOST_WAITING,
        most_together: int = MOST_TOGETHER,
        metrics: Metrics,
        name: str = "",
        fresh: bool = True,
    ) -> None:
        """The run is loaded and has heard all that the store says.

        Args:
            rules: a YAML file.
            threads: that work on one pass of the network.
            exact_up_to: items up to which a search compares all of them; measured if it is not given.
            most_waiting: requests that may wait; the next is refused.
            most_together: requests that are answered together.
            metrics: are told how long the stages of answering took, and what there is.
            name: under which the store knows which model of this run answers; by default that of its folder.
            fresh: as ``Models``.

        Raises:
            BundleError: RUN/serving is absent, incomplete, altered, damaged or of another format.
            SettingsError: the rules cannot be read or name what is not there.
            StoreError: the store does not answer.
            MissingExtraError: ONNX Runtime or Faiss is not installed.
        """
        self.run, self.store = run, store
        load = partial(Live.load, run, store, rules=rules, threads=threads, exact_up_to=exact_up_to)
        self._metrics = metrics
        self._models = Models(run, name or run.resolve().name, store, load, fresh=fresh)
        self._batcher: Batcher[Asked, Answered] = Batcher(
            self._answers, most_waiting=most_waiting, most_together=most_together
        )

    @property
    def live(self) -> Live:
        """What answers now."""
        return self._models.live

    def now(self) -> Live:
        """What answers now, with all that the store says up to this moment.

        Raises:
            StoreError: the store does not answer.
        """
        live = self.live
        live.catch_up()
        return live

    @property
    def waiting(self) -> int:
        """Requests for lists that nobody has begun to answer."""
        return self._batcher.waiting

    def submit(self, asked: Asked) -> Future[Answered]:
        """The list to come.

        Raises:
            BusyError: too many wait already.
        """
        return self._batcher.submit(asked)

    def _answers(self, asked: Sequence[Asked]) -> list[Answered | PalateError]:
        live = self.now()
        self._metrics.queue.set(self.waiting)
        self._metrics.items.set(live.shown)
        self._metrics.model(live.digest)
        return answers(live, asked, self._metrics.stage)

    # What is told

    def append(self, events: Sequence[StoredEvent]) -> AppendResult:
        """The events are on the disk and count from the next answer on; as ``EventStore.append``."""
        result = self.store.append(events)
        self._metrics.events.inc(result.stored)
        return result

    def put_item(self, item: str, fields: Mapping[str, Any], media: Mapping[str, bytes]) -> Live:
        """The item is described by this alone, durably, and may be recommended.

        Raises:
            DataError: no such field, or a value or a file that cannot be used; nothing is stored.
            StoreError: the store does not answer.
            MissingExtraError: a library that decodes sound or film is not installed.
        """
        self._check(ItemChange(item, ItemState.SHOWN, True, dict(fields), dict(media)))
        self.store.put_item(item, fields, media)
        return self.now()

    def patch_item(self, item: str, fields: Mapping[str, Any], media: Mapping[str, bytes]) -> Live:
        """These fields of the item are described anew, durably; null clears one.

        Raises:
            UnknownKeyError: there is no such item.
            DataError: as ``put_item``.
            StoreError: as ``put_item``.
            MissingExtraError: as ``put_item``.
        """
        self._check_there(item)
        self._check(ItemChange(item, ItemState.SHOWN, False, dict(fields), dict(media)))
        self.store.patch_item(item, fields, media)
        return self.now()

    def hide_item(self, item: str) -> Live:
        """The item is recommended to nobody until it is shown again.

        Raises:
            UnknownKeyError: there is no such item.
            StoreError: the store does not answer.
        """
        self._check_there(item)
        self.store.hide_item(item)
        return self.now()

    def show_item(self, item: str) -> Live:
        """The item is not hidden any more.

        Raises:
            UnknownKeyError: there is no such item.
            StoreError: the store does not answer.
        """
        self._check_there(item)
        self.store.show_item(item)
        return self.now()

    def remove_item(self, item: str) -> Live:
        """The item is gone; histories still hold it.

        Raises:
            UnknownKeyError: there is no such item.
            StoreError: the store does not answer.
        """
        self._check_there(item)
        self.store.remove_item(item)
        return self.now()

    def forget(self, user: str) -> int:
        """No event of the person is left, and those of the data do not count; how many were deleted.

        Raises:
            StoreError: the store does not answer.
        """
        gone = self.store.forget(user)
        self.live.catch_up()
        return gone

    def _check(self, change: ItemChange) -> None:
        reader = self.live.reader
        reader.check(change.fields, change.media)
        reader.read([change])

    def _check_there(self, item: str) -> None:
        if self.now().there(item) is None:
            raise UnknownKeyError("There is no such item.")

    # The model

    def reload(self, to: str) -> ModelChoice:
        """What RUN/serving holds now answers from the next request on; or, with ``previous``, what answered
        before. Other processes over the same store follow. On an error nothing is changed.

        Raises:
            ConflictError: there is no previous one.
            BundleError: as the constructor.
            SettingsError: the rules name what the new model does not have.
            StoreError: the store does not answer.
        """
        return self._models.reload(to)

    def close(self) -> None:
        """Who waits is answered, and nobody else. The store stays open."""
        self._models.close()
        self._batcher.close()
