"""The classic: the latest events as an image of events × width, read as textbooks read a digit.

    (convolution → ReLU → max-pool) as often as there are ``filters`` → flatten → dense → ReLU → dense

After LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (Proc.
IEEE 1998), with today's ReLU and max-pool. Convolutions and pools are two-dimensional and without
padding; rows of the image are events, the newest first, and columns their numbers. Missing events are
rows of zeros. What a pool leaves over at the end is dropped: the oldest events, not the newest.

**One pass for all windows.** Each position wants the network's answer on its own window, which shares all
but one of its events with the window before. So each layer runs once over the events: rows side by side
in the image are neighbouring taps, and behind a pool of size p rows lie p events apart, p² behind the next
(Giusti et al., "Fast image scanning with deep max-pooling convolutional neural networks", ICIP 2013). With
the default settings the convolutions take .30 million products per position instead of 1.66 million.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from palate.errors import SettingsError
from palate.nn.conv import Crossings, gather_taps
from palate.settings import ModelSettings

CHUNK_POSITIONS = 1024
"""Positions whose maps are alive at a time: some 80 MB of float32 with the default settings."""


class Classic(nn.Module):
    """The textbook's network on the window of each position.

    ``convolutions`` are plain ``Conv2d`` layers, as they would be used on one image.

    What it costs with the default settings: .56 million products per position, as much as two or three of
    our blocks; in training three times that, and the convolutions once more, since maps are computed
    again on the way back instead of kept. Kept are the flattened maps, 1,920 numbers per position.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        shape = settings.classic
        self.window, self.pool = shape.window, shape.pool
        channels, rows, columns = 1, shape.window, settings.width
        layers = []
        for filters in shape.filters:
            layers.append(nn.Conv2d(channels, filters, shape.kernel_size))
            channels = filters
            rows, columns = ((side - shape.kernel_size + 1) // shape.pool for side in (rows, columns))
        if rows < 1 or columns < 1:
            raise SettingsError(
                f"model.classic: nothing is left of an image of {shape.window} events × {settings.width} "
                f"after {len(shape.filters)} × kernel_size {shape.kernel_size} and pool {shape.pool}; "
                "take a larger window or model.width, or fewer filters."
            )
        self.convolutions = nn.ModuleList(layers)
        self.rows = rows
        self.dropout = nn.Dropout(settings.dropout)
        self.dense = nn.Linear(rows * channels * columns, shape.dense)
        self.output = nn.Linear(shape.dense, settings.width)

    def forward(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        if torch.compiler.is_exporting():  # how many chunks there are is not known before a graph runs
            return self._answer(self.maps(x_ND, position_N))
        chunks = []
        for start in range(0, max(len(x_ND), 1), CHUNK_POSITIONS):
            # Each chunk begins early enough to hold its first window; those events are not answered for.
            early = min(start, self.window - 1)
            part = slice(start - early, start + CHUNK_POSITIONS)
            places = torch.arange(len(position_N[part]), device=position_N.device)
            position = torch.minimum(position_N[part], places)
            maps = checkpoint(self.maps, x_ND[part], position, use_reentrant=False, preserve_rng_state=False)
            chunks.append(maps[early:])
        return self._answer(torch.cat(chunks))

    def _answer(self, maps: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.output(functional.relu(self.dense(self.dropout(maps))))
        return result

    def maps(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        """What the last pool leaves of each position's window, flattened, [N, rows · channels · columns].

        A layer's answer to rows of zeros is not zero, for it has a bias. So the network also reads an
        ``empty`` window, and what goes from layer to layer is the difference from its maps: zero where a
        history has not begun, which is what the taps read there.
        """
        crossings, dilation = Crossings(position_N), 1
        difference = x_ND.unsqueeze(1)  # [N, channels, columns]
        empty = x_ND.new_zeros(1, 1, x_ND.shape[1])
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d)
            # Rows of the image lie side by side as channels; what is left is to slide along the columns.
            size, kernel = layer.kernel_size[0], layer.weight.transpose(1, 2).flatten(1, 2)
            rows = neighbouring_rows(difference, size, dilation, crossings)
            of_empty = functional.conv1d(empty.repeat(1, size, 1), kernel, layer.bias)
            y = functional.conv1d(rows.flatten(1, 2), kernel) + of_empty
            y, empty = (functional.relu(functional.max_pool1d(maps, self.pool)) for maps in (y, of_empty))
            difference = neighbouring_rows(y - empty, self.pool, dilation, crossings).amax(dim=1)
            dilation *= self.pool
        return (neighbouring_rows(difference, self.rows, dilation, crossings) + empty).flatten(1)


def neighbouring_rows(maps: torch.Tensor, count: int, dilation: int, crossings: Crossings) -> torch.Tensor:
    """[N, channels, columns] → [N, count, channels, columns]: each position's maps and those behind it."""
    taps = gather_taps(maps.flatten(1), count, dilation, crossings)
    return taps.view(len(maps), count, *maps.shape[1:])
