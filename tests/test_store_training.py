"""Events of the store in training: none is lost, none counts twice, keys of both kinds meet."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import Settings
from palate.data.store import prepare
from palate.errors import StoreError
from palate.schema import Dataset
from palate.store.opening import open_store
from palate.store.records import StoredEvent
from palate.store.training import with_events
from tests.tables import HOUR, NOON, SIX_PEOPLE, dataset, views

NUMBERED = dataset([(7, 1, NOON, "view", None), (8, 2, NOON + HOUR, "view", 3.0)])


def joined(data: Dataset, *events: tuple) -> Dataset:
    """The data with events of user, item, time, event, value from a store."""
    stored = [
        StoredEvent(f"e{n}", str(user), str(item), event, time, value)
        for n, (user, item, time, event, value) in enumerate(events)
    ]
    with open_store("sqlite://") as store:
        store.append(stored)
        return with_events(data, store)


def rows(data: Dataset) -> list[tuple]:
    return data.interactions.select("user", "item", "time", "event", "value", "row").collect().rows()


def test_events_come_behind_the_rows_in_the_order_of_their_arrival():
    longer = joined(NUMBERED, (8, 1, NOON, "buy", 2.5), (9, 3, NOON - HOUR, "view", None))
    assert rows(longer) == [
        (7, 1, NOON, "view", None, 0),
        (8, 2, NOON + HOUR, "view", 3.0, 1),
        (8, 1, NOON, "buy", 2.5, 2),
        (9, 3, NOON - HOUR, "view", None, 3),
    ]
    assert longer.interactions.collect_schema() == NUMBERED.interactions.collect_schema()
    assert longer.notes[-1].detail == "2 events joined 2 of the data set, as rows 2 and on"


def test_a_store_without_events_changes_nothing_but_says_so():
    longer = joined(NUMBERED)
    assert rows(longer) == rows(NUMBERED)
    assert longer.notes[-1].detail == "there is none"
    assert longer.fingerprint == NUMBERED.fingerprint


@pytest.mark.parametrize("key", ["s-1", "007", "+7", "7.0", "9" * 30])
def test_integers_become_texts_where_a_key_of_the_store_is_none(key):
    items = pl.DataFrame({"item": [1, 2], "title": ["tea", "cup"]})
    friends = pl.DataFrame({"kind": ["user-user"], "from": [7], "to": [8], "weight": [1.0]})
    alike = friends.with_columns(kind=pl.lit("item-item"))
    longer = joined(replace(NUMBERED, items=items, relations=(friends, alike)), (key, 1, NOON, "view", None))
    assert [row[:2] for row in rows(longer)] == [("7", 1), ("8", 2), (key, 1)]
    assert longer.items is not None
    assert longer.items["item"].to_list() == [1, 2]
    assert [relation["from"].to_list() for relation in longer.relations] == [["7"], [7]]

    longer = joined(replace(NUMBERED, items=items, relations=(friends, alike)), (7, key, NOON, "view", None))
    assert [row[:2] for row in rows(longer)] == [(7, "1"), (8, "2"), (7, key)]
    assert longer.items is not None
    assert longer.items["item"].to_list() == ["1", "2"]
    assert [relation["from"].to_list() for relation in longer.relations] == [[7], ["7"]]


EVENT = st.tuples(
    st.integers(0, 4), st.integers(0, 4), st.integers(0, 9).map(lambda hour: NOON + hour * HOUR),
    st.sampled_from(["view", "buy"]), st.none(),
)  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(
    before=st.lists(EVENT, min_size=1, max_size=12), after=st.lists(EVENT, max_size=12), text=st.booleans()
)
def test_what_comes_from_the_store_is_cleaned_as_if_it_had_stood_in_the_table(before, after, text):
    def keyed(events):
        return [(f"u{u}", f"i{i}", *rest) for u, i, *rest in events] if text else events

    plain = Settings.build({"split": {"kind": "leave_one_out"}})
    in_one_table = prepare(dataset(keyed(before + after)), plain)
    from_both = prepare(joined(dataset(keyed(before)), *keyed(after)), plain)
    assert from_both.people.series.to_list() == in_one_table.people.series.to_list()
    assert from_both.items.series.to_list() == in_one_table.items.series.to_list()
    for name in ("offsets", "item", "event", "time"):
        one, other = getattr(from_both.histories, name), getattr(in_one_table.histories, name)
        assert one.tolist() == other.tolist()
    assert from_both.report["after"] == in_one_table.report["after"]


def test_events_of_the_store_meet_the_rules_of_the_data_and_stand_in_its_report():
    longer = joined(
        replace(SIX_PEOPLE, require_positive=("price",)),
        ("gus", "POST", NOON, "buy", None),  # not a thing to recommend
        ("gus", "tea", NOON, "Buy", None),
        ("gus", "cup", NOON + HOUR, "buy", -2.0),  # brought back
        ("ann", "tea", NOON, "view", 1.0),  # in the data already
    )
    prepared = prepare(longer, Settings.build({}))
    gus = prepared.histories.select(prepared.people.ids(["gus"]))
    assert prepared.items.keys(gus.item) == ["tea", "cup"]
    assert [prepared.schema.events[code] for code in gus.event] == ["buy", "return"]
    rules = {rule["rule"]: rule for rule in prepared.report["rules"]}
    assert rules["events of the store"]["detail"].startswith("4 events joined 18 of the data set")


def test_prepared_data_are_made_anew_when_further_events_have_come(tmp_path):
    data = replace(views({"ann": "abc", "bob": "bca"}), fingerprint="of a file")
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with open_store(url) as store:
        store.append(
            [StoredEvent("1", "cyd", "a", "view", NOON), StoredEvent("2", "cyd", "b", "view", NOON + 1)]
        )
        first = with_events(data, url).fingerprint
        assert with_events(data, store).fingerprint == first
        store.append([StoredEvent("3", "cyd", "c", "view", NOON + 2)])
        second = with_events(data, url).fingerprint
        store.forget("cyd")
        store.append([StoredEvent(str(n), "cyd", "c", "view", NOON + 2) for n in range(3)])
        assert len({data.fingerprint, first, second, with_events(data, url).fingerprint}) == 4


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="There is no event store"):
        with_events(NUMBERED, f"sqlite:///{tmp_path / 'events.db'}")
    assert list(tmp_path.iterdir()) == []
