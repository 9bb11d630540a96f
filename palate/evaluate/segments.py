"""The main metrics of parts of the questions: short and long histories, popular and rare items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.evaluate.significance import bootstrap_intervals
from palate.schema import BoolArray, FloatArray, IntArray, Questions
from palate.settings import EvaluateSettings


@dataclass(frozen=True)
class Segment:
    """The main metrics of some of the questions."""

    group: str
    """``history length``, ``item popularity``, ``item`` or ``event``."""
    name: str
    questions: int
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def summary(
    values: dict[str, FloatArray], settings: EvaluateSettings, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    table = np.column_stack(list(values.values()))
    bounds = bootstrap_intervals(
        table, resamples=settings.bootstrap, confidence=settings.confidence, seed=seed
    )
    means = dict(zip(values, table.mean(axis=0).tolist(), strict=True))
    return means, {name: (float(low), float(high)) for name, (low, high) in zip(values, bounds, strict=True)}


def segments(
    values: dict[str, FloatArray],
    questions: Questions,
    popularity: IntArray,
    event_names: Sequence[str],
    settings: EvaluateSettings,
    seed: int,
) -> tuple[Segment, ...]:
    """The main metrics (ndcg and hit rate at the cut-off nearest to 10) by history and by next item.

    History length: up to four parts of about equal size. Popularity of the next item: *head* is the
    fifth of the warm items with the most training events, *tail* the other warm items, *cold* the rest.
    Event: the type in which the next item was met, where there is more than one.
    """
    k = min(settings.cutoffs, key=lambda cutoff: (abs(cutoff - 10), cutoff))
    main = {name: values[name] for name in (f"ndcg@{k}", f"hit_rate@{k}")}
    next_item = questions.target_items[questions.target_offsets[:-1]]
    events = popularity[next_item]
    head = _is_head(popularity)[next_item]
    parts: list[tuple[str, str, BoolArray]] = [
        *segments_by_length(questions.histories.lengths),
        ("item popularity", "head (the most popular fifth)", head),
        ("item popularity", "tail", ~head & (events > 0)),
        ("item", "warm", events > 0),
        ("item", "cold", events == 0),
    ]
    next_event = questions.target_events[questions.target_offsets[:-1]]
    types = np.unique(next_event)
    if len(types) > 1:
        parts += [("event", event_names[code], next_event == code) for code in types]
    rows = []
    for group, name, chosen in parts:
        if chosen.any():
            means, bounds = summary({key: value[chosen] for key, value in main.items()}, settings, seed)
            rows.append(Segment(group, name, int(chosen.sum()), means, bounds))
    return tuple(rows)


def segments_by_length(lengths: IntArray) -> Sequence[tuple[str, str, BoolArray]]:
    """Group, name and mask of up to four parts of about equal size, for example "1–5"."""
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1.0], method="lower"))
    parts, low = [], int(lengths.min())
    for edge in edges.tolist():
        name = f"{low}–{edge}" if low < edge else f"{edge}"
        parts.append(("history length", name, (lengths >= low) & (lengths <= edge)))
        low = edge + 1
    return parts


def _is_head(popularity: IntArray) -> BoolArray:
    """The most popular fifth of the items with training events, bool [V]."""
    warm = np.flatnonzero(popularity)
    size = int(np.ceil(len(warm) / 5))
    head = np.zeros(len(popularity), np.bool_)
    head[warm[np.argsort(-popularity[warm], kind="stable")[:size]]] = True
    return head
