"""Who calls what is guarded: a line in the event store for each call."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends

from palate.serve.keys import needs
from palate.serve.options import Level
from palate.store.store import EventStore

Admin = Annotated[str, Depends(needs(Level.ADMIN))]
"""The word of the caller's key, which may do everything."""
Writer = Annotated[str, Depends(needs(Level.WRITE))]


def audit(store: EventStore, who: str, action: str, subject: str) -> None:
    """A line says that somebody with this key does this now.

    Raises:
        StoreError: the store does not answer.
    """
    store.audit(who, action, subject, time.time_ns() // 1_000)
