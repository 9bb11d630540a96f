"""Texts and pictures in the item tower: a few encoded with gradients, the rest kept, nothing else changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from palate.data.prepared import Prepared
from palate.data.store import save
from palate.errors import DataError, SettingsError
from palate.nn.item import ItemTower
from palate.nn.kept import KeptColumn
from palate.recommender import Recommender
from palate.schema import Content, EncodedField, Field, FieldKind, FieldShape, Media
from palate.settings import ImageSettings, ModelSettings, Settings, TextSettings
from palate.train.histories import train_on_histories
from palate.train.progress import Silent
from tests.test_training import StopAt
from tests.worlds import block_of, prepared_block_world

SIDE = 16
IMAGE = ImageSettings(encoder="classic", size=SIDE, filters=(4,), dense=8, dropout=0.0, augment=False)
SETTINGS = ModelSettings(width=8, image=IMAGE, text=TextSettings(token_dropout=0.0, dropout=0.0))
SHOWN = [[], [], [0], [1, 2], [], [0], [3, 1, 2], [4]]
"""Which pictures each item shows: items 2 and 5 the same one, items 3 and 6 several, 0, 1 and 4 none."""
GENERATOR = np.random.default_rng(0)
PHOTOS = GENERATOR.integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)


def photo_field(shown: list[list[int]] = SHOWN, photos: np.ndarray = PHOTOS) -> EncodedField:
    values = np.array([picture for pictures in shown for picture in pictures], dtype=np.int64)
    present = np.array([bool(pictures) for pictures in shown])
    offsets = np.cumsum([0, *map(len, shown)])
    return EncodedField(FieldShape("photo", FieldKind.IMAGE, SIDE), values, present, offsets, photos)


def content(start: int = 0, stop: int = len(SHOWN), photo: EncodedField | None = None) -> Content:
    """Prices and photographs of these items."""
    values = np.stack([np.arange(start, stop) / 8, np.ones(stop - start)], axis=1).astype(np.float32)
    price = EncodedField(FieldShape("price", FieldKind.NUMBER, 2), values, np.ones(stop - start, np.bool_))
    return Content(stop - start, (price, photo or photo_field(SHOWN[start:stop])))


def title_field() -> EncodedField:
    tokens = np.array([[0, 0], [0, 0], [2, 3], [4, 0], [0, 0], [3, 3], [2, 4], [4, 4]], dtype=np.int32)
    return EncodedField(FieldShape("title", FieldKind.TEXT, 5), tokens, tokens.any(axis=1))


def without_pictures(rows: int) -> EncodedField:
    return photo_field([[]] * rows, PHOTOS[:0])


def photo_tower(
    content: Content, settings: ModelSettings = SETTINGS, num_ids: int | None = None, encoded: bool = True
) -> ItemTower:
    torch.manual_seed(0)
    items = ItemTower(settings, content, None, num_ids)
    if encoded:
        items.encode_new()
    return items


def slow_vectors(column: KeptColumn, shown: list[list[int]] = SHOWN) -> torch.Tensor:
    """The whole catalogue, picture by picture, with gradients."""
    rows = [
        torch.stack([column.encoder(torch.from_numpy(PHOTOS[[picture]]))[0] for picture in pictures]).mean(
            dim=0
        )
        if pictures
        else torch.zeros(column.dim)
        for pictures in shown
    ]
    return torch.stack(rows)


def slow_standardised(column: KeptColumn, together: list[int] | None = None) -> torch.Tensor:
    """``slow_vectors`` as the column gives them; mean and variance are constants.

    Args:
        together: these items move against one another only.
    """
    vectors = slow_vectors(column)
    known = vectors[[bool(pictures) for pictures in SHOWN]].detach()
    variance = known.var(dim=0, correction=0)
    if together is not None:
        mean = vectors[together].mean(dim=0)
        vectors = vectors - (mean - mean.detach())
    return (vectors - known.mean(dim=0)) / (variance + 0.01 * variance.mean()).sqrt()


def test_kept_vectors_are_the_means_of_each_items_pictures() -> None:
    [column] = photo_tower(content()).media
    vectors, present = column(None)
    torch.testing.assert_close(column.vectors, slow_vectors(column).detach())
    torch.testing.assert_close(vectors, slow_standardised(column).detach())
    assert present.squeeze(1).tolist() == [bool(pictures) for pictures in SHOWN]
    some, there = column(torch.tensor([6, 4, 6]))
    assert torch.equal(some, vectors[[6, 4, 6]])
    assert there.squeeze(1).tolist() == [1, 0, 1]


def test_an_item_without_pictures_gets_exactly_nothing_of_them() -> None:
    items = photo_tower(content())
    part = dict(items.contributions())["photo"]
    assert not part[[0, 1, 4]].any()
    assert part[[2, 3, 5, 6, 7]].any(dim=1).all()
    assert items.described.all()  # all have a price
    bare = photo_tower(Content(len(SHOWN), (photo_field(),)), encoded=False)
    assert not bare.described.any()
    assert torch.equal(bare(), bare.id.weight)
    bare.encode_new()
    assert bare.described.tolist() == [bool(pictures) for pictures in SHOWN]


def gradients(items: ItemTower) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in items.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("rows", [None, [7, 1, 3, 4, 3, 2]])
def test_showing_everything_is_encoding_everything_with_gradients(rows: list[int] | None) -> None:
    items = photo_tower(content())
    [column] = items.media
    chosen = None if rows is None else torch.tensor(rows)
    target = torch.randn(len(SHOWN if rows is None else rows), SETTINGS.width)

    with items.showing(torch.arange(len(SHOWN)), texts=100, media=100):
        table = items(chosen)
    (table * target).sum().backward()
    fast = gradients(items)

    items.zero_grad()
    photo = items.projections[1]
    standard = slow_standardised(column, together=[2, 3, 5, 6, 7])
    part = photo.gate * photo.projection(photo.norm(standard)) * column.present.unsqueeze(1)
    slow_table = items.id.weight + items.projections[0](None) + part
    slow_table = slow_table if chosen is None else slow_table[chosen]
    (slow_table * target).sum().backward()
    torch.testing.assert_close(table, slow_table)
    assert any(name.startswith("fields.1.column.encoder") for name in fast)
    torch.testing.assert_close(fast, gradients(items))


def test_gradients_come_from_the_items_that_are_shown_and_no_others() -> None:
    items = photo_tower(content())
    [column] = items.media
    target = torch.randn(len(SHOWN), column.dim)
    with items.showing(torch.tensor([6, 7, 7, 0, 4]), texts=100, media=100):
        (column(None)[0] * target).sum().backward()
    fast = [parameter.grad.clone() for parameter in column.encoder.parameters()]
    items.zero_grad()
    (slow_standardised(column, together=[6, 7]) * target)[[6, 7]].sum().backward()
    for one, other in zip(fast, column.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)
    assert not column(None)[0].requires_grad  # nothing is shown any more


def test_as_many_are_shown_as_wanted_drawn_anew_by_the_seed_among_those_with_pictures() -> None:
    items = photo_tower(content())
    [column] = items.media

    def drawn(seed: int) -> tuple[int, ...]:
        torch.manual_seed(seed)
        with items.showing(torch.arange(len(SHOWN)).repeat(3), texts=2, media=2):
            column(None)[0].sum().backward()
            assert column._shown is not None
            return tuple(column._shown[0].tolist())

    draws = [drawn(seed) for seed in range(30)]
    assert draws == [drawn(seed) for seed in range(30)]
    assert all(len(set(draw)) == 2 for draw in draws)
    assert {item for draw in draws for item in draw} == {2, 3, 5, 6, 7}


def test_what_was_shown_stays_in_the_table_and_a_refresh_brings_the_rest() -> None:
    items = photo_tower(content())
    [column] = items.media
    before = column.vectors.clone()
    with torch.no_grad():
        for parameter in column.encoder.parameters():
            parameter.add_(0.1)
    now = slow_vectors(column).detach()
    with items.showing(torch.tensor([3, 7]), texts=100, media=100):
        pass
    moved = (now - before)[[3, 7]]
    torch.testing.assert_close(column.vectors[[3, 7]], before[[3, 7]] + moved - moved.mean(dim=0))
    assert torch.equal(column.vectors[[2, 5, 6]], before[[2, 5, 6]])
    items.encode_new()  # nothing is new
    assert torch.equal(column.vectors[[2, 5, 6]], before[[2, 5, 6]])
    items.refresh()
    torch.testing.assert_close(column.vectors, now)


def test_what_moves_all_items_alike_tells_nobody_who_is_shown() -> None:
    items = ItemTower(SETTINGS, Content(len(SHOWN), (title_field(),)))
    items.encode_new()
    [column] = items.kept
    kept, before, bias = column.vectors.clone(), items(), column.encoder.dense.bias
    with torch.no_grad():
        bias.add_(1.0)
    with items.showing(torch.tensor([2, 3, 7]), texts=100, media=0):
        table = items()
    torch.testing.assert_close(column.vectors, kept)
    torch.testing.assert_close(table, before)
    (table * torch.randn(table.shape)).sum().backward()
    torch.testing.assert_close(bias.grad, torch.zeros(column.dim), atol=1e-6, rtol=0)
    assert column.encoder.dense.weight.grad.abs().max() > 1e-3


def test_noise_inside_the_encoder_is_for_shown_items_only_and_where_it_is_asked_for() -> None:
    noisy = replace_image(dropout=0.5)
    items = photo_tower(content(), noisy).train()
    [column] = items.media
    kept = column.vectors.clone()
    torch.testing.assert_close(kept, slow_vectors(column.eval()).detach())
    items.train()
    with items.showing(torch.tensor([6, 7]), texts=100, media=100):
        torch.testing.assert_close(column.vectors, kept)  # noise would tell which are shown
    with items.showing(torch.tensor([6, 7]), texts=100, media=100, noise=True):
        shown = column.vectors.clone()
    assert not torch.equal(shown[6:], kept[6:])
    assert torch.equal(shown[:6], kept[:6])
    items.refresh()
    assert torch.equal(column.vectors, kept)
    assert column.encoder.training


def replace_image(**changes: object) -> ModelSettings:
    return SETTINGS.model_copy(update={"image": IMAGE.model_copy(update=changes)})


def test_texts_are_kept_as_pictures_are_and_drawn_by_their_own_number() -> None:
    torch.manual_seed(0)
    items = ItemTower(SETTINGS, Content(len(SHOWN), (title_field(), photo_field())))
    tokens = title_field().values
    items.encode_new()
    text, photo = items.kept
    before, readable = text.vectors.clone(), [2, 3, 5, 6, 7]
    torch.testing.assert_close(before[readable], text.encoder(torch.as_tensor(tokens)).detach()[readable])
    assert text.present.nonzero().view(-1).tolist() == readable
    assert not before[[0, 1, 4]].any()
    with torch.no_grad():
        for parameter in text.encoder.parameters():
            parameter.mul_(1.1)
    now = text.encoder(torch.as_tensor(tokens)).detach()
    with items.showing(torch.arange(len(SHOWN)), texts=3, media=2):
        assert text._shown is not None
        assert photo._shown is not None
        shown = text._shown[0].tolist()
        assert set(photo._shown[0].tolist()) <= set(shown) <= set(readable)
        assert len(shown) == 3
    moved = (now - before)[shown]
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(text.vectors[shown], before[shown] + moved - moved.mean(dim=0))
    rest = sorted(set(readable) - set(shown))
    assert torch.equal(text.vectors[rest], before[rest])


def test_an_encoder_that_does_not_learn_is_read_from_the_table() -> None:
    items = photo_tower(content())
    [column] = items.media
    column.encoder.requires_grad_(False)
    kept, state = column.vectors.clone(), torch.get_rng_state()
    with items.showing(torch.arange(len(SHOWN)), texts=3, media=3):
        items().sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(column.vectors, kept)
    assert not column.trained
    assert all(parameter.grad is None for parameter in column.encoder.parameters())


def test_appended_items_equal_the_same_items_given_at_once() -> None:
    trained = photo_tower(content(stop=4))
    whole = photo_tower(content(), num_ids=4, encoded=False)
    whole.load_state_dict(trained.state_dict())
    whole.encode_new()
    grown = photo_tower(content(stop=4))
    grown.append(content(4, 6))
    grown.append(content(6, 8))
    torch.testing.assert_close(grown(), whole())
    torch.testing.assert_close(grown()[:4], trained())
    assert torch.equal(grown.described, whole.described)
    replaced = photo_tower(content(stop=4))
    replaced.set_content(content())
    torch.testing.assert_close(replaced(), whole())


def test_a_saved_tower_needs_no_pictures_and_reads_those_of_items_that_came_later() -> None:
    trained = photo_tower(content(stop=6))
    loaded = photo_tower(content(stop=6, photo=without_pictures(6)))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(), trained())

    later = photo_tower(content(photo=photo_field([[]] * 6 + SHOWN[6:])), num_ids=6, encoded=False)
    later.load_state_dict(trained.state_dict())
    assert torch.equal(later()[:6], trained())
    later.encode_new()
    torch.testing.assert_close(later.media[0].vectors, slow_vectors(later.media[0]).detach())
    again = photo_tower(content(photo=without_pictures(8)), num_ids=6)
    again.load_state_dict(later.state_dict())
    assert torch.equal(again(), later())


def test_forgotten_items_are_missing_until_they_are_encoded_again() -> None:
    items = photo_tower(content())
    [column] = items.media
    before = column.vectors.clone()
    column.forget(torch.tensor([3]))
    assert not dict(items.contributions())["photo"][3].any()
    items.encode_new()
    torch.testing.assert_close(column.vectors, before)


def test_pictures_are_read_by_rows_from_a_memory_map(tmp_path, monkeypatch) -> None:
    np.save(tmp_path / "photos.npy", PHOTOS)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    monkeypatch.setattr("palate.nn.kept.BYTES_AT_A_TIME", 2 * PHOTOS[0].nbytes)
    monkeypatch.setattr("palate.nn.kept.ITEMS_AT_A_TIME", 3)
    [column] = photo_tower(content(photo=photo_field(photos=mapped))).media
    torch.testing.assert_close(column.vectors, slow_vectors(column).detach())


def test_other_content_than_built_for_is_refused() -> None:
    with pytest.raises(DataError, match="it was given"):
        photo_tower(content()).append(Content(len(SHOWN), (photo_field(),)))


COLOURS = np.array([[200, 60, 60], [60, 180, 60], [60, 60, 200], [190, 190, 60]])
TINY = {
    "model": {
        "width": 16,
        "blocks": 2,
        "max_history": 20,
        "image": {"encoder": "classic", "size": SIDE, "filters": [4], "dense": 8, "dropout": 0.1},
    },
    "train": {
        "max_epochs": 12,
        "batch_events": 96,
        "learning_rate": 1e-2,
        "patience": 12,
        "checkpoint_steps": 3,
        "media_items": 8,
        "precision": "float32",
    },
    "split": {"kind": "cold_items", "share": 0.2},
    "evaluate": {"baselines": [], "references": [], "bootstrap": 20},
}


def colour_media(blocks: np.ndarray) -> Media:
    """One picture of each item in the colour of its block, with much noise; reserved rows have none."""
    noise = np.random.default_rng(1).integers(-60, 60, (len(blocks) - 2, SIDE, SIDE, 3))
    pictures = np.clip(COLOURS[blocks[2:], None, None] + noise, 0, 255).astype(np.uint8)
    return Media(pictures, np.arange(len(pictures)), np.concatenate([[0, 0], np.arange(len(pictures) + 1)]))


def colour_world(settings: dict[str, Any], people: int = 160) -> Prepared:
    """The block world, where only the colour of an item's picture tells its block."""
    prepared = prepared_block_world(Settings.build(settings), people=people, content=False)
    keys = prepared.catalogue["item"]
    return replace(
        prepared,
        schema=replace(prepared.schema, fields=(Field("photo", FieldKind.IMAGE),)),
        catalogue=prepared.catalogue.with_columns(photo=keys.cast(pl.String) + ".png"),
        media={"photo": colour_media(block_of(prepared))},
    )


def changed(**train: object) -> dict[str, Any]:
    return {**TINY, "train": {**TINY["train"], **train}}


@pytest.fixture(scope="module")
def untold() -> float:
    """Hit rate where the pictures are not read."""
    blind = {**TINY, "model": {**TINY["model"], "content": False}}
    return Recommender(blind).fit_prepared(colour_world(TINY)).evaluate().model.means["hit_rate@10"]


@pytest.mark.parametrize("train", [{}, {"sampled_above": 5, "negatives": 24}])
def test_colour_alone_carries_items_without_training_events(train: dict[str, int], untold: float) -> None:
    """A fifth of the items was never met in training; of the others 8 are of the right colour."""
    told = (
        Recommender(changed(**train)).fit_prepared(colour_world(TINY)).evaluate().model.means["hit_rate@10"]
    )
    assert told > 0.6
    assert told > 2 * untold


def test_a_run_with_pictures_that_was_interrupted_ends_with_the_same_weights(tmp_path) -> None:
    settings = changed(max_epochs=3, checkpoint_steps=2)
    prepared = colour_world(settings, people=80)
    for folder in ("whole", "broken"):
        save(prepared, tmp_path / folder / "data")
    whole = Recommender(settings).fit_prepared(prepared, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Recommender(settings).fit_prepared(prepared, folder=tmp_path / "broken", display=StopAt(5))
    resumed = Recommender(settings).fit_prepared(prepared, folder=tmp_path / "broken", resume=True)
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, resumed.model.state_dict()[name]), name
    [column] = whole.model.items.media
    column.refresh()
    assert torch.equal(column.vectors, resumed.model.items.media[0].vectors)  # the table is of the best pass


def test_a_saved_recommender_needs_no_pictures_even_for_items_that_came_later(
    tmp_path,
) -> None:
    settings = changed(max_epochs=2)
    prepared = colour_world(settings, people=60)
    recommender = Recommender(settings).fit_prepared(prepared)

    def answers(one: Recommender) -> pl.DataFrame:
        return one.recommend(users=["u001", "u002"], k=40, filter_seen=False)

    recommender.save(tmp_path / "one")
    loaded = with_media(Recommender.load(tmp_path / "one"), {})
    assert answers(loaded).equals(answers(recommender))

    both = [recommender, loaded]
    for one in both:
        one.items.add(pl.DataFrame({"item": ["new"]}), media={"photo": one_of(prepared, 3)})
        assert "new" in answers(one)["item"].to_list()
        vectors = one.model.items.media[0].vectors
        torch.testing.assert_close(vectors[-1], vectors[2 + 3])  # the same picture
    both[0].save(tmp_path / "two")
    again = with_media(Recommender.load(tmp_path / "two"), {})
    assert answers(again).equals(answers(both[0]))
    assert answers(again).equals(answers(both[1]))


def test_an_item_whose_picture_was_not_read_is_not_recommended_without_events() -> None:
    prepared = colour_world(TINY, people=60)
    cold = np.flatnonzero(~prepared.warm)[-1]
    counts = np.diff(prepared.media["photo"].offsets)
    counts[cold] = 0
    unread = Media(
        prepared.media["photo"].values,
        np.delete(prepared.media["photo"].row, cold - 2),
        np.concatenate([[0], np.cumsum(counts)]),
    )
    recommender = Recommender(changed(max_epochs=1)).fit_prepared(replace(prepared, media={"photo": unread}))
    found = recommender.recommend(histories=[[]], k=40)["item"].to_list()
    assert len(found) == 39
    assert prepared.items.keys([cold])[0] not in found


def test_a_random_encoder_cannot_be_frozen_and_a_trained_one_stays_as_it_is() -> None:
    prepared = colour_world(TINY, people=60)
    with pytest.raises(SettingsError, match=r"train\.media=frozen.*'photo'.*end_to_end"):
        Recommender(changed(media="frozen")).fit_prepared(prepared)
    recommender = Recommender(changed(max_epochs=1)).fit_prepared(prepared)
    model, frozen = recommender.model, Settings.build(changed(media="frozen", max_epochs=2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_on_histories(model, prepared, frozen, None, run="", resume=False, display=Silent())
    changes = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "items.fields.0.gate" in changes
    assert not [name for name in changes if name.startswith("items.fields.0.column")]


def one_of(prepared: Prepared, row: int) -> Media:
    """The media of one item, which shows this picture of the world."""
    return Media(prepared.media["photo"].values[row : row + 1], np.array([0]), np.array([0, 1]))


def test_an_item_that_shows_another_picture_is_described_by_it_and_stays_so(tmp_path: Path) -> None:
    prepared = colour_world(TINY, people=60)
    recommender = Recommender(changed(max_epochs=2)).fit_prepared(prepared)
    vectors = recommender.model.items.media[0].vectors.clone()
    first = pl.DataFrame({"item": ["i000"]})
    assert not torch.allclose(vectors[2], vectors[5])
    recommender.items.update(first, media={"photo": one_of(prepared, 3)})
    recommender.save(tmp_path / "run")
    for one in (recommender, Recommender.load(tmp_path / "run")):
        [column] = one.model.items.media
        torch.testing.assert_close(column.vectors[2], vectors[5])
        torch.testing.assert_close(column.vectors[3:], vectors[3:], rtol=0, atol=0)

    recommender.items.update(first.with_columns(photo=pl.lit(None, pl.String)))
    recommender.save(tmp_path / "run")
    for one in (recommender, Recommender.load(tmp_path / "run")):
        assert not one.model.items.media[0].present[2]
        assert one.model.items.media[0].present[3:].all()


def test_a_removed_item_comes_back_with_the_picture_that_is_given_then() -> None:
    prepared = colour_world(TINY, people=60)
    recommender = Recommender(changed(max_epochs=1)).fit_prepared(prepared)
    vectors = recommender.model.items.media[0].vectors.clone()
    back = pl.DataFrame({"item": ["i000"]})
    recommender.items.remove(["i000"])
    recommender.items.add(back)
    assert not recommender.model.items.media[0].present[2]
    recommender.items.remove(["i000"])
    recommender.items.add(back, media={"photo": one_of(prepared, 3)})
    torch.testing.assert_close(recommender.model.items.media[0].vectors[2], vectors[5])


def test_new_items_show_what_is_in_their_files(tmp_path: Path) -> None:
    prepared = colour_world(TINY, people=60)
    recommender = Recommender(changed(max_epochs=1)).fit_prepared(prepared)
    Image.fromarray(prepared.media["photo"].values[3]).save(tmp_path / "new.png")
    new = pl.DataFrame({"item": ["seen", "bare", "lost"], "photo": ["new.png", None, "gone.png"]})
    with pytest.raises(DataError, match="media_folder"):
        recommender.items.add(new)
    with pytest.warns(UserWarning, match=r"'photo'.*not there: gone\.png"):
        assert recommender.items.add(new, media_folder=tmp_path) == 3
    [column] = recommender.model.items.media
    assert column.present[-3:].tolist() == [True, False, False]
    torch.testing.assert_close(column.vectors[-3], column.vectors[5])


def with_families(prepared: Prepared) -> Prepared:
    """The same world, in which the block of each item is known as a category."""
    names = [f"family {block}" for block in block_of(prepared)]
    names[:2] = [None, None]
    return replace(
        prepared,
        schema=replace(
            prepared.schema, fields=(*prepared.schema.fields, Field("family", FieldKind.CATEGORY))
        ),
        catalogue=prepared.catalogue.with_columns(family=pl.Series(names, dtype=pl.String)),
    )


def test_what_pictures_say_of_classes_serves_taste_with_an_encoder_that_is_kept(tmp_path: Path) -> None:
    """Classes are learned from pictures alone; another run takes their encoder and trains all but it."""
    classes = {
        **changed(max_epochs=20, patience=20, batch_events=8),
        "tasks": [{"name": "item_class", "field": "family"}],
    }
    classes["train"]["validate_metric"] = "macro_f1"
    prepared = with_families(colour_world(TINY))
    first = Recommender(classes).fit_prepared(prepared)
    assert first.evaluate_classes()[0].model.metrics["accuracy"] > 0.8
    labels = first.classify(table=pl.DataFrame({"item": ["new"]}), media={"photo": one_of(prepared, 3)})
    assert labels["label"].to_list() == [f"family {block_of(prepared)[5]}"]
    first.save(tmp_path / "first")

    smaller = with_families(colour_world(TINY, people=60))
    second = changed(max_epochs=2, media="frozen", start_from=str(tmp_path / "first"))
    model = Recommender(second).fit_prepared(smaller).model
    theirs, ours = (one.items.media[0] for one in (first.model, model))
    for name, weights in theirs.encoder.state_dict().items():
        assert torch.equal(weights, ours.encoder.state_dict()[name]), name
    torch.testing.assert_close(ours.vectors, theirs.vectors)
    assert torch.equal(ours.centre, theirs.centre)
    assert ours.trained
    assert not ours.learns


def with_media(recommender: Recommender, media: dict[str, Media]) -> Recommender:
    """The same recommender, whose data have these decoded pictures."""
    bundle = recommender._fitted()
    recommender._bundle = replace(bundle, prepared=replace(bundle.prepared, media=media))
    return recommender
