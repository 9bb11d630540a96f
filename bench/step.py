"""How near a training step comes to this machine's own matrix products, and where the rest of it goes.

    python -m bench.step --data examples/ml-1m/dataset.yaml

Real training is started for each number format in turn, and stopped after some steps: first undisturbed and
by the clock, then with every operation counted, then under torch's profiler. The peak is measured in the
same run, before and after: the best of products of several shapes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import palate
from bench.page import machine, write_section
from palate.train.precision import has_bfloat16
from palate.train.progress import Silent

SHAPES = ((2048, 2048, 2048), (8192, 384, 256), (4096, 128, 3416))
WARM_UP, TIMED, PROFILED = 8, 24, 8
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "softmax and its bonuses": (
        "_softmax",
        "index_add_",
        "scatter",
        "gather",
        "repeat_interleave",
        "_CatalogueSoftmax",
    ),
    "norms": ("layer_norm",),
    "gates": ("glu", "silu", "sigmoid"),
    "taps and memory": ("Taps", "index_fill", "cumsum", "CausalSum", "aten::index"),
    "casts and copies": ("copy_", "empty", "fill_", "zero_", "cat"),
    "dropout, sums, scaling": ("aten::mul", "aten::add", "aten::sub", "aten::sum", "aten::rsqrt"),
    "optimiser": ("adam", "foreach", "lerp", "norm"),
}


class EnoughError(Exception):
    """The steps that were wanted are done."""


class Watch(Silent):
    """Times some steps, counts the operations of one, profiles some, and stops."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.speeds: list[float] = []
        self.operations = 0
        self.shares: dict[str, float] = {}
        self._done = 0
        self._since = time.perf_counter()
        self._counter = FlopCounterMode(display=False)
        self._profile = profile(activities=[ProfilerActivity.CPU])

    def step(self, epoch: int, loss: float, units_per_second: float) -> None:
        del epoch, loss
        now, self._done = time.perf_counter(), self._done + 1
        if WARM_UP < self._done <= WARM_UP + TIMED:
            self.seconds.append(now - self._since)
            self.speeds.append(units_per_second)
        elif self._done == WARM_UP + TIMED + 1:
            self._counter.__enter__()
        elif self._done == WARM_UP + TIMED + 2:
            self._counter.__exit__(None, None, None)
            self.operations = self._counter.get_total_flops()
            self._profile.__enter__()
        elif self._done == WARM_UP + TIMED + 2 + PROFILED:
            self._profile.__exit__(None, None, None)
            self.shares = shares_of(self._profile)
            raise EnoughError
        self._since = time.perf_counter()


def shares_of(profiled: profile) -> dict[str, float]:
    """The share of processor time that each kind of work took."""
    spent: dict[str, float] = defaultdict(float)
    for row in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(n in row.key for n in names)), "other")
        spent[kind] += row.self_cpu_time_total
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in (*KINDS, "other")}


def peak(dtype: torch.dtype) -> float:
    """The most operations per second that products of matrices reach here."""
    best = 0.0
    for rows, inner, columns in SHAPES:
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        product = torch.empty(rows, columns, dtype=dtype)
        for _ in range(20):
            started = time.perf_counter()
            torch.mm(a, b, out=product)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def measure(data: Path, precision: str, assignments: list[str], threads: int) -> dict[str, Any]:
    """What one format achieves."""
    dtype = getattr(torch, precision)
    settings = palate.Settings.build(
        {"model": {"content": False}, "train": {"precision": precision, "threads": threads}},
        assignments=assignments,
    )
    recommender, watch, before = palate.Recommender(settings), Watch(), peak(dtype)
    dataset = palate.read_dataset(data)
    try:
        recommender.fit(dataset, display=watch)
    except EnoughError:
        pass
    else:
        raise SystemExit("The data make too few steps; give larger data or more train.max_epochs.")
    best = max(before, peak(dtype))
    seconds = statistics.median(watch.seconds)
    return {
        "precision": precision,
        "peak": best,
        "seconds": seconds,
        "events_per_second": statistics.median(watch.speeds),
        "operations": watch.operations,
        "achieved": watch.operations / seconds,
        "share_of_peak": watch.operations / seconds / best,
        "shares": watch.shares,
    }


def as_markdown(results: list[dict[str, Any]]) -> str:
    """Two tables: what was achieved, and where the time goes."""
    lines = [
        "| | matrix products, peak | whole step | share of peak | events per second |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in results:
        lines.append(
            f"| {row['precision']} | {row['peak'] / 1e9:,.0f} GFLOP/s | {row['achieved'] / 1e9:,.0f} GFLOP/s "
            f"| {row['share_of_peak']:.0%} | {row['events_per_second']:,.0f} |"
        )
    lines += ["", "| share of the step's time | " + " | ".join(row["precision"] for row in results) + " |"]
    lines.append("| --- |" + " --- |" * len(results))
    for kind in (*KINDS, "other"):
        lines.append(f"| {kind} | " + " | ".join(f"{row['shares'][kind]:.0%}" for row in results) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("examples/ml-1m/dataset.yaml"))
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], dest="assignments", metavar="SECTION.FIELD=VALUE"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lacking = [
        precision for precision in arguments.precision if precision == "bfloat16" and not has_bfloat16()
    ]
    results = [
        measure(arguments.data, precision, arguments.assignments, arguments.threads)
        for precision in arguments.precision
        if precision not in lacking
    ]
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    text = f"{machine(arguments.threads)}. Data: {arguments.data.parent.name}.\n\n{as_markdown(results)}"
    for precision in lacking:
        text += f"\n\nNot measured: {precision}, for which this processor has no instructions."
    print(text)
    if arguments.write:
        write_section("step", text)


if __name__ == "__main__":
    main()
