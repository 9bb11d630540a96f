"""Taking again what was met before: a score for the items of the own past.

    s_nv = h_n · e_v + again_nv ,   again_nv = 0 for items that were never met

The vectors of items cannot say "this very one, once more" for every item; and where nobody ever takes a
thing twice, learning to keep silent about some hundred items per person costs them much of their room.
"""

from __future__ import annotations

import torch
from torch import nn

from palate.nn.loss import Bonuses
from palate.schema import GAP_BUCKETS, LAG_BUCKETS, MOST_TIMES, NEVER, Past
from palate.settings import ModelSettings

PACE = 20.0
"""The tables learn so many times as fast as vectors: a step of the optimiser moves a weight by the
learning rate, and what somebody takes again may be worth five or more on the scale of scores."""


def build_again(settings: ModelSettings, has_time: bool) -> NeverAgain | LearnedAgain | None:
    """What ``settings.again`` names; None ignores the past. "auto" has to be decided before."""
    match settings.again:
        case "never":
            return NeverAgain()
        case "learned":
            return LearnedAgain(settings.width, has_time)
    return None


class NeverAgain(nn.Module):
    """Nothing is taken twice."""

    def forward(self, states_ND: torch.Tensor, table_VD: torch.Tensor, past: Past[torch.Tensor]) -> Bonuses:  # noqa: ARG002
        """``NEVER`` for every item of the past."""
        return Bonuses(past.offsets, past.item, torch.full_like(past.item, NEVER, dtype=torch.float32))


class LearnedAgain(nn.Module):
    """again_nv = W_{lag} · h_n + w · e_v + a_{lag} + b_{times} + c_{since}.

    How many events ago v was met (which the state may weigh), what v is, how often it was met, and how
    long ago. All begin at zero.
    """

    def __init__(self, width: int, has_time: bool) -> None:
        super().__init__()
        self.by_state = nn.Linear(width, LAG_BUCKETS, bias=False)
        self.by_item = nn.Linear(width, 1, bias=False)
        self.lag = nn.Parameter(torch.zeros(LAG_BUCKETS))
        self.times = nn.Parameter(torch.zeros(MOST_TIMES + 1))
        self.since = nn.Parameter(torch.zeros(GAP_BUCKETS)) if has_time else None
        nn.init.zeros_(self.by_state.weight)
        nn.init.zeros_(self.by_item.weight)

    def forward(self, states_ND: torch.Tensor, table_VD: torch.Tensor, past: Past[torch.Tensor]) -> Bonuses:
        """The bonus of every item of the past, float32."""
        row_S = torch.repeat_interleave(past.offsets.diff())
        by_item_S = self.by_item(table_VD).float().squeeze(1).index_select(0, past.item)
        value = self.values(states_ND, row_S, by_item_S, past.lag, past.times, past.since)
        return Bonuses(past.offsets, past.item, value)

    def values(
        self,
        states_ND: torch.Tensor,
        row_S: torch.Tensor,
        by_item_S: torch.Tensor,
        lag_S: torch.Tensor,
        times_S: torch.Tensor,
        since_S: torch.Tensor,
    ) -> torch.Tensor:
        """The bonuses alone, float32 [S]: ``row_S`` says of whose state, ``by_item_S`` are w · e_v."""
        by_state = self.by_state(states_ND).float() + PACE * self.lag
        value: torch.Tensor = by_state.view(-1).index_select(0, row_S * LAG_BUCKETS + lag_S)
        value = value + by_item_S + PACE * self.times.index_select(0, times_S)
        if self.since is not None:
            value = value + PACE * self.since.index_select(0, since_S)
        return value
