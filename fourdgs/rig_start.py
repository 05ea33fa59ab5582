"""A rig and a capture of one subject: whether they lie together, and Gaussians on the one in the other's colours."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .binding import matrix_quats
from .cameras import Cameras
from .capture import Capture
from .errors import InputError
from .gaussians import SH_C0, Gaussians
from .nearer import pixel_size_at
from .rig_coherence import WIDE, RigPrior
from .rigged import Rigged
from .thinning import spread

if TYPE_CHECKING:
    from .rig.base import Rig

FLAT = 0.1
"""A Gaussian's width along the normal, in widths along the surface (`WIDE`)."""

GRAZING = 0.2
"""Cosine between the normal and the view below which a picture says little about the colour."""

SOLID = 0.95
"""Opacity of Gaussians that no still shows and only a motion reveals: nothing can teach it."""

POOR = 0.5
"""Overlap of silhouettes below which a rig is doubted; two heads of different people have some 0.8."""

_FITS = 0.75  # overlap that a scaled and moved rig must reach to be suggested,
_GAIN = 0.15  # and how much better than the rig as it is
_NOWHERE = 0.05
_VIEWS, _PIXELS = 8, 96  # of the check
_SEEN = 24  # pictures that colours are taken from
_CHUNK = 1 << 21  # pixels of triangles at once
_TURNS = {
    "": np.eye(3),
    "mirrored left to right (x, y, z to -x, y, z)": np.diag([-1.0, 1, 1]),
    "turned half round (x, y, z to -x, y, -z)": np.diag([-1.0, 1, -1]),
    "turned from z up to y up (x, y, z to x, z, -y)": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "turned from y up to z up (x, y, z to x, -z, y)": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


def gaussians_on(
    rig: Rig | Rigged,
    count: int,
    capture: Capture,
    *,
    prior: RigPrior | None = None,
    sh_degree: int = 0,
    opacity: float = 0.5,
    seed: int = 0,
) -> tuple[Gaussians, Tensor]:
    """Flat Gaussians on a rig's surface at rest, evenly by area, with the colours that the pictures show there.

    A colour is the median over the pictures in which the place faces the camera, nothing of the rig is before it, and
    the mask, where there is one, has the subject; places that no picture shows take those of the nearest ones.

    Args:
        rig: with a track (see `Rigged`) pictures at times count, too; else those without a time.
        prior: where more of them begin, and which of the surface no picture shows and a motion reveals: that begins
            opaque.

    Returns:
        N = ``count`` Gaussians, and the triangle [N] int64 of each, for `Rigged.place`.

    Raises:
        InputError: fewer than 4 Gaussians, no picture that can be used, or none that shows the rig.
    """
    if count < 4:
        raise InputError(f"{count} Gaussians are not enough to start from", field="count", remedy="give at least 4")
    motion, capture = _together(rig, capture, _SEEN)
    rest, faces = motion.rig.rest.cpu().double().numpy(), motion.rig.faces.cpu().numpy()
    areas = np.linalg.norm(_normals(rest, faces), axis=1) / 2
    if not areas.sum() > 0:
        raise InputError("has no triangle with an area", field="rig")
    density = np.ones(len(areas)) if prior is None else prior.density
    areas = density * areas
    random = np.random.default_rng(seed)
    # Evenly over the running area: neighbours in the list of triangles are mostly neighbours on the surface.
    place = (np.arange(count) + random.uniform(size=count)) / count * areas.sum()
    face = np.searchsorted(np.cumsum(areas), place).clip(max=len(faces) - 1)
    root, second = np.sqrt(random.uniform(size=count)), random.uniform(size=count)
    shares = np.stack([1 - root, root * (1 - second), root * second], -1)  # uniform on a triangle
    corners = rest[faces[face]]
    means = np.einsum("nk,nkc->nc", shares, corners)
    colors, seen = _colors(motion, capture, face, shares)
    if not seen.any():
        remedy = "see check_alignment: is it of this capture, and in its world?"
        raise InputError("no picture shows any of the rig's surface", file=capture.root, field="rig", remedy=remedy)
    if not seen.all():
        _, near = cKDTree(means[seen]).query(means[~seen], k=min(4, int(seen.sum())))
        colors[~seen] = colors[seen][near.reshape((~seen).sum(), -1)].mean(1)
    opacities = np.full(count, opacity)
    if prior is not None:
        opacities[prior.hidden.cpu().numpy()[face]] = SOLID

    width = WIDE * np.sqrt(areas.sum() / count / density[face])
    start = Gaussians(
        means=torch.from_numpy(means).float(),
        quats=matrix_quats(_frames(rest, faces[face])).float(),
        scales=torch.from_numpy(np.log(width[:, None] * [1, 1, FLAT])).float(),
        opacities=torch.logit(torch.from_numpy(opacities).float()),
        sh0=torch.from_numpy((colors - 0.5) / SH_C0).float()[:, None],
        shN=torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3),
    )
    return start, torch.from_numpy(face)


def _frames(rest: np.ndarray, faces: np.ndarray) -> torch.Tensor:
    """[N, 3, 3] of triangles [N, 3]; columns tangent, bitangent, normal."""
    normal = _normals(rest, faces)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    tangent = rest[faces[:, 1]] - rest[faces[:, 0]]
    tangent -= (tangent * normal).sum(1, keepdims=True) * normal
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-300)
    return torch.from_numpy(np.stack([tangent, np.cross(normal, tangent), normal], -1))


def prior_of(motion: Rigged, capture: Capture, count: int) -> RigPrior:
    """What the rig knows of ``count`` Gaussians, by the pictures of a capture."""
    together, some = _together(motion, capture, _SEEN)
    faces = motion.rig.faces.cpu().numpy()
    face, shares = np.zeros(len(motion.rig.rest), np.int64), np.zeros((len(motion.rig.rest), 3))
    for side in range(3):
        face[faces[:, side]] = np.arange(len(faces))
    shares[np.arange(len(face)), (faces[face] == np.arange(len(face))[:, None]).argmax(1)] = 1
    _, shown = _colors(together, some, face, shares, grazing=0.02)
    return RigPrior.of(motion.rig, shown, count, pixel_size_at(some.cameras, motion.rig.rest))


def check_alignment(rig: Rig | Rigged, capture: Capture) -> float:
    """How well a rig's silhouettes cover the masks: the mean over pictures of intersection over union, in [0, 1].

    NaN where no picture has a mask with background in it. A rig of the head alone covers less than the subject; then
    a warning says so.

    Raises:
        InputError: they don't lie together; the text names the turn, scale and shift that would make them, if any.
    """
    motion, capture = _together(rig, capture, _VIEWS)
    sizes = capture.frames[["width", "height"]]
    capture = capture.scaled(min(1.0, _PIXELS / int(sizes.max().max())))
    masks = [capture.alpha(i) > 0.5 for i in range(len(capture))]
    rows = [i for i, mask in enumerate(masks) if mask.any() and not mask.all()]
    if not rows:
        return math.nan
    masks, cameras = [masks[i] for i in rows], capture.cameras[rows]
    vertices, faces = _posed(motion, cameras), motion.rig.faces.cpu().numpy()
    overlap = _overlap(_silhouettes(vertices, faces, cameras), masks)
    if overlap >= _FITS:
        return overlap
    best, how = 0.0, ""
    for name in _TURNS:
        found, words = _fitted(vertices, faces, cameras, masks, name)
        if found > best + (0.03 if name else 0):  # without a turn, where that does as well
            best, how = found, words
    what = f"the rig's silhouettes cover the masks with an overlap (IoU) of {overlap:.2f}"
    if best >= _FITS and best > overlap + _GAIN:
        raise InputError(
            what, file=capture.root, field="rig", remedy=f"{how}, it has {best:.2f}: change its vertices so"
        )
    if overlap < _NOWHERE:
        remedy = "check that it is of this subject, its units, and which way is up"
        raise InputError(f"{what}, and no scale, shift or turn helps", file=capture.root, field="rig", remedy=remedy)
    if overlap < POOR:
        warnings.warn(f"{capture.root}: {what}: the rig is a part of the subject, or not in its place", stacklevel=2)
    return overlap


def _together(rig: Rig | Rigged, capture: Capture, most: int) -> tuple[Rigged, Capture]:
    """The rig with its track, and at most so many frames whose drive is known, those without a time first."""
    motion = rig if isinstance(rig, Rigged) else Rigged(rig)
    rows = np.flatnonzero(capture.frames["time"].isna())
    if not len(rows):
        if not len(motion.track_times):
            remedy = "give Rigged(rig, track=(times, values)), or frames without a time"
            raise InputError(
                "has no frame at rest, and the rig no track", file=capture.root, field="rig", remedy=remedy
            )
        rows = np.arange(len(capture))
    return motion, capture.select(rows=rows[spread(len(rows), most)])


@torch.no_grad()
def _posed(motion: Rigged, cameras: Cameras) -> np.ndarray:
    """The rig's vertices [C, V, 3] float64 at the cameras' times."""
    drive = motion.drive_at(cameras.times.to(motion.rig.rest))
    return torch.cat([motion.rig.vertices(row[None]) for row in drive]).double().cpu().numpy()


def _normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[F, 3], as long as twice the areas."""
    a, b, c = points[faces].transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def _in_camera(points: np.ndarray, cameras: Cameras, i: int) -> np.ndarray:
    view = cameras.viewmats[i].double().cpu().numpy()
    return points @ view[:3, :3].T + view[:3, 3]


def _pixels(local: np.ndarray, cameras: Cameras, i: int) -> np.ndarray:
    """[P, 2] of points [P, 3] in the camera; those behind it land anywhere."""
    K = cameras.Ks[i].double().cpu().numpy()
    return (local @ K.T)[:, :2] / np.maximum(local[:, 2:], 1e-9)


def depth_picture(vertices: np.ndarray, faces: np.ndarray, cameras: Cameras, i: int) -> np.ndarray:
    """Depth [H, W] along z of triangles in camera i, world units; inf where there is none at the pixel's centre.

    Triangles that reach behind the camera are left out.
    """
    width, height = cameras.sizes[i].tolist()
    local = _in_camera(vertices, cameras, i)
    pixel = _pixels(local, cameras, i)
    faces = faces[(local[:, 2][faces] > 1e-6).all(1)]
    corner = pixel[faces]  # [f, 3, 2]
    low = np.ceil(corner.min(1) - 0.5).clip(0, None)
    high = np.floor(corner.max(1) - 0.5).clip(None, [width - 1, height - 1])
    (ax, ay), (bx, by), (cx, cy) = corner.transpose(1, 2, 0)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    kept = (high >= low).all(1) & (np.abs(area) > 1e-12)
    low, span = low[kept].astype(np.int64), (high - low + 1)[kept].astype(np.int64)
    corner, area, inverse = corner[kept], area[kept], 1 / local[:, 2][faces[kept]]
    depth = np.full(width * height, np.inf)
    ends = np.cumsum(span.prod(1))
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK)))
        counts = np.diff(ends[start:stop], prepend=before)
        mine = np.repeat(np.arange(start, stop), counts)
        step = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
        x = low[mine, 0] + step % span[mine, 0]
        y = low[mine, 1] + step // span[mine, 0]
        at = np.stack([x + 0.5, y + 0.5], -1)
        sides = corner[mine] - at[:, None]  # [p, 3, 2]
        ahead = np.roll(sides, -1, axis=1)
        cross = sides[..., 0] * ahead[..., 1] - sides[..., 1] * ahead[..., 0]  # of the corner opposite: i + 2
        share = np.roll(cross, -1, axis=1) / area[mine, None]
        inside = (share >= 0).all(1)
        z = 1 / (share * inverse[mine]).sum(1)[inside]
        np.minimum.at(depth, (y * width + x)[inside], z)
        start = stop
    return depth.reshape(height, width)


def _colors(
    motion: Rigged, capture: Capture, face: np.ndarray, shares: np.ndarray, grazing: float = GRAZING
) -> tuple[np.ndarray, np.ndarray]:
    """Median colours [N, 3] in [0, 1] of places on triangles, and which of them are seen [N]."""
    faces, posed = motion.rig.faces.cpu().numpy(), _posed(motion, capture.cameras)
    samples = np.full((len(capture), len(face), 3), np.nan, np.float32)
    for i, vertices in enumerate(posed):
        rgb, alpha = capture.picture(i)
        height, width = rgb.shape[:2]
        points = np.einsum("nk,nkc->nc", shares, vertices[faces[face]])
        local = _in_camera(points, capture.cameras, i)
        column, row = np.floor(_pixels(local, capture.cameras, i)).clip(-1, 1 << 20).astype(np.int64).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (local[:, 2] > 0)
        column, row = column.clip(0, width - 1), row.clip(0, height - 1)
        normal = _normals(vertices, faces)[face]
        towards = capture.cameras.positions[i].double().cpu().numpy() - points
        length = np.linalg.norm(normal, axis=1) * np.linalg.norm(towards, axis=1)
        cosine = (normal * towards).sum(1) / np.maximum(length, 1e-300)
        # A pixel's depth is that of its centre: what is two pixels' width behind, along the slope, is no other surface.
        focal = float(capture.cameras.Ks[i, 0, 0])
        slack = 2 * local[:, 2] / focal / np.maximum(cosine, GRAZING)
        depth = depth_picture(vertices, faces, capture.cameras, i)
        seen = inside & (cosine > grazing) & (local[:, 2] < depth[row, column] + slack)
        if alpha is not None:
            seen &= alpha[row, column] > 127
        samples[i, seen] = rgb[row[seen], column[seen]] / 255
    seen = ~np.isnan(samples[..., 0]).all(0)
    colors = np.full((len(face), 3), 0.5)
    colors[seen] = np.nanmedian(samples[:, seen], axis=0)
    return colors, seen


def _silhouettes(vertices: np.ndarray, faces: np.ndarray, cameras: Cameras) -> list[np.ndarray]:
    return [np.isfinite(depth_picture(vertices[i], faces, cameras, i)) for i in range(len(cameras))]


def _overlap(shapes: list[np.ndarray], masks: list[np.ndarray]) -> float:
    return float(np.mean([(s & m).sum() / (s | m).sum() for s, m in zip(shapes, masks, strict=True)]))


def _fitted(
    vertices: np.ndarray, faces: np.ndarray, cameras: Cameras, masks: list[np.ndarray], name: str
) -> tuple[float, str]:
    """The overlap of a rig turned as `_TURNS` has it, then scaled and moved to fit, and how, in words."""
    turned = vertices @ _TURNS[name].T
    middle = (turned.min((0, 1)) + turned.max((0, 1))) / 2
    target = _middle(cameras, masks)
    size = np.linalg.norm(turned - middle, axis=-1).max()
    scale, shift = 1.0, target
    depth = np.array([_in_camera(target[None], cameras, i)[0, 2] for i in range(len(masks))])
    focal = cameras.Ks[:, 0, 0].double().cpu().numpy()
    wide = np.sqrt([mask.sum() for mask in masks]) * np.maximum(depth, 1e-9) / focal  # world units
    scale = float(wide.mean() / max(size, 1e-300))
    for _ in range(4):
        shapes = _silhouettes((turned - middle) * scale + shift, faces, cameras)
        found = [i for i, shape in enumerate(shapes) if shape.any()]
        if not found:
            return 0.0, name
        ratio = np.mean([masks[i].sum() for i in found]) / np.mean([shapes[i].sum() for i in found])
        shift = shift + target - _middle(cameras[found], [shapes[i] for i in found])
        scale *= math.sqrt(ratio)
    overlap = _overlap(_silhouettes((turned - middle) * scale + shift, faces, cameras), masks)
    shift = shift - scale * middle
    words = [name] if name else []
    words += [f"times {scale:.3g}"] if abs(scale - 1) > 0.03 else []
    words += (
        [f"plus ({', '.join(f'{value:.3g}' for value in shift)})"] if np.abs(shift).max() > 0.03 * size * scale else []
    )
    return overlap, ", then ".join(words) or "as it is"


def _middle(cameras: Cameras, masks: list[np.ndarray]) -> np.ndarray:
    """The point [3] nearest to the rays through the masks' centres of mass (least squares)."""
    system, side = 1e-9 * np.eye(3), np.zeros(3)
    for i, mask in enumerate(masks):
        row, column = np.nonzero(mask)
        view, K = cameras.viewmats[i].double().cpu().numpy(), cameras.Ks[i].double().cpu().numpy()
        ray = view[:3, :3].T @ np.linalg.solve(K, [column.mean() + 0.5, row.mean() + 0.5, 1.0])
        ray /= np.linalg.norm(ray)
        across = np.eye(3) - np.outer(ray, ray)
        system += across
        side += across @ (-view[:3, :3].T @ view[:3, 3])
    return np.linalg.solve(system, side)
