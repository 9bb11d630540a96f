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
    course = ItemCourse(model, settings, labels, np.zeros(0, np.int64))
    return learn(
        course, model, settings, folder, precision="float32", run=run, resume=resume, display=display
    )


class ItemCourse:
    """Passes over the items that train: those that tasks have a label of, and ``others``.

    Raises:
        TrainingError: there is none.
    """

    unit = "items"

    def __init__(
        self,
        model: TasteModel,
        settings: Settings,
        labels: tuple[Labels, ...],
        others: IntArray,
    ) -> None:
        self.model, self.settings, self.labels = model, settings, labels
        tasks = build_tasks(settings.tasks, model, labels)
        self.tasks = [task for task in tasks if isinstance(task, ItemClass)]
        labelled = [task.labels.ids(Part.TRAIN) for task in self.tasks]
        self.training = np.unique(np.concatenate([others, *labelled]))
        self.size = len(self.training)
        if not self.size:
            raise TrainingError("No labelled item is left to learn from; give more items a label.")

    def begin(self) -> None:
        """Nothing is set: encoders begin at random, or with another run's weights."""

    def proceed(self, done: float) -> None:
        """Everything learns to the end."""

    def plan(self, epoch: int) -> list[IntArray]:
        """Pieces of about ``train.batch_events`` items."""
        return plan_items(self.training, self.settings.seed, epoch, self.settings.train.batch_events)

    def batch(self, rows: IntArray, epoch: int, step: int) -> IntArray:
        """The items themselves: their content is in the model."""
        del epoch, step
        return rows

    def loss(
        self, fabric: Fabric, network: torch.nn.Module, examples: IntArray
    ) -> tuple[torch.Tensor, float, int]:
        """The sum of ``losses``; all of these items are encoded with gradients."""
        del network
        items, n = torch.from_numpy(examples), len(examples)
        with fabric.autocast(), self.model.items.showing(items, texts=n, media=n, noise=True):
            losses = self.losses(examples)
        return torch.stack(losses).sum(), n, n

    def losses(self, examples: IntArray) -> list[torch.Tensor]:
        """The weighted mean loss of each task over those of these items that have the label."""
        parts = []
        for task in self.tasks:
            chosen = np.intersect1d(examples, task.labels.ids(Part.TRAIN))
            if len(chosen):
                losses, _ = task.of_items(chosen)
                parts.append(task.weight * losses.mean())
        return parts

    def validate(self) -> float | None:
        return validation_score(self.model, self.labels, self.settings.train.validate_metric)


def plan_items(items: IntArray, seed: int, epoch: int, at_a_time: int = 0) -> list[IntArray]:
    """A shuffled order cut into even pieces of about so many items; 0 is some 64 pieces of 16 to 256."""
    at_a_time = at_a_time or min(max(len(items) // STEPS_OF_A_PASS, FEWEST), MOST)
    order = np.random.default_rng([seed, epoch]).permutation(items)
    return np.array_split(order, max(1, round(len(items) / at_a_time)))
