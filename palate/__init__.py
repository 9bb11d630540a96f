"""Palate: a recommender system that learns taste by convolution, from behaviour and from content.

The public names are imported when they are first used, so that ``import palate`` and
``palate --help`` need not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from palate import errors
from palate.version import __version__

if TYPE_CHECKING:
    from palate.data.source import dataset_from_frames, read_dataset
    from palate.recommender import Recommender
    from palate.settings import Settings

__all__ = ["Recommender", "Settings", "__version__", "dataset_from_frames", "errors", "read_dataset"]

_HOMES = {
    "Recommender": "palate.recommender",
    "Settings": "palate.settings",
    "dataset_from_frames": "palate.data.source",
    "read_dataset": "palate.data.source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'palate' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        raise errors.missing_for_training(error) or error from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
