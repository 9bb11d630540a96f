"""Which index a catalogue needs, how much of the exact answer it finds, and its lists on disk.

``FOLDER/lists.faiss`` is the lists, ``FOLDER/index.json`` their size and SHA-256, those of the vectors they
belong to, and what was measured. An exact index has no files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.manifest import checksums
from palate.errors import BundleError, DataError
from palate.retrieve.approximate import ApproximateIndex
from palate.retrieve.index import ExactIndex, Found
from palate.schema import FloatArray, IntArray

FORMAT = 3
DESCRIPTION = "index.json"
LISTS = "lists.faiss"
DEPTH = 10
"""Recall is that of so many best."""
WANTED_RECALL = 0.99
"""More lists are looked at until this much is found on one half of the sample,"""
MOST_COMPARED = 50_000
"""or so many vectors are compared,"""
LEAST_RECALL = 0.96
"""but then still more, until this much is found."""
SAME = 1e-6
"""Relative difference of scores that only comes from the order in which their terms were added."""
EXACT_MILLISECONDS = 0.5
"""All items are compared where that takes no longer than this for one request."""
ALWAYS_EXACT = 20_000
"""Items up to which nothing is measured."""


def build_index(
    vectors_VD: FloatArray,
    states_SD: FloatArray,
    *,
    absent: IntArray | None = None,
    exact_up_to: int = ALWAYS_EXACT,
) -> ExactIndex | ApproximateIndex:
    """An exact index of at most so many items, an approximate one of more.

    Args:
        states_SD: states of real histories. One half of them chooses how many lists the approximate search
            looks at, the other tells its recall; an exact index does not read them.
        absent: ids below the end that are no items.

    Raises:
        DataError: vectors that are no table of finite numbers; fewer than two states where they are read.
        MissingExtraError: an approximate index, and Faiss is not installed.
    """
    if len(vectors_VD) - (0 if absent is None else len(absent)) <= exact_up_to:
        return ExactIndex(vectors_VD, absent)
    if len(states_SD) < 2:
        raise DataError(f"{len(states_SD)} states to measure recall with; wanted at least 2, better 1,000.")
    index = ApproximateIndex(vectors_VD, absent)
    index.probes = _probes(index, states_SD[::2])
    index.recall = recall_of(index, states_SD[1::2])
    return index


def _probes(index: ApproximateIndex, states_SD: FloatArray) -> int:
    """How many lists are worth looking at for these states."""
    exact = index.search_exactly(states_SD, DEPTH)
    for probes in _steps(index.lists):
        index.probes = probes
        recall = _recall(index.search(states_SD, DEPTH), exact)
        compared = probes * len(index) / index.lists
        if recall >= (WANTED_RECALL if compared < MOST_COMPARED else LEAST_RECALL):
            return probes
    return index.lists


def _steps(most: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, … below ``most``."""
    step = 1
    while step < most:
        yield step
        if step > 1 and step + step // 2 < most:
            yield step + step // 2
        step *= 2


def recall_of(index: ApproximateIndex, states_SD: FloatArray, k: int = DEPTH) -> float:
    """Share of the exact k best that the index finds, over all states.

    Of items that score as high as the last of the k, any is as good as any other.
    """
    return _recall(index.search(states_SD, k), index.search_exactly(states_SD, k))


def _recall(found: Found, exact: Found) -> float:
    wanted = np.count_nonzero(exact.ids >= 0, axis=1)
    last = exact.scores[np.arange(len(wanted)), np.maximum(wanted - 1, 0)]
    least = last - SAME * np.abs(last)
    hits = np.minimum(np.count_nonzero(found.scores >= least[:, None], axis=1), wanted)
    return float(hits.sum() / max(wanted.sum(), 1))


def exact_limit(
    width: int, milliseconds: float = EXACT_MILLISECONDS, rows: int = 1, items: int = 1 << 17
) -> int:
    """How many items of this width an exact search compares in so many milliseconds a row on this machine.

    Measured on so many random items, which no cache holds, in batches of ``rows`` requests, the best of five.
    """
    generator = np.random.default_rng(0)
    index = ExactIndex(generator.standard_normal((items, width), np.float32))
    states = generator.standard_normal((rows, width), np.float32)
    seconds = []
    for _ in range(6):  # the first one finds nothing in the caches
        started = time.perf_counter()
        index.search(states, DEPTH)
        seconds.append(time.perf_counter() - started)
    return int(items * milliseconds * rows / (min(seconds[1:]) * 1000))


def save_index(index: ExactIndex | ApproximateIndex, folder: Path) -> None:
    """``folder`` holds what ``load_index`` needs beside the vectors; the description comes last.

    To be saved as it was built: lists that changed since have to be saved with the changed vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tree: dict[str, Any] = {"format": FORMAT, "kind": "exact", "vectors": _digest(index)}
    if isinstance(index, ApproximateIndex):
        index.save_lists(folder / LISTS)
        measured = {"kind": "approximate", "recall": index.recall, "probes": index.probes}
        tree |= measured | {"files": checksums(folder, [LISTS])}
    (folder / DESCRIPTION).write_text(json.dumps(tree, indent=1), encoding="utf-8")


def load_index(
    folder: Path, vectors_VD: FloatArray, *, absent: IntArray | None = None
) -> ExactIndex | ApproximateIndex:
    """The index of these vectors that ``save_index`` wrote.

    Raises:
        BundleError: no index, of a newer format, of other vectors, or a file is missing or altered.
        MissingExtraError: it is approximate, and Faiss is not installed.
    """
    try:
        tree = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        form, kind, wanted = tree["format"], tree["kind"], tree["vectors"]
    except FileNotFoundError:
        raise BundleError(f"{folder} holds no index: it has no {DESCRIPTION}. Build one.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise BundleError(f"{folder / DESCRIPTION} is damaged. Build the index again.") from None
    if form != FORMAT:
        raise BundleError(
            f"{folder} has index format {form}; this Palate reads {FORMAT}. Build the index again."
        )
    exact = ExactIndex(vectors_VD, absent)
    if _digest(exact) != wanted:
        raise BundleError(f"The index in {folder} belongs to other vectors. Build it again.")
    if kind == "exact":
        return exact
    try:
        unaltered = checksums(folder, [LISTS]) == tree["files"]
        recall, probes = float(tree["recall"]), int(tree["probes"])
    except (OSError, KeyError, TypeError, ValueError):
        unaltered = False
    if not unaltered:
        raise BundleError(f"{folder / LISTS} is missing, cut short or altered. Build the index again.")
    index = ApproximateIndex(vectors_VD, absent, lists_file=folder / LISTS)
    index.recall, index.probes = recall, probes
    return index


def _digest(index: ExactIndex) -> str:
    """Of which items are there and their vectors."""
    present, table = index.contents()
    digest = hashlib.sha256(f"{table.shape}".encode())
    digest.update(present.tobytes())
    digest.update(table.data)
    return digest.hexdigest()
