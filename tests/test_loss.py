import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from palate.nn import loss
from palate.nn.loss import Bonuses, catalogue_softmax, sampled_softmax


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_loss_and_both_gradients_equal_pytorch_cross_entropy(rows, items, width, seed):
    torch.manual_seed(seed)
    target, weight = torch.randint(items, (rows,)), torch.rand(rows)
    h, table = torch.randn(rows, width), torch.randn(items, width)
    ours = [tensor.clone().requires_grad_() for tensor in (h, table)]
    theirs = [tensor.clone().requires_grad_() for tensor in (h, table)]

    got = catalogue_softmax(*ours, target, weight)
    wanted = weight * functional.cross_entropy(theirs[0] @ theirs[1].t(), target, reduction="none")
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)

    (got.mean() * 3).backward()
    (wanted.mean() * 3).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4)


def random_bonuses(rows, items, seed):
    """Up to four bonuses a row, some of them of the same item; also as a dense table."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 5, rows)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
    item = torch.from_numpy(generator.integers(0, items, int(offsets[-1])))
    value = torch.from_numpy(generator.normal(size=len(item)).astype(np.float32)).requires_grad_()
    row = torch.repeat_interleave(torch.from_numpy(counts))
    dense = torch.zeros(rows, items).index_put((row, item), value, accumulate=True)
    return Bonuses(offsets, item, value), dense


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 30), st.integers(1, 200), st.integers(0, 2**31))
def test_bonuses_and_their_gradient_equal_a_dense_table_of_them(rows, items, chunk, seed):
    torch.manual_seed(seed)
    target, weight = torch.randint(items, (rows,)), torch.rand(rows)
    h, table = torch.randn(rows, 5), torch.randn(items, 5)
    bonuses, dense = random_bonuses(rows, items, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "CHUNK_ELEMENTS", chunk)
        got = catalogue_softmax(h, table, target, weight, bonuses)
        (found,) = torch.autograd.grad(got.sum(), bonuses.value, allow_unused=True)
    wanted = weight * functional.cross_entropy(h @ table.t() + dense, target, reduction="none")
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    if len(bonuses.item):
        (right,) = torch.autograd.grad(wanted.sum(), bonuses.value)
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def test_bonuses_of_some_rows_and_added_to_scores():
    bonuses, dense = random_bonuses(9, 6, seed=1)
    rows = torch.tensor([8, 0, 0, 4])
    scores = torch.zeros(4, 6)
    bonuses.of_rows(rows).add_to(scores)
    torch.testing.assert_close(scores, dense[rows])
    behind = bonuses._replace(item=bonuses.item + 2).behind(2)
    assert torch.equal(behind.item, bonuses.item)


def test_bfloat16_is_near_float32():
    torch.manual_seed(0)
    target, weight = torch.randint(50, (30,)), torch.ones(30)
    h, table = torch.randn(30, 16), torch.randn(50, 16, requires_grad=True)
    exact = catalogue_softmax(h, table, target, weight)
    near = catalogue_softmax(h.bfloat16(), table, target, weight)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, atol=0.1, rtol=0.02)
    (gradient,) = torch.autograd.grad(exact.sum(), table)
    (rough,) = torch.autograd.grad(near.sum(), table)
    assert rough.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), rough.flatten(), dim=0) > 0.999


def test_where_the_rest_is_in_bfloat16_so_is_the_softmax():
    """Lightning widens what a network gives back, so the states come in float32."""
    torch.manual_seed(0)
    h, table = torch.randn(40, 16), torch.randn(30, 16)
    target, weight = torch.randint(30, (40,)), torch.rand(40)
    with torch.autocast("cpu", torch.bfloat16):
        widened = h.bfloat16().float().requires_grad_()
        got = catalogue_softmax(widened, table, target, weight)
        got.sum().backward()
    narrow = h.bfloat16().requires_grad_()
    wanted = catalogue_softmax(narrow, table, target, weight)
    wanted.sum().backward()
    assert torch.equal(got, wanted)
    assert torch.equal(widened.grad, narrow.grad.float())


def test_chunks_do_not_change_the_result(monkeypatch):
    torch.manual_seed(0)
    h, table = torch.randn(50, 4), torch.randn(9, 4)
    target, weight = torch.randint(9, (50,)), torch.ones(50)
    whole = catalogue_softmax(h, table, target, weight)
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 9 * 7)
    torch.testing.assert_close(catalogue_softmax(h, table, target, weight), whole)


def test_uneven_incoming_gradients_are_refused():
    h = torch.randn(3, 2, requires_grad=True)
    losses = catalogue_softmax(h, torch.randn(4, 2), torch.tensor([0, 1, 2]), torch.ones(3))
    with pytest.raises(ValueError, match="sum or average"):
        (losses * torch.tensor([1.0, 2.0, 3.0])).sum().backward()


def test_sampling_every_other_item_once_gives_the_full_softmax():
    torch.manual_seed(0)
    items = 12
    h, table = torch.randn(7, 5), torch.randn(items, 5)
    target = torch.randint(items, (7,))
    everything = torch.arange(items)
    no_correction = torch.zeros(items)
    got = sampled_softmax(h, table[target], table, target, everything, no_correction[target], no_correction)
    torch.testing.assert_close(got, functional.cross_entropy(h @ table.t(), target, reduction="none"))


def test_an_accidental_hit_does_not_count_against_its_row():
    h, table = torch.ones(1, 1), torch.tensor([[1.0], [2.0]])
    target, sampled, counts = torch.tensor([1]), torch.tensor([1, 0]), torch.zeros(2)
    got = sampled_softmax(h, table[target], table[sampled], target, sampled, counts[:1], counts)
    torch.testing.assert_close(got, torch.log(torch.exp(torch.tensor([2.0])) + torch.e) - 2.0)


def test_log_count_correction_makes_the_estimate_of_the_normaliser_right_on_average():
    torch.manual_seed(0)
    items, samples, trials = 30, 400, 500
    scores = torch.randn(items)
    chance = torch.softmax(torch.randn(items), dim=0)
    log_count = (samples * chance).log()
    estimates = []
    for _ in range(trials):
        drawn = torch.multinomial(chance, samples, replacement=True)
        estimates.append((scores[drawn] - log_count[drawn]).logsumexp(dim=0).exp())
    values = torch.stack(estimates)
    four_standard_errors = 4 * values.std().item() / trials**0.5
    assert values.mean().item() == pytest.approx(scores.exp().sum().item(), abs=four_standard_errors)
