"""HexPlane features on CUDA: one kernel a level forwards and one backwards, for all times at once.

As on the CPU, the time planes are first interpolated at the few times asked for, here by a small matrix product, which
leaves a line of cells for each axis and time. The planes of space are looked up once for all times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 64  # Gaussians to a program


def fused_features(space: Sequence[Tensor], time: Sequence[Tensor], place: Tensor, times: Tensor) -> Tensor:
    """`hexplane.hexplane_features`, for a number of channels that is a power of two."""
    lines = [_lines(planes, times) for planes in time]
    return _Fused.apply(place, *space, *lines)


def _lines(planes: Tensor, times: Tensor) -> Tensor:
    """Time planes [3, S, R, C] at times [T] -> [T, 3, R, C]."""
    rows = planes.shape[1]
    at = (times * (rows - 1)).clamp(0, rows - 1)  # [T]
    # A hat around each row: the two neighbours' shares of linear interpolation, and 0 for the others.
    shares = (1 - (at[:, None] - torch.arange(rows, device=at.device)).abs()).clamp(min=0)  # [T, S]
    return torch.einsum("ts,ksrc->tkrc", shares, planes)


class _Fused(torch.autograd.Function):
    """place [N, 3], planes of space [3, R, R, C] and lines [T, 3, R, C] of each level -> [T, N, levels * C]."""

    @staticmethod
    def forward(ctx: Any, place: Tensor, *tensors: Tensor) -> Tensor:
        place, *tensors = (tensor.contiguous() for tensor in (place, *tensors))
        levels = len(tensors) // 2
        instants, channels = tensors[levels].shape[0], tensors[0].shape[-1]
        features = place.new_empty(instants, len(place), levels * channels)
        for level, (planes, lines) in enumerate(zip(tensors[:levels], tensors[levels:], strict=True)):
            _features[(triton.cdiv(len(place), _BLOCK),)](
                place, planes, lines, features, len(place), planes.shape[1], features.shape[2],
                level * channels, INSTANTS=instants, C=channels, BLOCK=_BLOCK,
            )  # fmt: skip
        ctx.save_for_backward(place, *tensors)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        place, *tensors = ctx.saved_tensors
        levels, channels, v = len(tensors) // 2, tensors[0].shape[-1], v.contiguous()
        gradients = [torch.zeros_like(tensor) for tensor in tensors]
        for level in range(levels):
            planes, lines = tensors[level], tensors[levels + level]
            _features_back[(triton.cdiv(len(place), _BLOCK),)](
                place, planes, lines, v, gradients[level], gradients[levels + level], len(place),
                planes.shape[1], v.shape[2], level * channels, INSTANTS=len(lines), C=channels, BLOCK=_BLOCK,
            )  # fmt: skip
        return None, *gradients


@triton.jit
def _cell(place, axis, n, inside, size):
    """The cell at or below each Gaussian along an axis, the next one, and how far between them it is."""
    at = (tl.load(place + n * 3 + axis, inside, 0.0) + 1) * 0.5 * (size - 1)
    at = tl.minimum(tl.maximum(at, 0.0), size - 1.0)
    low = at.to(tl.int32)
    return low, tl.minimum(low + 1, size - 1), at - low


@triton.jit
def _between(base, low, high, share, c, C: tl.constexpr):
    """[n, C] numbers, interpolated between two cells of C each."""
    a = tl.load(base + low[:, None] * C + c)
    return a + share[:, None] * (tl.load(base + high[:, None] * C + c) - a)


@triton.jit
def _lookup(plane, left, right, across, top, bottom, down, size, c, C: tl.constexpr):
    above = _between(plane, top * size + left, top * size + right, across, c, C)
    below = _between(plane, bottom * size + left, bottom * size + right, across, c, C)
    return above + down[:, None] * (below - above)


@triton.jit
def _spill_line(base, low, high, share, value, c, inside, C: tl.constexpr):
    """The transpose of `_between`."""
    part = share[:, None] * value
    tl.atomic_add(base + low[:, None] * C + c, value - part, inside, sem="relaxed")
    tl.atomic_add(base + high[:, None] * C + c, part, inside, sem="relaxed")


@triton.jit
def _spill(plane, left, right, across, top, bottom, down, size, value, c, inside, C: tl.constexpr):
    below = down[:, None] * value
    _spill_line(plane, top * size + left, top * size + right, across, value - below, c, inside, C)
    _spill_line(plane, bottom * size + left, bottom * size + right, across, below, c, inside, C)


@triton.jit(do_not_specialize=["count"])
def _features(
    place, planes, lines, features, count, size, pitch, offset,
    INSTANTS: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, c = n < count, tl.arange(0, C)[None, :]
    x0, x1, x = _cell(place, 0, n, inside, size)
    y0, y1, y = _cell(place, 1, n, inside, size)
    z0, z1, z = _cell(place, 2, n, inside, size)
    plane = size * size * C
    still = _lookup(planes, x0, x1, x, y0, y1, y, size, c, C)
    still *= _lookup(planes + plane, x0, x1, x, z0, z1, z, size, c, C)
    still *= _lookup(planes + 2 * plane, y0, y1, y, z0, z1, z, size, c, C)
    stride = count.to(tl.int64) * pitch
    to = features + n.to(tl.int64)[:, None] * pitch + offset + c
    for t in range(INSTANTS):
        line = lines + t * 3 * size * C
        moving = _between(line, x0, x1, x, c, C)
        moving *= _between(line + size * C, y0, y1, y, c, C)
        moving *= _between(line + 2 * size * C, z0, z1, z, c, C)
        tl.store(to + t * stride, still * moving, inside[:, None])


@triton.jit(do_not_specialize=["count"])
def _features_back(
    place, planes, lines, v, v_planes, v_lines, count, size, pitch, offset,
    INSTANTS: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, c = n < count, tl.arange(0, C)[None, :]
    x0, x1, x = _cell(place, 0, n, inside, size)
    y0, y1, y = _cell(place, 1, n, inside, size)
    z0, z1, z = _cell(place, 2, n, inside, size)
    inside = inside[:, None]
    plane = size * size * C
    xy = _lookup(planes, x0, x1, x, y0, y1, y, size, c, C)
    xz = _lookup(planes + plane, x0, x1, x, z0, z1, z, size, c, C)
    yz = _lookup(planes + 2 * plane, y0, y1, y, z0, z1, z, size, c, C)
    still = xy * xz * yz
    v_still = tl.zeros((BLOCK, C), tl.float32)
    stride = count.to(tl.int64) * pitch
    of = v + n.to(tl.int64)[:, None] * pitch + offset + c
    for t in range(INSTANTS):
        line, to = lines + t * 3 * size * C, v_lines + t * 3 * size * C
        xt = _between(line, x0, x1, x, c, C)
        yt = _between(line + size * C, y0, y1, y, c, C)
        zt = _between(line + 2 * size * C, z0, z1, z, c, C)
        value = tl.load(of + t * stride, inside, 0.0)
        v_still += value * xt * yt * zt
        value *= still
        _spill_line(to, x0, x1, x, value * yt * zt, c, inside, C)
        _spill_line(to + size * C, y0, y1, y, value * xt * zt, c, inside, C)
        _spill_line(to + 2 * size * C, z0, z1, z, value * xt * yt, c, inside, C)
    _spill(v_planes, x0, x1, x, y0, y1, y, size, v_still * xz * yz, c, inside, C)
    _spill(v_planes + plane, x0, x1, x, z0, z1, z, size, v_still * xy * yz, c, inside, C)
    _spill(v_planes + 2 * plane, y0, y1, y, z0, z1, z, size, v_still * xy * xz, c, inside, C)
