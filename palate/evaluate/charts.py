"""The pictures of a report: small SVG charts whose colours follow the page, light or dark.

Every function gives one ``<svg>`` element for an HTML page, with a text alternative that holds the
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from palate.evaluate.svg import ACCENT, BAR, INK, LINE, MUTED, PAGE, WIDTH, figure_with_axes, style, svg
from palate.evaluate.wording import count, decimals, number

LONGEST_NAME = 30
"""Letters of a name beside a plot."""
DASHES = ("-", (0, (5, 2)), (0, (1, 2)), (0, (5, 2, 1, 2)))


@dataclass(frozen=True)
class Measured:
    """A named value with its interval (None where unknown); ``ours`` is drawn in the accent colour."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False
    note: str = ""


def bar_chart(title: str, rows: Sequence[Measured]) -> Markup:
    """Horizontal bars from zero with intervals and values."""
    with style():
        figure, axes = figure_with_axes(
            12 + 30 * len(rows), left=_room(row.name for row in rows), right=62, bottom=4
        )
        digits = decimals(row.value for row in rows)
        top = max([row.high or row.value for row in rows] + [1e-9])
        for y, row in enumerate(rows):
            axes.barh(y, row.value, height=0.56, color=ACCENT if row.ours else BAR)
            _whisker(axes, y, row, INK)
            _label(axes, y, row, number(row.value, digits))
        axes.set_xlim(0, top * 1.02)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color=LINE, linewidth=1)
        axes.set_xticks([])
        return svg(figure, f"{title}: {_in_words(rows, digits)}")


def dot_plot(title: str, rows: Sequence[Measured], top: float, names: Sequence[str]) -> Markup:
    """Dots with intervals on an axis from zero to ``top``; the note stands behind the value.

    Plots with the same ``top`` and ``names`` (those of all their rows) can be compared by eye.
    """
    with style():
        figure, axes = figure_with_axes(34 + 30 * len(rows), left=_room(names), right=136, bottom=24)
        digits = decimals([top])
        for y, row in enumerate(rows):
            axes.axhline(y, color=LINE, linewidth=1, zorder=0)
            _whisker(axes, y, row, ACCENT)
            axes.plot([row.value], [y], "o", color=ACCENT, markersize=7, markeredgecolor=PAGE)
            _label(axes, y, row, number(row.value, digits))
            axes.annotate(row.note, (1, y), (134, 0), color=MUTED, ha="right", **_beside(axes))
        axes.set_xlim(0, top)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _value_ticks(axes.xaxis, axes, "x")
        return svg(figure, f"{title}: {_in_words(rows, digits)}")


def line_chart(title: str, values: Sequence[float | None], best: int | None, label: str) -> Markup:
    """A value by pass (1, 2, …; None where not measured); the best pass is marked."""
    points = [(x, y) for x, y in enumerate(values, 1) if y is not None]
    digits = decimals(y for _, y in points)
    with style():
        figure, axes = figure_with_axes(220, left=48, right=24, bottom=42)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=INK, linewidth=1.8, solid_joinstyle="round")
        axes.plot(xs, ys, "o", color=INK, markersize=3.5)
        words = f"{title} by pass, {number(ys[0], digits)} at first and {number(ys[-1], digits)} at last"
        if best is not None:
            y = values[best - 1] or 0.0
            axes.plot([best], [y], "o", color=ACCENT, markersize=9, markeredgecolor=PAGE)
            words += f"; best in pass {best}: {number(y, digits)}"
            side = "left" if best <= len(values) / 2 else "right"
            axes.annotate(
                f"best, pass {best}: {number(y, digits)}", (best, y), (0, 12), textcoords="offset points",
                ha=side, color=ACCENT, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
        axes.margins(x=0.04, y=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel(label, color=MUTED)
        _value_ticks(axes.yaxis, axes, "y")
        return svg(figure, words)


@dataclass(frozen=True)
class Curve:
    """A named line of values, one for each place of a shared axis."""

    name: str
    values: Sequence[float]
    ours: bool = False


def curve_chart(title: str, places: Sequence[str], curves: Sequence[Curve], label: str) -> Markup:
    """Several lines over named places from zero up; each is named at its end, ours in the accent colour."""
    digits = decimals(value for curve in curves for value in curve.values)
    ends = _apart([curve.values[-1] for curve in curves], 0.085)
    top = 1.08 * max([*(value for curve in curves for value in curve.values), *ends, 1e-9])
    with style():
        right = _room(curve.name for curve in curves)
        figure, axes = figure_with_axes(240, left=48, right=right, bottom=42)
        for number_of, (curve, end) in enumerate(zip(curves, ends, strict=True)):
            colour = ACCENT if curve.ours else INK
            dashes = "-" if curve.ours else DASHES[number_of % len(DASHES)]
            xs = range(len(curve.values))
            axes.plot(xs, curve.values, color=colour, linewidth=2.4 if curve.ours else 1.4, linestyle=dashes)
            axes.plot(xs, curve.values, "o", color=colour, markersize=5 if curve.ours else 3)
            axes.annotate(
                curve.name, (len(curve.values) - 1, end), (8, 0), textcoords="offset points", color=colour,
                va="center", fontweight="bold" if curve.ours else "normal", annotation_clip=False,
            )  # fmt: skip
        axes.set_xticks(range(len(places)), places)
        axes.set_xlim(-0.2, len(places) - 0.9)
        axes.set_ylim(0, top)
        axes.set_xlabel(label, color=MUTED)
        _value_ticks(axes.yaxis, axes, "y")
        words = "; ".join(
            f"{curve.name} "
            + ", ".join(f"{place} {number(y, digits)}" for place, y in zip(places, curve.values, strict=True))
            for curve in curves
        )
        return svg(figure, f"{title} by {label}: {words}")


def _apart(heights: Sequence[float], share: float) -> list[float]:
    """The heights moved upwards as little as leaves this share of the highest between any two."""
    least = share * max([*heights, 1e-9])
    moved, floor = list(heights), -math.inf
    for place in sorted(range(len(heights)), key=lambda place: heights[place]):
        moved[place] = max(heights[place], floor)
        floor = moved[place] + least
    return moved


def column_chart(
    title: str, labels: Sequence[str], counts: Sequence[float], borders: Sequence[tuple[float, str]] = ()
) -> Markup:
    """Columns of counts; each border (place on the axis, where 0 is the first column) is a named line."""
    with style():
        figure, axes = figure_with_axes(220, left=56, right=12, bottom=30, top=28 if borders else 10)
        axes.bar(range(len(counts)), counts, width=0.78 if len(counts) < 60 else 1.0, color=BAR)
        for place, (at, name) in enumerate(borders):
            axes.axvline(at, color=ACCENT, linewidth=1.4, linestyle=(0, (3, 3)))
            side = "right" if at > len(counts) / 2 else "left"
            axes.annotate(
                name, (at, 1), (0, 4 + 13 * (len(borders) - 1 - place)), color=ACCENT, ha=side,
                xycoords=axes.get_xaxis_transform(), textcoords="offset points", annotation_clip=False,
            )  # fmt: skip
        step = math.ceil(len(labels) * _room(labels) / (WIDTH - 80)) if labels else 1
        shown = range(0, len(labels), step)
        axes.set_xticks(list(shown), [labels[x] for x in shown])
        axes.set_xlim(-0.6, len(counts) - 0.4)
        _value_ticks(axes.yaxis, axes, "y")
        pairs = ", ".join(f"{label} {count(value)}" for label, value in zip(labels, counts, strict=True))
        named = "".join(f"; {name}" for _, name in borders)
        return svg(figure, f"{title}: {pairs}{named}")


def share_curve(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """The share of events that the most popular share of the items holds; a fifth is marked."""
    xs, ys = [0.0, *(x for x, _ in points)], [0.0, *(y for _, y in points)]
    fifth = float(np.interp(0.2, xs, ys))
    words = f"the top 20% hold {fifth:.0%}"
    with style():
        figure, axes = figure_with_axes(220, left=48, right=16, bottom=42)
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        axes.plot(xs, ys, color=INK, linewidth=1.8)
        axes.plot([0.2], [fifth], "o", color=ACCENT, markersize=9, markeredgecolor=PAGE)
        axes.annotate(
            words, (0.2, fifth), (12, -13), textcoords="offset points", color=ACCENT, fontweight="bold"
        )
        ticks = [0, 0.25, 0.5, 0.75, 1]
        axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
        axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.04))
        axes.set_xlabel("share of the items, most popular first", color=MUTED)
        return svg(figure, f"{title}: {words} of the events")


def funnel_chart(title: str, steps: Sequence[tuple[str, int]], kept: int) -> Markup:
    """What each rule removed, one below the other, from all rows down to those ``kept``."""
    read = kept + sum(removed for _, removed in steps)
    with style():
        left = _room([*(name for name, _ in steps), "kept"])
        figure, axes = figure_with_axes(12 + 28 * (len(steps) + 2), left=left, right=126, bottom=4)
        rows = [("read", read, 0)]
        remaining = read
        for name, removed in steps:
            remaining -= removed
            rows.append((name, remaining, removed))
        rows.append(("kept", kept, 0))
        for y, (name, remaining, removed) in enumerate(rows):
            end = not removed
            axes.barh(y, remaining, height=0.6, color=BAR if end else LINE)
            axes.barh(y, removed, left=remaining, height=0.6, color=ACCENT)
            text = count(remaining) if end else f"−{count(removed)}"
            _label(axes, y, Measured(name, 0, ours=end), text, ACCENT if removed else INK)
            share = "" if end else f"{100 * removed / read:.1f}%".replace("0.0%", "<0.1%")
            axes.annotate(share, (1, y), (122, 0), color=MUTED, ha="right", **_beside(axes))
        axes.set_xlim(0, read)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks([])
        taken = ", ".join(f"{name} took {count(removed)}" for name, removed in steps)
        return svg(
            figure, f"{title}: {count(read)} rows read, {taken or 'nothing taken'}, {count(kept)} kept"
        )


def confusion_chart(title: str, names: Sequence[str], shares: Sequence[Sequence[float]]) -> Markup:
    """Squares whose shade is the share of a row that fell into a column; percentages where there is room."""
    size, shown = len(names), [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
    with style():
        side = min(30.0, (WIDTH - _room(shown) - 12) / size)
        left, top = _room(shown), _room(shown) + 8
        figure, axes = figure_with_axes(
            round(top + side * size + 12),
            left=left,
            right=round(WIDTH - left - side * size),
            bottom=12,
            top=top,
        )
        for y, row in enumerate(shares):
            for x, share in enumerate(row):
                colour = ACCENT if share > 0 else LINE
                axes.add_patch(
                    Rectangle(
                        (x - 0.46, y - 0.46), 0.92, 0.92, color=colour, alpha=max(0.06, share), linewidth=0
                    )
                )
                if side >= 24 and round(100 * share) > 0:
                    axes.annotate(
                        f"{100 * share:.0f}", (x, y), color=PAGE if share > 0.55 else INK,
                        ha="center", va="center_baseline", fontsize=10,
                    )  # fmt: skip
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.xaxis.tick_top()
        font = max(6.0, min(11.0, side - 1))
        axes.set_xticks(range(size), shown, rotation=90, color=INK, fontsize=font)
        axes.set_yticks(range(size), shown, color=INK, fontsize=font)
        axes.tick_params(length=0, pad=4)
        words = "; ".join(
            f"of {name}, "
            + ", ".join(f"{100 * s:.0f}% {other}" for other, s in zip(names, row, strict=True) if s >= 0.005)
            for name, row in zip(names, shares, strict=True)
        )
        return svg(figure, f"{title}: {words}")


def _beside(axes: Axes) -> dict[str, Any]:
    """Where text beside the plot hangs: at a share of the width and a row."""
    return {
        "xycoords": axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "va": "center_baseline",
        "annotation_clip": False,
    }


def _room(names: Iterable[str]) -> int:
    """Units that the longest of the names takes beside the plot."""
    return 16 + round(6.3 * min(LONGEST_NAME, max(map(len, names), default=0)))


def _label(axes: Axes, y: int, row: Measured, value: str, colour: str = INK) -> None:
    """The row's name to the left of the plot, its value to the right."""
    weight = "bold" if row.ours else "normal"
    name = row.name if len(row.name) <= LONGEST_NAME else f"{row.name[: LONGEST_NAME - 1]}…"
    axes.annotate(name, (0, y), (-10, 0), color=INK, ha="right", fontweight=weight, **_beside(axes))
    axes.annotate(value, (1, y), (8, 0), color=colour, ha="left", fontweight=weight, **_beside(axes))


def _whisker(axes: Axes, y: int, row: Measured, colour: str) -> None:
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [y, y], color=PAGE, linewidth=4.5, solid_capstyle="butt")
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")


def _value_ticks(axis: Any, axes: Axes, which: str) -> None:
    axis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y" if which == "y" else "x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace("-", "−"))


def _in_words(rows: Sequence[Measured], digits: int) -> str:
    return "; ".join(
        f"{row.name} {number(row.value, digits)}"
        + (
            f" ({number(row.low, digits)} to {number(row.high, digits)})"
            if row.low is not None and row.high is not None
            else ""
        )
        + (f", {row.note}" if row.note else "")
        for row in rows
    )
