"""Cleaned and split data, and the questions that evaluation may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from palate.data.log import count_codes
from palate.schema import (
    PART_CODES,
    Among,
    BoolArray,
    Histories,
    IdMap,
    IntArray,
    Media,
    Part,
    Questions,
    Schema,
)
from palate.settings import SplitSettings

TRAIN = PART_CODES[Part.TRAIN]
HELD_OUT = (Part.VALIDATION, Part.TEST)


@dataclass(frozen=True)
class Prepared:
    """A data set after cleaning and splitting, in ids."""

    name: str
    schema: Schema
    people: IdMap
    items: IdMap
    """Items with events by key, then items that only the items' table has, by key."""
    histories: Histories
    """``people.size`` rows (rows 0 and 1 empty): all kept events; memory-mapped when loaded."""
    part: IntArray
    """uint8 [E]: ``PART_CODES`` or ``PART_UNUSED`` of each event."""
    catalogue: pl.DataFrame
    """``items.size`` rows (rows 0 and 1 null): column ``item``, then the fields."""
    report: dict[str, Any]
    """The data report: rules, counts, distributions; JSON-able."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """How ``part`` came about."""
    media: dict[str, Media] = field(default_factory=dict)
    """By field: pictures, clips and tracks of ``items.size`` items, decoded."""
    removed: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Ids of items that are not recommended any more; their events stay in the histories."""

    @cached_property
    def warm(self) -> BoolArray:
        """[items.size]: the item has a training event."""
        return count_codes(self.histories.item[self.part == TRAIN], self.items.size) > 0

    @cached_property
    def has_event(self) -> BoolArray:
        """[items.size]: the item has an event in any part."""
        return count_codes(self.histories.item, self.items.size) > 0

    @cached_property
    def has_repeats(self) -> bool:
        """Whether anybody meets an item twice in training events of the types that are predicted."""
        kept = (self.part == TRAIN) & np.isin(self.histories.event, self.schema.target_codes)
        pairs = (self.histories.rows()[kept] << 32) | self.histories.item[kept]
        return pl.Series(pairs).n_unique() < len(pairs)

    @property
    def has_cold_split(self) -> bool:
        """Whether what is asked for are items that left training entirely."""
        return self.split.kind == "cold_items"

    def training(self) -> Histories:
        """``people.size`` rows with the training events only."""
        return self.histories.keep(self.part == TRAIN)

    def known(self) -> Histories:
        """``people.size`` rows with everything known now, held-out and unused events too."""
        return self.histories

    def candidates(self, *, cold_targets: bool, among: Among = Among.ALL) -> BoolArray:
        """[items.size]: items that may be recommended in evaluation.

        Those with an event in the cleaned data that are not removed; without ``cold_targets``, with a
        training event. ``among`` the cold ones: those without a training event, and no others.
        """
        found = self.has_event if cold_targets or among == Among.COLD else self.warm
        kept = found & ~self.warm if among == Among.COLD else found.copy()
        kept[self.removed] = False
        return kept

    def questions(
        self, part: Part, *, filter_seen: bool, cold_targets: bool, among: Among = Among.ALL
    ) -> Questions:
        """For each person with targets in this part: what came before, and which items came.

        A history is everything of earlier parts before the person's first target: for
        ``leave_one_out`` and ``leave_last_k`` all that came before it, for ``temporal`` all before
        the period begins. ``cold_items`` asks for the latest held-out event of a person, after the
        training events before it; ``cold_users`` for the last target, after all before it.

        People without such a history are not asked. With ``filter_seen`` items of the history are
        no targets, and neither are items that are no candidates (by ``cold_targets`` and ``among``);
        who has no target left is not asked.
        """
        return ask(self, part, filter_seen=filter_seen, cold_targets=cold_targets, among=among).questions


@dataclass(frozen=True)
class Asked:
    """Questions, and how many people were not asked and why."""

    questions: Questions
    without_history: int
    without_target: int
    """All of their targets were seen before, or no candidates."""


def ask(
    prepared: Prepared, part: Part, *, filter_seen: bool, cold_targets: bool, among: Among = Among.ALL
) -> Asked:
    """The questions of ``Prepared.questions`` with a count of the people left out."""
    offsets = np.asarray(prepared.histories.offsets)
    places = _target_places(prepared, part)
    starts, stops = np.searchsorted(places, offsets[:-1]), np.searchsorted(places, offsets[1:])
    people = np.flatnonzero(stops > starts)
    if prepared.split.kind in ("cold_items", "cold_users"):
        places = places[stops[people] - 1]
        starts, stops = np.arange(len(people)), np.arange(len(people)) + 1
    else:
        starts, stops = starts[people], stops[people]
    histories = _histories_before(prepared, part, people, places[starts])
    question = np.repeat(np.arange(len(people)), stops - starts)
    item = np.asarray(prepared.histories.item)[places]
    candidates = prepared.candidates(cold_targets=cold_targets, among=among)
    wanted = _first_of_each_pair(question, item) & candidates[item]
    if filter_seen:
        wanted &= ~_seen(question, item, histories)
    question, item, places = question[wanted], item[wanted], places[wanted]
    targets = np.bincount(question, minlength=len(people))
    has_history = histories.lengths > 0
    asked = has_history & (targets > 0)
    if not asked.all():
        histories = _only(histories, asked)
    target_offsets = np.concatenate([[0], np.cumsum(targets[asked])])
    kept = asked[question]
    event = np.asarray(prepared.histories.event)[places[kept]]
    time = np.asarray(prepared.histories.time)[places[kept]]
    questions = Questions(people[asked], histories, target_offsets, item[kept], event, time)
    return Asked(questions, int((~has_history).sum()), int((has_history & ~asked).sum()))


def _target_places(prepared: Prepared, part: Part) -> IntArray:
    """The places in the flat histories of this part's events of target types."""
    is_target = np.zeros(256, np.bool_)
    is_target[prepared.schema.target_codes] = True
    return np.flatnonzero((prepared.part == PART_CODES[part]) & is_target[prepared.histories.event])


def _histories_before(prepared: Prepared, part: Part, people: IntArray, first: IntArray) -> Histories:
    """What a question of this part may know of each person before the place of the first target."""
    visible = np.zeros(256, np.bool_)
    if prepared.split.kind == "cold_users":
        visible[PART_CODES[part]] = True
    else:
        visible[TRAIN] = True
        if prepared.split.kind != "cold_items":
            visible[: PART_CODES[part]] = True
    offsets = np.asarray(prepared.histories.offsets)
    start = offsets[people]
    some = first > start
    inside = np.zeros(len(prepared.part) + 1, np.int8)  # +1 where a history begins, -1 at its end
    inside[start[some]] += 1
    inside[first[some]] -= 1
    known = np.cumsum(inside[:-1], dtype=np.int8).view(np.bool_)
    known &= visible[prepared.part]
    shown = prepared.histories.keep(known)
    offsets = np.concatenate([[0], shown.offsets[people + 1]]).astype(np.int64)
    return Histories(offsets, shown.item, shown.event, shown.time)


def _only(histories: Histories, wanted: BoolArray) -> Histories:
    """The wanted rows alone, in order: quicker than ``select`` where most are wanted."""
    events = np.repeat(wanted, histories.lengths)
    offsets = np.concatenate([[0], np.cumsum(histories.lengths[wanted])]).astype(np.int64)
    return Histories(offsets, histories.item[events], histories.event[events], histories.time[events])


def _first_of_each_pair(question: IntArray, item: IntArray) -> BoolArray:
    """Whether no earlier row has the same (question, item)."""
    first = np.zeros(len(question), np.bool_)
    pairs = (question.astype(np.int64) << 32) | item
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


def _seen(question: IntArray, item: IntArray, histories: Histories) -> BoolArray:
    """Whether each target is in its question's history."""
    targets = (question.astype(np.int64) << 32) | item
    history = (histories.rows() << 32) | histories.item
    # The set of targets is much smaller than that of all events, so it is the one to look up in.
    known = pl.Series(targets).unique()
    again = pl.Series(history).filter(pl.Series(history).is_in(known.implode())).unique()
    return pl.Series(targets).is_in(again.implode()).to_numpy()
