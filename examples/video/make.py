"""Short clips, and people whose taste is known: a known-answer test of the video encoders.

    python examples/video/make.py DIR

A clip's family is how its shape moves × what shape it is. Place, angle, size, contrast, colours,
background and speed are drawn for each clip, and every movement goes round: what leaves on the right comes in
on the left, what has grown largest begins small, and so on. So in all families the frames look the same one
by one, and only what comes after what tells a movement.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script it finds this folder alone

from examples.known_answer import families_of, write_world
from palate.schema import FloatArray

SIZE = 64
RATE = 12
FRAMES = 16
SMALLEST, LARGEST = 12.0, 22.0
"""Half of a shape's length, in pixels."""
FAINT = 0.4
"""The lower of the two contrasts."""

Generator = np.random.Generator


def bar(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.abs(x) - 0.22, np.abs(y) - 0.95)


def two_dots(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.hypot(x, np.abs(y) - 0.6) - 0.35


def half_moon(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.maximum(np.hypot(x, y) - 0.95, -y)


SHAPES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "bar": bar, "two dots": two_dots, "half moon": half_moon,
}  # fmt: skip
"""How far outside of a shape a place is, in half lengths; inside it is below zero."""
MOVEMENTS = {
    "right": (0, 1), "left": (0, -1), "down": (1, 1), "up": (1, -1), "clockwise": (2, 1),
    "anticlockwise": (2, -1), "growing": (3, 1), "blinking": (4, 1),
}  # fmt: skip
"""Which of x, y, angle, size and contrast changes, and which way."""
SPEED = ((0.08, 0.13), (0.08, 0.13), (0.07, 0.11), (0.1, 0.16), (0.25, 0.5))
"""Of x, y, angle, size and contrast: rounds in an eighth of a clip, from and to."""
AXES = {"movement": list(MOVEMENTS), "shape": list(SHAPES)}


def clip(movement: str, shape: str, generator: Generator) -> npt.NDArray[np.uint8]:
    """uint8 [FRAMES, SIZE, SIZE, 3]."""
    what, way = MOVEMENTS[movement]
    where = np.tile(generator.random((1, 5)), (FRAMES, 1))  # each within one round, 0 … 1
    where[:, what] += way * generator.uniform(*SPEED[what]) * np.arange(FRAMES) * 8 / FRAMES
    x, y, turn, size, contrast = (where % 1).T
    grid = np.arange(SIZE) + 0.5
    # Not the angle of an axis: rows grow downwards, so a growing angle turns clockwise on the screen.
    turn, size = turn * 2 * np.pi, SMALLEST * (LARGEST / SMALLEST) ** size
    dx = (grid[None, None, :] - x[:, None, None] * SIZE + SIZE / 2) % SIZE - SIZE / 2
    dy = (grid[None, :, None] - y[:, None, None] * SIZE + SIZE / 2) % SIZE - SIZE / 2
    cos, sin, size = (values[:, None, None] for values in (np.cos(turn), np.sin(turn), size))
    outside = SHAPES[shape]((dx * cos + dy * sin) / size, (dy * cos - dx * sin) / size) * size
    opacity = np.clip(0.5 - outside, 0, 1) * np.where(contrast < 0.5, 1.0, FAINT)[:, None, None]
    behind, colour = generator.uniform(0, 110, 3), generator.uniform(145, 255, 3)
    slope = generator.uniform(-20, 20, (2, 3))
    u = (grid / SIZE - 0.5)[:, None]
    ground = behind + (u * slope[0])[:, None, :] + (u * slope[1])[None, :, :]
    ground = ground + generator.normal(0, 6, (SIZE, SIZE, 3))
    noise = 3 * generator.standard_normal((FRAMES, SIZE, SIZE, 3), np.float32)
    frames = ground + opacity[..., None] * (colour - ground) + noise
    return frames.clip(0, 255).astype(np.uint8)


def write_film(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """``path`` is an .mp4 file of these frames."""
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "preset": "veryfast", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        # With several threads, or by some processors' instructions, no two files would be alike.
        stream.codec_context.thread_count = 1
        for values in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())


def make(
    out: Path,
    *,
    clips_each: int = 100,
    people: int = 1500,
    axes: Mapping[str, Sequence[str]] = AXES,
    seed: int = 0,
) -> None:
    """``out`` is a data set of ``clips_each`` clips of every family; a function of the arguments."""
    generator = np.random.default_rng(seed)
    movements, shapes = axes["movement"], axes["shape"]
    family = families_of(clips_each, axes, generator)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    files = [f"clips/{number:04}.mp4" for number in range(len(family))]
    for of, file in zip(family.tolist(), files, strict=True):
        write_film(out / file, clip(movements[of // len(shapes)], shapes[of % len(shapes)], generator))
    settings = {
        "model": {
            "width": 64,
            "blocks": 2,
            "video": {"encoder": "volume", "size": 32, "filters": [32, 64]},
        },
    }
    write_world(
        out, name="video", axes=axes, family=family, files=files, kind="video", people=people,
        settings=settings, generator=generator,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.out, seed=arguments.seed)
