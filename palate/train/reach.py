"""How far vectors that content tells are to reach, so that new items find their place among known ones.

Who foretells vectors with the least squared error foretells them too near to their mean: what content does
not know is missing from their spread. Among each other new items keep their order all the same, but a product
with a state that is looking for something is too small beside those of known items, whose vectors are whole.
So some known items H were held back when content learned, and stand in the catalogue by what content says of
them, stretched by one number:

    e_v(α) = m + α (c_v − m) ,  v ∈ H      α* = argmin_α −Σ_n log softmax_v(h_n · e_v(α))_{v = target n}

over positions n of training histories, with m the mean of all told vectors, and whole vectors for every other
item. The loss is convex in α. What people took next decides, and so new items get the share of lists that
items known by content alone have had of what came next.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from palate.data.labels import Labels
from palate.data.store import Prepared
from palate.nn.model import TasteModel
from palate.schema import FIRST_ID, IntArray
from palate.settings import Settings
from palate.train.histories import HistoryCourse, in_rows

SHARE, FEWEST_ITEMS, MOST_ITEMS = 0.05, 20, 1000
"""Of the known items that are held back, and how many they are to be at least (or none is), and at most."""
FEWEST_ANSWERS = 200
"""Positions whose answer is one of them; fewer would say nothing certain."""
POSITIONS, SCORES = 50_000, 2_000_000_000
"""Most positions that are looked at, and most scores of them."""
REACHES = torch.arange(10, 61) / 20
"""What is tried: 0.5, 0.55 … 3."""
CHUNK_SCORES = 4_000_000


def held_back(known: IntArray, seed: int) -> IntArray:
    """The known items from which content does not learn; none where they would be too few to judge by."""
    count = min(int(SHARE * len(known)), MOST_ITEMS)
    if count < FEWEST_ITEMS:
        return known[:0]
    return np.sort(np.random.default_rng(seed).permutation(known)[:count])


@torch.no_grad()
def best_reach(
    model: TasteModel,
    prepared: Prepared,
    settings: Settings,
    labels: tuple[Labels, ...],
    held: torch.Tensor,
    told_HD: torch.Tensor,
    mean_D: torch.Tensor,
) -> float:
    """α*; 1 where too few positions are answered by items that were held back.

    Args:
        model: in evaluation mode, with whole vectors for all known items.
        held: int64 [H], ids of the items that were held back, ascending.
        told_HD: what content says their vectors are.
        mean_D: the mean of what it says of all known items.
    """
    losses, answers, whole_HD = torch.zeros(len(REACHES)), 0, model.items(held)
    for states, scores, target, weight, columns in positions(model, prepared, settings, labels, held):
        # What repeats add to these items stays theirs; the rest of their scores is what content says.
        rest = scores[:, columns] - states @ whole_HD.t() + (states @ mean_D).unsqueeze(1)
        slope = states @ (told_HD - mean_D).t()
        own = scores.gather(1, target.unsqueeze(1)).squeeze(1)
        scores[:, columns] = -torch.inf
        scores[:, :FIRST_ID] = -torch.inf
        others = scores.logsumexp(dim=1)
        place = torch.searchsorted(columns, target).clamp_max(len(columns) - 1).unsqueeze(1)
        is_held = columns[place.squeeze(1)] == target
        answers += int((is_held & (weight > 0)).sum())
        for number, reach in enumerate(REACHES):
            by_content = rest + reach * slope
            right = torch.where(is_held, by_content.gather(1, place).squeeze(1), own)
            total = torch.logaddexp(others, by_content.logsumexp(dim=1))
            losses[number] += ((total - right) * weight).sum().cpu()
    return float(REACHES[losses.argmin()]) if answers >= FEWEST_ANSWERS else 1.0


def positions(
    model: TasteModel, prepared: Prepared, settings: Settings, labels: tuple[Labels, ...], held: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Positions of training histories, evenly drawn: states [n, D], scores [n, V], target [n] and weight [n],
    and the columns [H] of the scores that are the items held back."""
    course, device = HistoryCourse(model, prepared, settings, labels), held.device
    rows = None if course.catalogue is None else course.catalogue.to(device)
    columns = held if rows is None else torch.searchsorted(rows, held)
    size = model.items.size if rows is None else len(rows)
    plan, left = course.plan(0), min(POSITIONS, max(1, SCORES // size))
    steps = np.random.default_rng(settings.seed).permutation(len(plan)).tolist()
    while steps and left > 0:
        step = steps.pop()
        batch = course.batch(plan[step], 0, step)
        if course.catalogue is not None:
            batch = in_rows(batch, course.catalogue)
        batch = batch.map(lambda tensor: tensor.to(device))
        vectors = model(batch, rows)
        asked = batch.weight.nonzero().squeeze(1)[:left]
        left -= len(asked)
        for part in torch.split(asked, max(1, CHUNK_SCORES // size)):
            states = vectors.states[part].float()
            scores = states @ vectors.table.t().float()
            if vectors.bonuses is not None:
                vectors.bonuses.of_rows(part).add_to(scores)
            yield states, scores, batch.target[part], batch.weight[part], columns
