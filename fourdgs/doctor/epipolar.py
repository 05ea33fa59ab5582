"""Where two cameras disagree about the plane through both of them and a point: the error of poses, in pixels.

Whatever a pair of cameras sees of one point, texture or the rim of a silhouette, the two rays lie in one plane with
the line that joins the cameras (Longuet-Higgins, "A computer algorithm for reconstructing a scene from two
projections", 1981). Under wrong poses they lie in two planes; the angle between these, divided by how much of it a
pixel makes, is the Sampson distance (Hartley and Zisserman, "Multiple View Geometry", section 11.4.3) for rays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..cameras import Cameras
from ..errors import MissingDependency

LONG_SIDE = 640
"""Features are sought in pictures no longer than this: they are found to about half a pixel at any size."""

FEATURES = 1500
KEPT = 40
"""Matches kept of a pair: its two cameras have eight unknowns."""

FEWEST, SHARE = 24, 0.3
"""A pair counts with so many matches, and such a share of them, on one epipolar geometry. A wrong match lies within
a pixel of its line by chance once in some hundred times, so neither is met by chance."""


@dataclass(frozen=True, eq=False)
class Disagreements:
    """P places where the planes of two cameras disagree.

    Attributes:
        first, second: [P] positions of the two cameras.
        error_px: [P] signed; scaled so that independent errors of s pixels (one axis) in either camera give it the
            standard deviation s.
        slopes: [P, 2, 4] its change with a small rotation (world axes, radians) of either camera about its centre, and
            with the logarithm of its focal length.
    """

    first: np.ndarray
    second: np.ndarray
    error_px: np.ndarray
    slopes: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: np.ndarray) -> Disagreements:
        return Disagreements(self.first[rows], self.second[rows], self.error_px[rows], self.slopes[rows])

    @staticmethod
    def concatenate(parts: list[Disagreements]) -> Disagreements:
        """One of many."""
        if not parts:
            none = np.zeros(0, np.int64)
            return Disagreements(none, none, np.zeros(0), np.zeros((0, 2, 4)))
        names = ("first", "second", "error_px", "slopes")
        return Disagreements(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def centres_of(cameras: Cameras) -> np.ndarray:
    """[C, 3] float64, for poses that are rigid motions."""
    views = cameras.viewmats.double().cpu().numpy()
    return -np.einsum("nji,nj->ni", views[:, :3, :3], views[:, :3, 3])


def rays_of(cameras: Cameras, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays through pixels.

    Args:
        points: [C, M, 2].

    Returns:
        unit vectors in the world [C, M, 3], and pixels per radian across them [C, M]: the mean of f / cos a around
        the axis and f / cos^2 a away from it, at an angle a off it.
    """
    views, Ks = cameras.viewmats.double().cpu().numpy(), cameras.Ks.double().cpu().numpy()
    local = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    local = np.einsum("nij,nmj->nmi", np.linalg.inv(Ks), local)
    length = np.linalg.norm(local, axis=-1)
    rays = np.einsum("nji,nmj->nmi", views[:, :3, :3], local / length[..., None])
    return rays, np.sqrt(Ks[:, 0, 0] * Ks[:, 1, 1])[:, None] * length**1.5


def disagreement(
    base: np.ndarray, rays: np.ndarray, forwards: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``error_px`` [P] and ``slopes`` [P, 2, 4] of `Disagreements`.

    Args:
        base: [P, 3] unit vectors from the first camera to the second. rays, forwards: [P, 2, 3] unit vectors.
        pixels: [P, 2] per radian across the ray.
    """
    along = np.einsum("pki,pi->pk", rays, base)
    across = rays - along[..., None] * base[:, None]
    lever = np.maximum(np.linalg.norm(across, axis=-1), 1e-9)  # [P, 2], sine of the angle to the baseline
    angle = np.arctan2(
        np.einsum("pi,pi->p", np.cross(base, across[:, 1]), across[:, 0]), (across[:, 0] * across[:, 1]).sum(-1)
    )
    normal = np.cross(base[:, None], rays) / lever[..., None]
    # A turn w moves a ray r by w x r, and its plane by w . (r x n) / lever; a longer lens moves the ray inwards.
    zoom = np.einsum("pki,pki->pk", normal, forwards) * np.einsum("pki,pki->pk", rays, forwards)
    slopes = np.concatenate([np.cross(rays, normal), zoom[..., None]], axis=-1) / lever[..., None]
    slopes[:, 1] *= -1
    spread = np.linalg.norm(1 / (lever * pixels), axis=1)
    return angle / spread, slopes / spread[:, None, None]


def corrections(
    found: Disagreements, unknown: np.ndarray, pixels: np.ndarray, reach: np.ndarray, noise_px: float, prior_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the cameras that best explain their disagreements.

    Least absolute deviations (by reweighting) on both sides: a bad match or mask has no say, and of all ways to
    explain the rest the one that blames the fewest cameras is taken, so one bad camera among good ones bears its error
    alone, and what all cameras may share unseen (a shift of the subject, a longer lens) is taken for none.

    Args:
        unknown: [n] which unknown each camera position is, 0..U-1; rows of one fixed camera share one.
        pixels: [U] pixels per radian. reach: [U] from the picture's middle to the subject's rim, for zooms.
        noise_px: of one disagreement. prior_px: scale of a camera's error (Laplace).

    Returns:
        [U, 4]: the cameras' errors as rotation vectors (world axes, radians) and logarithms of focal lengths; and the
        disagreements [P] that they leave.
    """
    count = len(pixels)
    if not len(found):
        return np.zeros((count, 4)), found.error_px
    units = np.stack([1 / pixels] * 3 + [1 / reach], axis=-1)  # [U, 4], one pixel each
    design = np.zeros((len(found), count, 4))
    rows = np.arange(len(found))
    for side, which in enumerate((found.first, found.second)):
        np.add.at(design, (rows, unknown[which]), found.slopes[:, side] * units[unknown[which]])
    design = design.reshape(len(found), -1)
    weight, change, left = np.ones(len(found)), np.zeros(design.shape[1]), found.error_px
    prior = np.full(design.shape[1], (noise_px / prior_px) ** 2)
    for _ in range(30):
        weighted = design * weight[:, None]
        before = change
        change = np.linalg.solve(design.T @ weighted + np.diag(prior), weighted.T @ found.error_px)
        if np.abs(change - before).max() < noise_px / 100:
            break
        left = found.error_px - design @ change
        weight = noise_px / np.maximum(np.abs(left), noise_px)
        size = np.abs(change.reshape(count, 4))
        size[:, :3] = np.linalg.norm(size[:, :3], axis=1, keepdims=True)
        prior = noise_px**2 / (prior_px * np.maximum(size, noise_px)).ravel()
    return change.reshape(count, 4) * units, left


def mend_cameras(cameras: Cameras, errors: np.ndarray) -> Cameras:
    """Cameras without the errors [C, 4] that `corrections` found."""
    import torch
    from scipy.spatial.transform import Rotation

    views, Ks = cameras.viewmats.double().cpu().numpy(), cameras.Ks.double().cpu().numpy()
    centres = centres_of(cameras)
    views[:, :3, :3] = views[:, :3, :3] @ Rotation.from_rotvec(errors[:, :3]).as_matrix()
    views[:, :3, 3] = -np.einsum("nij,nj->ni", views[:, :3, :3], centres)
    Ks[:, [0, 1], [0, 1]] *= np.exp(-errors[:, 3:])
    return Cameras(torch.from_numpy(views), torch.from_numpy(Ks), cameras.sizes, cameras.times)


# --- texture ---


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched points of Q pairs of pictures, each pair on one epipolar geometry of its own.

    Attributes:
        pairs: [Q, 2] positions of the cameras. points: Q of [m, 2, 2] pixels (of the first and the second picture).
        cameras: of the positions, at the size in which features were sought.
        tried: how many pairs were looked at.
    """

    pairs: np.ndarray
    points: list[np.ndarray]
    cameras: Cameras
    tried: int


def match_pictures(picture: Callable[[int], np.ndarray], cameras: Cameras, pairs: np.ndarray) -> Matches:
    """Features that pairs of pictures share.

    SIFT features, matched both ways with Lowe's ratio test (Lowe, 2004), and of those the ones on the pair's best
    epipolar geometry by MAGSAC++ (Barath et al., 2020). That geometry comes from the pictures alone, so matches do not
    depend on the poses under test, and moving things are left out where most of the picture stands still.

    Args:
        picture: from a position to uint8 [H, W, 3], at any size.
        cameras: at the capture's own size.
        pairs: [Q, 2] positions.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency("matching pictures needs OpenCV: pip install opencv-python-headless") from error
    sizes = cameras.sizes.double().cpu().numpy()
    factor = np.minimum(1.0, LONG_SIDE / sizes.max(axis=1))
    sizes = np.maximum(1, np.round(sizes * factor[:, None])).astype(np.int64)
    cameras = cameras.resized(sizes[:, 0], sizes[:, 1])
    sift = cv2.SIFT_create(nfeatures=FEATURES)
    features = {}
    for position in sorted({int(value) for value in pairs.ravel()}):
        small = cv2.resize(picture(position), tuple(sizes[position].tolist()), interpolation=cv2.INTER_AREA)
        features[position] = sift.detectAndCompute(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), None)
    kept, points = [], []
    for first, second in pairs.tolist():
        both = _on_one_geometry(cv2, features[first], features[second], cameras[[first, second]])
        if both is not None:
            kept.append((first, second))
            points.append(both)
    return Matches(np.array(kept, dtype=np.int64).reshape(-1, 2), points, cameras, len(pairs))


def _on_one_geometry(cv2, first, second, cameras: Cameras) -> np.ndarray | None:
    """Points [m, 2, 2] that two pictures share; None where there are too few to trust."""
    if first[1] is None or second[1] is None or min(len(first[0]), len(second[0])) < FEWEST:
        return None
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    there = [
        pair[0] for pair in matcher.knnMatch(first[1], second[1], k=2) if pair[0].distance < 0.8 * pair[1].distance
    ]
    back = {match.queryIdx: match.trainIdx for match in matcher.match(second[1], first[1])}
    there = [match for match in there if back[match.trainIdx] == match.queryIdx]
    if len(there) < FEWEST:
        return None
    # OpenCV puts the middle of the first pixel at 0.
    points = np.array([[first[0][m.queryIdx].pt, second[0][m.trainIdx].pt] for m in there], np.float64) + 0.5
    Ks = cameras.Ks.double().cpu().numpy()
    flat = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    flat = np.einsum("kij,mkj->mki", np.linalg.inv(Ks), flat)[..., :2]
    cv2.setRNGSeed(0)
    _, mask = cv2.findEssentialMat(
        np.ascontiguousarray(flat[:, 0]),
        np.ascontiguousarray(flat[:, 1]),
        np.eye(3),
        method=cv2.USAC_MAGSAC,
        prob=0.999,
        threshold=1.0 / float(Ks[:, 0, 0].mean()),
    )
    good = np.zeros(len(points), bool) if mask is None else mask.ravel().astype(bool)
    if good.sum() < max(FEWEST, SHARE * len(points)):
        return None
    return points[good]


def disagreements_of(matches: Matches, cameras: Cameras | None = None) -> Disagreements:
    """What the poses make of matches: `KEPT` of each pair, spread over its list.

    Args:
        cameras: in place of the matches' own, at the same size.
    """
    cameras = matches.cameras if cameras is None else cameras
    centres, forwards = centres_of(cameras), cameras.viewmats[:, 2, :3].double().cpu().numpy()
    parts = []
    for (first, second), points in zip(matches.pairs.tolist(), matches.points, strict=True):
        base = centres[second] - centres[first]
        length = np.linalg.norm(base)
        if length < 1e-12:
            continue
        points = points[np.unique(np.linspace(0, len(points) - 1, KEPT).astype(int))]
        rays, pixels = rays_of(cameras[[first, second]], points.transpose(1, 0, 2))
        count = len(points)
        error, slopes = disagreement(
            np.broadcast_to(base / length, (count, 3)),
            rays.transpose(1, 0, 2),
            np.broadcast_to(forwards[[first, second]], (count, 2, 3)),
            pixels.T,
        )
        parts.append(Disagreements(np.full(count, first), np.full(count, second), error, slopes))
    return Disagreements.concatenate(parts)
