"""Reasons: shares that add up and name the known cause, the same with and without PyTorch; faithful ones."""

import json
from itertools import combinations, product

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.cli import app
from palate.errors import DataError, SettingsError
from palate.evaluate.report import RunRecord, render
from palate.explain.answer import reasons
from palate.explain.content import in_time, region_shares, stretches, word_shares
from palate.explain.events import Scorer, event_shares, subsets
from palate.explain.fidelity import (
    BACKWARDS,
    NUMBERS,
    OTHERS,
    SHARES,
    SHUFFLED,
    TENTHS,
    fidelity,
    rank_correlation,
)
from palate.explain.gradients import pixel_gradients, region_gradients, token_gradients
from palate.explain.sentence import Cause, Resemblance, sentence
from palate.explain.without import without
from palate.nn.item import ItemTower
from palate.recommender import Recommender
from palate.run import faithfulness_of
from palate.runtime.model import Answer, Bonuses, ServingModel
from palate.schema import Content, EncodedField, FieldKind, FieldShape, Histories, Media
from palate.settings import ModelSettings
from tests.worlds import block_world

TOKENS = np.array([[0, 0, 0, 0], [2, 3, 4, 0], [5, 2, 0, 0]], np.int32)
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def recommender(exported_run) -> Recommender:
    return Recommender.load(exported_run)


@pytest.fixture(scope="module")
def served(exported_run) -> ServingModel:
    return ServingModel.load(exported_run / "serving")


@pytest.fixture(scope="module")
def blocks() -> Recommender:
    """A recommender that has learned who likes which block."""
    small = {"model": {"width": 16, "blocks": 2, "dilations": [1, 2], "max_history": 12, "content": False}}
    learning = {"train": {"max_epochs": 20, "batch_events": 128, "learning_rate": 1e-2}}
    return Recommender({**small, **learning}).fit(block_world(people=60, content=False))


def texts_and_pictures() -> tuple[ItemTower, np.ndarray]:
    """An untrained tower of one title and one picture, and a direction in which it is asked."""
    torch.manual_seed(0)
    content = Content(
        3,
        (
            EncodedField(FieldShape("title", FieldKind.TEXT, 9), TOKENS, np.array([False, True, True])),
            EncodedField(
                FieldShape("cover", FieldKind.IMAGE, 16), np.arange(2), np.array([False, True, True]),
                np.array([0, 0, 1, 2]), PIXELS,
            ),
        ),
    )  # fmt: skip
    settings = ModelSettings.model_validate(
        {"width": 8, "image": {"size": 16, "filters": [4, 8], "dense": 8}}
    )
    tower = ItemTower(settings, content)
    tower.encode_new()
    return tower.eval(), np.random.default_rng(0).normal(size=8)


def rows_of(histories: Histories) -> list[np.ndarray]:
    """The items of each history."""
    return np.split(histories.item, histories.offsets[1:-1])


def game(table: np.ndarray, window: int = 99) -> Scorer:
    """A scorer whose state is the sum of the rows of ``table`` of distinct items, and whose V items are unit
    vectors: the score of item v is the sum of ``table[:, v]`` over the history."""

    def states(histories: Histories) -> Answer:
        rows = [
            histories.item[histories.offsets[b] : histories.offsets[b + 1]] for b in range(len(histories))
        ]
        found = np.array([table[np.unique(row[-window:])].sum(axis=0) for row in rows], np.float32)
        return Answer(found, Bonuses.none(len(rows)))

    return Scorer(states, np.eye(max(table.shape), table.shape[1], dtype=np.float32), window)


def test_subsets_keep_the_order_and_what_is_known_of_events():
    history = Histories(
        np.array([0, 3]), np.array([7, 9, 7], np.int32), np.array([0, 1, 2], np.uint8), np.arange(3)
    )
    found = subsets(history, np.array([[True, False, True], [False, False, False], [False, True, True]]))
    assert found.offsets.tolist() == [0, 2, 2, 4]
    assert found.item.tolist() == [7, 7, 9, 7]
    assert found.event.tolist() == [0, 2, 1, 2]
    assert found.time.tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize("events", [0, 1, 6, 25, 90])
def test_what_each_item_is_worth_is_its_share(events):
    """Worth one by one, nothing more: the shares are the table, by however few sets of events."""
    table = np.random.default_rng(events).normal(size=(100, 4))
    history = Histories.of([np.random.default_rng(0).permutation(100)[:events].tolist()])
    asked = np.array([3, 0])
    found = event_shares(game(table), history, asked)
    worth = table[history.item][:, asked]
    np.testing.assert_allclose(found.shares, worth, atol=1e-5 if events < 9 else 1e-2)
    np.testing.assert_allclose(found.difference, table[history.item][:, asked].sum(axis=0), atol=1e-4)


def test_events_before_the_window_have_what_having_met_the_item_changes():
    table = np.zeros((20, 20))
    table[5, 7] = 1.0

    def met(histories: Histories) -> Answer:
        states, _ = game(table, window=3).states(histories)
        items = [np.unique(row) for row in rows_of(histories)]
        offsets, flat = np.cumsum([0, *map(len, items)]), np.concatenate(items)
        return Answer(states, Bonuses(offsets, flat, np.full(len(flat), 2.0, np.float32)))

    history = Histories.of([[7, 8, 7, 5, 9, 10]])  # the last three are read
    found = event_shares(Scorer(met, np.eye(20, dtype=np.float32), 3), history, np.array([7, 10]))
    np.testing.assert_allclose(found.shares[:, 0], [1, 0, 1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.shares[:, 1], [0, 0, 0, 0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(found.difference, [3, 2], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(2, 41), max_size=20),
    st.lists(st.integers(2, 41), min_size=1, max_size=5, unique=True),
)
def test_shares_add_up_and_are_the_same_without_torch(recommender, served, past, items):
    history, ids = Histories.of([past]), np.array(items)
    keys = served.prepared.items.keys
    answers = reasons(served, history, ids)
    table = recommender.explain(keys(ids), history=keys(history.item)).to_dicts()
    whole = served.states(history).scores(served.vectors)[0, ids]
    nobody = served.states(Histories.of([[]])).scores(served.vectors)[0, ids]
    for answer, row, difference in zip(answers, table, whole - nobody, strict=True):
        assert abs(answer["difference"] - difference) < 1e-3
        for part in ("events", "fields"):
            total = sum(entry["share"] for entry in answer[part])
            assert total == pytest.approx(answer["difference"], rel=0.01, abs=1e-4)
            mine = [entry["share"] for entry in answer[part]]
            theirs = [entry["share"] for entry in row["reasons"][part]]
            np.testing.assert_allclose(mine, theirs, atol=2e-3)
        assert [event["item"] for event in answer["events"]] == keys(history.item)


def test_the_events_of_the_block_are_the_reason(blocks):
    """Five events of another block, then three of block 1: who recommends of block 1 has it from them."""
    past = ["i000", "i004", "i008", "i012", "i016", "i001", "i005", "i009"]
    found = blocks.recommend(histories=[past], k=20, explain=True)
    of_block = found.filter(pl.col("item").str.slice(1).cast(pl.Int64) % 4 == 1)
    assert len(of_block) > 0
    for row in of_block.to_dicts():
        shares = {event["item"]: event["share"] for event in row["reasons"]["events"]}
        assert max(shares, key=shares.__getitem__) in ("i001", "i005", "i009")
        assert sum(shares.values()) == pytest.approx(row["reasons"]["difference"])
        assert "because you chose" in row["reasons"]["sentence"]


def test_fields_are_what_the_tower_adds(recommender, served):
    ids = np.array([4, 5])
    mine = served.items.contributions(served.items.known(ids))
    with torch.inference_mode():
        theirs = recommender.model.items.contributions(torch.from_numpy(ids))
    assert [name for name, _ in mine] == ["id", "title", "brand", "tags", "price", "cover"]
    for (name, vectors), (other, expected) in zip(mine, theirs, strict=True):
        assert name == other
        np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(sum(vectors for _, vectors in mine), served.vectors[ids], atol=1e-5)


def test_words_have_what_the_score_loses_without_them(served):
    change, key = np.random.default_rng(0).normal(size=16), served.prepared.items.keys([2])[0]
    words = word_shares(served, change, "title", "green tea 绿茶")
    assert [(word.start, word.stop) for word in words] == [(0, 5), (6, 9), (10, 11), (11, 12)]
    texts = ["green tea 绿茶", "tea 绿茶", "green 绿茶", "green tea 茶", "green tea 绿"]
    scores = [
        float(served.encode_items(pl.DataFrame({"item": [key], "title": [text]}))[0] @ change)
        for text in texts
    ]
    np.testing.assert_allclose([word.share for word in words], scores[0] - np.array(scores[1:]), atol=1e-4)
    assert word_shares(served, change, "title", "") == []
    with pytest.raises(SettingsError, match="'cover' is no field of kind text; wanted title"):
        word_shares(served, change, "cover", "tea")


def test_regions_have_what_the_score_loses_behind_grey(served):
    generator = np.random.default_rng(0)
    change, pixels = generator.normal(size=16), generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = region_shares(served, change, "cover", pixels)
    assert found.shape == (8, 8)
    hidden = pixels.copy()
    hidden[2, 5] = int(pixels.mean())
    row, one = pl.DataFrame({"item": served.prepared.items.keys([2])}), np.arange(2)
    scores = [
        float(served.encode_items(row, {"cover": Media(shown[None], one[:1], one)})[0] @ change)
        for shown in (pixels, hidden)
    ]
    assert found[2, 5] == pytest.approx(scores[0] - scores[1], abs=1e-4)
    assert [(part.start, part.stop) for part in stretches(5, 2)] == [(0, 2), (2, 5)]
    assert len(stretches(3, 16)) == 3


def test_gradients_of_words_and_pixels_add_up():
    tower, change = texts_and_pictures()
    title, cover = tower.projections
    direction = torch.tensor(change, dtype=torch.float32)
    with torch.no_grad():

        def added(part, vectors):
            return float((part.of(part.column.standard(vectors), torch.ones(1, 1)) @ direction).detach())

        encoder = title.column.encoder
        silent = torch.zeros(3, 1, encoder.embedding.embedding_dim)
        texts = [encoder(torch.from_numpy(TOKENS[1:2])), encoder.of_vectors(silent)]
        shown = torch.from_numpy(PIXELS[:1]).float()
        pictures = [cover.column.encoder(of) for of in (shown, torch.full_like(shown, float(shown.mean())))]
    found = token_gradients(tower, change, "title", TOKENS[1])
    assert found.shape == (4,)
    assert found[3] == 0
    assert found.sum() == pytest.approx(added(title, texts[0]) - added(title, texts[1]), rel=0.02, abs=0.02)
    found = pixel_gradients(tower, change, "cover", PIXELS[0])
    assert found.shape == (16, 16)
    assert found.sum() == pytest.approx(
        added(cover, pictures[0]) - added(cover, pictures[1]), rel=0.05, abs=0.05
    )
    heat = region_gradients(tower, change, "cover", PIXELS[0])
    assert heat.shape == (16, 16)
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1) or not heat.any()
    with pytest.raises(SettingsError, match="'title' is no field that ClassicImage or ResidualImage reads"):
        pixel_gradients(tower, change, "title", PIXELS[0])


def smallest(table, history, item, k):
    """The size of the smallest set without which the item leaves, by trying them all."""
    n = len(history)
    for size in range(1, n + 1):
        for gone in combinations(range(n), size):
            scores = table[[each for place, each in enumerate(history) if place not in gone]].sum(axis=0)
            if (scores > scores[item]).sum() >= k:
                return size
    return None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_smallest_set_is_the_smallest(seed):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(12, 12)).astype(np.float32)
    history = generator.permutation(12)[:6].tolist()
    item = int(table[history].sum(axis=0).argmax())
    found = without(game(table), Histories.of([history]), item, np.arange(12), k=2)
    size = smallest(table, history, item, 2)
    assert found.proven
    assert (found.events is None) == (size is None)
    if found.events is not None:
        assert len(found.events) == size
        scores = table[np.delete(history, found.events)].sum(axis=0)
        assert (scores > scores[item]).sum() >= 2


def test_what_was_not_proven_is_said_and_what_is_not_there_is_refused():
    """Nobody is better until eleven of twenty events are gone: more sets than may be tried."""
    table = np.tile(np.array([[1.0, 0.0, -1.0]]), (20, 1))
    table[:, 1] = 0.5
    history = Histories.of([list(range(20))])

    def states(histories: Histories) -> Answer:
        found = game(table).states(histories).states + np.array([0.0, 5.0, 0.0], np.float32)
        return Answer(found, Bonuses.none(len(histories)))

    scorer = Scorer(states, np.eye(20, 3, dtype=np.float32), 99)
    found = without(scorer, history, 0, np.arange(3), k=1, limit=25)
    assert len(found.events) == 11
    assert not found.proven
    with pytest.raises(DataError, match="not among the 1 best"):
        without(scorer, history, 2, np.arange(3), k=1)


def test_a_sentence_claims_what_the_shares_say():
    causes = [Cause("A", "purchase", 3.0), Cause("B", "view", 2.0), Cause("C", "view", 0.1)]
    assert sentence(causes, 5.0, "en") == "because you bought “A” and looked at “B”"
    assert sentence(causes, 5.0, "zh") == "因为你购买了「A」，浏览了「B」"
    assert sentence(causes, 5.0, "en", Resemblance("looks", "C")).endswith("; looks like “C”")
    assert sentence(causes, 5.0, "zh", Resemblance("sounds", "C")).endswith("；听起来像「C」")
    assert sentence(causes, -1.0, "en") == "not because of what you did before"
    assert sentence([], 0.0, "zh") == "并非因为你的历史行为"
    many = [Cause(f"A{n}", "like", 1.0) for n in range(9)]
    assert sentence(many, 9.0, "en") == "partly because you liked “A0”, “A1” and “A2”"
    assert sentence(many, 9.0, "zh") == "部分因为你喜欢「A0」、「A1」、「A2」"
    with pytest.raises(SettingsError, match="language is 'de'"):
        sentence(causes, 5.0, "de")


def test_what_looks_alike_is_named_where_the_picture_carries_it(served):
    """With only the picture's part in the vectors, a picture that is there twice is what it looks like."""
    titles = [{"item": n, "title": None} for n in range(served.prepared.items.size)]
    same = np.zeros((len(titles), 16), np.float32)
    history = Histories.of([[4, 6, 8]])
    change = served.states(history).states[0] - served.states(Histories.of([[]])).states[0]
    same[[6, 10]] = change  # the picture of 6 is that of 10, and it is what this person likes

    def parts(ids):
        return [("cover", same[ids])]

    answer = reasons(
        served,
        history,
        np.array([10]),
        titles=lambda ids: [titles[n] for n in ids],
        parts=parts,
        vectors=same,
    )[0]
    spoken = {event["item"] for event in answer["events"] if event["share"] > 0}
    assert answer["sentence"].endswith("; looks like “6”") == (6 in spoken and answer["difference"] > 0)


def test_shares_find_the_cause_before_other_orders_do_and_strange_ones_do_not():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(60, 30)).astype(np.float32)
    histories = Histories.of([generator.permutation(60)[:20].tolist() for _ in range(40)])
    world = {"popularity": np.arange(60), "k": 3, "filter_seen": False}
    allowed = np.ones(30, np.bool_)
    found = fidelity(game(table), histories, allowed, **world)
    assert found.agreement is None
    for curves, levels in ((found.by_number, NUMBERS), (found.by_tenths, TENTHS)):
        assert curves.levels == levels
        assert curves.deletion[SHARES].shape == (40, len(levels))
        for other in OTHERS:
            assert curves.area("deletion", SHARES).mean() < curves.area("deletion", other).mean() - 0.2
            assert curves.area("insertion", SHARES).mean() > curves.area("insertion", other).mean() + 0.2
    strange = game(generator.permutation(table.ravel()).reshape(table.shape))
    found = fidelity(game(table), histories, allowed, **world, shuffled=strange)
    for kind in ("deletion", "insertion"):
        for order in (SHUFFLED, BACKWARDS):
            difference = found.by_number.area(kind, order) - found.by_number.area(kind, "random")
            assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(difference))
    assert abs(found.agreement.mean()) < 0.25
    same = fidelity(game(table), histories, allowed, **world, shuffled=game(table))
    np.testing.assert_allclose(same.agreement, 1.0)


def test_curves_end_where_everything_is_gone_or_there():
    """Of four events the fifth level takes all: the item is last without them, and first with them."""
    table = np.zeros((4, 9))
    table[:, 8] = 1
    found = fidelity(
        game(table), Histories.of([[0, 1, 2, 3]]), np.ones(9, np.bool_), np.arange(9), k=1, filter_seen=False
    )
    assert found.by_number.insertion["random"].tolist() == [[1.0] * len(NUMBERS)]
    assert found.by_number.levels[3] == 4
    with_others = np.concatenate([table, np.zeros((1, 9))])
    with_others[4, 0] = 0.5
    found = fidelity(
        game(with_others),
        Histories.of([[4, 0, 1, 2, 3]]),
        np.ones(9, np.bool_),
        np.arange(9),
        k=1,
        filter_seen=False,
    )
    assert found.by_number.deletion[SHARES].tolist() == [[1.0, 1.0, 1.0, 0.0] + [1.0] * 6]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_rank_correlation_is_that_of_another_library(seed, n):
    one, other = np.random.default_rng(seed).integers(0, 5, (2, n)).astype(float)
    table = pl.DataFrame({"one": one, "other": other}).select(pl.all().rank())
    expected = table.select(pl.corr("one", "other")).item()
    if len(set(one)) == 1 or len(set(other)) == 1:
        expected = 0.0
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-9)


def test_a_network_with_shuffled_weights_has_the_same_weights_elsewhere(recommender):
    strange = recommender.shuffled(seed=1)
    for own, other in zip(recommender.model.parameters(), strange.model.parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(recommender.model.items(), strange.model.items())
    assert torch.equal(strange.model.items(), recommender.shuffled(seed=1).model.items())


def test_only_the_layers_that_are_named_are_shuffled(recommender):
    strange = recommender.shuffled(seed=1, layers=["behaviour.blocks.1."])
    changed = {
        name
        for (name, own), other in zip(
            recommender.model.named_parameters(), strange.model.parameters(), strict=True
        )
        if not torch.equal(own, other)
    }
    assert changed
    assert all(name.startswith("behaviour.blocks.1.") for name in changed)


def test_faithfulness_is_told_with_paired_intervals(recommender):
    told = faithfulness_of(recommender, people=12)
    assert told["people"] == 12
    assert told["agreement"]["low"] <= told["agreement"]["value"] <= told["agreement"]["high"]
    for by, kind in product(("by_number", "by_tenths"), ("deletion", "insertion")):
        rows = told[by][kind]
        assert list(rows) == [SHARES, *OTHERS, SHUFFLED, BACKWARDS]
        for name, row in rows.items():
            assert len(row["curve"]) == len(told[by]["levels"])
            assert row["low"] <= row["area"] <= row["high"]
            if name != SHARES:
                assert row["difference"]["difference"] == pytest.approx(rows[SHARES]["area"] - row["area"])
    told_again = faithfulness_of(recommender, people=12)
    assert told_again == told
    page = render(RunRecord(name="x", version="0", created="", reasons=told))
    assert "shares of the events" in page
    assert 'id="reasons"' in page


def test_the_command_line_says_why(exported_run):
    run = exported_run
    done = CliRunner().invoke(
        app, ["recommend", str(run), "--user", "u005", "-n", "3", "--explain", "--language", "zh", "--json"]
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert len(rows) == 3
    for row in rows:
        assert sum(event["share"] for event in row["reasons"]["events"]) == pytest.approx(
            row["reasons"]["difference"], rel=0.01
        )
        assert "因为" in row["reasons"]["sentence"]
    item = rows[0]["item"]
    done = CliRunner().invoke(
        app, ["explain", str(run), "--user", "u005", "--item", item, "--without", "--k", "3", "--json"]
    )
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["item"] == item
    assert row["without"]["events"] is None or len(row["without"]["events"]) > 0
    shown = CliRunner().invoke(app, ["explain", str(run), "--user", "u005", "--item", item, "--without"])
    assert shown.exit_code == 0, shown.output
    assert item in shown.stdout


def test_the_command_line_looks_into_items(exported_run, served, recommender):
    asked = ["explain", str(exported_run), "--user", "u005", "--item", "i002", "--inside"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    title = recommender.prepared.catalogue.filter(pl.col("item") == "i002")["title"].item()
    told = row["reasons"]["words"]
    assert [title[word["start"] : word["stop"]] for word in told] == title.split()
    change = recommender.change(user="u005")
    expected = [word.share for word in word_shares(served, change, "title", title)]
    np.testing.assert_allclose([word["share"] for word in told], expected, atol=1e-5)
    (region,) = row["reasons"]["regions"]
    assert (region["field"], np.shape(region["shares"])) == ("cover", (8, 8))
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "cover, by regions" in shown.stdout
    without_picture = CliRunner().invoke(app, [*asked[:5], "i001", "--inside", "--json"])
    assert json.loads(without_picture.stdout)[0]["reasons"]["regions"] == []


def test_time_is_in_even_stretches():
    (first, second, third) = in_time("track", [0.5, 0.0, -0.5], 3, 6.0)
    assert first == {"field": "track", "start": 0.0, "stop": 2.0, "share": 0.5}
    assert (second["start"], second["stop"], third["stop"]) == (2.0, 4.0, 6.0)
    assert len(in_time("track", [0.0] * 16, 626, 10.0)) == 16


def test_what_was_met_or_does_not_exist_has_no_smallest_set(recommender):
    person = recommender.prepared.known().select(np.array([2]))
    recommended = recommender.recommend(users=["u000"], k=40)["item"].to_list()
    met = next(key for key in recommender.prepared.items.keys(person.item) if key not in recommended)
    with pytest.raises(DataError, match="is not recommended"):
        recommender.without(met, user="u000")
    with pytest.raises(SettingsError, match="k is 0"):
        recommender.without(met, user="u000", k=0)
    with pytest.raises(SettingsError, match="either users or histories"):
        recommender.explain([met])
