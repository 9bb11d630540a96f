"""Losses of the next item. Each gives one loss per example and never builds [examples, catalogue]."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional

CHUNK_ELEMENTS = 1_000_000
"""Scores alive at a time: what stays in a processor's nearer caches."""
BLOCK = 64
"""Rows of the table are filled up to a multiple of this."""
SMALLEST_CHANCE = 1e-37
"""Chances below are counted as this; their logarithm would be minus infinity."""


class Bonuses(NamedTuple):
    """What is added to the scores of a few items at each position, as ragged lists::

        offsets  0 0 1 3      position 0 has none, position 1 has item 4, position 2 items 4 and 6
        item     4 4 6

    An item may stand in one list several times; its bonuses add up.
    """

    offsets: torch.Tensor  # int64 [N + 1]
    item: torch.Tensor  # int64 [S], rows of the table
    value: torch.Tensor  # float32 [S]

    def of_rows(self, rows: torch.Tensor) -> Bonuses:
        """The lists of these positions, in the order asked."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = functional.pad(lengths.cumsum(0), (1, 0))
        where = torch.arange(int(offsets[-1]), device=rows.device)
        where += torch.repeat_interleave(starts - offsets[:-1], lengths)
        return Bonuses(offsets, self.item[where], self.value[where])

    def add_to(self, scores_NV: torch.Tensor) -> None:
        """The scores have their bonuses, in place."""
        row_S = torch.repeat_interleave(self.offsets.diff())
        scores_NV.view(-1).index_add_(0, row_S * scores_NV.shape[1] + self.item, self.value)

    def behind(self, first: int) -> Bonuses:
        """The same for a table that leaves its ``first`` rows out."""
        return self._replace(item=self.item - first)


class _CatalogueSoftmax(torch.autograd.Function):
    """Loss and all gradients in one pass over chunks of rows.

    Softmax cross-entropy needs the probabilities for the loss and again for the gradient. Keeping them
    costs [N, V] memory and recomputing them a third matrix product, so the gradient is taken while they
    are at hand. That is right as long as all rows get the same incoming gradient, as they do when the
    losses are summed or averaged; the weights of rows are therefore an input here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h_ND: torch.Tensor,
        table_VD: torch.Tensor,
        target_N: torch.Tensor,
        weight_N: torch.Tensor,
        offsets: torch.Tensor | None,
        item_S: torch.Tensor | None,
        value_S: torch.Tensor | None,
    ) -> torch.Tensor:
        N, V = len(h_ND), len(table_VD)
        # Products of odd sizes are several times slower than those of whole blocks.
        table_VD = functional.pad(table_VD, (0, 0, 0, -V % BLOCK))
        width = len(table_VD)
        weight_N1 = weight_N.unsqueeze(1).to(h_ND.dtype)
        weighted_ND = h_ND * weight_N1
        loss_N = torch.empty_like(weight_N)
        gradient_h = torch.empty_like(h_ND)
        gradient_table = torch.zeros_like(table_VD, dtype=torch.float32)
        gradient_value = None if value_S is None else torch.empty_like(value_S)
        rows = max(1, min(N, CHUNK_ELEMENTS // V))
        # One piece of memory for all chunks: what is allocated anew has to be brought in page by page.
        buffer_RV = h_ND.new_empty(rows, width)
        bounds = [] if offsets is None else [*offsets[:-1:rows].tolist(), int(offsets[-1])]
        for chunk, start in enumerate(range(0, N, rows)):
            part = slice(start, min(start + rows, N))
            h, target = h_ND[part], target_N[part].unsqueeze(1)
            scores = torch.mm(h, table_VD.t(), out=buffer_RV[: len(h)])
            scores[:, V:] = -torch.inf
            if offsets is not None and item_S is not None and value_S is not None:
                pairs = slice(bounds[chunk], bounds[chunk + 1])
                row_S = torch.repeat_interleave(offsets[part.start : part.stop + 1].diff())
                place_S = row_S * width + item_S[pairs]
                scores.view(-1).index_add_(0, place_S, value_S[pairs].to(scores.dtype))
            slope = torch.softmax(scores, dim=1, out=scores)
            chance = slope.gather(1, target)
            loss_N[part] = -chance.squeeze(1).float().clamp_min(SMALLEST_CHANCE).log()
            # As a sum over one line of numbers: a scatter in bfloat16 copies all of them, twice.
            place = torch.arange(len(h), device=h.device) * width + target.squeeze(1)
            slope.view(-1).index_add_(0, place, slope.new_full((len(h),), -1.0))
            if gradient_value is not None and ctx.needs_input_grad[6]:
                by_row = weight_N[part].index_select(0, row_S)
                gradient_value[pairs] = slope.view(-1).index_select(0, place_S).float() * by_row
            torch.mm(slope, table_VD, out=gradient_h[part])
            gradient_table += slope.t() @ weighted_ND[part]
        ctx.save_for_backward(gradient_h.mul_(weight_N1), gradient_table[:V], gradient_value)
        return loss_N.mul_(weight_N)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_N,) = gradients
        gradient_h, gradient_table, gradient_value = ctx.saved_tensors
        scale = gradient_N[0] if len(gradient_N) else gradient_N.new_ones(())
        if not bool((gradient_N == scale).all()):
            raise ValueError("catalogue_softmax: sum or average its losses; give row weights as an argument.")
        value = gradient_value * scale if ctx.needs_input_grad[6] else None
        return gradient_h * scale, gradient_table * scale, None, None, None, None, value


def catalogue_softmax(
    h_ND: torch.Tensor,
    table_VD: torch.Tensor,
    target_N: torch.Tensor,
    weight_N: torch.Tensor,
    bonuses: Bonuses | None = None,
) -> torch.Tensor:
    """weight_n · (log Σ_v exp(s_nv) − s_{n, target_n}) with s_nv = h_n · e_v + bonus_nv, float32 [N].

    The mean over the whole catalogue, in memory of one chunk of rows. Everything but the table's gradient is
    taken in the type of ``h_ND``, or in autocast's.
    """
    if torch.is_autocast_enabled(h_ND.device.type):  # what a network gives back was widened on its way
        h_ND = h_ND.to(torch.get_autocast_dtype(h_ND.device.type))
    arguments = (h_ND, table_VD.to(h_ND.dtype), target_N, weight_N, *(bonuses or (None, None, None)))
    loss_N: torch.Tensor = _CatalogueSoftmax.apply(*arguments)  # type: ignore[no-untyped-call]
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
