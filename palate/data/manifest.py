"""The manifest of a folder: JSON that names every other file with its size and SHA-256, written last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.errors import BundleError


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """``path`` holds this; a crash leaves the old file or the new, never half."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(tree, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """The mapping in a file that ``write_json`` wrote.

    Args:
        what: the folder is without this file, for example "trained recommender".
        remedy: what to do where it cannot be used, for example "train again".

    Raises:
        BundleError: there is none, or it is damaged.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path} is missing: {path.parent} holds no {what}. Name another, or {remedy}."
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}). Restore it, or {remedy}.") from None
    if not isinstance(tree, dict):
        raise BundleError(f"{path} is damaged: it holds no mapping. Restore it, or {remedy}.")
    return tree


def check_files(folder: Path, names: Sequence[str], manifest: dict[str, Any], *, remedy: str) -> None:
    """Each of these files is what it was when the manifest was written.

    Raises:
        BundleError: one is missing, cut short or altered.
    """
    for name in names:
        path, wanted = folder / name, manifest.get("files", {}).get(name)
        if wanted is None or not path.is_file():
            raise BundleError(f"{path} is missing, so the folder is incomplete. Restore it, or {remedy}.")
        if path.stat().st_size != wanted["size"] or sha256_of(path) != wanted["sha256"]:
            raise BundleError(
                f"{path} is not what was saved ({path.stat().st_size:,} bytes; saved {wanted['size']:,}): it "
                f"was cut short or altered. Restore it, or {remedy}."
            )


def checksums(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each of these files of a folder, for its manifest."""
    return {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names
    }


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
