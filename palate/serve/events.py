"""``POST /v1/events``: what people do, kept durably before the answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from palate.serve.engine import Engine
from palate.serve.keys import WRITE
from palate.serve.problems import PROBLEMS
from palate.serve.wire import MOST_EVENTS, EventIn, StoredView, moment
from palate.store.records import StoredEvent


def events_router(engine: Engine) -> APIRouter:
    """The routes of events."""
    router = APIRouter(prefix="/v1", tags=["events"], dependencies=[WRITE], responses=PROBLEMS)
    many = Annotated[list[EventIn], Body(max_length=MOST_EVENTS)]

    @router.post("/events")
    def post_events(events: EventIn | many) -> StoredView:
        """The events are on the disk when this answers. Posting them again is harmless: an ``event_id`` counts once.

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
        present = engine.present
        types = present.model.prepared.schema.events
        return StoredView(
            stored=result.stored,
            known=result.known,
            unknown_items=sorted({each.item for each in listed if present.id_of(each.item) == 1}),
            unknown_events=sorted({each.event for each in listed} - set(types)),
        )

    return router
