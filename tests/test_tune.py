"""The search for settings: it goes on where it was killed, never ends worse, and says what it did."""

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from palate.cli import app
from palate.errors import DataError, SettingsError, TrainingError
from palate.settings import Settings
from palate.tune.progress import SearchBar, SilentSearch
from palate.tune.report import answer, write_report
from palate.tune.space import DEFAULT, Choice, Space
from palate.tune.study import tune
from palate.tune.trials import State, Trial, best_of
from tests.worlds import block_world, markov_world

TINY = {
    "model": {"width": 16, "blocks": 1, "max_history": 20},
    "train": {"max_epochs": 4, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
}
SPACE = {
    "model.width": [8, 16, 24],
    "model.dropout": {"low": 0.0, "high": 0.6},
    "train.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    "train.weight_decay": {"low": 0.01, "high": 1.0, "log": True},
}


def comparable(trials: list[Trial]) -> list[tuple]:
    """All that two equal searches have in common, in order of the trials' numbers."""
    return sorted((t.number, t.state, t.value, tuple(t.passes), json.dumps(t.values)) for t in trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Twelve trials without a break."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    return tune(block_world(), folder, space=SPACE, settings=TINY, trials=12)


# The space


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model.dropuot": {"low": 0.1, "high": 0.6}}, "Did you mean 'dropout'"),
        ({"model": {"dropuot": [0.1, 0.2]}}, "Did you mean 'dropout'"),
        ({"modle.dropout": [0.1, 0.2]}, "Did you mean 'model'"),
        ({"model.dropout": {"low": 0.1, "hihg": 0.6}}, "Did you mean 'high'"),
        ({"model.dropout": {"low": 0.1, "high": 1.6}}, "1.6"),
        ({"model.dropout": {"low": 0.6, "high": 0.1}}, "wanted low below high"),
        ({"model.blocks": {"low": 1.0, "high": 6.0}}, "model.blocks"),
        ({"model.blocks": {"low": 0, "high": 6}}, "greater than or equal to 1"),
        ({"model.blocks": {"low": 1, "high": 6, "step": 7}}, "step is 7"),
        ({"train.learning_rate": {"low": 0.0, "high": 0.1, "log": True}}, "begins above 0"),
        ({"model.activation": ["glu", "gul"]}, "gul"),
        ({"model.activation": []}, "wanted a list"),
        ({"model.width": 64}, "wanted a list"),
        ({}, "empty"),
        ({"split.kind": ["temporal", "leave_one_out"]}, "could not be compared"),
        ({"data": {"min_user_events": [1, 5]}}, "could not be compared"),
        ({"evaluate.filter_seen": [True, False]}, "could not be compared"),
        ({"train.validate_metric": ["ndcg@10", "loss"]}, "could not be compared"),
        ({"seed": [0, 1, 2]}, "makes no model better"),
        ({"model.image.size": [32, 64]}, "decoded"),
        ({"model": {"audio": {"hop_ms": {"low": 8.0, "high": 32.0}}}}, "decoded"),
        ({"model.video": [{"frames": 4}, {"frames": 8}]}, "decoded"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tree, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Space.read(tree)


def test_all_faults_of_a_space_are_said_at_once():
    with pytest.raises(SettingsError, match=r"dropuot.*activation"):
        Space.read({"model.dropuot": [0.1], "model.activation": ["gul"], "model.width": [64]})


def test_a_space_is_read_as_yaml_writes_it():
    text = """
    model: {width: [64, 128], dilations: [[1], [1, 2]]}
    model.blocks: {low: 1, high: 6}
    train.learning_rate: {low: 5e-4, high: 5e-3, log: true}
    train.weight_decay: [null, 1e-2]
    """
    space = Space.read(yaml.safe_load(text))  # to this reader 5e-4 is a text
    assert space.parts["train.learning_rate"].low == pytest.approx(5e-4)
    assert space.parts["model.blocks"].whole
    assert not space.parts["train.learning_rate"].whole
    assert space.parts["train.weight_decay"] == Choice((None, 0.01))
    assert space.parts["model.dilations"] == Choice(([1], [1, 2]))
    assert space.values_of(Settings())["model.width"] == 128


def test_steps_are_counted_from_the_lower_end():
    space = Space.read({"model.width": {"low": 16, "high": 64, "step": 16}, "model.dropout": [0.1, 0.2]})
    assert [space.holds("model.width", width) for width in (16, 24, 48, 64, 80)] == [1, 0, 1, 1, 0]
    assert space.holds("model.dropout", 0.2)
    assert not space.holds("model.dropout", 0.3)


def test_the_default_space_is_made_of_settings_and_leaves_out_what_is_given():
    assert Space.read(DEFAULT).parts.keys() == DEFAULT.keys()
    assert "model.width" not in Space.read(DEFAULT).without(["model.width"]).parts
    with pytest.raises(SettingsError, match="nothing is left"):
        Space.read({"model.width": [64]}).without(["model.width"])


# The search


def test_the_first_trial_has_the_current_settings_and_the_best_is_not_worse(whole):
    first = next(trial for trial in whole.trials if trial.number == 0)
    wanted = {"model": {"dropout": 0.4}}  # as so few data want it
    assert first.values == Space.read(SPACE).values_of(Settings.build(TINY, wanted))
    assert first.state == State.DONE
    assert whole.best.value >= first.value
    assert whole.gain == pytest.approx(whole.best.value / first.value - 1)


def test_every_value_tried_lies_in_the_space_and_none_twice(whole):
    space = Space.read(SPACE)
    assert sorted(trial.number for trial in whole.trials) == list(range(12))
    for trial in whole.trials[1:]:
        assert trial.values.keys() == SPACE.keys()
        assert all(space.holds(name, value) for name, value in trial.values.items())
    assert len({json.dumps(trial.values) for trial in whole.trials}) == 12


def test_the_same_seed_gives_the_same_trials_and_another_does_not(whole, tmp_path):
    again = tune(block_world(), tmp_path / "again", space=SPACE, settings=TINY, trials=12)
    assert comparable(again.trials) == comparable(whole.trials)
    other = tune(block_world(), tmp_path / "other", space=SPACE, settings=TINY, trials=3, seed=1)
    assert other.trials[1].values != whole.trials[1].values


def test_the_default_space_can_be_searched(tmp_path):
    settings = {"train": {"max_epochs": 1, "precision": "float32"}, "model": {"width": 16}}
    found = tune(block_world(people=40), tmp_path / "study", settings=settings, trials=4)
    assert [trial.state for trial in found.trials] == [State.DONE] * 4
    assert found.space.parts.keys() == DEFAULT.keys() - {"model.width"}
    assert any(trial.values != found.trials[0].values for trial in found.trials)


def test_a_person_sees_the_trials_the_best_so_far_and_the_time_left(tmp_path):
    screen = io.StringIO()
    with SearchBar(Console(file=screen, width=140, force_terminal=True)) as bar:
        found = tune(
            block_world(), tmp_path, space=SPACE, settings=TINY, trials=3, minutes=9, display=bar
        )  # fmt: skip
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    assert "3/3" in text
    assert f"best ndcg@10 {found.best.value:.4f} (trial {found.best.number})" in text
    assert re.search(r"trial 0  ndcg@10 [\d.]+ \*  [\d.]+ s  the current settings", text)
    assert re.search(r"(s|min) left", text)


class Interrupted(SilentSearch):
    """Ends the search in a pass of a trial, as a kill would."""

    def __init__(self, number: int, epoch: int) -> None:
        self.at = (number, epoch)

    def passed(self, number, epoch, value):
        if (number, epoch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("number", [0, 4, 9])
def test_an_interrupted_study_goes_on_as_it_would_have_gone(whole, tmp_path, number):
    study = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        tune(block_world(), study, space=SPACE, settings=TINY, trials=12, display=Interrupted(number, 1))
    with (study / "trials.jsonl").open("a") as file:
        file.write('{"number": 99, "state": "do')  # a line that the kill cut off
    found = tune(block_world(), study, space=SPACE, settings=TINY, trials=12, resume=True)
    assert comparable(found.trials) == comparable(whole.trials)
    lines = (study / "trials.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["number"] for line in lines) == list(range(12))


def test_a_finished_study_is_not_searched_any_further_but_can_get_a_larger_budget(whole):
    before = (whole.folder / "trials.jsonl").read_text()
    assert tune(
        block_world(), whole.folder, space=SPACE, settings=TINY, trials=12, resume=True
    ).trials == list(whole.trials)
    assert (whole.folder / "trials.jsonl").read_text() == before


def test_bad_trials_are_stopped_early(tmp_path):
    """A learning rate of a millionth learns nothing; whoever has it lags behind the median."""
    space = {"train.learning_rate": [1e-2, 1.1e-2, 1.2e-2, 1.3e-2, 1.4e-2, 1e-6, 1.1e-6, 1.2e-6, 1.3e-6]}
    settings = {**TINY, "train": {**TINY["train"], "max_epochs": 6, "patience": 6}}
    found = tune(block_world(), tmp_path / "study", space=space, settings=settings, trials=9)
    pruned = [trial for trial in found.trials if trial.state == State.PRUNED]
    assert pruned
    assert all(2 < len(trial.passes) < 6 for trial in pruned)
    done = [trial for trial in found.trials if trial.state == State.DONE]
    assert len(done) >= 4
    assert all(len(trial.passes) == 6 for trial in done)
    assert found.best in done
    small = {trial.number for trial in found.trials if trial.values["train.learning_rate"] < 1e-5}
    assert small & {trial.number for trial in pruned}


def test_a_training_that_fails_is_a_trial_that_failed(tmp_path):
    wild = {"train": {**TINY["train"], "clip_norm": 1e30, "warmup": 0.0}, "model": TINY["model"]}
    space = {"train.learning_rate": [1e-2, 1e30]}
    found = tune(block_world(), tmp_path / "study", space=space, settings=wild, trials=9)
    assert [trial.state for trial in found.trials] == [
        State.DONE,
        State.FAILED,
    ]  # there is nothing else to try
    assert "learning_rate" in found.trials[1].error
    assert "failed" in write_report(found).read_text(encoding="utf-8")
    with pytest.raises(TrainingError, match="None of 1 trials"):
        tune(
            block_world(), tmp_path / "wild", space={"train.learning_rate": [1e30]},
            settings={**wild, "train": {**wild["train"], "learning_rate": 1e30}}, trials=1,
        )  # fmt: skip


def test_when_the_time_is_up_running_trials_do_not_count(tmp_path):
    found = tune(block_world(), tmp_path / "study", space=SPACE, settings=TINY, minutes=1e-6)
    assert [trial.number for trial in found.trials] == [0]  # the current settings are always tried

    class Late(SilentSearch):
        def passed(self, number, epoch, value):
            if (number, epoch) == (1, 0):
                time.sleep(3)

    slow = tune(block_world(), tmp_path / "slow", space=SPACE, settings=TINY, minutes=0.05, display=Late())
    assert [trial.number for trial in slow.trials] == [0]
    resumed = tune(block_world(), tmp_path / "slow", space=SPACE, settings=TINY, trials=2, resume=True)
    assert [trial.number for trial in resumed.trials] == [0, 1]


def test_a_smaller_loss_is_better(tmp_path):
    settings = {**TINY, "train": {**TINY["train"], "validate_metric": "loss"}}
    found = tune(block_world(), tmp_path / "study", space=SPACE, settings=settings, trials=6)
    assert found.best.value == min(trial.value for trial in found.trials if trial.state == State.DONE)
    assert found.gain >= 0


def test_of_equal_trials_the_earlier_is_best():
    trials = [Trial(number, State.DONE, 0.5, {}) for number in (2, 0, 1)]
    assert best_of(trials, smaller_is_better=False).number == 0
    assert best_of([Trial(0, State.PRUNED, 0.9, {}), *trials[:1]], smaller_is_better=False).number == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resume": False}, "--resume"),
        ({"space": {"model.width": [8, 16]}}, "other space"),
        ({"settings": {}}, "other settings"),
        ({"seed": 5}, "other settings"),
        ({"dataset": block_world(seed=5)}, "other data"),
    ],
)
def test_another_study_is_not_mixed_into_this_one(whole, change, message):
    wishes = {"dataset": block_world(), "space": SPACE, "settings": TINY, "resume": True, **change}
    with pytest.raises(SettingsError, match=message):
        tune(folder=whole.folder, trials=13, **wishes)
    assert (
        tune(block_world(), whole.folder, space=SPACE, settings=TINY, trials=12, resume=True).best
        == whole.best
    )


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="something else"):
        tune(block_world(), tmp_path, space=SPACE, settings=TINY, trials=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_validation_people_nothing_can_be_told(tmp_path):
    with pytest.raises(DataError, match="validation"):
        tune(markov_world(people=30, length=1, likely=0.8), tmp_path / "study", settings=TINY, trials=1)


# What is left behind


class Page(HTMLParser):
    """Open elements, and what they refer to outside of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.outside = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "path", "use", "circle", "rect", "line"):
            self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value[:1] != "#"]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_report_shows_the_search(whole):
    text = write_report(whole).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.outside == []
    assert f"{whole.best.value:.4f}" in text
    assert f"{100 * whole.gain:.1f}% better" in answer(whole)
    assert answer(whole) in text
    rows = re.findall(r'<th scope="row">(\d+)', text)
    assert sorted(map(int, rows)) == list(range(12))
    assert text.count("<svg") == 3 + len(SPACE)  # trials, passes, importance; one for each setting
    # Trial 0 lies outside of the space, since its weight decay is none, and is left out of the importance.
    assert whole.importance.keys() == SPACE.keys()
    assert sum(whole.importance.values()) == pytest.approx(1.0)


def test_best_settings_are_what_was_searched_and_what_was_given(whole):
    best = yaml.safe_load((whole.folder / "best.yaml").read_text(encoding="utf-8"))
    assert best == whole.settings
    assert best["model"].keys() == TINY["model"].keys() | {"width", "dropout"}
    assert best["train"].keys() == TINY["train"].keys() | {"learning_rate", "weight_decay"}
    assert best.keys() == {"model", "train"}


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "events.csv"
    block_world(people=60).interactions.collect().select("user", "item", "time").write_csv(path)
    return path


ASSIGNMENTS = [
    word
    for pair in ("model.blocks=1", "train.batch_events=256", "train.max_epochs=3", "train.precision=float32")
    for word in ("--set", pair)
]


def test_the_command_line_tunes_and_train_takes_what_it_found(events, tmp_path):
    (tmp_path / "space.yaml").write_text("model.width: [8, 16]\nmodel.dropout: {low: 0.1, high: 0.5}\n")
    study = tmp_path / "study"
    words = ["tune", events, "--out", study, "--trials", 3, "--config", tmp_path / "space.yaml", *ASSIGNMENTS]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    assert done.exit_code == 0, done.output
    tree = json.loads(done.stdout)
    assert len(tree["trials"]) == 3
    assert tree["best"]["value"] >= tree["current"]["value"]
    assert Path(tree["report"]).is_file()
    train = ["train", events, "--out", tmp_path / "run", "--config", tree["config"]]
    trained = CliRunner().invoke(app, [str(w) for w in (*train, "--set", "evaluate.baselines=[]", "--json")])
    assert trained.exit_code == 0, trained.output
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["metric"] for entry in log] == tree["best"]["passes"]  # the same training once more


def test_a_space_with_a_fault_ends_with_code_2_and_no_folder(events, tmp_path):
    (tmp_path / "space.yaml").write_text("model.widht: [8, 16]\n")
    words = ["tune", events, "--out", tmp_path / "study", "--config", tmp_path / "space.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "palate", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Did you mean 'width'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "study").exists()


# Processes


@pytest.mark.slow
def test_a_study_killed_with_signal_9_goes_on(events, tmp_path):
    study, trials = tmp_path / "study", tmp_path / "study" / "trials.jsonl"
    command = [sys.executable, "-m", "palate", "tune", str(events), "--out", str(study), "--trials", "10"]
    victim = subprocess.Popen(
        [*command, *ASSIGNMENTS, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not trials.exists() or trials.read_bytes().count(b"\n") < 3):
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    before = trials.read_text().splitlines()
    assert 3 <= len(before) < 10
    done = subprocess.run(
        [*command, *ASSIGNMENTS, "--json", "--resume"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert trials.read_text().splitlines()[: len(before)] == before
    assert sorted(trial["number"] for trial in json.loads(done.stdout)["trials"]) == list(range(10))


@pytest.mark.slow
def test_two_workers_give_the_asked_number_of_trials_and_one_that_dies_costs_one_trial(tmp_path):
    class Assassin(SilentSearch):
        """Kills a worker in the last pass of a trial."""

        done = False

        def passed(self, number, epoch, value):
            if number == 3 and not self.done:
                self.done = True
                busy = max(multiprocessing.active_children(), key=lambda process: process.pid)
                os.kill(busy.pid, signal.SIGKILL)
                busy.join()

    found = tune(
        block_world(), tmp_path / "study", space=SPACE, settings=TINY, trials=7, workers=2, display=Assassin()
    )
    assert sorted(trial.number for trial in found.trials) == list(range(7))
    failed = [trial for trial in found.trials if trial.state == State.FAILED]
    assert len(failed) == 1
    assert "ended with code -9" in failed[0].error
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_do_not_outlive_a_leader_that_was_killed(events, tmp_path):
    command = [sys.executable, "-m", "palate", "tune", str(events), "--out", str(tmp_path / "study")]
    leader = subprocess.Popen(
        [*command, "--trials", "500", "--workers", "2", *ASSIGNMENTS],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    trials, deadline = tmp_path / "study" / "trials.jsonl", time.monotonic() + 90
    while time.monotonic() < deadline and (not trials.exists() or not trials.read_bytes()):
        time.sleep(0.05)
    children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
    leader.kill()
    leader.wait()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
