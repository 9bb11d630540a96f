"""RecTools: SASRec with its softmax loss, one like eSASRec, and EASE. Runs in RecTools' own environment.

``fit_partial`` keeps trainer and optimiser, so passes one by one are one training. Settings and where they
are from: ``settings.toml``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from common import K, Ranks, Split, Trial, arguments, best_of, settings_of, train_and_judge
from rectools.dataset import Dataset
from rectools.models import EASEModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers


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


def ranks_of_ease(model: EASEModel, known: Dataset, split: Split, part: str) -> Ranks:
    """Ranks by the fitted weights; RecTools' own way needs the numbering of the items in training, and
    refuses items that only the held-out events have.
    """
    items = known.item_id_map.external_ids.astype(np.int64)
    person, item, _ = split.events(part)
    taken = sp.csr_matrix((np.ones(len(item), np.float32), (person, item)), shape=(split.people, split.items))

    def score(rows: np.ndarray) -> np.ndarray:
        scores = np.full((len(rows), split.items), -np.inf, np.float32)
        scores[:, items] = taken[rows][:, items] @ model.weight
        return scores

    return split.ranks_of(score, part)


def ranks_of(model: SASRecModel, split: Split, dataset: Dataset, part: str) -> Ranks:
    """Ranks in the lists that RecTools makes for everybody."""
    found = model.recommend(np.arange(split.people), dataset, k=K, filter_viewed=True)
    lists = np.full((split.people, K), -1)
    lists[found["user_id"].to_numpy(), found["rank"].to_numpy() - 1] = found["item_id"].to_numpy()
    return split.ranks_in(lists, part)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("sasrec", "esasrec", "ease"), default="sasrec")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    split, given = Split.read(options.split), settings_of("rectools", options.model)
    known = dataset_of(split, "validation")
    if options.model == "ease":

        def trial(strength: float) -> Trial:
            def fit() -> Callable[[str], Ranks]:
                model = EASEModel(regularization=strength, recommend_n_threads=options.threads).fit(known)
                return lambda part: ranks_of_ease(model, known, split, part)

            return Trial({"regularization": strength}, fit, parameters=known.item_id_map.size**2)

        best_of([trial(strength) for strength in given["regularization"]])
        return
    layers = {"transformer_layers_type": LiGRLayers} if options.model == "esasrec" else {}
    model = SASRecModel(**given, **layers, epochs=1, verbose=0)
    asked = {"validation": known, "test": dataset_of(split, "test")}
    train_and_judge(
        options,
        lambda _: model.fit_partial(known, min_epochs=1, max_epochs=1),
        lambda part: ranks_of(model, split, asked[part], part),
        lambda: sum(parameter.numel() for parameter in model.lightning_model.parameters()),
    )


if __name__ == "__main__":
    main()
