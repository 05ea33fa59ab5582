"""Cutting triangle meshes without losing what lives on their vertices.

A `Piece` holds its vertices as rows of a sparse linear map from a base mesh. Cutting at a plane adds rows that mix two
others, so positions, face-action offsets and skinning weights of the cut mesh are all ``rows @ base``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph


@dataclass(frozen=True)
class Piece:
    """n vertices as mixtures of B base vertices, m triangles.

    Attributes:
        rows: [n, B] sparse. uv: [n, 2] texture coordinates, any unit, v downwards. faces: [m, 3]. parts: [m] labels.
    """

    rows: sparse.csr_matrix
    uv: np.ndarray
    faces: np.ndarray
    parts: np.ndarray


def quads_to_piece(
    vertices: np.ndarray, corners: np.ndarray, parts: np.ndarray | int, texcoords: np.ndarray, count: int
) -> Piece:
    """Triangles of quads, with one vertex for each pair of a place and a texture coordinate.

    Args:
        vertices, corners: [Q, 4] indices of base vertices and of ``texcoords`` [T, 2] (v upwards). parts: [Q] or one.
        count: B.
    """
    pairs, inverse = np.unique(np.stack([vertices, corners], axis=-1).reshape(-1, 2), axis=0, return_inverse=True)
    quads = inverse.reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    rows = sparse.csr_matrix((np.ones(len(pairs)), (np.arange(len(pairs)), pairs[:, 0])), shape=(len(pairs), count))
    return Piece(rows, texcoords[pairs[:, 1]] * (1, -1), faces, np.tile(np.broadcast_to(parts, len(quads)), 2))


def clip(piece: Piece, values: np.ndarray) -> Piece:
    """Keep where ``values`` [n] are positive; triangles across the border are cut by linear interpolation."""
    inside = values > 0
    count = inside[piece.faces].sum(axis=1)
    faces, parts = [piece.faces[count == 3]], [piece.parts[count == 3]]
    edges: list[np.ndarray] = []
    offset = len(values)

    def crossing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        start = offset + sum(map(len, edges))
        edges.append(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1))
        return np.arange(start, start + len(a))

    for kept in (1, 2):
        cut = piece.faces[count == kept]
        # Turn each triangle so that its odd corner (the only one inside, or the only one outside) comes first.
        odd = np.argmax(inside[cut] == (kept == 1), axis=1)
        a, b, c = (cut[np.arange(len(cut)), (odd + k) % 3] for k in range(3))
        ab, ac = crossing(a, b), crossing(a, c)
        new = [(a, ab, ac)] if kept == 1 else [(ab, b, c), (ab, c, ac)]
        faces += [np.stack(triangle, axis=1) for triangle in new]
        parts += [piece.parts[count == kept]] * len(new)
    pairs, inverse = np.unique(np.concatenate(edges), axis=0, return_inverse=True)
    if not len(pairs):
        return _compact(Piece(piece.rows, piece.uv, faces[0], parts[0]))
    low, high = values[pairs[:, 0]], values[pairs[:, 1]]
    share = low / (low - high)
    index = np.tile(np.arange(len(pairs)), 2), np.concatenate([pairs[:, 0], pairs[:, 1]])
    blend = sparse.csr_matrix((np.concatenate([1 - share, share]), index), shape=(len(pairs), offset))
    table = np.concatenate(faces)
    table = np.where(table >= offset, offset + inverse.reshape(-1)[np.maximum(table - offset, 0)], table)
    rows = sparse.vstack([piece.rows, blend @ piece.rows]).tocsr()
    return _compact(Piece(rows, np.concatenate([piece.uv, blend @ piece.uv]), table, np.concatenate(parts)))


def cap(piece: Piece, points: np.ndarray, height: float, part: int) -> Piece:
    """Close the holes that lie in the plane y = ``height`` by fans to their middles, each with a chart of its own.

    Args:
        points: [B, 3]. part: the label of the new triangles.
    """
    places = piece.rows @ points
    same = weld(piece.rows)
    first = np.unique(same, return_index=True)[1]
    edges = same[piece.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    keys, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    border = keys[counts == 1]
    border = border[np.abs(places[first[border]][..., 1] - height).max(axis=1) < 1e-6]
    label = components(border, len(first))
    forward = set(map(tuple, edges.tolist()))
    pieces = [piece]
    for loop in np.unique(label[border[:, 0]]):
        ring = border[label[border[:, 0]] == loop]
        members, local = np.unique(ring, return_inverse=True)
        # A triangle beside the border runs along it one way, so the lid must run the other way.
        turned = np.array([tuple(edge) in forward for edge in ring.tolist()])
        local = np.where(turned[:, None], local.reshape(-1, 2)[:, ::-1], local.reshape(-1, 2))
        middle = np.full((len(ring), 1), len(members))
        rows = piece.rows[first[members]]
        rows = sparse.vstack([rows, sparse.csr_matrix(rows.mean(axis=0))]).tocsr()
        faces = np.concatenate([local, middle], axis=1)
        pieces.append(Piece(rows, (rows @ points)[:, [0, 2]], faces, np.full(len(faces), part)))
    return join(pieces)


def join(pieces: list[Piece]) -> Piece:
    """All the pieces as one; vertices are not merged."""
    starts = np.cumsum([0] + [len(piece.uv) for piece in pieces[:-1]])
    return Piece(
        sparse.vstack([piece.rows for piece in pieces]).tocsr(),
        np.concatenate([piece.uv for piece in pieces]),
        np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=True)]),
        np.concatenate([piece.parts for piece in pieces]),
    )


def components(faces: np.ndarray, count: int) -> np.ndarray:
    """[count], a label for each connected set of vertices of polygons [F, k]."""
    width = faces.shape[1]
    edges = np.concatenate([faces[:, [k, (k + 1) % width]] for k in range(width)])
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def weld(rows: sparse.csr_matrix) -> np.ndarray:
    """[n], equal where two rows mix the same base vertices in the same shares."""
    probe = np.random.default_rng(0).uniform(1.0, 2.0, (rows.shape[1], 2))
    return np.unique(np.round(rows @ probe, 9), axis=0, return_inverse=True)[1].reshape(-1)


def vertex_normals(points: np.ndarray, faces: np.ndarray, same: np.ndarray) -> np.ndarray:
    """[n, 3] unit normals, weighted by area, shared by all vertices with one value of ``same`` [n]."""
    corner = points[faces]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])  # [m, 3]
    count = int(same.max()) + 1
    total = np.stack([np.bincount(same[faces].T.ravel(), np.tile(area[:, k], 3), count) for k in range(3)], axis=1)
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
    return total[same]


def pack(piece: Piece, points: np.ndarray, density: np.ndarray, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Lay the charts (connected triangles) of a piece side by side in an atlas.

    Args:
        points: [n, 3]. density: [m] texels per unit of length wanted at each triangle. width: texels.

    Returns:
        uv [n, 2] in texels from the left-top corner, and the atlas' (width, height).
    """
    chart = components(piece.faces, len(piece.uv))
    names = np.unique(chart[piece.faces[:, 0]])
    scaled = np.zeros_like(piece.uv)
    boxes = []
    for name in names:
        faces = piece.faces[chart[piece.faces[:, 0]] == name]
        vertices = np.flatnonzero(chart == name)
        flat = np.concatenate([piece.uv, np.zeros((len(piece.uv), 1))], axis=1)
        ratio = np.sqrt(_area(points, faces) / max(_area(flat, faces), 1e-20))
        ratio *= density[chart[piece.faces[:, 0]] == name].mean()
        scaled[vertices] = (piece.uv[vertices] - piece.uv[vertices].min(axis=0)) * ratio
        size = scaled[vertices].max(axis=0)
        if size[0] < size[1]:  # lie down: shelves fill better
            scaled[vertices] = np.stack([scaled[vertices, 1], size[0] - scaled[vertices, 0]], axis=1)
            size = size[::-1]
        boxes.append((vertices, size))
    margin, x, y, shelf = 4.0, 0.0, 0.0, 0.0
    for vertices, size in sorted(boxes, key=lambda box: -box[1][1]):
        if x + size[0] + 2 * margin > width:
            x, y, shelf = 0.0, y + shelf, 0.0
        scaled[vertices] += (x + margin, y + margin)
        x, shelf = x + size[0] + 2 * margin, max(shelf, size[1] + 2 * margin)
    return scaled, (width, int(np.ceil((y + shelf) / 8) * 8))


def _area(points: np.ndarray, faces: np.ndarray) -> float:
    corner = points[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    return float(np.linalg.norm(cross, axis=1).sum() / 2)


def _compact(piece: Piece) -> Piece:
    used, inverse = np.unique(piece.faces, return_inverse=True)
    return Piece(piece.rows[used], piece.uv[used], inverse.reshape(-1, 3), piece.parts)
