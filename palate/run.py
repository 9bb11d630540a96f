"""A run folder: the bundle, and beside it how it was judged and a report to look at.

RUN/evaluation.json   the judgements, the main one first; those of classes have a ``task`` and come last
RUN/examples.json     a few people: what they met, what was recommended, what came
RUN/reasons.json      whether reasons are faithful to the network
RUN/report.html       all of it as one page that needs no network
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from palate.data.source import read_dataset
from palate.data.titles import ItemTitles
from palate.errors import BundleError, SettingsError
from palate.evaluate.classes import ClassJudgement
from palate.evaluate.faithful import faithfulness
from palate.evaluate.judgement import Judgement
from palate.evaluate.report import RunRecord, write_report
from palate.evaluate.shares import variance_shares
from palate.explain.fidelity import fidelity
from palate.recommender import Recommender
from palate.schema import FIRST_ID, Histories
from palate.version import __version__

EXAMPLES = 6
SHOWN_EVENTS = 8
SHOWN_ITEMS = 6
FAITHFUL_AT = 10
"""Length of the list in which a recommendation is to stay, or not."""
ASKED_FOR_REASONS = 40
"""People on whom the report measures whether reasons are faithful; more take longer: bench/reasons.py."""


WRITTEN = (
    "checkpoints",
    "tensorboard",
    "log.jsonl",
    "bundle.json",
    "evaluation.json",
    "examples.json",
    "reasons.json",
    "report.html",
)


def faithfulness_of(
    recommender: Recommender,
    *,
    people: int,
    among: slice = slice(None),
    shuffled: Recommender | None = None,
) -> dict[str, Any]:
    """Whether reasons are faithful (``palate.evaluate.faithful``): of the first recommendation of so many
    people, evenly chosen among all with two events or more.

    Args:
        recommender: whose reasons they are.
        people: to ask.
        among: of all who could be asked; ``slice(1, None, 2)`` leaves those out whom ``slice(0, None, 2)``
            asks.
        shuffled: what says nothing, by default the recommender with all its weights shuffled.
    """
    prepared, judged = recommender.prepared, recommender.settings.evaluate
    known = prepared.known()
    asked = np.flatnonzero(known.lengths > 1)[among]
    rows = asked[np.linspace(0, len(asked) - 1, min(people, len(asked))).astype(np.int64)]
    strange = recommender.shuffled(recommender.settings.seed) if shuffled is None else shuffled
    found = fidelity(
        recommender.scorer(),
        known.select(rows),
        recommender.may_be_recommended(),
        np.bincount(known.item, minlength=prepared.items.size),
        k=FAITHFUL_AT,
        filter_seen=judged.filter_seen,
        shuffled=strange.scorer(),
        seed=recommender.settings.seed,
    )
    return faithfulness(
        found, resamples=judged.bootstrap, confidence=judged.confidence, seed=recommender.settings.seed
    )


def is_run(folder: Path) -> bool:
    """Whether a trained recommender lies there."""
    return (folder / "bundle.json").is_file()


def start_afresh(folder: Path) -> None:
    """Nothing of an earlier run is left in ``folder`` but its prepared data, which may serve again.

    Raises:
        SettingsError: ``folder`` holds something else than a run.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not _looks_like_a_run(folder)):
        raise SettingsError(f"{folder} holds something else than a run; name a folder that is new or empty.")
    for name in WRITTEN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _looks_like_a_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (*WRITTEN, "data/manifest.json"))


def write_judgements(
    folder: Path,
    recommender: Recommender,
    judgements: Sequence[Judgement],
    classes: Sequence[ClassJudgement] = (),
) -> Path:
    """``folder`` holds these judgements, examples of the first one, and the report of it all; its path."""
    _write(
        folder / "evaluation.json",
        [each.to_json() for each in judgements] + [each.to_json() for each in classes],
    )
    _write(folder / "examples.json", examples(recommender, judgements[0]) if judgements else [])
    told = faithfulness_of(recommender, people=ASKED_FOR_REASONS) if recommender.settings.recommends else {}
    _write(folder / "reasons.json", told)
    return refresh_report(folder, recommender)


def refresh_report(folder: Path, recommender: Recommender) -> Path:
    """``RUN/report.html`` shows what the other files of the run say now; its path.

    Raises:
        BundleError: the run was never judged.
    """
    path = folder / "report.html"
    progress = recommender.progress
    write_report(
        path,
        RunRecord(
            name=recommender.prepared.name,
            version=__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            settings=recommender.settings.model_dump(mode="json"),
            machine=machine(),
            data=data_report(recommender),
            training=progress.history,
            metric_name=recommender.settings.train.validate_metric,
            judgements=read_judgements(folder),
            examples=read_examples(folder),
            classes=read_class_judgements(folder),
            reasons=read_reasons(folder),
        ),
    )
    return path


def data_report(recommender: Recommender) -> dict[str, Any]:
    """The report of the data, with what the content encoder could not read among its rules."""
    data = recommender.prepared.report
    return {**data, "rules": [*data["rules"], *(asdict(note) for note in recommender.content_notes)]}


def read_judgements(folder: Path) -> list[dict[str, Any]]:
    """The judgements of rankings of a run, the main one first.

    Raises:
        BundleError: the run was never judged, or the file is damaged.
    """
    return [entry for entry in _read(folder / "evaluation.json") if "task" not in entry]


def read_class_judgements(folder: Path) -> list[dict[str, Any]]:
    """The judgements of the fields that a run predicts.

    Raises:
        BundleError: the run was never judged, or the file is damaged.
    """
    return [entry for entry in _read(folder / "evaluation.json") if "task" in entry]


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """The examples of a run.

    Raises:
        BundleError: the run was never judged, or the file is damaged.
    """
    shown: list[dict[str, Any]] = _read(folder / "examples.json")
    return shown


def read_reasons(folder: Path) -> dict[str, Any]:
    """How faithful the reasons of a run are; empty where it was judged before that was measured in this way.

    Raises:
        BundleError: the file is damaged.
    """
    path = folder / "reasons.json"
    told: dict[str, Any] = _read(path) if path.is_file() else {}
    return told if "by_number" in told else {}


def examples(recommender: Recommender, judgement: Judgement) -> list[dict[str, Any]]:
    """A few of the people who were asked, drawn by the run's seed, with titles where items have them."""
    prepared, model = recommender.prepared, judgement.model
    questions = prepared.questions(
        judgement.part,
        filter_seen=judgement.filter_seen,
        cold_targets=recommender.settings.evaluate.cold_targets,
        among=judgement.among,
    )
    generator = np.random.default_rng(recommender.settings.seed)
    rows = np.sort(generator.permutation(len(questions))[:EXAMPLES])
    chosen = questions.select(rows)
    titles = ItemTitles(prepared)
    return [
        {
            "person": prepared.people.keys([person])[0],
            "history": titles.of(_events(chosen.histories, row)[-SHOWN_EVENTS:]),
            "recommended": titles.of(
                [item for item in model.top[question][:SHOWN_ITEMS] if item >= FIRST_ID]
            ),
            "then": titles.of(
                chosen.target_items[chosen.target_offsets[row] : chosen.target_offsets[row + 1]]
            ),
        }
        for row, (question, person) in enumerate(zip(rows, chosen.people, strict=True))
    ]


def describe_run(recommender: Recommender) -> dict[str, Any]:
    """What a run consists of, in numbers."""
    prepared, model, progress = recommender.prepared, recommender.model, recommender.progress
    gates = {part.name: round(abs(float(part.gate.detach())), 4) for part in model.items.projections}
    return {
        "name": prepared.name,
        "people": len(prepared.people),
        "items": len(prepared.items),
        "events": len(prepared.histories.item),
        "event types": ", ".join(prepared.schema.events),
        "split": prepared.split.kind,
        "behaviour encoder": recommender.settings.model.encoder,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "fields and their gates": gates,
        "predicted fields": ", ".join(head.name for head in model.class_heads()) or "none",
        "share of item vectors": shares_of_vectors(recommender),
        "passes": len(progress.history),
        "best pass": progress.best_epoch + 1,
        f"validation {recommender.settings.train.validate_metric}": progress.best_metric,
        "seconds of training": round(progress.seconds, 1),
        "settings": recommender.settings.model_dump(mode="json"),
    }


def shares_of_vectors(recommender: Recommender) -> dict[str, dict[str, float]]:
    """How much the id and each field carry of the vectors of warm and of new items that are described."""
    prepared, tower = recommender.prepared, recommender.model.items
    present = np.ones(prepared.items.size, np.bool_)
    present[:FIRST_ID] = False
    present[prepared.removed] = False
    groups = {
        "items with training events": present & prepared.warm,
        "new items": present & ~prepared.warm & recommender.described(),
    }
    found = {}
    for name, wanted in groups.items():
        rows = np.flatnonzero(wanted)
        shares = variance_shares(tower, rows)
        if shares is not None:
            found[name] = {
                "items": len(rows),
                **{part: round(share, 4) for part, share in shares.items()},
            }
    return found


def describe_data(path: Path) -> dict[str, Any]:
    """What a data set consists of, before cleaning."""
    dataset = read_dataset(path)
    rows = dataset.interactions
    counts = rows.select(
        pl.len().alias("rows"),
        pl.col("user").n_unique().alias("people"),
        pl.col("item").n_unique().alias("items"),
        pl.col("user", "item", "time").null_count().name.prefix("without "),
    ).collect()
    events = rows.group_by("event").len().sort("len", descending=True).collect()
    return {
        "name": dataset.name,
        **counts.to_dicts()[0],
        "event types": dict(events.iter_rows()),
        "fields": {field.name: str(field.kind) for field in dataset.fields},
        "described items": dataset.items["item"].n_unique() if dataset.items is not None else 0,
        "clock": "times" if dataset.has_time else "an order only",
        "found while reading": {note.rule: note.detail for note in dataset.notes},
        "its own settings": dataset.settings,
    }


def write_table(table: pl.DataFrame, path: Path) -> None:
    """``path`` holds the table in the format that its suffix names.

    Raises:
        SettingsError: another suffix, or a folder that does not exist.
    """
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": table.write_csv,
        ".parquet": table.write_parquet,
        ".jsonl": table.write_ndjson,
    }
    if path.suffix not in writers or not path.parent.is_dir():
        raise SettingsError(
            f"Cannot write {path}: wanted a .csv, .parquet or .jsonl file in a folder that exists."
        )
    writers[path.suffix](path)


def machine() -> dict[str, Any]:
    """What the run was made on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _events(histories: Histories, row: int) -> np.ndarray:
    return np.asarray(histories.item[histories.offsets[row] : histories.offsets[row + 1]])


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, ensure_ascii=False, indent=1), encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path} is missing: the run was never judged. Run palate evaluate on it."
        ) from None
    except ValueError as error:
        raise BundleError(f"{path} is damaged ({error}). Run palate evaluate again.") from None
