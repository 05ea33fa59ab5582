"""Gaussians to the picture plane, and back: EWA projection of a pinhole camera, with its analytic gradient.

The 2D covariance of a Gaussian is ``M M^T + eps2d I`` with ``M = J W R S`` [2, 3]: J the Jacobian of the perspective
division at the centre, W the camera's rotation, R S the Gaussian's axes (Zwicker et al., "EWA volume splatting", 2001).
Working with M instead of a 3x3 covariance saves operations, and gives the determinant as a sum of squares (the cross
product of M's rows), so that needle-like Gaussians don't lose their digits.

Culling and thresholds are those of gsplat 1.5.3: depth outside [near, far], opacity under 1/255, boxes that miss the
picture, radius at most ``radius_clip``; J is evaluated at a centre that is clamped to 1.3 times the field of view.
"""

from __future__ import annotations

import math

import numpy as np

from .binning import box_tiles
from .runtime import kernel

f32 = np.float32
_ALPHA_MIN = f32(1.0 / 255.0)
_ONE, _TWO, _HALF, _ZERO = f32(1), f32(2), f32(0.5), f32(0)


# Three numbers are a tuple, a matrix [3, 3] is a tuple of nine, row by row.


@kernel(inline=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel(inline=True)
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel(inline=True)
def _each(a, b):
    """The products of a and b, element by element."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@kernel(inline=True)
def _mix(s, a, t, b):
    """s a + t b."""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@kernel(inline=True)
def _row_times(a, m):
    """a^T m."""
    return (
        a[0] * m[0] + a[1] * m[3] + a[2] * m[6],
        a[0] * m[1] + a[1] * m[4] + a[2] * m[7],
        a[0] * m[2] + a[1] * m[5] + a[2] * m[8],
    )


@kernel(inline=True)
def _times_column(m, a):
    """m a."""
    return _dot(m[0:3], a), _dot(m[3:6], a), _dot(m[6:9], a)


@kernel(inline=True)
def _plus_outer(m, a, b):
    """m + a b^T."""
    return (
        m[0] + a[0] * b[0], m[1] + a[0] * b[1], m[2] + a[0] * b[2],
        m[3] + a[1] * b[0], m[4] + a[1] * b[1], m[5] + a[1] * b[2],
        m[6] + a[2] * b[0], m[7] + a[2] * b[1], m[8] + a[2] * b[2],
    )  # fmt: skip


@kernel(inline=True)
def _three(array, b, n):
    return array[b, n, 0], array[b, n, 1], array[b, n, 2]


@kernel(inline=True)
def _quaternion(quats, b, n):
    """A normalised quaternion, and one over its norm."""
    w, x, y, z = quats[b, n, 0], quats[b, n, 1], quats[b, n, 2], quats[b, n, 3]
    inv = _ONE / max(math.sqrt(w * w + x * x + y * y + z * z), f32(1e-12))
    return w * inv, x * inv, y * inv, z * inv, inv


@kernel(inline=True)
def _rotation(w, x, y, z):
    return (
        _ONE - _TWO * (y * y + z * z), _TWO * (x * y - w * z), _TWO * (x * z + w * y),
        _TWO * (x * y + w * z), _ONE - _TWO * (x * x + z * z), _TWO * (y * z - w * x),
        _TWO * (x * z - w * y), _TWO * (y * z + w * x), _ONE - _TWO * (x * x + y * y),
    )  # fmt: skip


@kernel(inline=True)
def _rotation_gradient(w, x, y, z, inv, g):
    """From the gradient g to a rotation matrix, to that of the quaternion before it was normalised."""
    gw = _TWO * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
    gx = _TWO * (-_TWO * x * (g[4] + g[8]) + y * (g[3] + g[1]) + z * (g[6] + g[2]) + w * (g[7] - g[5]))
    gy = _TWO * (x * (g[3] + g[1]) - _TWO * y * (g[0] + g[8]) + z * (g[7] + g[5]) + w * (g[2] - g[6]))
    gz = _TWO * (x * (g[6] + g[2]) + y * (g[7] + g[5]) - _TWO * z * (g[0] + g[4]) + w * (g[3] - g[1]))
    along = gw * w + gx * x + gy * y + gz * z
    return (gw - along * w) * inv, (gx - along * x) * inv, (gy - along * y) * inv, (gz - along * z) * inv


@kernel(inline=True)
def _in_camera(views, b, c, mean):
    """A centre in the camera, and the rows of W."""
    row0 = views[b, c, 0, 0], views[b, c, 0, 1], views[b, c, 0, 2]
    row1 = views[b, c, 1, 0], views[b, c, 1, 1], views[b, c, 1, 2]
    row2 = views[b, c, 2, 0], views[b, c, 2, 1], views[b, c, 2, 2]
    x, y, z = _dot(row0, mean) + views[b, c, 0, 3], _dot(row1, mean) + views[b, c, 1, 3], _dot(row2, mean)
    return x, y, z + views[b, c, 2, 3], row0, row1, row2


@kernel(inline=True)
def _slope(u, size, focal, centre):
    """x/z (or y/z) clamped to 1.3 times the field of view, and whether it lay within."""
    margin = f32(0.15) * f32(size) / focal
    low, high = -(centre / focal + margin), (f32(size) - centre) / focal + margin
    return min(max(u, low), high), low <= u and u <= high


@kernel
def project_forward(
    start, stop, means, quats, scales, opacities, viewmats, Ks, width, height, near, far, radius_clip, eps2d,
    antialiased, means2d, conics, depths, alphas, radii, room, bad,
):  # fmt: skip
    """Project Gaussians ``start <= n < stop`` of every batch into every camera.

    Reads means [B, N, 3], quats [B, N, 4], scales [B, N, 3], opacities [B, N], viewmats [B, C, 4, 4], Ks [B, C, 3, 3].
    Writes means2d [B, C, N, 2], conics [B, C, N, 3], depths and alphas (opacity, times the compensation of the blur if
    antialiased) [B, C, N], radii [B, C, N, 2] (0 = culled), room [B, C, N] (tiles that the box touches); sets bad[0]
    if an input is not finite.
    """
    for b in range(viewmats.shape[0]):
        for n in range(max(start, 0), stop):
            mean, scale, opacity = _three(means, b, n), _three(scales, b, n), opacities[b, n]
            w, x, y, z, _ = _quaternion(quats, b, n)
            # Zero times a NaN or an infinity is not zero.
            if not (_dot(mean, mean) + _dot(scale, scale) + w + x + y + z + opacity) * _ZERO == _ZERO:
                if not _finite(means, quats, scales, opacities, b, n):
                    bad[0] = 1
            R = _rotation(w, x, y, z)
            for c in range(viewmats.shape[1]):
                x, y, z, row0, row1, row2 = _in_camera(viewmats, b, c, mean)
                means2d[b, c, n, 0], means2d[b, c, n, 1] = _ZERO, _ZERO
                conics[b, c, n, 0], conics[b, c, n, 1], conics[b, c, n, 2] = _ZERO, _ZERO, _ZERO
                radii[b, c, n, 0], radii[b, c, n, 1], room[b, c, n] = 0, 0, 0
                depths[b, c, n], alphas[b, c, n] = z, opacity
                if z < near or z > far:
                    continue
                fx, fy, cx, cy = Ks[b, c, 0, 0], Ks[b, c, 1, 1], Ks[b, c, 0, 2], Ks[b, c, 1, 2]
                iz = _ONE / z
                tx, _ = _slope(x * iz, width, fx, cx)
                ty, _ = _slope(y * iz, height, fy, cy)
                # The rows of U = J W, then of M = U R S.
                m0 = _each(_row_times(_mix(fx * iz, row0, -fx * iz * tx, row2), R), scale)
                m1 = _each(_row_times(_mix(fy * iz, row1, -fy * iz * ty, row2), R), scale)
                var_x, cov, var_y, k = _dot(m0, m0), _dot(m0, m1), _dot(m1, m1), _cross(m0, m1)
                sharp = _dot(k, k)
                det = sharp + eps2d * (var_x + var_y) + eps2d * eps2d
                var_x, var_y = var_x + eps2d, var_y + eps2d
                # Overflow, or (only with eps2d near 0) thinner than 1e-4 pixels, where gradients would overflow.
                if not (det > max(var_x, var_y) * f32(1e-8) and det < f32(1e38)):
                    continue
                alpha = opacity
                if antialiased:
                    alpha = opacity * math.sqrt(sharp / det)
                    alphas[b, c, n] = alpha
                if alpha < _ALPHA_MIN:
                    continue
                extent = min(f32(3.33), math.sqrt(_TWO * math.log(alpha / _ALPHA_MIN)))
                radius_x, radius_y = math.ceil(extent * math.sqrt(var_x)), math.ceil(extent * math.sqrt(var_y))
                if radius_x <= radius_clip and radius_y <= radius_clip:
                    continue
                mx, my = fx * x * iz + cx, fy * y * iz + cy
                if not (abs(mx) < f32(1e9) and abs(my) < f32(1e9)):  # overflow, or NaN born of it
                    continue
                if mx + radius_x <= 0 or mx - radius_x >= width or my + radius_y <= 0 or my - radius_y >= height:
                    continue
                means2d[b, c, n, 0], means2d[b, c, n, 1] = mx, my
                conics[b, c, n, 0], conics[b, c, n, 1], conics[b, c, n, 2] = var_y / det, -cov / det, var_x / det
                radius_x, radius_y = np.int32(min(radius_x, f32(1e9))), np.int32(min(radius_y, f32(1e9)))
                radii[b, c, n, 0], radii[b, c, n, 1] = radius_x, radius_y
                room[b, c, n] = box_tiles(mx, my, radius_x, radius_y, width, height)


@kernel(inline=True)
def _finite(means, quats, scales, opacities, b, n):
    """The slow, certain test, after sums of squares came out as NaN or infinite."""
    for k in range(3):
        if not (math.isfinite(means[b, n, k]) and math.isfinite(scales[b, n, k])):
            return False
    for k in range(4):
        if not math.isfinite(quats[b, n, k]):
            return False
    return math.isfinite(opacities[b, n])


@kernel(inline=True)
def _conic_gradient(conic, v):
    """From the gradient v to the conic C^-1 to that of C (h00, h01, h11): d(C^-1) = -C^-1 dC C^-1."""
    a, b, c = conic
    half = _HALF * v[1]
    t00, t01, t10, t11 = v[0] * a + half * b, v[0] * b + half * c, half * a + v[2] * b, half * b + v[2] * c
    return -(a * t00 + b * t10), -(a * t01 + b * t11), -(b * t01 + c * t11)


@kernel
def project_backward(
    start, stop, block, means, quats, scales, opacities, viewmats, Ks, width, height, eps2d, antialiased, radii,
    conics, alphas, v_means2d, v_conics, v_depths, v_alphas, v_means, v_quats, v_scales, v_opacities, v_views,
):  # fmt: skip
    """The gradient of `project_forward`, for the blocks ``start <= i < stop`` of ``block`` Gaussians each.

    Adds up the cameras of a batch, in order, into v_means, v_quats, v_scales, v_opacities. v_views [blocks, B, C, 3, 4]
    gets each block's share of the gradient to the view matrices (its first axis is 0 long if nobody asks).
    """
    count, nothing = means.shape[1], (_ZERO, _ZERO, _ZERO)
    for b in range(viewmats.shape[0]):
        for n in range(max(start * block, 0), min(stop * block, count)):
            mean, scale, opacity = _three(means, b, n), _three(scales, b, n), opacities[b, n]
            qw, qx, qy, qz, inv = _quaternion(quats, b, n)
            R = _rotation(qw, qx, qy, qz)
            v_mean, v_scale, v_opacity = nothing, nothing, _ZERO
            v_R = (_ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO)
            for c in range(viewmats.shape[1]):
                v_alpha = v_alphas[b, c, n]
                if radii[b, c, n, 0] <= 0:
                    v_opacity += _ZERO if antialiased else v_alpha
                    continue
                x, y, z, row0, row1, row2 = _in_camera(viewmats, b, c, mean)
                fx, fy, iz = Ks[b, c, 0, 0], Ks[b, c, 1, 1], _ONE / z
                tx, free_x = _slope(x * iz, width, fx, Ks[b, c, 0, 2])
                ty, free_y = _slope(y * iz, height, fy, Ks[b, c, 1, 2])
                u, v = _mix(fx * iz, row0, -fx * iz * tx, row2), _mix(fy * iz, row1, -fy * iz * ty, row2)
                n0, n1 = _row_times(u, R), _row_times(v, R)  # the rows of N = U R
                conic = conics[b, c, n, 0], conics[b, c, n, 1], conics[b, c, n, 2]
                v_conic = v_conics[b, c, n, 0], v_conics[b, c, n, 1], v_conics[b, c, n, 2]
                h00, h01, h11 = _conic_gradient(conic, v_conic)
                if antialiased:
                    # d comp / d C = ((1 - comp^2) C^-1 - eps2d det(C^-1) I) / (2 comp)
                    comp = alphas[b, c, n] / opacity
                    share = v_alpha * opacity * _HALF / (comp + f32(1e-6))
                    rest, blur = _ONE - comp * comp, eps2d * (conic[0] * conic[2] - conic[1] * conic[1])
                    h00 += share * (rest * conic[0] - blur)
                    h01 += share * rest * conic[1]
                    h11 += share * (rest * conic[2] - blur)
                    v_alpha *= comp
                v_opacity += v_alpha
                # C = M M^T with M = N S: dM = 2 H M, dS = N^T dM, dN = dM S.
                m0, m1 = _each(n0, scale), _each(n1, scale)
                d0, d1 = _mix(_TWO * h00, m0, _TWO * h01, m1), _mix(_TWO * h01, m0, _TWO * h11, m1)
                v_scale = _mix(_ONE, v_scale, _ONE, _mix(_ONE, _each(d0, n0), _ONE, _each(d1, n1)))
                d0, d1 = _each(d0, scale), _each(d1, scale)
                v_R = _plus_outer(_plus_outer(v_R, u, d0), v, d1)
                v_u, v_v = _times_column(R, d0), _times_column(R, d1)
                # U = J W, and J depends on x, y, z; so do the mean in the picture and the depth.
                gx, gy = v_means2d[b, c, n, 0] * fx * iz, v_means2d[b, c, n, 1] * fy * iz
                gz = v_depths[b, c, n] - (gx * x + gy * y + _dot(v_u, u) + _dot(v_v, v)) * iz
                if free_x:
                    slope = -fx * iz * iz * _dot(v_u, row2)
                    gx, gz = gx + slope, gz - slope * x * iz
                if free_y:
                    slope = -fy * iz * iz * _dot(v_v, row2)
                    gy, gz = gy + slope, gz - slope * y * iz
                v_mean = _mix(_ONE, v_mean, _ONE, _mix(gx, row0, _ONE, _mix(gy, row1, gz, row2)))
                if v_views.shape[0] > 0:
                    i = n // block
                    _add_row(v_views, i, b, c, 0, _mix(gx, mean, fx * iz, v_u), gx)
                    _add_row(v_views, i, b, c, 1, _mix(gy, mean, fy * iz, v_v), gy)
                    back = _mix(-fx * iz * tx, v_u, -fy * iz * ty, v_v)
                    _add_row(v_views, i, b, c, 2, _mix(gz, mean, _ONE, back), gz)
            v_means[b, n, 0], v_means[b, n, 1], v_means[b, n, 2] = v_mean
            v_scales[b, n, 0], v_scales[b, n, 1], v_scales[b, n, 2] = v_scale
            v_opacities[b, n] = v_opacity
            quat = _rotation_gradient(qw, qx, qy, qz, inv, v_R)
            v_quats[b, n, 0], v_quats[b, n, 1], v_quats[b, n, 2], v_quats[b, n, 3] = quat


@kernel(inline=True)
def _add_row(v_views, i, b, c, row, rotation, translation):
    v_views[i, b, c, row, 0] += rotation[0]
    v_views[i, b, c, row, 1] += rotation[1]
    v_views[i, b, c, row, 2] += rotation[2]
    v_views[i, b, c, row, 3] += translation
