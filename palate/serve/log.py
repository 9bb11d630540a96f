"""The log: one line, or one JSON object, for each thing worth telling, on standard error.

No line holds a key, the address of a store, or what somebody did. A line about a request names the route
and not the path, since paths hold the keys of people; it has the request's id, which the answer carries too.
"""

from __future__ import annotations

import datetime
import json
import logging
import logging.config
import time
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.options import ServeOptions
from palate.serve.problems import request_id

ACCESS = "palate.serve.access"
EXTRA = ("request_id", "method", "route", "status", "milliseconds")
"""What a line may have beside its message."""
_access = logging.getLogger(ACCESS)


class JsonLines(logging.Formatter):
    """Each record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: record.__dict__[name] for name in EXTRA if name in record.__dict__}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainLines(logging.Formatter):
    """Each record as a line for the eye."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the library's name
        extra = " ".join(str(record.__dict__[name]) for name in EXTRA if name in record.__dict__)
        return super().formatMessage(record) + (f"  [{extra}]" if extra else "")


def configuration(options: ServeOptions) -> dict[str, Any]:
    """For ``logging.config.dictConfig``: our lines and those of the web server in one form."""
    formatter = JsonLines if options.json_logs else PlainLines
    handlers = {"handlers": ["lines"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "handlers": {
            "lines": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}
        },
        "loggers": {"palate": handlers, "uvicorn": handlers},
    }


def install(app: FastAPI, options: ServeOptions) -> None:
    """The application tells of each of its requests, where that is wanted."""
    if options.access_log:
        app.add_middleware(AccessLog)


class AccessLog:
    """A line for each request when it is answered, or given up."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            told = {
                "request_id": request_id(scope),
                "method": scope["method"],
                "route": route_of(scope),
                "status": status,
                "milliseconds": round(1e3 * (time.perf_counter() - begun), 2),
            }
            _access.info("answered" if status else "given up", extra=told)


def route_of(scope: Scope) -> str:
    """The route that took the request, with the names of its parts: ``/v1/users/{user}``; for a path that no
    route has, ``unmatched``."""
    return str(
        getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", "unmatched")
    )
