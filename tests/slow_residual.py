"""The residual stages as their formula says, step by step, from a state of weights."""

from __future__ import annotations

import torch
from torch.nn import functional


def stages_by_hand(
    state: dict[str, torch.Tensor],
    x: torch.Tensor,
    blocks_per_stage: list[int],
    width_halvings: int | None = None,
) -> torch.Tensor:
    """[n, channels, …] → the last maps of ``ResidualStages`` under the name ``stages``."""
    axes = x.dim() - 2
    convolution = functional.conv3d if axes == 3 else functional.conv2d
    halving = (1, 2, 2)[-axes:]

    def convolve(x: torch.Tensor, name: str, stride: int | tuple[int, ...] = 1) -> torch.Tensor:
        weight = state[f"stages.layers.{name}.weight"]
        return convolution(x, weight, state[f"stages.layers.{name}.bias"], stride, weight.shape[-1] // 2)

    def normalise(x: torch.Tensor, name: str) -> torch.Tensor:
        size = 16 if x.shape[1] % 16 == 0 else x.shape[1]
        groups = x.reshape(len(x), x.shape[1] // size, -1)
        deviation = (groups.var(dim=2, keepdim=True, correction=0) + 1e-5).sqrt()
        flat = ((groups - groups.mean(dim=2, keepdim=True)) / deviation).reshape(x.shape)
        scale, shift = (
            state[f"stages.layers.{name}.{part}"].view(-1, *[1] * axes) for part in ("weight", "bias")
        )
        return flat * scale + shift

    x = functional.relu(convolve(x, "0", halving))
    layer = 2  # 1 is the ReLU
    for stage, blocks in enumerate(blocks_per_stage):
        kept = width_halvings is not None and stage + 1 >= width_halvings
        x = convolve(x, f"{layer}", (*halving[:-1], 1) if kept else halving)
        for block in range(layer + 1, layer + 1 + blocks):
            inner = functional.relu(convolve(normalise(x, f"{block}.norm"), f"{block}.reduce"))
            x = x + convolve(functional.relu(convolve(inner, f"{block}.inner")), f"{block}.expand")
        layer += 1 + blocks
    return functional.relu(normalise(x, f"{layer}"))


def shaken(encoder: torch.nn.Module) -> torch.nn.Module:
    """Every weight and bias away from where it began, so that none is multiplied by zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    return encoder.eval()


def silent_weights(encoder: torch.nn.Module, values: torch.Tensor) -> list[str]:
    """Weights that no gradient reaches."""
    answer = encoder(values)
    (answer * torch.randn(answer.shape)).sum().backward()
    return [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]


def accuracy_after_training(
    encoder: torch.nn.Module,
    training: tuple[torch.Tensor, torch.Tensor],
    new: tuple[torch.Tensor, torch.Tensor],
    steps: int = 40,
    batch: int = 64,
) -> float:
    """Share of new examples whose class a linear layer on the encoder tells, after some steps of AdamW."""
    values, classes = training
    network = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.dim, int(classes.max()) + 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(steps):
        part = torch.arange(step * batch, (step + 1) * batch) % len(values)
        optimiser.zero_grad()
        functional.cross_entropy(network(values[part]), classes[part]).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        return (network(new[0]).argmax(dim=1) == new[1]).float().mean().item()
