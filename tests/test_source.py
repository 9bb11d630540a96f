"""Reading a stranger's data: what comes in messy goes on canonical, and nothing is lost unseen."""

import datetime
import gzip
import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.cells import inside
from palate.data.source import dataset_from_frames, read_dataset
from palate.data.text_files import detect_encoding, detect_separator
from palate.errors import DataError, MissingExtraError, SettingsError
from palate.samples import sample_path
from palate.schema import Dataset, FieldKind


def micros(*parts: int) -> int:
    moment = datetime.datetime(*parts, tzinfo=datetime.UTC)  # type: ignore[misc]
    return int(moment.timestamp()) * 1_000_000


def described(folder: Path, **parts: object) -> Dataset:
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(parts, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return read_dataset(path)


def rows(folder: Path, name: str, content: str | bytes, **more: object) -> tuple[pl.DataFrame, Dataset]:
    """The canonical interactions of one file with columns u, i and whatever ``more`` names."""
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(raw)
    dataset = described(folder, interactions={"table": name, "user": "u", "item": "i", **more})
    return dataset.interactions.collect(), dataset


def notes(dataset: Dataset) -> dict[str, str]:
    return {note.rule: note.detail for note in dataset.notes}


def times_of(*texts: str, **more: object) -> tuple[list[int | None], Dataset]:
    frame = pl.DataFrame({"u": ["a"] * len(texts), "i": ["b"] * len(texts), "t": list(texts)})
    dataset = dataset_from_frames(frame, user="u", item="i", time="t", **more)  # type: ignore[arg-type]
    return dataset.interactions.collect()["time"].to_list(), dataset


# Formats


def test_semicolons_a_byte_order_mark_chinese_and_mixed_types_are_read(tmp_path: Path) -> None:
    content = (
        "\ufeff用户;商品;时间;数量\n"
        '张三;"红;茶";2023-05-01 10:00:00;"2,55"\n'
        "007;42;2023-05-01 10:00:01;3\n"
        " 李四 ;x;NA;\n"
        ";y;never;viele\n"
    )
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    spec = {"table": "t.csv", "user": "用户", "item": "商品", "time": "时间", "value": "数量"}
    dataset = described(tmp_path, interactions=spec)
    frame = dataset.interactions.collect()
    assert frame["user"].to_list() == ["张三", "007", "李四", None]
    assert frame["item"].to_list() == ["红;茶", "42", "x", "y"]
    assert frame["time"].to_list() == [micros(2023, 5, 1, 10), micros(2023, 5, 1, 10, 0, 1), None, None]
    assert frame["value"].to_list() == [2.55, 3.0, None, None]
    assert frame["row"].to_list() == [0, 1, 2, 3]
    # "NA" and the empty cell are missing; only "never" and "viele" are unreadable.
    assert "1 cells unreadable" in notes(dataset)["unreadable times"]
    assert [note.examples for note in dataset.notes] == [("never",), ("viele",)]


def test_all_text_formats_and_parquet_say_the_same(tmp_path: Path) -> None:
    columns = {"u": ["a", "b"], "i": ["x", "y"], "t": [1_600_000_000, 1_600_000_001]}
    frame = pl.DataFrame(columns)
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "t.jsonl")
    frame.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t2.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    read = []
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet", "t2.csv.gz"):
        spec = {"table": name, "user": "u", "item": "i", "time": "t"}
        read.append(described(tmp_path, interactions=spec).interactions.collect())
    assert all(other.equals(read[0]) for other in read[1:])
    assert read[0]["time"].to_list() == [1_600_000_000_000_000, 1_600_000_001_000_000]


def test_ragged_rows_are_filled_cut_and_counted(tmp_path: Path) -> None:
    frame, dataset = rows(tmp_path, "t.csv", "u,i,t\n1,2\n3,4,5\n6,7,8,9\n\n", time="t")
    assert frame["user"].to_list()[:3] == ["1", "3", "6"]
    assert frame["time"].to_list()[:3] == [None, 5, 8]
    note = next(note for note in dataset.notes if note.rule == "unreadable rows")
    assert "2 rows" in note.detail
    assert note.examples == ("1,2", "6,7,8,9")


def test_stray_quotes_spoil_only_their_own_row(tmp_path: Path) -> None:
    content = 'u,i,t\n1,"unclosed,3\n2,"foo" bar,4\n3,5" disk,5\n4,"two\nlines",6\n5,"say ""hi""",7\n'
    frame, dataset = rows(tmp_path, "t.csv", content)
    assert frame["user"].to_list() == ["1", "2", "3", "4", "5"]
    assert frame["item"].to_list()[0] == "unclosed"
    assert frame["item"].to_list()[3:] == ["two\nlines", 'say "hi"']
    assert "unreadable quotes" in notes(dataset)


def test_lines_that_are_not_json_are_left_out_and_counted(tmp_path: Path) -> None:
    frame, dataset = rows(tmp_path, "t.jsonl", '{"u": 1, "i": "a"}\n{oops\n{"u": 2, "i": "b"}\n[3]\n')
    assert frame.schema["user"] == pl.Int64
    assert frame["user"].to_list() == [1, 2]
    note = next(note for note in dataset.notes if note.rule == "unreadable lines")
    assert (note.removed, note.remaining) == (2, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_chinese_is_read_in_every_usual_encoding(tmp_path: Path, encoding: str) -> None:
    frame, _ = rows(tmp_path, "t.csv", "u,i\n张三,红色的茶杯\n李四,木椅\n".encode(encoding))
    assert frame["item"].to_list() == ["红色的茶杯", "木椅"]


def test_western_letters_are_not_taken_for_chinese(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("u,i\nJosé,cafés à la crème\nZoë,Müsli für Käufer\n".encode("cp1252"))
    assert detect_encoding(path) == "cp1252"


def test_a_named_encoding_is_obeyed_and_an_unknown_one_refused(tmp_path: Path) -> None:
    content = "u,i\nж,я\n".encode("koi8-r")
    frame, _ = rows(tmp_path, "t.csv", content, encoding="koi8-r")
    assert frame["user"].to_list() == ["ж"]
    with pytest.raises(DataError, match="utf-9"):
        rows(tmp_path, "t.csv", content, encoding="utf-9")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_cuts_evenly(separator: str) -> None:
    lines = [["user", "title", "price"], ["1", '"a, b; c"', '"2,5"'], ["2", "d", "3"]]
    assert detect_separator("\n".join(separator.join(line) for line in lines)) == separator


def test_several_files_are_one_table_and_must_fit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,i\n1,x\n")
    (tmp_path / "b.csv").write_text("i;u\ny;2\n")
    dataset = described(tmp_path, interactions={"table": ["a.csv", "b.csv"], "user": "u", "item": "i"})
    frame = dataset.interactions.collect()
    assert frame.select("user", "item", "row").rows() == [("1", "x", 0), ("2", "y", 1)]
    (tmp_path / "b.csv").write_text("u,j\n1,x\n")
    with pytest.raises(DataError, match="differ in the columns i, j"):
        described(tmp_path, interactions={"table": ["a.csv", "b.csv"], "user": "u", "item": "i"})


def test_parquet_stays_unread_until_asked(tmp_path: Path) -> None:
    pl.DataFrame({"u": [1], "i": [2]}).write_parquet(tmp_path / "t.parquet")
    dataset = described(tmp_path, interactions={"table": "t.parquet", "user": "u", "item": "i"})
    assert "Parquet SCAN" in dataset.interactions.explain()


# Databases


def _shop(folder: Path) -> Path:
    path = folder / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (u INTEGER, i TEXT, t TEXT, n)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?)",
            [(1, "a", "2023-01-01 10:00", 1), (2, "b", "2023-01-02 10:00", "two")],
        )
    connection.close()
    return path


@pytest.mark.parametrize("asked", [{"sql_table": "orders"}, {"query": "SELECT *, ':x' AS y FROM orders"}])
def test_a_database_is_read_by_table_or_query(tmp_path: Path, asked: dict[str, str]) -> None:
    _shop(tmp_path)
    spec = {"table": "sqlite:///shop.db", "user": "u", "item": "i", "time": "t", "value": "n", **asked}
    dataset = described(tmp_path, interactions=spec)
    frame = dataset.interactions.collect()
    assert frame["user"].to_list() == [1, 2]
    assert frame["time"][0] == micros(2023, 1, 1, 10)
    assert frame["value"].to_list() == [1.0, None]


def test_secrets_come_from_the_environment_and_stay_out_of_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"table": "sqlite:///${SHOP}.db", "sql_table": "sales", "user": "u", "item": "i"}
    with pytest.raises(DataError, match="environment variable SHOP"):
        described(tmp_path, interactions=spec)
    _shop(tmp_path)
    monkeypatch.setenv("SHOP", "shop")
    with pytest.raises(DataError, match="no such table: sales"):
        described(tmp_path, interactions=spec)
    monkeypatch.setenv("PASSWORD", "s3cr@t/")
    spec["table"] = "postgresql://ann:${PASSWORD}@localhost:1/shop"
    with pytest.raises((DataError, MissingExtraError)) as caught:
        described(tmp_path, interactions=spec)
    assert "s3cr" not in str(caught.value)
    assert "palate[postgresql]" in str(caught.value) or "ann:***@" in str(caught.value)


def test_a_missing_database_file_is_not_created(tmp_path: Path) -> None:
    spec = {"table": "sqlite:///shop.db", "sql_table": "orders", "user": "u", "item": "i"}
    with pytest.raises(DataError, match="no SQLite file"):
        described(tmp_path, interactions=spec)
    assert not (tmp_path / "shop.db").exists()


# Frames


def test_pandas_and_polars_frames_say_the_same() -> None:
    columns = {"u": ["a", "b", None], "i": [1, 2, 3], "v": [1.5, float("nan"), 2.0]}
    moments = [datetime.datetime(2023, 1, day) for day in (1, 2, 3)]
    kinds = {"kind": FieldKind.CATEGORY, "cost": ("price", "number")}
    read = []
    for library in (pl, pd):
        interactions = library.DataFrame({**columns, "t": moments})  # type: ignore[attr-defined]
        items = library.DataFrame({"id": [1, 2], "kind": ["x", "y"], "price": [1, 2]})  # type: ignore[attr-defined]
        read.append(
            dataset_from_frames(
                interactions, user="u", item="i", time="t", value="v", items=items, item_id="id", fields=kinds
            )
        )
    one, two = read
    assert one.interactions.collect().equals(two.interactions.collect())
    assert one.items is not None
    assert two.items is not None
    assert one.items.rows() == two.items.rows() == [(1, "x", 1.0), (2, "y", 2.0)]
    assert one.fingerprint == ""


def test_a_pandas_column_of_mixed_types_becomes_text() -> None:
    frame = pd.DataFrame({"u": [1, "b", None], "i": [1.0, np.nan, 3.0]})
    read = dataset_from_frames(frame, user="u", item="i").interactions.collect()
    assert read["user"].to_list() == ["1", "b", None]
    assert read["item"].to_list() == [1, None, 3]
    assert read["time"].to_list() == [0, 1, 2]


def test_something_that_is_no_frame_is_refused() -> None:
    with pytest.raises(DataError, match="list; wanted a pandas or Polars frame"):
        dataset_from_frames([1, 2], user="u", item="i")  # type: ignore[arg-type]


# Keys


def test_keys_are_integers_only_where_both_tables_have_integers() -> None:
    interactions = pl.DataFrame({"u": [1.0, 2.0], "i": [7, 8]})
    whole = pl.DataFrame({"i": [7, 8], "title": ["a", "b"]})
    texts = whole.with_columns(pl.col("i").cast(pl.String))
    for items, dtype in ((whole, pl.Int64), (texts, pl.String)):
        read = dataset_from_frames(interactions, user="u", item="i", items=items, fields={"title": "text"})
        assert read.items is not None
        assert read.items.schema["item"] == read.interactions.collect_schema()["item"] == dtype
        assert read.interactions.collect_schema()["user"] == pl.Int64


def test_leading_zeros_survive_and_whole_floats_lose_their_point(tmp_path: Path) -> None:
    frame, _ = rows(tmp_path, "t.csv", "u,i\n007,17850.0\n7,17851.0\n,1.5\n")
    assert frame["user"].to_list() == ["007", "7", None]
    assert frame["item"].to_list() == ["17850", "17851", "1.5"]


def test_floats_that_are_not_whole_make_text_keys() -> None:
    frame = pl.DataFrame({"u": [1.5, 2.0], "i": [1, 2]})
    assert dataset_from_frames(frame, user="u", item="i").interactions.collect()["user"].to_list() == [
        "1.5",
        "2",
    ]


@given(
    st.lists(
        st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=40, deadline=None)
def test_text_keys_are_trimmed_and_never_empty(keys: list[str | None]) -> None:
    frame = pl.DataFrame({"u": keys, "i": range(len(keys))}, schema={"u": pl.String, "i": pl.Int64})
    read = dataset_from_frames(frame, user="u", item="i").interactions.collect()["user"].to_list()
    assert read == [(key.strip() or None) if key is not None and key.strip() else None for key in keys]


# Times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-05-14", micros(2023, 5, 14)),
        ("2023-05-14 10:11", micros(2023, 5, 14, 10, 11)),
        ("2023-05-14T10:11:12Z", micros(2023, 5, 14, 10, 11, 12)),
        ("2023-05-14T10:11:12.250+02:00", micros(2023, 5, 14, 8, 11, 12) + 250_000),
        ("2023-05-14 10:11:12-0330", micros(2023, 5, 14, 13, 41, 12)),
        ("2023/5/14 9:05", micros(2023, 5, 14, 9, 5)),
        ("14.5.2023 10:11:12", micros(2023, 5, 14, 10, 11, 12)),
        ("14/05/23", micros(2023, 5, 14)),
        ("5/14/2023 9:05 PM", micros(2023, 5, 14, 21, 5)),
        ("5/14/2023 12:05 am", micros(2023, 5, 14, 0, 5)),
        ("2023年5月14日 10:11", micros(2023, 5, 14, 10, 11)),
        ("14 May 2023", micros(2023, 5, 14)),
        ("May 14, 2023", micros(2023, 5, 14)),
        ("Sun, 14 May 2023 10:11:12 GMT", micros(2023, 5, 14, 10, 11, 12)),
        ("20230514", micros(2023, 5, 14)),
        ("1684059072", micros(2023, 5, 14, 10, 11, 12)),
        ("1684059072250", micros(2023, 5, 14, 10, 11, 12) + 250_000),
        ("1684059072.25", micros(2023, 5, 14, 10, 11, 12) + 250_000),
    ],
)
def test_the_usual_ways_of_writing_a_time_are_read(text: str, expected: int) -> None:
    read, dataset = times_of(text)
    assert read == [expected]
    assert dataset.has_time
    assert not dataset.notes


def test_the_whole_column_decides_whether_days_or_months_come_first() -> None:
    assert times_of("3/4/2023", "25/4/2023")[0][0] == micros(2023, 4, 3)
    assert times_of("3/4/2023", "4/25/2023")[0][0] == micros(2023, 3, 4)


def test_an_undecidable_order_of_day_and_month_is_noted_and_can_be_settled() -> None:
    read, dataset = times_of("3/4/2023")
    assert read == [micros(2023, 4, 3)]
    assert "interactions.day_first" in notes(dataset)["ambiguous dates"]
    read, dataset = times_of("3/4/2023", day_first=False)
    assert read == [micros(2023, 3, 4)]
    assert not dataset.notes


def test_times_that_cannot_be_are_null_and_counted() -> None:
    read, dataset = times_of("2023-02-30", "2023-05-14", "soon", "")
    assert read == [None, micros(2023, 5, 14), None, None]
    assert "2 cells unreadable in column 't'" in notes(dataset)["unreadable times"]


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_the_unit_of_a_clock_number_is_told_by_its_size(unit: str, scale: int) -> None:
    seconds = 1_684_059_072
    frame = pl.DataFrame({"u": [1], "i": [1], "t": [seconds * scale]})
    for given_unit in ("auto", unit):
        read = dataset_from_frames(frame, user="u", item="i", time="t", time_unit=given_unit)  # type: ignore[arg-type]
        assert read.interactions.collect()["time"].to_list() == [seconds * 10**6]
        assert read.has_time


def test_small_numbers_only_order_the_events() -> None:
    frame = pl.DataFrame({"u": [1, 1], "i": [1, 2], "t": [0, 1]})
    read = dataset_from_frames(frame, user="u", item="i", time="t")
    assert not read.has_time
    assert read.interactions.collect()["time"].to_list() == [0, 1]


def test_typed_times_become_utc() -> None:
    zone = pl.Series("t", [datetime.datetime(2023, 5, 14, 12)]).dt.replace_time_zone("Europe/Berlin")
    for column, expected in ((zone, micros(2023, 5, 14, 10)), (zone.dt.date(), micros(2023, 5, 14))):
        frame = pl.DataFrame({"u": [1], "i": [1], "t": column})
        read = dataset_from_frames(frame, user="u", item="i", time="t").interactions.collect()
        assert read["time"].to_list() == [expected]


@given(st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2199, 1, 1)))
@settings(max_examples=50, deadline=None)
def test_every_iso_time_comes_back(moment: datetime.datetime) -> None:
    exact = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
    assert times_of(moment.isoformat())[0] == [exact]


# Numbers, events, content


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2,55", "1.234"], [2.55, 1234.0]),
        (["2.55", "1,234"], [2.55, 1234.0]),
        (["1.234,5", "10"], [1234.5, 10.0]),
        (["1,234.5", "1e3"], [1234.5, 1000.0]),
        (["€ 3", "4 kg", "inf", "-5%"], [3.0, None, None, -5.0]),
        (["1.234,567.8", "--3"], [None, None]),
    ],
)
def test_numbers_are_read_as_their_column_writes_them(texts: list[str], expected: list[float | None]) -> None:
    frame = pl.DataFrame({"u": [1] * len(texts), "i": [1] * len(texts), "v": texts})
    read = dataset_from_frames(frame, user="u", item="i", value="v")
    assert read.interactions.collect()["value"].to_list() == expected


def test_events_are_renamed_and_empty_ones_take_the_default(tmp_path: Path) -> None:
    content = "u,i,e\n1,1,VIEW\n1,2,3\n1,3,\n"
    more = {"event": "e", "event_names": {"VIEW": "view", 3: "cart"}, "event_default": "other"}
    frame, _ = rows(tmp_path, "t.csv", content, **more)
    assert frame["event"].to_list() == ["view", "cart", "other"]


def test_rows_are_marked_that_are_not_positive_where_they_must_be() -> None:
    frame = pl.DataFrame({"u": [1] * 4, "i": [1] * 4, "p": [1.0, 0.0, None, 2.0], "q": [1, 1, 1, -1]})
    read = dataset_from_frames(frame, user="u", item="i", require_positive=["p", "q"])
    assert read.interactions.collect()["positive"].to_list() == [True, False, False, False]


def test_content_has_the_type_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "i,title,tags,list,price,vec,kind\n"
        '1, Tea ,a|b|a,"[\'x, y\', ""d\'Asti"", \'z\']","2,5","[0.5, 1]",red\n'
        "2,,,,,0.5 oops,\n",
        encoding="utf-8",
    )
    (tmp_path / "t.csv").write_text("u,i\n1,1\n")
    fields = {
        "title": {"kind": "text"},
        "tags": {"kind": "categories"},
        "list": {"kind": "categories"},
        "price": {"kind": "number"},
        "vector": {"column": "vec", "kind": "vector"},
        "kind": {"kind": "category"},
    }
    dataset = described(
        tmp_path,
        interactions={"table": "t.csv", "user": "u", "item": "i"},
        items={"table": "i.csv", "id": "i", "fields": fields},
    )
    assert dataset.items is not None
    assert dataset.items.rows() == [
        ("1", "Tea", ["a", "b"], ["x, y", "d'Asti", "z"], 2.5, [0.5, 1.0], "red"),
        ("2", None, None, None, None, None, None),
    ]
    assert dataset.items.schema["vector"] == pl.List(pl.Float32)
    assert "1 cells unreadable" in notes(dataset)["unreadable numbers of vector"]


def test_content_within_the_interactions_is_told_once_with_its_count() -> None:
    frame = pl.DataFrame({"u": [1, 2, 3, 4], "i": [1, 1, 2, 1], "t": ["a", "b", "c", "a"]})
    read = dataset_from_frames(frame, user="u", item="i", fields={"title": ("t", "text")})
    assert read.items is not None
    assert read.items.columns == ["item", "title", "row", "count"]
    assert read.items.rows() == [(1, "a", 0, 2), (1, "b", 1, 1), (2, "c", 2, 1)]


def test_content_is_dated_by_the_first_row_that_has_a_person() -> None:
    frame = pl.DataFrame({"u": [None, 1, 2, None], "i": [1, 1, 1, 2], "t": ["a", "b", "a", "c"]})
    read = dataset_from_frames(frame, user="u", item="i", fields={"title": ("t", "text")})
    assert read.items is not None
    assert read.items.rows() == [(1, "b", 1, 1), (1, "a", 2, 2), (2, "c", 3, 1)]


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("images/1.jpg", True),
        ("a/../b.jpg", True),
        ("..jpg", True),
        ("../x.jpg", False),
        ("a/../../x.jpg", False),
        ("/etc/passwd", False),
        ("..\\x.jpg", False),
        ("C:\\x.jpg", False),
        ("\\\\host\\x.jpg", False),
        ("file:///x.jpg", False),
        ("~/x.jpg", False),
    ],
)
def test_media_paths_may_not_leave_their_folder(path: str, safe: bool) -> None:
    assert inside(path) == safe
    items = pl.DataFrame({"i": [1, 2], "cover": [path, "ok.jpg"]})
    interactions = pl.DataFrame({"u": [1], "i": [1]})
    read = dataset_from_frames(interactions, user="u", item="i", items=items, fields={"cover": "image"})
    assert read.items is not None
    assert read.items["cover"].to_list() == [path if safe else None, "ok.jpg"]
    assert ("unreadable media paths" in notes(read)) != safe


def test_relations_and_people_are_read_with_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"u": n, "i": n}) for n in (1, 2)))
    (tmp_path / "u.jsonl").write_text('{"id": 1, "age": "30"}\n')
    (tmp_path / "f.csv").write_text('a,b,w\n1,2,"0,5"\n')
    dataset = described(
        tmp_path,
        interactions={"table": "t.jsonl", "user": "u", "item": "i"},
        users={"table": "u.jsonl", "id": "id", "fields": {"age": {"kind": "number"}}},
        relations=[{"kind": "user-user", "table": "f.csv", "from": "a", "to": "b", "weight": "w"}],
    )
    assert dataset.users is not None
    # The friends come from CSV, where keys are text; so all people's keys are text.
    assert dataset.users.rows() == [("1", 30.0)]
    assert dataset.relations[0].rows() == [("user-user", "1", "2", 0.5)]
    assert dataset.interactions.collect()["user"].to_list() == ["1", "2"]
    assert dataset.interactions.collect()["item"].to_list() == [1, 2]


# The description


def test_unknown_keys_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("u,i\n1,2\n")
    with pytest.raises(SettingsError, match=r"interactions\.usr.*Did you mean 'user'"):
        described(tmp_path, interactions={"table": "t.csv", "usr": "u", "user": "u", "item": "i"})
    with pytest.raises(SettingsError, match=r"min_user_event.*Did you mean 'min_user_events'"):
        described(
            tmp_path,
            interactions={"table": "t.csv", "user": "u", "item": "i"},
            settings={"data": {"min_user_event": 3}},
        )
    with pytest.raises(SettingsError, match="not a regular expression"):
        described(tmp_path, interactions={"table": "t.csv", "user": "u", "item": "i", "exclude_items": "("})
    with pytest.raises(SettingsError, match="either 'query' or 'sql_table'"):
        described(tmp_path, interactions={"table": "sqlite:///x.db", "user": "u", "item": "i"})


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"no column 'userid' \(interactions.user\). Did you mean 'user_id'"):
        described(tmp_path, interactions={"table": "t.csv", "user": "userid", "item": "item_id"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "u,i\n", "no rows"),
        ("t.jsonl", "oops\n", "no line is a JSON object"),
        ("t.parquet", "oops", "cannot be read as parquet"),
        ("t.xlsx", "oops", "'.xlsx' is not read"),
        ("t.csv.gz", "oops", "cannot be read as csv"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(tmp_path, name, content)


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("u,i\n1,2\n")
    with pytest.raises(DataError, match=r"Did you mean 'orders\.csv'"):
        described(tmp_path, interactions={"table": "order.csv", "user": "u", "item": "i"})
    with pytest.raises(DataError, match="There is nothing at"):
        read_dataset(tmp_path / "nowhere")


def test_the_fingerprint_changes_with_the_files_and_with_nothing_else(tmp_path: Path) -> None:
    first = rows(tmp_path, "t.csv", "u,i\n1,2\n")[1].fingerprint
    assert read_dataset(tmp_path).fingerprint == first
    assert rows(tmp_path, "t.csv", "u,i\n1,23\n")[1].fingerprint != first


def test_tables_without_a_description_are_guessed(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(
        "user_id,item_id,time\n" + "".join(f"{n % 3},{n % 4},2023-01-0{n + 1}\n" for n in range(9))
    )
    by_file, by_folder = read_dataset(path), read_dataset(tmp_path)
    assert by_file.interactions.collect().equals(by_folder.interactions.collect())
    assert by_file.interactions.collect().row(0) == ("0", "0", micros(2023, 1, 1), "interaction", None, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither a dataset\.yaml nor a table"):
        read_dataset(tmp_path / "empty")


# What comes with the project


def test_the_sample_is_the_whole_of_online_retail() -> None:
    dataset = read_dataset(sample_path("online-retail"))
    frame = dataset.interactions.collect()
    assert frame.height == 541_909
    assert frame["user"].n_unique() == 4_372 + 1  # and null
    assert frame["item"].n_unique() == 4_070
    assert (~frame["positive"]).sum() == 2_517
    assert dataset.items is not None
    assert dataset.items["count"].sum() == 541_909
    codes = frame["item"].unique()
    kept = codes.filter(~codes.str.contains(f"^(?:{'|'.join(dataset.exclude_items)})$"))
    assert kept.str.contains(r"^\d{5}[A-Za-z]{0,2}$").all()


def test_unknown_samples_are_refused() -> None:
    with pytest.raises(DataError, match="Did you mean 'online_retail'"):
        sample_path("online_retial")


def test_the_wines_are_read_with_their_pictures() -> None:
    folder = Path(__file__).parent.parent / "examples" / "x-wines"
    dataset = read_dataset(folder)
    assert dataset.items is not None
    assert all((folder / label).is_file() for label in dataset.items["label"])
    assert dataset.items["grapes"].list.len().min() >= 1  # type: ignore[operator]


@pytest.mark.parametrize("name", ["ml-1m", "ml-latest-small", "amazon-beauty", "deskdrop"])
def test_the_other_examples_are_read_where_their_data_is(name: str) -> None:
    folder = Path(__file__).parent.parent / "examples" / name
    if not (folder / f"../../../shared/data/{name}").is_dir():
        pytest.skip(f"the data of {name} may not be shipped and is not here")
    frame = read_dataset(folder).interactions.collect()
    assert frame.select("user", "item", "time", "event").null_count().sum_horizontal().item() == 0
