"""An environment of its own for each peer, built from the package registry where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TORCH = "torch==2.13.0"
VERSIONS = {"rectools": "RecTools 0.19.0", "recbole": "RecBole 1.2.1", "implicit": "implicit 0.7.3"}
RECIPES: dict[str, list[list[str]]] = {
    # What is installed, step by step; torch first and pinned, so that nothing replaces it by a larger build.
    "rectools": [[TORCH], [TORCH, "rectools[torch]==0.19.0", "pyarrow<21"]],
    "recbole": [
        [TORCH],
        [TORCH, "recbole==1.2.1"],
        [TORCH, "numpy<2", "pandas<2.3", "scipy<1.13", "setuptools<81"],
    ],
    "implicit": [["implicit==0.7.3", "numpy", "scipy"]],
}


def python_of(peer: str, home: Path) -> Path:
    """The peer's interpreter; its environment is there afterwards.

    Raises:
        subprocess.CalledProcessError: an installation failed; pip says why.
    """
    folder = home / peer
    python, done = folder / "bin" / "python", folder / ".installed"
    if done.exists():
        return python
    print(f"Building the environment of {peer} in {folder} …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip<26.2", "wheel", "setuptools<81"], check=True)
    for packages in RECIPES[peer]:
        subprocess.run([*pip, *packages], check=True)
    done.touch()
    return python
