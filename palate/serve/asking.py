"""From what is asked to lists of items: requests that wait together go down together."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from palate.errors import PalateError, SettingsError, StoreError, did_you_mean
from palate.explain.answer import reasons
from palate.retrieve.rule_settings import Labels
from palate.retrieve.rules import DAY, Past, Request
from palate.retrieve.walk import Pick
from palate.schema import Histories, IntArray
from palate.serve.inside import told_by
from palate.serve.people import joined

if TYPE_CHECKING:  # which asks for lists itself
    from palate.serve.live import Live

Stage = Callable[[str], AbstractContextManager[None]]
"""Times what is done within, under the name of a stage."""


def untimed(name: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """For whoever does not want to know."""
    return nullcontext()


class Met(NamedTuple):
    """An event of a history that is sent along."""

    item: str
    event: str | None
    time: int | None


@dataclass(frozen=True)
class Asked:
    """One list that is asked for: of a person, or after a history."""

    user: str | None = None
    history: tuple[Met, ...] = ()
    """Read where ``user`` is None."""
    k: int = 10
    filter_seen: bool | None = None
    any_of: Mapping[str, Labels] = field(default_factory=dict)
    none_of: Mapping[str, Labels] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    page: str = ""
    at: int | None = None
    event: str | None = None


@dataclass(frozen=True)
class Answered:
    """A list, and what it was made of."""

    live: Live
    asked: Asked
    history: Histories
    """One row."""
    code: int | None
    """Of the event type that was asked for, where the model hears that."""
    picks: Sequence[Pick]

    def items(self) -> list[dict[str, Any]]:
        """Each place of the list with the item's fields."""
        found = self.live.items_of(np.array([pick.id for pick in self.picks], np.int64))
        return [
            item | {"rank": rank, "score": pick.score, "source": pick.source}
            for rank, (item, pick) in enumerate(zip(found, self.picks, strict=True), 1)
        ]

    def reasons(self, language: str, inside: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Why each item is there, as ``palate.explain.answer.reasons``; of those ``inside`` also which parts
        of their fields."""
        live, ids = self.live, np.array([pick.id for pick in self.picks], np.int64)
        with live.index.guard.reading():
            table = live.index.contents()[1]
        return reasons(
            live.model,
            self.history,
            ids,
            language=language,
            titles=live.titles,
            parts=live.parts(),
            vectors=table,
            at=self.asked.at,
            event=self.code,
            told={number: told_by(live, number) for number in live.ids_of(inside).tolist()},
        )


class _Understood(NamedTuple):
    asked: Asked
    history: Histories
    code: int | None


def answers(live: Live, asked: Sequence[Asked], stage: Stage) -> list[Answered | PalateError]:
    """For each of those who ask, a list, or the error that they are to be told."""
    found: list[Answered | PalateError | None] = [None] * len(asked)
    understood: dict[int, _Understood] = {}
    with stage("history"):
        for row, each in enumerate(asked):
            try:
                understood[row] = _understood(live, each)
            except StoreError:
                raise
            except PalateError as error:
                found[row] = error
    with stage("model"):
        requests = _requests(live, understood)
    with stage("search"):
        known = [row for row, each in understood.items() if len(each.history.item)]
        picked = live.rules.select_all(live.index, [requests[row] for row in known])
        lists = dict(zip(known, picked, strict=True))
        for row, one in understood.items():
            picks = lists[row] if row in lists else live.fallback.select(live.index, requests[row])
            found[row] = Answered(live, one.asked, one.history, one.code, picks)
    return [each for each in found if each is not None]


def _understood(live: Live, asked: Asked) -> _Understood:
    """What is asked, in ids.

    Raises:
        SettingsError: a filter by what is no field of labels; a time or an event type that this model was not
            trained to be asked for.
    """
    for name in (*asked.any_of, *asked.none_of):
        live.catalogue.labels(name)
    if asked.at is not None:
        _check_time(live)
    code = None if asked.event is None else _event_code(live, asked.event)
    if asked.user is not None:
        return _Understood(asked, live.history(asked.user), code)
    return _Understood(asked, _sent(live, asked.history), code)


def _sent(live: Live, history: Sequence[Met]) -> Histories:
    """The history that was sent along, without items that are not known.

    Raises:
        SettingsError: an event type that is not known.
    """
    schema = live.model.prepared.schema
    rows = []
    for met in history:
        code = live.people.code(schema.target_events[0] if met.event is None else met.event)
        if code is None:
            raise SettingsError(
                f"'{met.event}' is no event type. {did_you_mean(str(met.event), schema.events)}"
            )
        items = live.ids_of([met.item])
        if len(items):
            rows.append((int(items[0]), code, met.time))
    return live.people.sent(rows)


def _requests(live: Live, understood: Mapping[int, _Understood]) -> dict[int, Request]:
    """One pass of the network for all that ask for the same time and event type."""
    alike: defaultdict[tuple[int | None, int | None], list[int]] = defaultdict(list)
    for row, each in understood.items():
        alike[each.asked.at, each.code].append(row)
    requests = {}
    now = time.time_ns() // 1_000
    for (at, code), rows in alike.items():
        answer = live.states(joined([understood[row].history for row in rows]), at, code)
        for place, row in enumerate(rows):
            asked, history, _ = understood[row]
            bonus = answer.bonuses.of(place)
            requests[row] = Request(
                state=answer.states[place],
                k=asked.k,
                past=Past(history.item, history.event, history.time),
                now=now if at is None else at,
                filter_seen=live.model.filter_seen if asked.filter_seen is None else asked.filter_seen,
                any_of=asked.any_of,
                none_of=asked.none_of,
                exclude=live.ids_of(asked.exclude),
                bonus=bonus if len(bonus[0]) else None,
                page=asked.page,
                draw=_draw(asked, now if at is None else at),
                context=_distinct(live.ids_of(asked.context)),
            )
    return requests


def _distinct(ids: IntArray) -> IntArray:
    found: IntArray = np.unique(ids)
    return found


def _draw(asked: Asked, now: int) -> int:
    """The same for the same person, or the same history, all day."""
    who = f"u{asked.user}" if asked.user is not None else f"h{[met.item for met in asked.history]}"
    digest = hashlib.blake2b(f"{now // DAY} {who}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def _check_time(live: Live) -> None:
    if not live.model.prepared.schema.has_time:
        raise SettingsError("at: the data have an order and no times. Leave it out.")
    if not (live.model.settings.model.question_time and live.model.has_time):
        raise SettingsError("at: this model was not trained to be asked for a time. Leave it out.")


def _event_code(live: Live, event: str) -> int | None:
    """Code of the event type asked for; None where it is the only one that is predicted."""
    schema = live.model.prepared.schema
    if event not in schema.target_events:
        raise SettingsError(
            f"event is '{event}', which is not predicted. {did_you_mean(event, schema.target_events)}"
        )
    if len(schema.target_events) == 1:
        return None
    if not live.model.settings.model.question_event:
        raise SettingsError("event: this model was not trained to be asked for an event type. Leave it out.")
    return schema.events.index(event)
