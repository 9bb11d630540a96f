"""What an item is, read off the content part of its vector: a linear map, and softmax or sigmoids."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.nn.dropout import Dropout
from palate.nn.item import ID_STD
from palate.schema import FIRST_ID, FieldKind, FieldShape

CONTENT_SCALE = 1 / ID_STD
"""Content vectors begin as small as id vectors; a linear map wants inputs of unit size."""


class ClassHead(nn.Module):
    """Logits of the classes of one field: z = W · dropout(c_v / 0.02) + b, with c_v the sum of the fields.

    The id vector is no input, so items that nobody has met are classified like all others. It begins at
    zero, where every class is as likely as any other.
    """

    threshold: torch.Tensor

    def __init__(self, shape: FieldShape, width: int, dropout: float) -> None:
        super().__init__()
        self.name = shape.name
        self.several = shape.kind == FieldKind.CATEGORIES
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(width, shape.size - FIRST_ID)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        # Probability from which on one of several labels is given; chosen after training.
        self.register_buffer("threshold", torch.tensor(0.5))

    def forward(self, content_RD: torch.Tensor) -> torch.Tensor:
        """Logits [rows, classes]."""
        logits: torch.Tensor = self.linear(self.dropout(content_RD * CONTENT_SCALE))
        return logits

    def losses(self, logits_RK: torch.Tensor, truth_RK: torch.Tensor) -> torch.Tensor:
        """Of each row, float32 [rows].

        One label: −log softmax(z)_k. Several: −log p of each label that is there and −log(1 − p) of each that
        is not, p = sigmoid(z), the mean over all labels.
        """
        logits_RK = logits_RK.float()
        if self.several:
            return functional.binary_cross_entropy_with_logits(
                logits_RK, truth_RK.float(), reduction="none"
            ).mean(dim=1)
        return functional.cross_entropy(logits_RK, truth_RK.float().argmax(dim=1), reduction="none")

    def probabilities(self, logits_RK: torch.Tensor) -> torch.Tensor:
        """[rows, classes]; of one label they add up to 1."""
        return logits_RK.float().sigmoid() if self.several else logits_RK.float().softmax(dim=1)
