"""The words and number formats in which results are shown, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from palate.evaluate.metrics import Metric

OURS = "Palate"

RANKERS = {
    "palate": OURS,
    "palate_time": f"{OURS}, time told",
    "palate_event": f"{OURS}, type told",
    "random": "Random",
    "popularity": "Popularity",
    "recent_popularity": "Recent popularity",
    "neighbour_popularity": "Neighbour popularity",
    "content_knn": "Content k-NN",
    "item_knn": "Item k-NN",
    "ease": "EASE",
    "als": "ALS",
    "recent_item_knn": "Recent-item k-NN",
    "recent_content_knn": "Recent-content k-NN",
    "bought_before": "Bought before",
}

ORDERS = {
    "shares": "shares of the events",
    "random": "random",
    "recency": "latest first",
    "popularity": "most popular first",
    "shuffled": "shares by shuffled weights",
    "shuffled backwards": "the same backwards",
}
"""Orders in which events are taken away or put in."""

CLASSIFIERS = {
    "majority": "Most frequent",
    "logistic_words": "Logistic regression, words",
    "logistic_colours": "Logistic regression, colours",
}

SPLITS = {
    "leave_one_out": "each person's last item held out",
    "leave_last_k": "each person's last items held out",
    "temporal": "everything after a date held out",
    "cold_items": "items never seen in training",
    "cold_users": "people never seen in training",
}

METRICS: dict[str, tuple[str, str]] = {
    "ndcg": (
        "NDCG",
        "How high the right items stand in the list: each counts 1 at the top and less further down, "
        "relative to a perfect list.",
    ),
    "hit_rate": ("Hit rate", "Share of people whose list holds at least one right item."),
    "recall": ("Recall", "Share of the right items that the list holds."),
    "precision": (
        "Precision",
        "Share of the list that is right; with one right item per person it cannot exceed 1/k.",
    ),
    "f1": ("F1", "Harmonic mean of precision and recall."),
    "mrr": ("MRR", "One over the place of the first right item, 0 where it is not in the list; the mean."),
    "map": ("MAP", "Precision at the place of each right item, averaged over all the right items."),
    "accuracy": ("Accuracy", "Share of people whose very next item is the first of the list."),
    "loss": ("Loss", "Mean surprise at the next item, −ln of its probability, in nats; lower is better."),
    "coverage": ("Coverage", "Share of the catalogue that is recommended to at least one person."),
    "novelty": (
        "Novelty",
        "Mean surprise of what is recommended, in bits: an item with 1% of all events has 6.6.",
    ),
    "diversity": ("Diversity", "How unlike one another the items of one list are: 0 the same, 1 unrelated."),
    "gini": (
        "Gini",
        "How unequally recommendations fall on items: 0 all alike, near 1 always the same few; "
        "lower is more even.",
    ),
}

CLASS_METRICS: dict[str, str] = {
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "accuracy": "Accuracy",
    "loss": "Loss",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "micro_precision": "Micro precision",
    "micro_recall": "Micro recall",
}

THINGS = {
    "purchase": "purchases",
    "view": "views",
    "favourite": "favourites",
    "rating": "ratings",
    "like": "likes",
    "click": "clicks",
    "play": "plays",
    "listen": "listens",
    "watch": "watches",
}
NUMERALS = {1: "one", 2: "two", 3: "three", 5: "five", 10: "ten", 20: "twenty", 50: "fifty", 100: "a hundred"}


def metric_of(text: str) -> tuple[str, int | None]:
    """Name and cut-off of a written metric, known or not."""
    name, _, cutoff = text.partition("@")
    return name, int(cutoff) if cutoff.isdigit() else None


def metric_label(text: str) -> str:
    """``hit_rate@10`` as it is read: Hit rate@10."""
    name, at, cutoff = text.partition("@")
    return METRICS.get(name, (CLASS_METRICS.get(name, name), ""))[0] + at + cutoff


def higher_is_better(text: str) -> bool:
    return Metric(metric_of(text)[0]).higher_is_better


def ranker_label(key: str) -> str:
    return RANKERS.get(key) or CLASSIFIERS.get(key, key)


def decimals(values: Iterable[float]) -> int:
    """Digits behind the point that suit a column: three or so that tell."""
    largest = max((abs(value) for value in values), default=0.0)
    return next((digits for least, digits in ((10, 1), (1, 2), (0.1, 3)) if largest >= least), 4)


def number(value: float, digits: int) -> str:
    """Fixed digits, thousands apart, a true minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def count(value: float) -> str:
    return number(value, 0)


def seconds(value: float | None) -> str:
    """A duration as people say it: 0.4 s, 38 s, 2:05 min, 1:12 h."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def nearest_cutoff(names: Iterable[str], metric: str, k: int = 10) -> str | None:
    """The written metric whose cut-off is nearest to ``k``; None where there is none."""
    cutoffs = [cutoff for name, cutoff in map(metric_of, names) if name == metric and cutoff]
    if not cutoffs:
        return None
    return f"{metric}@{min(cutoffs, key=lambda cutoff: (abs(cutoff - k), cutoff))}"


def protocol_line(judgement: Mapping[str, Any]) -> str:
    """Split, filter, catalogue and people in one line."""
    split = str(judgement.get("split", ""))
    parts = [str(judgement.get("title", "")), SPLITS.get(split, split.replace("_", " "))]
    if "filter_seen" in judgement:
        filtered = judgement["filter_seen"]
        parts.append("items seen before left out" if filtered else "items seen before allowed")
    if "people" in judgement:
        parts.append(f"{count(judgement['people'])} people")
    if "catalogue" in judgement:
        cold = judgement.get("among") == "cold"
        items = f"the {count(judgement['catalogue'])} new" if cold else f"all {count(judgement['catalogue'])}"
        parts.append(f"ranked among {items} items")
    return " · ".join(part for part in parts if part)


def class_protocol(judgement: Mapping[str, Any]) -> str:
    """What was predicted of which items, from what, in one line."""
    items, part = judgement.get("items", {}), str(judgement.get("part", "test"))
    cold = judgement.get("split") == "cold_items"
    parts = [
        f"{judgement.get('field', '')} of held-out items",
        SPLITS["cold_items"] if cold else "a random tenth of the items held out",
        f"{count(items.get('train', 0))} items learned from",
        f"{count(items.get(part, 0))} asked",
        "from content alone, without ids",
    ]
    if judgement.get("threshold") is not None:
        parts.append(f"labels from a probability of {judgement['threshold']:g} on")
    return " · ".join(parts)
