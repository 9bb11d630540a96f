"""New people: how good the answers are when little is known of somebody.

The same people are asked the same questions with less and less of their histories, so that the curve
shows what knowing more is worth and not who has more events.
"""

from __future__ import annotations

import numpy as np

from palate.data.prepared import Prepared
from palate.evaluate import metrics
from palate.evaluate.protocol import EventsSeen, Ranker, rank
from palate.evaluate.significance import bootstrap_intervals
from palate.schema import Questions
from palate.settings import EvaluateSettings

EVENTS = (1, 2, 3, 5, 10, 20)
METRIC = "ndcg@10"
FEWEST_PEOPLE = 200
"""The curve goes up to as many events as so many people have, or half of those asked where that is less."""
MOST_PEOPLE = 2_000


def newcomers(questions: Questions) -> Questions:
    """The questions that the curve is made of: at most 2,000 people, evenly spaced, with enough events.

    Enough is the largest of ``EVENTS`` that at least ``FEWEST_PEOPLE`` of the people asked have, or half
    of them where that is less.
    """
    lengths = questions.histories.lengths
    wanted = min(FEWEST_PEOPLE, (len(questions) + 1) // 2)
    enough = [events for events in EVENTS if np.count_nonzero(lengths >= events) >= wanted]
    return questions.select(np.flatnonzero(lengths >= max(enough, default=1))).spread(MOST_PEOPLE)


def by_events_seen(
    ranker: Ranker, prepared: Prepared, people: Questions | None, settings: EvaluateSettings, seed: int
) -> tuple[EventsSeen, ...]:
    """``METRIC`` for these ``newcomers`` when only their last 1, 2, 3, … events are known.

    What was cut away is as if it had never been: with ``filter_seen`` it may be recommended, as to
    somebody who is new. Ends with the events that all of the people have; empty without people.
    """
    if people is None or not len(people):
        return ()
    candidates = prepared.candidates(cold_targets=settings.cold_targets)
    shortest = int(people.histories.lengths.min())
    counts = [events for events in EVENTS if events <= shortest]
    wanted = metrics.Metric.parse(METRIC)
    values = []
    for events in counts:
        asked = people.knowing_only(events)
        found = rank(ranker, asked, candidates, filter_seen=settings.filter_seen, k=0)
        values.append(metrics.of_ranks(wanted, found.ranks, found.offsets, found.loss))
    table = np.column_stack(values)
    bounds = bootstrap_intervals(
        table, resamples=settings.bootstrap, confidence=settings.confidence, seed=seed
    )
    return tuple(
        EventsSeen(events, float(mean), float(low), float(high))
        for events, mean, (low, high) in zip(counts, table.mean(axis=0), bounds, strict=True)
    )
