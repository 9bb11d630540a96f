"""The demonstration: a real shop, judged in two ways.

Leave-one-out asks for each customer's latest first purchase, the protocol of most published tables. The
temporal split asks what a shop would ask: what was bought in the last thirty days, by people known before,
with and without what they had bought before (this shop's customers buy again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from palate.data.source import read_dataset
from palate.evaluate.judgement import Judgement
from palate.recommender import Recommender
from palate.run import start_afresh, write_judgements
from palate.samples import sample_path
from palate.schema import Dataset
from palate.settings import Settings

TEMPORAL: dict[str, Any] = {
    "data": {"repeats": "keep"},
    "split": {"kind": "temporal", "horizon_days": 30},
    # A month holds many things in no order that matters, and old habits count.
    # The later visits teach what somebody takes again, the rest of the basket what goes with what.
    "tasks": [
        {"name": "coming_items", "window": 100},
        {"name": "coming_items", "window": 100, "this_visit": True, "weight": 0.5},
    ],
    "model": {"width": 128, "blocks": 3, "max_history": 400, "dropout": 0.4},
    "train": {"max_epochs": 10},
    "evaluate": {
        "baselines": [
            "popularity",
            "recent_popularity",
            "bought_before",
            "content_knn",
            "item_knn",
            "ease",
            "als",
        ]
    },
}


def run_demo(
    folder: Path,
    given: Mapping[str, Any],
    *,
    fit: Callable[[Recommender, Dataset, Path, bool], None],
    judged: Callable[..., Judgement],
    say: Callable[[str], None],
) -> list[Judgement]:
    """``folder`` holds the leave-one-out run and a report of everything; ``folder``-temporal the other run.

    Args:
        given: settings that are different from the demonstration's own.
        fit: trains a recommender on a data set into a folder.
        judged: evaluates a trained recommender.
        say: tells a person what is being done.
    """
    shop = read_dataset(sample_path("online_retail"))
    latest, temporal = Recommender(given), Recommender(Settings.build(TEMPORAL, given))
    later = folder.with_name(folder.name + "-temporal")
    for run in (folder, later):
        start_afresh(run)
    say("[bold]1 of 2[/]  Each customer's latest new purchase is hidden and has to be found.")
    fit(latest, shop, folder, False)
    judgements = [judged(latest, title="The latest new purchase of each customer")]

    say("[bold]2 of 2[/]  The last thirty days are hidden and have to be foretold.")
    fit(temporal, shop, later, False)
    month = [
        judged(temporal, title="The last thirty days, things not bought before", filter_seen=True),
        judged(temporal, title="The last thirty days, things bought before included", filter_seen=False),
    ]
    write_judgements(later, temporal, month)
    write_judgements(folder, latest, judgements + month)
    return judgements + month
