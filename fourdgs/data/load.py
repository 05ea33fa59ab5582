"""Captures from disk, whatever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..capture import SPLITS, Capture, natural, sort_frames
from ..errors import InputError
from .calibration import is_calibration
from .colmap import find_colmap, read_colmap
from .rigs import VIDEOS, find_calibration, read_rig, read_views_capture
from .transforms import MISSING, read_transforms


def load_capture(
    path: str | Path,
    splits: Sequence[str] | None = None,
    scale: float | None = None,
    *,
    missing: str | None = None,
    test_every: int | None = None,
) -> Capture:
    """Read a capture, in the first of these formats that its folder holds.

    =====================================  ====================================================================
    in the folder                          what is read
    =====================================  ====================================================================
    ``transforms_{train,val,test}.json``   D-NeRF, Blender: frames by split, ``time``, ``camera_angle_x``
    ``transforms.json``                    nerfstudio (intrinsics for all or by frame, ``mask_path``, OPENCV and
                                           OPENCV_FISHEYE, ``*_filenames``); instant-ngp (it has ``aabb_scale``:
                                           missing pictures are skipped with a warning); see `data.transforms`
    ``cameras.json``                       views with a video or a picture folder each, as 4DAnyone exports
                                           them; see `data.rigs.read_views_capture`
    ``sparse/0``, ``sparse``, or           COLMAP, ``cameras`` and ``images`` as .bin or .txt, with the pictures
    ``cameras.*`` and ``images.*`` in it   in ``images/``; no times; see `data.colmap`
    ``calib*`` as .toml, .json, .yml, or   a folder or video per camera: OpenCV's YAML or JSON, Pose2Sim's
    one in each camera's folder            ``Calib.toml``; see `data.rigs.read_rig`
    =====================================  ====================================================================

    Pictures of lenses with distortion are undistorted when they are loaded (`fourdgs.lens`). Files are never changed;
    frames of videos are decoded once, into the cache folder ($FOURDGS_CACHE, or else ~/.cache/fourdgs). No picture,
    mask or video outside the capture's folder is read, by a path or through a link.

    Args:
        path: the folder, or one ``transforms*.json``, ``cameras.json`` or calibration file.
        splits: take only these.
        scale: shrink (or enlarge) the pictures by this factor when they are loaded.
        missing: "error" or "skip" (with one warning that counts them) for pictures that are not there; None: "skip"
            for instant-ngp, "error" for all else.
        test_every: hold out every nth frame in the order of names, the first one included; of a rig, every nth
            camera with all its frames. Only for captures that come without a split of their own.

    Raises:
        InputError: naming file, frame and field, and what to do; or that nothing here is a capture, and what was
            looked for. MissingDependency: a package that the format needs is not installed.
    """
    path = Path(path)
    if missing not in (None, *MISSING):
        raise InputError(f"is {missing!r}, must be one of {', '.join(MISSING)}", file=path, field="missing")
    kind = _kind(path)
    if kind == "transforms" and test_every is None:
        capture = read_transforms(path, splits, missing)
    else:
        reader = {"transforms": _read_all, "views": read_views_capture, "colmap": read_colmap, "rig": read_rig}[kind]
        capture = reader(path, missing=missing)
        if test_every is not None:
            capture = _held_out(capture, test_every, by_camera=kind in ("views", "rig"))
        if splits is not None:
            capture = _only(capture, splits)
    return capture if scale is None else capture.scaled(scale)


def _kind(path: Path) -> str:
    if path.is_file():
        if path.name == "cameras.json":
            return "views"
        if path.suffix.lower() in VIDEOS:
            remedy = "fourdgs.data.video.video_capture makes a capture of it"
            raise InputError("is a video, not a capture", file=path, field="path", remedy=remedy)
        return "rig" if is_calibration(path) else "transforms"
    if not path.is_dir():
        raise InputError("is not there", file=path, remedy="give the folder of a capture")
    if any((path / f"transforms{end}.json").is_file() for end in ("", *(f"_{split}" for split in SPLITS))):
        return "transforms"
    if (path / "cameras.json").is_file():
        return "views"
    if find_colmap(path) is not None:
        return "colmap"
    if find_calibration(path):
        return "rig"
    raise InputError(
        "holds no capture: no transforms.json or transforms_{train,val,test}.json, no cameras.json, no COLMAP "
        "cameras and images (.bin or .txt; here, in sparse or in sparse/0), no calibration (calib*.toml, .json, .yml)",
        file=path,
        field="path",
        remedy="give the folder that holds one of these",
    )


def _read_all(path: Path, missing: str | None) -> Capture:
    return read_transforms(path, missing=missing)


def _held_out(capture: Capture, every: int, by_camera: bool) -> Capture:
    """The capture with every nth name in the split ``test``."""
    if isinstance(every, bool) or not isinstance(every, int) or every < 2:
        message = f"is {every!r}, must be a whole number of at least 2"
        raise InputError(message, file=capture.root, field="test_every", remedy="8 is the usual one")
    if capture.splits != ["train"]:
        message = f"is {every}, but the capture says itself which frames are {capture.splits[-1]}"
        raise InputError(message, file=capture.root, field="test_every", remedy="leave it out")
    column = capture.frames.camera if by_camera else capture.frames.frame
    held = set(sorted(column.unique(), key=natural)[::every])
    split = ["test" if name in held else "train" for name in column]
    capture = capture.with_split(split)
    return capture.select(rows=sort_frames(capture.frames))


def _only(capture: Capture, splits: Sequence[str]) -> Capture:
    wanted = [splits] if isinstance(splits, str) else list(splits)
    for split in wanted:
        if split not in SPLITS:
            raise InputError(f"is {split!r}, must be one of {', '.join(SPLITS)}", file=capture.root, field="splits")
        if split not in capture.splits:
            message = f"split {split!r} has no frames, there are {', '.join(capture.splits)}"
            raise InputError(message, file=capture.root, field="splits", remedy="test_every holds frames out")
    return capture.select(split=wanted)
