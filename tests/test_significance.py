import time

import numpy as np
import pytest
from scipy import stats

from palate.errors import DataError
from palate.evaluate.significance import bootstrap_intervals, compare, paired_test


def test_intervals_agree_with_scipys_bootstrap():
    values = np.random.default_rng(1).exponential(size=(400, 2))
    ours = bootstrap_intervals(values, resamples=4000, seed=3)
    for column in range(2):
        theirs = stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(4)
        ).confidence_interval
        assert ours[column] == pytest.approx([theirs.low, theirs.high], abs=0.01)


def test_intervals_are_repeatable_and_follow_the_seed():
    values = np.random.default_rng(1).random((50, 3))
    first = bootstrap_intervals(values, resamples=200, seed=7)
    np.testing.assert_array_equal(first, bootstrap_intervals(values, resamples=200, seed=7))
    assert (first != bootstrap_intervals(values, resamples=200, seed=8)).any()


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    worlds = generator.random((200, 150))  # 150 independent draws of 200 people with mean 0.5
    bounds = bootstrap_intervals(worlds, resamples=500, confidence=0.9)
    covered = np.mean((bounds[:, 0] <= 0.5) & (bounds[:, 1] >= 0.5))
    assert 0.82 <= covered <= 0.97


def test_an_interval_of_equal_values_is_a_point_and_one_person_is_allowed():
    np.testing.assert_allclose(bootstrap_intervals(np.full((9, 1), 0.25), resamples=50), [[0.25, 0.25]])
    np.testing.assert_allclose(bootstrap_intervals(np.array([[0.5, 1.0]]), resamples=5), [[0.5, 0.5], [1, 1]])


def test_the_sign_flip_p_value_is_that_of_all_flips():
    generator = np.random.default_rng(2)
    first, second = generator.random(10), generator.random(10) + 0.15
    d = second - first
    flips = 1 - 2 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
    exact = np.mean(np.abs(flips @ d) >= abs(d.sum()) - 1e-12)
    assert paired_test(first, second, permutations=20_000).p_value == pytest.approx(exact, abs=0.015)


def test_a_clear_difference_is_found_and_none_is_not():
    generator = np.random.default_rng(3)
    first = generator.random(500)
    same, better = first + generator.normal(0, 0.1, 500), first + 0.1 + generator.normal(0, 0.1, 500)
    found = paired_test(first, better)
    assert found.low > 0.05
    assert found.p_value < 0.001
    assert found.difference == pytest.approx(np.mean(better - first))
    nothing = paired_test(first, first)
    assert (nothing.difference, nothing.low, nothing.high, nothing.p_value) == (0, 0, 0, 1)
    assert paired_test(first, same).low < 0 < paired_test(first, same).high


def test_p_values_are_uniform_where_both_are_equal():
    generator = np.random.default_rng(4)
    p = [paired_test(*generator.random((2, 40)), resamples=2, permutations=400).p_value for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_turning_the_two_sides_turns_the_sign():
    first, second = np.random.default_rng(5).random((2, 60))
    there, back = paired_test(first, second), paired_test(second, first)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == back.p_value


def test_different_questions_are_refused():
    with pytest.raises(DataError, match="same questions"):
        paired_test(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="not measured on both"):
        compare({"ndcg@5": np.zeros(3)}, {}, ["ndcg@5"])


def test_compare_tests_each_metric_asked_for():
    first = {"ndcg@5": np.zeros(30), "mrr@5": np.ones(30)}
    second = {"ndcg@5": np.ones(30), "mrr@5": np.ones(30)}
    tests = compare(first, second, ["ndcg@5", "mrr@5"])
    assert tests["ndcg@5"].difference == 1
    assert tests["mrr@5"].p_value == 1
    assert set(tests["ndcg@5"].to_json()) == {"difference", "low", "high", "p_value"}


def test_six_thousand_people_take_seconds_at_most():
    generator = np.random.default_rng(1)
    first, second = (
        {str(metric): generator.integers(0, 2, 6000).astype(float) for metric in range(25)} for _ in range(2)
    )
    started = time.perf_counter()
    compare(first, second, first)
    bootstrap_intervals(np.random.default_rng(0).random((6000, 25)), resamples=1000)
    assert time.perf_counter() - started < 10
