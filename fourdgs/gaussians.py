"""Gaussians: raw parameters keyed as in gsplat, and the places they start from."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .capture import Capture
from .errors import InputError

VIEWS = 3
"""Cameras that a shape needs: two outlines share a volume that is long along their rays."""

SH_C0 = 0.28209479177387814  # the constant real spherical harmonic, 1 / (2 sqrt(pi))
KEYS = ("means", "quats", "scales", "opacities", "sh0", "shN")


@dataclass(frozen=True)
class Gaussians:
    """A set of N anisotropic 3D Gaussians as raw (unconstrained) parameters, in gsplat's keys and spaces.

    Any leading batch dimensions are allowed: a moving scene at T times is ``[T, N, ...]``.
    """

    means: Tensor  # [..., N, 3] centres, world units
    quats: Tensor  # [..., N, 4] rotations wxyz, normalised on use
    scales: Tensor  # [..., N, 3] log standard deviations
    opacities: Tensor  # [..., N] logits
    sh0: Tensor  # [..., N, 1, 3] degree-0 spherical harmonics
    shN: Tensor  # [..., N, K - 1, 3] the higher degrees

    def __len__(self) -> int:
        return self.means.shape[-2]

    @property
    def sh_degree(self) -> int:
        """The degree that `shN` holds: 0, 1, 2 or 3."""
        return math.isqrt(self.shN.shape[-2] + 1) - 1

    @property
    def sh(self) -> Tensor:
        """All spherical-harmonic coefficients, [..., N, K, 3]."""
        return torch.cat([self.sh0, self.shN], dim=-2) if self.shN.shape[-2] else self.sh0

    def items(self) -> dict[str, Tensor]:
        """The six tensors by their key."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def at_each(self, count: int) -> Gaussians:
        """``count`` times the same: tensors [N, ...] expanded to [count, N, ...]; those that have a batch keep it."""
        shapes = {"means": 2, "quats": 2, "scales": 2, "opacities": 1, "sh0": 3, "shN": 3}
        return Gaussians(
            **{
                key: value.expand(count, *value.shape) if value.dim() == shapes[key] else value
                for key, value in self.items().items()
            }
        )

    def replace(self, **tensors: Tensor) -> Gaussians:
        """A copy with some tensors replaced."""
        return replace(self, **tensors)

    def to(self, device: torch.device | str) -> Gaussians:
        """A copy on another device."""
        return Gaussians(**{key: value.to(device) for key, value in self.items().items()})

    @staticmethod
    def from_points(
        points: np.ndarray | Tensor,  # [N, 3]
        colors: np.ndarray | Tensor,  # [N, 3] in [0, 1]
        *,
        sh_degree: int = 0,
        opacity: float = 0.3,
        scale: float = 1.0,
    ) -> Gaussians:
        """Isotropic Gaussians at points, each as wide as the mean distance to its 3 nearest neighbours times ``scale``.

        Raises:
            InputError: fewer than 4 points, or points that are not finite.
        """
        points = np.asarray(points, dtype=np.float32)
        colors = np.asarray(colors, dtype=np.float32)
        if len(points) < 4 or not np.isfinite(points).all():
            raise InputError(f"{len(points)} usable points are not enough to start from", remedy="give at least 4")
        distance, _ = cKDTree(points).query(points, k=4)
        spacing = np.sqrt(np.mean(distance[:, 1:] ** 2, axis=1)).clip(1e-6)
        # A lone far point would start as a blob over the whole picture.
        spacing = spacing.clip(max=4 * np.median(spacing)) * scale
        count, degrees = len(points), (sh_degree + 1) ** 2
        quats = torch.zeros(count, 4)
        quats[:, 0] = 1
        return Gaussians(
            means=torch.from_numpy(points.copy()),
            quats=quats,
            scales=torch.from_numpy(np.log(spacing).astype(np.float32))[:, None].repeat(1, 3),
            opacities=torch.full((count,), math.log(opacity / (1 - opacity))),
            sh0=torch.from_numpy((colors - 0.5) / SH_C0)[:, None],
            shN=torch.zeros(count, degrees - 1, 3),
        )

    @staticmethod
    def in_box(
        count: int, low: tuple[float, ...], high: tuple[float, ...], *, seed: int = 0, sh_degree: int = 0
    ) -> Gaussians:
        """Grey Gaussians uniformly in the box from ``low`` to ``high`` (world units)."""
        random = np.random.default_rng(seed)
        points = random.uniform(low, high, (count, 3)).astype(np.float32)
        return Gaussians.from_points(points, np.full((count, 3), 0.5, np.float32), sh_degree=sh_degree, opacity=0.1)


def look_at_point(capture: Capture) -> tuple[np.ndarray, float]:
    """The point nearest to all optical axes (least squares), and the radius of the sphere that most cameras see whole.

    For cameras that look the same way (one camera, or a forward-facing rig) the axes have no such point; then it is
    the point on the mean axis at which the cameras' spread spans a tenth of the distance.
    """
    positions = capture.cameras.positions.double().numpy()  # [C, 3]
    forwards = capture.cameras.forwards.double().numpy()
    project = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]  # [C, 3, 3]
    system = project.sum(0)
    smallest = np.linalg.eigvalsh(system)[0] / len(positions)
    if smallest > 0.02:
        centre = np.linalg.solve(system, (project @ positions[:, :, None]).sum(0)[:, 0])
    else:
        spread = np.linalg.norm(positions - positions.mean(0), axis=1).max()
        axis = forwards.mean(0) / max(np.linalg.norm(forwards.mean(0)), 1e-9)
        centre = positions.mean(0) + axis * (10 * spread if spread > 0 else 1.0)
    focal = capture.cameras.Ks[:, [0, 1], [0, 1]].double().numpy()
    half = capture.cameras.sizes.double().numpy() / 2
    tangent = (half / focal).min(axis=1)
    distance = np.linalg.norm(positions - centre, axis=1)
    radius = float(np.median(distance * np.sin(np.arctan(tangent))))
    return centre.astype(np.float32), radius


def _project(capture: Capture, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel columns and rows (int, [C, P]) and depths [C, P] of points in every camera of the capture."""
    camera = np.einsum("cij,pj->cpi", capture.cameras.viewmats[:, :3, :3].numpy(), points)
    camera += capture.cameras.viewmats[:, None, :3, 3].numpy()
    depth = camera[..., 2]
    pixel = np.einsum("cij,cpj->cpi", capture.cameras.Ks.numpy(), camera)[..., :2] / np.maximum(depth, 1e-6)[..., None]
    return np.floor(pixel[..., 0]).astype(np.int64), np.floor(pixel[..., 1]).astype(np.int64), depth


def _voxels(centre: np.ndarray, radius: float, resolution: int) -> tuple[np.ndarray, float]:
    step = 2 * radius / resolution
    axis = (np.arange(resolution) + 0.5) * step - radius
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return (grid + centre).astype(np.float32), step


def _some_frames(capture: Capture, most: int = 48) -> Capture:
    """At most so many frames, spread over cameras first: a clip of one camera adds nothing to a hull."""
    if len(capture) <= most:
        return capture
    order = capture.frames.groupby("camera").cumcount().sort_values(kind="stable").index[:most]
    return capture.select(rows=sorted(order))


def hull_points(capture: Capture, count: int, *, seed: int = 0, resolution: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Points on the visual hull of the masks, with the colours that the cameras see there.

    A voxel is in the hull when no camera that has it in view sees background there (Laurentini, "The visual hull
    concept", 1994). Points are drawn from the hull's outer voxels; a voxel's colour is the median over the cameras
    in which no other hull voxel lies before it.

    Returns:
        points [count, 3] and colours [count, 3] in [0, 1].

    Raises:
        InputError: the capture has no alpha or masks, or the masks share no volume.
    """
    capture = _some_frames(capture)
    rgb, alpha = capture.pictures()
    remedy = "check the poses and masks, or choose init='frusta'"
    if alpha is None:
        raise InputError("no alpha or masks to carve a visual hull from", file=capture.root, remedy=remedy)
    centre, radius = look_at_point(capture)
    points, step = _voxels(centre, radius, resolution)
    column, row, depth = _project(capture, points)
    height, width = alpha.shape[1:]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depth > 0)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    cameras = np.arange(len(capture))[:, None]
    covered = alpha.numpy()[cameras, row, column] > 127
    kept = ((covered | ~inside).all(0) & (inside.sum(0) >= min(2, len(capture)))).reshape((resolution,) * 3)
    if kept.sum() < 8:
        raise InputError("the masks of the cameras share no volume", file=capture.root, remedy=remedy)
    padded = np.pad(kept, 1)
    core = kept.copy()
    for axis in range(3):
        for shift in (-1, 1):
            core &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    shell = np.flatnonzero((kept & ~core).reshape(-1))
    colors = _hull_colors(rgb.numpy(), column[:, shell], row[:, shell], depth[:, shell], inside[:, shell], step)
    random = np.random.default_rng(seed)
    chosen = random.choice(len(shell), count, replace=len(shell) < count)
    jitter = random.uniform(-0.5, 0.5, (count, 3)) * step
    return (points[shell[chosen]] + jitter).astype(np.float32), colors[chosen]


def _hull_colors(rgb, column, row, depth, inside, step) -> np.ndarray:
    """Median colour over the cameras that see each voxel first; all arrays are [C, P] but rgb [C, H, W, 3]."""
    cells = 4  # pixels; a voxel must hide those behind it even where voxels are sparser than pixels
    samples = np.full((*column.shape, 3), np.nan, np.float32)
    for camera in range(len(rgb)):
        wide = rgb.shape[2] // cells + 1
        cell = (row[camera] // cells) * wide + column[camera] // cells
        nearest = np.full((rgb.shape[1] // cells + 1) * wide, np.inf, np.float32)
        np.minimum.at(nearest, cell[inside[camera]], depth[camera][inside[camera]])
        seen = inside[camera] & (depth[camera] < nearest[cell] + 4 * step)
        samples[camera, seen] = rgb[camera, row[camera][seen], column[camera][seen]] / 255
    unseen = np.isnan(samples[..., 0]).all(0)
    samples[:, unseen] = 0.5
    return np.nanmedian(samples, axis=0)


def frusta_points(
    capture: Capture, count: int, *, near: float | None = None, far: float | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points at random pixels and depths of the cameras, coloured by the pixel; for captures without masks.

    Depths (world units) are uniform in inverse depth between ``near`` and ``far``, by default 0.4 and 3 times the
    distance to the point that the cameras look at. Returns points [count, 3] and colours [count, 3] in [0, 1].
    """
    capture = _some_frames(capture)
    rgb, _ = capture.pictures()
    centre, _ = look_at_point(capture)
    distance = float(np.median(np.linalg.norm(capture.cameras.positions.numpy() - centre, axis=1)))
    near, far = near or 0.4 * distance, far or 3 * distance
    random = np.random.default_rng(seed)
    camera = random.integers(0, len(capture), count)
    height, width = rgb.shape[1:3]
    row, column = random.integers(0, height, count), random.integers(0, width, count)
    depth = 1 / random.uniform(1 / far, 1 / near, count)
    inverse = np.linalg.inv(capture.cameras.Ks.double().numpy())[camera]  # [P, 3, 3]
    ray = np.einsum("pij,pj->pi", inverse, np.stack([column + 0.5, row + 0.5, np.ones(count)], -1))
    viewmats = capture.cameras.viewmats.double().numpy()[camera]
    local = ray * depth[:, None] - viewmats[:, :3, 3]
    points = np.einsum("pji,pj->pi", viewmats[:, :3, :3], local)
    return points.astype(np.float32), rgb.numpy()[camera, row, column].astype(np.float32) / 255


def initial_gaussians(
    capture: Capture, count: int, *, how: str = "auto", sh_degree: int = 0, seed: int = 0
) -> Gaussians:
    """Gaussians to start a training from.

    Args:
        how: ``surface`` (where the colours of views of one moment agree, see `surface_points`), ``hull`` (visual hull
            of the masks), ``frusta`` (random pixels and depths), ``box`` (grey, in the box that the cameras look at)
            or ``auto``: surface where at least 3 cameras have masks at one moment, else hull where they have them at
            all and share a volume, else frusta.

    Raises:
        InputError: an unknown ``how``, or a surface or hull that cannot be found.
    """
    if how == "box":
        centre, radius = look_at_point(capture)
        return Gaussians.in_box(count, tuple(centre - radius), tuple(centre + radius), seed=seed, sh_degree=sh_degree)
    if how not in ("auto", "surface", "hull", "frusta"):
        raise InputError(f"{how!r} is unknown", field="init", remedy="use auto, surface, hull, frusta or box")
    if how == "frusta":
        points = frusta_points(capture, count, seed=seed)
    else:
        # Opaque frames say nothing about the silhouette.
        masked = np.flatnonzero(_has_alpha(capture))
        if how == "auto":
            points = _automatic(capture, masked, count, seed)
        elif how == "surface":
            points = _surface(capture, masked, count, seed)
        else:
            enough = capture.frames["camera"].iloc[masked].nunique() >= VIEWS
            points = hull_points(capture.select(rows=masked) if enough else capture, count, seed=seed)
    return Gaussians.from_points(*points, sh_degree=sh_degree)


def _automatic(capture: Capture, masked: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points from the surface where it can be found, else from the hull, else from the frusta."""
    lacks = []
    if len(_of_one_moment(capture, masked)):
        try:
            return _surface(capture, masked, count, seed)
        except InputError as error:
            lacks.append(str(error))
    if capture.frames["camera"].iloc[masked].nunique() >= VIEWS:
        try:
            return hull_points(capture.select(rows=masked), count, seed=seed)
        except InputError as error:
            lacks.append(str(error))
    if lacks:
        warnings.warn(f"starting from random depths, since there is no visual hull: {lacks[-1]}", stacklevel=4)
    return frusta_points(capture, count, seed=seed)


def _surface(capture: Capture, masked: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from .surface_points import surface_points  # which asks this module where the cameras look

    rows = _of_one_moment(capture, masked)
    if not len(rows):
        remedy = "mask them (matte), or use init hull, frusta or box"
        raise InputError(f"no {VIEWS} cameras have masks at one moment", file=capture.root, field="init", remedy=remedy)
    return surface_points(capture.select(rows=rows), count, seed=seed)


def _of_one_moment(capture: Capture, masked: np.ndarray) -> np.ndarray:
    """Those of the rows that have no time, if enough cameras have; else those of the moment that most cameras see."""
    frames = capture.frames.iloc[masked]
    timeless = frames["time"].isna().to_numpy()
    if frames["camera"][timeless].nunique() >= VIEWS:
        return masked[timeless]
    cameras = frames.groupby("time")["camera"].nunique()
    if not len(cameras) or cameras.max() < VIEWS:
        return masked[:0]
    best = cameras.index[cameras == cameras.max()]
    return masked[(frames["time"] == best[len(best) // 2]).to_numpy()]


def _has_alpha(capture: Capture) -> np.ndarray:
    """Which frames have a mask or an alpha channel with background in it, [n] bool."""
    _, alpha = capture.pictures()
    if alpha is None:
        return np.zeros(len(capture), bool)
    return (alpha.flatten(1) < 128).any(1).numpy()
