"""Values of files that people wrote, each checked when it is asked for and named where it is wrong."""

from __future__ import annotations

import contextlib
import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..cameras import pose_fault
from ..errors import InputError
from ..lens import Lens
from ..pictures import picture_header

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 2**26
"""Of one picture (8192 x 8192): beyond what cameras make, within what a header of a few bytes may promise."""

MAX_TEXT_BYTES = 2**26
"""Of one file of cameras: some 60,000 frames of a kilobyte. A larger one is no such file, and would take minutes."""

FOCAL_RANGE = (0.01, 1e5)
"""Of a focal length in units of the picture's longer side: fields of view from 177 degrees to 2 seconds of arc."""

FARTHEST = 1e9
"""Of a camera from the origin, each way. Poses are float32, which has seven digits."""

_LONGEST = 1000  # characters of a message that anyone reads

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class MissingFile(InputError):
    """A picture or a mask that a frame names is not there."""


class Fields:
    """The values of a frame (a view, a camera), with its file's as fallback.

    Args:
        file: what errors name. label: the frame, in words. frame, head: its values and those for all frames.
    """

    def __init__(self, file: Path, label: str, frame: dict, head: dict):
        self.file, self.label, self.frame, self.head = file, label, frame, head

    def fail(self, key: str, message: str, remedy: str = "", kind: type[InputError] = InputError) -> InputError:
        """The error to raise about a value."""
        if len(message) > _LONGEST:  # a path may have a hundred thousand characters
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        return kind(message, file=self.file, field=f"{self.label}: {key}", remedy=remedy)

    def get(self, key: str) -> Any:
        """The frame's value, or else the file's; None where neither has one."""
        value = self.frame.get(key)
        return self.head.get(key) if value is None else value

    def first(self, keys: tuple[str, ...]) -> str | None:
        """The first of several names of one thing that has a value."""
        return next((key for key in keys if self.get(key) is not None), None)

    def number(self, key: str) -> float | None:
        """A finite number. Raises InputError for anything else, as all of these do."""
        return self.check_number(key, self.get(key))

    def check_number(self, key: str, value: Any) -> float | None:
        """``value`` as a finite number."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"is {short(value)}, must be a number", "write it without quotes, as a JSON number")
        if not finite(value):
            raise self.fail(key, f"is {short(value)}, must be finite", "give its value, or leave the frame out")
        return float(value)

    def numbers(self, key: str, value: Any, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
        """``value``, lists of numbers, as a float64 array of one of ``shapes`` (-1: any length)."""
        words = " or ".join("x".join("n" if side < 0 else str(side) for side in shape) for shape in shapes)
        try:
            flat = _flatten(value)
            for number in flat:
                self.check_number(key, number)
            array = np.array(value, dtype=np.float64)
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise self.fail(key, f"is {short(value)}, must be {words} numbers", "write it row by row") from error
        fits = (
            len(array.shape) == len(s) and all(b < 0 or a == b for a, b in zip(array.shape, s, strict=True))
            for s in shapes
        )
        if not any(fits):
            raise self.fail(key, f"has the shape {list(array.shape)}, must be {words}", "write it row by row")
        return array

    def text(self, key: str, value: Any) -> str | None:
        """``value`` as a string of some length."""
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"is {short(value)}, must be a string of some length", "write it in quotes")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.fail(key, f"is {short(value)}, which is no text: {error}", "write it in UTF-8") from error
        return value

    def name(self, key: str, value: Any) -> str | None:
        """``value`` as a name: a string, or a whole number."""
        if isinstance(value, int) and not isinstance(value, bool):
            return short(value)
        return self.text(key, value)

    def pixels(self, key: str) -> int | None:
        """A whole number of pixels, at least 1."""
        value = self.number(key)
        if value is not None and (value < 1 or value != int(value)):
            raise self.fail(key, f"is {value:g}, must be a whole number of pixels", "give the picture's size")
        return None if value is None else int(value)

    @contextlib.contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """Put the file and the frame into an error about a picture or a lens."""
        try:
            yield
        except InputError as error:
            message = str(error).removesuffix(f" ({error.remedy})")
            if error.field is not None:
                prefix = f"{error.field}: "
                message = message.removeprefix(prefix) if error.file is None else message.replace(f": {prefix}", ": ")
            raise self.fail(error.field or key, message, error.remedy) from error


def finite(value: float) -> bool:
    """Whether a number of JSON is a finite float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON allows whole numbers beyond a float's range
        return False


def short(value: Any) -> str:
    """A value in at most some 80 characters, however deep or long it is."""
    return _SHORT.repr(value)


def _flatten(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return [number for item in value for number in (_flatten(item) if isinstance(item, list) else [item])]


def plain_path(file_path: str) -> str:
    """A path as files write it, without ``./`` and backslashes."""
    return str(PurePosixPath(file_path.replace("\\", "/")))


def read_text(file: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """A text file. Raises InputError: it cannot be read, is no UTF-8, or has more than ``limit`` bytes."""
    try:
        if file.stat().st_size > limit:
            message = f"has {file.stat().st_size:,} bytes, at most {limit:,} are read"
            raise InputError(message, file=file, remedy="split it into several")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=file, remedy="save it as UTF-8 text") from error


def read_json(file: Path, limit: int = MAX_TEXT_BYTES) -> Any:
    """The value in a JSON file of at most ``limit`` bytes. Raises InputError where there is none."""
    try:
        return json.loads(read_text(file, limit))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits
        raise InputError(f"is not valid JSON: {error}", file=file, remedy="mend that line, or export again") from error


def inside(fields: Fields, key: str, given: str, root: Path, kind: str = "picture") -> Path:
    """The file that a value names; it must be there and lie in the capture's folder, links resolved.

    Args:
        kind: "picture" (whose name may lack its extension), "folder", or any other file in a word.

    Raises:
        MissingFile: it is not there. InputError: it leads out of ``root``, or cannot be a path.
    """
    relative = given.replace("\\", "/")
    remedy = f"move the {kind} into the capture's folder and name it relative to that"
    try:
        base = root / relative
        if PurePosixPath(relative).is_absolute() or not base.resolve().is_relative_to(root):
            raise fields.fail(key, f"{short(given)} leaves the capture's folder {root}", remedy)
        if kind != "picture":
            there = base.is_dir() if kind == "folder" else base.is_file()
            found, names = base if there else None, [base]
        else:
            named = base.suffix.lower() in EXTENSIONS
            names = [base] if named else [base.parent / (base.name + e) for e in EXTENSIONS]
            capital = [] if named else [base.parent / (base.name + e.upper()) for e in EXTENSIONS]
            found = next((name for name in [*names, *capital, base] if name.is_file()), None)
        if found is None:
            tried = ", ".join(name.name for name in names)
            message = f"no {'folder' if kind == 'folder' else 'file'} {base} (tried {tried})"
            raise fields.fail(key, message, f"restore the {kind}, or remove the frame", MissingFile)
        if not found.resolve().is_relative_to(root):
            raise fields.fail(key, f"{short(given)} is a link that leaves the capture's folder {root}", remedy)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte, a name that is too long
        if isinstance(error, InputError):
            raise
        raise fields.fail(key, f"{short(given)} is not a usable path: {error}", remedy) from error
    return found


def picture_size(fields: Fields, key: str, image: Path) -> tuple[int, int]:
    """A picture's (width, height), from its header. Raises InputError: it is broken, or absurdly large."""
    with fields.naming(key):
        size = picture_header(image, key)
    if size[0] * size[1] > MAX_PIXELS:
        message = f"the picture {image} says it is {size[0]}x{size[1]}, at most {MAX_PIXELS:,} pixels are read"
        raise fields.fail(key, message, "scale it down")
    return size


def check_size(fields: Fields, keys: tuple[str, str], size: tuple[int, int], image: Path) -> None:
    """Raise InputError where the file says another size than the picture's."""
    for key, actual in zip(keys, size, strict=True):
        said = fields.pixels(key)
        if said is not None and said != actual:
            raise fields.fail(
                key,
                f"is {said}, but the picture {image} is {size[0]}x{size[1]}",
                "correct w and h (and with them the intrinsics), or restore the picture",
            )


def check_mask(fields: Fields, key: str, mask: Path, size: tuple[int, int]) -> None:
    """Raise InputError where a mask has not its picture's size."""
    mask_size = picture_size(fields, key, mask)
    if mask_size != size:
        message = f"the mask is {mask_size[0]}x{mask_size[1]}, its picture {size[0]}x{size[1]}"
        raise fields.fail(key, message, "give the mask the picture's size")


def check_pose(fields: Fields, key: str, pose: np.ndarray) -> None:
    """Raise InputError where a [4, 4] pose is no rigid motion, or out of all reach."""
    fault = pose_fault(pose)
    if fault:
        raise fields.fail(key, fault, "solve the camera again or remove the frame; a scale belongs into the scene")
    if np.abs(pose[:3, 3]).max() > FARTHEST:
        far = np.abs(pose[:3, 3]).max()
        raise fields.fail(key, f"is {far:g} away from the origin, at most {FARTHEST:g}", "move or scale the scene")


def check_intrinsics(
    fields: Fields,
    keys: tuple[str, str, str, str],
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
) -> None:
    """Raise InputError where fx, fy, cx, cy (pixels) are those of no camera."""
    longer = max(size)
    for key, focal in zip(keys[:2], intrinsics[:2], strict=True):
        if focal <= 0:
            raise fields.fail(key, f"is {focal:g}, must be positive", "give the focal length in pixels")
        if not FOCAL_RANGE[0] <= focal / longer <= FOCAL_RANGE[1]:
            message = f"comes to a focal length of {focal:g} pixels for a picture of {size[0]}x{size[1]}"
            raise fields.fail(key, message, "give the focal length in pixels, not in millimetres or picture widths")
    for key, center in zip(keys[2:], intrinsics[2:], strict=True):
        if abs(center) > 100 * longer:  # a crop out of a far larger picture, at the most
            message = f"is {center:g} for a picture of {size[0]}x{size[1]}"
            raise fields.fail(key, message, "give the principal point in pixels")


def make_lens(
    fields: Fields,
    key: str,
    model: str,
    terms: tuple[float, ...],
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
) -> Lens | None:
    """The lens of a picture, None where it is a pinhole. Raises InputError where it cannot be undone."""
    with fields.naming(key):
        return Lens.of(model, terms, intrinsics, size)
