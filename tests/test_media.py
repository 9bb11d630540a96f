"""Pictures, sound and film: known answers, hostile files, equal content shared, nothing decoded twice."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given, settings, strategies
from PIL import Image

from palate.data.content import ContentEncoder
from palate.data.images import MOST_PIXELS, decode_image, squashed
from palate.data.media import Decoder, Rows, Workplace, known_rows, load_rows, read_media
from palate.data.sounds import decode_audio, hertz, mel, mel_filters, spectrogram, spectrogram_shape
from palate.data.source import dataset_from_frames, read_dataset
from palate.data.store import load_prepared, prepare
from palate.data.videos import decode_video
from palate.errors import DataError
from palate.schema import Field, FieldKind
from palate.settings import ModelSettings, Settings, TextSettings

S = 16
SMALL = ModelSettings.model_validate(
    {
        "image": {"size": S},
        "audio": {"sample_rate": 8000, "seconds": 1.0, "bands": 24},
        "video": {"size": S, "frames": 4},
    }
)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(colour, mode: str = "RGB", size=(40, 20)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(seed: int = 0, size=(60, 90)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


def halves(size=(32, 32)) -> Image.Image:
    """The upper half red, the lower blue."""
    image = plain(RED, size=size)
    image.paste(BLUE, (0, size[1] // 2, size[0], size[1]))
    return image


def shown(content: bytes) -> np.ndarray:
    picture = decode_image(content, S)
    assert not isinstance(picture, str), picture
    assert picture.shape == (S, S, 3)
    assert picture.dtype == np.uint8
    return picture


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + struct.pack(">I", 50) + b"IDAT" + b"\0" * 50


# Pictures


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (encoded(plain(RED, size=(2, 2))), RED),
        (encoded(plain(RED), "JPEG", quality=95), RED),
        (encoded(plain(128, "L"), "JPEG"), (128, 128, 128)),
        (encoded(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95), RED),
        (encoded(plain(GREEN).convert("P", palette=Image.Palette.ADAPTIVE), "GIF"), GREEN),
        (encoded(plain(BLUE).convert("P", palette=Image.Palette.ADAPTIVE)), BLUE),
        (encoded(plain((0, 0, 0, 0), "RGBA")), WHITE),
        (encoded(plain((255, 0, 0, 128), "RGBA")), (255, 127, 127)),
        (encoded(plain((100, 255), "LA")), (100, 100, 100)),
        (encoded(plain(0).convert("P"), transparency=0), WHITE),
        (encoded(plain(0).convert("P"), transparency=b"\0" * 256), WHITE),
        (encoded(Image.fromarray(np.full((9, 9), 0x8000, np.uint16))), (128, 128, 128)),
        (encoded(Image.fromarray(np.full((9, 9), 0x8000, np.uint16)), "TIFF"), (128, 128, 128)),
        (encoded(Image.fromarray(np.full((9, 9), 200, np.int32)), "TIFF"), (200, 200, 200)),
        (encoded(plain(1, "1")), WHITE),
        (encoded(plain(RED), "GIF", save_all=True, append_images=[plain(BLUE)]), RED),
        (encoded(plain(RED), "WEBP", lossless=True, save_all=True, append_images=[plain(BLUE)]), RED),
        (encoded(plain(RED), "BMP"), RED),
        (encoded(plain(RED, size=(1, 1))), RED),
        (encoded(plain(RED, size=(3000, 1))), RED),
    ],
)
def test_a_plain_picture_has_its_colour_in_every_mode_and_format(content, colour):
    assert np.abs(shown(content).astype(int) - colour).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_bring_the_upper_half_up(kind, orientation):
    turned = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = halves() if turned is None else halves().transpose(turned)
    picture = shown(encoded(image, kind, exif=exif)).astype(int)
    assert np.abs(picture[:6] - RED).max() < 40
    assert np.abs(picture[-6:] - BLUE).max() < 40


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\xff\xe2\xff\xff" + bytes(65_533),
        b"\xff\xe0\0\x0eJFXX\0\x10\xff\xd8\xff\xda\0\0",
        b"\xff\xfe\0\x02" * 1000,
        b"\xff\xff\xff",
    ],
    ids=["nothing", "profile", "start of a thumbnail's scan", "comments", "bytes that fill"],
)
def test_exif_is_obeyed_wherever_it_stands_in_the_header(before):
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(halves(), "JPEG", exif=exif)
    begin = content.index(b"\xff\xe1")
    picture = shown(content[:begin] + before + content[begin:]).astype(int)
    assert np.abs(picture[:6] - BLUE).max() < 40
    assert np.abs(picture[-6:] - RED).max() < 40


@given(strategies.tuples(strategies.integers(1, 90), strategies.integers(1, 90)), strategies.integers(1, 40))
def test_a_picture_is_squashed_as_pillow_does_it(shape, size):
    picture = np.asarray(noise(shape[0], shape))
    slow = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    assert np.abs(squashed(picture, size).astype(int) - np.asarray(slow)).max() <= 1


@pytest.mark.parametrize("shape", [(448, 304), (64, 60)])  # the second is decoded as 16 × 15
def test_the_quick_way_and_pillow_show_the_same_photograph(shape):
    random = np.random.default_rng(1).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    smooth = Image.fromarray(random).resize(shape, Image.Resampling.BICUBIC)
    content = encoded(smooth, "JPEG", quality=95)
    slow = Image.open(io.BytesIO(content)).convert("RGB").resize((S, S), Image.Resampling.BILINEAR)
    assert np.abs(shown(content).astype(int) - np.asarray(slow)).mean() < 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "no picture in a known format"),
        (encoded(noise(), "JPEG")[:2000], "truncated"),
        (encoded(noise())[:3000], "truncated"),
        (encoded(noise(), "GIF")[:900], "truncated"),
        (encoded(noise(), "JPEG")[:30], "truncated"),
        (b"\xff\xd8\xff", "damaged"),
        (png_header(30_000, 30_000), f"more than {MOST_PIXELS:,} pixels"),
        (png_header(9_000, 9_000), f"more than {MOST_PIXELS:,} pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture in a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture in a known format"),
    ],
)
def test_what_is_no_picture_gives_its_reason(content, reason):
    assert decode_image(content, S) == reason


def test_a_jpeg_bomb_is_refused_by_its_header():
    content = bytearray(encoded(plain(RED, size=(64, 64)), "JPEG"))
    place = content.find(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    assert decode_image(bytes(content), S) == f"more than {MOST_PIXELS:,} pixels"


STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBP",
    b"II*\0",
    b"BM",
    b"P6\n",
]
SAMPLES = [encoded(noise(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]


@settings(max_examples=60, deadline=None)
@given(strategies.sampled_from(STARTS), strategies.binary(max_size=200))
def test_no_bytes_raise(start, rest):
    found = decode_image(start + rest, 8)
    assert isinstance(found, str) or found.shape == (8, 8, 3)


@settings(max_examples=60, deadline=None)
@given(strategies.sampled_from(SAMPLES), strategies.data())
def test_no_damaged_picture_raises(sample, data):
    content = bytearray(sample)
    for _ in range(data.draw(strategies.integers(1, 4))):
        content[data.draw(strategies.integers(0, len(content) - 1))] = data.draw(strategies.integers(0, 255))
    found = decode_image(bytes(content), 8)
    assert isinstance(found, str) or found.shape == (8, 8, 3)


# Sound


def sine(frequency: float, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def sound(samples: np.ndarray, rate: int = 8000, kind: str = "WAV", **options) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file


def test_mel_is_htks_formula():
    assert mel(0.0) == 0.0
    assert mel(1000.0) == pytest.approx(1000.0, abs=0.02)  # the scale's fixed point
    assert mel(700.0) == pytest.approx(2595 * np.log10(2))
    np.testing.assert_allclose(
        hertz(np.array([mel(f) for f in (55.0, 440.0, 7000.0)])), [55.0, 440.0, 7000.0]
    )


def test_mel_filters_are_triangles_that_add_up_to_one():
    filters, frequency = mel_filters(24, 257, 8000), np.linspace(0, 4000, 257)
    centres = hertz(np.linspace(0, mel(4000), 26))[1:-1]
    between = (frequency >= centres[0]) & (frequency <= centres[-1])
    np.testing.assert_allclose(filters.sum(axis=0)[between], 1.0, atol=1e-5)
    for band, centre in zip(filters, centres, strict=True):
        assert abs(frequency[band.argmax()] - centre) <= 4000 / 256


@pytest.mark.parametrize("frequency", [200.0, 440.0, 1000.0, 2500.0])
@pytest.mark.parametrize(("rate", "kind"), [(8000, "WAV"), (44_100, "FLAC"), (22_050, "OGG")])
def test_a_sines_energy_is_in_its_band(frequency, rate, kind):
    heard = decode_audio(sound(sine(frequency, 2.0, rate), rate, kind), SMALL.audio)
    assert not isinstance(heard, str), heard
    assert heard.shape == spectrogram_shape(SMALL.audio) == (24, 63)
    assert heard.dtype == np.float16
    centres = hertz(np.linspace(0, mel(4000), 26))[1:-1]
    assert heard[:, 5:-5].mean(axis=1).argmax() == np.abs([mel(c) - mel(frequency) for c in centres]).argmin()
    assert heard.max() == 2.0


@given(strategies.integers(0, 9000), strategies.sampled_from([(8000, 32.0, 16.0), (16_000, 25.1, 10.0)]))
def test_a_spectrogram_is_that_of_a_second_librarys_short_time_transform(length, shape):
    rate, window_ms, hop_ms = shape
    settings = SMALL.audio.model_copy(
        update={"sample_rate": rate, "window_ms": window_ms, "hop_ms": hop_ms, "seconds": 0.5}
    )
    samples = np.random.default_rng(length).normal(size=length).astype(np.float32)
    window, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
    heard = torch.zeros(rate // 2)
    heard[: min(length, rate // 2)] = torch.from_numpy(samples[: rate // 2])
    heard /= max(float(heard.abs().max()), 1e-9)
    hann = torch.hann_window(window)
    waves = torch.stft(heard, window, hop, window=hann, pad_mode="constant", return_complex=True)
    power = torch.from_numpy(mel_filters(24, window // 2 + 1, rate)) @ waves.abs() ** 2
    decibels = 10 * torch.log10((power / power.max().clamp_min(1e-30)).clamp_min(1e-8))
    expected = decibels / 20 + 2 if length else torch.full_like(decibels, -2)
    np.testing.assert_allclose(spectrogram(samples, settings), expected, atol=2e-3)


def test_loudness_as_a_whole_does_not_count_and_silence_is_the_lowest_value():
    loud, soft = (spectrogram(volume * sine(440), SMALL.audio) for volume in (0.9, 0.01))
    np.testing.assert_allclose(loud, soft, atol=0.01)
    for silent in (np.zeros(8000, np.float32), np.full(10, np.nan, np.float32), np.zeros(0, np.float32)):
        assert (spectrogram(silent, SMALL.audio) == -2).all()


def test_the_middle_of_a_track_is_heard_and_channels_are_mixed():
    parts = np.concatenate([sine(300, 3), sine(2000, 2), sine(300, 3)])
    middle = decode_audio(sound(np.stack([parts, np.zeros_like(parts)], axis=1)), SMALL.audio)
    np.testing.assert_allclose(middle[:, 4:-4], spectrogram(sine(2000), SMALL.audio)[:, 4:-4], atol=0.3)


def test_a_short_track_is_followed_by_silence():
    heard = decode_audio(sound(sine(440, 0.25)), SMALL.audio)
    assert heard[:, 2:14].max() > 1.9
    assert (heard[:, 20:] == -2).all()


def test_a_track_cut_short_is_heard_as_far_as_it_goes():
    content = sound(sine(440, 6)).getvalue()
    heard = decode_audio(io.BytesIO(content[: len(content) // 4]), SMALL.audio)
    assert not isinstance(heard, str), heard
    assert heard.max() == 2.0


@pytest.mark.parametrize("decode", [decode_audio, decode_video])
@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile 'x.wav'\n",
        b"RIFF",
    ],
)
def test_what_cannot_be_played_gives_a_reason(decode, content):
    assert isinstance(
        decode(io.BytesIO(content), SMALL.audio if decode is decode_audio else SMALL.video), str
    )


# Film


def film(colours, size=(64, 48), rate: int = 4, kind: str = "mp4", codec: str = "mpeg4") -> io.BytesIO:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for colour in colours:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), colour, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4")])
def test_frames_are_evenly_spaced_over_the_film(kind, codec):
    colours = [RED] * 8 + [GREEN] * 8 + [BLUE] * 8 + [WHITE] * 8
    frames = decode_video(film(colours, kind=kind, codec=codec), SMALL.video)
    assert not isinstance(frames, str), frames
    assert frames.shape == (4, S, S, 3)
    assert frames.dtype == np.uint8
    for frame, colour in zip(frames, (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(frame.astype(int) - colour).max() < 30


def test_a_film_longer_than_a_leap_is_sought_through():
    colours = [colour for colour in (RED, GREEN, BLUE, WHITE) for _ in range(60)]
    frames = decode_video(film(colours, rate=1), SMALL.video)
    for frame, colour in zip(frames, (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.abs(frame.astype(int) - colour).max() < 30


def test_a_film_of_one_frame_shows_it_throughout_and_a_cut_one_its_last():
    assert np.abs(decode_video(film([GREEN]), SMALL.video).astype(int) - GREEN).max() < 30
    whole = film([RED] * 100 + [GREEN] * 100, kind="avi").getvalue()
    frames = decode_video(io.BytesIO(whole[: int(len(whole) * 0.4)]), SMALL.video)
    assert not isinstance(frames, str), frames
    assert np.abs(frames.astype(int) - RED).max() < 30


def test_sound_is_no_film_and_film_without_sound_no_sound():
    assert decode_video(sound(sine(440)), SMALL.video) == "no video in it"
    assert decode_audio(film([RED]), SMALL.audio) == "no audio in it"


@settings(max_examples=25, deadline=None)
@given(strategies.data())
def test_no_damaged_film_or_track_raises(data):
    sample = data.draw(strategies.sampled_from(PLAYED))
    content = bytearray(sample)
    for _ in range(data.draw(strategies.integers(1, 4))):
        content[data.draw(strategies.integers(0, len(content) - 1))] = data.draw(strategies.integers(0, 255))
    cut = bytes(content[: data.draw(strategies.integers(0, len(content)))])
    for decode, of in ((decode_audio, SMALL.audio), (decode_video, SMALL.video)):
        found = decode(io.BytesIO(cut), of)
        assert isinstance(found, str) or np.isfinite(found.astype(float)).all()


PLAYED = [
    film([RED, BLUE] * 4).getvalue(),
    sound(sine(440, 0.5)).getvalue(),
    sound(sine(440, 0.5), kind="OGG").getvalue(),
]


# Files of a field


def test_equal_content_is_one_row_and_several_pictures_belong_to_one_item(tmp_path):
    for name, colour in (("a", RED), ("b", BLUE), ("copy of a", RED)):
        (tmp_path / f"{name}.png").write_bytes(encoded(plain(colour)))
    paths = pl.Series([None, ["a.png", "b.png"], ["copy of a.png"], ["a.png", "gone.png"], []])
    media, notes, decoded = read_media(paths, tmp_path, FieldKind.IMAGE, SMALL)
    assert media.offsets.tolist() == [0, 0, 2, 3, 4, 4]
    assert media.row.tolist() == [0, 1, 0, 0]
    assert decoded == len(media.values) == 2
    assert (media.values[0] == RED).all()
    assert (media.values[1] == BLUE).all()
    assert [note.detail for note in notes] == [
        "image of 3 items from 3 files, 2 of them distinct",
        "1 not there: gone.png",
    ]


def test_links_lead_nowhere_outside_and_only_plain_files_are_opened(tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "secret"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    for folder in (inside, outside):
        (folder / "p.png").write_bytes(encoded(plain(RED)))
    (inside / "good link.png").symlink_to(inside / "p.png")
    (inside / "bad link.png").symlink_to(outside / "p.png")
    (inside / "bad folder").symlink_to(outside)
    (inside / "loop.png").symlink_to(inside / "loop.png")
    os.mkfifo(inside / "pipe.png")
    (inside / "huge.png").write_bytes(b"")
    os.truncate(inside / "huge.png", 2**26 + 1)
    paths = [
        "p.png", "good link.png", "sub/../p.png", "bad link.png", "bad folder/p.png", "loop.png", "pipe.png",
        "huge.png", "sub", "../secret/p.png", str(outside / "p.png"), "zero\0byte.png", "x" * 5000,
    ]  # fmt: skip
    media, notes, _ = read_media(paths, inside, FieldKind.IMAGE, SMALL)
    assert np.diff(media.offsets).tolist() == [1, 1, 1] + [0] * 10
    assert len(media.values) == 1
    counts = {note.detail.split(":")[0] for note in notes[1:]}
    assert counts == {"4 outside the table's folder", "2 no plain file", "1 too large", "3 cannot be opened"}


def test_a_linked_folder_of_data_is_a_folder_all_the_same(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "p.png").write_bytes(encoded(plain(RED)))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(read_media(["p.png"], tmp_path / "link", FieldKind.IMAGE, SMALL).media.values) == 1


def test_known_rows_are_taken_for_the_same_sizes_only(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(plain(RED)))
    first = read_media(["a.png"], tmp_path, FieldKind.IMAGE, SMALL).media
    place = Workplace(known=known_rows([first]))
    again = read_media(["a.png"], tmp_path, FieldKind.IMAGE, SMALL, place=place)
    assert again.decoded == 0
    assert (again.media.values == first.values).all()
    larger = ModelSettings.model_validate({"image": {"size": 2 * S}})
    other = read_media(["a.png"], tmp_path, FieldKind.IMAGE, larger, place=place)
    assert other.decoded == 1
    assert other.media.values.shape == (1, 2 * S, 2 * S, 3)


def test_many_files_come_in_chunks_and_in_order(tmp_path):
    for number in range(600):
        (tmp_path / f"{number}.png").write_bytes(
            encoded(plain((number % 256, number // 256, 7), size=(2, 2)))
        )
    told: list[tuple[str, int, int]] = []
    place = Workplace(tmp_path / "out", told=lambda *words: told.append(words))
    paths = [f"{number}.png" for number in range(600)]
    media = read_media(paths, tmp_path, FieldKind.IMAGE, SMALL, name="cover", place=place).media
    assert isinstance(media.values, np.memmap)
    assert media.row.tolist() == list(range(600))
    assert media.values[:, 0, 0].tolist() == [[number % 256, number // 256, 7] for number in range(600)]
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == ("cover", 600, 600)


def test_equal_files_that_many_threads_meet_at_once_are_one_row_all_the_same(tmp_path):
    contents = [encoded(noise(seed, (200, 200))) for seed in range(3)] + [encoded(noise(9), "JPEG")[:2000]]
    for number in range(240):
        (tmp_path / f"{number}.png").write_bytes(contents[number // 5 % 4])
    paths = [f"{number}.png" for number in range(240)]
    media, notes, decoded = read_media(paths, tmp_path, FieldKind.IMAGE, SMALL)
    assert decoded == len(media.values) == 3
    assert media.row.tolist() == [number // 5 % 4 for number in range(240) if number // 5 % 4 < 3]
    assert [note.detail.split(":")[0] for note in notes[1:]] == ["60 truncated"]


def test_one_thread_reads_at_a_time_but_on_a_slow_disk_none_waits_for_another(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(plain(RED)))
    decoder = Decoder.of(tmp_path, FieldKind.IMAGE, SMALL, {})
    with decoder.turn:
        (found,) = decoder.read(["a.png"])
    assert found.values is not None
    assert decoder.turn.acquire(blocking=False)  # who did not have it does not give it back


def test_no_files_at_all_are_no_rows(tmp_path):
    for place in (Workplace(), Workplace(tmp_path / "out")):
        media = read_media([None, None], tmp_path, FieldKind.IMAGE, SMALL, place=place).media
        assert media.values.shape == (0, S, S, 3)
        assert media.offsets.tolist() == [0, 0, 0]


def test_a_file_of_rows_says_that_it_has_none_until_it_is_whole(tmp_path):
    path = tmp_path / "rows.npy"
    with Rows(path, (2, 3), np.float16) as rows:
        for number in range(5):
            rows.append(np.full((2, 3), number, np.float16))
        rows.file.flush()
        assert len(np.load(path)) == 0
        whole = rows.finished()
    assert whole[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.load(path), load_rows(path))


@pytest.mark.parametrize("at_a_time", [None, 0, 1, 1000])
def test_rows_are_whole_and_in_order_however_the_system_writes_them(tmp_path, monkeypatch, at_a_time):
    values = np.random.default_rng(0).integers(0, 256, (200, 7, 3), np.uint8)

    def some(file: int, rows: list[memoryview]) -> int:
        return os.write(file, b"".join(rows)[:at_a_time])

    if at_a_time is None:
        monkeypatch.delattr(os, "writev")
    else:
        monkeypatch.setattr(os, "writev", some)
    with Rows(tmp_path / "rows.npy", (7, 3), np.uint8) as rows:
        assert [rows.append(row) for row in values] == list(range(200))
        np.testing.assert_array_equal(rows.finished(), values)


# Encoding


def test_the_encoder_gives_media_as_they_are_and_comes_back_from_its_state(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(plain(RED)))
    fields = (Field("cover", FieldKind.IMAGE), Field("clip", FieldKind.VIDEO))
    table = pl.DataFrame({"cover": ["a.png", None, "gone.png"], "clip": [None] * 3})
    media = {"cover": read_media(table["cover"], tmp_path, FieldKind.IMAGE, SMALL).media}
    fitted = ContentEncoder.fit(table, fields, np.ones(3, np.bool_), TextSettings(), media)
    encoder = ContentEncoder.from_state(json.loads(json.dumps(fitted.to_state())))
    assert encoder == fitted
    assert [field.name for field in encoder.skipped] == ["clip"]
    (cover,) = encoder.encode(table, media).fields
    assert (cover.shape.kind, cover.shape.size) == (FieldKind.IMAGE, S)
    assert cover.present.tolist() == [True, False, False]
    assert cover.media is media["cover"].values
    assert cover.values[cover.offsets[0] : cover.offsets[1]].tolist() == [0]
    (absent,) = encoder.encode(table).fields
    assert not absent.present.any()
    assert absent.media.shape == (0, S, S, 3)
    with pytest.raises(DataError, match="media of 3 items for a table of 2"):
        encoder.encode(table[:2], media)
    larger = ModelSettings.model_validate({"image": {"size": 2 * S}})
    other = {"cover": read_media(table["cover"], tmp_path, FieldKind.IMAGE, larger).media}
    with pytest.raises(DataError, match=r"\[32, 32, 3\] each"):
        encoder.encode(table, other)


# A whole folder


SET = ["--set", f"model.image.size={S}", "--set", "model.audio.seconds=1", "--set", "model.video.size=16"]


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A data set whose items' pictures are everything that pictures can be, and sound and films beside."""
    files = {
        "good.jpg": encoded(noise(), "JPEG"),
        "same.jpg": encoded(noise(), "JPEG"),
        "wrong suffix.jpg": encoded(plain(GREEN)),
        "cmyk.jpg": encoded(plain((0, 255, 255, 0), "CMYK"), "JPEG"),
        "deep.png": encoded(Image.fromarray(np.full((9, 9), 0x8000, np.uint16))),
        "moving.gif": encoded(plain(RED), "GIF", save_all=True, append_images=[plain(BLUE)]),
        "empty.jpg": b"",
        "cut.jpg": encoded(noise(), "JPEG")[:2000],
        "text.jpg": b"not a picture at all",
        "bomb.png": png_header(50_000, 50_000),
        "tone.wav": sound(sine(440)).getvalue(),
        "clip.mp4": film([RED, BLUE] * 4).getvalue(),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
    }
    folder = tmp_path / "shop"
    (folder / "files").mkdir(parents=True)
    for name, content in files.items():
        (folder / "files" / name).write_bytes(content)
    (folder / "files" / "link.jpg").symlink_to(tmp_path)
    pictures = [*list(files)[:10], "link.jpg", "gone.jpg"]
    lines = ["id;picture;track;clip"]
    for number, name in enumerate(pictures):
        track = {0: "files/tone.wav", 1: "files/list.m3u8"}.get(number, "")
        clip = {0: "files/clip.mp4", 1: "files/tone.wav"}.get(number, "")
        lines.append(f"{number};files/{name};{track};{clip}")
    lines.append("12;../../etc/passwd;;")
    (folder / "items.csv").write_text("\n".join(lines))
    events = [f"{person};{(person + step) % 13};{step}" for person in range(20) for step in range(5)]
    (folder / "events.csv").write_text("\n".join(["who;what;at", *events]))
    (folder / "dataset.yaml").write_text(
        "name: hostile\n"
        "interactions: {table: events.csv, user: who, item: what, time: at, time_unit: order}\n"
        "items:\n  table: items.csv\n  id: id\n"
        "  fields: {picture: {kind: image}, track: {kind: audio}, clip: {kind: video}}\n"
    )
    return folder


def palate(*words) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "palate", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_of_hostile_files_is_prepared_with_a_correct_list(hostile):
    done = palate("prepare", hostile / "dataset.yaml", "--out", hostile / "out", *SET, "--json")
    assert done.returncode == 0, done.stderr
    found = sorted(
        (rule["rule"], rule["detail"]) for rule in json.loads(done.stdout)["rules"] if "files" in rule["rule"]
    )
    assert found == [
        ("files of 'clip'", "video of 1 items from 1 files, 1 of them distinct"),
        ("files of 'picture'", "image of 6 items from 6 files, 5 of them distinct"),
        ("files of 'track'", "audio of 1 items from 1 files, 1 of them distinct"),
        ("unreadable files of 'clip'", "1 no video in it: files/tone.wav"),
        ("unreadable files of 'picture'", "1 empty: files/empty.jpg"),
        ("unreadable files of 'picture'", "1 more than 64,000,000 pixels: files/bomb.png"),
        ("unreadable files of 'picture'", "1 no picture in a known format: files/text.jpg"),
        ("unreadable files of 'picture'", "1 not there: files/gone.jpg"),
        ("unreadable files of 'picture'", "1 outside the table's folder: files/link.jpg"),
        ("unreadable files of 'picture'", "1 truncated: files/cut.jpg"),
        ("unreadable files of 'track'", "1 no sound or film in a known format: files/list.m3u8"),
    ]
    prepared = load_prepared(hostile / "out")
    picture = prepared.media["picture"]
    assert isinstance(picture.values, np.memmap)
    assert len(picture.offsets) == prepared.items.size + 1
    shown = {
        key: picture.values[picture.row[picture.offsets[item]]]
        for item, key in zip(prepared.items.ids(["2", "3", "5"]), ("green", "cmyk", "gif"), strict=True)
    }
    assert (shown["green"] == GREEN).all()
    assert np.abs(shown["cmyk"].astype(int) - RED).max() < 9
    assert (shown["gif"] == RED).all()
    strict = palate("prepare", hostile / "dataset.yaml", "--out", hostile / "strict", *SET, "--strict")
    assert strict.returncode == 2
    assert "unreadable" in strict.stderr
    assert not (hostile / "strict").exists()


def small_settings(**model) -> Settings:
    return Settings.build({"model": {**SMALL.model_dump(exclude_unset=True), **model}})


def stored(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*")}


def test_prepared_media_are_used_again_until_a_file_changes(hostile):
    dataset, out = read_dataset(hostile), hostile / "out"
    told: list[tuple[str, int, int]] = []
    first = prepare(dataset, small_settings(), out, lambda *words: told.append(words))
    before = stored(out)
    assert told
    told.clear()
    again = prepare(read_dataset(hostile), small_settings(), out, lambda *words: told.append(words))
    assert (stored(out), told) == (before, [])
    np.testing.assert_array_equal(first.media["picture"].values, again.media["picture"].values)
    (hostile / "files" / "gone.jpg").write_bytes(encoded(plain(BLUE)))
    grown = prepare(read_dataset(hostile), small_settings(), out).media["picture"]
    assert len(grown.values) == len(first.media["picture"].values) + 1
    assert any((values == BLUE).all() for values in grown.values)


def test_a_new_preparation_decodes_no_known_content_again(hostile):
    """Rows of the old folder are recognised by their digest: what stands in them comes back."""
    dataset, out = read_dataset(hostile), hostile / "out"
    media = prepare(dataset, small_settings(), out).media["picture"]
    place = Workplace(hostile / "elsewhere", known=known_rows([media]))
    paths = dataset.items["picture"]
    assert read_media(paths, dataset.media_folder, FieldKind.IMAGE, SMALL, place=place).decoded == 0
    seeded = prepare(dataset, small_settings().model_copy(update={"seed": 5}), out).media["picture"]
    np.testing.assert_array_equal(seeded.digest, media.digest)
    np.testing.assert_array_equal(seeded.values, media.values)


def test_ids_alone_open_no_file(hostile):
    prepared = prepare(read_dataset(hostile), small_settings(content=False), hostile / "out")
    assert prepared.media == {}
    assert not (hostile / "out" / "media").exists()
    assert not any("files of" in rule["rule"] for rule in prepared.report["rules"])


def test_frames_say_where_their_files_are_or_their_media_are_left_out(hostile):
    events = pl.read_csv(hostile / "events.csv", separator=";")
    items = pl.read_csv(hostile / "items.csv", separator=";").with_columns(pl.col("picture").str.split("|"))
    words = {"user": "who", "item": "what", "items": items, "item_id": "id", "fields": {"picture": "image"}}
    bare = prepare(dataset_from_frames(events, **words), small_settings())
    assert bare.media == {}
    assert any("no media_folder" in rule["detail"] for rule in bare.report["rules"])
    whole = prepare(dataset_from_frames(events, **words, media_folder=hostile), small_settings())
    assert len(whole.media["picture"].values) == 5
    assert whole.catalogue["picture"].dtype == pl.List(pl.String)


def test_a_separator_cuts_a_text_into_several_paths(hostile):
    text = (hostile / "dataset.yaml").read_text()
    (hostile / "dataset.yaml").write_text(text.replace("{kind: image}", "{kind: image, separator: '|'}"))
    lines = (
        (hostile / "items.csv")
        .read_text()
        .replace("files/good.jpg", "files/good.jpg|files/deep.png|../x.jpg")
    )
    (hostile / "items.csv").write_text(lines)
    dataset = read_dataset(hostile)
    assert dataset.items["picture"][0].to_list() == ["files/good.jpg", "files/deep.png"]
    assert any(note.rule == "unreadable media paths" for note in dataset.notes)
    prepared = prepare(dataset, small_settings())
    item, media = int(prepared.items.ids(["0"])[0]), prepared.media["picture"]
    assert media.offsets[item + 1] - media.offsets[item] == 2


KILLED = """
import sys
import time
from pathlib import Path
from palate.data.source import read_dataset
from palate.data.store import prepare
from palate.settings import Settings

def told(*words):
    print(*words, flush=True)
    time.sleep(60)

prepare(read_dataset(sys.argv[1]), Settings(), Path(sys.argv[2]), told)
"""


def test_decoding_may_be_killed_at_any_time(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(1100):
        (tmp_path / "files" / f"{number}.png").write_bytes(
            encoded(plain((number % 256, number // 256, 1), size=(9, 9)))
        )
    (tmp_path / "items.csv").write_text(
        "\n".join(["id,picture", *(f"{number},files/{number}.png" for number in range(1100))])
    )
    (tmp_path / "events.csv").write_text("\n".join(["who,what", *(f"{n % 9},{n}" for n in range(300))]))
    (tmp_path / "dataset.yaml").write_text(
        "interactions: {table: events.csv, user: who, item: what}\n"
        "items: {table: items.csv, id: id, fields: {picture: {kind: image}}}\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path, out],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("picture ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    media = prepare(read_dataset(tmp_path), small_settings(), out).media["picture"]
    assert media.values[media.row][:, 0, 0, 2].tolist() == [1] * 1100
