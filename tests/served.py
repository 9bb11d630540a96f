"""A small shop that is served: trained once, exported, behind the real application."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from palate.export.folder import export_run
from palate.recommender import Recommender
from palate.schema import Dataset, Field, FieldKind
from tests.worlds import block_world

SETTINGS = {
    "model": {
        "width": 16,
        "blocks": 2,
        "dilations": [1, 2],
        "max_history": 12,
        "again": "learned",
        "question_time": True,
        "question_event": True,
        "text": {"width": 8, "filters": 8, "max_tokens": 6},
        "image": {"size": 8, "filters": [8], "dense": 8},
    },
    "train": {
        "max_epochs": 3,
        "batch_events": 256,
        "learning_rate": 1e-2,
        "precision": "float32",
        "target_events": ["buy", "view"],
    },
}


def shop(folder: Path) -> Dataset:
    """The block world with views and purchases, brands, prices and pictures in ``folder``."""
    world, generator = block_world(people=40), np.random.default_rng(5)
    bought = pl.when(pl.col("row") % 3 == 0).then(pl.lit("buy")).otherwise(pl.lit("view"))
    for item in range(0, 40, 2):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{item:03d}.png")
    items = world.items.with_columns(
        brand=pl.Series([f"b{n % 5}" if n % 7 else None for n in range(40)]),
        price=pl.Series([float(n) if n % 4 else None for n in range(40)]),
        cover=pl.Series([f"i{n:03d}.png" if n % 2 == 0 else None for n in range(40)]),
    )
    kinds = {"brand": FieldKind.CATEGORY, "price": FieldKind.NUMBER, "cover": FieldKind.IMAGE}
    return Dataset(
        name="shop",
        interactions=world.interactions.with_columns(event=bought),
        fields=(*world.fields, *(Field(name, kind) for name, kind in kinds.items())),
        items=items,
        media_folder=folder,
    )


def trained(folder: Path, *, seed: int = 0) -> Path:
    """The run folder of the shop, with an export."""
    pictures = folder / f"pictures-{seed}"
    pictures.mkdir(parents=True)
    recommender = Recommender(SETTINGS | {"seed": seed}).fit(shop(pictures))
    recommender.save(folder / f"run-{seed}")
    export_run(folder / f"run-{seed}")
    return folder / f"run-{seed}"


def copied(run: Path, folder: Path) -> Path:
    """A run folder of its own, which a test may change."""
    shutil.copytree(run, folder)
    return folder


def picture(colour: str = "#804020") -> bytes:
    """A file of a picture."""
    content = io.BytesIO()
    Image.new("RGB", (12, 9), colour).save(content, "PNG")
    return content.getvalue()
