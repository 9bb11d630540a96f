"""The operators of the page of mathematics, against SciPy and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter
from scipy.signal import convolve2d
from sklearn.metrics import log_loss, mean_squared_error
from torch.nn import functional

from palate.evaluate.metrics import ndcg, precision, recall
from palate.nn.conv import Crossings, gather_taps

SIDES = st.integers(1, 4)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@settings(deadline=None, max_examples=40)
@given(st.integers(4, 12), st.integers(4, 12), SIDES, SIDES, st.integers(0, 999))
def test_conv2d_with_the_kernel_flipped_is_convolution(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    x, k = normal(seed, height, width), normal(seed + 1, rows, columns)
    flipped = torch.from_numpy(k[::-1, ::-1].copy())[None, None]
    y = functional.conv2d(torch.from_numpy(x)[None, None], flipped)[0, 0]
    np.testing.assert_allclose(y.numpy(), convolve2d(x, k, mode="valid"), atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(4, 12), st.integers(4, 12), SIDES, SIDES, st.integers(0, 999))
def test_max_pool2d_is_a_maximum_filter_read_at_every_stride(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    x = normal(seed, height, width)
    pooled = functional.max_pool2d(torch.from_numpy(x)[None], (rows, columns))[0]
    # The origin moves SciPy's centred window so that it begins at its pixel.
    filtered = maximum_filter(x, size=(rows, columns), origin=(-(rows // 2), -(columns // 2)))
    expected = filtered[::rows, ::columns][: height // rows, : width // columns]
    np.testing.assert_array_equal(pooled.numpy(), expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
def test_a_causal_convolution_is_a_convolution_with_a_spread_kernel(
    length: int, size: int, dilation: int, seed: int
) -> None:
    x, k = normal(seed, length), normal(seed + 1, size)
    taps = gather_taps(torch.from_numpy(x)[:, None], size, dilation, Crossings(torch.arange(length)))
    spread = np.zeros((size - 1) * dilation + 1)
    spread[::dilation] = k
    np.testing.assert_allclose(taps.numpy() @ k, np.convolve(x, spread)[:length], atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 999))
def test_mean_squared_error_is_that_of_scikit_learn(count: int, seed: int) -> None:
    y, guess = normal(seed, count), normal(seed + 1, count)
    loss = functional.mse_loss(torch.from_numpy(guess), torch.from_numpy(y))
    assert loss.item() == pytest.approx(mean_squared_error(y, guess))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 999))
def test_binary_cross_entropy_is_that_of_scikit_learn(count: int, seed: int) -> None:
    scores = normal(seed, count)
    y = (normal(seed + 1, count) > 0).astype(float)
    loss = functional.binary_cross_entropy_with_logits(torch.from_numpy(scores), torch.from_numpy(y))
    assert loss.item() == pytest.approx(log_loss(y, 1 / (1 + np.exp(-scores)), labels=[0, 1]))


def test_the_page_of_mathematics_runs_and_its_figures_are_right() -> None:
    page = (Path(__file__).parents[1] / "docs" / "mathematics.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    torch.manual_seed(0)
    exec(compile(code, "mathematics.md", "exec"), {})
    rank, offsets = np.array([3.0]), np.array([0, 1])
    assert recall(rank, offsets, 10).tolist() == [1.0]
    assert precision(rank, offsets, 10).tolist() == [0.1]
    assert ndcg(rank, offsets, 10).tolist() == [0.5]


@pytest.mark.parametrize(("kernel_size", "dilations"), [(3, (1, 2, 4, 8)), (2, (1, 3)), (1, (1, 1))])
def test_the_last_block_sees_as_far_as_the_page_says(kernel_size: int, dilations: tuple[int, ...]) -> None:
    far = 1 + (kernel_size - 1) * sum(dilations)
    signal = torch.zeros(far + 5, 1)
    signal[0] = 1.0
    crossings = Crossings(torch.arange(len(signal)))
    for dilation in dilations:
        signal = gather_taps(signal, kernel_size, dilation, crossings).sum(dim=1, keepdim=True)
    assert signal.nonzero()[:, 0].max() == far - 1
