"""HexPlane features on CUDA: two launches a level forwards, two backwards and one zero fill, for all times at once.

As on the CPU, the time planes are first interpolated at the few times asked for, which leaves a line of cells for each
axis and time; the planes of space are looked up once for all times. torch's own form of the lines and of their way
back is a dozen launches a level, and a training step lasts as long as its host takes to launch it.
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
_CELLS = 256  # numbers of a row of a time plane to a program


def fused_features(space: Sequence[Tensor], time: Sequence[Tensor], place: Tensor, times: Tensor) -> Tensor:
    """`hexplane.hexplane_features`, for a number of channels that is a power of two and times that are finite."""
    return _Fused.apply(place, times, *space, *time)


class _Fused(torch.autograd.Function):
    """place [N, 3], times [T], space planes [3, R, R, C], time planes [3, S, R, C] -> [T, N, levels * C]."""

    @staticmethod
    def forward(ctx: Any, place: Tensor, times: Tensor, *planes: Tensor) -> Tensor:
        place, times, *planes = (tensor.contiguous() for tensor in (place, times, *planes))
        levels, instants, channels = len(planes) // 2, len(times), planes[0].shape[-1]
        space, time = planes[:levels], planes[levels:]
        lines = place.new_empty(instants * sum(_line(moving) for moving in time))
        features = place.new_empty(instants, len(place), levels * channels)
        blocks = triton.cdiv(len(place), _BLOCK)
        for level, (still, moving, line) in enumerate(zip(space, time, _by_level(lines, time, instants), strict=True)):
            rows, pitch = moving.shape[1], moving.shape[2] * channels
            _lines[(instants, 3, triton.cdiv(pitch, _CELLS))](moving, times, line, rows, pitch, BLOCK=_CELLS)
            _features[(blocks,)](
                place, still, line, features, len(place), still.shape[1], features.shape[2],
                level * channels, INSTANTS=instants, C=channels, BLOCK=_BLOCK,
            )  # fmt: skip
        ctx.save_for_backward(place, times, lines, *planes)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        place, times, lines, *planes = ctx.saved_tensors
        v = v.contiguous()
        levels, instants, channels = len(planes) // 2, len(times), planes[0].shape[-1]
        space, time = planes[:levels], planes[levels:]
        # What atomics add to, in one buffer, so that one fill zeroes it: the space planes' gradients, then the lines'.
        sums = v.new_zeros(sum(still.numel() for still in space) + lines.numel())
        *v_space, v_lines = sums.split([*(still.numel() for still in space), lines.numel()])
        v_space = [part.view(still.shape) for part, still in zip(v_space, space, strict=True)]
        v_time = [torch.empty_like(moving) for moving in time]
        blocks = triton.cdiv(len(place), _BLOCK)
        parts = zip(_by_level(lines, time, instants), _by_level(v_lines, time, instants), strict=True)
        for level, (line, v_line) in enumerate(parts):
            still, moving = space[level], time[level]
            rows, pitch = moving.shape[1], moving.shape[2] * channels
            _features_back[(blocks,)](
                place, still, line, v, v_space[level], v_line, len(place),
                still.shape[1], v.shape[2], level * channels, INSTANTS=instants, C=channels, BLOCK=_BLOCK,
            )  # fmt: skip
            _lines_back[(rows, 3, triton.cdiv(pitch, _CELLS))](
                v_line, times, v_time[level], rows, pitch, INSTANTS=instants, BLOCK=_CELLS
            )
        return None, None, *v_space, *v_time


def _line(moving: Tensor) -> int:
    """How many numbers the lines [3, R, C] of a level's time planes [3, S, R, C] have, at one time."""
    return 3 * moving.shape[2] * moving.shape[3]


def _by_level(lines: Tensor, time: Sequence[Tensor], instants: int) -> Sequence[Tensor]:
    """The part of a flat buffer of lines that is each level's: [T, 3, R, C], flat."""
    return lines.split([instants * _line(moving) for moving in time])


@triton.jit
def _around(at, size):
    """The cell at or below a position, the next one, and how far between them it is."""
    at = tl.minimum(tl.maximum(at, 0.0), size - 1.0)
    low = at.to(tl.int32)
    return low, tl.minimum(low + 1, size - 1), at - low


@triton.jit
def _lines(planes, times, lines, rows, pitch, BLOCK: tl.constexpr):
    """Time planes [3, S, pitch] at times [T] -> lines [T, 3, pitch]."""
    t, k = tl.program_id(0), tl.program_id(1)
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = x < pitch
    low, high, share = _around(tl.load(times + t) * (rows - 1), rows)
    plane = planes + k * rows * pitch + x
    a = tl.load(plane + low * pitch, inside, 0.0)
    b = tl.load(plane + high * pitch, inside, 0.0)
    tl.store(lines + (t * 3 + k) * pitch + x, a + share * (b - a), inside)


@triton.jit
def _lines_back(v_lines, times, v_planes, rows, pitch, INSTANTS: tl.constexpr, BLOCK: tl.constexpr):
    """The transpose of `_lines`: each program sums up a piece of one row, so that nothing is added atomically."""
    s, k = tl.program_id(0), tl.program_id(1)
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = x < pitch
    total = tl.zeros((BLOCK,), tl.float32)
    for t in range(INSTANTS):
        low, high, share = _around(tl.load(times + t) * (rows - 1), rows)
        weight = tl.where(s == low, 1 - share, 0.0) + tl.where(s == high, share, 0.0)
        total += weight * tl.load(v_lines + (t * 3 + k) * pitch + x, inside, 0.0)
    tl.store(v_planes + (k * rows + s) * pitch + x, total, inside)


@triton.jit
def _cell(place, axis, n, inside, size):
    """What is around each Gaussian along an axis."""
    return _around((tl.load(place + n * 3 + axis, inside, 0.0) + 1) * 0.5 * (size - 1), size)


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
