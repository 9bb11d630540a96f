"""Metrics as functions of ranks, and of the lists that people would have seen.

A question asks for one or several targets. The rank of a target is its place in the whole catalogue,
1 for the best; ranks of all questions lie end to end, with offsets::

    offsets  0        2    3
    ranks    1.0 4.0 | 2.5      question 0 has two targets, question 1 has one

Ranks may be fractions, because ties count half (``palate.evaluate.protocol.tied_ranks``); a target is
within the first k when ``rank <= k``. Every function below gives one value per question, float64 [Q].
The formulas are those of trec_eval and ir-measures (MacAvaney et al., 2022), so that figures agree with
other libraries where ranks are whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from palate.errors import SettingsError, did_you_mean
from palate.schema import PADDING, BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Metric:
    """A metric by its written name: ``ndcg@10``, ``accuracy``, ``loss``.

    >>> Metric.parse("ndcg@10")
    Metric(name='ndcg', k=10)
    >>> str(Metric("accuracy"))
    'accuracy'
    """

    name: str
    k: int | None = None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """The metric called ``text``.

        Raises:
            SettingsError: an unknown name, or a cut-off that is missing, misplaced or below 1.
        """
        name, at, cutoff = text.strip().partition("@")
        if name in WITHOUT_CUTOFF:
            if at:
                raise SettingsError(f"'{text}': {name} takes no cut-off; write '{name}'.")
            return cls(name)
        if name not in PER_QUESTION and name not in LIST_METRICS:
            known = [*PER_QUESTION, *LIST_METRICS, *WITHOUT_CUTOFF]
            raise SettingsError(f"'{text}' is not a metric. {did_you_mean(name, known)}")
        if not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) >= 1):
            raise SettingsError(f"'{text}': wanted a cut-off of at least 1, for example '{name}@10'.")
        return cls(name, int(cutoff))

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @property
    def higher_is_better(self) -> bool:
        return self.name not in ("loss", "gini")


def precision(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Share of the first k places that are targets: |{rank ≤ k}| / k."""
    return _sums(ranks <= k, offsets) / k


def recall(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Share of the targets that are within the first k: |{rank ≤ k}| / R."""
    return _sums(ranks <= k, offsets) / _counts(offsets)


def f1(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Harmonic mean of precision and recall, 2·hits / (k + R); 0 where both are 0."""
    return 2.0 * _sums(ranks <= k, offsets) / (k + _counts(offsets))


def hit_rate(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """1 where any target is within the first k, else 0 (Success@k)."""
    return (_sums(ranks <= k, offsets) > 0).astype(np.float64)


def ndcg(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Normalised discounted cumulative gain of binary relevance (Järvelin and Kekäläinen, 2002).

    Σ_{rank ≤ k} 1 / log2(1 + rank), over the same sum for a list that begins with the targets,
    Σ_{i ≤ min(k, R)} 1 / log2(1 + i). Ranks 1 and 4 of two targets at k = 10:
    (1 + 0.431) / (1 + 0.631) = 0.877.
    """
    gains = np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return np.asarray(_sums(gains, offsets) / ideal[np.minimum(np.diff(offsets), k) - 1])


def mrr(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Reciprocal rank of the best target, 0 where it lies beyond k."""
    best = np.full(len(offsets) - 1, np.inf)
    np.minimum.at(best, _rows(offsets), ranks)
    return np.where(best <= k, 1.0 / best, 0.0)


def average_precision(ranks: FloatArray, offsets: IntArray, k: int) -> FloatArray:
    """Average precision; its mean over questions is MAP@k.

    (1 / R) Σ over targets within the first k of i / rank_i, where i counts the targets from the best.
    The divisor is the number of all targets, R, as in trec_eval and ir-measures, and not min(k, R):
    a question with more than k targets cannot reach 1. Ranks 1 and 4: (1/1 + 2/4) / 2 = 0.75.
    """
    rows = _rows(offsets)
    ordered = ranks[np.lexsort((ranks, rows))]
    place = np.arange(len(ranks)) - np.repeat(offsets[:-1], np.diff(offsets)) + 1
    return _sums(np.where(ordered <= k, place / ordered, 0.0), offsets) / _counts(offsets)


def accuracy(ranks: FloatArray, offsets: IntArray) -> FloatArray:
    """1 where the next item (the first target in time) has rank 1, else 0."""
    return (ranks[offsets[:-1]] < 1.5).astype(np.float64)


PER_QUESTION: dict[str, Callable[[FloatArray, IntArray, int], FloatArray]] = {
    "ndcg": ndcg,
    "hit_rate": hit_rate,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "mrr": mrr,
    "map": average_precision,
}
"""Metrics with a value for each question and a cut-off."""

LIST_METRICS = ("coverage", "novelty", "diversity", "gini")
"""Metrics of all the lists together; they do not ask whether a recommendation was right."""

WITHOUT_CUTOFF = ("accuracy", "loss")
"""Metrics of the next item alone."""


def of_ranks(metric: Metric, ranks: FloatArray, offsets: IntArray, loss: FloatArray | None) -> FloatArray:
    """The values of one metric, float64 [Q].

    Raises:
        SettingsError: a metric of lists, or ``loss`` where the ranker gives no probabilities.
    """
    if metric.name in PER_QUESTION and metric.k is not None:
        return PER_QUESTION[metric.name](ranks, offsets, metric.k)
    if metric.name == "accuracy":
        return accuracy(ranks, offsets)
    if metric.name == "loss" and loss is not None:
        return loss
    wanted = ", ".join([*(f"{name}@k" for name in PER_QUESTION), "accuracy"])
    raise SettingsError(f"'{metric}' has no value for each question here; choose one of {wanted}.")


def per_question(ranks: FloatArray, offsets: IntArray, cutoffs: Sequence[int]) -> dict[str, FloatArray]:
    """Every metric of ranks at every cut-off, by written name, and accuracy; each float64 [Q]."""
    wanted = [Metric(name, k) for name in PER_QUESTION for k in cutoffs] + [Metric("accuracy")]
    return {str(metric): of_ranks(metric, ranks, offsets, None) for metric in wanted}


def coverage(top: IntArray, candidates: BoolArray, k: int) -> float:
    """Share of the catalogue that stands in at least one person's first k."""
    shown = np.unique(top[:, :k])
    return int(np.count_nonzero(shown != PADDING)) / max(1, int(np.count_nonzero(candidates)))


def novelty(top: IntArray, popularity: IntArray, k: int) -> float:
    """Mean self-information of what is recommended, −log2(share of training events), in bits.

    After Zhou et al. (2010). An item without a training event counts as one event. An item with 1 % of
    all events has 6.6 bits.
    """
    share = np.maximum(popularity, 1).astype(np.float64) / max(1.0, float(popularity.sum()))
    shown = top[:, :k][top[:, :k] != PADDING]
    return float(-np.log2(share[shown]).mean()) if shown.size else 0.0


def gini(top: IntArray, candidates: BoolArray, k: int) -> float:
    """Gini coefficient of how often each item of the catalogue is recommended.

    0: all equally often; near 1: always the same few. With counts c sorted upwards over n items,
    Σ (2i − n − 1) c_i / (n Σ c_i).
    """
    counts = np.bincount(top[:, :k].ravel(), minlength=len(candidates))[candidates]
    ordered, n = np.sort(counts).astype(np.float64), len(counts)
    total = ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def diversity(top: IntArray, vectors: sp.csr_array, k: int, lists: int = 2000) -> float:
    """Mean over lists of the mean distance between two of their items, 1 − cosine (Ziegler et al., 2005).

    ``vectors`` has a row per item id; rows of zeros are unlike everything, themselves included. At most
    ``lists`` evenly spaced lists are measured. Uses Σ_{i≠j} cos = ‖Σ v̂‖² − Σ ‖v̂‖².
    """
    rows = np.unique(np.linspace(0, len(top) - 1, min(len(top), lists)).astype(np.int64))
    shown = top[rows, :k]
    length = np.count_nonzero(shown != PADDING, axis=1)
    shown, length = shown[length > 1], length[length > 1]
    if not len(shown):
        return 0.0
    unit = _unit_rows(vectors)
    membership = sp.csr_array(
        (
            np.ones(length.sum(), np.float32),
            shown[shown != PADDING],
            np.concatenate([[0], np.cumsum(length)]),
        ),
        shape=(len(shown), unit.shape[0]),
    )
    norms = np.asarray(unit.power(2).sum(axis=1)).ravel()
    together = np.asarray((membership @ unit).power(2).sum(axis=1)).ravel()
    cosine = (together - membership @ norms) / (length * (length - 1))
    return float(np.mean(1.0 - cosine))


def of_lists(
    top: IntArray, candidates: BoolArray, popularity: IntArray, vectors: sp.csr_array, cutoffs: Sequence[int]
) -> dict[str, float]:
    """Every list metric at every cut-off, by written name.

    ``top`` is int32 [Q, K], item ids in order, 0 where a list is shorter; ``candidates`` bool [V];
    ``popularity`` training events of each item [V]; ``vectors`` a row per item.
    """
    values: dict[str, float] = {}
    for k in cutoffs:
        values[f"coverage@{k}"] = coverage(top, candidates, k)
        values[f"novelty@{k}"] = novelty(top, popularity, k)
        values[f"diversity@{k}"] = diversity(top, vectors, k)
        values[f"gini@{k}"] = gini(top, candidates, k)
    return values


def _rows(offsets: IntArray) -> IntArray:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _counts(offsets: IntArray) -> FloatArray:
    """R, the number of targets of each question, float64 [Q]."""
    return np.diff(offsets).astype(np.float64)


def _sums(values: FloatArray | BoolArray, offsets: IntArray) -> FloatArray:
    """The sum over each question's targets, float64 [Q]."""
    return np.bincount(_rows(offsets), weights=values, minlength=len(offsets) - 1).astype(np.float64)


def _unit_rows(vectors: sp.csr_array) -> sp.csr_array:
    lengths = np.sqrt(np.asarray(vectors.power(2).sum(axis=1)).ravel())
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return sp.csr_array(sp.diags_array(scale) @ vectors)
