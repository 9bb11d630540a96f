"""The parts of a network as graphs: what goes in and out is plain arrays, and all lengths may vary.

Where PyTorch looks at its data to save work, a graph cannot; such a part has a form of its own here, with the
same weights and the same answers. The only file that needs ``onnxscript``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from palate.data.columns import CategoryColumn, ColumnEncoder, MediaColumn, TextColumn
from palate.errors import ExportError, MissingExtraError
from palate.nn.again import LearnedAgain
from palate.nn.fields import CategoryEncoder
from palate.nn.item import FieldProjection, ItemTower
from palate.nn.kept import KeptColumn
from palate.nn.model import TasteModel
from palate.nn.pretrained import PretrainedText
from palate.nn.text import TextEncoder
from palate.schema import PADDING, Condition

OPSET = 20
EVENTS = ("vectors", "event", "gap", "hour", "weekday", "position")
ASKED = ("asked_event", "asked_gap", "asked_hour", "asked_weekday")
PAST = ("past_row", "past_vectors", "past_lag", "past_times", "past_since")


class HistoryGraph(nn.Module):
    """From packed histories to the state after each one's last event, and the bonuses of its past.

    Inputs are N positions, B histories and S items of their pasts: ``vectors`` float32 [N, D] of the items;
    ``event``, ``gap``, ``hour``, ``weekday``, ``position`` int64 [N] and ``last`` int64 [B] as in
    ``schema.Batch``; where questions may say something, ``asked_…`` int64 [B] as in ``schema.Condition``;
    where bonuses are learned, ``past_row`` int64 [S], the history of each, ``past_vectors`` float32 [S, D],
    and ``past_lag``, ``past_times``, ``past_since`` int64 [S] as in ``schema.Past``.

    Outputs are ``states`` float32 [B, D] and, where they are learned, ``bonuses`` float32 [S].
    """

    def __init__(self, model: TasteModel) -> None:
        super().__init__()
        self.model = model
        self.learned = model.again if isinstance(model.again, LearnedAgain) else None
        asked, past = ASKED if model.question is not None else (), PAST if self.learned is not None else ()
        self.inputs = (*EVENTS, "last", *asked, *past)
        self.outputs = ("states", "bonuses") if past else ("states",)
        self.axes = (0,)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        of, model = dict(zip(self.inputs, inputs, strict=True)), self.model
        x_ND = model.events(*(of[name] for name in EVENTS[:-1]))
        states = model.last_of(x_ND, of["position"], of["last"])
        if model.question is not None:
            states = model.question(states, Condition(*(of[name] for name in ASKED)))
        if self.learned is None:
            return (states,)
        row, vectors, *features = (of[name] for name in PAST)
        by_item = self.learned.by_item(vectors).squeeze(1)
        return states, self.learned.values(states, row, by_item, *features)

    def examples(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the right kinds: three histories of 4, 1 and 3 positions, five items of their pasts."""
        rows = dict.fromkeys(EVENTS, 8) | dict.fromkeys(("last", *ASKED), 3) | dict.fromkeys(PAST, 5)
        # A tensor of its own for each: what is one object outside would be one input inside.
        of = {name: torch.zeros(rows[name], dtype=torch.int64) for name in self.inputs}
        width = self.model.settings.width
        of |= {name: torch.randn(rows[name], width) for name in ("vectors", "past_vectors") if name in of}
        of |= {"position": torch.tensor([0, 1, 2, 3, 0, 0, 1, 2]), "last": torch.tensor([3, 4, 7])}
        return tuple(of.values())


class TowerGraph(nn.Module):
    """From the id vector of each item, ``ids`` [R, D], and by field n ``vectors_n`` [R, width of its encoder]
    and ``present_n`` [R, 1], to its vector [R, D]."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        self.parts = nn.ModuleList(tower.projections)
        self.width = tower.id.embedding_dim
        named = [(f"vectors_{n}", f"present_{n}") for n in range(len(self.parts))]
        self.inputs = ("ids", *(name for pair in named for name in pair))
        self.outputs = ("vectors",)
        self.axes = (0,)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result, *fields = inputs
        for part, vectors, present in zip(self.parts, fields[::2], fields[1::2], strict=True):
            assert isinstance(part, FieldProjection)
            column = part.column
            read = column.standard(vectors) if isinstance(column, KeptColumn) else vectors
            result = result + part.of(read, present)
        return (result,)

    def examples(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the right kinds, of three items."""
        of = [torch.randn(3, self.width)]
        for part in self.parts:
            assert isinstance(part, FieldProjection)
            of += [torch.randn(3, part.column.dim), torch.ones(3, 1)]
        return tuple(of)


class FieldGraph(nn.Module):
    """From the ``values`` of a field, as ``schema.EncodedField`` has them, to the ``vectors`` of its encoder.

    Categories come as int32 [R, M] for items that have at most M of them, padded with 0.
    """

    inputs = ("values",)
    outputs = ("vectors",)

    def __init__(self, encoder: nn.Module, column: ColumnEncoder | MediaColumn) -> None:
        """The graph of an encoder, and the column that gives it its values."""
        super().__init__()
        self.column, self.original = column, encoder
        forms: dict[type[nn.Module], Any] = {
            TextEncoder: TextForm,
            PretrainedText: PretrainedTextForm,
            CategoryEncoder: CategoryForm,
        }
        self.encoder = forms.get(type(encoder), nn.Sequential)(encoder)
        self.axes = (0, 1) if isinstance(column, CategoryColumn) else (0,)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.encoder(*inputs),)

    def examples(self) -> tuple[torch.Tensor, ...]:
        """Values of the right kind, of three items."""
        match self.column:
            case TextColumn():
                return (torch.ones(3, self.column.max_tokens, dtype=torch.int32),)
            case CategoryColumn():
                return (torch.ones(3, 2, dtype=torch.int32),)
            case MediaColumn():
                return (torch.from_numpy(np.zeros((3, *self.column.row), self.column.dtype)),)
        return (torch.ones(3, self.column.shape.size),)


class TextForm(nn.Module):
    """``TextEncoder`` on rows that stay padded: what no token begins is no candidate for the maximum."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens_VT: torch.Tensor) -> torch.Tensor:
        encoder, T = self.encoder, tokens_VT.shape[1]
        longest = max(encoder.kernel_sizes)
        x_VTD = functional.pad(encoder.embedding(tokens_VT), (0, 0, 0, longest - 1))
        taps = torch.cat([x_VTD[:, j : j + T] for j in range(longest)], dim=-1)
        behind = (tokens_VT == PADDING).unsqueeze(2)
        maxima = [
            kernel(taps[..., : kernel.in_features]).masked_fill(behind, -torch.inf).amax(dim=1)
            for kernel in encoder.kernels
        ]
        # Of a text without tokens the maximum is −∞, and what is left of that is 0.
        result: torch.Tensor = encoder.dense(functional.relu(torch.cat(maxima, dim=-1)))
        return result


class PretrainedTextForm(nn.Module):
    """``PretrainedText`` on rows that are not cut to the longest text among them."""

    def __init__(self, encoder: PretrainedText) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens_VT: torch.Tensor) -> torch.Tensor:
        return self.encoder.of_tokens(tokens_VT.long(), tokens_VT != PADDING)


class CategoryForm(nn.Module):
    """``CategoryEncoder`` on int [R, M], padded with 0, whose vector is not read."""

    def __init__(self, encoder: CategoryEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, codes_RM: torch.Tensor) -> torch.Tensor:
        is_code = (codes_RM != PADDING).unsqueeze(2).float()
        vectors = functional.embedding(codes_RM, self.encoder.embedding.weight)
        return (vectors * is_code).sum(dim=1) / is_code.sum(dim=1).clamp_min(1)


def write_graph(graph: HistoryGraph | TowerGraph | FieldGraph, path: Path) -> None:
    """``path`` holds the graph as ONNX; the dimensions along its ``axes`` may be any.

    Raises:
        MissingExtraError: onnxscript is not installed.
        ExportError: the network does something that no graph can.
    """
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError:
        raise MissingExtraError("onnxscript", "train") from None
    examples = graph.examples()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of libraries about themselves
            program = torch.onnx.export(
                graph.eval(),
                examples,
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=((dict.fromkeys(graph.axes, torch.export.Dim.DYNAMIC),) * len(examples),),
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"{path.name} cannot be written as a graph ({reason}).") from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # which lines of code on which machine it comes from
    program.save(path, external_data=False)
