"""The page's own files, which need no key: they hold no data and ask the interface for everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

TYPES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Nothing is loaded from elsewhere, and nobody frames the page."""


def page_router() -> APIRouter:
    """``/`` is the page, beside it its script and its style."""
    router = APIRouter(include_in_schema=False)
    folder = files("palate.serve") / "page"
    for name, media_type in TYPES.items():
        content = (folder / name).read_bytes()
        path = "/" if name == "index.html" else f"/{name}"
        router.add_api_route(path, _answering(content, media_type), methods=["GET"], response_class=Response)
    return router


def _answering(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=f"{media_type}; charset=utf-8", headers=HEADERS)

    return answer
