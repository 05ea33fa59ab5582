"""One surface brought onto another: a similarity from many starts, then a smooth warp of the space around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import linalg
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..binding import foot_shares

LEVELS = (1.0, 0.5, 0.25, 0.12)
"""Cells of the warp's lattices, in heights of the face."""

ROUNDS = 5  # of matching and solving, at each level
STIFF = 0.02  # of bending, against what the matches want
_SAMPLED = np.array([[4, 4, 4], [10, 1, 1], [1, 10, 1], [1, 1, 10]]) / 12  # where a triangle is looked for
_VIEWS = 26  # directions that a place is looked at from
_CELLS = 160  # of the picture of a view, across


@dataclass(frozen=True, eq=False)
class Shape:
    """A surface of n places: ``points`` [n, 3], ``faces`` [f, 3], unit ``normals`` [n, 3], ``areas`` [n] about each.

    ``place`` [V] is that of each vertex.
    """

    points: np.ndarray
    faces: np.ndarray
    place: np.ndarray
    normals: np.ndarray = field(init=False)
    areas: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        a, b, c = (self.points[self.faces[:, k]] for k in range(3))
        cross = np.cross(b - a, c - a)  # [f, 3], of twice the area
        normals, areas, count = np.zeros_like(self.points), np.zeros(len(self.points)), len(self.points)
        for corner in range(3):
            areas += np.bincount(self.faces[:, corner], np.linalg.norm(cross, axis=1) / 6, count)
            for axis in range(3):
                normals[:, axis] += np.bincount(self.faces[:, corner], cross[:, axis], count)
        object.__setattr__(self, "normals", _unit(normals))
        object.__setattr__(self, "areas", areas)

    def at(self, points: np.ndarray) -> Shape:
        """The same surface with its places at ``points`` [n, 3]."""
        return Shape(points, self.faces, self.place)


def shape_of(points: np.ndarray, faces: np.ndarray, weld: np.ndarray) -> Shape:
    """The surface of vertices [V, 3], those of equal ``weld`` [V] being one place; without triangles that join one."""
    _, first, place = np.unique(weld, return_index=True, return_inverse=True)
    faces = place.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return Shape(np.asarray(points, np.float64)[first], faces, place.reshape(-1))


@dataclass(frozen=True, eq=False)
class Found:
    """Places of a surface near q points, k for each, best first.

    faces: [q, k] and shares: [q, k, 3] say where; points, normals: [q, k, 3]; gaps: [q, k] distances; agreement: [q, k]
    cosines of normals.
    """

    faces: np.ndarray
    shares: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    gaps: np.ndarray
    agreement: np.ndarray


class Finder:
    """Looks for places of a shape that are near and face the same way.

    Near is in six dimensions, position and normal times ``weight`` (world units), so that the two sides of a thin part
    and of a closed mouth are apart.
    """

    def __init__(self, shape: Shape, weight: float):
        self.shape, self.weight = shape, weight
        corners, normals = shape.points[shape.faces], shape.normals[shape.faces]  # [f, 3, 3]
        spots = np.einsum("sk,fkx->fsx", _SAMPLED, corners).reshape(-1, 3)
        ways = _unit(np.einsum("sk,fkx->fsx", _SAMPLED, normals).reshape(-1, 3))
        self._tree = cKDTree(np.concatenate([spots, weight * ways], axis=1))

    def __call__(self, points: np.ndarray, normals: np.ndarray, count: int = 1) -> Found:
        """The ``count`` best places for points [q, 3] with unit normals [q, 3]."""
        shape, tried = self.shape, max(6, 2 * count)
        _, near = self._tree.query(np.concatenate([points, self.weight * normals], axis=1), k=tried)
        faces = np.minimum(near, self._tree.n - 1) // len(_SAMPLED)  # [q, tried]
        corners = shape.points[shape.faces[faces]]  # [q, tried, 3, 3]
        asked = np.repeat(points, tried, axis=0)
        flat = torch.from_numpy(np.ascontiguousarray(corners.reshape(-1, 3, 3)))
        shares = foot_shares(torch.from_numpy(asked), flat).numpy().reshape(*faces.shape, 3)
        feet = np.einsum("qtk,qtkx->qtx", shares, corners)
        ways = _unit(np.einsum("qtk,qtkx->qtx", shares, shape.normals[shape.faces[faces]]))
        gaps = np.linalg.norm(feet - points[:, None], axis=2)
        agreement = np.einsum("qtx,qx->qt", ways, normals)
        order = np.argsort(gaps**2 + 2 * self.weight**2 * (1 - agreement), axis=1, kind="stable")[:, :count]
        rows = np.arange(len(points))[:, None]
        return Found(*(part[rows, order] for part in (faces, shares, feet, ways, gaps, agreement)))


def outer(shape: Shape) -> np.ndarray:
    """[n] bool, which places are seen from outside: no inside of a mouth, no back of an eyeball."""
    spots = np.concatenate([shape.points, np.einsum("sk,fkx->fsx", _SAMPLED, shape.points[shape.faces]).reshape(-1, 3)])
    seen = np.zeros(len(shape.points), bool)
    turn = np.arange(_VIEWS) * np.pi * (3 - 5**0.5)  # a spiral of golden angles
    height = 1 - (2 * np.arange(_VIEWS) + 1) / _VIEWS
    flat = np.sqrt(1 - height**2)
    for way in np.stack([flat * np.sin(turn), height, flat * np.cos(turn)], 1):
        across = np.linalg.svd(way[None])[2][1:]  # [2, 3], the picture's axes
        place, depth = spots @ across.T, spots @ way
        cell = np.ptp(place, axis=0).max() / _CELLS or 1.0
        pixel = np.floor((place - place.min(axis=0)) / cell).astype(int) @ (1, 2 * _CELLS)
        front = np.full(pixel.max() + 1, -np.inf)
        np.maximum.at(front, pixel, depth)
        own = slice(0, len(seen))
        seen |= (depth[own] > front[pixel[own]] - 2 * cell) & (shape.normals @ way > 0.2)
    return seen


# --- the similarity ---


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[4, 4] the turn, growth and shift that brings points [k, 3] nearest to others, k >= 3, without mirroring.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
    """
    a, b = source.mean(axis=0), target.mean(axis=0)
    u, stretch, v = np.linalg.svd((target - b).T @ (source - a))
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
    turn = u @ np.diag(signs) @ v
    growth = (stretch * signs).sum() / max(((source - a) ** 2).sum(), 1e-300)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = growth * turn, b - growth * turn @ a
    return matrix


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [n, 3] under a [4, 4]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def best_similarity(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """The [4, 4] that brings a cloud [n, 3] onto another, and what is left of their distance, in units of target.

    Trimmed ICP in both directions (Chetverikov et al., "The trimmed iterative closest point algorithm", ICPR 2002) from
    eight turns about y, each upright and lying on its face or back, at three sizes.
    """
    coarse = _Pair(_thin(source, 300), _thin(target, 300))
    tried = []
    for start in _starts(source, target):
        matrix, left = coarse.settle(start, 12, 0.75)
        turn = Rotation.from_matrix(matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))).magnitude()
        tried.append((left * (1 + 0.1 * turn / np.pi), matrix))
    tried.sort(key=lambda one: one[0])
    fine = _Pair(_thin(source, 1200), _thin(target, 1200))
    done = [fine.settle(matrix, 30, 0.8) for _, matrix in tried[:3]]
    return min(done, key=lambda one: one[1])


def _starts(source: np.ndarray, target: np.ndarray) -> Iterator[np.ndarray]:
    a, b = source.mean(axis=0), target.mean(axis=0)
    ratio = np.sqrt(((target - b) ** 2).sum(1).mean() / ((source - a) ** 2).sum(1).mean())
    for tilt in (0, 90, -90):
        for yaw in range(0, 360, 45):
            turn = Rotation.from_euler("xy", (tilt, yaw), degrees=True).as_matrix()
            for growth in (1.0, 0.7, 1.4):
                matrix = np.eye(4)
                matrix[:3, :3] = ratio * growth * turn
                matrix[:3, 3] = b - matrix[:3, :3] @ a
                yield matrix


class _Pair:
    """Two clouds and their trees."""

    def __init__(self, source: np.ndarray, target: np.ndarray):
        self.source, self.target = source, target
        self.trees = cKDTree(source), cKDTree(target)

    def settle(self, matrix: np.ndarray, rounds: int, kept: float) -> tuple[np.ndarray, float]:
        """The similarity after so many rounds, and the mean distance of the best share ``kept`` of pairs."""
        for _ in range(rounds):
            one, two, gaps = self._pairs(matrix)
            best = gaps <= np.quantile(gaps, kept)
            matrix = similarity(one[best], two[best])
        gaps = np.sort(self._pairs(matrix)[2])
        return matrix, float(gaps[: int(kept * len(gaps))].mean())

    def _pairs(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        there = moved(matrix, self.source)
        gap, near = self.trees[1].query(there)
        back, close = self.trees[0].query(moved(np.linalg.inv(matrix), self.target))
        back = back * np.cbrt(np.linalg.det(matrix[:3, :3]))
        one = np.concatenate([self.source, self.source[close]])
        return one, np.concatenate([self.target[near], self.target]), np.concatenate([gap, back])


def _thin(points: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of points, spread evenly: each the farthest from those before it."""
    if len(points) <= count:
        return points
    points = points[np.random.default_rng(0).permutation(len(points))[: 5 * count]]
    chosen, gap = np.zeros(count, int), np.full(len(points), np.inf)
    for index in range(1, count):
        gap = np.minimum(gap, ((points - points[chosen[index - 1]]) ** 2).sum(axis=1))
        chosen[index] = gap.argmax()
    return points[chosen]


# --- the warp ---


class Warp:
    """A smooth map of space: cubic B-splines on ever finer lattices, one after the other.

    Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999. What lies close together
    moves alike, so that touching lips do not pass through each other, and teeth go with the jaw.
    """

    def __init__(self) -> None:
        self.levels: list[tuple[np.ndarray, float, np.ndarray]] = []  # corner [3], cell, shifts [x, y, z, 3]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Where points [n, 3] go."""
        for corner, cell, shifts in self.levels:
            points = points + _splines(points, corner, cell, shifts.shape[:3]) @ shifts.reshape(-1, 3)
        return points

    def jacobians(self, points: np.ndarray, step: float) -> np.ndarray:
        """[n, 3, 3] the linear maps at points, over ``step`` to each side."""
        sides = [(self(points + way) - self(points - way)) / (2 * step) for way in step * np.eye(3)]
        return np.stack(sides, -1)


def _splines(points: np.ndarray, corner: np.ndarray, cell: float, shape: tuple[int, ...]) -> sparse.csr_matrix:
    """[n, lattice] shares of the lattice's 64 knots about each point; beyond the lattice, those of its border."""
    scaled = np.clip((points - corner) / cell, 1, np.array(shape) - 2.001)
    base = np.floor(scaled).astype(int)
    t = scaled - base
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]) / 6  # [4, n, 3]
    steps = np.arange(-1, 3)
    x, y, z = (base[:, axis, None] + steps for axis in range(3))  # [n, 4]
    column = (x[:, :, None, None] * shape[1] + y[:, None, :, None]) * shape[2] + z[:, None, None, :]
    share = np.einsum("an,bn,cn->nabc", *weights.transpose(2, 0, 1))
    rows = np.arange(0, 64 * len(points) + 1, 64)
    return sparse.csr_matrix((share.reshape(-1), column.reshape(-1), rows), shape=(len(points), int(np.prod(shape))))


def _bending(shape: tuple[int, ...], used: np.ndarray) -> sparse.csr_matrix:
    """The square of second differences along each axis of a lattice, of those among the knots ``used`` alone."""
    parts = []
    for axis in range(3):
        one = [sparse.identity(n, format="csr") for n in shape]
        n = shape[axis]
        one[axis] = sparse.diags([np.ones(n - 2), -2 * np.ones(n - 2), np.ones(n - 2)], [0, 1, 2], shape=(n - 2, n))
        parts.append(sparse.kron(sparse.kron(one[0], one[1]), one[2]))
    both = sparse.vstack(parts).tocsr()
    whole = np.asarray(abs(both)[:, used].sum(axis=1)).reshape(-1) > 3.5
    both = both[whole][:, used]
    return (both.T @ both).tocsr()


def warp_onto(
    source: Shape,
    target: Shape,
    size: float,
    seen: tuple[np.ndarray, np.ndarray],
    marks: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Warp:
    """The warp that brings a surface onto one it roughly lies on.

    Args:
        size: the height of the face, world units. seen: of both, which places are seen from outside.
        marks: points [k, 3] and where they belong.
    """
    warp, points = Warp(), source.points
    own, other = (np.flatnonzero(part) for part in seen)
    other = other[np.random.default_rng(0).permutation(len(other))[:8000]]
    low = np.minimum(source.points.min(0), target.points.min(0))
    high = np.maximum(source.points.max(0), target.points.max(0))
    for level, share in enumerate(LEVELS):
        cell = share * size
        corner = low - 2 * cell
        shape = tuple(int(n) for n in np.ceil((high - corner) / cell) + 3)
        start, rest = points, _splines(points, corner, cell, shape)
        # Knots that no place feels stay where they are: on the finest lattice, nine of ten.
        used = np.flatnonzero(np.asarray(rest.sum(axis=0)).reshape(-1) > 0)
        rest, bending = rest[:, used], _bending(shape, used)
        reach, weight = size * max(0.3 * share, 0.06), 0.1 * size
        there = Finder(target, weight)
        shifts = np.zeros((len(used), 3))
        for _ in range(ROUNDS):
            now = source.at(points)
            at, goal, trust = _wishes(now, target, there, (own, other), start, weight, reach)
            if marks is not None:
                at = np.concatenate([at, _apply(warp, marks[0])])
                goal = np.concatenate([goal, marks[1]])
                trust = np.concatenate([trust, np.full(len(marks[0]), 0.02 * trust.sum() / len(marks[0]))])
            shares = _splines(at, corner, cell, shape)[:, used]
            scale = trust.sum() / len(shifts)
            system = shares.T @ sparse.diags(trust) @ shares + STIFF * scale * bending
            system = (system + 1e-5 * scale * sparse.identity(len(shifts))).tocsr()
            wanted = shares.T @ (trust[:, None] * (goal - at))
            inverse = sparse.diags(1 / system.diagonal())
            for axis in range(3):
                shifts[:, axis], _ = linalg.cg(
                    system, wanted[:, axis], shifts[:, axis], rtol=1e-3, maxiter=200, M=inverse
                )
            points = start + rest @ shifts
        lattice = np.zeros((int(np.prod(shape)), 3))
        lattice[used] = shifts
        warp.levels.append((corner, cell, lattice.reshape(*shape, 3)))
        if progress is not None:
            progress(f"level {level + 1} of {len(LEVELS)}")
    return warp


def _apply(warp: Warp, points: np.ndarray) -> np.ndarray:
    return warp(points) if warp.levels else points


def _wishes(now: Shape, target: Shape, there: Finder, seen, start: np.ndarray, weight: float, reach: float):
    """Points [m, 3] of ``start``'s surface, where each should go, and how much that counts: matches both ways.

    Only the way along the normal is asked for; along the surface it may slide.
    """
    own, other = seen
    out = there(now.points[own], now.normals[own])
    step = out.points[:, 0] - now.points[own]
    ahead = (step * out.normals[:, 0]).sum(1, keepdims=True) * out.normals[:, 0]
    trust = _trust(out, reach) * now.areas[own] / now.areas[own].mean()
    back = Finder(now, weight)(target.points[other], target.normals[other])
    corners = now.faces[back.faces[:, 0]]
    home = np.einsum("qk,qkx->qx", back.shares[:, 0], start[corners])
    step = target.points[other] - back.points[:, 0]
    behind = (step * target.normals[other]).sum(1, keepdims=True) * target.normals[other]
    returned = _trust(back, reach) * target.areas[other] / target.areas[other].mean() * len(own) / max(len(other), 1)
    at = np.concatenate([start[own], home])
    shift = np.concatenate([now.points[own] + ahead - start[own], back.points[:, 0] + behind - home])
    return at, at + shift, np.concatenate([trust, returned])


def _trust(found: Found, reach: float) -> np.ndarray:
    """[q] in [0, 1]: none beyond the reach or where normals differ (Geman and McClure's weight of the gap)."""
    gap = found.gaps[:, 0] / reach
    return (1 / (1 + gap**2)) ** 2 * (gap < 2) * np.clip((found.agreement[:, 0] - 0.3) / 0.5, 0, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
