"""How time and memory grow with the length of histories, the catalogue and the number of people.

    python -m bench.scale --write

Each point is a process of its own: events are generated and prepared, some real training steps are timed,
then some people are ranked against the whole catalogue. One of the three sizes grows while the others stay.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import torch

from bench.page import PAGE, machine, write_section
from bench.peers.common import peak_mb
from bench.step import EnoughError
from palate.data.store import Prepared, prepare
from palate.evaluate.network import NetworkRanker
from palate.evaluate.ties import top_k
from palate.nn.model import TasteModel
from palate.schema import Content, Dataset, Part
from palate.settings import Settings
from palate.train.histories import train_on_histories
from palate.train.progress import Silent

WARM_UP, TIMED = 3, 10
ASKED = 256
"""People who are ranked."""
PLACES = 10


@dataclass(frozen=True)
class Size:
    """What is generated: everybody has ``length`` events."""

    people: int
    items: int
    length: int


GROWING: dict[str, tuple[Size, ...]] = {
    "length": tuple(Size(max(300, 200_000 // n), 3_000, n) for n in (50, 100, 200, 500, 1_000, 2_000)),
    "items": tuple(Size(max(5_000, n // 40), n, 50) for n in (1_000, 10_000, 50_000, 100_000, 1_000_000)),
    "people": tuple(Size(n, 3_000, 20) for n in (1_000, 10_000, 100_000, 1_000_000)),
}
TITLES = {"length": "events per history", "items": "items", "people": "people"}


class Stopwatch(Silent):
    """Notes the pace of each step and stops the training."""

    def __init__(self) -> None:
        self.paces: list[float] = []

    def step(self, epoch: int, loss: float, units_per_second: float) -> None:
        del epoch, loss
        self.paces.append(units_per_second)
        if len(self.paces) == WARM_UP + TIMED:
            raise EnoughError


def generate(size: Size) -> Dataset:
    """Events whose items follow a Zipf law; every item is there."""
    random = np.random.default_rng(0)
    events = size.people * size.length
    demand = np.cumsum(1 / np.arange(1, size.items + 1) ** 0.9)
    item = np.searchsorted(demand / demand[-1], random.random(events)).astype(np.int32)
    every = min(size.items, events)
    item[random.permutation(events)[:every]] = np.arange(every)
    table = pl.LazyFrame(
        {
            "user": np.repeat(np.arange(size.people), size.length),
            "item": item.astype(np.int64),
            "time": np.tile(np.arange(size.length), size.people),
            "row": np.arange(events, dtype=np.uint32),
        }
    ).with_columns(event=pl.lit("view"), value=pl.lit(None, pl.Float64))
    return Dataset("generated", table, has_time=False)


def measure(size: Size, threads: int) -> dict[str, Any]:
    """Seconds and memory of this size, in this process."""
    torch.set_num_threads(threads)
    settings = Settings.build(
        {
            "model": {"max_history": size.length, "again": "ignored", "initial_vectors": "random"},
            "train": {"precision": "float32", "threads": threads, "batch_events": 4_000, "max_epochs": 100},
        }
    )
    started = time.perf_counter()
    prepared = prepare(generate(size), settings)
    prepared_in = time.perf_counter() - started
    model = TasteModel(
        settings.model,
        Content(prepared.items.size),
        prepared.warm,
        num_ids=prepared.items.size,
        num_event_types=1,
        has_time=False,
    )
    before, watch = peak_mb(), Stopwatch()
    try:
        train_on_histories(model, prepared, settings, None, run="", resume=False, display=watch)
    except EnoughError:
        trained = peak_mb()
    else:
        raise SystemExit(f"{size} makes too few steps to time.")
    return {
        **asdict(size),
        "prepare_seconds": prepared_in,
        "train_us": 1e6 / statistics.median(watch.paces[WARM_UP:]),
        "score_ms": 1e3 * seconds_to_rank(model, prepared) / ASKED,
        "data_mb": before,
        "peak_mb": trained,
    }


def seconds_to_rank(model: TasteModel, prepared: Prepared) -> float:
    """The time it takes to give ``ASKED`` people their best items of all."""
    ranker = NetworkRanker(model)
    questions = prepared.questions(Part.TEST, filter_seen=False, cold_targets=True).select(np.arange(ASKED))
    started = time.perf_counter()
    for chunk in questions.chunks(32):
        top_k(ranker.score(chunk), PLACES)
    return time.perf_counter() - started


def as_markdown(rows: dict[str, list[dict[str, Any]]]) -> str:
    """One table for each of the sizes that grow."""
    parts = []
    for name, points in rows.items():
        head = (
            f"| {TITLES[name]} | training, µs per event | ranking, ms per person | prepared, s | memory, MB |"
        )
        lines = [head, "| --- |" + " --- |" * 4]
        for point in points:
            lines.append(
                f"| {point[name]:,} | {point['train_us']:,.0f} | {point['score_ms']:,.2f} "
                f"| {point['prepare_seconds']:,.1f} | {point['peak_mb']:,.0f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def draw(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """``path`` (SVG) shows the curves, every axis logarithmic."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(rows), figsize=(4 * len(rows), 6), layout="constrained", squeeze=False)
    for column, (name, points) in enumerate(rows.items()):
        x = [point[name] for point in points]
        above, below = axes[0][column], axes[1][column]
        above.plot(x, [point["train_us"] for point in points], "o-", label="training, µs per event")
        above.plot(x, [1e3 * point["score_ms"] for point in points], "s--", label="ranking, µs per person")
        below.plot(x, [point["peak_mb"] for point in points], "o-", label="memory, MB")
        for axis in (above, below):
            axis.set(xscale="log", yscale="log", xlabel=TITLES[name])
            axis.grid(visible=True, alpha=0.3)
            axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", choices=sorted(GROWING), default=list(GROWING))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--write", action="store_true", help="put tables and curves into docs/")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(Size(**json.loads(options.point)), options.threads)))
        return
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in options.only:
        for size in GROWING[name]:
            command = [sys.executable, "-m", "bench.scale", "--point", json.dumps(asdict(size))]
            command += ["--threads", str(options.threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{size}: {rows[name][-1]}", file=sys.stderr, flush=True)
    text = f"{machine(options.threads)}.\n\n{as_markdown(rows)}"
    print(text)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.write:
        write_section("scale", text)
        draw(rows, PAGE.parent / "images" / "scale.svg")


if __name__ == "__main__":
    main()
