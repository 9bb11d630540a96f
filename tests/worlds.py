"""Worlds whose right answers are known, for tests of every part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest

from palate.data.prepared import Prepared
from palate.data.store import prepare
from palate.schema import Dataset, Field, FieldKind, Questions
from palate.settings import Settings

BLOCK_WORDS = ("espresso roast", "green tea", "oolong leaf", "dark cocoa", "ginger root", "mint syrup")


def block_world(
    people: int = 80,
    items: int = 40,
    blocks: int = 4,
    length: int = 8,
    seed: int = 0,
    content: bool = True,
    has_time: bool = True,
) -> Dataset:
    """People of block b meet distinct items of block b only, in random order.

    Person ``u007`` and item ``i007`` are of block 7 mod ``blocks``; the item's title begins with the
    words of its block. Whoever knows the blocks needs to guess among the ``items / blocks − length + 1``
    unseen items of the right block; chance is one of all unseen items.
    """
    generator = np.random.default_rng(seed)
    members = [np.arange(block, items, blocks) for block in range(blocks)]
    rows = [
        (f"u{person:03d}", f"i{item:03d}", step)
        for person in range(people)
        for step, item in enumerate(generator.permutation(members[person % blocks])[:length])
    ]
    start = 1_700_000_000_000_000 if has_time else 0
    scale = 3_600_000_000 if has_time else 1
    interactions = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(
        pl.col("time") * scale + start,
        event=pl.lit("interaction"),
        value=pl.lit(None, pl.Float64),
        row=pl.int_range(pl.len()),
    )
    titles = [f"{BLOCK_WORDS[item % blocks]} number {item}" for item in range(items)]
    table = pl.DataFrame({"item": [f"i{item:03d}" for item in range(items)], "title": titles})
    return Dataset(
        name="blocks",
        interactions=interactions.lazy(),
        fields=(Field("title", FieldKind.TEXT),) if content else (),
        items=table if content else None,
        has_time=has_time,
    )


def prepared_block_world(settings: Settings | None = None, **world: object) -> Prepared:
    """The block world, cleaned and split by the real pipeline, in memory."""
    return prepare(block_world(**world), settings or Settings(), folder=None)


def block_of(prepared: Prepared, blocks: int = 4) -> np.ndarray:
    """The block of each item id [V]; −1 for reserved ids."""
    ids = np.arange(2, prepared.items.size)
    return np.concatenate([[-1, -1], [int(str(key)[1:]) % blocks for key in prepared.items.keys(ids)]])


class TableRanker:
    """A ranker that reads its scores from a table [people, V], for known answers.

    It looks up the person, which real rankers may not.
    """

    name = "table"

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)

    def fit(self, prepared: Prepared) -> TableRanker:
        return self

    def score(self, questions: Questions) -> np.ndarray:
        return self.table[questions.people].copy()


class LogitTableRanker(TableRanker):
    name = "logits"
    scores_are_logits = True


def hour_world(people: int = 600, length: int = 10, hours: tuple[int, ...] = (3, 8, 13, 22)) -> Dataset:
    """What people meet is the hour at which they meet it, and nothing else: item ``at08`` at eight.

    Whoever is told the hour knows the item; nobody else can beat one of ``len(hours)``.
    """
    generator = np.random.default_rng(3)
    drawn = generator.choice(hours, (people, length))
    days = np.cumsum(generator.integers(1, 9, (people, length)), axis=1)
    return _events_of_all("hours", [f"at{hour:02d}" for hour in drawn.ravel()], days * 24 + drawn)


def type_world(people: int = 600, length: int = 10) -> Dataset:
    """What people meet is the type of event in which they meet it: item ``to buy`` when they buy.

    The third type, ``return``, is no target, and comes with any item.
    """
    generator = np.random.default_rng(4)
    drawn = generator.choice(["buy", "view", "like", "return"], (people, length), p=[0.3, 0.3, 0.3, 0.1])
    other = generator.choice(["buy", "view", "like"], (people, length))
    items = [f"to {word}" for word in np.where(drawn == "return", other, drawn).ravel()]
    hours = np.tile(np.arange(length) * 5, (people, 1))
    return _events_of_all("types", items, hours, drawn.ravel().tolist())


def _events_of_all(
    name: str, items: list[str], hours: np.ndarray, events: list[str] | None = None
) -> Dataset:
    """Events of as many people as ``hours`` [people, length] has rows, at these hours after a Monday."""
    people, length = hours.shape
    monday = int(np.datetime64("2011-12-05", "us").astype(np.int64))
    interactions = pl.DataFrame(
        {
            "user": np.repeat(np.arange(people), length),
            "item": items,
            "time": monday + hours.ravel() * 3_600_000_000,
            "event": events or ["interaction"] * people * length,
            "row": np.arange(people * length),
        }
    ).with_columns(value=pl.lit(None, pl.Float64))
    return Dataset(name=name, interactions=interactions.lazy())


def markov_world(people: int, length: int, likely: float, items: int = 20, seed: int = 0) -> Dataset:
    """After item i comes item i + 1 with chance ``likely``, else item i + 7, counted round the catalogue.

    Whoever knows the rule foretells a share ``likely`` of what comes next; nobody can do better.
    """
    generator = np.random.default_rng(seed)
    steps = np.where(generator.random((people, length)) < likely, 1, 7)
    steps[:, 0] = generator.integers(0, items, people)
    path = np.cumsum(steps, axis=1) % items
    interactions = pl.DataFrame(
        {
            "user": np.repeat(np.arange(people), length),
            "item": path.ravel(),
            "time": np.tile(np.arange(length), people),
            "row": np.arange(people * length),
        }
    ).with_columns(event=pl.lit("interaction"), value=pl.lit(None, pl.Float64))
    return Dataset(name="markov", interactions=interactions.lazy(), has_time=False)


@contextmanager
def lists_of_few_items() -> Iterator[None]:
    """Approximate indexes look at all of their lists, where they would search so few items exactly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palate.retrieve.approximate.AROUND", 0)
        patch.setattr("palate.retrieve.approximate.HALF", 1)
        yield
