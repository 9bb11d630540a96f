"""Tasks: a name, a weight and one loss per example, over one shared model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from palate.nn.loss import catalogue_softmax, sampled_softmax
from palate.nn.model import Vectors
from palate.schema import FIRST_ID, PADDING, Batch
from palate.settings import TaskSettings


class Sample(NamedTuple):
    """The part of a large catalogue that one step looks at."""

    rows: torch.Tensor  # int64 [R], ids of the table's rows
    negatives: torch.Tensor  # int64 [S], rows drawn as negatives, with repeats
    log_count: torch.Tensor  # float32 [R], log of how often each row is expected among the S draws


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
        self, batch: Batch, vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted loss of each example and its weight, both float32 [examples].

        No example's loss looks at another example's data. ``batch`` counts items by rows of
        ``vectors.table``, which is the catalogue, or the rows of ``sample`` where there is one.
        """
        ...


@dataclass(frozen=True)
class NextItem:
    """−log p(next item | history), at every position that is asked."""

    weight: float
    name: str = "next_item"

    def losses(
        self, batch: Batch, vectors: Vectors, sample: Sample | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Over the whole catalogue, or an unbiased estimate of it from the sample."""
        asked = batch.weight.nonzero().squeeze(1)
        states, target, weight = vectors.states[asked], batch.target[asked], batch.weight[asked]
        if sample is None:
            # Rows 0 and 1 are no items: nobody is ever recommended "unknown".
            return catalogue_softmax(states, vectors.table[FIRST_ID:], target - FIRST_ID, weight), weight
        losses = sampled_softmax(
            states,
            vectors.table[target],
            vectors.table[sample.negatives],
            target,
            sample.negatives,
            sample.log_count[target],
            sample.log_count[sample.negatives],
        )
        return losses * weight, weight


TASKS: dict[str, Callable[..., Task]] = {"next_item": NextItem}


def build_tasks(settings: tuple[TaskSettings, ...]) -> tuple[Task, ...]:
    """The tasks that the settings name."""
    return tuple(TASKS[task.name](weight=task.weight) for task in settings)


def sampling_probability(train_counts_V: torch.Tensor) -> torch.Tensor:
    """Chance of each item id to be drawn as a negative, ∝ (count + 1)^¾ (Mikolov et al., 2013); [V]."""
    chance = (train_counts_V.double() + 1) ** 0.75
    chance[PADDING:FIRST_ID] = 0
    return chance / chance.sum()


def draw_sample(batch: Batch, probability_V: torch.Tensor, negatives: int) -> tuple[Batch, Sample]:
    """Shared negatives for one step, and the batch counted in rows of the small table."""
    drawn = torch.multinomial(probability_V, negatives, replacement=True)
    reserved = torch.arange(FIRST_ID)
    rows, place = torch.unique(torch.cat([reserved, batch.item, batch.target, drawn]), return_inverse=True)
    N = len(batch.item)
    item, target, negative = place[FIRST_ID:].split([N, N, negatives])
    log_count = (negatives * probability_V[rows]).clamp_min(1e-12).log().float()
    return batch._replace(item=item, target=target), Sample(rows, negative, log_count)
