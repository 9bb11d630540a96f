"""Every error that Palate raises on purpose, in one tree.

PalateError                 the user can mend it; the command line prints it and exits with 2
├── SettingsError           a setting or a YAML key that cannot be used
├── DataError               a table, a file or a row that cannot be used
│   └── LeakError           information from after the split would have reached training
├── UnknownKeyError         a person or an item that the recommender has never heard of
├── NotFittedError          the recommender was asked before it was trained
├── BundleError             a saved recommender that is damaged, altered or too new
├── StoreError              the event store does not answer, is closed, or is of a newer version
│   └── ConflictError       an event id came again with other content
├── BusyError               more is waiting to be answered than may wait
├── ExportError             a trained network that does not become the same graph
├── TrainingError           training cannot go on (a loss that is not finite, nothing to learn from)
└── MissingExtraError       an optional library is absent; the message names the extra

Each message says what came, what was wanted and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PalateError(Exception):
    """The root: a mistake that the caller can mend."""


class SettingsError(PalateError):
    """A setting has an unknown name or an impossible value."""


class DataError(PalateError):
    """A table, file or row cannot be used as it is."""


class LeakError(DataError):
    """Something from after the split would have reached training."""


class UnknownKeyError(PalateError):
    """A person or an item key is not known to the recommender."""


class NotFittedError(PalateError):
    """The recommender has not been trained or loaded yet."""


class BundleError(PalateError):
    """A saved recommender is damaged, altered, incomplete or of a newer format."""


class StoreError(PalateError):
    """The event store does not answer, is closed, cannot be used, or is of a newer version."""


class ConflictError(StoreError):
    """An event id came again with other content."""


class BusyError(PalateError):
    """More requests wait to be answered than may wait; the same request can be sent again soon."""


class ExportError(PalateError):
    """A network cannot be written as a graph, or the graph does not say what the network says."""


class TrainingError(PalateError):
    """Training cannot start or go on."""


class MissingExtraError(PalateError):
    """An optional library is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"This needs {library}, which is not installed. Install it with: pip install 'palate[{extra}]'"
        )


TRAINING_LIBRARIES = frozenset(
    (
        "implicit",
        "jinja2",
        "lightning_fabric",
        "matplotlib",
        "optuna",
        "scipy",
        "sklearn",
        "tensorboard",
        "torch",
    )
)
"""What the extra ``train`` brings, by the names under which it is imported."""


def missing_for_training(error: ImportError) -> MissingExtraError | None:
    """The error to raise instead, where a library that only training needs is not installed."""
    library = (error.name or "").partition(".")[0]
    return MissingExtraError(library, "train") if library in TRAINING_LIBRARIES else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest known name, or listing what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known names: {', '.join(names)}." if names else ""


def first_line(error: BaseException) -> str:
    """What a library's exception says in its first line, or its name where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
