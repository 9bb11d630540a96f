"""implicit: alternating least squares. Runs in implicit's own environment."""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse as sp
from common import Lists, Split, arguments, peak_mb, say
from implicit.als import AlternatingLeastSquares

TRIED = ((64, 2.0), (64, 20.0), (128, 2.0))
"""Factors and confidence; the best on validation is taken."""


def matrix_of(split: Split, part: str) -> sp.csr_matrix:
    person, item, _ = split.events(part)
    return sp.csr_matrix((np.ones(len(item), np.float32), (person, item)), shape=(split.people, split.items))


def lists_of(model: AlternatingLeastSquares, matrix: sp.csr_matrix) -> Lists:
    everyone = np.arange(matrix.shape[0])
    lists: Lists = model.recommend(
        everyone, matrix, N=10, filter_already_liked_items=True, recalculate_user=True
    )[0]
    return lists


def main() -> None:
    options = arguments(__doc__).parse_args()
    split = Split.read(options.split)
    known = {part: matrix_of(split, part) for part in ("validation", "test")}
    best = -1.0
    for factors, alpha in TRIED:
        started = time.perf_counter()
        model = AlternatingLeastSquares(
            factors, alpha=alpha, iterations=15, num_threads=options.threads, random_state=options.seed
        )
        model.fit(known["validation"], show_progress=False)
        fitted = time.perf_counter()
        found = split.metrics(lists_of(model, known["validation"]), "validation")
        scoring = time.perf_counter() - fitted
        say(event="epoch", epoch=0, train_seconds=fitted - started, validation_seconds=scoring, **found)
        if found["ndcg@10"] > best:
            best, chosen = found["ndcg@10"], model
    test = split.metrics(lists_of(chosen, known["test"]), "test")
    say(
        event="done", best_epoch=0, validation_ndcg=best, test_ndcg=test["ndcg@10"], test_hr=test["hr@10"],
        score_seconds=scoring, peak_mb=peak_mb(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
