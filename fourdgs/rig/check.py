"""What may be wrong with a rig before anything is bound to it, in words."""

from __future__ import annotations

import numpy as np

from .base import Rig
from .linear import LinearRig
from .names import is_left


def check_rig(rig: Rig, radius: float = 1.0) -> list[str]:
    """One sentence for each fault; none is no word. Each begins with its kind.

    degenerate: triangles of no area. flipped: neighbours that disagree about which side is outside, or a whole closed
    surface turned inside out. knots: edges of three or more triangles. units: the size does not go with ``radius``,
    that of the capture's subject. mirrored: actions named left that move the right side (the face towards +z, the
    person's left is +x), all or some. idle: controls that move nothing. holes: open edges, which busts and eyelids
    have by nature.
    """
    points, faces = rig.rest.detach().cpu().double().numpy(), rig.faces.cpu().numpy()
    same = rig.weld.cpu().numpy()[faces]
    said = [*_degenerate(points, faces), *_orientation(points, faces, same), *_units(points, radius)]
    if isinstance(rig, LinearRig):
        said += [*_sides(rig, points), *_idle(rig)]
    said += _holes(same)
    return said


def _degenerate(points: np.ndarray, faces: np.ndarray) -> list[str]:
    a, b, c = (points[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.max([((b - a) ** 2).sum(1), ((c - b) ** 2).sum(1), ((a - c) ** 2).sum(1)], axis=0)
    flat = int((area <= 1e-7 * longest).sum())
    return [f"degenerate: {flat} of {len(faces)} triangles have no area; merge or remove them"] if flat else []


def edges_of(same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[e, 2] undirected edges of faces [F, 3] of places, how many triangles have each, and their directions' sum."""
    same = same[(same != same[:, [1, 2, 0]]).all(axis=1)]  # others have no inside
    edges = same[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    keys, which, counts = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    way = np.where(edges[:, 0] < edges[:, 1], 1.0, -1.0)
    return keys, counts, np.bincount(which.reshape(-1), way, len(keys))


def _orientation(points: np.ndarray, faces: np.ndarray, same: np.ndarray) -> list[str]:
    from scipy import sparse
    from scipy.sparse import csgraph

    keys, counts, ways = edges_of(same)
    said = []
    against = int(((counts == 2) & (ways != 0)).sum())
    if against:
        said.append(f"flipped: {against} of {len(keys)} edges have triangles that face opposite sides; make them agree")
    knots = int((counts > 2).sum())
    if knots:
        said.append(f"knots: {knots} edges have three or more triangles; keep two of each")
    count = int(same.max(initial=0)) + 1
    graph = sparse.coo_matrix((np.ones(len(keys)), (keys[:, 0], keys[:, 1])), shape=(count, count))
    label = csgraph.connected_components(graph, directed=False)[1]
    broken = np.zeros(count, bool)
    broken[label[keys[(counts != 2) | (ways != 0), 0]]] = True
    a, b, c = (points[faces[:, k]] - points.mean(axis=0) for k in range(3))
    volume = np.bincount(label[same[:, 0]], (a * np.cross(b, c)).sum(axis=1), count)
    inside_out = int(((volume < 0) & ~broken).sum())
    if inside_out:
        said.append(f"flipped: {inside_out} closed surfaces are inside out; turn their triangles round")
    return said


def _holes(same: np.ndarray) -> list[str]:
    open_edges = int((edges_of(same)[1] == 1).sum())
    return [f"holes: {open_edges} edges are open; fine for a bust, else close them"] if open_edges else []


def _units(points: np.ndarray, radius: float) -> list[str]:
    size = float(np.linalg.norm(np.ptp(points, axis=0))) / 2
    ratio = size / radius if radius > 0 else 1.0
    if 0.05 < ratio < 20:
        return []
    scale = f"scale it by about {1 / ratio:.2g}" if ratio > 0 else "all its vertices are at one place"
    return [f"units: its radius is {size:.3g}, the capture's {radius:.3g}; {scale}"]


def _sides(rig: LinearRig, points: np.ndarray) -> list[str]:
    middle = (points[:, 0].min() + points[:, 0].max()) / 2
    wrong, right = [], []
    for name, delta in zip(rig.controls, rig.deltas.detach().cpu().double().norm(dim=2).numpy(), strict=False):
        left = is_left(name)
        if left is None or not delta.any():
            continue
        lean = (delta * np.sign(points[:, 0] - middle)).sum() / delta.sum() * (1 if left else -1)
        if abs(lean) > 0.3:
            (right if lean > 0 else wrong).append(name)
    if not wrong:
        return []
    if len(wrong) > len(right):
        remedy = "mirror its x, turn it to face +z, or swap the names"
        return [f"mirrored: {len(wrong)} actions named left or right move the other side; {remedy}"]
    return [f"mirrored: {', '.join(wrong[:6])} move the other side than their name says; swap their names"]


def _idle(rig: LinearRig) -> list[str]:
    still = ~rig.deltas.detach().flatten(1).any(dim=1).cpu().numpy()
    names = [name for name, idle in zip(rig.controls, still, strict=False) if idle]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return [f"idle: {', '.join(names[:6])}{more} move nothing; leave them out"] if names else []
