"""One run is one YAML file is one tree of frozen models.

Later sources win: the defaults here, the ``settings`` of the data set, a ``--config`` file, then
``--set section.field=value``. An unknown name is refused with the nearest known one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from palate.errors import SettingsError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]

PRETRAINED = "pretrained:"
"""Before the name or folder of an encoder that others have trained."""


class Frozen(BaseModel):
    """A settings model: immutable, no unknown keys, every field documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataSettings(Frozen):
    """Cleaning: which rows count."""

    min_user_events: Positive = 1
    """People with fewer events are left out; applied in turn with ``min_item_events`` until both hold."""
    min_item_events: Positive = 1
    """Items with fewer events are left out."""
    repeats: Literal["keep", "first", "last"] = "keep"
    """What to keep when one person meets one item again with the same event type."""
    max_events_per_hour: int = Field(default=0, ge=0)
    """People with more events in any clock hour are taken for robots and left out; 0 switches this off."""
    earliest: datetime.date | None = None
    """Events before this day are impossible times."""
    latest: datetime.date | None = None
    """Events after this day are impossible times; by default, after tomorrow."""
    strict: bool = False
    """Bad rows and bad cells stop the run instead of being counted."""


class SplitSettings(Frozen):
    """What is held out for validation and test."""

    kind: Literal["leave_one_out", "leave_last_k", "temporal", "cold_items", "cold_users"] = "leave_one_out"
    k: Positive = 1
    """Events held out per person by ``leave_last_k``, for validation and again for test."""
    date: datetime.datetime | None = None
    """Start of the test period of ``temporal``; by default set by ``horizon_days`` or ``share``."""
    horizon_days: float | None = Field(default=None, gt=0)
    """Length of the test period (the last so many days, or from ``date`` on) and of validation before it."""
    share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share held out, for validation and again for test: of events (``temporal``, by time), of items
    (``cold_items``) or of people (``cold_users``)."""


class TextSettings(Frozen):
    """The text encoder: embeddings, convolutions of several widths, max-pool, dense; or a pretrained one."""

    encoder: str = Field(default="convolution", pattern=r"^(convolution|pretrained:.+)$")
    """``convolution``: our own; ``pretrained:NAME``: the mean of the last vectors of a sentence encoder of
    transformers, with its own tokens, from the local folder NAME or by its name on the hub."""
    tuned: Literal["none", "top", "all"] = "none"
    """What of a pretrained encoder learns: nothing, its last layer, or all of it."""
    vocabulary: Positive = 4000
    """Sub-word tokens learned from the training catalogue."""
    max_tokens: Positive = 128
    """Tokens read of each text."""
    width: Positive = 48
    """Width of a token's vector."""
    kernel_sizes: tuple[Positive, ...] = (1, 2, 3)
    """One convolution per width, in tokens."""
    filters: Positive = 48
    """Filters per convolution."""
    token_dropout: Share = 0.3
    """Share of the tokens that are not read in a step of learning from items, so that no text is learned by
    heart; steps over histories read all."""
    dropout: Share = 0.5
    """Dropout before the dense layer."""


class ImageSettings(Frozen):
    """The image encoder, and how large pictures are read."""

    encoder: str = Field(default="residual", pattern=r"^(classic|residual|pretrained:.+)$")
    """``classic``: convolution, ReLU, max-pool for each of ``filters``, then one dense layer;
    ``residual``: residual blocks with group norm; ``pretrained:NAME``: a backbone of transformers, from the
    local folder NAME or by its name on the hub."""
    size: Annotated[int, Field(ge=8, le=512)] = 64
    """Pictures are read at this height and width."""
    filters: tuple[Positive, ...] = (32, 64, 128)
    """Filters of each stage; each stage halves the picture, which ``residual`` has halved once before."""
    kernel_size: Positive = 3
    """Height and width of each filter; odd for ``residual``."""
    pool: Positive = 2
    """Height and width of each max-pool of ``classic``."""
    blocks: Positive = 1
    """Residual blocks of each stage."""
    dense: Positive = 128
    """Width of the vector that a picture becomes; a pretrained backbone has its own."""
    dropout: Share = 0.3
    """Dropout before the dense layer."""
    augment: bool = True
    """In learning from items, flip half of the pictures and shift all by up to a sixteenth of their width;
    steps over histories read them as they are."""
    tuned: Literal["none", "top", "all"] = "none"
    """What of a pretrained backbone learns: nothing, its last stage, or all of it."""


class AudioSettings(Frozen):
    """The audio encoder: a log-mel spectrogram, read as a picture, pooled over time."""

    sample_rate: Positive = 16_000
    """Samples a second that tracks are brought to."""
    seconds: Annotated[float, Field(gt=0.0)] = 10.0
    """The middle of a track that is heard; shorter ones are filled with silence."""
    bands: Positive = 64
    """Mel bands."""
    window_ms: Annotated[float, Field(gt=0.0)] = 32.0
    hop_ms: Annotated[float, Field(gt=0.0)] = 16.0
    filters: tuple[Positive, ...] = (16, 32, 64)
    """Filters of each stage; each stage halves the bands, which were halved once before; time is halved
    twice."""
    kernel_size: Positive = 3
    """Bands and steps of time of each filter; odd."""
    blocks: Positive = 1
    """Residual blocks of each stage."""
    dense: Positive = 128
    """Width of the vector that a track becomes."""
    dropout: Share = 0.0
    """Dropout before the dense layer."""


class VideoSettings(Frozen):
    """The video encoder: frames through an image encoder and a convolution over time, or volumes."""

    encoder: Literal["frames", "volume"] = "frames"
    """``frames``: each frame through ``residual``, then a convolution over time; ``volume``: convolutions
    over time, height and width at once."""
    frames: Annotated[int, Field(ge=1, le=128)] = 8
    """Frames that are read, evenly spaced over the clip."""
    size: Annotated[int, Field(ge=8, le=512)] = 64
    """Height and width of a frame."""
    filters: tuple[Positive, ...] = (16, 32, 64)
    """Filters of each stage; each stage halves the frames, which were halved once before."""
    kernel_size: Positive = 3
    """Height and width of each filter, and its length in frames; odd."""
    blocks: Positive = 1
    """Residual blocks of each stage."""
    dense: Positive = 128
    """Width of the vector that a clip becomes."""
    dropout: Share = 0.0
    """Dropout before the last dense layer."""


class CaserSettings(Frozen):
    """The encoder ``caser``; the defaults are those of its authors."""

    window: Positive = 5
    """Latest events that are read, and so the greatest height of a horizontal filter."""
    horizontal: Positive = 16
    """Horizontal filters of each height."""
    vertical: Positive = 4
    """Vertical filters."""


class ClassicSettings(Frozen):
    """The encoder ``classic``: convolution and max-pool for each of ``filters``, then two dense layers."""

    window: Positive = 16
    """Latest events that are read: the height of the image."""
    filters: tuple[Positive, ...] = (16, 32)
    """Filters of each convolution, one after the other."""
    kernel_size: Positive = 3
    """Height and width of each filter."""
    pool: Positive = 2
    """Height and width of each pool; 1 leaves pooling out."""
    dense: Positive = 128
    """Width of the dense layer behind the maps."""


class ModelSettings(Frozen):
    """The shape of the network."""

    encoder: Literal["convolution", "nextitnet", "caser", "classic", "pooling"] = "convolution"
    """What reads a history: ours, or one to compare it with. ``blocks``, ``kernel_size`` and ``dilations``
    shape ``convolution`` and ``nextitnet``; ``activation``, ``feed_forward`` and ``memory`` the former."""
    width: Positive = 128
    """Width of every vector: events, items, people."""
    max_history: Positive = 200
    """Latest events of a person that the model reads."""
    blocks: Positive = 4
    """Gated causal convolution blocks; residual blocks of ``nextitnet``."""
    kernel_size: Positive = 3
    """Taps of each convolution over time."""
    dilations: tuple[Positive, ...] = (1, 2, 4, 8)
    """Steps between taps; block b takes entry b, beginning again at the end."""
    activation: Literal["glu", "silu", "gelu", "relu"] = "glu"
    """What follows the convolution."""
    feed_forward: Annotated[float, Field(ge=0.0)] = 2.0
    """Width of the feed-forward layer as a multiple of ``width``; 0 leaves it out."""
    memory: bool = True
    """Let every event hear the sum of all before it, beyond the reach of the convolutions."""
    initial_vectors: Literal["company", "random"] = "company"
    """Where id vectors begin: ``company`` puts items that people meet soon after one another side by side."""
    again: Literal["auto", "learned", "never", "ignored"] = "auto"
    """Items that a person met before: ``learned`` scores them by when, how often and what; ``never`` takes
    them out, in training too; ``ignored`` treats them as any other. ``auto`` is ``never`` where the
    training events hold no repetition, else ``learned``."""
    time: bool = True
    """Read when events were, where the data say so: the time between them, hour and weekday in UTC. False
    switches all of it off, ``question_time`` too."""
    question_time: bool = False
    """Learn to be asked for a time (``at``). Results without it stay the main ones."""
    question_event: bool = False
    """Learn to be asked for one of several event types that are predicted (``event``)."""
    dropout: Share = 0.3
    """Dropout of events and of every block's output. Where nothing is said, training takes
    .1 + .3 · 300 / √events, at most .4."""
    content: bool = True
    """Read the items' fields; false learns from ids alone."""
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    audio: AudioSettings = AudioSettings()
    video: VideoSettings = VideoSettings()
    caser: CaserSettings = CaserSettings()
    classic: ClassicSettings = ClassicSettings()


class TaskSettings(Frozen):
    """One loss over the shared model."""

    name: Literal["next_item", "coming_items", "item_class"] = "next_item"
    """``next_item``: what comes next; ``coming_items``: what comes at all in the next ``window`` events;
    ``item_class``: what an item's ``field`` says, from its other fields."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Its share of the whole loss."""
    window: Positive = 100
    """Events that ``coming_items`` looks ahead."""
    this_visit: bool = False
    """Whether ``coming_items`` asks for the rest of the same visit too."""
    field: str | None = None
    """The field that ``item_class`` predicts, of kind category or categories; by default the only one."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, tree: Any) -> Any:
        """A task may be written as its name alone."""
        return {"name": tree} if isinstance(tree, str) else tree


class TrainSettings(Frozen):
    """How the network learns."""

    target_events: tuple[str, ...] | None = None
    """Event types to predict; by default every type but ``return``."""
    max_epochs: int = Field(default=0, ge=0)
    """Passes over the data; the learning rate decays to its end over them. 0 takes as many as read some 3.5
    million events, at least 4 and at most 12; 30 over items, where ``item_class`` is learned alone."""
    batch_events: int = Field(default=0, ge=0)
    """Events per step, at least one history; 0 takes as many as make a pass of some 128 steps. Items per
    step where ``item_class`` is learned alone; 0 is then some 64 steps."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    """Highest learning rate of AdamW, reached after the warm-up. Where nothing is said and ``item_class`` is
    learned alone, it is .005."""
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    """Decay of matrices and item vectors; by default the stronger the fewer the data: 300 / √events, at
    most 1."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises from zero."""
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Longest gradient allowed."""
    crop: Share = 0.5
    """Share of histories that are cut to a random stretch in each pass."""
    sampled_above: Positive = 50_000
    """Catalogues larger than this are trained with sampled softmax."""
    negatives: Positive = 4096
    """Shared negatives per step of sampled softmax."""
    media: Literal["end_to_end", "frozen"] = "end_to_end"
    """``end_to_end``: encoders of pictures, sound and video learn with everything else; ``frozen``: each
    picture is encoded once and encoders stay as they are, which wants a pretrained one."""
    content_passes: int = Field(default=12, ge=0)
    """Passes over the known items after training, in which content learns to carry items without an id
    vector; what was learned of known items stays. 0 leaves new items to chance."""
    content_steps: Positive = 4000
    """Most steps of all these passes together."""
    text_items: Positive = 512
    """Items of each step whose texts are encoded with gradients; the others' vectors are kept ones."""
    media_items: Positive = 64
    """Items of each step whose pictures are encoded with gradients; the others' vectors are kept ones."""
    validate_metric: str = "ndcg@10"
    """What chooses the best pass; where ``item_class`` is learned alone, ``macro_f1`` unless told."""
    patience: Positive = 4
    """Passes without a better validation metric before training stops. Where nothing is said and
    ``item_class`` is learned alone, all passes are done."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 where this machine multiplies matrices faster in it."""
    threads: int = Field(default=0, ge=0)
    """Processor threads; 0 takes all."""
    checkpoint_steps: Positive = 200
    """Steps between checkpoints; the end of a pass always writes one."""
    start_from: str | None = None
    """A run folder: fields that it read in the same way begin with what it learned of them."""


class EvaluateSettings(Frozen):
    """How the model is judged."""

    filter_seen: bool = True
    """Items already in a person's history cannot be recommended, and are not asked for."""
    cutoffs: tuple[Positive, ...] = (5, 10, 20)
    cold_targets: bool = True
    """Ask for items without a training event too; false leaves them out of targets and catalogue."""
    baselines: tuple[
        Literal[
            "random",
            "popularity",
            "recent_popularity",
            "neighbour_popularity",
            "content_knn",
            "item_knn",
            "ease",
            "als",
            "bought_before",
        ],
        ...,
    ] = ("popularity", "recent_popularity", "content_knn", "item_knn", "ease", "als")
    references: tuple[Literal["recent_item_knn", "recent_content_knn", "bought_before"], ...] = (
        "recent_item_knn",
        "recent_content_knn",
    )
    """Rules that read the order of events, as the model does: neighbours of the latest items only."""
    cold_baselines: tuple[
        Literal["random", "neighbour_popularity", "content_knn", "recent_content_knn"], ...
    ] = ("random", "neighbour_popularity", "content_knn", "recent_content_knn")
    """Methods that can tell items apart that nobody has met: the rows where new items are ranked among
    themselves, and further rows of every ``cold_items`` split."""
    bootstrap: Positive = 1000
    """Resamples behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95


class Settings(Frozen):
    """Everything that a run depends on besides its data."""

    seed: int = Field(default=0, ge=0)
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    model: ModelSettings = ModelSettings()
    tasks: Annotated[tuple[TaskSettings, ...], Field(min_length=1)] = (TaskSettings(),)
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @classmethod
    def build(
        cls,
        *layers: Mapping[str, Any],
        assignments: Iterable[str] = (),
    ) -> Self:
        """Settings from layers of nested mappings (later ones win) and ``section.field=value`` texts.

        Raises:
            SettingsError: an unknown name, an impossible value, or a text without ``=``.
        """
        tree: dict[str, Any] = {}
        for layer in layers:
            _merge(tree, layer)
        for assignment in assignments:
            _merge(tree, _parse_assignment(assignment))
        return validated(cls, tree, "settings")

    @property
    def recommends(self) -> bool:
        """Whether any task learns from people; otherwise items alone are learned from."""
        return any(task.name != "item_class" for task in self.tasks)


def validated(model: type[Model], tree: Mapping[str, Any], source: str) -> Model:
    """The model built from ``tree``; every fault is named in the words of the YAML.

    Raises:
        SettingsError: with one line per fault.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_explain(model, fault) for fault in error.errors()]
        raise SettingsError(f"{source}: " + "; ".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        SettingsError: no such file, not YAML, or not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML in UTF-8: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} holds a {type(tree).__name__}; wanted a mapping of names to values.")
    return tree


def write_yaml(path: Path, settings: BaseModel) -> None:
    """``path`` holds the settings as YAML that ``read_yaml`` reads back."""
    tree = settings.model_dump(mode="json")
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _merge(tree: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = dict(value) if isinstance(value, Mapping) else value


def _parse_assignment(assignment: str) -> dict[str, Any]:
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise SettingsError(
            f"--set got '{assignment}'; wanted section.field=value, for example model.width=64."
        )
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {path}: '{text}' is not a YAML value.") from None
    for name in reversed(path.strip().split(".")):
        value = {name: value}
    return dict(value)


def _explain(model: type[BaseModel], fault: ErrorDetails) -> str:
    path = [str(step) for step in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known = _names_at(model, path[:-1])
        return f"'{'.'.join(path)}' is not a setting. {did_you_mean(path[-1], known)}"
    return f"'{'.'.join(path)}' is {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}."


def _names_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the model that ``path`` leads to."""
    for step in path:
        inner = model.model_fields.get(step)
        if inner is None:  # an index into a list, or a name in a mapping of models
            continue
        candidates = [inner.annotation, *get_args(inner.annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if models:
            model = models[0]
    return list(model.model_fields)
