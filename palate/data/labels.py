"""Which classes items have, and which items teach them, choose among them and test them.

Only items with a training event take part: later ones were not known when the model was trained. For a
``cold_items`` split the cold items are the test, and its validation items the validation; otherwise a
random tenth of the items each, drawn by the seed alone, whatever their labels. Items without a label, and
training items whose labels are all beyond the vocabulary, take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palate.data.columns import CategoryColumn
from palate.data.prepared import Prepared
from palate.errors import DataError, SettingsError, did_you_mean
from palate.schema import (
    FIRST_ID,
    PART_CODES,
    PART_UNUSED,
    BoolArray,
    EncodedField,
    Field,
    FieldKind,
    IntArray,
    Part,
)
from palate.settings import Settings

KINDS = (FieldKind.CATEGORY, FieldKind.CATEGORIES)
HELD_OUT = 0.1
"""Share of the items that validate, and again that test, where the split holds no items out."""


@dataclass(frozen=True)
class Labels:
    """One predicted field of V items: the classes, who has which, and what each item is for."""

    column: CategoryColumn
    field: EncodedField
    part: IntArray  # uint8 [V], PART_CODES or PART_UNUSED

    @staticmethod
    def learn(prepared: Prepared, field: Field, seed: int) -> Labels:
        """The classes are those of the training items and of no others.

        Raises:
            DataError: fewer classes than can be told apart.
        """
        part = item_parts(prepared, seed)
        cells = prepared.catalogue[field.name]
        column = CategoryColumn.fit(field, cells.filter(part == PART_CODES[Part.TRAIN]))
        least = 2 if field.kind == FieldKind.CATEGORY else 1
        if len(column.vocabulary) < least:
            raise DataError(
                f"The training items have {len(column.vocabulary)} different values of '{field.name}'; "
                f"wanted at least {least} to learn item_class. Predict another field, or add labels."
            )
        return Labels.of(prepared, column, seed)

    @staticmethod
    def of(prepared: Prepared, column: CategoryColumn, seed: int) -> Labels:
        """The labels of these data, of classes that were learned before."""
        encoded, _ = column.encode(prepared.catalogue[column.name])
        part = np.where(encoded.present, item_parts(prepared, seed), PART_UNUSED).astype(np.uint8)
        part[(part == PART_CODES[Part.TRAIN]) & ~_has_class(encoded)] = PART_UNUSED
        return Labels(column, encoded, part)

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class of column 0, 1, 2, …; the most frequent of the training items first."""
        return self.column.vocabulary

    @property
    def several(self) -> bool:
        """Whether an item may have several of them."""
        return self.column.kind == FieldKind.CATEGORIES

    def ids(self, part: Part) -> IntArray:
        """The items of this part, in the order of their ids."""
        return np.flatnonzero(self.part == PART_CODES[part])

    def truth(self, ids: IntArray) -> BoolArray:
        """[ids, classes]: who has what; a class that no training item has is in no column."""
        values, offsets = np.asarray(self.field.values), self.field.offsets
        if offsets is None:
            rows, codes = np.arange(len(ids)), values[ids]
        else:
            lengths = offsets[ids + 1] - offsets[ids]
            rows = np.repeat(np.arange(len(ids)), lengths)
            first = np.cumsum(lengths) - lengths
            codes = values[np.arange(len(rows)) + np.repeat(offsets[ids] - first, lengths)]
        found = np.zeros((len(ids), len(self.classes)), np.bool_)
        known = codes >= FIRST_ID
        found[rows[known], codes[known] - FIRST_ID] = True
        return found


def _has_class(field: EncodedField) -> BoolArray:
    """Whether an item has any class that the vocabulary knows, [V]."""
    known = np.asarray(field.values) >= FIRST_ID
    if field.offsets is None:
        return known
    so_far = np.concatenate([[0], np.cumsum(known)])
    counted: BoolArray = so_far[field.offsets[1:]] > so_far[field.offsets[:-1]]
    return counted


def item_parts(prepared: Prepared, seed: int) -> IntArray:
    """What each item is for, labelled or not: uint8 [V]."""
    parts = np.full(prepared.items.size, PART_UNUSED, np.uint8)
    if prepared.split.kind == "cold_items":
        parts[np.asarray(prepared.histories.item)] = prepared.part
        return parts
    order = np.random.default_rng([seed, 11]).permutation(np.flatnonzero(prepared.warm))
    held = round(HELD_OUT * len(order))
    parts[order[:held]] = PART_CODES[Part.TEST]
    parts[order[held : 2 * held]] = PART_CODES[Part.VALIDATION]
    parts[order[2 * held :]] = PART_CODES[Part.TRAIN]
    return parts


def with_named_fields(settings: Settings, fields: Sequence[Field]) -> Settings:
    """The settings, where every task ``item_class`` says which field it predicts.

    Raises:
        SettingsError: the data have no such field, several that it might be, or none of the right kind; it is
            predicted twice, or nothing is left to predict it from.
    """
    tasks = settings.tasks
    if all(task.name != "item_class" for task in tasks):
        return settings
    named = tuple(
        task.model_copy(update={"field": _predicted(task.field, fields)})
        if task.name == "item_class"
        else task
        for task in tasks
    )
    names = [task.field for task in named if task.name == "item_class"]
    if len(set(names)) < len(names):
        raise SettingsError("tasks: two tasks item_class predict the same field. Leave one of them out.")
    if not settings.model.content or all(field.name in names for field in fields):
        raise SettingsError(
            "tasks: item_class predicts from the other fields of an item, and there is none to read. "
            "Describe the items further in dataset.yaml, and leave model.content at true."
        )
    return settings.model_copy(update={"tasks": named})


def predicted_fields(settings: Settings, fields: Sequence[Field]) -> tuple[Field, ...]:
    """The fields that the tasks predict, in the order of the tasks; the network never reads them."""
    by_name = {field.name: field for field in fields}
    return tuple(by_name[task.field] for task in settings.tasks if task.name == "item_class" and task.field)


def _predicted(name: str | None, fields: Sequence[Field]) -> str:
    candidates = [field.name for field in fields if field.kind in KINDS]
    if name is None and len(candidates) == 1:
        return candidates[0]
    if name in candidates:
        return name
    if not candidates:
        raise SettingsError(
            "tasks: item_class wants a field of kind category or categories, and these data have none. "
            "Describe one in dataset.yaml."
        )
    if name is None:
        raise SettingsError(
            f"tasks: item_class could predict {', '.join(candidates)}. Say which, for example "
            f'--set "tasks=[{{name: item_class, field: {candidates[0]}}}]".'
        )
    kinds = [str(field.kind) for field in fields if field.name == name]
    what = f"a field of kind {kinds[0]}" if kinds else "no field of these data"
    raise SettingsError(
        f"tasks: item_class is to predict '{name}', which is {what}; wanted a category or categories. "
        f"{did_you_mean(name, candidates)}"
    )
