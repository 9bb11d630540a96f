"""Files of sound and moving pictures, opened with PyAV so that they can do no harm."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from palate.errors import MissingExtraError

FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,flac,flv,gif,ivf,matroska,webm,mov,mp4,m4a,3gp,3g2,"
    "mp3,mpeg,mpegts,ogg,rm,tta,w64,wav,wv"
)
"""Containers that hold what they play; play lists, which name other files and addresses, are not here."""

NOT_READABLE = "no sound or film in a known format"
DAMAGED = "damaged"
TOO_LONG = "longer than six hours"
MOST_SECONDS = 6 * 3600.0


def library() -> Any:
    """PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("PyAV", "media") from None
    return av


def opened(file: BinaryIO) -> Any:
    """PyAV's container of a file, from its beginning; it opens no other file and no address."""
    file.seek(0)
    return library().open(
        file,
        metadata_errors="replace",
        container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
        io_open=_refuse,
    )


def _refuse(url: str, *rest: Any) -> Any:
    del rest
    raise PermissionError(f"a media file may not open {url!r}")


def frames(container: Any, stream: Any) -> Iterator[Any]:
    """The decoded frames up to the end or to where the file is damaged.

    Raises:
        FFmpegError: not even the first can be decoded.
    """
    some = False
    try:
        for frame in container.decode(stream):
            some = True
            yield frame
    except library().FFmpegError:
        if not some:
            raise


def duration_of(file: BinaryIO, kind: str) -> float | str:
    """Seconds of the first stream of this kind ("audio", "video"), or why it cannot be read.

    Where the header does not tell, by the times of its packets.
    """
    with opened(file) as container:
        streams = getattr(container.streams, kind)
        if not streams:
            return f"no {kind} in it"
        stream = streams[0]
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1e6
        else:
            times = [
                packet.pts + (packet.duration or 0)
                for packet in container.demux(stream)
                if packet.pts is not None
            ]
            first = stream.start_time or 0
            seconds = float((max(times) - first) * stream.time_base) if times else 0.0
    return TOO_LONG if seconds > MOST_SECONDS else max(0.0, seconds)


def seconds_of(frame: Any, stream: Any) -> float | None:
    """When a frame is played, in seconds from the beginning of its stream; None where nothing says so."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base - (stream.start_time or 0) * stream.time_base)


def seek(container: Any, stream: Any, seconds: float) -> None:
    """The next frame is the last from which decoding can begin at or before this moment, as far as the
    format can tell."""
    offset = int(seconds / float(stream.time_base)) + (stream.start_time or 0)
    container.seek(offset, stream=stream, backward=True)


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, (io.UnsupportedOperation, MemoryError)):
        return DAMAGED
    name = type(error).__name__
    if name in ("InvalidDataError", "DemuxerNotFoundError", "PermissionError"):
        return NOT_READABLE
    return DAMAGED
