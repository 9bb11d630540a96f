import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.content import ContentEncoder
from palate.data.store import prepare
from palate.nn.model import TasteModel
from palate.recommender import Recommender
from palate.schema import Histories
from palate.settings import Settings
from palate.train import company as module
from palate.train.company import company, company_vectors
from palate.train.decide import decided
from palate.train.histories import HistoryCourse
from tests.worlds import block_world


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(2, 8), max_size=15), min_size=1, max_size=4))
def test_counts_equal_the_slow_sum_over_all_pairs(items):
    wanted = np.zeros((9, 9))
    for history in items:
        for p, first in enumerate(history):
            for q in range(p + 1, min(p + module.REACH, len(history) - 1) + 1):
                if first != history[q]:
                    wanted[first, history[q]] += 1 / (q - p)
                    wanted[history[q], first] += 1 / (q - p)
    np.testing.assert_allclose(company(Histories.of(items), 9).toarray(), wanted)


def test_items_that_keep_company_begin_side_by_side():
    generator = np.random.default_rng(0)
    groups = [np.arange(2, 12), np.arange(12, 22)]
    histories = Histories.of([generator.permutation(groups[n % 2])[:6].tolist() for n in range(200)])
    vectors = company_vectors(histories, 24, 8, 0.02, seed=0)
    assert vectors.shape == (24, 8)
    assert vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit[2:22] @ unit[2:22].T
    inside = np.kron(np.eye(2), np.ones((10, 10))) == 1
    assert near[inside].mean() > 0.5
    assert near[~inside].mean() < 0.1
    assert np.allclose(np.linalg.norm(vectors[2:22], axis=1), 0.02 * np.sqrt(8), rtol=1e-4)


def test_nothing_to_go_by_leaves_random_vectors():
    vectors = company_vectors(Histories.of([[2], [3]]), 40, 16, 0.02, seed=1)
    assert 0.017 < vectors.std() < 0.023
    assert np.array_equal(vectors, company_vectors(Histories.of([[2], [3]]), 40, 16, 0.02, seed=1))


def test_long_data_are_counted_in_part(monkeypatch):
    monkeypatch.setattr(module, "MOST_EVENTS", 10)
    counts = company(Histories.of([list(range(2, 12)), list(range(12, 22))]), 22)
    assert counts[2:7].sum() == 0  # the earlier half of each history
    assert counts[7:12].sum() > 0


def course_of(changes):
    """Of a small world, with content that has been encoded."""
    tree = {"model": {"width": 16, "blocks": 1, "max_history": 10}, **changes}
    prepared = prepare(block_world(), Settings.model_validate(tree))
    settings = decided(Settings.model_validate(tree), prepared)
    encoder = ContentEncoder.fit(
        prepared.catalogue, prepared.schema.fields, prepared.warm, settings.model.text, None
    )
    content = encoder.encode(prepared.catalogue)
    model = TasteModel(
        settings.model, content, prepared.warm, num_ids=content.rows, num_event_types=1, has_time=True
    )
    model.items.encode_new()
    return HistoryCourse(model, prepared, settings, ())


@pytest.mark.parametrize(("changes", "silent"), [({}, True), ({"train": {"start_from": "another"}}, False)])
def test_content_is_silent_beside_company_until_it_has_learned(changes, silent):
    course = course_of(changes)
    course.begin()
    parts = dict(course.model.items.contributions())
    assert parts.pop("id").any()
    assert len(parts) > 0
    assert all(bool(part.any()) != silent for part in parts.values())


@pytest.mark.parametrize(
    ("changes", "hands_over"),
    [
        ({}, True),
        ({"train": {"start_from": "another"}}, False),
        ({"train": {"content_passes": 0}}, False),  # then it is all that new items will have
        ({"model": {"width": 16, "initial_vectors": "random"}}, False),
    ],
)
def test_content_hands_over_to_ids_the_sooner_the_more_events_there_are(changes, hands_over):
    course = course_of(changes)
    items = course.model.items  # as built: content says something
    known, before = torch.from_numpy(course.prepared.warm), items().detach()
    course.proceed(0.99)  # of few events nothing is learned without content
    course.size = 1_000_000
    course.proceed(0.29)
    assert items.content().any()
    assert all(parameter.requires_grad for parameter in items.fields.parameters())
    for done in (0.3, 0.9):
        course.proceed(done)
        assert bool(items.content().any()) != hands_over
        assert all(parameter.requires_grad != hands_over for parameter in items.fields.parameters())
        assert torch.allclose(items()[known], before[known], atol=1e-6)


def test_after_training_content_can_learn_and_says_what_is_new():
    trained = Recommender({"model": {"width": 16, "blocks": 1}, "train": {"max_epochs": 2}}).fit(
        block_world()
    )
    fields = trained.model.items.fields
    assert all(parameter.requires_grad for parameter in fields.parameters())
    assert trained.model.items.content().any()
