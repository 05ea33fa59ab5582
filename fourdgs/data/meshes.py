"""Triangle meshes that can be drawn: from files, from pyvista, from trimesh, from the avatar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

GREY = 190
"""Each channel of what has neither a texture nor colours."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles that can be drawn.

    Attributes:
        points: [V, 3] float, at rest. faces: [F, 3] int64.
        uv: [V, 2] texture coordinates, (0, 0) at the picture's left-bottom corner, or None.
        texture: [h, w, 3] uint8 sRGB, that all triangles wear, or None.
        colors: [V, 3] uint8, or None (white under a texture, else grey); they multiply the texture.
        motion: time in [0, 1] or None (at rest) -> [V, 3], or None for a mesh that does not move.
        weld: [V] int, equal for vertices that share a place (texture seams), or None: found by position.
        textures: of a mesh of several parts, like ``texture``, which is None then.
        texture_of: [F] int, which of ``textures`` a triangle wears; -1 = none, its colours alone.

    Raises:
        InputError: the parts do not fit together (shapes, a texture without coordinates, a number of no texture).
    """

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None
    motion: Callable[[float | None], np.ndarray] | None = None
    weld: np.ndarray | None = None
    textures: tuple[np.ndarray, ...] = ()
    texture_of: np.ndarray | None = None

    def __post_init__(self) -> None:
        count, pictures = len(self.points), (*self.textures, *(() if self.texture is None else (self.texture,)))
        for name, value, shape in (
            ("points", self.points, (count, 3)),
            ("faces", self.faces, (len(self.faces), 3)),
            ("uv", self.uv, (count, 2)),
            ("colors", self.colors, (count, 3)),
            ("texture_of", self.texture_of, (len(self.faces),)),
            *(("texture", picture, (*picture.shape[:2], 3)) for picture in pictures),
        ):
            if value is not None and value.shape != shape:
                raise InputError(f"{name} has shape {list(value.shape)}, must be {list(shape)}", field="mesh")
        if len(self.faces) and not 0 <= self.faces.min() <= self.faces.max() < count:
            raise InputError(f"a triangle names a vertex outside 0 to {count - 1}", field="mesh")
        if self.textures and (self.texture is not None or self.texture_of is None):
            raise InputError("textures go with texture_of, and without texture", field="mesh")
        if self.textures and self.uv is None:
            raise InputError("textures need uv", field="mesh")
        worn = self.texture_of if self.texture_of is not None else np.zeros(0, int)
        if len(worn) and not -1 <= worn.min() <= worn.max() < len(self.textures):
            raise InputError(f"texture_of is outside -1 to {len(self.textures) - 1}", field="mesh")

    @property
    def is_textured(self) -> bool:
        """Whether any triangle wears a texture."""
        return any(texture is not None for _, texture in self.looks())

    def looks(self) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The triangles [f, 3] by the texture they wear (None = their vertices' colours alone); none is empty."""
        if self.texture_of is None:
            return [(self.faces, self.texture if self.uv is not None else None)]
        return [
            (self.faces[self.texture_of == number], None if number < 0 else self.textures[number])
            for number in np.unique(self.texture_of)
        ]

    def vertices(self, time: float | None) -> np.ndarray:
        """[V, 3] at a time; None = at rest."""
        return self.points if self.motion is None else self.motion(time)


def load_mesh(source: Any, motion: Callable[[float | None], np.ndarray] | None = None) -> Mesh:
    """A mesh from a file or an object; all parts of a file, each with its own texture and colour.

    Args:
        source: a path that pyvista or trimesh reads (PLY, OBJ, STL, VTP, glTF, ...), a ``pyvista.DataSet``, a
            ``trimesh.Trimesh`` or ``Scene``, a `Mesh`, or anything with a ``mesh()`` method that returns one (the
            avatar).
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
        return _convert(trimesh.load(path, process=False))
    except Exception as error:  # a reader may fail in any way on a file that is not its own
        errors.append(f"trimesh: {error}")
    try:
        return pv.read(path)
    except Exception as error:
        errors.append(f"pyvista: {error}")
    raise InputError(f"cannot be read as a mesh: {'; '.join(errors)}", file=path)


def _convert(source: Any) -> Mesh:
    """From pyvista's or trimesh's objects."""
    if hasattr(source, "geometry") and hasattr(source, "graph"):
        # Sorted, so that the same file gives the same order of vertices every time.
        placed = [(source.graph[node], node) for node in sorted(source.graph.nodes_geometry)]
        return _join([_part(source.geometry[name], place) for (place, name), _ in placed])
    if hasattr(source, "visual") and hasattr(source, "faces"):
        return _join([_part(source, np.eye(4))])
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


@dataclass(frozen=True, eq=False)
class _Part:
    """One geometry of a scene, where the scene puts it; ``image`` is a PIL picture."""

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    image: Any = None
    colors: np.ndarray | None = None


def _part(geometry: Any, place: np.ndarray) -> _Part:
    """From a trimesh geometry and its [4, 4] transform; what has no triangles (points, lines) gives an empty part."""
    if not hasattr(geometry, "visual") or not hasattr(geometry, "faces"):
        return _Part(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    points, faces = np.asarray(geometry.vertices, np.float64), np.asarray(geometry.faces, np.int64)
    if not np.array_equal(place, np.eye(4)):
        points = points @ place[:3, :3].T + place[:3, 3]
        if np.linalg.det(place[:3, :3]) < 0:  # a mirrored part shows its triangles from behind
            faces = faces[:, ::-1]
    visual = geometry.visual
    uv, material = getattr(visual, "uv", None), getattr(visual, "material", None)
    factor = getattr(material, "baseColorFactor", None)
    if factor is not None:
        # glTF 2.0, 3.9.2: linear values, multiplied in linear light. Encoding is close to a power, so that a product
        # of encoded values is close to the encoded product.
        factor = np.rint(255 * _encode(np.asarray(factor, np.float64)[:3] / 255)).astype(np.uint8)
        factor = np.broadcast_to(factor, (len(points), 3))
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uv is not None and len(uv) == len(points) and image is not None:
        tint = None if factor is None or (factor == 255).all() else factor
        return _Part(points, faces, np.asarray(uv, np.float64), image, tint)
    colors = factor
    if colors is None and getattr(visual, "kind", None) is not None:
        colors = visual.to_color().vertex_colors if hasattr(visual, "to_color") else visual.vertex_colors
    colors = None if colors is None or len(colors) != len(points) else np.asarray(colors)[:, :3]
    return _Part(points, faces, colors=colors)


def _join(parts: list[_Part]) -> Mesh:
    """One mesh of all parts that have triangles."""
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    images: list[Any] = []
    for part in parts:
        if part.image is not None and not any(part.image is image for image in images):
            images.append(part.image)
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    points = np.concatenate([part.points for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    colors = None
    if any(part.colors is not None for part in parts) or (images and any(part.image is None for part in parts)):
        plain = [part.colors if part.colors is not None else _plain(part) for part in parts]
        colors = np.ascontiguousarray(np.concatenate(plain))
    if not images:
        return Mesh(points, faces, colors=colors)
    uv = np.concatenate([part.uv if part.image is not None else np.zeros((len(part.points), 2)) for part in parts])
    textures = tuple(np.asarray(image.convert("RGB")) for image in images)
    if len(images) == 1 and all(part.image is not None for part in parts):
        return Mesh(points, faces, uv, textures[0], colors)
    numbers = [next((i for i, image in enumerate(images) if image is part.image), -1) for part in parts]
    worn = np.repeat(numbers, [len(part.faces) for part in parts])
    return Mesh(points, faces, uv, None, colors, textures=textures, texture_of=worn)


def _plain(part: _Part) -> np.ndarray:
    """The [V, 3] colours of a part that brings none: white, which leaves a texture as it is, or grey."""
    return np.full((len(part.points), 3), GREY if part.image is None else 255, np.uint8)


def _encode(linear: np.ndarray) -> np.ndarray:
    """sRGB-encoded values of linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
