"""MediaPipe Face Landmarker's results, as programs in Python and in browsers write them to JSON."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .clocks import stamp_unit
from .names import HEAD, plain_name

_SHAPES = ("face_blendshapes", "faceBlendshapes", "blendshapes", "blendShapes")
_MATRICES = ("facial_transformation_matrixes", "facialTransformationMatrixes")
_TIMES = {
    "timestamp_ms": 1e-3, "timestampMs": 1e-3, "timestampInMilliseconds": 1e-3, "time_ms": 1e-3, "elapsedMs": 1e-3,
    "time_s": 1.0, "time": 1.0, "timestamp": None,
}  # fmt: skip
_INNER = ("results", "result", "faceLandmarkerResult", "face")
_NAMES = ("category_name", "categoryName", "name")


def is_landmarker(content: Any) -> bool:
    """Whether a JSON value is such results: a list of frames, an object that has one as ``frames``, or one result."""
    return any(_get(_result(frame), _SHAPES)[0] for frame in _frames(content) if isinstance(frame, dict))


def read_landmarker(
    path: Path, content: Any, fps: float | None = None
) -> tuple[np.ndarray, list[str], np.ndarray, list[int]]:
    """Times [K] in seconds, A names, values [K, A] and the number of each frame.

    A frame is ``{"timestamp_ms": 40, "face_blendshapes": [[{"category_name": "jawOpen", "score": 0.3}, ...]],
    "facial_transformation_matrixes": [4x4]}``, or has the browser's spelling (``faceBlendshapes``: ``[{"categories":
    [{"categoryName", "score"}]}]``; ``facialTransformationMatrixes``: ``[{"data": [16 numbers, by columns]}]``), the
    result as ``results`` or ``faceLandmarkerResult``, or plain weights (``"blendshapes": {"jawOpen": 0.3}``). A bare
    ``timestamp`` is of seconds, or of milliseconds if it goes by more than 1; frames without any time count at ``fps``.

    The first face counts; ``_neutral`` is no action; frames without a face are left out with a warning. The matrix
    moves the canonical face (y up, the face towards +z) before a camera that looks along -z, so that its rotation gives
    the head's angles as `HEAD` has them, where the camera is level and in front.

    Raises:
        InputError: naming the frame.
    """
    times, rows, places, turned = [], [], [], 0
    frames = _frames(content)
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise _fail(path, number, "", "is no object", "export it again")
    frames = [_result(frame) for frame in frames]
    seconds = _times(path, frames, fps if fps or not isinstance(content, dict) else content.get("fps"))
    for number, frame in enumerate(frames):
        row = _weights(path, number, frame)
        if not row:
            continue
        angles = _angles(path, number, frame)
        turned += angles is not None
        times.append(seconds[number])
        rows.append(row | (angles or {}))
        places.append(number)
    if not rows:
        raise InputError("has no frame with a face", file=path, field="face_blendshapes", remedy="record it again")
    if len(rows) < len(frames):
        blind = len(frames) - len(rows)
        warnings.warn(f"{path}: {blind} of {len(frames)} frames saw no face; left out", stacklevel=5)
    if 0 < turned < len(rows):
        message = f"{len(rows) - turned} of {len(rows)} frames have no facial_transformation_matrixes"
        raise InputError(message, file=path, remedy="ask the landmarker for them in all frames, or leave them out")
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64)
    return np.array(times), names, values, places


def _times(path: Path, frames: list[dict], fps: Any) -> np.ndarray:
    """Seconds of all frames, by the first clock that any of them has, or by their number."""
    clock = next((key for key in _TIMES if any(key in frame for frame in frames)), None)
    remedy = "write the time of each frame, in ms, or give fps"
    if clock is None and (fps is not None or len(frames) == 1):
        if isinstance(fps, bool) or not isinstance(fps, int | float | None) or not 0 < (fps or 1) <= 1000:
            raise InputError(f"is {fps!r}, must be a number above 0", file=path, field="fps", remedy="give fps")
        return np.arange(len(frames)) / (fps or 1)
    times = []
    for number, frame in enumerate(frames):
        time = frame.get(clock)
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise _fail(path, number, clock or "timestamp_ms", "must be a number", remedy)
        times.append(float(time))
    return np.array(times) * (_TIMES[clock] or stamp_unit(path, clock, np.array(times)))


def head_angles(matrix: np.ndarray) -> dict[str, float]:
    """Degrees of a [4, 4] pose, in the sense of the embedded avatar: R = about y (yaw) x about x (pitch) x about z.

    A scale is let be. Raises ValueError where the matrix holds no rotation.
    """
    axes = matrix[:3, :3]
    if not np.isfinite(axes).all() or np.linalg.det(axes) <= 1e-12:
        raise ValueError("holds no rotation")
    u, _, v = np.linalg.svd(axes)
    turn = u @ v
    pitch = np.arcsin(np.clip(-turn[1, 2], -1, 1))
    yaw, roll = np.arctan2(turn[0, 2], turn[2, 2]), np.arctan2(turn[1, 0], turn[1, 1])
    return dict(zip(HEAD, np.degrees([yaw, pitch, roll]).tolist(), strict=True))


def _frames(content: Any) -> list:
    frames = content.get("frames", content) if isinstance(content, dict) else content
    if frames is content and isinstance(content, dict):
        return [content]
    return frames if isinstance(frames, list) else []


def _result(frame: dict) -> dict:
    """A frame with what is in the result inside it, if that is an object of its own."""
    inner = _get(frame, _INNER)[1]
    return frame | inner if isinstance(inner, dict) else frame


def _get(frame: dict, keys: tuple[str, ...]) -> tuple[str, Any]:
    """The first of several spellings that is there, and its value."""
    return next(((key, frame[key]) for key in keys if key in frame), ("", None))


def _weights(path: Path, number: int, frame: dict) -> dict[str, float] | None:
    key, faces = _get(frame, _SHAPES)
    if not faces:
        return None
    face = faces[0] if isinstance(faces, list) else faces
    if isinstance(faces, list) and isinstance(face, dict) and "score" in face:
        face = faces  # the categories of the only face, without a list around them
    if isinstance(face, dict) and "categories" in face:
        face = face["categories"]
    if isinstance(face, dict):  # names and weights
        face = [{"name": name, "score": score} for name, score in face.items()]
    weights: dict[str, float] = {}
    try:
        for category in face or []:
            name = next(category[k] for k in _NAMES if k in category)
            score = category["score"]
            if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(name, str):
                raise TypeError
            if name != "_neutral":
                weights[plain_name(name)] = float(score)
    except (StopIteration, TypeError, KeyError, OverflowError) as error:
        message = "must be a list of faces, each a list of {category_name, score}, or names with numbers"
        raise _fail(path, number, key, message, "write the result as it is") from error
    return weights


def _angles(path: Path, number: int, frame: dict) -> dict[str, float] | None:
    key, matrices = _get(frame, _MATRICES)
    if not matrices:
        return None
    try:
        given = matrices[0] if isinstance(matrices, list) else matrices
        by_columns = isinstance(given, dict)
        array = np.array(given["data"] if by_columns else given, dtype=np.float64)
        array = array.reshape(4, 4)
        # Packed matrices are by columns, lists of rows are not; a face before a camera has a translation, which tells.
        by_columns = array[3, :3].any() or (by_columns and not array[:3, 3].any())
        return head_angles(array.T if by_columns else array)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise _fail(path, number, key, f"must be a 4x4 matrix: {error}", "write the result as it is") from error


def _fail(path: Path, number: int, key: str, message: str, remedy: str) -> InputError:
    return InputError(message, file=path, field=f"frame {number}: {key}" if key else f"frame {number}", remedy=remedy)
