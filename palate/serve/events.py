"""Events come in; the answer says that they are on the disk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import Field

from palate.schema import UNKNOWN
from palate.serve.engine import Engine
from palate.serve.wire import MOST_EVENTS, EventIn, EventsOut
from palate.store.records import StoredEvent

Events = Annotated[list[EventIn], Field(max_length=MOST_EVENTS)]


def events_router(engine: Engine) -> APIRouter:
    """The route; it writes."""
    router = APIRouter(prefix="/v1", tags=["events"])

    @router.post("/events")
    def post_events(body: Annotated[EventIn | Events, Body()]) -> EventsOut:
        """Stores one event or several; all of them or, on an error, none.

        The same event again is counted as known. Another event under a known id is an error (409).
        """
        sent = body if isinstance(body, list) else [body]
        events = [StoredEvent(**each.model_dump()) for each in sent]
        result = engine.append(events)
        live = engine.live
        return EventsOut(
            stored=result.stored,
            known=result.known,
            unknown_items=sorted({each.item for each in sent if live.id_of(each.item) == UNKNOWN}),
            unknown_events=sorted({each.event for each in sent if live.people.code(each.event) is None}),
        )

    return router
