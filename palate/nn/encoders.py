"""Which network reads the histories: ours, or one to compare it with.

All of them share events, item vectors, training, loss and evaluation; only what happens between a
history's events and its state differs. The published ones have an output layer of their own over the
catalogue. Here an item has one vector for both sides, so their output layer becomes a dense layer of the
model's width, followed by the item vectors: W_out = W_item · W_dense.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from palate.nn.behaviour import BehaviourEncoder
from palate.nn.caser import Caser
from palate.nn.classic import Classic
from palate.nn.nextitnet import NextItNet
from palate.nn.pooling import Pooling
from palate.settings import ModelSettings

ENCODERS: dict[str, Callable[[ModelSettings], nn.Module]] = {
    "convolution": BehaviourEncoder,
    "nextitnet": NextItNet,
    "caser": Caser,
    "classic": Classic,
    "pooling": Pooling,
}


def build_behaviour(settings: ModelSettings) -> nn.Module:
    """The network that ``model.encoder`` names, with fresh weights.

    What each of them keeps to, and `tests/test_encoders.py` holds it to::

        forward(x_ND, position_N) → states [N, D]

    - ``x_ND`` are events of about unit size, histories laid end to end, each behind a start position;
      ``position_N`` is the place in the own history, 0 at its start. D is ``settings.width``, in and out.
    - Causal: row n depends only on rows of the same history at or before n.
    - A history gives the same alone as in a batch; an empty one is its start position alone.

    Raises:
        SettingsError: the settings of the network leave nothing of its input.
    """
    return ENCODERS[settings.encoder](settings)
