"""``POST /v1/events``: what people do, kept durably before the answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field

from palate.serve.engine import Engine
from palate.serve.keys import WRITE
from palate.serve.problems import PROBLEMS
from palate.serve.wire import MOST_EVENTS, EventIn, StoredView, moment
from palate.store.records import StoredEvent

Events = Annotated[EventIn | Annotated[list[EventIn], Field(max_length=MOST_EVENTS)], Body()]


def events_router(engine: Engine) -> APIRouter:
    """The routes of events."""
    router = APIRouter(prefix="/v1", tags=["events"], dependencies=[WRITE], responses=PROBLEMS)

    @router.post("/events")
    def post_events(events: Events) -> StoredView:
        """The events are on the disk when this answers. An ``event_id`` counts once, however often it comes.

        All of a list are stored, or none.
        """
        listed = events if isinstance(events, list) else [events]
        with engine.metrics.stage("append"):
            result = engine.store.append(
                [
                    StoredEvent(
                        each.event_id, each.user, each.item, each.event, moment(each.time), each.value
                    )
                    for each in listed
                ]
            )
        engine.metrics.events.inc(result.stored)
        present = engine.present
        types = present.model.prepared.schema.events
        return StoredView(
            stored=result.stored,
            known=result.known,
            unknown_items=sorted({each.item for each in listed if present.id_of(each.item) == 1}),
            unknown_events=sorted({each.event for each in listed} - set(types)),
        )

    return router
