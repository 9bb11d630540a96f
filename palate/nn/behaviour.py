"""The behaviour encoder: gated dilated causal convolution blocks over packed histories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from palate.nn.conv import CausalConvolution, Crossings, gather_taps
from palate.nn.dropout import Dropout
from palate.settings import ModelSettings

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "glu": functional.glu,  # gated linear unit (Dauphin et al., 2017): a ∘ sigmoid(b), half as wide
    "silu": functional.silu,
    "gelu": functional.gelu,
    "relu": functional.relu,
}


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, "GLU variants improve transformer", 2020): (silu(xA) ∘ xB) C."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, 2 * hidden)
        self.fall = nn.Linear(hidden, width)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        gate, value = self.rise(x_ND).chunk(2, dim=-1)
        result: torch.Tensor = self.fall(functional.silu(gate) * value)
        return result


class Block(nn.Module):
    """x + drop(activation(conv(norm(x)))), then x + drop(feed_forward(norm(x))).

    Pre-norm (Xiong et al., 2020) with LayerNorm: batch norm would mix people, which private training
    and single requests cannot have.
    """

    def __init__(self, settings: ModelSettings, dilation: int) -> None:
        super().__init__()
        width = settings.width
        self.activation = ACTIVATIONS[settings.activation]
        self.norm = nn.LayerNorm(width)
        out_width = 2 * width if settings.activation == "glu" else width
        self.convolution = CausalConvolution(width, out_width, settings.kernel_size, dilation)
        hidden = round(settings.feed_forward * width)
        self.feed_forward_norm = nn.LayerNorm(width) if hidden else None
        self.feed_forward = FeedForward(width, hidden) if hidden else None
        self.dropout = Dropout(settings.dropout)

    def forward(self, x_ND: torch.Tensor, crossings: Crossings) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        layer = self.convolution
        return self._added(x_ND, gather_taps(self.norm(x_ND), layer.kernel_size, layer.dilation, crossings))

    def at(self, x_BRD: torch.Tensor, inside_BR: torch.Tensor, places_SK: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives at S of the R positions that are known of each history, [B, S, D].

        Args:
            inside_BR: whether each of the positions is one of the history; others read zero.
            places_SK: where among the R the taps of each of the S lie, its own position first.
        """
        B, S = len(x_BRD), len(places_SK)
        normed = self.norm(x_BRD) * inside_BR.unsqueeze(2).to(x_BRD.dtype)
        taps = normed.index_select(1, places_SK.flatten())
        own = x_BRD.index_select(1, places_SK[:, 0]).flatten(0, 1)
        return self._added(own, taps.view(B * S, -1)).view(B, S, -1)

    def _added(self, x_ND: torch.Tensor, taps_NK: torch.Tensor) -> torch.Tensor:
        x_ND = x_ND + self.dropout(self.activation(self.convolution.of_taps(taps_NK)))
        if self.feed_forward is None or self.feed_forward_norm is None:
            return x_ND
        result: torch.Tensor = x_ND + self.dropout(self.feed_forward(self.feed_forward_norm(x_ND)))
        return result


class LongMemory(nn.Module):
    """x_p + norm(Σ_{q ≤ p} x_q / √(p + 1)) W: every event hears all before it in the same history.

    Convolutions reach back a few dozen events; a taste shown once a year ago reaches today only here.
    The root keeps the sum's size the same for short and long histories.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width, bias=False)

    def forward(
        self, x_ND: torch.Tensor, position_N: torch.Tensor, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history; only the rows ``kept`` where they are named."""
        sums = causal_sum(x_ND, position_N) * (position_N + 1).rsqrt().unsqueeze(1).to(x_ND.dtype)
        if kept is not None:
            x_ND, sums = x_ND.index_select(0, kept), sums.index_select(0, kept)
        result: torch.Tensor = x_ND + self.projection(self.norm(sums))
        return result


class _CausalSum(torch.autograd.Function):
    """Backward it is the same sum from the other end, less what belongs to the next history."""

    @staticmethod
    def forward(ctx: Any, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(position_N)
        running_DN = running_sum(x_ND)
        before = torch.arange(len(x_ND), device=x_ND.device) - position_N
        return (running_DN[:, 1:] - running_DN[:, before]).t().to(x_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_ND,), (position_N,) = gradients, ctx.saved_tensors
        running_DN = running_sum(gradient_ND)
        N = len(position_N)
        begins = (position_N == 0).nonzero().squeeze(1)
        ends = torch.cat([begins[1:], begins.new_tensor([N])])
        end = ends.repeat_interleave(ends - begins)
        return (running_DN[:, end] - running_DN[:, :N]).t().to(gradient_ND.dtype), None


def running_sum(x_ND: torch.Tensor) -> torch.Tensor:
    """Sums of the first 0, 1, …, N rows, [D, N + 1]; in float64, and along memory, which is quicker."""
    return functional.pad(x_ND.t().double().contiguous(), (1, 0)).cumsum_(dim=1)


def causal_sum(x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
    """Row n is the sum of the rows of its own history up to n::

        x 1 2 3 | 4 5   →   1 3 6 | 4 9

    One running sum over the whole batch, less what it was when each history began; in float64, so
    that neighbours leave nothing behind that float32 could see.
    """
    sums: torch.Tensor = _CausalSum.apply(x_ND, position_N)  # type: ignore[no-untyped-call]
    return sums


class BehaviourEncoder(nn.Module):
    """Turns packed events [N, D] into what is known after each of them, [N, D].

    Causal: row n depends only on rows of the same history at or before n.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.memory = LongMemory(settings.width) if settings.memory else None
        dilations = settings.dilations
        self.blocks = nn.ModuleList(
            Block(settings, dilations[b % len(dilations)]) for b in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(settings.width)
        layers = [block.convolution for block in self._all_blocks()]
        self.cone = cone_of(layers)
        self.places = [
            [[known.index(lag + j * layer.dilation) for j in range(layer.kernel_size)] for lag in behind]
            for layer, known, behind in zip(layers, self.cone[:-1], self.cone[1:], strict=True)
        ]

    def forward(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        if self.memory is not None:
            x_ND = self.memory(x_ND, position_N)
        crossings = Crossings(position_N)
        for block in self.blocks:
            x_ND = block(x_ND, crossings)
        result: torch.Tensor = self.norm(x_ND)
        return result

    @property
    def reach(self) -> int:
        """Positions that a state hears of through the blocks, its own included."""
        return 1 + self.cone[0][-1]

    def last_states(self, x_ND: torch.Tensor, position_N: torch.Tensor, last_B: torch.Tensor) -> torch.Tensor:
        """``forward(...)[last_B]``, the states of each history's last position, [B, D], in less time.

        Behind the memory, which hears everything, a block computes only the positions that the last one hears
        of through the blocks that follow.
        """
        device = x_ND.device
        lags = [torch.tensor(lags, device=device) for lags in self.cone]
        place_B1 = position_N.index_select(0, last_B).unsqueeze(1)
        inside = [lag <= place_B1 for lag in lags]
        # Before a history begins lies its neighbour, or nothing: rows that no tap reads.
        kept = (last_B.unsqueeze(1) - lags[0]).clamp_min(0)
        flat = kept.flatten()
        x_KD = x_ND.index_select(0, flat) if self.memory is None else self.memory(x_ND, position_N, flat)
        x_BRD = x_KD.view(*kept.shape, x_ND.shape[1])
        for block, inside_BR, places in zip(self._all_blocks(), inside[:-1], self.places, strict=True):
            x_BRD = block.at(x_BRD, inside_BR, torch.tensor(places, device=device))
        result: torch.Tensor = self.norm(x_BRD[:, 0])
        return result

    def _all_blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]


def cone_of(layers: Sequence[CausalConvolution]) -> list[list[int]]:
    """How many positions behind the last one those lie that it hears of: before each layer, and behind all.

    Kernels of 3 taps with dilations 1 and 4::

        before both  0 1 2 4 5 6 8 9 10      between them  0 4 8      behind both  0
    """
    cone = [[0]]
    for layer in reversed(layers):
        reads = {lag + j * layer.dilation for lag in cone[0] for j in range(layer.kernel_size)}
        cone.insert(0, sorted(reads))
    return cone
