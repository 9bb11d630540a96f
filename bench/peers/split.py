"""One split for everybody: written once by Palate, read by every peer's driver with NumPy alone.

People are 0 … U−1 and items 0 … I−1. ``train`` are the histories without their last two events, which are
the targets of validation and test (5-core, leave-one-out; equal times keep the order of the file).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.schema import FIRST_ID, Part
from palate.settings import Settings


def write_split(data: Path, path: Path, people: int | None = None) -> None:
    """``path`` (.npz) holds offsets [U + 1], item, validation [U] and test [U].

    Args:
        people: only so many people, spread evenly, for trying things out; their items keep their numbers.
    """
    dataset = read_dataset(data)
    prepared = prepare(dataset, Settings.build(dataset.settings))
    asked = {
        part: prepared.questions(part, filter_seen=True, cold_targets=True)
        for part in (Part.VALIDATION, Part.TEST)
    }
    rows = np.intersect1d(asked[Part.VALIDATION].people, asked[Part.TEST].people)
    if people is not None:
        rows = rows[np.linspace(0, len(rows) - 1, min(people, len(rows))).astype(np.int64)]
    histories = prepared.training().select(rows)
    target = {
        part: questions.target_items[np.searchsorted(questions.people, rows)] - FIRST_ID
        for part, questions in asked.items()
    }
    np.savez(
        path,
        offsets=histories.offsets,
        item=histories.item - FIRST_ID,
        validation=target[Part.VALIDATION],
        test=target[Part.TEST],
        items=len(prepared.items),
    )
