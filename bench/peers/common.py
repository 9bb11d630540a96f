"""What every peer's driver shares: the split, the judgement and the lines it prints. NumPy and nothing else."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Lists = np.ndarray
"""int [U, 10]: the ten items each person is shown, best first, none met before; −1 where there is none."""


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

    def metrics(self, lists: Lists, part: str) -> dict[str, float]:
        """NDCG@10 and HR@10 of one target per person: 1 / log2(rank + 1), and whether it is shown."""
        hits = lists == getattr(self, part)[:, None]
        gain = (hits / np.log2(np.arange(2, lists.shape[1] + 2))).sum(axis=1)
        return {"ndcg@10": float(gain.mean()), "hr@10": float(hits.any(axis=1).mean())}

    def lists_of(self, score: Callable[[np.ndarray], np.ndarray], part: str, chunk: int = 512) -> Lists:
        """The lists of a scorer [people of the chunk, I], over the whole catalogue without what was met."""
        person, item, _ = self.events(part)
        bounds = np.searchsorted(person, np.arange(self.people + 1))
        lists = np.full((self.people, 10), -1)
        for start in range(0, self.people, chunk):
            rows = np.arange(start, min(start + chunk, self.people))
            scores = np.array(score(rows), dtype=np.float32)
            met = slice(bounds[rows[0]], bounds[rows[-1] + 1])
            scores[person[met] - start, item[met]] = -np.inf
            best = np.argpartition(-scores, 10, axis=1)[:, :10]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            lists[rows] = np.take_along_axis(best, order, axis=1)
        return lists


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
    split: Split,
    options: argparse.Namespace,
    train_epoch: Callable[[int], None],
    lists: Callable[[str], Lists],
) -> None:
    """Epoch after epoch, each judged on validation, until patience or time ends; test at every new best.

    Test figures are printed for the epoch that validation chose, and choose nothing.
    """
    best, best_epoch, test, spent, scoring = -1.0, -1, {}, 0.0, []
    for epoch in range(options.epochs):
        started = time.perf_counter()
        train_epoch(epoch)
        trained = time.perf_counter()
        found = split.metrics(lists("validation"), "validation")
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
            best, best_epoch, test = found["ndcg@10"], epoch, split.metrics(lists("test"), "test")
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
    )


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
