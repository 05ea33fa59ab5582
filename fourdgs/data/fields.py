"""One frame of a `transforms*.json`: every field read, checked, and named where it is wrong."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..cameras import pose_fault
from ..capture import DEFAULT_SOURCE
from ..errors import InputError
from ..pictures import picture_header

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
"""Camera models that are a pinhole where their distortion terms are zero."""


@dataclass
class FrameRow:
    """A frame as read: what becomes a row of the table, and its camera."""

    name: str
    camera: str | None
    time: float
    source: str
    split: str
    image: Path
    mask: str
    size: tuple[int, int]
    intrinsics: tuple[float, float, float, float]
    pose: np.ndarray = field(repr=False)


class Fields:
    """A frame's values, with the file's as fallback, each checked for its type when it is asked for."""

    def __init__(self, file: Path, position: int, frame: dict, head: dict):
        self.file, self.frame, self.head = file, frame, head
        path = frame.get("file_path")
        self.label = f"frame {position}" + (f" ({path})" if isinstance(path, str) else "")

    def fail(self, key: str, message: str, remedy: str = "") -> InputError:
        return InputError(message, file=self.file, field=f"{self.label}: {key}", remedy=remedy)

    def get(self, key: str) -> Any:
        value = self.frame.get(key)
        return self.head.get(key) if value is None else value

    def number(self, key: str) -> float | None:
        return self.check_number(key, self.get(key))

    def check_number(self, key: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"is {value!r}, must be a number", "write it without quotes, as a JSON number")
        if not _finite(value):
            raise self.fail(key, f"is {value}, must be finite", "give its value, or leave the frame out")
        return float(value)

    def text(self, key: str, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"is {value!r}, must be a string of some length", "write it in quotes")
        return value

    def pixels(self, key: str) -> int | None:
        value = self.number(key)
        if value is not None and (value < 1 or value != int(value)):
            raise self.fail(key, f"is {value:g}, must be a whole number of pixels", "give the picture's size")
        return None if value is None else int(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON allows whole numbers beyond a float's range
        return False


def plain_path(file_path: str) -> str:
    return str(PurePosixPath(file_path.replace("\\", "/")))


def read_frame(fields: Fields, root: Path, split: str) -> FrameRow:
    given = fields.text("file_path", fields.frame.get("file_path"))
    if given is None:
        raise fields.fail("file_path", "is missing", "name the frame's picture, relative to the capture's folder")
    image = _inside(fields, "file_path", given, root)
    mask_given = fields.text("mask_path", fields.frame.get("mask_path"))
    mask = None if mask_given is None else _inside(fields, "mask_path", mask_given, root)
    pose = _pose(fields)
    _refuse_distortion(fields)
    size = _size(fields, image, mask)
    frame_id = fields.frame.get("frame_id")
    stem = plain_path(given)
    stem = stem[: -len(image.suffix)] if stem.endswith(image.suffix) else stem
    return FrameRow(
        name=frame_id if isinstance(frame_id, str) and frame_id else stem,
        camera=_camera(fields),
        time=_time(fields),
        source=fields.text("source", fields.get("source")) or DEFAULT_SOURCE,
        split=split,
        image=image,
        mask="" if mask is None else str(mask),
        size=size,
        intrinsics=_intrinsics(fields, size),
        pose=pose,
    )


def _inside(fields: Fields, key: str, given: str, root: Path) -> Path:
    """The file that a frame means; it must be there and lie in the capture's folder, links resolved."""
    relative = given.replace("\\", "/")
    remedy = "move the picture into the capture's folder and name it relative to that"
    try:
        base = root / relative
        if PurePosixPath(relative).is_absolute() or not base.resolve().is_relative_to(root):
            raise fields.fail(key, f"{given!r} leaves the capture's folder {root}", remedy)
        names = [base] if base.suffix.lower() in EXTENSIONS else [base.parent / (base.name + e) for e in EXTENSIONS]
        found = next((name for name in [*names, base] if name.is_file()), None)
        if found is None:
            tried = ", ".join(name.name for name in names)
            raise fields.fail(key, f"no file {base} (tried {tried})", "restore the picture, or remove the frame")
        if not found.resolve().is_relative_to(root):
            raise fields.fail(key, f"{given!r} is a link that leaves the capture's folder {root}", remedy)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte, a name that is too long
        if isinstance(error, InputError):
            raise
        raise fields.fail(key, f"{given!r} is not a usable path: {error}", remedy) from error
    return found


def _pose(fields: Fields) -> np.ndarray:
    key, value = "transform_matrix", fields.frame.get("transform_matrix")
    remedy = "give a 4x4 camera-to-world matrix, rows first"
    if value is None:
        raise fields.fail(key, "is missing", remedy)
    if not isinstance(value, list) or not all(isinstance(line, list) and len(line) == 4 for line in value):
        raise fields.fail(key, "is not a list of rows of four numbers", remedy)
    if len(value) not in (3, 4):
        raise fields.fail(key, f"has {len(value)} rows, must have 4", remedy)
    for number in (number for line in value for number in line):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise fields.fail(key, f"holds {number!r}, must hold numbers only", remedy)
        if not _finite(number):
            raise fields.fail(key, f"holds {number}, must be finite", "solve the camera again, or remove the frame")
    rows = value if len(value) == 4 else [*value, [0, 0, 0, 1]]
    pose = np.array(rows, dtype=np.float64)
    fault = pose_fault(pose)
    if fault:
        raise fields.fail(key, fault, "solve the camera again or remove the frame; a scale belongs into the scene")
    return pose


def _refuse_distortion(fields: Fields) -> None:
    for key in DISTORTION:
        value = fields.number(key)
        if value:
            raise fields.fail(
                key,
                f"is {value:g}: the picture is distorted, and only pinhole pictures are read",
                "undistort the pictures first, e.g. with COLMAP's image_undistorter, and drop k1-k4, p1, p2",
            )
    model = fields.text("camera_model", fields.get("camera_model"))
    if (model is not None and model not in PINHOLES) or fields.get("is_fisheye") is True:
        remedy = "undistort the pictures to a pinhole camera first"
        raise fields.fail("camera_model", f"is {model or 'fisheye'}, only pinhole pictures are read", remedy)


def _size(fields: Fields, image: Path, mask: Path | None) -> tuple[int, int]:
    """The picture's (width, height), from its header; what the file says must agree."""
    with _naming(fields):
        size = picture_header(image, "file_path")
        mask_size = size if mask is None else picture_header(mask, "mask_path")
    for key, actual in zip(("w", "h"), size, strict=True):
        said = fields.pixels(key)
        if said is not None and said != actual:
            raise fields.fail(
                key,
                f"is {said}, but the picture {image} is {size[0]}x{size[1]}",
                "correct w and h (and with them the intrinsics), or restore the picture",
            )
    if mask_size != size:
        message = f"the mask is {mask_size[0]}x{mask_size[1]}, its picture {size[0]}x{size[1]}"
        raise fields.fail("mask_path", message, "give the mask the picture's size")
    return size


@contextlib.contextmanager
def _naming(fields: Fields) -> Iterator[None]:
    """Put the transforms file and the frame into an error about a picture."""
    try:
        yield
    except InputError as error:
        message = str(error).removesuffix(f" ({error.remedy})").replace(f": {error.field}: ", ": ")
        raise fields.fail(error.field or "file_path", message, error.remedy) from error


def _intrinsics(fields: Fields, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels."""
    focals = []
    for axis, length in (("x", size[0]), ("y", size[1])):
        focal, angle = fields.number(f"fl_{axis}"), fields.number(f"camera_angle_{axis}")
        if focal is None and angle is not None:
            if not 0 < angle < math.pi:
                remedy = "give the whole field of view in radians"
                raise fields.fail(f"camera_angle_{axis}", f"is {angle:g}, must be between 0 and pi", remedy)
            focal = length / 2 / math.tan(angle / 2)
        if focal is not None and focal <= 0:
            raise fields.fail(f"fl_{axis}", f"is {focal:g}, must be positive", "give the focal length in pixels")
        focals.append(focal)
    fx, fy = focals
    if fx is None and fy is None:
        raise fields.fail("fl_x", "is missing", "give fl_x in pixels, or camera_angle_x in radians")
    cx, cy = fields.number("cx"), fields.number("cy")
    # One focal length alone means square pixels.
    return fx or fy, fy or fx, size[0] / 2 if cx is None else cx, size[1] / 2 if cy is None else cy


def _time(fields: Fields) -> float:
    value = fields.check_number("time", fields.frame.get("time"))
    if value is None:
        return float("nan")
    if not 0 <= value <= 1:
        remedy = "normalise: subtract the first time and divide by the last"
        raise fields.fail("time", f"is {value:g}, must be in [0, 1]", remedy)
    return value


def _camera(fields: Fields) -> str | None:
    value = fields.frame.get("camera")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return fields.text("camera", value)
