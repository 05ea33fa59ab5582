"""`compositing` with explicit vectors: one `Vector` holds one pixel row of a tile.

Read the plain form first. What differs: the first three channels are written out, so that their sums stay in
registers in the backward pass (fewer channels are padded, more go through memory); and a pixel that becomes done, which
is rare, is dealt with in a branch of its own.
"""

from __future__ import annotations

import numpy as np

from .binning import TILE
from .compositing import (
    ALPHA_MAX,
    ALPHA_MIN,
    LN2,
    ONE,
    PIXELS,
    T_STOP,
    ZERO,
    f32,
    place,
    read_pixels,
    start_pixels,
    write_pixels,
    write_slot,
)
from .runtime import kernel
from .vectors import choose, exp2, fetch, least, load, magnitude, ramp, room, some, spread, store, total, totals

assert TILE == 16  # a row is a Vector


@kernel
def composite_forward(
    start, stop, width, height, records, entries, tile_start, tile_stop, backgrounds, image, alpha_out, final_t, limit,
):  # fmt: skip
    """See `compositing.composite_forward`."""
    channels = max(3, image.shape[3])
    live, ended, until, colour = room(PIXELS), room(PIXELS), room(PIXELS), room(PIXELS * channels)
    open_rows = np.empty(TILE, np.bool_)
    nothing = spread(ZERO)
    for tile in range(start, stop):
        i, x0, y0, columns, rows = place(tile, width, height)
        start_pixels(columns, rows, live, ended, until)
        colour[:] = ZERO
        open_rows[:] = True
        still_open = rows
        for j in range(tile_start[tile], tile_stop[tile]):
            if still_open == 0:
                break
            fetch(records, entries[min(j + 2, tile_stop[tile] - 1), 0])
            g = entries[j, 0]
            top, bottom = entries[j, 1] & 255, min(entries[j, 1] >> 8, rows)
            opacity, red, green, blue = records[g, 5], records[g, 6], records[g, 7], records[g, 8]
            dx = ramp() + (f32(x0) + f32(0.5) - records[g, 0])
            dy = f32(y0 + top) + f32(0.5) - records[g, 1]
            # The exponent is a quadratic of dy with these coefficients; the last is one number.
            at_zero, linear, square = records[g, 2] * dx * dx, records[g, 3] * dx, records[g, 4]
            for row in range(top, bottom):
                base = row * TILE
                p = at_zero + (linear + square * dy) * dy
                dy += ONE
                if not open_rows[row]:
                    continue
                alpha = least(opacity * exp2(p), spread(ALPHA_MAX))
                alpha = choose((p <= ZERO) & (alpha >= ALPHA_MIN), alpha, nothing)
                t = load(live, base)
                weight = alpha * t
                after = t - weight
                newly = (after <= T_STOP) & (t > ZERO)
                if some(newly):
                    store(ended, base, choose(newly, t, load(ended, base)))
                    store(until, base, choose(newly, spread(f32(j - tile_start[tile])), load(until, base)))
                    weight, after = choose(newly, nothing, weight), choose(newly, nothing, after)
                    if not some(after > ZERO):
                        open_rows[row] = False
                        still_open -= 1
                store(live, base, after)
                store(colour, base, load(colour, base) + red * weight)
                store(colour, PIXELS + base, load(colour, PIXELS + base) + green * weight)
                store(colour, 2 * PIXELS + base, load(colour, 2 * PIXELS + base) + blue * weight)
                for k in range(3, channels):
                    at = k * PIXELS + base
                    store(colour, at, load(colour, at) + records[g, 6 + k] * weight)
        write_pixels(
            i, x0, y0, columns, rows, live, ended, until, colour, backgrounds, image, alpha_out, final_t, limit
        )


@kernel
def composite_backward(
    start, stop, width, height, records, entries, tile_start, tile_stop, backgrounds, final_t, limit, v_image, v_alpha,
    absgrad, slots,
):  # fmt: skip
    """See `compositing.composite_backward`."""
    true_channels = v_image.shape[3]
    channels = max(3, true_channels)
    t_now, behind, until, seen = room(PIXELS), room(PIXELS), room(PIXELS), room(PIXELS * channels)
    row_until, sums = np.empty(TILE, np.float32), room(TILE)
    more = room(TILE * channels)  # colour sums of the channels after the third
    nothing, one = spread(ZERO), spread(ONE)
    for tile in range(start, stop):
        i, x0, y0, columns, rows = place(tile, width, height)
        read_pixels(
            i, x0, y0, columns, rows, backgrounds, final_t, limit, v_image, v_alpha,
            t_now, behind, until, row_until, seen,
        )  # fmt: skip
        for j in range(tile_stop[tile] - 1, tile_start[tile] - 1, -1):
            ordinal = f32(j - tile_start[tile])
            fetch(records, entries[max(j - 2, tile_start[tile]), 0])
            g = entries[j, 0]
            top, bottom = entries[j, 1] & 255, min(entries[j, 1] >> 8, rows)
            opacity, red, green, blue = records[g, 5], records[g, 6], records[g, 7], records[g, 8]
            dx = ramp() + (f32(x0) + f32(0.5) - records[g, 0])
            dy = f32(y0 + top) + f32(0.5) - records[g, 1]
            at_zero, linear, square = records[g, 2] * dx * dx, records[g, 3] * dx, records[g, 4]
            g0, g1, g2, red_sum, green_sum, blue_sum = nothing, nothing, nothing, nothing, nothing, nothing
            abs_x, abs_y = nothing, nothing
            if channels > 3:
                more[:] = ZERO
            for row in range(top, bottom):
                base = row * TILE
                if ordinal < row_until[row]:
                    p = at_zero + (linear + square * dy) * dy
                    raw = opacity * exp2(p)
                    alpha = least(raw, spread(ALPHA_MAX))
                    counts = (p <= ZERO) & (alpha >= ALPHA_MIN) & (load(until, base) > ordinal)
                    alpha = choose(counts, alpha, nothing)
                    t = load(t_now, base) / (one - alpha)
                    store(t_now, base, t)
                    weight = alpha * t
                    v_red, v_green, v_blue = load(seen, base), load(seen, PIXELS + base), load(seen, 2 * PIXELS + base)
                    q = red * v_red + green * v_green + blue * v_blue
                    for k in range(3, channels):
                        v_more = load(seen, k * PIXELS + base)
                        q += records[g, 6 + k] * v_more
                        store(more, k * TILE, load(more, k * TILE) + weight * v_more)
                    past = load(behind, base)
                    step = q - past
                    store(behind, base, past + alpha * step)
                    e = choose(raw <= ALPHA_MAX, weight * step, nothing)
                    red_sum += weight * v_red
                    green_sum += weight * v_green
                    blue_sum += weight * v_blue
                    g0 += e
                    g1 += e * dy
                    g2 += e * (dy * dy)
                    if absgrad:
                        abs_x += magnitude(e * (f32(2) * records[g, 2] * dx + records[g, 3] * dy))
                        abs_y += magnitude(e * (linear + f32(2) * square * dy))
                dy += ONE
            slot = entries[j, 2]
            g0x = g0 * dx
            store(sums, 0, totals(g0x, g1, g0x * dx, g1 * dx, g2, red_sum, green_sum, blue_sum))
            write_slot(slots, slot, records, g, total(g0), sums[0], sums[2], sums[4], sums[6], sums[8])
            for k in range(min(true_channels, 3)):
                slots[slot, 6 + k] = sums[10 + 2 * k]
            for k in range(3, true_channels):
                slots[slot, 6 + k] = total(load(more, k * TILE))
            if absgrad:
                slots[slot, 6 + true_channels], slots[slot, 7 + true_channels] = LN2 * total(abs_x), LN2 * total(abs_y)
