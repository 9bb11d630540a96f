"""Log lines: plain or JSON, with the id of the request, without keys and without what people ask for."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from contextvars import ContextVar

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.options import ServeOptions

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered here."""
access = logging.getLogger("palate.access")


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if REQUEST_ID.get():
            line["request_id"] = REQUEST_ID.get()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class PlainLines(logging.Formatter):
    """Time, level and message for the eye; a line break in a message begins no new line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{moment:%Y-%m-%d %H:%M:%S} {record.levelname.lower():7} {message}"
        if REQUEST_ID.get():
            line += f" [{REQUEST_ID.get()}]"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def configure(options: ServeOptions) -> None:
    """All logs of this process go to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if options.json_logs else PlainLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def install(app: FastAPI, options: ServeOptions) -> None:
    """One line per request, where that is wanted."""
    if options.access_log:
        app.add_middleware(AccessLog)


class AccessLog:
    """Tells method, route, status and milliseconds of each request.

    The route is the template (``/v1/users/{user}/recommendations``). Paths and queries name people, so
    neither they nor addresses nor headers are written.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            milliseconds = round((time.perf_counter() - started) * 1e3, 2)
            told = {"method": method_of(scope), "route": route_of(scope), "status": status}
            told |= {"ms": milliseconds, "request_id": scope.get("state", {}).get("request_id", "")}
            access.info("%s %s %s %s ms", *list(told.values())[:4], extra={"told": told})


METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def method_of(scope: Scope) -> str:
    """The method, or OTHER for one that the interface does not know."""
    method: str = scope["method"]
    return method if method in METHODS else "OTHER"


def route_of(scope: Scope) -> str:
    """The template of the route that answered, or ``none``; never what stood in its place."""
    return getattr(scope.get("route"), "path", "none")
