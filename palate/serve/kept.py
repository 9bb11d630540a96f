"""Exports that answered and may answer again: RUN/served/DIGEST holds ``serving`` and ``index`` of each.

They are hard links where the file system has them, and take no space while the export itself is there.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from palate.data.manifest import sha256_of
from palate.runtime.model import MANIFEST

FOLDER = "served"
SERVING, INDEX = "serving", "index"
LENGTH = 16

logger = logging.getLogger(__name__)


def digest_of(place: Path) -> str | None:
    """What names the export in PLACE/serving; None where there is none."""
    try:
        return sha256_of(place / SERVING / MANIFEST)[:LENGTH]
    except OSError:
        return None


def place_of(run: Path, digest: str) -> Path | None:
    """The folder whose ``serving`` is this export, RUN itself if possible; None where it is gone."""
    for place in (run, run / FOLDER / digest):
        if digest_of(place) == digest:
            return place
    return None


def keep(run: Path, digest: str) -> None:
    """This export is kept beside the run, if the folder can be written and RUN/serving is still the one."""
    kept = run / FOLDER / digest
    if digest_of(kept) == digest:
        return
    writing = kept.with_name(f".{digest}.{uuid.uuid4().hex[:8]}.writing")
    try:
        for name in (SERVING, INDEX):
            if (run / name).is_dir():
                shutil.copytree(run / name, writing / name, copy_function=_linked)
        if digest_of(writing) == digest:  # else another export took its place meanwhile
            writing.rename(kept)
    except OSError as error:  # a folder that is only read, or another worker that was quicker
        if digest_of(kept) != digest:
            logger.info("there will be no way back to the model %s: %s", digest, error)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def forget_others(run: Path, digests: Collection[str | None]) -> None:
    """No other exports than these are kept."""
    folder = run / FOLDER
    for kept in folder.iterdir() if folder.is_dir() else ():
        if len(kept.name) == LENGTH and kept.name not in digests:
            shutil.rmtree(kept, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
