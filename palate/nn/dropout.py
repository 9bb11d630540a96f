"""Dropout whose random bits cost little on a processor.

torch draws one random float per element, on one thread: for wide batches that took longer than the
network's matrix products. Here one random byte per element decides, eight of them drawn at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

LEVELS = 256
"""Values of a byte: a probability is rounded to a multiple of 1/256."""


class Dropout(nn.Module):
    """Each element is zero with probability p, and 1 / (1 − p) times itself otherwise; only in training.

    (Srivastava et al., "Dropout", 2014.) Draws follow ``torch.manual_seed``. On a processor p is rounded to a
    multiple of 1/256, and the factor is the exact inverse of what is kept on average.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.dropped_levels = min(round(probability * LEVELS), LEVELS - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape and type."""
        if not self.training or not self.probability:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.probability)
        return x * random_mask(x, self.dropped_levels)


def random_mask(x: torch.Tensor, dropped_levels: int) -> torch.Tensor:
    """Like x in shape and type: 0 in ``dropped_levels`` of 256 cases, else what keeps the mean at 1."""
    seed = int(torch.randint(2**62, ()))
    words = np.random.Generator(np.random.SFC64(seed)).integers(
        0, 2**64, (x.numel() + 7) // 8, dtype=np.uint64
    )
    kept = np.greater_equal(words.view(np.uint8)[: x.numel()], dropped_levels)
    # As bytes, not as booleans: torch converts those one by one.
    mask = torch.from_numpy(kept.view(np.uint8)).view(x.shape).to(x.dtype)
    return mask.mul_(LEVELS / (LEVELS - dropped_levels))
