"""The pottery as a server: its run, made once for all tests that ask a server, and a server on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from palate.data.manifest import checksums, read_json, write_json
from palate.recommender import Recommender
from palate.runtime.model import MANIFEST, VECTORS
from palate.schema import FIRST_ID
from tests.pottery import SETTINGS, pottery

KEYS = {"PALATE_READ_KEY": "read-key", "PALATE_WRITE_KEY": "write-key", "PALATE_ADMIN_KEY": "admin-key"}
ADMIN = {"X-API-Key": KEYS["PALATE_ADMIN_KEY"]}
READY_WITHIN = 60


def exported(folder: Path) -> Path:
    """``folder`` is a run of the pottery with what ``palate export`` writes, briefly trained."""
    from palate.export.folder import export_run

    pictures = folder.with_name(folder.name + "-pictures")
    pictures.mkdir()
    few = SETTINGS | {"train": SETTINGS["train"] | {"max_epochs": 2}}
    Recommender(few).fit(pottery(pictures), folder=folder)
    export_run(folder)
    return folder


def mix_up(serving: Path) -> None:
    """The export becomes another one: each item has the vector of the one some places before it."""
    tensors = load_file(serving / VECTORS)
    vectors = tensors["vectors"].copy()
    vectors[FIRST_ID:] = np.roll(vectors[FIRST_ID:], 37, axis=0)
    (serving / VECTORS).unlink()  # as an export does, which leaves other names of the file as they are
    save_file(tensors | {"vectors": vectors}, serving / VECTORS)
    manifest = read_json(serving / MANIFEST, what="export", remedy="none")
    write_json(serving / MANIFEST, manifest | {"files": checksums(serving, [*manifest["files"]])})


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(run: Path, store: Path, port: int, **keys: str) -> subprocess.Popen[bytes]:
    """A server in a process of its own, which answers when this returns."""
    command = [sys.executable, "-m", "palate", "serve", str(run), "--port", str(port)]
    command += ["--store", f"sqlite:///{store}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PALATE_")}
    log = store.with_suffix(".log")
    with log.open("ab") as out:
        server = subprocess.Popen(command, env=own | keys, stdout=out, stderr=out)
    deadline = time.monotonic() + READY_WITHIN
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1):
                return server
        except OSError:
            time.sleep(0.05)
    server.kill()
    server.wait()
    raise AssertionError(log.read_text(errors="replace")[-4000:])


@contextmanager
def serving(run: Path, store: Path, port: int, **keys: str) -> Iterator[str]:
    """A server until the end; where it is found."""
    server = start(run, store, port, **keys)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
