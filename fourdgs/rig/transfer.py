"""A still mesh made talking: the actions and joints of a rig carried over to any mesh of a head and shoulders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..data.meshes import Mesh, load_mesh, weld_places
from ..errors import InputError
from .base import Rig
from .carry import NEAR, Motion, carried
from .check import edges_of
from .linear import LinearRig
from .registration import Finder, Shape, Warp, best_similarity, moved, outer, shape_of, similarity, warp_onto

FEWEST = 200
"""Places that a mesh must have to carry a face."""

WORST_FIT = 0.06
"""Mean distance from the mesh to the warped rig, in heights of the face, beyond which they are of different things."""

WORST_WARP = 0.12
"""Mean length of the warp, in heights of the face, beyond which it is no longer the same thing bent a little."""

_FITS = 0.1  # heights of the face off, both ways together: no smaller part of the rig is tried
_GROWTH = (0.6, 1.7)  # how far a place's moves may shrink and grow beyond the whole


@dataclass(frozen=True, eq=False)
class Transfer:
    """A rig on a mesh's own V vertices and triangles, and how far to trust it.

    Attributes:
        mesh: as it was given.
        uncertainty: [V] in [0, 1]; 0 = taken from a place that fits, 1 = guessed from the neighbours; in between also
            where the motion is steep, so that a small misfit shows.
        matched: [V] distance to the warped rig, the mesh's units. moved: what the registration did.
    """

    rig: LinearRig
    mesh: Mesh
    uncertainty: np.ndarray
    matched: np.ndarray
    moved: dict[str, Any]

    def drawn(self, performance: Callable[[float], Mapping[str, float]] | None = None) -> Mesh:
        """As `Rig.mesh`, in the mesh's own texture or colours."""
        posed = self.rig.mesh(performance)
        return replace(self.mesh, motion=posed.motion, weld=posed.weld)


def transfer(
    rig: Rig,
    mesh: Any,
    *,
    align: bool = True,
    landmarks: tuple[Any, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Transfer:
    """Make a still mesh move as a rig does, with the mesh's own vertices, triangles and place in the world.

    The rig's rest is brought onto the mesh (`registration`); each vertex takes motion and weights from the nearest
    place that faces its way; where none is near, or where two that move differently are, motion comes from the
    neighbours along the mesh, as in Abdrashitov et al., "Robust skin weights transfer via weight inpainting", SIGGRAPH
    Asia 2023. A mesh whose lips are one sheet keeps it: it stretches where the mouth opens, and is marked unsure.

    Args:
        mesh: whatever `load_mesh` takes; one head with its mouth closed and eyes open, as the rig's at rest.
        align: turn, scale and shift the rig first; False where it stands on the mesh already.
        landmarks: points [k, 3] of the rig's rest and where they are on the mesh [k, 3]; three or more replace the
            search for the turn, and all pull at the warp.
        progress: is told of each step.

    Raises:
        InputError: the rig has no actions, or the mesh is too small, torn, inside out, or no head that fits.
    """
    if not isinstance(rig, LinearRig) or not len(rig.deltas):
        raise InputError("has no actions to hand over", field="rig", remedy="give a LinearRig with face actions")
    mesh = load_mesh(mesh)
    weld = weld_places(mesh.points) if mesh.weld is None else mesh.weld
    target = shape_of(mesh.points, mesh.faces, weld)
    _check_mesh(target)
    _, first = np.unique(rig.weld.cpu().numpy(), return_index=True)
    motion = Motion.of(rig, first)
    rest = rig.rest.detach().cpu().double().numpy()
    source = shape_of(rest, rig.faces.cpu().numpy(), rig.weld.cpu().numpy())
    seen = outer(source), outer(target)
    if align and not min(map(np.sum, seen)) >= FEWEST // 4:
        raise InputError("hardly a place of it is seen from outside", field="mesh", remedy="turn its triangles round")
    marks = _landmarks(landmarks)
    matrix = _aligned(source, target, seen, marks, motion) if align else np.eye(4)
    growth = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    placed = source.at(moved(matrix, source.points))
    size = growth * motion.face_height(source.points)
    _check_place(placed, target, size, align)
    put = None if marks is None else (moved(matrix, marks[0]), marks[1])
    warp = warp_onto(placed, target, size, seen, put, progress)
    warped = source.at(warp(placed.points))
    shift = np.linalg.norm(warped.points - placed.points, axis=1) / size
    fit = _check_fit(warped, target, seen, size, float(shift[seen[0]].mean()))
    steps = warp.jacobians(placed.points, 0.06 * size)
    motion = motion.turned(_tamed(steps) @ matrix[:3, :3])
    values, unsure, gaps, bridges = carried(warped, motion, target, size)
    if progress is not None:
        progress("motion carried over")
    made = _made(rig, mesh, weld, target.place, values, motion, matrix, warp)
    about = {
        "turn_deg": float(np.degrees(Rotation.from_matrix(matrix[:3, :3] / growth).magnitude())),
        "growth": growth,
        "matrix": matrix.tolist(),
        "face_height": size,
        "warp_mean": float(shift[seen[0]].mean()),  # heights of the face, as the next two
        "warp_max": float(shift[seen[0]].max()),
        "fit": fit,
        "bridges": bridges,  # edges between places that belong to two lips, or to a lid and an eye
    }
    return Transfer(made, mesh, unsure[target.place], gaps[target.place], about)


def _tamed(maps: np.ndarray) -> np.ndarray:
    """Maps [n, 3, 3] whose growth is held within `_GROWTH`, and which mirror nothing."""
    u, growth, v = np.linalg.svd(maps)
    growth = np.clip(growth, *_GROWTH)
    growth[:, 2] *= np.sign(np.linalg.det(u @ v))
    return (u * growth[:, None]) @ v


# --- the rig ---


def _made(rig: LinearRig, mesh: Mesh, weld, place, values: np.ndarray, motion: Motion, matrix, warp: Warp):
    """The rig of the mesh: columns ``values`` [m, 3 D + J] of its places, and the joints moved along."""
    actions, joints = len(rig.deltas), len(rig.parents)
    deltas = values[place, : 3 * actions].reshape(-1, actions, 3).transpose(1, 0, 2)
    tiny = np.linalg.norm(deltas, axis=2, keepdims=True) < 1e-4 * np.abs(deltas).max()
    weights = np.clip(values[place, 3 * actions :], 0, None)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    parts: dict[str, Any] = {}
    if joints:
        frames = rig.frames.detach().cpu().double().numpy()
        worlds: list[np.ndarray] = []
        for parent, frame in zip(rig.parents, frames, strict=True):
            worlds.append(matrix @ frame if parent < 0 else worlds[parent] @ frame)
        shifted = [world.copy() for world in worlds]
        for world in shifted:
            world[:3, 3] = warp(world[None, :3, 3])[0]
        parts = {
            "parents": rig.parents,
            "weights": weights,
            "frames": np.stack(
                [
                    world if parent < 0 else np.linalg.inv(shifted[parent]) @ world
                    for parent, world in zip(rig.parents, shifted, strict=True)
                ]
            ),
            "binds": np.linalg.inv(np.stack(shifted)),
            "turns": rig.turns.detach().cpu(),
            "moves": rig.moves.detach().cpu(),
            "grows": rig.grows.detach().cpu(),
        }
    return LinearRig.make(
        mesh.points,
        mesh.faces,
        rig.controls,
        np.where(tiny, 0, deltas),
        weld=np.unique(weld, return_inverse=True)[1].reshape(-1),
        uv=mesh.uv,
        colors=_colors(mesh),
        neutral=rig.neutral.detach().cpu(),
        **parts,
    )


def _colors(mesh: Mesh) -> np.ndarray | None:
    """[V, 3] uint8: the mesh's colours, under its texture or textures where it has any."""
    colors = mesh.colors
    if mesh.uv is None:
        return colors
    colors = np.full((len(mesh.points), 3), 255, np.uint8) if colors is None else np.array(colors)
    for faces, texture in mesh.looks():
        if texture is None:
            continue
        whom = np.unique(faces)
        height, width = texture.shape[:2]
        column = np.clip((mesh.uv[whom, 0] % 1.000001 * width).astype(int), 0, width - 1)
        row = np.clip(((1 - mesh.uv[whom, 1] % 1.000001) * height).astype(int), 0, height - 1)
        colors[whom] = (texture[row, column].astype(float) * colors[whom] / 255).astype(np.uint8)
    return colors


# --- what cannot be used ---


def _check_mesh(target: Shape) -> None:
    def fail(message: str, remedy: str):
        raise InputError(message, field="mesh", remedy=remedy)

    points, faces = target.points, target.faces
    if len(points) < FEWEST or len(faces) < FEWEST:
        fail(f"has {len(points)} places and {len(faces)} triangles, too few for a face", f"give {FEWEST} or more")
    extent = np.ptp(points, axis=0)
    if extent.min() < 0.02 * extent.max():
        fail("is flat", "give a head with its depth")
    _, counts, ways = edges_of(faces)
    torn = (counts == 1).mean()
    if torn > 0.2:
        fail(f"holes: {100 * torn:.0f} % of its edges are open", "merge the vertices of neighbouring triangles")
    against = ((counts == 2) & (ways != 0)).sum()
    if against > 0.01 * len(counts):
        fail(f"flipped: {against} edges have triangles that face opposite sides", "make them agree")
    a, b, c = (points[faces[:, k]] - points.mean(axis=0) for k in range(3))
    if (a * np.cross(b, c)).sum() < 0:
        fail("flipped: its triangles face inwards, as where a mesh was mirrored", "turn its triangles round")


def _landmarks(landmarks) -> tuple[np.ndarray, np.ndarray] | None:
    if landmarks is None:
        return None
    try:
        one, two = (np.asarray(part, np.float64).reshape(-1, 3) for part in landmarks)
    except (TypeError, ValueError):
        one, two = np.zeros((0, 3)), np.zeros((1, 3))
    if len(one) != len(two) or not len(one) or not (np.isfinite(one).all() and np.isfinite(two).all()):
        remedy = "give points [k, 3] of the rig and as many [k, 3] of the mesh"
        raise InputError("are no pairs of points", field="landmarks", remedy=remedy)
    return one, two


def _aligned(source: Shape, target: Shape, seen, marks, motion: Motion) -> np.ndarray:
    """[4, 4] from landmarks where there are three that span a plane, else found: of the whole rig, or its head alone.

    A mesh may end at the neck or at the waist, wherever the rig does.
    """
    if marks is not None and len(marks[0]) >= 3:
        spans = np.linalg.svd(marks[0] - marks[0].mean(axis=0))[1]
        if spans[1] > 1e-3 * spans[0]:
            return similarity(*marks)
    whole, goal = source.points[seen[0]], target.points[seen[1]]
    height, low = motion.face_height(source.points), motion.acting(source.points)[:, 1].min()
    found = []
    for below in (np.inf, 0.35, 0.0):
        part = whole[whole[:, 1] >= low - below * height]
        if len(part) < FEWEST // 4 or (found and len(part) == len(whole)):
            continue
        matrix, _ = best_similarity(part, goal)
        unit = height * np.cbrt(np.linalg.det(matrix[:3, :3]))
        out = cKDTree(goal).query(moved(matrix, part))[0] / unit
        back = cKDTree(moved(matrix, whole)).query(goal)[0] / unit
        found.append((np.minimum(out, 1).mean() + np.minimum(back, 1).mean(), len(found), matrix))
        if found[-1][0] < _FITS:
            break
    return min(found)[2]


def _check_place(placed: Shape, target: Shape, size: float, align: bool) -> None:
    """Whether the rig lies about on the mesh, before the warp."""
    remedy = "give landmarks, three pairs or more" if align else "leave align on, or give landmarks"
    spans = [float(np.linalg.norm(np.ptp(shape.points, axis=0))) for shape in (placed, target)]
    ratio = spans[1] / spans[0]
    if not align and not 0.4 < ratio < 2.5:
        raise InputError(f"units: it is {ratio:.3g} times the size of the rig", field="mesh", remedy=remedy)
    gaps = cKDTree(target.points).query(placed.points)[0]
    if np.median(gaps) > 0.4 * size:
        raise InputError("is not where the rig is", field="mesh", remedy=remedy)


def _check_fit(warped: Shape, target: Shape, seen, size: float, shift: float) -> float:
    """The mean distance from the mesh's outside to the warped rig, in heights of the face, as is the mean ``shift``."""
    remedy = "give one head and shoulders, y up, facing +z, or landmarks"
    if shift > WORST_WARP:
        message = f"is no head that the rig fits: it would be bent by {100 * shift:.0f} % of a face"
        raise InputError(message, field="mesh", remedy=remedy)
    found = Finder(warped, NEAR * size)(target.points[seen[1]], target.normals[seen[1]])
    miss = np.minimum(found.gaps[:, 0] / size, 0.5) + 0.2 * np.clip(0.5 - found.agreement[:, 0], 0, 1)
    fit = float(np.average(miss, weights=target.areas[seen[1]]))
    if fit > WORST_FIT:
        raise InputError(f"is no head that the rig fits: {100 * fit:.0f} % of a face off", field="mesh", remedy=remedy)
    return fit
