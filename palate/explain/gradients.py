"""Which words and pixels carried a recommendation, by gradients: the only file that needs Captum.

Integrated gradients (Sundararajan, Taly and Yan, 2017) follow the straight way from a baseline to the input
and add up to the difference between the two scores. Grad-CAM (Selvaraju et al., 2017) weighs the maps of the
last convolution by their gradients: coarse, and one pass. ``palate/explain/content.py`` wants no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn
from torch.nn import functional

from palate.errors import MissingExtraError, SettingsError
from palate.explain.shapley import Scores
from palate.nn.image import ClassicImage, ResidualImage
from palate.nn.item import FieldProjection, ItemTower
from palate.nn.kept import KeptColumn
from palate.nn.text import TextEncoder
from palate.schema import AnyArray

STEPS = 200
"""Points on the way from the baseline to the input."""
POINTS_AT_A_TIME = 32


def token_gradients(tower: ItemTower, change: Scores, field: str, tokens: AnyArray) -> Scores:
    """The share of each token of one text, float64 [T]; padding has none.

    They add up to what the field adds to the score, less what it adds with as many tokens that say nothing
    (vectors of zeros).

    Args:
        tower: that describes the items, in evaluation mode.
        change: float64 [D], state with the history less state with none.
        field: of kind text, read by a convolution.
        tokens: int [T], as ``schema.EncodedField`` has them.

    Raises:
        SettingsError: no such field, or one that a pretrained encoder reads.
        MissingExtraError: Captum is not installed.
    """
    part, column = _read_by(tower, field, (TextEncoder,))
    encoder = column.encoder
    assert isinstance(encoder, TextEncoder)
    read = torch.from_numpy(tokens[tokens != 0]).long()
    score = _score(part, column, change, lambda x_nTD: encoder.of_vectors(x_nTD.transpose(0, 1)))
    found = _integrated(score, encoder.embedding(read)[None].detach(), 0.0)
    shares = torch.zeros(len(tokens), dtype=torch.float64)
    shares[torch.from_numpy(tokens != 0)] = found[0].sum(dim=1).double()
    result: Scores = shares.numpy()
    return result


def pixel_gradients(tower: ItemTower, change: Scores, field: str, picture: AnyArray) -> Scores:
    """The share of each pixel of one picture, float64 [S, S].

    They add up to what the field adds to the score, less what it adds with a picture of one grey, the mean.

    Args:
        tower: as in ``token_gradients``.
        change: as in ``token_gradients``.
        field: of kind image, whose encoder is not pretrained.
        picture: uint8 [S, S, 3].

    Raises:
        SettingsError: no such field, or one that a pretrained encoder reads.
        MissingExtraError: Captum is not installed.
    """
    part, column = _read_by(tower, field, (ClassicImage, ResidualImage))
    shown = torch.from_numpy(picture[None]).float()
    found = _integrated(_score(part, column, change, column.encoder), shown, float(shown.mean()))
    shares: Scores = found[0].sum(dim=2).double().numpy()
    return shares


def region_gradients(tower: ItemTower, change: Scores, field: str, picture: AnyArray) -> Scores:
    """Where one picture speaks for the item by Grad-CAM, float64 [S, S], from 0 to 1.

    Arguments and errors are those of ``pixel_gradients``.
    """
    part, column = _read_by(tower, field, (ClassicImage, ResidualImage))
    encoder = column.encoder
    layer = encoder.convolutions[-1] if isinstance(encoder, ClassicImage) else encoder.get_submodule("stages")
    attribution = _captum().LayerGradCam(_Scored(_score(part, column, change, encoder), encoder), layer)
    maps = attribution.attribute(torch.from_numpy(picture[None]).float(), relu_attributions=True).detach()
    size = (picture.shape[0], picture.shape[1])
    whole = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0, 0].double()
    found: Scores = (whole / whole.max().clamp_min(torch.finfo(torch.float64).tiny)).numpy()
    return found


class _Scored(nn.Module):
    """A function as a module that holds the encoder, whose layers Captum listens to."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor], encoder: nn.Module) -> None:
        super().__init__()
        self.score, self.encoder = score, encoder

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.score(values)


def _score(
    part: FieldProjection,
    column: KeptColumn,
    change: Scores,
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the field adds to the score of each of n inputs, [n]."""
    direction = torch.tensor(change, dtype=torch.float32)

    def of(values: torch.Tensor) -> torch.Tensor:
        vectors = column.standard(encode(values))
        added: torch.Tensor = part.of(vectors, vectors.new_ones(len(vectors), 1)) @ direction
        return added

    return of


def _integrated(
    score: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, baseline: float
) -> torch.Tensor:
    attribution = _captum().IntegratedGradients(score)
    found: torch.Tensor = attribution.attribute(
        values, baselines=baseline, n_steps=STEPS, internal_batch_size=POINTS_AT_A_TIME
    )
    return found.detach()


def _read_by(
    tower: ItemTower, field: str, encoders: tuple[type[nn.Module], ...]
) -> tuple[FieldProjection, KeptColumn]:
    """The field of this name, which one of these encoders reads."""
    for part in tower.projections:
        column = part.column
        if part.name == field and isinstance(column, KeptColumn) and isinstance(column.encoder, encoders):
            return part, column
    names = ", ".join(part.name for part in tower.projections if isinstance(part.column.encoder, encoders))
    raise SettingsError(
        f"'{field}' is no field that {' or '.join(encoder.__name__ for encoder in encoders)} reads; wanted "
        f"{names or 'one, and there is none'}."
    )


def _captum() -> ModuleType:
    try:
        import captum.attr
    except ImportError:
        raise MissingExtraError("Captum", "gradients") from None
    attributions: ModuleType = captum.attr
    return attributions
