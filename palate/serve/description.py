"""The application with its own description: ``/openapi.json``, and a page of it where no key is wanted."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import Lifespan

from palate.serve.keys import READ
from palate.serve.options import Keys
from palate.version import __version__


def described(keys: Keys, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """An application without routes but these. ``/docs`` loads nothing from elsewhere.

    Where a key is wanted, the description wants it too; a browser cannot send one for ``/docs``, so that page
    is not there.
    """
    if not keys.wanted:
        return FastAPIOffline(redoc_url=None, title="Palate", version=__version__, lifespan=lifespan)
    app = FastAPI(title="Palate", version=__version__, lifespan=lifespan, openapi_url=None)

    @app.get("/openapi.json", dependencies=[READ], include_in_schema=False)
    def description() -> dict[str, object]:
        """The description of the interface."""
        return app.openapi()

    return app
