"""What one request may cost: the size of its body, its time, and how many a key may send a second.

Pure ASGI, so that nothing is paid for what is not limited. Lengths of texts and lists are limited where
requests are read.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.keys import OPEN, level_of
from palate.serve.options import Level, ServeOptions
from palate.serve.problems import problem


def install(app: FastAPI, options: ServeOptions) -> None:
    """Requests of the application are held to these limits; ``app.state.keys`` says whose they are."""
    app.add_middleware(BodyLimit, most=options.max_body_bytes)
    app.add_middleware(TimeLimit, seconds=options.request_seconds)
    if options.rate is not None:
        app.add_middleware(RateLimit, rate=options.rate / options.workers)


class BodyLimit:
    """A body that is too large is refused: by what it says of its length, or once too much has come."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal():
            await problem(scope, 400, "The header Content-Length is no number.")(scope, receive, send)
            return
        if int(length) > self.most:
            await problem(scope, 413, self._told())(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self.most:
                    # FastAPI passes an HTTPException on that comes while it reads a body.
                    raise HTTPException(413, self._told(), {"Connection": "close"})
            return message

        await self.app(scope, counted, send)

    def _told(self) -> str:
        return f"A body has at most {self.most:,} bytes here."


class TimeLimit:
    """A request that has not begun to be answered in time is given up; what it began may still be carried
    out, so it has to be sent again as it was."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.seconds) as limit:
                await self.app(scope, receive, noted)
        except TimeoutError:
            if started or not limit.expired():
                raise
            await problem(scope, 503, "This took too long and was given up.")(scope, receive, send)


@dataclass
class Bucket:
    """Tokens that come back at a rate, at most one second's worth of them, and at least one."""

    rate: float
    tokens: float = field(init=False)
    filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.most

    @property
    def most(self) -> float:
        return max(1.0, self.rate)

    def wait(self, now: float) -> float:
        """0, and a token is gone; or the seconds until there is one."""
        self.tokens = min(self.most, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


class RateLimit:
    """One bucket for each key that is known, and one for everybody else, so that their number is fixed."""

    def __init__(self, app: ASGIApp, rate: float) -> None:
        self.app = app
        self.buckets: dict[Level | None, Bucket] = {level: Bucket(rate) for level in (None, *Level)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        seconds = self.buckets[level_of(scope)].wait(time.monotonic())
        if seconds == 0.0:
            await self.app(scope, receive, send)
            return
        retry = {"Retry-After": str(math.ceil(seconds))}
        await problem(scope, 429, headers=retry)(scope, receive, send)
