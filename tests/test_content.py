"""Fields as numbers: what is learned from training rows, and what becomes of every other cell."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.content import ContentEncoder
from palate.errors import DataError
from palate.schema import Content, EncodedField, Field, FieldKind
from palate.settings import TextSettings

TEXT = TextSettings(vocabulary=300, max_tokens=6)
FIELDS = (
    Field("title", FieldKind.TEXT),
    Field("brand", FieldKind.CATEGORY),
    Field("tags", FieldKind.CATEGORIES),
    Field("price", FieldKind.NUMBER),
    Field("look", FieldKind.VECTOR),
)
WARM = np.array([False, False, True, True, True, False])


def shop() -> pl.DataFrame:
    """The two reserved rows, three training items and a cold one."""
    return pl.DataFrame(
        {
            "item": [None, None, "a", "b", "c", "d"],
            "title": [None, None, "red lamp", "红色灯", None, "blue lamp"],
            "brand": [None, None, "ikea", "hay", "ikea", "muji"],
            "tags": [None, None, ["x", "y"], ["x"], [], ["z", "x"]],
            "price": [None, None, 1.0, 2.0, 3.0, None],
            "look": [None, None, [1.0, 2.0], [3.0, 4.0], [5.0], [5.0, 6.0]],
        }
    )


def fitted(table: pl.DataFrame | None = None) -> ContentEncoder:
    return ContentEncoder.fit(shop() if table is None else table, FIELDS, WARM, TEXT)


def field(content: Content, name: str) -> EncodedField:
    return next(each for each in content.fields if each.shape.name == name)


def one(kind: FieldKind, cells: list[Any] | pl.Series, warm: list[bool] | None = None) -> Content:
    table = pl.DataFrame({"x": cells})
    rows = np.ones(table.height, dtype=bool) if warm is None else np.array(warm)
    return ContentEncoder.fit(table, (Field("x", kind),), rows, TEXT).encode(table)


def assert_same(first: Content, second: Content) -> None:
    assert first.rows == second.rows
    assert first.shapes == second.shapes
    for mine, yours in zip(first.fields, second.fields, strict=True):
        assert np.array_equal(mine.values, yours.values)
        assert np.array_equal(mine.present, yours.present)
        assert (mine.offsets is None) == (yours.offsets is None)
        if mine.offsets is not None and yours.offsets is not None:
            assert np.array_equal(mine.offsets, yours.offsets)


def test_categories_are_coded_by_frequency_in_training() -> None:
    brand = field(fitted().encode(shop()), "brand")
    assert brand.values.tolist() == [0, 0, 2, 3, 2, 1]
    assert brand.present.tolist() == [False, False, True, True, True, True]
    assert brand.shape.size == 4


def test_lists_lie_end_to_end() -> None:
    tags = field(fitted().encode(shop()), "tags")
    assert tags.offsets is not None
    assert tags.offsets.tolist() == [0, 0, 0, 2, 3, 3, 5]
    assert tags.values.tolist() == [2, 3, 2, 1, 2]
    assert tags.present.tolist() == [False, False, True, True, False, True]


def test_numbers_are_standardised_by_training_rows() -> None:
    price = field(fitted().encode(shop()), "price").values
    root = np.sqrt(1.5)
    expected = [[0, 0], [0, 0], [-root, 1], [0, 1], [root, 1], [0, 0]]
    np.testing.assert_allclose(price, expected, rtol=1e-6)


def test_a_vector_of_another_length_is_missing_and_counted() -> None:
    content = fitted().encode(shop())
    look = field(content, "look")
    assert look.present.tolist() == [False, False, True, True, False, True]
    assert look.values[[2, 4, 5]].tolist() == [[1, 2], [0, 0], [5, 6]]
    assert [note.removed for note in content.notes] == [0, 0, 0, 0, 1]
    assert "1 cells hold no vector of 2 numbers" in content.notes[4].detail


def test_texts_of_any_language_have_tokens() -> None:
    title = field(fitted().encode(shop()), "title")
    assert title.values.shape == (6, 6)
    assert title.values.dtype == np.int32
    assert title.present.tolist() == [False, False, True, True, False, True]


def test_unseen_categories_are_counted() -> None:
    notes = {note.rule: note for note in fitted().encode(shop()).notes}
    assert notes["field 'brand'"].examples == ("muji",)
    assert notes["field 'tags'"].detail.startswith("1 entries not seen in training")


@pytest.mark.parametrize("row", [0, 1, 5])
def test_no_row_outside_training_changes_the_encoder(row: int) -> None:
    strange = {
        "title": "völlig anders völlig anders",
        "brand": "zara",
        "tags": ["q", "q2"],
        "price": 1e9,
        "look": [9.0, 9.0, 9.0],
    }
    changed = shop().with_columns(
        pl.Series(
            name,
            [value if at == row else cell for at, cell in enumerate(shop()[name].to_list())],
            strict=False,
        )
        for name, value in strange.items()
    )
    assert fitted(changed).to_state() == fitted().to_state()
    moved = shop().with_columns(price=pl.Series([None, None, 1.0, 2.0, 4.0, None]))
    assert fitted(moved).to_state() != fitted().to_state()


def test_the_state_goes_through_json() -> None:
    encoder = ContentEncoder.fit(shop(), (*FIELDS, Field("photo", FieldKind.IMAGE)), WARM, TEXT)
    restored = ContentEncoder.from_state(json.loads(json.dumps(encoder.to_state())))
    assert restored == encoder
    assert restored.shapes == encoder.encode(shop()).shapes
    assert_same(restored.encode(shop()), encoder.encode(shop()))


def test_new_rows_read_as_they_would_have_in_the_table() -> None:
    encoder = fitted()
    whole, new = encoder.encode(shop()), encoder.encode(shop()[5:])
    for old, added in zip(whole.fields, new.fields, strict=True):
        assert old.present[5:].tolist() == added.present.tolist()
        if old.offsets is None:
            assert np.array_equal(old.values[5:], added.values)
        else:
            assert np.array_equal(old.values[old.offsets[5] :], added.values)


def test_skewed_amounts_are_taken_as_logarithms() -> None:
    amounts = [0.0, 1.0, 3.0, 7.0, 1023.0]
    values = field(one(FieldKind.NUMBER, amounts), "x").values[:, 0]
    logs = np.log1p(amounts)
    np.testing.assert_allclose(values, (logs - logs.mean()) / logs.std(), rtol=1e-5)
    even = field(one(FieldKind.NUMBER, [1.0, 2.0, 3.0, 4.0, 5.0]), "x").values[:, 0]
    np.testing.assert_allclose(even, np.array([-2, -1, 0, 1, 2]) / np.sqrt(2), rtol=1e-6)


def test_a_negative_number_after_logarithms_were_chosen_is_still_a_number() -> None:
    warm = [True] * 5 + [False]
    values = field(one(FieldKind.NUMBER, [0.0, 1.0, 3.0, 7.0, 1023.0, -1e6], warm), "x").values
    assert values[5].tolist() == [-5.0, 1.0]


def test_outliers_stop_at_five_deviations() -> None:
    values = field(one(FieldKind.NUMBER, [-1.0, 1.0, 1e300], [True, True, False]), "x").values
    assert values.tolist() == [[-1, 1], [1, 1], [5, 1]]


def test_a_constant_column_reads_zero_everywhere_in_training() -> None:
    np.testing.assert_allclose(field(one(FieldKind.NUMBER, [0.1] * 7), "x").values[:, 0], 0.0, atol=1e-12)


def test_numbers_written_as_text_are_read_and_others_counted() -> None:
    content = one(FieldKind.NUMBER, ["1", " 3 ", "dear", "inf", None])
    assert field(content, "x").values.tolist() == [[-1, 1], [1, 1], [0, 0], [0, 0], [0, 0]]
    assert content.notes[0].removed == 2
    assert content.notes[0].examples == ("dear", "inf")


def test_whole_floats_and_integers_are_one_category() -> None:
    encoder = ContentEncoder.fit(
        pl.DataFrame({"x": [3, 4]}), (Field("x", FieldKind.CATEGORY),), np.ones(2, dtype=bool), TEXT
    )
    codes = encoder.encode(pl.DataFrame({"x": [3.0, 4.0, 4.5, float("nan"), None]})).fields[0].values
    assert codes.tolist() == [2, 3, 1, 0, 0]


def test_texts_that_list_categories_are_lists() -> None:
    tags = field(one(FieldKind.CATEGORIES, ["a|b, c|a", "b, c", "b;a", "", None]), "x")
    assert tags.offsets is not None
    assert np.diff(tags.offsets).tolist() == [2, 2, 2, 0, 0]


def test_texts_of_vectors_are_vectors() -> None:
    look = field(one(FieldKind.VECTOR, ["[0.5, 1]", "2 3", "a b", "nan 1"]), "x")
    assert look.values.tolist() == [[0.5, 1], [2, 3], [0, 0], [0, 0]]


@pytest.mark.parametrize("kind", [FieldKind.TEXT, *(each.kind for each in FIELDS[1:])])
def test_a_column_without_a_value_is_missing_throughout(kind: FieldKind) -> None:
    encoder = ContentEncoder.fit(
        pl.DataFrame({"y": [1, 2]}), (Field("x", kind),), np.ones(2, dtype=bool), TEXT
    )
    encoded = encoder.encode(pl.DataFrame({"x": [None, None, None]})).fields[0]
    assert not encoded.present.any()
    assert not encoded.values.any()


CELLS = st.sampled_from(
    [
        ["x ", "", None, "1e999", "[1, 2]", "a|b"],
        [1.0, float("nan"), None, float("inf"), -0.0, 1e308],
        [[1.0], [None, 2.0], None, [], [float("nan"), 1.0], [1.0, 2.0]],
        [["a", None], [], None, ["a", "a"], [""], [" b "]],
        [True, False, None, True, True, None],
        [{"k": 1}, None, {"k": 2}, None, {"k": None}, None],
        [b"raw", None, b"", b"raw", None, b"\xff"],
    ]
)


@settings(deadline=None, max_examples=60)
@given(CELLS, st.sampled_from([each.kind for each in FIELDS]), st.integers(0, 63))
def test_no_cell_of_any_type_is_fatal(cells: list[Any], kind: FieldKind, mask: int) -> None:
    warm = [bool(mask >> row & 1) for row in range(6)]
    encoded = field(one(kind, pl.Series(cells), warm), "x")
    assert np.isfinite(encoded.values).all()
    assert len(encoded.present) == 6
    assert not encoded.present[cells.index(None)]
    if kind != FieldKind.CATEGORIES:
        assert not encoded.values[~encoded.present].any()


def test_media_fields_without_media_are_skipped_with_a_note() -> None:
    encoder = ContentEncoder.fit(shop(), (Field("photo", FieldKind.IMAGE),), WARM, TEXT)
    content = encoder.encode(shop())
    assert content.fields == ()
    assert content.rows == 6
    assert "image" in content.notes[0].detail


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match="mask of 5 rows for a table of 6"):
        ContentEncoder.fit(shop(), FIELDS, WARM[1:], TEXT)


def test_a_state_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="smell"):
        ContentEncoder.from_state({"columns": [{"kind": "smell", "name": "x"}], "skipped": []})
