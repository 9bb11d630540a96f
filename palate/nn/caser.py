"""Caser: the latest L events as an image of L × width, read by horizontal and by vertical filters.

After Tang and Wang, "Personalized top-N sequential recommendation via convolutional sequence embedding"
(WSDM 2018), and their code (github.com/graytowne/caser_pytorch). With E the image, missing events zero,

    o_h = relu(max_t (b + Σ_{j<h} E_{t+j} · F_j))   horizontal filters F of every height h = 1 … L
    õ_d = c + Σ_j w_j E_jd                          vertical filters w, one weighted sum over the events
    z   = relu(dropout([o, õ]) W + b)               state: z through a dense layer

Theirs are L, the filters per height and the vertical filters (``model.caser``; the defaults are those of
their code), and dropout before the dense layer (``model.dropout``; they took 0.5).

Absent is their person's vector, which they append to z: here a person is nothing but their history, and
may have come a minute ago. They ask for the next T = 3 items of a window; nearest to that is the task
``coming_items`` with ``window: 3``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from palate.nn.conv import Crossings, gather_taps
from palate.settings import ModelSettings


class Caser(nn.Module):
    """Horizontal and vertical filters over each position's own window, dense, dropout, dense.

    A horizontal filter gives at one event the same in every window that holds it. It is therefore computed
    once per event, and the maximum is taken over shifted reads: 1 / L of the work of L × N windows.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, shape = settings.width, settings.caser
        self.width, self.window, filters = width, shape.window, shape.horizontal * shape.window
        self.horizontal = nn.ModuleList(
            nn.Linear(height * width, shape.horizontal, bias=False) for height in range(1, shape.window + 1)
        )
        self.horizontal_bias = nn.Parameter(torch.zeros(filters))
        self.vertical = nn.Linear(shape.window, shape.vertical)
        self.dropout = nn.Dropout(settings.dropout)
        self.dense = nn.Linear(filters + shape.vertical * width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x_ND: torch.Tensor, position_N: torch.Tensor) -> torch.Tensor:
        """[N, D] → [N, D], causal within each history."""
        crossings = Crossings(position_N)
        image = gather_taps(x_ND, self.window, 1, crossings)  # the newest event comes first
        pooled = [
            self._highest(filters(image[:, : filters.in_features]), self.window - h, crossings)
            for h, filters in enumerate(self.horizontal)
        ]
        horizontal = functional.relu(torch.cat(pooled, dim=1) + self.horizontal_bias)
        # [vertical, L] @ [N, L, D]: every vertical filter is one weighted sum over the window's events.
        sums = self.vertical.weight @ image.view(-1, self.window, self.width)
        vertical = (sums + self.vertical.bias.unsqueeze(1)).flatten(1)
        z_ND = functional.relu(self.dense(self.dropout(torch.cat([horizontal, vertical], dim=1))))
        result: torch.Tensor = self.output(z_ND)
        return result

    @staticmethod
    def _highest(y_NF: torch.Tensor, places: int, crossings: Crossings) -> torch.Tensor:
        """The maximum over the latest ``places`` events, [N, F].

        Before the history begins a filter reads zero everywhere; as the bias is added after the maximum,
        its answer there is zero, which is what the taps read.
        """
        taps = gather_taps(y_NF, places, 1, crossings)
        return taps.view(len(y_NF), places, y_NF.shape[1]).amax(dim=1)
