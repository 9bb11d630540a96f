"""What the routes of the page ask of the server: the parts that answer at this moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from palate.retrieve.catalogue import Catalogue
from palate.retrieve.index import Index
from palate.runtime.model import ServingModel
from palate.schema import IntArray


class Present(Protocol):
    """One loaded model and the items as they are now."""

    @property
    def digest(self) -> str:
        """Names the bundle."""

    @property
    def run(self) -> Path:
        """The folder of the run."""

    @property
    def model(self) -> ServingModel: ...

    @property
    def index(self) -> Index: ...

    @property
    def catalogue(self) -> Catalogue: ...

    def id_of(self, item: str) -> int:
        """The item's id, 1 where it is unknown."""

    def items_of(self, ids: IntArray) -> list[dict[str, Any]]:
        """``{"item", "fields", "new", "shown", …}`` of each, as every answer shows items."""

    def keys_of(self, ids: IntArray) -> list[str]:
        """The key of each."""

    def recommended(self, user: str, k: int) -> list[dict[str, Any]]:
        """The list of this person, as the recommendations of the interface show it."""


Now = Callable[[], Present]
"""Gives the parts that answer now; a request asks once, and is answered by one model."""
