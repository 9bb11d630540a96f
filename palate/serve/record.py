"""What a run folder says of itself beside the model: judgements, the passes of training, the data report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAIN = ("ndcg@10", "hit_rate@10", "recall@20", "mrr@10")
"""The metrics that are shown first, where a run has them."""


def judgements(run: Path) -> list[dict[str, Any]]:
    """The tables of results of a run, the main one first; none where it was never judged.

    Each has ``title, split, people, catalogue, filter_seen, metrics`` and ``rows`` of ``name``, ``ours`` and
    ``values``: by metric ``{"value", "low", "high"}``.
    """
    found = []
    for judgement in _read(run / "evaluation.json", []):
        if "task" in judgement:
            continue
        metrics = list(judgement["metrics"])
        ours = [{"name": "palate", "ours": True, "values": judgement["metrics"]}]
        ours += [
            {"name": name, "ours": True, "values": told["metrics"]}
            for name, told in judgement["informed"].items()
        ]
        others = [
            {"name": name, "ours": False, "values": values}
            for name, values in {**judgement["baselines"], **judgement["references"]}.items()
        ]
        order = [name for name in MAIN if name in metrics] + [name for name in metrics if name not in MAIN]
        others.sort(key=lambda row: -row["values"].get(order[0], {"value": 0.0})["value"])
        kept = ("title", "split", "people", "catalogue", "filter_seen")
        found.append({name: judgement[name] for name in kept} | {"metrics": order, "rows": ours + others})
    return found


def passes(run: Path) -> list[dict[str, Any]]:
    """The passes of training, each with ``epoch, loss, metric, seconds``; none where none are written."""
    history: list[dict[str, Any]] = _read(run / "training.json", {}).get("history", [])
    return [{name: each.get(name) for name in ("epoch", "loss", "metric", "seconds")} for each in history]


def _read(path: Path, otherwise: Any) -> Any:
    """A run may be served without these files; one that is damaged is like one that is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
