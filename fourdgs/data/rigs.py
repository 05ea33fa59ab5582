"""Several cameras on the same moving scene: a folder (or a video) for each, and a file that says where they stand."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..capture import DEFAULT_SOURCE, SPLITS, Capture, natural
from ..errors import InputError
from ..files import cache_folder, hash_file
from .calibration import View, check_names, is_calibration, read_calibration, read_views
from .fields import EXTENSIONS, MissingFile, check_mask, inside, picture_size
from .rows import FrameRow, capture_of, warn_of_missing
from .video import VERSION, video_capture

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
PLACES = ("", "videos", "images", "pictures", "cameras")
"""Folders below a capture's in which the cameras' own folders or videos may lie."""

INNER = ("images", "rgb", "frames", "pictures")
"""Folders below a camera's in which its pictures may lie."""


@dataclass
class Media:
    """What a camera saw: pictures in the order of time, and the masks that some of them have."""

    pictures: list[Path]
    names: list[str]
    masks: dict[str, Path]


def find_calibration(path: Path) -> list[Path]:
    """The calibration files of a capture's folder: those in it or in ``calibration``, or else in its subfolders."""
    for folder in (path, path / "calibration"):
        if folder.is_dir():
            files = sorted(file for file in folder.iterdir() if is_calibration(file) and file != path / "cameras.json")
            if files:
                return files
    return sorted(file for file in path.glob("*/*") if is_calibration(file))


def read_rig(path: str | Path, missing: str | None = None) -> Capture:
    """Read a folder per camera (pictures in natural order, or one video) and their calibration.

    The calibration is one file for all (its name begins with ``calib``, or is ``camera``, ``cameras`` or ``rig``; in
    the folder or in ``calibration/``), or one in each camera's folder; see `calibration.read_calibration`. A camera's
    pictures lie in ``<camera>``, ``<camera>/images`` or below ``images/``, ``videos/`` or ``pictures/``, or are the
    video ``<camera>.mp4`` there; a longer name that holds the other between separators will do (camera
    ``int_cam01_img``, video ``cam01.mp4``). Masks lie in ``<camera>/masks`` under the names of their pictures.
    Cameras are synchronised and start together: times run over the frames of the longest, from 0 to 1.

    Args:
        path: the folder, or the calibration file.
        missing: "error" (also None) or "skip" for cameras that have neither folder nor video.

    Raises:
        InputError: naming file, camera and field, and what to do.
    """
    path = Path(path)
    if path.is_file():
        files = [path.parent.resolve() / path.name]
        root = files[0].parent.parent if files[0].parent.name == "calibration" else files[0].parent
    else:
        root = path.resolve()
        files = find_calibration(root)
    if not files:
        message = "holds no calibration file (calib*.toml, .json, .yml; in it, in calibration/, or one in each folder)"
        raise InputError(message, file=path, remedy="put the calibration beside the cameras' folders")
    if files[0].parent in (root, root / "calibration") and len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"holds {len(files)} calibration files: {names}", file=path, remedy="leave the one that holds")
    views = [view for file in files for view in read_calibration(file)]
    check_names(views)
    names = [view.name for view in views]
    return _capture(path, root, [(view, _find(view, names, root)) for view in views], missing)


def read_views_capture(path: str | Path, missing: str | None = None) -> Capture:
    """Read a `cameras.json` with one video or one folder of pictures for each view.

    The file is a list of views, an object of them by name, or an object with ``cameras`` (or ``views``) and values
    for all. A view has:

    - ``name``, ``id`` or ``camera_id`` (else its key or number);
    - a pose ``w2c`` (``world_to_camera``) or ``c2w`` (``camera_to_world``), 3x4 or 4x4, or ``R`` and ``T``;
    - ``convention``: "opencv" or "opengl", the axes of the camera (4DAnyone's ``camera_frame`` is understood);
    - ``K`` 3x3, or ``fx``, ``fy``, ``cx``, ``cy``, or ``fov_x_deg``, ``fov_y_deg``, ``fov`` (horizontal, degrees) or
      ``camera_angle_x`` (radians); pixels count from the picture's corner, so that its middle is (w/2, h/2);
    - optionally ``width``, ``height`` (checked), ``distortion_coefficients`` in OpenCV's order and ``fisheye``,
      ``split``, ``source``;
    - ``video``, or ``images`` (also ``pictures``, ``folder``): a folder; and ``masks``: a folder. Without either, they
      are found by name as `read_rig` does.

    This is what 4DAnyone writes (24 views, 121 frames each, ``videos/dense/00.mp4``), and more.
    Views are synchronised and start together: times run over the frames of the longest, from 0 to 1.

    Raises:
        InputError: naming file, view and field, and what to do.
    """
    path = Path(path)
    file = path.parent.resolve() / path.name if path.is_file() else path.resolve() / "cameras.json"
    if not file.is_file():
        raise InputError("holds no cameras.json", file=path, remedy="give the folder that holds it")
    root = file.parent
    views = read_views(file)
    names = [view.name for view in views]
    return _capture(path, root, [(view, _named(view, names, root)) for view in views], missing)


# --- what a camera saw ---


def _named(view: View, names: list[str], root: Path) -> Path | MissingFile:
    """The folder or video that a view names, or else the one that has its name."""
    fields = view.fields
    for key, kind in (("video", "video"), ("images", "folder"), ("pictures", "folder"), ("folder", "folder")):
        given = fields.text(key, fields.frame.get(key))
        if given is not None:
            try:
                return inside(fields, key, given, root, kind)
            except MissingFile as error:
                return error
    return _find(view, names, root)


def _find(view: View, names: list[str], root: Path) -> Path | MissingFile:
    """The folder or video with a camera's name, or with one that holds it or is held by it and by no other camera's."""
    own = view.fields.file.parent
    if own != root and own.name == view.name:  # a calibration in the camera's own folder
        return own
    there = list(_media_below(root))
    same = [place for place in there if _stem(place) == view.name]
    alike = same or [
        place
        for place in there
        if _held(_stem(place), view.name) and sum(_held(_stem(place), name) for name in names) == 1
    ]
    if not alike:
        listed = ", ".join(sorted(str(place.relative_to(root)) for place in there)[:8]) or "none"
        message = f"{view.name!r} has neither a folder nor a video; there are: {listed}"
        return view.fields.fail("name", message, "name the folder or the video after the camera", MissingFile)
    if len(alike) > 1:
        message = f"{view.name!r} may be {' or '.join(str(place.relative_to(root)) for place in alike)}"
        raise view.fields.fail("name", message, "leave one of them, or name it in cameras.json")
    return inside(
        view.fields, "name", str(alike[0].relative_to(root)), root, "folder" if alike[0].is_dir() else "video"
    )


def _media_below(root: Path) -> Iterator[Path]:
    """Folders and videos that may be a camera's."""
    for place in PLACES:
        folder = root / place
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or (not place and entry.name in (*PLACES, "calibration", "masks")):
                continue
            if entry.suffix.lower() in VIDEOS and entry.is_file():
                yield entry
            elif entry.is_dir() and (_pictures(entry) or _videos(entry)):
                yield entry


def _stem(place: Path) -> str:
    return place.name if place.is_dir() else place.stem


def _held(one: str, other: str) -> bool:
    """Whether one name holds the other between separators: cam1 is in int_cam1_img, but not in cam12."""
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    return re.search(rf"(?<![0-9A-Za-z]){re.escape(short)}(?![0-9A-Za-z])", long, re.IGNORECASE) is not None


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a camera's folder, in natural order: its own, or those of the folder inside it that has them."""
    for place in ("", *INNER):
        inner = folder / place
        if inner.is_dir():
            found = [e for e in inner.iterdir() if e.suffix.lower() in EXTENSIONS and not e.name.startswith(".")]
            if found:
                return sorted(found, key=lambda entry: natural(entry.name))
    return []


def _videos(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in VIDEOS and entry.is_file())


def _media(view: View, place: Path, root: Path) -> Media:
    fields = view.fields
    videos = [place] if place.is_file() else []
    if not videos:
        pictures = [inside(fields, "images", str(p.relative_to(root)), root) for p in _pictures(place)]
        if pictures:
            return Media(pictures, [picture.stem for picture in pictures], _masks(view, place, root))
        videos = _videos(place)
    if len(videos) != 1:
        message = f"{place} holds {'no picture and no video' if not videos else f'{len(videos)} videos'}"
        raise fields.fail("images", message, "put the camera's pictures, or its one video, there")
    video = inside(fields, "video", str(videos[0].relative_to(root)), root, "video")
    with fields.naming("video"):
        frames = decoded(video)
    return Media(frames, [frame.stem for frame in frames], {})


def _masks(view: View, place: Path, root: Path) -> dict[str, Path]:
    """Masks by the stem of their picture."""
    fields, given = view.fields, view.fields.text("masks", view.fields.frame.get("masks"))
    folder = place / "masks" if given is None else inside(fields, "masks", given, root, "folder")
    if not folder.is_dir():
        return {}
    found = [entry for entry in folder.iterdir() if entry.suffix.lower() in EXTENSIONS]
    return {entry.stem: inside(fields, "masks", str(entry.relative_to(root)), root) for entry in found}


def decoded(video: Path) -> list[Path]:
    """A video's frames as PNG files in the cache folder, decoded once for each content.

    What was wrong with the file is said in a warning, every time.

    Raises:
        InputError: it is no video, or not one frame decodes. OutputError: the cache folder cannot be written.
        MissingDependency: PyAV is not installed.
    """
    folder = cache_folder() / "videos" / f"{hash_file(video)[:32]}-{VERSION}"
    clip = video_capture(video, folder=folder)
    return [Path(image) for image in sorted(clip.frames.image)]


# --- the capture ---


def _capture(path: Path, root: Path, found: list[tuple[View, Path | MissingFile]], missing: str | None) -> Capture:
    gone = [place for _, place in found if isinstance(place, MissingFile)]
    if gone and missing != "skip":
        raise gone[0]
    media = [(view, _media(view, place, root)) for view, place in found if not isinstance(place, MissingFile)]
    counts = {view.name: len(seen.pictures) for view, seen in media}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:8])
        warnings.warn(f"{path}: the cameras have different numbers of frames: {words}", stacklevel=3)
    rows: list[FrameRow] = []
    for view, seen in media:
        rows += _rows(view, seen, max(counts.values()))
    warn_of_missing(path, gone, rows, "camera")
    return capture_of(root, rows)


def _rows(view: View, seen: Media, longest: int) -> Iterator[FrameRow]:
    fields = view.fields
    split = fields.text("split", fields.frame.get("split")) or "train"
    if split not in SPLITS:
        raise fields.fail("split", f"is {split!r}, must be one of {', '.join(SPLITS)}", "name one of these")
    source = fields.text("source", fields.get("source")) or DEFAULT_SOURCE
    optics = {}
    for number, (image, name) in enumerate(zip(seen.pictures, seen.names, strict=True)):
        size = picture_size(fields, "images", image)
        if size not in optics:
            view.check_size(size, image)
            optics[size] = view.optics(size)
        mask = seen.masks.get(name)
        if mask is not None:
            check_mask(fields, "masks", mask, size)
        intrinsics, lens = optics[size]
        yield FrameRow(
            name=f"{view.name}/{name}",
            camera=view.name,
            time=number / (longest - 1) if longest > 1 else float("nan"),
            source=source,
            split=split,
            image=image,
            mask="" if mask is None else str(mask),
            size=size,
            intrinsics=intrinsics,
            pose=view.pose,
            lens=lens,
        )
