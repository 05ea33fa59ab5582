"""The CPU engine as three differentiable steps: project, colour from spherical harmonics, composite."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import InputError
from . import binning, compositing, compositing_vector, projection, sh
from .runtime import plain, run, split

_BLOCK = 256  # Gaussians in a block; per-block sums keep results the same for any number of threads
# The least work for a range of its own, about 0.1 ms: below, waiting for a second thread costs more than it saves.
_GAUSSIANS, _ENTRIES = 2048, 1500
f32 = np.float32
# Whatever torch's default type and device are.
_CPU = torch.device("cpu")
_empty = functools.partial(torch.empty, dtype=torch.float32, device=_CPU)
_zeros = functools.partial(torch.zeros, dtype=torch.float32, device=_CPU)
_ints = functools.partial(torch.empty, dtype=torch.int32, device=_CPU)


def _compositing() -> Any:
    """The module with the compositing kernels."""
    return compositing if plain() else compositing_vector


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)


def _flat(batch: int, axes: int, *tensors: Tensor) -> list[Tensor]:
    """Contiguous, with the first ``axes`` axes, whose lengths multiply to ``batch``, as one.

    Done inside the autograd functions: reshaping around them would cost a step of the graph for every tensor.
    """
    return [tensor.contiguous().view(batch, *tensor.shape[axes:]) for tensor in tensors]


class Project(torch.autograd.Function):
    """means [..., N, 3], quats [..., N, 4], scales [..., N, 3], opacities [..., N], viewmats [..., C, 4, 4] ->
    means2d [..., C, N, 2], conics [..., C, N, 3], depths, alphas [..., C, N], radii [..., C, N, 2] (int32),
    room [..., C, N] (int64: upper bound of the tiles touched).
    """

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, viewmats, Ks, width, height, settings):
        shape, axes = (*viewmats.shape[:-2], means.shape[-2]), means.dim() - 2
        batch = math.prod(shape[:axes])
        outputs = (
            _empty(*shape, 2), _empty(*shape, 3), _empty(shape), _empty(shape), _ints(*shape, 2),
            _ints(shape, dtype=torch.int64),
        )  # fmt: skip
        bad = np.zeros(1, np.int32)
        near, far, radius_clip, eps2d, antialiased = settings
        run(
            projection.project_forward, split(shape[-1], _GAUSSIANS),
            *_flat(batch, axes, means, quats, scales, opacities, viewmats, Ks), width, height,
            f32(near), f32(min(far, 3e38)), f32(radius_clip), f32(eps2d), int(antialiased),
            *_flat(batch, axes, *outputs), bad,
        )  # fmt: skip
        if bad[0]:
            _name_bad(means=means, quats=quats, scales=scales, opacities=opacities)
        _, conics, _, alphas, radii, room = outputs
        ctx.mark_non_differentiable(radii, room)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means, quats, scales, opacities, viewmats, Ks, radii, conics, alphas)
        ctx.settings, ctx.batch, ctx.axes = (width, height, f32(eps2d), int(antialiased)), batch, axes
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d, v_conics, v_depths, v_alphas, *_):
        *inputs, radii, conics, alphas = ctx.saved_tensors
        means, viewmats, axes = inputs[0], inputs[4], ctx.axes
        gradients = [
            _zeros(tensor.shape) if gradient is None else gradient
            for tensor, gradient in (
                (radii, v_means2d), (conics, v_conics), (alphas, v_depths), (alphas, v_alphas)
            )
        ]  # fmt: skip
        blocks, wants_views = _blocks(means.shape[-2]), ctx.needs_input_grad[4]
        outputs = [_empty(tensor.shape) for tensor in inputs[:4]]
        v_views = _zeros(blocks if wants_views else 0, ctx.batch, viewmats.shape[-3], 3, 4)
        run(
            projection.project_backward, split(blocks, _GAUSSIANS // _BLOCK), _BLOCK,
            *_flat(ctx.batch, axes, *inputs), *ctx.settings,
            *_flat(ctx.batch, axes, radii, conics, alphas, *gradients, *outputs), v_views,
        )  # fmt: skip
        v_viewmats = None
        if wants_views:
            v_viewmats = torch.zeros_like(viewmats)
            v_viewmats[..., :3, :] = v_views.sum(0).view(*viewmats.shape[:-2], 3, 4)
        return *outputs, v_viewmats, None, None, None, None


class Harmonics(torch.autograd.Function):
    """means [B, N, 3], camera centres [B, C, 3], coeffs [B or B * C, N, K, 3], radii -> colors [B, C, N, 3]."""

    @staticmethod
    def forward(ctx: Any, means, centres, coeffs, radii, degree):
        colors = _empty(*radii.shape[:3], 3)
        bad = np.zeros(1, np.int32)
        inputs = [tensor.contiguous() for tensor in (means, centres, coeffs, radii)]
        run(sh.sh_forward, split(means.shape[1], _GAUSSIANS), degree, *inputs, colors, bad)
        if bad[0]:
            _name_bad(colors=coeffs)
        ctx.save_for_backward(means, centres, coeffs, radii, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors):
        means, centres, coeffs, radii, colors = ctx.saved_tensors
        blocks = _blocks(means.shape[1])
        v_means, v_coeffs = _zeros(means.shape), _zeros(coeffs.shape)
        v_centres = _zeros(blocks if ctx.needs_input_grad[1] else 0, *centres.shape)
        run(
            sh.sh_backward, split(blocks, _GAUSSIANS // _BLOCK), _BLOCK, ctx.degree,
            *(tensor.contiguous() for tensor in (means, centres, coeffs, radii, colors, v_colors)),
            v_means, v_coeffs, v_centres,
        )  # fmt: skip
        return v_means, v_centres.sum(0) if ctx.needs_input_grad[1] else None, v_coeffs, None, None


class Lists:
    """The tile lists of one call; see `binning`. Tensors rather than numpy's arrays: their addresses are got faster."""

    def __init__(self, means2d, conics, depths, alphas, radii, room, colors, width, height):
        images, count = depths.shape
        total = images * count
        tiles = -(-width // binning.TILE) * -(-height // binning.TILE)
        self.first, self.last = _ints(total), _ints(total)
        needed = np.zeros(1, np.int64)
        if total:
            run(binning.share_slots, [(0, total)], room.view(total), self.first, needed)
        slots = int(needed[0])
        if slots >= 2**31:
            raise InputError(
                f"the Gaussians cover {slots} tiles of 16x16 pixels, more than 2^31",
                field="scales",
                remedy="render fewer cameras in a call, or smaller Gaussians",
            )
        self.records = _empty(total, 6 + max(colors.shape[2], 3))
        slot_tile, slot_rows = _ints(slots), _ints(slots)
        run(
            binning.find_tiles, split(total, _GAUSSIANS), means2d, conics, alphas, radii, colors,
            images // colors.shape[0], width, height, self.records, self.first, self.last, slot_tile, slot_rows,
        )  # fmt: skip
        self.entries = _ints(slots, 3)
        bounds = np.zeros((2, images * tiles), np.int32)
        self.tile_start, self.tile_stop = torch.from_numpy(bounds[0]), torch.from_numpy(bounds[1])
        if total:
            run(
                binning.fill_tiles, split(images, 1), depths, radii, self.first, self.last, slot_tile, slot_rows,
                self.entries, self.tile_start, self.tile_stop,
            )  # fmt: skip
        self.images, self.count, self._work = images, count, np.cumsum(bounds[1] - bounds[0] + 4)

    @property
    def of_tiles(self) -> tuple[Tensor, ...]:
        return self.records, self.entries, self.tile_start, self.tile_stop

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges of tiles with about the same number of Gaussians each."""
        work, tiles = self._work, len(self._work)
        parts = len(split(int(work[-1]), _ENTRIES))
        if parts == 1:
            return [(0, tiles)]
        cuts = [0, *np.searchsorted(work, work[-1] * np.arange(1, parts) / parts).tolist(), tiles]
        return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]


class Composite(torch.autograd.Function):
    """means2d [..., C, N, 2], conics [..., C, N, 3], alphas [..., C, N], colors (``sets`` times [N, D], where ``sets``
    divides the number of images I), backgrounds [I, D] or None -> picture [..., C, H, W, D] and alpha
    [..., C, H, W, 1]. depths, radii [..., C, N, 2] and room only order and cull.

    means2d keeps its batch axes because it is the very tensor of ``meta`` that may carry ``absgrad``.
    """

    @staticmethod
    def forward(
        ctx: Any, means2d, conics, alphas, colors, backgrounds, depths, radii, room, width, height, absgrad, sets
    ):
        views, count, channels = alphas.shape[:-1], alphas.shape[-1], colors.shape[-1]
        images = math.prod(views)
        picture, alpha = _empty(*views, height, width, channels), _empty(*views, height, width, 1)
        final_t, limit = _empty(images, height, width), _empty(images, height, width)
        behind = _empty(0, channels) if backgrounds is None else backgrounds.contiguous()
        flat = images * count
        lists = Lists(
            means2d.reshape(flat, 2), conics.reshape(flat, 3), depths.reshape(images, count), alphas.reshape(flat),
            radii.reshape(flat, 2), room, colors.contiguous().view(sets, count, channels), width, height,
        )  # fmt: skip
        run(
            _compositing().composite_forward, lists.ranges(), width, height, *lists.of_tiles,
            behind, picture.view(images, height, width, channels), alpha.view(images, height, width), final_t, limit,
        )  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.lists, ctx.behind, ctx.final_t, ctx.limit, ctx.absgrad = lists, behind, final_t, limit, absgrad
        ctx.sets, ctx.shapes, ctx.means2d = sets, (views, colors.shape), means2d if absgrad else None
        return picture, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_picture, v_alpha):
        lists, absgrad, (views, of_colors) = ctx.lists, int(ctx.absgrad), ctx.shapes
        count, channels = lists.count, of_colors[-1]
        shape = images, height, width = ctx.final_t.shape
        v_picture = _zeros(*shape, channels) if v_picture is None else v_picture.contiguous().view(*shape, channels)
        v_alpha = _empty(0, height, width) if v_alpha is None else v_alpha.contiguous().view(shape)
        slots = _empty(len(lists.entries), 6 + channels + 2 * absgrad)
        flat = images * count
        v_means2d, v_conics, v_alphas = _empty(flat, 2), _empty(flat, 3), _empty(flat)
        v_colors, v_abs = _empty(flat, channels), _empty(flat if absgrad else 0, 2)
        run(
            _compositing().composite_backward, lists.ranges(), width, height, *lists.of_tiles,
            ctx.behind, ctx.final_t, ctx.limit, v_picture, v_alpha, absgrad, slots,
        )  # fmt: skip
        run(
            compositing.gather_slots, split(flat, 2 * _GAUSSIANS), lists.first, lists.last, slots, absgrad,
            v_means2d, v_conics, v_alphas, v_colors, v_abs,
        )  # fmt: skip
        if absgrad:
            ctx.means2d.absgrad = v_abs.view(*views, count, 2)
        if ctx.sets < images:
            v_colors = v_colors.view(ctx.sets, images // ctx.sets, count, channels).sum(1)
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            v_backgrounds = torch.from_numpy(np.einsum("ihw,ihwd->id", ctx.final_t.numpy(), v_picture.numpy()))
        v_means2d, v_conics = v_means2d.view(*views, count, 2), v_conics.view(*views, count, 3)
        return v_means2d, v_conics, v_alphas.view(*views, count), v_colors.view(of_colors), v_backgrounds, *[None] * 7


def all_finite(tensor: Tensor) -> bool:
    """True if a CPU tensor holds neither NaN nor infinity."""
    values = tensor.detach().numpy()
    # The sum is not finite if a value isn't, and takes a tenth of the time; it may overflow, hence the second look.
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(values, None)) or bool(np.isfinite(values).all())


def _name_bad(**tensors: Tensor) -> None:
    """Raise the error that names the first tensor with a NaN or an infinity."""
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if bad.any():
            where = tuple(int(k) for k in bad.nonzero()[0])
            raise InputError(
                f"{int(bad.sum())} of {tensor.numel()} values are NaN or infinite, the first at {where}",
                field=name,
                remedy="look for a learning rate that is too high or a division by zero",
            )
    raise InputError("the result overflows float32", field=", ".join(tensors), remedy="use smaller values")
