"""How many recommendations a second the server gives, how late they come, and where the time goes.

    python -m bench.serving --items 100000 --seconds 60 --rate 500 --json

A shop is generated, trained, exported and kept in ``--cache``. Each item has a description of its own, drawn
around that of its group, so that no two have the same vector. Training meets the first 100,000 items; those
beyond are added to what was trained, as a shop adds what is new. The real server runs in a process of its
own, with its events in a new SQLite file. Half of everybody's 50 events is what it was trained on, the other
half is posted first. Then requests are due at even times, or at random ones with ``--bursts``, whether or
not earlier ones have been answered: a latency begins when the request was due, not when a connection was
free for it. The same is done to a FastAPI route that returns a constant of the same size, and at last the
lists of some people are compared with those of an exact search.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from palate.retrieve.index import ExactIndex
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID, Dataset, Field, FieldKind, Histories

WIDTH, HISTORY, POSTED = 64, 50, 25
GROUP = 100
"""Items that are met by the same people."""
MOST_MET = 100_000
"""Items that training meets; the others are added to what was trained, and known by their descriptions."""
PASSES = 8
TRAITS = 24
"""Numbers that describe an item."""
OWN = 0.7
"""How far an item lies from the middle of its group, where the middles lie one from each other."""
ASKED = 2_000
"""People whose recommendations are asked for, one after the other."""
COMPARED = 200
K = 10
START, MINUTE = 1_700_000_000_000_000, 60_000_000
READY_WITHIN = 900
CONSTANT = "/v1/constant"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The shop


def catalogue(items: int) -> pl.DataFrame:
    """Items of groups, each described around the middle of its own; more items begin with the same."""
    blocks = [
        _traits(np.random.default_rng(3 + block), min(MOST_MET, items - begin))
        for block, begin in enumerate(range(0, items, MOST_MET))
    ]
    keys = [f"i{number}" for number in range(items)]
    return pl.DataFrame({"item": keys, "traits": pl.Series(np.concatenate(blocks)).arr.to_list()})


def _traits(generator: np.random.Generator, items: int) -> np.ndarray:
    middles = generator.standard_normal((-(-items // GROUP), TRAITS), np.float32)
    own: np.ndarray = OWN * generator.standard_normal((items, TRAITS), np.float32)
    return np.repeat(middles, GROUP, axis=0)[:items] + own


def shop(things: pl.DataFrame) -> Dataset:
    """Everybody meets items of three groups, and every item is met by somebody."""
    generator, items = np.random.default_rng(0), things.height
    trained = HISTORY - POSTED
    people = max(ASKED, -(-items // trained))
    own = generator.integers(0, max(items // GROUP, 1), (people, 3))
    group = np.take_along_axis(own, generator.integers(0, 3, (people, trained)), axis=1).ravel()
    item = np.minimum(group * GROUP + generator.integers(0, GROUP, people * trained), items - 1)
    item[generator.permutation(len(item))[:items]] = np.arange(items)
    table = pl.LazyFrame(
        {
            "user": np.repeat([f"u{person}" for person in range(people)], trained),
            "item": [f"i{number}" for number in item],
            "time": START + np.tile(np.arange(trained), people) * MINUTE,
            "row": np.arange(len(item), dtype=np.uint32),
        }
    ).with_columns(event=pl.lit("view"), value=pl.lit(None, pl.Float64))
    return Dataset("generated", table, fields=(Field("traits", FieldKind.VECTOR),), items=things)


def exported_run(items: int, cache: Path) -> Path:
    """A run of so many items with what the server reads, made unless ``cache`` holds it."""
    if (cache / "serving" / "serving.json").exists():
        return cache
    from palate.export.folder import export_run
    from palate.recommender import Recommender

    things = catalogue(items)
    say(f"training on {min(items, MOST_MET):,} items, once …")
    started = time.perf_counter()
    settings = {
        "model": {"width": WIDTH, "max_history": HISTORY},
        "train": {"max_epochs": PASSES, "content_passes": 0},
        "evaluate": {"baselines": [], "references": []},
    }
    recommender = Recommender(settings).fit(shop(things[:MOST_MET]), folder=cache)
    if items > MOST_MET:
        recommender.items.add(things[MOST_MET:])
        recommender.save(cache)
    export_run(cache)
    say(f"trained and exported in {time.perf_counter() - started:.0f} s")
    return cache


def posted(items: int) -> list[list[int]]:
    """Of each person who is asked for, the items of the events that are posted, oldest first."""
    drawn: list[list[int]] = np.random.default_rng(1).integers(0, items, (ASKED, POSTED)).tolist()
    return drawn


def event_of(person: int, step: int, item: int) -> dict[str, Any]:
    moment = START + (HISTORY + step) * MINUTE
    return {
        "event_id": f"{person}/{step}",
        "user": f"u{person}",
        "item": f"i{item}",
        "event": "view",
        "time": moment,
    }


# Servers


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, until the end; without keys, so that nothing is refused."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PALATE_")}
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=own, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + READY_WITHIN
        while not answers(port, ready):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def called(port: int, path: str, body: Any = None) -> bytes:
    """What the server says; it has to be 200."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: bytes = reply.read()
        return found


def serve_constant(answer: Path, port: int) -> None:
    """A FastAPI application whose only route returns this JSON."""
    import uvicorn
    from fastapi import FastAPI

    value, app = json.loads(answer.read_bytes()), FastAPI()

    @app.get(CONSTANT)
    async def constant() -> dict[str, Any]:
        """The same for everybody."""
        return dict(value)

    uvicorn.run(app, port=port, access_log=False, log_level="warning")


# Load


_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"connection: *close", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One connection that stays open; it has at most one request on its way."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.due = 0.0
        self.busy = False
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # that of uvloop only looks like one
        self.load.free(self)

    def ask(self, due: float, request: bytes) -> None:
        assert self.transport is not None
        self.due, self.busy, self.buffer = due, True, b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head, between, body = self.buffer.partition(b"\r\n\r\n")
        if not between:
            return
        length = _LENGTH.search(head)
        if length is None:
            self.load.told(self.due, "no Content-Length")
        elif len(body) < int(length[1]):
            return
        else:
            status = head[9:12].decode()
            self.load.told(self.due, None if status == "200" else status)
        self.busy = False
        if _CLOSES.search(head):
            assert self.transport is not None
            self.transport.close()
        else:
            self.load.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self.load.told(self.due, f"connection lost: {error}")
        self.load.lost(self)


class Load:
    """Requests that are due at given times, over so many connections."""

    def __init__(self, port: int, paths: list[str], due: np.ndarray) -> None:
        self.port, self.due = port, due
        self.requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths]
        self.idle: deque[Connection] = deque()
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.seconds: list[float] = []
        self.late: list[float] = []
        """How long after its time each request was taken up by this program itself."""
        self.errors: dict[str, int] = {}
        self.ended = 0.0
        self.over = asyncio.Event()
        self.opening: set[asyncio.Task[Any]] = set()

    def free(self, connection: Connection) -> None:
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Another one is opened in its place, while there is anything to ask."""
        if connection in self.idle:
            self.idle.remove(connection)
        if not self.over.is_set():
            opening = asyncio.ensure_future(self.open())
            self.opening.add(opening)
            opening.add_done_callback(self.opening.discard)

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.port)

    def told(self, due: float, error: str | None) -> None:
        self.ended = time.perf_counter()
        if error is None:
            self.seconds.append(self.ended - due)
        else:
            self.errors[error] = self.errors.get(error, 0) + 1
        if len(self.seconds) + sum(self.errors.values()) == len(self.due):
            self.over.set()

    async def run(self, connections: int) -> dict[str, Any]:
        """Every request is answered, or has failed; what that took."""
        await asyncio.gather(*(self.open() for _ in range(connections)))
        begin = time.perf_counter() + 0.05
        for number, offset in enumerate(self.due.tolist()):
            due = begin + offset
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self.late.append(max(time.perf_counter() - due, 0.0))
            request = self.requests[number % len(self.requests)]
            if self.idle:
                self.idle.popleft().ask(due, request)
            else:
                self.waiting.append((due, request))
        try:
            await asyncio.wait_for(self.over.wait(), 60)
        except TimeoutError:
            missing = len(self.due) - len(self.seconds) - sum(self.errors.values())
            self.errors["no answer within 60 s"] = missing
            self.over.set()
        for connection in self.idle:
            assert connection.transport is not None
            connection.transport.close()
        return self.found(begin)

    def found(self, begin: float) -> dict[str, Any]:
        milliseconds = np.array(self.seconds or [np.nan]) * 1e3
        quantiles = {f"p{q}_ms": round(float(np.percentile(milliseconds, q)), 3) for q in (50, 90, 99, 99.9)}
        return {
            "requests": len(self.due),
            "requests_per_s": round(len(self.seconds) / max(self.ended - begin, 1e-9), 1),
            **quantiles,
            "max_ms": round(float(milliseconds.max()), 3),
            "errors": sum(self.errors.values()),
            "kinds_of_errors": self.errors,
            "sent_late_p99_ms": round(float(np.percentile(np.array(self.late) * 1e3, 99)), 3),
        }


def loaded(port: int, paths: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """What so many requests a second of these paths have met, after a warm-up that is not counted."""
    warm_up = np.arange(int(min(given.seconds, 5.0) * given.rate)) / given.rate
    driven(in_loop(port, paths, warm_up, given.connections))
    number = max(1, int(given.seconds * given.rate))
    gaps = np.full(number, 1 / given.rate)
    if given.bursts:
        gaps = np.random.default_rng(2).exponential(1 / given.rate, number)
    own = resource.getrusage(resource.RUSAGE_SELF)
    gc.collect()
    gc.disable()
    found = driven(in_loop(port, paths, np.cumsum(gaps), given.connections))
    gc.enable()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu = spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime
    return found | {"generator_processor_s": round(cpu, 2)}


def driven(load: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """In the quickest loop there is, as the server does: who asks takes time from the same processors."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(load)
    return uvloop.run(load)


async def in_loop(port: int, paths: list[str], due: np.ndarray, connections: int) -> dict[str, Any]:
    return await Load(port, paths, due).run(connections)


# What the server says of itself

_STAGE = re.compile(r'^(\w+)_(sum|count)\{([^}]*\bstage="([^"]+)"[^}]*)\} (\S+)$', re.MULTILINE)


def stages(port: int) -> dict[str, dict[str, float]]:
    """By stage, the seconds that it took in all and how often, since the start of the server."""
    found: dict[str, dict[str, float]] = {}
    for _, kind, _, stage, value in _STAGE.findall(called(port, "/metrics").decode()):
        of = found.setdefault(stage, {"sum": 0.0, "count": 0.0})
        of[kind] += float(value)
    return found


def between(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], requests: int
) -> dict[str, Any]:
    """By stage, how often it came, how long it took each time, and its time spread over all requests."""
    rows = {}
    for stage, end in after.items():
        start = before.get(stage, {"sum": 0.0, "count": 0.0})
        seconds, calls = end["sum"] - start["sum"], end["count"] - start["count"]
        if calls:
            rows[stage] = {
                "calls": int(calls),
                "mean_ms": round(1e3 * seconds / calls, 4),
                "ms_per_request": round(1e3 * seconds / requests, 4),
            }
    return dict(sorted(rows.items(), key=lambda row: -row[1]["ms_per_request"]))


def processor_seconds(process: int) -> float:
    """Of a process and its children that live."""
    clock = os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / clock + sum(processor_seconds(int(one)) for one in children)


def peak_mb(process: int) -> float:
    """Of memory that the process had at once."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


def compared(port: int, run: Path, events: list[list[int]]) -> dict[str, Any]:
    """Share of the exact best items, without those that a person met, that the server's lists hold."""
    model = ServingModel.load(run / "serving")
    known, hits, wanted = model.prepared.known(), 0, 0
    index = ExactIndex(model.vectors, np.flatnonzero(~model.allowed))
    for person in range(min(COMPARED, ASKED)):
        row = int(model.prepared.people.ids([f"u{person}"])[0])
        before = known.select(np.array([row]))
        items = model.prepared.items.ids([f"i{item}" for item in events[person]]).astype(np.int32)
        item = np.concatenate([before.item, items])
        moments = START + (HISTORY + np.arange(POSTED)) * MINUTE
        history = Histories(
            np.array([0, len(item)]),
            item,
            np.zeros(len(item), np.uint8),
            np.concatenate([before.time, moments]),
        )
        answer = model.states(history)
        best = index.search(answer.states, K, excluded=[np.unique(item).astype(np.int64)]).ids[0]
        exact = {str(key) for key in model.prepared.items.keys(best[best >= FIRST_ID].astype(np.int64))}
        listed = json.loads(called(port, f"/v1/users/u{person}/recommendations?k={K}&filter_seen=true"))
        hits += len(exact & {each["item"] for each in listed["items"]})
        wanted += len(exact)
    return {"recall@10": round(hits / max(wanted, 1), 4), "people_compared": min(COMPARED, ASKED)}


def measured(run: Path, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything about one server, and then about the constant."""
    port, events = free_port(), posted(given.items)
    command = [sys.executable, "-m", "palate", "serve", str(run), "--port", str(port)]
    command += ["--store", f"sqlite:///{folder / 'events.db'}", "--workers", str(given.workers)]
    paths = [f"/v1/users/u{person}/recommendations?k={K}" for person in range(ASKED)]
    say("starting the server …")
    started = time.perf_counter()
    with running(command, port, folder / "server.log", "/health/ready") as server:
        ready = time.perf_counter() - started
        rows = [
            event_of(person, step, item) for person, own in enumerate(events) for step, item in enumerate(own)
        ]
        for begin in range(0, len(rows), 1_000):
            called(port, "/v1/events", rows[begin : begin + 1_000])
        example = called(port, paths[0])
        say(f"{given.rate:g} requests a second for {given.seconds:g} s …")
        before, used = stages(port), processor_seconds(server.pid)
        found = loaded(port, paths, given)
        used = processor_seconds(server.pid) - used
        warm_up = int(min(given.seconds, 5.0) * given.rate)
        found |= {"stages": between(before, stages(port), found["requests"] + warm_up)}
        found |= {"server_processor_s": round(used, 2), "server_peak_mb": peak_mb(server.pid)}
        found |= {"ready_after_s": round(ready, 2), "answer_bytes": len(example)}
        say("comparing with an exact search …")
        found |= compared(port, run, events)
    answer, port = folder / "answer.json", free_port()
    answer.write_bytes(example)
    command = [sys.executable, "-m", "bench.serving", "--constant", str(answer), "--port", str(port)]
    say("the same for a constant …")
    with running(command, port, folder / "constant.log", CONSTANT):
        constant = loaded(port, [CONSTANT], given)
    return found | {"constant": constant}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--bursts", action="store_true", help="requests are due at random times (Poisson)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of the run; runs/bench-serving-ITEMS by default")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of indented JSON")
    parser.add_argument("--constant", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.constant:
        serve_constant(given.constant, given.port)
        return
    run = exported_run(given.items, given.cache or Path("runs") / f"bench-serving-{given.items}")
    folder = Path(tempfile.mkdtemp(prefix="palate-bench-"))
    try:
        found = measured(run, given, folder)
    finally:
        shutil.rmtree(folder)
    head = {
        "items": given.items,
        "width": WIDTH,
        "events": HISTORY,
        "seconds": given.seconds,
        "rate": given.rate,
        "arrivals": "random" if given.bursts else "even",
        "workers": given.workers,
    }
    print(json.dumps(head | found, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
