"""What every peer's driver shares: the split, the judgement, the lines it prints. NumPy and nothing else."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

K = 10
Ranks = np.ndarray
"""float [U]: the rank of each person's target; infinite where all that is known is that it is beyond K."""


@dataclass(frozen=True)
class Split:
    """See ``split.py``."""

    offsets: np.ndarray
    item: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    items: int

    @staticmethod
    def read(path: Path) -> Split:
        with np.load(path) as kept:
            return Split(
                **{name: kept[name] for name in kept.files if name != "items"}, items=int(kept["items"])
            )

    @property
    def people(self) -> int:
        return len(self.offsets) - 1

    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.people), np.diff(self.offsets))

    def events(self, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Person, item and place of everything known when ``part`` is asked: for test, validation too."""
        person, item = self.rows(), self.item
        place = np.arange(len(item)) - self.offsets[person]
        if part == "test":
            everyone = np.arange(self.people)
            person, item = np.append(person, everyone), np.append(item, self.validation)
            place = np.append(place, np.diff(self.offsets))
        order = np.lexsort((place, person))
        return person[order], item[order], place[order]

    def ranks_of(self, score: Callable[[np.ndarray], np.ndarray], part: str, chunk: int = 512) -> Ranks:
        """Ranks by a scorer [people of the chunk, I], over the whole catalogue without what was met.

        rank = 1 + number better + half of the equal others; a target that scores −∞ is equal to all else
        that does. As ``palate.evaluate.ties.tied_ranks`` has it, which a test compares.

        Raises:
            ValueError: a score is not a number.
        """
        person, item, _ = self.events(part)
        bounds = np.searchsorted(person, np.arange(self.people + 1))
        wanted, ranks = getattr(self, part), np.empty(self.people)
        for start in range(0, self.people, chunk):
            rows = np.arange(start, min(start + chunk, self.people))
            scores = np.array(score(rows), dtype=np.float32)
            if np.isnan(scores).any():
                raise ValueError(f"Scores of people {rows[0]} to {rows[-1]} are not numbers.")
            met = slice(bounds[rows[0]], bounds[rows[-1] + 1])
            seen = np.zeros(scores.shape, bool)
            seen[person[met] - start, item[met]] = True
            scores[seen] = -np.inf
            level = scores[np.arange(len(rows)), wanted[rows], None]
            better = np.count_nonzero(scores > level, axis=1)
            equal = np.count_nonzero((scores == level) & ~seen, axis=1)
            ranks[rows] = better + (equal + 1) / 2
        return ranks

    def ranks_in(self, lists: np.ndarray, part: str) -> Ranks:
        """Ranks in lists int [U, K] of items, best first, none met before; −1 where there is none."""
        hits = lists == getattr(self, part)[:, None]
        return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)


def metrics(ranks: Ranks) -> dict[str, float]:
    """NDCG@10 and HR@10 of one target per person: 1 / log2(rank + 1), and whether it is shown."""
    shown = ranks <= K
    return {
        "ndcg@10": float(np.where(shown, 1 / np.log2(ranks + 1), 0).mean()),
        "hr@10": float(shown.mean()),
    }


def settings_of(*names: str) -> dict[str, Any]:
    """A table of ``settings.toml``."""
    table: dict[str, Any] = tomllib.loads(
        (Path(__file__).parent / "settings.toml").read_text(encoding="utf-8")
    )
    for name in names:
        table = table[name]
    return table


def arguments(description: str) -> argparse.ArgumentParser:
    """What every driver is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--max-seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--steps", type=int, help="time so many training steps and estimate the epoch from them"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def say(**event: Any) -> None:
    """One line of JSON."""
    print(json.dumps(event), flush=True)


def train_and_judge(
    options: argparse.Namespace,
    train_epoch: Callable[[int], None],
    ranks: Callable[[str], Ranks],
    parameters: Callable[[], int],
) -> None:
    """Epoch after epoch, each judged on validation, until patience or time ends; test at every new best.

    Test figures are printed for the epoch that validation chose, and choose nothing.
    """
    best, best_epoch, test, spent, scoring = -1.0, -1, {}, 0.0, []
    for epoch in range(options.epochs):
        started = time.perf_counter()
        train_epoch(epoch)
        trained = time.perf_counter()
        found = metrics(ranks("validation"))
        judged = time.perf_counter()
        spent += trained - started
        scoring.append(judged - trained)
        say(
            event="epoch",
            epoch=epoch,
            train_seconds=trained - started,
            validation_seconds=judged - trained,
            **found,
        )
        if found["ndcg@10"] > best:
            best, best_epoch, test = found["ndcg@10"], epoch, metrics(ranks("test"))
        if epoch - best_epoch >= options.patience or spent > options.max_seconds:
            break
    say(
        event="done",
        best_epoch=best_epoch,
        validation_ndcg=best,
        test_ndcg=test.get("ndcg@10"),
        test_hr=test.get("hr@10"),
        score_seconds=float(np.median(scoring)),
        peak_mb=peak_mb(),
        parameters=parameters(),
    )


@dataclass(frozen=True)
class Trial:
    """A model without passes, fitted once with one of several settings."""

    settings: dict[str, float]
    fit: Callable[[], Callable[[str], Ranks]]
    """Fits, and gives the ranks of a part."""
    parameters: int


def best_of(trials: list[Trial]) -> None:
    """The trial that is best on validation, printed as the only pass; test is asked of that one alone."""
    best = -1.0
    for trial in trials:
        started = time.perf_counter()
        ranks = trial.fit()
        fitted = time.perf_counter()
        found = metrics(ranks("validation"))
        judged = time.perf_counter()
        tried = {"train_seconds": fitted - started, "validation_seconds": judged - fitted, **found}
        say(event="trial", **tried, **trial.settings)
        if found["ndcg@10"] > best:
            best, chosen, pass_of_chosen, ranks_of_chosen = found["ndcg@10"], trial, tried, ranks
    test = metrics(ranks_of_chosen("test"))
    say(event="epoch", epoch=0, **pass_of_chosen)
    say(
        event="done",
        best_epoch=0,
        validation_ndcg=best,
        test_ndcg=test["ndcg@10"],
        test_hr=test["hr@10"],
        score_seconds=pass_of_chosen["validation_seconds"],
        peak_mb=peak_mb(),
        parameters=chosen.parameters,
        chosen=chosen.settings,
    )


def peak_mb(process: int | str = "self") -> float:
    """Largest memory of a process so far, in MB; 0 if it has ended.

    The kernel's own mark where it is given: ``ru_maxrss`` begins with the size of the process that
    started this one.
    """
    status = Path(f"/proc/{process}/status")
    if Path("/proc/self/status").exists():
        try:
            marks = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return int(marks[0][1]) / 1024 if marks else 0.0
    unit = 1024**2 if sys.platform == "darwin" else 1024
    who = resource.RUSAGE_SELF if process == "self" else resource.RUSAGE_CHILDREN
    return resource.getrusage(who).ru_maxrss / unit
