"""What silhouettes say about poses: epipolar tangency of pairs, and the visual hull of all.

Where a plane through two camera centres touches a subject, it touches it in both pictures (the frontier point; Cipolla,
Astrom and Giblin, "Motion from the frontier of curved surfaces", ICCV 1995). So the subject spans the same angles about
the line that joins the two centres, whichever of them looks. The disagreement of these angles is an error of the
poses, in pixels, that needs neither texture nor a reconstruction, and is zero for any subject under true poses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..cameras import Cameras
from .epipolar import Disagreements, centres_of, disagreement, rays_of

BORDER = 1.0
"""Pixels: an outline this near the picture's border is where the picture ends, not the subject."""

NARROWEST = math.sin(math.radians(8.0))
"""Sine of the angle between a ray and the baseline: nearer to the epipole a tangency has no lever."""

WIDEST = math.radians(120.0)
"""A subject that spans more than this about a baseline is all around a camera: it has no two tangents."""

NOISE_PX = 0.1
"""How well an outline is known: what true poses leave on clean alpha at 128 pixels (0.05 to 0.1)."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """Convex outlines of n silhouettes, as rays.

    Attributes:
        points: [n, M, 2] pixels, the corners of the outline's convex hull, the last one repeated.
        rays: [n, M, 3] the same as unit vectors in the world.
        cut: [n, M] whether the picture's border made the corner.
        centres, forwards: [n, 3] of the cameras. pixels: [n, M] pixels per radian across the ray.
        usable: [n] whether there is an outline at all.
    """

    points: np.ndarray
    rays: np.ndarray
    cut: np.ndarray
    centres: np.ndarray
    forwards: np.ndarray
    pixels: np.ndarray
    usable: np.ndarray


def solid_part(alpha: np.ndarray) -> np.ndarray:
    """A mask [h, w] uint8 without its specks: pieces under a hundredth of the whole, or of fewer than 9 pixels."""
    labels, count = ndimage.label(alpha >= 128)
    if count <= 1:
        return alpha
    areas = np.bincount(labels.ravel())
    small = areas < max(9, areas[1:].sum() / 100)
    small[0] = False
    return np.where(ndimage.grey_dilation(np.where(small[labels], 1, 0), size=3) > 0, 0, alpha).astype(np.uint8)


def outline(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a silhouette's convex hull, to a fraction of a pixel.

    Along each row and column the outermost places where opacity crosses one half, linear between pixel centres.

    Args:
        alpha: [h, w] uint8.

    Returns:
        points [m, 2] in pixels (corner of the picture at 0), and whether the picture's border made them [m];
        m = 0 where there is no silhouette of at least 9 pixels.
    """
    height, width = alpha.shape
    value = solid_part(alpha).astype(np.float64) / 255
    if (value >= 0.5).sum() < 9:
        return np.zeros((0, 2)), np.zeros(0, bool)
    from scipy.spatial import ConvexHull, QhullError  # slow to import

    points = []
    for lines, flip in ((value, False), (value.T, True)):
        rows = np.flatnonzero((lines >= 0.5).any(axis=1))
        for sign in (1, -1):
            line = lines[rows, ::sign]
            index = (line >= 0.5).argmax(axis=1)
            here, before = line[np.arange(len(rows)), index], line[np.arange(len(rows)), np.maximum(index - 1, 0)]
            place = np.where(index > 0, index - (here - 0.5) / np.maximum(here - before, 1e-9) + 0.5, 0.0)
            place = place if sign > 0 else lines.shape[1] - place
            points.append(np.stack([rows + 0.5, place] if flip else [place, rows + 0.5], axis=-1))
    points = np.concatenate(points)
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:
        return np.zeros((0, 2)), np.zeros(0, bool)
    cut = (points < BORDER).any(axis=1) | (points > np.array([width, height]) - BORDER).any(axis=1)
    return points, cut


def outlines(alphas: list[np.ndarray], cameras: Cameras) -> Outlines:
    """Outlines of masks ([h, w] uint8 each) seen by row-aligned cameras."""
    found = [outline(alpha) for alpha in alphas]
    usable = np.array([len(points) >= 3 for points, _ in found], dtype=bool)
    most = max([len(points) for points, _ in found] + [1])
    points, cut = np.zeros((len(found), most, 2)), np.ones((len(found), most), bool)
    for index, (corners, border) in enumerate(found):
        if usable[index]:
            points[index], cut[index] = corners[-1], border[-1]
            points[index, : len(corners)], cut[index, : len(corners)] = corners, border
    nothing = np.zeros((0, 0))
    return outline_rays(Outlines(points, nothing, cut, nothing, nothing, nothing, usable), cameras)


def outline_rays(shapes: Outlines, cameras: Cameras) -> Outlines:
    """The same outlines as other cameras (row-aligned) see them."""
    rays, pixels = rays_of(cameras, shapes.points)
    forwards = cameras.viewmats[:, 2, :3].double().cpu().numpy()
    return Outlines(shapes.points, rays, shapes.cut, centres_of(cameras), forwards, pixels, shapes.usable)


def tangencies(shapes: Outlines, pairs: np.ndarray) -> Disagreements:
    """Both tangencies of each pair of outlines, where they can be told.

    A tangency is left out where the picture's border made it, where it lies near the epipole, where the subject is
    all around the baseline, and with cameras that stand in one place.

    Args:
        pairs: [Q, 2] positions of cameras whose pictures show the subject in one state.
    """
    pairs = pairs[shapes.usable[pairs].all(axis=1)] if len(pairs) else np.zeros((0, 2), np.int64)
    base = shapes.centres[pairs[:, 1]] - shapes.centres[pairs[:, 0]]  # [Q, 3]
    length = np.linalg.norm(base, axis=-1)
    scale = np.linalg.norm(shapes.centres - shapes.centres.mean(0), axis=-1).max(initial=0.0)
    apart = length > max(1e-4 * scale, 1e-12)
    pairs, base = pairs[apart], base[apart] / length[apart, None]
    rays = shapes.rays[pairs]  # [Q, 2, M, 3]
    across = rays - (rays @ base[:, None, :, None]) * base[:, None, None]
    across_0 = across[:, 0].mean(axis=1)
    reach = np.linalg.norm(across_0, axis=-1)
    right = across_0 / np.maximum(reach, 1e-12)[:, None]
    up = np.cross(base, right)
    angle = np.arctan2(
        np.einsum("qkmi,qi->qkm", rays, up), np.einsum("qkmi,qi->qkm", rays, right)
    )  # [Q, 2, M], about the baseline
    sine = np.linalg.norm(across, axis=-1)
    simple = (reach > NARROWEST / 2) & (np.ptp(angle, axis=2).max(axis=1) < WIDEST)
    parts = []
    for pick in (np.argmin, np.argmax):
        at = pick(angle, axis=2)[..., None]  # [Q, 2, 1]
        lever, cut, pixels = (
            np.take_along_axis(values, at, axis=2)[..., 0] for values in (sine, shapes.cut[pairs], shapes.pixels[pairs])
        )
        kept = simple & ~cut.any(axis=1) & (lever.min(axis=1) > NARROWEST)
        touching = np.take_along_axis(rays, at[..., None], axis=2)[kept, :, 0]  # [K, 2, 3]
        which = pairs[kept]
        error, slopes = disagreement(base[kept], touching, shapes.forwards[which], pixels[kept])
        parts.append(Disagreements(which[:, 0], which[:, 1], error, slopes))
    return Disagreements.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Depths:
    """Signed distances to n silhouettes: pixels inside positive. One [h, w] each, whether the border cuts it, and some
    pixels [m, 2] well inside it."""

    inside: list[np.ndarray]
    cut: np.ndarray
    samples: list[np.ndarray]


def silhouette_depths(alphas: list[np.ndarray], samples: int = 40) -> Depths:
    """`Depths` of masks ([h, w] uint8 each, none empty or full)."""
    inside, cut, chosen = [], [], []
    for alpha in alphas:
        mask = solid_part(alpha) >= 128
        signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
        rows, columns = np.nonzero(signed >= max(0.3 * signed.max(), 1.0))
        some = np.unique(np.linspace(0, len(rows) - 1, samples).astype(int)) if len(rows) else np.zeros(0, int)
        inside.append(signed.astype(np.float32))
        cut.append(bool(mask[[0, -1]].any() or mask[:, [0, -1]].any()))
        chosen.append(np.stack([columns[some], rows[some]], axis=-1) + 0.5)
    return Depths(inside, np.array(cut, bool), chosen)


def explained(depths: Depths, cameras: Cameras, tolerance_px: float = 2.0, share: float = 0.8) -> np.ndarray:
    """[n] how much of each silhouette the others can explain.

    A pixel is explained where its ray passes, in front of the camera, through a point that ``share`` of the other
    cameras have in front of them and in their silhouettes: in their visual hull (Laurentini, 1994). A silhouette that
    the border cuts says nothing of points outside its picture.
    """
    centres, result = centres_of(cameras), np.zeros(len(depths.inside))
    spread = np.linalg.norm(centres - centres.mean(0), axis=1).max(initial=0.0)
    if len(result) < 3 or spread <= 0:
        return result
    views, Ks = cameras.viewmats.double().cpu().numpy(), cameras.Ks.double().cpu().numpy()
    # Four per cent from depth to depth, from near the cameras to where their parallax is a hundredth of a radian.
    along = spread * np.geomspace(0.1, 100, 177)
    need = np.ceil(share * (len(result) - 1))
    for i, pixels in enumerate(depths.samples):
        if not len(pixels):
            continue
        rays, _ = rays_of(cameras[[i]], pixels[None])
        points = centres[i] + rays[0][:, None] * along[:, None]  # [m, D, 3]
        votes = np.zeros(points.shape[:2])
        for j, signed in enumerate(depths.inside):
            if j == i:
                continue
            local = points @ views[j, :3, :3].T + views[j, :3, 3]
            ahead = local[..., 2] > 1e-9
            depth = np.where(ahead, local[..., 2], 1.0)
            column = np.floor((Ks[j, 0, 0] * local[..., 0] + Ks[j, 0, 1] * local[..., 1]) / depth + Ks[j, 0, 2])
            row = np.floor(Ks[j, 1, 1] * local[..., 1] / depth + Ks[j, 1, 2])
            height, width = signed.shape
            seen = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            at = row.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int)
            votes += np.where(seen, signed[at] >= -tolerance_px, depths.cut[j] & ahead)
        result[i] = (votes.max(axis=1) >= need).mean()
    return result
