"""From a data set to ``Prepared``, and ``Prepared`` on disk.

A folder of prepared data holds ``manifest.json`` (versions, schema, checksums),
``columns.safetensors`` (the flat histories and parts; memory-mapped when loaded),
``people.parquet``, ``items.parquet`` and ``report.json``; and for each field of pictures, clips or
tracks ``media/FIELD.npy`` (decoded values, memory-mapped when loaded) and ``media/FIELD.safetensors``
(which item shows which of them, and the digest by which each is known).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from palate.data.build import build
from palate.data.manifest import checksums, sha256_of
from palate.data.media import Told, Workplace, file_name, known_rows, load_rows, save_rows, shaping, stamp
from palate.data.prepared import Prepared
from palate.errors import BundleError
from palate.schema import (
    FIRST_ID,
    MEDIA,
    AnyArray,
    Dataset,
    Field,
    FieldKind,
    Histories,
    IdMap,
    Media,
    Schema,
)
from palate.settings import Settings, SplitSettings
from palate.version import __version__

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FORMAT_VERSION", "Prepared", "load_prepared", "prepare", "replacing", "save"]

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MEDIA_FOLDER = "media"
DTYPES = {"BOOL": "?", "U8": "u1", "U32": "<u4", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
"""Of safetensors, by NumPy's names."""
FILES = ("columns.safetensors", "people.parquet", "items.parquet", "report.json")


def prepare(
    dataset: Dataset, settings: Settings, folder: Path | None = None, told: Told | None = None
) -> Prepared:
    """The data set cleaned, split and checked for leaks; kept in ``folder`` if one is given.

    What the folder holds is reused if it was prepared from the same source (by its non-empty
    fingerprint) with the same settings of data, split, seed and target events, and, where media are
    read, with the same files and sizes. Otherwise it is replaced as a whole; what was decoded before is
    not decoded again.

    Args:
        told: is told how the decoding of media goes.

    Raises:
        DataError: nothing left after cleaning, nothing to train on, or bad rows with ``data.strict``.
        LeakError: something held out would reach training.
        SettingsError: an unknown target event, or a split that the data cannot have.
        BundleError: ``folder`` holds something else than prepared data.
        MissingExtraError: a library that decodes sound or film is not installed.
    """
    key = _settings_hash(dataset, settings)
    if folder is not None and dataset.fingerprint and _holds(folder, dataset.fingerprint, key):
        try:
            return load_prepared(folder)
        except BundleError:
            pass  # damaged: prepared again below
    if folder is None:
        return build(dataset, settings, Workplace(told=told))
    with replacing(folder) as writing:
        prepared = build(dataset, settings, Workplace(writing / MEDIA_FOLDER, _known(folder), told))
        _write(prepared, writing, dataset.fingerprint, key)
    return load_prepared(folder)


def save(prepared: Prepared, folder: Path, *, fingerprint: str = "", settings_hash: str = "") -> None:
    """``folder`` holds the prepared data, whole or not at all; what was there before is replaced.

    Raises:
        BundleError: ``folder`` exists and is not prepared data.
    """
    with replacing(folder) as writing:
        _write(prepared, writing, fingerprint, settings_hash)


@contextmanager
def replacing(folder: Path, manifest: str = MANIFEST, what: str = "prepared data") -> Iterator[Path]:
    """An empty folder that takes the place of ``folder`` as a whole once all is written into it.

    Args:
        manifest: the file that tells ``what`` from anything else that may not be replaced.

    Raises:
        BundleError: ``folder`` exists and is something else.
    """
    if (
        folder.exists()
        and not (folder / manifest).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise BundleError(f"{folder} holds something else than {what}; name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    mark = uuid.uuid4().hex[:8]
    writing = folder.with_name(f".{folder.name}.{mark}.writing")
    held = None
    try:
        held = _made_and_held(writing)
        yield writing
        replaced = folder.with_name(f".{folder.name}.{mark}.replaced")
        if folder.exists():
            folder.rename(replaced)
        writing.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
        _sync(folder.parent)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_leftovers(folder: Path) -> None:
    """What killed processes were writing, to stand where ``folder`` is, is gone; what others write stays.

    Without locks on folders (Windows) nothing is removed, since nothing tells one from the other.
    """
    if fcntl is None:
        return
    for found in folder.parent.glob(f".{glob.escape(folder.name)}.*.writing"):
        try:
            handle = os.open(found, os.O_RDONLY)
        except OSError:
            continue  # its writer has just finished
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(found, ignore_errors=True)
        except OSError:
            pass  # somebody holds it, or the file system knows no locks
        finally:
            os.close(handle)


def _made_and_held(writing: Path) -> int | None:
    """The folder is there, empty and locked for as long as this process lives and keeps the handle open."""
    if fcntl is None:
        writing.mkdir()
        return None
    # Under this name nobody looks for leftovers before it is locked.
    made = writing.with_suffix(".made")
    made.mkdir()
    handle = os.open(made, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    made.rename(writing)
    return handle


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
    files = [*FILES, *_write_media(prepared.media, folder)]
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
        "media": list(prepared.media),
        "files": checksums(folder, files),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    for name in (*files, MANIFEST):
        _sync(folder / name)
    _sync(folder)


def _write_media(media: Mapping[str, Media], folder: Path) -> list[str]:
    """The names of the files that hold them; values that are there already are left as they are."""
    for name, of in media.items():
        (folder / MEDIA_FOLDER).mkdir(exist_ok=True)
        values, index = (folder / path for path in _media_files(name))
        if not values.exists():
            save_rows(values, of.values)
        columns = {"row": of.row, "offsets": of.offsets}
        if of.digest is not None:
            columns["digest"] = of.digest
        save_file({key: np.ascontiguousarray(column) for key, column in columns.items()}, index)
    return [path for name in media for path in _media_files(name)]


def _media_files(name: str) -> tuple[str, str]:
    return f"{MEDIA_FOLDER}/{file_name(name)}.npy", f"{MEDIA_FOLDER}/{file_name(name)}.safetensors"


def _read_media(folder: Path, name: str) -> Media:
    """The media of one field, the values mapped to their file.

    Raises:
        ValueError: the index does not fit the values.
    """
    values, index = (folder / path for path in _media_files(name))
    media = Media(load_rows(values), **load_file(index))
    if media.offsets[-1] != len(media.row) or (len(media.row) and media.row.max() >= len(media.values)):
        raise ValueError(f"the index of '{name}' does not fit its values")
    return media


def _known(folder: Path) -> dict[bytes, tuple[np.ndarray, int]]:
    """By digest, what the prepared data in ``folder``, if any are there whole, have decoded."""
    try:
        manifest = _manifest(folder)
        if not manifest.get("media"):
            return {}
        _verify(folder, manifest)
        return known_rows([_read_media(folder, name) for name in manifest["media"]])
    except (BundleError, KeyError, TypeError, ValueError, SafetensorError):
        return {}


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
    media = [path for name in manifest.get("media", ()) for path in _media_files(name)]
    for name in (*FILES, *media):
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
    columns = mapped_columns(folder / "columns.safetensors")
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
        media={name: _read_media(folder, name) for name in manifest.get("media", ())},
        removed=removed,
    )


def mapped_columns(path: Path) -> dict[str, AnyArray]:
    """The arrays of a safetensors file, mapped to it; the library's own door for NumPy would copy them.

    Raises:
        KeyError, ValueError: it is no such file.
    """
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    begin = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:begin].tobytes())
    columns = {}
    for name, of in header.items():
        if name != "__metadata__":
            first, end = of["data_offsets"]
            columns[name] = data[begin + first : begin + end].view(DTYPES[of["dtype"]]).reshape(of["shape"])
    return columns


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
    tree: dict[str, Any] = {
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
    media = [field for field in dataset.fields if field.kind in MEDIA]
    if media and settings.model.content:
        tree["media"] = [shaping(field.kind, settings.model) for field in media]
        if dataset.fingerprint and dataset.items is not None and dataset.media_folder is not None:
            tree["files"] = stamp(dataset.items, [field.name for field in media], dataset.media_folder)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    """The file or folder is on the disk and not only on its way there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
