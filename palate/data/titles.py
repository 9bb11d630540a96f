"""What to call items where people look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from palate.data.prepared import Prepared
from palate.schema import FieldKind, IntArray, Key


class ItemTitles:
    """What to call items where people look: their key and, where there is one, their first text."""

    def __init__(self, prepared: Prepared) -> None:
        self.keys = prepared.items
        texts = [field.name for field in prepared.schema.fields if field.kind == FieldKind.TEXT]
        self.titles = prepared.catalogue[texts[0]] if texts else None

    def of(self, ids: Sequence[int] | IntArray) -> list[dict[str, Any]]:
        """``{"item": key, "title": title or None}`` of each id."""
        titles = (
            self.titles.gather(np.asarray(ids, np.int64)).to_list()
            if self.titles is not None
            else [None] * len(ids)
        )
        return [
            {"item": key, "title": title}
            for key, title in zip(self.keys.keys(np.asarray(ids)), titles, strict=True)
        ]

    def of_keys(self, keys: Sequence[Key] | pl.Series) -> list[str]:
        """The title of each key, or an empty text."""
        return [str(entry["title"] or "") for entry in self.of(self.keys.ids(keys))]
