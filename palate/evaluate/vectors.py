"""Items as sparse vectors: of the people who met them, and of the words that describe them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl
import scipy.sparse as sp

from palate.data.prepared import Prepared
from palate.schema import FieldKind, Histories, IntArray

READABLE = (FieldKind.TEXT, FieldKind.CATEGORY, FieldKind.CATEGORIES, FieldKind.NUMBER)
"""Kinds of fields that can be read as words."""

_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
TOKEN = rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+"
"""A word, or one character of a script that is written without spaces."""


def history_matrix(histories: Histories, items: int, latest: int | None = None) -> sp.csr_array:
    """Binary float32 [rows, items]: 1 where the item is among the history's ``latest`` events (None: all)."""
    if latest is not None:
        histories = histories.latest(latest)
    matrix = sp.csr_array(
        (np.ones(len(histories.item), np.float32), histories.item, histories.offsets),
        shape=(len(histories), items),
        copy=True,  # the next line sorts in place, and the order of a history is sacred
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def training_popularity(prepared: Prepared) -> IntArray:
    """Training events of each item, of any type, int64 [V]."""
    return np.bincount(prepared.training().item, minlength=prepared.items.size)


def content_matrix(
    prepared: Prepared, max_words: int = 50_000, without: Collection[str] = ()
) -> sp.csr_array | None:
    """TF-IDF rows of unit length over all readable fields, float32 [V, words]; None without content.

    Words and pairs of neighbouring words, sub-linear term frequency (1 + ln tf), smoothed inverse
    document frequency (scikit-learn's definitions). Items without words have a row of zeros. Fields in
    ``without`` are not read.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = [
        field.name for field in prepared.schema.fields if field.kind in READABLE and field.name not in without
    ]
    if not names:
        return None
    texts = [_as_text(prepared.catalogue[name]) for name in names]
    documents = pl.select(pl.concat_str(texts, separator=" ¶ ", ignore_nulls=True)).to_series().fill_null("")
    vectorizer = TfidfVectorizer(
        token_pattern=TOKEN, ngram_range=(1, 2), max_features=max_words, sublinear_tf=True, dtype=np.float32
    )
    if not documents.str.contains(r"\w").any():
        return None
    return sp.csr_array(vectorizer.fit_transform(documents.to_list()))


def item_vectors(prepared: Prepared) -> sp.csr_array:
    """The vectors that diversity is measured with, [V, D], the same for every ranker.

    TF-IDF of content where there is content, otherwise the binary columns of the people who met the item
    in training.
    """
    content = content_matrix(prepared)
    if content is not None:
        return content
    return sp.csr_array(history_matrix(prepared.training(), prepared.items.size).T)


def _as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join(" ¶ ", ignore_nulls=True)
    return column.cast(pl.String)
