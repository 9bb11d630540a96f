"""What is kept of a trial, and the file of all trials: the memory of a study."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from palate.errors import BundleError


class State(StrEnum):
    """How a trial ended."""

    DONE = "done"
    """Trained to its end."""
    PRUNED = "pruned"
    """Stopped early, because most others were better after as many passes."""
    FAILED = "failed"
    """Training could not go on with these settings."""
    DROPPED = "dropped"
    """Time was up: it counts for nothing and is made again when the study goes on."""


@dataclass(frozen=True)
class Trial:
    """One training with settings of its own. Number 0 has the current settings."""

    number: int
    state: State
    value: float | None
    """The best validation metric of its passes; None where there is none."""
    values: Mapping[str, Any]
    """The searched settings by dotted name, as JSON has them."""
    passes: list[float] = field(default_factory=list)
    """The validation metric after each pass."""
    seconds: float = 0.0
    error: str = ""


class TrialFile:
    """``trials.jsonl``: a line per finished trial, in the order in which they ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Trial]:
        """All trials that ended; a last line that a crash cut off is no trial.

        Raises:
            BundleError: another line cannot be read.
        """
        if not self.path.exists():
            return []
        whole = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last is cut off
        trials = []
        for place, line in enumerate(whole, 1):
            try:
                tree = json.loads(line)
                trials.append(Trial(**{**tree, "state": State(tree["state"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise BundleError(
                    f"{self.path}, line {place} is damaged ({error}). Without it the trial is made again."
                ) from None
        return trials

    def write(self, trials: Iterable[Trial]) -> None:
        """The file holds these trials and nothing else."""
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text("".join(_line(trial) for trial in trials), encoding="utf-8")
        partial.replace(self.path)

    def add(self, trial: Trial) -> None:
        """The trial stands at the end, also after a power cut."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(trial))
            file.flush()
            os.fsync(file.fileno())


def best_of(trials: Iterable[Trial], smaller_is_better: bool) -> Trial | None:
    """The best of the trials that were trained to their end; of equals the first, so 0 before all."""
    done = [trial for trial in trials if trial.state == State.DONE and trial.value is not None]
    sign = 1.0 if smaller_is_better else -1.0
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def _line(trial: Trial) -> str:
    return json.dumps(asdict(trial), ensure_ascii=False) + "\n"
