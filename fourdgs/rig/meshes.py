"""Rigs from plain meshes of one topology: a sequence over time, or one mesh an expression."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingDependency
from .linear import LinearRig
from .names import arkit_name
from .sequence import SequenceRig


@dataclass(frozen=True, eq=False)
class Shape:
    """One mesh: points [V, 3], faces [F, 3], uv [V, 2] or None."""

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None


def mesh_files(folder: Path) -> list[Path]:
    """The OBJ and PLY files of a folder, counted as people do (frame2 before frame10)."""
    found = [file for file in folder.iterdir() if file.suffix.lower() in (".obj", ".ply") and file.name[0] != "."]
    return sorted(found, key=lambda file: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", file.name.lower())])


def load_sequence_rig(path: str | Path, times: np.ndarray | None = None) -> SequenceRig:
    """A sequence from an .npz or from a folder of OBJ or PLY files, one a time, in the order of their numbers.

    The .npz holds ``vertices`` [K, V, 3] and ``faces`` [F, 3], and may hold ``times`` [K] and ``uv`` [V, 2].

    Args:
        times: [K] rising; by default the file's, or spread evenly over [0, 1].

    Raises:
        InputError: nothing can be read, or a mesh has another topology than the first; the text names it.
        MissingDependency: a PLY without trimesh.
    """
    path = Path(path)
    if path.is_dir():
        files = mesh_files(path)
        if not files:
            raise InputError("holds no OBJ or PLY mesh", file=path, remedy="give a folder of one mesh a time")
        shapes = _of_one_topology(files)
        frames, first, uv = np.stack([shape.points for shape in shapes]), shapes[0].faces, shapes[0].uv
    else:
        arrays = _read_npz(path)
        frames, first, uv = arrays["vertices"], arrays["faces"], arrays.get("uv")
        times = arrays.get("times") if times is None else times
        if frames.ndim != 3 or frames.shape[2] != 3 or not len(frames):
            raise InputError(f"has shape {list(frames.shape)}, must be [K, V, 3]", file=path, field="vertices")
        if first.ndim != 2 or first.shape[1] != 3 or first.dtype.kind not in "iu":
            raise InputError("must be whole numbers of shape [F, 3]", file=path, field="faces")
    try:
        return SequenceRig.make(frames, first.astype(np.int64), times, uv=uv)
    except InputError as error:
        raise InputError(str(error), file=path) from error


def load_deltas_rig(neutral: str | Path, folder: str | Path) -> LinearRig:
    """Face actions from a neutral mesh and a folder with one mesh an expression, as ICT-FaceKit has them.

    An action is the mesh's difference from the neutral one and has its file's name, in ARKit's spelling where it is one
    of ARKit's actions (``eyeBlink_L.obj`` is eyeBlinkLeft). A file that is the neutral one is left out.

    Raises:
        InputError: a mesh cannot be read, has another topology than the neutral one, or the folder holds none.
    """
    neutral, folder = Path(neutral), Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder", file=folder)
    files = [file for file in mesh_files(folder) if file.resolve() != neutral.resolve()]
    if not files:
        raise InputError("holds no expression", file=folder, remedy="give a folder of one OBJ or PLY an action")
    names = [arkit_name(file.stem) for file in files]
    twice = next((file for file, name in zip(files, names, strict=True) if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("is an action that another file is, too", file=twice, remedy="keep one of them")
    base, *shapes = _of_one_topology([neutral, *files])
    deltas = np.stack([shape.points - base.points for shape in shapes])
    try:
        return LinearRig.make(base.points, base.faces, names, deltas, uv=base.uv)
    except InputError as error:
        raise InputError(str(error), file=neutral) from error


def read_shape(path: Path) -> Shape:
    """A mesh from an OBJ or PLY, its vertices in the order of the file.

    Raises:
        InputError: it cannot be read or holds no triangle. MissingDependency: a PLY without trimesh.
    """
    shape = _read_obj(path) if path.suffix.lower() == ".obj" else _read_ply(path)
    if not len(shape.faces):
        raise InputError("holds no triangle", file=path)
    if not 0 <= shape.faces.min() <= shape.faces.max() < len(shape.points):
        raise InputError(f"a face names a vertex outside its {len(shape.points)}", file=path, remedy="export it anew")
    if not np.isfinite(shape.points).all():
        raise InputError("holds a vertex that is not finite", file=path)
    return shape


def _of_one_topology(files: list[Path]) -> list[Shape]:
    shapes = [read_shape(file) for file in files]
    first = shapes[0]
    for file, shape in zip(files, shapes, strict=True):
        if len(shape.points) != len(first.points):
            message = f"has {len(shape.points)} vertices, {files[0].name} has {len(first.points)}"
        elif not np.array_equal(shape.faces, first.faces):
            message = f"has other triangles than {files[0].name}"
        else:
            continue
        remedy = "export all meshes with the order of their vertices kept"
        raise InputError(message, file=file, field="topology", remedy=remedy)
    return shapes


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("vertices", "faces", "times", "uv") if name in stored}
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        remedy = "save it with numpy.savez(path, vertices=..., faces=...)"
        raise InputError(f"cannot be read: {error}", file=path, remedy=remedy) from error
    for name in ("vertices", "faces"):
        if name not in arrays:
            raise InputError("is missing", file=path, field=name, remedy="save vertices [K, V, 3] and faces [F, 3]")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            kind = getattr(array, "dtype", "bytes")
            raise InputError(f"holds {kind}, must be numbers", file=path, field=name)
    return arrays


def _read_obj(path: Path) -> Shape:
    """Vertices stay as they are; a polygon is a fan; each vertex keeps the first texture coordinate it is given."""
    points: list[list[str]] = []
    texcoords: list[list[str]] = []
    faces: list[tuple[int, int, int]] = []
    worn: dict[int, int] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                kind, *words = line.split() or [""]
                if kind == "v":
                    points.append(words[:3])
                elif kind == "vt":
                    texcoords.append(words[:2])
                elif kind == "f":
                    corners = []
                    for word in words:
                        vertex, _, rest = word.partition("/")
                        corners.append(_from_zero(vertex, len(points)))
                        if rest and rest[0] != "/":
                            worn.setdefault(corners[-1], _from_zero(rest.partition("/")[0], len(texcoords)))
                    faces += [(corners[0], b, c) for b, c in zip(corners[1:-1], corners[2:], strict=True)]
        table = np.array(points, np.float64).reshape(-1, 3)
        uv = None
        if texcoords:
            uv = np.zeros((len(table), 2))
            uv[list(worn)] = np.array(texcoords, np.float64)[list(worn.values())]
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"cannot be read as OBJ: {error}", file=path, remedy="export it anew") from error
    return Shape(table, np.array(faces, np.int64).reshape(-1, 3), uv)


def _from_zero(word: str, count: int) -> int:
    """OBJ counts from 1, or backwards from the last."""
    number = int(word)
    return number - 1 if number > 0 else count + number


def _read_ply(path: Path) -> Shape:
    try:
        import trimesh
    except ImportError as error:
        raise MissingDependency("PLY meshes need the package trimesh: pip install trimesh") from error
    if not path.is_file():
        raise InputError("there is no such file", file=path)
    try:
        mesh = trimesh.load(path, process=False)
        return Shape(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))
    except Exception as error:  # trimesh may fail in any way on a damaged file
        raise InputError(f"cannot be read as a PLY mesh: {error}", file=path, remedy="export it anew") from error
