"""Calibration files: OpenCV's YAML and JSON, Pose2Sim's TOML, and the `cameras.json` of multi-view exports.

Poses come out as OpenGL camera-to-world, as in a `transforms.json`; intrinsics with pixel centres at +0.5. OpenCV, and
with it Pose2Sim, puts the centre of the left-top pixel at 0, so that half a pixel is added to its principal points.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependency
from ..lens import TERMS, Lens
from .fields import Fields, check_intrinsics, check_pose, make_lens, read_json, read_text, short

CALIBRATIONS = (".toml", ".json", ".yml", ".yaml")
MATRIX = ("camera_matrix", "K", "matrix", "intrinsic_matrix")
TERMS_KEYS = ("distortion_coefficients", "distortions", "distortion", "dist_coeffs", "dist")
ROTATION = ("R", "rotation", "rotation_matrix", "rvec")
TRANSLATION = ("T", "translation", "tvec", "t")
WORLD_TO_CAMERA, CAMERA_TO_WORLD = ("w2c", "world_to_camera"), ("c2w", "camera_to_world")
WIDTH, HEIGHT = ("width", "image_width", "w"), ("height", "image_height", "h")
CONVENTIONS = ("opencv", "opengl")

MAX_YAML_BYTES = 2**18
"""Of a YAML file: some 200 cameras. PyYAML reads 100 kB a second."""


@dataclass
class View:
    """A calibrated camera.

    Attributes:
        fields: its values, for errors and for what else it says.
        pose: [4, 4] camera-to-world, OpenGL axes.
        center: what to add to a principal point of the file, pixels.
    """

    fields: Fields
    name: str
    pose: np.ndarray
    center: float

    def size_keys(self) -> tuple[str, str]:
        """The keys of width and height."""
        return self.fields.first(WIDTH) or "width", self.fields.first(HEIGHT) or "height"

    def check_size(self, size: tuple[int, int], image: Path) -> None:
        """Raise InputError where the calibration is that of another picture size."""
        said = [self.fields.pixels(key) for key in self.size_keys()]
        key = self.fields.first(("size", "image_size"))
        if key is not None:
            said = self.fields.numbers(key, self.fields.get(key), ((2,),)).tolist()
        if any(value is not None and value != actual for value, actual in zip(said, size, strict=True)):
            words = "x".join("?" if value is None else f"{value:g}" for value in said)
            remedy = "calibrate at the size of the pictures, or scale matrix and size together"
            raise self.fields.fail(
                key or self.size_keys()[0], f"is {words}, but {image} is {size[0]}x{size[1]}", remedy
            )

    def optics(self, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], Lens | None]:
        """fx, fy, cx, cy of a picture of ``size`` (pixels, centres at +0.5), and its lens where it is no pinhole."""
        fields, key = self.fields, self.fields.first(MATRIX)
        if key is not None:
            K = matrix(fields, key, ((3, 3),))
            # A skew of a twentieth of a pixel (at 45 degrees) is rounding; more has no place in a K here.
            if np.abs(K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] - [0, 0, 0, 0, 1]).max() > 0.05:
                message = f"is {short(K.tolist())}, must be fx 0 cx, 0 fy cy, 0 0 1"
                raise fields.fail(key, message, "calibrate without skew, rows first")
            keys = (key,) * 4
            values = (K[0, 0], K[1, 1], K[0, 2] + self.center, K[1, 2] + self.center)
        else:
            keys, values = _listed_intrinsics(fields, size, self.center)
        values = tuple(float(value) for value in values)
        check_intrinsics(fields, keys, values, size)
        return values, _lens(fields, values, size)


# --- files of calibrated cameras ---


def read_calibration(file: Path) -> list[View]:
    """The cameras of a calibration file: one for each section, or one alone, named after the file's folder.

    A camera has a matrix (``camera_matrix``, ``K`` or ``matrix``), distortion coefficients in OpenCV's order
    (``distortion_coefficients`` or ``distortions``, with ``fisheye`` true for the fisheye model), and world-to-camera
    ``R`` or ``rotation`` (3x3, or a Rodrigues vector) and ``T`` or ``translation`` with OpenCV's axes.

    Raises:
        InputError: the file cannot be parsed, holds no camera, or a value is wrong.
        MissingDependency: a YAML file, and PyYAML is not installed.
    """
    content = parse(file)
    if not isinstance(content, dict):
        raise InputError("must be an object", file=file, field="cameras", remedy="give one section for each camera")
    if _is_camera(content):
        return [_calibrated(file, file.parent.name, content)]
    inner = content.get("cameras", content)
    entries = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
    views = [_calibrated(file, str(key), entry) for key, entry in entries if _is_camera(entry)]
    if not views:
        looked = ", ".join(MATRIX[:3])
        raise InputError(
            f"holds no camera (a section with {looked})", file=file, field="cameras", remedy="export again"
        )
    check_names(views)
    return views


def is_calibration(file: Path) -> bool:
    """Whether a file's name says that it is a calibration."""
    stem = file.stem.lower()
    named = stem.startswith("calib") or stem in ("camera", "cameras", "rig", "intrinsics_extrinsics")
    return named and file.suffix.lower() in CALIBRATIONS and file.is_file()


def parse(file: Path) -> Any:
    """The content of a TOML, YAML or JSON file. Raises InputError where it cannot be parsed."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        return read_json(file)
    remedy = "mend that line, or export again"
    if suffix == ".toml":
        try:
            return tomllib.loads(read_text(file))
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not valid TOML: {error}", file=file, field="toml", remedy=remedy) from error
    return _parse_yaml(file, remedy)


def _parse_yaml(file: Path, remedy: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependency("reading a YAML calibration needs the package PyYAML: pip install pyyaml") from error

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            # An alias of an alias of an alias is how a kilobyte of YAML becomes a billion numbers.
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("aliases are not read")
            return super().compose_node(parent, index)

    # YAML 1.1 as PyYAML reads it takes 1e-05 for a word.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), "-+0123456789")
    Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", lambda loader, node: loader.construct_mapping(node, True))
    text = read_text(file, MAX_YAML_BYTES)
    if text.startswith("%YAML"):  # OpenCV writes "%YAML:1.0", which is no YAML
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        words = short(" ".join(str(error).split()))[1:-1]
        raise InputError(f"is not valid YAML: {words}", file=file, field="yaml", remedy=remedy) from error


def _is_camera(entry: Any) -> bool:
    return isinstance(entry, dict) and any(key in entry for key in MATRIX)


def _calibrated(file: Path, key: str, entry: dict) -> View:
    fields = Fields(file, f"camera {short(key)[1:-1]}", entry, {})
    name = fields.name("name", entry.get("name")) or fields.text("name", key)
    turn, shift = fields.first(ROTATION), fields.first(TRANSLATION)
    if turn is None or shift is None:
        missing = " and ".join(names[0] for names, there in ((ROTATION, turn), (TRANSLATION, shift)) if there is None)
        raise fields.fail(missing, "is missing", "give the world-to-camera rotation and translation")
    return View(fields, name, _pose(fields, turn, _rigid(fields, turn, shift), True, "opencv"), 0.5)


def check_names(views: list[View]) -> None:
    """Raise InputError where two cameras have one name."""
    seen: set[str] = set()
    for view in views:
        if view.name in seen:
            raise view.fields.fail("name", f"{view.name!r} is that of another camera too", "name every camera once")
        seen.add(view.name)


# --- cameras.json ---


def read_views(file: Path) -> list[View]:
    """The views of a `cameras.json`; see `rigs.read_views_capture` for what may be in it.

    Raises:
        InputError: the file cannot be parsed, holds no view, or a value is wrong.
    """
    content = read_json(file)
    head = content if isinstance(content, dict) else {}
    inner = next((head[key] for key in ("cameras", "views") if key in head), content)
    if isinstance(inner, dict) and all(isinstance(entry, dict) for entry in inner.values()):
        entries = list(inner.items())
    elif isinstance(inner, list) and all(isinstance(entry, dict) for entry in inner):
        entries = [(str(position), entry) for position, entry in enumerate(inner)]
    else:
        entries = []
    if not entries:
        remedy = 'write {"convention": "opencv", "cameras": [{"name": ..., "K": ..., "w2c": ..., "video": ...}]}'
        raise InputError("must be a list (or an object) of views", file=file, field="cameras", remedy=remedy)
    if inner is content:
        head = {}
    views = []
    for key, entry in entries:
        fields = Fields(file, f"view {short(key)[1:-1]}", entry, head)
        named = next((k for k in ("name", "id", "camera_id", "camera") if entry.get(k) is not None), "name")
        name = fields.name(named, entry.get(named)) or fields.text("name", key)
        views.append(View(fields, name, _view_pose(fields), 0.0))
    check_names(views)
    return views


def _view_pose(fields: Fields) -> np.ndarray:
    convention = fields.text("convention", fields.get("convention"))
    if convention is None:  # 4DAnyone says it in other words: "camera_frame": "opencv_camera"
        frame = fields.text("camera_frame", fields.get("camera_frame")) or ""
        convention = next((name for name in CONVENTIONS if name in frame.lower()), None)
    if convention is None or convention.lower() not in CONVENTIONS:
        message = "is missing" if convention is None else f"is {short(convention)}, must be opencv or opengl"
        remedy = 'say "opencv" (x right, y down, z forward) or "opengl" (x right, y up, z backward)'
        raise fields.fail("convention", message, remedy)
    key = fields.first(WORLD_TO_CAMERA + CAMERA_TO_WORLD)
    if key is not None:
        rows = fields.numbers(key, fields.get(key), ((3, 4), (4, 4)))
        pose = np.concatenate([rows, [[0, 0, 0, 1]]]) if len(rows) == 3 else rows
        return _pose(fields, key, pose, key in WORLD_TO_CAMERA, convention.lower())
    turn, shift = fields.first(ROTATION), fields.first(TRANSLATION)
    if turn is None or shift is None:
        raise fields.fail("w2c", "is missing", "give the pose as w2c or c2w, 3x4 or 4x4")
    return _pose(fields, turn, _rigid(fields, turn, shift), True, convention.lower())


# --- values ---


def matrix(fields: Fields, key: str, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """A matrix as lists of rows, or as OpenCV writes it: ``rows``, ``cols`` and ``data``."""
    value = fields.get(key)
    if not isinstance(value, dict):
        return fields.numbers(key, value, shapes)
    flat = fields.numbers(key, value.get("data"), ((-1,),))
    rows, cols = value.get("rows"), value.get("cols")
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (rows, cols)) or rows * cols != len(flat):
        message = f"says it has {short(rows)} rows and {short(cols)} columns, and has {len(flat)} values"
        raise fields.fail(key, message, "export the calibration again")
    array = flat.reshape(rows, cols)
    return fields.numbers(key, array.tolist(), shapes)


def rodrigues(vector: np.ndarray) -> np.ndarray:
    """[3, 3] rotation about ``vector`` [3] by its length in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _rigid(fields: Fields, turn: str, shift: str) -> np.ndarray:
    """[4, 4] of a rotation (3x3 or Rodrigues vector) and a translation."""
    rotation = matrix(fields, turn, ((3, 3), (3,), (3, 1), (1, 3)))
    pose = np.eye(4)
    pose[:3, :3] = rotation if rotation.size == 9 else rodrigues(rotation.ravel())
    pose[:3, 3] = matrix(fields, shift, ((3,), (3, 1), (1, 3))).ravel()
    return pose


def _pose(fields: Fields, key: str, pose: np.ndarray, world_to_camera: bool, convention: str) -> np.ndarray:
    """[4, 4] camera-to-world with OpenGL axes."""
    check_pose(fields, key, pose)
    if world_to_camera:
        turn, shift = pose[:3, :3].T, pose[:3, 3].copy()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ shift
        check_pose(fields, key, pose)
    return pose * np.array([1, -1, -1, 1]) if convention == "opencv" else pose


def _listed_intrinsics(fields: Fields, size: tuple[int, int], center: float) -> tuple[tuple, tuple]:
    """Keys and values of fx, fy, cx, cy from single numbers, or from a field of view."""
    focals: list[float | None] = []
    keys: list[str] = []
    for axis, length in (("x", size[0]), ("y", size[1])):
        key = fields.first((f"f{axis}", f"fl_{axis}")) or fields.first((f"fov_{axis}_deg", f"camera_angle_{axis}"))
        value = None if key is None else fields.number(key)
        if key is not None and not key.startswith("f" + axis) and not key.startswith("fl_"):
            angle = math.radians(value) if key.endswith("deg") else value
            value = _focal(fields, key, angle, length)
        focals.append(value)
        keys.append(key or "fx")
    fov = fields.number("fov")
    if focals == [None, None] and fov is not None:
        if fov <= math.pi:
            message = f"is {fov:g}: it is the horizontal field of view in degrees, and looks like radians"
            raise fields.fail("fov", message, "write camera_angle_x for radians, fov_x_deg for degrees")
        focals, keys = [_focal(fields, "fov", math.radians(fov), size[0])] * 2, ["fov"] * 2
    if focals == [None, None]:
        raise fields.fail("K", "is missing", "give K (3x3), or fx, fy, cx, cy, or fov_x_deg")
    for axis, other in ((0, 1), (1, 0)):  # one focal length alone means square pixels
        if focals[axis] is None:
            focals[axis], keys[axis] = focals[other], keys[other]
    middle = [fields.number(f"c{axis}") for axis in "xy"]
    middle = [side / 2 if value is None else value + center for value, side in zip(middle, size, strict=True)]
    return (*keys, "cx", "cy"), (*focals, *middle)


def _focal(fields: Fields, key: str, angle: float, length: int) -> float:
    if not 0 < angle < math.pi:
        raise fields.fail(key, f"comes to {angle:g} radians, must be between 0 and pi", "give the whole field of view")
    return length / 2 / math.tan(angle / 2)


def _lens(fields: Fields, intrinsics: tuple, size: tuple[int, int]) -> Lens | None:
    fisheye = fields.get("fisheye")
    if fisheye not in (None, True, False):
        raise fields.fail("fisheye", f"is {short(fisheye)}, must be true or false", "write it without quotes")
    model = fields.text("camera_model", fields.get("camera_model")) or "OPENCV"
    model = "OPENCV_FISHEYE" if fisheye or "FISHEYE" in model.upper() else "OPENCV"
    key = fields.first(TERMS_KEYS)
    terms = np.zeros(0) if key is None else matrix(fields, key, ((-1,), (-1, 1), (1, -1))).ravel()
    count = len(TERMS[model])
    if len(terms) > count and not terms[count:].any():  # OpenCV pads with zeros up to 14
        terms = terms[:count]
    return make_lens(fields, key or "distortion", model, tuple(terms), intrinsics, size)
