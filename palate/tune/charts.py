"""The pictures of a search: how it went, and what each setting did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from palate.evaluate.svg import ACCENT, BAR, INK, LINE, MUTED, PAGE, figure_with_axes, style, svg
from palate.evaluate.wording import decimals, number


def search_chart(title: str, trials: Sequence[dict[str, Any]], smaller_is_better: bool) -> Markup:
    """Every trial at its number and value, the best so far as a line; hollow ones were stopped early."""
    done = [(t["trial"], t["value"]) for t in trials if t["value"] is not None]
    stopped = [(t["trial"], t["passes"][-1]) for t in trials if t["value"] is None and t["passes"]]
    better = np.minimum if smaller_is_better else np.maximum
    numbers, values = zip(*done, strict=True)
    best_so_far = better.accumulate(values)
    digits = decimals(values)
    with style():
        figure, axes = figure_with_axes(220, left=52, right=24, bottom=42)
        last = max(trial["trial"] for trial in trials)
        axes.step([*numbers, last], [*best_so_far, best_so_far[-1]], where="post", color=LINE, linewidth=2)
        if stopped:
            axes.plot(*zip(*stopped, strict=True), "o", color=PAGE, markeredgecolor=BAR, markersize=6)
        axes.plot(numbers, values, "o", color=INK, markersize=5)
        best = int(np.argmax(np.asarray(values) == best_so_far[-1]))
        axes.plot([numbers[best]], [values[best]], "o", color=ACCENT, markersize=9, markeredgecolor=PAGE)
        axes.margins(x=0.04, y=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlabel("trial; hollow ones were stopped early", color=MUTED)
        words = f"{title} by trial: first {number(values[0], digits)}, best {number(values[best], digits)}"
        return svg(figure, f"{words} in trial {numbers[best]}; {len(stopped)} stopped early")


def setting_chart(name: str, trials: Sequence[dict[str, Any]], log: bool) -> Markup:
    """The value of every finished trial over what it drew for one setting."""
    found = [(t["drawn"][name], t["value"]) for t in trials if name in t["drawn"] and t["value"] is not None]
    drawn, values = [value for value, _ in found], [value for _, value in found]
    with style():
        figure, axes = figure_with_axes(200, left=52, right=24, bottom=42)
        if any(isinstance(value, str) for value in drawn):
            choices = sorted(set(drawn), key=lambda text: (len(text), text))
            places: list[float] = [choices.index(value) for value in drawn]
            axes.set_xticks(range(len(choices)), [text.strip('"') for text in choices])
        else:
            places = list(drawn)
            if log:
                axes.set_xscale("log")
            else:
                axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.plot(places, values, "o", color=INK, markersize=5)
        axes.margins(x=0.08, y=0.18)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        axes.minorticks_off()
        digits = decimals(values)
        pairs = ", ".join(f"{value}: {number(y, digits)}" for value, y in found)
        return svg(figure, f"{name}: {pairs}")
