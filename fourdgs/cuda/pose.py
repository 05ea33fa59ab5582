"""Gaussians posed by the offsets of a motion model, at all times in one launch each way.

In torch the offsets are chosen, sliced, scaled and added; on the way back each slice's gradient is padded with zeros,
and the means', quaternions' and log scales' are summed over time: some twenty launches, in a training step that lasts
as long as its host takes to launch it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 128  # Gaussians to a program


def pose(
    means: Tensor, quats: Tensor, scales: Tensor, offset: Tensor, timed: Tensor, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Means [T, N, 3], quaternions [T, N, 4] and log scales [T, N, 3]: the canonical ones plus their offsets.

    Where a time is not ``timed`` they are the canonical ones exactly, whatever the offset is, NaN included.

    Args:
        means: [N, 3].
        quats: [N, 4].
        scales: [N, 3].
        offset: [T, N, 10], of the means in units of ``radius``, of the quaternions, of the log scales.
        timed: [T], boolean or any numbers: whether that time's offset counts.
        radius: the length that an offset of one moves a mean by.
    """
    return _Pose.apply(means, quats, scales, offset, timed, radius)


class _Pose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, offset: Tensor, timed: Tensor, radius: float):
        canonical = [tensor.contiguous() for tensor in (means, quats, scales)]
        offset, timed = offset.contiguous(), timed.contiguous()
        if timed.dtype == torch.bool:
            timed = timed.view(torch.uint8)
        instants, count = offset.shape[:2]
        posed = [tensor.new_empty(instants, *tensor.shape) for tensor in canonical]
        _pose[(triton.cdiv(count, _BLOCK), instants)](
            *canonical, offset, timed, *posed, count, float(radius), BLOCK=_BLOCK
        )
        ctx.save_for_backward(timed)
        ctx.radius = float(radius)
        return tuple(posed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor):
        (timed,) = ctx.saved_tensors
        v = [tensor.contiguous() for tensor in v]
        instants, count = v[0].shape[:2]
        v_canonical = [tensor.new_empty(tensor.shape[1:]) for tensor in v]
        v_offset = v[0].new_empty(instants, count, 10)
        _pose_back[(triton.cdiv(count, _BLOCK),)](
            *v, timed, *v_canonical, v_offset, count, ctx.radius, INSTANTS=instants, BLOCK=_BLOCK
        )
        return *v_canonical, v_offset, None, None


# Rows have three or four numbers, of which a tile takes four.


@triton.jit
def _move(canonical, moves, posed, n, at, inside, on, unit, WIDTH: tl.constexpr):
    """Rows ``at`` of the posed tensor: rows ``n`` of the canonical one and what moves them."""
    c = tl.arange(0, 4)[None, :]
    inside = inside & (c < WIDTH)
    value = tl.load(canonical + n * WIDTH + c, inside, 0.0)
    moved = value + unit * tl.load(moves + at * 10 + c, inside, 0.0)
    tl.store(posed + at * WIDTH + c, tl.where(on, moved, value), inside)


@triton.jit(do_not_specialize=["count"])
def _pose(
    means, quats, scales, offset, timed, posed_means, posed_quats, posed_scales, count, radius, BLOCK: tl.constexpr
):
    n = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    t = tl.program_id(1)
    at, inside, on = t * count.to(tl.int64) + n, n < count, tl.load(timed + t) != 0
    _move(means, offset, posed_means, n, at, inside, on, radius, 3)
    _move(quats, offset + 3, posed_quats, n, at, inside, on, 1.0, 4)
    _move(scales, offset + 7, posed_scales, n, at, inside, on, 1.0, 3)


@triton.jit
def _move_back(v, v_moves, at, inside, on, unit, WIDTH: tl.constexpr):
    """The gradient to rows of the posed tensor, after what it means for the offset is stored."""
    c = tl.arange(0, 4)[None, :]
    inside = inside & (c < WIDTH)
    value = tl.load(v + at * WIDTH + c, inside, 0.0)
    tl.store(v_moves + at * 10 + c, tl.where(on, unit * value, 0.0), inside)
    return value


@triton.jit
def _keep(total, to, n, inside, WIDTH: tl.constexpr):
    c = tl.arange(0, 4)[None, :]
    tl.store(to + n * WIDTH + c, total, inside & (c < WIDTH))


@triton.jit(do_not_specialize=["count"])
def _pose_back(
    v_posed_means, v_posed_quats, v_posed_scales, timed, v_means, v_quats, v_scales, v_offset, count, radius,
    INSTANTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program sums up a block of Gaussians over all times, so that nothing is added atomically."""
    n = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    inside, rows = n < count, count.to(tl.int64)
    means = tl.zeros((BLOCK, 4), tl.float32)
    quats, scales = means, means
    for t in range(INSTANTS):
        at, on = t * rows + n, tl.load(timed + t) != 0
        means += _move_back(v_posed_means, v_offset, at, inside, on, radius, 3)
        quats += _move_back(v_posed_quats, v_offset + 3, at, inside, on, 1.0, 4)
        scales += _move_back(v_posed_scales, v_offset + 7, at, inside, on, 1.0, 3)
    _keep(means, v_means, n, inside, 3)
    _keep(quats, v_quats, n, inside, 4)
    _keep(scales, v_scales, n, inside, 3)
