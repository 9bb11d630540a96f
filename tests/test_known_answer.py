"""The encoders of sound and film find a taste that is known, as nearly as it can be known."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from examples.known_answer import EVENTS, LOYALTY, Oracle, behaviour, families_of, known_answer, tastes
from examples.music import make as music
from examples.video import make as video
from palate.schema import Histories, Questions

QUICK: dict[str, Any] = {
    "split": {"share": 0.2},
    "model": {
        "width": 32,
        "audio": {"bands": 32, "filters": [8, 16], "dense": 48},
        "video": {"filters": [8, 16], "dense": 48},
    },
    "train": {"batch_events": 128, "learning_rate": 5e-3},
    "evaluate": {"bootstrap": 50},
}


def test_people_take_what_they_like_and_nothing_twice() -> None:
    generator = np.random.default_rng(0)
    family = families_of(15, {"a": "xy", "b": "xyz"}, generator)
    assert np.bincount(family).tolist() == [15] * 6
    person, thing = behaviour(family, 2000, generator)
    assert np.array_equal(person, np.repeat(np.arange(2000), EVENTS))
    rows = np.sort(thing.reshape(2000, EVENTS), axis=1)
    assert (np.diff(rows, axis=1) > 0).all()
    counts = np.stack([np.bincount(row, minlength=6) for row in family[thing].reshape(2000, EVENTS)])
    # Of who likes one family, a tenth of the events spread over all six; of who likes two, likewise.
    own = np.sort(counts, axis=1)[:, -2:].sum(axis=1).mean() / EVENTS
    assert LOYALTY < own < LOYALTY + 0.1
    prior, chances = tastes(6)
    assert prior.sum() == pytest.approx(1)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert np.bincount(family[thing], minlength=6) / len(thing) == pytest.approx(prior @ chances, abs=0.01)


def test_the_oracle_ranks_by_bayes_rule() -> None:
    """Six things of three families: against all ways in which a history and what follows can come about."""
    family = np.array([-1, -1, 0, 0, 1, 1, 2, 2])
    history = [2, 4, 3]
    prior, chances = tastes(3)
    joint = np.zeros(len(family))
    for taste, likely in enumerate(prior):
        for drawn in permutations(range(2, 8), 4):
            if list(drawn[:3]) == history:
                probability, left = likely, {0: 2, 1: 2, 2: 2}
                for thing in drawn:
                    of = int(family[thing])
                    probability *= chances[taste, of] / max(left[of], 1)
                    left[of] -= 1
                joint[drawn[3]] += probability
    scores = Oracle(family, (1, 3)).score(Questions.without_answer(Histories.of([history])))[0]
    coming = [5, 6, 7]  # what was taken is left out by the evaluation
    found = np.exp(scores[coming]) / np.exp(scores[coming]).sum()
    np.testing.assert_allclose(found, joint[coming] / joint[coming].sum(), rtol=3e-3)
    deaf = Oracle(family, (1, 3), hears=0).score(Questions.without_answer(Histories.of([history])))[0]
    assert np.ptp(deaf[2:]) < 2e-3
    assert np.isneginf(scores[:2]).all()


def test_a_world_is_a_function_of_its_seed_and_keys_say_nothing(tmp_path: Path) -> None:
    for make, kwargs in ((music.make, {"tracks_each": 13}), (video.make, {"clips_each": 13})):
        axes = {name: list(of)[:2] for name, of in (music.AXES if make is music.make else video.AXES).items()}
        for name in ("one", "same", "other"):
            make(tmp_path / name, people=20, axes=axes, seed=int(name == "other"), **kwargs)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 4 + 2 * 52
    content = {
        name: [(tmp_path / name / file).read_bytes() for file in files] for name in ("one", "same", "other")
    }
    assert content["one"] == content["same"]
    assert len(set(content["one"])) == len(files), "two files are alike"
    assert not set(content["one"]) & {
        of for file, of in zip(files, content["other"], strict=True) if file.suffix in (".wav", ".mp4")
    }
    truth = pl.read_csv(tmp_path / "one" / "truth.csv")
    assert truth["movement"].to_list() != sorted(truth["movement"])


@pytest.mark.parametrize("movement", video.MOVEMENTS)
def test_a_frame_says_nothing_of_the_movement(movement: str) -> None:
    """Of many clips, the frames in the middle have the same mean lightness and the same spread of it."""
    generator = np.random.default_rng(0)
    frames = np.stack([video.clip(movement, "bar", generator)[video.FRAMES // 2] for _ in range(60)])
    covered = (frames.mean(axis=3) > 127).mean(axis=(1, 2))
    still = np.random.default_rng(1)
    others = np.stack([video.clip("right", "bar", still)[0] for _ in range(60)])
    expected = (others.mean(axis=3) > 127).mean(axis=(1, 2))
    error = np.hypot(covered.std(), expected.std()) / np.sqrt(60)
    assert abs(covered.mean() - expected.mean()) < 4 * error


def test_what_is_heard_is_found(tmp_path: Path) -> None:
    axes = {"timbre": ["string", "drum"], "rhythm": ["walking", "running"]}
    music.make(tmp_path, tracks_each=45, people=300, axes=axes)
    answer = known_answer(tmp_path, QUICK)
    assert answer.share >= 0.8, answer.lines()
    assert answer.share_without <= 0.2, answer.lines()
    assert max(answer.one_axis.values()) < 0.8 * answer.optimum


def test_what_moves_is_heard_of(tmp_path: Path) -> None:
    """With so few clips and people a fifth of the answer is luck; the slow test asks for the whole of it."""
    axes = {"movement": ["right", "blinking"], "shape": ["bar", "two dots"]}
    video.make(tmp_path, clips_each=60, people=300, axes=axes)
    answer = known_answer(tmp_path, {**QUICK, "train": {**QUICK["train"], "precision": "float32"}})
    assert answer.with_media - answer.chance > 0.35 * (answer.optimum - answer.chance), answer.lines()
    assert answer.share_without <= 0.2, answer.lines()
    assert max(answer.one_axis.values()) < 0.8 * answer.optimum


@pytest.mark.slow
@pytest.mark.parametrize("make", [music.make, video.make])
def test_the_whole_catalogue_is_told_apart(make: Any, tmp_path: Path) -> None:
    make(tmp_path)
    answer = known_answer(tmp_path, {})
    print("\n".join(answer.lines()))
    assert answer.share >= 0.8, answer.lines()
    assert answer.share_without <= 0.2, answer.lines()
    assert answer.chance <= 0.2 * answer.optimum
    assert max(answer.one_axis.values()) < 0.8 * answer.optimum
