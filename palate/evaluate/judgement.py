"""A whole judgement: a model and the traditional methods, on the same questions, with paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from palate.data.store import Prepared
from palate.errors import DataError
from palate.evaluate.baselines import fit_baselines
from palate.evaluate.newcomers import METRIC, by_events_seen, newcomers
from palate.evaluate.protocol import Evaluation, Ranker, Skipped, evaluate
from palate.evaluate.significance import PairedTest, compare
from palate.schema import Among, Part, QuestionPart
from palate.settings import EvaluateSettings

TOLD = {
    QuestionPart.TIME: "told when it happens",
    QuestionPart.EVENT: "told the event type",
}


@dataclass(frozen=True)
class Judgement:
    """What came out, and under which protocol."""

    title: str
    split: str
    part: Part
    among: Among
    filter_seen: bool
    model: Evaluation
    informed: tuple[Evaluation, ...]
    """The model once more, told a part of each answer that is not the item: its time, or its event type."""
    baselines: tuple[Evaluation, ...]
    """The traditional methods and the references."""
    references: tuple[str, ...]
    """Names of the references among them."""
    skipped: tuple[Skipped, ...]
    comparisons: dict[str, dict[str, PairedTest]]
    """Model minus each baseline, and minus itself when informed, by metric, paired over people."""
    newcomers: int = 0
    """How many people the curve by events seen is made of."""

    def to_json(self) -> dict[str, Any]:
        """The judgement as plain mappings; every metric is ``{"value", "low", "high"}``."""
        rows = {row.name: _metrics(row) for row in self.baselines}
        return {
            "title": self.title,
            "split": self.split,
            "part": str(self.part),
            "among": str(self.among),
            "filter_seen": self.filter_seen,
            "people": self.model.questions,
            "catalogue": self.model.catalogue,
            "metrics": _metrics(self.model),
            "lists": self.model.lists,
            "segments": self.model.to_json()["segments"],
            "events_seen": {
                "metric": METRIC,
                "people": self.newcomers,
                "rows": {
                    row.name: [asdict(point) for point in row.events_seen]
                    for row in (self.model, *self.baselines)
                    if row.events_seen
                },
            },
            "seconds": _seconds(self.model),
            "informed": {
                row.name: {
                    "metrics": _metrics(row),
                    "lists": row.lists,
                    "seconds": _seconds(row),
                    "description": row.description,
                }
                for row in self.informed
            },
            "baselines": {name: values for name, values in rows.items() if name not in self.references},
            "references": {name: values for name, values in rows.items() if name in self.references},
            "baseline_lists": {row.name: row.lists for row in self.baselines},
            "baseline_seconds": {row.name: _seconds(row) for row in self.baselines},
            "baseline_descriptions": {row.name: row.description for row in self.baselines},
            "comparisons": {
                name: {metric: test.to_json() for metric, test in tests.items()}
                for name, tests in self.comparisons.items()
            },
            "skipped": {row.name: row.reason for row in self.skipped},
        }


def judge(
    ranker: Ranker,
    prepared: Prepared,
    settings: EvaluateSettings,
    *,
    part: Part = Part.TEST,
    among: Among = Among.ALL,
    told: Sequence[QuestionPart] = (),
    seed: int = 0,
    fit_seconds: float = 0.0,
    title: str = "",
    on_start: Callable[[str], None] | None = None,
) -> Judgement:
    """The judgement of a trained ranker on the questions of ``part``, beside the baselines of ``settings``.

    ``among`` the cold items, only those are ranked and asked for, beside ``settings.cold_baselines``.
    For each part of an answer in ``told`` the ranker is judged once more, with questions that say it.
    ``on_start`` is told the name of each row before it is made.

    Raises:
        DataError: nobody has a held-out item.
    """
    questions = prepared.questions(
        part, filter_seen=settings.filter_seen, cold_targets=settings.cold_targets, among=among
    )
    if not len(questions) and among == Among.COLD:
        raise DataError(
            f"Nobody took an item without training events in the {part} part of the split "
            f"'{prepared.split.kind}', so new items cannot be ranked among themselves. Judge among all "
            "items, or train with split.kind=cold_items."
        )
    if not len(questions):
        raise DataError(
            f"Nobody can be asked in the {part} part of the split '{prepared.split.kind}': no person has "
            "both a history and a held-out item. Use more data, another split.kind, or a smaller "
            "data.min_user_events."
        )
    if on_start is not None:
        on_start(ranker.name)
    model = evaluate(
        ranker, prepared, questions, settings=settings, among=among, seed=seed, fit_seconds=fit_seconds
    )
    few = newcomers(questions) if among == Among.ALL else None
    model = replace(model, events_seen=by_events_seen(ranker, prepared, few, settings, seed))
    informed = []
    for what in told:
        name = f"{ranker.name}_{what}"
        if on_start is not None:
            on_start(name)
        found = evaluate(
            ranker,
            prepared,
            questions.telling(what),
            settings=settings,
            among=among,
            seed=seed,
            fit_seconds=fit_seconds,
            description=TOLD[what],
        )
        informed.append(replace(found, name=name))
    rows = fit_baselines(prepared, settings, seed, on_start, part, among)
    baselines = tuple(row for row in rows if isinstance(row, Evaluation))
    return Judgement(
        title=title or _title(part, prepared.split.kind, among),
        split=prepared.split.kind,
        part=part,
        among=among,
        filter_seen=settings.filter_seen,
        model=model,
        informed=tuple(informed),
        baselines=baselines,
        references=settings.references,
        skipped=tuple(row for row in rows if isinstance(row, Skipped)),
        comparisons={
            row.name: compare(
                row.per_question,
                model.per_question,
                sorted(set(model.per_question) & set(row.per_question)),
                resamples=settings.bootstrap,
                confidence=settings.confidence,
                seed=seed,
            )
            for row in (*informed, *baselines)
        },
        newcomers=len(few) if few is not None else 0,
    )


def _title(part: Part, split: str, among: Among) -> str:
    words = f"{part.capitalize()}, {split.replace('_', ' ')}"
    return words if among == Among.ALL else f"{words}, new items only"


def _metrics(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {
        name: {"value": value, "low": evaluation.intervals[name][0], "high": evaluation.intervals[name][1]}
        for name, value in evaluation.means.items()
    }


def _seconds(evaluation: Evaluation) -> dict[str, float]:
    return {"fit": evaluation.fit_seconds, "score": evaluation.score_seconds}
