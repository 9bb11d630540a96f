"""The face: what is asked is obeyed, and every way to the same answer gives the same answer."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.bundle import FORMAT
from palate.errors import BundleError, DataError, NotFittedError, SettingsError, UnknownKeyError
from palate.evaluate.network import NetworkRanker
from palate.recommender import Recommender
from palate.schema import Part
from tests.contracts import RANKER_CONTRACT
from tests.worlds import block_world

QUICK = {
    "model": {"width": 16, "blocks": 2, "max_history": 10},
    "train": {"max_epochs": 8, "batch_events": 256, "learning_rate": 1e-2},
    "evaluate": {"baselines": ["popularity"], "references": [], "bootstrap": 50},
}


@pytest.fixture(scope="module")
def trained() -> Recommender:
    return Recommender(QUICK).fit(block_world())


def block(key: str) -> int:
    return int(key[1:]) % 4


def test_people_are_recommended_things_of_their_block(trained):
    found = trained.recommend(["u000", "u001", "u002", "u003"], k=2)
    assert found.columns == ["user", "item", "rank", "score"]
    assert all(block(user) == block(item) for user, item in found.select("user", "item").iter_rows())


def test_what_was_seen_comes_back_only_if_asked(trained):
    seen = block_world().interactions.collect().filter(pl.col("user") == "u004")["item"].to_list()
    assert not set(trained.recommend(["u004"], k=40)["item"]) & set(seen)
    assert set(seen) <= set(trained.recommend(["u004"], k=40, filter_seen=False)["item"])


def test_a_history_gives_what_the_person_with_that_history_gets(trained):
    """Times between events are inputs too; this world has equal steps, so lists of keys lose nothing."""
    without_time = Recommender(QUICK).fit(block_world(has_time=False))
    rows = block_world(has_time=False).interactions.collect().filter(pl.col("user") == "u005").sort("time")
    by_user = without_time.recommend(["u005"], k=5)
    by_history = without_time.recommend(histories=[rows["item"].to_list()], k=5)
    assert by_user["item"].to_list() == by_history["item"].to_list()
    np.testing.assert_allclose(by_user["score"], by_history["score"], rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 79), min_size=1, max_size=6, unique=True))
def test_together_equals_one_by_one(trained, people):
    keys = [f"u{person:03d}" for person in people]
    together = trained.recommend(keys, k=4)
    alone = pl.concat([trained.recommend([key], k=4) for key in keys])
    assert together["item"].to_list() == alone["item"].to_list()
    np.testing.assert_allclose(together["score"], alone["score"], rtol=1e-4, atol=1e-5)


items = st.lists(st.integers(0, 39).map(lambda item: f"i{item:03d}"), max_size=30, unique=True)


@settings(max_examples=40, deadline=None)
@given(only=st.none() | items, exclude=st.none() | items, history=items, k=st.integers(1, 50))
def test_filters_are_obeyed_and_lists_are_as_long_as_can_be(trained, only, exclude, history, k):
    found = trained.recommend(histories=[history], k=k, items=only, exclude=exclude, filter_seen=True)
    everything = {f"i{item:03d}" for item in range(40)}
    allowed = (everything if only is None else set(only)) - set(exclude or ()) - set(history)
    assert set(found["item"]) <= allowed
    assert found.height == min(k, len(allowed)) == found["item"].n_unique()
    assert found["rank"].to_list() == list(range(1, found.height + 1))
    assert found["score"].to_list() == sorted(found["score"].to_list(), reverse=True)


def test_somebody_without_events_gets_an_answer(trained):
    assert trained.recommend(histories=[[], []], k=3).height == 6


def test_unknown_keys_raise_or_are_left_out_as_asked(trained):
    with pytest.raises(UnknownKeyError, match=r"1 of 2 user keys .*'nobody'"):
        trained.recommend(["u000", "nobody"])
    assert trained.recommend(["u000", "nobody"], k=1, unknown="skip")["user"].to_list() == ["u000"]
    with pytest.raises(UnknownKeyError, match="item keys"):
        trained.recommend(histories=[["i000", "nothing"]])
    assert trained.recommend(["nobody"], unknown="skip").height == 0
    with pytest.raises(UnknownKeyError):
        trained.similar_items(["nothing"])


def test_impossible_requests_say_so(trained):
    with pytest.raises(SettingsError, match="at least 1"):
        trained.recommend(["u000"], k=0)
    with pytest.raises(SettingsError, match="either users or histories"):
        trained.recommend()
    with pytest.raises(SettingsError, match="either users or histories"):
        trained.recommend(["u000"], histories=[[]])
    with pytest.raises(NotFittedError, match="fit"):
        Recommender().recommend(["u000"])
    with pytest.raises(SettingsError, match="Did you mean 'width'"):
        Recommender({"model": {"widht": 3}})


def test_similar_things_and_people_are_of_the_same_block(trained):
    things = trained.similar_items(["i000", "i005"], k=4)
    assert things.columns == ["of", "item", "rank", "score"]
    assert things["of"].to_list() == ["i000"] * 4 + ["i005"] * 4
    assert all(block(a) == block(b) and a != b for a, b in things.select("of", "item").iter_rows())
    people = trained.similar_users(["u002"], k=4)
    assert [block(key) for key in people["user"]] == [2] * 4
    assert trained.similar_items(["i000"], k=1000).height == 39


def test_saved_equals_loaded(trained, tmp_path):
    trained.save(tmp_path / "bundle")
    loaded = Recommender.load(tmp_path / "bundle")
    keys = [f"u{person:03d}" for person in range(80)]
    assert loaded.recommend(keys, k=7).equals(trained.recommend(keys, k=7))
    assert loaded.settings == trained.settings
    assert loaded.progress == trained.progress
    assert {path.suffix for path in (tmp_path / "bundle").rglob("*") if path.is_file()} <= {
        ".safetensors", ".parquet", ".yaml", ".json",
    }  # fmt: skip


def test_a_new_thing_is_recommendable_by_its_words(trained, tmp_path):
    trained.save(tmp_path / "bundle")
    grown = Recommender.load(tmp_path / "bundle")
    added = grown.items.add(
        pl.DataFrame(
            {"item": ["new tea", "new roast"], "title": ["green tea number 77", "espresso roast 78"]}
        )
    )
    assert added == 2
    assert len(grown.items) == 42
    everything = grown.recommend(["u001"], k=50, filter_seen=False)
    place = dict(everything.select("item", "rank").iter_rows())
    assert place["new tea"] < place["new roast"]  # u001 is of block 1, whose things are green teas
    assert place["new tea"] <= 15
    grown.save(tmp_path / "grown")
    again = Recommender.load(tmp_path / "grown")
    assert again.recommend(["u001"], k=50, filter_seen=False).equals(everything)
    old = trained.recommend(["u001"], k=5)
    assert (
        old["item"].to_list()
        == grown.recommend(["u001"], k=5, exclude=["new tea", "new roast"])["item"].to_list()
    )


def test_new_things_that_cannot_be_are_refused(trained):
    for table, message in (
        ({"key": ["a"]}, "column 'item'"),
        ({"item": ["a", "a"]}, "come twice"),
        ({"item": ["i000"]}, "known already"),
        ({"item": [None, "b"]}, "no key"),
        ({"item": ["a"], "titel": ["x"]}, "Did you mean 'title'"),
    ):
        with pytest.raises(DataError, match=message):
            trained.items.add(
                pl.DataFrame(table, schema_overrides={"item": pl.String} if "item" in table else None)
            )


def test_a_thing_of_which_nothing_is_known_is_not_recommended(trained, tmp_path):
    trained.save(tmp_path / "bundle")
    grown = Recommender.load(tmp_path / "bundle")
    grown.items.add(pl.DataFrame({"item": ["bare"]}))
    assert "bare" not in grown.recommend(["u000"], k=100, filter_seen=False)["item"].to_list()
    assert grown.recommend(["u000"], items=["bare"], k=5)["item"].to_list() == ["bare"]


def test_the_model_leads_popularity_in_a_world_of_blocks(trained):
    judgement = trained.evaluate()
    tree = judgement.to_json()
    assert tree["split"] == "leave_one_out"
    assert tree["filter_seen"] is True
    assert tree["metrics"]["ndcg@10"]["value"] > 1.5 * tree["baselines"]["popularity"]["ndcg@10"]["value"]
    assert tree["comparisons"]["popularity"]["ndcg@10"]["low"] > 0
    assert (
        tree["metrics"]["ndcg@10"]["low"]
        <= tree["metrics"]["ndcg@10"]["value"]
        <= tree["metrics"]["ndcg@10"]["high"]
    )
    assert {"recall@20", "precision@10", "f1@10", "hit_rate@10", "accuracy", "loss"} <= tree["metrics"].keys()


def _alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES = [
    "bundle.json", "settings.yaml", "model.safetensors", "content.json", "training.json",
    "data/manifest.json", "data/columns.safetensors", "data/people.parquet", "data/items.parquet",
    "data/report.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [_alter, _truncate, lambda path: path.unlink()])
def test_a_damaged_bundle_is_refused(trained, tmp_path, name, damage):
    trained.save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(BundleError):
        Recommender.load(tmp_path)


def test_a_bundle_of_a_newer_format_is_refused(trained, tmp_path):
    trained.save(tmp_path)
    manifest = tmp_path / "bundle.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(BundleError, match="newer"):
        Recommender.load(tmp_path)
    manifest.write_text(manifest.read_text().replace('"format": 99', '"format": 1'))
    with pytest.raises(BundleError, match=r"format 1, .* Train again"):
        Recommender.load(tmp_path)
    with pytest.raises(BundleError, match="no trained recommender"):
        Recommender.load(tmp_path / "nowhere")


@pytest.mark.parametrize("holds", RANKER_CONTRACT, ids=lambda holds: holds.__name__)
def test_the_network_keeps_the_contract_of_rankers(trained, holds):
    questions = trained.prepared.questions(Part.TEST, filter_seen=True, cold_targets=True)
    holds(NetworkRanker(trained.model), questions, trained.prepared.items.size)
