"""A mouth that moves with a sound: loudness and its spread over the spectrum, no phonemes."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .speech import blinks
from .track import DriveTrack

RATE = 16_000
"""Samples a second of what is analysed: speech has little above 8 kHz."""

CONTROLS = (
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthStretchLeft",
    "mouthStretchRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
)

_WINDOW = 640  # samples of one spectrum, 40 ms
_BANDS = ((80, 500), (500, 1200), (1200, 3500), (3500, 7500))
"""Hz. First formants of close vowels and the voice itself; open vowels; front vowels' second formants; hiss."""

_RANGE_DB = 30.0
"""From the loudness that opens the mouth fully down to the one that leaves it shut."""

_QUIET_DBFS = -50.0
"""The reference is not taken from anything softer, so that a recording of silence is not made to speak."""

_LIPS_S, _JAW_S = 0.02, 0.06  # half widths (sigma) of the smoothing in time: lips are quick, the jaw is slow
_LONGEST_S = 6 * 3600.0


def from_audio(
    sound: str | Path | Any,
    sample_rate: float | None = None,
    *,
    fps: float = 30,
    seed: int | None = 0,
    level_db: float | None = None,
) -> DriveTrack:
    """A mouth that opens and shuts with a sound.

    What it is: at each time, the loudness between 80 and 7500 Hz opens the jaw, and how the energy is spread shapes
    the lips: much below 500 Hz rounds them (funnel, pucker), much from 1.2 to 3.5 kHz stretches them. It hears no
    phonemes and knows no language: lips meet for m, b and p only as far as these are softer than what is around them;
    music and noise move the mouth as well. It looks right at a distance, not to a lip reader. The numbers in
    it are chosen, not fitted to anyone's speech.

    ``mouthClose`` is ARKit's: lips shut by so much of an open jaw, so that the mouth stands open by jawOpen -
    mouthClose. Silence shuts it at once; the jaw follows within some 0.1 s.

    Args:
        sound: a WAV file, any other that PyAV reads, or samples [n] or [n, channels]: floats in [-1, 1] or integers.
        sample_rate: of samples, in hertz.
        fps: values a second of the track, which is as long as the sound, to the next value.
        seed: of blinks (`speech.blinks`); None: none.
        level_db: loudness that opens the mouth fully, in dB below full scale; None: the loudest tenth of this sound.

    Raises:
        InputError: the file or the samples are no sound. MissingDependency: PyAV is needed and not installed.
    """
    if isinstance(sound, str | Path):
        samples, sample_rate = read_sound(sound)
    else:
        samples = _mono(sound, "sound")
        if sample_rate is None:
            raise InputError("is missing", field="sample_rate", remedy="give the samples a second, e.g. 48000")
    if not 1000 <= float(sample_rate) <= 1e6:
        raise InputError(f"is {sample_rate!r}, must be from 1000 to 1000000", field="sample_rate")
    if not 0 < fps <= 1000:
        raise InputError(f"is {fps!r}, must be a number above 0, up to 1000", field="fps")
    if len(samples) / sample_rate > _LONGEST_S:
        raise InputError(f"is {len(samples) / sample_rate:.0f} s long, at most 6 hours are read", field="sound")
    duration_s = len(samples) / float(sample_rate)
    times = np.arange(int(np.ceil(duration_s * fps - 1e-6)) + 1) / fps
    energy = _band_energies(_resampled(samples, sample_rate), times)  # [K, 4], mean squares
    loud = _loudness(energy, level_db)
    share = energy / np.maximum(energy.sum(axis=1, keepdims=True), 1e-12)
    # Two formants far down: "oo"; the second far up: "ee"; energy in the middle: "ah". A hiss leaves the jaw up.
    rounded = np.clip((share[:, 0] - 0.6) / 0.4, 0, 1)
    spread = np.clip(share[:, 2] / 0.5, 0, 1)
    gape = loud * (1 - 0.6 * rounded) * (1 - 0.35 * spread) * (1 - 0.8 * share[:, 3])
    lips = _smoothed(gape, _LIPS_S * fps)
    # The jaw never lags behind what the lips need: they can shut an open jaw, but not open a shut one.
    jaw = np.maximum(_smoothed(gape, _JAW_S * fps), lips)
    values = np.zeros((len(times), len(CONTROLS)))
    values[:, 0], values[:, 1] = 0.9 * jaw, 0.9 * (jaw - lips)
    values[:, 2] = _smoothed(0.7 * loud * rounded, _LIPS_S * fps)
    values[:, 3] = _smoothed(0.8 * loud * rounded**2, _LIPS_S * fps)
    values[:, 4:6] = _smoothed(0.6 * loud * spread, _LIPS_S * fps)[:, None]
    if seed is not None:
        values[:, 6:8] = blinks(times, seed)[:, None]
    return DriveTrack(times, CONTROLS, np.clip(values, 0, 1))


def read_sound(path: str | Path) -> tuple[np.ndarray, float]:
    """A sound file's samples, [n] float32 in [-1, 1], all channels' mean, and its samples a second.

    Raises:
        InputError: it has no sound that can be read. MissingDependency: it is no WAV and PyAV is not installed.
    """
    path = Path(path)
    remedy = "give a WAV, MP3, M4A or MP4 file with sound"
    if not path.is_file():
        raise InputError("is missing", file=path, field="sound", remedy=remedy)
    if path.suffix.lower() != ".wav":
        return _through_av(path, remedy)
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks of other programs, and a length that a recorder never filled in
            rate, samples = wavfile.read(path)
    except Exception as error:  # the reader lets out whatever a broken header leads to
        raise InputError(f"cannot be read: {error}", file=path, field="sound", remedy=remedy) from error
    return _mono(samples, "sound", path), float(rate)


def _through_av(path: Path, remedy: str) -> tuple[np.ndarray, float]:
    from ..data.video_encode import sound_samples

    samples, rate = sound_samples(path)
    if not samples.size:
        raise InputError("has no sound that can be read", file=path, field="sound", remedy=remedy)
    return _mono(samples.T, "sound", path), float(rate)


def _mono(sound: Any, field: str, path: Path | None = None) -> np.ndarray:
    """[n] float32 in [-1, 1], the mean of all channels."""
    samples = np.asarray(sound)
    if samples.dtype == np.uint8:  # WAV's only unsigned type, around 128
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"has the type {samples.dtype}, must be numbers", file=path, field=field)
    if samples.ndim == 2 and samples.shape[1]:
        samples = samples.mean(axis=1)
    if samples.ndim != 1 or not len(samples):
        message = f"has the shape {list(np.shape(sound))}, must be [n] or [n, channels]"
        raise InputError(message, file=path, field=field, remedy="give at least one sample")
    if not np.isfinite(samples).all():
        raise InputError("holds a NaN or an infinity", file=path, field=field, remedy="export it again")
    return samples.astype(np.float32, copy=False)


def _resampled(samples: np.ndarray, rate: float) -> np.ndarray:
    from scipy import signal  # slow to import

    ratio = Fraction(RATE / float(rate)).limit_denominator(1000)
    return samples if ratio == 1 else signal.resample_poly(samples, ratio.numerator, ratio.denominator)


def _band_energies(samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[K, bands] mean squares of the sound at each time, under a Hann window of 40 ms around it."""
    window = np.hanning(_WINDOW + 1)[:-1]
    hertz = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    masks = np.stack([(hertz >= low) & (hertz < high) for low, high in _BANDS], axis=1).astype(np.float64)
    padded = np.concatenate([np.zeros(_WINDOW // 2), samples, np.zeros(_WINDOW)]).astype(np.float32)
    starts = np.minimum(np.round(times * RATE).astype(np.int64), len(padded) - _WINDOW)
    energies = np.empty((len(times), len(_BANDS)))
    for first in range(0, len(times), 4096):
        part = starts[first : first + 4096, None] + np.arange(_WINDOW)
        spectrum = np.abs(np.fft.rfft(padded[part] * window, axis=1)) ** 2
        # Parseval: one side of the spectrum counts twice, and a Hann window keeps 3/8 of the energy.
        energies[first : first + 4096] = spectrum @ masks * 2 / (_WINDOW * _WINDOW * 3 / 8)
    return energies


def _loudness(energy: np.ndarray, level_db: float | None) -> np.ndarray:
    """[K] in [0, 1], linear in decibels below the reference."""
    level = 10 * np.log10(np.maximum(energy.sum(axis=1), 1e-12))  # dB, 0 = a square wave at full scale
    if level_db is None:
        heard = level[level > level.max() - _RANGE_DB]
        level_db = float(np.percentile(heard, 90))
    reference = max(float(level_db), _QUIET_DBFS)
    return np.clip((level - reference) / _RANGE_DB + 1, 0, 1)


def _smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter1d(values, sigma, mode="nearest", truncate=3) if sigma > 0.1 else values
