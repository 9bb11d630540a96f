"""The search for settings: spaces, budgets, pruning, going on after a kill, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from palate.errors import DataError, SettingsError
from palate.recommender import Recommender
from palate.settings import Settings, read_yaml
from palate.tune.progress import SilentSearch
from palate.tune.report import answer, write_report
from palate.tune.space import DEFAULT, Space, nested
from palate.tune.study import Budget, begin, finished, search, write_results
from tests.worlds import block_world

GIVEN = {
    "model": {"width": 8, "blocks": 1, "content": False},
    "train": {"max_epochs": 3, "batch_events": 512, "threads": 1},
}
SPACE = {
    "model.blocks": {"low": 1, "high": 2},
    "model.dilations": [[1], [1, 2]],
    "train.learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
}


def study_in(folder: Path, trials: int, *, resume: bool = False, space: dict | None = None, **changes):
    plan = begin(
        block_world(people=60),
        {**GIVEN, **changes},
        Space.read(space or SPACE),
        folder,
        seed=0,
        resume=resume,
    )
    search(plan, Budget(trials, None), 1, SilentSearch())
    return plan


def drawn(results: dict) -> list[dict]:
    return [trial["drawn"] for trial in results["trials"]]


def test_the_first_trial_is_what_was_given_and_the_best_is_never_worse(tmp_path):
    plan = study_in(tmp_path / "study", 5)
    results = write_results(plan)
    first = results["trials"][0]
    assert first["as_given"]
    assert first["settings"] == {
        "model": {"blocks": 1},
        "train": {"learning_rate": 0.002},
    }  # dilations lie outside
    alone = Recommender(GIVEN).fit(block_world(people=60))
    assert first["value"] == alone.progress.best_metric
    assert results["best"]["value"] >= first["value"]
    assert len(results["trials"]) == 5
    lines = (tmp_path / "study" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [0, 1, 2, 3, 4]


def test_the_best_settings_train_to_the_value_they_were_chosen_for(tmp_path):
    results = write_results(study_in(tmp_path / "study", 4))
    chosen = read_yaml(tmp_path / "study" / "best.yaml")
    assert set(chosen) == {"model", "train"}  # nothing that was neither given nor searched
    again = Recommender(Settings.build(chosen)).fit(block_world(people=60))
    assert again.progress.best_metric == results["best"]["value"]


def test_one_worker_with_the_same_seed_makes_the_same_trials(tmp_path):
    one, other = (write_results(study_in(tmp_path / name, 4)) for name in ("one", "other"))
    assert drawn(one) == drawn(other)
    assert [t["value"] for t in one["trials"]] == [t["value"] for t in other["trials"]]


def test_going_on_adds_what_is_missing_and_nothing_more(tmp_path):
    study_in(tmp_path / "study", 2)
    before = (tmp_path / "study" / "journal.log").stat().st_size
    plan = study_in(tmp_path / "study", 5, resume=True)
    assert len(write_results(plan)["trials"]) == 5
    assert (tmp_path / "study" / "journal.log").stat().st_size > before
    study_in(tmp_path / "study", 3, resume=True)
    assert len(write_results(plan)["trials"]) == 5


def test_without_resume_a_study_begins_afresh(tmp_path):
    study_in(tmp_path / "study", 3)
    assert len(write_results(study_in(tmp_path / "study", 2))["trials"]) == 2


def test_another_study_is_not_gone_on_with(tmp_path):
    study_in(tmp_path / "study", 1)
    with pytest.raises(SettingsError, match="other data, settings or another space"):
        study_in(tmp_path / "study", 2, resume=True, space={"model.blocks": [1, 2]})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(SettingsError, match="something else"):
        study_in(tmp_path, 1)


def test_bad_trials_are_stopped_early(tmp_path):
    space = {"train.learning_rate": [3e-2, 2e-2, 1e-2, 8e-3, 1e-7, 2e-7]}
    train = {**GIVEN["train"], "max_epochs": 6, "patience": 6}
    results = write_results(study_in(tmp_path / "study", 14, space=space, train=train))
    stopped = [trial for trial in results["trials"] if trial["state"] == "stopped early"]
    assert stopped
    assert all(len(trial["passes"]) < 6 for trial in stopped)
    assert results["best"]["value"] == max(t["value"] for t in results["trials"] if t["value"] is not None)


def test_a_trial_that_fails_is_told_of_and_stops_nothing(tmp_path):
    space = {"train.learning_rate": [1e-2, 1e30]}
    results = write_results(study_in(tmp_path / "study", 6, space=space))
    failed = [trial for trial in results["trials"] if trial["state"] == "failed"]
    assert failed
    assert "not numbers" in failed[0]["error"] or "The loss is" in failed[0]["error"]
    assert len(results["trials"]) == 6


def test_two_workers_make_as_many_trials_as_were_asked_for(tmp_path):
    plan = begin(block_world(people=40), GIVEN, Space.read(SPACE), tmp_path / "study", seed=0, resume=False)
    search(plan, Budget(5, None), 2, SilentSearch())
    assert len(finished(plan.open())) == 5


def test_time_ends_a_search(tmp_path):
    plan = begin(block_world(people=40), GIVEN, Space.read(SPACE), tmp_path / "study", seed=0, resume=False)
    search(plan, Budget(None, 0.0), 1, SilentSearch())
    with pytest.raises(SettingsError, match="No trial was trained"):
        write_results(plan)


def test_nobody_to_ask_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(DataError, match="Nobody can be asked"):
        begin(block_world(people=6, length=1), GIVEN, Space.read(SPACE), tmp_path / "s", seed=0, resume=False)


def test_the_report_holds_every_trial_and_the_answer(tmp_path):
    results = write_results(study_in(tmp_path / "study", 6))
    write_report(tmp_path / "report.html", "blocks", results, {"train.learning_rate"})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert answer(results) in page.replace("&#39;", "'")
    assert page.count("<tr") == 7
    assert page.count("<svg") == 1 + bool(results["importance"]) + 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"model.blokcs": [1]}, "mean 'blocks'"),
        ({"model": {"width": {"low": 1, "hihg": 3}}}, "hihg"),
        ({"model.width": [0]}, "model.width"),
        ({"model.dropout": {"low": 0.5, "high": 0.1}}, "low below high"),
        ({"model.dropout": {"low": 0, "high": 0.5, "log": True}}, "above 0"),
        ({"model.dropout": 0.5}, "a list of values"),
        ({"split.kind": ["temporal"]}, "could not be compared"),
        ({}, "empty"),
    ],
)
def test_spaces_that_cannot_be_searched_say_why(space, words):
    with pytest.raises(SettingsError, match=words):
        Space.read(space)


def test_names_may_be_nested_or_dotted_and_ends_decide_the_type():
    dotted = Space.read({"model.blocks": {"low": 1, "high": 3}, "model.dropout": {"low": 0.1, "high": 0.3}})
    tree = Space.read({"model": {"blocks": {"low": 1, "high": 3}, "dropout": {"low": 0.1, "high": 0.3}}})
    assert dotted == tree
    assert type(dotted.distributions["model.blocks"]).__name__ == "IntDistribution"
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_default_space_can_be_searched():
    assert len(Space.read(DEFAULT).distributions) > 5


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path):
    rows = ["person,item"] + [f"p{p},i{(p * 7 + k * (p % 3 + 1)) % 40}" for p in range(400) for k in range(9)]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    command = [
        sys.executable,
        "-m",
        "palate",
        "tune",
        str(tmp_path / "rows.csv"),
        "--out",
        str(tmp_path / "s"),
    ]
    command += ["--config", str(tmp_path / "space.yaml"), "--trials", "6", "--set", "train.max_epochs=3"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    journal = tmp_path / "s" / "journal.log"
    while not (journal.exists() and journal.read_text().count("seconds") >= 2):
        time.sleep(0.1)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run([*command, "--resume", "--json"], check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)
    assert len(results["trials"]) == 6
    run = [
        sys.executable,
        "-m",
        "palate",
        "train",
        str(tmp_path / "rows.csv"),
        "--out",
        str(tmp_path / "run"),
    ]
    subprocess.run([*run, "--config", results["config"], "--json"], check=True, capture_output=True)
