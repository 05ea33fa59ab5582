"""What a training step minimises."""

from __future__ import annotations

from torch import Tensor

from .cuda.available import fused
from .raster import ssim
from .raster.ssim import WINDOW


def photometric(rendered: Tensor, truth: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM) between pictures [B, H, W, 3] in [0, 1], a scalar (Kerbl et al. 2023, eq. 7)."""
    absolute = (rendered - truth).abs().mean()
    if ssim_weight == 0:
        return absolute
    return (1 - ssim_weight) * absolute + ssim_weight * (1 - ssim(rendered, truth))


def photometric_to(rendered: Tensor, store: Tensor, rows: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """`photometric` against pictures uint8 [m, H, W, 3] of a store, by their rows [B]; fused on CUDA."""
    if rendered.is_cuda and min(rendered.shape[1:3]) >= WINDOW and fused():
        from .cuda.photometric import Photometric

        return Photometric.apply(rendered, store, rows, ssim_weight)
    return photometric(rendered, store[rows].float() / 255, ssim_weight)
