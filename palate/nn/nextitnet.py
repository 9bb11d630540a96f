"""NextItNet: residual blocks of two dilated causal convolutions.

After Yuan, Karatzoglou, Arapakis, Jose and He, "A simple convolutional generative network for next item
recommendation" (WSDM 2019), their residual block (b), and their code (github.com/fajieyuan/nextitnet):

    x ← x + relu(norm(conv_{2δ}(relu(norm(conv_δ(x))))))        h = relu(x) W + b

Theirs are the block, LayerNorm behind each convolution with ε = 1e-8, the second dilation twice the
first, the ReLU before the output layer, and nothing else: no norm in front, no feed-forward layer, no
dropout. They give kernel size 3 and, for block after block, the dilations 1, 4, 1, 4, … .

Settings are ``model.blocks``, ``model.kernel_size`` and ``model.dilations``, each block's δ; for theirs
``model.dilations=[1, 4]``. ``model.dropout`` acts on the events only, before this network.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.nn.conv import CausalConvolution, Crossings
from palate.settings import ModelSettings

EPSILON = 1e-8


class ResidualBlock(nn.Module):
    """x + relu(norm(conv(relu(norm(conv(x)))))), the second dilation twice the first."""

    def __init__(self, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.first = CausalConvolution(width, width, kernel_size, dilation)
        self.first_norm = nn.LayerNorm(width, eps=EPSILON)
        self.second = CausalConvolution(width, width, kernel_size, 2 * dilation)
        self.second_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x_ND: torch.Tensor, crossings: Crossings) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        inner = functional.relu(self.first_norm(self.first(x_ND, crossings)))
        return x_ND + functional.relu(self.second_norm(self.second(inner, crossings)))


class NextItNet(nn.Module):
    """Residual blocks, then ReLU and a dense layer."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        dilations = settings.dilations
        self.blocks = nn.ModuleList(
            ResidualBlock(settings.width, settings.kernel_size, dilations[b % len(dilations)])
            for b in range(settings.blocks)
        )
        self.dense = nn.Linear(settings.width, settings.width)

    def forward(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        crossings = Crossings(position_N)
        for block in self.blocks:
            x_ND = block(x_ND, crossings)
        result: torch.Tensor = self.dense(functional.relu(x_ND))
        return result
