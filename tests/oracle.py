"""The definition of the picture, written down densely in float64 torch: slow, and easy to check by eye.

Every pixel looks at every Gaussian; autograd does the rest. Thresholds are gsplat 1.5.3's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Oracle(NamedTuple):
    picture: Tensor  # [C, H, W, D] float64
    alpha: Tensor  # [C, H, W, 1]
    unsure: Tensor  # [C, H, W] bool: a rounding in float32 may decide about a Gaussian in this pixel
    means2d: Tensor  # [C, N, 2]
    conics: Tensor  # [C, N, 3]
    depths: Tensor  # [C, N]
    visible: Tensor  # [C, N] bool


def rotation(quats: Tensor) -> Tensor:
    """[..., 4] wxyz -> [..., 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(means, quats, scales, viewmats, Ks, width, height, eps2d):
    """means2d [C, N, 2], covariances with and without blur [C, N, 2, 2], depths [C, N]."""
    W, t = viewmats[:, None, :3, :3], viewmats[:, None, :3, 3]
    centre = (W @ means[None, :, :, None])[..., 0] + t  # [C, N, 3]
    x, y, z = centre.unbind(-1)
    fx, fy, cx, cy = (Ks[:, None, i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    safe = torch.where(z.abs() > 1e-6, z, torch.ones_like(z))
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    u = torch.minimum(torch.maximum(x / safe, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    v = torch.minimum(torch.maximum(y / safe, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    rows = [fx / safe, zero, -fx * u / safe], [zero, fy / safe, -fy * v / safe]
    J = torch.stack([torch.stack(row, -1) for row in rows], -2)
    M = J @ W @ (rotation(quats) * scales[:, None, :])  # [C, N, 2, 3]
    sharp = M @ M.mT
    blurred = sharp + eps2d * torch.eye(2, dtype=means.dtype)
    means2d = torch.stack([fx * x / safe + cx, fy * y / safe + cy], -1)
    return means2d, blurred, sharp, z


def sh_colors(means, viewmats, coeffs, degree):
    """[C, N, 3] from coefficients [N, K, 3], by the textbook polynomials."""
    centres = torch.inverse(viewmats)[:, :3, 3]
    x, y, z = torch.nn.functional.normalize(means[None] - centres[:, None], dim=-1).unbind(-1)
    pi = torch.pi
    basis = [torch.full_like(x, 0.5 / pi**0.5)]
    if degree > 0:
        k = (3 / (4 * pi)) ** 0.5
        basis += [-k * y, k * z, -k * x]
    if degree > 1:
        k, m = 0.5 * (15 / pi) ** 0.5, 0.25 * (5 / pi) ** 0.5
        basis += [k * x * y, -k * y * z, m * (3 * z * z - 1), -k * x * z, 0.5 * k * (x * x - y * y)]
    if degree > 2:
        a, b, c = 0.25 * (35 / (2 * pi)) ** 0.5, 0.5 * (105 / pi) ** 0.5, 0.25 * (21 / (2 * pi)) ** 0.5
        basis += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (5 * z * z - 1),
            0.25 * (7 / pi) ** 0.5 * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1),
            0.5 * b * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    bases = torch.stack(basis, -1)  # [C, N, K]
    colors = torch.einsum("cnk,nkd->cnd", bases, coeffs[:, : bases.shape[-1]])
    return (colors + 0.5).clamp_min(0)


def render(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01, far_plane=1e10, eps2d=0.3,
    sh_degree=None, backgrounds=None, render_mode="RGB", rasterize_mode="classic", close=1e-4,
):  # fmt: skip
    """The picture of `fourdgs.raster.rasterize`, no batch axes; ``close``: how near to a threshold counts as unsure."""
    means2d, blurred, sharp, depths = project(means, quats, scales, viewmats, Ks, width, height, eps2d)
    det = torch.linalg.det(blurred)
    opacities = opacities[None].expand(depths.shape)
    if rasterize_mode == "antialiased":
        opacities = opacities * (torch.linalg.det(sharp) / det).clamp_min(0).sqrt()
    if sh_degree is not None:
        colors = sh_colors(means, viewmats, colors, sh_degree)
    elif colors.dim() == 2:
        colors = colors[None].expand(len(viewmats), *colors.shape)
    if "D" in render_mode:
        colors = torch.cat([colors, depths[..., None]], -1) if render_mode.startswith("RGB") else depths[..., None]
        if backgrounds is not None:
            zero = torch.zeros_like(backgrounds[:, :1])
            backgrounds = torch.cat([backgrounds, zero], -1) if render_mode.startswith("RGB") else zero
    visible = (depths >= near_plane) & (depths <= far_plane) & (opacities >= 1 / 255)
    conics = torch.linalg.inv(blurred)
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2).to(means.dtype)
    pictures, alphas, unsure = [], [], []
    for c in range(len(viewmats)):
        chosen = visible[c].nonzero()[:, 0]
        chosen = chosen[torch.sort(depths[c, chosen], stable=True).indices]
        d = pixels - means2d[c, chosen]  # [P, n, 2]
        sigma = 0.5 * (d[..., None, :] @ conics[c, chosen] @ d[..., None])[..., 0, 0]
        alpha = (opacities[c, chosen] * torch.exp(-sigma)).clamp_max(0.999)
        counts = alpha >= 1 / 255
        alpha = torch.where(counts, alpha, 0.0)
        after = torch.cumprod(1 - alpha, 1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        drawn = after > 1e-4
        weights = torch.where(drawn, alpha * before, 0.0)
        picture, T = weights @ colors[c, chosen], 1 - weights.sum(1, keepdim=True)
        if backgrounds is not None:
            picture = picture + T * backgrounds[c]
        with torch.no_grad():
            raw = opacities[c, chosen] * torch.exp(-sigma)
            near = ((raw * 255 - 1).abs() < close) | (counts & ((after / 1e-4 - 1).abs() < 10 * close))
            near |= (raw / 0.999 - 1).abs() < close
            unsure.append(near.any(1).view(height, width))
        pictures.append(picture.view(height, width, -1))
        alphas.append((1 - T).view(height, width, 1))
    picture, alpha = torch.stack(pictures), torch.stack(alphas)
    if "ED" in render_mode:
        picture = torch.cat([picture[..., :-1], picture[..., -1:] / alpha.clamp_min(1e-10)], -1)
    packed = torch.stack([conics[..., 0, 0], conics[..., 0, 1], conics[..., 1, 1]], -1)
    return Oracle(picture, alpha, torch.stack(unsure), means2d, packed, depths, visible)
