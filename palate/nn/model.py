"""The whole network: item tower → events → behaviour encoder → scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from palate.nn.again import build_again
from palate.nn.behaviour import BehaviourEncoder
from palate.nn.classes import ClassHead
from palate.nn.dropout import Dropout
from palate.nn.encoders import build_behaviour
from palate.nn.item import ID_STD, ItemTower
from palate.nn.loss import Bonuses
from palate.nn.question import build_question, next_event
from palate.schema import GAP_BUCKETS, HOURS, WEEKDAYS, Batch, BoolArray, Content, FieldShape
from palate.settings import ModelSettings

EVENT_SCALE = 1 / ID_STD
"""Item vectors begin small, so that the first scores over the catalogue are nearly even, but enter the
behaviour encoder at unit size: beside blocks' outputs of that size they would not be heard, and training
would stand still for its first passes."""


class Vectors(NamedTuple):
    """What one pass through the network gives."""

    table: torch.Tensor  # [V or rows, D] item vectors
    states: torch.Tensor  # [N, D] what is known after each position
    bonuses: Bonuses | None = None  # of items that were met before, added to their scores
    open: Vectors | None = None  # the same where nothing is asked, if the states above answer a question
    rows: torch.Tensor | None = None  # int64 [rows], the items of the table; None is the whole catalogue


class TasteModel(nn.Module):
    """A causal convolutional network over histories whose items are described by their content.

    The same item vectors are read on the way in and scored on the way out, so an item that has never
    been bought is understood in a history and can be recommended.
    """

    def __init__(
        self,
        settings: ModelSettings,
        content: Content,
        warm: BoolArray,
        *,
        num_ids: int,
        num_event_types: int,
        has_time: bool,
        num_target_types: int = 1,
        classes: tuple[FieldShape, ...] = (),
    ) -> None:
        """A network with fresh weights.

        Args:
            content: of every item, reserved rows included.
            warm: bool [num_ids], the items that training will meet.
            num_ids: items with a row for an id vector; content may have more, added after training.
            num_event_types: types of event that histories may hold.
            has_time: whether the times of events mean anything.
            num_target_types: types of event that are predicted.
            classes: fields that are predicted from content, none of which ``content`` may hold.
        """
        super().__init__()
        self.settings = settings
        self.has_time = has_time = has_time and settings.time
        self.items = ItemTower(settings, content, warm[:num_ids], num_ids)
        self.event = nn.Embedding(num_event_types + 1, settings.width) if num_event_types > 1 else None
        self.gap = nn.Embedding(GAP_BUCKETS, settings.width) if has_time else None
        self.hour = nn.Embedding(HOURS, settings.width) if has_time else None
        self.weekday = nn.Embedding(WEEKDAYS, settings.width) if has_time else None
        self.dropout = Dropout(settings.dropout)
        self.behaviour = build_behaviour(settings)
        self.again = build_again(settings, has_time)
        self.question = build_question(
            settings, num_event_types=num_event_types, num_target_types=num_target_types, has_time=has_time
        )
        for embedding in (self.event, self.gap, self.hour, self.weekday):
            if embedding is not None:
                nn.init.zeros_(embedding.weight)  # they begin silent, beside item vectors of size 0.02
        self.heads = nn.ModuleList(ClassHead(shape, settings.width, settings.dropout) for shape in classes)

    def class_heads(self) -> list[ClassHead]:
        """One head per predicted field, in the order given."""
        return [head for head in self.heads if isinstance(head, ClassHead)]

    def forward(self, batch: Batch[torch.Tensor], rows: torch.Tensor | None = None) -> Vectors:
        """Vectors of the items and of every position of the batch.

        Where questions may say something, each position in training is asked what is true of its next
        event, or part of it; the answer without any of it is under ``open``.

        Args:
            batch: item ids are rows of the table: of the whole catalogue, or, where ``rows`` is given,
                indices into ``rows``.
            rows: int64 ids of the items to describe; None describes the whole catalogue.
        """
        table = self.items(rows)
        states = self.states(batch, table)
        plain = self._vectors(table, states, batch)._replace(rows=rows)
        if self.question is None or not self.training:
            return plain
        answers = self.question(states, self.question.partly_open(next_event(batch)))
        return self._vectors(table, answers, batch)._replace(open=plain, rows=rows)

    def _vectors(self, table: torch.Tensor, states: torch.Tensor, batch: Batch[torch.Tensor]) -> Vectors:
        bonuses = self.again(states, table, batch.past) if self.again is not None and batch.past else None
        return Vectors(table, states, bonuses)

    def states(self, batch: Batch[torch.Tensor], table: torch.Tensor) -> torch.Tensor:
        """What is known after each position [N, D], given the items' vectors."""
        states: torch.Tensor = self.behaviour(self._events(batch, table), batch.position)
        return states

    def last_states(self, batch: Batch[torch.Tensor], table: torch.Tensor) -> torch.Tensor:
        """``states(...)[batch.last]`` [B, D], where possible without computing the others."""
        return self.last_of(self._events(batch, table), batch.position, batch.last)

    def last_of(self, x_ND: torch.Tensor, position_N: torch.Tensor, last_B: torch.Tensor) -> torch.Tensor:
        """The state after each history's last event [B, D], of what ``events`` gave."""
        if isinstance(self.behaviour, BehaviourEncoder):
            return self.behaviour.last_states(x_ND, position_N, last_B)
        states: torch.Tensor = self.behaviour(x_ND, position_N)[last_B]
        return states

    def _events(self, batch: Batch[torch.Tensor], table: torch.Tensor) -> torch.Tensor:
        vectors_ND = functional.embedding(batch.item, table)
        return self.events(vectors_ND, batch.event, batch.gap, batch.hour, batch.weekday)

    def events(
        self,
        vectors_ND: torch.Tensor,
        event_N: torch.Tensor,
        gap_N: torch.Tensor,
        hour_N: torch.Tensor,
        weekday_N: torch.Tensor,
    ) -> torch.Tensor:
        """What the behaviour encoder reads, [N, D], of items with these vectors; the rest as in ``Batch``."""
        x_ND = vectors_ND * EVENT_SCALE
        if self.event is not None:
            x_ND = x_ND + self.event(event_N)
        if self.gap is not None and self.hour is not None and self.weekday is not None:
            x_ND = x_ND + self.gap(gap_N) + self.hour(hour_N) + self.weekday(weekday_N)
        if torch.is_autocast_enabled(x_ND.device.type):
            # From here on everything stays in autocast's type, instead of going back and forth.
            x_ND = x_ND.to(torch.get_autocast_dtype(x_ND.device.type))
        result: torch.Tensor = self.dropout(x_ND)
        return result
