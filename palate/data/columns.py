"""How one column of content becomes numbers, kind by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from tokenizers import Tokenizer

from palate.data.text import borrowed_tokenizer, tokenize, train_tokenizer
from palate.errors import DataError
from palate.schema import (
    FIRST_ID,
    UNKNOWN,
    BoolArray,
    EncodedField,
    Field,
    FieldKind,
    FieldShape,
    FloatArray,
    IntArray,
    Media,
    Note,
)
from palate.settings import PRETRAINED, TextSettings

MOST_CATEGORIES = 65_536
"""Categories beyond the most frequent ones read as unknown."""
MOST_DEVIATIONS = 5.0
SKEWED = 1.0
"""Skewness from which a column of amounts is taken as log(1 + x), if that lessens it."""
LARGEST_NUMBER = 1e100
"""Larger amounts are read as this one; their cubes must still be numbers."""


@dataclass(frozen=True)
class TextColumn:
    name: str
    tokenizer: str  # JSON
    max_tokens: int
    borrowed: bool = False
    """The tokenizer is that of a pretrained encoder; its tokens count from 1, so that 0 stays padding."""

    @staticmethod
    def fit(name: str, cells: pl.Series, settings: TextSettings) -> TextColumn:
        if settings.encoder.startswith(PRETRAINED):
            encoder = settings.encoder.removeprefix(PRETRAINED)
            tokenizer = borrowed_tokenizer(encoder, settings.max_tokens)
            return TextColumn(name, tokenizer.to_str(), settings.max_tokens, borrowed=True)
        texts = as_texts(cells).drop_nulls().to_list()
        tokenizer = train_tokenizer(texts, settings.vocabulary)
        return TextColumn(name, tokenizer.to_str(), settings.max_tokens)

    @property
    def shape(self) -> FieldShape:
        size = int(Tokenizer.from_str(self.tokenizer).get_vocab_size())
        return FieldShape(self.name, FieldKind.TEXT, size + self.borrowed)

    def encode(self, cells: pl.Series) -> tuple[EncodedField, Note]:
        texts = as_texts(cells).to_list()
        tokens = tokenize(Tokenizer.from_str(self.tokenizer), texts, self.max_tokens, borrowed=self.borrowed)
        present = (tokens != 0).any(axis=1)
        return EncodedField(self.shape, tokens, present), _note(self.name, present)


@dataclass(frozen=True)
class CategoryColumn:
    name: str
    kind: FieldKind  # category or categories
    vocabulary: tuple[str, ...]  # code 2, 3, …; most frequent first

    @staticmethod
    def fit(field: Field, cells: pl.Series) -> CategoryColumn:
        counts = Counter(as_lists(cells, split=field.kind == FieldKind.CATEGORIES).explode().drop_nulls())
        frequent = sorted(counts, key=lambda value: (-counts[value], value))
        return CategoryColumn(field.name, field.kind, tuple(frequent[:MOST_CATEGORIES]))

    @property
    def shape(self) -> FieldShape:
        return FieldShape(self.name, self.kind, len(self.vocabulary) + FIRST_ID)

    def encode(self, cells: pl.Series) -> tuple[EncodedField, Note]:
        lists = as_lists(cells, split=self.kind == FieldKind.CATEGORIES)
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = lists.filter(lengths > 0).explode()
        codes = self._codes(flat)
        present = lengths > 0
        unseen = flat.filter(codes == UNKNOWN)
        detail = f"{len(unseen):,} entries not seen in training read as unknown" if len(unseen) else ""
        note = _note(self.name, present, detail=detail, examples=unseen.unique(maintain_order=True))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if self.kind == FieldKind.CATEGORIES:
            return EncodedField(self.shape, codes, present, offsets), note
        single = np.zeros(len(lengths), dtype=np.int32)
        single[present] = codes[offsets[:-1][present]]
        return EncodedField(self.shape, single, present), note

    def _codes(self, entries: pl.Series) -> IntArray:
        known = pl.DataFrame(
            {
                "entry": pl.Series(self.vocabulary, dtype=pl.String),
                "code": np.arange(FIRST_ID, FIRST_ID + len(self.vocabulary), dtype=np.int32),
            }
        )
        found = entries.rename("entry").to_frame().join(known, on="entry", how="left", maintain_order="left")
        return found["code"].fill_null(UNKNOWN).to_numpy().astype(np.int32)


@dataclass(frozen=True)
class NumberColumn:
    name: str
    mean: float
    deviation: float
    logarithmic: bool
    """The mean and deviation are those of log(1 + x)."""

    @staticmethod
    def fit(name: str, cells: pl.Series) -> NumberColumn:
        values = as_numbers(cells).drop_nulls().to_numpy()
        if not len(values):
            return NumberColumn(name, 0.0, 1.0, logarithmic=False)
        skewness = _skewness(values)
        logarithmic = bool(
            values.min() >= 0 and skewness > SKEWED and abs(_skewness(np.log1p(values))) < skewness
        )
        values = np.log1p(values) if logarithmic else values
        deviation = float(values.std())
        # The deviation of a constant column is what rounding left, and would blow rounding up.
        constant = deviation <= 1e-12 * float(np.abs(values).max())
        return NumberColumn(name, float(values.mean()), 1.0 if constant else deviation, logarithmic)

    @property
    def shape(self) -> FieldShape:
        return FieldShape(self.name, FieldKind.NUMBER, 2)

    def encode(self, cells: pl.Series) -> tuple[EncodedField, Note]:
        numbers = as_numbers(cells)
        present = numbers.is_not_null().to_numpy()
        x = numbers.fill_null(self.mean).to_numpy()
        if self.logarithmic:
            # Later rows may be negative although no training row was: an odd function covers both.
            x = np.sign(x) * np.log1p(np.abs(x))
        standard = np.clip((x - self.mean) / self.deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        values = np.stack([np.where(present, standard, 0.0), present], axis=1).astype(np.float32)
        note = _unusable(self.name, cells, present, "no number")
        return EncodedField(self.shape, values, present), note


@dataclass(frozen=True)
class VectorColumn:
    name: str
    length: int

    @staticmethod
    def fit(name: str, cells: pl.Series) -> VectorColumn:
        lengths = Counter(length for length in as_vectors(cells).list.len().drop_nulls() if length)
        length = min(lengths, key=lambda each: (-lengths[each], each)) if lengths else 1
        return VectorColumn(name, length)

    @property
    def shape(self) -> FieldShape:
        return FieldShape(self.name, FieldKind.VECTOR, self.length)

    def encode(self, cells: pl.Series) -> tuple[EncodedField, Note]:
        vectors = as_vectors(cells)
        present = (vectors.list.len() == self.length).fill_null(False).to_numpy()
        values: FloatArray = np.zeros((len(cells), self.length), dtype=np.float32)
        values[present] = vectors.filter(present).explode().to_numpy().reshape(-1, self.length)
        note = _unusable(self.name, cells, present, f"no vector of {self.length} numbers")
        return EncodedField(self.shape, values, present), note


@dataclass(frozen=True)
class MediaColumn:
    name: str
    kind: FieldKind  # image, video or audio
    row: tuple[int, ...]  # shape of one picture, clip or spectrogram

    @staticmethod
    def fit(field: Field, media: Media) -> MediaColumn:
        return MediaColumn(field.name, field.kind, tuple(media.values.shape[1:]))

    @property
    def shape(self) -> FieldShape:
        size = self.row[0] if self.kind == FieldKind.AUDIO else self.row[-2]
        return FieldShape(self.name, self.kind, size)

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of decoded values."""
        return np.float16 if self.kind == FieldKind.AUDIO else np.uint8

    def encode(self, rows: int, media: Media | None) -> tuple[EncodedField, Note]:
        """The media as they are; without any, all of the field is missing.

        Raises:
            DataError: media of another number of items, or of other sizes than this was fitted to.
        """
        if media is None:
            none = np.zeros(0, np.int64)
            media = Media(np.zeros((0, *self.row), self.dtype), none, np.zeros(rows + 1, np.int64))
        if len(media.offsets) != rows + 1:
            raise DataError(
                f"Field '{self.name}' has media of {len(media.offsets) - 1} items for a table of {rows}."
            )
        if tuple(media.values.shape[1:]) != self.row:
            raise DataError(
                f"Media of the field '{self.name}' are {list(media.values.shape[1:])} each, but the encoder "
                f"was made for {list(self.row)}. Read them with the settings of its model.{self.kind}."
            )
        present = np.diff(media.offsets) > 0
        encoded = EncodedField(self.shape, media.row, present, media.offsets, media.values)
        return encoded, _note(self.name, present)


ColumnEncoder = TextColumn | CategoryColumn | NumberColumn | VectorColumn
"""How one field becomes numbers; holds what was learned from the training rows."""


def fit_column(field: Field, cells: pl.Series, text: TextSettings) -> ColumnEncoder | None:
    """What these training cells teach; None for kinds of media."""
    match field.kind:
        case FieldKind.TEXT:
            return TextColumn.fit(field.name, cells, text)
        case FieldKind.CATEGORY | FieldKind.CATEGORIES:
            return CategoryColumn.fit(field, cells)
        case FieldKind.NUMBER:
            return NumberColumn.fit(field.name, cells)
        case FieldKind.VECTOR:
            return VectorColumn.fit(field.name, cells)
    return None


def plain(column: ColumnEncoder | MediaColumn) -> dict[str, Any]:
    """The column's state for JSON."""
    values = asdict(column)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def restored(state: dict[str, Any]) -> ColumnEncoder | MediaColumn:
    """The column that ``plain`` was taken of.

    Raises:
        DataError: a kind that has no column here.
    """
    named = state.pop("kind")
    if named not in list(FieldKind):
        raise DataError(f"A column of kind '{named}' cannot be encoded here.")
    kind = FieldKind(named)
    match kind:
        case FieldKind.TEXT:
            return TextColumn(**state)
        case FieldKind.CATEGORY | FieldKind.CATEGORIES:
            return CategoryColumn(state["name"], kind, tuple(state["vocabulary"]))
        case FieldKind.NUMBER:
            return NumberColumn(**state)
        case FieldKind.VECTOR:
            return VectorColumn(**state)
        case FieldKind.IMAGE | FieldKind.VIDEO | FieldKind.AUDIO:
            return MediaColumn(state["name"], kind, tuple(state["row"]))


def as_texts(cells: pl.Series) -> pl.Series:
    """Texts, null where there is nothing; lists joined by spaces, whole floats as integers."""
    if isinstance(cells.dtype, (pl.List, pl.Array)):
        cells = cells.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
    elif cells.dtype.is_float():
        cells = cells.fill_nan(None)
        whole = cells.cast(pl.Int64, strict=False)
        cells = whole.cast(pl.String).zip_with((whole == cells).fill_null(False), cells.cast(pl.String))
    elif cells.dtype in (pl.Object, pl.Binary) or cells.dtype.is_nested():
        cells = pl.Series(
            cells.name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String
        )
    texts = cells.cast(pl.String).str.strip_chars()
    return _null_where(texts == "", texts)


def as_lists(cells: pl.Series, *, split: bool) -> pl.Series:
    """Lists of distinct texts; with ``split``, a text such as ``a|b``, ``a;b`` or ``a,b`` is a list."""
    if split and isinstance(cells.dtype, (pl.List, pl.Array)):
        lists = cells.cast(pl.List(pl.String))
    elif split:
        texts = as_texts(cells)
        text = pl.col(texts.name)
        has_bar, has_semicolon = (text.str.contains(mark, literal=True) for mark in "|;")
        mark = pl.when(has_bar).then(pl.lit("|")).when(has_semicolon).then(pl.lit(";")).otherwise(pl.lit(","))
        lists = texts.to_frame().select(text.str.split(mark)).to_series()
    else:
        texts = as_texts(cells)
        lists = texts.to_frame().select(pl.concat_list(texts.name)).to_series()
    entry = pl.element().str.strip_chars()
    return lists.list.eval(entry.filter(entry.is_not_null() & (entry != "")).unique(maintain_order=True))


def as_numbers(cells: pl.Series) -> pl.Series:
    """float64, null where a cell is no finite number."""
    if cells.dtype in (pl.Object, pl.Binary) or cells.dtype.is_nested():
        cells = as_texts(cells)
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
    numbers = cells.cast(pl.Float64, strict=False)
    return _null_where(~numbers.is_finite(), numbers).clip(-LARGEST_NUMBER, LARGEST_NUMBER)


def as_vectors(cells: pl.Series) -> pl.Series:
    """Lists of float32, of lists or texts (``[0.1, 0.2]``); null where an entry is no finite number."""
    if not isinstance(cells.dtype, (pl.List, pl.Array)):
        texts = as_texts(cells).str.strip_chars("[](){} ").str.replace_all(r"[\s,;|]+", " ")
        cells = texts.str.split(" ")
    vectors = cells.cast(pl.List(pl.Float32), strict=False)
    finite = vectors.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    return _null_where(~finite, vectors)


def _null_where(mask: pl.Series, cells: pl.Series) -> pl.Series:
    chosen = pl.when(~mask.fill_null(True)).then(pl.col(cells.name))
    return cells.to_frame().select(chosen.alias(cells.name)).to_series()


def _skewness(values: FloatArray) -> float:
    """The third standardised moment; 0 for a constant column."""
    centred = values - values.mean()
    deviation = np.sqrt(np.mean(centred**2))
    return float(np.mean((centred / deviation) ** 3)) if deviation > 0 else 0.0


def _note(
    name: str, present: BoolArray, removed: int = 0, detail: str = "", examples: pl.Series | None = None
) -> Note:
    shown = () if examples is None else tuple(str(example)[:80] for example in examples.head(3))
    return Note(f"field '{name}'", removed, int(present.sum()), detail, shown)


def _unusable(name: str, cells: pl.Series, present: BoolArray, fault: str) -> Note:
    """Counts the cells that hold something and yet have no value."""
    faulty = cells.filter(cells.is_not_null() & ~pl.Series(present, dtype=pl.Boolean))
    detail = f"{len(faulty):,} cells hold {fault} and count as missing" if len(faulty) else ""
    return _note(name, present, len(faulty), detail, faulty)
