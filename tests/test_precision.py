"""The number format is a property of the machine, not of the moment."""

import pytest
import torch

from palate.train import precision


@pytest.fixture(autouse=True)
def _asked_anew():
    precision.machine_precision.cache_clear()
    yield
    precision.machine_precision.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides otherwise")
def test_where_no_instructions_are_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    monkeypatch.setattr(precision, "seconds", lambda *_: pytest.fail("tried a product that takes a second"))
    assert precision.choose_precision("auto") == "float32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides otherwise")
@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16"])
def test_where_instructions_are_surely_faster_no_clock_decides(monkeypatch, instruction):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    monkeypatch.setattr(precision, "seconds", lambda *_: pytest.fail("looked at the clock"))
    assert precision.choose_precision("auto") == "bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides otherwise")
@pytest.mark.parametrize(("times", "expected"), [(4.0, "bfloat16"), (1.2, "float32")])
def test_elsewhere_bfloat16_has_to_be_clearly_faster(monkeypatch, times, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True})
    monkeypatch.setattr(precision, "seconds", lambda dtype: times if dtype == torch.float32 else 1.0)
    assert precision.choose_precision("auto") == expected
    monkeypatch.setattr(precision, "seconds", lambda *_: pytest.fail("measured twice in one process"))
    assert precision.choose_precision("auto") == expected


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_who_asks_for_a_format_gets_it(asked):
    assert precision.choose_precision(asked) == asked
