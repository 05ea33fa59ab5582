"""The penalty that keeps time planes smooth and near one: a launch a level each way, and one sum.

The planes are small, so that torch's form takes no time on the GPU; but it is some thirty launches a level, and a
training step lasts as long as its host takes to launch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 256
_NEAR_ONE = 0.01  # the weight of mean |plane - 1|, as in `motion.Deform.regularisation`


def time_plane_penalty(planes: Sequence[Tensor]) -> Tensor:
    """Mean squared second difference along time plus 0.01 mean |plane - 1|, summed over levels [3, S, R, C]; a scalar.

    Fewer than three rows have no second difference.
    """
    return _Smoothness.apply(*planes)


class _Smoothness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *planes: Tensor) -> Tensor:
        planes = [plane.contiguous() for plane in planes]
        grids = [_grid(plane) for plane in planes]
        counts = [rows * three * blocks for rows, three, blocks in grids]
        parts = planes[0].new_empty(sum(counts))
        for plane, grid, part in zip(planes, grids, parts.split(counts), strict=True):
            _penalty[grid](plane, part, *_sizes(plane), *_scales(plane), BLOCK=_BLOCK)
        ctx.save_for_backward(*planes)
        return parts.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        planes = ctx.saved_tensors
        gradients = tuple(torch.empty_like(plane) for plane in planes)
        for plane, gradient in zip(planes, gradients, strict=True):
            _penalty_back[_grid(plane)](plane, v, gradient, *_sizes(plane), *_scales(plane), BLOCK=_BLOCK)
        return gradients


def _sizes(plane: Tensor) -> tuple[int, int]:
    """Rows, and numbers in a row."""
    return plane.shape[1], plane.shape[2] * plane.shape[3]


def _grid(plane: Tensor) -> tuple[int, int, int]:
    rows, pitch = _sizes(plane)
    return rows, plane.shape[0], triton.cdiv(pitch, _BLOCK)


def _scales(plane: Tensor) -> tuple[float, float]:
    """What a squared second difference counts, and what a distance from one does."""
    rows, pitch = _sizes(plane)
    return 1 / (plane.shape[0] * max(rows - 2, 1) * pitch), _NEAR_ONE / plane.numel()


@triton.jit
def _bend(plane, s, x, rows, pitch, inside):
    """The second difference around a row; 0 where it lacks a neighbour."""
    inside = inside & (s > 0) & (s < rows - 1)
    at = plane + s * pitch + x
    sides = tl.load(at + pitch, inside, 0.0) + tl.load(at - pitch, inside, 0.0)
    return sides - 2 * tl.load(at, inside, 0.0)


@triton.jit
def _penalty(planes, parts, rows, pitch, bend_scale, one_scale, BLOCK: tl.constexpr):
    """The part of the penalty that a piece of a row has [S, 3, blocks]."""
    s, k, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    x = block * BLOCK + tl.arange(0, BLOCK)
    inside = x < pitch
    plane = planes + k * rows * pitch
    bend = _bend(plane, s, x, rows, pitch, inside)
    away = tl.abs(tl.load(plane + s * pitch + x, inside, 1.0) - 1)
    place = (s * tl.num_programs(1) + k) * tl.num_programs(2) + block
    tl.store(parts + place, tl.sum(bend_scale * bend * bend + one_scale * away))


@triton.jit
def _penalty_back(planes, v, gradient, rows, pitch, bend_scale, one_scale, BLOCK: tl.constexpr):
    s, k = tl.program_id(0), tl.program_id(1)
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = x < pitch
    plane = planes + k * rows * pitch
    bends = _bend(plane, s - 1, x, rows, pitch, inside) + _bend(plane, s + 1, x, rows, pitch, inside)
    bends -= 2 * _bend(plane, s, x, rows, pitch, inside)
    here = tl.load(plane + s * pitch + x, inside, 1.0)
    sign = tl.where(here > 1, 1.0, 0.0) - tl.where(here < 1, 1.0, 0.0)
    value = tl.load(v) * (2 * bend_scale * bends + one_scale * sign)
    tl.store(gradient + (k * rows + s) * pitch + x, value, inside)
