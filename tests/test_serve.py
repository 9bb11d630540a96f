"""The service, asked as a shop would ask it: a real application over a trained run."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.errors import SettingsError
from palate.recommender import Recommender
from palate.serve.app import create_app
from palate.serve.options import ServeOptions
from tests.postgresql import new_place
from tests.pottery import picture
from tests.served import ADMIN, KEYS, mix_up

LATER = 1_800_000_000_000_000


@contextmanager
def serving(run: Path, store: Path | str, *, fresh: bool = True, **options: Any) -> Iterator[TestClient]:
    url = store if isinstance(store, str) else f"sqlite:///{store}"
    app = create_app(run, ServeOptions(store=url, **options), fresh=fresh)
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(shop_run, tmp_path) -> Iterator[TestClient]:
    with serving(shop_run, tmp_path / "events.db") as client:
        yield client


def listed(client: TestClient, user: str, **options: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/users/{user}/recommendations", params=options)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def keys(items: list[dict[str, Any]]) -> list[str]:
    return [item["item"] for item in items]


def event(number: int, user: str, item: str, kind: str = "view", time: int = LATER) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "user": user,
        "item": item,
        "event": kind,
        "time": time + number * 1_000_000,
    }


def post(client: TestClient, events: Any) -> dict[str, Any]:
    answer = client.post("/v1/events", json=events)
    assert answer.status_code == 200, answer.text
    return answer.json()


def drawn(glaze: str, form: str = "bowl", size: str = "tall") -> bytes:
    with io.BytesIO() as written:
        picture(glaze, form, size).save(written, "PNG")
        return written.getvalue()


def put(client: TestClient, item: str, fields: dict[str, Any], **files: bytes) -> dict[str, Any]:
    form = {name: (f"{name}.png", content, "image/png") for name, content in files.items()}
    described = (
        {"data": {"fields": json.dumps(fields)}, "files": form} if files else {"json": {"fields": fields}}
    )
    answer = client.put(f"/v1/items/{item}", **described)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_lists_are_those_of_the_recommender(shop_run, client):
    recommender = Recommender.load(shop_run)
    people = [f"guest-{person:02d}" for person in range(12)]
    expected = recommender.recommend(users=people, k=7)
    for user in people:
        items = listed(client, user, k=7)
        of_user = expected.filter(expected["user"] == user)
        assert keys(items) == of_user["item"].to_list()
        assert [item["score"] for item in items] == pytest.approx(of_user["score"].to_list(), abs=1e-3)
    told = recommender.recommend(histories=[["dbos", "dcus"]], k=5)
    answer = client.post("/v1/recommendations", json={"history": ["dbos", "dcus"], "k": 5}).json()
    assert keys(answer["items"]) == told["item"].to_list()


def test_the_next_list_knows_an_event(client):
    before = listed(client, "guest-00", k=5)
    answer = post(client, event(1, "guest-00", before[0]["item"]))
    assert (answer["stored"], answer["known"]) == (1, 0)
    after = listed(client, "guest-00", k=5)
    assert before[0]["item"] not in keys(after)
    assert before[0]["item"] in keys(listed(client, "guest-00", k=200, filter_seen=False))


def test_an_event_id_counts_once_and_means_one_event(client):
    events = [event(1, "eve", "dbos"), event(2, "eve", "dcus")]
    assert post(client, events)["stored"] == 2
    assert post(client, events) == {"stored": 0, "known": 2, "unknown_items": [], "unknown_events": []}
    other = client.post("/v1/events", json={**events[0], "item": "dcus"})
    assert other.status_code == 409
    assert "error" in other.json()
    odd = post(client, event(3, "eve", "nothing-like-it", "sniff"))
    assert (odd["unknown_items"], odd["unknown_events"]) == (["nothing-like-it"], ["sniff"])


def test_events_of_training_do_not_count_twice(shop_run, client):
    known = client.get("/v1/users/guest-03").json()["trained"]
    before = listed(client, "guest-03", k=10)
    post(client, [{"event_id": f"again-{n}", "user": "guest-03", **each} for n, each in enumerate(known)])
    after = listed(client, "guest-03", k=10)
    assert keys(after) == keys(before)
    assert [item["score"] for item in after] == pytest.approx([item["score"] for item in before], abs=1e-6)


def test_a_new_thing_is_found_at_once_and_after_a_restart(shop_run, tmp_path):
    fields = {"title": "Oxblood vase, large and new", "glaze": "oxblood", "price": 12.0}
    with serving(shop_run, tmp_path / "events.db") as client:
        lovers = [f"guest-{person:02d}" for person in range(3, 60, 5)]
        item = put(client, "fresh", fields, picture=drawn("Oxblood", "vase"))
        assert item["new"]
        assert item["shown"]
        ranks = [keys(listed(client, user, k=20)) for user in lovers]
        assert sum("fresh" in ranked for ranked in ranks) > len(lovers) / 2
        others = [keys(listed(client, f"guest-{person:02d}", k=20)) for person in range(0, 60, 5)]
        assert sum("fresh" in ranked for ranked in others) < sum("fresh" in ranked for ranked in ranks)
        lists = [listed(client, user, k=20) for user in lovers]
        assert client.get("/v1/items/fresh/media/picture").content == drawn("Oxblood", "vase")
    with serving(shop_run, tmp_path / "events.db") as client:
        again = [listed(client, user, k=20) for user in lovers]
        assert [keys(items) for items in again] == [keys(items) for items in lists]
        assert client.get("/v1/items/fresh").json()["fields"]["title"] == fields["title"]


def test_things_change_hide_and_go(client):
    user = "guest-01"
    first = listed(client, user, k=1)[0]["item"]
    assert client.post(f"/v1/items/{first}/hide").json()["shown"] is False
    assert first not in keys(listed(client, user, k=50))
    assert client.post(f"/v1/items/{first}/show").json()["shown"] is True
    assert keys(listed(client, user, k=1)) == [first]
    changed = client.patch(f"/v1/items/{first}", json={"fields": {"glaze": "raku", "price": None}}).json()
    assert changed["fields"]["glaze"] == "raku"
    assert "price" not in changed["fields"]
    assert keys(listed(client, user, k=5, any_of="glaze:raku")) == [first]
    assert client.delete(f"/v1/items/{first}").status_code == 200
    assert client.get(f"/v1/items/{first}").status_code == 404
    assert first not in keys(listed(client, user, k=50))
    assert client.patch(f"/v1/items/{first}", json={"fields": {}}).status_code == 404
    put(client, first, {"title": "back again"})
    assert client.get(f"/v1/items/{first}").json()["fields"] == {"title": "back again"}


def test_what_cannot_be_used_changes_nothing(client):
    total = client.get("/v1/items").json()["total"]
    for fields in ({"colour": "red"}, {"price": "dear"}, {"title": 7}, {"picture": "/etc/passwd"}):
        assert client.put("/v1/items/odd", json={"fields": fields}).status_code == 422
    files = {"picture": ("x.png", b"no picture", "image/png")}
    assert client.put("/v1/items/odd", data={"fields": "{}"}, files=files).status_code == 422
    assert client.get("/v1/items/odd").status_code == 404
    assert client.get("/v1/items").json()["total"] == total


def test_nobody_gets_an_empty_page(client):
    items = listed(client, "somebody-new", k=10)
    assert len(items) == 10
    assert {item["source"] for item in items} <= {"popular", "new", "taste", "context"}
    near = listed(client, "somebody-new", k=10, context="dbos")
    assert near[0]["source"] == "context"


def test_filters_hold(client):
    items = listed(client, "guest-02", k=50, any_of="glaze:amber", exclude=["abos", "acus"])
    assert items
    assert {item["fields"]["glaze"] for item in items} == {"amber"}
    assert not {"abos", "acus"} & set(keys(items))
    assert "amber" not in {
        item["fields"]["glaze"] for item in listed(client, "guest-02", k=50, none_of="glaze:amber")
    }
    assert client.get("/v1/users/guest-02/recommendations", params={"any_of": "glaze"}).status_code == 422


def test_a_person_is_exported_and_forgotten_for_good(shop_run, tmp_path):
    with serving(shop_run, tmp_path / "events.db") as client:
        post(client, [event(1, "guest-04", "dbos"), event(2, "guest-04", "dcus")])
        kept = client.get("/v1/users/guest-04").json()
        assert [each["event_id"] for each in kept["events"]] == ["e1", "e2"]
        assert len(kept["trained"]) == 9
        assert client.delete("/v1/users/guest-04").json() == {"user": "guest-04", "forgotten": 2}
        nothing = {"user": "guest-04", "events": [], "trained": []}
        assert client.get("/v1/users/guest-04").json() == nothing
        assert keys(listed(client, "guest-04", k=5)) == keys(listed(client, "somebody-new", k=5))
    with serving(shop_run, tmp_path / "events.db") as client:
        assert client.get("/v1/users/guest-04").json() == nothing
        assert keys(listed(client, "guest-04", k=5)) == keys(listed(client, "somebody-new", k=5))


def test_many_at_once_are_answered_as_one_by_one(client):
    people = [f"guest-{person:02d}" for person in range(60)]
    alone = [keys(listed(client, user, k=6)) for user in people]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda user: keys(listed(client, user, k=6)), people)) == alone


def test_reasons_add_up(client):
    for language in ("en", "zh"):
        for item in listed(client, "guest-05", k=5, explain=True, language=language):
            told = item["reasons"]
            assert sum(each["share"] for each in told["events"]) == pytest.approx(
                told["difference"], rel=0.01
            )
            assert told["sentence"]


def test_similar_things_and_people(client):
    near = client.get("/v1/items/dbos/similar", params={"k": 6}).json()["items"]
    assert len(near) == 6
    assert "dbos" not in keys(near)
    assert sum(item["fields"]["glaze"] == "delft" for item in near) >= 4
    people = client.get("/v1/users/guest-00/similar", params={"k": 8}).json()["users"]
    alike = [int(person["user"][-2:]) % 5 == 0 for person in people]
    assert sum(alike) >= 6


def test_another_model_takes_over_and_back(shop_run, tmp_path):
    copy = own(shop_run, tmp_path)
    with serving(copy, tmp_path / "events.db") as client:
        put(client, "fresh", {"title": "Amber jug", "glaze": "amber"})
        first = client.get("/v1/users/guest-00/recommendations").json()["model"]
        assert client.post("/v1/admin/reload", json={"to": "previous"}).status_code == 409
        mix_up(copy / "serving")
        second = client.post("/v1/admin/reload", json={}).json()["model"]
        assert second != first
        assert client.get("/v1/users/guest-00/recommendations").json()["model"] == second
        assert client.get("/v1/items/fresh").status_code == 200
        assert client.post("/v1/admin/reload", json={"to": "previous"}).json()["model"] == first
        assert client.get("/v1/users/guest-00/recommendations").json()["model"] == first


def own(run: Path, folder: Path) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("served")))


def model_of(client: TestClient) -> str:
    return client.get("/v1/users/guest-00/recommendations").json()["model"]


def until(model: str, client: TestClient) -> bool:
    """Whether this model answers within a few seconds."""
    deadline = time.monotonic() + 20
    while model_of(client) != model and time.monotonic() < deadline:
        time.sleep(0.05)
    return model_of(client) == model


def test_a_reload_reaches_every_server_over_the_same_store(shop_run, tmp_path):
    run, store = own(shop_run, tmp_path), tmp_path / "events.db"
    with serving(run, store) as one, serving(run, store) as other:
        first = model_of(one)
        mix_up(run / "serving")
        told = one.post("/v1/admin/reload", json={}).json()
        assert told["previous"] == first != told["model"]
        assert until(told["model"], other)
        back = other.post("/v1/admin/reload", json={"to": "previous"}).json()
        assert back == {"model": first, "previous": told["model"]}
        assert until(first, one)


def test_the_way_back_outlasts_a_restart_and_a_new_export_ends_it(shop_run, tmp_path):
    run, store = own(shop_run, tmp_path), tmp_path / "events.db"
    with serving(run, store) as client:
        first, before = model_of(client), keys(listed(client, "guest-00", k=9))
        mix_up(run / "serving")
        second = client.post("/v1/admin/reload", json={}).json()["model"]
    with serving(run, store) as client:
        assert model_of(client) == second
        assert client.post("/v1/admin/reload", json={"to": "previous"}).json()["model"] == first
    with serving(run, store) as client:
        assert model_of(client) == first
        assert keys(listed(client, "guest-00", k=9)) == before
    mix_up(run / "serving")
    with serving(run, store, fresh=False) as client:  # a worker that takes another's place
        assert model_of(client) == first
    with serving(run, store) as client:
        third = model_of(client)
        assert third not in (first, second)
        assert client.post("/v1/admin/reload", json={"to": "previous"}).json()["model"] == first
    assert len([*(run / "served").iterdir()]) == 2


def test_where_nothing_can_be_kept_a_server_starts_all_the_same(shop_run, tmp_path):
    run, store = own(shop_run, tmp_path), tmp_path / "events.db"
    (run / "served").write_text("no folder")
    with serving(run, store) as client:
        first = model_of(client)
        mix_up(run / "serving")
        second = client.post("/v1/admin/reload", json={}).json()["model"]
        assert client.post("/v1/admin/reload", json={"to": "previous"}).json()["model"] == first
    with serving(run, store) as client:
        assert model_of(client) == second


def test_keys_may_hold_slashes_and_everything_else(client):
    things = (
        ("shelf/7", "shelf%2F7"),
        ("a/similar", "a%2fsimilar"),
        ("50%2F ü/", "50%252F%20%C3%BC%2F"),
    )
    for number, (item, quoted) in enumerate(things):
        assert client.put(f"/v1/items/{quoted}", json={"fields": {"title": "a cup"}}).json()["item"] == item
        assert client.get(f"/v1/items/{quoted}").json()["item"] == item
        assert client.get(f"/v1/items/{quoted}/similar").json()["item"] == item
        assert client.post(f"/v1/items/{quoted}/hide").json()["shown"] is False
        post(client, event(number, f"of {item}", item))
        person = f"of%20{quoted}"
        assert client.get(f"/v1/users/{person}/recommendations").json()["user"] == f"of {item}"
        assert [each["item"] for each in client.get(f"/v1/users/{person}").json()["events"]] == [item]
        assert client.delete(f"/v1/items/{quoted}").json() == {"item": item}
    assert client.get("/v1/items/shelf/7").status_code == 404


def test_what_does_not_say_that_it_is_json_is_refused_as_that(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {} if kind is None else {"content-type": kind}
        for path in ("/v1/events", "/v1/recommendations", "/v1/admin/reload"):
            answer = client.post(path, content=b'{"to": "latest"}', headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type"), (
                path
            )
    assert client.post("/v1/events").status_code == 422
    assert (
        client.post("/v1/events", content=b"{}", headers={"content-type": "application/json"}).status_code
        == 422
    )


def test_events_of_things_that_come_later_count_as_popular(client):
    for number in range(40):
        post(client, event(number, f"early {number}", "coming", time=LATER * 10))
    put(client, "coming", {"title": "Amber jug", "glaze": "amber"})
    first = listed(client, "somebody-new", k=3)[0]
    assert (first["item"], first["source"]) == ("coming", "popular")
    client.delete("/v1/items/coming")
    put(client, "coming", {"title": "Amber jug", "glaze": "amber"})
    assert listed(client, "somebody-new", k=3)[0]["item"] == "coming"


def test_rules_name_things_that_came_after_training(shop_run, tmp_path):
    rules, store = tmp_path / "rules.yaml", tmp_path / "events.db"
    rules.write_text("unavailable: [gone, shy]\npins: [{item: fresh, place: 1}]\n")
    with serving(shop_run, store) as client:
        put(client, "gone", {"title": "Amber jug", "glaze": "amber"})
        put(client, "shy", {"title": "Amber jug", "glaze": "amber"})
    with pytest.raises(SettingsError, match="'fresh' is no item"):
        create_app(shop_run, ServeOptions(store=f"sqlite:///{store}", rules=rules))
    with serving(shop_run, store) as client:
        put(client, "fresh", {"title": "Delft jug", "glaze": "delft"})
        client.delete("/v1/items/gone")
    with serving(shop_run, store, rules=rules) as client:
        items = listed(client, "guest-00", k=200)
        assert (items[0]["item"], items[0]["source"]) == ("fresh", "pinned")
        assert "shy" not in keys(items)
        client.delete("/v1/items/fresh")
        assert "fresh" not in keys(listed(client, "guest-00", k=200))
        put(client, "fresh", {"title": "Delft jug", "glaze": "delft"})
        put(client, "gone", {"title": "Amber jug", "glaze": "amber"})
        items = listed(client, "guest-00", k=200)
        assert (items[0]["item"], items[0]["source"]) == ("fresh", "pinned")
        assert "gone" not in keys(items)


def test_postgresql_holds_what_a_server_is_told(shop_run, postgresql):
    url = new_place(postgresql)
    with serving(shop_run, url) as one, serving(shop_run, url) as other:
        post(one, [event(1, "eve", "dbos"), event(2, "eve", "dcus")])
        assert keys(listed(one, "eve", k=9)) == keys(listed(other, "eve", k=9))
        put(other, "fresh", {"title": "Delft jug", "glaze": "delft"}, picture=drawn("Delft"))
        assert one.get("/v1/items/fresh").json()["shown"]
        assert "fresh" in keys(listed(one, "eve", k=200))
        assert one.delete("/v1/users/eve").json()["forgotten"] == 2
        told = other.post("/v1/admin/reload", json={}).json()["model"]
    with serving(shop_run, url) as client:
        assert model_of(client) == told
        assert client.get("/v1/users/eve").json()["events"] == []
        assert client.get("/v1/items/fresh/media/picture").content == drawn("Delft")


LONG = "x" * 300
"""A key of nobody, which makes a query too long for the short way."""


@pytest.mark.parametrize(
    "query",
    [
        "", "k=3", "k=4&filter_seen=true", "any_of=glaze:delft&any_of=glaze:raku", "none_of=glaze%3Adelft",
        "exclude=dbos&exclude=dcus", "context=dbos", "page=home", "event=view", "k=+7", "filter_seen=0",
        "k=7&k=9", "explain=true&k=2", "explain=false", "at=5", "k=0", "k=many", "filter_seen=perhaps",
        "colour=red", "any_of=glaze", "any_of=colour:red", "event=sniff", "event=", "page=%00", "exclude=",
        "&&k=2", "k", "%ff=1", "page=%ff", "page=a+b",
    ],
)  # fmt: skip
def test_the_short_way_answers_as_the_ordinary_one(client, query):
    for user in ("guest-03", "nobody yet", "a%2Fb", "%00", "x" * 2_000):
        path = f"/v1/users/{user}/recommendations?{query}"
        short, ordinary = client.get(path), client.get(f"{path}&exclude={LONG}")
        assert short.status_code == ordinary.status_code
        assert short.headers.keys() == ordinary.headers.keys()
        if short.status_code == 200:
            assert short.json() == ordinary.json()
        else:
            told, right = short.json()["error"], ordinary.json()["error"]
            assert (told["code"], told["message"]) == (right["code"], right["message"])


def test_the_short_way_is_watched_counted_and_refused_as_every_other(shop_run, tmp_path, monkeypatch, caplog):
    path, template = "/v1/users/guest-03/recommendations", "/v1/users/{user}/recommendations"
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    with caplog.at_level("INFO"), serving(shop_run, tmp_path / "events.db", access_log=True) as client:
        assert client.get(path).status_code == 401
        for key in KEYS.values():
            assert client.get(path, headers={"X-API-Key": key}).status_code == 200
        numbers = client.get("/metrics", headers=ADMIN).text
        engine = client.app.state.engine
        engine.store.close()
        assert client.get(path, headers=ADMIN).status_code == 503
        assert client.get(path, headers=ADMIN).headers["retry-after"]
    counted = f'palate_requests_total{{method="GET",route="{template}",status="200"}} 3.0'
    assert counted in numbers.splitlines()
    routes = [each.told["route"] for each in caplog.records if each.name == "palate.access"]
    assert routes.count(template) >= 3


def test_rules_hold(shop_run, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("caps: [{field: glaze, most: 2}]\npins: [{item: ibos, place: 1}]\n")
    with serving(shop_run, tmp_path / "events.db", rules=rules) as client:
        items = listed(client, "guest-00", k=8)
        assert (items[0]["item"], items[0]["source"]) == ("ibos", "pinned")
        glazes = [item["fields"]["glaze"] for item in items]
        assert max(glazes.count(glaze) for glaze in glazes) <= 2
