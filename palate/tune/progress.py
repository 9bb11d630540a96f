"""What a person sees while settings are searched: one bar with trials, the best value and the time left."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class SearchDisplay(Protocol):
    """Told by a search what happens."""

    def tell(self, text: str) -> None: ...
    def count(self, done: int, best: float | None) -> None: ...


class SilentSearch:
    """Shows nothing."""

    def tell(self, text: str) -> None:
        del text

    def count(self, done: int, best: float | None) -> None:
        del done, best


class SearchBar:
    """A Rich progress bar."""

    def __init__(self, console: Console, trials: int | None) -> None:
        self.bar = Progress(
            TextColumn("[bold]search"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}  {task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task("search", total=trials, best="–", text="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def tell(self, text: str) -> None:
        self.bar.update(self.task, text=text)

    def count(self, done: int, best: float | None) -> None:
        self.bar.update(self.task, completed=done, best="–" if best is None else f"{best:.4f}")
