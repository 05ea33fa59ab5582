"""Floaters: light in a picture that comes from where the subject is not.

From few cameras a wrong colour is as well painted into the air before one of them as onto the surface, and training
pictures look the same. In the views of other cameras it shows as specks, veils and spikes of depth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from .cameras import Cameras
from .capture import Capture
from .errors import InputError
from .gaussians import Gaussians
from .model import Model
from .raster import rasterize
from .runs import Run

COLUMNS = ("outside", "specks", "speck_light", "depth_outliers")
FAINT = 0.1
"""The opacity from which a pixel belongs to a speck."""
_AROUND = 3  # pixels to each side in the neighbourhood of a depth
_DEVIATIONS = 8.0  # median absolute deviations; on the rim of a clean ball 5 mark a pixel in 52 views of 135, 8 in one
_SPREAD = 0.1  # of the whole picture's depth: deviations below are the surface's own


@torch.no_grad()
def floaters(
    model: Run | Model,
    cameras: Cameras,
    subject: Capture | None = None,
    *,
    dilate: float = 0.03,
    progress: bool = True,
) -> pd.DataFrame:
    """How much of what a model shows along a path is in the air. Needs no truth.

    Args:
        cameras: the path, [C], of one picture size; each sees the scene at its own time.
        subject: frames with alpha or masks, whose visual hull (Laurentini 1994) the model should fill; of one moment,
            or of a subject that moves less than ``dilate``. None: nothing is said about ``outside``.
        dilate: by how much masks are widened, as a share of the root of their area.

    Returns:
        A row a camera:
        outside: the share of the light (the sum of weights over all pixels) that comes from Gaussians whose centres
        lie outside the widened hull, 0 to 1; NaN without a subject, or where the picture is empty.
        specks: how many connected parts of the picture (8 neighbours, opacity above `FAINT`) there are beside the
        one with the most light. Two people in one picture are one speck.
        speck_light: the share of the light that is in them.
        depth_outliers: the share of the opaque pixels (alpha above 1/2) whose depth is off from the median of their
        7 x 7 neighbours by more than 8 median absolute deviations of these, and by more than a tenth of the median
        absolute deviation of the picture's depths. Tips and corners of true steps in depth count as well, so compare
        runs on one path; a speck by itself in the air has no neighbours and counts above.

    Raises:
        InputError: a subject without alpha, or a dilation below 0.
    """
    model = model.model if isinstance(model, Run) else model
    device = model.gaussians.means.device
    hull = None if subject is None else Hull(subject, dilate)
    rows = []
    for index in tqdm(range(len(cameras)), desc="floaters", disable=not progress, leave=False):
        camera = cameras[index].to(device)
        scene = model.at(camera.times)
        away = None if hull is None else ~hull.holds(scene.means[0])
        rows.append(_figures(*_drawn(scene, camera, away), known=hull is not None))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"specks": np.int64})


class Hull:
    """The visual hull of a capture's masks, widened, as a test for points.

    Args:
        capture: frames with alpha or masks; those without a transparent pixel say nothing and are left out.
        dilate: by how much masks are widened, as a share of the root of their area.

    Raises:
        InputError: no frame has a mask, or a dilation below 0.
    """

    def __init__(self, capture: Capture, dilate: float = 0.03):
        if not dilate >= 0:
            raise InputError(f"is {dilate}, must be at least 0", field="dilate")
        self.cameras, self.masks = [], []
        for row in range(len(capture)):
            solid = capture.alpha(row) > 0.5
            if solid.all():
                continue
            near = ndimage.distance_transform_edt(~solid) <= dilate * np.sqrt(solid.sum()) if solid.any() else solid
            self.cameras.append(capture.cameras[row])
            self.masks.append(torch.from_numpy(near | solid))
        if not self.masks:
            remedy = "give frames with an alpha channel or masks, or leave the subject out"
            raise InputError("no frame has alpha or a mask", file=capture.root, field="subject", remedy=remedy)

    def holds(self, points: Tensor) -> Tensor:
        """Whether points [P, 3] are in the hull, [P] bool: in sight of a camera, and in the mask of all that see it."""
        inside = torch.ones(len(points), dtype=torch.bool, device=points.device)
        seen = torch.zeros_like(inside)
        for camera, mask in zip(self.cameras, self.masks, strict=True):
            viewmat, K = camera.viewmats[0].to(points), camera.Ks[0].to(points)
            local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
            pixel = (local @ K.T)[:, :2] / local[:, 2:].clamp(min=1e-6)
            height, width = mask.shape
            x, y = pixel[:, 0].floor(), pixel[:, 1].floor()
            there = (local[:, 2] > 1e-6) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
            inside &= mask.to(points.device).flatten()[place] | ~there
            seen |= there
        return inside & seen


def _drawn(scene: Gaussians, camera: Cameras, away: Tensor | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light from ``away`` Gaussians [N], opacity and expected depth of one picture, each [H, W]; scene [1, N, ...]."""
    marked = torch.zeros_like(scene.opacities[0]) if away is None else away.float()
    colors = torch.stack([marked, marked, marked], -1)  # the general call takes any number, gsplat three the fastest
    picture, alpha, _ = rasterize(
        scene.means[0],
        functional.normalize(scene.quats[0], dim=-1),
        scene.scales[0].exp(),
        scene.opacities[0].sigmoid(),
        colors,
        camera.viewmats,
        camera.Ks,
        camera.width,
        camera.height,
        render_mode="RGB+ED",
    )
    return tuple(part.double().cpu().numpy() for part in (picture[0, ..., 0], alpha[0, ..., 0], picture[0, ..., 3]))


def _figures(away: np.ndarray, alpha: np.ndarray, depth: np.ndarray, known: bool) -> tuple[float, int, float, float]:
    """The columns of one picture; all [H, W]."""
    light = alpha.sum()
    specks, speck_light = speck_figures(alpha)
    outside = float(away.sum() / light) if known and light > 0 else float("nan")
    return outside, specks, speck_light, outlier_share(depth, alpha > 0.5)


def speck_figures(alpha: np.ndarray) -> tuple[int, float]:
    """The number of parts of a picture's opacity [H, W] beside the main one, and their share of the light."""
    labels, count = ndimage.label(alpha > FAINT, np.ones((3, 3)))
    if count < 2:
        return 0, 0.0
    lights = ndimage.sum_labels(alpha, labels, np.arange(1, count + 1))
    return count - 1, float((lights.sum() - lights.max()) / alpha.sum())


def outlier_share(depth: np.ndarray, shown: np.ndarray) -> float:
    """The share of the ``shown`` pixels [H, W] whose depth [H, W] is off from their neighbours'; see `floaters`.

    Median absolute deviations: Hampel, "The influence curve and its role in robust estimation", 1974.
    """
    if not shown.any():
        return 0.0
    values = depth[shown]
    spread = np.median(np.abs(values - np.median(values)))
    padded = np.pad(np.where(shown, depth, np.nan), _AROUND, constant_values=np.nan)
    side = 2 * _AROUND + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))[shown].reshape(-1, side * side)
    middle = _nan_median(windows)
    deviation = _nan_median(np.abs(windows - middle[:, None]))
    # Depths come in single precision, so a plane that faces the camera has a spread of rounding.
    least = np.maximum(_SPREAD * spread, 1e-4 * np.abs(middle))
    return float((np.abs(values - middle) > np.maximum(_DEVIATIONS * deviation, least)).mean())


def _nan_median(rows: np.ndarray) -> np.ndarray:
    """The medians [n] of the numbers in rows [n, m], each with at least one; `numpy.nanmedian` is ten times slower."""
    ordered = np.sort(rows, axis=1)  # NaN last
    count = (~np.isnan(rows)).sum(1)
    each = np.arange(len(rows))
    return (ordered[each, (count - 1) // 2] + ordered[each, count // 2]) / 2
