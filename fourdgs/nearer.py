"""Views from nearer, or with more pixels, than a model was trained on: no sharper than its pictures taught."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .cameras import Cameras
from .capture import Capture
from .model import Model

EPS2D = 0.3
"""Pixels squared that `rasterize` adds to every Gaussian's variance in the picture, in training as later."""


def pixel_size(cameras: Cameras, model: Model) -> float:
    """World units that a pixel spans at the middle of the model's Gaussians: the median over cameras."""
    return pixel_size_at(cameras, model.gaussians.means)


def pixel_size_at(cameras: Cameras, points: Tensor) -> float:
    """World units that a pixel spans at the middle of points [P, 3]: the median over cameras."""
    middle = points.detach().median(dim=0).values.double().cpu()
    views = cameras.viewmats.double().cpu()
    depth = (views[:, 2, :3] @ middle + views[:, 2, 3]).clamp(min=1e-6)
    return float((depth / cameras.Ks[:, 0, 0].double().cpu()).median())


def no_sharper(model: Model, capture: Capture, cameras: Cameras) -> Model:
    """The model for ``cameras`` that are nearer than a capture's: Gaussians grown to what its pixels could tell apart.

    In training every Gaussian is widened by `EPS2D` in the picture, so that what is thinner than a pixel looks right
    there; from nearer the same widening is less of the scene, and slits and needles show. What is missing is put into
    the Gaussians themselves: scale^2 + `EPS2D` (p^2 - q^2), p and q the sizes of a pixel of the capture and of
    ``cameras``. (The idea is that of Mip-Splatting's 3D filter, Yu et al., CVPR 2024, with the rasteriser's own blur
    for its width.) As near or less near, the model is the same.
    """
    more = EPS2D * (pixel_size(capture.cameras, model) ** 2 - pixel_size(cameras, model) ** 2)
    if not more > 0:
        return model
    grown = 0.5 * torch.log((2 * model.gaussians.scales).exp() + more)
    return replace(model, gaussians=model.gaussians.replace(scales=grown))
