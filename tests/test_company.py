import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.schema import Histories
from palate.train import company as module
from palate.train.company import company, company_vectors


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
