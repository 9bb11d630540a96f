"""The audio encoder: against its slow and obvious way, one track at a time, of any length; it learns."""

from __future__ import annotations

import pytest
import torch

from palate.errors import SettingsError
from palate.nn.audio import AudioEncoder
from palate.nn.fields import build_field_encoder
from palate.schema import FieldKind, FieldShape
from palate.settings import AudioSettings, ModelSettings
from tests.slow_residual import accuracy_after_training, shaken, silent_weights, stages_by_hand

SMALL = AudioSettings(bands=20, filters=(16, 24), dense=10)


def tracks(count: int, bands: int = 20, steps: int = 31) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(count, bands, steps, generator=generator) * 3 - 8).half()


def build(settings: AudioSettings = SMALL) -> AudioEncoder:
    torch.manual_seed(0)
    return shaken(AudioEncoder(20, settings))


def test_it_equals_its_formula_step_by_step() -> None:
    encoder = build()
    state = encoder.state_dict()
    x = tracks(3).float()
    x = (x - x.mean(dim=(1, 2), keepdim=True)) / x.std(dim=(1, 2), keepdim=True, correction=0)
    maps = stages_by_hand(state, x.unsqueeze(1), [1, 1], width_halvings=2)
    assert maps.shape == (3, 24, 3, 8)
    for track, found in zip(maps, encoder(tracks(3)), strict=True):
        hidden = [
            (state["step.weight"] @ track[:, :, t].flatten() + state["step.bias"]).clamp(min=0)
            for t in range(8)
        ]
        around = [torch.zeros(10), *hidden, torch.zeros(10)]
        answers = []
        for t in range(8):
            y = state["time.bias"].clone()
            for tap in range(3):
                y = y + state["time.weight"][:, :, tap] @ around[t + tap]
            answers.append(y.clamp(min=0))
        pooled = torch.cat([torch.stack(answers).mean(dim=0), torch.stack(answers).amax(dim=0)])
        expected = state["dense.weight"] @ pooled + state["dense.bias"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_track_is_heard_alone() -> None:
    encoder = build().train()
    values = tracks(5)
    together = encoder(values)
    assert together.shape == (5, encoder.dim) == (5, 10)
    one_by_one = torch.cat([encoder(values[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert encoder(values[:0]).shape == (0, 10)


def test_every_weight_gets_a_gradient() -> None:
    assert silent_weights(build(), tracks(8)) == []


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_tracks_may_have_any_length(steps: int) -> None:
    assert build()(tracks(2, steps=steps)).isfinite().all()


def test_loudness_says_nothing_and_silence_is_finite() -> None:
    encoder = build()
    values = tracks(2).float()
    torch.testing.assert_close(encoder(values + 5), encoder(values), rtol=1e-3, atol=1e-3)
    assert encoder(torch.full((1, 20, 31), -23.0).half()).isfinite().all()


def test_dropout_acts_in_training_only() -> None:
    encoder = build(SMALL.model_copy(update={"dropout": 0.5})).train()
    assert not torch.equal(encoder(tracks(2)), encoder(tracks(2)))
    encoder.eval()
    assert torch.equal(encoder(tracks(2)), encoder(tracks(2)))


def test_settings_shape_the_network_and_what_does_not_fit_is_refused() -> None:
    wide = build(AudioSettings(bands=20, filters=(8,), kernel_size=5, blocks=3, dense=7))
    assert wide.dim == 7
    assert wide.stages.layers[5].inner.weight.shape == (4, 4, 5, 5)
    field = build_field_encoder(FieldShape("song", FieldKind.AUDIO, 20), ModelSettings(audio=SMALL))
    assert field(tracks(2)).shape == (2, 10)
    with pytest.raises(SettingsError, match="take an odd one"):
        AudioEncoder(20, AudioSettings(kernel_size=2))


def test_rhythms_are_learned_whatever_the_pitch() -> None:
    """Notes that jump about, at even or at uneven distances: each band alone says next to nothing."""
    generator = torch.Generator().manual_seed(0)

    def world(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.randn(count, 20, 64, generator=generator)
        rhythm = torch.randint(0, 2, (count,), generator=generator)
        for track, uneven in zip(values, rhythm.tolist(), strict=True):
            begin = int(torch.randint(0, 16, (), generator=generator))
            for start in range(begin, 64, 16):
                for note in (start, start + (4 if uneven else 8)):
                    low = int(torch.randint(0, 18, (), generator=generator))
                    track[low : low + 2, note : note + 3] += 5
        return values.half(), rhythm

    torch.manual_seed(0)
    assert accuracy_after_training(AudioEncoder(20, SMALL), world(1024), world(100), steps=60) > 0.9


def test_timbres_are_learned() -> None:
    """Tones of no, one or two overtones, at any pitch and time, over noise: new ones are told apart."""
    generator = torch.Generator().manual_seed(0)

    def world(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.randn(count, 20, 24, generator=generator)
        timbre = torch.randint(0, 3, (count,), generator=generator)
        places = torch.randint(0, 12, (count, 2), generator=generator).tolist()
        for track, (low, start), overtones in zip(values, places, timbre.tolist(), strict=True):
            track[low : low + 3 * overtones + 1 : 3, start : start + 12] += 5
        return values.half(), timbre

    torch.manual_seed(0)
    encoder = AudioEncoder(20, SMALL.model_copy(update={"dense": 32}))
    assert accuracy_after_training(encoder, world(1024), world(100), steps=90) > 0.9
