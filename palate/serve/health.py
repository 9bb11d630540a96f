"""``/health/live`` and ``/health/ready``: whether to restart the process, whether to send requests."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from palate.serve.problems import ProblemView, problem


class HealthView(BaseModel):
    status: Literal["alive", "ready"]


def health_router() -> APIRouter:
    """Both routes, which need no key. ``app.state.ready`` says whether a model is loaded and warm."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    async def live() -> HealthView:
        """The process answers."""
        return HealthView(status="alive")

    @router.get("/ready", response_model=HealthView, responses={503: {"model": ProblemView}})
    async def ready(request: Request) -> HealthView | Response:
        """A model is loaded and warm, and the store is open."""
        if getattr(request.app.state, "ready", False):
            return HealthView(status="ready")
        return problem(request.scope, 503, "The model is not loaded yet.", {"Retry-After": "1"})

    return router
