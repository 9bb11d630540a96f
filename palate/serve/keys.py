"""Who may ask: a dependency of every route that is not open to all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader

from palate.serve.options import Keys, Level

HEADER = "X-API-Key"

_SCHEME = APIKeyHeader(
    name=HEADER, auto_error=False, description="Wanted where the server was started with keys."
)


def needs(level: Level) -> Callable[..., Awaitable[Level]]:
    """A dependency that lets pass whoever has a key of this level or above, and all where no key is set.

    It gives the level of the key. ``app.state.keys`` holds the keys.

    Raises:
        HTTPException: 401 without a key or with an unknown one, 403 with one that is too weak.
    """

    async def check(request: Request, sent: str | None = Security(_SCHEME)) -> Level:
        keys: Keys = request.app.state.keys
        if not keys.wanted:
            return Level.ADMIN
        allowed = keys.level_of(sent or "")
        if allowed is None:
            raise HTTPException(
                401, f"Send a key in the header {HEADER}.", headers={"WWW-Authenticate": HEADER}
            )
        if allowed < level:
            raise HTTPException(403, f"This needs the {level.name.lower()} key.")
        return allowed

    return check


READ = Depends(needs(Level.READ))
WRITE = Depends(needs(Level.WRITE))
ADMIN = Depends(needs(Level.ADMIN))
