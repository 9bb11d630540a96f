"""One small encoder per kind of field: values in, vectors out.

An encoder has a width ``dim`` and maps the values of some rows to [rows, dim]. Whether a row has a
value at all is not its concern: ``EncodedColumn`` knows, and makes a missing value's vector zero.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from palate.nn.audio import AudioEncoder
from palate.nn.image import build_image_encoder
from palate.nn.pretrained import PretrainedText
from palate.nn.text import EMBEDDING_STD, TextEncoder
from palate.nn.video import build_video_encoder
from palate.schema import PADDING, UNKNOWN, EncodedField, FieldKind, FieldShape
from palate.settings import PRETRAINED, ModelSettings

LARGEST_DIM = 32
"""Width of the vectors of categories and numbers, which hold less than a text."""
CENTRES = 8


class Encoder(Protocol):
    """What every encoder fulfils. One of ragged values takes their offsets [rows + 1] as well."""

    dim: int

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """[rows, dim]."""
        ...


class CategoryEncoder(nn.Module):
    """One vector per category, or the mean of a row's vectors where its categories are ragged.

    "Unknown" begins at zero, and stays there unless training meets it: a category that nobody has
    seen then says nothing, instead of something random.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.EmbeddingBag(size, dim, mode="mean", include_last_offset=True)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.embedding.weight[PADDING : UNKNOWN + 1] = 0.0

    def forward(self, values: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
        if offsets is None:
            offsets = torch.arange(len(values) + 1, device=values.device)
        result: torch.Tensor = self.embedding(values.long(), offsets)
        return result


class NumberEncoder(nn.Module):
    """A linear map of the standardised value v, its presence, and exp(−(v − c)² / 2) at 8 fixed c in ±3.

    The bumps let "cheap", "middling" and "dear" have directions of their own, which a line cannot.
    """

    centres: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("centres", torch.linspace(-3.0, 3.0, CENTRES), persistent=False)
        self.linear = nn.Linear(2 + CENTRES, dim, bias=False)  # presence is the bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        bumps = torch.exp(-((values[:, :1] - self.centres) ** 2) / 2)
        result: torch.Tensor = self.linear(torch.cat([values, bumps], dim=1))
        return result


class VectorEncoder(nn.Module):
    """A given vector, brought to unit scale and mapped linearly."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(size)
        self.linear = nn.Linear(size, dim)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.norm(values))
        return result


def build_field_encoder(shape: FieldShape, settings: ModelSettings) -> nn.Module:
    """An ``Encoder`` for a field of this shape. Media become as wide as their settings say, the rest at most
    as wide as the model.

    Raises:
        SettingsError: settings of an encoder that do not fit the field or one another.
        MissingExtraError: a pretrained encoder without the library for it.
    """
    width, dim = settings.width, min(settings.width, LARGEST_DIM)
    encoder: nn.Module
    match shape.kind:
        case FieldKind.TEXT:
            encoder = build_text_encoder(shape.size, settings)
        case FieldKind.CATEGORY | FieldKind.CATEGORIES:
            encoder = CategoryEncoder(shape.size, dim)
        case FieldKind.NUMBER:
            encoder = NumberEncoder(dim)
        case FieldKind.VECTOR:
            encoder = VectorEncoder(shape.size, width)
        case FieldKind.IMAGE:
            encoder = build_image_encoder(shape.size, settings.image)
        case FieldKind.AUDIO:
            encoder = AudioEncoder(shape.size, settings.audio)
        case FieldKind.VIDEO:
            encoder = build_video_encoder(settings.video)
    return encoder


def build_text_encoder(vocabulary: int, settings: ModelSettings) -> nn.Module:
    """The text encoder that the settings name."""
    if settings.text.encoder.startswith(PRETRAINED):
        return PretrainedText(vocabulary, settings.text)
    return TextEncoder(vocabulary, settings.width, settings.text)


class EncodedColumn(nn.Module):
    """One field of every item, and the encoder that reads it: item rows in, vectors out.

    The values are buffers that are not saved with the weights; they come from the catalogue.
    """

    values: torch.Tensor
    present: torch.Tensor
    offsets: torch.Tensor | None

    def __init__(self, field: EncodedField, settings: ModelSettings) -> None:
        super().__init__()
        self.shape = field.shape
        self.encoder = build_field_encoder(field.shape, settings)
        self.dim = int(self.encoder.dim)  # type: ignore[arg-type]
        for name in ("values", "present", "offsets"):
            self.register_buffer(name, None, persistent=False)
        self.set_field(field)

    def set_field(self, field: EncodedField) -> None:
        """The column holds these values, of the shape that it was built for, instead."""
        device = next(self.encoder.parameters()).device
        self.values = torch.as_tensor(field.values.copy(), device=device)
        self.present = torch.as_tensor(field.present.copy(), device=device).float().unsqueeze(1)
        self.offsets = None if field.offsets is None else torch.as_tensor(field.offsets.copy(), device=device)

    def append(self, field: EncodedField) -> None:
        """The column holds these values behind its own."""
        values, present, offsets = self.values, self.present, self.offsets
        self.set_field(field)
        self.values = torch.cat([values, self.values])
        self.present = torch.cat([present, self.present])
        if offsets is not None and self.offsets is not None:
            self.offsets = torch.cat([offsets, self.offsets[1:] + offsets[-1]])

    def forward(self, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors [rows, dim] and whether each row has a value, float [rows, 1]; None is all rows."""
        present = self.present if rows is None else self.present[rows]
        if self.offsets is None:
            return self.encoder(self.values if rows is None else self.values[rows]), present
        if rows is None:
            return self.encoder(self.values, self.offsets), present
        return self.encoder(*select_ragged(self.values, self.offsets, rows)), present


def select_ragged(
    values: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The values and offsets of these rows, in the order asked."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    chosen = torch.cat([offsets.new_zeros(1), lengths.cumsum(0)])
    where = torch.arange(int(chosen[-1]), device=rows.device)
    return values[where + torch.repeat_interleave(starts - chosen[:-1], lengths)], chosen
