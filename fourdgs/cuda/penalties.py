"""The penalties on opacities and scales in one launch each way and one sum.

In torch they are fourteen, for numbers that are read once each way; and a training step lasts as long as its host
takes to launch it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 1024


def size_penalty(opacities: Tensor, scales: Tensor, opacity_weight: float, scale_weight: float) -> Tensor:
    """``opacity_weight`` times the mean opacity plus ``scale_weight`` times the mean scale, a scalar.

    Args:
        opacities: their logits [N].
        scales: their logarithms [N, 3].
    """
    return _Sizes.apply(opacities, scales, opacity_weight, scale_weight)


class _Sizes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, opacities: Tensor, scales: Tensor, opacity_weight: float, scale_weight: float) -> Tensor:
        opacities, scales = opacities.contiguous(), scales.contiguous()
        ctx.sizes = (opacities.numel(), scales.numel(), opacity_weight / len(opacities), scale_weight / scales.numel())
        parts = scales.new_empty(triton.cdiv(scales.numel(), _BLOCK))
        _sizes[(len(parts),)](opacities, scales, parts, *ctx.sizes, BLOCK=_BLOCK)
        ctx.save_for_backward(opacities, scales)
        return parts.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        opacities, scales = ctx.saved_tensors
        v_opacities, v_scales = torch.empty_like(opacities), torch.empty_like(scales)
        _sizes_back[(triton.cdiv(scales.numel(), _BLOCK),)](
            opacities, scales, v, v_opacities, v_scales, *ctx.sizes, BLOCK=_BLOCK
        )
        return v_opacities, v_scales, None, None


# A program takes a block of the scales, and of the opacities what lies at the same places: there are fewer of them.


@triton.jit(do_not_specialize=["count", "scale_count"])
def _sizes(opacities, scales, parts, count, scale_count, opacity_weight, scale_weight, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    opaque, large = n < count, n < scale_count
    opacity = tl.where(opaque, tl.sigmoid(tl.load(opacities + n, opaque, 0.0)), 0.0)
    scale = tl.where(large, tl.exp(tl.load(scales + n, large, 0.0)), 0.0)
    tl.store(parts + tl.program_id(0), tl.sum(opacity_weight * opacity + scale_weight * scale))


@triton.jit(do_not_specialize=["count", "scale_count"])
def _sizes_back(
    opacities, scales, v, v_opacities, v_scales, count, scale_count, opacity_weight, scale_weight, BLOCK: tl.constexpr
):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    opaque, large = n < count, n < scale_count
    value = tl.load(v)
    opacity = tl.sigmoid(tl.load(opacities + n, opaque, 0.0))
    tl.store(v_opacities + n, value * opacity_weight * opacity * (1 - opacity), opaque)
    tl.store(v_scales + n, value * scale_weight * tl.exp(tl.load(scales + n, large, 0.0)), large)
