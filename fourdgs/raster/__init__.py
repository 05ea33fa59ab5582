"""Differentiable rasterisation of Gaussians: gsplat on CUDA, a numba engine on the CPU; and fused SSIM."""

from __future__ import annotations

from .api import rasterize
from .ssim import ssim

__all__ = ["rasterize", "ssim"]
