"""A second, plain look at every split: did anything held out reach training or a question?

Nothing here is shared with the code that splits and asks. Each check says an invariant in the
plainest way over all events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from palate.data.prepared import HELD_OUT, Prepared
from palate.errors import LeakError
from palate.schema import PART_CODES, PART_UNUSED, BoolArray, Histories, IntArray, Part, Questions

TRAIN, VALIDATION, TEST = (PART_CODES[part] for part in (Part.TRAIN, Part.VALIDATION, Part.TEST))


def check_no_leak(prepared: Prepared, questions: Mapping[Part, Questions] | None = None) -> None:
    """Nothing held out is in training, and no question knows its answer or what came later.

    Looks at the ``questions`` given or, without them, at those of validation and test unfiltered.

    Raises:
        LeakError: names what leaked, with a count and a first example.
    """
    _check_parts(prepared)
    _check_training(prepared, prepared.training())
    checks: dict[str, Callable[[Prepared], None]] = {
        "leave_one_out": _check_order,
        "leave_last_k": _check_order,
        "temporal": _check_clock,
        "cold_items": _check_cold_items,
        "cold_users": _check_cold_users,
    }
    checks[prepared.split.kind](prepared)
    if questions is None:
        questions = {
            part: prepared.questions(part, filter_seen=False, cold_targets=True) for part in HELD_OUT
        }
    with ThreadPoolExecutor() as pool:  # NumPy leaves the other processors free meanwhile
        list(pool.map(partial(check_questions, prepared), questions.keys(), questions.values()))


def check_questions(prepared: Prepared, part: Part, questions: Questions) -> None:
    """Every history is exactly what was known before the person's first target in this part.

    For a cold split, before the last one.

    Raises:
        LeakError: a history holds something else.
    """
    of, rows = prepared.histories, prepared.histories.rows()
    held = np.flatnonzero(_is_target(prepared) & (prepared.part == PART_CODES[part]))
    border = np.zeros(len(of), np.int64)
    if prepared.split.kind in ("cold_items", "cold_users"):
        border[rows[held]] = held  # of equal indices numpy keeps the last
    else:
        border[rows[held[::-1]]] = held[::-1]
    not_asked = np.ones(len(of), np.bool_)
    not_asked[questions.people] = False
    border[not_asked] = 0
    before = np.arange(len(rows)) < border[rows]
    if prepared.split.kind == "cold_users":
        before &= prepared.part == PART_CODES[part]
    elif prepared.split.kind == "cold_items":
        before &= prepared.part == TRAIN
    else:
        before &= prepared.part < PART_CODES[part]
    shown = questions.histories
    counts = np.concatenate([[0], np.cumsum(before)])[of.offsets]
    same = (
        np.array_equal(shown.lengths, np.diff(counts)[questions.people])
        and _equal(shown.item, of.item, before)
        and _equal(shown.event, of.event, before)
        and _equal(shown.time, of.time, before)
    )
    if not same:
        raise LeakError(
            f"The histories of the {part} questions are not what was known before their targets; "
            "prepare the data again."
        )


def _equal(found: IntArray, column: IntArray, mask: BoolArray, step: int = 1 << 20) -> bool:
    """Whether ``found`` is ``column[mask]``, looked at in pieces that fit into the cache."""
    at = 0
    for start in range(0, len(column), step):
        wanted = column[start : start + step][mask[start : start + step]]
        if not np.array_equal(found[at : at + len(wanted)], wanted):
            return False
        at += len(wanted)
    return at == len(found)


def _is_target(prepared: Prepared) -> BoolArray:
    codes = prepared.schema.target_codes
    found = np.zeros(len(prepared.part), np.bool_)
    for code in codes:
        found |= prepared.histories.event == code
    return found


def _check_parts(prepared: Prepared) -> None:
    if len(prepared.part) != len(prepared.histories.item):
        raise LeakError(
            f"There are {len(prepared.part)} parts for {len(prepared.histories.item)} events; prepare again."
        )
    _refuse(prepared, prepared.part > PART_UNUSED, "events with an unknown part")


def _check_training(prepared: Prepared, training: Histories) -> None:
    """Training is the training events and no other."""
    is_train = prepared.part == TRAIN
    same = int(training.offsets[-1]) == int(is_train.sum()) and _equal(
        training.item, prepared.histories.item, is_train
    )
    if not same:
        raise LeakError("The training histories hold events that are not for training; prepare again.")


def _check_order(prepared: Prepared) -> None:
    """Inside a history: training, then validation, then test, then unused, and k targets of each."""
    part, rows = prepared.part, prepared.histories.rows()
    falls = np.zeros(len(part), np.bool_)
    falls[1:] = (rows[1:] == rows[:-1]) & (part[1:] < part[:-1])
    _refuse(prepared, falls, "events that follow an event of a later part")
    k = prepared.split.k if prepared.split.kind == "leave_last_k" else 1
    is_target = _is_target(prepared)
    held = {
        code: np.bincount(rows[is_target & (part == code)], minlength=len(prepared.histories))
        for code in (VALIDATION, TEST, PART_UNUSED)
    }
    uneven = (held[VALIDATION] != held[TEST]) | ~np.isin(held[TEST], [0, k]) | (held[PART_UNUSED] > 0)
    _refuse(prepared, uneven[rows], f"events of people without {k} validation and {k} test targets or none")


def _check_clock(prepared: Prepared) -> None:
    """Every training event is earlier than every held-out one, validation than test, all than unused."""
    part, time = prepared.part, prepared.histories.time
    for code, name in ((VALIDATION, "validation"), (TEST, "test"), (PART_UNUSED, "unused")):
        if (part == code).any():
            start = time[part == code].min()
            _refuse(prepared, (part < code) & (time >= start), f"events at or after the start of {name}")


def _check_cold_items(prepared: Prepared) -> None:
    _check_one_part(prepared, prepared.histories.item, prepared.part, "items")


def _check_cold_users(prepared: Prepared) -> None:
    used = prepared.part != PART_UNUSED
    rows = prepared.histories.rows()
    _check_one_part(prepared, rows[used], prepared.part[used], "people")
    after_test = (prepared.part == PART_UNUSED) & _is_target(prepared)
    _refuse(prepared, after_test, "unused events of a target type")


def _check_one_part(prepared: Prepared, owner: IntArray, part: IntArray, what: str) -> None:
    """All events of one owner are in one part."""
    in_part = {code: np.zeros(int(owner.max()) + 1, np.bool_) for code in (TRAIN, VALIDATION, TEST)}
    for code, seen in in_part.items():
        seen[owner[part == code]] = True
    for held, other in ((VALIDATION, TRAIN), (TEST, TRAIN), (TEST, VALIDATION)):
        both = np.flatnonzero(in_part[held] & in_part[other])
        if len(both):
            keys = (prepared.items if what == "items" else prepared.people).keys(both[:3])
            names = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
            raise LeakError(
                f"{len(both)} {what} are in {names[held]} and in {names[other]} too, first {keys[0]}. "
                "Cold means that none of their events is elsewhere; prepare the data again."
            )


def _refuse(prepared: Prepared, leaked: BoolArray, what: str) -> None:
    if leaked.any():
        e = int(np.flatnonzero(leaked)[0])
        person = prepared.people.keys([int(prepared.histories.rows()[e])])[0]
        item = prepared.items.keys([int(prepared.histories.item[e])])[0]
        raise LeakError(
            f"{int(leaked.sum()):,} {what}, first that of user {person} with item {item}. The split "
            "would let the future into training; prepare the data again."
        )
