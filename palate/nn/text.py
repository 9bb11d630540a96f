"""The text encoder: embeddings → convolutions of several widths → max over time → dense.

After Kim, "Convolutional neural networks for sentence classification" (2014). For tokens e_0 … e_{L−1}
and a kernel W of k taps

    y_t = b + Σ_{j=0}^{k-1} e_{t+j} W_j ,  0 ≤ t < L,  e_q = 0 for q ≥ L        z = max(0, max_t y_t)

A kernel longer than the text is thereby still read once at every token. In learning from items, not in passes
over histories, each token is read as zeros with a probability, and so is each number of z: a text that is
known by a single rare word is learned by heart.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.nn.dropout import Dropout
from palate.schema import PADDING
from palate.settings import TextSettings

EMBEDDING_STD = 0.1
"""Small, so that what training moves soon outweighs tokens that no training text contained."""


class TextEncoder(nn.Module):
    """Maps tokens [rows, T], 0 behind the end, to [rows, dim]; padding is never read."""

    def __init__(self, vocabulary: int, dim: int, settings: TextSettings) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(vocabulary, settings.width, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0.0
        self.kernel_sizes, self.token_dropout = settings.kernel_sizes, settings.token_dropout
        self.kernels = nn.ModuleList(
            nn.Linear(size * settings.width, settings.filters) for size in settings.kernel_sizes
        )
        self.dropout = Dropout(settings.dropout)
        self.dense = nn.Linear(settings.filters * len(settings.kernel_sizes), dim)
        for layer in (*self.kernels, self.dense):
            nn.init.zeros_(layer.bias)  # PyTorch's own would outweigh the small embeddings

    def forward(self, tokens_VT: torch.Tensor) -> torch.Tensor:
        """[rows, dim]. Texts of equal length are taken together, so no step is spent on padding.

        Measured on one CPU thread with 3,700 titles of 4.6 tokens: 39 ms forward and backward, about a
        third of the time of ``conv1d`` over rows padded to 12.
        """
        if not len(tokens_VT):
            return tokens_VT.new_zeros(0, self.dim, dtype=self.dense.weight.dtype)
        lengths = (tokens_VT != PADDING).sum(dim=1)
        order = lengths.argsort(stable=True)
        counts = torch.bincount(lengths).tolist()
        # Time-major, so that every tap is a contiguous stretch and the maximum runs over whole rows.
        tokens = [
            tokens_VT[rows, :length].t().reshape(-1) for length, rows in enumerate(torch.split(order, counts))
        ]
        read = self.embedding(torch.cat(tokens))
        if self.training and self.token_dropout:
            read = read * (torch.rand(len(read), 1, device=read.device) >= self.token_dropout)
        embedded = torch.split(read, [len(part) for part in tokens])
        pooled = [
            self._pooled(x.view(length, count, x.shape[1]))
            for length, (count, x) in enumerate(zip(counts, embedded, strict=True))
            if count
        ]
        result: torch.Tensor = self.dense(self.dropout(torch.cat(pooled)).index_select(0, order.argsort()))
        return result

    def of_vectors(self, x_LVD: torch.Tensor) -> torch.Tensor:
        """The same of the vectors of V texts that all have L tokens, [V, dim]."""
        result: torch.Tensor = self.dense(self._pooled(x_LVD))
        return result

    def _pooled(self, x_LVD: torch.Tensor) -> torch.Tensor:
        """z of texts that all have L tokens, [V, filters · kernels]; zero where L = 0."""
        L, V, D = x_LVD.shape
        if not L:
            return x_LVD.new_zeros(V, self.dense.in_features)
        longest = max(self.kernel_sizes)
        padded = functional.pad(x_LVD, (0, 0, 0, 0, 0, longest - 1))
        taps = torch.cat([padded[j : j + L] for j in range(longest)], dim=-1)
        # relu(max y) = max relu(y), on L times fewer numbers.
        maxima = [
            kernel(taps[..., : size * D]).amax(dim=0)
            for size, kernel in zip(self.kernel_sizes, self.kernels, strict=True)
        ]
        return functional.relu(torch.cat(maxima, dim=-1))
