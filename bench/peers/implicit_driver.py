"""implicit: alternating least squares. Runs in implicit's own environment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from common import K, Ranks, Split, Trial, arguments, best_of, settings_of
from implicit.als import AlternatingLeastSquares


def matrix_of(split: Split, part: str) -> sp.csr_matrix:
    person, item, _ = split.events(part)
    return sp.csr_matrix((np.ones(len(item), np.float32), (person, item)), shape=(split.people, split.items))


def main() -> None:
    options = arguments(__doc__).parse_args()
    split, given = Split.read(options.split), settings_of("implicit")
    known = {part: matrix_of(split, part) for part in ("validation", "test")}
    everyone = np.arange(split.people)

    def trial(factors: int, alpha: float) -> Trial:
        def fit() -> Callable[[str], Ranks]:
            model = AlternatingLeastSquares(
                factors,
                alpha=alpha,
                iterations=given["iterations"],
                num_threads=options.threads,
                random_state=options.seed,
            )
            model.fit(known["validation"], show_progress=False)
            return lambda part: split.ranks_in(
                model.recommend(
                    everyone, known[part], N=K, filter_already_liked_items=True, recalculate_user=True
                )[0],
                part,
            )

        settings = {"factors": factors, "alpha": alpha}
        return Trial(settings, fit, parameters=(split.people + split.items) * factors)

    best_of([trial(*tried) for tried in given["tried"]])


if __name__ == "__main__":
    main()
