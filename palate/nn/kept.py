"""Fields that are read, seen or heard: the encoder runs over a few items, a table keeps the rest.

Each step scores the whole catalogue, and to encode all its texts for that would take longer than the rest
of the step; all its pictures, minutes. So the latest vector of every item is kept. The items that a step
shows are encoded with gradients and stand in the table of that step, and from then on, without gradients,
in the kept one.

What an encoder says of all items alike tells nobody which is which, and at first that is most of what it
says. So vectors are read standardised, dimension by dimension, by the kept vectors u of all items:

    v = (u − mean u) / √(var u + 0.01 · mean of var u over the dimensions)

Mean and variance are constants of each step; after training they stay.

Each step of the optimiser moves the vectors that an encoder gives, and kept ones stay behind. The items that
are shown are those that the step asks for, so whatever tells fresh vectors from kept ones tells the answer,
and an encoder would learn that first: to run ahead of the table, in one direction. So the n shown items S
move against one another, and not together; gradients go through the means:

    u_v = f(x_v) − 1/n Σ_{w ∈ S} f(x_w) + 1/n Σ_{w ∈ S} u_w ,  v ∈ S

For the same reason encoders drop and augment nothing there: noise would stand on shown items alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from palate.nn.fields import build_field_encoder, select_ragged
from palate.schema import MEDIA, EncodedField, FieldKind
from palate.settings import PRETRAINED, ModelSettings

LEAST_SCALE = 1e-6
ITEMS_AT_A_TIME = 256
BYTES_AT_A_TIME = 2_000_000
"""Pictures in one pass of an encoder: 162 of 64 × 64 pixels, whose activations take some 200 MB."""
ROWS_OF_STATISTICS = 4096
"""Mean and variance are those of at least so many items, evenly spaced, where there are more."""


class Sources(NamedTuple):
    """What there is to encode of V items: rows of ``values``, as in ``schema.Media``; on the CPU."""

    values: npt.NDArray[Any]
    row: torch.Tensor
    offsets: torch.Tensor


class KeptColumn(nn.Module):
    """One field of texts, pictures, clips or tracks of every item: item rows in, vectors out, as
    ``EncodedColumn``.

    Saved are the encoder and the kept vectors, so what was encoded once needs no pictures any more. A row
    that has not been encoded is missing: zeros, and false in ``present``.
    """

    vectors: torch.Tensor  # [V, dim], saved
    present: torch.Tensor  # bool [V], saved: whether the row holds a vector
    centre: torch.Tensor  # [dim], saved
    scale: torch.Tensor  # [dim], saved; zeros before anything was encoded
    trained: torch.Tensor  # bool [], saved: whether the encoder holds more than what it began with at random
    readable: torch.Tensor  # bool [V], not saved: whether the text or the pictures themselves are here

    def __init__(self, field: EncodedField, settings: ModelSettings) -> None:
        super().__init__()
        self.shape = field.shape
        self.encoder = build_field_encoder(field.shape, settings)
        self.dim = int(self.encoder.dim)  # type: ignore[arg-type]
        named = {FieldKind.IMAGE: settings.image.encoder, FieldKind.TEXT: settings.text.encoder}
        pretrained = named.get(field.shape.kind, "").startswith(PRETRAINED)
        self.register_buffer("trained", torch.tensor(pretrained))
        self.register_buffer("centre", torch.zeros(self.dim))
        self.register_buffer("scale", torch.zeros(self.dim))
        for name in ("vectors", "present"):
            self.register_buffer(name, None)
        self.register_buffer("readable", None, persistent=False)
        self._sources: Sources | None = None
        self._shown: tuple[torch.Tensor, torch.Tensor] | None = None
        self.standing = False
        """Whether mean and scale stand still, and shown items are read as they are."""
        self.register_load_state_dict_pre_hook(_behind_saved_rows)  # type: ignore[no-untyped-call]
        self._hold(field)

    @property
    def learns(self) -> bool:
        """Whether training changes the encoder."""
        return any(parameter.requires_grad for parameter in self.encoder.parameters())

    def set_field(self, field: EncodedField) -> None:
        """The column holds these values instead, and the vectors that its encoder makes of them."""
        self._hold(field)
        self.encode_new()

    def append(self, field: EncodedField) -> None:
        """The column holds the vectors of these items behind its own; their values are not kept."""
        own, vectors, present, readable = self._sources, self.vectors, self.present, self.readable
        self.set_field(field)
        self._sources = own
        self.vectors = torch.cat([vectors, self.vectors])
        self.present = torch.cat([present, self.present])
        self.readable = torch.cat([readable, torch.zeros_like(self.readable)])

    def forward(self, rows: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors [rows, dim] and whether each row has one, float [rows, 1]; None is all rows."""
        vectors = self.vectors if rows is None else self.vectors[rows]
        present = self.present if rows is None else self.present[rows]
        if self._shown is not None:
            items, fresh = self._shown
            if rows is None:
                vectors = vectors.index_copy(0, items, fresh)
            else:
                nearest = torch.searchsorted(items, rows).clamp_max(len(items) - 1)
                places = (items[nearest] == rows).nonzero().squeeze(1)
                vectors = vectors.index_copy(0, places, fresh.index_select(0, nearest[places]))
        return self.standard(vectors), present.float().unsqueeze(1)

    def standard(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors of the encoder as they are read."""
        return (vectors - self.centre) / self.scale.clamp_min(LEAST_SCALE)

    def show(self, items: torch.Tensor, at_most: int, noise: bool) -> None:
        """Until ``hide`` the first of these items that can be encoded are read with gradients to the encoder.

        Args:
            items: int64, without repetition.
            noise: the encoder drops and augments what it reads, if it is in training at all.
        """
        items = items[self.readable[items]][:at_most].sort().values
        if not len(items):
            return
        training = self.encoder.training
        self.encoder.train(training and noise)
        fresh = self._encode(items)
        self.encoder.train(training)
        if not self.standing:
            # What moves all items alike has moved the kept ones too, and would else tell shown from kept.
            fresh = fresh - fresh.mean(dim=0) + self.vectors[items].mean(dim=0)
        self._keep(items, fresh.detach())
        self._standardise()
        self.trained.fill_(True)
        self._shown = items, fresh

    def hide(self) -> None:
        """All rows are read from the kept table."""
        self._shown = None

    def forget(self, items: torch.Tensor) -> None:
        """These items are missing, until they are encoded again."""
        self.vectors[items] = 0.0
        self.present[items] = False

    def refresh(self) -> None:
        """Every item whose values are here has the vector that the encoder makes of them now."""
        self._encode_without_gradients(self.readable.nonzero().squeeze(1))
        self._standardise()

    def encode_new(self) -> None:
        """Every item whose values are here has a vector; those that have one keep it."""
        self._encode_without_gradients((self.readable & ~self.present).nonzero().squeeze(1))
        if not self.scale.any():
            self._standardise()

    def _hold(self, field: EncodedField) -> None:
        """The column holds these values, and no vector yet."""
        device, rows = self.trained.device, len(field.present)
        readable = np.zeros(rows, np.bool_)
        self._sources = None
        if field.media is not None and field.offsets is not None:
            readable = field.present.copy()
            row, offsets = torch.as_tensor(field.values.copy()), torch.as_tensor(field.offsets.copy())
            self._sources = Sources(field.media, row, offsets)
        elif field.shape.kind == FieldKind.TEXT:
            readable = field.present.copy()
            self._sources = Sources(field.values, torch.arange(rows), torch.arange(rows + 1))
        self.readable = torch.as_tensor(readable, device=device)
        self.vectors = torch.zeros(rows, self.dim, device=device)
        self.present = torch.zeros(rows, dtype=torch.bool, device=device)

    def _keep(self, items: torch.Tensor, vectors: torch.Tensor) -> None:
        self.vectors[items] = vectors
        self.present[items] = True

    def _standardise(self) -> None:
        """Mean and scale are those of the kept vectors, unless they stand still."""
        rows = self.present.nonzero().squeeze(1)
        if len(rows) and not self.standing:
            rows = rows[:: max(1, len(rows) // ROWS_OF_STATISTICS)]
            variance, mean = torch.var_mean(self.vectors[rows], dim=0, correction=0)
            self.centre.copy_(mean)
            self.scale.copy_((variance + 0.01 * variance.mean()).sqrt().clamp_min(LEAST_SCALE))

    @torch.no_grad()
    def _encode_without_gradients(self, items: torch.Tensor) -> None:
        training = self.encoder.training
        self.encoder.eval()
        for part in torch.split(items, ITEMS_AT_A_TIME) if len(items) else ():
            self._keep(part, self._encode(part))
        self.encoder.train(training)

    def _encode(self, items: torch.Tensor) -> torch.Tensor:
        """The mean of the vectors of each item's values, [items, dim]; each value is computed once."""
        assert self._sources is not None, "these items have nothing to be encoded here"
        device = self.trained.device
        rows, bounds = select_ragged(self._sources.row, self._sources.offsets, items.cpu())
        distinct, which = torch.unique(rows, return_inverse=True)
        # In bfloat16 the many small products of texts lose more to casts than they win: 74 against 53 ms.
        reduced = torch.is_autocast_enabled(device.type) and self.shape.kind in MEDIA
        with torch.autocast(device.type, enabled=reduced):
            chunks = _chunks(self._sources.values, distinct)
            vectors = torch.cat([self.encoder(chunk.to(device)) for chunk in chunks]).float()
        return functional.embedding_bag(
            which.to(device), vectors, bounds.to(device), mode="mean", include_last_offset=True
        )


def _chunks(values: npt.NDArray[Any], rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """These rows, a few at a time; nothing else of a memory map is read."""
    for part in torch.split(rows, max(1, BYTES_AT_A_TIME // values[:1].nbytes)):
        yield torch.from_numpy(np.ascontiguousarray(values[part.numpy()]))


def _behind_saved_rows(column: nn.Module, state: dict[str, Any], prefix: str, *_unused: Any) -> None:
    """Saved tables may have fewer rows: items that came later lie behind, as the column holds them."""
    for name in ("vectors", "present"):
        saved, own = state.get(prefix + name), getattr(column, name)
        if saved is not None and len(saved) < len(own):
            state[prefix + name] = torch.cat([saved, own[len(saved) :].to(saved.device)])
