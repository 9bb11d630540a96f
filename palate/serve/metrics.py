"""Numbers of a running service, in the text format of Prometheus.

With several workers each process writes its numbers into files of a common folder, named by
``PROMETHEUS_MULTIPROC_DIR``, and whichever is asked adds them up. The variable has to be there before the
process starts.
"""

from __future__ import annotations

import os
import time

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.errors import StoreError
from palate.serve.engine import Engine
from palate.serve.keys import READ
from palate.serve.launch import METRICS_FOLDER
from palate.serve.log import route_of
from palate.serve.problems import PROBLEMS

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
        self.in_progress = Gauge(
            "palate_requests_in_progress",
            "Requests that wait for the model or are being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )

        def latest(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, meaning, labels, registry=registry, multiprocess_mode="livemostrecent")

        self._store = latest("palate_store_up", "1 where the event store answers, else 0.")
        self._events = latest("palate_last_event", "Number of the last event that the store has taken.")
        self._items = latest("palate_items", "Items that may be recommended.")
        self._recall = latest("palate_index_recall", "Share of the exact ten best that the index finds.")
        self._models = latest("palate_model", "1 for the model that answers, 0 for those before.", ("model",))
        self._model: str | None = None

    def look_at(self, engine: Engine) -> None:
        """What the engine holds now is what the numbers say of it."""
        live = engine.live
        self._items.set(int(live.catalogue.allowed().sum()))
        self._recall.set(live.index.recall)
        if self._model is not None:
            self._models.labels(self._model).set(0)
        self._models.labels(live.digest).set(1)
        self._model = live.digest
        try:
            self._events.set(engine.store.heads().event)
            self._store.set(1)
        except StoreError:
            self._store.set(0)

    def text(self) -> bytes:
        """Everything that was counted, by all processes."""
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def install(app: FastAPI) -> None:
    """The application counts its requests in ``app.state.metrics``; ``/metrics`` tells of them, and of
    ``app.state.engine``."""
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
    def numbers(request: Request) -> Response:
        """Counters, times and states for Prometheus."""
        metrics.look_at(request.app.state.engine)
        return Response(metrics.text(), media_type=TYPE)

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
        self.metrics.in_progress.inc()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.in_progress.dec()
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = route_of(scope)
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - begun)
