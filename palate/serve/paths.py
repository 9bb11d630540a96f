"""Keys with a slash: in a path, ``%2F`` belongs to the key and separates nothing."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

SLASH = "\udc2f"
"""Stands for a slash of a key until the route is found: half a surrogate pair, which nobody can send."""


def install(app: FastAPI) -> None:
    """Routes see each part of a path as one, whatever slashes are written in it as ``%2F``."""
    app.add_middleware(Paths)


def with_slashes(key: object) -> object:
    """The key of a path as its sender knows it."""
    return key.replace(SLASH, "/") if isinstance(key, str) else key


class Paths:
    """Servers decode a path before it is taken apart, so that a slash in a key would end it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"%2f" in (raw := scope.get("raw_path") or b"").lower():
            parts = raw.decode("latin-1").split("/")
            scope["path"] = "/".join(unquote(part).replace("/", SLASH) for part in parts)
        await self._app(scope, receive, send)
