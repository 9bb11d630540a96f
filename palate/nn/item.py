"""The item tower: an item's vector is one gated sum over what is known of it.

    e_v = id_v + Σ_f g_f · P_f normalise(encoder_f(x_vf)) · present_vf

A field that is missing adds exactly nothing, and so needs no made-up value. An item without a trained
id vector reads the "unknown" one and is carried by its fields, in the same table as everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from palate.errors import DataError
from palate.nn.fields import EncodedColumn
from palate.nn.kept import KeptColumn
from palate.schema import MEDIA, PADDING, UNKNOWN, BoolArray, Content, EncodedField, FieldKind, FloatArray
from palate.settings import ModelSettings

ID_STD = 0.02
GATE = 0.3
"""Sum of squares of the first gates is GATE². The projections are scaled against it, so that content
begins with as much variance as the id vectors have, however many fields there are: less, and ids would
have explained the training data before content is heard; more, and the first scores over the catalogue
would be far from even. The gate itself begins well below 1 and away from 0, where a projection would get
no gradient; what it changes is the pace, since a step of the optimiser on P_f moves the sum by g_f."""


class FieldProjection(nn.Module):
    """One field's part of the sum: column → unit scale → projection to the model's width → gate."""

    def __init__(self, column: EncodedColumn | KeptColumn, width: int, fields: int) -> None:
        super().__init__()
        self.column = column
        self.name = column.shape.name
        # Without weights of its own, so that a vector of zeros stays one.
        self.norm = nn.LayerNorm(column.dim, elementwise_affine=False)
        self.projection = nn.Linear(column.dim, width, bias=False)
        self.gate = nn.Parameter(torch.tensor(GATE / math.sqrt(fields)))
        nn.init.normal_(self.projection.weight, std=ID_STD / (GATE * math.sqrt(column.dim)))

    def forward(self, rows: torch.Tensor | None) -> torch.Tensor:
        """[rows, width], exactly zero where the value is missing."""
        # In bfloat16 small products lose more to casts than they win.
        with torch.autocast(self.gate.device.type, enabled=False):
            return self.of(*self.column(rows))

    def of(self, vectors: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The same of what the column says [rows, dim], and of whether it says anything [rows, 1]."""
        result: torch.Tensor = self.gate * self.projection(self.norm(vectors)) * present
        return result


def build_column(field: EncodedField, settings: ModelSettings) -> EncodedColumn | KeptColumn:
    """The column that holds a field of this kind, and its encoder."""
    if field.shape.kind in MEDIA or field.shape.kind == FieldKind.TEXT:
        return KeptColumn(field, settings)
    return EncodedColumn(field, settings)


class ItemTower(nn.Module):
    """Vectors of all items, or of some, from their ids and their content.

    Row 0 is the start of a history and row 1 the unknown item. Saved are the weights, which rows have an
    id vector of their own, and the vectors of what is read, seen or heard; other content is given anew. A
    new tower has encoded no text and no picture yet: ``encode_new`` does.

    Args:
        settings: the model's width and the encoders of its fields.
        content: of every item; ``Content(rows)`` without fields makes the tower a plain table.
        warm: bool [num_ids], items whose id vector is trained; by default, all. Others read row 1.
        num_ids: rows of the id table, where content has more rows (items added after training).
    """

    warm: torch.Tensor

    def __init__(
        self,
        settings: ModelSettings,
        content: Content,
        warm: BoolArray | None = None,
        num_ids: int | None = None,
    ) -> None:
        super().__init__()
        self.size = content.rows
        self.id = nn.Embedding(content.rows if num_ids is None else num_ids, settings.width)
        nn.init.normal_(self.id.weight, std=ID_STD)
        self.register_buffer("warm", torch.ones(self.id.num_embeddings, dtype=torch.bool))
        if warm is not None:
            self.set_warm(warm)
        self.fields = nn.ModuleList(
            FieldProjection(build_column(field, settings), settings.width, len(content.fields))
            for field in content.fields
        )

    @property
    def has_content(self) -> bool:
        return len(self.fields) > 0

    def set_warm(self, warm: BoolArray) -> None:
        """Only these rows, and the start of histories, have an id vector of their own.

        Raises:
            DataError: not one value per row of the id table.
        """
        if len(warm) != self.id.num_embeddings:
            raise DataError(f"{len(warm)} warm flags for {self.id.num_embeddings} id vectors.")
        self.warm.copy_(torch.as_tensor(warm))
        self.warm[PADDING] = True

    def begin_with(self, vectors_VD: FloatArray) -> None:
        """The id vectors are these, float32 [num_ids, width]."""
        with torch.no_grad():
            self.id.weight.copy_(torch.from_numpy(vectors_VD))

    def silence_content(self) -> None:
        """Content adds nothing until it has learned something: beside id vectors that say something already,
        what random weights make of it would have to be unlearned."""
        for part in self.projections:
            nn.init.zeros_(part.projection.weight)

    def hand_over(self) -> None:
        """Ids say from now on what content said: no vector of an item with an id of its own changes, and
        content adds nothing any more."""
        with torch.no_grad():
            own = self.warm.nonzero().squeeze(1)
            self.id.weight[own] += self.content()[own]
        self.silence_content()

    def set_content(self, content: Content) -> None:
        """The tower describes these items; rows behind the id table read the "unknown" id vector.

        Raises:
            DataError: other fields than the tower was built for, or fewer rows than id vectors.
        """
        if content.rows < self.id.num_embeddings:
            raise DataError(f"Content of {content.rows} items for {self.id.num_embeddings} id vectors.")
        for part, field in zip(self._parts(content), content.fields, strict=True):
            part.column.set_field(field)
        self.size = content.rows

    def append(self, content: Content) -> None:
        """Further items have rows behind the present ones, described by content alone; nothing is trained.

        Raises:
            DataError: other fields than the tower was built for.
        """
        for part, field in zip(self._parts(content), content.fields, strict=True):
            part.column.append(field)
        self.size += content.rows

    @property
    def projections(self) -> list[FieldProjection]:
        return [part for part in self.fields if isinstance(part, FieldProjection)]

    @property
    def kept(self) -> list[KeptColumn]:
        """The fields whose vectors are kept: texts, pictures, clips and tracks."""
        return [part.column for part in self.projections if isinstance(part.column, KeptColumn)]

    @property
    def media(self) -> list[KeptColumn]:
        """The fields of pictures, clips and tracks."""
        return [column for column in self.kept if column.shape.kind in MEDIA]

    @contextmanager
    def showing(self, items: torch.Tensor, *, texts: int, media: int, noise: bool = False) -> Iterator[None]:
        """Meanwhile some of these items are read with gradients to the encoders of their texts and media.

        Args:
            items: int64 ids, with repetition or without.
            texts: so many of them that have a text are drawn at random.
            media: so many of them that have pictures, a clip or a track; drawn from the same order.
            noise: encoders drop and augment what they read, as their settings say. Not where shown and kept
                items stand side by side as answers: noise that only the shown have tells which they are.
        """
        columns = [column for column in self.kept if column.learns]
        if columns:
            items = torch.unique(items.to(self.warm.device))
            items = items[torch.randperm(len(items)).to(items.device)]
        for column in columns:
            column.show(items, media if column.shape.kind in MEDIA else texts, noise)
        try:
            yield
        finally:
            for column in columns:
                column.hide()

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Meanwhile texts and media are read by the mean and scale of this moment.

        So what is shown need not be told from what is kept: for losses that read shown items alone.
        """
        for column in self.kept:
            column.standing = True
        try:
            yield
        finally:
            for column in self.kept:
                column.standing = False

    def encode_new(self) -> None:
        """Items whose texts and media were not encoded yet have vectors of them; nothing is trained."""
        for column in self.kept:
            column.encode_new()

    def refresh(self) -> None:
        """The kept vectors are what the encoders that learn make of texts and media at this moment."""
        for column in self.kept:
            if column.learns:
                column.refresh()

    @property
    def described(self) -> torch.Tensor:
        """Items with at least one field that is there to be read, bool [V]."""
        found = torch.zeros(self.size, dtype=torch.bool, device=self.warm.device)
        for part in self.projections:
            found |= part.column.present.view(-1) > 0
        return found

    def _parts(self, content: Content) -> list[FieldProjection]:
        parts = self.projections
        shapes = tuple(part.column.shape for part in parts)
        if content.shapes != shapes:
            raise DataError(f"The item tower reads {shapes}; it was given {content.shapes}.")
        return parts

    def forward(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Item vectors [rows, width].

        Args:
            rows: int64 [rows], best without repetition, since each is computed; None is all items.
        """
        vectors: torch.Tensor = self.id(self._id_rows(rows))
        for part in self.fields:
            vectors = vectors + part(rows)
        return vectors

    def content(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """What the fields add without the id [rows, width]; zeros where nothing is known."""
        vectors = self.id.weight.new_zeros(self.size if rows is None else len(rows), self.id.embedding_dim)
        for part in self.fields:
            vectors = vectors + part(rows)
        return vectors

    def contributions(self, rows: torch.Tensor | None = None) -> list[tuple[str, torch.Tensor]]:
        """What the id and each field add: named parts [rows, width]; added in order, exactly ``forward``."""
        parts: list[tuple[str, torch.Tensor]] = [("id", self.id(self._id_rows(rows)))]
        return parts + [(part.name, part(rows)) for part in self.projections]

    def _id_rows(self, rows: torch.Tensor | None) -> torch.Tensor:
        own = torch.arange(len(self.warm), device=self.warm.device)
        ids = torch.where(self.warm, own, UNKNOWN)
        ids = functional.pad(ids, (0, self.size - len(ids)), value=UNKNOWN)
        return ids if rows is None else ids[rows]
