"""Causal convolution over packed histories: a few shifted reads and one matrix product.

For a history x_0, x_1, …, a kernel W of k taps and a dilation δ

    y_p = b + Σ_{j=0}^{k-1} x_{p − jδ} W_j ,        x_q = 0 for q < 0

so y_p depends on the present and the past only (van den Oord et al., "WaveNet", 2016). Histories lie
end to end; a tap that would reach into the neighbour's history reads zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Crossings:
    """Which positions' taps would leave their own history, worked out once per batch and lag."""

    def __init__(self, position_N: torch.Tensor) -> None:
        self.position = position_N
        self._found: dict[int, torch.Tensor] = {}

    def __getitem__(self, lag: int) -> torch.Tensor:
        """Indices n with ``position[n] < lag``, int64."""
        if lag not in self._found:
            self._found[lag] = (self.position < lag).nonzero().squeeze(1)
        return self._found[lag]


class _GatherTaps(torch.autograd.Function):
    """Its backward adds shifted slices; autograd's own would scatter tap by tap through index copies."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: torch.Tensor, kernel_size: int, dilation: int, crossings: Crossings
    ) -> torch.Tensor:
        N, D = x_ND.shape
        ctx.dilation, ctx.crossings, ctx.width = dilation, crossings, D
        taps = x_ND.new_empty(N, kernel_size * D)
        taps[:, :D] = x_ND
        for j in range(1, kernel_size):
            lag, columns = min(j * dilation, N), slice(j * D, (j + 1) * D)
            taps[lag:, columns] = x_ND[: N - lag]
            taps[:, columns].index_fill_(0, crossings[j * dilation], 0.0)
        return taps

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        N, D = gradient.shape[0], ctx.width
        result = gradient[:, :D].clone()
        for j in range(1, gradient.shape[1] // D):
            lag = min(j * ctx.dilation, N)
            tap = gradient[:, j * D : (j + 1) * D].index_fill(0, ctx.crossings[j * ctx.dilation], 0.0)
            result[: N - lag] += tap[lag:]
        return result, None, None, None


def gather_taps(x_ND: torch.Tensor, kernel_size: int, dilation: int, crossings: Crossings) -> torch.Tensor:
    """[N, kernel_size · D]: beside each position what its taps read, at lags 0, δ, 2δ, …::

    x 1 2 3 | 4 5   kernel_size 2, dilation 1   →   1 0, 2 1, 3 2 | 4 0, 5 4
    """
    if torch.compiler.is_exporting():
        # How many taps cross is not known before a graph runs, so it multiplies them by zero.
        lags = [j * dilation for j in range(1, kernel_size)]
        shifted = [functional.pad(x_ND, (0, 0, lag, 0))[: len(x_ND)] for lag in lags]
        inside = [(crossings.position >= lag).unsqueeze(1).to(x_ND.dtype) for lag in lags]
        return torch.cat([x_ND, *(tap * mask for tap, mask in zip(shifted, inside, strict=True))], dim=1)
    taps: torch.Tensor = _GatherTaps.apply(x_ND, kernel_size, dilation, crossings)  # type: ignore[no-untyped-call]
    return taps


class CausalConvolution(nn.Module):
    """y_p = b + Σ_j x_{p − jδ} W_j within each history; maps [N, D] to [N, out_width]."""

    def __init__(self, width: int, out_width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.weight = nn.Parameter(torch.empty(kernel_size * width, out_width))
        self.bias = nn.Parameter(torch.zeros(out_width))
        nn.init.uniform_(self.weight, -1 / math.sqrt(kernel_size * width), 1 / math.sqrt(kernel_size * width))

    def forward(self, x_ND: torch.Tensor, crossings: Crossings) -> torch.Tensor:
        return self.of_taps(gather_taps(x_ND, self.kernel_size, self.dilation, crossings))

    def of_taps(self, taps_NK: torch.Tensor) -> torch.Tensor:
        """The same where the taps lie side by side already, [N, kernel_size · width] → [N, out_width]."""
        return torch.addmm(self.bias, taps_NK, self.weight)
