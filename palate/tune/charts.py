"""The pictures of a search: how it went, pass by pass, and what each setting did."""

from __future__ import annotations

import json
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from palate.evaluate.svg import ACCENT, BAR, INK, LINE, MUTED, PAGE, WIDTH, figure_with_axes, style, svg
from palate.evaluate.wording import decimals, number
from palate.tune.progress import plain
from palate.tune.space import Choice, Range
from palate.tune.trials import State, Trial, best_of

LETTER = 7
"""Units that a letter of an axis takes."""


def search_chart(title: str, trials: Sequence[Trial], smaller_is_better: bool) -> Markup:
    """Every trial at its number and value, and the best so far as a line.

    Hollow dots were stopped early; crosses at the foot failed.
    """
    ordered = sorted(trials, key=lambda trial: trial.number)
    best = best_of(trials, smaller_is_better)
    assert best is not None
    with style():
        figure, axes = figure_with_axes(240, left=52, right=24, bottom=42, top=24)
        leaders = [(n, best_of(ordered[: n + 1], smaller_is_better)) for n in range(len(ordered))]
        steps = [(ordered[n].number, leader.value) for n, leader in leaders if leader is not None]
        axes.step(*zip(*steps, strict=True), where="post", color=BAR, linewidth=1.8)
        _dots(axes, [(trial, trial.number) for trial in ordered], best)
        failed = [trial.number for trial in ordered if trial.state == State.FAILED]
        axes.plot(failed, [0.02] * len(failed), "x", color=MUTED, transform=axes.get_xaxis_transform())
        _mark(axes, best, best.number, left=best.number <= ordered[-1].number / 2)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("trial, 0 with the current settings", color=MUTED)
        _value_axis(axes)
        pruned = sum(trial.state == State.PRUNED for trial in trials)
        return svg(
            figure,
            f"{title} by trial: best {number(best.value or 0.0, 4)} in trial {best.number} of {len(trials)}; "
            f"{pruned} stopped early, {len(failed)} failed",
        )


def passes_chart(title: str, trials: Sequence[Trial], smaller_is_better: bool) -> Markup:
    """The metric after every pass, a line per trial; a trial that was stopped ends in a hollow dot."""
    best = best_of(trials, smaller_is_better)
    assert best is not None
    with style():
        figure, axes = figure_with_axes(240, left=52, right=24, bottom=42, top=24)
        for trial in sorted(trials, key=lambda trial: (trial is best, trial.number == 0)):
            colour, width = (
                (ACCENT, 2.2) if trial is best else (INK, 1.6) if trial.number == 0 else (BAR, 1.0)
            )
            passes = range(1, len(trial.passes) + 1)
            axes.plot(passes, trial.passes, color=colour, linewidth=width, solid_joinstyle="round")
            if trial.state == State.PRUNED:
                axes.plot(
                    passes[-1:], trial.passes[-1:], "o", color=PAGE, markeredgecolor=MUTED, markersize=5
                )
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("pass over the training data", color=MUTED)
        _value_axis(axes)
        longest = max(len(trial.passes) for trial in trials)
        return svg(figure, f"{title} after every pass of {len(trials)} trials, {longest} passes at most")


def setting_chart(
    name: str, part: Range | Choice, trials: Sequence[Trial], smaller_is_better: bool
) -> Markup:
    """The value of every trial over what it had for one setting; trials outside of the space are left out."""
    best = best_of(trials, smaller_is_better)
    with style():
        figure, axes = figure_with_axes(210, left=52, right=24, bottom=42)
        if isinstance(part, Choice):
            texts = [json.dumps(value) for value in part.values]
            places = [
                (trial, float(texts.index(text)))
                for trial in trials
                if (text := json.dumps(trial.values[name])) in texts
            ]
            room = (WIDTH - 76) / len(texts)
            slanted = max(map(len, texts)) * LETTER > room
            labels = [text.strip('"') for text in texts]
            axes.set_xticks(range(len(texts)), labels, rotation=20 if slanted else 0)
            axes.set_xlim(-0.6, len(texts) - 0.4)
        else:
            if part.log:
                axes.set_xscale("log")
                middle = (part.low * part.high) ** 0.5
                axes.set_xticks([part.low, middle, part.high], map(plain, (part.low, middle, part.high)))
                edge = (part.high / part.low) ** 0.06
                axes.set_xlim(part.low / edge, part.high * edge)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=part.whole))
                edge = 0.06 * (part.high - part.low)
                axes.set_xlim(part.low - edge, part.high + edge)
            places = [(trial, trial.values[name]) for trial in trials if _inside(part, trial.values[name])]
        axes.minorticks_off()
        _dots(axes, places, best)
        _value_axis(axes)
        digits = decimals(trial.value or 0.0 for trial, _ in places)
        pairs = ", ".join(
            f"{plain(trial.values[name])}: {number(trial.value, digits)}"
            for trial, _ in places
            if trial.value is not None
        )
        return svg(figure, f"{name}: {pairs}")


def _inside(part: Range, value: object) -> bool:
    return isinstance(value, int | float) and part.low <= value <= part.high


def _dots(axes: Axes, places: Sequence[tuple[Trial, float]], best: Trial | None) -> None:
    """Full where a trial was trained to its end, hollow where it was stopped, the best one in the accent."""
    for state, fill, edge in ((State.PRUNED, PAGE, MUTED), (State.DONE, INK, PAGE)):
        some = [(x, trial.value) for trial, x in places if trial.state == state and trial is not best]
        if some:
            axes.plot(*zip(*some, strict=True), "o", color=fill, markeredgecolor=edge, markersize=6)
    for trial, x in places:
        if trial is best and trial.value is not None:
            axes.plot([x], [trial.value], "o", color=ACCENT, markersize=9, markeredgecolor=PAGE)


def _mark(axes: Axes, trial: Trial, x: float, *, left: bool) -> None:
    axes.annotate(
        f"best, trial {trial.number}: {number(trial.value or 0.0, 4)}", (x, trial.value or 0.0), (0, 11),
        textcoords="offset points", ha="left" if left else "right", color=ACCENT, fontweight="bold",
        annotation_clip=False,
    )  # fmt: skip


def _value_axis(axes: Axes) -> None:
    axes.margins(y=0.14)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace("-", "−"))
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
