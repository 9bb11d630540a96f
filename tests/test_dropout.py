import pytest
import torch

from palate.nn.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_asked_share_is_dropped_and_the_mean_kept(probability, dtype):
    torch.manual_seed(0)
    x = torch.ones(701, 301, dtype=dtype)
    dropped = Dropout(probability)(x)
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
    assert dropped.float().mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropped.unique().numel() == 2


def test_elements_are_dropped_independently_of_row_and_column():
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(4096, 64)) != 0).double()
    assert (kept.mean(dim=0) - 0.5).abs().max() < 0.05
    correlation = torch.corrcoef(kept.t()) - torch.eye(64)
    assert correlation.abs().max() < 0.08
    assert abs(torch.corrcoef(torch.stack([kept[:-1].flatten(), kept[1:].flatten()]))[0, 1]) < 0.01


def test_draws_follow_the_seed_of_torch():
    dropout, x = Dropout(0.5), torch.ones(50, 10)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_the_gradient_passes_where_the_value_passed():
    torch.manual_seed(0)
    x = torch.randn(20, 5, requires_grad=True)
    dropped = Dropout(0.4)(x)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), dropped.detach())


def test_nothing_is_dropped_outside_of_training():
    x = torch.randn(7, 3)
    assert torch.equal(Dropout(0.9).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_a_share_near_one_still_keeps_something():
    torch.manual_seed(0)
    assert Dropout(0.999)(torch.ones(300, 300)).isfinite().all()
