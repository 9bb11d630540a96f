"""How well the classes of items are told: metrics, and a judgement beside other ways to tell them.

A row gives probabilities [N, K] of K classes for N items. Its labels are the most probable class where an
item has one; where it may have several, all from a threshold on that was chosen on the validation items (by
macro F1, for every row alike), and the most probable one if none reaches it: every labelled item has one.

Precision, recall and F1 are scikit-learn's. Macro is the mean over the classes that the items asked have;
micro counts all decisions of all classes together. Accuracy is the share of items whose labels are all
right. The loss is cross-entropy in nats, of items with a class known from training: −log p of the one class,
or the mean over all classes of −log p where it is there and −log(1 − p) where it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from palate.data.labels import Labels
from palate.data.prepared import Prepared
from palate.errors import SettingsError, did_you_mean
from palate.evaluate.class_baselines import CLASS_BASELINES
from palate.nn.model import TasteModel
from palate.schema import BoolArray, FieldKind, IntArray, Part

METRICS = (
    "macro_f1", "micro_f1", "accuracy", "loss",
    "macro_precision", "macro_recall", "micro_precision", "micro_recall",
)  # fmt: skip
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
SMALLEST = 1e-7
"""Probabilities are taken to be at least so far from 0 and 1 when their logarithm is."""
CHUNK = 1024

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClassRow:
    """What one way to tell classes reached."""

    metrics: dict[str, float]
    classes: tuple[dict[str, Any], ...]
    """Of each class that items have or were given: ``name``, ``precision``, ``recall``, ``f1``, ``items``."""
    threshold: float | None
    """None where an item has one class."""
    seconds: float
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "classes": list(self.classes),
            "threshold": self.threshold,
            "seconds": self.seconds,
            "description": self.description,
        }


@dataclass(frozen=True)
class ClassJudgement:
    """How well one field was predicted, and under which protocol."""

    field: str
    kind: FieldKind
    part: Part
    split: str
    items: dict[str, int]
    """Labelled items that trained, validated and tested."""
    unseen: int
    """Items asked of which no class was known from training; nobody can be right about them."""
    model: ClassRow
    baselines: dict[str, ClassRow]
    skipped: dict[str, str]
    confusion: tuple[tuple[float, ...], ...]
    """Of the items with the class of a row, the share that was given the class of the column; in the order of
    ``model.classes``."""

    def to_json(self) -> dict[str, Any]:
        """The judgement as plain mappings; ``task`` tells it from one of rankings."""
        return {
            "task": "item_class",
            "field": self.field,
            "kind": str(self.kind),
            "part": str(self.part),
            "split": self.split,
            "items": self.items,
            "unseen": self.unseen,
            **self.model.to_json(),
            "confusion": [list(row) for row in self.confusion],
            "baselines": {name: row.to_json() for name, row in self.baselines.items()},
            "skipped": self.skipped,
        }


def check_metric(name: str) -> None:
    """Raises:
    SettingsError: ``name`` is no metric of classes.
    """
    if name not in METRICS:
        raise SettingsError(
            f"train.validate_metric is '{name}'; where item_class is learned alone, wanted one of its "
            f"metrics: {', '.join(METRICS)}. {did_you_mean(name, METRICS)}"
        )


def class_probabilities(model: TasteModel, place: int, ids: IntArray) -> Probabilities:
    """What the head at this place says of each item, float32 [ids, classes]."""
    head = model.class_heads()[place]
    model.eval()
    found = [np.zeros((0, head.linear.out_features), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(ids), CHUNK):
            rows = torch.from_numpy(ids[start : start + CHUNK]).to(head.threshold.device)
            found.append(head.probabilities(head(model.items.content(rows))).cpu().numpy())
    return np.concatenate(found)


def decide(probabilities: Probabilities, threshold: float | None) -> BoolArray:
    """The labels of each item [N, K]: at least one; exactly one without a threshold."""
    best = np.zeros(probabilities.shape, np.bool_)
    best[np.arange(len(best)), probabilities.argmax(axis=1)] = True
    return best if threshold is None else best | (probabilities >= threshold)


def class_metrics(
    truth: BoolArray, probabilities: Probabilities, threshold: float | None
) -> dict[str, float]:
    """``METRICS`` of items with this truth [N, K]; the loss is absent where no class of them is known."""
    from sklearn.metrics import precision_recall_fscore_support

    given = decide(probabilities, threshold)
    found: dict[str, float] = {}
    for average, labels in (
        ("macro", np.flatnonzero(truth.any(axis=0))),
        ("micro", np.arange(truth.shape[1])),
    ):
        values = (
            precision_recall_fscore_support(truth, given, labels=labels, average=average, zero_division=0)
            if len(labels)
            else (0.0, 0.0, 0.0)
        )
        for name, value in zip(("precision", "recall", "f1"), values[:3], strict=True):
            found[f"{average}_{name}"] = float(value)
    found["accuracy"] = float((truth == given).all(axis=1).mean())
    known = truth.any(axis=1)
    if known.any():
        found["loss"] = _loss(truth[known], probabilities[known], threshold is not None)
    return {name: found[name] for name in METRICS if name in found}


def _loss(truth: BoolArray, probabilities: Probabilities, several: bool) -> float:
    p = np.clip(probabilities.astype(np.float64), SMALLEST, 1 - SMALLEST)
    if several:
        return float(-np.where(truth, np.log(p), np.log1p(-p)).mean())
    return float(-np.log(p[truth]).mean())


def best_threshold(truth: BoolArray, probabilities: Probabilities) -> float:
    """That with the best macro F1 on these items, of equal ones the nearest to .5; .5 without items."""
    if not truth.any():
        return 0.5
    macro = {t: macro_f1(truth, decide(probabilities, t)) for t in THRESHOLDS}
    return max(THRESHOLDS, key=lambda t: (macro[t], -abs(t - 0.5)))


def macro_f1(truth: BoolArray, given: BoolArray) -> float:
    """As in ``class_metrics``, without what takes time there: each pass asks for it at every threshold."""
    there = truth.any(axis=0)
    right, had, said = ((each[:, there]).sum(axis=0) for each in (truth & given, truth, given))
    return float((2 * right / (had + said)).mean())


def validation_score(model: TasteModel, labels: tuple[Labels, ...], metric: str) -> float | None:
    """The metric on the validation items, the mean over the fields; None where no item validates."""
    found = []
    for place, of in enumerate(labels):
        ids = of.ids(Part.VALIDATION)
        truth = of.truth(ids)
        if not truth.any():
            continue
        probabilities = class_probabilities(model, place, ids)
        threshold = best_threshold(truth, probabilities) if of.several else None
        found.append(class_metrics(truth, probabilities, threshold)[metric])
    return float(np.mean(found)) if found else None


def set_thresholds(model: TasteModel, labels: tuple[Labels, ...]) -> None:
    """Each head of several labels gives them from its best threshold on the validation items on."""
    for place, (head, of) in enumerate(zip(model.class_heads(), labels, strict=True)):
        if of.several:
            ids = of.ids(Part.VALIDATION)
            head.threshold.fill_(best_threshold(of.truth(ids), class_probabilities(model, place, ids)))


def judge_classes(
    model: TasteModel,
    prepared: Prepared,
    labels: tuple[Labels, ...],
    *,
    part: Part = Part.TEST,
    fit_seconds: float = 0.0,
    on_start: Callable[[str], None] | None = None,
) -> list[ClassJudgement]:
    """A judgement of each predicted field on the items of ``part``, beside ``CLASS_BASELINES``.

    A field of which no item of the part has a value is left out.
    """
    hidden = tuple(of.name for of in labels)
    return [
        _judged(model, place, prepared, of, hidden, part, fit_seconds, on_start)
        for place, of in enumerate(labels)
        if len(of.ids(part))
    ]


def _judged(
    model: TasteModel,
    place: int,
    prepared: Prepared,
    labels: Labels,
    hidden: tuple[str, ...],
    part: Part,
    fit_seconds: float,
    on_start: Callable[[str], None] | None,
) -> ClassJudgement:
    ids = labels.ids(part)
    truth = labels.truth(ids)
    head = model.class_heads()[place]
    probabilities = class_probabilities(model, place, ids)
    threshold = round(float(head.threshold), 2) if labels.several else None
    ours = _row(labels, truth, probabilities, threshold, fit_seconds)
    baselines, skipped = {}, {}
    for name, learn in CLASS_BASELINES.items():
        if on_start is not None:
            on_start(name)
        started = time.perf_counter()
        told = learn(prepared, labels, hidden, best_macro_f1)
        if isinstance(told, str):
            skipped[name] = told
            continue
        validation = labels.ids(Part.VALIDATION)
        theirs = (
            best_threshold(labels.truth(validation), told.probabilities(validation))
            if labels.several
            else None
        )
        seconds = time.perf_counter() - started
        baselines[name] = _row(labels, truth, told.probabilities(ids), theirs, seconds, told.description)
    return ClassJudgement(
        field=labels.name,
        kind=labels.column.kind,
        part=part,
        split=prepared.split.kind,
        items={str(each): len(labels.ids(each)) for each in Part},
        unseen=int((~truth.any(axis=1)).sum()),
        model=ours,
        baselines=baselines,
        skipped=skipped,
        confusion=confusion(truth, decide(probabilities, threshold)),
    )


def best_macro_f1(truth: BoolArray, probabilities: Probabilities, several: bool) -> float:
    """What settings of a baseline are chosen by: macro F1, of several labels at the best threshold."""
    threshold = best_threshold(truth, probabilities) if several else None
    return class_metrics(truth, probabilities, threshold)["macro_f1"]


def _row(
    labels: Labels,
    truth: BoolArray,
    probabilities: Probabilities,
    threshold: float | None,
    seconds: float,
    description: str = "",
) -> ClassRow:
    from sklearn.metrics import precision_recall_fscore_support

    given = decide(probabilities, threshold)
    shown = _shown(truth, given)
    columns = precision_recall_fscore_support(truth, given, labels=shown, average=None, zero_division=0)
    classes = tuple(
        {
            "name": labels.classes[k],
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "items": int(n),
        }
        for k, p, r, f, n in zip(shown, *columns, strict=True)
    )
    return ClassRow(class_metrics(truth, probabilities, threshold), classes, threshold, seconds, description)


def _shown(truth: BoolArray, given: BoolArray) -> IntArray:
    """The classes that items have or were given, the most frequent of these items first."""
    found = np.flatnonzero(truth.any(axis=0) | given.any(axis=0))
    return found[np.argsort(-truth[:, found].sum(axis=0), kind="stable")]


def confusion(truth: BoolArray, given: BoolArray) -> tuple[tuple[float, ...], ...]:
    """Of the items with class i the share that was given class j, over the classes of ``_shown``."""
    shown = _shown(truth, given)
    have = truth[:, shown].astype(np.float64)
    shares = have.T @ given[:, shown] / np.maximum(have.sum(axis=0), 1.0)[:, None]
    return tuple(tuple(float(share) for share in row) for row in shares)
