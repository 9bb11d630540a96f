"""The folder a trained recommender is saved in: safetensors, Parquet, YAML and JSON, nothing pickled.

RUN/bundle.json          format, version, and the size and SHA-256 of every other file
RUN/settings.yaml        the settings of the run
RUN/model.safetensors    the weights
RUN/content.json         what the content encoder learned: vocabularies, means, the tokenizer; the classes
RUN/training.json        the passes of training
RUN/data/                the prepared data (``palate.data.store``)
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from palate.data.columns import CategoryColumn, plain, restored
from palate.data.content import ContentEncoder
from palate.data.store import Prepared, checksums, load_prepared, sha256_of
from palate.data.store import save as save_prepared
from palate.errors import BundleError, SettingsError
from palate.settings import Settings, read_yaml, write_yaml
from palate.train.checkpoint import Progress, read_tensors, write_tensors
from palate.version import __version__

FORMAT = 2
MANIFEST = "bundle.json"
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
    _write_json(folder / "content.json", bundle.content_encoder.to_state() | {"classes": classes})
    _write_json(folder / "training.json", asdict(bundle.progress))
    _write_json(
        folder / MANIFEST, {"format": FORMAT, "palate": __version__, "files": checksums(folder, FILES)}
    )


def load_bundle(folder: Path) -> Bundle:
    """The bundle that ``save_bundle`` wrote.

    Raises:
        BundleError: no bundle, or one that is incomplete, altered or of another format.
    """
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        older = isinstance(manifest.get("format"), int) and manifest["format"] < FORMAT
        raise BundleError(
            f"{folder} has bundle format {manifest.get('format')}, by Palate {manifest.get('palate')}; "
            f"this is Palate {__version__}, which reads format {FORMAT}. "
            + ("Train again." if older else "Install a newer Palate.")
        )
    for name in FILES:
        _check(folder / name, manifest.get("files", {}).get(name))
    try:
        settings = Settings.build(read_yaml(folder / "settings.yaml"))
    except SettingsError as error:
        raise BundleError(f"{folder} holds settings that this version cannot use: {error}") from None
    content = _read_json(folder / "content.json")
    return Bundle(
        settings=settings,
        prepared=load_prepared(folder / "data"),
        content_encoder=ContentEncoder.from_state(content),
        weights=read_tensors(folder / "model.safetensors")[0],
        progress=Progress(**_read_json(folder / "training.json")),
        classes=tuple(
            column
            for column in map(restored, content.get("classes", ()))
            if isinstance(column, CategoryColumn)
        ),
    )


def _check(path: Path, wanted: dict[str, Any] | None) -> None:
    if wanted is None or not path.is_file():
        raise BundleError(f"{path} is missing, so the bundle is incomplete. Restore it, or train again.")
    if path.stat().st_size != wanted["size"] or sha256_of(path) != wanted["sha256"]:
        raise BundleError(
            f"{path} is not what was saved ({path.stat().st_size:,} bytes; saved {wanted['size']:,}): it was "
            "cut short or altered. Restore it, or train again."
        )


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(tree, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path} is missing: {path.parent} holds no trained recommender. Train one first."
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}). Restore it, or train again.") from None
    if not isinstance(tree, dict):
        raise BundleError(f"{path} is damaged: it holds no mapping. Restore it, or train again.")
    return tree
