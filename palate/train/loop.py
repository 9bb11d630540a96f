"""The training loop, from top to bottom."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from palate.data.ahead import made_ahead
from palate.data.batches import events_per_step, plan_epoch, training_batch
from palate.data.labels import Labels
from palate.data.store import Prepared
from palate.errors import SettingsError, TrainingError
from palate.evaluate.metrics import Metric
from palate.evaluate.network import NetworkRanker
from palate.evaluate.protocol import mean_metric
from palate.nn.item import ID_STD, ItemTower
from palate.nn.model import TasteModel
from palate.schema import Batch, Histories, Part, Questions
from palate.settings import Settings, TrainSettings
from palate.train.checkpoint import Progress, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from palate.train.company import company_vectors
from palate.train.decide import scarcity
from palate.train.precision import choose_precision
from palate.train.progress import Display
from palate.train.tasks import Task, build_tasks, draw_sample, sampling_probability

VALIDATION_PEOPLE = 10_000
"""People asked after each pass; more would tell little more and cost a pass of time."""
BETAS = (0.9, 0.98)
END_OF_DECAY = 0.01
"""The learning rate ends at this share of its peak."""


def train(
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
    """The model holds the weights of the pass with the best validation metric.

    With a ``folder``, checkpoints, ``log.jsonl`` and a TensorBoard log are written there, and ``resume``
    goes on from the last checkpoint to the same weights as an uninterrupted run, bit for bit on a CPU.

    Args:
        run: names the settings and the data; a checkpoint of another run is refused.
        labels: of the fields that tasks predict, one for each head of the model.

    Raises:
        TrainingError: there is nothing to learn from, or the loss is no longer a finite number.
        BundleError: the checkpoint to resume from is damaged or of another run.
    """
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    options = settings.train
    Metric.parse(options.validate_metric)  # a wrong name should not wait for the end of the first pass
    histories, questions = prepared.training(), validation_questions(prepared, settings)
    if not len(histories.item):
        raise TrainingError("No training event is left after the split; relax `data` or `split` settings.")
    target_weights = target_weight_of_events(prepared)
    tasks = build_tasks(settings.tasks, model, labels)
    draws_negatives = len(prepared.items) > options.sampled_above
    counts = np.bincount(histories.item, minlength=prepared.items.size)
    probability_V = sampling_probability(torch.from_numpy(counts))

    # Of a large table a step sees a small part, and only that part should cost anything.
    model.items.id.sparse = draws_negatives
    optimisers = build_optimisers(model, options, len(histories.item))
    last, best = (
        (folder or Path()) / "checkpoints" / name for name in ("last.safetensors", "best.safetensors")
    )
    progress = Progress(precision=choose_precision(options.precision))
    if folder is not None and resume and last.exists():
        progress = load_checkpoint(last, model, optimisers, run)
    else:
        progress.seconds = place_vectors(model, histories, settings)
    best_weights = read_tensors(best)[0] if progress.best_epoch >= 0 else {}
    fabric = Fabric(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if progress.precision == "bfloat16" else "32-true",
        loggers=TensorBoardLogger(folder, name="tensorboard", version="") if folder else None,
    )
    network, *optimisers = fabric.setup(model, *optimisers)
    progress.seconds += look_at_media(model.items, options)
    lengths, size = histories.lengths, settings.model.max_history
    batch_events = options.batch_events or events_per_step(lengths, max_history=size)

    for epoch in range(progress.epoch, options.max_epochs):
        if progress.finished:
            break
        plan = plan_epoch(
            lengths, max_history=size, batch_events=batch_events, seed=settings.seed, epoch=epoch
        )
        display.start(len(plan) * options.max_epochs, len(plan) * epoch + progress.step)
        network.train()
        started, began_with = time.perf_counter(), progress.seconds

        def batch_of(step: int) -> Batch:
            return training_batch(
                histories,
                plan[step],  # noqa: B023 - every batch of a pass is made before the pass ends
                max_history=size,
                has_time=prepared.schema.has_time,
                target_weights=target_weights,
                crop=options.crop,
                past=model.again is not None and not draws_negatives,
                seed=(settings.seed, epoch, step),  # noqa: B023
            )

        steps, step_started = range(progress.step, len(plan)), started
        for step, batch in zip(steps, made_ahead(batch_of, steps), strict=True):
            draw = (settings.seed, epoch, step)
            torch.manual_seed(int(np.random.SeedSequence(draw).generate_state(1, np.uint64)[0] >> 1))
            rate = learning_rate(options, (epoch + step / len(plan)) / options.max_epochs)
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = rate
            events = len(batch.item)

            with fabric.autocast(), model.items.showing(met_in(batch), options.media_items):
                loss, weight = step_loss(
                    fabric, network, batch, tasks, settings, probability_V if draws_negatives else None
                )
            if not math.isfinite(loss.item()):
                raise TrainingError(not_finite(loss.item(), epoch, step, rate))
            fabric.backward(loss)
            # The first holds all but a sparse table, whose steps do not depend on the size of its gradient.
            fabric.clip_gradients(network, optimisers[0], options.clip_norm, error_if_nonfinite=False)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()

            progress.step = step + 1
            progress.loss_sum += loss.item() * weight
            progress.loss_weight += weight
            step_ended = time.perf_counter()
            display.step(epoch, loss.item(), events / (step_ended - step_started))
            step_started = step_ended
            if folder is not None and (epoch * len(plan) + step + 1) % options.checkpoint_steps == 0:
                progress.seconds = began_with + time.perf_counter() - started
                save_checkpoint(last, model, optimisers, progress, run)

        trained = time.perf_counter()
        model.items.refresh_media()
        metric = validate(model, prepared, questions, settings)
        progress.seconds = began_with + time.perf_counter() - started
        # Not the loop's ``rate``: a run resumed after the last step of a pass takes no step in it.
        ended_at = learning_rate(options, (epoch + 1) / options.max_epochs)
        better = progress.close_epoch(metric, ended_at, time.perf_counter() - trained, options)
        if better:
            best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        display.epoch(progress.history[-1], options.validate_metric, better)
        if folder is not None:
            fabric.log_dict(progress.history[-1], step=epoch)
            if better:
                write_tensors(best, best_weights, {"epoch": epoch})
            save_checkpoint(last, model, optimisers, progress, run)
            write_log(folder / "log.jsonl", progress)

    model.load_state_dict(best_weights)
    display.stop(farewell(progress, options))
    return progress


def place_vectors(model: TasteModel, histories: Histories, settings: Settings) -> float:
    """The id vectors are where the settings let them begin; the seconds that it took."""
    started = time.perf_counter()
    if settings.model.initial_vectors == "company":
        items, width = model.items.id.weight.shape
        model.items.begin_with(company_vectors(histories, items, width, ID_STD, settings.seed))
    return time.perf_counter() - started


def look_at_media(items: ItemTower, options: TrainSettings) -> float:
    """Every picture, clip and track was encoded once, and encoders learn or not; the seconds that it took.

    Raises:
        SettingsError: an encoder that is nothing but random is to stay so.
    """
    started = time.perf_counter()
    for column in items.media if options.media == "frozen" else ():
        if not column.trained:
            raise SettingsError(
                f"train.media=frozen would keep the encoder of field '{column.shape.name}' as it begins, at "
                "random. Take train.media=end_to_end, or an encoder that has learned: that of another run "
                "(train.start_from=RUN) or, for pictures, a pretrained one "
                "(model.image.encoder=pretrained:NAME)."
            )
        column.encoder.requires_grad_(False)
    items.encode_new_media()
    return time.perf_counter() - started


def met_in(batch: Batch) -> torch.Tensor:
    """Ids of the items that were met or are asked for, with repetition."""
    return torch.cat([batch.item, batch.target])


def step_loss(
    fabric: Fabric,
    network: torch.nn.Module,
    batch: Batch,
    tasks: tuple[Task, ...],
    settings: Settings,
    probability_V: torch.Tensor | None,
) -> tuple[torch.Tensor, float]:
    """The weighted mean of the tasks' losses, and the weight of the examples behind it.

    With ``probability_V`` the catalogue is sampled; without, it is used whole.
    """
    sample = None
    if probability_V is not None:
        batch, sample = draw_sample(batch, probability_V, settings.train.negatives)
        sample = sample.to(fabric.device)
    batch = batch.to(fabric.device)
    rows = None if sample is None else sample.rows
    with fabric.autocast():
        vectors = network(batch, rows, settings.model.id_dropout)
        total, weight = torch.zeros((), device=fabric.device), 0.0
        for task in tasks:
            losses, weights = task.losses(batch, vectors, sample)
            weight = max(float(weights.sum()), 1e-9)
            total = total + task.weight * losses.sum() / weight
    return total, weight


def build_optimisers(model: TasteModel, options: TrainSettings, events: int) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter, 2019), whose vectors such as biases, gains and gates do not decay; where
    the id table is sparse, lazy Adam for it, which moves the rows of a step alone and lets nothing decay.
    """
    decay = options.weight_decay
    if decay is None:
        decay = scarcity(events)
    table, rate = model.items.id, options.learning_rate
    dense = [
        parameter for parameter in model.parameters() if not (table.sparse and parameter is table.weight)
    ]
    groups = [
        {"params": [parameter for parameter in dense if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in dense if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)]
    if table.sparse:
        optimisers.append(torch.optim.SparseAdam([table.weight], lr=rate, betas=BETAS))
    return optimisers


def learning_rate(options: TrainSettings, done: float) -> float:
    """The rate when a share ``done`` of all steps lies behind: a linear rise, then half a cosine."""
    if done < options.warmup:
        return options.learning_rate * max(done / options.warmup, END_OF_DECAY)
    falling = 0.5 * (1 + math.cos(math.pi * (done - options.warmup) / (1 - options.warmup)))
    return options.learning_rate * (END_OF_DECAY + (1 - END_OF_DECAY) * falling)


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


def validate(
    model: TasteModel, prepared: Prepared, questions: Questions | None, settings: Settings
) -> float | None:
    """The validation metric of the weights of this moment; None where nobody can be asked."""
    if questions is None:
        return None
    return mean_metric(
        NetworkRanker(model), prepared, questions, settings.train.validate_metric, settings.evaluate
    )


def target_weight_of_events(prepared: Prepared) -> np.ndarray:
    """Weight of each event code as a target, float32; 0 for types that are inputs only."""
    schema = prepared.schema
    weights = np.zeros(len(schema.events), np.float32)
    weights[schema.target_codes] = np.array(schema.event_weights, np.float32)[schema.target_codes]
    return weights


def write_log(path: Path, progress: Progress) -> None:
    """``path`` holds one JSON line per finished pass."""
    path.write_text("".join(json.dumps(record) + "\n" for record in progress.history), encoding="utf-8")


def not_finite(loss: float, epoch: int, step: int, rate: float) -> str:
    return (
        f"The loss is {loss} in pass {epoch + 1}, step {step + 1}, at learning rate {rate:.2e}. "
        "Try a smaller train.learning_rate (a third), a smaller train.clip_norm, or train.precision=float32. "
        "The last checkpoint is from before; --resume would meet the same step again."
    )


def farewell(progress: Progress, options: TrainSettings) -> str:
    passes = len(progress.history)
    best = f"the best was pass {progress.best_epoch + 1}"
    why = (
        "all passes are done"
        if passes >= options.max_epochs
        else f"{options.patience} passes brought nothing better"
    )
    return f"Training ended after pass {passes} ({why}); {best}; {progress.seconds:.0f} s."
