"""Item vectors to begin with: where the company of an item puts it.

Two items are company where people meet them soon after one another. From the counts C_vw of that, each pair
weighted by 1 / distance, the shifted positive pointwise mutual information

    M_vw = max(0, log(C_vw · Σ_u c_u^¾ / (c_v · c_w^¾))),    c_v = Σ_w C_vw

is factorised, M ≈ U Σ Uᵀ, as in Levy and Goldberg, "Neural word embedding as implicit matrix factorization"
(2014) and "Improving distributional similarity" (2015; the exponents ½ and ¾). The rows of U √Σ, at the
length of random ones, are the vectors. A network that begins there need not find out from its own mistakes
what belongs together, which matters most where an item has only a few events to tell.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from palate.schema import FloatArray, Histories

REACH = 10
"""Events apart at most."""
MOST_EVENTS = 2_000_000
"""Of longer data the latest part of each history is counted; more tells little more."""
SMOOTHING = 0.75


def company_vectors(histories: Histories, items: int, width: int, spread: float, seed: int) -> FloatArray:
    """Vectors of all ids, float32 [items, width], elements of standard deviation ``spread``.

    Items without company, and what the factors cannot fill in a catalogue smaller than ``width``, are random.
    """
    generator = np.random.default_rng([seed, 7])
    vectors = generator.normal(0.0, spread, (items, width)).astype(np.float32)
    information = mutual_information(company(histories, items))
    rank = min(width, items - 1)
    if information.nnz == 0 or rank < 1:
        return vectors
    left, strength, _ = randomized_svd(information, n_components=rank, n_iter=3, random_state=seed)
    placed = left * np.sqrt(strength)
    length = np.linalg.norm(placed, axis=1)
    known = length > 1e-6 * length.max(initial=0.0)
    # Turned at random: the factors come by size, and no coordinate should be larger than another.
    turn = np.linalg.qr(generator.normal(size=(width, width)))[0][:rank]
    vectors[known] = (placed[known] / length[known, None]) @ turn * (spread * np.sqrt(width))
    return vectors


def company(histories: Histories, items: int) -> sp.csr_array:
    """C [items, items], symmetric: Σ 1 / distance over the pairs of different items within ``REACH``."""
    share = min(1.0, MOST_EVENTS / max(1, len(histories.item)))
    if share < 1.0:
        left = np.concatenate([[0], np.cumsum(histories.lengths)])[1:].repeat(histories.lengths)
        behind = left - np.arange(len(histories.item))  # 1 is the latest event
        histories = histories.keep(behind <= np.ceil(np.repeat(histories.lengths, histories.lengths) * share))
    item, row = np.asarray(histories.item, np.int64), histories.rows()
    counts = sp.csr_array((items, items), dtype=np.float64)
    for distance in range(1, min(REACH, len(item) - 1) + 1):
        pair = (row[distance:] == row[:-distance]) & (item[distance:] != item[:-distance])
        first, second = item[:-distance][pair], item[distance:][pair]
        counts += sp.csr_array((np.full(len(first), 1 / distance), (first, second)), shape=(items, items))
    return sp.csr_array(counts + counts.T)


def mutual_information(counts: sp.csr_array) -> sp.csr_array:
    """M of the page's head; only what is above zero is kept."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    pairs = counts.tocoo()
    smoothed = total**SMOOTHING
    value = np.log(pairs.data * smoothed.sum() / (total[pairs.row] * smoothed[pairs.col]))
    kept = value > 0
    return sp.csr_array((value[kept], (pairs.row[kept], pairs.col[kept])), shape=counts.shape)
