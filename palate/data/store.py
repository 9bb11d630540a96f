"""From a data set to ``Prepared``, and ``Prepared`` on disk.

A folder of prepared data holds ``manifest.json`` (versions, schema, checksums),
``columns.safetensors`` (the flat histories and parts; memory-mapped when loaded),
``people.parquet``, ``items.parquet`` and ``report.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from palate.data.build import build
from palate.data.prepared import Prepared
from palate.errors import BundleError
from palate.schema import FIRST_ID, Dataset, Field, FieldKind, Histories, IdMap, Schema
from palate.settings import Settings, SplitSettings
from palate.version import __version__

__all__ = ["FORMAT_VERSION", "Prepared", "checksums", "load_prepared", "prepare", "save", "sha256_of"]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FILES = ("columns.safetensors", "people.parquet", "items.parquet", "report.json")


def prepare(dataset: Dataset, settings: Settings, folder: Path | None = None) -> Prepared:
    """The data set cleaned, split and checked for leaks; kept in ``folder`` if one is given.

    What the folder holds is reused if it was prepared from the same source (by its non-empty
    fingerprint) with the same settings of data, split, seed and target events. Otherwise it is
    replaced as a whole.

    Raises:
        DataError: nothing left after cleaning, nothing to train on, or bad rows with ``data.strict``.
        LeakError: something held out would reach training.
        SettingsError: an unknown target event, or a split that the data cannot have.
        BundleError: ``folder`` holds something else than prepared data.
    """
    key = _settings_hash(dataset, settings)
    if folder is not None and dataset.fingerprint and _holds(folder, dataset.fingerprint, key):
        try:
            return load_prepared(folder)
        except BundleError:
            pass  # damaged: prepared again below
    prepared = build(dataset, settings)
    if folder is None:
        return prepared
    save(prepared, folder, fingerprint=dataset.fingerprint, settings_hash=key)
    return load_prepared(folder)


def save(prepared: Prepared, folder: Path, *, fingerprint: str = "", settings_hash: str = "") -> None:
    """``folder`` holds the prepared data, whole or not at all; what was there before is replaced.

    Raises:
        BundleError: ``folder`` exists and is not prepared data.
    """
    if (
        folder.exists()
        and not (folder / MANIFEST).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise BundleError(f"{folder} holds something else than prepared data; name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    writing = folder.with_name(f".{folder.name}.{mark}.writing")
    try:
        writing.mkdir()
        _write(prepared, writing, fingerprint, settings_hash)
        replaced = folder.with_name(f".{folder.name}.{mark}.replaced")
        if folder.exists():
            folder.rename(replaced)
        writing.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
        _sync(folder.parent)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _write(prepared: Prepared, folder: Path, fingerprint: str, settings_hash: str) -> None:
    of = prepared.histories
    columns = {"offsets": of.offsets, "item": of.item, "event": of.event, "time": of.time}
    columns["part"] = prepared.part
    if len(prepared.removed):
        columns["removed"] = prepared.removed
    save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, folder / FILES[0])
    prepared.people.series.to_frame().write_parquet(folder / "people.parquet")
    prepared.catalogue.slice(FIRST_ID).write_parquet(folder / "items.parquet")
    (folder / "report.json").write_text(json.dumps(prepared.report, ensure_ascii=False), encoding="utf-8")
    schema = prepared.schema
    manifest = {
        "format_version": FORMAT_VERSION,
        "palate_version": __version__,
        "fingerprint": fingerprint,
        "settings_hash": settings_hash,
        "name": prepared.name,
        "schema": {
            "fields": [{"name": field.name, "kind": str(field.kind)} for field in schema.fields],
            "events": schema.events,
            "event_weights": schema.event_weights,
            "target_events": schema.target_events,
            "has_time": schema.has_time,
        },
        "split": prepared.split.model_dump(mode="json"),
        "files": checksums(folder, FILES),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    for name in (*FILES, MANIFEST):
        _sync(folder / name)
    _sync(folder)


def load_prepared(folder: Path) -> Prepared:
    """What ``save`` wrote, every file compared with its checksum; histories and parts stay on disk.

    Raises:
        BundleError: not prepared data, of a newer format, or a file is missing, truncated or altered.
    """
    manifest = _manifest(folder)
    _verify(folder, manifest)
    try:
        return _read(folder, manifest)
    except (KeyError, TypeError, ValueError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise _broken(folder, f"it cannot be read ({type(error).__name__}: {error})") from None


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = int(manifest["format_version"])
    except OSError:
        raise BundleError(f"{folder} is not prepared data: it has no readable {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError):
        raise _broken(folder, f"{MANIFEST} is not what was written") from None
    if found > FORMAT_VERSION:
        raise BundleError(
            f"{folder} has format {found}, written by Palate {manifest.get('palate_version')}; this Palate "
            f"reads up to {FORMAT_VERSION}. Upgrade Palate, or prepare the data again."
        )
    return dict(manifest)


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    for name in FILES:
        path, expected = folder / name, manifest.get("files", {}).get(name, {})
        if not path.is_file():
            raise _broken(folder, f"{name} is missing")
        if path.stat().st_size != expected.get("size"):
            raise _broken(
                folder, f"{name} has {path.stat().st_size:,} bytes, written were {expected.get('size')}"
            )
        if sha256_of(path) != expected.get("sha256"):
            raise _broken(folder, f"{name} was altered (its SHA-256 differs)")


def _broken(folder: Path, what: str) -> BundleError:
    return BundleError(
        f"The prepared data in {folder} is damaged: {what}. Delete the folder and prepare again."
    )


def _read(folder: Path, manifest: dict[str, Any]) -> Prepared:
    # Tensors of PyTorch stay mapped to the file; the NumPy door would copy them into memory.
    with safe_open(folder / "columns.safetensors", framework="pt") as file:
        columns = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    part, removed = columns.pop("part"), columns.pop("removed", np.zeros(0, np.int64))
    written = manifest["schema"]
    schema = Schema(
        fields=tuple(Field(field["name"], FieldKind(field["kind"])) for field in written["fields"]),
        events=tuple(written["events"]),
        event_weights=tuple(written["event_weights"]),
        target_events=tuple(written["target_events"]),
        has_time=written["has_time"],
    )
    items = pl.read_parquet(folder / "items.parquet")
    reserved = pl.DataFrame({name: [None] * FIRST_ID for name in items.columns}, schema=items.schema)
    return Prepared(
        name=manifest["name"],
        schema=schema,
        people=IdMap(pl.read_parquet(folder / "people.parquet")["key"]),
        items=IdMap(items["item"]),
        histories=Histories(**columns),
        part=part,
        catalogue=pl.concat([reserved, items]),
        report=json.loads((folder / "report.json").read_text(encoding="utf-8")),
        split=SplitSettings.model_validate(manifest["split"]),
        removed=removed,
    )


def _holds(folder: Path, fingerprint: str, settings_hash: str) -> bool:
    try:
        manifest = _manifest(folder)
    except BundleError:
        return False
    found = tuple(manifest.get(name) for name in ("format_version", "fingerprint", "settings_hash"))
    return found == (FORMAT_VERSION, fingerprint, settings_hash)


def _settings_hash(dataset: Dataset, settings: Settings) -> str:
    """A digest of everything besides the source's content that preparing depends on."""
    targets = settings.train.target_events
    tree = {
        "data": settings.data.model_dump(mode="json"),
        "split": settings.split.model_dump(mode="json"),
        "seed": settings.seed,
        "target_events": targets,
        "name": dataset.name,
        "fields": [(field.name, str(field.kind)) for field in dataset.fields],
        "event_weights": dataset.event_weights,
        "negative_value": dataset.negative_value,
        "exclude_items": dataset.exclude_items,
        "require_positive": dataset.require_positive,
    }
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """The file or folder is on the disk and not only on its way there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksums(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each of these files of a folder, for its manifest."""
    return {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names
    }
