"""CSV, TSV and JSON Lines as strangers write them: any encoding, separator, quoting and row length."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import polars as pl
from polars.exceptions import ComputeError, NoDataError, SchemaError

from palate.errors import DataError
from palate.schema import Note

SEPARATORS = (",", ";", "\t", "|")
LONGEST_RECORD = 100
"""Lines that one quoted cell may span before its quote is taken for a stray one."""
_CHUNK = 1 << 20


def open_csv(path: Path, separator: str | None, encoding: str | None) -> tuple[pl.LazyFrame, list[Note]]:
    """Every cell as text, empty cells null; short rows are filled with null, long ones cut, both counted.

    UTF-8 files are scanned where they lie; others are held in memory as UTF-8.

    Raises:
        DataError: empty, or not text.
    """
    encoding = encoding or detect_encoding(path)
    source: Path | bytes = path if _is_utf8(encoding) else _transcoded(path, encoding)
    head = _head(source)
    if not head.strip():
        raise DataError(f"{path} is empty; wanted a line of column names and rows below it.")
    separator = separator or detect_separator(head)
    try:
        frame = pl.scan_csv(source, separator=separator, infer_schema=False, extra_columns="ignore")
        rows = _count_parsed(frame)
        notes = _count_ragged(path, source, head, separator, rows)
    except (ComputeError, NoDataError, SchemaError):
        frame, notes = _mended(path, source, separator)
    return _trimmed_names(frame), notes


def open_jsonl(path: Path) -> tuple[pl.LazyFrame, list[Note]]:
    """The objects of a JSON Lines file as rows; lines that are not objects are left out and counted.

    Raises:
        DataError: no line holds an object.
    """
    try:
        frame = pl.scan_ndjson(path, infer_schema_length=None)
        _count_parsed(frame)
    except (ComputeError, NoDataError, SchemaError):
        return _mended_jsonl(path)
    return frame, []


def detect_encoding(path: Path) -> str:
    """The encoding of a text file: by its mark, else UTF-8 if it is that, else Chinese or Western.

    GB 18030 reads almost any bytes, so it is taken only where bytes above 127 mostly come in pairs;
    in Western text they mostly stand alone between plain letters.
    """
    with open_bytes(path) as file:
        head = file.read(4)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if _decodes(path, "utf-8"):
        return "utf-8"
    if _high_bytes_are_paired(path) and _decodes(path, "gb18030"):
        return "gb18030"
    return "cp1252" if _decodes(path, "cp1252") else "latin-1"


def detect_separator(head: str) -> str:
    """The separator that cuts the first lines most evenly into most cells; a comma if none does."""
    lines = head.splitlines()[:50]

    def evenness(separator: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        width = widths[0] if widths else 1
        return (0.0, 0) if width == 1 else (sum(w == width for w in widths) / len(widths), width)

    # A text column full of commas may be as uneven as it likes: only agreement with the header counts.
    best = max(SEPARATORS, key=evenness)
    return best if evenness(best)[1] else ","


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if its name ends in ``.gz``."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    except LookupError:
        raise DataError(f"encoding: '{encoding}' is not known; utf-8, gb18030 and cp1252 are.") from None


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open_bytes(path) as file:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _high_bytes_are_paired(path: Path) -> bool:
    with open_bytes(path) as file:
        text = file.read(_CHUNK)
    high = sum(byte > 127 for byte in text)
    paired, at = 0, 0
    while at < len(text) - 1:
        if text[at] > 127 and text[at + 1] > 127:
            paired, at = paired + 2, at + 2
        else:
            at += 1
    return paired >= 0.8 * high


def _transcoded(path: Path, encoding: str) -> bytes:
    with open_bytes(path) as file:
        content = file.read()
    try:
        return content.decode(encoding).encode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {encoding} at byte {error.start}; set 'encoding' to what it is."
        ) from None


def _head(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return source[:_CHUNK].decode("utf-8", errors="ignore").lstrip("\ufeff")
    with open_bytes(source) as file:
        return file.read(_CHUNK).decode("utf-8-sig", errors="ignore")


def _count_parsed(frame: pl.LazyFrame) -> int:
    """The number of rows, after reading every cell once: a lazy scan reports bad quotes only then."""
    counted = frame.select(pl.len().alias(""), pl.all().null_count().name.prefix("nulls of "))
    return int(counted.collect(engine="streaming")[""][0])


def _count_ragged(path: Path, source: Path | bytes, head: str, separator: str, rows: int) -> list[Note]:
    """Rows whose cells are not as many as the header's; rows with quotes are left to the parser."""
    if not rows:
        return []
    width = len(next(csv.reader(io.StringIO(head), delimiter=separator)))
    lines = pl.scan_csv(
        source,
        separator="\x01",
        quote_char=None,
        has_header=False,
        skip_lines=1,
        new_columns=["line"],
        infer_schema=False,
        raise_if_empty=False,
        extra_columns="ignore",
    )
    line = pl.col("line")
    plain = line.str.strip_chars_end("\r\n").str.len_bytes().gt(0) & ~line.str.contains('"', literal=True)
    ragged = lines.filter(plain & (line.str.count_matches(separator, literal=True) != width - 1))
    found = ragged.select(pl.len().alias("rows"), line.head(3).implode()).collect(engine="streaming")
    return _note_of("unreadable rows", path, found["rows"][0], found["line"][0].to_list(), rows)


def _note_of(rule: str, path: Path, count: int, examples: Sequence[str], rows: int) -> list[Note]:
    if not count:
        return []
    what = {
        "unreadable rows": "rows with more or fewer cells than the header; missing are empty, extra cut",
        "unreadable quotes": "rows whose quotes do not pair up, read with quotes as plain characters",
        "unreadable lines": "lines that are not JSON objects, left out",
    }[rule]
    removed = count if rule == "unreadable lines" else 0
    shown = tuple(text.strip()[:120] for text in examples)
    return [Note(rule, removed, rows, f"{path.name}: {count:,} {what}", shown)]


def _mended(path: Path, source: Path | bytes, separator: str) -> tuple[pl.LazyFrame, list[Note]]:
    """The slow way for a file with stray quotes: record by record, in memory."""
    stream = open_bytes(source) if isinstance(source, Path) else io.BytesIO(source)
    with io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="") as file:
        lines = file.readlines()
    header = next(csv.reader(lines[:1], delimiter=separator))
    columns: list[list[str | None]] = [[] for _ in header]
    stray: list[str] = []
    ragged: list[str] = []
    at = 1
    while at < len(lines):
        cells, used, clean = _record(lines, at, separator, len(header))
        if not clean:
            stray.append(lines[at])
        if len(cells) != len(header) and cells:
            ragged.append(lines[at])
        at += used
        padded = cells + [""] * (len(header) - len(cells))
        for column, cell in zip(columns, padded, strict=False):
            column.append(cell or None)
    names = [name or f"column_{place}" for place, name in enumerate(header)]
    frame = pl.DataFrame(dict(zip(names, columns, strict=True)), schema=dict.fromkeys(names, pl.String))
    notes = _note_of("unreadable quotes", path, len(stray), stray[:3], frame.height)
    return frame.lazy(), notes + _note_of("unreadable rows", path, len(ragged), ragged[:3], frame.height)


def _record(lines: list[str], at: int, separator: str, width: int) -> tuple[list[str], int, bool]:
    """The cells of the record that begins at a line, the lines it took, and whether its quotes were right."""
    line = lines[at].rstrip("\r\n")
    for used in range(1, min(LONGEST_RECORD, len(lines) - at) + 1):
        text = io.StringIO("".join(lines[at : at + used]), newline="")
        try:
            cells = next(csv.reader(text, delimiter=separator, strict=True), [])
        except csv.Error as error:
            if "unexpected end" in str(error):  # a quote is still open
                continue
            break
        if used > 1 and len(cells) != width:
            break
        return cells, used, True
    cells = next(csv.reader([line], delimiter=separator), []) if line.count('"') % 2 == 0 else []
    if len(cells) != width:
        cells = line.split(separator)
    return [cell.strip('"') for cell in cells], 1, False


def _mended_jsonl(path: Path) -> tuple[pl.LazyFrame, list[Note]]:
    rows: list[dict[str, object]] = []
    bad: list[str] = []
    with io.TextIOWrapper(open_bytes(path), "utf-8-sig", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                row = line
            if isinstance(row, dict):
                rows.append(row)
            elif row is not None:
                bad.append(line)
    if not rows:
        raise DataError(f'{path}: no line is a JSON object such as {{"user": 1, "item": "a"}}.')
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [_column(name, [row.get(name) for row in rows]) for name in names]
    return pl.DataFrame(columns).lazy(), _note_of("unreadable lines", path, len(bad), bad[:3], len(rows))


def _column(name: str, cells: list[object]) -> pl.Series:
    """A column of one type, or of text where the types are mixed."""
    try:
        return pl.Series(name, cells, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String)


def _trimmed_names(frame: pl.LazyFrame) -> pl.LazyFrame:
    names = frame.collect_schema().names()
    trimmed = [name.strip() for name in names]
    if trimmed == names or len(set(trimmed)) < len(names):
        return frame
    return frame.rename(dict(zip(names, trimmed, strict=True)))
