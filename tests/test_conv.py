import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.nn.behaviour import BehaviourEncoder, causal_sum
from palate.nn.conv import CausalConvolution, Crossings, gather_taps
from palate.settings import ModelSettings

SMALL = ModelSettings(width=8, blocks=3, kernel_size=3, dilations=(1, 2, 5), dropout=0.0)


def positions(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


def slow_convolution(layer: CausalConvolution, x: np.ndarray) -> np.ndarray:
    """y_p = b + Σ_j x_{p − jδ} W_j, written as it is read; one history."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    width = x.shape[1]
    result = np.tile(bias, (len(x), 1))
    for p in range(len(x)):
        for j in range(layer.kernel_size):
            if p - j * layer.dilation >= 0:
                result[p] += x[p - j * layer.dilation] @ weight[j * width : (j + 1) * width]
    return result


lengths_of_histories = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(lengths_of_histories, st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_packed_convolution_equals_the_slow_sum_history_by_history(lengths, kernel_size, dilation, seed):
    torch.manual_seed(seed)
    layer = CausalConvolution(4, 6, kernel_size, dilation)
    x = torch.randn(sum(lengths), 4)
    packed = layer(x, Crossings(positions(lengths))).detach().numpy()
    one_by_one = [slow_convolution(layer, part.numpy()) for part in x.split(lengths)]
    np.testing.assert_allclose(packed, np.concatenate(one_by_one), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(lengths_of_histories, st.integers(1, 3), st.integers(1, 4))
def test_gradient_of_the_taps_is_that_of_finite_differences(lengths, kernel_size, dilation):
    x = torch.randn(sum(lengths), 2, dtype=torch.float64, requires_grad=True)
    crossings = Crossings(positions(lengths))
    assert torch.autograd.gradcheck(lambda x: gather_taps(x, kernel_size, dilation, crossings), (x,))


def test_taps_read_the_own_history_only():
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    taps = gather_taps(x, 2, 1, Crossings(positions([3, 2])))
    assert taps.tolist() == [[1, 0], [2, 1], [3, 2], [4, 0], [5, 4]]


@settings(max_examples=20, deadline=None)
@given(lengths_of_histories, st.data())
def test_the_future_never_moves_an_earlier_state(lengths, data):
    torch.manual_seed(0)
    encoder = BehaviourEncoder(SMALL).eval()
    x, position = torch.randn(sum(lengths), 8), positions(lengths)
    changed = data.draw(st.integers(0, len(x) - 1))
    moved = x.clone()
    moved[changed] += 1.0
    difference = (encoder(x, position) - encoder(moved, position)).abs().amax(dim=1)
    history = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    may_move = (history == history[changed]) & (position >= position[changed])
    assert difference[~may_move].eq(0).all()
    assert difference[changed] > 0


@settings(max_examples=20, deadline=None)
@given(lengths_of_histories)
def test_packed_equals_one_by_one(lengths):
    torch.manual_seed(1)
    encoder = BehaviourEncoder(SMALL).eval()
    x = torch.randn(sum(lengths), 8)
    alone = torch.cat([encoder(part, torch.arange(len(part))) for part in x.split(lengths)])
    torch.testing.assert_close(encoder(x, positions(lengths)), alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(lengths_of_histories)
def test_the_memory_sums_the_own_history(lengths):
    x = torch.randn(sum(lengths), 3) * 50
    slow = torch.cat([part.cumsum(dim=0) for part in x.split(lengths)])
    torch.testing.assert_close(causal_sum(x, positions(lengths)), slow, atol=1e-4, rtol=1e-5)


def test_every_activation_and_a_missing_feed_forward_keep_the_shape():
    for activation in ("glu", "silu", "gelu", "relu"):
        shape = SMALL.model_copy(update={"activation": activation, "feed_forward": 0.0})
        assert BehaviourEncoder(shape)(torch.randn(5, 8), torch.arange(5)).shape == (5, 8)


@settings(max_examples=40, deadline=None)
@given(lengths_of_histories, st.booleans(), st.integers(1, 3), st.integers(0, 2**31))
def test_last_states_are_those_of_the_whole_computation(lengths, memory, blocks, seed):
    torch.manual_seed(seed)
    encoder = BehaviourEncoder(SMALL.model_copy(update={"memory": memory, "blocks": blocks})).eval()
    x, position = torch.randn(sum(lengths), 8), positions(lengths)
    last = torch.tensor(lengths).cumsum(0) - 1
    torch.testing.assert_close(encoder.last_states(x, position, last), encoder(x, position)[last])


def test_last_states_of_long_histories_look_at_the_reach_only():
    encoder = BehaviourEncoder(SMALL.model_copy(update={"memory": False})).eval()
    assert encoder.reach == 1 + 2 * (1 + 2 + 5)
    x, last = torch.randn(90, 8), torch.tensor([39, 89])
    whole = encoder.last_states(x, positions([40, 50]), last)
    torch.testing.assert_close(whole, encoder(x, positions([40, 50]))[last])
    x[: 40 - encoder.reach] = 7.0
    torch.testing.assert_close(encoder.last_states(x, positions([40, 50]), last), whole)
    x[40 - encoder.reach] = 7.0
    assert not torch.allclose(encoder.last_states(x, positions([40, 50]), last)[0], whole[0])
