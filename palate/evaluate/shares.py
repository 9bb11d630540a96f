"""How much each part of the item tower carries: the id and every field, over a catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from palate.nn.item import ItemTower
from palate.schema import FloatArray, IntArray

CHUNK = 4096
"""Items whose parts are held at a time."""


def variance_shares(tower: ItemTower, rows: IntArray) -> dict[str, float] | None:
    """The share of the variance of these items' vectors that the id and each field contribute; sum 1.

    The vector of item v is the sum of its parts p_v, so with the total variance taken over all coordinates

        Var(e) = Σ_d Var(e_d) = Σ_p Σ_d Cov(p_d, e_d),

    and the share of a part is its term over Var(e). It is below zero for a part that offsets others. None
    where there are fewer than two items, or all have the same vector.
    """
    if len(rows) < 2:
        return None
    names = ["id", *(part.name for part in tower.projections)]
    means = np.zeros((len(names), tower.id.embedding_dim))
    for parts in _parts(tower, rows):
        means += parts.sum(axis=1) / len(rows)
    terms = np.zeros(len(names))
    for parts in _parts(tower, rows):
        centred = parts - means[:, None, :]
        terms += np.einsum("pvd,vd->p", centred, centred.sum(axis=0))
    total = float(terms.sum())
    if total <= 1e-12 * len(rows):
        return None
    return dict(zip(names, (terms / total).tolist(), strict=True))


def _parts(tower: ItemTower, rows: IntArray) -> Iterator[FloatArray]:
    """The parts [parts, CHUNK, width] of one stretch of the items after the other, float64."""
    with torch.inference_mode():
        for start in range(0, len(rows), CHUNK):
            chunk = torch.as_tensor(rows[start : start + CHUNK], device=tower.warm.device)
            parts = [part.double().cpu().numpy() for _, part in tower.contributions(chunk)]
            yield np.stack(parts)
