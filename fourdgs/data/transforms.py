"""D-NeRF, nerfstudio and instant-ngp `transforms*.json`: read and validate. (`write_transforms` is in `writing`.)

Read from the file or, where a frame says otherwise, from the frame: ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``,
``camera_angle_x``, ``camera_angle_y``, ``k1``-``k6``, ``p1``, ``p2``, ``camera_model``, ``is_fisheye``, ``source``.
From the frame: ``file_path`` (with or without extension), ``transform_matrix`` (OpenGL camera-to-world), ``time`` (in
[0, 1]; null or missing = none), ``camera``, ``mask_path`` (its white is the frame's alpha), ``frame_id``, ``weight``
(positive; missing = 1), ``drive`` (see below). From nerfstudio's single file: ``train_filenames``, ``val_filenames``,
``test_filenames``; a picture in two of them is two frames, and where there are ``train_filenames``, one in none of them
is left out with a word. Other keys are let be; ``applied_transform`` and ``applied_scale`` too, since the poses are in
the transformed world already.

What drives a rig: a frame's ``drive`` is an object of numbers, ``{"jawOpen": 0.4, "headYaw": -3}`` (ARKit's actions,
degrees of the head, or a rig's own controls), and becomes columns of the table, see `fourdgs.drive.drive_table`. Or the
file has ``drive_file``, a track (`fourdgs.drive.load_track`) in the capture's folder: a frame with a time and without a
``drive`` of its own takes the track's values there. ``drive_span_s``, ``[start, end]``, says which of the track's
seconds are the times 0 and 1; without it, its first and its last.

Distortion: ``camera_model`` is OPENCV where the file names none, OPENCV_FISHEYE where ``is_fisheye`` is true. Pictures
with coefficients other than zero are undistorted when they are loaded; see `fourdgs.lens`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..capture import DEFAULT_SOURCE, SPLITS, Capture
from ..drive.frames import drive_by_track, frame_drive, with_drive
from ..errors import InputError
from ..lens import TERMS, Lens
from .fields import (
    Fields,
    MissingFile,
    check_intrinsics,
    check_mask,
    check_pose,
    check_size,
    finite,
    inside,
    make_lens,
    picture_size,
    plain_path,
    read_json,
    short,
)
from .rows import FrameRow, capture_of, warn_of_missing
from .writing import write_transforms

__all__ = ["read_transforms", "write_transforms"]

MISSING = ("error", "skip")

MODELS = {
    "PINHOLE": (),
    "SIMPLE_PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": TERMS["OPENCV"],
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
    "OPENCV_FISHEYE": TERMS["OPENCV_FISHEYE"],
}
"""The coefficients that each ``camera_model`` has; k3 with OPENCV as nerfstudio's loader takes it."""

COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def read_transforms(path: str | Path, splits: Sequence[str] | None = None, missing: str | None = None) -> Capture:
    """Read and validate a capture.

    Args:
        path: a folder with ``transforms_{train,val,test}.json`` or else ``transforms.json``, or one such file. Frames
            of a file without a split in its name are ``train``, but for those that nerfstudio's ``*_filenames`` name.
        splits: take only these.
        missing: what a picture that is not there is: an "error", or something to "skip" with one warning that counts
            them. None: "skip" in files of instant-ngp (they have ``aabb_scale``), whose own reader does so; else
            "error".

    Raises:
        InputError: for the first problem met, naming file, frame and field, and what to do about it; or where no
            picture at all is there.
    """
    path = Path(path)
    if missing not in (None, *MISSING):
        raise InputError(f"is {missing!r}, must be one of {', '.join(MISSING)}", file=path, field="missing")
    wanted = tuple([splits] if isinstance(splits, str) else splits or SPLITS)
    for split in wanted:
        if split not in SPLITS:
            raise InputError(f"is {split!r}, must be one of {', '.join(SPLITS)}", file=path, field="splits")
    root = (path if path.is_dir() else path.parent).resolve()
    rows: list[DrivenRow] = []
    gone: list[MissingFile] = []
    for file, split in _files(path, wanted if splits else ()):
        rows += _read_file(file, root, split, missing, gone)
    warn_of_missing(path, gone, rows)
    there = [split for split in SPLITS if any(row.split == split for row in rows)]
    for split in wanted if splits else ():
        if split not in there:
            raise InputError(
                f"split {split!r} has no frames, there are {', '.join(there)}",
                file=path,
                field="splits",
                remedy=f"add transforms_{split}.json, or ask for another split",
            )
    rows = [row for row in rows if row.split in wanted]
    capture = capture_of(root, rows)
    if not any(row.drive for row in rows):
        return capture
    drive = {row.name: row.drive for row in rows}
    return capture.with_frames(with_drive(capture.frames, [drive[name] for name in capture.frames.frame], root))


@dataclass
class DrivenRow(FrameRow):
    """A frame, and the values that drove what it shows; None where the file says nothing."""

    drive: dict[str, float] | None = None


# --- files ---


def _files(path: Path, wanted: Sequence[str]) -> list[tuple[Path, str]]:
    """The files to read, each with the split of its frames."""
    if path.is_file():
        match = re.search(r"_(train|val|test)$", path.stem)
        return [(path, match.group(1) if match else "train")]
    remedy = "give the folder that holds transforms.json or transforms_{train,val,test}.json"
    if not path.is_dir():
        raise InputError("is not there", file=path, remedy=remedy)
    files = [(path / f"transforms_{split}.json", split) for split in SPLITS]
    files = [(file, split) for file, split in files if file.is_file()]
    if files:
        # A file that was not asked for is not read, so that its faults do not stand in the way.
        return [(file, split) for file, split in files if not wanted or split in wanted] or files
    single = path / "transforms.json"
    if not single.is_file():
        raise InputError("holds no transforms file", file=path, remedy=remedy)
    return [(single, "train")]


def _read_file(file: Path, root: Path, split: str, missing: str | None, gone: list[MissingFile]) -> list[DrivenRow]:
    """The frames of a file; pictures that are skipped are added to ``gone``."""
    content = read_json(file)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError("must be a list of objects", file=file, field="frames", remedy="export the file again")
    if not frames:
        remedy = "remove the file, or give it frames"
        raise InputError(f"is empty: the split {split!r} has no frames", file=file, field="frames", remedy=remedy)
    skips = missing == "skip" or (missing is None and "aabb_scale" in content)
    rows: list[DrivenRow] = []
    skipped: list[str] = []
    seen: dict[tuple[str, object], int] = {}
    for position, frame in enumerate(frames):
        path = frame.get("file_path")
        label = f"frame {position}" + (f" ({short(path)[1:-1]})" if isinstance(path, str) else "")
        fields = Fields(file, label, frame, content)
        try:
            row = read_frame(fields, root, split)
        except MissingFile as error:
            if not skips or not str(error.field).endswith(": file_path"):
                raise
            gone.append(error)
            skipped.append(path)
            continue
        for key, value in (("file_path", row.image), ("frame_id", row.name)):
            if (key, value) in seen:
                message = f"{str(value)!r} is that of frame {seen[key, value]} too"
                raise fields.fail(key, message, "remove one of the two frames, or name it otherwise")
            seen[key, value] = position
        rows.append(row)
    drive_by_track(Fields(file, "the file", {}, content), root, rows)
    return _in_named_splits(file, content, rows, skipped)


def _in_named_splits(file: Path, content: dict, rows: list[DrivenRow], skipped: list[str]) -> list[DrivenRow]:
    """The rows in the splits of nerfstudio's ``{split}_filenames``, one for each that names them."""
    lists = {split: content.get(f"{split}_filenames") for split in SPLITS}
    lists = {split: names for split, names in lists.items() if names is not None}
    for split, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("must be a list of strings", file=file, field=f"{split}_filenames", remedy="export again")
    if not lists:
        return rows
    root = file.parent.resolve()
    keys = [{_bare(row.given), _bare(str(row.image.relative_to(root)))} for row in rows]
    known = set().union(*keys, map(_bare, skipped))
    named = {split: {_bare(name) for name in names} for split, names in lists.items()}
    for split, names in named.items():
        strangers = sorted(names - known)
        if strangers:
            message = f"names {strangers[0]!r}, which is the file_path of no frame"
            remedy = "add the frame, or take the name out"
            raise InputError(message, file=file, field=f"{split}_filenames", remedy=remedy)
    result, unnamed = [], 0
    for row, names in zip(rows, keys, strict=True):
        splits = [split for split in named if names & named[split]]
        if not splits and "train" in named:
            unnamed += 1
        elif not splits:
            result.append(row)
        result += [row.in_split(split) for split in splits]
    if unnamed:
        what = "1 frame is" if unnamed == 1 else f"{unnamed} frames are"
        lists = ", ".join(f"{split}_filenames" for split in named)
        warnings.warn(f"{file}: {what} in none of the lists {lists}, and left out", stacklevel=4)
    if not result:
        raise InputError("leave no frame", file=file, field="train_filenames", remedy="export again")
    return result


def _bare(path: str) -> str:
    """A path as lists and frames both have it: without ``./``, and without the extension of a picture."""
    plain = plain_path(path)
    return re.sub(r"\.(png|jpe?g|webp)$", "", plain, flags=re.IGNORECASE)


# --- one frame ---


def read_frame(fields: Fields, root: Path, split: str) -> DrivenRow:
    """One frame of a file. Raises InputError for the first thing that is wrong with it."""
    given = fields.text("file_path", fields.frame.get("file_path"))
    if given is None:
        raise fields.fail("file_path", "is missing", "name the frame's picture, relative to the capture's folder")
    image = inside(fields, "file_path", given, root)
    mask_given = fields.text("mask_path", fields.frame.get("mask_path"))
    mask = None if mask_given is None else inside(fields, "mask_path", mask_given, root)
    pose = _pose(fields)
    model, terms = _distortion(fields)
    size = picture_size(fields, "file_path", image)
    check_size(fields, ("w", "h"), size, image)
    if mask is not None:
        check_mask(fields, "mask_path", mask, size)
    intrinsics = _intrinsics(fields, size)
    frame_id = fields.frame.get("frame_id")
    named = fields.text("frame_id", frame_id) if isinstance(frame_id, str) and frame_id else None
    stem = plain_path(given)
    stem = stem[: -len(image.suffix)] if stem.endswith(image.suffix) else stem
    return DrivenRow(
        name=named or stem,
        camera=fields.name("camera", fields.frame.get("camera")),
        time=_time(fields),
        source=fields.text("source", fields.get("source")) or DEFAULT_SOURCE,
        split=split,
        image=image,
        mask="" if mask is None else str(mask),
        size=size,
        intrinsics=intrinsics,
        pose=pose,
        lens=_lens(fields, model, terms, intrinsics, size),
        weight=_weight(fields),
        given=given,
        drive=frame_drive(fields),
    )


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
            raise fields.fail(key, f"holds {short(number)}, must hold numbers only", remedy)
        if not finite(number):
            message = f"holds {short(number)}, must be finite"
            raise fields.fail(key, message, "solve the camera again, or remove the frame")
    pose = np.array(value if len(value) == 4 else [*value, [0, 0, 0, 1]], dtype=np.float64)
    check_pose(fields, key, pose)
    return pose


def _distortion(fields: Fields) -> tuple[str, dict[str, float]]:
    """The camera model, and its coefficients other than zero."""
    terms = {key: fields.number(key) for key in COEFFICIENTS}
    terms = {key: value for key, value in terms.items() if value}
    model = fields.text("camera_model", fields.get("camera_model")) or "OPENCV"
    if fields.get("is_fisheye") is True:
        model = "OPENCV_FISHEYE"
    if model not in MODELS:
        remedy = "undistort the pictures to a pinhole first, e.g. with COLMAP's image_undistorter"
        raise fields.fail("camera_model", f"is {model}, read are {', '.join(MODELS)}", remedy)
    for key, value in terms.items():
        if key not in MODELS[model]:
            raise fields.fail(
                key,
                f"is {value:g}, but the camera model {model} has "
                + (f"{', '.join(MODELS[model])} only" if MODELS[model] else "no distortion"),
                "name the model that was calibrated: OPENCV, FULL_OPENCV or OPENCV_FISHEYE; or undistort the pictures",
            )
    return ("OPENCV_FISHEYE" if model.endswith("FISHEYE") else "OPENCV"), terms


def _lens(fields: Fields, model: str, terms: dict[str, float], intrinsics: tuple, size: tuple) -> Lens | None:
    if model == "OPENCV" and not terms:
        return None
    return make_lens(
        fields, next(iter(terms), "k1"), model, [terms.get(k, 0.0) for k in TERMS[model]], intrinsics, size
    )


def _intrinsics(fields: Fields, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels."""
    focals, keys = [], []
    for axis, length in (("x", size[0]), ("y", size[1])):
        key, focal = f"fl_{axis}", fields.number(f"fl_{axis}")
        angle = fields.number(f"camera_angle_{axis}")
        if focal is None and angle is not None:
            key = f"camera_angle_{axis}"
            if not 0 < angle < math.pi:
                raise fields.fail(
                    key, f"is {angle:g}, must be between 0 and pi", "give the whole field of view in radians"
                )
            focal = length / 2 / math.tan(angle / 2)
        focals.append(focal)
        keys.append(key)
    if focals == [None, None]:
        raise fields.fail("fl_x", "is missing", "give fl_x in pixels, or camera_angle_x in radians")
    for axis, other in ((0, 1), (1, 0)):  # one focal length alone means square pixels
        if focals[axis] is None:
            focals[axis], keys[axis] = focals[other], keys[other]
    cx, cy = fields.number("cx"), fields.number("cy")
    values = (*focals, size[0] / 2 if cx is None else cx, size[1] / 2 if cy is None else cy)
    check_intrinsics(fields, (*keys, "cx", "cy"), values, size)
    return values


def _time(fields: Fields) -> float:
    value = fields.check_number("time", fields.frame.get("time"))
    if value is None:
        return float("nan")
    if not 0 <= value <= 1:
        remedy = "normalise: subtract the first time and divide by the last"
        raise fields.fail("time", f"is {value:g}, must be in [0, 1]", remedy)
    return value


def _weight(fields: Fields) -> float | None:
    value = fields.check_number("weight", fields.frame.get("weight"))
    if value is not None and value <= 0:
        raise fields.fail(
            "weight", f"is {value:g}, must be positive", "remove the frame instead of giving it no weight"
        )
    return value
