"""RecTools: SASRec with its softmax loss, and EASE. Runs in RecTools' own environment.

SASRec has the settings of RecTools' own benchmark on MovieLens (2 blocks, batch 128, learning rate 1e-3,
200 events; github.com/MobileTeleSystems/RecTools, benchmark of transformers), at Palate's width.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from common import Lists, Split, arguments, peak_mb, say, train_and_judge
from rectools.dataset import Dataset
from rectools.models import EASEModel, SASRecModel

EASE_STRENGTHS = (50.0, 200.0, 800.0)


def dataset_of(split: Split, part: str) -> Dataset:
    """What is known when ``part`` is asked, as RecTools wants it."""
    person, item, place = split.events(part)
    table = pd.DataFrame(
        {
            "user_id": person,
            "item_id": item,
            "weight": 1.0,
            "datetime": pd.Timestamp(2000, 1, 1) + pd.to_timedelta(place, unit="s"),
        }
    )
    return Dataset.construct(table)


def lists_of_ease(model: EASEModel, known: Dataset, split: Split, part: str) -> Lists:
    """The ten best for everybody; RecTools' own way refuses items that only the held-out events have."""
    items = known.item_id_map.external_ids.astype(np.int64)
    person, item, _ = split.events(part)
    taken = sp.csr_matrix((np.ones(len(item), np.float32), (person, item)), shape=(split.people, split.items))

    def score(rows: np.ndarray) -> np.ndarray:
        scores = np.full((len(rows), split.items), -np.inf, np.float32)
        scores[:, items] = taken[rows][:, items] @ model.weight
        return scores

    return split.lists_of(score, part)


def lists_of(model: SASRecModel, split: Split, dataset: Dataset) -> Lists:
    """The ten best for everybody."""
    found = model.recommend(np.arange(split.people), dataset, k=10, filter_viewed=True)
    lists = np.full((split.people, 10), -1)
    lists[found["user_id"].to_numpy(), found["rank"].to_numpy() - 1] = found["item_id"].to_numpy()
    return lists


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("sasrec", "ease"), default="sasrec")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    split = Split.read(options.split)
    known = {part: dataset_of(split, part) for part in ("validation", "test")}
    if options.model == "ease":
        strength, best = 0.0, -1.0
        for tried in EASE_STRENGTHS:
            started = time.perf_counter()
            model = EASEModel(regularization=tried).fit(known["validation"])
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            found = split.metrics(
                lists_of_ease(model, known["validation"], split, "validation"), "validation"
            )
            scoring = time.perf_counter() - started
            say(event="epoch", epoch=0, train_seconds=seconds, validation_seconds=scoring, **found)
            if found["ndcg@10"] > best:
                strength, best, chosen = tried, found["ndcg@10"], model
        test = split.metrics(lists_of_ease(chosen, known["validation"], split, "test"), "test")
        say(
            event="done", best_epoch=0, validation_ndcg=best,
            test_ndcg=test["ndcg@10"], test_hr=test["hr@10"],
            score_seconds=scoring, peak_mb=peak_mb(), chosen=strength,
        )  # fmt: skip
        return
    sasrec = SASRecModel(
        n_blocks=2, n_heads=4, n_factors=128, dropout_rate=0.2, session_max_len=200, loss="softmax",
        lr=1e-3, batch_size=128, epochs=1, verbose=0,
    )  # fmt: skip
    train_and_judge(
        split,
        options,
        lambda _: sasrec.fit_partial(known["validation"], min_epochs=1, max_epochs=1),
        lambda part: lists_of(sasrec, split, known[part]),
    )


if __name__ == "__main__":
    main()
