"""Cold items and new people: who leaves training, who is ranked with whom, and what a curve compares."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from bench.cold import main
from palate.cli import as_one, judged_on_its_split
from palate.data.store import prepare
from palate.errors import DataError
from palate.evaluate.evidence import Evidence
from palate.evaluate.judgement import Judgement, judge
from palate.evaluate.neighbours import NeighbourPopularity
from palate.evaluate.newcomers import by_events_seen, newcomers
from palate.evaluate.popular import Random
from palate.evaluate.protocol import evaluate, rank
from palate.evaluate.shares import variance_shares
from palate.evaluate.table import results_table
from palate.recommender import Recommender
from palate.run import describe_run
from palate.schema import Among, Field, FieldKind, Histories, Part, Questions
from palate.settings import EvaluateSettings, Settings
from tests.contracts import RANKER_CONTRACT
from tests.worlds import TableRanker, block_of, block_world, prepared_block_world

COLD = {"split": {"kind": "cold_items", "share": 0.15}}
QUICK = {
    "model": {"width": 16, "blocks": 2, "max_history": 10},
    "train": {"max_epochs": 8, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
    "evaluate": {
        "baselines": ["popularity"], "references": [], "bootstrap": 50, "cutoffs": [3, 10, 20],
    },
}  # fmt: skip
WORLD = {"people": 120, "items": 80, "blocks": 4, "length": 14}
BOTH = {"filter_seen": True, "cold_targets": True}


@pytest.fixture(scope="module")
def cold():
    return prepare(block_world(**WORLD), Settings.build(COLD))


@pytest.fixture(scope="module")
def trained():
    return Recommender(QUICK | COLD).fit(block_world(**WORLD))


@pytest.fixture(scope="module")
def among_new(trained) -> Judgement:
    return trained.evaluate(among=Among.COLD)


def test_cold_candidates_are_the_items_without_a_training_event(cold):
    new = cold.candidates(cold_targets=False, among=Among.COLD)
    assert new.sum() == 24
    assert not set(np.flatnonzero(new)) & set(cold.training().item.tolist())
    both = cold.candidates(cold_targets=True)
    assert both.sum() == 80
    np.testing.assert_array_equal(both & ~cold.candidates(cold_targets=False), new)


def test_events_of_cold_items_are_neither_read_nor_predicted_in_training_nor_known_to_questions(cold):
    new = cold.candidates(cold_targets=True, among=Among.COLD)
    assert not new[cold.training().item].any()
    for part in (Part.VALIDATION, Part.TEST):
        questions = cold.questions(part, **BOTH, among=Among.COLD)
        assert not new[questions.histories.item].any()
        assert new[questions.target_items].all()


@pytest.mark.parametrize("sampled_above", [1, 50_000])
def test_training_does_not_look_at_what_left_it(cold, sampled_above):
    """The weights are the same, whatever the held-out items are; neither are their labels looked at."""
    new = cold.candidates(cold_targets=True, among=Among.COLD)
    keys = cold.items.keys(np.flatnonzero(new))
    settings = QUICK | COLD | {"tasks": ["next_item", {"name": "item_class", "field": "kind"}]}
    settings["train"] = QUICK["train"] | {"max_epochs": 2, "sampled_above": sampled_above, "negatives": 20}
    weights = []
    for price in (1.0, -500.0):
        world = block_world(**WORLD)
        held_out = pl.col("item").is_in(keys)
        number = pl.col("item").str.slice(1).cast(pl.Int32)
        table = world.items.select(
            "item",
            price=pl.when(held_out).then(pl.lit(price)).otherwise(number % 4).cast(pl.Float64),
            kind=pl.when(held_out & (pl.lit(price) < 0))
            .then(pl.lit("a"))
            .otherwise(pl.format("{}", number % 3)),
        )
        fields = (Field("price", FieldKind.NUMBER), Field("kind", FieldKind.CATEGORY))
        recommender = Recommender(settings).fit(replace(world, items=table, fields=fields))
        weights.append(dict(recommender.model.named_parameters()))
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def test_ranks_among_cold_items_are_what_counting_them_gives(cold):
    questions = cold.questions(Part.TEST, **BOTH, among=Among.COLD)
    table = np.random.default_rng(1).integers(0, 9, (cold.people.size, cold.items.size))
    new = cold.candidates(cold_targets=True, among=Among.COLD)
    found = rank(TableRanker(table), questions, new, filter_seen=True, k=5)
    for q, person in enumerate(questions.people):
        scores, target = table[person], questions.target_items[q]
        others = [item for item in np.flatnonzero(new) if item != target]
        better = sum(scores[item] > scores[target] for item in others)
        equal = sum(scores[item] == scores[target] for item in others)
        assert found.ranks[q] == 1 + better + equal / 2
        assert new[found.top[q]].all()


def test_the_same_people_are_asked_among_all_and_among_the_new(trained, among_new):
    among_all = trained.evaluate()
    assert among_all.model.questions == among_new.model.questions
    assert (among_all.model.catalogue, among_new.model.catalogue) == (80, 24)
    assert {row.name for row in among_all.baselines} == {
        "popularity", "random", "neighbour_popularity", "content_knn", "recent_content_knn",
    }  # fmt: skip
    assert "popularity" not in {row.name for row in among_new.baselines}
    assert among_new.to_json()["among"] == "cold"
    assert "new items only" in among_new.title


def test_where_words_decide_taste_new_items_are_found_far_above_chance(trained, among_new):
    """Who reads the words needs to guess among the new items of the right block only."""
    found = {row.name: row.means["hit_rate@3"] for row in (among_new.model, *among_new.baselines)}
    best = np.mean(
        [
            min(1, 3 / np.count_nonzero(right))
            for right in (
                (block_of(trained.prepared) == block_of(trained.prepared)[target])
                & trained.prepared.candidates(cold_targets=True, among=Among.COLD)
                for target in trained.prepared.questions(Part.TEST, **BOTH).target_items
            )
        ]
    )
    assert abs(found["random"] - 3 / 24) < 0.1
    assert found["palate"] > 0.75 * best > 2 * found["random"]
    assert among_new.comparisons["random"]["ndcg@10"].low > 0


def test_who_took_nothing_new_cannot_be_judged_among_the_new():
    prepared = prepared_block_world()
    with pytest.raises(DataError, match=r"split\.kind=cold_items"):
        judge(Random().fit(prepared), prepared, EvaluateSettings(), among=Among.COLD)


@pytest.mark.parametrize("holds", RANKER_CONTRACT, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("make", [Random, NeighbourPopularity])
def test_rows_for_cold_items_keep_the_contract_of_rankers(holds, make, cold):
    holds(make().fit(cold), cold.questions(Part.TEST, **BOTH), cold.items.size)


def test_random_finds_what_chance_finds_and_follows_its_seed(cold):
    questions = Questions.without_answer(Histories.of([[a, b] for a in range(2, 60) for b in range(2, 60)]))
    scores = Random(3).fit(cold).score(questions)
    places = (scores > scores[:, [7]]).sum(axis=1)
    assert abs(np.mean(places < 10) - 10 / cold.items.size) < 0.02
    assert (Random(4).fit(cold).score(questions) != scores).mean() > 0.99


def test_a_cold_item_has_the_mean_popularity_of_its_nearest_warm_items(cold):
    evidence = Evidence(cold)
    found = NeighbourPopularity(3).learn(evidence).popularity
    likeness = (evidence.content @ evidence.content.T).toarray()
    warm = np.flatnonzero(evidence.warm)
    for item in range(2, cold.items.size):
        if evidence.warm[item]:
            assert found[item] == evidence.popularity[item]
            continue
        third = np.sort(likeness[item, warm])[-3]
        near = [other for other in warm if likeness[item, other] >= third]
        expected = np.average(evidence.popularity[near], weights=likeness[item, near])
        assert found[item] == pytest.approx(expected, rel=1e-5)


def test_newcomers_are_the_same_people_with_less_and_less_known(cold):
    questions = cold.questions(Part.TEST, **BOTH)
    people = newcomers(questions)
    lengths = questions.histories.lengths
    half = (len(questions) + 1) // 2
    enough = max(n for n in (1, 2, 3, 5, 10, 20) if (lengths >= n).sum() >= half)
    assert len(people) == (lengths >= enough).sum()
    for known in (1, 3):
        cut = people.knowing_only(known)
        for row in range(len(people)):
            whole = people.histories.select(np.array([row])).item
            assert cut.histories.select(np.array([row])).item.tolist() == whole[-known:].tolist()
        np.testing.assert_array_equal(cut.target_items, people.target_items)


class LastIsGood:
    """Knows the answer of every history that holds at least ``needed`` events."""

    name = "needed"

    def __init__(self, table: np.ndarray, needed: int) -> None:
        self.table, self.needed = table, needed

    def score(self, questions: Questions) -> np.ndarray:
        known = questions.histories.lengths >= self.needed
        return np.where(known[:, None], self.table[questions.people], 0).astype(np.float32)


def test_the_curve_says_from_how_many_events_on_a_ranker_knows(cold):
    people = newcomers(cold.questions(Part.TEST, **BOTH))
    table = np.zeros((cold.people.size, cold.items.size))
    table[people.people, people.target_items] = 1
    settings = EvaluateSettings(bootstrap=20)
    points = by_events_seen(LastIsGood(table, 3), cold, people, settings, 0)
    assert [point.events for point in points][:4] == [1, 2, 3, 5]
    for point in points:
        assert point.low - 1e-9 <= point.value <= point.high + 1e-9
        assert (point.value > 1 - 1e-9) == (point.events >= 3)
    assert points[0].value < 0.2
    assert by_events_seen(LastIsGood(table, 3), cold, None, settings, 0) == ()


def test_the_curve_stands_in_the_judgement_for_every_row(trained, among_new):
    tree = trained.evaluate(cold_baselines=["random"]).to_json()["events_seen"]
    assert set(tree["rows"]) == {"palate", "popularity", "random"}
    assert tree["people"] > 20
    assert {tuple(point) for row in tree["rows"].values() for point in row} == {
        ("events", "value", "low", "high")
    }
    popular = [point["value"] for point in tree["rows"]["popularity"]]
    assert max(popular) - min(popular) < 0.1  # a list for everybody hardly depends on what is known
    assert among_new.to_json()["events_seen"]["rows"] == {}


def test_shares_of_the_variance_are_those_of_the_whole_matrix_at_once(trained):
    rows = np.arange(2, 82)
    shares = variance_shares(trained.model.items, rows)
    parts = {
        name: part.detach().numpy()[rows].astype(np.float64)
        for name, part in trained.model.items.contributions()
    }
    whole = sum(parts.values())
    total = whole.var(axis=0).sum()
    for name, part in parts.items():
        covariance = ((part - part.mean(axis=0)) * (whole - whole.mean(axis=0))).mean(axis=0).sum()
        assert shares[name] == pytest.approx(covariance / total, abs=1e-6)
    assert sum(shares.values()) == pytest.approx(1)
    assert variance_shares(trained.model.items, rows[:1]) is None


def test_new_items_are_carried_by_their_content_alone(trained):
    described = describe_run(trained)["share of item vectors"]
    assert described["new items"] == {"items": 24, "id": 0.0, "title": 1.0}
    warm = described["items with training events"]
    assert warm["items"] == 56
    assert warm["title"] > 0.5  # words decide taste, so they say most of what known items' vectors hold
    assert warm["id"] + warm["title"] == pytest.approx(1, abs=2e-4)


def test_an_item_that_is_removed_is_neither_ranked_nor_asked_for(trained, tmp_path, cold):
    trained.save(tmp_path)
    fewer = Recommender.load(tmp_path)
    target = cold.items.keys(cold.questions(Part.TEST, **BOTH).target_items[:1])
    before = fewer.evaluate(cold_baselines=[]).model
    fewer.items.remove(target)
    after = fewer.evaluate(cold_baselines=[]).model
    assert after.catalogue == before.catalogue - 1
    assert after.questions < before.questions
    assert fewer.items.table.filter(pl.col("item") == target[0]).is_empty()


def test_evaluate_ranks_what_its_questions_were_asked_among(cold):
    settings = EvaluateSettings(bootstrap=2)
    questions = cold.questions(Part.TEST, **BOTH, among=Among.COLD)
    found = evaluate(Random().fit(cold), cold, questions, settings=settings, among=Among.COLD)
    assert found.catalogue == 24
    assert found.means["recall@20"] == pytest.approx(20 / 24, abs=0.15)


def test_the_bench_writes_a_row_for_every_network_and_method(tmp_path):
    world = block_world(people=24)
    world.interactions.collect().drop("row", "value", "event").write_parquet(tmp_path / "events.parquet")
    kinds = pl.Series("kind", [f"k{int(key[1:]) % 4}" for key in world.items["item"]])
    world.items.with_columns(kinds).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "dataset.yaml").write_text(
        "name: blocks\n"
        "interactions: {table: events.parquet, user: user, item: item, time: time}\n"
        "items:\n"
        "  table: items.parquet\n"
        "  id: item\n"
        "  fields: {title: {kind: text}, kind: {kind: category}}\n"
    )
    page = tmp_path / "page.md"
    marks = [f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in ("cold", "warm")]
    page.write_text("".join(marks))
    quick = [
        "model.width=8", "model.blocks=1", "train.max_epochs=1", "train.batch_events=4096",
        "train.precision=float32", "evaluate.bootstrap=20", "evaluate.cold_baselines=[random,content_knn]",
    ]  # fmt: skip
    sets = [word for assignment in quick for word in ("--set", assignment)]
    main(["--data", str(tmp_path / "dataset.yaml"), "--seeds", "3", "--page", str(page), *sets])
    cold, warm = page.read_text().split("<!-- cold:end -->")
    names = [line.split(" | ")[0].strip("| ") for line in cold.splitlines() if line.startswith("| ")]
    assert names[2:] == [
        "Palate, all fields", "Palate, title alone", "Palate, kind alone", "Palate, ids alone",
        "Random", "Content k-NN",
    ]  # fmt: skip
    assert warm.count("\n| Palate, ") == 2
    assert "seeds 3" in cold


def test_the_command_line_judges_a_cold_split_both_ways(trained):
    judgements = judged_on_its_split(trained, cold_baselines=["random"])
    tree = as_one(judgements)
    assert (tree["among"], tree["among_new"]["among"]) == ("all", "cold")
    assert set(tree["metrics"]["recall@20"]) == {"value", "low", "high"}
    caption = Console(width=80, file=io.StringIO(), record=True)
    caption.print(results_table(tree["among_new"]))
    assert "ranked among the 24 new items" in " ".join(caption.export_text().split())
