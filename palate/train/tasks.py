"""Tasks: a name, a weight and one loss per example, over one shared model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.nn import functional

from palate.data.labels import Labels
from palate.nn.classes import ClassHead
from palate.nn.item import ItemTower
from palate.nn.loss import catalogue_softmax, sampled_softmax
from palate.nn.model import TasteModel, Vectors
from palate.schema import FIRST_ID, PADDING, Batch, IntArray, Part
from palate.settings import TaskSettings

VISIT_GAP = 12
"""Bucket of time from which on a gap divides two visits: 2^11 seconds, some half an hour."""


STEP_ITEMS = 256
"""Items of a step that ``item_class`` looks at: so many of the batch, and as many from anywhere."""


class Sample(NamedTuple):
    """The part of a large catalogue that one step looks at."""

    rows: torch.Tensor  # int64 [R], ids of the table's rows
    negatives: torch.Tensor  # int64 [S], rows drawn as negatives, with repeats
    log_count: torch.Tensor  # float32 [R], log of how often each row is expected among the S draws

    def to(self, device: torch.device) -> Sample:
        return Sample(*(tensor.to(device) for tensor in self))


class Task(Protocol):
    """One loss over the shared model."""

    @property
    def name(self) -> str:
        """What logs call it."""
        ...

    @property
    def weight(self) -> float:
        """Its share of the whole loss."""
        ...

    def losses(
        self, batch: Batch[torch.Tensor], vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted loss of each example and its weight, both float32 [examples].

        No example's loss looks at another example's data. ``batch`` counts items by rows of
        ``vectors.table``, which is the catalogue, a part of it, or the rows of ``sample`` where there is one.
        """
        ...


@dataclass(frozen=True)
class NextItem:
    """−log p(next item | history), at every position that is asked."""

    weight: float
    name: str = "next_item"

    def losses(
        self, batch: Batch[torch.Tensor], vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Over all items of the table, or an unbiased estimate from the sample."""
        asked = batch.weight.nonzero().squeeze(1)
        return next_item_losses(asked, batch.target[asked], batch.weight[asked], vectors, sample)


def next_item_losses(
    asked_A: torch.Tensor,
    target_A: torch.Tensor,
    weight_A: torch.Tensor,
    vectors: Vectors,
    sample: Sample | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight · −log p(target | what is known at the position asked), and the weights; float32 [A] each."""
    states = vectors.states[asked_A]
    if sample is None:
        # Rows 0 and 1 are no items: nobody is ever recommended "unknown".
        bonuses = None if vectors.bonuses is None else vectors.bonuses.of_rows(asked_A).behind(FIRST_ID)
        table = vectors.table[FIRST_ID:]
        # An example without weight may have no target at all; any item will do.
        target = (target_A - FIRST_ID).clamp_min(0)
        return catalogue_softmax(states, table, target, weight_A, bonuses), weight_A
    losses = sampled_softmax(
        states,
        vectors.table[target_A],
        vectors.table[sample.negatives],
        target_A,
        sample.negatives,
        sample.log_count[target_A],
        sample.log_count[sample.negatives],
    )
    return losses * weight_A, weight_A


@dataclass(frozen=True)
class ComingItems:
    """−log p(item | history) for an item drawn from the next ``window`` events, anew in each pass.

    On average this is the mean over all of them: what somebody will take in the coming time, in whatever
    order. It suits splits by time; for the very next item ``NextItem`` is sharper. Where times are known
    the window begins with the next visit: the rest of the same basket would answer half of the questions,
    and is nothing that somebody who asks for the coming month can know.
    """

    weight: float
    window: int
    this_visit: bool
    name: str = "coming_items"

    def losses(
        self, batch: Batch[torch.Tensor], vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``NextItem``, with another item asked at each position, of which the question says nothing."""
        vectors = vectors.open or vectors
        history = (batch.position == 0).cumsum(dim=0) - 1
        own = (
            torch.arange(len(batch.gap), device=batch.gap.device) if self.this_visit else last_of_visit(batch)
        )
        left = (batch.last[history] - own).clamp_max(self.window)
        drawn = own + (torch.rand(len(own), device=own.device) * left).long()
        # A window cut out of a longer history has no beginning to be asked at.
        cut = (batch.position == 0) & (batch.weight == 0)
        weight = batch.weight[drawn].masked_fill(cut | (left == 0), 0.0)
        asked = weight.nonzero().squeeze(1)
        return next_item_losses(asked, batch.target[drawn[asked]], weight[asked], vectors, sample)


def last_of_visit(batch: Batch[torch.Tensor]) -> torch.Tensor:
    """For each position the last one of the same visit: half an hour or more, or the end, follows it.

    Where times are unknown, every event is a visit of its own; so is the start of a history.
    """
    own = torch.arange(len(batch.gap), device=batch.gap.device)
    if not bool(batch.gap.any()):
        return own
    coming = functional.pad(batch.gap[1:], (0, 1))
    ends = (coming >= VISIT_GAP) | (batch.position == 0)
    ends[batch.last] = True
    return ends.nonzero().squeeze(1)[ends.cumsum(dim=0) - ends.long()]


@dataclass(frozen=True)
class ItemClass:
    """How unlikely the classes of an item are, given its content; of the items that train and no others."""

    weight: float
    tower: ItemTower
    head: ClassHead
    labels: Labels
    name: str = "item_class"

    def losses(
        self, batch: Batch[torch.Tensor], vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of at most ``STEP_ITEMS`` items of the batch and as many others, drawn anew in each step."""
        del sample
        met = torch.unique(batch.item)
        met = (met if vectors.rows is None else vectors.rows[met]).cpu().numpy()
        training = self.labels.ids(Part.TRAIN)
        return self.of_items(np.union1d(_some(np.intersect1d(met, training)), _some(training)))

    def of_items(self, ids: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each of these items, and its weight, 1; float32 [ids] each."""
        device = self.head.threshold.device
        logits = self.head(self.tower.content(torch.from_numpy(ids).to(device)))
        losses = self.head.losses(logits, torch.from_numpy(self.labels.truth(ids)).to(device))
        return losses, torch.ones_like(losses)


def _some(ids: IntArray) -> IntArray:
    """At most ``STEP_ITEMS`` of these, drawn at random."""
    drawn: IntArray = ids[torch.randperm(len(ids))[:STEP_ITEMS].numpy()]
    return drawn


def build_tasks(
    settings: tuple[TaskSettings, ...], model: TasteModel | None = None, labels: tuple[Labels, ...] = ()
) -> tuple[Task, ...]:
    """The tasks that the settings name.

    Args:
        model: has a head for each of ``labels``.
        labels: one for each ``item_class``, in the order of the settings.
    """
    heads = iter(zip(model.class_heads() if model is not None else (), labels, strict=True))

    def build(task: TaskSettings) -> Task:
        if task.name == "item_class":
            assert model is not None, "a class is read off the model's items"
            return ItemClass(task.weight, model.items, *next(heads))
        if task.name == "coming_items":
            return ComingItems(task.weight, task.window, task.this_visit)
        return NextItem(task.weight)

    return tuple(build(task) for task in settings)


def sampling_probability(train_counts_V: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
    """Chance of each item id to be drawn as a negative, ∝ (count + 1)^¾ (Mikolov et al., 2013); [V].

    Ids that are not ``among`` these are never drawn.
    """
    chance = (train_counts_V.double() + 1) ** 0.75
    if among is not None:
        chance = torch.zeros_like(chance).index_copy(0, among, chance[among])
    chance[PADDING:FIRST_ID] = 0
    return chance / chance.sum()


def draw_sample(
    batch: Batch[torch.Tensor], probability_V: torch.Tensor, negatives: int
) -> tuple[Batch[torch.Tensor], Sample]:
    """Shared negatives for one step, and the batch counted in rows of the small table."""
    drawn = torch.multinomial(probability_V, negatives, replacement=True)
    reserved = torch.arange(FIRST_ID)
    rows, place = torch.unique(torch.cat([reserved, batch.item, batch.target, drawn]), return_inverse=True)
    N = len(batch.item)
    item, target, negative = place[FIRST_ID:].split([N, N, negatives])
    log_count = (negatives * probability_V[rows]).clamp_min(1e-12).log().float()
    return batch._replace(item=item, target=target), Sample(rows, negative, log_count)
