"""Whether somebody takes a thing twice is learned from the data, and obeyed."""

import numpy as np
import polars as pl
import pytest
import torch

from palate.nn.again import LearnedAgain, NeverAgain, build_again
from palate.recommender import Recommender
from palate.schema import NEVER, Dataset, Past
from palate.settings import ModelSettings
from tests.worlds import block_world

SMALL = {
    "model": {"width": 16, "blocks": 1, "dropout": 0.1},
    "train": {"max_epochs": 25, "batch_events": 256, "learning_rate": 1e-2, "patience": 25},
    "evaluate": {"filter_seen": False, "baselines": [], "references": [], "bootstrap": 50},
}


def habit_world(people: int = 150, items: int = 60, habits: int = 3, length: int = 18) -> Dataset:
    """Everybody takes a few things of their own again and again, in random order; nobody shares habits."""
    generator = np.random.default_rng(0)
    rows = [
        (f"u{person}", f"i{item}", step)
        for person in range(people)
        for step, item in enumerate(generator.choice(generator.choice(items, habits, replace=False), length))
    ]
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    return Dataset(
        name="habits",
        interactions=table.with_columns(
            event=pl.lit("interaction"), value=pl.lit(None, pl.Float64), row=pl.int_range(pl.len())
        ).lazy(),
        has_time=False,
    )


def test_habits_are_found_by_what_was_met_and_not_without():
    def hit_rate(again):
        changed = {**SMALL, "model": {**SMALL["model"], "again": again, "memory": False}}
        return Recommender(changed).fit(habit_world()).evaluate(cutoffs=[3]).model.means["hit_rate@3"]

    assert hit_rate("learned") > 0.95  # the three habits, in any order
    assert hit_rate("never") < 0.1


def test_the_data_decide_where_settings_do_not():
    assert Recommender(SMALL).fit(block_world()).settings.model.again == "never"
    few = {**SMALL, "train": {**SMALL["train"], "max_epochs": 1}}
    assert Recommender(few).fit(habit_world(people=20)).settings.model.again == "learned"
    sampled = {**few, "train": {**few["train"], "sampled_above": 10, "negatives": 8}}
    assert Recommender(sampled).fit(habit_world(people=20)).settings.model.again == "ignored"


def test_nobody_is_offered_again_what_nobody_takes_again():
    recommender = Recommender({**SMALL, "train": {**SMALL["train"], "max_epochs": 2}}).fit(block_world())
    history = ["i000", "i004", "i008"]
    found = recommender.recommend(histories=[history], k=40, filter_seen=False)
    assert found["item"].tail(3).sort().to_list() == history  # they are there, behind everything else
    assert found["score"].tail(3).max() < NEVER / 2


def past(*items: int) -> Past:
    zeros = torch.zeros(len(items), dtype=torch.int64)
    return Past(torch.tensor([0, len(items)]), torch.tensor(items), zeros, zeros, zeros)


def test_learned_bonuses_begin_at_zero_and_hear_every_feature():
    torch.manual_seed(0)
    again = LearnedAgain(4, has_time=True)
    states, table = torch.randn(1, 4), torch.randn(9, 4)
    assert again(states, table, past(3, 5)).value.tolist() == [0.0, 0.0]
    for parameter in again.parameters():
        before = again(states, table, past(3, 5)).value
        with torch.no_grad():
            parameter.add_(1.0)
        assert not torch.equal(again(states, table, past(3, 5)).value, before)


@pytest.mark.parametrize(("again", "kind"), [("never", NeverAgain), ("learned", LearnedAgain)])
def test_settings_name_what_is_built(again, kind):
    assert isinstance(build_again(ModelSettings(again=again), has_time=False), kind)
    assert build_again(ModelSettings(again="ignored"), has_time=False) is None


def test_saved_and_loaded_it_scores_the_same(tmp_path):
    recommender = Recommender(SMALL).fit(habit_world(people=40))
    recommender.save(tmp_path / "run")
    before = recommender.recommend(users=["u1", "u2"], k=5)
    assert Recommender.load(tmp_path / "run").recommend(users=["u1", "u2"], k=5).equals(before)
