"""Known-answer tests of the encoders of sound and film: people whose taste is known.

    python examples/music/make.py DIR      # or examples/video/make.py
    python examples/known_answer.py DIR

A world has things of families (a × b, such as timbre × rhythm), and people. Half of the people like one
family, half like two, all equally likely. Each event of a person draws a family, ``LOYALTY`` of the time one
that the person likes and else any, and then a thing of that family that the person has not taken yet. Keys,
names of files and the order of the table say nothing of families: only what is heard or seen does.

A share of the things leaves training (``split.kind: cold_items``), and is ranked by content alone. The best
ranking that anybody could make of the histories is known, since the process is: Bayes' rule over all tastes.
This is a test of the encoders and of nothing else; no person ever behaved like that.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import yaml

from palate.data.prepared import Prepared
from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.evaluate.network import NetworkRanker
from palate.evaluate.popular import Random
from palate.evaluate.protocol import Ranker, evaluate
from palate.evaluate.vectors import history_matrix
from palate.recommender import Recommender
from palate.schema import FIRST_ID, Among, FloatArray, IntArray, Part, Questions
from palate.settings import Settings
from palate.train.progress import Display, Silent

LOYALTY = 0.9
EVENTS = 12
"""Of each person; families must be larger."""
METRIC = "ndcg@10"
TRUTH = "truth.csv"
"""In the folder of a world: the family of each thing. Palate does not read it."""

Axes = Mapping[str, Sequence[str]]
"""Two axes by name, with the names of their values; family f is value f // n of the first, f % n of the
second, whose values are n."""


def tastes(families: int) -> tuple[FloatArray, FloatArray]:
    """How likely each taste is, [T], and the probability of each family under it, [T, families]."""
    singles = [(family, family) for family in range(families)]
    pairs = list(combinations(range(families), 2))
    liked = np.zeros((len(singles) + len(pairs), families))
    for row, (first, second) in enumerate([*singles, *pairs]):
        liked[row, first] += 0.5
        liked[row, second] += 0.5
    prior = np.repeat([0.5 / len(singles), 0.5 / len(pairs)], [len(singles), len(pairs)])
    return prior, LOYALTY * liked + (1 - LOYALTY) / families


def behaviour(family: IntArray, people: int, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Person and thing of each event, in order; ``family`` is that of each thing."""
    families = int(family.max()) + 1
    prior, chances = tastes(families)
    person = np.repeat(np.arange(people), EVENTS)
    thing = np.empty(people * EVENTS, np.int64)
    for who, taste in enumerate(generator.choice(len(prior), people, p=prior)):
        drawn = generator.choice(families, EVENTS, p=chances[taste])
        for of in np.unique(drawn):
            places = who * EVENTS + np.flatnonzero(drawn == of)
            thing[places] = generator.choice(np.flatnonzero(family == of), len(places), replace=False)
    return person, thing


def families_of(things_each: int, axes: Axes, generator: np.random.Generator) -> IntArray:
    """A family for every thing, equally many of each, in random order."""
    first, second = axes.values()
    return generator.permutation(np.repeat(np.arange(len(first) * len(second)), things_each))


def write_world(
    out: Path,
    *,
    name: str,
    axes: Axes,
    family: IntArray,
    files: Sequence[str],
    kind: str,
    people: int,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
) -> None:
    """``out`` has the tables and ``dataset.yaml`` beside the ``files`` that are there already."""
    person, thing = behaviour(family, people, generator)
    pl.DataFrame({"person": person, "thing": thing}).write_csv(out / "interactions.csv")
    things = pl.DataFrame({"thing": np.arange(len(family)), "file": files})
    things.write_csv(out / "items.csv")
    (first, firsts), (second, seconds) = axes.items()
    things.select(
        "thing",
        pl.Series(first, [firsts[of // len(seconds)] for of in family]),
        pl.Series(second, [seconds[of % len(seconds)] for of in family]),
    ).write_csv(out / TRUTH)
    tree = {
        "name": name,
        "interactions": {"table": "interactions.csv", "user": "person", "item": "thing"},
        "items": {"table": "items.csv", "id": "thing", "fields": {"file": {"kind": kind}}},
        "settings": {
            "split": {"kind": "cold_items"},
            # Among all things the first ten places seldom go to new ones: too coarse to choose a pass by.
            "train": {
                "max_epochs": 6,
                "learning_rate": 3e-3,
                "media_items": 32,
                "validate_metric": "loss",
            },
            "evaluate": {
                "baselines": ["popularity", "item_knn"],
                "references": [],
                "cold_baselines": ["random"],
            },
            **settings,
        },
    }
    header = f"# {name}: a known-answer test of an encoder, made by a program; nobody's real taste.\n"
    (out / "dataset.yaml").write_text(header + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


class Oracle:
    """The best ranking of a history by who knows the process and the family of every thing.

    The posterior over tastes given the families in the history, then the chance of each family to come next,
    shared by its things that were not taken. What people took of held-out things is not known, to the oracle
    neither. Equal things stand in random order, since ties would count half.

    Args:
        family: of each item id; −1 where the id is no thing.
        shape: values of the first axis and of the second.
        hears: the axis, 0 or 1, by which alone things are told apart when they are scored; None is both.
    """

    def __init__(self, family: IntArray, shape: tuple[int, int], hears: int | None = None) -> None:
        self.family, self.shape, self.hears = family, shape, hears
        self.things = np.flatnonzero(family >= 0)
        self.member = np.zeros((len(family), shape[0] * shape[1]), np.float32)
        self.member[self.things, family[self.things]] = 1.0
        self.name = "oracle"

    def fit(self, prepared: Prepared) -> Self:  # noqa: ARG002 - the contract's signature
        """The oracle itself: it knows all."""
        return self

    def score(self, questions: Questions) -> np.ndarray[Any, np.dtype[np.float32]]:
        """By the chance to come next; a function of the history, but for the order of equals."""
        taken = history_matrix(questions.histories, len(self.family)) @ self.member
        prior, chances = tastes(self.member.shape[1])
        log_posterior = np.log(prior) + taken @ np.log(chances).T
        posterior = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        coming = (posterior / posterior.sum(axis=1, keepdims=True)) @ chances
        each = coming / np.maximum(self.member.sum(axis=0) - taken, 1)
        if self.hears is not None:
            cells = each.reshape(-1, *self.shape)
            each = np.broadcast_to(cells.mean(axis=2 - self.hears, keepdims=True), cells.shape)
            each = each.reshape(len(questions), -1)
        scores = np.full((len(questions), len(self.family)), -np.inf, np.float32)
        order = np.random.default_rng(len(questions)).random((len(questions), len(self.things)))
        scores[:, self.things] = np.log(each)[:, self.family[self.things]] + 1e-3 * order
        return scores


@dataclass(frozen=True)
class Answer:
    """NDCG@10 of new things ranked among themselves."""

    optimum: float
    one_axis: dict[str, float]
    """What the oracle reaches that tells things apart by this axis alone."""
    chance: float
    with_media: float
    without_media: float
    questions: int
    things: int
    """New ones, that are ranked."""

    @property
    def share(self) -> float:
        """Of the optimum."""
        return self.with_media / self.optimum

    @property
    def share_without(self) -> float:
        """Of the optimum, from ids alone."""
        return self.without_media / self.optimum

    def lines(self) -> list[str]:
        """For the eye."""
        rows = {"the optimum": self.optimum}
        rows |= {f"the optimum by {axis} alone": value for axis, value in self.one_axis.items()}
        rows |= {"Palate with media": self.with_media, "Palate without media": self.without_media}
        rows |= {"chance": self.chance}
        head = f"{METRIC} of {self.things} new things among themselves, {self.questions:,} people asked"
        shares = (f"{row:<32}{value:.3f}  {value / self.optimum:5.0%}" for row, value in rows.items())
        return [head, *shares]


def known_answer(folder: Path, changes: Mapping[str, Any], display: Display | None = None) -> Answer:
    """Palate trained on the world in ``folder`` with media, and without, beside the oracle."""
    dataset = read_dataset(folder / "dataset.yaml")
    settings = Settings.build(dataset.settings, changes)
    prepared = prepare(dataset, settings)
    questions = prepared.questions(Part.TEST, filter_seen=True, cold_targets=True, among=Among.COLD)

    def judged(ranker: Ranker) -> float:
        found = evaluate(ranker, prepared, questions, settings=settings.evaluate, among=Among.COLD)
        return found.means[METRIC]

    def trained(content: bool) -> NetworkRanker:
        given = Settings.build(settings.model_dump(exclude_unset=True), {"model": {"content": content}})
        recommender = Recommender(given).fit_prepared(prepared, display=display or Silent())
        return NetworkRanker(recommender.model)

    truth = pl.read_csv(folder / TRUTH)
    axes = truth.columns[1:]
    codes = [truth[axis].rank("dense").to_numpy().astype(np.int64) - 1 for axis in axes]
    shape = (int(codes[0].max()) + 1, int(codes[1].max()) + 1)
    family = np.full(prepared.items.size, -1)
    ids = prepared.items.ids(truth["thing"])
    family[ids] = codes[0] * shape[1] + codes[1]
    family[:FIRST_ID] = -1  # things that nobody took have the id of what is unknown
    return Answer(
        optimum=judged(Oracle(family, shape)),
        one_axis={axis: judged(Oracle(family, shape, hears)) for hears, axis in enumerate(axes)},
        chance=judged(Random(settings.seed).fit(prepared)),
        with_media=judged(trained(content=True)),
        without_media=judged(trained(content=False)),
        questions=len(questions),
        things=int(prepared.candidates(cold_targets=True, among=Among.COLD).sum()),
    )


def main(given: Sequence[str] | None = None) -> None:
    from rich.console import Console

    from palate.train.progress import Bar

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, help="what examples/music/make.py or examples/video/make.py wrote"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    arguments = parser.parse_args(given)
    changes = Settings.build(assignments=arguments.set).model_dump(exclude_unset=True)
    with Bar(Console(stderr=True)) as bar:
        answer = known_answer(arguments.folder, changes, bar)
    print("\n".join(answer.lines()))


if __name__ == "__main__":
    main()
