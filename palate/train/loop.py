"""The training loop, from top to bottom. What it goes through is a ``Course``."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from palate.data.ahead import made_ahead
from palate.errors import SettingsError, TrainingError
from palate.nn.item import ItemTower
from palate.nn.model import TasteModel
from palate.schema import IntArray
from palate.settings import Settings, TrainSettings
from palate.train.checkpoint import Progress, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from palate.train.decide import scarcity
from palate.train.precision import choose_precision
from palate.train.progress import Display

BETAS = (0.9, 0.98)
END_OF_DECAY = 0.01
"""The learning rate ends at this share of its peak."""

Examples = TypeVar("Examples")


class Course(Protocol[Examples]):
    """What is learned from: examples in passes, what they teach, and how much has been learned."""

    size: int
    """Events, or items, that a prior is weighed against."""
    unit: str
    """What they are called."""

    def begin(self) -> None:
        """The model is as a new training, not one that is resumed, lets it begin."""
        ...

    def proceed(self, done: float) -> None:
        """The model is as it is to be when this share of all steps lies behind; told before each step."""
        ...

    def plan(self, epoch: int) -> list[IntArray]:
        """What each step of a pass takes; a function of the settings and the pass alone."""
        ...

    def batch(self, rows: IntArray, epoch: int, step: int) -> Examples:
        """The examples of one step of the plan; made in another thread, while the step before is taken."""
        ...

    def loss(
        self, fabric: Fabric, network: torch.nn.Module, examples: Examples
    ) -> tuple[torch.Tensor, float, int]:
        """The mean loss, the weight of the examples behind it, and how many events or items they are."""
        ...

    def validate(self) -> float | None:
        """The validation metric of the weights of this moment; None where nothing can be asked."""
        ...


def learn(
    course: Course[Examples],
    model: TasteModel,
    settings: Settings,
    folder: Path | None,
    *,
    precision: Literal["auto", "float32", "bfloat16"],
    run: str,
    resume: bool,
    display: Display,
) -> Progress:
    """The model holds the weights of the pass with the best validation metric.

    With a ``folder``, checkpoints, ``log.jsonl`` and a TensorBoard log are written there, and ``resume``
    goes on from the last checkpoint to the same weights as an uninterrupted run, bit for bit on a CPU.

    Args:
        run: names the settings and the data; a checkpoint of another run is refused.

    Raises:
        TrainingError: the loss is no longer a finite number.
        SettingsError: encoders of media that are to stay as they are have not learned anything.
        BundleError: the checkpoint to resume from is damaged or of another run.
    """
    options = settings.train
    if options.threads:
        torch.set_num_threads(options.threads)
    optimisers = build_optimisers(model, options, course.size)
    last, best = (
        (folder or Path()) / "checkpoints" / name for name in ("last.safetensors", "best.safetensors")
    )
    progress, started = Progress(precision=choose_precision(precision)), time.perf_counter()
    if folder is not None and resume and last.exists():
        progress = load_checkpoint(last, model, optimisers, run)
    else:
        course.begin()
        progress.seconds = time.perf_counter() - started
    best_weights = read_tensors(best)[0] if progress.best_epoch >= 0 else {}
    fabric = Fabric(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if progress.precision == "bfloat16" else "32-true",
        loggers=TensorBoardLogger(folder, name="tensorboard", version="") if folder else None,
    )
    network, *optimisers = fabric.setup(model, *optimisers)
    progress.seconds += look_at_content(model.items, options)

    for epoch in range(progress.epoch, options.max_epochs):
        if progress.finished:
            break
        plan = course.plan(epoch)
        display.start(len(plan) * options.max_epochs, len(plan) * epoch + progress.step, course.unit)
        network.train()
        started, began_with = time.perf_counter(), progress.seconds

        def examples_of(step: int) -> Examples:
            return course.batch(plan[step], epoch, step)  # noqa: B023 - all of a pass are made before it ends

        steps, step_started = range(progress.step, len(plan)), started
        for step, examples in zip(steps, made_ahead(examples_of, steps), strict=True):
            done = (epoch + step / len(plan)) / options.max_epochs
            course.proceed(done)
            draw = (settings.seed, epoch, step)
            torch.manual_seed(int(np.random.SeedSequence(draw).generate_state(1, np.uint64)[0] >> 1))
            rate = learning_rate(options, done)
            for group in (group for optimiser in optimisers for group in optimiser.param_groups):
                group["lr"] = rate

            loss, weight, size = course.loss(fabric, network, examples)
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
            display.step(epoch, loss.item(), size / (step_ended - step_started))
            step_started = step_ended
            if folder is not None and (epoch * len(plan) + step + 1) % options.checkpoint_steps == 0:
                progress.seconds = began_with + time.perf_counter() - started
                save_checkpoint(last, model, optimisers, progress, run)

        trained = time.perf_counter()
        model.items.refresh()
        metric = course.validate()
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


def look_at_content(items: ItemTower, options: TrainSettings) -> float:
    """Every text, picture, clip and track was encoded once, and encoders of media learn or not; the seconds
    that it took.

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
    items.encode_new()
    return time.perf_counter() - started


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
