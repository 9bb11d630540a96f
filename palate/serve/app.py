"""The application: the engine, the routes, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from palate.serve import limits, problems
from palate.serve.admin import admin_router
from palate.serve.compare import compare_router
from palate.serve.engine import Engine
from palate.serve.events import events_router
from palate.serve.files import page_router
from palate.serve.health import health_router
from palate.serve.items import items_router
from palate.serve.keys import READ
from palate.serve.map import map_router
from palate.serve.metrics import install as install_metrics
from palate.serve.options import Keys, ServeOptions
from palate.serve.overview import overview_router
from palate.serve.present import Present
from palate.serve.preview import preview_router
from palate.serve.recommendations import recommendations_router
from palate.serve.users import users_router
from palate.store.opening import open_store
from palate.version import __version__


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Requests are taken; at the end what waits is answered, and the store is closed."""
    app.state.ready = True
    yield
    app.state.ready = False
    engine: Engine = app.state.engine
    for each in (engine, app.state.beside):
        if each is not None:
            each.close()
    engine.store.close()


def create_app(run: Path, options: ServeOptions) -> FastAPI:
    """The application that answers by the run, ready: models are loaded and warm when this returns.

    Its keys are those of the environment.

    Raises:
        PalateError: run, rules or store cannot be used.
    """
    app = FastAPI(title="Palate", version=__version__, lifespan=lifespan)
    app.state.keys, app.state.ready = Keys.from_environment(), False
    problems.install(app)
    limits.install(app, options)
    metrics, store = install_metrics(app), open_store(options.store)

    def engine_of(folder: Path) -> Engine:
        return Engine(
            folder, store, metrics, rules=options.rules, threads=options.threads, queue=options.queue
        )

    app.state.engine = engine = engine_of(run)
    app.state.beside = beside = None if options.beside is None else engine_of(options.beside)

    def now() -> Present:
        return engine.present

    other = None if beside is None else (lambda: beside.present)
    # Before the items, whose keys may be anything.
    for router in (
        overview_router(now, other),
        map_router(now),
        preview_router(now),
        compare_router(now, other),
    ):
        app.include_router(router, dependencies=[READ], responses=problems.PROBLEMS)
    for of in (events_router, recommendations_router, items_router, users_router, admin_router):
        app.include_router(of(engine))
    app.include_router(health_router())
    app.include_router(page_router())
    return app
