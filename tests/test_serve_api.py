"""The interface holds what its description says, opens nothing without a key, and survives the hostile."""

from __future__ import annotations

import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from palate.serve.app import create_app
from palate.serve.options import ServeOptions
from tests.served import ADMIN, KEYS, free_port

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
SLOW = ("/v1/admin/reload",)
"""Operations that take long and have little to say."""
LONGEST_LINE = 65_000
"""Bytes of a request line; longer ones are refused before the application hears of them."""
OPEN = ("/health/live", "/health/ready")
ADMINS = {("GET", "/v1/users/{user}"), ("DELETE", "/v1/users/{user}"), ("POST", "/v1/admin/reload")}
READ_BY_POST = {"/v1/recommendations", "/v1/items/preview"}
SEVERAL = {"read": 1, "write": 2, "admin": 3}


@contextmanager
def live(run, store, **options) -> Iterator[tuple[str, dict]]:
    """The application on a socket, and its description."""
    app, port = create_app(run, ServeOptions(store=f"sqlite:///{store}", **options)), free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", app.openapi()
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["keys", "no keys"])
def headers(request, monkeypatch):
    """What opens every route, of a server with keys and of one without."""
    for name, key in KEYS.items():
        if request.param == "keys":
            monkeypatch.setenv(name, key)
        else:
            monkeypatch.delenv(name, raising=False)
    return ADMIN if request.param == "keys" else {}


@pytest.fixture
def keys(monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


def level_of(method: str, path: str) -> str | None:
    """The key that a route wants; written down here a second time, on purpose."""
    if path in OPEN:
        return None
    if (method, path) in ADMINS:
        return "admin"
    return "read" if method == "GET" or path in READ_BY_POST else "write"


def operations(description: dict) -> Iterator[schemathesis.APIOperation]:
    schema = schemathesis.openapi.from_dict(description)
    for result in schema.get_all_operations():
        yield result.ok()


def conforms(
    url: str, description: dict, headers: dict[str, str], examples: int, *, derandomize: bool
) -> int:
    """So many requests of every operation, half of them against the description; how many in all."""
    count, session, wrong = 0, requests.Session(), []
    for operation in operations(description):
        few = max(1, examples // 50) if operation.path in SLOW else examples
        for mode in GenerationMode:

            @settings(
                max_examples=few,
                deadline=None,
                database=None,
                derandomize=derandomize,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                nonlocal count
                count += 1
                answer = case.call(base_url=url, headers=headers, session=session)
                if answer.content == b"Invalid HTTP request received.":  # of what reads HTTP, before us
                    assert len(answer.request.url) > LONGEST_LINE
                    return
                case.validate_response(answer, checks=CHECKS)

            if mode == GenerationMode.NEGATIVE and not can_be_wrong(operation):
                continue
            try:
                ask()
            except (FailureGroup, Failure) as error:
                wrong.append(
                    "\n".join([operation.label, str(error), *map(str, getattr(error, "exceptions", ()))])
                )
    assert not wrong, "\n\n".join(wrong)
    return count


def can_be_wrong(operation: schemathesis.APIOperation) -> bool:
    """Whether there is anything in a request that could break the description."""
    return bool(operation.body) or any(True for _ in operation.query) or any(True for _ in operation.headers)


def test_every_answer_is_as_the_description_says(shop_run, tmp_path, headers):
    with live(shop_run, tmp_path / "events.db") as (url, description):
        assert conforms(url, description, headers, 8, derandomize=True) > 100


@pytest.mark.slow
def test_twenty_thousand_answers_are_as_the_description_says(shop_run, tmp_path, headers):
    with live(shop_run, tmp_path / "events.db") as (url, description):
        count, rounds = 0, 0
        while count < 10_000:  # the other half with, or without, keys
            count += conforms(url, description, headers, 150, derandomize=False)
            rounds += 1
        print(f"{count} requests in {rounds} rounds")


def test_no_route_is_open_without_its_key(shop_run, tmp_path, keys):
    """Neither without a key, nor with one that is none, nor with a weaker one; whatever the request says."""
    with live(shop_run, tmp_path / "events.db") as (url, description), httpx.Client(base_url=url) as client:
        asked = 0
        for path, methods in description["paths"].items():
            for method in map(str.upper, methods):
                wanted, where = level_of(method, path), path.replace("{", "").replace("}", "")
                for level, strength in {None: 0, "none of ours": 0, **SEVERAL}.items():
                    key = KEYS.get(f"PALATE_{str(level).upper()}_KEY", level)
                    sent = {} if key is None else {"X-API-Key": key}
                    for body in ({}, {"json": {}}, {"content": b"\xff{"}):
                        status = client.request(method, where, headers=sent, **body).status_code
                        asked += 1
                        if wanted is None:
                            assert status in (200, 503), (method, path, status)
                        elif strength == 0:
                            assert status == 401, (method, path, level, status)
                        elif strength < SEVERAL[wanted]:
                            assert status == 403, (method, path, level, status)
                        else:
                            assert status not in (401, 403), (method, path, level, status)
                            assert status < 500, (method, path, level, status)
        assert asked > 200


def test_a_key_with_a_slash_comes_through_the_real_parser(shop_run, tmp_path, headers):
    """``raw_path`` is what a server gives the application; the client of other tests writes it itself."""
    app = live(shop_run, tmp_path / "events.db")
    with app as (url, _), httpx.Client(base_url=url, headers=headers) as to:
        assert to.put("/v1/items/shelf%2F7", json={"fields": {"title": "a cup"}}).status_code in (200, 201)
        assert to.get("/v1/items/shelf%2F7").json()["item"] == "shelf/7"
        assert to.get("/v1/users/a%2Fb/recommendations?k=3").json()["user"] == "a/b"
        assert to.get("/v1/items/shelf/7").status_code == 404


def test_what_is_not_described_is_closed_too(shop_run, tmp_path, keys):
    """The description itself, and paths that only look like open ones."""
    with live(shop_run, tmp_path / "events.db") as (url, _), httpx.Client(base_url=url) as client:
        for path in ("/openapi.json", "/docs", "/redoc", "/metrics", "/v1", "/v1/", "/v1/nothing"):
            assert client.get(path).status_code in (401, 404), path
        bodies = {"content": b"{no json", "headers": {"Content-Type": "application/json"}}
        assert client.post("/v1/events", **bodies).status_code == 401  # refused before it is read
        for path in ("/health/../v1/items", "/health/live/..%2f..%2fv1%2fitems", "//v1/items", "/V1/items"):
            answer = client.get(path)
            assert answer.status_code in (401, 404), path


def pixel_bomb(side: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that says it has 3.6 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def a_picture() -> bytes:
    with io.BytesIO() as written:
        Image.new("RGB", (8, 8), "#3b6ea8").save(written, "PNG")
        return written.getvalue()


FORM = {"fields": json.dumps({"title": "a cup"})}
JSON = {"Content-Type": "application/json"}
LIST = "/v1/users/guest-01/recommendations"
EVENT = {"event_id": "e", "user": "u", "item": "i", "event": "view", "time": 1}
HOSTILE = {
    "k of a thousand million": ("GET", f"{LIST}?k=1000000000", {}),
    "k below one": ("GET", f"{LIST}?k=-1", {}),
    "k that is no number": ("GET", f"{LIST}?k=nan", {}),
    "a time that no clock shows": ("GET", f"{LIST}?at=99999999999999999999999999", {}),
    "a filter of nothing": ("GET", f"{LIST}?any_of=:", {}),
    "a filter that is no field": ("GET", f"{LIST}?any_of=../../etc/passwd:x", {}),
    "thousands of exclusions": ("GET", f"{LIST}?" + "exclude=a&" * 1500, {}),
    "a very long key": ("GET", f"/v1/users/{'u' * 9000}/recommendations", {}),
    "NUL in a person": ("GET", "/v1/users/a%00b/recommendations", {}),
    "NUL in an item": ("PUT", "/v1/items/a%00b", {"json": {"fields": {"title": "x"}}}),
    "a path for an item": (
        "PUT",
        "/v1/items/..%2F..%2Fetc%2Fpasswd",
        {"json": {"fields": {"picture": "/etc/passwd"}}},
    ),
    "a URL for a picture": ("PUT", "/v1/items/u", {"json": {"fields": {"picture": "http://127.0.0.1:1/"}}}),
    "a path for a medium": ("GET", "/v1/items/dcut/media/..%2F..%2Fsettings.yaml", {}),
    "no JSON": ("POST", "/v1/events", {"content": b"{'", "headers": JSON}),
    "no text": ("POST", "/v1/events", {"content": b"\xff\xfe", "headers": JSON}),
    "JSON without an end of nesting": ("POST", "/v1/events", {"content": b"[" * 100_000, "headers": JSON}),
    "a number beyond all": ("POST", "/v1/events", {"json": EVENT | {"time": 10**30}}),
    "a value that is none": (
        "POST",
        "/v1/events",
        {"content": json.dumps(EVENT | {"value": float("inf")}), "headers": JSON},
    ),
    "half a surrogate": (
        "POST",
        "/v1/events",
        {"content": json.dumps(EVENT | {"user": "\ud800"}), "headers": JSON},
    ),
    "NUL in an event": ("POST", "/v1/events", {"json": EVENT | {"item": "a\0b"}}),
    "too many events": ("POST", "/v1/events", {"json": [EVENT] * 1001}),
    "an empty list in a list": ("POST", "/v1/events", {"json": [[]]}),
    "an unknown name": ("POST", "/v1/events", {"json": EVENT | {"admin": True}}),
    "a long history": ("POST", "/v1/recommendations", {"json": {"history": ["dcut"] * 100_000}}),
    "a pixel bomb": (
        "PUT",
        "/v1/items/bomb",
        {"data": FORM, "files": {"picture": ("p.png", pixel_bomb(), "image/png")}},
    ),
    "a picture that is none": (
        "PUT",
        "/v1/items/none",
        {"data": FORM, "files": {"picture": ("p.png", b"MZ" * 50, "image/png")}},
    ),
    "half a picture": (
        "PUT",
        "/v1/items/half",
        {"data": FORM, "files": {"picture": ("p.png", a_picture()[:40], "image/png")}},
    ),
    "a picture for a title": (
        "PUT",
        "/v1/items/title",
        {"data": FORM, "files": {"title": ("p.png", a_picture(), "image/png")}},
    ),
    "many parts": ("PUT", "/v1/items/many", {"data": {f"part{n}": "x" for n in range(500)}}),
    "no form": (
        "PUT",
        "/v1/items/form",
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
    ),
    "a form without a boundary": (
        "PUT",
        "/v1/items/form",
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}},
    ),
    "XML": ("PUT", "/v1/items/xml", {"content": b"<a/>", "headers": {"Content-Type": "application/xml"}}),
    "a reload of a path": ("POST", "/v1/admin/reload", {"json": {"to": "/etc"}}),
    "a reload of a path beside": ("POST", "/v1/admin/reload", {"json": {"to": "latest", "run": "/etc"}}),
}


def test_the_hostile_are_refused_with_reasons_and_the_server_goes_on(shop_run, tmp_path, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with live(shop_run, tmp_path / "events.db") as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        calm = client.get(f"{LIST}?k=5").json()
        wrong = {}
        for name, (method, path, sent) in HOSTILE.items():
            try:
                answer = client.request(method, path, **sent)
            except httpx.RemoteProtocolError:  # it hung up on us, which is an answer as well
                continue
            refused = 400 <= answer.status_code < 500
            problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
            if (
                not refused
                or "error" not in problem
                or "Traceback" in answer.text
                or len(answer.text) > 2_000
            ):
                wrong[name] = (answer.status_code, answer.text[:300])
        assert not wrong
        assert client.get(f"{LIST}?k=5").json() == calm
        assert client.get("/v1/items", params={"limit": 1}).json()["total"] == 120


def test_a_body_without_an_end_is_cut_off(shop_run, tmp_path, monkeypatch):
    """Also where no Content-Length says how long it will be."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)

    def forever() -> Iterator[bytes]:
        yield b"["
        for _ in range(200):
            yield b" " * 10_000

    with live(shop_run, tmp_path / "events.db", max_body_bytes=100_000) as (url, _):
        with suppress(httpx.WriteError, httpx.RemoteProtocolError):  # it may hang up before all is said
            assert httpx.post(f"{url}/v1/events", content=forever(), timeout=30).status_code == 413
        assert httpx.get(f"{url}/health/live").status_code == 200
