"""Video encoders: each against its slow and obvious way, one clip at a time, of any length; they learn."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from palate.errors import SettingsError
from palate.nn.fields import build_field_encoder
from palate.nn.image import DEVIATION, MEAN, standardised
from palate.nn.video import build_video_encoder, without_look
from palate.schema import FieldKind, FieldShape
from palate.settings import ModelSettings, VideoSettings
from tests.slow_residual import accuracy_after_training, shaken, silent_weights, stages_by_hand

SMALL = {
    name: VideoSettings(encoder=name, size=12, filters=(8, 16), dense=10) for name in ("frames", "volume")
}
each_encoder = pytest.mark.parametrize("name", SMALL)


def clips(count: int, frames: int = 4, size: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, frames, size, size, 3), dtype=torch.uint8, generator=generator)


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return shaken(build_video_encoder(SMALL[name]))


def without_look_by_hand(clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[3, F, S, S] around zero, and the three means and the deviation that it had."""
    x = (clip.permute(3, 0, 1, 2).float() - MEAN) / DEVIATION
    means = torch.stack([channel.mean() for channel in x])
    centred = torch.stack([channel - mean for channel, mean in zip(x, means, strict=True)])
    deviation = (centred**2).mean().sqrt()
    return centred / (deviation + 0.1), torch.cat([means, deviation.view(1)])


def test_colours_of_the_whole_clip_go_to_the_last_layer_alone() -> None:
    values = clips(2).float() * 0.4 + 60
    tinted = values + torch.tensor([30.0, 0.0, -30.0])
    plain, look = without_look(standardised(values))
    same, other = without_look(standardised(tinted))
    torch.testing.assert_close(plain, same)
    torch.testing.assert_close(other - look, torch.tensor([[30.0, 0.0, -30.0, 0.0]] * 2) / DEVIATION)
    assert without_look(standardised(torch.full_like(values, 7)))[0].abs().max() < 1e-5


def test_frames_are_read_one_by_one_and_then_over_time() -> None:
    encoder = build("frames")
    state = encoder.state_dict()
    for clip, found in zip(clips(3), encoder(clips(3)), strict=True):
        hidden = []
        plain, look = without_look_by_hand(clip)
        for frame in plain.unbind(dim=1):
            maps = stages_by_hand(state, frame.unsqueeze(0), [1, 1])[0]
            pooled = torch.cat([maps.mean(dim=(1, 2)), maps.amax(dim=(1, 2))])
            hidden.append((state["frame.weight"] @ pooled + state["frame.bias"]).clamp(min=0))
        nothing = torch.zeros(10)
        around = [nothing, *hidden, nothing]
        answers = []
        for t in range(4):
            y = state["time.bias"].clone()
            for tap in range(3):
                y = y + state["time.weight"][:, :, tap] @ around[t + tap]
            answers.append(y.clamp(min=0))
        pooled = torch.cat([torch.stack(answers).mean(dim=0), torch.stack(answers).amax(dim=0), look])
        expected = state["dense.weight"] @ pooled + state["dense.bias"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_volume_equals_its_formula_step_by_step() -> None:
    encoder = build("volume")
    state = encoder.state_dict()
    plain, looks = zip(*map(without_look_by_hand, clips(3)), strict=True)
    maps = stages_by_hand(state, torch.stack(plain), [1, 1])
    assert maps.shape == (3, 16, 4, 2, 2)
    pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4)), torch.stack(looks)], dim=1)
    expected = functional.linear(pooled, state["dense.weight"], state["dense.bias"])
    torch.testing.assert_close(encoder(clips(3)), expected, rtol=1e-4, atol=1e-4)


@each_encoder
def test_a_clip_is_seen_alone(name: str) -> None:
    encoder = build(name).train()
    values = clips(4)
    together = encoder(values)
    assert together.shape == (4, encoder.dim) == (4, 10)
    one_by_one = torch.cat([encoder(values[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert encoder(values[:0]).shape == (0, 10)


@each_encoder
def test_every_weight_gets_a_gradient(name: str) -> None:
    assert silent_weights(build(name), clips(6)) == []


@each_encoder
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_clips_may_have_any_number_of_frames(name: str, frames: int) -> None:
    assert build(name)(clips(2, frames)).isfinite().all()


@each_encoder
def test_dropout_acts_in_training_only(name: str) -> None:
    encoder = build_video_encoder(SMALL[name].model_copy(update={"dropout": 0.5}))
    assert not torch.equal(encoder(clips(2)), encoder(clips(2)))
    encoder.eval()
    assert torch.equal(encoder(clips(2)), encoder(clips(2)))


@each_encoder
def test_settings_shape_the_network_and_what_does_not_fit_is_refused(name: str) -> None:
    settings = VideoSettings(encoder=name, filters=(4,), kernel_size=5, blocks=2, dense=7)
    encoder = build_video_encoder(settings)
    assert encoder.dim == 7
    assert encoder.stages.layers[4].inner.weight.shape[-1] == 5
    field = build_field_encoder(FieldShape("clip", FieldKind.VIDEO, 12), ModelSettings(video=SMALL[name]))
    assert field(clips(2)).shape == (2, 10)
    with pytest.raises(SettingsError, match="take an odd one"):
        build_video_encoder(VideoSettings(encoder=name, kernel_size=2))


def lit(order: list[list[tuple[int, int, int]]], seed: int) -> torch.Tensor:
    """Clips of noise with a square at (row, column) of one channel in each frame."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 60, (len(order), len(order[0]), 12, 12, 3), generator=generator)
    for clip, squares in zip(values, order, strict=True):
        for frame, (row, column, channel) in zip(clip, squares, strict=True):
            frame[row : row + 4, column : column + 4, channel] = 230
    return values.to(torch.uint8)


@each_encoder
def test_what_comes_after_what_is_learned(name: str) -> None:
    """Red before green, or green before red: every frame alone says nothing."""

    def world(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        classes = torch.randint(0, 2, (count,), generator=generator)
        at = torch.randint(0, 9, (count, 2), generator=generator).tolist()
        order = [
            [(row, column, first), (row, column, 1 - first)]
            for (row, column), first in zip(at, classes.tolist(), strict=True)
        ]
        return lit(order, seed), classes

    torch.manual_seed(0)
    encoder = build_video_encoder(SMALL[name])
    assert accuracy_after_training(encoder, world(192, 1), world(100, 2), steps=60, batch=48) > 0.9


def test_volume_learns_which_way_a_thing_moves() -> None:
    def world(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        classes = torch.randint(0, 2, (count,), generator=generator)
        rows = torch.randint(0, 9, (count,), generator=generator).tolist()
        order = [
            [(row, column, 0) for column in ((1, 4, 7) if right else (7, 4, 1))]
            for row, right in zip(rows, classes.tolist(), strict=True)
        ]
        return lit(order, seed), classes

    torch.manual_seed(0)
    encoder = build_video_encoder(SMALL["volume"])
    assert accuracy_after_training(encoder, world(192, 1), world(100, 2), steps=60, batch=48) > 0.9
