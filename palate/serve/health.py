"""Whether the process lives, and whether it answers; neither needs a key."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from palate.serve.problems import PROBLEMS


class HealthView(BaseModel):
    """How the service is."""

    status: str


def health_router() -> APIRouter:
    """``/health/live`` and ``/health/ready``."""
    router = APIRouter(prefix="/health", tags=["operation"])

    @router.get("/live")
    async def live() -> HealthView:
        """The process answers at all; if it does not, start it anew."""
        return HealthView(status="live")

    @router.get("/ready", responses={503: PROBLEMS[503]})
    async def ready(request: Request) -> HealthView:
        """The model is loaded and warm, and the store is open; send no requests before."""
        if not request.app.state.ready:
            raise HTTPException(503, "Not ready yet.")
        return HealthView(status="ready")

    return router
