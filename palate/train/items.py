"""Training on items alone: passes over those that train, no person and no event."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from palate.data.labels import Labels
from palate.data.prepared import Prepared
from palate.errors import TrainingError
from palate.evaluate.classes import check_metric, validation_score
from palate.nn.model import TasteModel
from palate.schema import IntArray, Part
from palate.settings import Settings
from palate.train.checkpoint import Progress, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from palate.train.loop import (
    build_optimisers,
    farewell,
    learning_rate,
    look_at_media,
    not_finite,
    write_log,
)
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
    """As ``palate.train.loop.train`` where every task is ``item_class``: the best pass counts, by
    ``train.validate_metric`` of the classes, and a run goes on where it was killed, bit for bit on a CPU.

    No item has an id vector of its own afterwards: none was trained.

    Raises:
        TrainingError: there is no item to learn from, or the loss is no longer a finite number.
        SettingsError: the validation metric is none of classes.
        BundleError: the checkpoint to resume from is damaged or of another run.
    """
    options = settings.train
    if options.threads:
        torch.set_num_threads(options.threads)
    check_metric(options.validate_metric)
    model.items.set_warm(np.zeros_like(prepared.warm))
    tasks = [task for task in build_tasks(settings.tasks, model, labels) if isinstance(task, ItemClass)]
    training = np.unique(np.concatenate([task.labels.ids(Part.TRAIN) for task in tasks]))
    if not len(training):
        raise TrainingError("No labelled item is left to learn from; give more items a label.")
    (optimiser,) = optimisers = build_optimisers(model, options, len(training))
    last, best = (
        (folder or Path()) / "checkpoints" / name for name in ("last.safetensors", "best.safetensors")
    )
    progress = Progress()
    if folder is not None and resume and last.exists():
        progress = load_checkpoint(last, model, optimisers, run)
    best_weights = read_tensors(best)[0] if progress.best_epoch >= 0 else {}
    fabric = Fabric(
        accelerator="auto",
        devices=1,
        loggers=TensorBoardLogger(folder, name="tensorboard", version="") if folder else None,
    )
    network, optimiser = fabric.setup(model, optimiser)
    progress.seconds += look_at_media(model.items, options)

    for epoch in range(progress.epoch, options.max_epochs):
        if progress.finished:
            break
        plan = plan_pass(training, options.batch_events, settings.seed, epoch)
        display.start(len(plan) * options.max_epochs, len(plan) * epoch + progress.step)
        network.train()
        started, began_with = time.perf_counter(), progress.seconds
        step_started = started
        for step in range(progress.step, len(plan)):
            draw = np.random.SeedSequence((settings.seed, epoch, step)).generate_state(1, np.uint64)
            torch.manual_seed(int(draw[0] >> 1))
            rate = learning_rate(options, (epoch + step / len(plan)) / options.max_epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate

            with model.items.showing(torch.from_numpy(plan[step]), len(plan[step])):
                loss = items_loss(tasks, plan[step])
            if not math.isfinite(loss.item()):
                raise TrainingError(not_finite(loss.item(), epoch, step, rate))
            fabric.backward(loss)
            fabric.clip_gradients(network, optimiser, options.clip_norm, error_if_nonfinite=False)
            optimiser.step()
            optimiser.zero_grad()

            progress.step = step + 1
            progress.loss_sum += loss.item() * len(plan[step])
            progress.loss_weight += len(plan[step])
            step_ended = time.perf_counter()
            display.step(epoch, loss.item(), len(plan[step]) / (step_ended - step_started))
            step_started = step_ended
            if folder is not None and (epoch * len(plan) + step + 1) % options.checkpoint_steps == 0:
                progress.seconds = began_with + time.perf_counter() - started
                save_checkpoint(last, model, [optimiser], progress, run)

        trained = time.perf_counter()
        model.items.refresh_media()
        metric = validation_score(model, labels, options.validate_metric)
        progress.seconds = began_with + time.perf_counter() - started
        ended_at = learning_rate(options, (epoch + 1) / options.max_epochs)
        better = progress.close_epoch(metric, ended_at, time.perf_counter() - trained, options)
        if better:
            best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        display.epoch(progress.history[-1], options.validate_metric, better)
        if folder is not None:
            fabric.log_dict(progress.history[-1], step=epoch)
            if better:
                write_tensors(best, best_weights, {"epoch": epoch})
            save_checkpoint(last, model, [optimiser], progress, run)
            write_log(folder / "log.jsonl", progress)

    model.load_state_dict(best_weights)
    display.stop(farewell(progress, options))
    return progress


def plan_pass(training: IntArray, items: int, seed: int, epoch: int) -> list[IntArray]:
    """The items of each step of a pass: a shuffled order cut into even pieces of about ``items``."""
    items = items or min(max(len(training) // STEPS_OF_A_PASS, FEWEST), MOST)
    order = np.random.default_rng([seed, epoch]).permutation(training)
    return np.array_split(order, max(1, round(len(order) / items)))


def items_loss(tasks: list[ItemClass], ids: IntArray) -> torch.Tensor:
    """The weighted sum of the tasks' mean losses over those of these items that have the label."""
    parts = []
    for task in tasks:
        chosen = np.intersect1d(ids, task.labels.ids(Part.TRAIN))
        if len(chosen):
            losses, _ = task.of_items(chosen)
            parts.append(task.weight * losses.mean())
    return torch.stack(parts).sum()
