"""Data sets that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from palate.errors import DataError, did_you_mean

SAMPLES = ("online_retail",)


def sample_path(name: str) -> Path:
    """The folder of a sample, which ``read_dataset`` reads.

    Raises:
        DataError: there is no sample of that name.
    """
    folder = name.replace("-", "_")
    if folder not in SAMPLES:
        raise DataError(f"There is no sample '{name}'. {did_you_mean(folder, SAMPLES)}")
    return Path(str(files("palate.samples") / folder))
