"""What the server tells of itself in Prometheus' text: requests, seconds of each stage, how much waits.

With several workers each writes its numbers into files of a common folder; whichever is asked adds them up.
The launcher names the folder in PROMETHEUS_MULTIPROC_DIR before prometheus_client is imported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.keys import READ
from palate.serve.log import method_of, route_of
from palate.serve.problems import PROBLEMS

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper ends of what is counted together."""


class Metrics:
    """The numbers of one worker. All calls are for many threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "palate_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "palate_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "palate_stage_seconds",
            "Seconds of one stage of answering.",
            ("stage",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._model = Gauge(
            "palate_model",
            "1 for the model that answers.",
            ("model",),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._present = ""
        self.queue = Gauge(
            "palate_queue",
            "Requests that wait for a list.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.items = Gauge(
            "palate_items",
            "Items that may be recommended.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self.events = Counter("palate_events", "Events stored since the start.", registry=self._registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done within counts as seconds of this stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - started)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def model(self, digest: str) -> None:
        """This model answers from now on."""
        if digest == self._present:
            return
        if self._present:
            self._model.labels(self._present).set(0)
        self._model.labels(digest).set(1)
        self._present = digest

    def text(self) -> bytes:
        """The numbers of all workers."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def install(app: FastAPI) -> Metrics:
    """Every request is counted, ``/metrics`` tells, and ``app.state.metrics`` takes what else is known."""
    metrics = app.state.metrics = Metrics()
    app.add_middleware(Counted, metrics=metrics)
    app.include_router(_router())
    return metrics


class Counted:
    """Counts requests by method, route and status. The route is the template: it names nobody."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            self._metrics.answered(method_of(scope), route_of(scope), status, time.perf_counter() - started)


def _router() -> APIRouter:
    router = APIRouter(tags=["health"], dependencies=[READ], responses=PROBLEMS)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics(request: Request) -> Response:
        """Requests, seconds of each stage and how much waits, as Prometheus reads it."""
        return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _forget_the_dead(folder: Path) -> None:
    """What a worker that was killed had waiting waits no more; what it counted stays."""
    for process in {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another worker was quicker
                mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]
