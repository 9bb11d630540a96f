"""Lists for people: those whose events are stored, and those who tell their history in the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from palate.errors import DataError
from palate.serve.answers import Asked
from palate.serve.engine import Engine
from palate.serve.keys import READ
from palate.serve.problems import PROBLEMS
from palate.serve.wire import (
    MOST_K,
    MOST_NAMED,
    HistoryIn,
    Key,
    ListView,
    MetIn,
    Moment,
    NearPeopleView,
    moment,
)

Keys = Annotated[list[Key], Field(max_length=MOST_NAMED), Query()]


def recommendations_router(engine: Engine) -> APIRouter:
    """The routes of lists."""
    router = APIRouter(prefix="/v1", tags=["recommendations"], dependencies=[READ], responses=PROBLEMS)

    @router.get("/users/{user:path}/recommendations", response_model_exclude_none=True)
    async def recommendations(
        user: Annotated[Key, Path()],
        k: Annotated[int, Query(ge=1, le=MOST_K)] = 10,
        filter_seen: Annotated[bool | None, Query()] = None,
        any_of: Keys = [],  # noqa: B006 - FastAPI copies it
        none_of: Keys = [],  # noqa: B006
        exclude: Keys = [],  # noqa: B006
        context: Keys = [],  # noqa: B006
        page: Annotated[str, Query(max_length=256)] = "",
        at: Annotated[Moment | None, Query()] = None,
        event: Annotated[Key | None, Query()] = None,
        explain: bool = False,
        language: Literal["en", "zh"] = "en",
    ) -> ListView:
        """The best items for this person, by all events up to this moment.

        ``any_of`` and ``none_of`` are filters ``FIELD:LABEL``, and may be repeated: labels of one field are
        alternatives, fields must all hold. Who has no events gets what is near to ``context``, popular or
        new.
        """
        asked = Asked(
            k=k,
            user=user,
            filter_seen=filter_seen,
            any_of=filters(any_of),
            none_of=filters(none_of),
            exclude=tuple(exclude),
            context=tuple(context),
            page=page,
            at=None if at is None else moment(at),
            event=event,
            explain=explain,
            language=language,
        )
        answer = await engine.recommend(asked)
        return ListView.model_validate({"user": user, "model": answer.model, "items": answer.items})

    @router.post("/recommendations", response_model_exclude_none=True)
    async def recommend_for(told: HistoryIn) -> ListView:
        """The best items for somebody with this history. Nothing is stored."""
        asked = Asked(
            k=told.k,
            history=tuple(entry_of(each) for each in told.history),
            filter_seen=told.filter_seen,
            any_of=filters(told.any_of),
            none_of=filters(told.none_of),
            exclude=tuple(told.exclude),
            context=tuple(told.context),
            page=told.page,
            at=None if told.at is None else moment(told.at),
            event=told.event,
            explain=told.explain,
            language=told.language,
        )
        answer = await engine.recommend(asked)
        return ListView.model_validate({"model": answer.model, "items": answer.items})

    @router.get("/users/{user:path}/similar")
    def similar_people(
        user: Annotated[Key, Path()], k: Annotated[int, Query(ge=1, le=MOST_K)] = 10
    ) -> NearPeopleView:
        """People of the training data whose taste is nearest; nobody, where this person is not among them."""
        present = engine.present
        near = [] if user in engine.forgotten else present.similar_people(user, k + len(engine.forgotten))
        users = [{"user": key, "score": score} for key, score in near if key not in engine.forgotten][:k]
        return NearPeopleView.model_validate({"model": present.digest, "users": users})

    return router


def entry_of(met: str | MetIn) -> tuple[str, str | None, int | None]:
    """Item, type of event and time."""
    if isinstance(met, str):
        return met, None, None
    return met.item, met.event, None if met.time is None else moment(met.time)


def filters(told: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By field, its labels.

    Raises:
        DataError: a filter without a colon.
    """
    found: dict[str, tuple[str, ...]] = {}
    for each in told:
        name, colon, label = each.partition(":")
        if not colon:
            raise DataError(f"The filter {each!r} has no colon; wanted FIELD:LABEL.")
        found[name] = (*found.get(name, ()), label)
    return found
