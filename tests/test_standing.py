"""Where an item stands for sampled people, the fast way against sorting everything."""

import numpy as np
import polars as pl
import pytest

from palate.export.folder import export_run
from palate.recommender import Recommender
from palate.run import read_judgements, write_judgements
from palate.runtime.model import ServingModel
from palate.schema import UNKNOWN
from palate.serve.record import judgements, passes
from palate.serve.standing import Sample, parts, standing
from tests.worlds import block_world

SETTINGS = {
    "model": {
        "width": 16,
        "blocks": 2,
        "max_history": 12,
        "again": "learned",
        "text": {"width": 8, "filters": 8},
    },
    "train": {"max_epochs": 4, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standing")
    recommender = Recommender(SETTINGS).fit(block_world(people=40))
    recommender.save(folder)
    write_judgements(folder, recommender, [recommender.evaluate(title="Blocks", baselines=["popularity"])])
    export_run(folder)
    return folder


@pytest.fixture(scope="module")
def model(run):
    return ServingModel.load(run / "serving")


@pytest.fixture(scope="module")
def sample(model):
    return Sample.of(model, 24)


def test_a_sample_is_of_people_with_events_and_the_same_again(model, sample):
    again = Sample.of(model, 24)
    assert sample.keys == again.keys
    assert len(set(sample.keys)) == 24
    assert (sample.histories.lengths > 0).all()
    assert Sample.of(model, 24, seed=1).keys != sample.keys


@pytest.mark.parametrize("filter_seen", [True, False])
def test_ranks_are_those_of_sorting_all_scores(model, sample, filter_seen):
    scores = sample.answer.scores(model.vectors)
    allowed = model.allowed.copy()
    allowed[[5, 9]] = False
    for item in (4, 17, 30):
        found = standing(
            sample, model.vectors, allowed, model.vectors[item], item=item, filter_seen=filter_seen
        )
        for row, of_person in enumerate(scores):
            met = set(sample.histories.select(np.array([row])).item.tolist()) if filter_seen else set()
            others = [i for i in np.flatnonzero(allowed) if i != item and i not in met]
            above = sum(of_person[other] > of_person[item] + 1e-5 for other in others)
            level = sum(abs(of_person[other] - of_person[item]) <= 1e-5 for other in others)
            assert above < found.rank[row] <= above + level + 1
            assert found.score[row] == pytest.approx(of_person[item], abs=1e-5)


def test_a_new_item_like_an_old_one_suits_the_people_of_its_block(model, sample):
    vector = model.encode_items(pl.DataFrame({"item": ["fresh"], "title": ["green tea number 99"]}))[0]
    ranks = standing(sample, model.vectors, model.allowed, vector, item=UNKNOWN, filter_seen=True).rank
    own = np.array([int(key[1:]) % 4 == 1 for key in sample.keys])
    assert np.median(ranks[own]) < np.median(ranks[~own])


def test_what_carries_an_item_is_its_own_fields(model, sample):
    state = sample.answer.states.mean(axis=0)
    fresh = model.items.described(pl.DataFrame({"item": ["fresh"], "title": ["green tea"]}), {})
    assert set(parts(model.items.contributions(fresh), state)) == {"title", "id"}
    known = model.items.described(pl.DataFrame({"item": ["i003"]}), {})
    assert set(parts(model.items.contributions(known), state)) == {"title", "id"}
    bare = model.items.described(pl.DataFrame({"item": ["fresh"]}), {})
    assert set(parts(model.items.contributions(bare), state)) == {
        "id"
    }  # that of all who have none of their own
    for described in (fresh, known, bare):
        whole = float(model.items.vectors(described)[0] @ state)
        assert sum(parts(model.items.contributions(described), state).values()) == pytest.approx(
            whole, abs=1e-5
        )


def test_the_record_of_a_run_holds_its_results_and_its_passes(run, tmp_path):
    (table,) = judgements(run)
    (judged,) = read_judgements(run)
    assert table["title"] == "Blocks"
    assert table["metrics"][0] == "ndcg@10"
    assert set(table["metrics"]) == set(judged["metrics"])
    assert [row["name"] for row in table["rows"] if row["ours"]] == ["palate"]
    assert table["rows"][0]["values"] == judged["metrics"]
    others = [row["values"]["ndcg@10"]["value"] for row in table["rows"] if not row["ours"]]
    assert others == sorted(others, reverse=True)
    learned = passes(run)
    assert [each["epoch"] for each in learned] == list(range(len(learned)))
    assert learned[0]["loss"] > learned[-1]["loss"]
    assert judgements(tmp_path) == passes(tmp_path) == []
    (tmp_path / "evaluation.json").write_text("{")
    assert judgements(tmp_path) == []
