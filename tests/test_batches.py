import datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.batches import (
    condition_of,
    events_per_step,
    make_batch,
    plan_epoch,
    question_batches,
    training_batch,
)
from palate.schema import GAP_BUCKETS, UNKNOWN_TIME, Histories, Questions

ONE = np.ones(1, np.float32)


def test_two_histories_are_laid_end_to_end_behind_their_start_positions():
    batch = make_batch(Histories.of([[7, 9], [8]]), max_history=10, has_time=False, target_weights=ONE)
    assert batch.item.tolist() == [0, 7, 9, 0, 8]
    assert batch.position.tolist() == [0, 1, 2, 0, 1]
    assert batch.target.tolist() == [7, 9, 0, 8, 0]
    assert batch.weight.tolist() == [1, 1, 0, 1, 0]
    assert batch.event.tolist() == [0, 1, 1, 0, 1]
    assert batch.last.tolist() == [2, 4]


def test_long_histories_are_read_at_their_end_and_their_first_event_is_nobodys_beginning():
    batch = make_batch(Histories.of([[2, 3, 4, 5]]), max_history=2, has_time=False, target_weights=ONE)
    assert batch.item.tolist() == [0, 4, 5]
    assert batch.target.tolist() == [0, 5, 0]


def test_an_empty_history_is_a_start_position():
    batch = make_batch(Histories.of([[], [5], []]), max_history=3, has_time=True)
    assert batch.item.tolist() == [0, 0, 5, 0]
    assert batch.last.tolist() == [0, 2, 3]


def test_event_types_that_are_no_targets_are_inputs_only():
    histories = Histories(
        np.array([0, 3]), np.array([4, 5, 6], np.int32), np.array([0, 1, 0], np.uint8), np.arange(3)
    )
    weights = np.array([0.5, 0.0], np.float32)
    batch = make_batch(histories, max_history=5, has_time=False, target_weights=weights)
    assert batch.event.tolist() == [0, 1, 2, 1]
    assert batch.target.tolist() == [4, 0, 6, 0]
    assert batch.weight.tolist() == [0.5, 0, 0.5, 0]


def test_gaps_are_logarithms_of_seconds_and_unknown_for_the_first_event():
    seconds = np.array([100, 100, 101, 104, 10**12])
    histories = Histories(
        np.array([0, 5]), np.arange(2, 7, dtype=np.int32), np.zeros(5, np.uint8), seconds * 1_000_000
    )
    batch = make_batch(histories, max_history=5, has_time=True)
    assert batch.gap.tolist() == [0, 0, 1, 2, 3, GAP_BUCKETS - 1]


def test_hours_and_weekdays_are_those_of_utc():
    moments = ["1969-12-31T23:59:59", "1970-01-01T00:00", "2011-12-04T10:30", "2012-02-29T23:00"]
    time = np.array(moments, "datetime64[us]").astype(np.int64)
    histories = Histories(np.array([0, 4]), np.arange(2, 6, dtype=np.int32), np.zeros(4, np.uint8), time)
    batch = make_batch(histories, max_history=5, has_time=True)
    told = [datetime.datetime.fromisoformat(moment) for moment in moments]
    assert batch.hour.tolist() == [0, *(1 + moment.hour for moment in told)]
    assert batch.weekday.tolist() == [0, *(moment.isoweekday() for moment in told)]


def test_events_given_by_key_alone_have_no_time():
    batch = make_batch(Histories.of([[7, 9, 7], [8]]), max_history=9, has_time=True, past=True)
    for column in (batch.gap, batch.hour, batch.weekday, batch.past.since):
        assert not column.any()


def test_what_a_question_says_is_counted_from_the_last_event():
    """At noon on a Sunday: hours after an event, before one, after none, after one of unknown time."""
    noon = int(np.datetime64("2011-12-04T12:00", "us").astype(np.int64))
    time = np.array([0, noon - 6 * 3_600_000_000, noon + 1, UNKNOWN_TIME])
    histories = Histories(np.array([0, 2, 3, 3, 4]), np.full(4, 5, np.int32), np.zeros(4, np.uint8), time)
    asked = condition_of(Questions.without_answer(histories, at=noon))
    assert asked.gap.tolist() == [1 + int(np.log2(1 + 6 * 3600)), 1, 0, 0]
    assert asked.hour.tolist() == [13] * 4
    assert asked.weekday.tolist() == [7] * 4
    assert asked.event.tolist() == [0] * 4
    assert condition_of(Questions.without_answer(histories, event=3)).event.tolist() == [4] * 4
    assert condition_of(Questions.without_answer(histories)) is None


lists = st.lists(st.lists(st.integers(2, 50), min_size=0, max_size=12), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(1, 30), st.integers(0, 5))
def test_a_pass_visits_every_history_that_has_events_once(histories, batch_events, epoch):
    lengths = Histories.of(histories).lengths
    plan = plan_epoch(lengths, max_history=8, batch_events=batch_events, seed=3, epoch=epoch)
    visited = sorted(np.concatenate(plan).tolist()) if plan else []
    assert visited == np.nonzero(lengths)[0].tolist()
    again = plan_epoch(lengths, max_history=8, batch_events=batch_events, seed=3, epoch=epoch)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(1, 30))
def test_question_batches_equal_one_batch_per_history(histories, events):
    flat = Histories.of(histories)
    parts = list(question_batches(flat, max_history=5, has_time=False, events=events))
    alone = [make_batch(Histories.of([h]), max_history=5, has_time=False) for h in histories]
    for name in ("item", "position", "event"):
        together = np.concatenate([getattr(batch, name) for batch in parts])
        np.testing.assert_array_equal(together, np.concatenate([getattr(batch, name) for batch in alone]))
    lasts = [item for batch in parts for item in batch.item[batch.last].tolist()]
    assert lasts == [history[-1] if history else 0 for history in histories]


def test_cropping_is_drawn_from_the_seed_and_stays_inside_the_history():
    flat = Histories.of([list(range(2, 102))])
    options = {"max_history": 10, "has_time": False, "target_weights": ONE, "past": False}
    windows = set()
    for step in range(50):
        batch = training_batch(flat, np.array([0]), crop=0.99, seed=(0, 0, step), **options)
        items = batch.item[1:].tolist()
        assert items == list(range(items[0], items[0] + 10))
        windows.add(items[0])
    assert len(windows) > 20
    end = training_batch(flat, np.array([0]), crop=0.0, seed=(0, 0, 1), **options)
    assert end.item[-1] == 101


def test_steps_grow_with_the_data_within_bounds():
    def step(histories: int, length: int) -> int:
        return events_per_step(np.full(histories, length), max_history=200)

    assert step(10, 3) == 128
    assert step(1_000, 127) == 1_000
    assert step(1_000, 1_000) == 201 * 1_000 // 128
    assert step(1_000_000, 50) == 2500
    assert events_per_step(np.zeros(5, np.int64), max_history=9) == 128
