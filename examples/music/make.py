"""A small catalogue of real sound with people whose taste is known: a known-answer test of the audio encoder.

    python examples/music/make.py DIR

A track's family is its timbre × its rhythm. Pitch, melody, tempo (within a tenth), loudness, phases, hiss and
where the pattern begins are drawn for each track, so no two files are alike and nothing else tells a family.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script it finds this folder alone

from examples.known_answer import families_of, write_world
from palate.schema import FloatArray

RATE = 16_000
SECONDS = 4.0
TWO_PI = 2 * np.pi

Generator = np.random.Generator
Instrument = Callable[[float, FloatArray, Generator], FloatArray]
"""Pitch in Hz, seconds since the note began → samples."""


def partials(pitch: float, t: FloatArray, generator: Generator, of: Mapping[float, float]) -> FloatArray:
    """Sines at multiples of the pitch with these amplitudes, in random phases."""
    heard = {multiple: size for multiple, size in of.items() if multiple * pitch < RATE / 2}
    waves = [
        size * np.sin(TWO_PI * (multiple * pitch * t + generator.random()))
        for multiple, size in heard.items()
    ]
    return np.sum(waves, axis=0)


def flute(pitch: float, t: FloatArray, generator: Generator) -> FloatArray:
    breath = 0.08 * generator.standard_normal(len(t))
    return (partials(pitch, t, generator, {1: 1.0, 2: 0.25, 3: 0.05}) + breath) * np.minimum(t / 0.06, 1)


def string(pitch: float, t: FloatArray, generator: Generator) -> FloatArray:
    """Plucked: all harmonics, the higher ones fade first."""
    harmonics = range(1, min(12, int(7000 / pitch)) + 1)
    return np.sum(
        [np.exp(-t * (2 + k)) * partials(pitch, t, generator, {k: 1 / k}) for k in harmonics], axis=0
    )


def bell(pitch: float, t: FloatArray, generator: Generator) -> FloatArray:
    """The partials of a free bar, which are no harmonics."""
    return partials(pitch, t, generator, {1: 1.0, 2.76: 0.7, 5.4: 0.5, 8.93: 0.3}) * np.exp(-4 * t)


def drum(pitch: float, t: FloatArray, generator: Generator) -> FloatArray:
    """A falling tone, and noise."""
    tone = np.sin(TWO_PI * pitch * (t + 0.05 * (1 - np.exp(-30 * t))))
    return tone * np.exp(-18 * t) + 0.7 * generator.standard_normal(len(t)) * np.exp(-25 * t)


INSTRUMENTS: dict[str, Instrument] = {
    "flute": flute, "string": string, "bell": bell, "drum": drum,
}  # fmt: skip
RHYTHMS = {
    "walking": [0.5],
    "running": [0.17],
    "galloping": [0.36, 0.14],
    "waltzing": [0.16, 0.16, 0.48],
}
"""Seconds from each note to the next, again and again."""
AXES = {"timbre": list(INSTRUMENTS), "rhythm": list(RHYTHMS)}


def track(instrument: Instrument, gaps: Sequence[float], generator: Generator) -> FloatArray:
    """``SECONDS`` of one instrument playing this rhythm, float64 samples within −1 … 1."""
    total = round(SECONDS * RATE)
    samples = np.zeros(total)
    pace, base = generator.uniform(0.9, 1.1), 110 * 2 ** generator.uniform(0, 2)
    begin, place = -generator.uniform(0, sum(gaps)), int(generator.integers(len(gaps)))
    while begin < SECONDS:
        gap = gaps[place % len(gaps)] * pace
        pitch = base * 2 ** (generator.choice([0, 2, 4, 7, 9, 12]) / 12)
        first = max(0, round(begin * RATE))
        sounding = gap * generator.uniform(0.7, 0.9)  # detached, as every instrument but an organ plays
        stop = min(total, round((begin + sounding) * RATE))
        if stop > first:
            t = np.arange(first, stop) / RATE - begin
            fade = ((sounding - t) / 0.015).clip(0, 1)
            samples[first:stop] += instrument(pitch, t.clip(0), generator) * fade * generator.uniform(0.7, 1)
        begin, place = begin + gap, place + 1
    samples /= np.abs(samples).max()
    hiss = 10 ** generator.uniform(-3.0, -1.5) * generator.standard_normal(total)
    return generator.uniform(0.1, 0.9) * (samples + hiss) / (1 + 4 * hiss.std())


def write_wave(path: Path, samples: FloatArray) -> None:
    """``path`` is a mono .wav file of 16 bits a sample."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


def make(
    out: Path,
    *,
    tracks_each: int = 40,
    people: int = 1500,
    axes: Mapping[str, Sequence[str]] = AXES,
    seed: int = 0,
) -> None:
    """``out`` is a data set of ``tracks_each`` tracks of every family; a function of the arguments."""
    generator = np.random.default_rng(seed)
    timbres, rhythms = axes["timbre"], axes["rhythm"]
    family = families_of(tracks_each, axes, generator)
    (out / "sounds").mkdir(parents=True, exist_ok=True)
    files = [f"sounds/{number:04}.wav" for number in range(len(family))]
    for of, file in zip(family.tolist(), files, strict=True):
        timbre, rhythm = timbres[of // len(rhythms)], rhythms[of % len(rhythms)]
        write_wave(out / file, track(INSTRUMENTS[timbre], RHYTHMS[rhythm], generator))
    settings = {
        "model": {
            "width": 64,
            "blocks": 2,
            "audio": {"seconds": SECONDS, "window_ms": 64, "hop_ms": 32},
        },
    }
    write_world(
        out, name="music", axes=axes, family=family, files=files, kind="audio", people=people,
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
