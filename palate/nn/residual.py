"""Residual stages: the convolutions that pictures, frames, clips and spectrograms share.

After He et al., "Identity mappings in deep residual networks" (2016): what a block adds is computed of the
normalised maps, and nothing but the sum goes on,

    x ← x + W_3 ∗ relu(W_2 ∗ relu(W_1 ∗ norm(x)))

with W_1 and W_3 of size 1 and W_2, of half the filters, of the kernel's size (their bottleneck). The norm is
GroupNorm (Wu and He, 2018): it looks at one picture alone, so a picture's vector never depends on what else
is in the batch. W_3 begins at zero, so that every block begins as the identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from palate.errors import SettingsError

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
GROUP = 16
"""Filters that GroupNorm takes together."""


class ResidualBlock(nn.Module):
    """[n, filters, …] → the same shape."""

    def __init__(self, filters: int, kernel_size: int, axes: int = 2) -> None:
        super().__init__()
        convolution, half = CONVOLUTIONS[axes], max(filters // 2, 1)
        self.norm = group_norm(filters)
        self.reduce = convolution(filters, half, 1)
        self.inner = convolution(half, half, kernel_size, padding=kernel_size // 2)
        self.expand = convolution(half, filters, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.reduce(self.norm(x)))
        result: torch.Tensor = x + self.expand(functional.relu(self.inner(inner)))
        return result


class ResidualStages(nn.Module):
    """[n, channels, …, height, width] → [n, filters[-1], …, ⌈height / 2^(stages + 1)⌉, likewise the width].

    A first convolution halves height and width, and so does the first convolution of each stage; residual
    blocks follow it. The time of a volume keeps its length, and so does the width of anything behind the
    first ``width_halvings`` of these convolutions.

    Args:
        channels: of the input.
        filters: of each stage.
        kernel_size: of every filter along each axis, odd.
        blocks: residual blocks of each stage.
        axes: 2 for pictures, 3 for volumes of time × height × width.
        width_halvings: how often the width is halved; None is as often as the height.

    Raises:
        SettingsError: an even kernel, or no filters.
    """

    def __init__(
        self,
        channels: int,
        filters: Sequence[int],
        kernel_size: int,
        blocks: int,
        axes: int = 2,
        width_halvings: int | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise SettingsError(
                f"A kernel_size of {kernel_size} has no middle, which residual blocks need; take an odd one."
            )
        if not filters:
            raise SettingsError(
                "The list of filters is empty; wanted one number per stage, such as [32, 64]."
            )
        stem = max(filters[0] // 2, 1)
        layers: list[nn.Module] = [halving(channels, stem, kernel_size, axes), nn.ReLU()]
        for stage, (before, after) in enumerate(zip((stem, *filters), filters, strict=False), start=1):
            width = 2 if width_halvings is None or stage < width_halvings else 1
            layers.append(halving(before, after, kernel_size, axes, width))
            layers.extend(ResidualBlock(after, kernel_size, axes) for _ in range(blocks))
        self.layers = nn.Sequential(*layers, group_norm(filters[-1]), nn.ReLU())
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def initialise(module: nn.Module) -> None:
    """All convolutions and dense layers inside have weights of variance 2 / inputs (He et al., 2015) and no
    bias; dense layers, which no ReLU follows, 1 / inputs; the last of each residual branch is zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for block in module.modules():
        if isinstance(block, ResidualBlock):
            nn.init.zeros_(block.expand.weight)


def halving(before: int, after: int, kernel_size: int, axes: int, width: int = 2) -> nn.Module:
    """A convolution that halves the height, rounded up, and divides the width by ``width``."""
    padding = kernel_size // 2
    if axes == 3:
        return nn.Conv3d(before, after, kernel_size, stride=(1, 2, width), padding=padding)
    return nn.Conv2d(before, after, kernel_size, stride=(2, width), padding=padding)


def group_norm(filters: int) -> nn.GroupNorm:
    """Groups of ``GROUP`` filters; one group where that does not divide them."""
    return nn.GroupNorm(filters // GROUP if filters % GROUP == 0 else 1, filters)


def mean_and_max(maps: torch.Tensor) -> torch.Tensor:
    """[n, filters, …] → [n, 2 · filters]: how much of each filter's pattern there is, and the strongest."""
    flat = maps.flatten(2)
    return torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=1)
