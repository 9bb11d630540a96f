"""Which pictures a report has, made from the parts of a record; what is absent gives no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from palate.evaluate.charts import (
    Curve,
    Measured,
    bar_chart,
    column_chart,
    confusion_chart,
    curve_chart,
    dot_plot,
    funnel_chart,
    line_chart,
    share_curve,
)
from palate.evaluate.results import rivals
from palate.evaluate.wording import (
    ORDERS,
    OURS,
    count,
    higher_is_better,
    metric_label,
    nearest_cutoff,
    ranker_label,
)
from palate.explain.fidelity import SHARES

MOST_CLASSES = 20
"""Classes that a picture of confusions shows: the most frequent."""
BEST_RIVALS = 3
"""Other methods in the curve by events seen."""


@dataclass(frozen=True)
class Figure:
    title: str
    svg: Markup
    caption: str = ""


def bars(judgement: Mapping[str, Any]) -> list[Figure]:
    """NDCG near 10 and recall near 20 of every ranker, with intervals, the best on top."""
    figures = []
    names = judgement.get("metrics", {})
    for metric in (nearest_cutoff(names, "ndcg", 10), nearest_cutoff(names, "recall", 20)):
        if metric is None:
            continue
        rows = [_measured(OURS, judgement["metrics"][metric], True)]
        rows += [
            _measured(ranker_label(name), values[metric], False)
            for name, values in rivals(judgement).items()
            if metric in values
        ]
        rows.sort(key=lambda row: -row.value)
        label = metric_label(metric)
        figures.append(Figure(label, bar_chart(label, rows)))
    return figures


def _measured(name: str, found: Mapping[str, float], ours: bool) -> Measured:
    return Measured(name, found["value"], found.get("low"), found.get("high"), ours)


def confusions(judgement: Mapping[str, Any]) -> Figure | None:
    """Which classes were taken for which others."""
    names = [entry["name"] for entry in judgement.get("classes", [])]
    if not names:
        return None
    shown = names[:MOST_CLASSES]
    caption = "Of the items with the label of a row, the share in % that was given the label of the column."
    if len(shown) < len(names):
        caption += f" The {len(shown)} most frequent of {count(len(names))} labels."
    shares = [row[: len(shown)] for row in judgement["confusion"][: len(shown)]]
    title = str(judgement.get("field", ""))
    return Figure(f"Given, by what they are: {title}", confusion_chart(title, shown, shares), caption)


def segment_dots(segments: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """One dot plot for each group of segments, all on the same axis."""
    metric = nearest_cutoff([name for segment in segments for name in segment["means"]], "ndcg")
    groups: dict[str, list[Measured]] = {}
    remarks: dict[str, str] = {}
    for segment in segments:
        if metric not in segment["means"]:
            continue
        name, _, remark = segment["name"].partition(" (")
        if remark:
            remarks[segment["group"]] = f"{name}: {remark.rstrip(')')}"
        low, high = segment.get("intervals", {}).get(metric, (None, None))
        note = f"{count(segment['questions'])} people"
        row = Measured(name, segment["means"][metric], low, high, note=note)
        groups.setdefault(segment["group"], []).append(row)
    all_rows = [row for rows in groups.values() for row in rows]
    top = 1.04 * max([*(row.high or row.value for row in all_rows), 1e-9])
    names = [row.name for row in all_rows]
    return [
        Figure(
            f"{metric_label(str(metric))} by {group}",
            dot_plot(group, rows, top, names),
            remarks.get(group, ""),
        )
        for group, rows in groups.items()
    ]


def events_seen(judgement: Mapping[str, Any]) -> Figure | None:
    """How good the answers are by how much is known of a person, beside the best other methods."""
    found = judgement.get("events_seen", {})
    rows = found.get("rows", {})
    ours = next((name for name in rows if name not in rivals(judgement)), None)
    if ours is None:
        return None
    others = sorted((name for name in rows if name != ours), key=lambda name: -rows[name][-1]["value"])
    shown = [ours, *others[:BEST_RIVALS]]
    curves = [
        Curve(ranker_label(name), [point["value"] for point in rows[name]], name == ours) for name in shown
    ]
    title = f"{metric_label(found['metric'])} by events seen"
    places = [str(point["events"]) for point in rows[ours]]
    caption = f"The same {count(found['people'])} people, of whom only the last events are known."
    return Figure(title, curve_chart(title, places, curves, "events seen of the person"), caption)


def faithful(told: Mapping[str, Any]) -> list[Figure]:
    """How many recommendations are in the list, by how much of the history is gone, or there."""
    titles = {"deletion": "Still recommended", "insertion": "Already recommended"}
    labels = {"deletion": "events taken away", "insertion": "events put in"}
    numbers = told["by_number"]
    places = [str(level) for level in numbers["levels"]]
    return [
        Figure(
            title,
            curve_chart(
                title,
                places,
                [Curve(ORDERS[name], row["curve"], name == SHARES) for name, row in numbers[kind].items()],
                labels[kind],
            ),
        )
        for kind, title in titles.items()
    ]


def training_curves(training: Sequence[Mapping[str, Any]], metric_name: str) -> list[Figure]:
    metrics = [entry.get("metric") for entry in training]
    measured = [(value, place) for place, value in enumerate(metrics, 1) if value is not None]
    best = None
    if measured:
        better = 1.0 if higher_is_better(metric_name) else -1.0
        best = max(measured, key=lambda pair: (better * pair[0], -pair[1]))[1]
    curves = (
        ("Training loss", [entry.get("loss") for entry in training], None),
        (f"Validation {metric_label(metric_name)}", metrics, best),
    )
    return [
        Figure(title, line_chart(title, values, marked, "pass over the training data"))
        for title, values, marked in curves
        if any(value is not None for value in values)
    ]


def funnel(data: Mapping[str, Any]) -> Figure | None:
    """The rules that took events, in their order; rules that count something else are not among them.

    Found from the end: before a rule there were as many events as it left and took together.
    """
    kept = data.get("after", {}).get("events")
    if kept is None or not data.get("rules"):
        return None
    steps: list[tuple[str, int]] = []
    events = kept
    for rule in reversed(data["rules"]):
        if rule.get("removed") and rule.get("remaining") == events:
            steps.insert(0, (rule["rule"], rule["removed"]))
            events += rule["removed"]
    title = "From the rows read to the events kept"
    return Figure(title, funnel_chart(title, steps, kept))


def distributions(data: Mapping[str, Any]) -> list[Figure]:
    drawn: list[Figure] = []
    if bins := data.get("history_lengths"):
        title = "Events per person"
        some = [place for place, b in enumerate(bins) if b["people"]]
        bins = bins[min(some, default=0) : max(some, default=0) + 1]
        labels = [
            count(b["from"]) if b["from"] == b["to"] else f"{count(b['from'])}–{count(b['to'])}" for b in bins
        ]
        caption = f"Median {data['median_history']:g} events." if "median_history" in data else ""
        drawn.append(Figure(title, column_chart(title, labels, [b["people"] for b in bins]), caption))
    if months := data.get("months"):
        title = "Events per month"
        labels = [month["month"] for month in months]
        borders = _borders(data.get("split", {}), labels)
        caption = "" if borders else "The split is not by date, so training and test share the months."
        counts = [month["events"] for month in months]
        drawn.append(Figure(title, column_chart(title, labels, counts, borders), caption))
    if points := data.get("popularity"):
        title = "How few items hold most events"
        drawn.append(Figure(title, share_curve(title, points)))
    return drawn


def _borders(split: Mapping[str, Any], months: Sequence[str]) -> list[tuple[float, str]]:
    """Where the validation and test periods begin, on an axis where month m spans m ± ½."""
    found = []
    for part in ("validation", "test"):
        date = str(split.get(f"{part}_from", ""))
        if date[:7] in months:
            day = int(date[8:10] or 1) - 1
            found.append((months.index(date[:7]) - 0.5 + day / 31, f"{part} from {date[:10]}"))
    return found
