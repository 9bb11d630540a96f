"""Which number format this machine multiplies matrices in, by trying."""

from __future__ import annotations

import time
from typing import Literal

import torch

WORTH_IT = 1.5
"""bfloat16 must be this much faster: it costs casts around every product, and some accuracy."""
HOPELESS = 2.0
"""Small products that take so many times as long tell that there are no instructions for a format, and that
a large one had better not be tried: it would take a second."""


def choose_precision(asked: Literal["auto", "float32", "bfloat16"]) -> str:
    """``asked``, or for ``auto`` bfloat16 on machines where it multiplies clearly faster, else float32."""
    if asked != "auto":
        return asked
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if lacks(torch.bfloat16):
        return "float32"
    return "bfloat16" if seconds(torch.float32) > WORTH_IT * seconds(torch.bfloat16) else "float32"


def lacks(dtype: torch.dtype) -> bool:
    """Whether this processor seems to have no instructions for products of this type."""
    if dtype == torch.bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return True  # they came with AVX-512
    return seconds(dtype, size=64, repeats=50) > HOPELESS * seconds(torch.float32, size=64, repeats=50)


def seconds(dtype: torch.dtype, size: int = 768, repeats: int = 5) -> float:
    """The quickest of a few products of two square matrices of this type, after one to warm up."""
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times[1:])
