"""The audio encoder: a log-mel spectrogram read as a picture of bands × time, then as a sequence of sounds.

Residual stages (``palate/nn/residual.py``) with one input channel, which halve the bands each time and the
time twice only: a rhythm lives in tenths of a second. Then one dense layer reads all filters and bands of a
step x_t together, since a melody walks through the bands and its beat is in none of them alone, and a
convolution over time hears what comes after what,

    h_t = relu(W x_t + c) ,   y_t = relu(b + Σ_j h_{t + j − ⌊K/2⌋} W_j)

of which mean and maximum over time are taken: it does not matter when. Tracks may have any length.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.nn.dropout import Dropout
from palate.nn.residual import ResidualStages, initialise, mean_and_max
from palate.settings import AudioSettings

SILENCE = 1e-4
"""Added to the variance of a spectrogram, so that silence becomes zeros."""
TIME_HALVINGS = 2
"""With steps of 16 ms, 64 ms are left between those that the convolution over time reads."""


class AudioEncoder(nn.Module):
    """float [n, bands, T], any T ≥ 1 → [n, dense].

    Raises:
        SettingsError: an even kernel, or no filters.
    """

    def __init__(self, bands: int, settings: AudioSettings) -> None:
        super().__init__()
        self.dim = width = settings.dense
        self.stages = ResidualStages(
            1, settings.filters, settings.kernel_size, settings.blocks, width_halvings=TIME_HALVINGS
        )
        for _ in range(len(settings.filters) + 1):
            bands = (bands + 1) // 2
        self.step = nn.Linear(settings.filters[-1] * bands, width)
        self.time = nn.Conv1d(width, width, settings.kernel_size, padding=settings.kernel_size // 2)
        self.dropout = Dropout(settings.dropout)
        self.dense = nn.Linear(2 * width, width)
        initialise(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        maps = self.stages(standardised(values).unsqueeze(1))
        h = functional.relu(self.step(maps.flatten(1, 2).transpose(1, 2)))
        y = functional.relu(self.time(h.transpose(1, 2)))
        result: torch.Tensor = self.dense(self.dropout(mean_and_max(y)))
        return result


def standardised(values: torch.Tensor) -> torch.Tensor:
    """Each spectrogram, float32 with zero mean and unit deviation over all of it.

    A track played louder adds a constant to its logarithms, and so becomes the same; so does one in decibels.
    """
    return functional.layer_norm(values.float(), values.shape[1:], eps=SILENCE)
