"""Colour from spherical harmonics of degree 0 to 3, as seen from each camera, and its gradient.

The basis is the real one in the order and signs that gsplat and the usual .ply files use (Sloan, "Efficient spherical
harmonic evaluation", 2013). As in gsplat, 0.5 is added and negative colours become 0.
"""

from __future__ import annotations

import math

import numpy as np

from .runtime import kernel

f32 = np.float32
_ZERO, _ONE, _HALF = f32(0), f32(1), f32(0.5)
_C0, _C1 = f32(0.2820947917738781), f32(0.4886025119029199)
_C2 = tuple(f32(c) for c in (1.0925484305920792, 0.31539156525252005, 0.5462742152960396))
_C3 = tuple(f32(c) for c in (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154,
                             1.445305721320277))  # fmt: skip


@kernel(inline=True)
def _basis(degree, x, y, z, out):
    """The (degree + 1)^2 basis functions of the unit vector (x, y, z)."""
    out[0] = _C0
    if degree > 0:
        out[1], out[2], out[3] = -_C1 * y, _C1 * z, -_C1 * x
    if degree > 1:
        out[4], out[5] = _C2[0] * x * y, -_C2[0] * y * z
        out[6] = _C2[1] * (f32(3) * z * z - _ONE)
        out[7], out[8] = -_C2[0] * x * z, _C2[2] * (x * x - y * y)
    if degree > 2:
        out[9] = -_C3[0] * y * (f32(3) * x * x - y * y)
        out[10] = _C3[1] * x * y * z
        out[11] = -_C3[2] * y * (f32(5) * z * z - _ONE)
        out[12] = _C3[3] * z * (f32(5) * z * z - f32(3))
        out[13] = -_C3[2] * x * (f32(5) * z * z - _ONE)
        out[14] = _C3[4] * z * (x * x - y * y)
        out[15] = -_C3[0] * x * (x * x - f32(3) * y * y)


@kernel(inline=True)
def _basis_gradient(degree, x, y, z, v):
    """The gradient to (x, y, z) of sum_k v[k] basis_k."""
    gx = gy = gz = _ZERO
    if degree > 0:
        gx, gy, gz = -_C1 * v[3], -_C1 * v[1], _C1 * v[2]
    if degree > 1:
        gx += _C2[0] * (y * v[4] - z * v[7]) + f32(2) * _C2[2] * x * v[8]
        gy += _C2[0] * (x * v[4] - z * v[5]) - f32(2) * _C2[2] * y * v[8]
        gz += -_C2[0] * (y * v[5] + x * v[7]) + f32(6) * _C2[1] * z * v[6]
    if degree > 2:
        xx, yy, zz = x * x, y * y, z * z
        gx += f32(-6) * _C3[0] * x * y * v[9] + _C3[1] * y * z * v[10] - _C3[2] * (f32(5) * zz - _ONE) * v[13]
        gx += f32(2) * _C3[4] * x * z * v[14] - f32(3) * _C3[0] * (xx - yy) * v[15]
        gy += f32(-3) * _C3[0] * (xx - yy) * v[9] + _C3[1] * x * z * v[10] - _C3[2] * (f32(5) * zz - _ONE) * v[11]
        gy += f32(-2) * _C3[4] * y * z * v[14] + f32(6) * _C3[0] * x * y * v[15]
        gz += _C3[1] * x * y * v[10] - f32(10) * _C3[2] * z * (y * v[11] + x * v[13])
        gz += _C3[3] * (f32(15) * zz - f32(3)) * v[12] + _C3[4] * (xx - yy) * v[14]
    return gx, gy, gz


@kernel(inline=True)
def _direction(means, centres, b, c, n):
    x, y, z = means[b, n, 0] - centres[b, c, 0], means[b, n, 1] - centres[b, c, 1], means[b, n, 2] - centres[b, c, 2]
    inv = _ONE / max(math.sqrt(x * x + y * y + z * z), f32(1e-12))
    return x * inv, y * inv, z * inv, inv


@kernel
def sh_forward(start, stop, degree, means, centres, coeffs, radii, colors, bad):
    """colors [B, C, N, 3] from means [B, N, 3], camera centres [B, C, 3], coeffs [B, N, K, 3] (or [B * C, N, K, 3]).

    Gaussians with radii [B, C, N, 2] of 0 stay black. Sets bad[0] if a colour is not finite.
    """
    batches, cameras = centres.shape[0], centres.shape[1]
    bases = (degree + 1) * (degree + 1)
    own = coeffs.shape[0] != batches
    values = np.empty(16, np.float32)
    for b in range(batches):
        for c in range(cameras):
            source = b * cameras + c if own else b
            for n in range(start, stop):
                if radii[b, c, n, 0] <= 0:
                    colors[b, c, n, 0], colors[b, c, n, 1], colors[b, c, n, 2] = _ZERO, _ZERO, _ZERO
                    continue
                x, y, z, _ = _direction(means, centres, b, c, n)
                _basis(degree, x, y, z, values)
                red, green, blue = _HALF, _HALF, _HALF
                for k in range(bases):
                    red += values[k] * coeffs[source, n, k, 0]
                    green += values[k] * coeffs[source, n, k, 1]
                    blue += values[k] * coeffs[source, n, k, 2]
                if not (red + green + blue) * _ZERO == _ZERO:
                    bad[0] = 1
                colors[b, c, n, 0], colors[b, c, n, 1], colors[b, c, n, 2] = (
                    max(red, _ZERO),
                    max(green, _ZERO),
                    max(blue, _ZERO),
                )


@kernel
def sh_backward(
    start, stop, block, degree, means, centres, coeffs, radii, colors, v_colors, v_means, v_coeffs, v_centres
):
    """The gradient of `sh_forward` for blocks of Gaussians. v_centres [blocks, B, C, 3], 0 long if nobody asks."""
    batches, cameras, count = centres.shape[0], centres.shape[1], means.shape[1]
    bases = (degree + 1) * (degree + 1)
    own = coeffs.shape[0] != batches
    values, pull = np.empty(16, np.float32), np.empty(16, np.float32)
    for i in range(start, stop):
        for b in range(batches):
            for n in range(i * block, min((i + 1) * block, count)):
                for c in range(cameras):
                    source = b * cameras + c if own else b
                    if radii[b, c, n, 0] <= 0:
                        continue
                    # A colour of exactly 0 was cut off there.
                    red = v_colors[b, c, n, 0] if colors[b, c, n, 0] > _ZERO else _ZERO
                    green = v_colors[b, c, n, 1] if colors[b, c, n, 1] > _ZERO else _ZERO
                    blue = v_colors[b, c, n, 2] if colors[b, c, n, 2] > _ZERO else _ZERO
                    x, y, z, inv = _direction(means, centres, b, c, n)
                    _basis(degree, x, y, z, values)
                    for k in range(bases):
                        pull[k] = (
                            red * coeffs[source, n, k, 0]
                            + green * coeffs[source, n, k, 1]
                            + blue * coeffs[source, n, k, 2]
                        )
                        v_coeffs[source, n, k, 0] += red * values[k]
                        v_coeffs[source, n, k, 1] += green * values[k]
                        v_coeffs[source, n, k, 2] += blue * values[k]
                    gx, gy, gz = _basis_gradient(degree, x, y, z, pull)
                    along = gx * x + gy * y + gz * z
                    gx, gy, gz = (gx - along * x) * inv, (gy - along * y) * inv, (gz - along * z) * inv
                    v_means[b, n, 0] += gx
                    v_means[b, n, 1] += gy
                    v_means[b, n, 2] += gz
                    if v_centres.shape[0] > 0:
                        v_centres[i, b, c, 0] -= gx
                        v_centres[i, b, c, 1] -= gy
                        v_centres[i, b, c, 2] -= gz
