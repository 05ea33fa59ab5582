"""`rasterize`: gsplat's call, on whatever device the tensors are."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, MissingDependency
from .binning import TILE
from .engine import Composite, Harmonics, Project, all_finite

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")
BACKENDS = ("auto", "gsplat", "numba")
GSPLAT = "1.5.3"  # whose call and semantics these are


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    absgrad: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians into C pinhole cameras, differentiably; the call and the results are gsplat 1.5.3's.

    Args (``...`` is any number of batch dimensions, the same for all):
        means: [..., N, 3] centres in the world.
        quats: [..., N, 4] wxyz, need not be normalised.
        scales: [..., N, 3] standard deviations, not logs.
        opacities: [..., N] in [0, 1], not logits.
        colors: [..., N, D] or, for each camera, [..., C, N, D]; with ``sh_degree``, coefficients [..., (C,) N, K, 3].
        viewmats: [..., C, 4, 4] world to camera (x right, y down, z forward).
        Ks: [..., C, 3, 3] intrinsics in pixels; the centre of the first pixel is (0.5, 0.5).
        width, height: of the pictures, in pixels.
        near_plane, far_plane: depths outside are not drawn.
        radius_clip: Gaussians whose box has no half side longer than this, in pixels, are not drawn.
        eps2d: added to the variances in the picture, in pixels squared.
        sh_degree: 0 to 3: the bands of ``colors`` to use, seen from the camera's centre.
        tile_size: passed on to gsplat; the CPU engine always works in tiles of 16.
        backgrounds: [..., C, D] colours that shine through with 1 - alpha.
        render_mode: RGB, D (sum of weight * depth), ED (that over alpha), RGB+D or RGB+ED (depth as a last channel).
        rasterize_mode: "antialiased" scales the opacity by what ``eps2d`` adds to the area.
        absgrad: the backward pass leaves ``meta["means2d"].absgrad``.
        backend: "auto" goes by the tensors' device: CUDA to gsplat, CPU to the numba engine.

    Returns:
        The pictures [..., C, H, W, D], alpha [..., C, H, W, 1], and ``meta`` with what gsplat's strategies read:
        means2d [..., C, N, 2] (can retain its gradient), radii [..., C, N, 2] (0 where culled), depths, conics,
        opacities, width, height, tile_size, n_batches, n_cameras, gaussian_ids (None: nothing is packed) and others.

    Raises:
        InputError: shapes or devices that don't fit together, an unknown option, or a NaN or infinity (CPU only).
        MissingDependency: CUDA tensors without a working gsplat.
    """
    tensors = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
               "viewmats": viewmats, "Ks": Ks}  # fmt: skip
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    _check(tensors, width, height, sh_degree, render_mode, rasterize_mode, backend)
    options = {
        "near_plane": near_plane, "far_plane": far_plane, "radius_clip": radius_clip, "eps2d": eps2d,
        "sh_degree": sh_degree, "backgrounds": backgrounds, "render_mode": render_mode,
        "rasterize_mode": rasterize_mode, "absgrad": absgrad,
    }  # fmt: skip
    if _engine(backend, means.device) == "gsplat":
        call = gsplat_function()
        if means.shape[-2] == 0:
            # gsplat 1.5.3 launches a grid of no blocks and takes the process down.
            return _without_gaussians(tensors, int(width), int(height), options)
        return call(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, tile_size=tile_size, packed=False,
            **options,
        )  # fmt: skip
    return _on_cpu(means, quats, scales, opacities, colors, viewmats, Ks, int(width), int(height), **options)


def _without_gaussians(tensors: dict, width: int, height: int, options: dict) -> tuple[Tensor, Tensor, dict]:
    """An empty scene on CUDA, through the CPU engine: nothing but background."""
    device = tensors["means"].device
    here = {name: tensor.cpu() for name, tensor in tensors.items()}
    backgrounds = here.pop("backgrounds", None)
    picture, alpha, meta = _on_cpu(*here.values(), width, height, **options | {"backgrounds": backgrounds})
    meta = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in meta.items()}
    return picture.to(device), alpha.to(device), meta


def _engine(backend: str, device: torch.device) -> str:
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "numba"
    if backend == "numba" and device.type != "cpu":
        raise InputError(
            f"the numba engine works on CPU tensors, these are on {device}", field="backend", remedy="use .cpu()"
        )
    if backend == "gsplat" and device.type != "cuda":
        raise InputError(f"gsplat works on CUDA tensors, these are on {device}", field="backend", remedy="use .cuda()")
    return backend


@functools.cache
def gsplat_function() -> Any:
    """gsplat's function, if its compiled half is there as well (it imports without, and fails in odd ways later)."""
    for package in ("gsplat", "packaging"):  # gsplat needs packaging without saying so
        if importlib.util.find_spec(package) is None:
            remedy = f"pip install gsplat=={GSPLAT} packaging ninja"
            raise MissingDependency(f"rasterising on CUDA needs {package}: {remedy}")
    try:
        import gsplat
        from gsplat.cuda import _backend
    except Exception as error:
        raise MissingDependency(f"gsplat cannot be imported: {error}") from error
    if _backend._C is None:
        raise MissingDependency(
            "gsplat has no compiled CUDA kernels: install a wheel built for this torch and CUDA, "
            "or the CUDA toolkit (nvcc) and ninja"
        )
    if _numbers(gsplat.__version__) < _numbers(GSPLAT):
        raise MissingDependency(f"gsplat {gsplat.__version__} is too old: pip install gsplat=={GSPLAT}")
    return gsplat.rasterization


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _on_cpu(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, near_plane, far_plane, radius_clip, eps2d,
    sh_degree, backgrounds, render_mode, rasterize_mode, absgrad,
):  # fmt: skip
    batch = means.shape[:-2]
    B, N, C = math.prod(batch), means.shape[-2], viewmats.shape[-3]
    per_camera = colors.dim() == len(batch) + (3 if sh_degree is None else 4)
    means, quats, scales, opacities, viewmats, Ks, colors = (
        tensor.float() for tensor in (means, quats, scales, opacities, viewmats, Ks, colors)
    )
    settings = (near_plane, far_plane, radius_clip, eps2d, rasterize_mode == "antialiased")
    means2d, conics, depths, alphas, radii, room = Project.apply(
        means, quats, scales, opacities, viewmats, Ks, width, height, settings
    )
    if sh_degree is not None:
        colors = Harmonics.apply(
            means.reshape(B, N, 3), _centres(viewmats).reshape(B, C, 3),
            colors.reshape(B * C if per_camera else B, *colors.shape[-3:]), radii.view(B, C, N, 2), sh_degree,
        ).view(*batch, C, N, 3)  # fmt: skip
        per_camera = True
    colors, per_camera = _with_depth(colors, depths, render_mode, per_camera)
    backgrounds = _background(backgrounds, B * C, render_mode, colors.shape[-1])
    # What the caller sees in meta is what the gradient must pass through: these tensors, not others made from them.
    picture, alpha = Composite.apply(
        means2d, conics, alphas, colors, backgrounds, depths.detach(), radii, room, width, height, absgrad,
        B * C if per_camera else B,
    )  # fmt: skip
    if render_mode in ("ED", "RGB+ED"):
        picture = torch.cat([picture[..., :-1], picture[..., -1:] / alpha.clamp(min=1e-10)], dim=-1)
    meta = dict(
        means2d=means2d, conics=conics, depths=depths, opacities=alphas, radii=radii, batch_ids=None, camera_ids=None,
        gaussian_ids=None, width=width, height=height, tile_size=TILE, tile_width=-(-width // TILE),
        tile_height=-(-height // TILE), n_batches=B, n_cameras=C,
    )  # fmt: skip
    return picture, alpha, meta


def _centres(viewmats: Tensor) -> Tensor:
    """Camera centres [B, C, 3] in the world."""
    return torch.inverse(viewmats)[..., :3, 3]


def _with_depth(colors: Tensor, depths: Tensor, mode: str, per_camera: bool) -> tuple[Tensor, bool]:
    """The channels to composite, [..., N, D] or [..., C, N, D], and whether each camera has its own."""
    if mode in ("D", "ED"):
        return depths[..., None], True
    if mode == "RGB":
        return colors, per_camera
    colors = colors if per_camera else colors.unsqueeze(-3).expand(*depths.shape, colors.shape[-1])
    return torch.cat([colors, depths[..., None]], dim=-1), True


def _background(backgrounds: Tensor | None, images: int, mode: str, channels: int) -> Tensor | None:
    """[I, D]; depth has no background."""
    if backgrounds is None:
        return None
    backgrounds = backgrounds.float().reshape(images, -1)
    if mode in ("D", "ED"):
        return backgrounds.new_zeros(images, 1)
    if mode == "RGB":
        return backgrounds
    return torch.cat([backgrounds, backgrounds.new_zeros(images, 1)], dim=-1)


def _check(tensors, width, height, sh_degree, render_mode, rasterize_mode, backend) -> None:
    for name, value, known in (
        ("render_mode", render_mode, RENDER_MODES),
        ("rasterize_mode", rasterize_mode, RASTERIZE_MODES),
        ("backend", backend, BACKENDS),
    ):
        if value not in known:
            raise InputError(f"{value!r} is unknown", field=name, remedy=f"one of {', '.join(known)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise InputError("must be a tensor of floats", field=name)
        if tensor.device != tensors["means"].device:
            raise InputError(
                f"is on {tensor.device}, means are on {tensors['means'].device}", field=name, remedy="use .to(device)"
            )
    if int(width) != width or int(height) != height or width < 1 or height < 1:
        raise InputError(f"{width} x {height} is no picture size", field="width, height")
    _check_shapes(tensors, sh_degree, render_mode)
    if tensors["means"].device.type == "cpu":
        for name in ("viewmats", "Ks", "backgrounds", *(("colors",) if sh_degree is None else ())):
            if name in tensors and not all_finite(tensors[name]):
                raise InputError("holds a NaN or an infinite value", field=name)


def _check_shapes(tensors: dict[str, Tensor], sh_degree: int | None, render_mode: str) -> None:
    means, viewmats, colors = tensors["means"], tensors["viewmats"], tensors["colors"]
    if means.dim() < 2 or viewmats.dim() < 3:
        raise InputError(
            f"means {list(means.shape)} and viewmats {list(viewmats.shape)} must be [..., N, 3] and [..., C, 4, 4]",
            field="means, viewmats",
        )
    batch, N, C = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    expected = {"means": (N, 3), "quats": (N, 4), "scales": (N, 3), "opacities": (N,), "viewmats": (C, 4, 4),
                "Ks": (C, 3, 3)}  # fmt: skip
    if "backgrounds" in tensors and render_mode not in ("D", "ED"):
        expected["backgrounds"] = (C, colors.shape[-1])
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != batch + shape:
            raise InputError(f"has shape {list(tensors[name].shape)}, expected {list(batch + shape)}", field=name)
    tail = colors.shape[-1:] if sh_degree is None else colors.shape[-2:]
    if tuple(colors.shape[: -len(tail)]) not in (batch + (N,), batch + (C, N)):
        raise InputError(
            f"has shape {list(colors.shape)}, expected {list(batch)} + [(C,) N, {'D' if sh_degree is None else 'K, 3'}]"
            f" with N = {N}, C = {C}",
            field="colors",
        )
    if sh_degree is not None:
        if sh_degree not in (0, 1, 2, 3):
            raise InputError(f"{sh_degree} is not 0, 1, 2 or 3", field="sh_degree")
        if tail[1] != 3 or tail[0] < (sh_degree + 1) ** 2:
            raise InputError(f"has {list(tail)} coefficients, too few for degree {sh_degree}", field="colors")
