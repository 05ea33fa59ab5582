"""The seconds of rows: timecodes, stamps that do not say their unit, and frames that are only counted."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..errors import InputError

_RATES = (24, 25, 30, 48, 50, 60, 100, 120, 240)


def timecode_seconds(path: Path, codes: list[tuple[str, int]], fps: float | None) -> np.ndarray:
    """[K] of timecodes HH:MM:SS:FF.sss with their lines, which may pass midnight; the frames count at ``fps``."""
    parts = np.empty((len(codes), 4))
    for index, (code, line) in enumerate(codes):
        try:
            numbers = [float(part) for part in code.replace(";", ":").split(":")]
            if len(numbers) != 4 or not all(0 <= number < 1000 for number in numbers):
                raise ValueError(code)
        except ValueError as error:
            message = f"is {code[:40]!r}, must be HH:MM:SS:FF or HH:MM:SS:FF.sss"
            raise InputError(message, file=path, field=f"line {line}: Timecode", remedy="export it again") from error
        parts[index] = numbers
    whole = parts[:, :3] @ np.array([3600.0, 60.0, 1.0])
    last = np.floor(parts[:, 3].max())
    if fps is None:
        turns = (np.diff(whole) != 0).any()
        fps = next((rate for rate in _RATES if rate > last and (turns or rate >= 60)), None)
        if fps is None:
            raise InputError(f"counts frames up to {last:g}", file=path, field="Timecode", remedy="give fps")
        if not turns:
            message = f"is within one second, so its frames are taken to count at {fps} a second; fps says otherwise"
            warnings.warn(f"{path}: {message}", stacklevel=5)
    elif last >= fps:
        message = f"counts frames up to {last:g}, but fps is {fps:g}"
        raise InputError(message, file=path, field="fps", remedy="leave fps out, or give the recording's")
    times = whole + parts[:, 3] / fps
    return times + 86400.0 * np.cumsum(np.concatenate([[0], np.diff(times) < -43200]))


def stamp_unit(path: Path, name: str, times: np.ndarray) -> float:
    """Seconds in a unit of stamps that do not say theirs: that in which a frame takes no more than a second.

    A warning tells of any that are not seconds.
    """
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    unit, word = (1.0, "seconds") if not step > 1 else (1e-3, "milliseconds") if step < 1000 else (1e-6, "microseconds")
    if unit < 1:
        message = f"{name} goes by {step:g} and is taken as {word}; call it timestamp_ms or time_s to say so"
        warnings.warn(f"{path}: {message}", stacklevel=6)
    return unit
