"""Motion carried from places of one surface to places of another that lies on it, and filled in where unsure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph, linalg
from scipy.spatial import cKDTree

from ..errors import InputError
from .linear import LinearRig
from .registration import Finder, Found, Shape

NEAR = 0.03  # heights of the face: a match this far off is worth a third
_APART = 0.15  # of the largest motion: neighbours that differ by more are of two lips, or of a lid and an eye
_SETTLED = 0.97  # sure enough to be left as it is
_HOLD = 3.0  # what a half-sure match holds against its neighbours


@dataclass(frozen=True, eq=False)
class Motion:
    """Of n places: ``deltas`` [n, D, 3] and ``weights`` [n, J]."""

    deltas: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, rig: LinearRig, first: np.ndarray) -> Motion:
        """A rig's, at the vertices ``first`` [n], as the joints at rest turn it."""
        deltas = rig.deltas.detach().cpu().double().numpy()[:, first].transpose(1, 0, 2)
        weights = rig.weights.detach().cpu().double().numpy()[first]
        if len(rig.parents):
            still = np.zeros((1, len(rig.controls) - len(rig.deltas)))
            turns = rig.transforms(rig.neutral.new_tensor(still))[0, :, :3, :3].detach().cpu().double().numpy()
            turn = np.eye(3) + np.einsum("nj,jxy->nxy", weights, turns - np.eye(3))
            deltas = np.einsum("nxy,ndy->ndx", turn, deltas)
        return cls(deltas, weights)

    def turned(self, maps: np.ndarray) -> Motion:
        """The same with deltas under maps [n, 3, 3]."""
        return Motion(np.einsum("nxy,ndy->ndx", maps, self.deltas), self.weights)

    def face_height(self, points: np.ndarray) -> float:
        """How high the part of points [n, 3] is that the actions move."""
        acting = self.acting(points)
        height = float(np.ptp(acting[:, 1])) if len(acting) else 0.0
        if not height > 0:
            raise InputError("its actions move nothing", field="rig", remedy="give a rig with face actions")
        return height

    def acting(self, points: np.ndarray) -> np.ndarray:
        """Those of points [n, 3] that the actions move."""
        most = np.linalg.norm(self.deltas, axis=2).max(axis=1)
        return points[most > 0.1 * most.max()]

    def columns(self) -> np.ndarray:
        """[n, 3 D + J]."""
        return np.concatenate([self.deltas.reshape(len(self.deltas), -1), self.weights], axis=1)


def carried(warped: Shape, motion: Motion, target: Shape, size: float):
    """Columns [m, 3 D + J] for the target's places, how unsure [m], distances [m], and the number of bridges."""
    columns = motion.columns()
    loud = columns[:, : motion.deltas[0].size]
    largest = float(np.linalg.norm(motion.deltas, axis=2).max())
    find = Finder(warped, NEAR * size)
    found = find(target.points, target.normals)
    sure = np.exp(-((found.gaps[:, 0] / (NEAR * size)) ** 2)) * np.clip((found.agreement[:, 0] - 0.2) / 0.5, 0, 1)
    held = sure.copy()
    links, lengths, piece = _links(target)
    field = _blend(columns, warped, found, 0)
    spread = _spread(warped, loud, size)
    torn = np.flatnonzero(spread > _APART * largest)
    if len(torn):
        close = cKDTree(warped.points[torn]).query(target.points)[0] < 2 * NEAR * size
        close &= found.gaps[:, 0] < 3 * NEAR * size
        whom = np.flatnonzero(close)
        # What the neighbours along the mesh say, who are on one side for sure, picks among what is near.
        guess = _filled(field[:, : loud.shape[1]], np.where(close, 0.0, sure), links, lengths, len(target.points))
        choice = find(target.points[whom], target.normals[whom], 12)
        options = np.stack([_blend(loud, warped, choice, k) for k in range(choice.faces.shape[1])], 1)
        # A piece that is in doubt nearly all over (a lid upon an eye) has no such neighbours: it takes what is nearest.
        settled = np.bincount(piece, ~close & (sure > 0.5)) > 0.4 * np.bincount(piece)
        parted = _farthest(options - guess[whom, None]) * settled[piece[whom], None]
        cost = (choice.gaps / (NEAR * size)) ** 2 + 2 * (1 - choice.agreement) + (parted / (_APART * largest)) ** 2
        best = cost.argmin(axis=1)
        rows = np.arange(len(whom))
        picked = Found(*(getattr(choice, name)[rows, best][:, None] for name in Found.__dataclass_fields__))
        field[whom] = _blend(columns, warped, picked, 0)
        doubt = np.clip(_farthest(options - options[rows, best][:, None]).max(axis=1) / largest, 0, 0.5)
        sure[whom] *= 1 - doubt
    across = _farthest((field[links[:, 0], : loud.shape[1]] - field[links[:, 1], : loud.shape[1]])[:, None])[:, 0]
    bridge = (across > _APART * largest + 2 * lengths) & (lengths < 0.25 * size)
    bridge &= (sure[links] > 0.2).all(axis=1)
    sure[np.unique(links[bridge])] *= 0.4
    # A little off is far wrong where the motion differs from place to place.
    steep = np.clip(_blend(spread[:, None], warped, found, 0)[:, 0] / (2 * _APART * largest), 0, 1)
    filled = _filled(field, held, links, lengths, len(target.points))
    return filled, 1 - sure * (1 - 0.6 * steep), found.gaps[:, 0], int(bridge.sum())


def _blend(columns: np.ndarray, shape: Shape, found: Found, rank: int) -> np.ndarray:
    return np.einsum("qk,qkc->qc", found.shares[:, rank], columns[shape.faces[found.faces[:, rank]]])


def _farthest(differences: np.ndarray) -> np.ndarray:
    """[q, k] the largest length of any action's move in differences [q, k, 3 D]."""
    return np.sqrt((differences.reshape(*differences.shape[:2], -1, 3) ** 2).sum(-1).max(-1))


def _spread(shape: Shape, loud: np.ndarray, size: float) -> np.ndarray:
    """[n] by how much what lies close to a place, along the surface or not, may move otherwise."""
    pairs = cKDTree(shape.points).query_pairs(NEAR * size, output_type="ndarray")
    spread = np.zeros(len(shape.points))
    for part in np.array_split(pairs, max(1, len(pairs) // 20000)):
        off = _farthest((loud[part[:, 0]] - loud[part[:, 1]])[:, None])[:, 0]
        np.maximum.at(spread, part.reshape(-1), off.repeat(2))
    return spread


def _links(target: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of places [e, 2] that an edge joins, and a few that join each piece to the others; lengths [e]; pieces [m].

    The latter pairs count as long.
    """
    pairs = np.unique(np.sort(target.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    count = len(target.points)
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
    pieces, label = csgraph.connected_components(graph, directed=False)
    used = np.zeros(count, bool)
    used[pairs] = True
    sizes = np.bincount(label, used)
    more = [pairs]
    for piece in np.flatnonzero(sizes < sizes.max()) if pieces > 1 else ():
        own, rest = np.flatnonzero(label == piece), np.flatnonzero((label != piece) & used)
        gaps, near = cKDTree(target.points[rest]).query(target.points[own])
        order = np.argsort(gaps)[:8]
        more.append(np.stack([own[order], rest[near[order]]], 1))
    edges, pairs = len(pairs), np.concatenate(more)
    lengths = np.linalg.norm(target.points[pairs[:, 0]] - target.points[pairs[:, 1]], axis=1)
    # Pieces that touch are still pieces: these hold on to each other only where nothing else does.
    lengths[edges:] = 10 * (lengths[edges:] + lengths[:edges].mean())
    return pairs, lengths, label


def _filled(field: np.ndarray, sure: np.ndarray, links: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """``field`` [m, c] as it is where sure, held less where less so, and as even as the mesh allows (harmonic)."""
    free = np.flatnonzero(sure < _SETTLED)
    if not len(free):
        return field
    weights = lengths.mean() / np.maximum(lengths, 0.05 * lengths.mean())
    ends = np.concatenate([links, links[:, ::-1]])
    joined = sparse.coo_matrix((np.tile(weights, 2), ends.T), shape=(count, count)).tocsr()[free]
    hold = _HOLD * sure[free] / (1.02 - sure[free]) + 1e-9
    known = np.ones(count, bool)
    known[free] = False
    system = sparse.diags(hold + np.asarray(joined.sum(axis=1)).reshape(-1)) - joined[:, free]
    wanted = hold[:, None] * field[free] + joined[:, known] @ field[known]
    filled = field.copy()
    filled[free] = linalg.splu(system.tocsc()).solve(wanted)
    return filled
