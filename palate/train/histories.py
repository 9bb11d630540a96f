"""Training on people's histories: what comes next, and whatever else the tasks ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from palate.data.batches import events_per_step, plan_epoch, training_batch
from palate.data.labels import Labels
from palate.data.store import Prepared
from palate.errors import TrainingError
from palate.evaluate.metrics import Metric
from palate.evaluate.network import NetworkRanker
from palate.evaluate.protocol import mean_metric
from palate.nn.item import ID_STD
from palate.nn.model import TasteModel
from palate.schema import FIRST_ID, Batch, BoolArray, IntArray, Part, Questions
from palate.settings import Settings
from palate.train.checkpoint import Progress
from palate.train.company import company_vectors
from palate.train.decide import scarcity
from palate.train.loop import learn
from palate.train.progress import Display
from palate.train.tasks import build_tasks, draw_sample, sampling_probability

VALIDATION_PEOPLE = 10_000
"""People asked after each pass; more would tell little more and cost a pass of time."""


def train_on_histories(
    model: TasteModel,
    prepared: Prepared,
    settings: Settings,
    folder: Path | None,
    *,
    run: str,
    resume: bool,
    display: Display,
    labels: tuple[Labels, ...] = (),
) -> Progress:
    """As ``palate.train.loop.learn``, from every training event of everybody.

    Args:
        labels: of the fields that tasks predict, one for each head of the model.

    Raises:
        TrainingError: there is nothing to learn from, or the loss is no longer a finite number.
        SettingsError: the validation metric is none.
        BundleError: the checkpoint to resume from is damaged or of another run.
    """
    Metric.parse(settings.train.validate_metric)  # a wrong name should not wait for the end of the first pass
    course = HistoryCourse(model, prepared, settings, labels)
    precision = settings.train.precision
    try:
        return learn(
            course, model, settings, folder, precision=precision, run=run, resume=resume, display=display
        )
    finally:
        for parameter in course.resting:
            parameter.requires_grad_(True)


class HistoryCourse:
    """Passes over all histories; each position is asked what came next.

    Raises:
        TrainingError: there is no training event.
    """

    unit = "events"

    def __init__(
        self, model: TasteModel, prepared: Prepared, settings: Settings, labels: tuple[Labels, ...]
    ) -> None:
        self.model, self.prepared, self.settings, self.labels = model, prepared, settings, labels
        self.histories, self.questions = prepared.training(), validation_questions(prepared, settings)
        self.size = len(self.histories.item)
        if not self.size:
            raise TrainingError(
                "No training event is left after the split; relax `data` or `split` settings."
            )
        self.target_weights = target_weight_of_events(prepared)
        self.tasks = build_tasks(settings.tasks, model, labels)
        self.draws_negatives = len(prepared.items) > settings.train.sampled_above
        # Of a large table a step sees a small part, and only that part should cost anything.
        model.items.id.sparse = self.draws_negatives
        counts = np.bincount(self.histories.item, minlength=prepared.items.size)
        # Without content an item is known by the "unknown" id alone, which learns here to be no answer.
        self.catalogue = training_catalogue(prepared.warm) if model.items.has_content else None
        self.probability_V = sampling_probability(torch.from_numpy(counts), self.catalogue)
        self.lengths, self.max_history = self.histories.lengths, settings.model.max_history
        self.resting: list[torch.nn.Parameter] = []
        """What tells content, once it has handed over to ids."""
        self.batch_events = settings.train.batch_events or events_per_step(
            self.lengths, max_history=self.max_history
        )

    @property
    def begins_with_company(self) -> bool:
        return self.settings.model.initial_vectors == "company"

    @property
    def ids_lead(self) -> bool:
        """Whether ids say something from the start, and content nothing yet: neither classes, nor what
        another run has learned."""
        return self.begins_with_company and not (self.labels or self.settings.train.start_from)

    def begin(self) -> None:
        """The id vectors are where the settings let them begin; content adds to them what it learns."""
        tower = self.model.items
        if self.begins_with_company:
            items, width = tower.id.weight.shape
            tower.begin_with(company_vectors(self.histories, items, width, ID_STD, self.settings.seed))
        if self.ids_lead:
            tower.silence_content()

    def proceed(self, done: float) -> None:
        """Content speaks for a share of training, the longer the scarcer events are, and brings together what
        is alike, so that it can tell new items afterwards. Then, where passes follow in which content learns
        anew, ids say what it said and go on alone, to tell what each item is by itself.

        A run that is resumed behind that finds content silent, and changes nothing.
        """
        follows = self.ids_lead and self.model.items.has_content and self.settings.train.content_passes
        if follows and done >= scarcity(self.size) and not self.resting:
            self.model.items.hand_over()
            self.resting = [each for each in self.model.items.fields.parameters() if each.requires_grad]
            for parameter in self.resting:
                parameter.requires_grad_(False)

    def plan(self, epoch: int) -> list[IntArray]:
        return plan_epoch(
            self.lengths,
            max_history=self.max_history,
            batch_events=self.batch_events,
            seed=self.settings.seed,
            epoch=epoch,
        )

    def batch(self, rows: IntArray, epoch: int, step: int) -> Batch[torch.Tensor]:
        batch = training_batch(
            self.histories,
            rows,
            max_history=self.max_history,
            has_time=self.prepared.schema.has_time,
            target_weights=self.target_weights,
            crop=self.settings.train.crop,
            past=self.model.again is not None and not self.draws_negatives,
            seed=(self.settings.seed, epoch, step),
        )
        return batch.map(torch.from_numpy)

    def loss(
        self, fabric: Fabric, network: torch.nn.Module, examples: Batch[torch.Tensor]
    ) -> tuple[torch.Tensor, float, int]:
        """The weighted mean of the tasks' losses, over the catalogue or a sample of it."""
        met, options = torch.cat([examples.item, examples.target]), self.settings.train
        shown = self.model.items.showing(met, texts=options.text_items, media=options.media_items)
        with fabric.autocast(), shown:
            sample, batch = None, examples
            if self.draws_negatives:
                batch, sample = draw_sample(batch, self.probability_V, self.settings.train.negatives)
                sample = sample.to(fabric.device)
            elif self.catalogue is not None:
                batch = in_rows(batch, self.catalogue)
            batch = batch.map(lambda tensor: tensor.to(fabric.device))
            rows = self.catalogue if sample is None else sample.rows
            rows = None if rows is None else rows.to(fabric.device)
            vectors = network(batch, rows)
            total, weight = torch.zeros((), device=fabric.device), 0.0
            for task in self.tasks:
                losses, weights = task.losses(batch, vectors, sample)
                weight = max(float(weights.sum()), 1e-9)
                total = total + task.weight * losses.sum() / weight
        return total, weight, len(examples.item)

    def validate(self) -> float | None:
        content_comes_later = self.model.items.has_content and self.settings.train.content_passes
        if self.questions is None or (self.prepared.has_cold_split and content_comes_later):
            return None
        return validation_metric(self.model, self.prepared, self.questions, self.settings)


def training_catalogue(warm: BoolArray) -> torch.Tensor | None:
    """Ids that training may look at, int64: reserved ones and items with training events; None is all.

    An item without one would be a wrong answer at every position: its content would learn to be unlikely.
    """
    rows = np.flatnonzero(warm | (np.arange(len(warm)) < FIRST_ID))
    return None if len(rows) == len(warm) else torch.from_numpy(rows)


def in_rows(batch: Batch[torch.Tensor], rows: torch.Tensor) -> Batch[torch.Tensor]:
    """The batch with items counted by their places in ``rows``, ascending ids that hold all of them."""
    past = batch.past
    return batch._replace(
        item=torch.searchsorted(rows, batch.item),
        target=torch.searchsorted(rows, batch.target),
        past=None if past is None else past._replace(item=torch.searchsorted(rows, past.item)),
    )


def validation_metric(
    model: TasteModel, prepared: Prepared, questions: Questions, settings: Settings
) -> float:
    """``train.validate_metric`` of these questions."""
    return mean_metric(
        NetworkRanker(model), prepared, questions, settings.train.validate_metric, settings.evaluate
    )


def validation_questions(prepared: Prepared, settings: Settings) -> Questions | None:
    """What is asked after each pass: the validation people, or a fixed sample of many; None without any."""
    questions = prepared.questions(
        Part.VALIDATION,
        filter_seen=settings.evaluate.filter_seen,
        cold_targets=settings.evaluate.cold_targets,
    )
    if not len(questions):
        return None
    if len(questions) > VALIDATION_PEOPLE:
        chosen = np.random.default_rng(settings.seed).permutation(len(questions))[:VALIDATION_PEOPLE]
        questions = questions.select(np.sort(chosen))
    return questions


def target_weight_of_events(prepared: Prepared) -> np.ndarray:
    """Weight of each event code as a target, float32; 0 for types that are inputs only."""
    schema = prepared.schema
    weights = np.zeros(len(schema.events), np.float32)
    weights[schema.target_codes] = np.array(schema.event_weights, np.float32)[schema.target_codes]
    return weights
