"""``POST /v1/admin/reload``: another model, while requests run."""

from __future__ import annotations

from fastapi import APIRouter

from palate.serve.engine import Engine
from palate.serve.keys import ADMIN
from palate.serve.problems import PROBLEMS
from palate.serve.wire import ModelView, ReloadIn


def admin_router(engine: Engine) -> APIRouter:
    """The routes of whoever runs the server."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[ADMIN], responses=PROBLEMS)

    @router.post("/reload")
    def reload(told: ReloadIn) -> ModelView:
        """The run is read anew, or the model before takes its place again; no request fails meanwhile."""
        engine.audit("admin", f"reload {told.to}", engine.present.digest)
        return ModelView(model=engine.reload(told.to))

    return router
