"""Items: found, looked at, added, changed, hidden and removed while the server runs."""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool

from palate.schema import FIRST_ID, IntArray
from palate.serve.engine import Engine
from palate.serve.keys import READ, WRITE
from palate.serve.loaded import Loaded
from palate.serve.preview import draft_of
from palate.serve.problems import PROBLEMS
from palate.serve.recommendations import Keys, filters
from palate.serve.wire import MOST_K, ItemsView, ItemView, Key, NearItemsView
from palate.store.records import ItemChange, ItemState

Item = Annotated[Key, Path()]
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"fields": {"type": "object"}},
                    "required": ["fields"],
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"fields": {"type": "string"}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                }
            },
        },
    }
}
"""A form has a part ``fields`` and files by the names of their fields."""


def items_router(engine: Engine) -> APIRouter:
    """The routes of items."""
    router = APIRouter(prefix="/v1/items", tags=["items"], responses=PROBLEMS)

    @router.get("", dependencies=[READ])
    def items(
        search: Annotated[str, Query(max_length=256)] = "",
        any_of: Keys = [],  # noqa: B006 - FastAPI copies it
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_K)] = 50,
    ) -> ItemsView:
        """Items that may be recommended, in the order of their arrival; ``search`` is held by key or text."""
        present = engine.present
        ids: IntArray = np.flatnonzero(present.rules.allowed(filters(any_of)))
        if search:
            ids = present.searched(search, ids)
        found = present.items_of(ids[offset : offset + limit])
        return ItemsView.model_validate({"total": len(ids), "items": found})

    @router.get("/{item:path}/similar", dependencies=[READ])
    def similar(item: Item, k: Annotated[int, Query(ge=1, le=MOST_K)] = 10) -> NearItemsView:
        """The items whose vectors are nearest by cosine, among those that may be recommended."""
        present = engine.present
        found = nearest(present, number_of(present, item), k)
        return NearItemsView.model_validate({"model": present.digest, "items": found})

    @router.get(
        "/{item:path}/media/{field}",
        dependencies=[READ],
        response_class=Response,
        responses={200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def media(item: Item, field: Annotated[Key, Path()]) -> Response:
        """The picture of an item: as it was uploaded, or as training saw it."""
        present = engine.present
        picture = present.picture(number_of(present, item), field)
        if picture is None:
            raise HTTPException(404, "There is no such picture.")
        content, media_type = as_picture(picture)
        return Response(content, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})

    @router.get("/{item:path}", dependencies=[READ])
    def item_as_it_is(item: Item) -> ItemView:
        """What is known of an item."""
        return view(engine.present, item)

    async def change(item: str, request: Request, *, whole: bool) -> ItemView:
        fields, uploads = await draft_of(request)
        store = engine.store
        proposed = ItemChange(item, ItemState.SHOWN, whole, fields, uploads)
        write = store.put_item if whole else store.patch_item
        await run_in_threadpool(engine.change_item, lambda: write(item, fields, uploads), proposed)
        return view(engine.present, item)

    @router.put("/{item:path}", dependencies=[WRITE], openapi_extra=BODY)
    async def put_item(item: Item, request: Request) -> ItemView:
        """The item is described by this alone, kept, and may be recommended when this answers."""
        return await change(item, request, whole=True)

    @router.patch("/{item:path}", dependencies=[WRITE], openapi_extra=BODY)
    async def patch_item(item: Item, request: Request) -> ItemView:
        """These fields of the item are described anew; null clears one."""
        number_of(engine.present, item)
        return await change(item, request, whole=False)

    @router.delete("/{item:path}", dependencies=[WRITE])
    def delete_item(item: Item) -> ItemView:
        """The item is recommended to nobody any more; events that name it stay."""
        number_of(engine.present, item)
        engine.audit("write", "remove item", item)
        engine.change_item(lambda: engine.store.remove_item(item))
        return view_of(engine.present, engine.present.id_of(item))

    @router.post("/{item:path}/hide", dependencies=[WRITE])
    def hide(item: Item) -> ItemView:
        """The item is recommended to nobody until it is shown again."""
        number_of(engine.present, item)
        engine.change_item(lambda: engine.store.hide_item(item))
        return view(engine.present, item)

    @router.post("/{item:path}/show", dependencies=[WRITE])
    def show(item: Item) -> ItemView:
        """The item is not hidden any more."""
        number_of(engine.present, item)
        engine.change_item(lambda: engine.store.show_item(item))
        return view(engine.present, item)

    return router


def number_of(present: Loaded, item: str) -> int:
    """The id of an item that is there.

    Raises:
        HTTPException: 404, it is not.
    """
    number = present.id_of(item)
    if number < FIRST_ID or not present.is_there(number):
        raise HTTPException(404, "There is no such item.")
    return number


def view(present: Loaded, item: str) -> ItemView:
    """The item as the interface shows it."""
    return view_of(present, number_of(present, item))


def view_of(present: Loaded, number: int) -> ItemView:
    """The same of an id."""
    return ItemView.model_validate(present.items_of(np.array([number]))[0])


def nearest(present: Loaded, number: int, k: int) -> list[dict[str, Any]]:
    """The items that are nearest by cosine, with it.

    An index finds the largest products; of more than asked the cosines decide.
    """
    own = present.index.vectors_of(np.array([number]))[0]
    direction = own / max(float(np.linalg.norm(own)), 1e-12)
    found = present.index.search(
        direction[None],
        min(4 * k + 16, present.index.size),
        allowed=present.catalogue.allowed(),
        excluded=[np.array([number])],
    )
    ids = found.ids[0][found.ids[0] >= 0].astype(np.int64)
    lengths = np.maximum(np.linalg.norm(present.index.vectors_of(ids), axis=1), 1e-12)
    cosine = found.scores[0][: len(ids)] / lengths
    order = np.argsort(-cosine, kind="stable")[:k]
    items = present.items_of(ids[order])
    return [item | {"score": float(score)} for item, score in zip(items, cosine[order], strict=True)]


def as_picture(picture: bytes | np.ndarray) -> tuple[bytes, str]:
    """The bytes of a picture and their type; what browsers may not show is written anew."""
    if isinstance(picture, bytes):
        with Image.open(io.BytesIO(picture)) as opened:
            if opened.format in MEDIA_TYPES:
                return picture, MEDIA_TYPES[opened.format]
            image = opened.convert("RGB")
    else:
        image = Image.fromarray(np.ascontiguousarray(picture))
    with io.BytesIO() as written:
        image.save(written, "PNG")
        return written.getvalue(), "image/png"
