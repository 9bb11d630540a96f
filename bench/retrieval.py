"""Queries per second and recall of exact and approximate search, by the number of items.

    OMP_NUM_THREADS=1 python -m bench.retrieval --items 10000 100000 1000000 --json

Vectors are drawn around ``--groups`` middles, and states around the same ones: what was learned lies in
groups. ``--groups 0`` draws both from one normal distribution, the hardest case for a graph of neighbours.
Each search leaves out ``--history`` items, the best of the row, as a service does with what was seen. Lists
are those of ``Rules.select_all`` with a cap per brand and a share of places for new items.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from palate.retrieve.build import build_index, exact_limit
from palate.retrieve.catalogue import Catalogue
from palate.retrieve.index import ExactIndex
from palate.retrieve.rule_settings import RuleSettings
from palate.retrieve.rules import Past, Request, Rules
from palate.schema import FIRST_ID, Field, FieldKind, IdMap, Schema

K = 10
SAMPLE = 1000
BRANDS = 500


def drawn(items: int, width: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of so many items, and states to ask for."""
    generator = np.random.default_rng(0)
    middles = generator.standard_normal((max(groups, 1), width), np.float32) * (groups > 0)

    def rows(number: int) -> np.ndarray:
        middle = middles[generator.integers(0, len(middles), number)]
        return middle + 0.7 * generator.standard_normal((number, width), np.float32)

    return rows(items + FIRST_ID), rows(SAMPLE)


def a_catalogue(items: int) -> Catalogue:
    """Items of many brands, a hundredth of them new."""
    brands = pl.Series([None, None, *(f"b{item % BRANDS}" for item in range(items))], dtype=pl.String)
    schema = Schema(fields=(Field("brand", FieldKind.CATEGORY),))
    new = np.arange(items + FIRST_ID) % 100 == 0
    return Catalogue(
        IdMap(pl.Series(np.arange(items))),
        pl.DataFrame({"brand": brands}),
        schema,
        allowed=np.ones(items + FIRST_ID, np.bool_),
        new=new,
    )


def per_second(ask: Callable[[np.ndarray], None], rows: int, seconds: float) -> float:
    """Rows per second, where so many are asked for at once."""
    at = np.arange(rows)
    ask(at)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        calls += 1
        ask((at + calls * rows) % SAMPLE)
    return calls * rows / (time.perf_counter() - started)


def measure(
    items: int, width: int, groups: int, batch: int, history: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each kind of index."""
    vectors, states = drawn(items, width, groups)
    exact = ExactIndex(vectors)
    seen = exact.search(states, max(history, 1)).ids[:, :history].astype(np.int64)
    rules = Rules(
        RuleSettings.model_validate({"caps": [{"field": "brand", "most": 2}], "explore": {"share": 0.1}}),
        a_catalogue(items),
    )
    none = np.zeros(history, np.int64)

    def row_of(index: ExactIndex, kind: str, built: float) -> dict[str, Any]:
        def search(at: np.ndarray) -> None:
            index.search(states[at], K, excluded=list(seen[at]))

        def select(at: np.ndarray) -> None:
            asked = [
                Request(states[row], K, Past(seen[row], none, none), filter_seen=True, draw=row) for row in at
            ]
            rules.select_all(index, asked)

        speeds = {
            f"{name}_per_s" + (f"_in_{rows}" if rows > 1 else ""): round(per_second(ask, rows, seconds))
            for name, ask in (("queries", search), ("lists", select))
            for rows in (1, batch)
        }
        return {"items": items, "index": kind, "recall": index.recall, "build_s": round(built, 2), **speeds}

    started = time.perf_counter()
    graph = build_index(vectors, states, exact_up_to=0)
    built = time.perf_counter() - started
    return [row_of(exact, "exact", 0.0), row_of(graph, "approximate", built)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8, help="requests that are searched for together")
    parser.add_argument("--history", type=int, default=50, help="items that each search leaves out")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    limit = exact_limit(given.width)
    rows = [
        row
        for items in given.items
        for row in measure(items, given.width, given.groups, given.batch, given.history, given.seconds)
    ]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    if given.json:
        print(json.dumps({"threads": threads, "exact_limit": limit, "rows": rows}))
        return
    print(f"threads: {threads}; exact search is used up to some {limit:,} items")
    print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
