"""Content weights to begin with, from another run."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from palate.data.content import ContentEncoder
from palate.errors import SettingsError
from palate.nn.model import TasteModel

OF_ITEMS = ("column.vectors", "column.present")
"""What a field of texts or media keeps of each item."""


def start_from(
    model: TasteModel, encoder: ContentEncoder, weights: Mapping[str, torch.Tensor], other: ContentEncoder
) -> tuple[str, ...]:
    """The encoders, projections and gates of the fields that both runs read alike are the other run's.

    What the other run's encoders made of its texts, pictures, clips and tracks is not taken: this run's are
    encoded by them anew.

    Alike means: the same vocabulary, tokenizer or scale, so that a number means the same in both, and
    weights of the same shapes. Every other weight stays as it is.

    Returns:
        The names of these fields.

    Raises:
        SettingsError: there is no such field.
    """
    place = {column.name: index for index, column in enumerate(other.columns)}
    taken = []
    for index, column in enumerate(encoder.columns):
        if column.name not in place or other.columns[place[column.name]] != column:
            continue
        part, prefix = model.items.fields[index], f"items.fields.{place[column.name]}."
        theirs = {
            name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)
        }
        if _shapes(theirs) == _shapes(part.state_dict()):
            part.load_state_dict({name: theirs[name] for name in _shapes(theirs)}, strict=False)
            taken.append(column.name)
    if not taken:
        raise SettingsError(
            "train.start_from names a run that reads no field as this one does: the fields, their "
            "vocabularies (so the data, the split and the seed) and the settings of their encoders have to "
            f"agree. This run reads {', '.join(column.name for column in encoder.columns) or 'no field'}, "
            f"that one {', '.join(place) or 'none'}."
        )
    return tuple(taken)


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Of the weights, without what belongs to single items."""
    return {name: each.shape for name, each in state.items() if name not in OF_ITEMS}
