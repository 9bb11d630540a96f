"""Training: it learns what is there, nothing else, and goes on where it was killed."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch

from palate.data.prepared import Prepared
from palate.errors import BundleError, TrainingError
from palate.nn.model import TasteModel
from palate.recommender import Recommender
from palate.schema import Content, Dataset, Histories, IdMap, Schema
from palate.settings import ModelSettings, Settings, TrainSettings
from palate.train import histories
from palate.train.checkpoint import read_tensors
from palate.train.decide import decided
from palate.train.loop import build_optimisers, learning_rate
from palate.train.progress import Silent
from tests.worlds import block_world, markov_world

TINY = {
    "model": {"width": 16, "blocks": 2, "max_history": 20, "dropout": 0.1},
    "train": {
        "max_epochs": 12,
        "batch_events": 256,
        "learning_rate": 1e-2,
        "patience": 12,
        "checkpoint_steps": 3,
    },
    "evaluate": {"baselines": [], "filter_seen": False, "bootstrap": 50},
}


def accuracy(dataset: Dataset, **changes) -> float:
    """Share of test items foretold exactly."""
    settings = {**TINY, **changes}
    return Recommender(settings).fit(dataset).evaluate().model.means["accuracy"]


def test_an_ordered_world_is_learned_to_its_floor():
    """From each item one of two follows, with chances .8 and .2: nobody can foretell more than .8."""
    found = accuracy(markov_world(people=250, length=16, likely=0.8, seed=1))
    assert 0.68 < found < 0.92  # the test has 250 people: ± .05


def test_a_shuffled_world_is_not_learned():
    world = markov_world(people=250, length=16, likely=0.8, seed=1)
    rows = world.interactions.collect()
    shuffled = rows.with_columns(rows["item"].shuffle(seed=5))
    found = accuracy(Dataset(**{**vars(world), "interactions": shuffled.lazy()}))
    assert found < 0.15  # chance is 1 of 20


def test_sampled_softmax_learns_the_ordered_world_too():
    sampled = {**TINY["train"], "sampled_above": 5, "negatives": 16}
    found = accuracy(markov_world(people=250, length=16, likely=0.8, seed=1), train=sampled)
    assert found > 0.65


def test_content_alone_carries_items_without_training_events():
    """Items of four blocks, told apart by their titles; those held out were never met in training."""
    settings = {
        **TINY,
        "train": {**TINY["train"], "max_epochs": 25, "patience": 25},
        "split": {"kind": "cold_items", "share": 0.2},
        "evaluate": {**TINY["evaluate"], "filter_seen": True},
    }
    told = Recommender(settings).fit(block_world(people=200, content=True)).evaluate().model.means
    untold = Recommender(settings).fit(block_world(people=200, content=False)).evaluate().model.means
    assert told["hit_rate@10"] > 0.5
    assert told["hit_rate@10"] > 2 * untold["hit_rate@10"]


class StopAt(Silent):
    """Raises after some steps, as a crash would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, epoch, loss, units_per_second):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("steps", "more"), [(2, {}), (5, {}), (11, {}), (5, {"sampled_above": 5, "negatives": 16})]
)
@pytest.mark.parametrize("share", [1.0, 0.3])  # of training, after which content hands over to ids
def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path, monkeypatch, steps, more, share):
    monkeypatch.setattr(histories, "scarcity", lambda _: share)
    world = block_world()
    settings = {**TINY, "train": {**TINY["train"], "max_epochs": 6, **more}}
    whole = Recommender(settings).fit(world, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Recommender(settings).fit(world, folder=tmp_path / "broken", display=StopAt(steps))
    resumed = Recommender(settings).fit(world, folder=tmp_path / "broken", resume=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
    losses = [[entry["loss"] for entry in run.progress.history] for run in (whole, resumed)]
    assert losses[0] == losses[1]


def test_a_run_interrupted_between_its_last_step_and_its_validation_goes_on(tmp_path, monkeypatch):
    """With a checkpoint after every step, the last one of a pass leaves no step to take."""
    settings = {**TINY, "train": {**TINY["train"], "max_epochs": 3, "checkpoint_steps": 1}}
    whole = Recommender(settings).fit(block_world(), folder=tmp_path / "whole")

    def crash(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(histories, "mean_metric", crash)
        with pytest.raises(KeyboardInterrupt):
            Recommender(settings).fit(block_world(), folder=tmp_path / "broken")
    resumed = Recommender(settings).fit(block_world(), folder=tmp_path / "broken", resume=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name


def test_a_run_killed_with_signal_9_ends_with_the_same_weights(tmp_path):
    rows = block_world(people=60).interactions.collect()
    rows.select("user", "item", "time").write_csv(tmp_path / "events.csv")

    def command(run, *more):
        sets = [
            "model.width=16",
            "model.blocks=2",
            "train.max_epochs=8",
            "train.batch_events=128",
            "train.patience=8",
            "train.checkpoint_steps=2",
            "evaluate.baselines=[]",
            "evaluate.bootstrap=20",
        ]
        words = [
            sys.executable,
            "-m",
            "palate",
            "train",
            str(tmp_path / "events.csv"),
            "--out",
            str(tmp_path / run),
        ]
        return words + [word for pair in sets for word in ("--set", pair)] + list(more)

    subprocess.run(command("whole"), check=True, capture_output=True)
    victim = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "killed" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 60
    while not last.exists() and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "bundle.json").exists()
    subprocess.run(command("killed", "--resume"), check=True, capture_output=True)
    whole, killed = (read_tensors(tmp_path / run / "model.safetensors")[0] for run in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Recommender(TINY).fit(block_world(), folder=tmp_path, display=StopAt(8))
    other = {**TINY, "train": {**TINY["train"], "learning_rate": 0.02}}
    with pytest.raises(BundleError, match="other settings"):
        Recommender(other).fit(block_world(), folder=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Recommender(TINY).fit(block_world(), folder=tmp_path, display=StopAt(8))
    last = tmp_path / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(BundleError, match="damaged"):
        Recommender(TINY).fit(block_world(), folder=tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_what_to_try():
    wild = {**TINY, "train": {**TINY["train"], "learning_rate": 1e30, "clip_norm": 1e30, "warmup": 0.0}}
    with pytest.raises(TrainingError, match=r"pass \d+, step \d+.*learning_rate"):
        Recommender(wild).fit(block_world())


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not():
    quick = {**TINY, "train": {**TINY["train"], "max_epochs": 2}}
    runs = [Recommender({**quick, "seed": seed}).fit(block_world()).model.state_dict() for seed in (3, 3, 4)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["items.id.weight"], runs[2]["items.id.weight"])


def test_training_stops_when_nothing_gets_better():
    patient = {**TINY, "train": {**TINY["train"], "max_epochs": 100, "patience": 2}}
    progress = Recommender(patient).fit(block_world()).progress
    assert len(progress.history) == progress.best_epoch + 3 < 100


def test_logs_have_a_line_per_pass(tmp_path):
    Recommender({**TINY, "train": {**TINY["train"], "max_epochs": 3}}).fit(block_world(), folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all({"loss", "metric", "learning_rate", "seconds"} <= line.keys() for line in lines)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_people_with_one_event_are_enough_to_train_on_but_nobody_can_be_asked():
    rows = pl.DataFrame({"user": [f"u{i}" for i in range(40)], "item": [f"i{i % 7}" for i in range(40)]})
    world = block_world(content=False)
    single = rows.with_columns(
        time=pl.int_range(pl.len()),
        event=pl.lit("interaction"),
        value=pl.lit(None, pl.Float64),
        row=pl.int_range(pl.len()),
    )
    recommender = Recommender(TINY).fit(Dataset(**{**vars(world), "interactions": single.lazy()}))
    assert "metric" not in recommender.progress.history[0]
    assert recommender.recommend(histories=[[]], k=3).height == 3


def small_model(items):
    shape = ModelSettings(width=8, blocks=1)
    warm = np.ones(items, bool)
    return TasteModel(shape, Content(items), warm, num_ids=items, num_event_types=1, has_time=False)


def test_few_data_decay_more_unless_told():
    def decay(events, **options):
        (optimiser,) = build_optimisers(small_model(4), TrainSettings(**options), events)
        return [group["weight_decay"] for group in optimiser.param_groups]

    assert decay(90_000) == [1.0, 0.0]
    assert decay(360_000) == [pytest.approx(0.5), 0.0]
    assert decay(10) == [1.0, 0.0]
    assert decay(10, weight_decay=0.2) == [0.2, 0.0]


def test_of_a_sparse_table_only_the_rows_of_a_step_move_and_as_adam_moves_them():
    sparse = small_model(50)
    dense, begun = copy.deepcopy(sparse), sparse.items.id.weight.detach().clone()
    sparse.items.id.sparse = True
    options = TrainSettings(learning_rate=0.1, weight_decay=0.0)
    for model, number in ((sparse, 2), (dense, 1)):
        optimisers = build_optimisers(model, options, 100)
        assert len(optimisers) == number
        for _ in range(3):
            (model.items(torch.tensor([3, 7, 20])) - 1).square().sum().backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
    torch.testing.assert_close(sparse.items.id.weight, dense.items.id.weight)
    moved = (sparse.items.id.weight != begun).any(dim=1).nonzero().squeeze(1)
    assert moved.tolist() == [3, 7, 20]


def pairs_of(people):
    """Everybody has the same two items, ten times."""
    events = Histories.of([[2, 3] * 10] * people)
    keys, part = IdMap(pl.Series(["a", "b"])), np.zeros(len(events.item), np.uint8)
    return Prepared("", Schema(), keys, keys, events, part, pl.DataFrame(), {})


@pytest.mark.parametrize(("people", "passes"), [(100, 12), (5_000, 12), (20_000, 8), (200_000, 4)])
def test_larger_data_get_fewer_passes(people, passes):
    prepared = pairs_of(people)
    assert decided(Settings(), prepared).train.max_epochs == passes
    assert decided(Settings(train={"max_epochs": 9}), prepared).train.max_epochs == 9


@pytest.mark.parametrize(("people", "dropout"), [(100, 0.4), (18_000, 0.25), (100_000, 0.16)])
def test_larger_data_get_less_dropout_unless_told(people, dropout):
    prepared = pairs_of(people)
    assert decided(Settings(), prepared).model.dropout == dropout
    assert decided(Settings(model={"dropout": 0.3}), prepared).model.dropout == 0.3


def test_the_learning_rate_rises_then_falls_to_its_end():
    options = TrainSettings(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(options, done) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(rates[10]) == pytest.approx(1.0)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)
