"""How long and how much memory preparing takes, beside Polars reading and sorting the same table.

    python -m bench.prepare --events 20000000

Events are generated: items by a Zipf law, people of log-normal activity, times in seconds over three
years, three event types, a few rows without keys. Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.store import prepare
from palate.schema import Dataset
from palate.settings import Settings

YEARS_OF_SECONDS = 3 * 365 * 86_400


def generate(path: Path, events: int, *, text_keys: bool) -> None:
    """``path`` holds a table of events in no particular order."""
    random = np.random.default_rng(0)
    people, items = max(10, events // 40), max(10, events // 100)
    activity = np.cumsum(random.lognormal(0, 1.2, people))
    user = np.searchsorted(activity / activity[-1], random.random(events))
    demand = np.cumsum(1 / np.arange(1, items + 1) ** 0.9)
    item = random.permutation(items)[np.searchsorted(demand / demand[-1], random.random(events))]
    second = 1_600_000_000 + random.integers(0, YEARS_OF_SECONDS, events)
    event = np.array(["view", "cart", "purchase"])[np.searchsorted([0.8, 0.93], random.random(events))]
    table = pl.DataFrame(
        {"user": user.astype(np.int64), "item": item.astype(np.int64), "time": second * 1_000_000}
    )
    missing = pl.Series(random.random(events) < 0.001)
    table = table.with_columns(event=pl.Series(event), user=pl.when(~missing).then(pl.col("user")))
    if text_keys:
        table = table.with_columns(
            user=pl.format("person-{}", pl.col("user") * 7919),
            item=pl.format("item-{}", pl.col("item") * 7919),
        )
    table.write_parquet(path)


def read_and_sort(path: Path) -> int:
    """What anybody has to do with such a table."""
    return pl.read_parquet(path).sort("user", "time").height


def prepare_events(path: Path) -> int:
    """The events Palate keeps: default rules, 5-core, leave-one-out, checked for leaks and saved."""
    table = pl.scan_parquet(path).with_row_index("row").with_columns(value=pl.lit(None, dtype=pl.Float64))
    settings = Settings.build({"data": {"min_user_events": 5, "min_item_events": 5}})
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepared = prepare(Dataset("generated", table), settings, Path(folder) / "prepared")
        return len(prepared.part)


WORK = {"polars": read_and_sort, "palate": prepare_events}


def measure(work: str, path: Path, threads: int) -> dict[str, float]:
    """Seconds and peak gigabytes of one process that does only this."""
    command = [sys.executable, "-m", "bench.prepare", "--work", work, "--table", str(path)]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(work: str, path: Path) -> None:
    started = time.perf_counter()
    kept = WORK[work](path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": seconds, "peak_gb": peak, "events": kept}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="the best of these is shown")
    parser.add_argument("--text-keys", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--work", choices=sorted(WORK), help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        run(arguments.work, arguments.table)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "events.parquet"
        generate(table, arguments.events, text_keys=arguments.text_keys)
        best = {}
        for work in WORK:
            runs = [measure(work, table, arguments.threads) for _ in range(arguments.repeats)]
            best[work] = min(runs, key=lambda figures: figures["seconds"])
    ratio = best["palate"]["seconds"] / best["polars"]["seconds"]
    print(f"{arguments.events:,} events, {arguments.threads} threads, best of {arguments.repeats}\n")
    print("| work | seconds | peak GB | events left |\n|---|---|---|---|")
    names = {"polars": "Polars: read, sort by (user, time)", "palate": "Palate: prepare"}
    for work, figures in best.items():
        print(
            f"| {names[work]} | {figures['seconds']:.2f} | {figures['peak_gb']:.2f} | {figures['events']:,} |"
        )
    print(f"\nratio {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"ratio": ratio, **best}, indent=1))


if __name__ == "__main__":
    main()
