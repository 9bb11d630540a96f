"""What the settings leave to the data."""

from __future__ import annotations

import math

from palate.data.batches import events_per_pass
from palate.data.labels import with_named_fields
from palate.data.prepared import Prepared
from palate.settings import Settings

EVENTS_OF_TRAINING = 3_500_000
"""More than these, a pass brings little that the passes before did not; see docs/log.md."""
FEWEST_PASSES, MOST_PASSES = 4, 12
PASSES_OVER_ITEMS, RATE_OF_ITEMS = 30, 5e-3
"""Where classes are learned alone; see docs/log.md."""
LEAST_DROPOUT, DROPOUT_OF_SCARCITY = 0.1, 0.3


def scarcity(events: int) -> float:
    """300 / √events, at most 1: a prior of fixed strength weighs less the more data there are."""
    return min(1.0, 300 / math.sqrt(max(1, events)))


def decided(settings: Settings, prepared: Prepared) -> Settings:
    """The settings with what they leave open: ``model.again``, dropout, the number of passes, the fields
    that are predicted, and, where nothing is recommended, the learning rate and what chooses the best pass.

    Raises:
        SettingsError: a task names no field, and there is not just one that it could mean.
    """
    settings = with_named_fields(settings, prepared.schema.fields)
    model, train, lengths = settings.model, settings.train, prepared.training().lengths
    if not settings.recommends:
        passes = train.max_epochs or PASSES_OVER_ITEMS
        of_items = {"validate_metric": "macro_f1", "learning_rate": RATE_OF_ITEMS, "patience": passes}
        left_open = {name: value for name, value in of_items.items() if name not in train.model_fields_set}
        train = train.model_copy(update={"max_epochs": passes, **left_open})
    if model.again == "auto":
        sampled = len(prepared.items) > train.sampled_above  # the sample leaves out the own past
        again = "ignored" if sampled else "learned" if prepared.has_repeats else "never"
        model = model.model_copy(update={"again": again})
    if "dropout" not in model.model_fields_set:
        dropout = LEAST_DROPOUT + DROPOUT_OF_SCARCITY * scarcity(int(lengths.sum()))
        model = model.model_copy(update={"dropout": round(dropout, 2)})
    if train.max_epochs == 0:
        events = events_per_pass(lengths, max_history=model.max_history)
        passes = round(EVENTS_OF_TRAINING / max(1, events))
        train = train.model_copy(update={"max_epochs": min(max(passes, FEWEST_PASSES), MOST_PASSES)})
    return settings.model_copy(update={"model": model, "train": train})
