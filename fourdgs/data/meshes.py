"""Triangle meshes that can be drawn: from files, from pyvista, from trimesh, from the avatar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles that can be drawn.

    Attributes:
        points: [V, 3] float, at rest. faces: [F, 3] int64.
        uv: [V, 2] texture coordinates, (0, 0) at the picture's left-bottom corner, or None.
        texture: [h, w, 3] uint8, or None.
        colors: [V, 3] uint8, used where there is no texture, or None (grey).
        motion: time in [0, 1] or None (at rest) -> [V, 3], or None for a mesh that does not move.
        weld: [V] int, equal for vertices that share a place (texture seams), or None: found by position.
    """

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None
    motion: Callable[[float | None], np.ndarray] | None = None
    weld: np.ndarray | None = None

    def vertices(self, time: float | None) -> np.ndarray:
        """[V, 3] at a time; None = at rest."""
        return self.points if self.motion is None else self.motion(time)


def load_mesh(source: Any, motion: Callable[[float | None], np.ndarray] | None = None) -> Mesh:
    """A mesh from a file or an object.

    Args:
        source: a path that pyvista or trimesh reads (PLY, OBJ, STL, VTP, glTF, ...), a ``pyvista.DataSet``, a
            ``trimesh.Trimesh``, a `Mesh`, or anything with a ``mesh()`` method that returns one (the avatar).
        motion: what moves it; see `Mesh`.

    Raises:
        InputError: the file is missing, cannot be read or holds no triangle.
        MissingDependency: pyvista is not installed.
    """
    if hasattr(source, "mesh") and callable(source.mesh):
        source = source.mesh()
    name = None
    if isinstance(source, str | Path):
        name = Path(source)
        source = _read_mesh(name)
    mesh = source if isinstance(source, Mesh) else _convert(source)
    if not len(mesh.faces):
        raise InputError("holds no triangle", file=name, field="mesh")
    if not np.isfinite(mesh.points).all():
        raise InputError("holds a vertex that is not finite", file=name, field="mesh")
    if motion is None:
        return mesh
    return replace(mesh, motion=motion)


def weld_places(points: np.ndarray) -> np.ndarray:
    """[V] int, equal for vertices [V, 3] at one place."""
    span = float(np.ptp(points, axis=0).max()) or 1.0
    return np.unique(np.round(points / span, 7), axis=0, return_inverse=True)[1].reshape(-1)


def _read_mesh(path: Path) -> Any:
    if not path.is_file():
        raise InputError("there is no such file", file=path, field="mesh")
    import pyvista as pv

    errors = []
    try:
        import trimesh

        # trimesh first: it brings textures along.
        return trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # a reader may fail in any way on a file that is not its own
        errors.append(f"trimesh: {error}")
    try:
        return pv.read(path)
    except Exception as error:
        errors.append(f"pyvista: {error}")
    raise InputError(f"cannot be read as a mesh: {'; '.join(errors)}", file=path)


def _convert(source: Any) -> Mesh:
    """From pyvista's or trimesh's objects."""
    if hasattr(source, "visual") and hasattr(source, "faces"):
        points, faces = np.asarray(source.vertices, np.float64), np.asarray(source.faces, np.int64)
        uv, material = getattr(source.visual, "uv", None), getattr(source.visual, "material", None)
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if uv is not None and image is not None:
            return Mesh(points, faces, np.asarray(uv), np.asarray(image.convert("RGB")))
        colors = getattr(source.visual, "vertex_colors", None)
        if colors is None and hasattr(source.visual, "to_color"):
            colors = source.visual.to_color().vertex_colors
        colors = None if colors is None or len(colors) != len(points) else np.asarray(colors)[:, :3]
        return Mesh(points, faces, colors=colors)
    if hasattr(source, "extract_surface"):
        surface = source.extract_surface(algorithm="dataset_surface").triangulate()
        faces = np.asarray(surface.faces, np.int64).reshape(-1, 4)[:, 1:]
        active = surface.active_scalars if surface.active_scalars_name else None
        for name in ("RGB", "RGBA", "colors"):
            active = surface.point_data[name] if name in surface.point_data else active
        colors = None
        if active is not None and active.dtype == np.uint8 and active.ndim == 2 and len(active) == surface.n_points:
            colors = np.asarray(active)[:, :3]
        return Mesh(np.asarray(surface.points, np.float64), faces, colors=colors)
    raise InputError(f"is a {type(source).__name__}, must be a path, a pyvista or a trimesh mesh", field="mesh")
