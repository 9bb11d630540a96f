"""Who may call what: the key of a request against the level that a route needs.

A router takes ``dependencies=[READ]``; a route that needs more names it itself. The keys are those in
``app.state.keys``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from palate.serve.files import TYPES
from palate.serve.options import Keys, Level, is_loopback
from palate.serve.problems import problem

HEADER = "X-API-Key"
OPEN = frozenset({"/health/live", "/health/ready", "/", *(f"/{name}" for name in TYPES)})
"""Whoever watches the service, and the page's own files, which hold no data."""
_SCHEME = APIKeyHeader(
    name=HEADER, auto_error=False, description="Wanted where the service has keys; admin ⊃ write ⊃ read."
)
_CHALLENGE = {"WWW-Authenticate": HEADER}


def install(app: FastAPI) -> None:
    """Nothing of the application but what is open is reached without a known key."""
    app.add_middleware(Gate)


class Gate:
    """Requests without a known key end here, before their bodies are read and whatever their route says."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["path"] not in OPEN and scope["app"].state.keys
        if guarded and level_of(scope) is None:
            await problem(scope, 401, _refusal(scope), _CHALLENGE)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class SameMachine:
    """What keeps a service without keys to this machine although browsers run on it: a page from elsewhere
    can neither send anything (its origin is another) nor pass for this service under a name of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback(_name(host)) or (
                origin is not None and origin != f"{scope['scheme']}://{host}"
            ):
                told = "Without keys only this machine is answered. Set keys, or ask for 127.0.0.1."
                await problem(scope, 403, told)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def level_of(scope: Scope) -> Level | None:
    """The level of the key that a request came with; nothing without a known one."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "level" not in state:
        keys: Keys = scope["app"].state.keys
        key = Headers(scope=scope).get(HEADER)
        state["level"] = None if key is None else keys.level_of(key)
    found: Level | None = state["level"]
    return found


def needs(level: Level) -> Callable[..., Awaitable[str]]:
    """A dependency that lets a request pass whose key is of this level or above; it gives the word of the
    key's level, for the audit.

    Raises:
        HTTPException: 401 without a known key, 403 with one of a lower level.
    """

    async def check(request: Request, _: Annotated[str | None, Security(_SCHEME)]) -> str:
        if not request.app.state.keys:
            return "anybody"
        found = level_of(request.scope)
        if found is None:
            raise HTTPException(401, _refusal(request.scope), _CHALLENGE)
        if found < level:
            raise HTTPException(403, f"This needs the {level.word} key; a {found.word} key came.")
        return found.word

    return check


READ, WRITE, ADMIN = (Depends(needs(level)) for level in Level)


def _refusal(scope: Scope) -> str:
    given = HEADER in Headers(scope=scope)
    return "This key is not known." if given else f"Send a key in the header {HEADER}."


def _name(host: str) -> str:
    """What a header Host says, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
