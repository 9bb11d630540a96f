"""The results of a judgement as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from palate.evaluate.results import LEGEND, Cell, main_metrics, results
from palate.evaluate.wording import (
    CLASS_METRICS,
    class_protocol,
    metric_label,
    number,
    protocol_line,
    ranker_label,
)

SHOWN_METRICS = 3
"""What a terminal of 80 columns has room for; the report shows more."""


def results_table(judgement: Mapping[str, Any]) -> Table:
    """A row for ours and for each baseline, a column for the foremost metrics; fits 80 columns.

    The best of a column is bold, intervals are dim, marks say which differences are certain. The
    title names split, filter, people and catalogue; what was skipped is in the caption.
    """
    shown = results(judgement, main_metrics(judgement)[:SHOWN_METRICS])
    table = Table(
        title=Text(protocol_line(judgement)),
        caption=_caption(judgement, shown.tested),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        padding=(0, 0, 0, 1),
    )
    table.add_column("", max_width=20, no_wrap=True, overflow="ellipsis")
    for metric in shown.columns:
        table.add_column(metric_label(metric), justify="right", no_wrap=True)
    table.add_column("train", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for row in shown.rows:
        name = Text(row.name, style="bold" if row.ours else "")
        if row.description:
            name.append(f"\n{row.description}", style="dim")
        table.add_row(name, *(_cell(cell) for cell in row.cells), row.fit, row.score)
    return table


def classes_table(judgement: Mapping[str, Any]) -> Table:
    """A row for each way to tell the classes of items, ours first; the foremost metrics fit 80 columns."""
    left_out = [
        f"{ranker_label(name)} was left out: {reason}"
        for name, reason in judgement.get("skipped", {}).items()
    ]
    table = Table(
        title=Text(class_protocol(judgement)),
        caption=Text("\n".join(left_out)),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        padding=(0, 0, 0, 1),
    )
    table.add_column("", no_wrap=True)
    shown = list(CLASS_METRICS)[:4]
    for metric in shown:
        table.add_column(CLASS_METRICS[metric], justify="right", no_wrap=True)
    for name, row in {"palate": judgement, **judgement.get("baselines", {})}.items():
        cells = (number(row["metrics"][m], 3) if m in row["metrics"] else "–" for m in shown)
        table.add_row(Text(ranker_label(name), style="bold" if name == "palate" else ""), *cells)
    return table


def _cell(cell: Cell) -> Text:
    text = Text(f"{cell.mark} " if cell.mark else "", style="dim")
    text.append(cell.text, style="bold not dim" if cell.best else "not dim")
    if cell.interval:
        text.append("\n" + cell.interval.replace("0.", "."))
    return text


def _caption(judgement: Mapping[str, Any], tested: bool) -> Text:
    lines = [LEGEND] if tested else []
    skipped = judgement.get("skipped", {})
    lines += [f"{ranker_label(name)} was left out: {reason}" for name, reason in skipped.items()]
    return Text("\n".join(lines))
