"""Guessing the roles of tables and columns that nobody described."""

import random
from pathlib import Path

import polars as pl
import pytest
import yaml

from palate.data.guess import guess_spec, write_spec
from palate.data.source import read_dataset
from palate.data.words import event_name, means, words_of
from palate.errors import DataError

PEOPLE, ITEMS, ROWS = 30, 20, 300


def write(path: Path, header: str, lines: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes("\n".join([header, *lines, ""]).encode(encoding))
    return path


def shop(folder: Path, header: str, separator: str = ",", encoding: str = "utf-8") -> Path:
    """Rows of receipt, person, thing, title, amount, price, day and event."""
    draw = random.Random(0)
    lines = []
    for row in range(ROWS):
        thing = draw.randrange(ITEMS)
        day = f"{draw.randrange(1, 29)}.{draw.randrange(1, 13)}.2023 1{row % 10}:00"
        cells = [
            9000 + row // 2,
            draw.randrange(PEOPLE),
            f"A{thing}",
            f"Ein Stuhl {thing}",
            draw.randrange(-1, 5),
        ]
        lines.append(
            separator.join(map(str, [*cells, f'"{thing + 1},55"', day, draw.choice(["view", "buy"])]))
        )
    return write(folder / "t.csv", header, lines, encoding)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("InvoiceNo;CustomerID;StockCode;Description;Quantity;Price;Date;Action", "utf-8-sig"),
        ("Rechnung;Kundennr;Artikelnr;Bezeichnung;Menge;Preis;Datum;Aktion", "utf-8"),
        ("facture;client;produit;libellé;quantité;prix;jour;comportement", "cp1252"),
        ("factura;cliente;producto;descripción;cantidad;precio;fecha;acción", "utf-16"),
        ("订单;用户;商品;标题;数量;价格;时间;行为", "gb18030"),
    ],
)
def test_a_shop_is_understood_in_five_languages(tmp_path: Path, header: str, encoding: str) -> None:
    names = header.split(";")
    guess = guess_spec([shop(tmp_path, header, ";", encoding)])
    main, items = guess.spec.interactions, guess.spec.items
    assert [main.user, main.item, main.value, main.time, main.event] == [
        names[place] for place in (1, 2, 4, 6, 7)
    ]
    assert main.event_names == {"buy": "purchase"}
    assert main.negative_value == "return"
    assert items is not None
    assert items.id == names[2]
    assert {name: str(field.kind) for name, field in items.fields.items()} == {
        names[3]: "text",
        names[5]: "number",
    }
    assert any(names[0] in place for place in guess.left_out)


def test_nameless_columns_are_judged_by_their_values(tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [
        f"{n},{draw.randrange(30)},{draw.randrange(20)},{draw.random():.3f},{1_600_000_000 + n}"
        for n in range(300)
    ]
    main = guess_spec([write(tmp_path / "t.csv", "a,b,c,d,e", lines)]).spec.interactions
    assert (main.user, main.item, main.time) == ("b", "c", "e")


def test_what_is_asked_for_is_not_guessed(tmp_path: Path) -> None:
    path = shop(tmp_path, "order_id,user,item,title,n,price,date,what")
    main = guess_spec([path], user="order_id", item="title", event="what").spec.interactions
    assert (main.user, main.item, main.event) == ("order_id", "title", "what")
    with pytest.raises(DataError, match="no column 'usr'"):
        guess_spec([path], user="usr")


def test_receipts_and_row_numbers_are_not_people(tmp_path: Path) -> None:
    lines = [f"{n},{n // 2},{n % 7},{n % 5}" for n in range(100)]
    path = write(tmp_path / "t.csv", "user_row_id,order_id,member,sku", lines)
    assert guess_spec([path]).spec.interactions.user == "member"


def test_no_people_or_items_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "price,weight", ["1.5,2.5", "2.5,1.5"])
    with pytest.raises(DataError, match=r"Its columns are: price, weight. .*--user COLUMN"):
        guess_spec([path])
    path = write(tmp_path / "t.csv", "user,weight", ["1,2.5", "1,1.5", "2,3.5"])
    with pytest.raises(DataError, match="--item COLUMN"):
        guess_spec([path])


def test_a_file_without_column_names_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "1,1193,5,978300760", ["1,661,3,978302109"])
    with pytest.raises(DataError, match="no line of column names"):
        guess_spec([path])
    path = write(tmp_path / "t.csv", "151603712,Fallout 4,play,87.0,0", ["151603712,Skyrim,play,2.0,0"])
    with pytest.raises(DataError, match="is the line of column names missing"):
        guess_spec([path])


def test_interactions_without_content_have_no_items_table(tmp_path: Path) -> None:
    lines = [f"u{n % 13},b{n % 11},same,c{n % 11}" for n in range(100)]
    assert guess_spec([write(tmp_path / "t.csv", "user,item,title,parent", lines)]).spec.items is None


def three_tables(folder: Path) -> list[Path]:
    draw = random.Random(0)
    actions = [f"u{draw.randrange(PEOPLE)},p{draw.randrange(ITEMS)},{n}" for n in range(ROWS)]
    goods = [
        f"p{n},Ein Ding {n},{draw.choice(['rot|blau', 'grün|rot', 'blau'])},img/{n}.jpg,"
        f"2020-01-{n + 1:02d},X{n},"
        f'"[0.5, {n}.25, 0.125]"'
        for n in range(ITEMS)
    ]
    people = [f"u{n},{20 + n % 9},{draw.choice('fm')}" for n in range(PEOPLE)]
    return [
        write(folder / "a_people.csv", "id,age,gender", people),
        write(folder / "b_goods.csv", "id,name,farben,photo,added,ean,embedding", goods),
        write(folder / "c_actions.csv", "who,what,order", actions),
    ]


def test_three_tables_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    guess = guess_spec(three_tables(tmp_path), user="who", item="what")
    spec = guess.spec
    assert Path(spec.interactions.table[0]).name == "c_actions.csv"
    assert spec.interactions.time_unit == "order"
    assert spec.items is not None
    assert spec.users is not None
    assert Path(spec.items.table[0]).name == "b_goods.csv"
    assert Path(spec.users.table[0]).name == "a_people.csv"
    kinds = {name: str(field.kind) for name, field in spec.items.fields.items()}
    assert kinds == {"name": "text", "farben": "categories", "photo": "image", "embedding": "vector"}
    assert spec.items.fields["farben"].separator == "|"
    assert {name: str(field.kind) for name, field in spec.users.fields.items()} == {
        "age": "number",
        "gender": "category",
    }


def test_a_table_may_be_named_as_the_items(tmp_path: Path) -> None:
    people, goods, actions = three_tables(tmp_path)
    spec = guess_spec([actions], items=goods, users=people, user="who", item="what").spec
    assert spec.items is not None
    assert Path(spec.items.table[0]).name == "b_goods.csv"
    with pytest.raises(DataError, match="no column holds the keys of 'what'"):
        guess_spec([actions], items=people, user="who", item="what")


def test_the_kinds_of_typed_columns_follow_their_types(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3]}).write_parquet(
        tmp_path / "t.parquet"
    )
    items = {
        "item": [1, 2, 3],
        "tags": [[1, 2], [3], []],
        "vec": [[0.5], [1.5], [2.5]],
        "new": [True, False, True],
    }
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    spec = guess_spec([tmp_path / "items.parquet", tmp_path / "t.parquet"]).spec
    assert spec.items is not None
    kinds = {name: str(field.kind) for name, field in spec.items.fields.items()}
    assert kinds == {"tags": "categories", "vec": "vector", "new": "category"}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    header = "订单;用户;商品;标题;数量;价格;时间;行为"
    (tmp_path / "data").mkdir()
    guess = guess_spec([shop(tmp_path / "data", header, ";", "gb18030")])
    written = tmp_path / "described" / "dataset.yaml"
    written.parent.mkdir()
    write_spec(written, guess)
    text = written.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["interactions"]["table"] == "../data/t.csv"
    assert "# its name means a person; 30 distinct values in 300 rows" in text
    one, two = read_dataset(written), read_dataset(tmp_path / "data")
    assert one.interactions.collect().equals(two.interactions.collect())
    assert one.fields == two.fields
    assert one.items is not None
    assert two.items is not None
    assert one.items.equals(two.items)


def test_a_comment_cannot_be_broken_by_a_cell(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "event": ["a\nb: [", "c\x00", "c\x00", "a\nb: ["]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    write_spec(tmp_path / "dataset.yaml", guess_spec([tmp_path / "t.parquet"]))
    assert yaml.safe_load((tmp_path / "dataset.yaml").read_text())["interactions"]["event"] == "event"
    assert read_dataset(tmp_path).interactions.collect()["event"][0] == "a\nb: ["


@pytest.mark.parametrize(
    ("name", "role", "strength"),
    [
        ("CustomerID", "user", 2),
        ("user_country", "user", 1),
        ("kundennr", "user", 2),
        ("用户编号", "user", 2),
        ("InvoiceNo", "user", 0),
        ("StockCode", "item", 2),
        ("event_time", "time", 1),
    ],
)
def test_names_say_roles(name: str, role: str, strength: int) -> None:
    assert means(name, role) == strength


def test_names_are_cut_into_words() -> None:
    assert words_of("parentASIN_Code-2") == ["parent", "asin", "code", "2"]


def test_usual_events_are_known_under_our_names() -> None:
    assert [event_name(text) for text in ("PV", "收藏", "Kauf", "xyz")] == [
        "view",
        "favourite",
        "purchase",
        None,
    ]
