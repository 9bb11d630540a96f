"""Behaviour encoders: one contract for all, each against its slow and obvious way, and all of them learn."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from palate.errors import SettingsError
from palate.nn import classic
from palate.nn.encoders import build_behaviour
from palate.recommender import Recommender
from palate.run import describe_run
from palate.settings import CaserSettings, ClassicSettings, ModelSettings, Settings
from tests.worlds import markov_world

NAMES = get_args(ModelSettings.model_fields["encoder"].annotation)
SHAPES = (
    {"width": 7, "classic": ClassicSettings(window=9, filters=(2, 3), kernel_size=2, pool=2, dense=12)},
    {"width": 11, "classic": ClassicSettings(window=5, filters=(3,), kernel_size=3, pool=1, dense=12)},
)
each_encoder = pytest.mark.parametrize("name", NAMES)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"width {shape['width']}")


def build(name: str, shape: dict, seed: int = 0) -> torch.nn.Module:
    """A small encoder with weights and biases away from zero, ready to answer."""
    torch.manual_seed(seed)
    small = {"blocks": 2, "dilations": (1, 3), "caser": CaserSettings(window=4, horizontal=3, vertical=2)}
    encoder = build_behaviour(ModelSettings(encoder=name, dropout=0.2, **small, **shape)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def positions(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


lengths_of_histories = st.lists(st.integers(1, 14), min_size=1, max_size=5)


# The contract


@each_encoder
@each_shape
@settings(max_examples=15, deadline=None)
@given(lengths_of_histories, st.data())
def test_the_future_and_the_neighbours_never_move_a_state(name, shape, lengths, data):
    encoder = build(name, shape)
    x, position = torch.randn(sum(lengths), shape["width"]), positions(lengths)
    changed = data.draw(st.integers(0, len(x) - 1))
    moved = x.clone()
    moved[changed] += 3 * torch.randn(shape["width"])
    difference = (encoder(x, position) - encoder(moved, position)).abs().amax(dim=1)
    history = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    may_move = (history == history[changed]) & (position >= position[changed])
    assert difference[~may_move].eq(0).all()


@each_encoder
@each_shape
@settings(max_examples=15, deadline=None)
@given(lengths_of_histories)
def test_packed_equals_one_by_one(name, shape, lengths):
    encoder = build(name, shape)
    x = torch.randn(sum(lengths), shape["width"])
    alone = torch.cat([encoder(part, torch.arange(len(part))) for part in x.split(lengths)])
    torch.testing.assert_close(encoder(x, positions(lengths)), alone, atol=1e-4, rtol=1e-4)


@each_encoder
@each_shape
def test_an_empty_history_is_its_start_alone_and_no_history_is_no_state(name, shape):
    encoder = build(name, shape)
    start = torch.randn(1, shape["width"])
    alone = encoder(start, torch.zeros(1, dtype=torch.int64))
    assert alone.isfinite().all()
    x = torch.cat([start, torch.randn(3, shape["width"]), start, start])
    among_others = encoder(x, torch.tensor([0, 0, 1, 2, 0, 0]))
    for row in (0, 4, 5):
        torch.testing.assert_close(among_others[row], alone[0], atol=1e-4, rtol=1e-4)
    assert encoder(x[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, shape["width"])


@each_encoder
@each_shape
def test_the_gradient_is_that_of_finite_differences_and_reaches_every_weight(name, shape):
    encoder = build(name, shape).double()
    x = torch.randn(9, shape["width"], dtype=torch.float64, requires_grad=True)
    position = positions([1, 5, 3])
    assert torch.autograd.gradcheck(lambda x: encoder(x, position), (x,))
    encoder(x, position).square().sum().backward()
    for label, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.any(), label


@each_encoder
@each_shape
def test_bfloat16_gives_nearly_the_same_states(name, shape):
    encoder = build(name, shape)
    x, position = torch.randn(20, shape["width"]), positions([1, 12, 7])
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(x, position).float()
    exact = encoder(x, position)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


# Each against its slow and obvious way, one history at a time


def window_image(x: torch.Tensor, p: int, window: int) -> torch.Tensor:
    """The latest events before and at p as rows [window, D], the newest first; zeros where none is left."""
    image = torch.zeros(window, x.shape[1], dtype=x.dtype)
    for lag in range(min(window, p + 1)):
        image[lag] = x[p - lag]
    return image


def check_against(slow, encoder, width: int) -> None:
    """``slow(x)`` gives the states of one history; the encoder gives the same of several, laid end to end."""
    encoder = encoder.double()
    lengths = [1, 13, 3, 6]
    x = torch.randn(sum(lengths), width, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.cat([slow(encoder, part) for part in x.split(lengths)])
        torch.testing.assert_close(encoder(x, positions(lengths)), expected)


def slow_pooling(encoder, x):
    means = [sum(x[q] for q in range(p + 1)) / (p + 1) for p in range(len(x))]
    return encoder.dense(encoder.norm(torch.stack(means)))


def slow_nextitnet(encoder, x):
    """``conv1d`` over (channels, time), padded with zeros on the left."""

    def convolution(layer, y):
        k, width = layer.kernel_size, y.shape[1]
        kernel = layer.weight.view(k, width, width).flip(0).permute(2, 1, 0)  # ours begins with the newest
        padded = functional.pad(y.t(), ((k - 1) * layer.dilation, 0))
        return functional.conv1d(padded, kernel, layer.bias, dilation=layer.dilation).t()

    def norm(layer, y):
        mean, variance = y.mean(1, keepdim=True), y.var(1, keepdim=True, unbiased=False)
        return (y - mean) / (variance + 1e-8).sqrt() * layer.weight + layer.bias

    for block, dilation in zip(encoder.blocks, (1, 3), strict=True):
        assert (block.first.dilation, block.second.dilation) == (dilation, 2 * dilation)
        y = norm(block.first_norm, convolution(block.first, x)).clamp_min(0)
        x = x + norm(block.second_norm, convolution(block.second, y)).clamp_min(0)
    return encoder.dense(x.clamp_min(0))


def slow_caser(encoder, x):
    """Every filter over every place of every window, in loops."""
    states, filters = [], encoder.horizontal[0].out_features
    for p in range(len(x)):
        image, seen = window_image(x, p, 4), []
        for height in range(1, 5):
            weights = encoder.horizontal[height - 1].weight
            biases = encoder.horizontal_bias[(height - 1) * filters : height * filters]
            for weight, bias in zip(weights, biases, strict=True):
                answers = [image[t : t + height].flatten() @ weight + bias for t in range(4 - height + 1)]
                seen.append(max([0.0, *(float(answer) for answer in answers)]))
        for weight, bias in zip(encoder.vertical.weight, encoder.vertical.bias, strict=True):
            seen.extend(
                float(sum(weight[j] * image[j, d] for j in range(4)) + bias) for d in range(x.shape[1])
            )
        states.append(encoder.output(encoder.dense(torch.tensor(seen, dtype=x.dtype)).clamp_min(0)))
    return torch.stack(states)


def slow_classic(encoder, x):
    """Plain two-dimensional layers on the window of each position."""
    states = []
    for p in range(len(x)):
        maps = window_image(x, p, encoder.window)[None, None]
        for layer in encoder.convolutions:
            maps = functional.max_pool2d(functional.relu(layer(maps)), encoder.pool)
        flat = maps.transpose(1, 2).flatten()  # ours is laid out row by row
        states.append(encoder.output(functional.relu(encoder.dense(flat))))
    return torch.stack(states)


@each_shape
@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("pooling", slow_pooling),
        ("nextitnet", slow_nextitnet),
        ("caser", slow_caser),
        ("classic", slow_classic),
    ],
)
def test_the_encoder_equals_its_slow_and_obvious_way(name, slow, shape):
    check_against(slow, build(name, shape), shape["width"])


@settings(max_examples=15, deadline=None)
@given(
    window=st.integers(1, 20),
    filters=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    kernel_size=st.integers(1, 4),
    pool=st.integers(1, 3),
)
def test_classic_of_any_shape_equals_plain_layers_or_is_refused(window, filters, kernel_size, pool):
    shape = ClassicSettings(window=window, filters=filters, kernel_size=kernel_size, pool=pool, dense=3)
    rows, columns = window, 17
    for _ in filters:
        rows, columns = (rows - kernel_size + 1) // pool, (columns - kernel_size + 1) // pool
    if min(rows, columns) < 1:
        with pytest.raises(SettingsError, match="larger window or"):
            build("classic", {"width": 17, "classic": shape})
    else:
        check_against(slow_classic, build("classic", {"width": 17, "classic": shape}), 17)


@pytest.mark.parametrize("positions_at_a_time", [1, 4, 13])
def test_classic_gives_the_same_in_chunks(monkeypatch, positions_at_a_time):
    encoder = build("classic", SHAPES[0])
    lengths = [6, 1, 30, 4]
    x = torch.randn(sum(lengths), 7, requires_grad=True)

    def states_and_gradients():
        states = encoder(x, positions(lengths))
        return [states, *torch.autograd.grad(states.square().sum(), [x, *encoder.parameters()])]

    whole = states_and_gradients()
    monkeypatch.setattr(classic, "CHUNK_POSITIONS", positions_at_a_time)
    for found, expected in zip(states_and_gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


# Training


@pytest.fixture(scope="module")
def world():
    """From each item one of two follows, with chances .8 and .2."""
    return markov_world(people=250, length=12, likely=0.8, seed=1)


@each_encoder
def test_every_encoder_learns_an_ordered_world_and_comes_back_from_its_bundle(name, world, tmp_path):
    recommender = Recommender(
        {
            "model": {
                "encoder": name,
                "width": 16,
                "blocks": 2,
                "max_history": 20,
                "dropout": 0.1,
                "classic": {"window": 10, "filters": [8, 8]},
            },
            "train": {
                "max_epochs": 16,
                "batch_events": 256,
                "learning_rate": 1e-2,
                "weight_decay": 0.01,
                "patience": 16,
            },
            "evaluate": {
                "baselines": ["popularity"], "references": [], "filter_seen": False, "bootstrap": 50,
            },
        }
    ).fit(world)  # fmt: skip
    tree = recommender.evaluate().to_json()
    model, popular = (
        tree["metrics"]["accuracy"]["value"],
        tree["baselines"]["popularity"]["accuracy"]["value"],
    )
    assert popular < 0.15
    # The mean of all events knows the stretch of the ring somebody walks, not which end they are at.
    assert model > (0.35 if name == "pooling" else 0.65)
    recommender.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    histories = [[], [3, 4, 5], [10]]
    assert loaded.recommend(histories=histories, k=5).equals(recommender.recommend(histories=histories, k=5))
    assert describe_run(loaded)["behaviour encoder"] == name


@each_encoder
def test_every_encoder_trains_in_bfloat16(name):
    tiny = {"encoder": name, "width": 16, "blocks": 2, "classic": {"window": 10}}
    options = {"max_epochs": 1, "precision": "bfloat16"}
    recommender = Recommender({"model": tiny, "train": options}).fit(markov_world(40, 8, 0.8))
    assert recommender.progress.precision == "bfloat16"
    assert np.isfinite(recommender.progress.history[0]["loss"])


def test_an_encoder_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match=r"'model\.encoder' is 'transformer'"):
        Settings.build({"model": {"encoder": "transformer"}})
