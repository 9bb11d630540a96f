"""The service, asked as a shop would ask it: a real application over a trained run."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.recommender import Recommender
from palate.serve.app import create_app
from palate.serve.options import ServeOptions
from tests.pottery import picture
from tests.served import mix_up

LATER = 1_800_000_000_000_000


@contextmanager
def serving(run: Path, store: Path, **options: Any) -> Iterator[TestClient]:
    app = create_app(run, ServeOptions(store=f"sqlite:///{store}", **options))
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
    copy = tmp_path / "run"
    shutil.copytree(shop_run, copy)
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


def test_rules_hold(shop_run, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("caps: [{field: glaze, most: 2}]\npins: [{item: ibos, place: 1}]\n")
    with serving(shop_run, tmp_path / "events.db", rules=rules) as client:
        items = listed(client, "guest-00", k=8)
        assert (items[0]["item"], items[0]["source"]) == ("ibos", "pinned")
        glazes = [item["fields"]["glaze"] for item in items]
        assert max(glazes.count(glaze) for glaze in glazes) <= 2
