"""Numbers of a running service, in the text format of Prometheus.

With several workers each process writes its numbers into files of a common folder, named by
``PROMETHEUS_MULTIPROC_DIR``, and whichever is asked adds them up. The variable has to be there before the
process starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.keys import READ
from palate.serve.log import route_of
from palate.serve.problems import PROBLEMS

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.1,
    0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters, times and states of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "palate_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "palate_request_seconds",
            "From a request's head to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "palate_stage_seconds",
            "Parts of answering; a part that serves several requests is counted once.",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self.stored = Counter("palate_events_stored", "Events stored by this server.", registry=registry)
        self.waiting = Gauge(
            "palate_queue",
            "Requests that wait for the model.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.items = Gauge(
            "palate_items",
            "Items that may be recommended.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.recall = Gauge(
            "palate_index_recall",
            "Share of the exact ten best that the index finds.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._models = Gauge(
            "palate_model",
            "1 for the model that answers, by its digest; 0 for those before.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._model: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The seconds that its block takes are counted under this name."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages.labels(name).observe(time.perf_counter() - begun)

    def answers(self, model: str) -> None:
        """This model answers from now on."""
        if self._model is not None:
            self._models.labels(self._model).set(0)
        self._models.labels(model).set(1)
        self._model = model

    def text(self) -> bytes:
        """Everything that was counted, by all processes."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def install(app: FastAPI) -> None:
    """The application counts its requests in ``app.state.metrics``, and ``/metrics`` tells of them."""
    app.state.metrics = metrics = Metrics()
    app.add_middleware(Measured, metrics=metrics)
    router = APIRouter(
        tags=["operation"], responses={status: PROBLEMS[status] for status in (401, 403, 429, 503)}
    )

    @router.get(
        "/metrics",
        dependencies=[READ],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    def metrics_text(request: Request) -> Response:
        """Counters, times and states for Prometheus."""
        return Response(request.app.state.metrics.text(), media_type=TYPE)

    app.include_router(router)


class Measured:
    """Each request is counted by its route, never by its path, so that the number of series is bounded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = route_of(scope)
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - begun)
