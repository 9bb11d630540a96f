"""A search as one HTML file, in the dress of the reports of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from palate.evaluate.charts import Measured, bar_chart
from palate.evaluate.svg import numbered
from palate.evaluate.wording import metric_label, seconds
from palate.tune.charts import search_chart, setting_chart
from palate.version import __version__


def write_report(path: Path, name: str, results: dict[str, Any], log_scaled: set[str]) -> None:
    """``path`` holds the report of these results (``study.write_results``), one HTML file in UTF-8."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("palate", "tune"), PackageLoader("palate", "evaluate")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(numbered=numbered, seconds=seconds, drawn=_drawn)
    trials, smaller_is_better = results["trials"], results["metric"] == "loss"
    label = metric_label(results["metric"])
    importance = results["importance"]
    names = sorted(
        {n for trial in trials for n in trial["drawn"]}, key=lambda n: (-importance.get(n, 0.0), n)
    )
    page = environment.get_template("report.html.jinja").render(
        name=name,
        version=__version__,
        metric=label,
        answer=answer(results),
        advice="best.yaml holds the settings: palate train DATA --config best.yaml --out RUN",
        search=search_chart(label, trials, smaller_is_better),
        importance=bar_chart("Importance", [Measured(n, importance[n]) for n in names if n in importance])
        if importance
        else None,
        settings=[(name, setting_chart(name, trials, name in log_scaled)) for name in names],
        names=names,
        trials=trials,
        best=results["best"]["trial"],
    )
    path.write_text(page, encoding="utf-8")


def answer(results: dict[str, Any]) -> str:
    """What the search found, in one sentence."""
    best, given = results["best"], results["as_given"]
    label = metric_label(results["metric"])
    if given is None:
        return f"Trial {best['trial']} was best: {label} {best['value']:.4f} on validation people."
    if best["trial"] == given["trial"]:
        return f"Nothing better was found than the settings as given: {label} {best['value']:.4f}."
    change = best["value"] / given["value"] - 1 if given["value"] else float("inf")
    return (
        f"Trial {best['trial']} was best: {label} {best['value']:.4f} against {given['value']:.4f} "
        f"with the settings as given ({change:+.1%}) on validation people."
    )


def _drawn(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
