import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data import past as past_module
from palate.data.batches import make_batch
from palate.data.moments import gap_buckets
from palate.data.past import past_of
from palate.schema import GAP_BUCKETS, LAG_BUCKETS, MOST_TIMES, Histories

ids = st.lists(st.lists(st.integers(2, 6), max_size=12), min_size=1, max_size=4)


def slow_past(history, times, known):
    """{item: (lag bucket, times before its latest event, seconds since)} by looking through everything."""
    found = {}
    for place in range(known):
        met = [other for other in range(known) if history[other] == history[place]]
        latest = max(met)
        found[history[place]] = (
            int(np.log2(known - latest)),
            min(len(met) - 1, MOST_TIMES),
            (times[known - 1] - times[latest]) // 1_000_000,
        )
    return found


@settings(max_examples=60, deadline=None)
@given(ids, st.data())
def test_the_past_is_what_looking_through_everything_finds(items, data):
    histories = Histories.of(items)
    gaps = data.draw(st.lists(st.integers(0, 9), min_size=len(histories.item), max_size=len(histories.item)))
    histories = Histories(
        histories.offsets, histories.item, histories.event, np.cumsum(np.array(gaps, np.int64) * 1_000_000)
    )
    moments = [(row, known) for row, history in enumerate(items) for known in range(len(history) + 1)]
    row, known = (np.array(column) for column in zip(*moments, strict=True))
    past = past_of(histories, row, known, has_time=True)
    for n, (r, k) in enumerate(moments):
        part = slice(int(past.offsets[n]), int(past.offsets[n + 1]))
        times = histories.time[histories.offsets[r] : histories.offsets[r + 1]]
        wanted = slow_past(items[r], times, k)
        found = {
            int(i): (int(lag), int(before), int(since))
            for i, lag, before, since in zip(
                past.item[part], past.lag[part], past.times[part], past.since[part], strict=True
            )
        }
        assert found == {
            item: (lag, before, int(gap_buckets(np.array([since * 1_000_000]), np.array([0]))[0]))
            for item, (lag, before, since) in wanted.items()
        }
        assert part.stop - part.start == len(wanted)  # each item once


def test_without_times_nothing_is_known_of_when():
    past = past_of(Histories.of([[2, 3, 2]]), np.array([0]), np.array([3]), has_time=False)
    assert past.item.tolist() == [2, 3]
    assert past.lag.tolist() == [0, 1]
    assert past.times.tolist() == [1, 0]
    assert past.since.tolist() == [0, 0]


def test_a_batch_tells_what_came_before_its_window_too():
    batch = make_batch(Histories.of([[5, 6, 7, 5]]), max_history=2, has_time=False, past=True)
    assert batch.item.tolist() == [0, 7, 5]
    lists = [
        batch.past.item[a:b].tolist()
        for a, b in zip(batch.past.offsets, batch.past.offsets[1:], strict=False)
    ]
    assert lists == [[6, 5], [7, 6, 5], [5, 7, 6]]


def test_a_very_long_past_ends_somewhere(monkeypatch):
    monkeypatch.setattr(past_module, "LONGEST_PAST", 3)
    past = past_of(Histories.of([list(range(2, 12))]), np.array([0]), np.array([10]), has_time=False)
    assert past.item.tolist() == [11, 10, 9]


def test_buckets_end_at_the_last_one():
    later = np.array([-5, 0, 1_000_000, 2**62])
    assert gap_buckets(later, np.zeros(4, np.int64)).tolist() == [1, 1, 2, GAP_BUCKETS - 1]
    far = past_of(Histories.of([[2] + [3] * 1000]), np.array([0]), np.array([1001]), has_time=False)
    assert far.lag.tolist() == [0, LAG_BUCKETS - 1]
    assert far.times.tolist() == [MOST_TIMES, 0]
