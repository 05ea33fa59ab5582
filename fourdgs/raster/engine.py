"""The CPU engine as three differentiable steps: project, colour from spherical harmonics, composite."""

from __future__ import annotations

import functools
import itertools
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
_empty = functools.partial(torch.empty, dtype=torch.float32, device="cpu")
_zeros = functools.partial(torch.zeros, dtype=torch.float32, device="cpu")


def _compositing() -> Any:
    """The module with the compositing kernels."""
    return compositing if plain() else compositing_vector


def _blocks(count: int) -> int:
    return -(-count // _BLOCK)


class Project(torch.autograd.Function):
    """means [B, N, 3], quats [B, N, 4], scales [B, N, 3], opacities [B, N], viewmats [B, C, 4, 4] ->
    means2d [B, C, N, 2], conics [B, C, N, 3], depths, alphas [B, C, N], radii [B, C, N, 2] (int32), room [B, C, N]
    (int64: upper bound of the tiles touched).
    """

    @staticmethod
    def forward(ctx: Any, means, quats, scales, opacities, viewmats, Ks, width, height, settings):
        inputs = [tensor.contiguous() for tensor in (means, quats, scales, opacities, viewmats, Ks)]
        shape = (*viewmats.shape[:2], means.shape[1])
        means2d, conics = _empty(*shape, 2), _empty(*shape, 3)
        depths, alphas, radii = _empty(shape), _empty(shape), _empty(*shape, 2, dtype=torch.int32)
        room, bad = torch.empty(shape, dtype=torch.int64, device="cpu"), np.zeros(1, np.int32)
        near, far, radius_clip, eps2d, antialiased = settings
        run(
            projection.project_forward, split(shape[2], _GAUSSIANS), *inputs, width, height,
            f32(near), f32(min(far, 3e38)), f32(radius_clip), f32(eps2d), int(antialiased),
            means2d, conics, depths, alphas, radii, room, bad,
        )  # fmt: skip
        if bad[0]:
            _name_bad(means=means, quats=quats, scales=scales, opacities=opacities)
        ctx.mark_non_differentiable(radii, room)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means, quats, scales, opacities, viewmats, Ks, radii, conics, alphas)
        ctx.settings = (width, height, f32(eps2d), int(antialiased))
        return means2d, conics, depths, alphas, radii, room

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means2d, v_conics, v_depths, v_alphas, *_):
        means, quats, scales, opacities, viewmats, Ks, radii, conics, alphas = ctx.saved_tensors
        gradients = [
            _zeros(tensor.shape) if gradient is None else gradient.contiguous()
            for tensor, gradient in (
                (radii, v_means2d), (conics, v_conics), (alphas, v_depths), (alphas, v_alphas)
            )
        ]  # fmt: skip
        blocks, wants_views = _blocks(means.shape[1]), ctx.needs_input_grad[4]
        v_means, v_quats, v_scales, v_opacities = (
            _empty(tensor.shape) for tensor in (means, quats, scales, opacities)
        )
        v_views = _zeros(blocks if wants_views else 0, *viewmats.shape[:2], 3, 4)
        width, height, eps2d, antialiased = ctx.settings
        run(
            projection.project_backward, split(blocks, _GAUSSIANS // _BLOCK), _BLOCK,
            *(tensor.contiguous() for tensor in (means, quats, scales, opacities, viewmats, Ks)),
            width, height, eps2d, antialiased,
            radii, conics, alphas, *gradients, v_means, v_quats, v_scales, v_opacities, v_views,
        )  # fmt: skip
        v_viewmats = None
        if wants_views:
            v_viewmats = torch.zeros_like(viewmats)
            v_viewmats[..., :3, :] = v_views.sum(0)
        return v_means, v_quats, v_scales, v_opacities, v_viewmats, None, None, None, None


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
    """The tile lists of one call; see `binning`."""

    def __init__(self, means2d, conics, depths, alphas, radii, room, colors, width, height):
        images, count = depths.shape
        total = images * count
        tiles = -(-width // binning.TILE) * -(-height // binning.TILE)
        ends = np.cumsum(room)
        slots = int(ends[-1]) if total else 0
        if slots >= 2**31:
            raise InputError(
                f"the Gaussians cover {slots} tiles of 16x16 pixels, more than 2^31",
                field="scales",
                remedy="render fewer cameras in a call, or smaller Gaussians",
            )
        self.first, self.last = (ends - room).astype(np.int32), np.empty(total, np.int32)
        self.records = np.empty((total, 6 + max(colors.shape[2], 3)), f32)
        slot_tile, slot_rows = np.empty(slots, np.int32), np.empty(slots, np.int32)
        run(
            binning.find_tiles, split(total, _GAUSSIANS), means2d, conics, alphas, radii, colors,
            images // colors.shape[0], width, height, self.records, self.first, self.last, slot_tile, slot_rows,
        )  # fmt: skip
        self.entries = np.empty((slots, 3), np.int32)
        self.tile_start, self.tile_stop = np.zeros((2, images * tiles), np.int32)
        if total:
            run(
                binning.fill_tiles, split(images, 1), depths, radii, self.first, self.last, slot_tile, slot_rows,
                self.entries, self.tile_start, self.tile_stop,
            )  # fmt: skip
        self.images, self.count = images, count

    @property
    def of_tiles(self) -> tuple[np.ndarray, ...]:
        return self.records, self.entries, self.tile_start, self.tile_stop

    def ranges(self) -> list[tuple[int, int]]:
        """Ranges of tiles with about the same number of Gaussians each."""
        tiles = len(self.tile_start)
        work = np.cumsum(self.tile_stop - self.tile_start + 4)
        parts = len(split(int(work[-1]), _ENTRIES))
        cuts = [0, *np.searchsorted(work, work[-1] * np.arange(1, parts) / parts).tolist(), tiles]
        return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]


class Composite(torch.autograd.Function):
    """means2d [..., C, N, 2], conics [I, N, 3], alphas [I, N], colors [S, N, D] (S divides I), backgrounds [I, D] or
    None -> picture [I, H, W, D] and alpha [I, H, W]. depths, radii [I, N, 2] and room only order and cull.

    means2d keeps its batch axes because it is the very tensor of ``meta`` that may carry ``absgrad``.
    """

    @staticmethod
    def forward(ctx: Any, means2d, conics, alphas, colors, backgrounds, depths, radii, room, width, height, absgrad):
        images, channels = radii.shape[0], colors.shape[2]
        picture, alpha = _empty(images, height, width, channels), _empty(images, height, width)
        final_t = np.empty((images, height, width), f32)
        limit = np.empty((images, height, width), f32)
        behind = np.empty((0, channels), f32) if backgrounds is None else backgrounds.contiguous()
        lists = Lists(
            means2d.reshape(-1, 2), conics.reshape(-1, 3), depths.contiguous(), alphas.reshape(-1),
            radii.reshape(-1, 2), room.numpy().ravel(), colors.contiguous(), width, height,
        )  # fmt: skip
        run(
            _compositing().composite_forward, lists.ranges(), width, height, *lists.of_tiles,
            behind, picture, alpha, final_t, limit,
        )  # fmt: skip
        ctx.lists, ctx.behind, ctx.final_t, ctx.limit, ctx.absgrad = lists, behind, final_t, limit, absgrad
        ctx.sets, ctx.shape = colors.shape[0], means2d.shape
        ctx.means2d = means2d if absgrad else None
        return picture, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_picture, v_alpha):
        lists, absgrad = ctx.lists, int(ctx.absgrad)
        images, height, width, channels = v_picture.shape
        slots = np.empty((len(lists.entries), 6 + channels + 2 * absgrad), f32)
        flat = images * lists.count
        v_means2d, v_conics, v_alphas = _empty(flat, 2), _empty(flat, 3), _empty(flat)
        v_colors, v_abs = _empty(flat, channels), _empty(flat if absgrad else 0, 2)
        v_picture, v_alpha = v_picture.contiguous(), v_alpha.contiguous()
        run(
            _compositing().composite_backward, lists.ranges(), width, height, *lists.of_tiles,
            ctx.behind, ctx.final_t, ctx.limit, v_picture, v_alpha, absgrad, slots,
        )  # fmt: skip
        run(
            compositing.gather_slots, split(flat, 2 * _GAUSSIANS), lists.first, lists.last, slots, absgrad,
            v_means2d, v_conics, v_alphas, v_colors, v_abs,
        )  # fmt: skip
        shape = (images, lists.count)
        if absgrad:
            ctx.means2d.absgrad = v_abs.view(ctx.shape)
        v_colors = v_colors.view(ctx.sets, images // ctx.sets, lists.count, channels)
        v_colors = v_colors.sum(1) if ctx.sets < images else v_colors[:, 0]
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            v_backgrounds = torch.from_numpy(np.einsum("ihw,ihwd->id", ctx.final_t, v_picture.numpy()))
        v_means2d, v_conics = v_means2d.view(ctx.shape), v_conics.view(*shape, 3)
        return v_means2d, v_conics, v_alphas.view(shape), v_colors, v_backgrounds, *[None] * 6


def all_finite(tensor: Tensor) -> bool:
    """True if a CPU tensor holds neither NaN nor infinity."""
    values = tensor.detach().numpy()
    # The sum is not finite if a value isn't, and takes a tenth of the time; it may overflow, hence the second look.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


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
