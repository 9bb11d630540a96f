"""Every error as one JSON shape, with the request's id and without internals."""

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
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.errors import (
    BundleError,
    BusyError,
    ConflictError,
    DataError,
    MissingExtraError,
    PalateError,
    SettingsError,
    StoreError,
    UnknownKeyError,
)
from palate.serve.log import REQUEST_ID

log = logging.getLogger("palate.serve")

HEADER, RAW_HEADER = "X-Request-ID", b"x-request-id"
SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids of callers that are taken over."""
LONGEST = 500
"""Characters of a message; what a caller sent is not sent back at length."""
FAULTS = 3
"""Faults of one request that are named."""
CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
STATUS: tuple[tuple[type[PalateError], int], ...] = (
    (UnknownKeyError, 404),
    (ConflictError, 409),
    (BundleError, 409),  # what was exported cannot be loaded; the present model goes on
    (DataError, 422),
    (SettingsError, 422),
    (MissingExtraError, 415),
    (BusyError, 503),
    (StoreError, 503),
)
"""The first class that fits decides."""
SECONDS = {BusyError: 1, StoreError: 5}
"""When to ask again."""


class ProblemDetail(BaseModel):
    code: str
    message: str
    request_id: str


class ProblemView(BaseModel):
    """What every error answers."""

    error: ProblemDetail


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemView, "description": code.replace("_", " ").capitalize()}
    for status, code in CODES.items()
    if status not in (405, 500)
}
"""For ``responses=`` of routers."""


def install(app: FastAPI) -> None:
    """Errors of every route are answered in this shape; each answer names its request."""
    app.add_exception_handler(PalateError, of_palate)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_middleware(Requests)


def problem(
    scope: Scope, status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that tells of an error."""
    told = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
    detail = ProblemDetail(
        code=CODES.get(status, "error"),
        message=told.encode("utf-8", "replace").decode(),  # half a surrogate pair is no text
        request_id=request_id(scope),
    )
    named = {HEADER: detail.request_id, **(headers or {})}
    return JSONResponse(ProblemView(error=detail).model_dump(), status, named)


def request_id(scope: Scope) -> str:
    """The id of this request: the caller's, if it is short and plain, or a new one."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = next((value for name, value in scope["headers"] if name == RAW_HEADER), b"")
        told = sent.decode("latin-1")
        state["request_id"] = told if SANE.fullmatch(told) else uuid.uuid4().hex
    found: str = state["request_id"]
    return found


class Requests:
    """Gives each request its id, and answers 500 where something broke; the log says what."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, begun = request_id(scope), False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                others = [pair for pair in message["headers"] if pair[0] != RAW_HEADER]
                message["headers"] = [*others, (RAW_HEADER, name.encode())]
            await send(message)

        reset = REQUEST_ID.set(name)
        try:
            await self._app(scope, receive, sent)
        except Exception:
            log.exception("a request failed")
            if begun:  # too late to say so; the connection breaks, so nobody takes the half for the whole
                raise
            await problem(scope, 500, "Something broke here. The log knows more.")(scope, receive, sent)
        finally:
            REQUEST_ID.reset(reset)


async def of_palate(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error of ours.

    Raises:
        Exception: the error itself, where it is no fault of the request.
    """
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    if status == 500:
        raise error
    if isinstance(error, StoreError) and status == 503:
        log.error("the event store: %s", error)
        message = "The event store does not answer; what was to be written may be there or not. Ask again."
    else:
        message = str(error)
    wait = next((seconds for kind, seconds in SECONDS.items() if isinstance(error, kind)), None)
    headers = {"Retry-After": str(wait)} if status == 503 else None
    return problem(request.scope, status, message, headers)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(request.scope, error.status_code, str(error.detail), error.headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    """Names what is wrong and where, and does not repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(fault["loc"][:1] == ("body",) for fault in faults) and _sent_something_else(request):
        return problem(request.scope, 415, "Send JSON, with Content-Type: application/json.")
    named = [f"{_place(fault['loc'])}: {fault['msg']}"[: LONGEST // FAULTS] for fault in faults[:FAULTS]]
    more = f" And {len(faults) - FAULTS} more." if len(faults) > FAULTS else ""
    status = 400 if any(fault["type"] == "json_invalid" for fault in faults) else 422
    return problem(request.scope, status, ". ".join(named) + "." + more)


def _sent_something_else(request: Request) -> bool:
    """Whether there is a body, and it does not say that it is JSON; then nobody has read it as that."""
    headers, kind = request.headers, content_type(request)
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return has_body and not is_json


def content_type(request: Request) -> str:
    """What the request says that its body is, in small letters and without parameters; empty if nothing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _place(path: tuple[int | str, ...]) -> str:
    return ".".join(str(step)[:64] for step in path)
