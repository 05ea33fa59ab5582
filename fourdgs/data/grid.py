"""Pictures of any mesh from every camera at every time, as a capture; made over as many runs as it takes.

Until the capture is whole it lies in ``<folder>.part``; see `streaming` for how an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..cameras import Cameras, orbit
from ..capture import SPLITS, Capture
from ..errors import InputError, command_line
from ..files import hash_json
from .meshes import Mesh, load_mesh
from .orbit import choose_engine, choose_supersample
from .streaming import growing_folder, is_whole, read_recipe, say, stream_pictures
from .transforms import write_transforms

VERSION = 1
"""Counts up whenever the same recipe would give other pictures."""

_MARGIN = 1.05  # of the distance at which the ball around a mesh just fills the picture


def render_grid(
    mesh: Any,
    cameras: Cameras,
    times: Sequence[float | None],
    folder: str | Path,
    *,
    motion: Callable[[float | None], np.ndarray] | None = None,
    size: int | tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    source: str = "grid",
    split: str = "train",
    test_cameras: Sequence[int] = (),
    test_times: Sequence[int] = (),
    engine: str = "auto",
    supersample: int | None = None,
    shading: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Draw a mesh from each of C cameras at each of T times, into a folder that `load_capture` reads.

    Interrupted at any moment, the same call later goes on where this one stood; see the module's words. A call with
    other splits alone draws nothing again.

    Args:
        mesh: see `load_mesh`. motion: time -> [V, 3]; see `Mesh`.
        cameras: C of one picture size, which need no times.
        times: T different ones in [0, 1], or None for a still of the mesh at rest; ``[None]`` = C stills.
        folder: pictures go to ``<source>/<camera>/<number of the time>.png`` in it.
        size: of the pictures, (width, height) or the width (height in proportion); None = that of the cameras.
        names: C names of the cameras; None: numbered after the source.
        split: of all frames but those held out.
        test_cameras, test_times: positions (from 0) in ``cameras`` and in ``times``; the frames of either are held out,
            as split ``test``.
        engine, supersample, shading: see `render_mesh`; "auto" takes nvdiffrast where it can.
        overwrite: replace what was made, or begun, in ``folder`` with another recipe.
        progress: show a bar, and say where the pictures lie.

    Returns:
        The folder.

    Raises:
        InputError: the mesh or an argument cannot be used, times are asked of a mesh that does not move, or the folder
            holds something else.
        MissingDependency: the engine is not on the machine.
        OutputError: the folder cannot be written or the disk is full; what was drawn is kept.
    """
    folder = Path(folder)
    times = _checked_times(times)
    mesh = load_mesh(mesh, motion)
    if mesh.motion is None and any(time is not None for time in times):
        raise InputError(
            "the mesh does not move, so that pictures at other times would be copies of one another",
            field="times",
            remedy="give [None] for stills, or a motion",
        )
    cameras = _sized(cameras, size)
    names = _checked_names(names, source, len(cameras))
    if split not in SPLITS:
        raise InputError(f"is {split!r}, must be one of {', '.join(SPLITS)}", field="split")
    splits = np.full((len(cameras), len(times)), split, object)
    splits[_positions(test_cameras, len(cameras), "test_cameras"), :] = "test"
    splits[:, _positions(test_times, len(times), "test_times")] = "test"
    recipe = {
        "grid": VERSION,
        "mesh": _mesh_hash(mesh, times),
        "cameras": _hash_arrays([cameras.viewmats.numpy(), cameras.Ks.numpy()]),
        "names": names,
        "times": list(times),
        "size": [cameras.width, cameras.height],
        "source": source,
        "engine": choose_engine(engine),
        "supersample": choose_supersample(supersample, cameras),
        "shading": bool(shading),
    }
    note = {"splits": hash_json(splits.tolist())}
    files = [f"{source}/{name}/{number:04d}.png" for name in names for number in range(len(times))]
    everything = cameras[np.repeat(np.arange(len(cameras)), len(times))]
    everything = everything.with_times([math.nan if time is None else time for time in times] * len(cameras))
    if _is_finished(folder, recipe, note, files, everything):
        say(progress, f"{folder.resolve()}: all {len(files)} pictures are there already")
        return folder
    with growing_folder(folder, recipe, "grid", overwrite=overwrite, note=note, progress=progress) as part:
        stream_pictures(
            mesh, everything, [(file,) for file in files], part, engine=recipe["engine"],
            supersample=recipe["supersample"], shading=shading, progress=progress, description=folder.name,
        )  # fmt: skip
        table = {
            "frame": [file.removesuffix(".png") for file in files],
            "camera": np.repeat(names, len(times)),
            "time": everything.times.double().numpy(),
            "source": source,
            "split": splits.ravel(),
            "image": [str(part / file) for file in files],
            "mask": "",
            "width": cameras.width,
            "height": cameras.height,
        }
        write_transforms(Capture(part, pd.DataFrame(table), everything), part, pictures="keep")
    say(progress, f"{len(files)} pictures are in {folder.resolve()}")
    return folder


def ring_cameras(
    mesh: Any,
    count: int,
    *,
    elevations_deg: Sequence[float] = (2.0, 20.0),
    radius: float | None = None,
    fov_x_deg: float = 30.0,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    size: int | tuple[int, int] = 400,
    times: Sequence[float | None] = (None,),
) -> Cameras:
    """Cameras around a mesh, evenly in azimuth, each on the next of the rings of given elevations.

    Args:
        mesh: see `load_mesh`; the cameras look at the middle of its box.
        radius: distance from there; None: so that the mesh fits into the picture at all of ``times``.
        up: which way is up in the mesh's world, e.g. (0, 0, 1).
        size: (width, height), or both.

    Raises:
        InputError: the mesh cannot be used, a number cannot be.
    """
    width, height = (size, size) if isinstance(size, int | np.integer) else size
    mesh = load_mesh(mesh)
    boxes = np.array([[points.min(axis=0), points.max(axis=0)] for points in map(mesh.vertices, times)], np.float64)
    middle = (boxes[:, 0].min(axis=0) + boxes[:, 1].max(axis=0)) / 2
    if radius is None:
        half = math.radians(fov_x_deg) / 2
        half = min(half, math.atan(math.tan(half) * height / width))
        reach = max(float(np.linalg.norm(points - middle, axis=1).max()) for points in map(mesh.vertices, times))
        radius = _MARGIN * reach / math.sin(half)
    if not len(elevations_deg):
        raise InputError("gives no ring", field="elevations_deg")
    rings = [
        orbit(count, radius, float(elevation), target=middle, up=up, fov_x_deg=fov_x_deg, width=width, height=height)
        for elevation in elevations_deg
    ]
    return Cameras.concatenate([rings[index % len(rings)][index] for index in range(len(rings[0]))])


def _is_finished(folder: Path, recipe: dict, note: dict, files: list[str], cameras: Cameras) -> bool:
    there = read_recipe(folder)
    if any(there.get(key) != value for key, value in {"hash": hash_json(recipe), **note}.items()):
        return False
    sizes = cameras.sizes.tolist()
    return any(folder.glob("transforms*.json")) and all(
        is_whole(folder / file, size) for file, size in zip(files, sizes, strict=True)
    )


# --- what is asked for ------------------------------------------------------------------------------------------


def _checked_times(times: Sequence[float | None]) -> list[float | None]:
    values = [None if time is None or math.isnan(time) else float(time) for time in times]
    if not values:
        raise InputError("is empty", field="times", remedy="give [None] for stills")
    outside = [time for time in values if time is not None and not 0 <= time <= 1]
    if outside:
        raise InputError(f"holds {outside[0]:g}, must be in [0, 1]", field="times", remedy="divide by the last time")
    if len(set(values)) < len(values):
        raise InputError("holds a time twice", field="times", remedy="give each once")
    return values


def _sized(cameras: Cameras, size: int | tuple[int, int] | None) -> Cameras:
    if not len(cameras):
        raise InputError("there is none", field="cameras")
    width, height = cameras.width, cameras.height
    if isinstance(size, int | np.integer):
        size = (int(size), max(1, round(int(size) * height / width)))
    return cameras.to("cpu") if size is None or tuple(size) == (width, height) else cameras.to("cpu").resized(*size)


def _checked_names(names: Sequence[str] | None, source: str, count: int) -> list[str]:
    """The names of the cameras; they and the source name folders, so they must be able to."""
    if names is None:
        names = [f"{source}{index:0{max(2, len(str(count - 1)))}d}" for index in range(count)]
    names = [str(name) for name in names]
    if len(names) != count or len({name.lower() for name in names}) != count:
        raise InputError(f"must be {count} different names", field="names")
    for field, name in [("source", source), *(("names", name) for name in names)]:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(f"{name!r} cannot name a folder", field=field, remedy="use letters, digits, _ . -")
    return names


def _positions(positions: Sequence[int], count: int, field: str) -> list[int]:
    wrong = [position for position in positions if not 0 <= position < count]
    if wrong:
        raise InputError(f"names {wrong[0]}, must be from 0 to {count - 1}", field=field)
    return list(positions)


def _mesh_hash(mesh: Mesh, times: Sequence[float | None]) -> str:
    """Of all that is drawn of a mesh, at the times at which it is."""
    fixed = (mesh.faces, mesh.uv, mesh.texture, mesh.colors, mesh.weld, mesh.texture_of, *mesh.textures)
    return _hash_arrays(itertools.chain(fixed, map(mesh.vertices, times)))


def _hash_arrays(arrays: Iterable[np.ndarray | None]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            array = np.ascontiguousarray(array)
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        digest.update(b"|")
    return digest.hexdigest()


# --- command line -----------------------------------------------------------------------------------------------


@command_line
def main(arguments: list[str] | None = None) -> int:
    """``python -m fourdgs.data.grid --mesh model.glb --cameras 24 --times 1 --size 1024 --out folder``."""
    parser = argparse.ArgumentParser(
        prog="python -m fourdgs.data.grid",
        description="Pictures of a mesh from all around, as a capture. Interrupted, the same command goes on.",
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--mesh", help="a file: glTF, OBJ, PLY, STL, ...")
    subject.add_argument("--avatar", action="store_true", help="the embedded avatar, which talks")
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--cameras", type=int, default=24)
    parser.add_argument("--times", type=int, default=1, help="how many, from 0 to 1; 1 = stills, with no time")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[400], metavar="PIXELS", help="width, and height if not the same"
    )
    parser.add_argument(
        "--elevations", type=float, nargs="+", default=[2.0, 20.0], metavar="DEGREES", help="rings, taken in turn"
    )
    parser.add_argument("--radius", type=float, help="distance of the cameras; by default such that the mesh fits")
    parser.add_argument("--fov", type=float, default=30.0, help="horizontal, degrees")
    parser.add_argument("--up", choices=("x", "y", "z"), default="y", help="the mesh's axis that points upwards")
    parser.add_argument("--test-cameras", type=int, nargs="*", default=[], help="held out; they count from 0")
    parser.add_argument("--test-times", type=int, nargs="*", default=[], help="held out; they count from 0")
    parser.add_argument("--source", default="grid")
    parser.add_argument("--engine", choices=("auto", "pyvista", "nvdiffrast"), default="auto")
    parser.add_argument("--supersample", type=int, help="a pixel is the mean of this many samples squared")
    parser.add_argument("--seed", type=int, default=0, help="of the avatar")
    parser.add_argument("--overwrite", action="store_true", help="replace what has another recipe")
    given = parser.parse_args(arguments)
    if len(given.size) > 2:
        parser.error("--size takes one or two numbers")
    if given.times < 1:
        raise InputError(f"is {given.times}, must be at least 1", field="times")
    times = [None] if given.times == 1 else [float(time) for time in np.linspace(0, 1, given.times)]
    mesh = _subject(given)
    cameras = ring_cameras(
        mesh, given.cameras, elevations_deg=given.elevations, radius=given.radius, fov_x_deg=given.fov,
        up=np.eye(3)["xyz".index(given.up)], size=(given.size[0], given.size[-1]), times=times,
    )  # fmt: skip
    render_grid(
        mesh, cameras, times, given.out, source=given.source, test_cameras=given.test_cameras,
        test_times=given.test_times, engine=given.engine, supersample=given.supersample, overwrite=given.overwrite,
    )  # fmt: skip
    return 0


def _subject(given: argparse.Namespace) -> Mesh:
    if not given.avatar:
        return load_mesh(given.mesh)
    from . import avatar

    return load_mesh(avatar.build(given.seed))


if __name__ == "__main__":
    sys.exit(main())
