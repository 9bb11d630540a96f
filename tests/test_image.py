"""Image encoders: each against its slow and obvious way, one picture at a time, and all of them learn."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional

from palate.errors import SettingsError
from palate.nn.fields import build_field_encoder
from palate.nn.image import DEVIATION, MEAN, augmented, build_image_encoder
from palate.nn.residual import ResidualBlock, group_norm
from palate.schema import FieldKind, FieldShape
from palate.settings import ImageSettings, ModelSettings
from tests.slow_residual import accuracy_after_training, shaken, silent_weights, stages_by_hand

SMALL = {
    "classic": ImageSettings(
        encoder="classic", size=16, filters=(4, 6), dense=10, dropout=0.0, augment=False
    ),
    "residual": ImageSettings(
        encoder="residual", size=16, filters=(16, 32), blocks=2, dense=10, dropout=0.0, augment=False
    ),
}
each_encoder = pytest.mark.parametrize("name", SMALL)


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return shaken(build_image_encoder(16, SMALL[name]))


def test_classic_equals_loops_over_windows() -> None:
    encoder = build("classic")
    values = pictures(2)
    for picture, found in zip(values, encoder(values), strict=True):
        maps = (picture.double() - MEAN) / DEVIATION  # height, width, channels
        for layer in encoder.convolutions:
            weight, bias = layer.weight.double(), layer.bias.double()
            side = maps.shape[0] - 2
            # F, C, rows, columns of a filter against rows, columns, C of each window.
            kernel = weight.permute(2, 3, 1, 0)
            seen = torch.stack(
                [
                    torch.stack(
                        [
                            (maps[i : i + 3, j : j + 3, :, None] * kernel).sum(dim=(0, 1, 2)) + bias
                            for j in range(side)
                        ]
                    )
                    for i in range(side)
                ]
            ).clamp(min=0)
            half = side // 2
            maps = torch.stack(
                [
                    torch.stack(
                        [seen[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax(dim=(0, 1)) for j in range(half)]
                    )
                    for i in range(half)
                ]
            )
        dense = encoder.dense
        expected = (dense.weight.double() @ maps.reshape(-1) + dense.bias.double()).clamp(min=0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_residual_equals_its_formula_step_by_step() -> None:
    encoder = build("residual")
    values = pictures(3)
    state = encoder.state_dict()
    x = stages_by_hand(state, (values.permute(0, 3, 1, 2).float() - MEAN) / DEVIATION, [2, 2])
    assert x.shape == (3, 32, 2, 2)
    pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
    expected = functional.linear(pooled, state["dense.weight"], state["dense.bias"])
    torch.testing.assert_close(encoder(values), expected, rtol=1e-4, atol=1e-4)


@each_encoder
def test_a_picture_is_read_alone(name: str) -> None:
    encoder = build(name)
    encoder.train()
    values = pictures(5)
    together = encoder(values)
    assert together.shape == (5, encoder.dim) == (5, 10)
    one_by_one = torch.cat([encoder(values[row : row + 1]) for row in range(5)])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert encoder(values[:0]).shape == (0, 10)


@each_encoder
def test_every_weight_gets_a_gradient(name: str) -> None:
    assert silent_weights(build(name), pictures(8)) == []


@pytest.mark.parametrize("filters", [(16, 32), (3, 5)])
def test_a_residual_block_begins_as_the_identity(filters: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = build_image_encoder(16, ImageSettings(filters=filters))
    blocks = [layer for layer in encoder.modules() if isinstance(layer, ResidualBlock)]
    assert len(blocks) == 2
    for block in blocks:
        x = torch.randn(2, block.norm.num_channels, 4, 4)
        assert torch.equal(block(x), x)


def test_groups_are_whole_or_one() -> None:
    assert [group_norm(filters).num_groups for filters in (3, 16, 24, 64)] == [1, 1, 1, 4]


@each_encoder
@pytest.mark.parametrize("level", [0, 255])
def test_a_plain_picture_has_a_finite_vector(name: str, level: int) -> None:
    assert build(name)(torch.full((1, 16, 16, 3), level, dtype=torch.uint8)).isfinite().all()


@pytest.mark.parametrize("size", [8, 9, 33])
def test_residual_takes_pictures_of_any_size(size: int) -> None:
    assert build_image_encoder(size, ImageSettings())(pictures(2, size)).shape == (2, 128)


@each_encoder
def test_dropout_acts_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_image_encoder(16, SMALL[name].model_copy(update={"dropout": 0.5}))
    values = pictures(2)
    assert not torch.equal(encoder(values), encoder(values))
    encoder.eval()
    assert torch.equal(encoder(values), encoder(values))


def test_the_default_network_is_cheap() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder = build_image_encoder(64, ImageSettings())
    with FlopCounterMode(display=False) as counter:
        encoder(pictures(1, 64))
    assert counter.get_total_flops() <= 15e6


def test_what_does_not_fit_is_refused() -> None:
    settings = ImageSettings(encoder="classic", size=8, filters=(4, 4, 4))
    with pytest.raises(SettingsError, match="nothing is left of a picture of 8 × 8"):
        build_image_encoder(8, settings)
    with pytest.raises(SettingsError, match="take an odd one"):
        build_image_encoder(8, ImageSettings(kernel_size=4))
    with pytest.raises(SettingsError, match="list of filters is empty"):
        build_image_encoder(8, ImageSettings(filters=()))


def test_a_field_gets_the_encoder_of_the_settings() -> None:
    shape = FieldShape("photo", FieldKind.IMAGE, 16)
    for name, settings in SMALL.items():
        encoder = build_field_encoder(shape, ModelSettings(width=8, image=settings))
        assert type(encoder).__name__ == f"{name.title()}Image"
        assert encoder(pictures(2)).shape == (2, 10)


@each_encoder
def test_colours_of_squares_are_learned(name: str) -> None:
    """A square of one of three colours, anywhere, on noise: new pictures are told apart."""
    generator = torch.Generator().manual_seed(0)

    def world(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.randint(0, 120, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)
        colour = torch.randint(0, 3, (count,), generator=generator)
        places = torch.randint(0, 11, (count, 2), generator=generator).tolist()
        for picture, (row, column), channel in zip(values, places, colour.tolist(), strict=True):
            picture[row : row + 5, column : column + 5, channel] = 220
        return values, colour

    torch.manual_seed(0)
    encoder = build_image_encoder(16, SMALL[name])
    assert accuracy_after_training(encoder, world(256), world(100)) > 0.9


def test_augmented_pictures_are_flipped_or_not_and_shifted_with_their_border_going_on() -> None:
    size, most = 32, 2
    values = pictures(40, size)
    torch.manual_seed(0)
    found = augmented(values)
    assert found.dtype == torch.uint8
    padded = functional.pad(values.float().movedim(-1, 1), (most,) * 4, mode="replicate").movedim(1, -1)
    drawn = set()
    for picture, given in zip(found, padded, strict=True):
        places = product((False, True), range(2 * most + 1), range(2 * most + 1))
        fits = []
        for flipped, row, column in places:
            part = given[row : row + size, column : column + size]
            if torch.equal(picture.float(), part.flip(1) if flipped else part):
                fits.append((flipped, row, column))
        assert len(fits) == 1
        drawn.add(fits[0])
    assert len({place[0] for place in drawn}) == 2
    assert len({place[1] for place in drawn}) == len({place[2] for place in drawn}) == 2 * most + 1


def test_pictures_are_augmented_in_training_only() -> None:
    settings = SMALL["residual"].model_copy(update={"augment": True})
    encoder, values = shaken(build_image_encoder(16, settings)), pictures(3, 16)
    plain = encoder.eval()(values)
    assert torch.equal(plain, encoder(values))
    assert not torch.allclose(plain, encoder.train()(values))
