"""Files of pictures, sound and film, each decoded once, in parallel, into rows of one array.

What was decoded is known by its content: the SHA-256 of the file and of the settings that shape it. Equal
files of several items are one row, and rows of earlier prepared data are taken from there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.cells import inside
from palate.data.images import EMPTY, decode_image
from palate.data.sounds import decode_audio, spectrogram_shape
from palate.data.videos import decode_video
from palate.errors import DataError
from palate.schema import FieldKind, IntArray, Media, Note
from palate.settings import ModelSettings

DECODING = 3
"""Changes when the same file and settings give other values, so that old rows are not taken for new ones."""

LARGEST = {FieldKind.IMAGE: 2**26, FieldKind.AUDIO: 2**30, FieldKind.VIDEO: 2**32}
"""Bytes; larger files are not opened."""

OUTSIDE = "outside the table's folder"
NOT_THERE = "not there"
NO_FILE = "no plain file"
NOT_OPENED = "cannot be opened"
TOO_LARGE = "too large"

EXAMPLES = 5
CHUNK_BYTES = 2**26
"""Decoded values alive at a time."""
PIECE_BYTES = 2**22
"""Of files, read at a time, and of rows, written at a time."""
PIECE = 64
"""Pictures that one thread takes at a time, and rows that are written at a time."""
LONGEST_TURN = 0.01
"""Seconds that a thread waits for its turn to read; a piece is read from memory in an eighth of it."""

Values = npt.NDArray[Any]
Known = Mapping[bytes, tuple[Values, int]]
"""By digest: rows that were decoded before, as an array and a place in it."""
Told = Callable[[str, int, int], None]
"""Is told a field's name, how many of its files are done, and how many there are."""


@dataclass(frozen=True)
class Workplace:
    """Where decoded values go and come from."""

    folder: Path | None = None
    """Values are written there; without it they stay in memory."""
    known: Known = field(default_factory=dict)
    told: Told | None = None


class MediaRead(NamedTuple):
    """What files gave."""

    media: Media
    notes: tuple[Note, ...]
    decoded: int
    """Distinct contents that were not known before."""


def read_media(
    paths: pl.Series | Sequence[str | None] | Sequence[Sequence[str] | None],
    folder: Path,
    kind: FieldKind,
    settings: ModelSettings,
    *,
    name: str = "media",
    place: Workplace | None = None,
) -> MediaRead:
    """What the files of each item show, and which of them cannot be used and why.

    Args:
        paths: of each item a path, several, or None; relative to ``folder``, which no path may leave, by a
            link neither.
        kind: image, audio or video.
        settings: the sizes of what is made of them.
        name: of the field, for the notes.
        place: where values are kept; by default in memory.

    Raises:
        MissingExtraError: a library that this kind needs is not installed.
    """
    place = place or Workplace()
    cells = paths if isinstance(paths, pl.Series) else pl.Series(paths, strict=False)
    flat, offsets = _flat(cells)
    distinct = flat.unique(maintain_order=True)
    decoder = Decoder.of(folder, kind, settings, place.known)
    target = place.folder / f"{file_name(name)}.npy" if place.folder is not None else None
    row_of = np.full(len(distinct), -1, np.int64)
    reasons: dict[str, list[str]] = defaultdict(list)
    digests: dict[bytes, int] = {}
    with Rows(target, decoder.shape, decoder.dtype) as rows:
        for index, path, found in _in_order(decoder, distinct.to_list(), name, place.told):
            if found.reason:
                reasons[found.reason].append(path)
                continue
            if found.values is not None and found.digest not in digests:
                digests[found.digest] = rows.append(found.values)
            row_of[index] = digests[found.digest]
        values = rows.finished()
    media = _of_items(values, flat, distinct, row_of, offsets, list(digests))
    notes = _notes(name, kind, media, int((row_of >= 0).sum()), reasons)
    return MediaRead(media, notes, sum(digest not in place.known for digest in digests))


def media_of_bytes(
    contents: Sequence[Sequence[bytes]], kind: FieldKind, settings: ModelSettings, *, name: str = "media"
) -> Media:
    """What files show that are here as bytes, of each item one, several or none.

    Raises:
        DataError: a file that cannot be used; the message says which and why.
        MissingExtraError: a library that this kind needs is not installed.
    """
    decoder = Decoder.of(Path(), kind, settings, {})
    values = np.zeros((sum(map(len, contents)), *decoder.shape), decoder.dtype)
    row = 0
    for item, several in enumerate(contents):
        for content in several:
            found = decoder.shown(content)
            if isinstance(found, str):
                raise DataError(f"A file of the field '{name}', of item {item + 1}, cannot be used: {found}.")
            values[row] = found
            row += 1
    return Media(values, np.arange(row), np.cumsum([0, *map(len, contents)]))


def file_name(name: str) -> str:
    """The name of a field's files: its own, if every file system can have that."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name.lower())[:40]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def shaping(kind: FieldKind, settings: ModelSettings) -> dict[str, float]:
    """The settings that values of this kind depend on."""
    if kind == FieldKind.IMAGE:
        return {"size": settings.image.size}
    if kind == FieldKind.VIDEO:
        return {"size": settings.video.size, "frames": settings.video.frames}
    of = settings.audio
    return of.model_dump(include={"sample_rate", "seconds", "bands", "window_ms", "hop_ms"})


def stamp(items: pl.DataFrame, names: Sequence[str], folder: Path) -> str:
    """A SHA-256 that changes when the size or the time of one of the files changes; none is opened."""
    digest = hashlib.sha256(str(folder).encode())
    for name in names:
        for path in _flat(items[name])[0].unique().sort():
            try:
                status = (folder / path).stat()
                digest.update(f"{path}\n{status.st_size} {status.st_mtime_ns}\n".encode(errors="replace"))
            except (OSError, ValueError):
                digest.update(f"{path}\n-\n".encode(errors="replace"))
    return digest.hexdigest()


def known_rows(media: Sequence[Media]) -> dict[bytes, tuple[Values, int]]:
    """By digest, every row of these."""
    return {
        digest.tobytes(): (of.values, row)
        for of in media
        if of.digest is not None
        for row, digest in enumerate(np.asarray(of.digest))
    }


class Found(NamedTuple):
    """What one file gave. Without values and without reason: the same as the first file with its content."""

    digest: bytes = b""
    values: Values | None = None
    reason: str = ""

    @property
    def settled(self) -> bool:
        return self.values is not None or self.reason != ""


class Plain(NamedTuple):
    """A file without links in its path, in the folder, plain and of a sound size."""

    path: str
    size: int


@dataclass(frozen=True)
class Decoder:
    """Opens, checks, recognises and decodes files of one kind; may be used by many threads."""

    folder: Path
    kind: FieldKind
    settings: ModelSettings
    known: Known
    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    salt: bytes
    claimed: dict[bytes, str] = field(default_factory=dict)
    """By digest: the path whose file is decoded for all that are equal to it."""
    turn: Lock = field(default_factory=Lock)
    """Of the thread that reads pictures."""
    real: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By folder, as the paths say it: where it is without links, and whether that is inside."""

    @staticmethod
    def of(folder: Path, kind: FieldKind, settings: ModelSettings, known: Known) -> Decoder:
        shapes: dict[FieldKind, tuple[int, ...]] = {
            FieldKind.IMAGE: (settings.image.size, settings.image.size, 3),
            FieldKind.VIDEO: (settings.video.frames, settings.video.size, settings.video.size, 3),
            FieldKind.AUDIO: spectrogram_shape(settings.audio),
        }
        salt = json.dumps([DECODING, str(kind), shaping(kind, settings)], sort_keys=True).encode()
        dtype = np.float16 if kind == FieldKind.AUDIO else np.uint8
        return Decoder(folder.resolve(), kind, settings, known, shapes[kind], dtype, salt)

    def read(self, paths: Sequence[str]) -> list[Found]:
        """What each file gives; only a missing library raises an error."""
        if self.kind != FieldKind.IMAGE:
            return [self._read_long(path) for path in paths]
        left = iter(paths)
        found: list[Found] = []
        while several := self._contents(left):
            for first, content in several:
                values = None if content is None else decode_image(content, self.settings.image.size)
                found.append(first if values is None else _found(first.digest, values))
        return found

    def _read_long(self, path: str) -> Found:
        """What a track or a clip gives, which is not held in memory as a whole."""
        where = self.located(path)
        if isinstance(where, str):
            return Found(reason=where)
        try:
            with io.FileIO(where.path) as file:
                digest = self._digest(file)
                return self._recognised(path, digest) or _found(digest, self._played(file))
        except OSError:
            return Found(reason=NOT_OPENED)

    def _contents(self, paths: Iterator[str]) -> list[tuple[Found, bytes | None]]:
        """Of the next pictures, as many as may be held: what is known of each, and the content of those that
        are still to be decoded.

        One thread reads at a time, unless the disk is slow: reading is many short calls, and two threads that
        both do that hand Python's lock to and fro. It took them three times as long.
        """
        several: list[tuple[Found, bytes | None]] = []
        held = 0
        in_turn = self.turn.acquire(timeout=LONGEST_TURN)
        try:
            for path in paths:
                first, content = self._content(path)
                several.append((first, content))
                held += len(content or b"")
                if held > PIECE_BYTES:
                    break
        finally:
            if in_turn:
                self.turn.release()
        return several

    def _content(self, path: str) -> tuple[Found, bytes | None]:
        where = self.located(path)
        if isinstance(where, str):
            return Found(reason=where), None
        try:
            content = _read(where)
        except OSError:
            return Found(reason=NOT_OPENED), None
        digest = hashlib.sha256(self.salt + content).digest()
        known = self._recognised(path, digest)
        return known or Found(digest), content if known is None else None

    def located(self, path: str) -> Plain | str:
        """The file itself, or why it may not be opened."""
        if not inside(path):
            return OUTSIDE
        parent, _, last = path.replace("\\", "/").rpartition("/")
        try:
            if parent not in self.real:
                self.real[parent] = self._without_links(self.folder / parent)
            folder, within = self.real[parent]
            where = f"{folder}/{last}"
            status = os.lstat(where)
            if stat.S_ISLNK(status.st_mode) or last == "..":
                where, within = self._without_links(Path(where))
                status = os.lstat(where)
        except (FileNotFoundError, NotADirectoryError):
            return NOT_THERE
        except (OSError, ValueError, RuntimeError):  # a name too long, with a zero byte, a loop of links
            return NOT_OPENED
        return (self._fault(status) or Plain(where, status.st_size)) if within else OUTSIDE

    def _without_links(self, path: Path) -> tuple[str, bool]:
        """Where that is, and whether it is in the folder."""
        real = path.resolve(strict=True)
        return str(real), real.is_relative_to(self.folder)

    def _fault(self, status: os.stat_result) -> str:
        """Why something like that may not be opened, or nothing."""
        if not stat.S_ISREG(status.st_mode):
            return NO_FILE
        if status.st_size > LARGEST[self.kind]:
            return TOO_LARGE
        return "" if status.st_size else EMPTY

    def _digest(self, file: BinaryIO) -> bytes:
        digest = hashlib.sha256(self.salt)
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
        return digest.digest()

    def _recognised(self, path: str, digest: bytes) -> Found | None:
        """What is known of this content; None leaves it to this path to decode it."""
        if self.claimed.setdefault(digest, path) != path:
            return Found(digest)
        if digest not in self.known:
            return None
        values, row = self.known[digest]
        return Found(digest, np.asarray(values[row]))

    def shown(self, content: bytes) -> Values | str:
        """What a file with this content shows, or in a few words why it cannot be used."""
        if len(content) > LARGEST[self.kind]:
            return TOO_LARGE
        if self.kind == FieldKind.IMAGE:
            return decode_image(content, self.settings.image.size)
        return self._played(io.BytesIO(content)) if content else EMPTY

    def _played(self, file: BinaryIO) -> Values | str:
        if self.kind == FieldKind.AUDIO:
            return decode_audio(file, self.settings.audio)
        return decode_video(file, self.settings.video)


def _found(digest: bytes, decoded: Values | str) -> Found:
    return Found(digest, reason=decoded) if isinstance(decoded, str) else Found(digest, decoded)


class Rows:
    """Arrays of one shape, written one behind the other as a .npy file, or into memory.

    Until all are written the file says that it has none: half of it is never taken for the whole.
    """

    def __init__(self, path: Path | None, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype, self.count = path, shape, np.dtype(dtype), 0
        self.waiting: list[memoryview] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.file: BinaryIO = io.BytesIO() if path is None else path.open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            self.file.close()

    def append(self, values: Values) -> int:
        """The row at which these values are."""
        assert values.shape == self.shape, f"{values.shape} among {self.shape}"
        self.waiting.append(np.ascontiguousarray(values, self.dtype).data)
        if len(self.waiting) == PIECE or len(self.waiting) * values.nbytes > PIECE_BYTES:
            self._write_waiting()
        self.count += 1
        return self.count - 1

    def _write_waiting(self) -> None:
        if self.path is None or not hasattr(os, "writev"):
            self.file.writelines(self.waiting)
        else:
            # One call, and the system copies without Python's lock, which the threads that decode need.
            self.file.flush()
            size = sum(row.nbytes for row in self.waiting)
            written = os.writev(self.file.fileno(), self.waiting)
            if written < size:  # on a full disk; then to go on there raises the error
                self.file.write(b"".join(self.waiting)[written:])
        self.waiting.clear()

    def finished(self) -> Values:
        """[count, *shape], mapped to the file where there is one."""
        self._write_waiting()
        length = self.file.tell()
        self.file.seek(0)
        begin = self._write_header()
        if self.path is None:
            assert isinstance(self.file, io.BytesIO)
            flat = np.frombuffer(self.file.getbuffer()[begin:length], self.dtype)
            return flat.reshape(self.count, *self.shape)
        self.file.flush()
        return load_rows(self.path)

    def _write_header(self) -> int:
        """Where the rows begin: NumPy leaves room in the header for the first length to grow."""
        tree = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, tree)
        return self.file.tell()


def load_rows(path: Path) -> Values:
    """The array in a .npy file, mapped to it; nothing pickled is read."""
    mode: Literal["r"] = "r"
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    # Of nothing there is nothing to map.
    values: Values = np.load(path, mmap_mode=mode if shape[0] else None, allow_pickle=False)
    return values


def save_rows(path: Path, values: Values) -> None:
    """``path`` holds these rows; those of a mapped file are copied without reading them all at once."""
    step = max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
    with Rows(path, values.shape[1:], values.dtype) as rows:
        for start in range(0, len(values), step):
            for row in values[start : start + step]:
                rows.append(row)
        rows.finished()


def _flat(cells: pl.Series) -> tuple[pl.Series, IntArray]:
    """The paths of all items end to end, and where each item's begin, int64 [V + 1]."""
    if isinstance(cells.dtype, (pl.List, pl.Array)):
        lists = cells.cast(pl.List(pl.String)).list.drop_nulls()
        lengths = lists.list.len().fill_null(0).to_numpy()
        flat = lists.filter(pl.Series(lengths > 0)).explode()
    else:
        texts = cells.cast(pl.String)
        lengths, flat = texts.is_not_null().to_numpy(), texts.drop_nulls()
    return flat.rename("path"), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _in_order(
    decoder: Decoder, paths: list[str], name: str, told: Told | None
) -> Iterator[tuple[int, str, Found]]:
    """Each path's place, itself and what it gave; the first of equal files has the values.

    Threads decode, since the libraries let go of Python's lock while they work; so many files are under
    way at a time that their values fit into ``CHUNK_BYTES``. The thread that asks is one of them: one more
    than there are processors would stop others while it holds the lock and waits for a processor.
    """
    row_bytes = int(np.prod(decoder.shape)) * np.dtype(decoder.dtype).itemsize
    most = 4 * processors()
    size = max(1, min(PIECE if decoder.kind == FieldKind.IMAGE else 1, CHUNK_BYTES // row_bytes // most))
    pieces = [paths[start : start + size] for start in range(0, len(paths), size)]
    under_way: deque[Future[list[Found]]] = deque()
    reason_of: dict[bytes, str] = {}  # of contents that are settled; "" where there are values
    pool = ThreadPoolExecutor(max(1, processors() - 1), thread_name_prefix="decoding")
    try:
        for number, piece in enumerate(pieces):
            for later in pieces[number + len(under_way) : number + most]:
                under_way.append(pool.submit(decoder.read, later))
            _read_too(decoder, pieces[number : number + most], under_way)
            for place, (path, first) in enumerate(zip(piece, under_way.popleft().result(), strict=True)):
                found = first
                if first.digest and not first.settled:
                    known = reason_of.get(first.digest)
                    found = _settled(first, under_way) if known is None else first._replace(reason=known)
                if found.digest:
                    reason_of[found.digest] = found.reason
                yield number * size + place, path, found
            if told is not None:
                told(name, number * size + len(piece), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)


def _read_too(decoder: Decoder, pieces: Sequence[list[str]], under_way: deque[Future[list[Found]]]) -> None:
    """Until the first piece is there, this thread reads those that no other has begun."""
    for place, piece in enumerate(pieces):
        if under_way[0].done():
            return
        if under_way[place].cancel():
            under_way[place] = Future()
            under_way[place].set_result(decoder.read(piece))


def _settled(found: Found, under_way: Iterable[Future[list[Found]]]) -> Found:
    """What another thread, which was quicker with a later file, makes of the same content."""
    others = (other for future in under_way for other in future.result())
    return next(other for other in others if other.digest == found.digest and other.settled)


def _read(file: Plain) -> bytes:
    # A third of the time that Python's file objects take; pictures are many and small.
    handle = os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return os.read(handle, file.size)
    finally:
        os.close(handle)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of_items(
    values: Values,
    flat: pl.Series,
    distinct: pl.Series,
    row_of: IntArray,
    offsets: IntArray,
    digests: list[bytes],
) -> Media:
    """The rows of each item, without the files that gave none."""
    places = pl.DataFrame({"path": distinct, "row": row_of})
    joined = flat.to_frame().join(places, on="path", how="left", maintain_order="left")["row"]
    row: IntArray = joined.to_numpy()
    before = np.concatenate([[0], np.cumsum(row >= 0, dtype=np.int64)])
    digest = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    return Media(values, row[row >= 0], before[offsets], digest)


def _notes(
    name: str, kind: FieldKind, media: Media, used: int, reasons: Mapping[str, list[str]]
) -> tuple[Note, ...]:
    items = int((np.diff(media.offsets) > 0).sum())
    told = f"{kind} of {items:,} items from {used:,} files, {len(media.values):,} of them distinct"
    notes = [Note(f"files of '{name}'", 0, used, told)]
    for reason, paths in sorted(reasons.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        shown = tuple(path[:80] for path in paths[:EXAMPLES])
        more = ", …" if len(paths) > EXAMPLES else ""
        detail = f"{len(paths):,} {reason}: {', '.join(shown)}{more}"
        notes.append(Note(f"unreadable files of '{name}'", 0, used, detail, shown))
    return tuple(notes)
