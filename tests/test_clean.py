import datetime
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.catalogue import clean_texts, describe
from palate.data.clean import Cleaned, clean
from palate.data.log import Log, read_log
from palate.errors import DataError
from palate.schema import Dataset, Field, FieldKind, Note
from palate.settings import DataSettings, SplitSettings
from tests.tables import DAY, HOUR, NOON, SIX_PEOPLE, dataset, views


def events(log: Log) -> list[tuple[object, object, int, str]]:
    """The log in keys: user, item, hours since noon, event."""
    return [
        (log.people[int(u)], log.items[int(i)], int(t - NOON) // HOUR, log.events[e])
        for u, i, t, e in zip(log.user, log.item, log.time, log.event, strict=True)
    ]


def removed(cleaned: Cleaned) -> dict[str, tuple[int, int]]:
    return {note.rule: (note.removed, note.remaining) for note in cleaned.notes}


def histories(cleaned: Cleaned) -> dict[object, str]:
    found: dict[object, str] = {}
    for user, item, *_ in events(cleaned.log):
        found[user] = found.get(user, "") + str(item)
    return found


def test_six_people_come_out_as_written():
    cleaned = clean(SIX_PEOPLE, DataSettings())
    assert events(cleaned.log) == [
        ("ann", "tea", 0, "view"),
        ("ann", "cup", 1, "view"),
        ("bob", "tea", 2, "buy"),
        ("bob", "cup", 3, "buy"),
        ("bob", "cup", 4, "return"),
        ("cat", "pot", 0, "view"),
        ("cat", "tea", 0, "view"),
        ("eve", "tea", 0, "view"),
        ("fay", "pot", 0, "buy"),
    ]
    assert removed(cleaned) == {
        "missing keys": (4, 14),
        "excluded items": (1, 13),
        "impossible times": (2, 11),
        "returns": (0, 11),
        "non-positive quantities": (1, 10),
        "exact duplicates": (1, 9),
    }
    assert cleaned.log.events == ("view", "buy", "return")  # most frequent first
    assert cleaned.before == {"events": 18, "people": 6, "items": 4}


def test_notes_show_what_they_removed():
    notes = {note.rule: note for note in clean(SIX_PEOPLE, DataSettings()).notes}
    assert notes["missing keys"].detail == "1 without user, 2 without item, 1 without event type"
    assert (
        notes["missing keys"].examples[0].startswith("row 12: no user, item tea, view at 2011-01-26 12:00:00")
    )
    assert notes["impossible times"].examples[1] == "row 10: user dan, item tea, view at no time, value 1"
    assert "POST" in notes["excluded items"].detail
    assert len(notes["missing keys"].examples) == 3


def test_every_rule_starts_from_what_the_last_one_left():
    rules = clean(SIX_PEOPLE, DataSettings()).notes
    left = len(SIX_PEOPLE.interactions.collect())
    for note in rules:
        assert note.remaining == left - note.removed
        left = note.remaining


def test_notes_of_reading_come_first():
    note = Note("unreadable rows", 3, 18)
    assert clean(replace(SIX_PEOPLE, notes=(note,)), DataSettings()).notes[0] == note


def test_a_zero_is_a_rating_where_values_are_no_quantities():
    rated = dataset([("ann", "tea", NOON, "rate", 0.0), ("ann", "cup", NOON, "rate", -1.0)])
    assert len(clean(rated, DataSettings()).log) == 2


def test_rows_that_must_be_positive_go():
    table = dataset([("ann", "tea", NOON, "buy", 0.0), ("ann", "cup", NOON, "buy", 2.0)])
    cleaned = clean(replace(table, require_positive=("price",)), DataSettings())
    assert removed(cleaned)["rows that must be positive"] == (1, 1)
    assert cleaned.notes[2].detail == "price"


def test_days_before_the_earliest_and_after_the_latest_are_impossible():
    table = views({"ann": "abcdefgh" * 9})  # 72 hours from noon of 2011-01-26
    limits = DataSettings(earliest=datetime.date(2011, 1, 27), latest=datetime.date(2011, 1, 27))
    cleaned = clean(table, limits)
    assert removed(cleaned)["impossible times"] == (72 - 24, 24)
    assert "12 before 2011-01-27, 36 after 2011-01-27" in cleaned.notes[1].detail


def test_the_day_after_tomorrow_is_impossible():
    now = int(datetime.datetime.now(datetime.UTC).timestamp() * 1e6)
    table = dataset([("ann", "tea", now, "view", None), ("ann", "tea", now + 2 * DAY, "view", None)])
    assert removed(clean(table, DataSettings()))["impossible times"] == (1, 1)


def test_an_order_has_no_impossible_places_but_missing_ones():
    rows = [
        ("ann", "tea", 9, "view", None),
        ("ann", "cup", -4, "view", None),
        ("ann", "pot", None, "view", None),
    ]
    cleaned = clean(dataset(rows, has_time=False), DataSettings(max_events_per_hour=1))
    assert histories(cleaned) == {"ann": "cuptea"}
    assert not cleaned.log.has_time


def test_without_any_time_the_order_of_the_rows_is_the_order():
    rows = [
        ("bob", "z", None, "view", None),
        ("ann", "b", None, "view", None),
        ("bob", "a", None, "view", None),
    ]
    cleaned = clean(dataset(rows), DataSettings())
    assert histories(cleaned) == {"ann": "b", "bob": "za"}
    assert not cleaned.log.has_time


def test_duplicates_are_found_though_others_lie_between_them():
    table = dataset([("ann", item, NOON, "view", None) for item in "abcab"])
    cleaned = clean(table, DataSettings())
    assert histories(cleaned) == {"ann": "abc"}
    assert removed(cleaned)["exact duplicates"] == (2, 3)


def test_the_same_at_another_time_or_of_another_type_is_no_duplicate():
    rows = [
        ("ann", "a", NOON, "view", None),
        ("ann", "a", NOON, "buy", None),
        ("ann", "a", NOON + 1, "view", None),
    ]
    assert len(clean(dataset(rows), DataSettings()).log) == 3


def test_robots_go_with_all_their_events():
    rows = [("bot", f"i{n}", NOON + n * 60_000_000, "view", None) for n in range(11)]
    rows += [("bot", "tea", NOON + 5 * DAY, "view", None), ("ann", "tea", NOON, "view", None)]
    assert removed(clean(dataset(rows), DataSettings(max_events_per_hour=11)))["robots"] == (0, 13)
    cleaned = clean(dataset(rows), DataSettings(max_events_per_hour=10))
    assert removed(cleaned)["robots"] == (12, 1)
    assert histories(cleaned) == {"ann": "tea"}


def test_of_repeats_the_first_or_the_last_stays():
    table = views({"ann": "abacb", "bob": "aa"})
    assert histories(clean(table, DataSettings())) == {"ann": "abacb", "bob": "aa"}
    assert histories(clean(table, DataSettings(repeats="first"))) == {"ann": "abc", "bob": "a"}
    assert histories(clean(table, DataSettings(repeats="last"))) == {"ann": "acb", "bob": "a"}


def test_core_goes_on_until_both_hold():
    # z has one event; without it dan has one; without him c has one; without c ann keeps two.
    table = views({"ann": "abc", "bob": "ab", "dan": "cz"})
    cleaned = clean(table, DataSettings(min_user_events=2, min_item_events=2))
    assert histories(cleaned) == {"ann": "ab", "bob": "ab"}
    assert removed(cleaned)["k-core"] == (3, 4)
    assert "3 rounds" in cleaned.notes[-1].detail


def slow_core(pairs: list[tuple[int, int]], people: int, items: int) -> list[tuple[int, int]]:
    while True:
        kept = [
            (u, i)
            for u, i in pairs
            if sum(v == u for v, _ in pairs) >= people and sum(j == i for _, j in pairs) >= items
        ]
        if kept == pairs:
            return kept
        pairs = kept


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(-3, 3)), min_size=1, max_size=40, unique=True),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_core_is_what_the_slow_way_leaves(pairs, people, items):
    table = dataset([(u, i, NOON + n, "view", None) for n, (u, i) in enumerate(pairs)])
    expected = sorted(slow_core(pairs, people, items))
    settings = DataSettings(min_user_events=people, min_item_events=items)
    if not expected:
        with pytest.raises(DataError, match=r"k-core: \d+.*min_user_events"):
            clean(table, settings)
    else:
        assert sorted((u, i) for u, i, *_ in events(clean(table, settings).log)) == expected


@given(
    st.lists(st.tuples(st.sampled_from(["ann", "bob", "çem"]), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([1, 1_000_003, 60_000_000]),
)
def test_events_are_by_person_and_time_and_otherwise_as_in_the_table(rows, unit):
    table = dataset([(u, f"i{n}", NOON + t * unit, "view", None) for n, (u, t) in enumerate(rows)])
    expected = sorted(((u, t, n) for n, (u, t) in enumerate(rows)))
    found = events(clean(table, DataSettings()).log)
    assert [(u, i) for u, i, *_ in found] == [(u, f"i{n}") for u, _, n in expected]


def test_times_too_wide_for_one_number_are_sorted_all_the_same():
    rows = [("ann", f"i{n}", (n * 7919 % 100) * 2**54 + n, "view", None) for n in range(100)]
    log = clean(dataset(rows, has_time=False), DataSettings()).log
    assert (np.diff(log.time) > 0).all()


def test_rows_out_of_order_are_put_in_order():
    table = views({"ann": "abc"})
    shuffled = replace(
        table, interactions=table.interactions.with_columns(time=None).sort("row", descending=True)
    )
    assert histories(clean(shuffled, DataSettings())) == {"ann": "abc"}


@pytest.mark.parametrize("keys", [[5, 7, 2**60, None, -3], [5, 6, 5, None, 7], ["b", "", "a", None, "b"]])
def test_keys_become_codes_of_the_sorted_keys(keys):
    log = read_log(dataset([(key, "tea", n, "view", None) for n, key in enumerate(keys)]))
    sound = sorted({key for key in keys if key not in (None, "")})
    assert log.people.to_list() == sound
    assert log.user.tolist() == [sound.index(key) if key in sound else -1 for key in keys]


def test_of_the_future_nothing_chooses_training_events_in_a_temporal_split():
    split = SplitSettings(kind="temporal", share=0.25)
    rows = [("ann", "a", NOON, "view", None), ("bob", "a", NOON, "view", None)]
    rows += [("ann", "b", NOON + DAY, "view", None), ("bob", "b", NOON + DAY, "view", None)]
    later = [("ann", "a", NOON + (10 + n // 2) * DAY + n, "view", None) for n in range(4)]
    strict_counts = DataSettings(min_user_events=2, min_item_events=2, repeats="last", max_events_per_hour=1)
    cleaned = clean(dataset(rows + later), strict_counts, split)
    assert cleaned.periods is not None
    early = [event for event in events(cleaned.log) if NOON + event[2] * HOUR < cleaned.periods.validation]
    assert early == [
        ("ann", "a", 0, "view"),
        ("ann", "b", 24, "view"),
        ("bob", "a", 0, "view"),
        ("bob", "b", 24, "view"),
    ]


@pytest.mark.parametrize(
    ("rows", "settings", "further", "message"),
    [
        ([(None, "tea", NOON, "view", None)], {}, {}, "missing keys: 1"),
        ([("ann", "tea", -1, "view", None)], {}, {}, "impossible times: 1.*unit"),
        ([("ann", "tea", NOON, "view", None)], {"min_user_events": 2}, {}, "k-core: 1.*data.min_user_events"),
        (
            [("ann", "tea", NOON, "view", None)],
            {},
            {"exclude_items": ("t.a",)},
            "excluded items: 1.*exclude_items",
        ),
    ],
)
def test_nothing_left_names_the_rule_and_what_to_relax(rows, settings, further, message):
    with pytest.raises(DataError, match=message):
        clean(dataset(rows, **further), DataSettings(**settings))


def test_strict_refuses_dirt_and_names_it():
    with pytest.raises(DataError, match=r"'missing keys' found 4 rows \(row 12: no user"):
        clean(SIX_PEOPLE, DataSettings(strict=True))
    unreadable = Note("unreadable times", 0, 3, "small: 2 cells unreadable")
    with pytest.raises(DataError, match="2 cells unreadable"):
        clean(views({"ann": "ab"}, notes=(unreadable,)), DataSettings(strict=True))


def test_strict_lets_rules_choose_among_sound_rows():
    settings = DataSettings(strict=True, min_user_events=2, repeats="first")
    table = views({"ann": "aab", "bob": "a"}, exclude_items=("b",))
    with pytest.raises(DataError, match="k-core"):  # not a complaint about dirt: nobody has two events
        clean(table, settings)
    assert histories(clean(views({"ann": "aab", "bob": "a"}), settings)) == {"ann": "ab"}


def test_a_missing_column_and_an_empty_table_are_named():
    with pytest.raises(DataError, match="no column row"):
        clean(Dataset("x", views({"ann": "a"}).interactions.drop("row")), DataSettings())
    with pytest.raises(DataError, match="no rows"):
        clean(Dataset("x", views({"ann": "a"}).interactions.head(0)), DataSettings())


def test_too_many_event_types_are_refused():
    with pytest.raises(DataError, match="300 event types"):
        clean(dataset([("ann", "a", NOON, f"e{n}", None) for n in range(300)]), DataSettings())


TITLE, TAGS, SIZE = (
    Field("title", FieldKind.TEXT),
    Field("tags", FieldKind.CATEGORIES),
    Field("size", FieldKind.NUMBER),
)


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ("plain", "plain"),
        ("<b>Tea&amp;Cake</b>\tfor\x00  two ", "Tea&Cake for two"),
        ("ＦＵＬＬ ½", "FULL 1⁄2"),
        ("a < b > c", "a < b > c"),
        ("<p></p>", None),
        ("中文 标题", "中文 标题"),
        (None, None),
    ],
)
def test_texts_are_in_one_form(raw, tidy):
    items, note = clean_texts(
        pl.DataFrame({"item": [1], "title": [raw]}, schema_overrides={"title": pl.String}), (TITLE,)
    )
    assert items["title"].to_list() == [tidy]
    assert note.detail == ("" if raw == tidy else "title: 1 cells")


def test_entries_of_lists_are_tidied_and_empty_ones_dropped():
    items, note = clean_texts(pl.DataFrame({"item": [1, 2], "tags": [[" a\n", ""], None]}), (TAGS,))
    assert items["tags"].to_list() == [["a"], None]
    assert note.detail == "tags: 1 cells"


def test_the_most_frequent_description_stays_and_the_median_number():
    table = pl.DataFrame(
        {
            "item": [1, 1, 1, 2, 2, 3, None],
            "title": ["cup", "mug", "mug", "tea", "pot", None, "lost"],
            "tags": [["a"], ["a"], ["b"], None, ["c"], None, None],
            "size": [1.0, 2.0, 9.0, None, 4.0, None, 1.0],
        }
    )
    described, notes = describe(table, (TITLE, TAGS, SIZE), np.array([], np.int64))
    assert described.rows() == [(1, "mug", ["a"], 2.0), (2, "tea", ["c"], 4.0), (3, None, None, None)]
    assert [(note.rule, note.removed, note.remaining) for note in notes] == [
        ("items without key", 1, 6),
        ("items described more than once", 0, 3),
    ]
    assert notes[1].detail == "2 items differ"


def test_what_training_rows_say_goes_before_what_later_rows_say_more_often():
    table = pl.DataFrame(
        {
            "item": [1, 1, 2, 2],
            "title": ["now", "future", "rare", "often"],
            "row": [0, 5, 6, 7],
            "count": [1, 9, 1, 9],
        }
    )
    described, _ = describe(table, (TITLE,), np.array([0, 1, 2]))
    assert described["title"].to_list() == ["now", "often"]


def test_vectors_and_pictures_are_left_as_they_are():
    fields = (Field("look", FieldKind.VECTOR), Field("image", FieldKind.IMAGE))
    table = pl.DataFrame(
        {"item": [1, 1], "look": [[1.0, 2.0], [3.0, 4.0]], "image": ["a  b.jpg", "a  b.jpg"]}
    )
    items, note = clean_texts(table, fields)
    described, _ = describe(items, fields, np.array([], np.int64))
    assert described.rows() == [(1, [1.0, 2.0], "a  b.jpg")]
    assert note.detail == ""
