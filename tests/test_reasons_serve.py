"""Reasons over REST also say which words and regions, and the map of a model is kept beside its run."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from palate.explain.content import region_shares, word_shares
from palate.explain.events import Scorer
from palate.runtime.model import ServingModel
from palate.schema import Histories
from palate.serve.app import create_app
from palate.serve.map import KEPT, LEAST_KEPT, places_of, plane_of
from palate.serve.options import ServeOptions

FIXED = ["events", "fields", "difference", "sentence"]
INSIDE = ["words", "regions", "frames", "seconds"]


@pytest.fixture
def client(shop_run, tmp_path) -> Iterator[TestClient]:
    app = create_app(shop_run, ServeOptions(store=f"sqlite:///{tmp_path / 'events.db'}"))
    with TestClient(app) as client:
        yield client


def listed(client: TestClient, **options) -> list[dict]:
    answer = client.get("/v1/users/guest-05/recommendations", params={"k": 4, "explain": True, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_only_the_items_that_are_named_are_looked_into(client):
    plain = listed(client)
    assert [list(each["reasons"]) for each in plain] == [FIXED] * 4
    wanted = [plain[1]["item"], plain[3]["item"]]
    deep = listed(client, inside=wanted)
    assert [list(each["reasons"]) for each in deep] == [FIXED, [*FIXED, *INSIDE]] * 2
    for one, other in zip(plain, deep, strict=True):
        assert {name: other["reasons"][name] for name in FIXED} == one["reasons"]
    assert [list(each["reasons"]) for each in listed(client, inside=["no such thing"])] == [FIXED] * 4
    refused = client.get("/v1/users/guest-05/recommendations", params={"inside": ["x"] * 11})
    assert refused.status_code == 422


def test_words_and_regions_are_those_that_the_library_tells(client, shop_run):
    key = listed(client)[0]["item"]
    (found,) = [each for each in listed(client, inside=key) if each["item"] == key]
    model = ServingModel.load(shop_run / "serving")
    live = client.app.state.engine.now()
    scorer = Scorer(model.states, model.vectors, model.settings.model.max_history)
    change = scorer.change(live.history("guest-05"))
    title = found["fields"]["title"]
    expected = word_shares(model, change, "title", title)
    told = found["reasons"]["words"]
    assert [title[each["start"] : each["stop"]] for each in told] == title.split()
    np.testing.assert_allclose([each["share"] for each in told], [word.share for word in expected], atol=1e-4)
    (region,) = found["reasons"]["regions"]
    pixels = live.seen(live.id_of(key), "picture")
    assert region["field"] == "picture"
    expected_regions = region_shares(model, change, "picture", pixels)
    np.testing.assert_allclose(region["shares"], expected_regions, atol=1e-4)
    assert found["reasons"]["seconds"] == found["reasons"]["frames"] == []


def test_what_was_said_since_training_is_looked_into(client):
    """A new title and a new picture count; of a picture of one grey no region says anything."""
    key = listed(client)[0]["item"]
    content = io.BytesIO()
    Image.new("RGB", (40, 40), (120, 120, 120)).save(content, "PNG")
    said = {"fields": (None, '{"title": "one two three"}', "application/json"), "picture": content.getvalue()}
    assert client.patch(f"/v1/items/{key}", files=said).status_code == 200
    answer = client.post(
        "/v1/recommendations",
        json={"history": ["dbos", "dcus"], "k": 500, "explain": True, "inside": [key]},
    )
    (found,) = [each for each in answer.json()["items"] if each["item"] == key]
    assert [each["stop"] for each in found["reasons"]["words"]] == [3, 7, 13]
    (region,) = found["reasons"]["regions"]
    np.testing.assert_allclose(region["shares"], 0, atol=1e-4)
    cleared = client.patch(f"/v1/items/{key}", json={"fields": {"picture": None}})
    assert cleared.status_code == 200
    answer = client.post(
        "/v1/recommendations",
        json={"history": ["dbos", "dcus"], "k": 500, "explain": True, "inside": [key]},
    )
    (found,) = [each for each in answer.json()["items"] if each["item"] == key]
    assert found["reasons"]["regions"] == []


def test_an_empty_history_has_reasons_without_shares(client):
    answer = client.post(
        "/v1/recommendations", json={"history": [], "k": 3, "explain": True, "inside": ["dbos"]}
    )
    assert answer.status_code == 200
    model = client.app.state.engine.now().model
    assert not Scorer(model.states, model.vectors, 9).change(Histories.of([[]])).any()


def test_the_plane_is_kept_beside_the_run_for_the_model_that_it_is_of(tmp_path):
    def vectors(seed: int, items: int = LEAST_KEPT) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(items, 4)).astype(np.float32)

    path = tmp_path / KEPT
    every = np.ones(LEAST_KEPT, np.bool_)
    assert len(plane_of(vectors(0, 50), every[:50], "few", path).landscape.places) == 50
    assert not list(tmp_path.iterdir())
    first = plane_of(vectors(1), every, "a", path)
    assert [file.name for file in tmp_path.iterdir()] == [KEPT]
    kept = plane_of(vectors(2), every, "a", path)  # read, not laid out: the vectors are others
    np.testing.assert_array_equal(kept.places, first.places)
    np.testing.assert_array_equal(kept.landscape.place(vectors(3, 5)), first.landscape.place(vectors(3, 5)))
    np.testing.assert_array_equal(first.places, first.landscape.place(vectors(1)))
    assert not np.array_equal(plane_of(vectors(2), every, "b", path).places, first.places)
    path.write_bytes(b"half of one")
    np.testing.assert_array_equal(plane_of(vectors(1), every, "a", path).places, first.places)


def test_items_that_come_or_change_are_placed_and_others_stay(client):
    live = client.app.state.engine.now()
    plane = plane_of(live.model.vectors, live.model.allowed, live.digest, live.run / "no folder" / KEPT)
    before = places_of(live, plane)
    assert client.put("/v1/items/placed", json={"fields": {"title": "dark cup"}}).status_code in (200, 201)
    live = client.app.state.engine.now()
    after = places_of(live, plane)
    assert len(after) == len(before) + 1
    expected = plane.landscape.place(live.index.vectors_of(np.arange(live.index.size)))
    np.testing.assert_allclose(after, expected, atol=1e-5)
    np.testing.assert_array_equal(after[: len(before)], before)
