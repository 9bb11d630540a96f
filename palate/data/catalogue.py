"""One clean description per item, from whatever the tables say about it."""

from __future__ import annotations

import html

import polars as pl

from palate.schema import Field, FieldKind, IntArray, Note

TAG = r"<(?:[A-Za-z/!][^<>]*)>"
BLANKS = r"[\s\p{Cc}]+"


def clean_texts(items: pl.DataFrame, fields: tuple[Field, ...]) -> tuple[pl.DataFrame, Note]:
    """The table with its texts in one form, and how many cells that changed.

    Text, category and categories are in Unicode's form NFKC, with runs of white space and control
    characters as one space and none at the ends. Texts have no HTML tags, and their HTML entities
    are characters. What is empty then is null.

    >>> frame = pl.DataFrame({"item": [1], "title": ["<b>Tea&amp;Cake</b>\\tfor  two"]})
    >>> clean_texts(frame, (Field("title", FieldKind.TEXT),))[0]["title"].to_list()
    ['Tea&Cake for two']
    """
    changed: dict[str, int] = {}
    for field in fields:
        before = items[field.name]
        if field.kind == FieldKind.CATEGORIES:
            entries = _tidy(pl.element())
            after = before.to_frame().select(pl.col(field.name).list.eval(entries.drop_nulls())).to_series()
        elif field.kind in (FieldKind.TEXT, FieldKind.CATEGORY):
            after = _tidy_distinct(before, is_text=field.kind == FieldKind.TEXT)
        else:
            continue
        changed[field.name] = int(before.ne_missing(after).sum())
        items = items.with_columns(after)
    detail = ", ".join(f"{name}: {count:,} cells" for name, count in changed.items() if count)
    return items, Note("text normalisation", 0, items.height, detail)


def _tidy(text: pl.Expr) -> pl.Expr:
    tidy = text.str.normalize("NFKC").str.replace_all(BLANKS, " ").str.strip_chars()
    return pl.when(tidy != "").then(tidy)


def _tidy_distinct(cells: pl.Series, *, is_text: bool) -> pl.Series:
    """Each distinct cell is tidied once: tables repeat themselves."""
    distinct = cells.drop_nulls().unique(maintain_order=True)
    tidy = distinct
    if is_text:
        bare = distinct.str.replace_all(TAG, " ")
        tidy = pl.Series([html.unescape(text) if "&" in text else text for text in bare], dtype=pl.String)
    tidy = tidy.to_frame("tidy").select(_tidy(pl.col("tidy"))).to_series()
    table = pl.DataFrame({"cell": distinct, "tidy": tidy})
    joined = cells.rename("cell").to_frame().join(table, on="cell", how="left", maintain_order="left")
    return joined["tidy"].rename(cells.name)


def describe(
    items: pl.DataFrame, fields: tuple[Field, ...], training_rows: IntArray
) -> tuple[pl.DataFrame, list[Note]]:
    """One row per described item, columns ``item`` and the fields, by item key.

    Of several cells for one field of one item the most frequent stays, among equals the one that
    comes first; of numbers, the median. Where the table comes from the interactions themselves
    (column ``row``), an item that a training event shows is described by what training events were
    the first to say, each content counting once, since counts and later rows know the future.
    """
    table = items.filter(pl.col("item").is_not_null())
    nameless = items.height - table.height
    if "row" in items.columns:
        table = _without_future(table, training_rows)
    else:
        table = table.with_row_index("row").with_columns(count=pl.lit(1, dtype=pl.Int64))
    described = table.select(pl.col("item").unique()).sort("item")
    several = pl.Series("item", [], dtype=described["item"].dtype)
    for field in fields:
        cells, ambiguous = _one_cell_each(table.select("item", "row", "count", field.name), field)
        described = described.join(cells, on="item", how="left", maintain_order="left")
        several = pl.concat([several, ambiguous])
    examples = tuple(f"item {key}" for key in several.unique().sort().head(3))
    count = several.n_unique()
    notes = [
        Note("items without key", nameless, items.height - nameless),
        Note("items described more than once", 0, described.height, f"{count:,} items differ", examples),
    ]
    return described, notes


def _without_future(table: pl.DataFrame, training_rows: IntArray) -> pl.DataFrame:
    trained = pl.Series(training_rows).cast(pl.Int64).sort().implode()
    first = table.with_columns(trained=pl.col("row").is_in(trained))
    any_trained = pl.col("trained").any().over("item")
    kept = first.filter(pl.col("trained") | ~any_trained)
    return kept.with_columns(count=pl.when(pl.col("trained")).then(1).otherwise(pl.col("count")))


def _one_cell_each(table: pl.DataFrame, field: Field) -> tuple[pl.DataFrame, pl.Series]:
    """The cell of each item that has one, and the items whose cells differ."""
    name = field.name
    present = table.filter(pl.col(name).is_not_null())
    if field.kind == FieldKind.NUMBER:
        cells = present.group_by("item").agg(pl.col(name).median(), pl.col(name).n_unique().alias("distinct"))
    else:
        weighed = present.group_by("item", name).agg(pl.col("count").sum(), pl.col("row").min())
        weighed = weighed.sort("item", "count", "row", descending=[False, True, False])
        cells = weighed.group_by("item", maintain_order=True).agg(
            pl.col(name).first(), pl.len().alias("distinct")
        )
    ambiguous = cells.filter(pl.col("distinct") > 1)["item"]
    return cells.select("item", name), ambiguous
