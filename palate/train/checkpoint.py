"""Checkpoints: one safetensors file that is always whole, with a readable JSON header.

A checkpoint holds weights, optimiser state and where the run was. The order of batches and every random
draw are functions of (seed, epoch, step), so nothing of a loader or a random generator is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from palate.errors import BundleError
from palate.settings import TrainSettings

FORMAT = 2


@dataclass
class Progress:
    """Where a run is."""

    epoch: int = 0
    """The pass that is under way."""
    step: int = 0
    """Steps of this pass that are done."""
    loss_sum: float = 0.0
    """Loss of this pass so far, summed over examples."""
    loss_weight: float = 0.0
    precision: str = "float32"
    best_metric: float | None = None
    best_epoch: int = -1
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """One entry per pass: epoch, loss, metric (where people could be asked), learning_rate, seconds, and
    validation_seconds among them."""

    def close_epoch(
        self, metric: float | None, rate: float, validation_seconds: float, options: TrainSettings
    ) -> bool:
        """The pass is over and the next one begins; whether this one is the best so far.

        A pass without a metric (nobody to ask) is always the best: there is nothing else to go by.
        """
        record = {"epoch": self.epoch, "loss": self.loss_sum / self.loss_weight, "learning_rate": rate}
        if metric is not None:
            record["metric"] = metric
        record["seconds"] = self.seconds - sum(entry["seconds"] for entry in self.history)
        record["validation_seconds"] = validation_seconds
        self.history.append(record)
        smaller_is_better = options.validate_metric == "loss"
        better = (
            metric is None
            or self.best_metric is None
            or (metric < self.best_metric if smaller_is_better else metric > self.best_metric)
        )
        if better:
            self.best_metric, self.best_epoch = metric, self.epoch
        self.finished = (
            self.epoch + 1 >= options.max_epochs or self.epoch - self.best_epoch >= options.patience
        )
        self.epoch, self.step, self.loss_sum, self.loss_weight = self.epoch + 1, 0, 0.0, 0.0
        return better


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """``path`` holds these tensors and this header; a crash leaves the old file or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, partial, metadata={"palate": json.dumps(header)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the header of a file that ``write_tensors`` wrote.

    Raises:
        BundleError: the file is missing, truncated or not of this kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["palate"])
            return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{path} is missing or damaged ({error}). Restore it, or train again.") from None


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    progress: Progress,
    run: str,
) -> None:
    """``path`` holds all that ``load_checkpoint`` needs to go on as though nothing had happened.

    Args:
        run: what the run depends on (settings and data); a checkpoint of another run is refused.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            place = f"optimiser.{number}.{index}"
            tensors |= {f"{place}.{name}": torch.as_tensor(value) for name, value in state.items()}
    header = {"format": FORMAT, "run": run, "progress": asdict(progress)}
    write_tensors(path, tensors, header)


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], run: str
) -> Progress:
    """The model and the optimisers are as they were when the checkpoint was written.

    Raises:
        BundleError: the file is damaged, of another format, or of a run with other settings or data.
    """
    tensors, header = read_tensors(path)
    if header["format"] != FORMAT:
        raise BundleError(
            f"{path} has checkpoint format {header['format']}; this version reads {FORMAT}. "
            "Train without --resume."
        )
    if header["run"] != run:
        raise BundleError(
            f"{path} belongs to a run with other settings or other data, so it cannot be resumed. "
            "Give the same settings and data, or train without --resume."
        )
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, torch.Tensor | int]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimiser.{number}."):
                _, _, index, key = name.split(".", 3)
                # Counts that were plain numbers are so again: as tensors they would round otherwise.
                value = tensor if tensor.ndim or tensor.is_floating_point() else int(tensor)
                state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(**header["progress"])
