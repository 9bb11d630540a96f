"""Backbones that others have trained, for pictures and for texts: the only file that needs ``transformers``.

Weights are read as safetensors, from a local folder or by their name on the hub; code that comes with a
checkpoint is never run, and pickled weights are refused. What a backbone says of a picture or of a text is
the mean over the places (or the tokens) of its last maps. It has no layer of its own behind that, so one that
is not tuned is a fixed function, which need be computed once per item.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from palate.errors import MissingExtraError, SettingsError, first_line
from palate.schema import PADDING
from palate.settings import PRETRAINED, ImageSettings, TextSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

Tuned = Literal["none", "top", "all"]


class Backbone(nn.Module):
    """A model of transformers, of which nothing, its last stage or all learns.

    What does not learn stays in the mode of answering, and so do the statistics of batch norms: a picture's
    vector does not depend on what else is in the batch.
    """

    def __init__(self, name: str, tuned: Tuned) -> None:
        super().__init__()
        self.model = load(name)
        learning = {"none": [], "top": [self.model], "all": [self.model]}[tuned]
        if tuned == "top":
            learning = [last_stage(self.model, name)]
        self.model.requires_grad_(False)
        for part in learning:
            part.requires_grad_(True)
        # In a tuple, since a module in two places would be saved twice.
        self._learning = tuple(learning)
        self.train()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self.model.eval()
        for part in self._learning:
            part.train(mode)
            for layer in part.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Of pictures the last maps [n, dim, height, width], or [n, tokens, dim]; of texts the latter."""
        maps: torch.Tensor = self.model(**inputs).last_hidden_state
        return maps


class PretrainedImage(nn.Module):
    """The mean over a backbone's last maps: uint8 [n, size, size, 3] → [n, dim], dim being its own width.

    Raises:
        MissingExtraError: transformers is not installed.
        SettingsError: no such backbone, or one that does not read pictures of this size.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, size: int, settings: ImageSettings) -> None:
        super().__init__()
        name = settings.encoder.removeprefix(PRETRAINED)
        self.backbone = Backbone(name, settings.tuned)
        mean, deviation = mean_of_pictures(name)
        self.register_buffer("mean", torch.tensor(mean) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation) * 255, persistent=False)
        wish = f"take a backbone of pictures, and the model.image.size that it was trained at (now {size})"
        self.dim = width_of(self, torch.zeros(1, size, size, 3, dtype=torch.uint8), name, wish)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not len(values):
            return self.mean.new_zeros(0, self.dim)
        pixels = ((values.float() - self.mean) / self.deviation).movedim(-1, 1)
        maps: torch.Tensor = self.backbone(pixel_values=pixels)
        return maps.flatten(2).mean(dim=2) if maps.dim() == 4 else maps.mean(dim=1)


class PretrainedText(nn.Module):
    """A sentence encoder: tokens [n, T] → the mean of the last vectors of each text's tokens, [n, dim].

    Tokens are those of its own tokenizer plus one, and 0 behind the end (``data.columns.TextColumn``).

    Raises:
        MissingExtraError: transformers is not installed.
        SettingsError: no such backbone, or one that does not read such tokens or so many of them.
    """

    def __init__(self, vocabulary: int, settings: TextSettings) -> None:
        super().__init__()
        name = settings.encoder.removeprefix(PRETRAINED)
        self.backbone = Backbone(name, settings.tuned)
        last = torch.full((1, settings.max_tokens), vocabulary - 1)
        wish = f"take an encoder of texts, or fewer model.text.max_tokens (now {settings.max_tokens})"
        self.dim = width_of(self, last, name, wish)

    def forward(self, tokens_VT: torch.Tensor) -> torch.Tensor:
        is_token = tokens_VT != PADDING
        # A row without a text reads one token, and is left out of the sum like all others.
        longest = max(int(is_token.sum(dim=1).max()), 1) if len(tokens_VT) else 0
        if not longest:
            return torch.zeros(0, self.dim, device=tokens_VT.device)
        tokens, is_token = tokens_VT[:, :longest].long(), is_token[:, :longest]
        read = is_token.clone()
        read[:, 0] = True
        states: torch.Tensor = self.backbone(input_ids=(tokens - 1).clamp_min(0), attention_mask=read.long())
        weight = is_token.unsqueeze(2).to(states.dtype)
        return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def load(name: str) -> nn.Module:
    """The backbone in this local folder, or of this name on the hub, in float32.

    Raises:
        MissingExtraError: transformers is not installed.
        SettingsError: it cannot be had, is pickled, or lacks weights.
    """
    transformers = library()
    try:
        model, found = transformers.AutoModel.from_pretrained(
            name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise SettingsError(
            f"'{PRETRAINED}{name}' cannot be loaded: {first_line(error)} Wanted a folder with "
            "config.json and model.safetensors, or a name on the hub."
        ) from None
    # Poolers are seldom saved, and not read here.
    missing = sorted(key for key in found["missing_keys"] if "pooler" not in key)
    if missing:
        raise SettingsError(
            f"'{PRETRAINED}{name}' lacks {len(missing)} of the weights that its config.json wants, such as "
            f"'{missing[0]}'."
        )
    result: nn.Module = model
    return result


def mean_of_pictures(name: str) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, of values 0 … 1, that the backbone knows; if untold, ImageNet's."""
    try:
        told, _ = library().image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)
    except OSError:
        told = {}
    if told.get("do_normalize") is False:
        return [0.0] * 3, [1.0] * 3
    mean, deviation = told.get("image_mean"), told.get("image_std")
    return list(mean or IMAGENET_MEAN), list(deviation or IMAGENET_DEVIATION)


def library() -> Any:
    """transformers, silent.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "pretrained") from None
    messages: Any = transformers.utils.logging
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    return transformers


def last_stage(model: nn.Module, name: str) -> nn.Module:
    """The last entry of the model's outermost list of stages or layers.

    Raises:
        SettingsError: there is none.
    """
    lists = [
        (path.count("."), part)
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) > 1
    ]
    if not lists:
        raise SettingsError(
            f"'{PRETRAINED}{name}' has no stages, so it has no top to be tuned; take tuned: none or all."
        )
    _, stages = min(lists, key=lambda entry: entry[0])
    return stages[-1]


@torch.no_grad()
def width_of(encoder: nn.Module, values: torch.Tensor, name: str, wish: str) -> int:
    """The width of what the encoder makes of these values.

    Raises:
        SettingsError: it makes nothing of them.
    """
    try:
        return int(encoder(values).shape[1])
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        reason = first_line(error)
        raise SettingsError(f"'{PRETRAINED}{name}' does not read this field ({reason}); {wish}.") from None
