"""From a data set to ``Prepared`` in memory: cleaned, in ids, split, described, checked."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from palate.data.catalogue import clean_texts, describe
from palate.data.clean import clean, matches_any, refuse_if_strict
from palate.data.leak import check_no_leak
from palate.data.log import Log, count_codes
from palate.data.media import Workplace, read_media
from palate.data.prepared import HELD_OUT, Prepared, ask
from palate.data.split import split
from palate.data.survey import survey
from palate.errors import SettingsError, did_you_mean
from palate.schema import FIRST_ID, MEDIA, Dataset, Field, Histories, IdMap, IntArray, Media, Note, Schema
from palate.settings import Settings


def build(dataset: Dataset, settings: Settings, place: Workplace | None = None) -> Prepared:
    """The data set after every rule, split as the settings say, with its report; no leak is left.

    Items are described after the split, so that what only later rows say stays out. What they show is
    decoded into ``place`` (by default memory), unless ``model.content`` is false.

    Raises:
        DataError: nothing left after cleaning, nothing to train on, or bad rows with ``data.strict``.
        LeakError: something held out would reach training.
        SettingsError: an unknown target event, or a split that the data cannot have.
        MissingExtraError: a library that decodes sound or film is not installed.
    """
    cleaned = clean(dataset, settings.data, settings.split)
    log = cleaned.log
    schema = _schema(dataset, settings, log)
    histories = _histories(log)
    part = split(histories, schema, settings.split, seed=settings.seed, periods=cleaned.periods)
    described, notes = _described(dataset, log, log.row[part == 0])
    refuse_if_strict(notes, settings.data)
    items, catalogue = _catalogue(log, described, schema.fields)
    if described is not None:
        notes.append(_undescribed(catalogue, schema.fields, len(log.items)))
    media, seen = _media(dataset, settings, catalogue, place or Workplace())
    refuse_if_strict(seen, settings.data)
    notes += seen
    people = IdMap(log.people)
    prepared = Prepared(
        dataset.name, schema, people, items, histories, part, catalogue, {}, settings.split, media
    )
    with ThreadPoolExecutor() as pool:  # NumPy leaves the other processors free meanwhile
        both = pool.map(lambda held: ask(prepared, held, filter_seen=True, cold_targets=True), HELD_OUT)
        asked = dict(zip(HELD_OUT, both, strict=True))
    check_no_leak(prepared, {part: of.questions for part, of in asked.items()})
    report = survey(prepared, cleaned, (*cleaned.notes, *notes), asked)
    prepared.report.update(json.loads(json.dumps(report)))
    return prepared


def _schema(dataset: Dataset, settings: Settings, log: Log) -> Schema:
    weights = {name.strip().lower(): weight for name, weight in dataset.event_weights.items()}
    wanted = settings.train.target_events
    if wanted is None:
        targets = tuple(name for name in log.events if name != "return") or log.events
    else:
        targets = tuple(dict.fromkeys(name.strip().lower() for name in wanted))
        for name in targets:
            if name not in log.events:
                raise SettingsError(
                    f"train.target_events names '{name}', but the data has the event types "
                    f"{', '.join(log.events)}. {did_you_mean(name, log.events)}"
                )
        if not targets:
            raise SettingsError("train.target_events is empty; name at least one event type to predict.")
    return Schema(
        fields=dataset.fields,
        events=log.events,
        event_weights=tuple(float(weights.get(name, 1.0)) for name in log.events),
        target_events=targets,
        has_time=log.has_time,
    )


def _histories(log: Log) -> Histories:
    """The sorted log in ids: codes and the reserved ids before them."""
    lengths = count_codes(log.user, len(log.people))
    offsets = np.concatenate([np.zeros(FIRST_ID + 1, np.int64), np.cumsum(lengths)])
    return Histories(offsets, log.item + np.int32(FIRST_ID), log.event, log.time)


def _described(dataset: Dataset, log: Log, training_rows: IntArray) -> tuple[pl.DataFrame | None, list[Note]]:
    """One clean row per item of the items' table; without those that are not to be recommended.

    A table that comes from the interactions themselves describes only items that kept an event.
    """
    if dataset.items is None or not dataset.fields:
        return None, []
    items = dataset.items.with_columns(pl.col("item").cast(log.items.dtype, strict=False))
    if dataset.exclude_items:
        keys = items["item"].drop_nulls().unique()
        excluded = keys.filter(pl.Series(matches_any(keys, dataset.exclude_items), dtype=pl.Boolean))
        items = items.filter(~pl.col("item").is_in(excluded.implode()).fill_null(False))
    if "row" in items.columns:
        items = items.filter(pl.col("item").is_in(log.items.implode()))
    items, note = clean_texts(items, dataset.fields)
    described, notes = describe(items, dataset.fields, training_rows)
    return described, [note, *notes]


def _catalogue(
    log: Log, described: pl.DataFrame | None, fields: tuple[Field, ...]
) -> tuple[IdMap, pl.DataFrame]:
    """Ids of the items and, aligned with them, what describes them."""
    keys = log.items
    if described is not None:
        further = described["item"].filter(~described["item"].is_in(keys.implode())).sort()
        keys = pl.concat([keys.rename("item"), further])
    table = keys.rename("item").to_frame()
    if described is not None:
        table = table.join(described, on="item", how="left", maintain_order="left")
    reserved = pl.DataFrame({name: [None] * FIRST_ID for name in table.columns}, schema=table.schema)
    names = ["item", *(field.name for field in fields if field.name in table.columns)]
    return IdMap(keys), pl.concat([reserved, table]).select(names)


def _media(
    dataset: Dataset, settings: Settings, catalogue: pl.DataFrame, place: Workplace
) -> tuple[dict[str, Media], list[Note]]:
    """By field, what the items show; nothing is opened where nobody would look at it."""
    media: dict[str, Media] = {}
    notes: list[Note] = []
    if not settings.model.content:
        return media, notes
    for field in dataset.fields:
        if field.kind not in MEDIA or field.name not in catalogue.columns:
            continue
        if dataset.media_folder is None:
            notes.append(Note(f"files of '{field.name}'", 0, 0, "not read: no media_folder was given"))
            continue
        found = read_media(
            catalogue[field.name],
            dataset.media_folder,
            field.kind,
            settings.model,
            name=field.name,
            place=place,
        )
        media[field.name] = found.media
        notes += found.notes
    return media, notes


def _undescribed(catalogue: pl.DataFrame, fields: tuple[Field, ...], with_events: int) -> Note:
    rows = catalogue.slice(FIRST_ID, with_events)
    bare = rows.filter(pl.all_horizontal(pl.col(field.name).is_null() for field in fields))
    examples = tuple(f"item {key}" for key in bare["item"].head(3))
    detail = f"{bare.height:,} of {rows.height:,} items with events have no field at all"
    return Note("items without description", 0, rows.height, detail, examples)
