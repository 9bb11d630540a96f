"""Shapley values: exact ones are the definition's, estimated ones near to them and of the right sum."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.explain.events import expected
from palate.explain.shapley import drawn_sets, estimated_values, every_set, likelihood, shapley_values


def by_orders(wins: np.ndarray) -> np.ndarray:
    """The definition, slowly: the mean over all orders of what each player adds."""
    n = len(wins).bit_length() - 1
    orders, found = list(permutations(range(n))), np.zeros((n, wins.shape[1]))
    for order in orders:
        known = 0
        for player in order:
            found[player] += (wins[known | 1 << player] - wins[known]) / len(orders)
            known |= 1 << player
    return found


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_exact_values_are_those_of_the_definition(n):
    wins = np.random.default_rng(n).normal(size=(2**n, 3))
    np.testing.assert_allclose(shapley_values(wins), by_orders(wins), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 120), st.integers(1, 60))
def test_sets_come_with_their_complements_and_are_neither_empty_nor_whole(n, pairs):
    sets = drawn_sets(n, pairs)
    assert sets.shape == (2 * pairs, n)
    assert (sets[:pairs] == ~sets[pairs:]).all()
    assert sets.any(axis=1).all()
    assert (sets == drawn_sets(n, pairs)).all()


def test_sizes_come_as_often_as_the_regression_wants():
    sizes = drawn_sets(9, 20_000).sum(axis=1)
    expected_shares = 1 / (np.arange(1, 9) * np.arange(8, 0, -1))
    found = np.bincount(sizes, minlength=10)[1:9] / len(sizes)
    np.testing.assert_allclose(found, expected_shares / expected_shares.sum(), atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(2, 80), st.integers(0, 999))
def test_estimates_add_up_whatever_is_won(n, pairs, seed):
    generator = np.random.default_rng(seed)
    scores, ends = generator.normal(size=(2 * pairs, 3)), generator.normal(size=(2, 3))
    prior = expected(generator.normal(size=(n, 4)).astype(np.float32))
    values = estimated_values(scores, drawn_sets(n, pairs), *ends, prior)
    np.testing.assert_allclose(values.sum(axis=0), ends[1] - ends[0], atol=1e-8)


def game(n: int, seed: int):
    """Players who win alone, in pairs and less the more they are, as a function of sets [B, n]."""
    generator = np.random.default_rng(seed)
    single, pair = generator.normal(size=(n, 2)), generator.normal(size=(n, n, 2)) / n

    def wins(sets: np.ndarray) -> np.ndarray:
        there = sets.astype(float)
        won = there @ single + np.einsum("bi,ijk,bj->bk", there, pair, there)
        return won + 3 * np.sqrt(there.sum(axis=1))[:, None]

    return wins


@pytest.mark.parametrize("seed", range(5))
def test_a_few_hundred_sets_of_thousands_tell_the_exact_values(seed):
    n, wins = 12, game(12, seed)
    exact = shapley_values(wins(every_set(n)))
    sets, ends = drawn_sets(n, 200), wins(np.array([[False] * n, [True] * n]))
    prior = expected(np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32))
    found = estimated_values(wins(sets), sets, *ends, prior)
    spread = ((exact - exact.mean(axis=0)) ** 2).sum()
    assert ((found - exact) ** 2).sum() < 0.01 * spread


def test_where_little_is_evaluated_the_prior_tells_alike_players():
    """Twenty sets for forty players, of whom the first half wins and the second half loses."""
    n, worth = 40, np.repeat([1.0, -1.0], 20)
    sets = drawn_sets(n, 20)
    groups = np.kron(np.eye(2), np.ones((20, 20))) + 0.01 * np.eye(n)
    errors = []
    for prior in (groups, np.eye(n)):
        found = estimated_values((sets @ worth)[:, None], sets, np.zeros(1), np.zeros(1), prior)
        errors.append(float(((found[:, 0] - worth) ** 2).mean()))
    assert errors[0] < 0.01
    assert errors[1] > 0.2


def test_the_likelihood_is_that_of_gaussian_numbers():
    generator = np.random.default_rng(0)
    along, variance = generator.normal(size=(6, 2)), generator.random((6, 1)) + 0.5
    scale = (along**2 / variance).mean(axis=0)
    density = np.exp(-(along**2) / (2 * variance * scale)) / np.sqrt(2 * np.pi * variance * scale)
    constant = -0.5 * along.size * (np.log(2 * np.pi) + 1)
    assert likelihood(along, variance) + constant == pytest.approx(np.log(density).sum())


def test_the_latest_events_are_expected_to_be_largest_and_neighbours_alike():
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    vectors[10] = vectors[11]
    found = expected(vectors)
    assert (np.diff(np.diag(found)) > 0).all()
    scale = np.sqrt(np.diag(found))
    correlation = found / np.outer(scale, scale)
    assert correlation[10, 11] > correlation[9, 10]
    assert correlation[:5, :5].mean() > correlation[:5, -5:].mean()
    assert np.linalg.eigvalsh(found).min() > 0
