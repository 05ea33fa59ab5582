"""Features of a HexPlane at places and times: the product of six bilinear lookups, fused on the CPU.

Cao and Johnson, "HexPlane", CVPR 2023; the product of planes as in K-Planes, Fridovich-Keil et al., CVPR 2023, eq. 1.
Planes keep their channels last, so that a lookup reads neighbours in memory. The kernels use that all places are asked
for at the same few times: they first interpolate each time plane in time, which leaves a line of cells for each axis
and time. A lookup there takes two cells instead of four; gradients are summed on the line, then go to the two rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .cuda.available import fused
from .errors import InputError
from .raster.runtime import kernel, plain, run, split
from .raster.vectors import LANES, load, room, spread, store

PAIRS = ((0, 1), (0, 2), (1, 2))  # the axes of the planes of space: along a row, along a column
f32 = np.float32
_ZERO, _HALF, _ONE = f32(0), f32(0.5), f32(1)


def hexplane_features(space: Sequence[Tensor], time: Sequence[Tensor], place: Tensor, times: Tensor) -> Tensor:
    """HexPlane features [T, N, C * levels]: at each level the product of all six planes, levels side by side.

    Differentiable in the planes (once). With fused kernels on the CPU in float32, and on CUDA where Triton works;
    elsewhere (and in the plain form) with torch's `grid_sample`. Places and times outside their range see the border.

    Args:
        space: for each level the planes xy, xz, yz, [3, R, R, C]; the first letter runs along a row.
        time: for each level the planes xt, yt, zt, [3, S, R, C]; time runs along columns.
        place: [N, 3] in [-1, 1], from the first cell's centre to the last one's.
        times: [T] in [0, 1].

    Raises:
        InputError: shapes don't fit together, or a gradient to places or times is asked for.
    """
    _check(space, time, place, times)
    tensors = [*space, *time, place, times]
    if all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors) and not plain():
        return _Fused.apply(place, times, *space, *time)
    if place.is_cuda and space[0].shape[-1].bit_count() == 1 and fused():
        from .cuda.hexplane import fused_features

        return fused_features(space, time, place, times)
    return sampled_features(space, time, place, times)


def sampled_features(space: Sequence[Tensor], time: Sequence[Tensor], place: Tensor, times: Tensor) -> Tensor:
    """The same through torch's `grid_sample`, for any device and precision."""
    count, instants = len(place), len(times)
    space_at = torch.stack([place[:, list(pair)] for pair in PAIRS])[:, None]  # [3, 1, N, 2]
    moment = (2 * times - 1)[None, :, None].expand(3, instants, count)
    time_at = torch.stack([place.T[:, None].expand(3, instants, count), moment], -1)  # [3, T, N, 2]
    levels = []
    for planes, moving_planes in zip(space, time, strict=True):
        still, moving = (
            functional.grid_sample(of.permute(0, 3, 1, 2), at, align_corners=True, padding_mode="border")
            for of, at in ((planes, space_at), (moving_planes, time_at))
        )  # [3, C, 1, N] and [3, C, T, N]
        levels.append(still.prod(0) * moving.prod(0))  # [C, T, N]
    return torch.cat(levels).permute(1, 2, 0)


def _check(space: Sequence[Tensor], time: Sequence[Tensor], place: Tensor, times: Tensor) -> None:
    if place.requires_grad or times.requires_grad:
        name = "place" if place.requires_grad else "times"
        raise InputError("the features have no gradient to it", field=name, remedy="detach it")
    if place.dim() != 2 or place.shape[1] != 3 or times.dim() != 1:
        raise InputError(f"places {list(place.shape)} and times {list(times.shape)}, expected [N, 3] and [T]")
    if not space or len(space) != len(time):
        raise InputError(f"{len(space)} levels of space planes and {len(time)} of time planes, expected as many")
    channels = space[0].shape[-1]
    for planes, moving in zip(space, time, strict=True):
        size = planes.shape[1] if planes.dim() == 4 else 0
        fits = moving.dim() == 4 and moving.shape == (3, moving.shape[1], size, channels) and moving.numel()
        if planes.shape != (3, size, size, channels) or not fits:
            raise InputError(
                f"planes {list(planes.shape)} and {list(moving.shape)}, expected [3, R, R, C] and [3, S, R, C]"
            )


class _Fused(torch.autograd.Function):
    """place [N, 3], times [T], space planes, time planes -> [T, N, C * levels]."""

    @staticmethod
    def forward(ctx: Any, place, times, *planes):
        levels, channels = len(planes) // 2, planes[0].shape[-1]
        width = -(-channels // LANES) * LANES
        shape = (len(times), len(place), levels, width)
        flat, table = torch.cat([_padded(plane).flatten() for plane in planes]), _table(planes, len(times), width)
        lines, features = torch.empty(int(table[-1, _LINES])), torch.empty(shape)
        arrays = [_array(tensor) for tensor in (flat, lines, place, times)]
        items = levels * len(times)
        run(_lines_of_planes, [(0, items)] if items else [], table, width, *arrays)
        run(_features, split(len(place), 512), table, width, *arrays, features.view(-1).numpy())
        ctx.save_for_backward(place, times, *planes)
        ctx.flat, ctx.lines, ctx.table, ctx.shape = flat, lines, table, shape
        return features[..., :channels].reshape(*shape[:2], levels * channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v):
        place, times, *planes = ctx.saved_tensors  # which complains if the planes have changed in between
        levels, width = ctx.shape[2:]
        v = _padded(v.reshape(*ctx.shape[:3], planes[0].shape[-1])).view(-1)
        gradients = torch.zeros(ctx.flat.shape)
        arrays = [_array(tensor) for tensor in (ctx.flat, ctx.lines, place, times, v, gradients)]
        items = levels * (width // LANES)
        run(_features_back, [(item, item + 1) for item in range(items)], ctx.table, width, *arrays)
        parts = gradients.split([plane.numel() // plane.shape[-1] * width for plane in planes])
        return (
            None,
            None,
            *(
                part.view(*plane.shape[:3], width)[..., : plane.shape[3]]
                for part, plane in zip(parts, planes, strict=True)
            ),
        )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _padded(tensor: Tensor) -> Tensor:
    """The last axis filled up with zeros to whole Vectors; contiguous."""
    rest = -tensor.shape[-1] % LANES
    return functional.pad(tensor, (0, rest)) if rest else tensor.contiguous()


# Columns of the table that tells the kernels where things are in the flat arrays. One row a level, and one for the end.
_SIZE, _ROWS, _SPACE, _TIME, _LINES = range(5)


def _table(planes: Sequence[Tensor], instants: int, width: int) -> np.ndarray:
    levels = len(planes) // 2
    sizes, rows = ([plane.shape[1] for plane in half] for half in (planes[:levels], planes[levels:]))
    starts = np.cumsum([0, *(plane.numel() // plane.shape[-1] * width for plane in planes)])
    table = np.zeros((levels + 1, 5), np.int64)
    table[:levels, _SIZE], table[:levels, _ROWS] = sizes, rows
    table[:, _SPACE], table[:, _TIME] = starts[: levels + 1], starts[levels:]
    table[1:, _LINES] = np.cumsum(sizes) * (3 * instants * width)
    return table


@kernel(inline=True)
def _cell(x, size):
    """The cell at or below a position, the next one, and how far between them it is; NaN counts as 0."""
    x = x if x > _ZERO else _ZERO
    x = min(x, f32(size - 1))
    low = np.intp(x)
    return low, min(low + 1, size - 1), x - f32(low)


@kernel(inline=True)
def _along(place, n, axis, size):
    """The cells around a Gaussian along an axis of ``size`` cells."""
    return _cell((place[n, axis] + _ONE) * _HALF * f32(size - 1), size)


@kernel(inline=True)
def _between(array, low, high, share):
    """Two Vectors, interpolated; exact where they are equal."""
    a = load(array, low)
    return a + share * (load(array, high) - a)


@kernel(inline=True)
def _lookup(array, base, pitch, column, row, channels):
    """The bilinear sample of a plane that starts at ``base``, ``pitch`` numbers to a row."""
    left, right, across = column
    top, bottom, down = row
    left, right = left * channels, right * channels
    top, bottom = base + top * pitch, base + bottom * pitch
    above = _between(array, top + left, top + right, across)
    below = _between(array, bottom + left, bottom + right, across)
    return above + down * (below - above)


@kernel(inline=True)
def _add(array, index, value):
    store(array, index, load(array, index) + value)


@kernel(inline=True)
def _spill(array, base, pitch, column, row, channels, value):
    """The transpose of `_lookup`."""
    left, right, across = column
    top, bottom, down = row
    left, right = left * channels, right * channels
    top, bottom = base + top * pitch, base + bottom * pitch
    below = down * value
    above = value - below
    share = across * above
    _add(array, top + left, above - share)
    _add(array, top + right, share)
    share = across * below
    _add(array, bottom + left, below - share)
    _add(array, bottom + right, share)


@kernel(inline=True)
def _spill_line(array, base, column, channels, value):
    left, right, across = column
    share = across * value
    _add(array, base + left * channels, value - share)
    _add(array, base + right * channels, share)


@kernel(inline=True)
def _on_lines(lines, base, pitch, x, y, z, channels):
    """Samples of the three lines, one an axis, that start at ``base``."""
    a = _between(lines, base + x[0] * channels, base + x[1] * channels, x[2])
    base += pitch
    b = _between(lines, base + y[0] * channels, base + y[1] * channels, y[2])
    base += pitch
    return a, b, _between(lines, base + z[0] * channels, base + z[1] * channels, z[2])


@kernel
def _lines_of_planes(start, stop, table, channels, planes, lines, place, times):
    """Interpolate the time planes of level ``i // T`` at time ``i % T``, for ``start <= i < stop``.

    Reads planes, all planes one after another; writes lines, for each level [T, 3, R, channels].
    """
    for i in range(start, stop):
        level, t = i // times.shape[0], i % times.shape[0]
        rows, pitch = table[level, _ROWS], table[level, _SIZE] * channels
        low, high, share = _cell(times[t] * f32(rows - 1), rows)
        for k in range(3):
            plane = table[level, _TIME] + k * rows * pitch
            top, bottom = plane + low * pitch, plane + high * pitch
            to = table[level, _LINES] + (t * 3 + k) * pitch
            for x in range(0, pitch, LANES):
                store(lines, to + x, _between(planes, top + x, bottom + x, share))


@kernel
def _features(start, stop, table, channels, planes, lines, place, times, out):
    """Features [T, N, levels, channels] of the Gaussians ``start <= n < stop``."""
    levels, instants, count = table.shape[0] - 1, times.shape[0], place.shape[0]
    for n in range(start, stop):
        for level in range(levels):
            size = table[level, _SIZE]
            pitch = size * channels
            plane = size * pitch
            x, y, z = _along(place, n, 0, size), _along(place, n, 1, size), _along(place, n, 2, size)
            for c in range(0, channels, LANES):
                base = table[level, _SPACE] + c
                still = _lookup(planes, base, pitch, x, y, channels)
                still *= _lookup(planes, base + plane, pitch, x, z, channels)
                still *= _lookup(planes, base + 2 * plane, pitch, y, z, channels)
                for t in range(instants):
                    line = table[level, _LINES] + 3 * t * pitch + c
                    xt, yt, zt = _on_lines(lines, line, pitch, x, y, z, channels)
                    store(out, ((t * count + n) * levels + level) * channels + c, still * xt * yt * zt)


@kernel
def _features_back(start, stop, table, channels, planes, lines, place, times, v, out):
    """Gradients to the planes, added to ``out``, from ``v`` to the features [T, N, levels, channels].

    Item i is 16 channels of a level. Its Gaussians come one after another, so that every sum has its fixed order.
    """
    levels, instants, count = table.shape[0] - 1, times.shape[0], place.shape[0]
    blocks = channels // LANES
    for i in range(start, stop):
        level, c = i // blocks, i % blocks * LANES
        size, rows = table[level, _SIZE], table[level, _ROWS]
        pitch, base = size * channels, table[level, _SPACE] + c
        plane, short = size * pitch, size * LANES
        v_lines = room(instants * 3 * short)  # [T, 3, R, 16]
        v_lines[:] = _ZERO
        for n in range(count):
            x, y, z = _along(place, n, 0, size), _along(place, n, 1, size), _along(place, n, 2, size)
            xy = _lookup(planes, base, pitch, x, y, channels)
            xz = _lookup(planes, base + plane, pitch, x, z, channels)
            yz = _lookup(planes, base + 2 * plane, pitch, y, z, channels)
            xy_xz = xy * xz
            still, v_still = xy_xz * yz, spread(_ZERO)
            for t in range(instants):
                line, to = table[level, _LINES] + 3 * t * pitch + c, 3 * t * short
                xt, yt, zt = _on_lines(lines, line, pitch, x, y, z, channels)
                value = load(v, ((t * count + n) * levels + level) * channels + c)
                xt_yt, scaled = xt * yt, value * still
                v_still += value * xt_yt * zt
                _spill_line(v_lines, to, x, LANES, scaled * yt * zt)
                _spill_line(v_lines, to + short, y, LANES, scaled * xt * zt)
                _spill_line(v_lines, to + 2 * short, z, LANES, scaled * xt_yt)
            v_yz = v_still * yz
            _spill(out, base, pitch, x, y, channels, v_yz * xz)
            _spill(out, base + plane, pitch, x, z, channels, v_yz * xy)
            _spill(out, base + 2 * plane, pitch, y, z, channels, v_still * xy_xz)
        for t in range(instants):
            low, high, share = _cell(times[t] * f32(rows - 1), rows)
            for k in range(3):
                to = table[level, _TIME] + k * rows * pitch + c
                for x in range(size):
                    value = load(v_lines, ((t * 3 + k) * size + x) * LANES)
                    later = share * value
                    _add(out, to + low * pitch + x * channels, value - later)
                    _add(out, to + high * pitch + x * channels, later)
