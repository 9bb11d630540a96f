"""The plane of items: what is alike lies together, and the same items always lie the same."""

import numpy as np
import pytest

from palate.serve.landscape import AMONG, Landscape


def groups(count, each=60, width=16, seed=0):
    """Vectors around a few directions, of any length, and the group of each."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(count), each)
    vectors = 3 * generator.standard_normal((count, width))[group]
    vectors += generator.standard_normal(vectors.shape)
    return (vectors * generator.uniform(0.1, 5, (len(group), 1))).astype(np.float32), group


def test_items_of_a_group_lie_nearer_to_each_other_than_to_others():
    vectors, group = groups(5)
    places = Landscape.of(vectors).place(vectors)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).mean() > 0.95


def test_the_plane_is_the_unit_square_and_filled():
    places = Landscape.of(groups(4)[0]).place(groups(4)[0])
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.ptp(places, axis=0).min() > 0.9


def test_the_same_items_lie_the_same_and_another_seed_lies_otherwise():
    vectors, _ = groups(3)
    once, again, other = (Landscape.of(vectors, seed=seed).places for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 1e-3


def test_an_item_that_comes_later_lies_among_its_kind():
    vectors, group = groups(4)
    plane = Landscape.of(vectors[::2])
    kept, late = plane.place(vectors[::2]), plane.place(vectors[1::2])
    middles = np.array([kept[group[::2] == each].mean(axis=0) for each in range(4)])
    nearest = np.linalg.norm(late[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == group[1::2]).mean() > 0.95


@pytest.mark.parametrize("items", range(AMONG + 2))
def test_a_handful_of_items_has_places_too(items):
    vectors = groups(1, each=8)[0]
    assert np.isfinite(Landscape.of(vectors[:items]).place(vectors)).all()


def test_items_without_direction_and_twins_have_places():
    vectors = np.zeros((20, 4), np.float32)
    vectors[10:] = 1
    assert np.isfinite(Landscape.of(vectors).place(vectors)).all()
