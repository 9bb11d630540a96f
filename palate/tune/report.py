"""A search as one HTML file, in the dress of the reports of runs."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader

from palate.evaluate.charts import Measured, bar_chart
from palate.evaluate.figures import Figure
from palate.evaluate.svg import numbered
from palate.evaluate.wording import metric_label, seconds
from palate.tune.charts import passes_chart, search_chart, setting_chart
from palate.tune.progress import plain
from palate.tune.study import Found
from palate.tune.trials import State
from palate.version import __version__


def write_report(found: Found) -> Path:
    """The study's ``report.html`` shows what was found; its path."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("palate", "tune"), PackageLoader("palate", "evaluate")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(numbered=numbered, seconds=seconds, plain=plain)
    label, importance = metric_label(found.metric), found.importance
    names = sorted(found.space.parts, key=lambda name: (-importance.get(name, 0.0), name))
    measured = [Measured(name, importance[name]) for name in names if name in importance]
    by_value = sorted(
        found.trials,
        key=lambda trial: (
            trial.state != State.DONE,
            trial.value is None,
            (trial.value or 0.0) * (1 if found.smaller_is_better else -1),
            trial.number,
        ),
    )
    page = environment.get_template("report.html.jinja").render(
        found=found,
        answer=answer(found),
        budget=budget(found),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
        metric=label,
        search=[
            Figure(
                f"{label}, trial by trial",
                search_chart(label, found.trials, found.smaller_is_better),
                "The line is the best so far. Hollow dots were stopped early, crosses failed.",
            ),
            Figure(
                f"{label}, pass by pass",
                passes_chart(label, found.trials, found.smaller_is_better),
                "A line per trial; the best in colour, the current settings in dark.",
            ),
        ],
        importance=Figure(
            "Importance",
            bar_chart("Importance", measured),
            "The share of the differences between trials that a setting explains (functional ANOVA). "
            "With few trials this is a hint and no more.",
        )
        if measured
        else None,
        settings=[
            Figure(name, setting_chart(name, found.space.parts[name], found.trials, found.smaller_is_better))
            for name in names
        ],
        names=names,
        trials=by_value,
        best_yaml=yaml.safe_dump(found.settings, sort_keys=False, allow_unicode=True),
    )
    path = found.folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def answer(found: Found) -> str:
    """What the search found, in one sentence."""
    best, current, label = found.best, found.current, metric_label(found.metric)
    if current is None:
        return f"Trial {best.number} is the best: {label} {best.value:.4f} on validation people."
    if best.number == 0:
        found_one = f"{label} {best.value:.4f} on validation people"
        return f"Nothing better than the current settings was found: {found_one}."
    gain = "" if found.gain is None else f", {100 * found.gain:.1f}% better"
    return (
        f"{label} {best.value:.4f} instead of {current.value:.4f}{gain}: "
        f"trial {best.number} against the current settings, on validation people."
    )


def budget(found: Found) -> str:
    """How many trials there were, what became of them, and how long they took."""
    pruned, failed = (
        sum(trial.state == state for trial in found.trials) for state in (State.PRUNED, State.FAILED)
    )
    ends = [f"{pruned} stopped early"] * bool(pruned) + [f"{failed} failed"] * bool(failed)
    trials = f"{len(found.trials)} trials" + (f", {' and '.join(ends)}" if ends else "")
    return f"{trials} · {seconds(sum(trial.seconds for trial in found.trials))} of training"
