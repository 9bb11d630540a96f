"""People over REST: whose taste is near, what is kept of somebody, and forgetting it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from palate.serve.audit import Admin, audit
from palate.serve.engine import Engine
from palate.serve.similar import Everybody
from palate.serve.wire import (
    MOST_K,
    EventOut,
    ForgottenOut,
    NearUserOut,
    PathKey,
    SimilarUsersOut,
    TrainedEventOut,
    UserOut,
)


def reading_users_router(engine: Engine) -> APIRouter:
    """The route that tells nobody's events."""
    router, everybody = APIRouter(prefix="/v1/users", tags=["people"]), Everybody()

    @router.get("/{user}/similar")
    def similar(user: PathKey, k: Annotated[int, Query(ge=1, le=MOST_K)] = 10) -> SimilarUsersOut:
        """People of the training data whose taste lies closest by cosine."""
        live = engine.now()
        among, keys, scores = everybody.near(live, user, k)
        near = [NearUserOut(user=key, score=score) for key, score in zip(keys, scores.tolist(), strict=True)]
        return SimilarUsersOut(user=user, model=live.digest, among=among, users=near)

    return router


def guarded_users_router(engine: Engine) -> APIRouter:
    """The routes for who may do everything."""
    router = APIRouter(prefix="/v1/users", tags=["people"])

    @router.get("/{user}")
    def export(user: PathKey, who: Admin) -> UserOut:
        """All that is kept of this person."""
        audit(engine.store, who, "export", user)
        live = engine.now()
        schema = live.model.prepared.schema
        rows = live.people.trained(user)
        items = live.keys_of(np.array([row[0] for row in rows], np.int64))
        return UserOut(
            user=user,
            events=[
                EventOut(**{name: value for name, value in event._asdict().items() if name != "user"})
                for event in engine.store.events_of(user)
            ],
            trained=[
                TrainedEventOut(
                    item=item, event=schema.events[code], time=moment if schema.has_time else None
                )
                for item, (_, code, moment) in zip(items, rows, strict=True)
            ],
        )

    @router.delete("/{user}")
    def forget(user: PathKey, who: Admin) -> ForgottenOut:
        """Deletes the person's events; those of the training data do not count any more."""
        audit(engine.store, who, "forget", user)
        return ForgottenOut(user=user, forgotten=engine.forget(user))

    return router
