"""Recent popularity counts as the formula says, whatever comes in whatever order."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import DataError
from palate.retrieve.fallback import Popularity
from palate.retrieve.rules import DAY
from palate.schema import UNKNOWN_TIME

NOW = 1_700_000_000_000_000


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 9), st.integers(-4000, 4000), st.floats(0.5, 3.0)), min_size=1, max_size=60
    ),
    st.sampled_from([0.25, 7.0, 100.0]),
    st.integers(1, 10),
)
def test_counts_are_sums_of_halves_in_any_order(events, half_life, at_once):
    popularity = Popularity(half_life, size=10)
    for first in range(0, len(events), at_once):
        items, days, weights = zip(*events[first : first + at_once], strict=True)
        popularity.add(np.array(items), NOW + np.array(days) * DAY, np.array(weights))
    latest = max(day for _, day, _ in events)
    expected = np.zeros(10)
    for item, day, weight in events:
        expected[item] += weight * 0.5 ** ((latest - day) / half_life)
    np.testing.assert_allclose(popularity.counts(), expected, rtol=1e-6, atol=1e-60)


def test_what_is_popular_of_late_comes_first_and_ties_by_id():
    popularity = Popularity(1.0, size=6)
    popularity.add(np.array([2, 2, 2, 3, 4, 5]), NOW + np.array([-3, -3, -3, 0, 0, -1]) * DAY)
    found = popularity.search(np.zeros((2, 4)), 4)
    assert found.ids.tolist() == [[3, 4, 5, 2]] * 2
    assert found.scores[0].tolist() == [1.0, 1.0, 0.5, 0.375]
    popularity.add(np.array([2]), np.array([NOW]))
    assert popularity.search(np.zeros((1, 4)), 1).ids.tolist() == [[2]]


def test_filters_are_obeyed_and_what_nobody_met_is_not_popular():
    popularity = Popularity(1.0, size=50)
    popularity.add(np.array([2, 3, 4, 60]), np.full(4, NOW), np.array([4.0, 3.0, 2.0, 1.0]))
    allowed = np.zeros(40, np.bool_)
    allowed[[3, 4, 5]] = True
    state = np.zeros((1, 4))
    assert popularity.search(state, 4).ids.tolist() == [[2, 3, 4, 60]]
    assert popularity.search(state, 4, allowed=allowed).ids.tolist() == [[3, 4, -1, -1]]
    assert popularity.search(state, 2, excluded=[np.array([2, 99])]).ids.tolist() == [[3, 4]]


def test_events_without_a_time_and_reserved_ids_are_not_popular():
    popularity = Popularity(1.0)
    popularity.add(np.array([2, 3, 1]), np.array([UNKNOWN_TIME, NOW, NOW]))
    assert popularity.search(np.zeros((1, 4)), 3).ids.tolist() == [[3, -1, -1]]
    popularity.add(np.array([], np.int64), np.array([], np.int64))
    with pytest.raises(DataError, match="Id -1 is negative"):
        popularity.add(np.array([-1]), np.array([NOW]))


def test_no_event_is_lost_where_many_add_at_once():
    popularity = Popularity(1.0)

    def add(item):
        for _ in range(100):
            popularity.add(np.array([item]), np.array([NOW]))

    threads = [threading.Thread(target=add, args=(item,)) for item in (2, 3, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert popularity.counts()[2:4].tolist() == [200.0, 200.0]
