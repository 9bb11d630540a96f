"""Every error as one shape: ``{"error": {"code", "message", "request_id"}}``, without what is inside.

Messages say what came and what was wanted. What went wrong on our side stands in the log only, under the
request's id, which the answer carries in its body and in the header ``X-Request-ID``.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.errors import BusyError, ConflictError, DataError, PalateError, SettingsError, UnknownKeyError

CODES = {
    400: ("bad_request", "The request cannot be read."),
    401: ("unauthorized", "A key is missing, or is not known."),
    403: ("forbidden", "This key may not do this."),
    404: ("not_found", "There is nothing of this name."),
    405: ("method_not_allowed", "This path has other methods."),
    409: ("conflict", "Something else is known under this id."),
    413: ("too_large", "The body is larger than is taken."),
    415: ("unsupported_media_type", "Another kind of body is wanted."),
    422: ("invalid", "The request is understood, and something in it cannot be used."),
    429: ("too_many_requests", "This key sends more than it may. Try again after Retry-After seconds."),
    500: ("internal", "Something went wrong here. The log has it under this request_id."),
    503: ("unavailable", "The service cannot answer now. Try again after Retry-After seconds."),
}
RETRY_AFTER = 1
"""Seconds after which it is worth trying again."""
LONGEST_MESSAGE = 500
MOST_FAULTS = 5
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("palate.serve")


class ErrorView(BaseModel):
    """What went wrong."""

    code: str
    """One word for programs; it does not change."""
    message: str
    """A sentence for people."""
    request_id: str


class ProblemView(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorView


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemView, "description": text}
    for status, (_, text) in CODES.items()
    if status != 405
}
"""For ``responses=`` of a router."""


def problem(
    scope: Scope, status: int, message: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer with this status; without a message it has the one of the status."""
    code, usual = CODES.get(status, ("error", "The request failed."))
    text = usual if message is None else message
    if len(text) > LONGEST_MESSAGE:
        text = text[:LONGEST_MESSAGE] + " …"
    error = {
        "code": code,
        "message": text.encode("utf-8", "replace").decode(),
        "request_id": request_id(scope),
    }
    retry = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    return JSONResponse({"error": error}, status, {**retry, **(headers or {})})


def request_id(scope: Scope) -> str:
    """The id of the request: the caller's own, if it is short and plain, or a new one."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    return str(state["request_id"])


def install(app: FastAPI) -> None:
    """Every error of the application has the one shape, and every answer its request's id.

    What is installed afterwards lies around this, and answers with ``problem``.
    """
    app.add_exception_handler(PalateError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_middleware(LastResort)


class LastResort:
    """Answers get their request's id; an exception that nobody foresaw becomes a plain 500 and one entry in
    the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id(scope)
            await send(message)

        try:
            await self.app(scope, receive, marked)
        except Exception:
            _log.exception("a request failed", extra={"request_id": request_id(scope)})
            if started:  # the answer is half sent: cut it off
                raise
            await problem(scope, 500)(scope, receive, marked)


def status_of(error: PalateError) -> int:
    """The status that an error of ours is told as."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 503


_STATUSES: tuple[tuple[type[PalateError], int], ...] = (
    (UnknownKeyError, 404),
    (ConflictError, 409),
    (DataError, 422),
    (SettingsError, 422),
    (BusyError, 503),
)


async def _of_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PalateError)
    status = status_of(error)
    if status != 503:
        return problem(request.scope, status, str(error))
    if isinstance(error, BusyError):
        return problem(request.scope, 503, str(error))
    # The store, a bundle, a library: the message is for whoever runs the service.
    _log.error("%s: %s", type(error).__name__, error, extra={"request_id": request_id(request.scope)})
    return problem(request.scope, 503)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    usual = error.status_code == 405 or not isinstance(error.detail, str)
    return problem(request.scope, error.status_code, None if usual else error.detail, error.headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    """What cannot be used and where, without repeating what came."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem(request.scope, 400, "The body is no JSON.")
    if any(fault["loc"] == ("body",) for fault in faults) and not _is_json(request):
        return problem(request.scope, 415, "Send JSON, with the header Content-Type: application/json.")
    told = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in faults]
    more = f" (and {len(told) - MOST_FAULTS} more)" if len(told) > MOST_FAULTS else ""
    return problem(request.scope, 422, "; ".join(told[:MOST_FAULTS]) + more)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")
