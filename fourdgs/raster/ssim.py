"""Structural similarity and its gradient, fused: 11x11 Gaussian window of sigma 1.5, valid padding, data range 1.

Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004. The window is separable,
so pictures are filtered along rows, then along columns. On the CPU one pass gives the value and the derivative of
every output pixel to the five local moments; a second pass filters those back (the same window, transposed).

Variances don't change when a constant is subtracted, and lose fewer digits for it: the constant is the first pixel of
picture a, so that flat backgrounds come out exactly.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import InputError
from .runtime import kernel, plain, run, split
from .vectors import LANES, choose, load, ramp, room, spread, store, total

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
_weights = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
_W = np.array(_weights, np.float32) / np.float32(sum(_weights))
_C1, _C2, _ZERO, _ONE, _TWO = map(np.float32, (C1, C2, 0, 1, 2))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """The mean SSIM of pictures a and b [B, H, W, D] in [0, 1], over batch, channels and the valid positions.

    Differentiable in both (once). On the CPU in fused kernels, elsewhere (and in the plain form) with torch.

    Raises:
        InputError: the shapes differ, or a side is under 11 pixels.
    """
    if a.shape != b.shape or a.dim() != 4:
        raise InputError(f"pictures of shape {list(a.shape)} and {list(b.shape)}, expected the same [B, H, W, D]")
    if min(a.shape[1:3]) < WINDOW:
        raise InputError(f"pictures of {a.shape[2]} x {a.shape[1]} pixels are smaller than SSIM's 11 x 11 window")
    if a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and not plain():
        return _Fused.apply(a, b)
    return _plain(a, b)


@functools.cache
def window(device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The 11 weights of the window along one axis; their sum is 1. Kept: making it anew would stall a GPU."""
    weights = torch.tensor(_weights, dtype=dtype, device=device)
    return weights / weights.sum()


def _filtered(pictures: Tensor, axis: int) -> Tensor:
    """The window's weighted sum along an axis. By shifts: cuDNN takes 90 ms for the gradient of this convolution."""
    weights = window(pictures.device, pictures.dtype)
    size = pictures.shape[axis] - WINDOW + 1
    total = weights[0] * pictures.narrow(axis, 0, size)
    for k in range(1, WINDOW):
        total = total + weights[k] * pictures.narrow(axis, k, size)
    return total


def _plain(a: Tensor, b: Tensor) -> Tensor:
    """SSIM through torch, for any device and precision."""
    moments = torch.stack([a, b, a * a, b * b, a * b])  # [5, B, H, W, D]
    for axis in (2, 3):
        moments = _filtered(moments, axis)
    mean_a, mean_b, aa, bb, ab = moments
    top = (2 * mean_a * mean_b + C1) * (2 * (ab - mean_a * mean_b) + C2)
    bottom = (mean_a**2 + mean_b**2 + C1) * (aa - mean_a**2 + bb - mean_b**2 + C2)
    return (top / bottom).mean()


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a, b):
        images, height, width, channels = a.shape
        rows, out = height - WINDOW + 1, (width - WINDOW + 1) * channels
        arrays = [tensor.contiguous().view(images, height, -1) for tensor in (a, b)]
        wants = ctx.needs_input_grad
        sums = np.zeros((images, rows), np.float64)
        # Derivatives to the moments: mean a, mean b, aa (and bb), ab. Rows are filled up with zeros to whole Vectors.
        slopes = np.empty((4 if any(wants) else 0, images, rows, -(-out // LANES) * LANES), np.float32)
        run(_ssim_rows, split(images * rows, 32), *arrays, channels, slopes, sums)
        scale = np.float32(1 / (images * rows * out))
        gradients: list[Tensor | None] = [None, None]
        for k in range(2):
            if wants[k]:
                gradient = torch.empty_like(a, memory_format=torch.contiguous_format)
                target = gradient.view(images, height, -1)
                run(
                    _ssim_back, split(images * height, 32), *arrays[:: 1 - 2 * k], arrays[0], channels, k, slopes,
                    scale, target,
                )  # fmt: skip
                gradients[k] = gradient
        ctx.gradients = gradients
        return torch.tensor(sums.sum() * float(scale), dtype=torch.float32, device=a.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v):
        return tuple(None if gradient is None else v * gradient for gradient in ctx.gradients)


@kernel(inline=True)
def _fill_shift(picture, channels, shift):
    """The constant to subtract, for every place of a row."""
    for k in range(channels):
        for x in range(k, picture.shape[1], channels):
            shift[x] = picture[0, k]


@kernel(inline=True)
def _copy_row(line, shift, target):
    for x in range(line.shape[0]):
        target[x] = line[x] - shift[x]


@kernel(inline=True)
def _along_row(array, at, step):
    """The window's weighted sum of the Vectors at array[at], array[at + step], ..."""
    value = _W[0] * load(array, at)
    for k in range(1, WINDOW):
        value += _W[k] * load(array, at + k * step)
    return value


@kernel
def _ssim_rows(start, stop, a, b, channels, slopes, sums):
    """SSIM of output rows ``start <= i < stop`` (of all images): sums [B, rows], slopes [4 or 0, B, rows, ...]."""
    rows, size = sums.shape[1], a.shape[2]
    edge = (WINDOW - 1) * channels
    out = size - edge
    pitch = (size // LANES + 2) * LANES + (edge // LANES + 1) * LANES
    # The eleven picture rows under the window, in turn; then the five moments filtered along columns.
    ring_a, ring_b, filtered, shift = room(WINDOW * pitch), room(WINDOW * pitch), room(5 * pitch), room(pitch)
    ring_a[:], ring_b[:], filtered[:], shift[:] = _ZERO, _ZERO, _ZERO, _ZERO
    nothing = spread(_ZERO)
    for i in range(start, stop):
        image, row = i // rows, i % rows
        fresh = i == start or row == 0
        if fresh:
            _fill_shift(a[image], channels, shift)
        for r in range(row if fresh else row + WINDOW - 1, row + WINDOW):
            _copy_row(a[image, r], shift, ring_a[r % WINDOW * pitch :])
            _copy_row(b[image, r], shift, ring_b[r % WINDOW * pitch :])
        for x in range(0, size, LANES):
            ma, mb, aa, bb, ab = nothing, nothing, nothing, nothing, nothing
            at = row % WINDOW * pitch
            for k in range(WINDOW):
                va, vb = load(ring_a, at + x), load(ring_b, at + x)
                wa, wb = _W[k] * va, _W[k] * vb
                ma, mb, aa, bb, ab = ma + wa, mb + wb, aa + wa * va, bb + wb * vb, ab + wa * vb
                at = at + pitch if at < (WINDOW - 1) * pitch else 0
            store(filtered, x, ma)
            store(filtered, pitch + x, mb)
            store(filtered, 2 * pitch + x, aa)
            store(filtered, 3 * pitch + x, bb)
            store(filtered, 4 * pitch + x, ab)
        value_sum = nothing
        for x in range(0, out, LANES):
            ma, mb = _along_row(filtered, x, channels), _along_row(filtered, pitch + x, channels)
            squares = _along_row(filtered, 2 * pitch + x, channels) + _along_row(filtered, 3 * pitch + x, channels)
            cross = _along_row(filtered, 4 * pitch + x, channels)
            full_a, full_b = ma + load(shift, x), mb + load(shift, x)
            t1, t2 = _TWO * full_a * full_b + _C1, _TWO * (cross - ma * mb) + _C2
            n1, n2 = full_a * full_a + full_b * full_b + _C1, squares - ma * ma - mb * mb + _C2
            inside = ramp() < np.float32(out - x)
            inv = choose(inside, spread(_ONE) / (n1 * n2), nothing)
            value = t1 * t2 * inv
            value_sum += value
            if slopes.shape[0] > 0:
                twice = _TWO * inv
                store(slopes[0, image, row], x, twice * (full_b * t2 - mb * t1 - value * (full_a * n2 - ma * n1)))
                store(slopes[1, image, row], x, twice * (full_a * t2 - ma * t1 - value * (full_b * n2 - mb * n1)))
                store(slopes[2, image, row], x, nothing - value * n1 * inv)
                store(slopes[3, image, row], x, twice * t1)
        sums[image, row] = total(value_sum)


@kernel
def _ssim_back(start, stop, a, b, first, channels, which, slopes, scale, out):
    """The gradient to picture a, rows ``start <= i < stop``; b is the other one, ``which`` tells a's slope.

    ``first`` is the picture whose first pixel was subtracted.
    """
    height, size = a.shape[1], a.shape[2]
    rows, width = slopes.shape[2], slopes.shape[3]
    edge = (WINDOW - 1) * channels
    pitch = (size // LANES + 2) * LANES + 2 * edge
    # The slopes filtered along columns, with zeros on both sides so that the row filter needs no cases.
    padded, line_a, line_b, line, shift = room(3 * pitch), room(pitch), room(pitch), room(pitch), room(pitch)
    padded[:] = _ZERO
    nothing = spread(_ZERO)
    for i in range(start, stop):
        image, row = i // height, i % height
        for x in range(0, width, LANES):
            to_mean, to_square, to_cross = nothing, nothing, nothing
            for k in range(max(0, row - rows + 1), min(WINDOW, row + 1)):
                to_mean += _W[k] * load(slopes[which, image, row - k], x)
                to_square += _W[k] * load(slopes[2, image, row - k], x)
                to_cross += _W[k] * load(slopes[3, image, row - k], x)
            store(padded, edge + x, to_mean)
            store(padded, pitch + edge + x, to_square)
            store(padded, 2 * pitch + edge + x, to_cross)
        if i == start or row == 0:
            _fill_shift(first[image], channels, shift)
        _copy_row(a[image, row], shift, line_a)
        _copy_row(b[image, row], shift, line_b)
        for x in range(0, size, LANES):
            to_square = _TWO * _along_row(padded, pitch + x, channels)
            to_cross = _along_row(padded, 2 * pitch + x, channels)
            to_mean = _along_row(padded, x, channels)
            store(line, x, scale * (to_mean + to_square * load(line_a, x) + to_cross * load(line_b, x)))
        for x in range(size):
            out[image, row, x] = line[x]
