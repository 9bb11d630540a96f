"""Who may call what: the key of a request against the level that a route needs.

A router takes ``dependencies=[READ]``; a route that needs more names it itself. The keys are those in
``app.state.keys``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader

from palate.serve.options import Keys, Level

HEADER = "X-API-Key"
_SCHEME = APIKeyHeader(
    name=HEADER, auto_error=False, description="Wanted where the service has keys; admin ⊃ write ⊃ read."
)


def needs(level: Level) -> Callable[..., Awaitable[str]]:
    """A dependency that lets a request pass whose key is of this level or above; it gives the word of the
    key's level, for the audit.

    Raises:
        HTTPException: 401 without a known key, 403 with one of a lower level.
    """

    async def check(request: Request, key: Annotated[str | None, Security(_SCHEME)]) -> str:
        keys: Keys = request.app.state.keys
        if not keys:
            return "anybody"
        if key is None:
            raise HTTPException(401, f"Send a key in the header {HEADER}.", {"WWW-Authenticate": HEADER})
        found = keys.level_of(key)
        if found is None:
            raise HTTPException(401, "This key is not known.", {"WWW-Authenticate": HEADER})
        if found < level:
            raise HTTPException(403, f"This needs the {level.word} key; a {found.word} key came.")
        return found.word

    return check


READ, WRITE, ADMIN = (Depends(needs(level)) for level in Level)
