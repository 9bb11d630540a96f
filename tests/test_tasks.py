import numpy as np
import pytest
import torch

from palate.data.batches import make_batch
from palate.nn.model import Vectors
from palate.schema import Batch, Histories
from palate.settings import Settings
from palate.train.tasks import (
    ComingItems,
    NextItem,
    build_tasks,
    draw_sample,
    last_of_visit,
    sampling_probability,
)

ONE = torch.ones(1).numpy()


def batch_of(items: list[list[int]], **options: int) -> Batch:
    return make_batch(
        Histories.of(items), max_history=options.get("max_history", 9), has_time=False, target_weights=ONE
    ).map(torch.from_numpy)


def vectors_of(batch: Batch, items: int) -> Vectors:
    """Vectors with which item v scores v · (position + 1) / 10, so that a loss tells its target."""
    table = torch.arange(items).float().unsqueeze(1)
    return Vectors(table, (batch.position.unsqueeze(1) + 1) / 10.0)


def test_coming_items_of_a_window_of_one_are_the_next_items():
    batch = batch_of([[2, 3, 4], [5], [6, 2]])
    vectors = vectors_of(batch, 8)
    next_loss, next_weight = NextItem(1.0).losses(batch, vectors, None)
    coming_loss, coming_weight = ComingItems(1.0, window=1, this_visit=False).losses(batch, vectors, None)
    torch.testing.assert_close(coming_loss, next_loss)
    torch.testing.assert_close(coming_weight, next_weight)


def test_coming_items_average_over_the_window_of_the_own_history():
    torch.manual_seed(0)
    batch = batch_of([[2, 3, 4, 5, 6], [7, 7]])
    vectors = vectors_of(batch, 8)
    drawn = torch.stack(
        [ComingItems(1.0, window=3, this_visit=False).losses(batch, vectors, None)[0] for _ in range(3000)]
    )
    scores = vectors.states @ vectors.table[2:].t()
    losses = scores.logsumexp(dim=1, keepdim=True) - scores
    ahead = [[2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6], [6], [7], [7]]
    asked = [0, 1, 2, 3, 4, 6, 7]
    wanted = torch.stack(
        [losses[n, [item - 2 for item in items]].mean() for n, items in zip(asked, ahead, strict=True)]
    )
    torch.testing.assert_close(drawn.mean(dim=0), wanted, atol=0.02, rtol=0)


def test_a_cut_history_is_not_asked_at_its_beginning():
    batch = batch_of([[2, 3, 4, 5]], max_history=2)
    _, weight = ComingItems(1.0, window=5, this_visit=False).losses(batch, vectors_of(batch, 8), None)
    assert len(weight) == 1  # after 4, for 5; neither at the start nor after the last


def test_nothing_is_drawn_that_training_does_not_meet():
    among = torch.tensor([0, 1, 3, 4])
    chance = sampling_probability(torch.tensor([0, 0, 0, 7, 0, 5]), among)
    assert chance.nonzero().squeeze(1).tolist() == [3, 4]
    assert chance.sum() == 1


def test_a_sample_holds_every_item_of_the_batch_under_its_new_row():
    torch.manual_seed(0)
    batch = batch_of([[9, 3, 9], [40]])
    chance = sampling_probability(torch.arange(60))
    small, sample = draw_sample(batch, chance, negatives=7)
    assert torch.equal(sample.rows[small.item], batch.item)
    assert torch.equal(sample.rows[small.target], batch.target)
    assert len(sample.negatives) == 7
    assert (sample.rows[sample.negatives] >= 2).all()
    torch.testing.assert_close(sample.log_count.exp()[2:], (7 * chance[sample.rows]).float()[2:])


def test_tasks_are_what_the_settings_say():
    settings = Settings.build(assignments=["tasks=[next_item, {name: coming_items, weight: 0.5, window: 9}]"])
    assert build_tasks(settings.tasks) == (NextItem(1.0), ComingItems(0.5, 9, False))


def visits_batch() -> Batch:
    """One history of three visits, 2 3 | 4 | 5 6 7, a day apart; events of a visit are a minute apart."""
    minute = 60 * 1_000_000
    time = np.array([0, 1, 1440, 2880, 2881, 2882]) * minute
    histories = Histories(np.array([0, 6]), np.arange(2, 8, dtype=np.int32), np.zeros(6, np.uint8), time)
    return make_batch(histories, max_history=9, has_time=True, target_weights=ONE).map(torch.from_numpy)


def test_a_visit_ends_where_half_an_hour_or_more_follows():
    assert last_of_visit(visits_batch()).tolist() == [0, 2, 2, 3, 6, 6, 6]
    untimed = batch_of([[2, 3], [4]])
    assert last_of_visit(untimed).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("this_visit", "asked"),
    [(False, {0: 2, 1: 4, 2: 4, 3: 5}), (True, {0: 2, 1: 3, 2: 4, 3: 5, 4: 6, 5: 7})],
)
def test_coming_items_leave_the_rest_of_the_visit_out_unless_told(this_visit, asked):
    batch = visits_batch()
    vectors = vectors_of(batch, 8)
    losses, weights = ComingItems(1.0, window=1, this_visit=this_visit).losses(batch, vectors, None)
    scores = vectors.states @ vectors.table[2:].t()
    wanted = scores.logsumexp(dim=1, keepdim=True) - scores
    assert weights.tolist() == [1.0] * len(asked)
    torch.testing.assert_close(losses, torch.stack([wanted[n, item - 2] for n, item in asked.items()]))
