"""Tracks in JSON: our own, MediaPipe's results, and what else gives names and a table of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.fields import read_json
from ..errors import InputError
from .landmarker import is_landmarker, read_landmarker

_A2F_NAMES = ("facsNames", "faceNames")


class Rows(NamedTuple):
    """What a file says, unchecked: times [K] in seconds, A names, values [K, A], and where each row stands in it."""

    times: np.ndarray
    names: list[str]
    values: np.ndarray
    places: list[int]
    word: str = "line"


def read_rows(path: Path, most: int, fps: float | None = None) -> Rows:
    """The rows of a JSON file of at most ``most`` bytes, of any of the kinds that `readers.load_track` tells.

    Raises:
        InputError: it is none of these, or is not made as its kind is.
    """
    if not path.stat().st_size:
        raise InputError("is empty", file=path, remedy="export it again")
    content = read_json(path, most)
    if is_landmarker(content):
        return Rows(*read_landmarker(path, content, fps), "frame")
    if isinstance(content, dict):
        inner = content.get("blendshape")
        for given in (content, inner if isinstance(inner, dict) else {}):
            key = next((name for name in _A2F_NAMES if name in given), None)
            if key is not None and "weightMat" in given:
                return _audio2face(path, given, key, fps)
        if "names" in content and isinstance(content.get("frames"), list):
            return _framed(path, content)
        if "controls" in content:
            return _own(path, content)
    message = (
        "is no track: neither MediaPipe's frames (face_blendshapes), nor Audio2Face's facsNames and weightMat, nor "
        "controls, times_s and values"
    )
    raise InputError(message, file=path, remedy="export it again, or write a .csv with time_s, jawOpen, ...")


def _own(path: Path, content: dict) -> Rows:
    names = _names(path, content, "controls")
    times = _numbers(path, "times_s", content.get("times_s"), len(names))
    return _rows(path, times, names, _numbers(path, "values", content.get("values"), len(names)), "value")


def _audio2face(path: Path, content: dict, key: str, fps: float | None) -> Rows:
    """``{"exportFps": 30, "facsNames": [A names], "weightMat": [K rows of A weights]}``, as NVIDIA's tools have it."""
    names = _names(path, content, key)
    values = _numbers(path, "weightMat", content["weightMat"], len(names))
    rate = next((rate for rate in (fps, content.get("exportFps"), content.get("fps")) if rate is not None), None)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1000:
        raise InputError(f"is {rate!r}, must be a number above 0", file=path, field="exportFps", remedy="give fps")
    return _rows(path, np.arange(len(values)) / rate, names, values, "row")


def _framed(path: Path, content: dict) -> Rows:
    """``{"names": [A names], "frames": [{"time": seconds, "weights": [A]}, ...]}``, as the BEAT data set has it."""
    names, frames = _names(path, content, "names"), content["frames"]
    if not all(isinstance(frame, dict) and "time" in frame and "weights" in frame for frame in frames):
        raise InputError("must be objects with time and weights", file=path, field="frames", remedy="export it again")
    times = _numbers(path, "frames.time", [frame["time"] for frame in frames], len(names))
    values = _numbers(path, "frames.weights", [frame["weights"] for frame in frames], len(names))
    return _rows(path, times, names, values, "frame")


def _rows(path: Path, times: np.ndarray, names: list[str], values: np.ndarray, word: str) -> Rows:
    if times.ndim != 1 or values.shape != (len(times), len(names)):
        message = f"has the shape {list(values.shape)} for {times.size} times and {len(names)} controls"
        raise InputError(message, file=path, field="values", remedy="give a row for each time, a column for each")
    return Rows(times, names, values, list(range(1, len(times) + 1)), word)


def _names(path: Path, content: dict, key: str) -> list[str]:
    names = content[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise InputError("must be a list of names", file=path, field=key)
    return names


def _numbers(path: Path, key: str, given: Any, width: int) -> np.ndarray:
    try:
        if not isinstance(given, list):
            raise ValueError("missing, or no list")
        return np.array(given, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        message = f"must be numbers, a row of {width} for each time: {error}"
        raise InputError(message, file=path, field=key, remedy="write the track again") from error
