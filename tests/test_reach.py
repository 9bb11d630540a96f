"""How far told vectors reach: a known answer, and the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.recommender import Recommender
from palate.schema import FIRST_ID
from palate.train import reach
from palate.train.histories import HistoryCourse
from tests.worlds import block_world

SETTINGS = {
    "model": {"width": 16, "blocks": 2, "max_history": 10, "content": False},
    "train": {"max_epochs": 8, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
    "evaluate": {"baselines": [], "references": [], "bootstrap": 20},
}
HELD = torch.arange(FIRST_ID, FIRST_ID + 80, 7)


@pytest.fixture(scope="module")
def trained() -> Recommender:
    recommender = Recommender(SETTINGS).fit(block_world(people=300, items=80, blocks=4, length=14))
    recommender.model.eval()
    return recommender


def found(trained: Recommender, told: torch.Tensor, mean: torch.Tensor) -> float:
    return reach.best_reach(trained.model, trained.prepared, trained.settings, (), HELD, told, mean)


@pytest.mark.parametrize("short", [0.5, 0.8])
def test_vectors_that_were_made_too_short_are_stretched_back(trained, short):
    with torch.no_grad():
        whole = trained.model.items(HELD)
        mean = trained.model.items()[FIRST_ID:].mean(dim=0)
    factor = found(trained, mean + short * (whole - mean), mean)
    assert factor * short == pytest.approx(found(trained, whole, mean), rel=0.08)
    assert 0.8 < factor * short < 1.25  # what was trained to be most likely is about as long as it should be


def test_it_is_the_most_likely_of_all_that_are_tried(trained, monkeypatch):
    """The obvious way: a whole softmax of every position, for each reach."""
    model, prepared, settings = trained.model, trained.prepared, trained.settings
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        table = model.items().clone()
        mean = table[FIRST_ID:].mean(dim=0)
        told = mean + 0.6 * (table[HELD] - mean) + 0.05 * torch.randn(len(HELD), 16, generator=generator)
        course = HistoryCourse(model, prepared, settings, ())
        losses = []
        for factor in reach.REACHES:
            changed = table.clone()
            changed[HELD] = mean + factor * (told - mean)
            loss = 0.0
            for step, rows in enumerate(course.plan(0)):
                batch = course.batch(rows, 0, step)
                vectors = model(batch)  # histories are read as they were
                asked = batch.weight > 0
                scores = vectors.states @ changed.t()
                if vectors.bonuses is not None:
                    vectors.bonuses.add_to(scores)
                scores = scores[asked][:, FIRST_ID:]
                loss += float(
                    torch.nn.functional.cross_entropy(scores, batch.target[asked] - FIRST_ID, reduction="sum")
                )
            losses.append(loss)
    monkeypatch.setattr(reach, "CHUNK_SCORES", 1000)  # several chunks to a step
    assert found(trained, told, mean) == pytest.approx(float(reach.REACHES[int(np.argmin(losses))]))


def test_where_hardly_anybody_took_them_nothing_is_stretched(trained, monkeypatch):
    monkeypatch.setattr(reach, "FEWEST_ANSWERS", 10**9)
    with torch.no_grad():
        whole, mean = trained.model.items(HELD), trained.model.items()[FIRST_ID:].mean(dim=0)
    assert found(trained, mean + 0.5 * (whole - mean), mean) == 1.0


def test_few_items_are_not_held_back_and_many_evenly():
    assert not len(reach.held_back(np.arange(FIRST_ID, 300), 0))
    known = np.arange(FIRST_ID, 5000)
    held = reach.held_back(known, 0)
    assert len(held) == int(reach.SHARE * len(known))
    assert np.isin(held, known).all()
    assert (np.diff(held) > 0).all()
    assert not np.array_equal(held, reach.held_back(known, 1))
    assert len(reach.held_back(np.arange(FIRST_ID, 100_000), 0)) == reach.MOST_ITEMS
