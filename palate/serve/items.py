"""Items over REST: to look at, and to put, change, hide and remove."""

from __future__ import annotations

import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from palate.errors import UnknownKeyError
from palate.schema import FieldKind
from palate.serve.audit import Writer, audit
from palate.serve.engine import Engine
from palate.serve.live import Live
from palate.serve.recommending import by_field
from palate.serve.similar import similar_items
from palate.serve.uploads import DESCRIBED_BY, sent
from palate.serve.wire import (
    MOST_FILTERS,
    MOST_K,
    MOST_OFFSET,
    Filter,
    ItemOut,
    ItemsOut,
    PathKey,
    RemovedOut,
    ShortText,
    SimilarItemsOut,
)

PICTURES = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
SANDBOXED = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}
"""What somebody uploaded is shown as nothing but a picture."""


def reading_items_router(engine: Engine) -> APIRouter:
    """The routes that only read."""
    router = APIRouter(prefix="/v1/items", tags=["items"])

    @router.get("")
    def items(
        search: ShortText = "",
        any_of: Annotated[list[Filter], Query(max_length=MOST_FILTERS)] = [],  # noqa: B006
        offset: Annotated[int, Query(ge=0, le=MOST_OFFSET)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_K)] = 50,
    ) -> ItemsOut:
        """Items by text and labels, hidden ones too, in the order in which they came."""
        live = engine.now()
        mask = None
        for name, labels in by_field(any_of).items():
            column = live.catalogue.labels(name)
            having = column.mask(column.codes(labels))
            mask = having if mask is None else mask & having
        found = live.found(search, mask)
        shown = live.items_of(found[offset : offset + limit])
        return ItemsOut(total=len(found), items=[ItemOut(**each) for each in shown])

    @router.get("/{item}")
    def one_item(item: PathKey) -> ItemOut:
        """One item, also if it is hidden."""
        return shown_item(engine.now(), item)

    @router.get("/{item}/similar")
    def similar(item: PathKey, k: Annotated[int, Query(ge=1, le=MOST_K)] = 10) -> SimilarItemsOut:
        """The items that may be shown and whose vectors lie closest by cosine."""
        live = engine.now()
        ids, scores = similar_items(live, number_of(live, item), k)
        near = [
            each | {"score": score} for each, score in zip(live.items_of(ids), scores.tolist(), strict=True)
        ]
        return SimilarItemsOut(item=item, model=live.digest, items=near)

    @router.get(
        "/{item}/media/{field}",
        response_class=Response,
        responses={200: {"content": {kind: {} for kind in PICTURES.values()}}},
    )
    def media(item: PathKey, field: PathKey) -> Response:
        """The picture of this field: as it was uploaded, or as training saw it."""
        live = engine.now()
        return _picture(live, number_of(live, item), item, field)

    return router


def changing_items_router(engine: Engine) -> APIRouter:
    """The routes that write."""
    router = APIRouter(prefix="/v1/items", tags=["items"])

    @router.put("/{item}", openapi_extra=DESCRIBED_BY)
    async def put(item: PathKey, request: Request) -> ItemOut:
        """The item is described by this alone; it may be recommended when the answer comes."""
        said = await sent(request)
        return shown_item(await run_in_threadpool(engine.put_item, item, said.fields, said.files), item)

    @router.patch("/{item}", openapi_extra=DESCRIBED_BY)
    async def patch(item: PathKey, request: Request) -> ItemOut:
        """These fields are described anew, and the others stay; null clears a field."""
        said = await sent(request)
        return shown_item(await run_in_threadpool(engine.patch_item, item, said.fields, said.files), item)

    @router.delete("/{item}")
    def remove(item: PathKey, who: Writer) -> RemovedOut:
        """The item is gone until it is put again; histories still hold it."""
        audit(engine.store, who, "remove", item)
        engine.remove_item(item)
        return RemovedOut(item=item)

    @router.post("/{item}/hide")
    def hide(item: PathKey) -> ItemOut:
        """The item is recommended to nobody until it is shown again."""
        return shown_item(engine.hide_item(item), item)

    @router.post("/{item}/show")
    def show(item: PathKey) -> ItemOut:
        """The item is not hidden any more."""
        return shown_item(engine.show_item(item), item)

    return router


def number_of(live: Live, item: str) -> int:
    """The item's id.

    Raises:
        UnknownKeyError: it is not known, or was removed.
    """
    number = live.there(item)
    if number is None:
        raise UnknownKeyError("There is no such item.")
    return number


def shown_item(live: Live, item: str) -> ItemOut:
    """The item as every answer shows it.

    Raises:
        UnknownKeyError: it is not known, or was removed.
    """
    return ItemOut(**live.items_of(np.array([number_of(live, item)]))[0])


def _picture(live: Live, number: int, item: str, field: str) -> Response:
    kinds = {each.name: each.kind for each in live.model.prepared.schema.fields}
    if kinds.get(field) in (FieldKind.IMAGE, FieldKind.VIDEO):
        change = live.change_of(number)
        uploaded = live.store.item_media(item, field) if change and field in change.media else None
        if uploaded is not None:
            kind = _kind_of(uploaded)
            if kind is not None:
                return Response(uploaded, media_type=kind, headers=SANDBOXED)
        elif change is None or not (change.whole or field in change.fields or field in change.media):
            seen = live.picture(number, field)
            if seen is not None:
                content = io.BytesIO()
                Image.fromarray(seen).save(content, "PNG")
                return Response(content.getvalue(), media_type="image/png", headers=SANDBOXED)
    raise HTTPException(404, "There is no picture of this field.")


def _kind_of(content: bytes) -> str | None:
    """The type of a picture by its bytes, if a browser shows it."""
    try:
        with Image.open(io.BytesIO(content), formats=list(PICTURES)) as image:
            return PICTURES[str(image.format)]
    except (OSError, Image.DecompressionBombError):
        return None
