"""The answer in one sentence, worked out from the numbers; it says so when a baseline leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.evaluate.results import rivals
from palate.evaluate.wording import (
    NUMERALS,
    OURS,
    THINGS,
    metric_label,
    metric_of,
    nearest_cutoff,
    number,
    ranker_label,
)


@dataclass(frozen=True)
class Headline:
    answer: str
    certainty: str
    shares: tuple[tuple[str, float], ...]
    """The rankers compared and how many of 100 each finds, ours first; empty without a hit rate."""


def headline(
    judgement: Mapping[str, Any], target_events: Sequence[str] = (), confidence: float = 0.95
) -> Headline:
    """What the hit rate at the cut-off nearest to 10 says, against the best baseline by it."""
    metric = nearest_cutoff(judgement.get("metrics", {}), "hit_rate")
    if metric is None:
        return Headline(f"{OURS} was judged, but not by a hit rate.", "", ())
    ours = 100 * float(judgement["metrics"][metric]["value"])
    others = {
        name: 100 * float(values[metric]["value"])
        for name, values in rivals(judgement).items()
        if metric in values
    }
    say = _Sentence(judgement.get("split") == "leave_one_out", target_events, metric_of(metric)[1] or 10)
    if not others:
        alone = "No other method was judged beside it, so the number stands alone."
        return Headline(say.alone(ours), alone, ((OURS, ours),))
    best = max(others, key=lambda name: others[name])
    certainty = _certainty(judgement, metric, best, confidence)
    shares = ((OURS, ours), (ranker_label(best), others[best]))
    kind = "traditional method" if best in judgement.get("baselines", {}) else "simple rule"
    return Headline(say.beside(ours, ranker_label(best), others[best], kind), certainty, shares)


def class_headline(judgement: Mapping[str, Any]) -> Headline:
    """What macro F1 says of the classes of items, against the best other way to tell them."""
    ours = float(judgement["metrics"]["macro_f1"])
    others = {name: float(row["metrics"]["macro_f1"]) for name, row in judgement.get("baselines", {}).items()}
    said = f"tells '{judgement.get('field', '')}' of held-out items with a macro F1 of"
    if not others:
        return Headline(f"{OURS} {said} {number(ours, 3)}.", "", ())
    best = max(others, key=lambda name: others[name])
    if ours > others[best]:
        answer = f"{OURS} {said} {number(ours, 3)}; {ranker_label(best)}, {number(others[best], 3)}."
    else:
        answer = f"{ranker_label(best)} {said} {number(others[best], 3)}; {OURS}, {number(ours, 3)}."
    return Headline(answer, "", ())


@dataclass(frozen=True)
class _Sentence:
    one_target: bool
    target_events: Sequence[str]
    k: int

    def alone(self, ours: float) -> str:
        return self._finding(OURS, _of_100(ours, _digits(ours))) + "."

    def beside(self, ours: float, best: str, theirs: float, kind: str) -> str:
        digits = _digits(ours, theirs)
        mine, other = _of_100(ours, digits), _of_100(theirs, digits)
        if mine == other:
            return f"{self._finding(OURS, mine)}, and so does the best {kind}, {best}."
        if ours > theirs:
            return f"{self._finding(OURS, mine)}; the best {kind}, {best}, {other}."
        return f"{self._finding(f'{best}, a {kind},', other)}; {OURS} {mine}."

    def _finding(self, who: str, share: str) -> str:
        ten = NUMERALS.get(self.k, str(self.k))
        suggestions = f"{ten} suggestion{'s' if self.k != 1 else ''}"
        if not self.one_target:
            return f"{who} finds something right for {share} of 100 people with {suggestions}"
        things = "items"
        if len(self.target_events) == 1:
            things = THINGS.get(self.target_events[0], "items")
        return f"{who} finds {share} of 100 next {things} among {suggestions}"


def _digits(*values: float) -> int:
    """0 where whole numbers tell the values apart and are not too coarse, else 1."""
    whole = min(values) >= 9.5 and len({round(value) for value in values}) == len(values)
    return 0 if whole else 1


def _of_100(value: float, digits: int) -> str:
    return number(value, digits)


def _certainty(judgement: Mapping[str, Any], metric: str, best: str, confidence: float) -> str:
    """One sentence on the paired comparison, by the headline's metric or else by NDCG."""
    tests = judgement.get("comparisons", {}).get(best, {})
    other = nearest_cutoff(tests, "ndcg")
    if metric not in tests and other is None:
        return "Whether the difference is more than chance was not tested."
    used = metric if metric in tests else str(other)
    test, scale, digits, unit = tests[used], 1.0, 4, ""
    by = f"By {metric_label(used)}, "
    if used == metric:
        scale, digits, unit, by = 100.0, 1, " of 100", ""
    low, high = scale * test["low"], scale * test["high"]
    level = f"{number(100 * confidence, 0)}% interval"
    if test["low"] <= 0 <= test["high"]:
        words = f"the difference is not certain: its {level} runs from {number(low, digits)} "
        sentence = f"{by}{words}to {number(high, digits)}{unit}, zero included."
    else:
        leader = OURS if test["low"] > 0 else ranker_label(best)
        near, far = sorted((abs(low), abs(high)))
        words = f"the lead of {leader} is certain ({level} {number(near, digits)} "
        sentence = f"{by}{words}to {number(far, digits)}{unit})."
    return sentence[0].upper() + sentence[1:]
