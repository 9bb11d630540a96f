"""The item tower: one gated sum of an id vector and what the fields say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.content import ContentEncoder
from palate.errors import DataError
from palate.nn.fields import build_field_encoder, select_ragged
from palate.nn.item import GATE, ID_STD, ItemTower
from palate.schema import Content, Field, FieldKind, FieldShape
from palate.settings import ModelSettings, TextSettings

SETTINGS = ModelSettings(width=16, text=TextSettings(vocabulary=300, max_tokens=6, width=8, filters=8))
FIELDS = (
    Field("title", FieldKind.TEXT),
    Field("brand", FieldKind.CATEGORY),
    Field("tags", FieldKind.CATEGORIES),
    Field("price", FieldKind.NUMBER),
    Field("look", FieldKind.VECTOR),
)
TABLE = pl.DataFrame(
    {
        "title": [None, None, "red lamp", "红色灯", None, "blue lamp", "lamp"],
        "brand": [None, None, "ikea", "hay", None, "muji", "hay"],
        "tags": [None, None, ["x", "y"], ["x"], [], ["z", "x"], ["y"]],
        "price": [None, None, 1.0, 2.0, None, 3.0, 1.5],
        "look": [None, None, [1.0, 2.0], [3.0, 4.0], None, [5.0, 6.5], [1.0, 0.0]],
    }
)
WARM = np.array([False, False, True, True, True, False, False])
ENCODER = ContentEncoder.fit(TABLE, FIELDS, WARM, SETTINGS.text)
ALL = ENCODER.encode(TABLE)


def tower(content: Content = ALL, num_ids: int | None = None) -> ItemTower:
    torch.manual_seed(0)
    items = ItemTower(SETTINGS, content, WARM[: num_ids or content.rows], num_ids)
    items.encode_new()
    return items


def test_contributions_add_up_to_the_vector_exactly() -> None:
    items = tower()
    parts = items.contributions()
    assert [name for name, _ in parts] == ["id", "title", "brand", "tags", "price", "look"]
    assert torch.equal(sum(part for _, part in parts), items())
    rows = torch.tensor([5, 2])
    assert torch.equal(sum(part for _, part in items.contributions(rows)), items(rows))


def test_missing_fields_contribute_exactly_zero() -> None:
    items = tower()
    for _, part in items.contributions()[1:]:
        assert not part[[0, 1, 4]].any()
        assert part[[2, 3, 6]].any(dim=1).all()
    assert torch.equal(items()[4], items.id.weight[4])


def test_a_category_never_met_in_training_says_nothing() -> None:
    brand = dict(tower().contributions())["brand"]
    assert not brand[5].any()


def test_cold_rows_read_the_unknown_vector_and_the_start_its_own() -> None:
    items = tower()
    ids = items.contributions()[0][1]
    assert torch.equal(ids[[5, 6]], items.id.weight[[1, 1]])
    assert torch.equal(ids[:5], items.id.weight[:5])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 6), max_size=9))
def test_some_rows_are_the_same_as_in_the_whole_table(rows: list[int]) -> None:
    items = tower()
    chosen = torch.tensor(rows, dtype=torch.int64)
    torch.testing.assert_close(items(chosen), items()[chosen])


def test_appended_items_equal_the_same_items_encoded_at_once() -> None:
    trained = tower(ENCODER.encode(TABLE[:5]))
    grown = tower(ENCODER.encode(TABLE[:5]))
    grown.append(ENCODER.encode(TABLE[5:6]))
    grown.append(ENCODER.encode(TABLE[6:]))
    assert grown.size == 7
    at_once = ItemTower(SETTINGS, ALL, num_ids=5)
    at_once.load_state_dict(trained.state_dict())
    at_once.encode_new()
    torch.testing.assert_close(grown(), at_once())
    torch.testing.assert_close(grown()[:5], trained())
    replaced = tower(ENCODER.encode(TABLE[:5]))
    replaced.set_content(ALL)
    torch.testing.assert_close(replaced(), at_once())


def test_gradients_flow_to_every_field() -> None:
    items = tower()
    torch.manual_seed(1)
    with items.showing(torch.arange(items.size), texts=items.size, media=0):
        table = items()
    (table * torch.randn(items.size, SETTINGS.width)).sum().backward()
    silent = [name for name, value in items.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_a_category_met_by_nobody_stays_silent_through_training() -> None:
    items = tower()
    optimiser = torch.optim.AdamW(items.parameters(), lr=0.01)
    warm = torch.tensor([2, 3, 4])
    for _ in range(3):
        optimiser.zero_grad()
        items(warm).square().sum().backward()
        optimiser.step()
    assert not dict(items.contributions())["brand"][5].any()


def test_content_begins_with_as_much_variance_as_ids() -> None:
    generator = np.random.default_rng(0)
    count = 400
    table = pl.DataFrame(
        {
            "title": [f"lamp {row % 17} of {row % 23}" for row in range(count)],
            "brand": generator.integers(0, 40, count),
            "tags": generator.integers(0, 40, (count, 2)),
            "price": generator.normal(size=count),
            "look": generator.normal(size=(count, 8)),
        }
    )
    encoder = ContentEncoder.fit(table, FIELDS, np.ones(count, dtype=bool), TextSettings())
    torch.manual_seed(0)
    for fields in (1, 5):
        whole = encoder.encode(table)
        items = ItemTower(ModelSettings(), Content(count, whole.fields[-fields:]))
        items.encode_new()
        content = torch.stack([part for _, part in items.contributions()[1:]]).sum(dim=0)
        ratio = content.square().mean().sqrt().item() / ID_STD
        assert 0.8 < ratio < 1.25
        gates = [part.gate.item() for part in items.fields]
        assert sum(gate**2 for gate in gates) == pytest.approx(GATE**2)


def test_silenced_content_adds_nothing_and_can_learn_to() -> None:
    items = tower()
    items.silence_content()
    assert all(not part.any() for _, part in items.contributions()[1:])
    items().sum().backward()
    assert all(part.projection.weight.grad.any() for part in items.projections)


def test_content_hands_over_to_ids_and_no_vector_of_its_own_changes() -> None:
    items = tower()
    own = torch.from_numpy(WARM)
    before, alone = items().detach(), (items() - items.content()).detach()
    items.hand_over()
    assert torch.allclose(items()[own], before[own])
    assert not items.content().any()
    assert torch.allclose(items()[~own], alone[~own], atol=1e-7)  # these share the "unknown" id
    again = items().detach()
    items.hand_over()
    assert torch.equal(items(), again)


def test_without_fields_the_tower_is_a_table() -> None:
    items = ItemTower(SETTINGS, Content(5))
    assert not items.has_content
    assert torch.equal(items(), items.id.weight)
    assert sorted(items.state_dict()) == ["id.weight", "warm"]


def test_the_state_holds_weights_warmth_and_kept_vectors_but_no_content() -> None:
    saved = tower(ALL, num_ids=5)
    tables = [name for name in saved.state_dict() if name.endswith(("values", "present", "offsets"))]
    assert tables == ["fields.0.column.present"]
    torch.manual_seed(7)
    loaded = ItemTower(SETTINGS, ALL, num_ids=5)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(), saved())


def test_vectors_stay_in_full_precision_under_autocast() -> None:
    items = tower()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(items(), tower()())


def test_other_content_than_built_for_is_refused() -> None:
    items = tower()
    with pytest.raises(DataError, match="it was given"):
        items.append(Content(1))
    with pytest.raises(DataError, match="Content of 5 items for 7 id vectors"):
        items.set_content(ENCODER.encode(TABLE[:5]))
    with pytest.raises(DataError, match="3 warm flags for 7"):
        items.set_warm(WARM[:3])


@pytest.mark.parametrize("kind", FieldKind)
def test_every_kind_of_field_has_an_encoder(kind: FieldKind) -> None:
    assert build_field_encoder(FieldShape("field", kind, 64), SETTINGS).dim > 0


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=5), st.data())
def test_ragged_rows_are_selected_like_lists(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
    values = torch.tensor([each for one in lists for each in one], dtype=torch.int32)
    offsets = torch.tensor(np.cumsum([0, *map(len, lists)]))
    chosen, bounds = select_ragged(values, offsets, torch.tensor(rows, dtype=torch.int64))
    found = [chosen[bounds[at] : bounds[at + 1]].tolist() for at in range(len(rows))]
    assert found == [lists[row] for row in rows]
