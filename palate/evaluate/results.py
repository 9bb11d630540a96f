"""The rows of a results table, ready to be shown on the page or in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from palate.evaluate.wording import (
    OURS,
    decimals,
    higher_is_better,
    nearest_cutoff,
    number,
    ranker_label,
    seconds,
)

Verdict = Literal["", "worse", "better", "open"]
"""A baseline beside ours: certainly worse, certainly better, or open; empty where it was not tested."""

MARKS: dict[Verdict, tuple[str, str]] = {
    "": ("", ""),
    "worse": ("▾", "certainly worse than Palate"),
    "better": ("▴", "certainly better than Palate"),
    "open": ("≈", "not certain"),
}
LEGEND = ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.values() if mark)


@dataclass(frozen=True)
class Cell:
    text: str
    interval: str
    best: bool
    verdict: Verdict = ""

    @property
    def mark(self) -> str:
        return MARKS[self.verdict][0]

    @property
    def meaning(self) -> str:
        return MARKS[self.verdict][1]


@dataclass(frozen=True)
class Row:
    name: str
    description: str
    ours: bool
    cells: tuple[Cell, ...]
    fit: str
    score: str


@dataclass(frozen=True)
class Results:
    columns: tuple[str, ...]
    """Written metrics."""
    rows: tuple[Row, ...]
    """Ours first, then ours when told more, then the baselines from the best by the first column."""
    tested: bool


def rivals(judgement: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """All that stands beside ours: the traditional methods and the references, by name."""
    return {**judgement.get("baselines", {}), **judgement.get("references", {})}


def main_metrics(judgement: Mapping[str, Any]) -> list[str]:
    """The few metrics that tell most: NDCG and hit rate near 10, recall near 20, MRR near 10."""
    names = judgement.get("metrics", {})
    wanted = (("ndcg", 10), ("hit_rate", 10), ("recall", 20), ("mrr", 10))
    found = [nearest_cutoff(names, metric, k) for metric, k in wanted]
    return [name for name in found if name] or list(names)[:4]


def all_metrics(judgement: Mapping[str, Any]) -> list[str]:
    """Every metric of ranks and of lists that ours has, in the order given."""
    return [*judgement.get("metrics", {}), *judgement.get("lists", {})]


def results(judgement: Mapping[str, Any], columns: Sequence[str]) -> Results:
    """The table of these metrics; a metric that a ranker lacks is a dash."""
    informed = judgement.get("informed", {})
    keys = ["", *informed, *_by_first_column(judgement, columns)]
    measured = {key: _measured(judgement, key) for key in keys}
    cells: dict[str, list[Cell]] = {key: [] for key in keys}
    for metric in columns:
        values = [measured[key][metric]["value"] for key in keys if metric in measured[key]]
        digits = decimals(values)
        fair = [
            measured[key][metric]["value"] for key in keys if key not in informed and metric in measured[key]
        ]
        best = (max if higher_is_better(metric) else min)(fair, default=None)
        for key in keys:
            found = measured[key].get(metric)
            verdict = _verdict(judgement, key, metric)
            cells[key].append(_cell(found, digits, None if key in informed else best, verdict))
    rows = tuple(_row(judgement, key, tuple(cells[key])) for key in keys)
    tested = any(cell.verdict for row in rows for cell in row.cells)
    return Results(tuple(columns), rows, tested)


def _by_first_column(judgement: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    baselines = rivals(judgement)
    if not columns:
        return list(baselines)
    sign = -1.0 if higher_is_better(columns[0]) else 1.0
    missing = {"value": sign * math.inf}
    return sorted(
        baselines, key=lambda name: sign * _measured(judgement, name).get(columns[0], missing)["value"]
    )


def _measured(judgement: Mapping[str, Any], key: str) -> dict[str, Mapping[str, float]]:
    """Metrics of ranks and of lists of one ranker ("" is ours), each with ``value``, maybe an interval."""
    if key in judgement.get("informed", {}):
        ranks, lists = judgement["informed"][key]["metrics"], judgement["informed"][key]["lists"]
    elif key:
        ranks = rivals(judgement)[key]
        lists = judgement.get("baseline_lists", {}).get(key, {})
    else:
        ranks, lists = judgement.get("metrics", {}), judgement.get("lists", {})
    return {**ranks, **{name: {"value": value} for name, value in lists.items()}}


def _cell(found: Mapping[str, float] | None, digits: int, best: float | None, verdict: Verdict) -> Cell:
    if found is None:
        return Cell("–", "", False)
    interval = ""
    if "low" in found and "high" in found:
        interval = f"{number(found['low'], digits)}–{number(found['high'], digits)}"
    return Cell(number(found["value"], digits), interval, found["value"] == best, verdict)


def _verdict(judgement: Mapping[str, Any], key: str, metric: str) -> Verdict:
    test = judgement.get("comparisons", {}).get(key, {}).get(metric)
    if test is None:
        return ""
    if test["low"] <= 0 <= test["high"]:
        return "open"
    ours_above = test["low"] > 0
    return "worse" if ours_above == higher_is_better(metric) else "better"


def _row(judgement: Mapping[str, Any], key: str, cells: tuple[Cell, ...]) -> Row:
    if key in judgement.get("informed", {}):
        found = judgement["informed"][key]
        times, description, name = found["seconds"], found["description"], ranker_label(key)
    elif key:
        times = judgement.get("baseline_seconds", {}).get(key, {})
        description = judgement.get("baseline_descriptions", {}).get(key, "")
        name = ranker_label(key)
    else:
        times, description, name = judgement.get("seconds", {}), "", OURS
    return Row(name, description, not key, cells, seconds(times.get("fit")), seconds(times.get("score")))
