"""What is asked, beside the history: for which type of event, and when.

    h' = h ⊙ (1 + G(q)) + B(q) ,   q = silu(v_type + v_gap + v_hour + v_weekday)

One gate per type asked for, and one per time (feature-wise modulation; Perez et al., 2018). A part that is
left open adds nothing to q, so h' = h where nothing is said, and asking for nothing costs nothing.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.schema import GAP_BUCKETS, HOURS, WEEKDAYS, Batch, Condition, QuestionPart
from palate.settings import ModelSettings

LEFT_OPEN = 0.5
"""Share of positions that do not say a part while training: one model answers with and without."""


def build_question(
    settings: ModelSettings, *, num_event_types: int, num_target_types: int, has_time: bool
) -> Question | None:
    """What ``settings`` allow to ask of these data; None where that is nothing."""
    asks_event = settings.question_event and num_target_types > 1
    asks_time = settings.question_time and has_time
    if not (asks_event or asks_time):
        return None
    return Question(settings.width, num_event_types if asks_event else 0, asks_time)


def next_event(batch: Batch[torch.Tensor]) -> Condition[torch.Tensor]:
    """What is true of the event after each position; all open behind the last one of a history."""
    # Behind the last position lies the next history's start, of which nothing is known.
    event, gap, hour, weekday = (
        functional.pad(column[1:], (0, 1)) for column in (batch.event, batch.gap, batch.hour, batch.weekday)
    )
    return Condition(event, gap, hour, weekday)


class Question(nn.Module):
    """States become answers to what is asked; G and B begin at zero."""

    def __init__(self, width: int, num_event_types: int, asks_time: bool) -> None:
        """A question that may name one of ``num_event_types`` (0: none), and a time if ``asks_time``."""
        super().__init__()
        self.event = nn.Embedding(num_event_types + 1, width, padding_idx=0) if num_event_types else None
        self.gap = nn.Embedding(GAP_BUCKETS, width, padding_idx=0) if asks_time else None
        self.hour = nn.Embedding(HOURS, width, padding_idx=0) if asks_time else None
        self.weekday = nn.Embedding(WEEKDAYS, width, padding_idx=0) if asks_time else None
        self.modulate = nn.Linear(width, 2 * width, bias=False)
        nn.init.zeros_(self.modulate.weight)

    @property
    def parts(self) -> tuple[QuestionPart, ...]:
        """What may be said."""
        return (
            *((QuestionPart.TIME,) if self.gap is not None else ()),
            *((QuestionPart.EVENT,) if self.event is not None else ()),
        )

    def forward(self, states_ND: torch.Tensor, condition: Condition[torch.Tensor]) -> torch.Tensor:
        """The states, each conditioned on what is asked there [N, D]; parts unknown here are not heard."""
        pairs = zip((self.event, self.gap, self.hour, self.weekday), condition, strict=True)
        q_ND = sum(embedding(index) for embedding, index in pairs if embedding is not None)
        gain_ND, shift_ND = self.modulate(functional.silu(q_ND)).chunk(2, dim=1)
        answers: torch.Tensor = states_ND * (1 + gain_ND) + shift_ND
        return answers

    @staticmethod
    def partly_open(condition: Condition[torch.Tensor]) -> Condition[torch.Tensor]:
        """The same, with each part, the type and the time, left open at a random half of the positions."""
        says_event, says_time = (
            torch.rand(2, len(condition.event), device=condition.event.device) >= LEFT_OPEN
        )
        return Condition(
            condition.event * says_event,
            condition.gap * says_time,
            condition.hour * says_time,
            condition.weekday * says_time,
        )
