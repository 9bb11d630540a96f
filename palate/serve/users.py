"""People: everything that is kept of one, and forgetting it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from palate.serve.engine import FORGET, Engine
from palate.serve.keys import ADMIN
from palate.serve.problems import PROBLEMS
from palate.serve.wire import ForgottenView, Key, PersonView


def users_router(engine: Engine) -> APIRouter:
    """The routes of people."""
    router = APIRouter(prefix="/v1/users", tags=["users"], dependencies=[ADMIN], responses=PROBLEMS)

    @router.get("/{user:path}")
    def export(user: Annotated[Key, Path()]) -> PersonView:
        """Everything that is kept of a person: the events of the store, and those that training saw."""
        engine.audit("admin", "export user", user)
        trained = [] if user in engine.forgotten else engine.present.trained_events(user)
        events = [event._asdict() for event in engine.store.events_of(user)]
        return PersonView.model_validate({"user": user, "events": events, "trained": trained})

    @router.delete("/{user:path}")
    def forget(user: Annotated[Key, Path()]) -> ForgottenView:
        """No event of the person is left in the store, and those that training saw are not read any more.

        The weights of the model are what they were; the next training does not see the person, if the data
        set does not hold their events either.
        """
        engine.audit("admin", FORGET, user)
        gone = engine.store.forget(user)
        engine.listen()
        return ForgottenView(user=user, forgotten=gone)

    return router
