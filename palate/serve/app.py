"""The application: what answers, its routes, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from palate.serve import keys, limits, log, metrics, paths, problems, quick
from palate.serve.admin import admin_router
from palate.serve.asking import Asked
from palate.serve.compare import compare_router
from palate.serve.description import described
from palate.serve.engine import Engine
from palate.serve.events import events_router
from palate.serve.files import page_router
from palate.serve.health import health_router
from palate.serve.items import changing_items_router, reading_items_router
from palate.serve.keys import ADMIN, READ, WRITE
from palate.serve.map import map_router
from palate.serve.options import Keys, ServeOptions
from palate.serve.overview import overview_router
from palate.serve.preview import preview_router
from palate.serve.problems import PROBLEMS
from palate.serve.recommending import recommending_router
from palate.serve.users import guarded_users_router, reading_users_router
from palate.store.opening import open_store


def create_app(run: Path, options: ServeOptions, *, fresh: bool = True) -> FastAPI:
    """An application that answers by this run; its models are loaded and warm when this returns.

    Its keys are those of the environment. When it is stopped, what waits is answered and the store is closed.

    Args:
        fresh: whether an export that is new since the last start answers; otherwise what answers elsewhere.

    Raises:
        BundleError: RUN/serving is absent or cannot be used.
        SettingsError: rules, or keys, that cannot be used.
        StoreError: the store does not answer.
        MissingExtraError: a library is not installed.
    """
    with ExitStack() as opened:
        known = Keys.from_environment()
        app = described(known, _lifespan)
        app.state.keys, app.state.ready = known, False
        quick.install(app)  # each is around those before it
        keys.install(app)
        paths.install(app)
        limits.install(app, options)
        problems.install(app)
        numbers = metrics.install(app)
        log.install(app, options)
        store = opened.enter_context(open_store(options.store))
        start = partial(
            Engine,
            store=store,
            rules=options.rules,
            threads=options.threads,
            exact_up_to=options.exact_up_to,
            most_waiting=options.queue,
            metrics=numbers,
            fresh=fresh,
        )
        engine = start(run)
        opened.callback(engine.close)
        beside: Engine | None = None
        if options.beside is not None:
            beside = start(options.beside, name=f"beside/{options.beside.resolve().name}")
            opened.callback(beside.close)
        for each in (engine, beside):
            if each is not None:
                each.submit(Asked(user="")).result()  # whatever is slow the first time
        _route(app, engine, beside)
        app.state.engine, app.state.closing = engine, opened.pop_all()
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.ready = True
    yield
    app.state.ready = False
    await run_in_threadpool(app.state.closing.close)


def _route(app: FastAPI, engine: Engine, beside: Engine | None) -> None:
    """What is most particular comes first: a key may be called as a route is."""
    now, other = engine.now, None if beside is None else beside.now
    routers = [
        (overview_router(now, other), READ),
        (map_router(now), READ),
        (preview_router(now), READ),
        (compare_router(now, other), READ),
        (recommending_router(engine), READ),
        (reading_users_router(engine), READ),
        (reading_items_router(engine), READ),
        (events_router(engine), WRITE),
        (changing_items_router(engine), WRITE),
        (guarded_users_router(engine), ADMIN),
        (admin_router(engine), ADMIN),
    ]
    for router, level in routers:
        app.include_router(router, dependencies=[level], responses=PROBLEMS)
    app.include_router(health_router())
    app.include_router(page_router())
