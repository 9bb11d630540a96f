"""From requests to lists: histories → states → rules and search → items with their reasons."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palate.errors import PalateError
from palate.explain.answer import reasons
from palate.retrieve.rules import DAY, Past, Request
from palate.retrieve.walk import Pick
from palate.schema import FIRST_ID, UNKNOWN_TIME, Histories, IntArray
from palate.serve.loaded import Loaded
from palate.serve.metrics import Metrics
from palate.store.store import EventStore

MOST_EVENTS = 2_000
"""Events of a person in the store that count: the model reads fewer, and older ones may be shown again."""


@dataclass(frozen=True)
class Asked:
    """One list that somebody asks for."""

    k: int = 10
    user: str | None = None
    history: tuple[tuple[str, str | None, int | None], ...] | None = None
    """Instead of a user: item, type of event and time of each event, oldest first."""
    filter_seen: bool | None = None
    any_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    none_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    page: str = ""
    at: int | None = None
    """Microseconds since 1970."""
    event: str | None = None
    explain: bool = False
    language: str = "en"


@dataclass(frozen=True)
class Listed:
    """A list, and which model it is of."""

    model: str
    items: list[dict[str, Any]]


def answer_all(
    loaded: Loaded, store: EventStore, forgotten: frozenset[str], metrics: Metrics, asked: Sequence[Asked]
) -> list[Listed | Exception]:
    """The list of each, all by the same model; an error where one cannot be answered."""
    answers: list[Listed | Exception | None] = [None] * len(asked)
    histories: list[Histories] = []
    with metrics.stage("store"):
        for place, each in enumerate(asked):
            try:
                histories.append(history_of(loaded, store, forgotten, each))
            except PalateError as error:
                answers[place] = error
                histories.append(Histories.of([[]]))
    groups: dict[tuple[int | None, int | None], list[int]] = {}
    for place, each in enumerate(asked):
        if answers[place] is None:
            try:
                groups.setdefault((moment_of(loaded, each), event_of(loaded, each)), []).append(place)
            except PalateError as error:
                answers[place] = error
    for (at, event), places in groups.items():
        members = [(place, asked[place], histories[place]) for place in places]
        with metrics.stage("encode"), loaded.reading:
            joined = one_after_another([history for _, _, history in members])
            states, bonuses = loaded.model.states(joined, at, event, vectors=loaded.index.contents()[1])
        requests = [
            request_of(loaded, each, history, states[row], bonuses.of(row))
            for row, (_, each, history) in enumerate(members)
        ]
        with metrics.stage("search"):
            picked = select(loaded, requests)
        for place, picks in zip(places, picked, strict=True):
            if isinstance(picks, Exception):
                answers[place] = picks
            else:
                told = explained(loaded, asked[place], histories[place], at, event, picks, metrics)
                answers[place] = Listed(loaded.digest, shown(loaded, picks, told))
    assert all(answer is not None for answer in answers)
    return answers  # type: ignore[return-value]


def history_of(loaded: Loaded, store: EventStore, forgotten: frozenset[str], asked: Asked) -> Histories:
    """Everything that is known up to this moment."""
    if asked.history is not None:
        return loaded.history_from(asked.history)
    user = asked.user or ""
    return loaded.history_of(user, store.latest(user, MOST_EVENTS), trained=user not in forgotten)


def moment_of(loaded: Loaded, asked: Asked) -> int | None:
    """The time that the network is asked about, where it was trained to be."""
    return asked.at if loaded.model.settings.model.question_time else None


def event_of(loaded: Loaded, asked: Asked) -> int | None:
    """The code of the type of event that is asked for."""
    return None if asked.event is None else loaded.event_code(asked.event)


def request_of(
    loaded: Loaded, asked: Asked, history: Histories, state: np.ndarray, bonus: tuple[IntArray, np.ndarray]
) -> Request:
    """What the rules are asked."""
    has_time = loaded.model.prepared.schema.has_time
    now = time.time_ns() // 1_000 if asked.at is None else asked.at
    times = np.asarray(history.time, np.int64) if has_time else np.full(len(history.item), UNKNOWN_TIME)
    draw = zlib.crc32(f"{asked.user or ''} {now // DAY}".encode())
    return Request(
        state=state,
        k=asked.k,
        past=Past(history.item.astype(np.int64), history.event.astype(np.int64), times),
        now=now if has_time else UNKNOWN_TIME,
        filter_seen=loaded.model.filter_seen if asked.filter_seen is None else asked.filter_seen,
        any_of=asked.any_of,
        none_of=asked.none_of,
        exclude=ids_of(loaded, asked.exclude),
        bonus=bonus,
        page=asked.page,
        draw=draw,
        context=ids_of(loaded, asked.context),
    )


def ids_of(loaded: Loaded, keys: Sequence[str]) -> IntArray:
    """The ids of the keys that are known."""
    found = np.array([loaded.id_of(key) for key in keys], np.int64)
    return found[found >= FIRST_ID]


def select(loaded: Loaded, requests: Sequence[Request]) -> list[list[Pick] | Exception]:
    """The picks of each; of people without events those of the fallback."""
    picked: list[list[Pick] | Exception | None] = [None] * len(requests)
    known = [place for place, request in enumerate(requests) if len(request.past.item)]
    try:
        lists = loaded.rules.select_all(loaded.index, [requests[place] for place in known])
        for place, picks in zip(known, lists, strict=True):
            picked[place] = picks
    except PalateError:  # one request that cannot be must not spoil the others
        for place in known:
            picked[place] = alone(loaded, requests[place])
    for place, request in enumerate(requests):
        if not len(request.past.item):
            picked[place] = alone(loaded, request)
    return picked  # type: ignore[return-value]


def alone(loaded: Loaded, request: Request) -> list[Pick] | Exception:
    """The picks of one request, or why there are none."""
    try:
        if len(request.past.item):
            return loaded.rules.select(loaded.index, request)
        return loaded.fallback.select(loaded.index, request)
    except PalateError as error:
        return error


def explained(
    loaded: Loaded,
    asked: Asked,
    history: Histories,
    at: int | None,
    event: int | None,
    picks: Sequence[Pick],
    metrics: Metrics,
) -> list[dict[str, Any]] | None:
    """The reasons of each pick, where they are asked for and there is a history to name."""
    if not asked.explain or not len(history.item) or not picks:
        return None
    with metrics.stage("reasons"), loaded.reading:
        return reasons(
            loaded.model,
            history,
            np.array([pick.id for pick in picks]),
            language=asked.language,
            titles=loaded.titles_of,
            parts=loaded.parts,
            vectors=loaded.index.contents()[1],
            at=at,
            event=event,
        )


def shown(loaded: Loaded, picks: Sequence[Pick], told: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The picks as the interface shows them."""
    items = loaded.items_of(np.array([pick.id for pick in picks], np.int64))
    for place, (item, pick) in enumerate(zip(items, picks, strict=True)):
        item |= {"rank": place + 1, "score": float(pick.score), "source": pick.source}
        if told is not None:
            item["reasons"] = told[place]
    return items


def one_after_another(histories: Sequence[Histories]) -> Histories:
    """All of them as one."""
    lengths = [len(each.item) for each in histories]
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([each.item for each in histories]),
        np.concatenate([each.event for each in histories]),
        np.concatenate([each.time for each in histories]),
    )
