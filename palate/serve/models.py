"""Which model answers: the one that was chosen last, in every process that serves the run over one store."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from palate.errors import BundleError, ConflictError, PalateError, StoreError
from palate.serve.kept import digest_of, forget_others, keep, place_of
from palate.serve.live import Live
from palate.store.records import ModelChoice
from palate.store.store import EventStore

SECONDS = 1.0
"""How often a process looks whether another one has chosen."""

logger = logging.getLogger(__name__)


def set_aside() -> None:
    """What this process holds now is not searched for cycles any more.

    A model names every item and person, so that each search would take long and keep everybody waiting.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Models:
    """The model that answers, and the one before it.

    A choice is a line in the store. Whoever is asked to reload writes one; everybody else follows within
    ``SECONDS`` and the time that loading takes, and answers by the model of before until then.
    """

    def __init__(
        self, run: Path, name: str, store: EventStore, load: Callable[[Path], Live], *, fresh: bool
    ) -> None:
        """A model is loaded.

        Args:
            name: under which choices of this run stand in the store.
            load: gives the model in a folder that holds ``serving``.
            fresh: whether an export that nobody has chosen yet is chosen by this start. The last choice holds
                otherwise, and also where nothing was exported since.

        Raises:
            PalateError: as ``load``, or the store does not answer.
        """
        self._run, self._name, self._store, self._load = run, name, store, load
        self._swapping = threading.Lock()
        self._heard = 0
        self._said = 0
        self.previous: Live | None = None
        """What answered before, if this process has loaded it."""
        self.live = self._first(fresh)
        """What answers now."""
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="palate-models", daemon=True)
        self._watcher.start()

    def reload(self, to: str) -> ModelChoice:
        """What RUN/serving holds now answers from the next request on; or, with ``previous``, what answered
        before. On an error nothing is changed.

        Raises:
            ConflictError: there is no previous one, or it was not kept.
            PalateError: as ``load``, or the store does not answer.
        """
        with self._swapping:
            before = self._store.choice(self._name)
            assert before is not None
            coming = self._former(before) if to == "previous" else self._load(self._run)
            previous = before.previous if coming.digest == before.model else before.model
            exported = digest_of(self._run) or coming.digest
            choice = self._store.choose(self._name, coming.digest, previous, exported)
            self._take(coming, choice)
            return choice

    def close(self) -> None:
        """Nobody looks for other choices any more."""
        self._stopping.set()
        self._watcher.join()

    def _first(self, fresh: bool) -> Live:
        choice, exported = self._store.choice(self._name), digest_of(self._run)
        if choice is not None and choice.model != exported and not (fresh and choice.exported != exported):
            live = self._kept(choice)
            if live is not None:
                self._heard = choice.number
                return live
        live = self._load(self._run)
        keep(self._run, live.digest)
        if choice is None or choice.model != live.digest:
            before, number = (None, 0) if choice is None else (choice.model, choice.number)
            choice = self._store.choose(self._name, live.digest, before, live.digest, after=number)
        # Where somebody else has just chosen another one, it is followed like every other choice.
        self._heard = choice.number if choice.model == live.digest else 0
        return live

    def _kept(self, choice: ModelChoice) -> Live | None:
        place = place_of(self._run, choice.model)
        try:
            if place is not None:
                return self._load(place)
            reason = "it was not kept"
        except BundleError as error:
            reason = str(error)
        logger.warning("the model %s should answer and cannot (%s); the latest does", choice.model, reason)
        return None

    def _former(self, choice: ModelChoice) -> Live:
        if choice.previous is None:
            raise ConflictError("Nothing was loaded before this model. Reload the latest first.")
        for loaded in (self.previous, self.live):
            if loaded is not None and loaded.digest == choice.previous:
                loaded.catch_up()
                return loaded
        place = place_of(self._run, choice.previous)
        if place is None:
            raise ConflictError("The model of before was not kept: the folder of the run cannot be written.")
        return self._load(place)

    def _take(self, coming: Live, choice: ModelChoice) -> None:
        if coming.digest != self.live.digest:
            self.previous = self.live
        self.live, self._heard = coming, choice.number
        keep(self._run, coming.digest)
        forget_others(self._run, (choice.model, choice.previous))
        if gc.get_freeze_count():
            set_aside()

    def _watch(self) -> None:
        silent = False
        while not self._stopping.wait(SECONDS):
            try:
                self._follow()
                silent = False
            except StoreError as error:
                if not silent:
                    logger.warning("whether another model was chosen is not known: %s", error)
                silent = True
            except Exception:
                logger.exception("the chosen model cannot be loaded; the one of before goes on")

    def _follow(self) -> None:
        """What somebody else has chosen answers here too."""
        choice = self._store.choice(self._name)
        if choice is None or choice.number == self._heard:
            return
        with self._swapping:
            choice = self._store.choice(self._name)
            if choice is None or choice.number == self._heard:
                return
            coming = self._chosen(choice)
            if coming is not None and coming.digest == choice.model:
                self._take(coming, choice)
                logger.info("the model %s answers, as was chosen elsewhere", choice.model)

    def _chosen(self, choice: ModelChoice) -> Live | None:
        if self.previous is not None and self.previous.digest == choice.model != choice.exported:
            self.previous.catch_up()
            return self.previous
        place = place_of(self._run, choice.model)
        if place is None:
            if self._said != choice.number:  # it may come, where exports are copied from machine to machine
                logger.warning("the model %s was chosen and is not here yet", choice.model)
            self._said = choice.number
            return None
        try:
            return self._load(place)
        except PalateError:
            self._heard = choice.number  # another attempt would end alike
            raise
