"""The shortest way to a person's list, for the call that comes most often.

A framework that finds out for each request which of many routes, parameters and checks it needs takes longer
for that than this server for the list. So a plain and valid call is answered here, by the same checks, limits
and functions; everything else goes the ordinary way, which also says what is wrong with it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.errors import PalateError
from palate.serve.engine import Engine
from palate.serve.keys import HEADER, level_of
from palate.serve.limits import header_of
from palate.serve.options import Level
from palate.serve.paths import with_slashes
from palate.serve.problems import of_palate
from palate.serve.recommending import asked_of, listed
from palate.serve.wire import Key, QueryOptions

TEMPLATE = "/v1/users/{user}/recommendations"
PATH = re.compile("/v1/users/([^/]+)/recommendations")
LONGEST_QUERY = 256
"""Longer ones are seldom the same twice."""
MOST_QUERIES = 1_024
SEVERAL = frozenset({"any_of", "none_of", "exclude", "context"})
_KEY: TypeAdapter[str] = TypeAdapter(Key)


class Named(NamedTuple):
    """What numbers and logs call a route."""

    path: str


def install(app: FastAPI) -> None:
    """To be installed first: what stands around the routes stands around this too."""
    app.add_middleware(Quick)


class Quick:
    """Answers ``GET …/recommendations`` without reasons, where nothing is wrong with the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            found = PATH.fullmatch(scope["path"])
            user = None if found is None else _person(found[1])
            query: bytes = scope["query_string"]
            options = _options(query) if user is not None and len(query) <= LONGEST_QUERY else None
            if options is not None and _may_read(scope):
                scope["route"] = Named(TEMPLATE)
                engine: Engine = scope["app"].state.engine
                try:
                    answer = await listed(engine, asked_of(options, options.at, user=user))
                except PalateError as error:
                    answer = await of_palate(Request(scope), error)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _person(part: str) -> str | None:
    try:
        return _KEY.validate_python(with_slashes(part))
    except ValidationError:
        return None


@lru_cache(MOST_QUERIES)
def _options(query: bytes) -> QueryOptions | None:
    """What a query says; None where it is anything but plain."""
    said: dict[str, str | list[str]] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in SEVERAL:
            said[name] = [*said.get(name, ()), value]
        elif name in said:
            return None
        else:
            said[name] = value
    try:
        options = QueryOptions.model_validate(said)
    except ValidationError:
        return None
    return None if options.explain else options


def _may_read(scope: Scope) -> bool:
    level = level_of(Request(scope), header_of(scope, HEADER.lower()))
    return level is not None and level >= Level.READ
