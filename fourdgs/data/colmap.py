"""COLMAP reconstructions, text and binary: poses and lenses through pycolmap, pictures from the folder beside them.

pycolmap 4.2 does not abort on damaged files, but it believes the counts in them: a cut ``images.bin`` or
``points3D.bin`` made it ask for memory until there was none, for up to half a minute. So the two files that matter are
walked here first, record by record against their length, and pycolmap reads a copy without observations and points,
which also keeps a reconstruction of a million points quick. Records: COLMAP documentation, "Output format".
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..capture import DEFAULT_SOURCE, Capture
from ..errors import InputError, MissingDependency
from ..files import write_text
from .fields import (
    Fields,
    MissingFile,
    check_intrinsics,
    check_pose,
    inside,
    make_lens,
    picture_size,
    read_text,
    short,
)
from .rows import FrameRow, capture_of, warn_of_missing

PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "")
"""Where in a capture's folder a reconstruction is looked for, in this order."""

MODELS = {
    "SIMPLE_PINHOLE": ("OPENCV", "fcc", ()),
    "PINHOLE": ("OPENCV", "ffcc", ()),
    "SIMPLE_RADIAL": ("OPENCV", "fcc", (0,)),
    "RADIAL": ("OPENCV", "fcc", (0, 1)),
    "OPENCV": ("OPENCV", "ffcc", (0, 1, 2, 3)),
    "FULL_OPENCV": ("OPENCV", "ffcc", (0, 1, 2, 3, 4, 5, 6, 7)),
    "SIMPLE_FISHEYE": ("OPENCV_FISHEYE", "fcc", ()),
    "FISHEYE": ("OPENCV_FISHEYE", "ffcc", ()),
    "SIMPLE_RADIAL_FISHEYE": ("OPENCV_FISHEYE", "fcc", (0,)),
    "RADIAL_FISHEYE": ("OPENCV_FISHEYE", "fcc", (0, 1)),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", "ffcc", (0, 1, 2, 3)),
}
"""Camera models that are read: the lens they are, one focal length or two, and the lens's terms that follow."""

_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12}  # by model number, COLMAP models.h
_MORE_PARAMETERS = {11: 16, 12: 4, 13: 5, 14: 3, 15: 4, 16: 6, 17: 2}  # since COLMAP 3.12
_PAIR = struct.calcsize("<ddq")  # an observation: x, y, number of its point


def find_colmap(path: Path) -> Path | None:
    """The folder at or below ``path`` with a reconstruction's ``cameras`` and ``images``; None where there is none."""
    for place in PLACES:
        folder = path / place
        for extension in ("bin", "txt"):
            if all((folder / f"{name}.{extension}").is_file() for name in ("cameras", "images")):
                return folder
    return None


def read_colmap(path: str | Path, missing: str | None = None) -> Capture:
    """Read a COLMAP reconstruction as a capture without times, all of it ``train``, sorted by name.

    Args:
        path: the capture's folder: the reconstruction in ``sparse/0``, ``sparse``, ``colmap/sparse/0`` or the folder
            itself (binary goes before text), the pictures in ``images`` or else the folder itself, masks in ``masks``
            as ``<picture>.png`` (COLMAP's way) or under the picture's own name.
        missing: "error" (also None) or "skip", as in `read_transforms`.

    Raises:
        InputError: a file is damaged, a camera has a model that no lens here is, a picture is not there.
        MissingDependency: pycolmap is not installed.
    """
    path = Path(path)
    folder = find_colmap(path)
    if folder is None:
        looked = ", ".join(f"{place or '.'}" for place in PLACES)
        message = f"holds no cameras and images (.bin or .txt) in any of {looked}"
        raise InputError(message, file=path, remedy="give the folder above sparse/0")
    root = path.resolve()
    pictures = "images" if (root / "images").is_dir() else "."
    extension = "bin" if (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file() else "txt"
    rows: list[FrameRow] = []
    gone: list[MissingFile] = []
    for name, camera, pose in _read(folder, extension):
        fields = Fields(folder / f"images.{extension}", f"image {name}", {}, {})
        try:
            rows.append(_row(fields, name, camera, pose, root, pictures, folder / f"cameras.{extension}"))
        except MissingFile as error:
            if missing != "skip":
                raise
            gone.append(error)
    warn_of_missing(path, gone, rows)
    return capture_of(root, rows)


def _row(
    fields: Fields, name: str, camera: Any, world_to_camera: np.ndarray, root: Path, pictures: str, cameras: Path
) -> FrameRow:
    image = inside(fields, "name", f"{pictures}/{fields.text('name', name)}", root)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = world_to_camera[:, :3].T, -world_to_camera[:, :3].T @ world_to_camera[:, 3]
    pose[:, 1:3] *= -1  # OpenCV's axes to OpenGL's
    check_pose(fields, "pose", pose)
    size = picture_size(fields, "name", image)
    if size != (camera.width, camera.height):
        message = f"is {size[0]}x{size[1]}, its camera {camera.camera_id} is {camera.width}x{camera.height}"
        raise fields.fail("name", message, "restore the pictures that were reconstructed")
    lens = Fields(cameras, f"camera {camera.camera_id}", {}, {})
    model, values, terms = _model(lens, camera)
    intrinsics = tuple(float(value) for value in values)
    check_intrinsics(lens, ("params",) * 4, intrinsics, size)
    masks = [f"masks/{name}.png", f"masks/{name}"]
    mask = next((place for place in masks if (root / place).is_file()), None)
    if mask is not None:
        mask = str(inside(fields, "mask", mask, root))
    return FrameRow(
        name=str(Path(name).with_suffix("")),
        camera=None,
        time=float("nan"),
        source=DEFAULT_SOURCE,
        split="train",
        image=image,
        mask=mask or "",
        size=size,
        intrinsics=intrinsics,
        pose=pose,
        lens=make_lens(lens, "params", model, terms, intrinsics, size),
    )


def _model(fields: Fields, camera: Any) -> tuple[str, list[float], list[float]]:
    """The lens's model, fx, fy, cx, cy, and the first of its terms."""
    name = camera.model.name
    if name not in MODELS:
        remedy = "make pinhole pictures with COLMAP's image_undistorter"
        raise fields.fail("model", f"is {name}, read are {', '.join(MODELS)}", remedy)
    model, layout, terms = MODELS[name]
    values = [float(value) for value in camera.params]
    for value in values:
        fields.check_number("params", value)
    focals, rest = values[: layout.count("f")], values[layout.count("f") :]
    return model, [focals[0], focals[-1], rest[0], rest[1]], [rest[2 + term] for term in terms]


# --- files ---


def _read(folder: Path, extension: str) -> list[tuple[str, Any, np.ndarray]]:
    """(name, pycolmap camera, world-to-camera [3, 4]) of each image, sorted by name."""
    try:
        import pycolmap
    except ImportError as error:
        raise MissingDependency("reading COLMAP files needs the package pycolmap: pip install pycolmap") from error
    cameras, images = folder / f"cameras.{extension}", folder / f"images.{extension}"
    with tempfile.TemporaryDirectory(prefix="fourdgs-colmap-") as name:
        copy = Path(name)
        if extension == "bin":
            (copy / cameras.name).write_bytes(_checked(cameras, _walk_cameras))
            (copy / images.name).write_bytes(_checked(images, _walk_images))
            (copy / "points3D.bin").write_bytes(struct.pack("<Q", 0))
        else:
            write_text(copy / cameras.name, read_text(cameras))
            write_text(copy / images.name, _without_observations(images))
            write_text(copy / "points3D.txt", "")
        with _damage(folder, extension):
            whole = pycolmap.Reconstruction(str(copy))
            found = [
                (image.name, whole.camera(image.camera_id), np.asarray(image.cam_from_world().matrix()))
                for image in whole.images.values()
                if image.has_pose
            ]
    if not found:
        raise InputError("has no image with a pose", file=images, field="images", remedy="reconstruct again")
    doubled = [name for name, count in Counter(name for name, _, _ in found).items() if count > 1]
    if doubled:
        raise InputError(f"{doubled[0]!r} is there twice", file=images, field="name", remedy="reconstruct again")
    return sorted(found, key=lambda item: item[0])


@contextlib.contextmanager
def _damage(folder: Path, extension: str) -> Iterator[None]:
    """One InputError for what pycolmap says about a file."""
    try:
        yield
    except (ValueError, IndexError, KeyError, RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        # COLMAP's own words name its source file; what it checks for names the field.
        words = str(error).split("Check failed: ")[-1].split("\n")[0]
        field = "cameras" if "amera" in words and "image" not in words.lower() else "images"
        message = f"is damaged: {short(words)[1:-1]}"
        remedy = "export the reconstruction again"
        raise InputError(message, file=folder / f"{field}.{extension}", field=field, remedy=remedy) from error


class _Cut(Exception):
    """A record goes on behind the end of its file."""


class _Bytes:
    """A file's bytes, read from the front."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _Cut
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form: str) -> tuple:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def line(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise _Cut
        return self.take(end + 1 - self.at)


def _checked(file: Path, walk: Callable[[_Bytes], bytes]) -> bytes:
    """A binary file's records that matter. Raises InputError where its counts and its length disagree."""
    remedy = "copy the file again, or export the reconstruction again"
    field = file.stem
    try:
        data = _Bytes(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read: {error}", file=file, field=field, remedy=remedy) from error
    try:
        result = walk(data)
    except _Cut as error:
        message = f"is cut short or damaged: a record goes on behind its {len(data.data):,} bytes"
        raise InputError(message, file=file, field=field, remedy=remedy) from error
    except _Odd as error:
        raise InputError(str(error), file=file, field=field, remedy=remedy) from error
    if data.at != len(data.data):
        message = f"is damaged: {len(data.data) - data.at:,} bytes follow its last record"
        raise InputError(message, file=file, field=field, remedy=remedy)
    return result


class _Odd(Exception):
    """A record holds what cannot be."""


def _walk_cameras(data: _Bytes) -> bytes:
    (count,) = data.unpack("<Q")
    for _ in range(count):
        number, model, _width, _height = data.unpack("<IiQQ")
        parameters = _PARAMETERS.get(model, _MORE_PARAMETERS.get(model))
        if parameters is None:
            raise _Odd(f"is damaged or from a newer COLMAP: camera {number} has the unknown model {model}")
        data.take(8 * parameters)
    return data.data


def _walk_images(data: _Bytes) -> bytes:
    (count,) = data.unpack("<Q")
    parts = [struct.pack("<Q", count)]
    for _ in range(count):
        parts += [data.take(struct.calcsize("<IdddddddI")), data.line(), struct.pack("<Q", 0)]
        (pairs,) = data.unpack("<Q")
        data.take(_PAIR * pairs)
    return b"".join(parts)


def _without_observations(file: Path) -> str:
    """The text of ``images.txt`` with an empty line for the observations that follow each image."""
    lines = iter(read_text(file).split("\n"))
    kept = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            kept.append(f"{line.strip()}\n\n")
            next(lines, None)
    return "".join(kept)
