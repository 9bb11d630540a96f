"""Which number format this machine multiplies matrices in, by trying."""

from __future__ import annotations

import functools
import time
from typing import Literal

import torch

WORTH_IT = 1.5
"""bfloat16 must be this much faster: it costs casts around every product, and some accuracy."""
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What processors call theirs for products of bfloat16. Without any, one large product takes a second."""


def choose_precision(asked: Literal["auto", "float32", "bfloat16"]) -> str:
    """``asked``, or for ``auto`` bfloat16 on machines where it multiplies clearly faster, else float32."""
    return measured_precision() if asked == "auto" else asked


@functools.cache
def measured_precision() -> str:
    """The same throughout a process: two runs with one seed are to come to the same weights."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if not has_bfloat16():
        return "float32"
    return "bfloat16" if seconds(torch.float32) > WORTH_IT * seconds(torch.bfloat16) else "float32"


def has_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in INSTRUCTIONS)


def seconds(dtype: torch.dtype, size: int = 768, repeats: int = 5) -> float:
    """The quickest of a few products of two square matrices of this type, after one to warm up."""
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times[1:])
