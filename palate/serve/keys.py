"""Who may ask: a dependency of every route that is not open to all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.serve.files import TYPES
from palate.serve.options import Keys, Level, is_loopback
from palate.serve.problems import problem

HEADER = "X-API-Key"
CHALLENGE = {"WWW-Authenticate": HEADER}
OPEN = frozenset({"/health/live", "/health/ready", "/", *(f"/{name}" for name in TYPES)})
"""Whoever watches the server, and the page's own files, which hold no data."""

_SCHEME = APIKeyHeader(
    name=HEADER, auto_error=False, description="Wanted where the server was started with keys."
)


class Gate:
    """Requests without a known key end here, before their bodies are read and whatever their route says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            keys: Keys = scope["app"].state.keys
            if keys.wanted and keys.level_of(Headers(scope=scope).get(HEADER, "")) is None:
                told = f"Send a key in the header {HEADER}."
                await problem(scope, 401, told, CHALLENGE)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def install(app: FastAPI) -> None:
    """Nothing of the application but what is open is reached without a known key."""
    app.add_middleware(Gate)


def needs(level: Level) -> Callable[..., Awaitable[Level]]:
    """A dependency that lets pass whoever has a key of this level or above, and all where no key is set.

    It gives the level of the key. ``app.state.keys`` holds the keys.

    Raises:
        HTTPException: 401 without a key or with an unknown one, 403 with one that is too weak, or where
            no key is set and the request comes from a page of somebody else.
    """

    async def check(request: Request, sent: str | None = Security(_SCHEME)) -> Level:
        allowed = level_of(request, sent or "")
        if allowed is None and not request.app.state.keys.wanted:
            raise HTTPException(403, "Without keys only pages of this server may ask. Set keys.")
        if allowed is None:
            raise HTTPException(401, f"Send a key in the header {HEADER}.", headers=CHALLENGE)
        if allowed < level:
            raise HTTPException(403, f"This needs the {level.name.lower()} key.")
        return allowed

    return check


def level_of(request: Request, sent: str) -> Level | None:
    """What the sender of this key, or of none, may do: all where no key is set, but nothing where the request
    then comes from a page of somebody else."""
    keys: Keys = request.app.state.keys
    if keys.wanted:
        return keys.level_of(sent)
    return Level.ADMIN if from_here(request) else None


def from_here(request: Request) -> bool:
    """Whether no page of another site asks, through the browser of somebody at this machine.

    Such a page can send requests, and where its name leads to this machine's own address read answers too.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    server = (request.scope.get("server") or ("",))[0]
    named_here = not is_loopback(server) or is_loopback(urlsplit(f"//{host}").hostname or "")
    return named_here and (origin is None or urlsplit(origin).netloc == host)


READ = Depends(needs(Level.READ))
WRITE = Depends(needs(Level.WRITE))
ADMIN = Depends(needs(Level.ADMIN))
