"""The floor: the mean of all events so far, without any order.

    h_p = norm(1 / (p + 1) Σ_{q ≤ p} x_q) W + b

A history is averaged like this before the dense layers of Covington, Adams and Sargin, "Deep neural
networks for YouTube recommendations" (RecSys 2016). What a network that reads order adds has to show
above it.
"""

from __future__ import annotations

import torch
from torch import nn

from palate.nn.behaviour import causal_sum
from palate.settings import ModelSettings


class Pooling(nn.Module):
    """Mean of the events so far, start position included → LayerNorm → one dense layer."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.dense = nn.Linear(settings.width, settings.width)

    def forward(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        mean = causal_sum(x_ND, position_N) / (position_N + 1).unsqueeze(1)
        result: torch.Tensor = self.dense(self.norm(mean))
        return result
