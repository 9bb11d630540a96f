"""Losses of the next item. Each gives one loss per example and never builds [examples, catalogue]."""

from __future__ import annotations

from typing import Any

import torch

CHUNK_ELEMENTS = 4_000_000
"""Scores alive at a time: 16 MB of float32, near the size of a processor's cache."""


class _CatalogueSoftmax(torch.autograd.Function):
    """Loss and both gradients in one pass over chunks of rows.

    Softmax cross-entropy needs the probabilities for the loss and again for the gradient. Keeping them
    costs [N, V] memory and recomputing them a third matrix product, so the gradient is taken while they
    are at hand. That is right as long as all rows get the same incoming gradient, as they do when the
    losses are summed or averaged; the weights of rows are therefore an input here.
    """

    @staticmethod
    def forward(
        ctx: Any, h_ND: torch.Tensor, table_VD: torch.Tensor, target_N: torch.Tensor, weight_N: torch.Tensor
    ) -> torch.Tensor:
        learning = any(ctx.needs_input_grad)
        loss_N = h_ND.new_empty(len(h_ND), dtype=torch.float32)
        gradient_h = torch.empty_like(h_ND, dtype=torch.float32)
        gradient_table = torch.zeros_like(table_VD, dtype=torch.float32)
        rows = max(1, CHUNK_ELEMENTS // len(table_VD))
        for start in range(0, len(h_ND), rows):
            part = slice(start, start + rows)
            h, target, weight = h_ND[part], target_N[part].unsqueeze(1), weight_N[part].unsqueeze(1)
            scores = (h @ table_VD.t()).float()
            normaliser = scores.logsumexp(dim=1, keepdim=True)
            loss_N[part] = (weight * (normaliser - scores.gather(1, target))).squeeze(1)
            if learning:
                slope = scores.sub_(normaliser).exp_().mul_(weight)
                slope.scatter_add_(1, target, -weight)
                slope = slope.to(h.dtype)
                gradient_h[part] = slope @ table_VD
                gradient_table += slope.t() @ h
        ctx.save_for_backward(gradient_h, gradient_table)
        return loss_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_N,) = gradients
        gradient_h, gradient_table = ctx.saved_tensors
        scale = gradient_N[0] if len(gradient_N) else gradient_N.new_ones(())
        if not bool((gradient_N == scale).all()):
            raise ValueError("catalogue_softmax: sum or average its losses; give row weights as an argument.")
        return gradient_h * scale, gradient_table * scale, None, None


def catalogue_softmax(
    h_ND: torch.Tensor, table_VD: torch.Tensor, target_N: torch.Tensor, weight_N: torch.Tensor
) -> torch.Tensor:
    """weight_n · (log Σ_v exp(h_n · e_v) − h_n · e_{target_n}), float32 [N].

    The mean over the whole catalogue, in memory of one chunk of rows. Under autocast the products are
    taken in autocast's type and everything else in float32.
    """
    if torch.is_autocast_enabled(h_ND.device.type):
        dtype = torch.get_autocast_dtype(h_ND.device.type)
        h_ND, table_VD = h_ND.to(dtype), table_VD.to(dtype)
    loss_N: torch.Tensor = _CatalogueSoftmax.apply(h_ND, table_VD, target_N, weight_N)  # type: ignore[no-untyped-call]
    return loss_N


def sampled_softmax(
    h_ND: torch.Tensor,
    positive_ND: torch.Tensor,
    negative_SD: torch.Tensor,
    target_N: torch.Tensor,
    sampled_S: torch.Tensor,
    log_count_positive_N: torch.Tensor,
    log_count_negative_S: torch.Tensor,
) -> torch.Tensor:
    """Softmax over the target and S shared samples, an estimate of the softmax over the catalogue, [N].

    Each score is lessened by the logarithm of how often its item was expected to be drawn (Bengio and
    Senécal, "Adaptive importance sampling", 2008), so that frequent samples do not count twice, and a
    sample that is the row's own target is taken out (an accidental hit).
    """
    positive = (h_ND * positive_ND).sum(dim=1).float() - log_count_positive_N
    negative = (h_ND @ negative_SD.t()).float() - log_count_negative_S
    negative = negative.masked_fill(target_N.unsqueeze(1) == sampled_S, float("-inf"))
    return torch.logaddexp(positive, negative.logsumexp(dim=1)) - positive
