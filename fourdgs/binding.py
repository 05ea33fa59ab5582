"""Points bound to the triangles of a surface that moves: their place on it, and how it turns and grows there."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

RING = 8
"""Neighbours of a vertex that its turn is read from; of more, so many spread evenly around it."""

_CANDIDATES = (2, 16, 64, 256)  # nearest centroids among which the nearest triangle is sought
_LEAST_GROWTH = 0.2  # a surface that folds up (a lid) would else shrink its Gaussians to nothing, for good


@dataclass(frozen=True)
class Surface:
    """What a mesh at rest says about how it turns when it moves; made by `surface_of`.

    The frame of a vertex is read off the linear map J that takes its rest neighbours, in the tangent plane, to where
    they are (least squares): the normal is that of J's image, the tangent that of the rotation nearest to J, which in
    two dimensions is closed. Vertices of one place have one frame, so that frames have no seam.
    """

    rest: Tensor  # [V, 3] world units
    faces: Tensor  # [F, 3] int64
    place: Tensor  # [V] int64, the first vertex of the same place
    ring: Tensor  # [V, RING + 1] int64, neighbours and the vertex itself
    shares: Tensor  # [V, 2, RING + 1] so that J [V, 2, 3] = shares @ vertices[ring]
    frames: Tensor  # [V, 3, 3] at rest; columns tangent, bitangent, normal
    areas: Tensor  # [V] of J's image at rest, about 1
    beside: Tensor  # [F, 3] int64, the triangle behind each edge, or itself
    edges: Tensor  # [E, 2] int64, between places

    def to(self, like: Tensor) -> Surface:
        """A copy on another tensor's device, in its precision."""
        moved = (getattr(self, field.name) for field in fields(self))
        return Surface(*(value.to(like if value.is_floating_point() else like.device) for value in moved))

    @property
    def size(self) -> float:
        """The distance of the farthest vertex from the middle of the box around all, world units."""
        low, high = self.rest.amin(0), self.rest.amax(0)
        return float((self.rest - (low + high) / 2).norm(dim=1).max())


def surface_of(rest: Tensor, faces: Tensor, weld: Tensor) -> Surface:
    """The surface of a mesh at rest.

    Args:
        rest: [V, 3] world units. faces: [F, 3] int64. weld: [V] int64, equal for vertices that are one place.
    """
    points = rest.detach().double().cpu().numpy()
    triangles = faces.cpu().numpy()
    _, first, inverse = np.unique(weld.cpu().numpy(), return_index=True, return_inverse=True)
    place = first[inverse.reshape(-1)]  # [V]
    welded = place[triangles]
    edges = np.unique(np.sort(welded[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    ring, shares = _rings(points, welded, edges)
    ring, shares = ring[place], shares[place]
    surface = Surface(
        rest=rest.detach().double().cpu(),
        faces=faces.cpu(),
        place=torch.from_numpy(place),
        ring=torch.from_numpy(ring),
        shares=torch.from_numpy(shares),
        frames=torch.eye(3, dtype=torch.float64).expand(len(points), 3, 3),
        areas=torch.ones(len(points), dtype=torch.float64),
        beside=torch.from_numpy(_beside(welded)),
        edges=torch.from_numpy(edges),
    )
    frames, areas = _frames(surface.rest[None], surface)
    surface = Surface(**{**surface.__dict__, "frames": frames[0], "areas": areas[0]})
    return surface.to(rest.detach())


def _rings(points: np.ndarray, faces: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours [V, RING + 1] and shares [V, 2, RING + 1] of vertices; those of no area borrow a neighbour's."""
    count = len(points)
    corner = points[faces]
    areas = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])  # [F, 3]
    normals = np.zeros_like(points)
    for side in range(3):
        np.add.at(normals, faces[:, side], areas)
    length = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(length, 1e-300)[:, None]
    helper = np.eye(3)[np.abs(normals).argmin(axis=1)]
    tangent = np.cross(helper, normals)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-300)
    across = np.cross(normals, tangent)
    here, there = np.concatenate([edges, edges[:, ::-1]]).T
    step = points[there] - points[here]
    flat = np.stack([(step * tangent[here]).sum(1), (step * across[here]).sum(1)], -1)  # [2E, 2]
    order = np.lexsort((np.arctan2(flat[:, 1], flat[:, 0]), here))
    here, there, flat = here[order], there[order], flat[order]
    degree = np.bincount(here, minlength=count)
    rank = np.arange(len(here)) - (np.cumsum(degree) - degree)[here]
    # Of a fan of many neighbours, RING evenly around.
    slot = rank * np.minimum(RING, degree[here]) // np.maximum(degree[here], 1)
    kept = np.r_[True, (here[1:] != here[:-1]) | (slot[1:] != slot[:-1])][: len(here)]
    here, there, flat, slot = here[kept], there[kept], flat[kept], slot[kept]
    ring = np.repeat(np.arange(count)[:, None], RING + 1, axis=1)
    local = np.zeros((count, RING, 2))
    ring[here, slot], local[here, slot] = there, flat
    spread = np.einsum("vki,vkj->vij", local, local)  # [V, 2, 2]
    trace = np.trace(spread, axis1=1, axis2=2)
    good = (length > 0) & (np.linalg.det(spread) > 1e-6 * trace**2) & (trace > 0)
    spread[~good] = np.eye(2)
    shares = np.zeros((count, 2, RING + 1))
    shares[:, :, :RING] = np.einsum("vij,vkj->vik", np.linalg.inv(spread), local)
    shares[:, :, RING] = -shares[:, :, :RING].sum(-1)
    if good.any() and not good.all():
        _, near = cKDTree(points[good]).query(points[~good])
        ring[~good], shares[~good] = ring[good][near], shares[good][near]
    return ring, shares


def _beside(faces: np.ndarray) -> np.ndarray:
    """[F, 3] the triangle behind the edge (i, i + 1) of each triangle, or itself where there is none."""
    count = len(faces)
    pairs = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2), axis=1)  # [3F, 2]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    same = (pairs[order][1:] == pairs[order][:-1]).all(1)
    beside = np.repeat(np.arange(count), 3)
    one, other = order[:-1][same], order[1:][same]
    beside[one], beside[other] = other // 3, one // 3
    return beside.reshape(count, 3)


def _frames(vertices: Tensor, surface: Surface) -> tuple[Tensor, Tensor]:
    """Frames [T, V, 3, 3] and areas [T, V] of vertices [T, V, 3]."""
    count = len(vertices)
    # All times of a vertex side by side: one product of V matrices, and whole rows to gather.
    near = vertices.transpose(0, 1).flatten(1).index_select(0, surface.ring.flatten())  # [V * (RING + 1), 3T]
    image = surface.shares @ near.unflatten(0, surface.ring.shape)  # [V, 2, 3T]
    first, second = image.unflatten(2, (count, 3)).permute(1, 2, 0, 3).unbind(0)  # [T, V, 3]
    across = torch.linalg.cross(first, second)
    area = (across.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    normal = across / area
    tangent = torch.nn.functional.normalize(first + torch.linalg.cross(second, normal), dim=-1)
    return torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], -1), area.squeeze(-1)


def turns(vertices: Tensor, surface: Surface) -> tuple[Tensor, Tensor]:
    """How a surface has turned and grown since its rest, for vertices [T, V, 3].

    Returns:
        unit quaternions wxyz [T, V, 4] with w >= 0, and the log of the growth in length [T, V]: half that of the area.
    """
    frames, areas = _frames(vertices, surface)
    grown = 0.5 * (areas / surface.areas).clamp(_LEAST_GROWTH**2, 1 / _LEAST_GROWTH**2).log()
    return matrix_quats(frames @ surface.frames.mT), grown


def matrix_quats(matrices: Tensor) -> Tensor:
    """Unit quaternions wxyz [..., 4], w >= 0, of rotation matrices [..., 3, 3].

    4 q q^T is linear in the matrix; its row with the largest diagonal is a multiple of q that is never small
    (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrices.unbind(-2))
    x, y, z = h - f, c - g, d - b
    rows = [
        1 + a + e + i, x, y, z,
        x, 1 + a - e - i, b + d, c + g,
        y, b + d, 1 - a + e - i, f + h,
        z, c + g, f + h, 1 - a - e + i,
    ]  # fmt: skip
    square = torch.stack(rows, -1).unflatten(-1, (4, 4))
    best = square.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*square.shape[:-2], 1, 4)
    quats = torch.nn.functional.normalize(square.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def turned(quats: Tensor, vectors: Tensor) -> Tensor:
    """Vectors [..., 3] turned by unit quaternions wxyz [..., 4]."""
    real, axis = quats[..., :1], quats[..., 1:]
    axis, vectors = torch.broadcast_tensors(axis, vectors)
    twice = 2 * torch.linalg.cross(axis, vectors)
    return vectors + real * twice + torch.linalg.cross(axis, twice)


def foot_shares(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentric shares [N, 3] of the places on triangles [N, 3, 3] that are nearest to points [N, 3].

    Inside the triangle by projection, else on the nearest of its edges: continuous, and at an edge the same for both
    of its triangles. Triangles without area give a place on an edge.
    """
    a, b, c = corners.unbind(-2)
    ab, ac, ap = b - a, c - a, points - a
    aa, mixed, cc = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    along_b, along_c = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = aa * cc - mixed.square()
    solid = area > 1e-9 * aa * cc
    area = torch.where(solid, area, 1.0)
    second = (cc * along_b - mixed * along_c) / area
    third = (aa * along_c - mixed * along_b) / area
    within = torch.stack([1 - second - third, second, third], -1)
    inside = solid & (within >= 0).all(-1)

    bc = c - b
    sides = torch.stack([ab, bc, -ac], -2)  # [N, 3, 3], from each corner to the next
    square = sides.square().sum(-1)
    along = ((points[:, None] - corners) * sides).sum(-1) / torch.where(square > 0, square, 1.0)
    along = along.clamp(0, 1)  # [N, 3]
    gap = (corners + along[..., None] * sides - points[:, None]).square().sum(-1)
    edge = gap.argmin(-1, keepdim=True)  # [N, 1]
    share = along.gather(1, edge)
    ends = torch.zeros_like(within).scatter(1, edge, 1 - share).scatter(1, (edge + 1) % 3, share)
    return torch.where(inside[:, None], within, ends)


def foot_gaps(points: Tensor, corners: Tensor) -> Tensor:
    """Squared distances [N] of points [N, 3] from triangles [N, 3, 3]."""
    return ((foot_shares(points, corners)[..., None] * corners).sum(-2) - points).square().sum(-1)


@torch.no_grad()
def nearest_faces(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """The triangle [N] int64 nearest to each of points [N, 3], among those of the 256 nearest centroids."""
    corners, owner = _pieces(vertices[faces].detach().cpu())
    centres = corners.mean(1)
    reach = (corners - centres[:, None]).norm(dim=-1).amax(1)  # [P]
    tree, wanted = cKDTree(centres.numpy()), points.detach().cpu()
    found = torch.zeros(len(wanted), dtype=torch.int64)
    gap = torch.full((len(wanted),), torch.inf)
    left = torch.arange(len(wanted))
    for most in _CANDIDATES:
        count = min(most, len(corners))
        distance, near = (torch.from_numpy(of) for of in tree.query(wanted[left].numpy(), k=[*range(1, count + 1)]))
        # None can be nearer than its centroid less its reach.
        row, column = ((distance - reach[near]) < gap[left, None]).nonzero().unbind(1)
        gaps = torch.full(near.shape, torch.inf)
        gaps[row, column] = foot_gaps(wanted[left[row]], corners[near[row, column]]).sqrt().float()
        best, at = gaps.min(1)
        nearer = best < gap[left]
        gap[left[nearer]] = best[nearer]
        found[left[nearer]] = owner[near.gather(1, at[:, None]).squeeze(1)[nearer]]
        left = left[(distance[:, -1] - reach.max() < gap[left]) & (count < len(corners))]
        if not len(left):
            break
    return found.to(points.device)


def _pieces(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Triangles [P, 3, 3] of about one size that triangles [F, 3, 3] are cut into, and the triangle [P] of each."""
    owner = torch.arange(len(corners))
    limit, most = 2 * float((corners - corners.mean(1, True)).norm(dim=-1).amax(1).median()), 8 * len(corners)
    while True:
        large = (corners - corners.mean(1, True)).norm(dim=-1).amax(1) > limit
        if not large.any() or len(corners) + 3 * int(large.sum()) > most:
            return corners, owner
        a, b, c = corners[large].unbind(1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        cut = [torch.stack(three, 1) for three in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        corners, owner = torch.cat([corners[~large], *cut]), torch.cat([owner[~large], owner[large].repeat(4)])


@torch.no_grad()
def walked(face: Tensor, points: Tensor, vertices: Tensor, surface: Surface, steps: int = 4) -> Tensor:
    """The triangles [N] after at most so many steps from ``face`` [N] across edges towards points [N, 3].

    A nearest triangle could be another lip's; a walk stays on its own.
    """
    for _ in range(steps):
        choice = torch.cat([face[:, None], surface.beside[face]], 1)  # [N, 4]
        gaps = foot_gaps(points.repeat_interleave(4, 0), vertices[surface.faces[choice.flatten()]]).view(-1, 4)
        face = choice.gather(1, gaps.argmin(1, keepdim=True)).squeeze(1)
    return face
