"""Rules as they are written in YAML: frozen models; unknown names are refused with the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from palate.settings import Frozen, Positive, read_yaml, validated

Labels = tuple[str, ...]
WholeShare = Annotated[float, Field(ge=0.0, le=1.0)]


class Rule(Frozen):
    """One rule; keys and labels that look like numbers may be written as numbers."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class AvailableRule(Rule):
    """Only items whose field says that they can be had are shown."""

    field: str
    """A field of labels, with ``any_of``, or of numbers, with ``above``."""
    any_of: Labels = ()
    """Labels of items that can be had."""
    above: float | None = None
    """Items with more than this can be had."""
    missing: bool = False
    """Whether items without a value can be had."""

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if bool(self.any_of) == (self.above is not None):
            raise ValueError("wanted either any_of or above")
        return self


class CategoryRule(Rule):
    """Only items with one of these labels, or without any of those, are shown."""

    field: str
    any_of: Labels = ()
    none_of: Labels = ()

    @model_validator(mode="after")
    def _any_condition(self) -> Self:
        if not self.any_of and not self.none_of:
            raise ValueError("wanted any_of, none_of or both")
        return self


class SeenRule(Rule):
    """What somebody met in such an event is not shown to them again for so long."""

    event: str | None = None
    """A type of event; without it, every type."""
    days: Annotated[float, Field(gt=0)] | None = None
    """Without it, for ever. An event of which the time is unknown counts as of now."""


class CapRule(Rule):
    """At most so many items of a list share a label; items without a label are not counted."""

    field: str
    most: Positive


class PinRule(Rule):
    """An item stands at a place, if all conditions hold and every other rule allows it."""

    item: str
    place: Positive
    """From 1. Of several pins that hold for a place, the first that is allowed has it."""
    pages: Labels = ()
    """Only on these pages; by default on all."""
    audience: Literal["everyone", "newcomers", "known"] = "everyone"
    """Only for people without events, or only for people with events."""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class ExploreRule(Rule):
    """Some places are for new items, the best of them first."""

    share: WholeShare = 0.0
    """Of the places that nothing is pinned to: so many on average, and never more than one more or less."""
    seed: Annotated[int, Field(ge=0)] = 0


class FallbackRule(Rule):
    """What people without events are shown."""

    context_share: WholeShare = 0.5
    """Share of places for what is near to the items that the request names, if it names any."""
    half_life_days: Annotated[float, Field(gt=0)] = 7.0
    """After so long an event counts half for recent popularity."""


class RuleSettings(Rule):
    """All rules of a service: one YAML file."""

    available: tuple[AvailableRule, ...] = ()
    """All of them must hold."""
    unavailable: Labels = ()
    """Keys of items that are never shown."""
    categories: tuple[CategoryRule, ...] = ()
    """All of them must hold, in every request."""
    seen: tuple[SeenRule, ...] = ()
    caps: tuple[CapRule, ...] = ()
    pins: tuple[PinRule, ...] = ()
    explore: ExploreRule = ExploreRule()
    fallback: FallbackRule = FallbackRule()

    @classmethod
    def load(cls, path: Path) -> Self:
        """The rules of a YAML file.

        Raises:
            SettingsError: no such file, an unknown name, or an impossible value.
        """
        return validated(cls, read_yaml(path), str(path))
