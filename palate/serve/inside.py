"""What an item says in its texts, pictures, clips and tracks, for reasons that look into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from palate.explain.content import Told
from palate.schema import MEDIA, AnyArray, FieldKind

if TYPE_CHECKING:  # which asks for lists, and these for reasons
    from palate.serve.live import Live


def told_by(live: Live, number: int) -> Told:
    """What the item says now: what the store has of it, or else what training read, saw and heard. Of several
    pictures the first."""
    fields = live.items_of(np.array([number]))[0]["fields"]
    texts: dict[str, str] = {}
    media: dict[str, AnyArray] = {}
    for field in live.model.prepared.schema.fields:
        if field.kind == FieldKind.TEXT and fields.get(field.name):
            texts[field.name] = str(fields[field.name])
        elif field.kind in MEDIA and (shown := _shown(live, number, field.name)) is not None:
            media[field.name] = shown
    return Told(texts, media)


def _shown(live: Live, number: int, field: str) -> AnyArray | None:
    change = live.change_of(number)
    if change is not None and field in change.media:
        uploaded = live.store.item_media(change.item, field)
        found = None if uploaded is None else live.model.media_of({field: [[uploaded]]})[field].values
        return None if found is None or not len(found) else found[0]
    if change is not None and (change.whole or field in change.fields):
        return None
    return live.seen(number, field)
