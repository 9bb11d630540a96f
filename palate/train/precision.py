"""Which number format this machine multiplies matrices in."""

from __future__ import annotations

import functools
import time
from typing import Literal

import torch

SURE = ("avx512_bf16", "amx_bf16")
"""Instructions for products of bfloat16 that do at least twice as much as those for float32. Nothing is tried
where they are: on a busy machine a clock decides one way once and another way the next time, and two runs
with one seed are to come to the same weights."""
TO_TRY = ("bf16", "sve_bf16")
"""Those that do so on some processors alone. Without any, one large product takes a second."""
WORTH_IT = 1.5
"""There bfloat16 must be this much faster: it costs casts around every product, and some accuracy."""


def choose_precision(asked: Literal["auto", "float32", "bfloat16"]) -> str:
    """``asked``, or for ``auto`` bfloat16 on machines where it multiplies clearly faster, else float32."""
    return machine_precision() if asked == "auto" else asked


@functools.cache
def machine_precision() -> str:
    """The same throughout a process."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if has_any(SURE) or (has_any(TO_TRY) and seconds(torch.float32) > WORTH_IT * seconds(torch.bfloat16)):
        return "bfloat16"
    return "float32"


def has_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
    return has_any(SURE + TO_TRY)


def has_any(instructions: tuple[str, ...]) -> bool:
    """Whether this processor has one of these, as PyTorch names them."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in instructions)


def seconds(dtype: torch.dtype, size: int = 768, repeats: int = 5) -> float:
    """The quickest of a few products of two square matrices of this type, after one to warm up."""
    matrix = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times[1:])
