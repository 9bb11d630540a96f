"""From the bytes of a picture to red, green and blue at one size.

A picture is squashed to a square, not cropped: posters, labels and covers have what tells them apart at
their edges too, pictures of one data set mostly have one shape, and a crop of a 2:3 poster would throw a
third of it away.
"""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image, UnidentifiedImageError

MOST_PIXELS = 64_000_000
"""Larger pictures are refused by what their header says, before anything is decoded."""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
"""Formats that Pillow may read: those that run no other program (as EPS does) and tell themselves by their
first bytes."""

EMPTY = "empty"
NO_PICTURE = "no picture in a known format"
TRUNCATED = "truncated"
DAMAGED = "damaged"
TOO_MANY_PIXELS = f"more than {MOST_PIXELS:,} pixels"

_JPEG = b"\xff\xd8\xff"
_KNOWN_STARTS = (_JPEG, b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_START_OF_SCAN = 0xDA
_LONGEST_HEADER = 1 << 17
"""Bytes of a JPEG, further than which EXIF is not looked for."""
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by EXIF's orientation (CIPA DC-008, 4.6.4)."""

LEAST_SCALE = 0.9
"""A JPEG may be decoded to so much of the size wanted: in 64 pixels, half of 124 shows as much as all."""

BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear))
"""As Pillow's ``Resampling.BILINEAR``, to one level of 255, in a third of its time."""

RGB = PixelType.U8x3

Picture = npt.NDArray[np.uint8]


class _Bench(threading.local):
    """What a thread uses again for every picture."""

    def __init__(self) -> None:
        self.resizer = Resizer()
        self.squares: dict[int, ImageData] = {}

    def square(self, size: int) -> ImageData:
        if size not in self.squares:
            self.squares[size] = ImageData(size, size, RGB)
        return self.squares[size]


_bench = _Bench()


def decode_image(content: bytes, size: int) -> Picture | str:
    """The picture as uint8 [size, size, 3], or in a few words why there is none.

    The bytes tell the format, whatever the file is called. EXIF's rotation is obeyed, what is transparent
    is white, of several pictures the first counts. No bytes raise an error.
    """
    found = _decoded(content, size)
    return found if isinstance(found, str) else squashed(found, size)


def _decoded(content: bytes, size: int) -> Picture | str:
    """uint8 [H, W, 3] of any shape, or why there is none."""
    if not content:
        return EMPTY
    try:
        found = _quick(content, size) if content.startswith(_JPEG) else None
        return _thorough(content, size) if found is None else found
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return TOO_MANY_PIXELS
    except UnidentifiedImageError:
        return DAMAGED if content.startswith(_KNOWN_STARTS) else NO_PICTURE
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        return TRUNCATED if "truncated" in str(error).lower() or isinstance(error, EOFError) else DAMAGED


def squashed(picture: Picture, size: int) -> Picture:
    """uint8 [H, W, 3] as [size, size, 3], bilinear with antialiasing."""
    height, width, _ = picture.shape
    small = _bench.square(size)
    _bench.resizer.resize(ImageData(width, height, RGB, picture.tobytes()), small, BILINEAR)
    return np.frombuffer(small.get_buffer(), np.uint8).reshape(size, size, 3)


def _quick(content: bytes, size: int) -> Picture | str | None:
    """A plain JPEG, decoded at the smallest scale that nearly reaches ``size``; None leaves it to Pillow."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if height * width > MOST_PIXELS:
            return TOO_MANY_PIXELS
        if colours not in ("YCbCr", "Gray", "RGB") or _turned(content):
            return None
        least = round(LEAST_SCALE * size)
        decoded: Picture = simplejpeg.decode_jpeg(content, min_height=least, min_width=least)
    except ValueError:  # also for faults that browsers overlook
        return None
    return decoded


def _turned(content: bytes) -> bool:
    """Whether there is EXIF with an orientation other than upright."""
    if content.find(b"Exif\0\0", 0, _header_bytes(content)) < 0:
        return False
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return _orientation(image) in _TURNS


def _header_bytes(content: bytes) -> int:
    """Of a JPEG, those before its first scan, found by leaping from segment to segment (ITU-T T.81, B.1.1.4),
    or as many as a header may have. The scan is most of a small picture, and has no EXIF."""
    place, last = 2, min(len(content), _LONGEST_HEADER) - 4
    while place <= last and content[place] == 0xFF:
        if content[place + 1] == _START_OF_SCAN:
            return place
        place += 2 + (content[place + 2] << 8) + content[place + 3]
    return _LONGEST_HEADER


def _thorough(content: bytes, size: int) -> Picture | str:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            return TOO_MANY_PIXELS
        image.draft("RGB", (size, size))  # of JPEG: decode at a smaller scale
        image.load()  # after this TIFF is upright, and EXIF behind a PNG's pixels is known
        turn = _TURNS.get(_orientation(image))
        whole: Image.Image = image
        factor = min(image.size) // (2 * size)
        if factor > 1 and image.mode in _REDUCIBLE:
            whole = image.reduce(factor)
        if turn is not None:
            whole = whole.transpose(turn)
        return _over_white(whole)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not spoil the picture
        return 1


def _over_white(image: Image.Image) -> Picture:
    """uint8 [H, W, 3], whatever the mode."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_eight_bits(np.asarray(image), image.mode)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _eight_bits(grey: npt.NDArray[Any], mode: str) -> Picture:
    """Grey of 16 bits by its upper eight; of wider integers and floats, whose range no file tells, by the
    range it takes."""
    values = np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if mode.startswith("I;16") or (mode == "I" and values.min() >= 0 and 255 < values.max() <= 65_535):
        return (values / 257).round().astype(np.uint8)
    if values.min() < 0 or values.max() > 255 or (mode == "F" and values.max() <= 1):
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-300) * 255
    return values.round().astype(np.uint8)
