"""Content learns to carry new items, and nothing that was learned of known ones moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.data.store import prepare
from palate.evaluate.network import NetworkRanker
from palate.recommender import Recommender
from palate.schema import Among, Part
from palate.settings import Settings
from palate.train.content import ContentCourse, known_items, teach_content
from palate.train.progress import Silent
from tests.worlds import block_world

SETTINGS = {
    "model": {"width": 16, "blocks": 2, "max_history": 10},
    "train": {"max_epochs": 6, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
    "split": {"kind": "cold_items", "share": 0.15},
    "evaluate": {"baselines": [], "references": [], "bootstrap": 20, "cutoffs": [3, 10]},
}
WORLD = {"people": 120, "items": 80, "blocks": 4, "length": 14}


def fitted(passes: int, **train: object) -> Recommender:
    settings = {**SETTINGS, "train": {**SETTINGS["train"], "content_passes": passes, **train}}
    return Recommender(settings).fit(block_world(**WORLD))


@pytest.fixture(scope="module")
def before() -> Recommender:
    return fitted(0)


@pytest.fixture(scope="module")
def after() -> Recommender:
    return fitted(6)


def test_known_items_and_histories_are_what_they_were():
    one = fitted(0)
    warm, people = one.prepared.warm, one.prepared.training().select(np.arange(2, 30))
    with torch.no_grad():
        items, states = one.model.items(), NetworkRanker(one.model).person_vectors(people)
    behaviour = {name: value.clone() for name, value in one.model.behaviour.named_parameters()}
    settings = Settings.build(one.settings.model_dump(), {"train": {"content_passes": 6}})
    teach_content(
        one.model, one.prepared, settings, labels=(), precision="float32", display=Silent(), first={}
    )
    with torch.no_grad():
        now = one.model.eval().items()
    torch.testing.assert_close(now[warm], items[warm], atol=1e-5, rtol=1e-4)
    assert (now - items)[~warm][2:].norm(dim=1).min() > 0.1 * items[warm].norm(dim=1).mean()
    torch.testing.assert_close(NetworkRanker(one.model).person_vectors(people), states, atol=1e-3, rtol=1e-3)
    assert behaviour
    assert all(torch.equal(value, behaviour[name]) for name, value in one.model.behaviour.named_parameters())


def test_new_items_are_found_afterwards_among_all(before, after):
    found = {
        name: one.evaluate(among=Among.ALL).model.means["hit_rate@10"]
        for name, one in (("before", before), ("after", after))
    }
    assert found["after"] > 0.5
    assert found["after"] > 1.2 * found["before"]
    # Of some six new items of the right block nothing tells which: about a half is the best there is.
    assert after.evaluate(among=Among.COLD).model.means["hit_rate@3"] > 0.4


def test_the_same_seed_teaches_the_same_bit_for_bit(after):
    again = fitted(6).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in after.model.state_dict().items())


def test_everything_may_learn_again_afterwards(before):
    prepared = prepare(block_world(**WORLD), Settings.build(SETTINGS))
    model = fitted(0).model
    settings = before.settings.model_copy(
        update={"train": before.settings.train.model_copy(update={"content_passes": 1})}
    )
    teach_content(model, prepared, settings, labels=(), precision="float32", display=Silent(), first={})
    assert all(parameter.requires_grad for parameter in model.parameters())
    course = ContentCourse(model, prepared, settings, (), known_items(model, prepared))
    assert course.validate() is not None
    known = prepare(block_world(**WORLD), Settings.build({"split": {"kind": "leave_one_out"}}))
    assert len(known.questions(Part.VALIDATION, filter_seen=True, cold_targets=True))
    assert ContentCourse(model, known, settings, (), known_items(model, known)).validate() is None


def test_it_works_with_a_sample_of_the_catalogue_too():
    one = fitted(6, sampled_above=20, negatives=16)
    # Sixteen negatives tell known items apart less well. Chance is 3 of 24.
    assert one.evaluate(among=Among.COLD).model.means["hit_rate@3"] > 0.25
