"""Figures of merit of one picture against its truth, on the 8-bit pictures that a viewer would see."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError
from .raster import ssim as _ssim

CONTRACT = (
    "PSNR is the mean over pictures of each picture's own PSNR, data range 1, on the 8-bit picture, full frame and "
    "foreground only (pixels whose true opacity is above one half). SSIM: 11x11 Gaussian window, valid padding. "
    "Final checkpoint, never the best one seen. Intervals are 95 % bootstrap intervals that resample cameras."
)


def quantise(picture: Tensor) -> Tensor:
    """The picture as 8 bits would show it, still float in [0, 1]: clipped and rounded to 1/255."""
    return (picture.clamp(0, 1) * 255).round() / 255


def psnr_db(rendered: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, data range 1.

    Args:
        rendered, truth: [B, H, W, 3] in [0, 1]; both are rounded to 8 bits first.
        mask: [B, H, W] bool; only these pixels count.

    Returns:
        [B] float64; infinite for equal pictures, NaN where a mask is empty.

    Raises:
        InputError: the shapes differ.
    """
    if rendered.shape != truth.shape:
        raise InputError(f"pictures of shapes {tuple(rendered.shape)} and {tuple(truth.shape)} cannot be compared")
    error = (quantise(rendered).double() - quantise(truth).double()).square().mean(-1)  # [B, H, W]
    if mask is None:
        mse = error.flatten(1).mean(1)
    else:
        weight = mask.double()
        mse = (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return -10 * torch.log10(mse)


def ssim(rendered: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each picture, [B]; pictures [B, H, W, 3], at least 11 pixels wide.

    NaN for pictures that the 11x11 window does not fit into.
    """
    if min(rendered.shape[1:3]) < 11:
        return torch.full((len(rendered),), float("nan"), dtype=torch.float64)
    pairs = zip(quantise(rendered), quantise(truth), strict=True)
    return torch.stack([_ssim(a[None].contiguous(), b[None].contiguous()) for a, b in pairs]).double()
