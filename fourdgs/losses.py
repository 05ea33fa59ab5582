"""What a training step minimises."""

from __future__ import annotations

from torch import Tensor

from .raster import ssim


def photometric(rendered: Tensor, truth: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM) between pictures [B, H, W, 3] in [0, 1], a scalar (Kerbl et al. 2023, eq. 7)."""
    absolute = (rendered - truth).abs().mean()
    if ssim_weight == 0:
        return absolute
    return (1 - ssim_weight) * absolute + ssim_weight * (1 - ssim(rendered, truth))
