"""Made-up performances: a face that seems to talk, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data import track as performance
from ..errors import InputError
from .names import ARKIT, HEAD
from .track import MAX_ROWS, DriveTrack

_CLIP_S = 5.0
"""Seconds of the embedded avatar's clip: the pace that its brows, gaze and head are made for."""

_BLINK_S = 0.09
"""From the lid's start to its lowest point; people take 0.1 to 0.15 s."""


def speech_like(duration_s: float, seed: int = 0, fps: float = 30) -> DriveTrack:
    """A face that seems to talk: 3 to 6 syllables a second, pauses, blinks, and small motions of head, brows and eyes.

    No language: mouth shapes (those of the embedded avatar) follow each other by chance, in phrases of 1.2 to 3.5 s
    with pauses of 0.25 to 0.8 s in between, during which the mouth is shut; blinks come every 2 to 6 s. A longer
    track of one seed begins with the shorter one.

    Args:
        duration_s: at most a day. fps: values a second.

    Returns:
        All of `ARKIT` and `HEAD`, from 0 s to ``duration_s``, once differentiable where ``fps`` is high enough.

    Raises:
        InputError: a number that cannot be.
    """
    if not 0 < duration_s <= 86400:
        raise InputError(f"is {duration_s!r}, must be above 0, up to a day", field="duration_s")
    if not 0 < fps <= 1000 or duration_s * fps > MAX_ROWS:
        raise InputError(f"is {fps!r}, must be above 0, up to 1000", field="fps")
    times = np.arange(int(np.floor(duration_s * fps + 1e-6)) + 1) / fps
    controls = (*ARKIT, *HEAD)
    column = {name: index for index, name in enumerate(controls)}
    values = np.zeros((len(times), len(controls)))
    # A stretch of the avatar's performance behind its last viseme: only what moves slowly is left of it.
    slow = performance.ExpressionTrack(int(seed), syllables=1, blinks=0)
    for index, time in enumerate(times):
        for name, value in slow.at(2 + time / _CLIP_S).items():
            values[index, column[name]] = value
    for each in _syllables(seed, duration_s + 0.2):  # mouths open a little before a phrase begins
        amount = each.loud * humps(times, each.time_s, each.half_s)
        for name, weight in performance._VISEMES[each.which].items():
            values[:, column[name]] += weight * amount
    lids = blinks(times, seed)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        values[:, column[name]] = lids
    actions = values[:, : len(ARKIT)]
    np.copyto(actions, np.where(actions < 0.9, actions, 0.9 + 0.1 * np.tanh((actions - 0.9) / 0.1)))
    return DriveTrack(times, controls, values)


def blinks(times_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """[K] weights of lids that close for a moment every 2 to 6 s, the first time within 3 s."""
    rng, lids = np.random.default_rng([int(seed), 11]), np.zeros(len(times_s))
    middle = float(rng.uniform(0.5, 3.0))
    while middle < times_s[-1] + _BLINK_S:
        lids = np.maximum(lids, humps(times_s, middle, _BLINK_S))
        middle += float(rng.uniform(2.0, 6.0))
    return lids


def humps(times_s: np.ndarray, middle_s: float, half_s: float) -> np.ndarray:
    """[K] a bump of height 1 and width 2 ``half_s``, once differentiable."""
    away = np.abs(times_s - middle_s) / half_s
    return np.where(away < 1, np.cos(np.pi / 2 * away) ** 2, 0.0)


@dataclass(frozen=True)
class Syllable:
    """One mouth shape: which of the avatar's, its middle, half its width, how far it goes."""

    which: int
    time_s: float
    half_s: float
    loud: float


def _syllables(seed: int, until_s: float) -> list[Syllable]:
    """The syllables that begin before a time."""
    rng, shapes = np.random.default_rng([int(seed), 7]), len(performance._VISEMES)
    syllables: list[Syllable] = []
    start, last = float(rng.uniform(0.0, 0.3)), -1
    while start < until_s:
        length, rate = float(rng.uniform(1.2, 3.5)), float(rng.uniform(3.6, 5.2))
        count = max(2, int(length * rate))
        for index in range(count):
            which = int(rng.integers(0, shapes - 1))
            which += which >= last >= 0  # no shape twice in a row
            # Half a syllable's jitter in all keeps the gaps within 3 to 6 a second on the whole.
            middle = start + (index + 0.5 + float(rng.uniform(-0.15, 0.15))) / rate
            fade = 0.7 if index == count - 1 else 1.0
            syllables.append(Syllable(which, middle, 0.5 / rate * 1.25, fade * float(rng.uniform(0.75, 1.0))))
            last = which
        start += count / rate + float(rng.uniform(0.25, 0.8))
    return syllables
