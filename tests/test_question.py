"""What is asked: a model told the hour, or the event type, uses it; one that is not told stays at chance."""

import datetime
import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from palate.cli import app
from palate.data.batches import make_batch
from palate.data.store import prepare
from palate.errors import SettingsError
from palate.evaluate.report import RunRecord, render
from palate.evaluate.results import results
from palate.evaluate.table import results_table
from palate.nn.model import TasteModel
from palate.nn.question import next_event
from palate.recommender import Recommender
from palate.schema import Content, Dataset, Histories, Part, QuestionPart
from palate.settings import Settings
from palate.train.tasks import ComingItems, NextItem
from tests.test_training import StopAt
from tests.worlds import block_world, hour_world, type_world

TINY = {
    "model": {"width": 16, "blocks": 1, "max_history": 20, "dropout": 0.1, "again": "ignored"},
    # One pass, since the pass to keep is chosen by answers without the question, which stay at chance here.
    "train": {"max_epochs": 1, "batch_events": 64, "learning_rate": 1e-2, "crop": 0.0},
    "evaluate": {"baselines": ["popularity"], "references": [], "filter_seen": False, "bootstrap": 50},
}
ONE = np.ones(4, np.float32)


def asking(*settings: str) -> dict:
    return {**TINY, "model": {**TINY["model"], **dict.fromkeys(settings, True)}}


@pytest.fixture(scope="module")
def of_hours() -> Recommender:
    return Recommender(asking("question_time")).fit(hour_world())


@pytest.fixture(scope="module")
def of_types() -> Recommender:
    return Recommender(asking("question_event")).fit(type_world())


def test_who_is_told_the_hour_knows_the_item_and_who_is_not_stays_at_chance(of_hours):
    judgement = of_hours.evaluate()
    (told,) = judgement.informed
    assert told.name == "palate_time"
    assert told.means["accuracy"] > 0.95
    assert 0.18 < judgement.model.means["accuracy"] < 0.32  # 1 of 4, of 600 people: ± .018


def test_who_is_told_the_event_type_knows_the_item_and_who_is_not_stays_at_chance(of_types):
    judgement = of_types.evaluate()
    (told,) = judgement.informed
    assert told.name == "palate_event"
    assert told.means["accuracy"] > 0.95
    assert 0.26 < judgement.model.means["accuracy"] < 0.41  # 1 of 3, of 600 people: ± .019


def test_answers_follow_the_time_that_is_asked_for(of_hours):
    def best(at, **whom):
        return of_hours.recommend(**(whom or {"users": ["7"]}), k=1, at=at)["item"].item()

    assert best("2012-03-01T08:00") == "at08"
    assert best("2012-03-01T22:59:59Z") == "at22"
    assert best("2012-03-01T08:30+05:30") == "at03"
    assert best(datetime.datetime(2012, 3, 1, 13)) == "at13"
    assert best("2012-03-01T13:00", histories=[["at03", "at03"]]) == "at13"
    assert best("2012-03-01T13:00", histories=[[]]) == "at13"
    assert best("1999-03-01T08:00") == "at08"  # before the last event: right after it, at eight o'clock


def test_answers_follow_the_event_type_that_is_asked_for(of_types):
    for event in ("buy", "view", "like"):
        assert of_types.recommend(users=["3"], k=1, event=event)["item"].item() == f"to {event}"


def test_together_equals_one_by_one_with_a_time(of_hours):
    keys = [str(person) for person in range(40)]
    together = of_hours.recommend(keys, k=4, at="2012-03-01T08:00")
    for key in keys[::7]:
        alone = of_hours.recommend([key], k=4, at="2012-03-01T08:00")
        of_key = together.filter(together["user"].cast(str) == key)
        assert alone["item"].to_list() == of_key["item"].to_list()
        np.testing.assert_allclose(alone["score"], of_key["score"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "asked"), [("of_hours", {"at": "2012-03-01T08:00"}), ("of_types", {"event": "view"})]
)
def test_saved_equals_loaded(name, asked, request, tmp_path):
    trained = request.getfixturevalue(name)
    trained.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    keys = [str(person) for person in range(50)]
    for wish in ({}, asked):
        assert loaded.recommend(keys, k=3, **wish).equals(trained.recommend(keys, k=3, **wish))
    assert not trained.recommend(keys, k=3).equals(trained.recommend(keys, k=3, **asked))


def test_what_cannot_be_asked_is_refused_with_what_to_do(of_hours, of_types):
    with pytest.raises(SettingsError, match=r"at is 'noon'; wanted a time in ISO 8601"):
        of_hours.recommend(["7"], at="noon")
    with pytest.raises(SettingsError, match=r"model\.question_time=true, or leave"):
        of_types.recommend(["7"], at="2012-03-01")
    with pytest.raises(SettingsError, match=r"Did you mean 'view'\?"):
        of_types.recommend(["7"], event="vew")
    with pytest.raises(SettingsError, match=r"read but not predicted.*buy"):
        of_types.recommend(["7"], event="return")
    plain = Recommender(TINY).fit(type_world(people=30))
    with pytest.raises(SettingsError, match=r"model\.question_event=true"):
        plain.recommend(["7"], event="view")
    timeless = Recommender(TINY).fit(block_world(has_time=False))
    with pytest.raises(SettingsError, match="an order and no times"):
        timeless.recommend(["u007"], at="2012-03-01")
    silent = asking("question_time")
    silent["model"]["time"] = False
    without = Recommender(silent).fit(hour_world(people=30))
    with pytest.raises(SettingsError, match=r"question_time=true and model\.time=true"):
        without.recommend(["7"], at="2012-03-01")
    assert without.model.gap is None
    assert without.model.question is None


def test_the_only_type_that_is_predicted_may_be_asked_for(of_hours):
    plain = of_hours.recommend(["7"], k=3)
    assert of_hours.recommend(["7"], k=3, event="interaction").equals(plain)


def test_the_informed_row_stands_apart_and_is_never_the_best_of_a_column(of_hours):
    tree = of_hours.evaluate().to_json()
    assert list(tree["informed"]) == ["palate_time"]
    assert "palate_time" not in tree["baselines"]
    assert tree["comparisons"]["palate_time"]["accuracy"]["high"] < 0  # ours, not told, minus ours, told
    shown = results(tree, ["accuracy"])
    assert [row.name for row in shown.rows] == ["Palate", "Palate, time told", "Popularity"]
    told = shown.rows[1]
    assert not told.ours
    assert not told.cells[0].best
    assert any(row.cells[0].best for row in (shown.rows[0], shown.rows[2]))
    page = render(RunRecord("hours", "1", "2026-01-01T00:00:00", judgements=[tree]))
    assert "Palate, time told" in page
    assert "told when it happens" in page
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_table(tree))
    assert "Palate, time told" in console.export_text()


def test_the_command_line_asks_for_a_time(of_hours, tmp_path):
    of_hours.save(tmp_path)
    words = ["recommend", str(tmp_path), "--user", "7", "-n", "1", "--json", "--at", "2012-03-01T22:10"]
    found = CliRunner().invoke(app, words)
    assert [row["item"] for row in json.loads(found.stdout)] == ["at22"]
    refused = CliRunner().invoke(app, [*words[:-1], "soon"])
    assert isinstance(refused.exception, SettingsError)


def test_the_command_line_asks_for_an_event_type(of_types, tmp_path):
    of_types.save(tmp_path)
    words = ["recommend", str(tmp_path), "--history", "to buy,to buy", "-n", "1", "--json", "--event", "like"]
    assert [row["item"] for row in json.loads(CliRunner().invoke(app, words).stdout)] == ["to like"]


def test_questions_tell_time_and_type_of_the_first_item_that_counts():
    """The last month of a person: the first item was seen before and is no target, so the second counts."""
    day = 86_400_000_000
    rows = pl.DataFrame(
        {
            "user": ["ann"] * 6 + ["bob"] * 4,
            "item": ["a", "b", "c", "a", "d", "e", "a", "b", "c", "d"],
            "time": [day * n for n in (0, 1, 50, 100, 101, 102, 0, 1, 50, 103)],
            "event": ["view"] * 4 + ["buy", "view"] + ["view"] * 3 + ["buy"],
            "value": pl.Series([None] * 10, dtype=pl.Float64),
            "row": range(10),
        }
    )
    settings = Settings.build({"split": {"kind": "temporal", "date": "1970-04-10", "horizon_days": 50}})
    prepared = prepare(Dataset("month", rows.lazy()), settings, None)
    asked = prepared.questions(Part.TEST, filter_seen=True, cold_targets=True)
    assert asked.at is None
    assert asked.event is None
    assert (asked.telling(QuestionPart.TIME).at // day).tolist() == [101, 103]
    told = asked.select(np.array([1, 0])).telling(QuestionPart.EVENT)
    assert [prepared.schema.events[code] for code in told.event] == ["buy", "buy"]
    assert (asked.telling(QuestionPart.TIME).select(np.array([1])).at // day).tolist() == [103]


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path):
    settings = asking("question_time", "question_event")
    settings["train"] = {**TINY["train"], "max_epochs": 2, "checkpoint_steps": 2}
    world = type_world(people=60)
    whole = Recommender(settings).fit(world)
    with pytest.raises(KeyboardInterrupt):
        Recommender(settings).fit(world, folder=tmp_path, display=StopAt(5))
    resumed = Recommender(settings).fit(world, folder=tmp_path, resume=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


# The layer itself


def model_of(**changes) -> TasteModel:
    settings = Settings.build({"model": {"width": 8, "blocks": 1, "dropout": 0.0, **changes}})
    return TasteModel(
        settings.model,
        Content(rows=12),
        np.ones(12, np.bool_),
        num_ids=12,
        num_event_types=3,
        has_time=True,
        num_target_types=2,
    )


def histories() -> Histories:
    hours = np.array([0, 5, 30, 100, 101, 7])
    return Histories(
        np.array([0, 4, 6]),
        np.array([4, 5, 6, 7, 8, 9], np.int32),
        np.array([0, 1, 2, 0, 1, 0], np.uint8),
        1_323_000_000_000_000 + np.sort(hours) * 3_600_000_000,
    )


def test_each_position_is_asked_what_is_true_of_its_next_event():
    batch = make_batch(histories(), max_history=9, has_time=True, target_weights=ONE)
    asked = next_event(batch)
    for column, known in zip(asked, (batch.event, batch.gap, batch.hour, batch.weekday), strict=True):
        assert column.tolist() == [*known[1:5].tolist(), 0, *known[6:].tolist(), 0]


def test_nothing_is_built_that_cannot_be_asked():
    assert model_of().question is None
    assert model_of(question_time=True, time=False).question is None
    assert model_of(question_time=True).question.parts == (QuestionPart.TIME,)
    assert model_of(question_event=True).question.parts == (QuestionPart.EVENT,)


def test_a_question_that_is_left_open_changes_nothing_and_one_that_says_something_does():
    torch.manual_seed(0)
    model = model_of(question_time=True, question_event=True)
    batch = make_batch(histories(), max_history=9, has_time=True)
    states = model.states(batch, model.items()).detach()
    asked = next_event(batch)
    torch.testing.assert_close(model.question(states, asked), states)  # G and B begin at zero
    torch.nn.init.normal_(model.question.modulate.weight)
    said = (model.question(states, asked) - states).abs().amax(dim=1)
    assert (said > 1e-3).tolist() == [True, True, True, True, False, True, True, False]
    nothing = asked._replace(**{name: torch.zeros_like(asked.gap) for name in asked._fields})
    torch.testing.assert_close(model.question(states, nothing), states, rtol=0, atol=0)


def test_half_of_the_positions_leave_each_part_open_by_the_seed():
    model = model_of(question_time=True, question_event=True)
    batch = make_batch(Histories.of([[5] * 4000]), max_history=4000, has_time=False)
    ones = torch.ones_like(batch.item)
    asked = next_event(batch)._replace(event=ones, gap=ones, hour=ones, weekday=ones)
    torch.manual_seed(1)
    drawn = model.question.partly_open(asked)
    assert torch.equal(drawn.gap, drawn.hour)
    assert torch.equal(drawn.gap, drawn.weekday)
    for share in (drawn.event, drawn.gap, drawn.event * drawn.gap * 2):
        assert abs(share.float().mean() - 0.5) < 0.05
    torch.manual_seed(1)
    assert all(map(torch.equal, drawn, model.question.partly_open(asked)))


def test_coming_items_are_asked_openly_and_the_next_item_with_what_is_true_of_it():
    torch.manual_seed(0)
    model = model_of(question_time=True, again="learned").train()
    torch.nn.init.normal_(model.question.modulate.weight)
    batch = make_batch(histories(), max_history=9, has_time=True, target_weights=ONE, past=True)
    vectors = model(batch)
    plain = vectors._replace(states=vectors.open.states, bonuses=vectors.open.bonuses, open=None)
    assert not torch.allclose(vectors.states, plain.states)
    task = ComingItems(1.0, window=1, this_visit=True)
    torch.testing.assert_close(task.losses(batch, vectors, None), NextItem(1.0).losses(batch, plain, None))
    told, untold = (NextItem(1.0).losses(batch, given, None)[0] for given in (vectors, plain))
    assert not torch.allclose(told, untold)


def test_what_is_asked_of_one_event_moves_no_other_state():
    torch.manual_seed(0)
    model = model_of(question_time=True, question_event=True)
    torch.nn.init.normal_(model.question.modulate.weight)
    batch = make_batch(histories(), max_history=9, has_time=True)
    states, asked = model.states(batch, model.items()), next_event(batch)
    before = model.question(states, asked)
    hour = asked.hour.clone()
    hour[2] = 24
    after = model.question(states, asked._replace(hour=hour))
    changed = ((after - before).abs().amax(dim=1) > 0).nonzero().flatten()
    assert changed.tolist() == [2]
