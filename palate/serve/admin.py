"""Swapping models, over REST."""

from __future__ import annotations

from fastapi import APIRouter

from palate.serve.audit import Admin, audit
from palate.serve.engine import Engine
from palate.serve.wire import ReloadIn, ReloadOut


def admin_router(engine: Engine) -> APIRouter:
    """The route for who may do everything."""
    router = APIRouter(prefix="/v1/admin", tags=["operation"])

    @router.post("/reload")
    def reload(body: ReloadIn, who: Admin) -> ReloadOut:
        """What was exported last answers from now on; or, with ``previous``, what answered before.

        Other workers and other servers over the same store follow within seconds, and after a restart the
        same model answers until another one is exported.
        """
        audit(engine.store, who, "reload", body.to)
        choice = engine.reload(body.to)
        return ReloadOut(model=choice.model, previous=choice.previous)

    return router
