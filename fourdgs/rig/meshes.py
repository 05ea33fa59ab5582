"""Rigs from plain meshes of one topology: a sequence over time, or one mesh an expression."""

from __future__ import annotations

import functools
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..drive.names import plain_name
from ..errors import InputError, MissingDependency
from .linear import LinearRig
from .names import whole_actions
from .sequence import SequenceRig


@dataclass(frozen=True, eq=False)
class Shape:
    """One mesh: points [V, 3], faces [F, 3], uv [V, 2] or None, colors [V, 3] uint8 sRGB or None."""

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    colors: np.ndarray | None = None


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
        frames, first = np.stack([shape.points for shape in shapes]), shapes[0].faces
        uv, colors = shapes[0].uv, shapes[0].colors
    else:
        arrays = _read_npz(path)
        frames, first, uv, colors = arrays["vertices"], arrays["faces"], arrays.get("uv"), None
        times = arrays.get("times") if times is None else times
        if frames.ndim != 3 or frames.shape[2] != 3 or not len(frames):
            raise InputError(f"has shape {list(frames.shape)}, must be [K, V, 3]", file=path, field="vertices")
        if first.ndim != 2 or first.shape[1] != 3 or first.dtype.kind not in "iu":
            raise InputError("must be whole numbers of shape [F, 3]", file=path, field="faces")
    try:
        return SequenceRig.make(frames, first.astype(np.int64), times, uv=uv, colors=colors)
    except InputError as error:
        raise InputError(str(error), file=path) from error


def load_deltas_rig(neutral: str | Path, folder: str | Path) -> LinearRig:
    """Face actions from a neutral mesh and a folder with one mesh an expression, as ICT-FaceKit has them.

    An action is the mesh's difference from the neutral one and has its file's name, in ARKit's spelling where it is one
    of ARKit's actions (``eyeBlink_L.obj`` is eyeBlinkLeft). Those of ARKit's actions that are there in halves
    (``browInnerUp_L`` and ``_R``, ``cheekPuff_L`` and ``_R``) are controls as well. The neutral file is left out, and
    so are ICT-FaceKit's shapes of people (``identity042.obj``), which are no expressions.

    Raises:
        InputError: a mesh cannot be read, has another topology than the neutral one, or the folder holds none.
    """
    neutral, folder = Path(neutral), Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder", file=folder)
    files = [file for file in mesh_files(folder) if file.resolve() != neutral.resolve()]
    files = [file for file in files if not re.fullmatch(r"identity\d+", file.stem.lower())]
    if not files:
        raise InputError("holds no expression", file=folder, remedy="give a folder of one OBJ or PLY an action")
    names = [plain_name(file.stem) for file in files]
    twice = next((file for file, name in zip(files, names, strict=True) if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("is an action that another file is, too", file=twice, remedy="keep one of them")
    base, *shapes = _of_one_topology([neutral, *files])
    deltas = np.stack([(shape.points - base.points).astype(np.float32) for shape in shapes])
    names, deltas = whole_actions(names, deltas)
    try:
        return LinearRig.make(base.points, base.faces, names, deltas, uv=base.uv, colors=base.colors)
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
    try:
        text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
        rows: dict[str, list[str]] = {"v": [], "vt": [], "f": []}
        for line in text.splitlines():
            kind, _, rest = line.strip().replace("\t", " ").partition(" ")
            if kind == "f" and "-" in rest:
                rest = " ".join(_from_start(word, len(rows["v"]), len(rows["vt"])) for word in rest.split())
            if kind in rows:
                rows[kind].append(rest)
        faces, worn = _faces_of("\n".join(rows["f"]))
        table = _numbers(rows["v"], 3)
        uv = None
        if rows["vt"]:
            uv = np.zeros((len(table), 2))
            uv[worn[:, 0]] = _numbers(rows["vt"], 2)[worn[:, 1], :2]
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"cannot be read as OBJ: {error}", file=path, remedy="export it anew") from error
    return Shape(table[:, :3], faces, uv, _obj_colors(table))


@functools.lru_cache(maxsize=1)
def _faces_of(block: str) -> tuple[np.ndarray, np.ndarray]:
    """[F, 3] triangles, and [n, 2] vertices with the texture coordinates they wear, of one face a line.

    Kept, because the meshes of a folder mostly have one text for their faces, which takes longest.
    """
    faces: list[tuple[int, int, int]] = []
    worn: dict[int, int] = {}
    for line in block.splitlines():
        corners = []
        for word in line.split():
            vertex, _, rest = word.partition("/")
            corners.append(int(vertex) - 1)
            if rest and rest[0] != "/":
                worn.setdefault(corners[-1], int(rest.partition("/")[0]) - 1)
        faces += [(corners[0], b, c) for b, c in zip(corners[1:-1], corners[2:], strict=True)]
    return np.array(faces, np.int64).reshape(-1, 3), np.array(list(worn.items()), np.int64).reshape(-1, 2)


def _from_start(word: str, points: int, texcoords: int) -> str:
    """A corner of a face with the numbers that count backwards from the last made to count from 1."""
    parts = [int(part) if part else None for part in word.split("/")[:2]]
    counts = (points, texcoords)
    parts = [
        count + 1 + part if part is not None and part < 0 else part for part, count in zip(parts, counts, strict=False)
    ]
    return "/".join("" if part is None else str(part) for part in parts)


def _numbers(rows: list[str], least: int) -> np.ndarray:
    """[n, w] of rows of numbers; w is as many as all of them have, at least ``least``."""
    words = [row.split() for row in rows]
    width = max(min(map(len, words), default=least), least)
    return np.array([word for row in words for word in row[:width]], np.float64).reshape(len(rows), width)


def _obj_colors(table: np.ndarray) -> np.ndarray | None:
    """[V, 3] uint8 of vertices that have their colours behind their places, as MeshLab and ZBrush write them."""
    if table.shape[1] < 6:
        return None
    shares = table[:, 3:6]
    return np.rint(np.clip(shares * (255 if shares.max(initial=0) <= 1 else 1), 0, 255)).astype(np.uint8)


def _read_ply(path: Path) -> Shape:
    try:
        import trimesh
    except ImportError as error:
        raise MissingDependency("PLY meshes need the package trimesh: pip install trimesh") from error
    if not path.is_file():
        raise InputError("there is no such file", file=path)
    try:
        mesh = trimesh.load(path, process=False)
        colors = np.asarray(mesh.visual.vertex_colors)[:, :3] if mesh.visual.kind == "vertex" else None
        return Shape(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), None, colors)
    except Exception as error:  # trimesh may fail in any way on a damaged file
        raise InputError(f"cannot be read as a PLY mesh: {error}", file=path, remedy="export it anew") from error
