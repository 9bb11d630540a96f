"""What one request may cost: bytes, seconds, and how many of them come in a second."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.keys import HEADER
from palate.serve.options import Keys, ServeOptions
from palate.serve.problems import problem

CALLERS = 4_096
"""Callers that are remembered; the one who asked longest ago is forgotten first."""


def install(app: FastAPI, options: ServeOptions) -> None:
    """Requests beyond the limits are answered with 413, 429 or 503; ``/health/…`` has no rate."""
    app.add_middleware(Limits, options=options)


class Buckets:
    """A bucket of tokens for each caller: ``rate`` come in each second, and a second's worth fits in.

    A caller without a bucket has a full one, so it does no harm to forget one that is full again.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._size, self._clock = rate, max(1.0, rate), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Zero where there was a token, which is gone now; else seconds until there is one."""
        now = self._clock()
        tokens, before = self._buckets.pop(caller, (self._size, now))
        tokens = min(self._size, tokens + (now - before) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[caller] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        return wait


class Limits:
    """Stands before the routes. Reads no body: it counts what they read."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app, self._most, self._seconds = app, options.max_body_bytes, options.request_seconds
        self._buckets = Buckets(options.rate) if options.rate is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._buckets is not None and not scope["path"].startswith("/health/"):
            wait = self._buckets.take(caller_of(scope))
            if wait > 0:
                answer = problem(scope, 429, "Too many requests.", {"Retry-After": str(math.ceil(wait))})
                await answer(scope, receive, send)
                return
        announced = header_of(scope, "content-length")
        if announced.isdecimal() and int(announced[:20]) > self._most:
            answer = problem(scope, 413, self._too_large, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._in_time(scope, self._counted(receive), send)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as deadline:
                await self._app(scope, receive, sent)
        except TimeoutError:
            if begun or not deadline.expired():
                raise
            message = (
                f"This took longer than {self._seconds:g} s. What was to be written may be there or not."
            )
            answer = problem(scope, 503, message, {"Retry-After": "1", "Connection": "close"})
            await answer(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """The same, until more has come than may; also where the length was not announced."""
        read = 0

        async def received() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, self._too_large, {"Connection": "close"})
            return message

        return received

    @property
    def _too_large(self) -> str:
        return f"The request has more than {self._most:,} bytes, which is the most that is taken."


def caller_of(scope: Scope) -> str:
    """The level of the key that was sent, or the address where it is none of ours."""
    keys: Keys = scope["app"].state.keys
    level = keys.level_of(header_of(scope, HEADER.lower())) if keys.wanted else None
    return level.name if level is not None else (scope.get("client") or ("",))[0]


def header_of(scope: Scope, name: str) -> str:
    """The first header of this name, in small letters; empty where there is none."""
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), "")
