"""How many training cameras see a Gaussian or a pixel: what one camera alone shows has no depth of its own.

Views count where they differ in place: the frames of a camera that stands still are one view, however many they are,
since depth comes from parallax. Visibility is decided against rendered depths, as shadow maps do (Williams,
"Casting curved shadows on curved surfaces", SIGGRAPH 1978).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .cameras import Cameras
from .errors import InputError
from .gaussians import Gaussians
from .model import render_gaussians

SAME_PLACE = 0.02
"""Cameras are one view where their centres are nearer than this share of the median distance to what they see, and
look the same way within 10 degrees."""
SLACK = 0.05
"""How far behind the rendered depth a point still counts as seen, as a share of that depth. A surface of Gaussians is
as thick as they are, and its rendered depth lies before their centres, most where it is oblique. On an opaque ball of
1,500 at 48 pixels, where 2.55 cameras of 6 are over a point's horizon, 0.05 finds 1.9 to 2.4 (none below the horizon)
and 0.03 finds 1.3 to 1.9. Seen from 4 radii it is a fifth of the subject's radius: thinner things hide nothing."""
_SAME_WAY = 0.985
_CHUNK = 8


@torch.no_grad()
def seen_by(gaussians: Gaussians, cameras: Cameras, *, slack: float = SLACK) -> Tensor:
    """How many distinct views see each Gaussian: its centre is in the picture and nothing opaque lies before it.

    Where less than half of a pixel's light is the scene's, nothing hides what is behind. Gaussians fainter than one
    level of 8 bits count like others: their centre is looked for, not their light.

    Args:
        gaussians: [N], the scene at one moment; that of no time serves for all frames of small motion.
        cameras: [C], of one picture size, times ignored.

    Returns:
        [N] int64 from 0 to the number of distinct views.

    Raises:
        InputError: no camera, or a slack below 0.
    """
    _check(len(cameras), slack)
    depths = rendered_depths(gaussians, cameras)
    chosen = distinct_views(cameras, depths)
    counts = torch.zeros(len(gaussians), dtype=torch.int64, device=gaussians.means.device)
    for row in chosen.tolist():
        counts += _visible(gaussians.means, cameras[row], depths[row], slack)
    return counts


@torch.no_grad()
def rendered_depths(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    """Expected depths [C, H, W] along z, world units; 0 where less than half of the light is the scene's."""
    device = gaussians.means.device
    views, black, parts = cameras.to(device).views(), torch.zeros(3, device=device), []
    for start in range(0, len(cameras), _CHUNK):
        some = views.take(slice(start, start + _CHUNK))
        picture, alpha = render_gaussians(gaussians, some, black, render_mode="RGB+ED")
        parts.append(torch.where(alpha[..., 0] > 0.5, picture[..., 3], 0.0))
    return torch.cat(parts)


@torch.no_grad()
def pixels_seen_by(depths: Tensor, cameras: Cameras, *, slack: float = SLACK) -> Tensor:
    """How many distinct views see what each pixel shows, its own included; 0 where it shows nothing.

    Each pixel is put into the world at its depth, and looked for in the depth of one frame of every other view: it is
    seen where it is no further off than that depth and ``slack`` of it. A moving subject is held against that frame's
    moment, so ``slack`` must cover its motion.

    Args:
        depths: [n, H, W] along z, world units; 0 where nothing is (see `rendered_depths`).
        cameras: [n], of that picture size.

    Returns:
        [n, H, W] int64.

    Raises:
        InputError: shapes that do not fit, or a slack below 0.
    """
    _check(len(cameras), slack)
    size = [len(cameras), cameras.height, cameras.width]
    if list(depths.shape) != size:
        raise InputError(f"has shape {list(depths.shape)}, must be {size}, as the cameras have", field="depths")
    cameras = cameras.to(depths.device)
    chosen = distinct_views(cameras, depths)
    labels = _labels(cameras, _distance(depths))
    counts = torch.zeros_like(depths, dtype=torch.int64)
    for row in range(len(depths)):
        shown = depths[row] > 0
        points = _lifted(depths[row], cameras[row])[shown.flatten()]
        seen = torch.ones(len(points), dtype=torch.int64, device=depths.device)  # by itself
        for other in chosen.tolist():
            if labels[other] != labels[row]:
                seen += _visible(points, cameras[other], depths[other], slack)
        counts[row][shown] = seen
    return counts


def covisibility_weights(
    depths: Tensor, cameras: Cameras, *, enough: int = 3, floor: float = 0.25, slack: float = SLACK
) -> Tensor:
    """Weights [n, H, W] for the loss of each pixel: ``floor`` where one view sees what it shows, 1 from ``enough`` on.

    Linear in between, and 1 where nothing is: the background is the same from everywhere. Arguments and errors are
    those of `pixels_seen_by`.
    """
    if not 0 <= floor <= 1:
        raise InputError(f"is {floor}, must be from 0 to 1", field="floor")
    counts = pixels_seen_by(depths, cameras, slack=slack)
    lacking = torch.where(counts > 0, lack(counts, enough), 0.0)
    return 1 - (1 - floor) * lacking


def lack(counts: Tensor, enough: int = 3) -> Tensor:
    """How far counts of views are from ``enough``, float from 0 (enough) to 1 (one view or none), of any shape.

    For Gaussians it is the weight of a penalty on opacity: ``(lack(seen_by(...)) * opacities.sigmoid()).mean()``.

    Raises:
        InputError: ``enough`` is not at least 2.
    """
    if enough < 2:
        raise InputError(f"is {enough}, must be at least 2", field="enough", remedy="two views are the least for depth")
    return ((enough - counts).float() / (enough - 1)).clamp(0, 1)


def distinct_views(cameras: Cameras, depths: Tensor) -> Tensor:
    """The first row of each view that differs from all before it, [V] int64 in order; depths [C, H, W]."""
    labels = _labels(cameras, _distance(depths))
    return torch.from_numpy(np.unique(labels, return_index=True)[1])


def _check(count: int, slack: float) -> None:
    if not count:
        raise InputError("there is none", field="cameras", remedy="give the training cameras")
    if not slack >= 0:
        raise InputError(f"is {slack}, must be at least 0", field="slack")


def _distance(depths: Tensor) -> float:
    shown = depths[depths > 0]
    return float(shown.median()) if len(shown) else 0.0


def _labels(cameras: Cameras, distance: float) -> np.ndarray:
    """The number of the view of each camera, [C], counted in order of first appearance."""
    positions, forwards = cameras.positions.double().cpu().numpy(), cameras.forwards.double().cpu().numpy()
    labels, leaders = np.empty(len(cameras), np.int64), []
    for row in range(len(cameras)):
        near = np.linalg.norm(positions[leaders] - positions[row], axis=-1) <= max(SAME_PLACE * distance, 1e-9)
        same = np.flatnonzero(near & (forwards[leaders] @ forwards[row] > _SAME_WAY))
        labels[row] = same[0] if len(same) else len(leaders)
        leaders += [] if len(same) else [row]
    return labels


def _visible(points: Tensor, camera: Cameras, depth: Tensor, slack: float) -> Tensor:
    """Whether points [P, 3] are seen in one view of depth [H, W], [P] bool."""
    viewmat, K = camera.viewmats[0].to(points), camera.Ks[0].to(points)
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = local[:, 2]
    pixel = (local / z.clamp(min=1e-6)[:, None]) @ K.T
    height, width = depth.shape
    x, y = pixel[:, 0].floor(), pixel[:, 1].floor()
    inside = (z > 1e-6) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    before = depth.reshape(-1)[place]
    return inside & ((before == 0) | (z <= before * (1 + slack)))


def _lifted(depth: Tensor, camera: Cameras) -> Tensor:
    """The world points [H * W, 3] of a picture's pixels at their depths [H, W]."""
    height, width = depth.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=depth.device) + 0.5, torch.arange(width, device=depth.device) + 0.5, indexing="ij"
    )
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    rays = torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3) @ torch.linalg.inv(K).T
    return (rays * depth.view(-1, 1) - viewmat[:3, 3]) @ viewmat[:3, :3]
