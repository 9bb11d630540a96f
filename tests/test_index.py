"""Indexes: one contract, the slow and obvious search against the fast ones, changes while others search."""

import json
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import BundleError, DataError, MissingExtraError
from palate.retrieve.approximate import ApproximateIndex
from palate.retrieve.best import best, room
from palate.retrieve.build import build_index, exact_limit, load_index, save_index
from palate.retrieve.index import ExactIndex
from tests.worlds import lists_of_few_items


@pytest.fixture(params=[ExactIndex, ApproximateIndex])
def kind(request):
    """Either index; the approximate one looks at its lists, though there are few items."""
    with lists_of_few_items():
        yield request.param


def whole_numbers(rows, width=8, seed=0):
    """Vectors whose products are exact in float32, so that equal scores are equal in any order of sums."""
    return np.random.default_rng(seed).integers(-9, 10, (rows, width)).astype(np.float32)


def slow(vectors, states, k, gone=(), allowed=None, excluded=None, bonuses=None):
    """Every score, one by one, sorted."""
    ids = np.full((len(states), k), -1)
    scores = np.full((len(states), k), -np.inf)
    for row, state in enumerate(states):
        raised = dict(zip(*(part.tolist() for part in bonuses[row]), strict=True)) if bonuses else {}
        found = []
        for item in range(2, len(vectors)):
            if item in gone or (excluded is not None and item in excluded[row]):
                continue
            if allowed is not None and (item >= len(allowed) or not allowed[item]):
                continue
            found.append((-(float(vectors[item] @ state) + raised.get(item, 0.0)), item))
        for place, (score, item) in enumerate(sorted(found)[:k]):
            ids[row, place], scores[row, place] = item, -score
    return ids, scores


def assert_found(found, expected):
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_allclose(found.scores, expected[1], rtol=1e-5)
    assert (found.ids.dtype, found.scores.dtype) == (np.int32, np.float32)


@st.composite
def searches(draw):
    rows, seed = draw(st.integers(3, 400)), draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    states = generator.integers(-9, 10, (draw(st.integers(1, 4)), 8)).astype(np.float32)
    share = draw(st.sampled_from([None, 0.0, 0.1, 0.9, 1.0]))
    allowed = None if share is None else generator.random(rows + draw(st.integers(-2, 3))) < share

    def ids(most):
        return generator.permutation(rows + 3)[: generator.integers(0, most)]

    excluded = [ids(30) for _ in states] if draw(st.booleans()) else None
    bonuses = None
    if draw(st.booleans()):
        bonuses = [(of := ids(9), generator.integers(-50, 50, len(of)).astype(np.float32)) for _ in states]
    gone = np.unique(np.minimum(ids(20), rows - 1))
    return whole_numbers(rows, seed=seed), states, draw(st.integers(1, 40)), gone, allowed, excluded, bonuses


@settings(max_examples=60, deadline=None)
@given(searches())
def test_the_exact_index_finds_what_the_slow_way_finds(search):
    vectors, states, k, gone, allowed, excluded, bonuses = search
    found = ExactIndex(vectors, gone).search(states, k, allowed=allowed, excluded=excluded, bonuses=bonuses)
    assert_found(found, slow(vectors, states, k, gone, allowed, excluded, bonuses))


@settings(max_examples=25, deadline=None)
@given(searches())
def test_the_approximate_index_obeys_filters_and_scores_exactly(search):
    """On so few items it finds nearly all; what it gives is allowed, ordered, scored, and k where k exist."""
    vectors, states, k, gone, allowed, excluded, bonuses = search
    index = ApproximateIndex(vectors, gone)
    with lists_of_few_items():
        found = index.search(states, k, allowed=allowed, excluded=excluded, bonuses=bonuses)
    every = slow(vectors, states, len(vectors), gone, allowed, excluded, bonuses)
    for row in range(len(states)):
        scores = dict(zip(every[0][row].tolist(), every[1][row].tolist(), strict=True))
        ids = [item for item in found.ids[row].tolist() if item >= 0]
        assert len(ids) == len(set(ids)) == min(k, len(scores) - (-1 in scores))
        assert found.scores[row, : len(ids)].tolist() == [scores[item] for item in ids]
        assert ids == sorted(ids, key=lambda item: (-scores[item], item))
        assert (found.ids[row, len(ids) :] == -1).all()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(st.just(-np.inf), st.integers(-4, 4).map(float)), min_size=1, max_size=700),
    st.integers(1, 900),
)
def test_the_best_are_those_of_a_whole_sort(values, k):
    columns = [np.array(values, np.float32), np.array(values[::-1], np.float32)]
    scores = room(len(values), 2)
    scores[: len(values)] = np.stack(columns, axis=1)
    for column, found in zip(columns, best(scores, k), strict=True):
        order = np.lexsort((np.arange(len(values)), -column))
        assert found.tolist() == [place for place in order if column[place] > -np.inf][:k]


def clustered(items, states, seed=0, width=16, groups=40):
    generator = np.random.default_rng(seed)
    middles = generator.standard_normal((groups, width))

    def drawn(rows):
        return middles[generator.integers(0, groups, rows)] + 0.6 * generator.standard_normal((rows, width))

    return drawn(items).astype(np.float32), drawn(states).astype(np.float32)


@pytest.fixture(scope="module")
def large():
    """Vectors, states and an approximate index of them that no test changes."""
    vectors, states = clustered(4000, 200)
    return vectors, states, build_index(vectors, states, exact_up_to=1000)


def test_recall_is_high_and_is_what_a_second_count_says(large):
    vectors, states, index = large
    assert isinstance(index, ApproximateIndex)
    exact = ExactIndex(vectors).search(states[1::2], 10).ids
    found = index.search(states[1::2], 10).ids
    counted = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    )
    assert index.recall == pytest.approx(counted)
    assert index.recall >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_recall_stays_high_under_filters(large, share):
    vectors, states, index = large
    allowed = np.random.default_rng(1).random(len(vectors)) < share
    exact = ExactIndex(vectors).search(states, 10, allowed=allowed).ids
    found = index.search(states, 10, allowed=allowed).ids
    hits = (found[:, :, None] == exact[:, None, :]) & (exact >= 0)[:, None, :]
    assert hits.sum() / (exact >= 0).sum() >= 0.95
    assert ((found >= 0).sum(axis=1) == (exact >= 0).sum(axis=1)).all()


def test_filters_that_refuse_all_that_is_near_still_leave_k(large):
    vectors, states, index = large
    scores = vectors @ states[0]
    allowed = scores < np.quantile(scores, 0.4)  # the far ones only, though many
    found = index.search(states[:1], 10, allowed=allowed)
    assert_found(found, slow(vectors, states[:1], 10, allowed=allowed))
    many = np.argsort(-scores)[:1_074]
    assert_found(
        index.search(states[:1], 5, excluded=[many]), slow(vectors, states[:1], 5, gone=set(many.tolist()))
    )


def test_a_bonus_lifts_an_item_from_anywhere(large):
    vectors, states, index = large
    last = int(np.argmin(vectors[2:] @ states[0])) + 2
    found = index.search(states[:1], 3, bonuses=[(np.array([last]), np.array([1000.0]))])
    assert found.ids[0, 0] == last
    best_two = ExactIndex(vectors).search(states[:1], 2).ids[0]
    assert found.ids[0, 1:].tolist() == best_two.tolist()


def test_items_come_change_and_go(kind):
    vectors, state = whole_numbers(60), np.ones((1, 8), np.float32)
    index = kind(vectors)
    high = np.full((2, 8), 50.0, np.float32)
    high[1] += 1
    index.add(np.array([70, 60]), high)  # beyond the end, with a gap
    assert (index.size, len(index)) == (71, 60)
    assert index.search(state, 2).ids.tolist() == [[60, 70]]
    index.replace(np.array([60]), -high[:1])
    assert index.search(state, 1).ids.tolist() == [[70]]
    index.remove(np.array([70]))
    assert index.search(state, 100).ids[0].tolist().count(70) == 0
    with pytest.raises(DataError, match="not in the index: 70"):
        index.remove(np.array([70]))
    index.add(np.array([70]), high[:1])
    assert index.search(state, 1).ids.tolist() == [[70]]
    assert index.vectors_of(np.array([70, 60])).tolist() == [high[0].tolist(), (-high[0]).tolist()]
    assert_found(
        index.search(state, 80), slow(index.vectors_of(np.arange(71)), state, 80, gone=range(61, 70))
    )
    np.testing.assert_array_equal(vectors, whole_numbers(60))  # the caller's array is as it was


def test_after_many_changes_an_index_equals_one_built_anew(kind):
    generator, index, width = np.random.default_rng(3), kind(whole_numbers(50)), 8
    alive = {item: row for item, row in enumerate(whole_numbers(50)) if item >= 2}
    for _ in range(150):
        item = int(generator.integers(2, 90))
        vector = generator.integers(-9, 10, (1, width)).astype(np.float32)
        if item not in alive:
            index.add(np.array([item]), vector)
        elif generator.random() < 0.5:
            index.replace(np.array([item]), vector)
        else:
            index.remove(np.array([item]))
            del alive[item]
            continue
        alive[item] = vector[0]
    table = np.zeros((index.size, width), np.float32)
    table[list(alive)] = list(alive.values())
    states = whole_numbers(5, seed=9)
    gone = set(range(index.size)) - alive.keys()
    assert len(index) == len(alive)
    found, expected = index.search(states, 5), slow(table, states, 5, gone)
    np.testing.assert_array_equal(found.scores, expected[1])
    np.testing.assert_array_equal(found.ids, expected[0])


def test_searches_see_each_change_whole_and_never_what_is_gone(kind):
    """All numbers of a vector are equal: the score of one that is half written would be no multiple of 8."""
    index, stop, faults = kind(np.zeros((300, 8), np.float32)), threading.Event(), []
    index.remove(np.arange(250, 300))

    def change():
        generator = np.random.default_rng(0)
        while not stop.is_set():
            value = np.float32(generator.integers(1, 1000))
            index.replace(np.arange(2, 12), np.full((10, 8), value))
            index.add(np.array([300]), np.full((1, 8), value))
            index.remove(np.array([300]))

    def look():
        for _ in range(60):
            found = index.search(np.ones((2, 8), np.float32), 10)
            ids, scores = found
            if ((ids >= 250) & (ids < 300)).any() or (ids < 2).any() or len(set(ids[0].tolist())) < 10:
                faults.append(ids)
            if (scores % 8 != 0).any() or len(np.unique(scores[ids != 300])) > 2:
                faults.append(scores)

    changing, looking = threading.Thread(target=change), [threading.Thread(target=look) for _ in range(3)]
    for thread in (changing, *looking):
        thread.start()
    for thread in looking:
        thread.join(60)
    stop.set()
    changing.join(60)
    assert faults == []
    assert not any(thread.is_alive() for thread in (changing, *looking))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda index: index.search(np.ones((1, 3)), 2), r"shape \(1, 3\); wanted .*\[B, 8\]"),
        (lambda index: index.search(np.full((1, 8), np.nan), 2), "wanted finite numbers"),
        (lambda index: index.search(np.ones((1, 8)), 0), "k is 0; wanted at least 1"),
        (lambda index: index.search(np.ones((2, 8)), 1, excluded=[np.array([3])]), "excluded has 1 rows"),
        (lambda index: index.add(np.array([5]), np.ones((1, 8))), "already: 5. Use replace"),
        (lambda index: index.add(np.array([1]), np.ones((1, 8))), "Id 1 is reserved"),
        (lambda index: index.add(np.array([91, 91]), np.ones((2, 8))), "comes twice"),
        (
            lambda index: index.add(np.array([91]), np.ones((2, 8))),
            r"wanted finite numbers of shape \(1, 8\)",
        ),
        (lambda index: index.add(np.array([91]), np.full((1, 8), np.inf)), "wanted finite numbers"),
        (lambda index: index.replace(np.array([91]), np.ones((1, 8))), "not in the index: 91"),
        (lambda index: index.remove(np.array([-3])), "not in the index: -3"),
        (lambda index: index.vectors_of(np.array([99])), "the index ends at 19"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(kind, call, words):
    index = kind(whole_numbers(20))
    with pytest.raises(DataError, match=words):
        call(index)
    assert (index.size, len(index)) == (20, 18)


def test_few_items_are_compared_with_all_and_no_states_are_needed():
    index = build_index(whole_numbers(50), np.zeros((0, 8), np.float32))
    assert type(index) is ExactIndex
    assert index.recall == 1.0
    with pytest.raises(DataError, match="0 states to measure recall with"):
        build_index(whole_numbers(50), np.zeros((0, 8), np.float32), exact_up_to=10)


def test_without_faiss_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"palate\[serve\]"):
        ApproximateIndex(whole_numbers(20))


def test_an_empty_index_finds_nothing():
    for index in (ExactIndex(np.zeros((2, 8), np.float32)), ApproximateIndex(np.zeros((2, 8), np.float32))):
        assert index.search(np.ones((3, 8)), 4).ids.tolist() == [[-1] * 4] * 3


def test_the_limit_of_exact_search_is_measured():
    assert exact_limit(8, milliseconds=2.0, items=2000) > exact_limit(8, milliseconds=0.001, items=2000) >= 0


@pytest.mark.parametrize("exact_up_to", [10, 10_000])
def test_saved_equals_loaded(tmp_path, exact_up_to):
    vectors, states = clustered(300, 20)
    absent = np.array([7, 9])
    index = build_index(vectors, states, absent=absent, exact_up_to=exact_up_to)
    save_index(index, tmp_path / "index")
    again = load_index(tmp_path / "index", vectors, absent=absent)
    assert type(again) is type(index)
    assert again.recall == index.recall
    assert_found(again.search(states, 10), index.search(states, 10))
    again.add(absent, vectors[absent])
    assert len(again) == 298
    with pytest.raises(BundleError, match="belongs to other vectors"):
        load_index(tmp_path / "index", vectors + 1, absent=absent)
    with pytest.raises(BundleError, match="belongs to other vectors"):
        load_index(tmp_path / "index", vectors)


def test_a_damaged_index_is_refused(tmp_path):
    vectors, states = clustered(300, 20)
    save_index(build_index(vectors, states, exact_up_to=10), tmp_path)
    lists, description = tmp_path / "lists.faiss", tmp_path / "index.json"
    whole, told = lists.read_bytes(), description.read_text()
    lists.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered"):
        load_index(tmp_path, vectors)
    lists.unlink()
    with pytest.raises(BundleError, match="missing"):
        load_index(tmp_path, vectors)
    description.write_text(json.dumps(json.loads(told) | {"format": 99}))
    with pytest.raises(BundleError, match="index format 99"):
        load_index(tmp_path, vectors)
    description.write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        load_index(tmp_path, vectors)
    description.unlink()
    with pytest.raises(BundleError, match="holds no index"):
        load_index(tmp_path, vectors)
