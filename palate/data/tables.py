"""Opening a table: CSV, TSV, JSON Lines and Parquet files, and databases by URL."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError

from palate.data.spec import TableSpec
from palate.data.text_files import open_csv, open_jsonl
from palate.errors import DataError, did_you_mean, first_line
from palate.schema import Note

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Of table files; the text ones may be packed with a further ``.gz``."""
_SQL_ROWS = 50_000


@dataclass(frozen=True)
class Table:
    """Rows that have not been read yet, wherever the file format allows that."""

    name: str
    """As errors and notes call it."""
    frame: pl.LazyFrame
    untyped: bool = False
    """CSV and TSV: every cell is text, whatever it means."""
    notes: tuple[Note, ...] = ()
    folder: Path | None = None
    """Where paths in its cells begin; None for frames."""

    @property
    def schema(self) -> pl.Schema:
        return self.frame.collect_schema()

    def require(self, column: str, role: str) -> str:
        """The column's own name.

        Raises:
            DataError: the table has no such column; the message names the nearest.
        """
        names = self.schema.names()
        if column not in names:
            raise DataError(f"{self.name} has no column '{column}' ({role}). {did_you_mean(column, names)}")
        return column


def open_table(spec: TableSpec, base: Path) -> Table:
    """The table that a spec names; its relative paths begin at ``base``.

    Raises:
        DataError: no such file, an unknown or unreadable format, no rows, files of one table whose
            columns differ, a database that does not answer (without showing its password).
    """
    if spec.is_url:
        table = replace(_query(spec, base), folder=base)
    else:
        tables = [_open_file(base / path, spec) for path in spec.table]
        table = tables[0] if len(tables) == 1 else _joined(tables)
    if table.frame.head(1).collect().is_empty():
        raise DataError(f"{table.name} has no rows.")
    return table


def is_table(path: Path) -> bool:
    return _format(path) in SUFFIXES


def fingerprint(text: str, specs: list[TableSpec], base: Path) -> str:
    """A SHA-256 that changes when the text, or the size or time of one of the files, changes.

    Rows are not read: a database can change behind an unchanged fingerprint.
    """
    parts = [text]
    for spec in specs:
        if spec.is_url:
            from palate.data.databases import database_url  # SQLAlchemy takes its time to import

            url = database_url(spec.table[0]).set(password=None).render_as_string()
            parts.append(f"{url} {spec.query} {spec.sql_table}")
            continue
        for name in spec.table:
            path = (base / name).resolve()
            status = path.stat()
            parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _format(path: Path) -> str:
    """The suffix that tells the format, without a packing ``.gz``."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


def _open_file(path: Path, spec: TableSpec) -> Table:
    suffix = _format(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: the format '{suffix or 'without a suffix'}' is not read. "
            f"Save it as one of {', '.join(SUFFIXES)}."
        )
    if not path.is_file():
        near = sorted(p.name for p in path.parent.iterdir() if is_table(p)) if path.parent.is_dir() else []
        raise DataError(f"There is no file {path}. {did_you_mean(path.name, near)}".rstrip())
    try:
        frame, notes = _scan(path, suffix, spec)
    except (PolarsError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {first_line(error)}") from None
    return Table(path.name, frame, suffix in (".csv", ".tsv"), tuple(notes), path.parent)


def _scan(path: Path, suffix: str, spec: TableSpec) -> tuple[pl.LazyFrame, list[Note]]:
    if suffix == ".parquet":
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
        return frame, []
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    if suffix in (".jsonl", ".ndjson"):
        return open_jsonl(path)
    return open_csv(path, spec.separator or ("\t" if suffix == ".tsv" else None), spec.encoding)


def _joined(tables: list[Table]) -> Table:
    first = tables[0]
    for table in tables[1:]:
        if set(table.schema.names()) != set(first.schema.names()):
            differing = sorted(set(table.schema.names()) ^ set(first.schema.names()))
            raise DataError(
                f"{first.name} and {table.name} are given as one table, but differ in the columns "
                f"{', '.join(differing)}."
            )
    names = first.schema.names()
    try:
        frame = pl.concat([table.frame.select(names) for table in tables], how="vertical_relaxed")
        frame.collect_schema()
    except PolarsError as error:
        raise DataError(f"{first.name} and its further files do not fit: {first_line(error)}") from None
    notes = tuple(note for table in tables for note in table.notes)
    untyped = all(table.untyped for table in tables)
    return Table(f"{first.name} and {len(tables) - 1} more", frame, untyped, notes, first.folder)


def _query(spec: TableSpec, base: Path) -> Table:
    from palate.data.databases import database_url

    url = database_url(spec.table[0])
    if url.get_backend_name() == "sqlite":
        path = base / (url.database or "")
        if not path.is_file():
            raise DataError(f"There is no SQLite file {path}.")
        url = url.set(database=str(path))
    frame = _fetched(url, spec)
    return Table(spec.sql_table or f"the query to {url.database}", frame.lazy())


def _fetched(url: URL, spec: TableSpec) -> pl.DataFrame:
    from sqlalchemy import literal_column, select, table, text
    from sqlalchemy.exc import SQLAlchemyError

    from palate.data.databases import open_engine, reason, shown

    engine = open_engine(url)
    if spec.query is not None:
        statement: Any = text(spec.query.replace(":", r"\:"))  # a colon in a stranger's query is no parameter
    else:
        schema, _, name = str(spec.sql_table).rpartition(".")
        statement = select(literal_column("*")).select_from(table(name, schema=schema or None))
    try:
        with engine.connect() as connection:
            return _rows(connection, statement)
    except SQLAlchemyError as error:
        raise DataError(f"The database {shown(url)} answered: {reason(error, url)}") from None
    finally:
        engine.dispose()


def _rows(connection: Connection, statement: Any) -> pl.DataFrame:
    """All rows of a statement, fetched in pieces; a column of mixed types becomes text."""
    result = connection.execution_options(stream_results=True).execute(statement)
    names = list(result.keys())
    pieces = [_piece(names, rows) for rows in result.partitions(_SQL_ROWS)]
    if not pieces:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    try:
        return pl.concat(pieces, how="vertical_relaxed")
    except PolarsError:
        return pl.concat([piece.cast(pl.String) for piece in pieces])


def _piece(names: list[str], rows: Any) -> pl.DataFrame:
    columns = []
    for name, cells in zip(names, zip(*rows, strict=True), strict=True):
        try:
            column = pl.Series(name, cells, strict=True)
        except (TypeError, PolarsError):
            column = pl.Series(name, cells, dtype=pl.Object)
        if column.dtype == pl.Object:
            column = pl.Series(name, [None if cell is None else str(cell) for cell in cells], dtype=pl.String)
        columns.append(column)
    return pl.DataFrame(columns)
