"""Cleaning in small named rules: an event log in, a log and a note out.

The rules run in the order of ``clean``; every note says how many events its rule took, how many are
left, and shows a few. Nothing is dropped without a note.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars as pl

from palate.data.log import MISSING, MISSING_EVENT, MISSING_TIME, Log, count_codes, read_log
from palate.data.moments import DAY, HOUR
from palate.data.split import Periods, temporal_periods
from palate.errors import DataError
from palate.schema import BoolArray, Dataset, IntArray, Note
from palate.settings import DataSettings, SplitSettings

Rule = Callable[[Log], tuple[Log, Note]]

RELAX = {
    "missing keys": "Check which columns hold the people, the items and the events.",
    "excluded items": "Check exclude_items.",
    "impossible times": "Check the column and the unit of the times, data.earliest and data.latest.",
    "non-positive quantities": "Check the column of the value.",
    "rows that must be positive": "Check require_positive.",
    "robots": "Raise data.max_events_per_hour.",
    "k-core": "Lower data.min_user_events or data.min_item_events.",
}


@dataclass(frozen=True)
class Cleaned:
    """Events that count, by person, time and place in the source, with what became of the others."""

    log: Log
    notes: tuple[Note, ...]
    before: dict[str, int]
    """Events, people and items as they came."""
    periods: Periods | None
    """Borders of a temporal split, found before any rule that counts."""


def clean(dataset: Dataset, settings: DataSettings, split: SplitSettings | None = None) -> Cleaned:
    """The data set's interactions after every rule.

    With a ``temporal`` split, rules that count (robots, repeats, k-core) look only at events before
    the validation period when they choose training events: nothing of the future may choose them.

    Raises:
        DataError: no event is left, or ``settings.strict`` and a row was bad.
    """
    log = read_log(dataset)
    before = {"events": len(log), "people": len(log.people), "items": len(log.items)}
    if not len(log):
        raise DataError(
            f"The interactions of '{dataset.name}' have no rows. Check the table's path and query."
        )
    notes = list(dataset.notes)
    refuse_if_strict(notes, settings)
    for rule in _rules_for_rows(dataset, settings):
        log = _apply(rule, log, notes, settings)
    log = log.without_amounts().sorted()
    log = _apply(exact_duplicates, log, notes, settings)
    temporal = split is not None and split.kind == "temporal"
    periods = temporal_periods(log.time, split, has_time=log.has_time) if split and temporal else None
    for rule in _rules_that_count(log, settings, periods):
        log = _apply(rule, log, notes, settings)
    return Cleaned(log.compact(), tuple(notes), before, periods)


def _rules_for_rows(dataset: Dataset, settings: DataSettings) -> list[Rule]:
    rules: list[Rule] = [missing_keys]
    if dataset.exclude_items:
        rules.append(partial(excluded_items, patterns=dataset.exclude_items))
    rules.append(partial(impossible_times, earliest=settings.earliest, latest=settings.latest))
    if dataset.negative_value is not None:
        rules.append(partial(returns, event=dataset.negative_value.strip().lower()))
        rules.append(non_positive_quantities)
    if dataset.require_positive:
        rules.append(partial(must_be_positive, columns=dataset.require_positive))
    return rules


def _rules_that_count(log: Log, settings: DataSettings, periods: Periods | None) -> list[Rule]:
    rules: list[Rule] = []
    if settings.max_events_per_hour and log.has_time:
        rules.append(partial(robots, per_hour=settings.max_events_per_hour, periods=periods))
    if settings.repeats != "keep":
        rules.append(partial(repeats, keep_last=settings.repeats == "last", periods=periods))
    if max(settings.min_user_events, settings.min_item_events) > 1:
        least = (settings.min_user_events, settings.min_item_events)
        rules.append(partial(k_core, least=least, periods=periods))
    return rules


def _apply(rule: Rule, log: Log, notes: list[Note], settings: DataSettings) -> Log:
    log, note = rule(log)
    notes.append(note)
    refuse_if_strict([note], settings)
    if not len(log):
        taken = "; ".join(f"{n.rule}: {n.removed:,}" for n in notes if n.removed)
        advice = RELAX.get(note.rule, "")
        raise DataError(f"Cleaning left no event. Events taken by each rule: {taken}. {advice}".rstrip())
    return log


NOT_DIRT = {"excluded items", "returns", "repeats", "k-core"}
"""Rules that choose, by the settings, among rows that are sound."""


def refuse_if_strict(notes: list[Note], settings: DataSettings) -> None:
    """With ``data.strict``, nothing bad was found.

    Raises:
        DataError: a rule for bad rows took some, or cells could not be read.
    """
    for note in notes:
        unreadable = note.rule.startswith("unreadable")
        if settings.strict and (unreadable or (note.removed and note.rule not in NOT_DIRT)):
            found = note.detail if unreadable else f"{note.removed:,} rows"
            shown = f" ({'; '.join(note.examples)})" if note.examples else ""
            raise DataError(
                f"data.strict is set, and the rule '{note.rule}' found {found}{shown}. Mend them at the "
                "source, or set data.strict to false to have them counted and left out."
            )


def _drop(log: Log, bad: BoolArray, rule: str, detail: str = "") -> tuple[Log, Note]:
    removed = int(np.count_nonzero(bad))
    note = Note(rule, removed, len(log) - removed, detail, log.describe(bad) if removed else ())
    return (log.keep(~bad) if removed else log), note


def missing_keys(log: Log) -> tuple[Log, Note]:
    """Rows without a person, an item or an event type go."""
    no_user, no_item, no_event = log.user == MISSING, log.item == MISSING, log.event == MISSING_EVENT
    counts = ((no_user, "without user"), (no_item, "without item"), (no_event, "without event type"))
    detail = ", ".join(f"{np.count_nonzero(mask):,} {words}" for mask, words in counts if mask.any())
    return _drop(log, no_user | no_item | no_event, "missing keys", detail)


def excluded_items(log: Log, patterns: tuple[str, ...]) -> tuple[Log, Note]:
    """Events with items that are not things to recommend (fees, postage) go."""
    excluded = matches_any(log.items, patterns)
    named = log.items.filter(pl.Series(excluded)).to_list()
    detail = f"{len(named)} items: {', '.join(map(str, named[:8]))}{', …' if len(named) > 8 else ''}"
    return _drop(log, excluded[log.item], "excluded items", detail)


def matches_any(keys: pl.Series, patterns: tuple[str, ...]) -> BoolArray:
    """Whether a key as text matches one of the regular expressions entirely."""
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    texts = keys.cast(pl.String).to_list()
    return np.array([bool(patterns) and whole.fullmatch(text) is not None for text in texts], np.bool_)


def impossible_times(
    log: Log, earliest: datetime.date | None, latest: datetime.date | None
) -> tuple[Log, Note]:
    """Events without a time, before ``earliest`` (or 1970) or after ``latest`` (or tomorrow) go.

    Where time is only an order, any number is possible and only missing ones go.
    """
    missing = log.time == MISSING_TIME
    if not log.has_time:
        return _drop(log, missing, "impossible times", "only an order: missing places")
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    last = latest if latest is not None else tomorrow
    first = earliest if earliest is not None else datetime.date(1970, 1, 1)
    too_early = ~missing & (log.time < _day(first))
    too_late = log.time >= _day(last) + DAY
    detail = (
        f"{np.count_nonzero(missing):,} without time, {np.count_nonzero(too_early):,} before {first}, "
        f"{np.count_nonzero(too_late):,} after {last}"
    )
    return _drop(log, missing | too_early | too_late, "impossible times", detail)


def _day(date: datetime.date) -> int:
    return (date - datetime.date(1970, 1, 1)).days * DAY


def returns(log: Log, event: str) -> tuple[Log, Note]:
    """Events whose value is below zero are of type ``event``; none goes."""
    assert log.value is not None
    events = log.events if event in log.events else (*log.events, event)
    negative = log.value < 0
    codes = np.where(negative, np.uint8(events.index(event)), log.event)
    detail = f"{np.count_nonzero(negative):,} events with a value below zero are now '{event}'"
    note = Note("returns", 0, len(log), detail, log.describe(negative))
    return replace(log, event=codes, events=events), note


def non_positive_quantities(log: Log) -> tuple[Log, Note]:
    """Events whose value is zero go.

    Runs after ``returns`` and only where that rule does: there the value is a quantity. A rating of
    zero is a rating.
    """
    assert log.value is not None
    return _drop(log, log.value == 0, "non-positive quantities")


def must_be_positive(log: Log, columns: tuple[str, ...]) -> tuple[Log, Note]:
    """Rows in which one of the named source columns is not above zero go."""
    assert log.positive is not None
    return _drop(log, ~log.positive, "rows that must be positive", ", ".join(columns))


def exact_duplicates(log: Log) -> tuple[Log, Note]:
    """Of events with the same person, item, type and time the first stays. Wants a sorted log."""
    same_moment = (log.user[1:] == log.user[:-1]) & (log.time[1:] == log.time[:-1])
    in_run = np.zeros(len(log), np.bool_)  # only events that share person and time with a neighbour
    in_run[1:] |= same_moment
    in_run[:-1] |= same_moment
    places = np.flatnonzero(in_run)
    moment = np.cumsum(np.concatenate([[True], ~same_moment]), dtype=np.int64)[places]
    bad = np.zeros(len(log), np.bool_)
    bad[places[~_first_of_each(moment, log.item[places], log.event[places])]] = True
    return _drop(log, bad, "exact duplicates")


def robots(log: Log, per_hour: int, periods: Periods | None) -> tuple[Log, Note]:
    """People with more than ``per_hour`` events in one clock hour go, with all their events.

    In a temporal split somebody who only becomes so busy later loses only the later events.
    """
    hour = log.time // HOUR
    new_run = np.concatenate([[True], (log.user[1:] != log.user[:-1]) | (hour[1:] != hour[:-1])])
    starts = np.flatnonzero(new_run)
    busy = starts[np.diff(np.append(starts, len(log))) > per_hour]
    is_robot = np.zeros(len(log.people), np.bool_)
    is_robot[log.user[busy]] = True
    bad = is_robot[log.user]
    if periods is not None:
        early = np.zeros(len(log.people), np.bool_)
        early[log.user[busy[log.time[busy] < periods.validation]]] = True
        bad &= early[log.user] | (log.time >= periods.validation)
    detail = f"{np.count_nonzero(is_robot):,} people with more than {per_hour:,} events in an hour"
    return _drop(log, bad, "robots", detail)


def repeats(log: Log, keep_last: bool, periods: Periods | None) -> tuple[Log, Note]:
    """Of the events of one person with one item and one type, only the first (or last) stays.

    In a temporal split the last of each period stays, so that a later event takes no earlier one.
    """
    user = log.user.astype(np.int64)
    if keep_last and periods is not None:
        period = np.searchsorted([periods.validation, periods.test, periods.end], log.time, side="right")
        user = user * 4 + period
    if keep_last:
        stays = _first_of_each(user[::-1], log.item[::-1], log.event[::-1])[::-1]
    else:
        stays = _first_of_each(user, log.item, log.event)
    return _drop(log, ~stays, "repeats", "the last is kept" if keep_last else "the first is kept")


def _first_of_each(group: IntArray, item: IntArray, event: IntArray) -> BoolArray:
    """Whether no earlier row has the same (group, item, event)."""
    if not len(group):
        return np.zeros(0, np.bool_)
    width = int(item.max()) + 1
    if (int(group.max()) + 1) * width >= 2**55:
        raise DataError(
            "Too many people times items to compare events in 64 bits; prepare the data in parts."
        )
    key = (group.astype(np.int64) * width + item) * 256 + event
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = np.ones(len(key), np.bool_)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return first


def k_core(log: Log, least: tuple[int, int], periods: Periods | None) -> tuple[Log, Note]:
    """Every person has at least ``least[0]`` events left and every item ``least[1]``.

    Taking a person's events may leave an item too few and so on, hence the rounds. In a temporal
    split only events before the validation period are counted and taken.
    """
    counted = np.ones(len(log), np.bool_) if periods is None else log.time < periods.validation
    people, items = len(log.people), len(log.items)
    of_user = count_codes(log.user[counted], people)
    of_item = count_codes(log.item[counted], items)
    stays, rounds = counted.copy(), 0
    while True:
        kept = (of_user >= least[0])[log.user]
        kept &= (of_item >= least[1])[log.item]
        goes = stays & ~kept
        if not goes.any():
            break
        stays &= kept
        of_user -= count_codes(log.user[goes], people)
        of_item -= count_codes(log.item[goes], items)
        rounds += 1
    stays |= ~counted
    detail = f"people with at least {least[0]} events, items with at least {least[1]}: {rounds} rounds"
    return _drop(log, ~stays, "k-core", detail)
