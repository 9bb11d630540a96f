"""Descriptions of items as they are sent: JSON, or a form with files."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from palate.serve.problems import content_type
from palate.serve.wire import LONGEST_TEXT

MOST_FIELDS = 200
MOST_FILES = 16
DESCRIBED_BY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"fields": {"type": "object", "maxProperties": MOST_FIELDS}},
                    "required": ["fields"],
                    "additionalProperties": False,
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"fields": {"type": "string", "contentMediaType": "application/json"}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                }
            },
        },
    }
}
"""For the OpenAPI description."""


class Sent(NamedTuple):
    """What somebody says of an item."""

    fields: dict[str, Any]
    files: dict[str, bytes]


async def sent(request: Request) -> Sent:
    """The description in a request.

    Raises:
        HTTPException: 415 another type of content; 422 no JSON, no mapping of fields, or too much of it.
    """
    kind = content_type(request)
    if kind == "multipart/form-data":
        return await _form(request)
    if kind != "application/json":
        raise HTTPException(415, "Send application/json, or multipart/form-data with files.")
    body = _json(await request.body())
    if not isinstance(body, dict) or set(body) != {"fields"}:
        raise HTTPException(422, 'Wanted {"fields": {…}}.')
    return Sent(_fields(body["fields"]), {})


async def _form(request: Request) -> Sent:
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FILES) as form:
        for name, part in form.multi_items():
            content = await part.read() if isinstance(part, UploadFile) else part.encode(errors="replace")
            if name == "fields":
                fields = _fields(_json(content))
            elif not isinstance(part, UploadFile):
                raise HTTPException(
                    422, f"The part '{name[:LONGEST_TEXT]}' is no file. Values go into 'fields'."
                )
            elif name in files:
                raise HTTPException(422, f"The part '{name[:LONGEST_TEXT]}' comes twice; one file is kept.")
            else:
                files[name] = content
    return Sent(fields, files)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise HTTPException(422, "The fields are no JSON in UTF-8.") from None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _fields(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or len(given) > MOST_FIELDS:
        raise HTTPException(422, f"'fields' has to be a mapping of at most {MOST_FIELDS} names to values.")
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HTTPException(422, "A text of the fields is no Unicode.") from None
    return given
