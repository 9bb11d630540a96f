"""From a film to a few of its pictures, evenly spaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from palate.data.streams import DAMAGED, duration_of, frames, library, opened, reason_of, seconds_of, seek
from palate.settings import VideoSettings

MOST_PIXELS = 36_000_000
"""Pixels of one frame (8K has 33 million); larger films are refused before anything is decoded."""
TOO_MANY_PIXELS = f"more than {MOST_PIXELS:,} pixels in a frame"
FAR = 10.0
"""Seconds ahead from which it is quicker to look for a place to begin anew than to decode all between."""

Film = npt.NDArray[np.uint8]


class _TooManyPixelsError(Exception):
    """A frame is larger than the header said."""


def decode_video(file: BinaryIO, settings: VideoSettings) -> Film | str:
    """uint8 [F, S, S, 3]: what is on the screen in the middle of each of F equal stretches, or in a few
    words why nothing is.

    Frames are squashed to squares, and turned as the file says. A film that ends early, or has fewer
    pictures, shows its last one to the end.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    library()
    try:
        duration = duration_of(file, "video")
        if isinstance(duration, str):
            return duration
        moments = (np.arange(settings.frames) + 0.5) / settings.frames * duration
        with opened(file) as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > MOST_PIXELS:
                return TOO_MANY_PIXELS
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            stream.codec_context.thread_count = 1  # other films are decoded at the same time
            found = list(_shown(container, stream, moments.tolist(), settings.size))
        return np.stack(found) if found else DAMAGED
    except _TooManyPixelsError:
        return TOO_MANY_PIXELS
    except Exception as error:  # no bytes may stop the others
        return reason_of(error)


def _shown(container: Any, stream: Any, moments: list[float], size: int) -> Iterator[Film]:
    """The picture on the screen at each moment, uint8 [size, size, 3]."""
    coming = frames(container, stream)
    frame = following = next(coming, None)
    reached = 0.0
    for moment in moments:
        if moment - reached > FAR:
            seek(container, stream, moment)
            coming = frames(container, stream)
            following = next(coming, None)
        while following is not None and (at := seconds_of(following, stream) or reached) <= moment:
            frame, reached = following, at
            following = next(coming, None)
        if frame is not None:
            yield _small(frame, size)


def _small(frame: Any, size: int) -> Film:
    if frame.width * frame.height > MOST_PIXELS:
        raise _TooManyPixelsError
    plain = frame.reformat(width=size, height=size, format="rgb24", interpolation="AREA").to_ndarray()
    # The display matrix says how far the picture has to be turned, in degrees counterclockwise.
    return np.ascontiguousarray(np.rot90(plain, round(getattr(frame, "rotation", 0) / 90)))
