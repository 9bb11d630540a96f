"""What Palate finds on this machine."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from palate.run import machine
from palate.samples import sample_path
from palate.train.precision import choose_precision, seconds
from palate.version import __version__

LIBRARIES = ("torch", "lightning-fabric", "polars", "pyarrow", "tokenizers", "implicit", "safetensors")
OPTIONAL = {"postgresql": "psycopg", "pandas": "pandas"}
PRODUCT_SIZE = 768


def examine() -> dict[str, Any]:
    """Versions, speed, space, and what is optional and absent."""
    operations = 2 * PRODUCT_SIZE**3
    return {
        "palate": __version__,
        **machine(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "matrix products, GFLOP/s": {
            str(dtype).removeprefix("torch."): round(operations / seconds(dtype, PRODUCT_SIZE) / 1e9)
            for dtype in (torch.float32, torch.bfloat16)
        },
        "precision of training": choose_precision("auto"),
        "libraries": {name: installed(name) for name in LIBRARIES},
        "extras": {name: installed(library) for name, library in OPTIONAL.items()},
        "free space here, GB": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "temporary folder": tempfile.gettempdir(),
        "bundled data": "there" if sample_path("online_retail").exists() else "missing: install Palate again",
    }


def installed(library: str) -> str:
    """The version of a library, or how to see that it is not there."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
