"""A small shop with pictures for the browser tests: pottery, of which everybody likes one glaze."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

import palate
from palate.recommender import Recommender
from palate.run import write_judgements
from palate.schema import Dataset

GLAZES = {
    "Delft": "#3b6ea8",
    "Celadon": "#5f8f5a",
    "Amber": "#c9962f",
    "Oxblood": "#b4482f",
    "Ivory": "#efe9dd",
}
FORMS = ("bowl", "cup", "jug", "plate", "pot", "vase")
SIZES = ("small", "tall", "wide", "large")
PEOPLE = 60
LENGTH = 9
DAY = 86_400
START = 1_790_000_000
SETTINGS: dict[str, Any] = {
    "model": {
        "width": 32,
        "blocks": 2,
        "max_history": 20,
        "text": {"width": 16, "filters": 16, "max_tokens": 8},
        "image": {"size": 32, "filters": [8, 16], "dense": 16},
    },
    "train": {"max_epochs": 6, "batch_events": 256, "learning_rate": 1e-2, "precision": "float32"},
    "evaluate": {"baselines": ["popularity", "item_knn"]},
}


def picture(glaze: str, form: str, size: str) -> Image.Image:
    """The thing as a shape on a pale ground."""
    image = Image.new("RGB", (96, 96), "#f4efe6")
    pen, fill = ImageDraw.Draw(image), GLAZES[glaze]
    wide = {"small": 18, "tall": 16, "wide": 34, "large": 30}[size]
    high = {"small": 16, "tall": 34, "wide": 18, "large": 30}[size]
    box = (48 - wide, 52 - high, 48 + wide, 52 + high)
    if form == "plate":
        pen.ellipse((48 - wide, 44, 48 + wide, 62), fill, "#3a332b")
    elif form == "bowl":
        pen.chord((box[0], box[1] - high, box[2], box[3]), 0, 180, fill, "#3a332b")
    elif form == "vase":
        pen.ellipse(box, fill, "#3a332b")
        pen.rectangle((42, 40 - high, 54, 60 - high), fill, "#3a332b")
    else:
        pen.rounded_rectangle(box, 8, fill, "#3a332b")
        if form in ("cup", "jug"):
            pen.arc((box[2] - 6, 42, box[2] + 14, 64), 270, 90, "#3a332b", 4)
        if form == "pot":
            pen.ellipse((43, box[1] - 9, 53, box[1] + 1), fill, "#3a332b")
    return image


def pottery(folder: Path) -> Dataset:
    """The shop; its pictures lie in ``folder``."""
    generator = np.random.default_rng(3)
    rows, members = [], {glaze: [] for glaze in GLAZES}
    for glaze in GLAZES:
        for form in FORMS:
            for size in SIZES:
                key = f"{glaze[0].lower()}{form[:2]}{size[0]}"
                picture(glaze, form, size).save(folder / f"{key}.png")
                price = 4.0 + 3 * SIZES.index(size) + FORMS.index(form)
                rows.append((key, f"{glaze} {form}, {size}", glaze.lower(), price, f"{key}.png"))
                if size != "large" or form != "vase":  # large vases have just come in
                    members[glaze].append(key)
    things = pl.DataFrame(rows, schema=["key", "title", "glaze", "price", "picture"], orient="row")
    visits = []
    for person in range(PEOPLE):
        glaze = list(GLAZES)[person % len(GLAZES)]
        for step, key in enumerate(generator.permutation(members[glaze])[:LENGTH]):
            moment = START + (step * 5 + int(generator.integers(0, 4))) * DAY + person * 60
            visits.append((f"guest-{person:02d}", key, moment, "purchase" if step % 3 == 0 else "view"))
    return palate.dataset_from_frames(
        pl.DataFrame(visits, schema=["who", "what", "when", "did"], orient="row"),
        user="who",
        item="what",
        time="when",
        event="did",
        items=things.rename({"key": "what"}),
        fields={"title": "text", "glaze": "category", "price": "number", "picture": "image"},
        media_folder=folder,
        name="Pottery",
    )


def trained(folder: Path, **settings: Any) -> Path:
    """``folder`` is a run that was judged and exported, with more settings than ``SETTINGS``."""
    from palate.export.folder import export_run

    pictures = folder.with_name(folder.name + "-pictures")
    pictures.mkdir()
    recommender = Recommender(SETTINGS | settings).fit(pottery(pictures), folder=folder)
    write_judgements(folder, recommender, [recommender.evaluate(title="The last thing of each guest")])
    export_run(folder)
    return folder


def warehouse(folder: Path, items: int = 100_000) -> Path:
    """``folder`` is the exported run of a shop with very many items, hardly trained."""
    from palate.export.folder import export_run

    keys = [f"p{number:06d}" for number in range(items)]
    names, forms = list(GLAZES), len(FORMS)
    titles = [f"{names[n % len(names)]} {FORMS[n // 7 % forms]} number {n}" for n in range(items)]
    things = pl.DataFrame(
        {"what": keys, "title": titles, "glaze": [names[n % len(names)] for n in range(items)]}
    )
    drawn = np.random.default_rng(0).integers(0, items, (PEOPLE, LENGTH))
    visits = [
        (f"guest-{person:02d}", keys[n], START + s * DAY)
        for person in range(PEOPLE)
        for s, n in enumerate(drawn[person])
    ]
    shop = palate.dataset_from_frames(
        pl.DataFrame(visits, schema=["who", "what", "when"], orient="row"),
        user="who",
        item="what",
        time="when",
        items=things,
        fields={"title": "text", "glaze": "category"},
        settings={"data": {"min_user_events": 1, "min_item_events": 1}},
        name="Warehouse",
    )
    few = SETTINGS | {"train": SETTINGS["train"] | {"max_epochs": 1}}
    Recommender(few).fit(shop, folder=folder)
    export_run(folder)
    return folder
