"""How many events a second the event store takes and gives back, and how long a call of each kind takes.

    python -m bench.store --url sqlite:///bench.db
    python -m bench.store --url postgresql://… --threads 1 4 16 64

Each thread posts one event at a time and waits for the commit, as a request does. The database should be
empty; the events stay in it.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import uuid
from typing import Any

import numpy as np

from palate.store.opening import open_store
from palate.store.records import StoredEvent
from palate.store.store import EventStore

PEOPLE = 1_000
HISTORY = 50


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(1_000 * float(np.percentile(seconds, q)), 3) for q in (50, 99)}


def in_threads(store: EventStore, threads: int, seconds: float, call: Any) -> dict[str, Any]:
    """Calls per second, and the time that one takes, with so many threads that call without a break."""
    took: list[list[float]] = [[] for _ in range(threads)]
    until = time.perf_counter() + seconds

    def work(own: list[float], thread: int) -> None:
        while (begin := time.perf_counter()) < until:
            call(store, thread, len(own))
            own.append(time.perf_counter() - begin)

    workers = [threading.Thread(target=work, args=(own, n)) for n, own in enumerate(took)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    every = [one for own in took for one in own]
    return {"threads": threads, "calls_per_s": round(len(every) / seconds), **percentiles(every)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    mark = uuid.uuid4().hex

    def event(name: str, n: int) -> StoredEvent:
        return StoredEvent(f"{mark}/{name}", f"person {n % PEOPLE}", f"thing {n % 997}", "view", n)

    def post(store: EventStore, thread: int, n: int) -> None:
        store.append([event(f"{threads}/{thread}/{n}", n)])

    def read(store: EventStore, thread: int, n: int) -> None:
        store.latest(f"person {(thread * 31 + n) % PEOPLE}", HISTORY)

    with open_store(arguments.url) as store:
        for start in range(0, PEOPLE * HISTORY, 10_000):
            store.append([event(f"before/{n}", n) for n in range(start, start + 10_000)])
        rows = []
        for threads in arguments.threads:
            rows.append({"call": "append one", **in_threads(store, threads, arguments.seconds, post)})
            rows.append({"call": f"latest {HISTORY}", **in_threads(store, threads, arguments.seconds, read)})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
