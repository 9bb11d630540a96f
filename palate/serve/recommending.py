"""Lists of recommendations, for a person and for a history that is sent along."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from palate.serve.asking import Answered, Asked, Met
from palate.serve.engine import Engine
from palate.serve.wire import HistoryIn, Language, Options, PathKey, QueryOptions, RecommendationsOut


def recommending_router(engine: Engine) -> APIRouter:
    """The routes; both only read."""
    router = APIRouter(prefix="/v1", tags=["recommendations"])

    @router.get("/users/{user}/recommendations", response_model=RecommendationsOut)
    async def recommendations(user: PathKey, options: Annotated[QueryOptions, Query()]) -> Response:
        """The best items for this person, from all events up to this moment."""
        asked = asked_of(options, options.at, user=user)
        return await _answer(engine, asked, options)

    @router.post("/recommendations", response_model=RecommendationsOut)
    async def recommendations_after(body: HistoryIn) -> Response:
        """The best items after this history; nothing of it is stored."""
        met = tuple(
            Met(each, None, None) if isinstance(each, str) else Met(each.item, each.event, each.time)
            for each in body.history
        )
        return await _answer(engine, asked_of(body, body.at, history=met), body)

    return router


def asked_of(
    options: Options, at: int | None, *, user: str | None = None, history: tuple[Met, ...] = ()
) -> Asked:
    """What is asked, from what was sent."""
    return Asked(
        user=user,
        history=history,
        k=options.k,
        filter_seen=options.filter_seen,
        any_of=by_field(options.any_of),
        none_of=by_field(options.none_of),
        exclude=tuple(options.exclude),
        context=tuple(options.context),
        page=options.page,
        at=at,
        event=options.event,
    )


def by_field(filters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Labels by field, from texts FIELD:LABEL."""
    found: dict[str, tuple[str, ...]] = {}
    for text in filters:
        name, _, label = text.partition(":")
        found[name] = (*found.get(name, ()), label)
    return found


async def _answer(engine: Engine, asked: Asked, options: Options) -> Response:
    if not options.explain:
        return await listed(engine, asked)
    answered = await asyncio.wrap_future(engine.submit(asked))
    return await run_in_threadpool(_written, answered, options.language, options.inside)


async def listed(engine: Engine, asked: Asked) -> Response:
    """The list, without reasons.

    Raises:
        PalateError: as ``Engine.submit``, or what is asked cannot be answered.
    """
    return _written(await asyncio.wrap_future(engine.submit(asked)), None)


def _written(answered: Answered, language: Language | None, inside: Sequence[str] = ()) -> Response:
    """The answer as JSON; it is built by hand, since checking it again costs more than making it."""
    items = answered.items()
    if language is not None:
        reasons = answered.reasons(language, inside)
        items = [item | {"reasons": why} for item, why in zip(items, reasons, strict=True)]
    answer = {"user": answered.asked.user, "model": answered.live.digest, "items": items}
    return Response(to_json(answer), media_type="application/json")
