"""Linear baselines over the table of people and items: EASE and alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from palate.evaluate.evidence import (
    LARGEST_DENSE,
    CannotFitError,
    Evidence,
    FromEvidence,
    Scores,
    popular_where_silent,
    product,
)
from palate.evaluate.vectors import history_matrix
from palate.schema import Questions


@dataclass
class Ease(FromEvidence):
    """Linear regression of every item on all others, in closed form (Steck, 2019).

    With G = XᵀX of the binary training table and P = (G + λI)⁻¹, the weights are
    B_ij = −P_ij / P_jj and B_jj = 0; scores are the history's row times B.
    """

    regularisation: float = 200.0
    name = "ease"

    @property
    def description(self) -> str:
        return f"λ {self.regularisation:g}"

    def learn(self, evidence: Evidence) -> Self:
        self.warm = np.flatnonzero(evidence.warm)
        if len(self.warm) > LARGEST_DENSE:
            raise CannotFitError(
                f"it inverts a table of items × items, and {len(self.warm):,} items are "
                f"more than {LARGEST_DENSE:,}."
            )
        gram = evidence.together[self.warm][:, self.warm].toarray()
        gram[np.diag_indices(len(gram))] += self.regularisation
        precision = _inverse(gram)
        precision /= -np.diag(precision).copy()
        np.fill_diagonal(precision, 0.0)
        self.weights, self.popularity = precision, evidence.popularity
        return self

    def score(self, questions: Questions) -> Scores:
        history = history_matrix(questions.histories, len(self.popularity))[:, self.warm]
        scores = np.zeros((len(questions), len(self.popularity)), np.float32)
        scores[:, self.warm] = product(history, self.weights)
        return popular_where_silent(scores, history, self.popularity)


@dataclass
class Als(FromEvidence):
    """Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren and Volinsky, 2008).

    By the library ``implicit``. The person's vector is solved anew from the question's history.
    """

    factors: int = 64
    regularisation: float = 0.1
    confidence: float = 2.0
    seed: int = 0
    name = "als"

    @property
    def description(self) -> str:
        return f"{self.factors} factors, regularisation {self.regularisation:g}, α {self.confidence:g}"

    def learn(self, evidence: Evidence) -> Self:
        with threadpool_limits(1, "blas"):  # implicit runs its own threads; BLAS threads inside are very slow
            from implicit.cpu.als import AlternatingLeastSquares

            self.model = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularisation,
                alpha=self.confidence,
                iterations=15,
                random_state=self.seed,
            )
            self.model.fit(sp.csr_matrix(evidence.people_items), show_progress=False)
        self.warm, self.popularity = evidence.warm, evidence.popularity
        return self

    def score(self, questions: Questions) -> Scores:
        history = history_matrix(questions.histories, len(self.popularity))
        history = sp.csr_array(history.multiply(self.warm))
        with threadpool_limits(1, "blas"):
            people = self.model.recalculate_user(np.arange(len(questions)), sp.csr_matrix(history))
        scores = np.asarray(people @ self.model.item_factors.T, dtype=np.float32)
        return popular_where_silent(scores, history, self.popularity)


def _inverse(positive_definite: Scores) -> Scores:
    """The inverse by Cholesky factors, in place: half the work and memory of a general inverse."""
    factor, _ = scipy.linalg.cho_factor(positive_definite.T, lower=True, overwrite_a=True, check_finite=False)
    potri = scipy.linalg.get_lapack_funcs("potri", (factor,))
    inverse, failed = potri(factor, lower=1, overwrite_c=1)
    assert not failed
    whole = np.tril(inverse)
    whole += np.tril(inverse, -1).T
    return np.asarray(whole)
