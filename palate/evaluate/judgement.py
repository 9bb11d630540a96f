"""A whole judgement: a model and the traditional methods, on the same questions, with paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from palate.data.store import Prepared
from palate.errors import DataError
from palate.evaluate.baselines import fit_baselines
from palate.evaluate.protocol import Evaluation, Ranker, Skipped, evaluate
from palate.evaluate.significance import PairedTest, compare
from palate.schema import Part, QuestionPart
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

    def to_json(self) -> dict[str, Any]:
        """The judgement as plain mappings; every metric is ``{"value", "low", "high"}``."""
        rows = {row.name: _metrics(row) for row in self.baselines}
        return {
            "title": self.title,
            "split": self.split,
            "part": str(self.part),
            "filter_seen": self.filter_seen,
            "people": self.model.questions,
            "catalogue": self.model.catalogue,
            "metrics": _metrics(self.model),
            "lists": self.model.lists,
            "segments": self.model.to_json()["segments"],
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
    told: Sequence[QuestionPart] = (),
    seed: int = 0,
    fit_seconds: float = 0.0,
    title: str = "",
    on_start: Callable[[str], None] | None = None,
) -> Judgement:
    """The judgement of a trained ranker on the questions of ``part``, beside the baselines of ``settings``.

    For each part of an answer in ``told`` the ranker is judged once more, with questions that say it.
    ``on_start`` is told the name of each row before it is made.

    Raises:
        DataError: nobody has a held-out item.
    """
    questions = prepared.questions(part, filter_seen=settings.filter_seen, cold_targets=settings.cold_targets)
    if not len(questions):
        raise DataError(
            f"Nobody can be asked in the {part} part of the split '{prepared.split.kind}': no person has "
            "both a history and a held-out item. Use more data, another split.kind, or a smaller "
            "data.min_user_events."
        )
    if on_start is not None:
        on_start(ranker.name)
    model = evaluate(ranker, prepared, questions, settings=settings, seed=seed, fit_seconds=fit_seconds)
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
            seed=seed,
            fit_seconds=fit_seconds,
            description=TOLD[what],
        )
        informed.append(replace(found, name=name))
    rows = fit_baselines(prepared, settings, seed, on_start, part)
    baselines = tuple(row for row in rows if isinstance(row, Evaluation))
    return Judgement(
        title=title or f"{part.capitalize()}, {prepared.split.kind.replace('_', ' ')}",
        split=prepared.split.kind,
        part=part,
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
    )


def _metrics(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {
        name: {"value": value, "low": evaluation.intervals[name][0], "high": evaluation.intervals[name][1]}
        for name, value in evaluation.means.items()
    }


def _seconds(evaluation: Evaluation) -> dict[str, float]:
    return {"fit": evaluation.fit_seconds, "score": evaluation.score_seconds}
