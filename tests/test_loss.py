import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from palate.nn import loss
from palate.nn.loss import catalogue_softmax, sampled_softmax


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
