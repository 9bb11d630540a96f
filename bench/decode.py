"""How fast pictures are read, beside the decoding library reading the same files by itself.

    python -m bench.decode --folder images

Both use all processors and read every file from disk, in turns; the best round of each counts. The
library decodes at full size; Palate checks where the file lies, takes its SHA-256, decodes, brings it to
one size and writes the row. Beside the rate stands the processor time, which others who compute on the same
machine change less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from palate.data.media import Workplace, processors, read_media
from palate.schema import FieldKind
from palate.settings import ModelSettings

PIECE = 64


def by_itself(paths: list[Path]) -> None:
    """simplejpeg on every file, in threads: it lets go of Python's lock."""
    pieces = [paths[start : start + PIECE] for start in range(0, len(paths), PIECE)]
    with ThreadPoolExecutor(processors()) as pool:
        for _ in pool.map(
            lambda piece: [simplejpeg.decode_jpeg(path.read_bytes()) for path in piece], pieces
        ):
            pass


def ours(paths: list[Path], size: int, folder: Path) -> None:
    settings = ModelSettings.model_validate({"image": {"size": size}})
    names = [path.name for path in paths]
    found = read_media(names, paths[0].parent, FieldKind.IMAGE, settings, place=Workplace(folder))
    assert len(found.media.row) == len(paths), found.notes


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """By the clock, and of the processors together."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    paths = sorted(asked.folder.glob("*.jpg"))
    took: dict[str, list[tuple[float, float]]] = {"library": [], "palate": []}
    for _ in range(asked.rounds + 1):  # the first round fills the disk's cache
        took["library"].append(seconds(partial(by_itself, paths)))
        with tempfile.TemporaryDirectory() as folder:
            took["palate"].append(seconds(partial(ours, paths, asked.size, Path(folder))))
    best = {name: np.min(rounds, axis=0) / len(paths) for name, rounds in took.items()}
    for name, (clock, processor) in best.items():
        rate = f"{1 / clock:8,.0f} pictures a second on {processors()} processors"
        print(f"{name:<8} {rate}, {1e6 * processor:4.0f} µs of them for each")
    clock, processor = best["library"] / best["palate"]
    print(f"ratio    {clock:8.2f} by the clock, {processor:.2f} by processor time")


if __name__ == "__main__":
    main()
