"""What a person sees while files are decoded, and while a model trains: bars with speed and time left."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Display(Protocol):
    """Told by the training loop what happens."""

    def start(self, total_steps: int, done_steps: int, unit: str) -> None: ...
    def step(self, epoch: int, loss: float, units_per_second: float) -> None: ...
    def epoch(self, record: dict[str, float], metric_name: str, best: bool) -> None: ...
    def stop(self, reason: str) -> None: ...


class Silent:
    """Shows nothing."""

    def start(self, total_steps: int, done_steps: int, unit: str) -> None:
        del total_steps, done_steps, unit

    def step(self, epoch: int, loss: float, units_per_second: float) -> None:
        del epoch, loss, units_per_second

    def epoch(self, record: dict[str, float], metric_name: str, best: bool) -> None:
        del record, metric_name, best

    def stop(self, reason: str) -> None:
        del reason


class Shown:
    """Has a bar, which goes away whatever happens."""

    bar: Progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


class Bar(Shown):
    """A Rich progress bar, and a line per pass above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.metric = ""
        self.bar = Progress(
            TextColumn("[bold]pass {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  {task.fields[metric]}  "
                "{task.fields[speed]:,.0f} {task.fields[unit]}/s"
            ),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task(
            "train", total=None, epoch=1, loss=float("nan"), metric="", speed=0.0, unit=""
        )

    def start(self, total_steps: int, done_steps: int, unit: str) -> None:
        self.bar.update(self.task, total=total_steps, completed=done_steps, unit=unit)
        self.bar.start()

    def step(self, epoch: int, loss: float, units_per_second: float) -> None:
        self.bar.update(
            self.task, advance=1, epoch=epoch + 1, loss=loss, metric=self.metric, speed=units_per_second
        )

    def epoch(self, record: dict[str, float], metric_name: str, best: bool) -> None:
        line = f"pass {record['epoch'] + 1:3.0f}  loss {record['loss']:.4f}"
        if "metric" in record:
            self.metric = f"{metric_name} {record['metric']:.4f}"
            line += f"  validation {self.metric}{' *' if best else ''}"
        self.bar.console.print(f"{line}  {record['seconds']:.1f} s", highlight=False)

    def stop(self, reason: str) -> None:
        self.bar.stop()
        self.console.print(reason, highlight=False)


class FilesBar(Shown):
    """A Rich progress bar for each field whose files are decoded; gone when all are done.

    Args:
        before: is called before the first bar is shown, to take away what is in its place.
    """

    def __init__(self, console: Console, before: Callable[[], None] | None = None) -> None:
        self.before = before
        self.tasks: dict[str, TaskID] = {}
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def told(self, name: str, done: int, files: int) -> None:
        """So many files of this field are done."""
        if name not in self.tasks:
            if not self.tasks and self.before is not None:
                self.before()
            self.tasks[name] = self.bar.add_task(f"files of {escape(name)}", total=files)
            self.bar.start()
        self.bar.update(self.tasks[name], completed=done)
        if self.bar.finished:
            self.bar.stop()  # another bar may follow
