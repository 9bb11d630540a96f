"""From a file of sound to its log-mel spectrogram: how loud each band is over time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from palate.data.streams import duration_of, frames, library, opened, reason_of, seconds_of, seek
from palate.schema import FloatArray
from palate.settings import AudioSettings

RANGE = 80.0
"""Decibels below the loudest spot of a track that are told apart, as librosa's ``power_to_db`` does."""
SILENCE = 1e-5
"""A track whose largest sample is below this (-100 dB of full scale) is silent."""

Spectrogram = npt.NDArray[np.float16]


def decode_audio(file: BinaryIO, settings: AudioSettings) -> Spectrogram | str:
    """The spectrogram of the middle of a track, or in a few words why there is none.

    A track that ends early is heard as far as it goes.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    library()
    try:
        samples = _middle(file, settings)
        return samples if isinstance(samples, str) else spectrogram(samples, settings)
    except Exception as error:  # no bytes may stop the others
        return reason_of(error)


def spectrogram(samples: FloatArray, settings: AudioSettings) -> Spectrogram:
    """float16 [bands, T] of mono samples, T = 1 + ⌊samples heard / hop⌋.

    Power in mel bands (triangles on the scale of ``mel``), in decibels below the loudest spot of the
    track, cut off at 80 and brought from -80 … 0 to -2 … 2; loudness as a whole is gone. Silence is -2
    throughout.
    """
    length, window, hop = _lengths(settings)
    heard = np.zeros(length + 2 * (window // 2), np.float32)  # windows are centred; outside is silence
    samples = np.nan_to_num(samples[:length].astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > SILENCE:
        heard[window // 2 : window // 2 + len(samples)] = samples / peak
    # Hann's window: half a wave of the cosine, periodic.
    shape = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    waves = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(heard, window)[::hop] * shape)
    power = mel_filters(settings.bands, window // 2 + 1, settings.sample_rate) @ (np.abs(waves) ** 2).T
    loudest = float(power.max())
    if loudest <= 0.0:
        return np.full(power.shape, -2.0, np.float16)
    decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE / 10)))
    result: Spectrogram = (4 * decibels / RANGE + 2).astype(np.float16)
    return result


def spectrogram_shape(settings: AudioSettings) -> tuple[int, int]:
    """Bands and T of every spectrogram with these settings."""
    length, _, hop = _lengths(settings)
    return settings.bands, 1 + length // hop


def _lengths(settings: AudioSettings) -> tuple[int, int, int]:
    """Samples heard, samples of a window, samples between windows."""
    per_ms = settings.sample_rate / 1000
    length = max(1, round(settings.seconds * settings.sample_rate))
    return length, max(2, round(settings.window_ms * per_ms)), max(1, round(settings.hop_ms * per_ms))


def mel(hertz: float) -> float:
    """Pitch of a frequency in mel: 2595 log10(1 + f / 700), as in Young et al., The HTK Book, 5.4."""
    return float(2595 * np.log10(1 + hertz / 700))


def hertz(mels: FloatArray) -> FloatArray:
    """The frequencies of these pitches: the inverse of ``mel``."""
    result: FloatArray = 700 * (10 ** (mels / 2595) - 1)
    return result


@lru_cache(maxsize=8)
def mel_filters(bands: int, bins: int, sample_rate: int) -> npt.NDArray[np.float32]:
    """float32 [bands, bins]: the weight of each frequency bin in each band.

    Triangles of height 1 whose corners are evenly spaced in mel from 0 to half the sample rate; each
    begins at the centre of the one before.
    """
    corners = hertz(np.linspace(0.0, mel(sample_rate / 2), bands + 2))
    frequency = np.linspace(0.0, sample_rate / 2, bins)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _middle(file: BinaryIO, settings: AudioSettings) -> FloatArray | str:
    """Mono samples of the middle of the track, at the rate of the settings, as many as there are."""
    duration = duration_of(file, "audio")
    if isinstance(duration, str):
        return duration
    begin = max(0.0, (duration - settings.seconds) / 2)
    samples = _samples(file, begin, settings)
    if not len(samples) and begin > 0:  # shorter than its header says
        samples = _samples(file, 0.0, settings)
    return samples if len(samples) else "no audio in it"


def _samples(file: BinaryIO, begin: float, settings: AudioSettings) -> FloatArray:
    wanted, rate = _lengths(settings)[0], settings.sample_rate
    with opened(file) as container:
        stream = container.streams.audio[0]
        if begin > 0:
            seek(container, stream, begin)
        resampler = library().AudioResampler(format="flt", layout="mono", rate=rate)
        pieces: list[Any] = []
        skip, count = None, 0
        for frame in frames(container, stream):
            if skip is None:
                reached = seconds_of(frame, stream)
                skip = 0 if reached is None else max(0, round((begin - reached) * rate))
            new = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            pieces += new
            count += sum(map(len, new))
            if count >= skip + wanted:
                break
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    flat = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return flat[skip or 0 :][:wanted]
