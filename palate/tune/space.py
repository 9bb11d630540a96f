"""The search space: which settings are tried, and between what.

model.dropout: {low: 0.1, high: 0.6}
train.learning_rate: {low: 5e-4, high: 5e-3, log: true}
model.blocks: {low: 1, high: 6}             # whole numbers, as both ends are
model.dilations: [[1], [1, 2], [1, 2, 4, 8]]  # a list is a choice of any values
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from pydantic import model_validator

from palate.errors import SettingsError
from palate.settings import Frozen, Settings, validated

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

FIXED = ("seed", "data", "split", "evaluate")
"""Sections that no trial may change: their results could not be compared."""

DEFAULT: dict[str, Any] = {
    "model": {
        "width": [64, 96, 128, 192],
        "blocks": {"low": 1, "high": 5},
        "kernel_size": {"low": 2, "high": 6},
        "dilations": [[1], [1, 2], [1, 2, 4], [1, 2, 4, 8]],
        "feed_forward": [0.0, 1.0, 2.0],
        "dropout": {"low": 0.1, "high": 0.6, "step": 0.05},
    },
    "train": {
        "learning_rate": {"low": 5e-4, "high": 6e-3, "log": True},
        "weight_decay": {"low": 0.01, "high": 3.0, "log": True},
    },
}
"""What is searched where no space is given."""


class Range(Frozen):
    """All numbers from ``low`` to ``high``; whole ones where both ends (and the step) are."""

    low: float | int
    high: float | int
    step: float | int | None = None
    """Distance between the values tried, counted from ``low``."""
    log: bool = False
    """Equal ratios are equally likely, instead of equal differences."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; wanted low below high")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        return self

    def distribution(self) -> Distribution:
        """The range in Optuna's words."""
        if all(isinstance(end, int) for end in (self.low, self.high, self.step or 1)):
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Space:
    """What may be tried, by dotted name of the setting; choices are kept as JSON texts."""

    distributions: dict[str, Distribution]

    @staticmethod
    def read(tree: Mapping[str, Any]) -> Space:
        """The space that a mapping describes; names may be dotted or nested.

        Raises:
            SettingsError: a name is no setting or may not be searched, or a value is impossible.
        """
        distributions: dict[str, Distribution] = {}
        for name, given in _leaves(tree):
            section = name.partition(".")[0]
            if section in FIXED:
                raise SettingsError(
                    f"'{name}' cannot be searched: trials with another '{section}' could not be compared. "
                    "Give it once with --set."
                )
            if isinstance(given, Mapping):
                given = validated(Range, given, f"search space, {name}")  # noqa: PLW2901
                distributions[name] = given.distribution()
                tried: list[Any] = [given.low, given.high]
            elif isinstance(given, list) and given:
                distributions[name] = CategoricalDistribution([json.dumps(value) for value in given])
                tried = given
            else:
                raise SettingsError(
                    f"search space: '{name}' is {given!r}; wanted a list of values, or {{low: …, high: …}}."
                )
            for value in tried:
                Settings.build(nested({name: value}))
        if not distributions:
            raise SettingsError("The search space is empty; name at least one setting.")
        return Space(distributions)

    def draw(self, trial: Trial, names: Iterable[str]) -> None:
        """The trial has a value for each of these names."""
        for name in names:
            match self.distributions[name]:
                case CategoricalDistribution(choices=choices):
                    trial.suggest_categorical(name, choices)
                case IntDistribution(low=low, high=high, step=step, log=log):
                    trial.suggest_int(name, low, high, step=step, log=log)
                case FloatDistribution(low=low, high=high, step=step, log=log):
                    trial.suggest_float(name, low, high, step=step, log=log)

    def settings_of(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial drew, as a tree of settings."""
        choices = {n for n, d in self.distributions.items() if isinstance(d, CategoricalDistribution)}
        return nested({n: json.loads(value) if n in choices else value for n, value in drawn.items()})

    def values_of(self, settings: Settings) -> dict[str, Any]:
        """What the settings say of the space, as a trial would draw it; without what lies outside of it."""
        tree, found = settings.model_dump(mode="json"), {}
        for name, distribution in self.distributions.items():
            value: Any = reduce(lambda branch, step: branch[step], name.split("."), tree)
            if isinstance(distribution, CategoricalDistribution):
                value = json.dumps(value)
                inside = value in distribution.choices
            else:
                inside = distribution.low <= value <= distribution.high
            if inside:
                found[name] = value
        return found


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1, "a.c": 2}`` → ``{"a": {"b": 1, "c": 2}}``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        reduce(lambda branch, step: branch.setdefault(step, {}), path, tree)[last] = value
    return tree


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names with a list or a range each."""
    for name, given in tree.items():
        if isinstance(given, Mapping) and not {"low", "high"} & set(given):
            yield from _leaves(given, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", given
