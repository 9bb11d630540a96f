"""What stands around the routes of the server: keys, limits, errors, logs, numbers, starting and stopping."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from palate.cli import export_if_missing
from palate.errors import (
    BundleError,
    BusyError,
    ConflictError,
    DataError,
    MissingExtraError,
    NotFittedError,
    PalateError,
    SettingsError,
    StoreError,
    UnknownKeyError,
)
from palate.serve import keys as keys_of_app
from palate.serve import limits, log, metrics, problems
from palate.serve.health import health_router
from palate.serve.keys import ADMIN, READ, WRITE
from palate.serve.launch import serve
from palate.serve.limits import CALLERS, Buckets
from palate.serve.options import Keys, Level, ServeOptions, check_bind, is_loopback

KEYS = Keys(read="reading", write="writing", admin="ruling")
MOST = 1_000
ERRORS: dict[str, Exception] = {
    "unknown": UnknownKeyError("no such person"),
    "conflict": ConflictError("other content"),
    "bundle": BundleError("damaged"),
    "data": DataError("no number"),
    "settings": SettingsError("no such rule"),
    "extra": MissingExtraError("av", "media"),
    "busy": BusyError("too many wait"),
    "store": StoreError("/secret/folder/events.db does not answer"),
    "fitted": NotFittedError("secret state"),
    "bug": ZeroDivisionError("secret number"),
}


class Told(BaseModel):
    number: int


def small_app(keys: Keys = KEYS, **options: object) -> FastAPI:
    """A few routes with all that stands around them."""
    app = FastAPI()
    app.state.keys = keys
    keys_of_app.install(app)
    wanted = ServeOptions.of(**{"max_body_bytes": MOST, **options})
    limits.install(app, wanted)
    problems.install(app)
    metrics.install(app)
    log.install(app, wanted)
    app.include_router(health_router())
    router = APIRouter(prefix="/v1", responses=problems.PROBLEMS)

    @router.post("/users/{user}", dependencies=[WRITE])
    def write(user: str, told: Told) -> Told:
        return told

    @router.get("/users/{user}", dependencies=[READ])
    async def read(user: str) -> dict[str, str]:
        await asyncio.sleep(8 if user == "slow" else 0)
        return {"user": user}

    @router.get("/blocked", dependencies=[READ])
    def blocked() -> None:
        time.sleep(1)

    @router.get("/errors/{name}", dependencies=[READ])
    def fails(name: str) -> None:
        raise ERRORS[name]

    @router.delete("/everything", dependencies=[ADMIN])
    def delete() -> None:
        """Nothing is left."""

    app.include_router(router)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(small_app(), headers={"X-API-Key": "ruling"}) as found:
        yield found


def code_of(answer: object) -> str:
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert answer.headers["x-request-id"] == error["request_id"]
    return error["code"]


# Keys


ROUTES = {
    "READ": ("GET", "/v1/users/ann"),
    "WRITE": ("POST", "/v1/users/ann"),
    "ADMIN": ("DELETE", "/v1/everything"),
}


@pytest.mark.parametrize("wanted", list(Level))
@pytest.mark.parametrize("sent", list(Level))
def test_a_key_opens_what_is_at_its_level_or_below(client, wanted, sent):
    method, path = ROUTES[wanted.name]
    key = getattr(KEYS, sent.name.lower())
    answer = client.request(method, path, json={"number": 1}, headers={"X-API-Key": key})
    assert answer.status_code == (200 if sent >= wanted else 403)
    if sent < wanted:
        assert code_of(answer) == "forbidden"


@pytest.mark.parametrize("sent", ["", "readin", "readingg", "READING", "Bearer reading", "\xff", "x" * 4_000])
@pytest.mark.parametrize("wanted", list(Level))
def test_any_other_key_opens_nothing(wanted, sent):
    method, path = ROUTES[wanted.name]
    with TestClient(small_app()) as client:
        headers = {b"X-API-Key": sent.encode("latin-1")} if sent else {}
        answer = client.request(method, path, json={"number": 1}, headers=headers)
    assert answer.status_code == 401
    assert code_of(answer) == "unauthorized"
    assert "www-authenticate" in answer.headers


@given(st.text("readingxüé", max_size=8), st.sampled_from([None, "a", "reading"]))
def test_a_key_that_nobody_set_is_none(sent, read):
    keys = Keys(read=read)
    assert keys.level_of(sent) == (Level.READ if read is not None and sent == read else None)
    assert keys.level_of("") is None


def test_without_a_key_no_body_is_read_and_nothing_is_told_of_routes():
    with TestClient(small_app()) as client:
        for path in ("/v1/users/ann", "/v1/nowhere", "/openapi.json", "/metrics"):
            answer = client.post(path, content=b"{", headers={"content-type": "application/json"})
            assert (answer.status_code, code_of(answer)) == (401, "unauthorized")


def test_keys_come_from_the_environment_and_are_shown_nowhere():
    keys = Keys.from_environment({"PALATE_READ_KEY": "hush", "PALATE_WRITE_KEY": "", "OTHER": "x"})
    assert keys == Keys(read="hush")
    assert "hush" not in repr(keys)
    assert "secret" not in repr(ServeOptions.of(store="postgresql://palate:secret@db/palate"))
    with pytest.raises(SettingsError) as error:
        Keys.from_environment({"PALATE_READ_KEY": "hush", "PALATE_ADMIN_KEY": "hush"})
    assert "hush" not in str(error.value)
    for key in ("schlüssel", "two\nlines", " blank "):
        with pytest.raises(SettingsError, match="ASCII"):
            Keys.from_environment({"PALATE_READ_KEY": key})


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("shop.example", False), ("", False),
    ],
)  # fmt: skip
def test_nothing_is_opened_to_a_network_without_a_key(host, inside):
    assert is_loopback(host) == inside
    options = ServeOptions.of(host=host)
    check_bind(options, KEYS)
    if inside:
        check_bind(options, Keys())
    else:
        with pytest.raises(SettingsError, match="PALATE_READ_KEY"):
            check_bind(options, Keys())


def test_without_keys_pages_of_other_sites_are_refused():
    with TestClient(small_app(Keys()), base_url="http://127.0.0.1:8000") as client:

        def status(**headers: str) -> int:
            return client.get("/v1/users/ann", headers=headers).status_code

        assert status() == 200
        assert status(host="localhost:8000") == 200
        assert status(origin="http://127.0.0.1:8000") == 200
        assert status(origin="http://evil.example") == 403
        assert status(origin="null") == 403
        assert status(host="evil.example:8000") == 403  # a name that leads here
        assert status(host="evil.example:8000", origin="http://evil.example:8000") == 403


# Errors


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unknown", 404, "not_found"),
        ("conflict", 409, "conflict"),
        ("bundle", 409, "conflict"),
        ("data", 422, "invalid"),
        ("settings", 422, "invalid"),
        ("extra", 415, "unsupported_media_type"),
        ("busy", 503, "unavailable"),
        ("store", 503, "unavailable"),
        ("fitted", 500, "internal"),
        ("bug", 500, "internal"),
    ],
)
def test_every_error_has_its_status_and_tells_nothing_of_the_inside(client, name, status, code):
    answer = client.get(f"/v1/errors/{name}")
    assert answer.status_code == status
    assert code_of(answer) == code
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    if status < 500:
        assert str(ERRORS[name]) in answer.json()["error"]["message"]


def test_what_is_not_there_and_what_may_not_be_done_there_are_told_alike(client):
    assert code_of(client.get("/v1/nowhere")) == "not_found"
    answer = client.put("/v1/everything")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE"
    assert code_of(answer) == "method_not_allowed"


def test_faulty_requests_are_explained_without_being_repeated(client):
    answer = client.post("/v1/users/ann", json={"number": "z" * 600})
    assert (answer.status_code, code_of(answer)) == (422, "invalid")
    assert "body.number" in answer.json()["error"]["message"]
    assert "zzz" not in answer.text
    broken = client.post("/v1/users/ann", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, code_of(broken)) == (400, "bad_request")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("order-17.a_b", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("{}", False), ("", False)],
)
def test_a_sane_request_id_is_kept_and_any_other_replaced(client, sent, kept):
    answer = client.get("/v1/users/ann", headers={"X-Request-ID": sent})
    found = answer.headers["x-request-id"]
    assert (found == sent) == kept
    assert found
    assert code_of(client.get("/v1/errors/bug", headers={"X-Request-ID": sent})) == "internal"


# Limits


def test_a_body_beyond_the_limit_is_refused_announced_or_not(client):
    def body(size: int) -> bytes:
        return b'{"number": 1' + b" " * (size - 13) + b"}"

    kind = {"content-type": "application/json"}
    for size, status in ((MOST, 200), (MOST + 1, 413)):
        answer = client.post("/v1/users/ann", content=body(size), headers=kind)
        pieces = client.post("/v1/users/ann", content=iter([body(size)]), headers=kind)
        assert (answer.status_code, pieces.status_code) == (status, status)
    assert code_of(answer) == code_of(pieces) == "too_large"
    lying = client.post("/v1/users/ann", content=body(20), headers={**kind, "content-length": "9" * 30})
    assert lying.status_code == 413


@pytest.mark.parametrize("path", ["/v1/users/slow", "/v1/blocked"])
def test_what_takes_too_long_is_told_so(path):
    with TestClient(small_app(Keys(), request_seconds=0.3)) as client:
        started = time.perf_counter()
        answer = client.get(path)
        assert time.perf_counter() - started < 4
    assert (answer.status_code, code_of(answer)) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_each_key_has_its_own_rate_and_health_has_none():
    with TestClient(small_app(rate=3)) as client:

        def statuses(key: str) -> list[int]:
            return [client.get("/v1/users/ann", headers={"X-API-Key": key}).status_code for _ in range(5)]

        assert statuses("reading") == [200, 200, 200, 429, 429]
        assert statuses("writing") == [200, 200, 200, 429, 429]
        assert statuses("guess 1")[:3] == [401, 401, 401]
        refused = client.get("/v1/users/ann", headers={"X-API-Key": "guess 2"})  # no new bucket for a guess
        assert code_of(refused) == "too_many_requests"
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200


@given(
    st.floats(0.1, 50),
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc")), min_size=1, max_size=60),
)
def test_a_bucket_gives_no_more_than_its_rate_and_says_when_to_come_again(rate, arrivals):
    now = 0.0
    buckets = Buckets(rate, lambda: now)
    taken: dict[str, list[float]] = {}
    for pause, caller in arrivals:
        now += pause
        wait = buckets.take(caller)
        if wait == 0:
            taken.setdefault(caller, []).append(now)
        else:
            assert 0 < wait <= 1 / rate + 1e-9
            now += wait + 1e-6
            assert buckets.take(caller) == 0
            taken.setdefault(caller, []).append(now)
    for moments in taken.values():  # the slow and obvious way: in no stretch more than fits
        for first, begin in enumerate(moments):
            for last in range(first, len(moments)):
                assert last - first + 1 <= max(1, rate) + rate * (moments[last] - begin) + 1e-6


def test_buckets_of_strangers_do_not_pile_up():
    buckets = Buckets(1.0, lambda: 0.0)
    for number in range(CALLERS + 100):
        buckets.take(str(number))
    assert len(buckets._buckets) == CALLERS


# Health and numbers


def test_ready_says_whether_a_model_is_loaded(client):
    assert client.get("/health/live").json() == {"status": "alive"}
    assert code_of(client.get("/health/ready")) == "unavailable"
    client.app.state.ready = True
    assert client.get("/health/ready", headers={"X-API-Key": ""}).json() == {"status": "ready"}


def numbers(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_requests_are_counted_by_template_and_status(client):
    for user in ("ann", "bob", "cyd"):
        client.get(f"/v1/users/{user}")
    client.get("/v1/errors/bug")
    client.post("/v1/users/ann", json={})
    client.get("/some/where")
    found = numbers(client)
    route = 'palate_requests_total{method="%s",route="/v1/users/{user}",status="%d"}'
    assert (found[route % ("GET", 200)], found[route % ("POST", 422)]) == (3, 1)
    assert found['palate_requests_total{method="GET",route="/v1/errors/{name}",status="500"}'] == 1
    assert found['palate_requests_total{method="GET",route="none",status="404"}'] == 1
    assert found['palate_request_seconds_count{method="GET",route="/v1/users/{user}"}'] == 3
    assert not [name for name in found if "ann" in name]
    assert client.get("/metrics", headers={"X-API-Key": ""}).status_code == 401


def test_stages_events_items_and_the_model_are_told(client):
    told = client.app.state.metrics
    with told.stage("encode"):
        time.sleep(0.02)
    with pytest.raises(ValueError, match="x"), told.stage("encode"):
        raise ValueError("x")
    told.queue.set(3)
    told.items.set(120)
    told.events.inc(7)
    told.model("old")
    told.model("new")
    found = numbers(client)
    assert found['palate_stage_seconds_count{stage="encode"}'] == 2
    assert 0.02 <= found['palate_stage_seconds_sum{stage="encode"}'] < 1
    assert (found["palate_queue"], found["palate_items"], found["palate_events_total"]) == (3, 120, 7)
    assert (found['palate_model{model="old"}'], found['palate_model{model="new"}']) == (0, 1)


# Logs


def test_a_line_per_request_names_no_person_and_no_key(caplog):
    app = small_app(access_log=True)
    with caplog.at_level(logging.INFO), TestClient(app) as client:
        client.get(
            "/v1/users/ann?context=pills", headers={"X-API-Key": "reading", "X-Request-ID": "order-17"}
        )
    (record,) = (each for each in caplog.records if each.name == "palate.access")
    told = {"method": "GET", "route": "/v1/users/{user}", "status": 200, "request_id": "order-17"}
    assert {**record.told, "ms": None} == {**told, "ms": None}
    line = json.loads(log.JsonLines().format(record))
    assert line["request_id"] == "order-17"
    assert line["logger"] == "palate.access"
    for text in (json.dumps(line), log.PlainLines().format(record)):
        assert not [secret for secret in ("ann", "pills", "reading") if secret in text]


def test_what_broke_is_in_the_log_with_the_id_of_its_request(client, caplog):
    forms = {"json": log.JsonLines(), "plain": log.PlainLines()}
    lines: dict[str, list[str]] = {name: [] for name in forms}

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for name, form in forms.items():
                lines[name].append(form.format(record))

    kept = Kept()
    logging.getLogger("palate.serve").addHandler(kept)
    try:
        client.get("/v1/errors/bug", headers={"X-Request-ID": "order-18"})
    finally:
        logging.getLogger("palate.serve").removeHandler(kept)
    (line,) = lines["json"]
    assert json.loads(line)["request_id"] == "order-18"
    assert "ZeroDivisionError" in json.loads(line)["exception"]
    assert "[order-18]" in lines["plain"][0]


def test_a_message_begins_no_line_of_its_own():
    record = logging.LogRecord("x", logging.INFO, "", 0, "item %s", ("a\n2026 error forged",), None)
    assert len(log.PlainLines().format(record).splitlines()) == 1
    assert len(log.JsonLines().format(record).splitlines()) == 1


# Starting and stopping


def test_what_cannot_be_listened_on_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(SettingsError, match="no key is set"):
        serve(tmp_path, ServeOptions.of(host="0.0.0.0"), Keys())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="Cannot listen"):
            serve(tmp_path, ServeOptions.of(port=taken.getsockname()[1]), Keys())
    with pytest.raises(BundleError, match="no trained recommender"):
        export_if_missing(tmp_path)


def test_what_a_worker_cannot_use_ends_with_code_2_and_no_traceback(shop_run):
    words = [shop_run, "--port", 0, "--store", "mysql://db/x", "--json-logs"]
    done = subprocess.run(
        [sys.executable, "-m", "palate", "serve", *map(str, words)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "holds no event store" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_starts_answers_what_has_begun_and_stops(shop_run, tmp_path, workers):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [shop_run, "--port", port, "--workers", workers, "--store", f"sqlite:///{tmp_path}/events.db"]
    environment = {**os.environ, "PALATE_READ_KEY": "reading", "OMP_NUM_THREADS": "1"}
    logs = tmp_path / "logs.txt"
    with logs.open("w") as told:
        server = subprocess.Popen(
            [sys.executable, "-m", "palate", "serve", *map(str, words), "--json-logs", "--access-log"],
            stderr=told,
            env=environment,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        until_ready(address, server, logs)
        request = urllib.request.Request(f"{address}/metrics", headers={"X-API-Key": "reading"})
        seen = [urllib.request.urlopen(request, timeout=10).read().decode() for _ in range(5)][-1]
        line = next(line for line in seen.splitlines() if line.startswith("palate_requests_total{")
                    and 'route="/metrics"' in line)  # fmt: skip
        assert float(line.split()[-1]) == 4  # of all workers; the one that tells is not over
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    assert code == 0
    lines = [json.loads(line) for line in logs.read_text().splitlines()]
    assert {"palate.serve", "palate.access"} <= {line["logger"] for line in lines}
    assert not [line for line in lines if line["level"] in ("warning", "error")]
    assert "reading" not in logs.read_text()


def test_workers_end_with_a_launcher_that_was_killed(shop_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [shop_run, "--port", port, "--workers", 2, "--store", f"sqlite:///{tmp_path}/events.db"]
    logs = tmp_path / "logs.txt"
    with logs.open("w") as told:
        server = subprocess.Popen(
            [sys.executable, "-m", "palate", "serve", *map(str, words)],
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        until_ready(f"http://127.0.0.1:{port}", server, logs)
    finally:
        server.kill()
        server.wait()
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("somebody still listens")


def until_ready(address: str, server: subprocess.Popen[bytes], logs: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, logs.read_text()
        try:
            urllib.request.urlopen(f"{address}/health/ready", timeout=10).close()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(logs.read_text())


def test_options_survive_the_way_to_a_worker():
    options = ServeOptions.of(port=0, rules=Path("rules.yaml"), rate=2.5, workers=3)
    assert ServeOptions.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(SettingsError, match="share a store in memory"):
        ServeOptions.of(workers=2, store="sqlite://")
    with pytest.raises(SettingsError, match="port"):
        ServeOptions.of(port=70_000)


def test_every_error_of_palate_is_answered():
    kinds = {kind for kind, _ in problems.STATUS}
    assert all(issubclass(kind, PalateError) for kind in kinds)
    assert set(problems.PROBLEMS) <= set(problems.CODES)
