"""Front-to-back compositing of one tile after the other, and its gradient: the plain form.

A pixel at distance d of a Gaussian sees alpha = min(0.999, opacity * exp(-d^T conic d / 2)), skipped under 1/255, and
is done once the transmittance would fall to 1e-4; these are gsplat's rules. The loops run over the Gaussians of a
tile, then over the pixel rows that each can reach, then over the 16 pixels of a row: the innermost loops have a fixed
length and no branches, so that LLVM turns them into vector code. `compositing_vector` is the same algorithm with
explicit vectors, about five times as fast; what both share stands at the end.
"""

from __future__ import annotations

import numpy as np

from .binning import TILE
from .runtime import kernel

f32 = np.float32
ALPHA_MIN = f32(1.0 / 255.0)
ALPHA_MAX = f32(0.999)
T_STOP = f32(1e-4)
NEVER = f32(1e30)  # the ordinal at which a pixel that sees all its Gaussians is done
LN2 = f32(0.6931471805599453)
PIXELS = TILE * TILE
ONE, ZERO = f32(1), f32(0)
# 2^f on [-1/2, 1/2]: least-squares fit at Chebyshev nodes with 2^0 = 1 exactly, relative error under 1.1e-7.
EXP2 = tuple(map(f32, (1.0, 0.6931468559416913, 0.240222380027412, 0.0555089295, 0.0096716979384, 0.00132186724816)))


@kernel(inline=True)
def exp2(p):
    """2^p for p <= 1, at least 2^-60: numba has no vector math library to call."""
    p = max(p, f32(-60.0))
    whole = np.floor(p + f32(0.5))
    f = p - whole
    value = EXP2[5]
    value = value * f + EXP2[4]
    value = value * f + EXP2[3]
    value = value * f + EXP2[2]
    value = value * f + EXP2[1]
    value = value * f + EXP2[0]
    return value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@kernel
def composite_forward(
    start, stop, width, height, records, entries, tile_start, tile_stop, backgrounds, image, alpha_out, final_t, limit,
):  # fmt: skip
    """Composite the tiles ``start <= t < stop`` of all images.

    Writes image [I, H, W, D], alpha_out and final_t (transmittance) [I, H, W], and limit [I, H, W]: which of the tile's
    Gaussians, counted from 0, the pixel would not take any more. backgrounds [I, D], or [0, D] for none.
    """
    channels = image.shape[3]
    live = np.empty(PIXELS, np.float32)  # transmittance, 0 once the pixel is done
    ended = np.empty(PIXELS, np.float32)  # transmittance of a pixel that is done
    until = np.empty(PIXELS, np.float32)
    colour = np.empty(PIXELS * channels, np.float32)
    weight = np.empty(TILE, np.float32)
    for tile in range(start, stop):
        i, x0, y0, columns, rows = place(tile, width, height)
        start_pixels(columns, rows, live, ended, until)
        colour[:] = ZERO
        for j in range(tile_start[tile], tile_stop[tile]):
            ordinal = j - tile_start[tile]
            if ordinal % 16 == 15 and live.max() == ZERO:
                break
            g = entries[j, 0]
            top, bottom = entries[j, 1] & 255, min(entries[j, 1] >> 8, rows)
            dx0 = f32(x0) + f32(0.5) - records[g, 0]
            a, b, c, opacity = records[g, 2], records[g, 3], records[g, 4], records[g, 5]
            for row in range(top, bottom):
                dy = f32(y0 + row) + f32(0.5) - records[g, 1]
                for x in range(TILE):
                    dx = dx0 + f32(x)
                    p = (a * dx + b * dy) * dx + c * dy * dy
                    alpha = min(opacity * exp2(p), ALPHA_MAX)
                    alpha = alpha if p <= ZERO and alpha >= ALPHA_MIN else ZERO
                    t = live[row * TILE + x]
                    w = alpha * t
                    after = t - w
                    stops = after <= T_STOP
                    weight[x] = ZERO if stops else w
                    live[row * TILE + x] = ZERO if stops else after
                    newly = stops and t > ZERO
                    ended[row * TILE + x] = t if newly else ended[row * TILE + x]
                    until[row * TILE + x] = f32(ordinal) if newly else until[row * TILE + x]
                for k in range(channels):
                    for x in range(TILE):
                        colour[k * PIXELS + row * TILE + x] += records[g, 6 + k] * weight[x]
        write_pixels(
            i, x0, y0, columns, rows, live, ended, until, colour, backgrounds, image, alpha_out, final_t, limit
        )


@kernel
def composite_backward(
    start, stop, width, height, records, entries, tile_start, tile_stop, backgrounds, final_t, limit, v_image, v_alpha,
    absgrad, slots,
):  # fmt: skip
    """The gradient of `composite_forward`: writes slots [K, 6 + D (+ 2)], one row for each Gaussian in each tile.

    Columns: mean (2), conic (3), opacity, colour (D), and the sum of the absolute values of the mean's pixel gradients
    (2) if ``absgrad``. Pixels are unwound back to front. With q = colour . v_image of one Gaussian, and ``behind`` the
    same of everything behind it as if nothing stood in front, dL/dalpha = T (q - behind). v_alpha is [I, H, W], or
    [0, H, W] for zeros.
    """
    channels = v_image.shape[3]
    t_now = np.empty(PIXELS, np.float32)
    behind = np.empty(PIXELS, np.float32)
    until = np.empty(PIXELS, np.float32)
    row_until = np.empty(TILE, np.float32)
    seen = np.empty(PIXELS * channels, np.float32)
    q, w, e = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for tile in range(start, stop):
        i, x0, y0, columns, rows = place(tile, width, height)
        read_pixels(
            i, x0, y0, columns, rows, backgrounds, final_t, limit, v_image, v_alpha,
            t_now, behind, until, row_until, seen,
        )  # fmt: skip
        for j in range(tile_stop[tile] - 1, tile_start[tile] - 1, -1):
            ordinal = f32(j - tile_start[tile])
            slot = entries[j, 2]
            slots[slot, :] = ZERO
            g = entries[j, 0]
            top, bottom = entries[j, 1] & 255, min(entries[j, 1] >> 8, rows)
            dx0 = f32(x0) + f32(0.5) - records[g, 0]
            a, b, c, opacity = records[g, 2], records[g, 3], records[g, 4], records[g, 5]
            s0 = sx = sy = sxx = sxy = syy = abs_x = abs_y = ZERO
            for row in range(top, bottom):
                if ordinal >= row_until[row]:
                    continue
                dy = f32(y0 + row) + f32(0.5) - records[g, 1]
                base = row * TILE
                q[:] = ZERO
                for k in range(channels):
                    for x in range(TILE):
                        q[x] += records[g, 6 + k] * seen[k * PIXELS + base + x]
                for x in range(TILE):
                    dx = dx0 + f32(x)
                    p = (a * dx + b * dy) * dx + c * dy * dy
                    raw = opacity * exp2(p)
                    alpha = min(raw, ALPHA_MAX)
                    alpha = alpha if p <= ZERO and alpha >= ALPHA_MIN and ordinal < until[base + x] else ZERO
                    t = t_now[base + x] / (ONE - alpha)
                    t_now[base + x] = t
                    w[x] = alpha * t
                    # Gradient to the natural exponent; none where alpha is cut off at 0.999.
                    e[x] = w[x] * (q[x] - behind[base + x]) if raw <= ALPHA_MAX else ZERO
                    behind[base + x] += alpha * (q[x] - behind[base + x])
                for k in range(channels):
                    total = ZERO
                    for x in range(TILE):
                        total += w[x] * seen[k * PIXELS + base + x]
                    slots[slot, 6 + k] += total
                g0 = g1 = g2 = ZERO
                for x in range(TILE):
                    dx = dx0 + f32(x)
                    g0 += e[x]
                    g1 += e[x] * dx
                    g2 += e[x] * dx * dx
                s0, sx, sxx = s0 + g0, sx + g1, sxx + g2
                sy, sxy, syy = sy + g0 * dy, sxy + g1 * dy, syy + g0 * dy * dy
                if absgrad:
                    for x in range(TILE):
                        dx = dx0 + f32(x)
                        abs_x += abs(e[x] * (f32(2) * a * dx + b * dy))
                        abs_y += abs(e[x] * (b * dx + f32(2) * c * dy))
            write_slot(slots, slot, records, g, s0, sx, sy, sxx, sxy, syy)
            if absgrad:
                slots[slot, 6 + channels], slots[slot, 7 + channels] = LN2 * abs_x, LN2 * abs_y


# What the plain and the vector form share.


@kernel(inline=True)
def place(tile, width, height):
    """A tile's image, its first pixel (x, y), and how many of its columns and rows lie in the picture."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    x0, y0 = tile % tiles_x * TILE, (tile // tiles_x) % tiles_y * TILE
    return tile // (tiles_x * tiles_y), x0, y0, min(TILE, width - x0), min(TILE, height - y0)


@kernel(inline=True)
def start_pixels(columns, rows, live, ended, until):
    """All pixels of a tile unseen; those outside the picture are done from the start."""
    live[:], ended[:], until[:] = ZERO, ONE, NEVER
    for row in range(rows):
        live[row * TILE : row * TILE + columns] = ONE


@kernel(inline=True)
def write_pixels(i, x0, y0, columns, rows, live, ended, until, colour, backgrounds, image, alpha_out, final_t, limit):
    """A finished tile into the picture."""
    for row in range(rows):
        for x in range(columns):
            p = row * TILE + x
            t = live[p] if live[p] > ZERO else ended[p]
            alpha_out[i, y0 + row, x0 + x] = ONE - t
            final_t[i, y0 + row, x0 + x] = t
            limit[i, y0 + row, x0 + x] = until[p]
            for k in range(image.shape[3]):
                value = colour[k * PIXELS + p]
                if backgrounds.shape[0] > 0:
                    value += t * backgrounds[i, k]
                image[i, y0 + row, x0 + x, k] = value


@kernel(inline=True)
def read_pixels(
    i, x0, y0, columns, rows, backgrounds, final_t, limit, v_image, v_alpha, t_now, behind, until, row_until, seen
):
    """What the backward pass of a tile starts from; ``seen`` is the picture's gradient, one plane a channel."""
    t_now[:], behind[:], until[:], row_until[:], seen[:] = ONE, ZERO, ZERO, ZERO, ZERO
    for row in range(rows):
        for x in range(columns):
            p = row * TILE + x
            t_now[p], until[p] = final_t[i, y0 + row, x0 + x], limit[i, y0 + row, x0 + x]
            row_until[row] = max(row_until[row], until[p])
            value = -v_alpha[i, y0 + row, x0 + x] if v_alpha.shape[0] > 0 else ZERO
            for k in range(v_image.shape[3]):
                seen[k * PIXELS + p] = v_image[i, y0 + row, x0 + x, k]
                if backgrounds.shape[0] > 0:
                    value += v_image[i, y0 + row, x0 + x, k] * backgrounds[i, k]
            behind[p] = value


@kernel(inline=True)
def write_slot(slots, slot, records, g, s0, sx, sy, sxx, sxy, syy):
    """From the moments over the pixels of the gradient to the exponent, to those of mean, conic and opacity.

    The exponent is -(A dx^2 + 2 B dx dy + C dy^2) / 2 with d = pixel - mean; a record holds A, B, C times log2(e) / 2
    or log2(e).
    """
    a, b, c = records[g, 2], records[g, 3], records[g, 4]
    slots[slot, 0] = -LN2 * (f32(2) * a * sx + b * sy)
    slots[slot, 1] = -LN2 * (b * sx + f32(2) * c * sy)
    slots[slot, 2], slots[slot, 3], slots[slot, 4] = f32(-0.5) * sxx, -sxy, f32(-0.5) * syy
    slots[slot, 5] = s0 / records[g, 5]


@kernel
def gather_slots(start, stop, first, last, slots, absgrad, v_means2d, v_conics, v_alphas, v_colors, v_abs):
    """Add up each Gaussian's slots, in order. Outputs are flat over images: [I * N, 2], [.., 3], [..], [.., D]."""
    channels = v_colors.shape[1]
    for g in range(max(start, 0), stop):
        x = y = a = b = c = alpha = ZERO
        for k in range(channels):
            v_colors[g, k] = ZERO
        if absgrad:
            v_abs[g, 0], v_abs[g, 1] = ZERO, ZERO
        for slot in range(first[g], last[g]):
            x += slots[slot, 0]
            y += slots[slot, 1]
            a += slots[slot, 2]
            b += slots[slot, 3]
            c += slots[slot, 4]
            alpha += slots[slot, 5]
            for k in range(channels):
                v_colors[g, k] += slots[slot, 6 + k]
            if absgrad:
                v_abs[g, 0] += slots[slot, 6 + channels]
                v_abs[g, 1] += slots[slot, 7 + channels]
        v_means2d[g, 0], v_means2d[g, 1] = x, y
        v_conics[g, 0], v_conics[g, 1], v_conics[g, 2] = a, b, c
        v_alphas[g] = alpha
