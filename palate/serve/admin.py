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
        """What was exported last answers from now on; or, with ``previous``, what answered before."""
        audit(engine.store, who, "reload", body.to)
        live = engine.reload(body.to)
        return ReloadOut(model=live.digest, previous=engine.previous.digest if engine.previous else None)

    return router
