"""The folder a trained recommender is saved in: safetensors, Parquet, YAML and JSON, nothing pickled.

RUN/bundle.json          format, version, and the size and SHA-256 of every other file
RUN/settings.yaml        the settings of the run
RUN/model.safetensors    the weights
RUN/content.json         what the content encoder learned: vocabularies, means, the tokenizer; the classes
RUN/training.json        the passes of training
RUN/data/                the prepared data (``palate.data.store``)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from palate.data.columns import CategoryColumn, plain, restored
from palate.data.content import ContentEncoder
from palate.data.manifest import check_files, checksums, read_json, write_json
from palate.data.store import Prepared, load_prepared
from palate.data.store import save as save_prepared
from palate.errors import BundleError, SettingsError
from palate.settings import Settings, read_yaml, write_yaml
from palate.train.checkpoint import Progress, read_tensors, write_tensors
from palate.version import __version__

FORMAT = 2
MANIFEST = "bundle.json"
REMEDY = "train again"
FILES = ("settings.yaml", "model.safetensors", "content.json", "training.json", "data/manifest.json")


@dataclass(frozen=True)
class Bundle:
    """All that a recommender is."""

    settings: Settings
    prepared: Prepared
    content_encoder: ContentEncoder
    weights: dict[str, torch.Tensor]
    progress: Progress
    classes: tuple[CategoryColumn, ...] = ()
    """Of the fields that are predicted, in the order of the model's heads."""


def save_bundle(bundle: Bundle, folder: Path, *, data_is_there: bool = False) -> None:
    """``folder`` holds the bundle; its manifest comes last, so that half a bundle is never taken for one.

    Args:
        data_is_there: ``folder/data`` holds this prepared data already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    if not data_is_there:
        save_prepared(bundle.prepared, folder / "data")
    write_yaml(folder / "settings.yaml", bundle.settings)
    write_tensors(folder / "model.safetensors", bundle.weights, {"format": FORMAT})
    classes = [{"kind": str(column.kind)} | plain(column) for column in bundle.classes]
    write_json(folder / "content.json", bundle.content_encoder.to_state() | {"classes": classes})
    write_json(folder / "training.json", asdict(bundle.progress))
    write_json(
        folder / MANIFEST, {"format": FORMAT, "palate": __version__, "files": checksums(folder, FILES)}
    )


def load_bundle(folder: Path) -> Bundle:
    """The bundle that ``save_bundle`` wrote.

    Raises:
        BundleError: no bundle, or one that is incomplete, altered or of another format.
    """
    manifest = read_json(folder / MANIFEST, what="trained recommender", remedy=REMEDY)
    if manifest.get("format") != FORMAT:
        older = isinstance(manifest.get("format"), int) and manifest["format"] < FORMAT
        raise BundleError(
            f"{folder} has bundle format {manifest.get('format')}, by Palate {manifest.get('palate')}; "
            f"this is Palate {__version__}, which reads format {FORMAT}. "
            + ("Train again." if older else "Install a newer Palate.")
        )
    check_files(folder, FILES, manifest, remedy=REMEDY)
    try:
        settings = Settings.build(read_yaml(folder / "settings.yaml"))
    except SettingsError as error:
        raise BundleError(f"{folder} holds settings that this version cannot use: {error}") from None
    content = read_json(folder / "content.json", what="trained recommender", remedy=REMEDY)
    training = read_json(folder / "training.json", what="trained recommender", remedy=REMEDY)
    return Bundle(
        settings=settings,
        prepared=load_prepared(folder / "data"),
        content_encoder=ContentEncoder.from_state(content),
        weights=read_tensors(folder / "model.safetensors")[0],
        progress=Progress(**training),
        classes=tuple(
            column
            for column in map(restored, content.get("classes", ()))
            if isinstance(column, CategoryColumn)
        ),
    )
