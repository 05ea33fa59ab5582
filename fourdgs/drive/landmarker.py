"""MediaPipe Face Landmarker's results, as programs in Python and in browsers write them to JSON."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .names import HEAD, plain_name

_SHAPES = ("face_blendshapes", "faceBlendshapes")
_MATRICES = ("facial_transformation_matrixes", "facialTransformationMatrixes")
_TIMES = {"timestamp_ms": 1e-3, "timestampMs": 1e-3, "timestampInMilliseconds": 1e-3, "time_s": 1.0}


def is_landmarker(content: Any) -> bool:
    """Whether a JSON value is such results: a list of frames, or an object that has one as ``frames``."""
    frames = _frames(content)
    return any(_get(frame, _SHAPES)[0] for frame in frames if isinstance(frame, dict))


def read_landmarker(path: Path, content: Any) -> tuple[np.ndarray, list[str], np.ndarray, list[int]]:
    """Times [K] in seconds, A names, values [K, A] and the number of each frame.

    A frame is ``{"timestamp_ms": 40, "face_blendshapes": [[{"category_name": "jawOpen", "score": 0.3}, ...]],
    "facial_transformation_matrixes": [4x4]}``, or has the browser's spelling (``faceBlendshapes``: ``[{"categories":
    [{"categoryName", "score"}]}]``; ``facialTransformationMatrixes``: ``[{"data": [16 numbers, by columns]}]``). The
    first face counts; ``_neutral`` is no action; frames without a face are left out with a warning. The matrix moves
    the canonical face (y up, the face towards +z) before a camera that looks along -z, so that its rotation gives the
    head's angles as `HEAD` has them, where the camera is level and in front.

    Raises:
        InputError: naming the frame.
    """
    times, rows, places, blind, turned = [], [], [], 0, 0
    frames = _frames(content)
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise _fail(path, number, "", "is no object", "export it again")
        row = _weights(path, number, frame)
        key, time = _get(frame, tuple(_TIMES))
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise _fail(path, number, "timestamp_ms", "must be a number", "write the time of each frame, in ms")
        if not row:
            blind += 1
            continue
        angles = _angles(path, number, frame)
        turned += angles is not None
        times.append(time * _TIMES[key])
        rows.append(row | (angles or {}))
        places.append(number)
    if not rows:
        raise InputError("has no frame with a face", file=path, field="face_blendshapes", remedy="record it again")
    if blind:
        warnings.warn(f"{path}: {blind} of {len(frames)} frames saw no face; left out", stacklevel=5)
    if 0 < turned < len(rows):
        message = f"{len(rows) - turned} of {len(rows)} frames have no facial_transformation_matrixes"
        raise InputError(message, file=path, remedy="ask the landmarker for them in all frames, or leave them out")
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64)
    return np.array(times), names, values, places


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
    frames = content.get("frames") if isinstance(content, dict) else content
    return frames if isinstance(frames, list) else []


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
    if isinstance(face, dict):
        face = face.get("categories")
    weights: dict[str, float] = {}
    try:
        for category in face or []:
            name = next(category[k] for k in ("category_name", "categoryName") if k in category)
            score = category["score"]
            if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(name, str):
                raise TypeError
            if name != "_neutral":
                weights[plain_name(name)] = float(score)
    except (StopIteration, TypeError, KeyError, OverflowError) as error:
        message = "must be a list of faces, each a list of {category_name, score}"
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
