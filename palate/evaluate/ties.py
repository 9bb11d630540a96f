"""Ranks and top lists of score tables, with equal scores treated on purpose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.schema import PADDING, FloatArray, IntArray


def tied_ranks(
    scores_QV: npt.NDArray[np.float32], offsets: IntArray, targets: FloatArray, allowed: IntArray
) -> FloatArray:
    """The rank of each target among what may be recommended, by counting; ties count half.

    rank = 1 + number better + half of the equal others. A scorer that says the same of all C items gives
    (C + 1) / 2, the mean of chance, and so gains nothing from the order of ids. Equal *targets* of one
    question share their group evenly: the i-th of t, among e equals in all, stands i (e + 1) / (t + 1)
    behind the better ones. Their mean is the same, and a scorer that puts all targets level above
    everything else still gives them the ranks 1, 2, …, t::

        scores  5 5 5 1     one target, the first    rank 1 + 0 + 2/2 = 2
                            two, the first and last  ranks 2 and 4
                            two, the first two       ranks 1·4/3 = 1.33 and 2·4/3 = 2.67

    Masked items have −inf and are not in ``allowed`` [Q], the number of items that may be recommended.
    """
    better = np.zeros(len(targets), np.int64)
    equal = np.zeros(len(targets), np.int64)
    counts = np.diff(offsets)
    for place in range(int(counts.max(initial=0))):  # the first target of every row, then the second, …
        rows = np.flatnonzero(counts > place)
        which = offsets[rows] + place
        level = targets[which, None]
        block = scores_QV if len(rows) == len(scores_QV) else scores_QV[rows]
        better[which] = np.count_nonzero(block > level, axis=1)
        equal[which] = np.count_nonzero(block == level, axis=1)
    hopeless = np.isneginf(targets)
    equal[hopeless] = np.repeat(allowed, counts)[hopeless] - better[hopeless]
    place_among, tied = _places_among_equal(np.repeat(np.arange(len(counts)), counts), better)
    return better + place_among * (equal + 1) / (tied + 1)


def top_k(scores_QV: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int32]:
    """Ids of the k best of each row, best first, equal scores by id; 0 where all the rest is −inf.

    The k-th best score is found by partition; only what is not below it is sorted.
    """
    num_rows, num_items = scores_QV.shape
    if k == 0:
        return np.empty((num_rows, 0), np.int32)
    last = num_items - min(k, num_items)
    threshold = np.partition(scores_QV, last, axis=1)[:, last, None]
    rows, ids = np.nonzero((scores_QV >= threshold) & (scores_QV > -np.inf))
    order = np.lexsort((-scores_QV[rows, ids], rows))  # stable: equal scores stay in the order of ids
    rows, ids = rows[order], ids[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, np.arange(num_rows))[rows]
    kept = place < k
    top = np.full((num_rows, k), PADDING, np.int32)
    top[rows[kept], place[kept]] = ids[kept]
    return top


def _places_among_equal(rows: IntArray, better: IntArray) -> tuple[IntArray, IntArray]:
    """For each target, its place 1, 2, … among the equal targets of its question, and their number."""
    order = np.lexsort((better, rows))
    group = np.concatenate([[0], np.cumsum((np.diff(rows[order]) != 0) | (np.diff(better[order]) != 0))])
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    place, tied = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - starts[group] + 1
    tied[order] = sizes[group]
    return place, tied
