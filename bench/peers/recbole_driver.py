"""RecBole: NextItNet, Caser, SASRec and GRU4Rec with their own settings. Runs in RecBole's own environment.

Training data, loss, batches and the loop are RecBole's (one window per example, softmax over the catalogue);
judging is ours, since RecBole's own evaluation of sequences does not leave out what was met.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Ranks, Split, arguments, peak_mb, say, settings_of, train_and_judge

WARM_UP = 3
_load = torch.load
torch.load = lambda *given, **named: _load(*given, **{**named, "weights_only": False})  # RecBole's own files

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


def write_inter(split: Split, folder: Path) -> None:
    """RecBole's table of everything, the held-out events at the ends; it splits them off by itself."""
    person, item, place = split.events("test")
    everyone = np.arange(split.people)
    person, item = np.append(person, everyone), np.append(item, split.test)
    place = np.append(place, np.diff(split.offsets) + 1)
    (folder / "peers").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    lines += [f"{u}\t{i}\t{t}" for u, i, t in zip(person, item, place, strict=True)]
    (folder / "peers" / "peers.inter").write_text("\n".join(lines) + "\n")


class Steps:
    """The first steps of a loader; when each was asked for is noted."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.asked: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(iter(self.loader), self.steps):
            self.asked.append(time.perf_counter())
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("NextItNet", "Caser", "SASRec", "GRU4Rec"), required=True)
    parser.add_argument("--length", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.INFO)
    split = Split.read(options.split)
    # RecBole leaves a TensorBoard log where it stands.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_inter(split, Path(folder))
        config = Config(
            model=options.model,
            dataset="peers",
            config_dict={
                "data_path": folder,
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "eval_args": {
                    "split": {"LS": "valid_and_test"},
                    "order": "TO",
                    "mode": "full",
                    "group_by": "user",
                },
                "MAX_ITEM_LIST_LENGTH": options.length,
                "train_neg_sample_args": None,
                "seed": options.seed,
                "use_gpu": False,
                "show_progress": False,
                "checkpoint_dir": folder,
                **settings_of("recbole"),
            },
        )
        init_seed(options.seed, config["reproducibility"])
        dataset = create_dataset(config)
        train_data, _, _ = data_preparation(config, dataset)
        model = get_model(options.model)(config, train_data.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], options.model)(config, model)
        # RecBole numbers people and items anew; 0 is its padding.
        item_id = dataset.token2id("item_id", [str(n) for n in range(split.items)])
        user_id = dataset.token2id("user_id", [str(n) for n in range(split.people)])

        def ranks(part: str) -> Ranks:
            model.eval()
            _, item, _ = split.events(part)
            ends = split.offsets[1:] + (np.arange(1, split.people + 1) if part == "test" else 0)
            begins = np.append(0, ends[:-1])

            def score(rows: np.ndarray) -> np.ndarray:
                histories = [item_id[item[max(begins[r], ends[r] - options.length) : ends[r]]] for r in rows]
                padded = np.zeros((len(rows), options.length), np.int64)
                for row, history in zip(padded, histories, strict=True):
                    row[: len(history)] = history
                asked = Interaction(
                    {
                        "user_id": torch.from_numpy(user_id[rows]),
                        "item_id_list": torch.from_numpy(padded),
                        "item_length": torch.tensor([len(history) for history in histories]),
                    }
                )
                with torch.no_grad():
                    return model.full_sort_predict(asked).view(len(rows), -1).numpy()[:, item_id]

            return split.ranks_of(score, part, chunk=256)

        def parameters() -> int:
            return sum(parameter.numel() for parameter in model.parameters())

        if options.steps is not None:
            first = Steps(train_data, options.steps + WARM_UP + 1)
            trainer._train_epoch(first, 0, show_progress=False)
            seconds = np.diff(first.asked)[WARM_UP:]
            if not len(seconds):
                raise SystemExit(f"An epoch has only {len(train_data)} steps: too few to estimate it from.")
            trained = time.perf_counter()
            ranks("validation")
            say(
                event="estimate",
                train_seconds=float(seconds.mean() * len(train_data)),
                steps=len(seconds),
                total_steps=len(train_data),
                score_seconds=time.perf_counter() - trained,
                peak_mb=peak_mb(),
                parameters=parameters(),
            )
            return
        train_and_judge(
            options,
            lambda epoch: trainer._train_epoch(train_data, epoch, show_progress=False),
            ranks,
            parameters,
        )


if __name__ == "__main__":
    main()
