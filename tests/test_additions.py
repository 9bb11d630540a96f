"""Items come, change and go after training: what is said of them holds at once, and ids stay."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.additions import add_items, remove_items, update_items
from palate.data.store import load_prepared, prepare, save
from palate.errors import DataError, UnknownKeyError
from palate.recommender import Recommender
from palate.schema import Dataset, Field, FieldKind, Media
from palate.settings import Settings
from tests.worlds import block_world

QUICK = {
    "model": {"width": 16, "blocks": 2, "max_history": 10},
    "train": {"max_epochs": 8, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
}


@pytest.fixture(scope="module")
def trained() -> Recommender:
    return Recommender(QUICK).fit(block_world())


@pytest.fixture
def grown(trained, tmp_path) -> Recommender:
    """A recommender of one's own, to change."""
    trained.save(tmp_path / "trained")
    return Recommender.load(tmp_path / "trained")


def shelf() -> Dataset:
    """The block world with a second field of lists and one of pictures."""
    world = block_world()
    items = world.items.with_columns(
        tags=pl.Series([[f"t{n % 3}", "all"] for n in range(40)]), cover=pl.format("{}.png", "item")
    )
    fields = (*world.fields, Field("tags", FieldKind.CATEGORIES), Field("cover", FieldKind.IMAGE))
    return Dataset("shelf", world.interactions, fields, items)


def place_of(recommender: Recommender, item: str, user: str = "u001") -> int:
    everything = recommender.recommend([user], k=100, filter_seen=False)
    return dict(everything.select("item", "rank").iter_rows())[item]


def test_an_updated_item_is_where_a_new_one_with_its_words_would_be(grown):
    grown.items.add(pl.DataFrame({"item": ["new"], "title": ["dark cocoa number 78"]}))
    assert place_of(grown, "new") > 15
    assert grown.items.update(pl.DataFrame({"item": ["new"], "title": ["green tea number 77"]})) == 1
    assert place_of(grown, "new") <= 15  # u001 is of block 1, whose things are green teas
    grown.items.add(pl.DataFrame({"item": ["twin"], "title": ["green tea number 77"]}))
    scores = dict(grown.recommend(["u001"], k=100).select("item", "score").iter_rows())
    assert scores["new"] == pytest.approx(scores["twin"], rel=1e-5)


def test_an_update_trains_nothing_and_moves_nobody_else(grown):
    weights = {name: value.clone() for name, value in grown.model.named_parameters()}
    before = dict(grown.recommend(["u003"], k=100, filter_seen=False).select("item", "score").iter_rows())
    grown.items.update(pl.DataFrame({"item": ["i000"], "title": ["mint syrup"]}))
    assert all(value.equal(weights[name]) for name, value in grown.model.named_parameters())
    after = dict(grown.recommend(["u003"], k=100, filter_seen=False).select("item", "score").iter_rows())
    assert after["i000"] != before["i000"]
    others = [item for item in before if item != "i000"]
    np.testing.assert_allclose([after[i] for i in others], [before[i] for i in others], rtol=1e-5)


def test_absent_fields_stay_and_null_clears():
    prepared = prepare(shelf(), Settings())
    changed = update_items(
        prepared,
        pl.DataFrame({"item": ["i003", "i001"], "tags": [["x", " x  y "], None]}),
    )
    old, new = prepared.catalogue, changed.catalogue
    three, one = changed.items.ids(["i003", "i001"])
    assert new["tags"][int(three)].to_list() == ["x", "x y"]
    assert new["tags"][int(one)] is None
    assert new["title"].to_list() == old["title"].to_list()
    rest = [row for row in range(old.height) if row not in (three, one)]
    assert new[rest].equals(old[rest])
    assert changed.items is prepared.items


def test_updated_and_removed_survive_saving(grown, tmp_path):
    grown.items.update(pl.DataFrame({"item": ["i005"], "title": ["mint syrup"]}))
    assert grown.items.remove(["i009", "i013"]) == 2
    everything = grown.recommend(["u001", "u002"], k=100, filter_seen=False)
    grown.save(tmp_path / "grown")
    again = Recommender.load(tmp_path / "grown")
    assert again.recommend(["u001", "u002"], k=100, filter_seen=False).equals(everything)
    assert again.items.table.equals(grown.items.table)
    assert len(again.items) == again.items.table.height == 38


@settings(max_examples=15, deadline=None)
@given(
    removed=st.lists(st.integers(0, 39), min_size=1, max_size=39, unique=True),
    k=st.integers(1, 60),
    only=st.none() | st.lists(st.integers(0, 39), max_size=20, unique=True),
)
def test_a_removed_item_is_never_an_answer(trained, removed, k, only):
    keys = [f"i{item:03d}" for item in removed]
    fewer = Recommender(trained.settings)
    fewer._adopt(trained._fitted(), trained.model)
    fewer.items.remove(keys)
    allowed = {f"i{item:03d}" for item in (range(40) if only is None else only)} - set(keys)
    wanted = None if only is None else [f"i{item:03d}" for item in only]
    found = fewer.recommend(["u000", "u007"], k=k, items=wanted, filter_seen=False)
    assert set(found["item"]) <= allowed
    assert found.height == 2 * min(k, len(allowed))
    alike = fewer.similar_items([keys[0], "i000"], k=k)
    assert not set(alike["item"]) & set(keys)
    of_removed = alike.filter(pl.col("of") == keys[0])
    if keys[0] != "i000":
        assert of_removed.height == min(k, 40 - len(keys))
    assert not set(fewer.items.table["item"]) & set(keys)
    assert len(trained.items) == 40


def test_a_removed_item_still_counts_in_histories(grown):
    before = grown.recommend(histories=[["i001", "i005"]], k=5)
    grown.items.remove(["i001"])
    assert grown.recommend(histories=[["i001", "i005"]], k=5).equals(before)
    assert not grown.recommend(histories=[["i005"]], k=5)["score"].equals(before["score"])


def test_what_was_removed_comes_back_under_its_id_with_what_is_said_of_it_now(grown):
    number = int(grown.prepared.items.ids(["i001"])[0])
    grown.items.remove(["i001", "i002"])
    back = pl.DataFrame({"item": ["fresh", "i001"], "title": ["dark cocoa", None]})
    assert grown.items.add(back) == 2
    assert int(grown.prepared.items.ids(["i001"])[0]) == number
    assert int(grown.prepared.items.ids(["fresh"])[0]) == 42
    table = {row["item"]: row["title"] for row in grown.items.table.to_dicts()}
    assert (table["i001"], table["fresh"]) == (None, "dark cocoa")
    assert "i002" not in table
    assert len(grown.items) == 40
    assert place_of(grown, "i001") >= 1


def test_changes_that_cannot_be_are_refused_and_change_nothing(grown):
    grown.items.remove(["i030"])
    before = grown.prepared
    for table, message in (
        ({"key": ["a"]}, "column 'item'"),
        ({"item": ["i000", "i000"]}, "come twice"),
        ({"item": [None, "i000"]}, "no key"),
        ({"item": ["i000"], "titel": ["x"]}, "Did you mean 'title'"),
    ):
        with pytest.raises(DataError, match=message):
            grown.items.update(
                pl.DataFrame(table, schema_overrides={"item": pl.String} if "item" in table else None)
            )
    with pytest.raises(UnknownKeyError, match=r"'nothing'.*items.add"):
        grown.items.update(pl.DataFrame({"item": ["i000", "nothing"]}))
    with pytest.raises(UnknownKeyError, match="'nothing'"):
        grown.items.remove(["i000", "nothing"])
    with pytest.raises(DataError, match="come twice: 'i000'"):
        grown.items.remove(["i000", "i000"])
    with pytest.raises(DataError, match="removed before: 'i030'"):
        grown.items.remove(["i000", "i030"])
    assert grown.prepared is before


def picture(value: int) -> np.ndarray:
    return np.full((1, 2, 2, 3), value, np.uint8)


def shown(media: Media) -> list[list[int]]:
    """The colours that each item shows."""
    return [
        [int(media.values[row].ravel()[0]) for row in media.row[start:stop]]
        for start, stop in zip(media.offsets[:-1], media.offsets[1:], strict=True)
    ]


def test_media_that_are_handed_in_are_what_their_items_show():
    prepared = prepare(shelf(), Settings())
    two = Media(np.concatenate([picture(10), picture(20)]), np.array([0, 1, 1]), np.array([0, 2, 3]))
    told = update_items(prepared, pl.DataFrame({"item": ["i005", "i001"]}), {"cover": two})
    wanted: list[list[int]] = [[] for _ in range(prepared.items.size)]
    five, one = prepared.items.ids(["i005", "i001"])
    wanted[five], wanted[one] = [10, 20], [20]
    assert shown(told.media["cover"]) == wanted

    three = Media(picture(30), np.array([0]), np.array([0, 0, 1]))
    more = add_items(told, pl.DataFrame({"item": ["a", "b"]}), {"cover": three})
    assert shown(more.media["cover"]) == [*wanted, [], [30]]
    assert shown(add_items(told, pl.DataFrame({"item": ["a"]})).media["cover"]) == [*wanted, []]

    cleared = update_items(more, pl.DataFrame({"item": ["i005"], "cover": [None]}))
    wanted[five] = []
    assert shown(cleared.media["cover"]) == [*wanted, [], [30]]


def test_media_that_do_not_fit_are_refused():
    prepared = prepare(shelf(), Settings())
    one = Media(picture(1), np.array([0]), np.array([0, 1]))
    with pytest.raises(DataError, match="media of 1 items; the table has 2"):
        update_items(prepared, pl.DataFrame({"item": ["i000", "i001"]}), {"cover": one})
    with pytest.raises(DataError, match="no field of pictures"):
        add_items(prepared, pl.DataFrame({"item": ["new"]}), {"title": one})


def test_removed_ids_are_kept_on_disk(tmp_path):
    prepared = remove_items(prepare(shelf(), Settings()), np.array([7, 4]))
    save(prepared, tmp_path / "data")
    loaded = load_prepared(tmp_path / "data")
    assert loaded.removed.tolist() == [4, 7]
    assert not loaded.candidates(cold_targets=True)[[4, 7]].any()
