"""A gate: in a world where one past event alone decides, reasons name it, by curves with intervals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.evaluate.faithful import faithfulness
from palate.explain.events import event_shares
from palate.explain.fidelity import BACKWARDS, OTHERS, SHARES, SHUFFLED, fidelity
from palate.recommender import Recommender
from palate.schema import Dataset, Histories

KEYS, EACH, NOISE = 6, 6, 20
"""Items that decide, items that each of them leads to, and items that say nothing."""
SETTINGS = {
    "model": {"width": 16, "blocks": 2, "dilations": [1, 2], "max_history": 20, "content": False},
    "train": {"max_epochs": 12, "batch_events": 256, "learning_rate": 1e-2, "target_events": ["buy"]},
    "evaluate": {"filter_seen": True},
}


def views(people: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What people look at, as numbers of items, and the key among it: at a random place among things
    that say nothing, of which some are looked at far more often than others."""
    generator = np.random.default_rng(seed)
    chance = 1 / np.arange(1, NOISE + 1)
    seen = np.stack(
        [generator.choice(NOISE, 11, replace=False, p=chance / chance.sum()) for _ in range(people)]
    )
    key = generator.integers(0, KEYS, people)
    seen[np.arange(people), generator.integers(0, 11, people)] = NOISE + key
    return seen, key


def key_world(people: int = 900) -> Dataset:
    """Whoever looked at key item k buys one of the items that k leads to."""
    seen, key = views(people, seed=0)
    bought = NOISE + KEYS + key * EACH + np.random.default_rng(1).integers(0, EACH, people)
    items = np.concatenate([seen, bought[:, None]], axis=1)
    length = items.shape[1]
    events = pl.DataFrame(
        {
            "user": np.repeat(np.arange(people), length),
            "item": [f"i{item:03d}" for item in items.ravel()],
            "time": np.tile(np.arange(length), people),
            "event": (["view"] * (length - 1) + ["buy"]) * people,
            "row": np.arange(people * length),
        }
    ).with_columns(value=pl.lit(None, pl.Float64))
    return Dataset(name="keys", interactions=events.lazy(), has_time=False)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender(SETTINGS).fit(key_world())


def asked(recommender: Recommender, people: int) -> tuple[Histories, np.ndarray]:
    """Histories of people who are not in the data, and the place of the key in each."""
    seen, key = views(people, seed=2)
    prepared = recommender.prepared
    ids = prepared.items.ids([f"i{item:03d}" for item in seen.ravel()]).reshape(seen.shape)
    view = prepared.schema.events.index("view")
    histories = Histories.of(ids.tolist())
    plain = Histories(histories.offsets, histories.item, np.full_like(histories.event, view), histories.time)
    return plain, (seen == NOISE + key[:, None]).argmax(axis=1)


def test_the_one_event_that_decides_has_the_largest_share(recommender):
    histories, places = asked(recommender, 40)
    scorer, bought = recommender.scorer(), np.flatnonzero(recommender.may_be_recommended())
    named = []
    for row, place in enumerate(places):
        history = histories.select(np.array([row]))
        top = bought[[scorer.scores(history, bought)[0].argmax()]]
        named.append(event_shares(scorer, history, top).shares[:, 0].argmax() == place)
    assert np.mean(named) > 0.9


def test_deletion_and_insertion_by_shares_beat_every_other_order(recommender):
    histories, _ = asked(recommender, 80)
    prepared = recommender.prepared
    found = faithfulness(
        fidelity(
            recommender.scorer(),
            histories,
            recommender.may_be_recommended(),
            np.bincount(prepared.known().item, minlength=prepared.items.size),
            k=5,
            filter_seen=True,
            shuffled=recommender.shuffled(seed=0).scorer(),
        ),
        resamples=500,
        confidence=0.95,
        seed=0,
    )
    assert found["people"] == 80
    for by in ("by_number", "by_tenths"):
        deletion, insertion = found[by]["deletion"], found[by]["insertion"]
        for other in (*OTHERS, SHUFFLED, BACKWARDS):
            assert deletion[other]["difference"]["high"] < 0, (by, other)
            assert insertion[other]["difference"]["low"] > 0, (by, other)
        assert deletion[SHARES]["area"] < 0.5
        assert insertion[SHARES]["area"] > 0.9
    assert abs(found["agreement"]["value"]) < 0.3
