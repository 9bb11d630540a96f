"""Training on items alone: passes over those that train, no person and no event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from palate.data.labels import Labels
from palate.data.prepared import Prepared
from palate.errors import TrainingError
from palate.evaluate.classes import check_metric, validation_score
from palate.nn.model import TasteModel
from palate.schema import IntArray, Part
from palate.settings import Settings
from palate.train.checkpoint import Progress
from palate.train.loop import learn
from palate.train.progress import Display
from palate.train.tasks import ItemClass, build_tasks

STEPS_OF_A_PASS = 64
FEWEST, MOST = 16, 256
"""Items per step, where the settings leave it open."""


def train_on_items(
    model: TasteModel,
    prepared: Prepared,
    settings: Settings,
    folder: Path | None,
    *,
    run: str,
    resume: bool,
    display: Display,
    labels: tuple[Labels, ...],
) -> Progress:
    """As ``palate.train.loop.learn`` where every task is ``item_class``: the best pass counts, by
    ``train.validate_metric`` of the classes.

    No item has an id vector of its own afterwards: none was trained.

    Raises:
        TrainingError: there is no item to learn from, or the loss is no longer a finite number.
        SettingsError: the validation metric is none of classes.
        BundleError: the checkpoint to resume from is damaged or of another run.
    """
    check_metric(settings.train.validate_metric)
    model.items.set_warm(np.zeros_like(prepared.warm))
    course = ItemCourse(model, settings, labels)
    return learn(
        course, model, settings, folder, precision="float32", run=run, resume=resume, display=display
    )


class ItemCourse:
    """Passes over the labelled items that train.

    Raises:
        TrainingError: there is none.
    """

    unit = "items"

    def __init__(self, model: TasteModel, settings: Settings, labels: tuple[Labels, ...]) -> None:
        self.model, self.settings, self.labels = model, settings, labels
        tasks = build_tasks(settings.tasks, model, labels)
        self.tasks = [task for task in tasks if isinstance(task, ItemClass)]
        self.training = np.unique(np.concatenate([task.labels.ids(Part.TRAIN) for task in self.tasks]))
        self.size = len(self.training)
        if not self.size:
            raise TrainingError("No labelled item is left to learn from; give more items a label.")

    def begin(self) -> None:
        """Nothing is set: encoders begin at random, or with another run's weights."""

    def plan(self, epoch: int) -> list[IntArray]:
        """A shuffled order cut into even pieces of about ``train.batch_events`` items."""
        items = self.settings.train.batch_events or min(max(self.size // STEPS_OF_A_PASS, FEWEST), MOST)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(self.training)
        return np.array_split(order, max(1, round(self.size / items)))

    def batch(self, rows: IntArray, epoch: int, step: int) -> IntArray:
        """The items themselves: their content is in the model."""
        del epoch, step
        return rows

    def loss(
        self, fabric: Fabric, network: torch.nn.Module, examples: IntArray
    ) -> tuple[torch.Tensor, float, int]:
        """The weighted sum of the tasks' mean losses over those of these items that have the label."""
        del network
        parts, items = [], torch.from_numpy(examples)
        with fabric.autocast(), self.model.items.showing(items, texts=len(items), media=len(items)):
            for task in self.tasks:
                chosen = np.intersect1d(examples, task.labels.ids(Part.TRAIN))
                if len(chosen):
                    losses, _ = task.of_items(chosen)
                    parts.append(task.weight * losses.mean())
        return torch.stack(parts).sum(), len(examples), len(examples)

    def validate(self) -> float | None:
        return validation_score(self.model, self.labels, self.settings.train.validate_metric)
