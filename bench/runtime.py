"""What one request costs without PyTorch, stage by stage, on one thread.

    palate export runs/demo
    python -m bench.runtime runs/demo/serving --events 50

Histories are random; each stage is timed by itself, so the whole is a little less than their sum. The median
and the 99th percentile of ``--rounds`` requests count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.batches import make_batch
from palate.data.past import past_of
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID, Histories

WARM_UP = 50
START = 1_700_000_000_000_000
HOUR = 3_600_000_000


def random_history(served: ServingModel, events: int, generator: np.random.Generator) -> Histories:
    items = generator.integers(FIRST_ID, len(served.vectors), events).astype(np.int32)
    codes = generator.integers(0, len(served.prepared.schema.events), events).astype(np.uint8)
    time = START + np.cumsum(generator.integers(1, 99, events)) * HOUR
    return Histories(np.array([0, events]), items, codes, time)


def microseconds(run: Callable[[Histories], object], histories: list[Histories]) -> dict[str, float]:
    """Median and 99th percentile of a call."""
    for history in histories[:WARM_UP]:
        run(history)
    took = []
    for history in histories:
        start = time.perf_counter()
        run(history)
        took.append((time.perf_counter() - start) * 1e6)
    return {"median": round(float(np.median(took)), 1), "p99": round(float(np.percentile(took, 99)), 1)}


def measured(served: ServingModel, events: int, rounds: int) -> dict[str, Any]:
    """Microseconds of each stage of a request."""
    generator, settings = np.random.default_rng(0), served.settings.model
    histories = [random_history(served, events, generator) for _ in range(rounds)]
    states = served.states(histories[0]).states
    stages: dict[str, Callable[[Histories], object]] = {
        "history to batch": lambda history: make_batch(
            history, max_history=settings.max_history, has_time=served.has_time
        ),
        "history to past": lambda history: past_of(
            history, np.arange(1), history.lengths, has_time=served.has_time
        ),
        "whole answer": served.states,
        "scores of the catalogue": lambda _: states @ served.vectors.T,
    }
    return {
        "items": len(served.vectors),
        "width": served.vectors.shape[1],
        "events": events,
        **{name: microseconds(run, histories) for name, run in stages.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what palate export wrote")
    parser.add_argument("--events", type=int, default=50, help="of each history")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measured(ServingModel.load(asked.folder), asked.events, asked.rounds)
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(
            f"{name:<26}",
            f"{value['median']:9,.1f} µs, p99 {value['p99']:9,.1f}" if isinstance(value, dict) else value,
        )


if __name__ == "__main__":
    main()
