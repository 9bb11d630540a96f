"""The data report: what the cleaned and split data look like, in plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from palate.data.clean import Cleaned
from palate.data.log import count_codes
from palate.data.prepared import Asked, Prepared
from palate.errors import DataError
from palate.schema import FIRST_ID, PART_CODES, PART_UNUSED, FieldKind, IntArray, Note, Part


def survey(
    prepared: Prepared, cleaned: Cleaned, notes: tuple[Note, ...], asked: Mapping[Part, Asked]
) -> dict[str, Any]:
    """Counts and distributions as JSON-able numbers, ready to be drawn.

    ``rules``: one mapping per note. ``before``, ``after``: events, people, items, density (share of
    all person-item pairs, repeats counted). ``history_lengths``: bins of doubling width, both ends
    included. ``popularity``: points (share of items, most popular first; share of events).
    ``asked``: per part, people asked with seen items filtered, and left out by reason.

    Raises:
        DataError: no event is left for training.
    """
    histories, schema = prepared.histories, prepared.schema
    parts = _parts(prepared)
    if not parts["train"]:
        raise DataError("The split leaves no event for training. Hold out less, or use another split.kind.")
    lengths = histories.lengths[histories.lengths > 0]
    per_item = count_codes(histories.item, prepared.items.size)[FIRST_ID:]
    after = {"events": len(histories.item), "people": len(lengths), "items": int((per_item > 0).sum())}
    per_event = count_codes(histories.event, len(schema.events))
    return {
        "name": prepared.name,
        "rules": [asdict(note) for note in notes],
        "before": _with_density(cleaned.before),
        "after": _with_density(after),
        "catalogue": len(prepared.items),
        "events": {name: int(count) for name, count in zip(schema.events, per_event, strict=True)},
        "target_events": list(schema.target_events),
        "history_lengths": _doubling_bins(lengths),
        "median_history": float(np.median(lengths)),
        "months": _months(histories.time) if schema.has_time else [],
        "popularity": _popularity(per_item[per_item > 0]),
        "split": {"kind": prepared.split.kind, **_borders(cleaned)},
        "parts": parts,
        "asked": {str(part): _asked(of) for part, of in asked.items()},
        "warm_items": int(prepared.warm.sum()),
        "fields": [_field(prepared, field.name, field.kind) for field in schema.fields],
    }


def _with_density(counts: dict[str, int]) -> dict[str, float]:
    return {**counts, "density": counts["events"] / max(1, counts["people"] * counts["items"])}


def _parts(prepared: Prepared) -> dict[str, int]:
    counts = count_codes(prepared.part, PART_UNUSED + 1)
    return {str(part): int(counts[code]) for part, code in PART_CODES.items()} | {
        "unused": int(counts[PART_UNUSED])
    }


def _doubling_bins(lengths: IntArray) -> list[dict[str, int]]:
    """1, 2–3, 4–7, 8–15 …"""
    counts = np.bincount(np.floor(np.log2(lengths)).astype(np.int64))
    return [
        {"from": 2**b, "to": 2 ** (b + 1) - 1, "people": int(count)}
        for b, count in enumerate(counts.tolist())
    ]


def _months(time: IntArray) -> list[dict[str, Any]]:
    """Events of each month from the first to the last."""
    first, last = (np.datetime64(int(t), "us").astype("datetime64[M]") for t in (time.min(), time.max()))
    months = np.arange(first, last + 2)
    starts = months.astype("datetime64[us]").astype(np.int64)
    counts = np.bincount(np.searchsorted(starts, time, side="right") - 1, minlength=len(months) - 1)
    return [
        {"month": str(month), "events": int(count)} for month, count in zip(months[:-1], counts, strict=True)
    ]


def _popularity(per_item: IntArray) -> list[tuple[float, float]]:
    """At some fifty shares of the items, closer together near the head, the share of events they hold."""
    held = np.cumsum(np.sort(per_item)[::-1]) / per_item.sum()
    heads = np.unique(np.ceil(len(held) * np.geomspace(0.001, 1, 50)).astype(np.int64))
    return [(float(head / len(held)), float(held[head - 1])) for head in heads]


def _borders(cleaned: Cleaned) -> dict[str, str]:
    if cleaned.periods is None:
        return {}
    return {
        f"{name}_from": str(np.datetime64(start, "us").astype("datetime64[s]"))
        for name, start in (("validation", cleaned.periods.validation), ("test", cleaned.periods.test))
    }


def _asked(asked: Asked) -> dict[str, int]:
    return {
        "people": len(asked.questions),
        "targets": len(asked.questions.target_items),
        "without_history": asked.without_history,
        "all_seen_before": asked.without_target,
    }


def _field(prepared: Prepared, name: str, kind: FieldKind) -> dict[str, Any]:
    """How many of the items that have events have the field."""
    cells = prepared.catalogue[name].filter(prepared.has_event)
    distinct = cells.drop_nulls().n_unique() if kind in (FieldKind.TEXT, FieldKind.CATEGORY) else None
    present = len(cells) - cells.null_count()
    return {
        "name": name,
        "kind": str(kind),
        "items": present,
        "share": present / max(1, len(cells)),
        "distinct": distinct,
    }
