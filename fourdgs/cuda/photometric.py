"""L1 and SSIM of pictures against stored 8-bit truth, with the gradient, in four passes over the pictures.

The window is separable (see `raster.ssim`): one pass filters four local moments along the rows, one filters them along
the columns and gives SSIM and its slopes, and on the way back the slopes are filtered the same two ways. The truth
stays in 8 bits and where it lies: a batch names its rows of the store.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..raster.ssim import C1, C2, WINDOW, window

_K = tl.constexpr(WINDOW)
_C1, _C2 = tl.constexpr(C1), tl.constexpr(C2)
_ACROSS = 256  # numbers of a row (pixels times three) to a program of the passes along rows
_TILE = (8, 128)  # rows and numbers of the passes along columns: neighbouring rows are then read from the L1 cache
_WARPS = 8


class Photometric(torch.autograd.Function):
    """(1 - w) L1 + w (1 - SSIM), a scalar, with a gradient to the rendered pictures alone."""

    @staticmethod
    def forward(ctx: Any, rendered: Tensor, store: Tensor, rows: Tensor, ssim_weight: float) -> Tensor:
        rendered = rendered.contiguous()
        images, height, width, channels = rendered.shape
        line = width * channels
        out_line, out_rows = line - (WINDOW - 1) * channels, height - WINDOW + 1
        weights = window(rendered.device)
        moments = rendered.new_empty(4, images, height, out_line)
        across = triton.cdiv(line, _ACROSS)
        grid = (images, triton.cdiv(out_rows, _TILE[0]), triton.cdiv(out_line, _TILE[1]))
        ctx.scales = ((1 - ssim_weight) / rendered.numel(), -ssim_weight / (images * out_rows * out_line))
        # The parts that both passes give to the loss, scaled and side by side, so that one sum takes them all.
        counts = (images * height * across, math.prod(grid))
        parts = rendered.new_empty(sum(counts))
        absolute, similar = parts.split(counts)
        _rows_forward[(images * height, across)](
            rendered, store, rows, weights, moments, absolute, height, line, out_line, channels, moments.stride(0),
            ctx.scales[0], BLOCK=_ACROSS,
        )  # fmt: skip
        slopes = rendered.new_empty(3, images, out_rows, out_line)
        _columns_forward[grid](
            moments, weights, slopes, similar, height, out_rows, out_line, moments.stride(0), slopes.stride(0),
            ctx.scales[1], ROWS=_TILE[0], BLOCK=_TILE[1], num_warps=_WARPS,
        )  # fmt: skip
        ctx.save_for_backward(rendered, store, rows, slopes)
        return parts.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        rendered, store, rows, slopes = ctx.saved_tensors
        images, height, width, channels = rendered.shape
        line, (_, _, out_rows, out_line) = width * channels, slopes.shape
        weights = window(rendered.device)
        spread = rendered.new_empty(3, images, height, out_line)
        grid = (images, triton.cdiv(height, _TILE[0]), triton.cdiv(out_line, _TILE[1]))
        _columns_back[grid](
            slopes, weights, spread, height, out_rows, out_line, slopes.stride(0), spread.stride(0),
            ROWS=_TILE[0], BLOCK=_TILE[1], num_warps=_WARPS,
        )  # fmt: skip
        gradient = torch.empty_like(rendered)
        _rows_back[(images * height, triton.cdiv(line, _ACROSS))](
            rendered, store, rows, weights, spread, v, gradient, height, line, out_line, channels, spread.stride(0),
            *ctx.scales, BLOCK=_ACROSS,
        )  # fmt: skip
        return gradient, None, None, None


@triton.jit
def _true_row(store, rows, image, row, height, line):
    """Where a row of the truth of a batch's picture starts."""
    return store + (tl.load(rows + image) * height + row) * line


@triton.jit
def _rows_forward(
    rendered, store, rows, weights, moments, absolute, height, line, out_line, channels, plane, scale,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Moments mean a, mean b, aa + bb, ab [4, B, H, L'] filtered along rows; scaled sums of |a - b| [B H, blocks]."""
    at_row, block = tl.program_id(0), tl.program_id(1)
    image, row = at_row // height, at_row % height
    x = block * BLOCK + tl.arange(0, BLOCK)
    a_row = rendered + at_row.to(tl.int64) * line
    b_row = _true_row(store, rows, image, row, height, line)
    inside, whole = x < out_line, x < line
    a0 = tl.load(a_row + x, whole, 0.0)
    b0 = tl.load(b_row + x, whole, 0).to(tl.float32) / 255
    tl.store(absolute + at_row * tl.num_programs(1) + block, scale * tl.sum(tl.abs(a0 - b0)))
    mean_a = tl.zeros((BLOCK,), tl.float32)
    mean_b, squares, cross = mean_a, mean_a, mean_a
    for k in tl.static_range(_K):
        w = tl.load(weights + k)
        a = tl.load(a_row + x + k * channels, inside, 0.0)
        b = tl.load(b_row + x + k * channels, inside, 0).to(tl.float32) / 255
        mean_a += w * a
        mean_b += w * b
        squares += w * (a * a + b * b)
        cross += w * (a * b)
    to = moments + at_row.to(tl.int64) * out_line + x
    tl.store(to, mean_a, inside)
    tl.store(to + plane, mean_b, inside)
    tl.store(to + 2 * plane, squares, inside)
    tl.store(to + 3 * plane, cross, inside)


@triton.jit
def _columns_forward(
    moments, weights, slopes, similar, height, out_rows, out_line, plane, out_plane, scale,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """SSIM's slopes to mean a, aa and ab [3, B, H', L'], and scaled sums of SSIM - 1 [B, blocks, blocks]."""
    image = tl.program_id(0)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (y < out_rows) & (x < out_line)
    at = moments + (image.to(tl.int64) * height + y) * out_line + x
    mean_a = tl.zeros((ROWS, BLOCK), tl.float32)
    mean_b, squares, cross = mean_a, mean_a, mean_a
    for k in tl.static_range(_K):
        w, here = tl.load(weights + k), at + k * out_line
        mean_a += w * tl.load(here, inside, 0.0)
        mean_b += w * tl.load(here + plane, inside, 0.0)
        squares += w * tl.load(here + 2 * plane, inside, 0.0)
        cross += w * tl.load(here + 3 * plane, inside, 0.0)
    t1 = 2 * mean_a * mean_b + _C1
    t2 = 2 * (cross - mean_a * mean_b) + _C2
    n1 = mean_a * mean_a + mean_b * mean_b + _C1
    n2 = squares - mean_a * mean_a - mean_b * mean_b + _C2
    inverse = 1 / (n1 * n2)
    value = t1 * t2 * inverse
    place = (image * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    tl.store(similar + place, scale * tl.sum(tl.where(inside, value - 1, 0.0)))
    to = slopes + (image.to(tl.int64) * out_rows + y) * out_line + x
    tl.store(to, 2 * inverse * (mean_b * (t2 - t1) - value * mean_a * (n2 - n1)), inside)
    tl.store(to + out_plane, -value * n1 * inverse, inside)
    tl.store(to + 2 * out_plane, 2 * t1 * inverse, inside)


@triton.jit
def _columns_back(
    slopes, weights, spread, height, out_rows, out_line, plane, out_plane, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """The slopes filtered along columns, to every row of the picture [3, B, H, L']."""
    image = tl.program_id(0)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)[None, :]
    across = x < out_line
    at = slopes + (image.to(tl.int64) * out_rows + y) * out_line + x
    to_mean = tl.zeros((ROWS, BLOCK), tl.float32)
    to_square, to_cross = to_mean, to_mean
    for k in tl.static_range(_K):
        w, here = tl.load(weights + k), at - k * out_line
        inside = (y >= k) & (y - k < out_rows) & across
        to_mean += w * tl.load(here, inside, 0.0)
        to_square += w * tl.load(here + plane, inside, 0.0)
        to_cross += w * tl.load(here + 2 * plane, inside, 0.0)
    to = spread + (image.to(tl.int64) * height + y) * out_line + x
    inside = (y < height) & across
    tl.store(to, to_mean, inside)
    tl.store(to + out_plane, to_square, inside)
    tl.store(to + 2 * out_plane, to_cross, inside)


@triton.jit
def _rows_back(
    rendered, store, rows, weights, spread, v, gradient, height, line, out_line, channels, plane, absolute_scale,
    ssim_scale, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient to every number of the rendered pictures, of L1 and SSIM together."""
    at_row, block = tl.program_id(0), tl.program_id(1)
    image, row = at_row // height, at_row % height
    x = block * BLOCK + tl.arange(0, BLOCK)
    whole = x < line
    a = tl.load(rendered + at_row.to(tl.int64) * line + x, whole, 0.0)
    b = tl.load(_true_row(store, rows, image, row, height, line) + x, whole, 0).to(tl.float32) / 255
    at = spread + at_row.to(tl.int64) * out_line + x
    to_mean = tl.zeros((BLOCK,), tl.float32)
    to_square, to_cross = to_mean, to_mean
    for k in tl.static_range(_K):
        w, shift = tl.load(weights + k), k * channels
        inside = (x >= shift) & (x - shift < out_line)
        to_mean += w * tl.load(at - shift, inside, 0.0)
        to_square += w * tl.load(at - shift + plane, inside, 0.0)
        to_cross += w * tl.load(at - shift + 2 * plane, inside, 0.0)
    sign = tl.where(a > b, 1.0, 0.0) - tl.where(a < b, 1.0, 0.0)
    value = absolute_scale * sign + ssim_scale * (to_mean + 2 * a * to_square + b * to_cross)
    tl.store(gradient + at_row.to(tl.int64) * line + x, tl.load(v) * value, whole)
