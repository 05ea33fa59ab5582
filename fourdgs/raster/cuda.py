"""Many cameras drawn by one call of gsplat's kernels, with nothing asked of the host on the way but one count.

`api.rasterize` is the general call. This one is for training steps and long paths: it takes the raw parameters, either
one set for all cameras or one a camera, and leaves out what would stall the GPU (gsplat's own call inverts the view
matrices, which waits for the device) or copy for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .api import gsplat_function
from .binning import TILE

if TYPE_CHECKING:
    from ..cameras import Views
    from ..gaussians import Gaussians

_C0 = 0.28209479177387814


def draw(gaussians: Gaussians, views: Views, background: Tensor, *, depth: bool = False) -> tuple[Tensor, Tensor]:
    """Pictures [C, H, W, 3] (4 with the expected depth, where nothing is: 0) and opacity [C, H, W, 1].

    Args:
        gaussians: raw parameters, each tensor [N, ...] for all cameras or [C, N, ...]; N > 0.
        background: [3].

    Raises:
        MissingDependency: gsplat does not work here.
    """
    gsplat_function()  # which says what is missing
    from gsplat import fully_fused_projection, isect_offset_encode, isect_tiles, rasterize_to_pixels

    images, count = len(views.viewmats), len(gaussians)
    opacities = gaussians.opacities.sigmoid()
    moved = [gaussians.means, gaussians.quats, gaussians.scales.exp(), opacities]
    shared = all(tensor.dim() == least for tensor, least in zip(moved, (2, 2, 2, 1), strict=True))
    of_each = (lambda tensor: tensor) if shared else (lambda tensor: tensor[:, None])
    if not shared:
        tails = ((count, 3), (count, 4), (count, 3), (count,))
        moved = [tensor.expand(images, *tail) for tensor, tail in zip(moved, tails, strict=True)]
    means, quats, scales, seen_opacities = moved
    radii, means2d, depths, conics, _ = fully_fused_projection(
        means, None, quats, scales, of_each(views.viewmats), of_each(views.Ks), views.width, views.height,
        opacities=seen_opacities,
    )  # fmt: skip
    if not shared:  # [C, 1, N, ...] -> [C, N, ...]
        radii, means2d, depths, conics = (tensor[:, 0] for tensor in (radii, means2d, depths, conics))
    colors, backgrounds = _colors(gaussians, views.positions, radii), background.expand(images, 3)
    if depth:
        colors = torch.cat([colors.expand(images, -1, -1), depths[..., None]], -1)
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(images, 1)], -1)
    columns, rows = -(-views.width // TILE), -(-views.height // TILE)
    _, isect_ids, flatten_ids = isect_tiles(means2d, radii, depths, TILE, columns, rows)
    offsets = isect_offset_encode(isect_ids, images, columns, rows)
    rgb, alpha = rasterize_to_pixels(
        means2d, conics, colors.expand(images, -1, -1), opacities.expand(images, -1), views.width, views.height, TILE,
        offsets, flatten_ids, backgrounds=backgrounds,
    )  # fmt: skip
    if depth:
        rgb = torch.cat([rgb[..., :3], rgb[..., 3:] / alpha.clamp(min=1e-10)], -1)
    return rgb, alpha


def _colors(gaussians: Gaussians, positions: Tensor, radii: Tensor) -> Tensor:
    """[N, 3] or [C, N, 3]; the same to all cameras where there are no view-dependent terms."""
    if gaussians.sh_degree == 0:
        return (_C0 * gaussians.sh0[..., 0, :] + 0.5).clamp(min=0)
    from gsplat import spherical_harmonics

    toward = gaussians.means - positions[:, None]  # [C, N, 3]
    coefficients = gaussians.sh.expand(len(positions), *gaussians.sh.shape[-3:])
    seen = (radii > 0).all(-1)
    return (spherical_harmonics(gaussians.sh_degree, toward, coefficients, masks=seen) + 0.5).clamp(min=0)
