"""Which events are for training, which are asked in validation and which in test.

The part of an event is a number in an array beside the histories. For one person with the events
``a b c d e`` (all targets, in time order) and ``leave_one_out``::

    a b c   d            e
    train   validation   test        asked: d after a b c, e after a b c d
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.data.moments import DAY, microseconds
from palate.errors import DataError, SettingsError
from palate.schema import PART_CODES, PART_UNUSED, BoolArray, Histories, IntArray, Part, Schema
from palate.settings import SplitSettings

TRAIN, VALIDATION, TEST = (PART_CODES[part] for part in (Part.TRAIN, Part.VALIDATION, Part.TEST))
FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Periods:
    """The borders of a ``temporal`` split, in microseconds since 1970.

    Training lies before ``validation``, validation in ``[validation, test)``, test in ``[test, end)``.
    """

    validation: int
    test: int
    end: int = FOREVER


def temporal_periods(time: IntArray, split: SplitSettings, *, has_time: bool = True) -> Periods:
    """The periods of a ``temporal`` split of events at these times (in any order).

    With ``horizon_days`` the test period lasts so long, from ``date`` on or, without one, up to the
    latest event; the validation period before it is as long. Without a horizon the test period runs
    from ``date`` to the end or, without one, holds ``share`` of the events, and the validation period
    as many.

    Raises:
        SettingsError: the table has no times, or nothing lies before or in one of the periods.
    """
    if not has_time:
        raise SettingsError(
            "split.kind is 'temporal', but the interactions have no times, only an order. "
            "Name a column of times, or use leave_one_out."
        )
    end = FOREVER
    if split.horizon_days is not None:
        horizon = int(split.horizon_days * DAY)
        test = microseconds(split.date) if split.date is not None else int(time.max()) + 1 - horizon
        validation, end = test - horizon, test + horizon
    else:
        test = microseconds(split.date) if split.date is not None else _time_at(time, 1 - split.share)
        before = float(np.mean(time < test))
        validation = _time_at(time, max(0.0, before - split.share))
    periods = Periods(validation, test, end)
    _check_periods(time, periods)
    return periods


def split(
    histories: Histories,
    schema: Schema,
    settings: SplitSettings,
    *,
    seed: int = 0,
    periods: Periods | None = None,
) -> IntArray:
    """The part of each event: uint8 [E], one of ``PART_CODES`` or ``PART_UNUSED``.

    Only events of ``schema.target_events`` are held out as targets. Other events after the first
    held-out target of a part carry its code as well: they are never trained on, and only questions
    of a later part see them. Behind the last target they are unused.

    - ``leave_one_out``, ``leave_last_k``: a person's last k targets are test, the k before
      validation; people with fewer than 2 k + 1 targets stay in training as they are.
    - ``temporal``: by ``periods`` (by default ``temporal_periods`` of these histories).
    - ``cold_items``: every event of a random share of the items is test, of another share validation.
    - ``cold_users``: the same with people.

    The random shares depend on ``seed`` and on the number of items or people alone.

    Raises:
        SettingsError: ``temporal`` without times.
        DataError: too few items or people to hold any out.
    """
    if settings.kind == "temporal":
        if periods is None:
            periods = temporal_periods(histories.time, settings, has_time=schema.has_time)
        return _by_time(histories.time, periods)
    if settings.kind == "cold_items":
        codes = _random_codes(histories.item, settings.share, seed, "items")
        return codes[histories.item]
    left = _targets_left(histories, schema)
    if settings.kind == "cold_users":
        codes = _random_codes(np.flatnonzero(histories.lengths), settings.share, seed, "people")
        by_row = np.concatenate([codes, np.full(len(histories) - len(codes), TRAIN, np.uint8)])
        part = np.repeat(by_row, histories.lengths)
        part[(part != TRAIN) & (left == 0) & ~_is_target(histories, schema)] = PART_UNUSED
        return part
    return _by_place(histories, schema, left, settings.k if settings.kind == "leave_last_k" else 1)


def _is_target(histories: Histories, schema: Schema) -> BoolArray:
    table = np.zeros(256, np.bool_)
    table[schema.target_codes] = True
    found: BoolArray = table[histories.event]
    return found


def _targets_left(histories: Histories, schema: Schema) -> IntArray:
    """How many targets of the same person come after each event, int32 [E]."""
    so_far = np.cumsum(_is_target(histories, schema), dtype=np.int32)
    ends = np.concatenate([[np.int32(0)], so_far])[histories.offsets[1:]]
    return np.repeat(ends, histories.lengths) - so_far


def _by_place(histories: Histories, schema: Schema, left: IntArray, k: int) -> IntArray:
    """Last k targets test, k before validation.

    With k = 1, views v and purchases p (the targets)::

        event   p v p v p v p v
        left    3 3 2 2 1 1 0 0
        part    train   | V V T unused
    """
    part = np.full(len(left), TRAIN, np.uint8)
    part[left < 2 * k] = VALIDATION
    part[left < k] = TEST
    is_target = _is_target(histories, schema)
    part[(left == 0) & ~is_target] = PART_UNUSED
    counts = np.concatenate([[0], np.cumsum(is_target)])[histories.offsets]
    few = np.diff(counts) < 2 * k + 1
    part[np.repeat(few, histories.lengths)] = TRAIN
    return part


def _by_time(time: IntArray, periods: Periods) -> IntArray:
    part = np.full(len(time), TRAIN, np.uint8)
    part[time >= periods.validation] = VALIDATION
    part[time >= periods.test] = TEST
    part[time >= periods.end] = PART_UNUSED
    return part


def _random_codes(ids: IntArray, share: float, seed: int, what: str) -> IntArray:
    """Part by id, uint8 [largest id + 1]: a share of the distinct ids is test, another validation."""
    present = np.flatnonzero(np.bincount(ids))
    held = max(1, round(share * len(present)))
    if len(present) < 2 * held + 1:
        raise DataError(
            f"There are {len(present)} {what}; a cold split with share {share:g} needs at least "
            f"{2 * held + 1}. Use another split.kind or more data."
        )
    chosen = np.random.default_rng(seed).permutation(present)
    codes = np.full(int(present[-1]) + 1, TRAIN, np.uint8)
    codes[chosen[:held]] = TEST
    codes[chosen[held : 2 * held]] = VALIDATION
    return codes


def _time_at(time: IntArray, share: float) -> int:
    """The time before which (about) this share of the events lies."""
    place = min(len(time) - 1, round(share * len(time)))
    return int(np.partition(time, place)[place])


def _check_periods(time: IntArray, periods: Periods) -> None:
    bounds = [int(time.min()), periods.validation, periods.test, min(periods.end, int(time.max()) + 1)]
    names = ("training", "validation", "test")
    words = [str(np.datetime64(bound, "us").astype("datetime64[s]")) for bound in bounds]
    for name, start, stop, first, last in zip(names, bounds, bounds[1:], words, words[1:], strict=False):
        if not bool(((time >= start) & (time < stop)).any()):
            raise SettingsError(
                f"A temporal split leaves no event for {name}, from {first} to {last}. The events run "
                f"from {words[0]} to {np.datetime64(int(time.max()), 'us').astype('datetime64[s]')}; "
                "change split.date, split.horizon_days or split.share."
            )
