"""The image encoder ``classic`` is the textbook's network: built a second time with Keras, it is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from palate.nn.image import DEVIATION, MEAN, build_image_encoder
from palate.settings import ImageSettings

SIDE, CLASSES, STEPS, RATE = 100, 5, 10, 0.005


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keras on PyTorch; it decides when it is first imported, and would write into the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras
    assert keras.backend.backend() == "torch"
    return keras


def textbook(keras: Any) -> Any:
    """Convolution 32 3×3, max-pool 2, convolution 64 3×3, max-pool 2, flatten, dense 128, softmax."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / DEVIATION, offset=-MEAN / DEVIATION),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def ours() -> torch.nn.Sequential:
    settings = ImageSettings(
        encoder="classic", size=SIDE, filters=(32, 64), dense=128, dropout=0.0, augment=False
    )
    encoder = build_image_encoder(SIDE, settings)
    return torch.nn.Sequential(encoder, torch.nn.Linear(encoder.dim, CLASSES))


def as_ours(network: Any) -> list[torch.Tensor]:
    """A Keras network's weights; its kernels are [height, width, in, out], its dense layers [in, out]."""
    weights = [weight.value.detach().clone().movedim(-1, 0) for weight in network.weights]
    return [weight.movedim(-1, 1) if weight.dim() == 4 else weight for weight in weights]


def test_classic_equals_the_same_network_in_keras(keras: Any) -> None:
    theirs, network = textbook(keras), ours()
    began = as_ours(theirs)
    with torch.no_grad():
        for weight, value in zip(network.parameters(), began, strict=True):
            weight.copy_(value)  # one to one: the maps are flattened in the same order
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    classes = generator.integers(0, CLASSES, 4)

    with torch.no_grad():
        logits = network(torch.from_numpy(pictures))
        expected = theirs(pictures)
    assert expected.std() > 0.05  # no two flat answers
    torch.testing.assert_close(logits.softmax(dim=1), expected, rtol=0, atol=1e-5)

    theirs.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", jit_compile=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(torch.from_numpy(pictures)), torch.from_numpy(classes))
        loss.backward()
        optimiser.step()
        losses.append((loss.item(), float(theirs.train_on_batch(pictures, classes))))
    torch.testing.assert_close(*torch.tensor(losses).T, rtol=1e-5, atol=1e-5)
    assert losses[-1][0] < 0.7 * losses[0][0]
    ended = as_ours(theirs)
    for weight, value, before in zip(network.parameters(), ended, began, strict=True):
        torch.testing.assert_close(weight.detach(), value, rtol=0, atol=1e-5)
        assert (value - before).abs().max() > 1e-4  # it has moved further than that
