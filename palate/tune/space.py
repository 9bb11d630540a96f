"""The search space: which settings are tried, and between what.

model.dropout: {low: 0.1, high: 0.6}
train.learning_rate: {low: 5e-4, high: 5e-3, log: true}
model.blocks: {low: 1, high: 6}               # whole numbers, as both ends are
model.dilations: [[1], [1, 2], [1, 2, 4, 8]]  # a list is a choice of any values
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pydantic import model_validator

from palate.data.media import shaping
from palate.errors import SettingsError
from palate.schema import MEDIA
from palate.settings import Frozen, ModelSettings, Settings, validated

SOURCE = "search space"
DEFAULT: dict[str, Any] = {
    "model.width": [64, 96, 128, 192],
    "model.max_history": [50, 100, 200],
    "model.blocks": {"low": 1, "high": 6},
    "model.kernel_size": {"low": 2, "high": 7},
    "model.dilations": [[1], [1, 2], [1, 2, 4], [1, 2, 4, 8]],
    "model.activation": ["glu", "silu", "gelu"],
    "model.feed_forward": [0.0, 1.0, 2.0, 4.0],
    "model.memory": [True, False],
    "model.dropout": {"low": 0.1, "high": 0.6},
    "train.learning_rate": {"low": 5e-4, "high": 6e-3, "log": True},
    "train.weight_decay": {"low": 0.01, "high": 3.0, "log": True},
    "train.batch_events": [0, 1024, 2048, 4096, 8192],
}
"""What is searched where no space is given."""
INCOMPARABLE = ("data", "split", "evaluate", "train.validate_metric", "train.target_events")
"""Trials that differ in these answer different questions."""
DECODING = tuple(f"model.{kind}.{name}" for kind in MEDIA for name in shaping(kind, ModelSettings()))
"""Media are decoded once for all trials, and these say how."""
NO_QUALITY = ("seed", "train.threads", "train.checkpoint_steps")
"""Settings that do not make a model better: searching them would choose luck or nothing."""


class Range(Frozen):
    """All numbers from ``low`` to ``high``; whole ones where both ends, and the step, are."""

    low: int | float
    high: int | float
    step: int | float | None = None
    """Distance between the values tried, counted from ``low``."""
    log: bool = False
    """Equal ratios are equally likely, instead of equal differences."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; wanted low below high")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step is {self.step}; wanted one above 0 that fits between low and high")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def samples(self) -> tuple[int | float, ...]:
        """Both ends and something between them: what settings must take if they are to take the rest."""
        if self.whole:
            return int(self.low), int(self.high)
        between = self.low + (self.step or 0.381966 * (self.high - self.low))
        return float(self.low), float(between), float(self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values, each as JSON has it."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Space:
    """What may be tried, by dotted name of the setting."""

    parts: Mapping[str, Range | Choice]

    @classmethod
    def read(cls, tree: Mapping[str, Any]) -> Space:
        """The space that a mapping describes; names may be dotted or nested.

        Raises:
            SettingsError: a name is no setting or may not be searched, or settings refuse a value; with all
                faults at once.
        """
        parts: dict[str, Range | Choice] = {}
        faults: list[str] = []
        for name, given in _leaves(tree):
            try:
                parts[name] = _part(name, given)
            except SettingsError as error:
                faults.append(str(error).removeprefix(f"{SOURCE}: "))
        if faults:
            raise SettingsError(f"{SOURCE}: " + "; ".join(faults))
        if not parts:
            raise SettingsError(f"{SOURCE}: it is empty. Name at least one setting, such as model.dropout.")
        return cls(parts)

    def without(self, names: Iterable[str]) -> Space:
        """The space with these settings left as they are.

        Raises:
            SettingsError: nothing would be left to search.
        """
        fixed = set(names)
        left = {name: part for name, part in self.parts.items() if name not in fixed}
        if not left:
            raise SettingsError(f"{SOURCE}: every setting in it is given with --set; nothing is left.")
        return Space(left)

    def values_of(self, settings: Settings) -> dict[str, Any]:
        """What the settings say of each searched name, as JSON has it; it may lie outside of the space."""
        return {name: _at(settings, name) for name in self.parts}

    def holds(self, name: str, value: Any) -> bool:
        """Whether ``value`` is among what may be tried for ``name``."""
        part = self.parts[name]
        if isinstance(part, Choice):
            return json.dumps(value) in map(json.dumps, part.values)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = (value - part.low) / (part.step or 1)
        on_a_step = abs(steps - round(steps)) < 1e-9 or not (part.whole or part.step)
        return part.low <= value <= part.high and on_a_step

    def to_json(self) -> dict[str, Any]:
        """As it could be written in a YAML file."""
        return {
            name: list(part.values) if isinstance(part, Choice) else part.model_dump(exclude_unset=True)
            for name, part in self.parts.items()
        }


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1, "a.c": 2}`` → ``{"a": {"b": 1, "c": 2}}``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        reduce(lambda branch, step: branch.setdefault(step, {}), path, tree)[last] = value
    return tree


def names_in(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of a tree of settings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from names_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names with what is given for each; a section of settings may be written as a mapping."""
    sections = {name.rpartition(".")[0] for name in names_in(Settings().model_dump())}
    for name, given in tree.items():
        path = f"{prefix}{name}"
        if isinstance(given, Mapping) and any(f"{section}.".startswith(f"{path}.") for section in sections):
            yield from _leaves(given, f"{path}.")
        else:
            yield path, given


def _part(name: str, given: Any) -> Range | Choice:
    if any(f"{name}.".startswith(f"{fixed}.") for fixed in INCOMPARABLE):
        raise SettingsError(
            f"'{name}' cannot be searched: trials that differ in it could not be compared. "
            "Give one value with --set"
        )
    if any(decoding == name or decoding.startswith(f"{name}.") for decoding in DECODING):
        raise SettingsError(
            f"'{name}' cannot be searched: it says how pictures, tracks or clips are decoded, which is done "
            "once for all trials. Give one value with --set"
        )
    if name in NO_QUALITY:
        raise SettingsError(f"'{name}' cannot be searched: it makes no model better. Give it with --set")
    if isinstance(given, Mapping):
        if name not in names_in(Settings().model_dump()):
            _accepted(name, given)  # says which name is meant
        found = validated(Range, given, f"'{name}'")
        for value in found.samples:
            _accepted(name, value)
        return found
    if isinstance(given, list) and given:
        values = {json.dumps(value): value for value in (_accepted(name, value) for value in given)}
        return Choice(tuple(values.values()))
    raise SettingsError(f"'{name}' is {given!r}; wanted a list of values, or {{low: …, high: …}}")


def _accepted(name: str, value: Any) -> Any:
    """The value as the settings hold it.

    Raises:
        SettingsError: there is no such setting, or it cannot be that.
    """
    return _at(validated(Settings, nested({name: value}), SOURCE), name)


def _at(settings: Settings, name: str) -> Any:
    return reduce(lambda branch, step: branch[step], name.split("."), settings.model_dump(mode="json"))
