"""What stands around the routes: who may call, what a call may cost, and what is told of it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse

from palate.serve import keys as gate
from palate.serve import limits, log, metrics, problems
from palate.serve.health import health_router
from palate.serve.keys import READ
from palate.serve.options import Keys, ServeOptions


def surround(app: FastAPI, options: ServeOptions, keys: Keys) -> None:
    """The application has keys, limits, problems, numbers, a log, ``/health``, ``/metrics`` and its own
    description at ``/openapi.json``; ``app.state`` has ``keys``, ``metrics``, and ``ready``, which is
    false.

    The application is made with ``openapi_url=None``: what describes it needs a key like everything else.
    """
    app.state.keys, app.state.ready = keys, False
    # Each lies around those before it: refusals by a limit have an id too, and every answer is counted.
    gate.install(app)
    limits.install(app, options)
    problems.install(app)
    metrics.install(app)
    log.install(app, options)
    app.include_router(health_router())
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json", dependencies=[READ])
    async def description() -> JSONResponse:
        return JSONResponse(app.openapi())

    app.include_router(router)
