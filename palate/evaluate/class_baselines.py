"""Other ways to tell the classes of items: the most frequent one, and logistic regression.

Each learns from the training items; the regularisation is the one with the best macro F1 on the
validation items (the first, where there are none). No field that is predicted is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from palate.data.labels import Labels
from palate.data.prepared import Prepared
from palate.evaluate.vectors import content_matrix
from palate.schema import BoolArray, FieldKind, FloatArray, IntArray, Media, Part

STRENGTHS = (1.0, 0.1, 10.0, 100.0)
"""Inverse regularisation C."""
BINS = 8
"""Of each of red, green and blue."""

Score = Callable[[BoolArray, npt.NDArray[np.float32], bool], float]


@dataclass(frozen=True)
class Told:
    """What a baseline learned."""

    probabilities: Callable[[IntArray], npt.NDArray[np.float32]]
    """Of these items, float32 [ids, classes]."""
    description: str = ""


def majority(prepared: Prepared, labels: Labels, hidden: tuple[str, ...], score: Score) -> Told | str:
    """Says of every item how frequent each class is among the training items."""
    del prepared, hidden, score
    share = labels.truth(labels.ids(Part.TRAIN)).mean(axis=0, dtype=np.float32)
    return Told(lambda ids: np.tile(share, (len(ids), 1)))


def logistic_of_words(
    prepared: Prepared, labels: Labels, hidden: tuple[str, ...], score: Score
) -> Told | str:
    """Logistic regression on TF-IDF of everything that can be read as words."""
    words = content_matrix(prepared, without=hidden)
    return "no item has text" if words is None else _logistic(words, labels, score)


def logistic_of_colours(
    prepared: Prepared, labels: Labels, hidden: tuple[str, ...], score: Score
) -> Told | str:
    """Logistic regression on the colours of the pictures of all image fields."""
    pictures = [
        prepared.media[field.name]
        for field in prepared.schema.fields
        if field.kind == FieldKind.IMAGE and field.name not in hidden and field.name in prepared.media
    ]
    if not pictures or not any(len(media.values) for media in pictures):
        return "no item has a picture"
    colours = np.concatenate([colour_histograms(media) for media in pictures], axis=1)
    return _logistic(sp.csr_array(colours), labels, score)


CLASS_BASELINES: Mapping[str, Callable[[Prepared, Labels, tuple[str, ...], Score], Told | str]] = {
    "majority": majority,
    "logistic_words": logistic_of_words,
    "logistic_colours": logistic_of_colours,
}
"""A function gives what it learned, or why it cannot learn here."""


def colour_histograms(media: Media) -> FloatArray:
    """The root of the share of the pixels in each of 8 × 8 × 8 colours, float32 [V, 512]; mean over pictures.

    Rows have length 1 (one picture) or are zero (none); the root makes their products the Bhattacharyya
    coefficient of the histograms.
    """
    step = 256 // BINS
    of_picture = np.zeros((len(media.values), BINS**3), np.float32)
    for row, picture in enumerate(media.values):
        red, green, blue = (np.asarray(picture).reshape(-1, 3) // step).astype(np.int64).T
        counts = np.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
        of_picture[row] = np.sqrt(counts / counts.sum())
    lengths = np.diff(media.offsets)
    item = np.repeat(np.arange(len(lengths)), lengths)
    shown = sp.csr_array(
        (np.ones(len(item), np.float32), (item, np.asarray(media.row))),
        shape=(len(lengths), len(media.values)),
    )
    result: FloatArray = (shown @ of_picture) / np.maximum(lengths, 1).astype(np.float32)[:, None]
    return result


def _logistic(features: sp.csr_array, labels: Labels, score: Score) -> Told:
    training, validation = labels.ids(Part.TRAIN), labels.ids(Part.VALIDATION)
    truth = labels.truth(validation)
    fitted = {}
    for strength in STRENGTHS:
        fitted[strength] = _fit(features[training], labels.truth(training), labels.several, strength)
        if not truth.any():
            break
    scores = {
        strength: score(truth, model(features[validation]), labels.several) if truth.any() else 0.0
        for strength, model in fitted.items()
    }
    best = max(scores, key=lambda strength: scores[strength])
    return Told(lambda ids: fitted[best](features[ids]), f"C {best:g}")


def _fit(
    features: sp.csr_array, truth: BoolArray, several: bool, strength: float
) -> Callable[[sp.csr_array], npt.NDArray[np.float32]]:
    """Multinomial for one label, one against the rest for several."""
    from sklearn.linear_model import LogisticRegression

    if not several:
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, truth.argmax(axis=1))
        columns = model.classes_

        def one(rows: sp.csr_array) -> npt.NDArray[np.float32]:
            found = np.zeros((rows.shape[0], truth.shape[1]), np.float32)
            found[:, columns] = model.predict_proba(rows)
            return found

        return one
    each: list[Any] = []
    for column in truth.T:  # a label that every training item has, or none, leaves nothing to learn
        constant = column.all() or not column.any()
        each.append(
            float(column[0])
            if constant
            else LogisticRegression(C=strength, solver="liblinear", max_iter=1000).fit(features, column)
        )

    def many(rows: sp.csr_array) -> npt.NDArray[np.float32]:
        columns = [
            np.full(rows.shape[0], model) if isinstance(model, float) else model.predict_proba(rows)[:, 1]
            for model in each
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    return many
