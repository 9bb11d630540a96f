"""One split for everybody: written once by Palate, read by every peer's driver with NumPy alone.

People are 0 … U−1 and items 0 … I−1, those that are met by anybody. Histories are without their last two
events, which are
the targets of validation and test (5-core, leave-one-out; equal times keep the order of the file).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from bench.peers.common import Split
from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.schema import Part
from palate.settings import Settings


def write_split(data: Path, path: Path, people: int | None = None) -> None:
    """``path`` (.npz) holds offsets [U + 1], item, validation [U] and test [U].

    Args:
        people: only so many people, spread evenly, for trying things out.
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
    held_out = [asked[p].target_items[np.searchsorted(asked[p].people, rows)] for p in asked]
    known, number = np.unique(np.concatenate([histories.item, *held_out]), return_inverse=True)
    item, validation, test = np.split(number, np.cumsum([len(histories.item), len(rows)]))
    np.savez(path, offsets=histories.offsets, item=item, validation=validation, test=test, items=len(known))


def write_table(split: Split, folder: Path) -> Path:
    """A dataset.yaml of exactly the split's people and events, for Palate."""
    person, item, place = split.events("test")
    everyone = np.arange(split.people)
    last = np.diff(split.offsets) + 1
    columns = {"user_id": (person, everyone), "item_id": (item, split.test), "order": (place, last)}
    table = pl.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
    table.write_parquet(folder / "interactions.parquet")
    description = folder / "dataset.yaml"
    description.write_text(
        "name: peers\n"
        "interactions:\n"
        "  table: interactions.parquet\n"
        "  user: user_id\n"
        "  item: item_id\n"
        "  time: order\n"
        "  time_unit: order\n"
        "  event_default: rating\n",
        encoding="utf-8",
    )
    return description
