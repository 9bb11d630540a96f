"""Whether an export says what the network says, on histories and values drawn at random."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from palate.data.columns import CategoryColumn
from palate.data.moments import DAY
from palate.evaluate.network import NetworkRanker
from palate.export.graphs import FieldGraph, TowerGraph
from palate.runtime.graph import Graph
from palate.runtime.model import ServingModel
from palate.schema import FIRST_ID, UNKNOWN_TIME, Histories, IntArray, QuestionPart, Questions

SCORES_AT_A_TIME = 4_000_000
MOMENT = 1_700_000_000_000_000
"""Histories end about this time, in microseconds since 1970."""


def difference_of_scores(served: ServingModel, ranker: NetworkRanker, seed: int) -> float:
    """The largest difference of a score of any item, of histories of every length from 0 to one more than is
    read, together and alone; asked for an event type and a time as well, where the network hears that."""
    generator = np.random.default_rng(seed)
    lengths = generator.permutation(served.settings.model.max_history + 2)
    histories = random_histories(served, lengths, generator)
    size = max(1, SCORES_AT_A_TIME // len(served.vectors))
    together = [np.arange(start, min(start + size, len(lengths))) for start in range(0, len(lengths), size)]
    alone = [np.array([row]) for row in np.flatnonzero(lengths < 3)]
    largest = 0.0
    for rows in (*together, *alone):
        for at, event in asked(served, ranker, generator):
            chosen = histories.select(rows)
            scores = ranker.score(Questions.without_answer(chosen, at, event))
            difference = served.states(chosen, at, event).scores(served.vectors) - scores
            largest = max(largest, float(np.abs(difference).max()))
    return largest


def random_histories(served: ServingModel, lengths: IntArray, generator: np.random.Generator) -> Histories:
    """Items that come again and items that do not, any event types, gaps from seconds to months, and now and
    then no times."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    events, items = int(offsets[-1]), served.prepared.items.size
    often = generator.integers(FIRST_ID, items, 5)
    again = generator.random(events) < 0.4
    item = np.where(again, generator.choice(often, events), generator.integers(FIRST_ID, items, events))
    event = generator.integers(0, len(served.prepared.schema.events), events)
    time = (
        MOMENT - 400 * DAY + np.cumsum(np.exp(generator.uniform(0, 16, events)) * 1_000_000).astype(np.int64)
    )
    time[np.repeat(generator.random(len(lengths)) < 0.1, lengths)] = UNKNOWN_TIME
    return Histories(offsets, item.astype(np.int32), event.astype(np.uint8), time)


def asked(
    served: ServingModel, ranker: NetworkRanker, generator: np.random.Generator
) -> Iterator[tuple[int | None, int | None]]:
    """Nothing; and where questions may say something, a time and an event type."""
    yield None, None
    parts = ranker.question_parts
    if parts:
        at = MOMENT + int(generator.integers(0, 30 * DAY))
        event = int(generator.choice(served.prepared.schema.target_codes))
        yield at if QuestionPart.TIME in parts else None, event if QuestionPart.EVENT in parts else None


def difference_of_field(graph: Graph, written: FieldGraph, seed: int) -> float:
    """The largest difference in a vector that a field's encoder makes of random values."""
    generator, [example] = np.random.default_rng(seed), written.examples()
    shape, column = (5, *example.shape[1:]), written.column
    if example.dtype == torch.int32:  # texts of every length, or that many categories
        least = 1 if isinstance(column, CategoryColumn) else 0
        lengths = np.arange(least, shape[1] + 1)
        values = generator.integers(1, column.shape.size, (len(lengths), shape[1]), dtype=np.int32)
        values[np.arange(shape[1]) >= lengths[:, None]] = 0
    elif example.dtype == torch.uint8:
        values = generator.integers(0, 256, shape, dtype=np.uint8)
    else:
        values = generator.normal(size=shape).astype(example.numpy().dtype)
    given = [torch.from_numpy(values)]
    if isinstance(column, CategoryColumn):
        counts = np.count_nonzero(values, axis=1)
        given = [torch.from_numpy(values[values > 0]), torch.from_numpy(np.append(0, np.cumsum(counts)))]
    with torch.inference_mode():
        said = written.original(*given).numpy()
    return float(np.abs(graph(values=values)[0] - said).max())


def difference_of_tower(graph: Graph, written: TowerGraph) -> float:
    """The largest difference in an item's vector, of random vectors of its fields."""
    examples = written.examples()
    with torch.inference_mode():
        [said] = written(*examples)
    given = {name: tensor.numpy() for name, tensor in zip(written.inputs, examples, strict=True)}
    return float(np.abs(graph(**given)[0] - said.numpy()).max())
