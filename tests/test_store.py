import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from palate.data import store
from palate.data.store import FORMAT_VERSION, Prepared, load_prepared, prepare, save
from palate.errors import BundleError, DataError
from palate.schema import Field, FieldKind
from palate.settings import Settings
from tests.tables import NOON, dataset, views

FIELDS = (
    Field("title", FieldKind.TEXT),
    Field("tags", FieldKind.CATEGORIES),
    Field("size", FieldKind.NUMBER),
)
ITEMS = pl.DataFrame(
    {
        "item": ["b", "a", "z", "y", None],
        "title": ["Bun &amp; butter", "Apple", "Never met", " ", "lost"],
        "tags": [["x"], ["x", "y"], None, None, None],
        "size": [1.0, 2.0, 3.0, None, None],
    }
)
SHOP = views(
    {"bob": "abc", "ann": "cabb"},
    name="shop",
    fields=FIELDS,
    items=ITEMS,
    fingerprint="1",
    event_weights={"View": 2.0},
)
SPLITS = ("leave_one_out", "leave_last_k", "temporal", "cold_items", "cold_users")


def assert_same(one: Prepared, other: Prepared) -> None:
    assert (one.name, one.schema, one.split) == (other.name, other.schema, other.split)
    assert one.report == other.report
    assert one.people.series.equals(other.people.series)
    assert one.items.series.equals(other.items.series)
    assert_frame_equal(one.catalogue, other.catalogue)
    for name in ("offsets", "item", "event", "time"):
        here, there = getattr(one.histories, name), getattr(other.histories, name)
        assert here.dtype == there.dtype
        np.testing.assert_array_equal(here, there)
    assert other.part.dtype == np.uint8
    np.testing.assert_array_equal(one.part, other.part)


def test_ids_follow_the_keys_and_items_without_events_come_last():
    prepared = prepare(SHOP, Settings(), None)
    assert prepared.people.keys([2, 3]) == ["ann", "bob"]
    assert prepared.items.keys([2, 3, 4, 5, 6]) == ["a", "b", "c", "y", "z"]
    assert prepared.histories.offsets.tolist() == [0, 0, 0, 4, 7]
    assert prepared.histories.item.tolist() == [4, 2, 3, 3, 2, 3, 4]
    assert prepared.candidates(cold_targets=True).tolist() == [False, False, True, True, True, False, False]
    assert prepared.schema.event_weights == (2.0,)


def test_the_catalogue_is_aligned_with_the_ids():
    prepared = prepare(SHOP, Settings(), None)
    assert prepared.catalogue.rows() == [
        (None, None, None, None),
        (None, None, None, None),
        ("a", "Apple", ["x", "y"], 2.0),
        ("b", "Bun & butter", ["x"], 1.0),
        ("c", None, None, None),
        ("y", None, None, None),
        ("z", "Never met", None, 3.0),
    ]
    rules = {rule["rule"]: rule for rule in prepared.report["rules"]}
    assert rules["items without key"]["removed"] == 1
    assert rules["items without description"]["examples"] == ["item c"]


def test_without_items_the_catalogue_has_keys_alone():
    prepared = prepare(views({"ann": "abc"}), Settings(), None)
    assert prepared.catalogue.rows() == [(None,), (None,), ("a",), ("b",), ("c",)]


def test_excluded_items_are_not_in_the_catalogue_either():
    prepared = prepare(replace(SHOP, exclude_items=("z|c",)), Settings(), None)
    assert prepared.items.keys([2, 3, 4]) == ["a", "b", "y"]


def test_descriptions_from_interactions_are_those_of_training_rows():
    table = views({"ann": "aba", "bob": "abc"})  # rows 1 and 2, 4 and 5 are held out
    described = pl.DataFrame(
        {
            "item": ["a", "a", "b", "c", "gone"],
            "title": ["then", "later", "held", "held too", "of no event left"],
            "row": [0, 2, 1, 5, 9],
            "count": [1, 7, 2, 1, 1],
        }
    )
    prepared = prepare(replace(table, items=described, fields=FIELDS[:1]), Settings(), None)
    assert prepared.catalogue["title"].to_list() == [None, None, "then", "held", "held too"]


def test_item_tables_with_number_keys_meet_text_keys():
    items = pl.DataFrame({"item": [7, 8], "title": ["seven", "eight"]})
    rows = [("ann", key, NOON + n, "view", None) for n, key in enumerate(["7", "8", "9"])]
    prepared = prepare(dataset(rows, items=items, fields=FIELDS[:1]), Settings(), None)
    assert prepared.catalogue["title"].to_list() == [None, None, "seven", "eight", None]


def test_strict_refuses_items_without_a_key():
    with pytest.raises(DataError, match="'items without key' found 1"):
        prepare(SHOP, Settings.build({"data": {"strict": True}}), None)


def test_the_report_counts_what_is_there():
    report = prepare(SHOP, Settings(), None).report
    assert report["before"] == {"events": 7, "people": 2, "items": 3, "density": 7 / 6}
    assert report["after"] == report["before"]
    assert report["catalogue"] == 5
    assert report["events"] == {"view": 7}
    assert report["history_lengths"] == [
        {"from": 1, "to": 1, "people": 0},
        {"from": 2, "to": 3, "people": 1},
        {"from": 4, "to": 7, "people": 1},
    ]
    assert report["months"] == [{"month": "2011-01", "events": 7}]
    assert report["parts"] == {"train": 3, "validation": 2, "test": 2, "unused": 0}
    assert report["popularity"][-1] == [1.0, 1.0]
    assert report["popularity"][0] == [1 / 3, 3 / 7]
    assert report["fields"][0] == {"name": "title", "kind": "text", "items": 2, "share": 2 / 3, "distinct": 2}
    assert json.loads(json.dumps(report)) == report


def test_months_without_events_are_counted_too():
    rows = [("ann", str(n), NOON + n * 40 * 86_400_000_000, "view", None) for n in range(3)]
    months = prepare(dataset(rows), Settings(), None).report["months"]
    assert [(month["month"], month["events"]) for month in months] == [
        ("2011-01", 1),
        ("2011-02", 0),
        ("2011-03", 1),
        ("2011-04", 1),
    ]


@pytest.mark.parametrize("kind", SPLITS)
def test_saved_is_loaded(kind, tmp_path):
    people = {f"p{n}": "".join("abcdefghij"[(n + k * k) % 10] for k in range(6)) for n in range(12)}
    table = views(people, fields=FIELDS, items=ITEMS)
    settings = Settings.build({"split": {"kind": kind}})
    inside = prepare(table, settings, None)
    assert_same(inside, prepare(table, settings, tmp_path / "prepared"))
    assert_same(inside, load_prepared(tmp_path / "prepared"))


def test_number_keys_survive(tmp_path):
    rows = [(2**40 + n, n % 3, NOON + n, "view", None) for n in range(9)]
    prepared = prepare(dataset(rows), Settings(), tmp_path / "prepared")
    assert prepared.people.keys([2]) == [2**40]
    assert_same(prepare(dataset(rows), Settings(), None), prepared)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written_at(folder: Path) -> int:
    return (folder / "manifest.json").stat().st_ino


def test_unchanged_data_is_reused_and_changed_data_is_not(tmp_path):
    folder = tmp_path / "prepared"
    prepare(SHOP, Settings(), folder)
    first = written_at(folder)
    for same in ({}, {"model": {"width": 8}}, {"train": {"max_epochs": 1}}):
        prepare(SHOP, Settings.build(same), folder)
        assert written_at(folder) == first
    for other in ({"seed": 1}, {"data": {"repeats": "last"}}, {"train": {"target_events": ["view"]}}):
        before = written_at(folder)
        prepare(SHOP, Settings.build(other), folder)
        assert written_at(folder) != before
    before = written_at(folder)
    prepare(replace(SHOP, fingerprint="2"), Settings.build(other), folder)
    assert written_at(folder) != before
    assert names_in(tmp_path) == ["prepared"]


def test_data_without_a_fingerprint_is_prepared_again(tmp_path):
    folder = tmp_path / "prepared"
    prepare(replace(SHOP, fingerprint=""), Settings(), folder)
    first = written_at(folder)
    prepare(replace(SHOP, fingerprint=""), Settings(), folder)
    assert written_at(folder) != first


def test_a_damaged_folder_is_prepared_again(tmp_path):
    folder = tmp_path / "prepared"
    whole = prepare(SHOP, Settings(), folder)
    (folder / "items.parquet").write_bytes(b"")
    assert_same(whole, prepare(SHOP, Settings(), folder))
    assert_same(whole, load_prepared(folder))


@pytest.mark.parametrize("name", store.FILES)
def test_missing_truncated_and_altered_files_are_refused(name, tmp_path):
    folder = tmp_path / "prepared"
    prepare(SHOP, Settings(), folder)
    whole = (folder / name).read_bytes()
    altered = bytearray(whole)
    altered[-1] ^= 1
    (folder / name).write_bytes(altered)
    with pytest.raises(BundleError, match=f"{name} was altered.*prepare again"):
        load_prepared(folder)
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name} has .* bytes, written were {len(whole)}"):
        load_prepared(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_prepared(folder)


def test_a_newer_format_and_a_broken_manifest_are_refused(tmp_path):
    folder = tmp_path / "prepared"
    prepare(SHOP, Settings(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, message in (
        ({"format_version": FORMAT_VERSION + 1}, "Upgrade Palate"),
        ({"format_version": "soon"}, "manifest.json is not what was written"),
        ({"schema": {}}, "cannot be read"),
        ({"split": {"kind": "sideways"}}, "cannot be read"),
    ):
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(BundleError, match=message):
            load_prepared(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        load_prepared(folder)
    with pytest.raises(BundleError, match="not prepared data"):
        load_prepared(tmp_path / "nowhere")


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="something else"):
        prepare(SHOP, Settings(), tmp_path)
    with pytest.raises(BundleError, match="something else"):
        prepare(SHOP, Settings(), tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    prepare(SHOP, Settings(), tmp_path / "empty")
    assert len(load_prepared(tmp_path / "empty").people) == 2


@pytest.mark.parametrize("files_before_failure", range(6))
def test_a_failure_while_writing_leaves_the_old_folder_or_none(files_before_failure, tmp_path, monkeypatch):
    folder, prepared = tmp_path / "prepared", prepare(SHOP, Settings(), None)
    synced = []

    def fail_after(path: Path) -> None:
        if len(synced) == files_before_failure:
            raise KeyboardInterrupt
        synced.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_sync", fail_after)
        with pytest.raises(KeyboardInterrupt):
            save(prepared, folder)
    assert names_in(tmp_path) == []
    save(prepared, folder)
    with monkeypatch.context() as patch:
        synced.clear()
        patch.setattr(store, "_sync", fail_after)
        with pytest.raises(KeyboardInterrupt):
            save(replace(prepared, name="newer"), folder)
    assert names_in(tmp_path) == ["prepared"]
    assert load_prepared(folder).name == prepared.name


def test_a_killed_process_leaves_no_half_folder(tmp_path):
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from pathlib import Path
from palate.data import store
from palate.settings import Settings
from tests.tables import views
store._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
store.prepare(views({{"ann": "abc"}}), Settings(), Path({str(tmp_path / "prepared")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "prepared").exists()
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".writing"
    with store.replacing(tmp_path / "prepared") as mine, store.replacing(tmp_path / "prepared"):
        assert not left.exists()
        assert mine.is_dir(), "a folder that another process is writing was taken away"
    assert names_in(tmp_path) == ["prepared"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_loaded_columns_are_mapped_to_the_file(tmp_path):
    prepare(SHOP, Settings(), tmp_path / "prepared")
    loaded = load_prepared(tmp_path / "prepared")
    mapped = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(tmp_path / "prepared" / "columns.safetensors"))
    ]
    of = loaded.histories
    for column in (of.offsets, of.item, of.event, of.time, loaded.part):
        address = column.__array_interface__["data"][0]
        assert any(start <= address < end for start, end in mapped)
