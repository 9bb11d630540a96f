"""A run as one HTML file: the answer first, then everything it rests on.

The page asks no host for anything, needs no script, follows the light or dark scheme of the reader,
and can be printed. Whatever a record lacks is left out of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from palate.evaluate.headline import class_headline, headline
from palate.evaluate.results import LEGEND, all_metrics, main_metrics, results
from palate.evaluate.wording import (
    CLASS_METRICS,
    METRICS,
    ORDERS,
    OURS,
    class_protocol,
    count,
    metric_label,
    metric_of,
    number,
    protocol_line,
    ranker_label,
    seconds,
)
from palate.explain.fidelity import SHARES

LONGEST_HISTORY = 8
"""Latest events of a person that an example shows."""


@dataclass(frozen=True)
class RunRecord:
    """What is kept of a run: JSON-able numbers and texts, all but the name optional in content."""

    name: str
    version: str
    created: str
    """ISO 8601."""
    settings: dict[str, Any] = field(default_factory=dict)
    """``Settings.model_dump(mode="json")``."""
    machine: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    """The data report of a prepared data set (``palate.data.survey``)."""
    training: list[dict[str, Any]] = field(default_factory=list)
    """One mapping per pass: ``loss``, ``metric`` where it was measured, ``seconds``."""
    metric_name: str = "ndcg@10"
    judgements: list[dict[str, Any]] = field(default_factory=list)
    """The first is the main one. ``comparisons`` hold the differences ours − baseline."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    """Judgements of how items are classified (``palate.evaluate.classes``)."""
    reasons: dict[str, Any] = field(default_factory=dict)
    """How faithful the reasons are (``palate.evaluate.faithful``)."""


def write_report(path: Path, record: RunRecord) -> None:
    """``path`` holds the report of the run, one HTML file in UTF-8; its folder exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(record), encoding="utf-8")


def render(record: RunRecord) -> str:
    """The report of the run as HTML."""
    from palate.evaluate import figures
    from palate.evaluate.svg import numbered

    environment = Environment(
        loader=PackageLoader("palate", "evaluate"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=count, metric=metric_label, seconds=seconds, plain=_plain, percent=_percent, numbered=numbered
    )
    main = record.judgements[0] if record.judgements else {}
    evaluation = record.settings.get("evaluate", {})
    if record.classes and not record.judgements:
        answer, protocol = class_headline(record.classes[0]), class_protocol(record.classes[0])
    else:
        confidence = evaluation.get("confidence", 0.95)
        answer = headline(main, record.data.get("target_events", ()), confidence)
        protocol = protocol_line(main)
    return environment.get_template("report.html.jinja").render(
        record=record,
        data=record.data,
        headline=answer,
        protocol=protocol,
        judgements=[_judgement(judgement) for judgement in record.judgements],
        classes=[_classes(judgement) for judgement in record.classes],
        legend=LEGEND,
        ours=OURS,
        reasons=_reasons(record.reasons),
        training=figures.training_curves(record.training, record.metric_name),
        training_seconds=sum(entry.get("seconds", 0.0) for entry in record.training),
        funnel=figures.funnel(record.data),
        figures=figures.distributions(record.data),
        examples=[_example(example) for example in record.examples],
        settings=_sections(record.settings),
        glossary=_glossary(record.judgements),
    )


def _judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    from palate.evaluate import figures

    main = main_metrics(judgement)
    return {
        "title": judgement.get("title", ""),
        "protocol": protocol_line({**judgement, "title": ""}),
        "main": results(judgement, main),
        "all": results(judgement, all_metrics(judgement)),
        "bars": figures.bars(judgement),
        "segments": figures.segment_dots(judgement.get("segments", [])),
        "events_seen": figures.events_seen(judgement),
        "skipped": [(ranker_label(name), reason) for name, reason in judgement.get("skipped", {}).items()],
    }


def _classes(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """The section of one predicted field: every way to tell it, then ours class by class."""
    from palate.evaluate import figures

    rows = {"palate": judgement, **judgement.get("baselines", {})}
    return {
        "field": judgement.get("field", ""),
        "protocol": class_protocol(judgement),
        "metrics": list(CLASS_METRICS.values()),
        "rows": [
            {
                "name": ranker_label(name),
                "ours": name == "palate",
                "description": row.get("description", ""),
                "values": [
                    number(row["metrics"][metric], 3) if metric in row["metrics"] else "–"
                    for metric in CLASS_METRICS
                ],
                "fit": seconds(row.get("seconds")),
            }
            for name, row in rows.items()
        ],
        "classes": [
            {**entry, **{name: number(entry[name], 3) for name in ("precision", "recall", "f1")}}
            for entry in judgement.get("classes", [])
        ],
        "unseen": judgement.get("unseen", 0),
        "skipped": [(ranker_label(name), reason) for name, reason in judgement.get("skipped", {}).items()],
        "picture": figures.confusions(judgement),
    }


def _reasons(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section of reasons: by order of the events both areas, beside those of the shares' order."""
    from palate.evaluate import figures

    if not told.get("people"):
        return None
    numbers = told["by_number"]
    return {
        "k": told["k"],
        "people": told["people"],
        "most": numbers["levels"][-1],
        "rows": [
            {
                "name": label,
                "ours": order == SHARES,
                "cells": [_area(numbers[kind][order]) for kind in ("deletion", "insertion")],
            }
            for order, label in ORDERS.items()
            if order in numbers["deletion"]
        ],
        "agreement": _agreement(told.get("agreement")),
        "figures": figures.faithful(told),
    }


def _agreement(told: Mapping[str, float] | None) -> str:
    if told is None:
        return ""
    return f"{number(told['value'], 2)} ({number(told['low'], 2)} to {number(told['high'], 2)})"


def _area(row: Mapping[str, Any]) -> dict[str, str]:
    """An area with its interval, and how the order by shares differs from it."""
    test = row.get("difference")
    return {
        "text": number(row["area"], 3),
        "interval": f"{number(row['low'], 3)} to {number(row['high'], 3)}",
        "difference": ""
        if test is None
        else f"{test['difference']:+.3f} ({test['low']:+.3f} to {test['high']:+.3f})",
    }


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    """The card of one person; what was recommended and then taken is marked."""
    history = [_thing(thing) for thing in example.get("history", [])]
    taken = [_thing(thing) for thing in example.get("then", [])]
    names = {name for thing in taken for name in (thing["item"], thing["title"]) if name}
    recommended = [_thing(thing) for thing in example.get("recommended", [])]
    return {
        "person": example.get("person", ""),
        "earlier": max(0, len(history) - LONGEST_HISTORY),
        "history": history[-LONGEST_HISTORY:],
        "recommended": [
            {**thing, "hit": bool(names & {thing["item"], thing["title"]} - {""})} for thing in recommended
        ],
        "taken": taken,
    }


def _thing(thing: Any) -> dict[str, Any]:
    """An item with ``item`` and ``title`` as text, whether it came as a mapping or as a bare title."""
    if not isinstance(thing, Mapping):
        thing = {"title": thing}
    texts = {name: "" if thing.get(name) is None else str(thing[name]) for name in ("item", "title")}
    return {**thing, **texts, "shown": texts["title"] or texts["item"]}


def _sections(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[tuple[str, Any]]]]:
    """Settings as sections of names and values; a nested section is one of its own."""
    own = [(name, value) for name, value in settings.items() if not isinstance(value, Mapping)]
    found = [(prefix or "run", own)] if own else []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _sections(value, f"{prefix}.{name}" if prefix else name)
    return found


def _glossary(judgements: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The metrics that occur, each with one sentence."""
    used = {metric_of(name)[0] for judgement in judgements for name in all_metrics(judgement)}
    return [words for name, words in METRICS.items() if name in used]


def _plain(value: Any) -> str:
    """A setting's value as it would be written."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return str(value)


def _percent(share: float) -> str:
    digits = next((n for n in range(4) if abs(share) * 100 >= 10.0 ** (1 - n)), 3)
    return f"{number(100 * share, digits)}%"
