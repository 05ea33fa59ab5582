"""Ghosting: light that reaches a pixel from somewhere else than the one surface that the pixel shows.

A ghost is a semi-transparent copy: an arm where it was in another frame, a veil before a face, floaters in the air.
From a few held-out views it costs little PSNR; on a camera path it is what people see first.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from .cameras import Cameras
from .gaussians import Gaussians
from .model import Model
from .raster import rasterize
from .runs import Run

BINS = 24
"""Slices of the subject's depth."""
SURFACE = 3
"""Slices in a row that count as one surface, an eighth of the depth: a surface of two slices' thickness, wherever it
falls, lies within three."""
_FLOATS = 2e7  # of one batch of slices


@torch.no_grad()
def ghosts(model: Run | Model, cameras: Cameras, *, progress: bool = True) -> pd.DataFrame:
    """Light from second layers, and holes, in the pictures along a path. Needs no truth.

    A ray's light is shared out by compositing: w_k from slice k of the subject's depth, and 1 - alpha from the
    background. The main layer is the `SURFACE` slices in a row with the most of it, or the background where that has
    more. What is left is light from elsewhere. (The same weights, held against one another by distance, make the
    distortion loss of mip-NeRF 360, Barron et al., CVPR 2022, eq. 15; shares of layers do not grow with the distance
    between them.) Rims of surfaces share a pixel with what is behind them and are no ghosts: a morphological opening
    (Serra 1982) with a square takes away whatever is thinner than 1/32 of the picture.

    Limits: one half is the most that a ghost can be, one that hides what is behind it is a wrong surface, which
    held-out PSNR sees. Ghosts nearer to the surface than an eighth of the subject's depth, such as a second mouth in
    the same cheek, are part of the surface. Hair, glass and blur through motion count as ghosts. A trained scene has
    a level of its own, so compare runs on one path.

    Args:
        cameras: the path, [C]; each sees the scene at its own time.

    Returns:
        A row a camera: ghost (light from second layers over that of the subject, sum of alpha), and see_through (mean
        of 1 - alpha inside the silhouette alpha > 1/2, its rim left out). NaN where nothing is seen.
    """
    model = model.model if isinstance(model, Run) else model
    device = model.gaussians.means.device
    centre, radius = _ball(model.gaussians)
    chunk = max(1, int(_FLOATS / (len(model.gaussians.means) * BINS)))
    chunk = min(chunk, 4)
    rows = []
    bar = tqdm(total=len(cameras), desc="ghosts", disable=not progress, leave=False)
    for start in range(0, len(cameras), chunk):
        some = cameras[start : start + chunk].to(device)
        weights = layers(model.at(some.times), some, centre, radius)
        rows += [_figures(weight) for weight in weights]
        bar.update(len(some))
    bar.close()
    return pd.DataFrame(rows, columns=["ghost", "see_through"], dtype=np.float64)


def layers(scene: Gaussians, cameras: Cameras, centre: Tensor, radius: float) -> Tensor:
    """What each slice of depth contributes to each pixel, [C, H, W, BINS]; the slices sum to alpha.

    Args:
        scene: one set a camera, [C, N, ...].
        centre, radius: of the ball that is sliced, perpendicular to the view; what is nearer or further goes into the
            first or the last slice.
    """
    rotation, shift = cameras.viewmats[:, 2, :3], cameras.viewmats[:, 2, 3]
    depth = (scene.means * rotation[:, None]).sum(-1) + shift[:, None]  # [C, N]
    middle = rotation @ centre + shift  # [C]
    place = (depth - middle[:, None] + radius) / (2 * radius) * BINS
    colors = functional.one_hot(place.long().clamp(0, BINS - 1), BINS).float()  # [C, N, BINS]
    picture, _, _ = rasterize(
        scene.means,
        functional.normalize(scene.quats, dim=-1),
        scene.scales.exp(),
        scene.opacities.sigmoid(),
        colors,
        cameras.viewmats[:, None],
        cameras.Ks[:, None],
        cameras.width,
        cameras.height,
    )
    return picture[:, 0]


def second_light(weights: Tensor) -> Tensor:
    """The share of each ray's light that comes from elsewhere than its main layer, [C, H, W] of [C, H, W, BINS]."""
    total = functional.pad(weights.cumsum(-1), (1, 0))
    surface = (total[..., SURFACE:] - total[..., :-SURFACE]).amax(-1)
    return (1 - torch.maximum(surface, 1 - weights.sum(-1))).clamp(min=0)


def _figures(weights: Tensor) -> tuple[float, float]:
    """ghost and see_through of one picture's slices [H, W, BINS]."""
    alpha = weights.sum(-1)
    reach = max(1, round(max(alpha.shape) / 64))
    ghost = _opened(second_light(weights[None])[0], reach)
    inside = _eroded((alpha > 0.5).float(), reach) > 0
    if not bool((alpha > 0.5).any()):
        return float("nan"), float("nan")
    holes = float((1 - alpha)[inside].double().mean()) if bool(inside.any()) else float("nan")
    return float(ghost.double().sum() / alpha.double().sum()), max(holes, 0.0)


def _eroded(picture: Tensor, reach: int) -> Tensor:
    """The least value within ``reach`` pixels (a square), [H, W]; outside the picture there is nothing to hold it."""
    return -functional.max_pool2d(-picture[None, None], 2 * reach + 1, 1, reach)[0, 0]


def _opened(picture: Tensor, reach: int) -> Tensor:
    grown = functional.max_pool2d(_eroded(picture, reach)[None, None], 2 * reach + 1, 1, reach)
    return grown[0, 0]


def _ball(gaussians: Gaussians) -> tuple[Tensor, float]:
    """Centre [3] and radius of the ball that holds 99 % of the scene's opacity, median centre, canonical scene."""
    weight = gaussians.opacities.sigmoid().double()
    centre = torch.stack([_quantile(axis, weight, 0.5) for axis in gaussians.means.double().T])
    radius = _quantile((gaussians.means.double() - centre).norm(dim=-1), weight, 0.99)
    return centre.to(gaussians.means), max(float(radius), 1e-6)


def _quantile(values: Tensor, weight: Tensor, share: float) -> Tensor:
    order = values.argsort()
    total = weight[order].cumsum(0)
    return values[order][torch.searchsorted(total, share * total[-1]).clamp(max=len(values) - 1)]
