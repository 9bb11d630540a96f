"""Trials are trained: in this process one after another, or in several processes at the same time.

Whoever leads the study says what comes next and, after every pass, whether it is worth another one. Workers
know nothing else of the search.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch

from palate.data.prepared import Prepared
from palate.data.store import load_prepared
from palate.errors import PalateError
from palate.recommender import Recommender
from palate.settings import Settings
from palate.train.progress import Silent
from palate.tune.trials import State

CANNOT_TRAIN = (PalateError, MemoryError, RuntimeError)
"""What settings can lead to: a loss that is not finite, no memory left, shapes that do not fit."""


class Verdict(StrEnum):
    """What becomes of a trial after a pass."""

    GO_ON = "go on"
    PRUNE = "prune"
    DROP = "drop"


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    state: State
    passes: list[float] = field(default_factory=list)
    """The validation metric after each pass."""
    best: float | None = None
    seconds: float = 0.0
    error: str = ""


class Leader(Protocol):
    """Decides what is trained."""

    def next_job(self) -> tuple[int, Settings] | None:
        """Number and settings of the next trial; None when no more are wanted."""

    def after_pass(self, number: int, epoch: int, value: float) -> Verdict: ...
    def ended(self, number: int, outcome: Outcome) -> None: ...


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The leader does not want another pass."""


class _Watch(Silent):
    """Asks after every pass whether to go on."""

    def __init__(self, verdict: Callable[[int, float], Verdict]) -> None:
        self.verdict = verdict
        self.passes: list[float] = []
        self.best: float | None = None
        self.last = Verdict.GO_ON

    def epoch(self, record: dict[str, float], metric_name: str, best: bool) -> None:
        del metric_name
        if "metric" not in record:  # new items are asked for, and content has yet to learn to carry them
            return
        value = record["metric"]
        self.passes.append(value)
        if best:
            self.best = value
        self.last = self.verdict(len(self.passes) - 1, value)
        if self.last != Verdict.GO_ON:
            raise _Stopped


def train_once(prepared: Prepared, settings: Settings, verdict: Callable[[int, float], Verdict]) -> Outcome:
    """One training, to its end or to the pass after which ``verdict(pass, value)`` had enough."""
    started, watch, error = time.perf_counter(), _Watch(verdict), ""
    if not prepared.has_cold_split:  # what content learns afterwards moves no validation metric
        settings = Settings.build(settings.model_dump(exclude_unset=True), {"train": {"content_passes": 0}})
    try:
        Recommender(settings).fit_prepared(prepared, display=watch)
        state = State.DONE
    except _Stopped:
        state = State.PRUNED if watch.last == Verdict.PRUNE else State.DROPPED
    except CANNOT_TRAIN as fault:
        state = State.FAILED
        error = str(fault) if isinstance(fault, PalateError) else f"{type(fault).__name__}: {fault}"
    return Outcome(state, watch.passes, watch.best, time.perf_counter() - started, error)


def train_here(leader: Leader, prepared: Prepared) -> None:
    """The leader has no more jobs; each was trained in this process."""
    while (job := leader.next_job()) is not None:
        number, settings = job

        def verdict(epoch: int, value: float, number: int = number) -> Verdict:
            return leader.after_pass(number, epoch, value)

        leader.ended(number, train_once(prepared, settings, verdict))


def train_in_processes(leader: Leader, data: Path, workers: int) -> None:
    """The leader has no more jobs; up to ``workers`` of them were trained at a time.

    A process that dies, for want of memory perhaps, is a trial that failed; another takes its place.

    Args:
        data: the folder of prepared data, which every process maps into its memory.
    """
    idle = [_Worker(data, workers) for _ in range(workers)]
    busy: dict[Connection, _Worker] = {}
    try:
        while True:
            while idle and (job := leader.next_job()) is not None:
                worker = idle.pop()
                worker.number = job[0]
                worker.line.send(job[1])
                busy[worker.line] = worker
            if not busy:
                return
            for line in wait(list(busy)):
                assert isinstance(line, Connection)
                worker = busy[line]
                try:
                    message = line.recv()
                except (EOFError, ConnectionResetError):
                    del busy[line]
                    worker.process.join()
                    error = f"Its process ended with code {worker.process.exitcode}; was there memory enough?"
                    leader.ended(worker.number, Outcome(State.FAILED, error=error))
                    idle.append(_Worker(data, workers))
                    continue
                if isinstance(message, Outcome):
                    idle.append(busy.pop(line))
                    leader.ended(worker.number, message)
                else:
                    line.send(leader.after_pass(worker.number, *message))
    finally:
        for worker in (*idle, *busy.values()):
            worker.process.kill()
            worker.process.join()


class _Worker:
    """A process that trains, and the line to it."""

    process: BaseProcess
    line: Connection
    number = -1

    def __init__(self, data: Path, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked PyTorch may wait for threads that are gone
        self.line, theirs = context.Pipe()
        threads = torch.get_num_threads()
        self.process = context.Process(target=_work, args=(theirs, data, threads, workers), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is heard


def _work(line: Connection, data: Path, threads: int, workers: int) -> None:
    """Trains whatever settings come along the line, until the process that leads is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends its workers itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", module="lightning_fabric")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    prepared = load_prepared(data)
    while True:
        settings: Settings = line.recv()
        share = max(1, (settings.train.threads or threads) // workers)
        torch.set_num_threads(share)
        train = settings.train.model_copy(update={"threads": share})

        def verdict(epoch: int, value: float) -> Verdict:
            line.send((epoch, value))
            answer: Verdict = line.recv()
            return answer

        line.send(train_once(prepared, settings.model_copy(update={"train": train}), verdict))


def _end_with_parent() -> None:
    """A worker whose leader was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
