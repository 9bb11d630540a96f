"""What a person sees while settings are searched: one bar with trials, the best so far and the time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from palate.evaluate.wording import seconds
from palate.train.progress import Shown
from palate.tune.trials import State, Trial

A_DAY = 86_400.0


class TuneDisplay(Protocol):
    """Told by a study what happens."""

    def start(
        self,
        metric: str,
        wanted: int | None,
        minutes: float | None,
        trials: Sequence[Trial],
        best: Trial | None,
    ) -> None: ...
    def passed(self, number: int, epoch: int, value: float) -> None: ...
    def ended(self, trial: Trial, best: Trial | None) -> None: ...
    def stop(self) -> None: ...


class SilentSearch:
    """Shows nothing."""

    def start(
        self,
        metric: str,
        wanted: int | None,
        minutes: float | None,
        trials: Sequence[Trial],
        best: Trial | None,
    ) -> None:
        del metric, wanted, minutes, trials, best

    def passed(self, number: int, epoch: int, value: float) -> None:
        del number, epoch, value

    def ended(self, trial: Trial, best: Trial | None) -> None:
        del trial, best

    def stop(self) -> None:
        pass


class TimeLeft(ProgressColumn):
    """Until the trials are done at the speed so far, or until the time is up, whichever comes first."""

    def render(self, task: Task) -> Text:
        ends = [task.time_remaining]
        if task.fields["deadline"] is not None:
            ends.append(max(0.0, task.fields["deadline"] - time.monotonic()))
        known = [left for left in ends if left is not None]
        return Text(f"{seconds(min(known))} left" if known and not task.finished else "", no_wrap=True)


class SearchBar(Shown):
    """A Rich progress bar, and a line per trial above it."""

    def __init__(self, console: Console) -> None:
        self.metric = ""
        self.bar = Progress(
            TextColumn("[bold]trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[best]}"),
            TimeLeft(),
            TextColumn("[dim]{task.fields[now]}"),
            console=console,
            speed_estimate_period=A_DAY,
        )
        self.task = self.bar.add_task("search", total=None, best="", now="", deadline=None)

    def start(
        self,
        metric: str,
        wanted: int | None,
        minutes: float | None,
        trials: Sequence[Trial],
        best: Trial | None,
    ) -> None:
        self.metric = metric
        self.bar.update(
            self.task,
            total=wanted,
            completed=len(trials),
            best=self._best(best),
            deadline=None if minutes is None else time.monotonic() + 60 * minutes,
        )
        self.bar.start()

    def passed(self, number: int, epoch: int, value: float) -> None:
        self.bar.update(self.task, now=f"trial {number}, pass {epoch + 1}: {value:.4f}")

    def ended(self, trial: Trial, best: Trial | None) -> None:
        self.bar.update(self.task, advance=1, best=self._best(best))
        value = "" if trial.value is None else f"  {self.metric} {trial.value:.4f}"
        how = {
            State.PRUNED: f"stopped after pass {len(trial.passes)}",
            State.FAILED: f"failed: {trial.error}",
        }
        drawn = ", ".join(f"{name.rpartition('.')[2]} {plain(v)}" for name, v in trial.values.items())
        words = [f"trial {trial.number}{value}{' *' if trial is best else ''}", how.get(trial.state, "")]
        words += [f"{seconds(trial.seconds)}", "the current settings" if trial.number == 0 else drawn]
        self.bar.console.print(escape("  ".join(filter(None, words))), highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bar.stop()

    def _best(self, best: Trial | None) -> str:
        return "" if best is None else f"best {self.metric} {best.value:.4f} (trial {best.number})"


def plain(value: object) -> str:
    """A value on one short line."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
