"""The image encoders: pictures in, vectors out.

``classic`` is the network that textbooks show (LeCun et al., "Gradient-based learning applied to document
recognition", 1998, with ReLU and max-pooling): for each of ``filters``, with kernels k and a pool of s × s,

    y_f(i, j) = max(0, max_{p, q < s} (b_f + Σ_c Σ_u Σ_v x_c(s i + p + u, s j + q + v) · k_fc(u, v)))

then one dense layer of the flattened maps, with ReLU. ``residual`` is a small modern one
(``palate/nn/residual.py``), whose maps are pooled over the whole picture.

Measured on one CPU thread, a picture of 64 × 64 forward and backward: ``residual`` with the default filters
1.0 ms (13 million floating-point operations forward), ``classic`` with filters 32 and 64 2.8 ms (41 million);
of 128 × 128 4.6 ms, and ``classic`` at its textbook's 100 × 100 9.6 ms.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.errors import SettingsError
from palate.nn.dropout import Dropout
from palate.nn.pretrained import PretrainedImage
from palate.nn.residual import ResidualStages, initialise, mean_and_max
from palate.settings import PRETRAINED, ImageSettings

MEAN = 114.0
DEVIATION = 58.0
"""Of the values 0 … 255 of photographs, all channels taken together (ImageNet)."""
SHIFTS = 16
"""A picture is moved by at most this part of its size."""


class ClassicImage(nn.Module):
    """The textbook's network: uint8 [n, size, size, 3] → [n, dense].

    The maps are flattened as they lie, height first, then width, then filters.

    Raises:
        SettingsError: nothing is left of a picture of this size.
    """

    def __init__(self, size: int, settings: ImageSettings) -> None:
        super().__init__()
        self.dim = settings.dense
        self.pool, self.augment = settings.pool, settings.augment
        channels, side = 3, size
        layers = []
        for filters in settings.filters:
            layers.append(nn.Conv2d(channels, filters, settings.kernel_size))
            channels, side = filters, (side - settings.kernel_size + 1) // settings.pool
            if side < 1:
                raise SettingsError(
                    f"model.image: nothing is left of a picture of {size} × {size} after {len(layers)} × "
                    f"kernel_size {settings.kernel_size} and pool {settings.pool}; take a larger size, or "
                    "fewer filters."
                )
        self.convolutions = nn.ModuleList(layers)
        self.dropout = Dropout(settings.dropout)
        self.dense = nn.Linear(channels * side * side, settings.dense)
        initialise(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        x = standardised(augmented(values) if self.training and self.augment else values)
        for convolution in self.convolutions:
            # relu(max x) = max relu(x), on fewer numbers.
            x = functional.relu(functional.max_pool2d(convolution(x), self.pool))
        flat = x.permute(0, 2, 3, 1).flatten(1)
        return functional.relu(self.dense(self.dropout(flat)))


class ResidualImage(nn.Module):
    """Residual stages, mean and maximum over all places, a dense layer: uint8 [n, S, S, 3] → [n, dense].

    Raises:
        SettingsError: an even kernel, or no filters.
    """

    def __init__(self, settings: ImageSettings) -> None:
        super().__init__()
        self.dim, self.augment = settings.dense, settings.augment
        self.stages = ResidualStages(3, settings.filters, settings.kernel_size, settings.blocks)
        self.dropout = Dropout(settings.dropout)
        self.dense = nn.Linear(2 * settings.filters[-1], settings.dense)
        initialise(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = augmented(values) if self.training and self.augment else values
        result: torch.Tensor = self.dense(self.dropout(mean_and_max(self.stages(standardised(values)))))
        return result


def augmented(values: torch.Tensor) -> torch.Tensor:
    """uint8 [n, size, size, 3]: half of them from right to left, and each moved by at most size / 16 pixels
    along both axes; where nothing is left to be seen, its border goes on."""
    n, size = values.shape[:2]
    device, most = values.device, size // SHIFTS
    rows = torch.arange(size, device=device) + torch.randint(-most, most + 1, (n, 1), device=device)
    columns = torch.arange(size, device=device) + torch.randint(-most, most + 1, (n, 1), device=device)
    columns = torch.where(torch.rand(n, 1, device=device) < 0.5, columns, size - 1 - columns)
    rows, columns = rows.clamp(0, size - 1), columns.clamp(0, size - 1)
    return values[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def standardised(values: torch.Tensor) -> torch.Tensor:
    """uint8 [n, …, height, width, 3] → float [n, 3, …, height, width] of about zero mean and unit deviation.

    Channels still lie innermost in memory (``channels_last``), where CPU convolutions are fastest.
    """
    return ((values.float() - MEAN) / DEVIATION).movedim(-1, 1)


def build_image_encoder(size: int, settings: ImageSettings) -> nn.Module:
    """The encoder that the settings name, of pictures of size × size.

    Raises:
        SettingsError: shapes that do not fit, or no such backbone.
        MissingExtraError: a backbone without the library for it.
    """
    if settings.encoder == "classic":
        return ClassicImage(size, settings)
    if settings.encoder.startswith(PRETRAINED):
        return PretrainedImage(size, settings)
    return ResidualImage(settings)
