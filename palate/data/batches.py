"""Histories become batches: one function for training, evaluation and requests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate.data.moments import gap_buckets, hours, weekdays
from palate.data.past import past_of
from palate.schema import PADDING, UNKNOWN_TIME, AnyArray, Batch, Condition, Histories, IntArray, Questions


def make_batch(
    histories: Histories,
    *,
    max_history: int,
    has_time: bool,
    target_weights: np.ndarray | None = None,
    starts: IntArray | None = None,
    past: bool = False,
) -> Batch[AnyArray]:
    """All these histories laid end to end, each behind a start position and cut to ``max_history`` events.

    Args:
        histories: item ids, event codes and times.
        max_history: events read of each history: its latest, unless ``starts`` says otherwise.
        has_time: whether differences between times mean anything.
        target_weights: weight of each event code as a target; None asks for nothing (requests).
        starts: per history, the first event to read; the window still holds ``max_history`` events.
        past: whether the batch says what each position has met, events before the window included.
    """
    lengths = np.minimum(histories.lengths, max_history)
    if starts is None:
        starts = histories.lengths - lengths
    source = histories.offsets[:-1] + starts
    begins = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]  # index of each start position
    total = int((lengths + 1).sum())

    position = np.arange(total) - np.repeat(begins, lengths + 1)
    is_event = position > 0
    where = (np.repeat(source, lengths + 1) + position - 1)[is_event]

    item = np.full(total, PADDING, np.int64)
    event = np.zeros(total, np.int64)
    gap, hour, weekday = np.zeros((3, total), np.int64)
    item[is_event] = histories.item[where]
    event[is_event] = histories.event[where].astype(np.int64) + 1
    if has_time:
        time = histories.time[where]
        gap[is_event] = _gap_buckets(histories, where, first=position[is_event] == 1)
        hour[is_event] = hours(time)
        weekday[is_event] = weekdays(time)

    target = np.zeros(total, np.int64)
    weight = np.zeros(total, np.float32)
    if target_weights is not None:
        asked = np.nonzero(is_event)[0] - 1  # the position before an event is asked for it
        # A window that begins inside a history has lost its past: its first event is nobody's beginning.
        fair = (position[asked] > 0) | (np.repeat(starts, lengths) == 0)
        weights = target_weights[histories.event[where]] * fair
        target[asked] = np.where(weights > 0, histories.item[where], PADDING)
        weight[asked] = weights

    return Batch(
        item=item,
        event=event,
        gap=gap,
        hour=hour,
        weekday=weekday,
        position=position,
        last=begins + lengths,
        target=target,
        weight=weight,
        past=past_of(
            histories,
            np.repeat(np.arange(len(starts)), lengths + 1),
            np.repeat(starts, lengths + 1) + position,
            has_time=has_time,
        )
        if past
        else None,
    )


def _gap_buckets(histories: Histories, where: IntArray, first: np.ndarray) -> IntArray:
    """Bucket of the time since the event before, 0 for the first event of a window."""
    before = np.maximum(where - 1, 0)
    return np.where(first, 0, gap_buckets(histories.time[where], histories.time[before]))


def condition_of(questions: Questions) -> Condition[AnyArray] | None:
    """What the questions say beside their histories; None where they say nothing.

    A question before the last event of its history is asked right after that event.
    """
    if questions.at is None and questions.event is None:
        return None
    histories, Q = questions.histories, len(questions)
    at = np.full(Q, UNKNOWN_TIME) if questions.at is None else questions.at
    latest, some = np.full(Q, UNKNOWN_TIME), histories.lengths > 0
    latest[some] = histories.time[histories.offsets[1:][some] - 1]
    return Condition(
        event=np.zeros(Q, np.int64) if questions.event is None else questions.event + 1,
        gap=gap_buckets(at, latest),
        hour=hours(at),
        weekday=weekdays(at),
    )


def events_per_pass(lengths: IntArray, *, max_history: int) -> int:
    """Positions that one pass reads: each history's latest events, and its start."""
    return int((np.minimum(lengths, max_history) + 1)[lengths > 0].sum())


def events_per_step(lengths: IntArray, *, max_history: int) -> int:
    """As many events as make a pass of some 128 steps, but at least 128 and at most 2,500.

    Fewer steps leave small data unlearned after the usual number of passes; beyond some thousand events
    a larger step is hardly quicker per event and learns less from each: see docs/log.md.
    """
    return min(max(events_per_pass(lengths, max_history=max_history) // 128, 128), 2500)


def plan_epoch(
    lengths: IntArray, *, max_history: int, batch_events: int, seed: int, epoch: int
) -> list[IntArray]:
    """The histories of each step of a pass: a shuffled order cut into batches of about ``batch_events``.

    A pure function of its arguments, so a checkpoint needs to keep only (seed, epoch, step).
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(np.nonzero(lengths > 0)[0])
    ends = np.cumsum(np.minimum(lengths[order], max_history) + 1)
    if not len(order):
        return []
    steps = max(1, round(ends[-1] / batch_events))
    cuts = np.searchsorted(ends, np.arange(1, steps) * ends[-1] / steps)
    return [rows for rows in np.split(order, np.unique(cuts)) if len(rows)]


def training_batch(
    histories: Histories,
    rows: IntArray,
    *,
    max_history: int,
    has_time: bool,
    target_weights: np.ndarray,
    crop: float,
    past: bool,
    seed: tuple[int, ...],
) -> Batch[AnyArray]:
    """The batch of these rows; a share ``crop`` of the too long histories is read at a random stretch."""
    generator = np.random.default_rng(seed)
    chosen = histories.select(rows)
    spare = np.maximum(chosen.lengths - max_history, 0)
    anywhere = generator.integers(0, spare + 1)
    starts = np.where(generator.random(len(rows)) < crop, anywhere, spare)
    return make_batch(
        chosen,
        max_history=max_history,
        has_time=has_time,
        target_weights=target_weights,
        starts=starts,
        past=past,
    )


def question_batches(
    histories: Histories, *, max_history: int, has_time: bool, events: int
) -> Iterator[Batch[AnyArray]]:
    """Batches of about ``events`` positions that cover the histories in order; nothing is asked."""
    ends = np.cumsum(np.minimum(histories.lengths, max_history) + 1)
    first = 0
    while first < len(histories):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + events, side="right")))
        yield make_batch(histories.select(np.arange(first, stop)), max_history=max_history, has_time=has_time)
        first = stop
