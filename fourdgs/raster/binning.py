"""Which Gaussians touch which tile, front to back.

Every image has its own depth order, made once per Gaussian with a radix sort; Gaussians are then dealt out to tiles of
16x16 pixels in that order, so no list needs sorting afterwards. A tile gets a Gaussian only if some pixel row of it
meets the ellipse within which alpha reaches 1/255, and then with the range of rows that do.

Lists, for all images of a call together (g = image * N + n is a flat index):

- ``records`` [I * N, 6 + D]: what compositing needs of a Gaussian, packed (D at least 3, padded with zeros);
- ``first``, ``last`` [I * N]: the range of a Gaussian's *slots*, one for each tile that it touches;
- ``entries`` [K, 3] (g, rows, slot), grouped by tile, front to back; tile t owns ``tile_start[t]:tile_stop[t]``.
"""

from __future__ import annotations

import math

import numpy as np

from .runtime import kernel

TILE = 16
LOG2E = 1.4426950408889634
_DIGIT = 11  # bits sorted in one pass of the radix sort
# Added to the exponent at which alpha falls under 1/255, to cover rounding in float32.
_SLACK = 1e-3


@kernel(inline=True)
def _tile_range(centre, radius, tiles):
    """Tiles [low, high) within ``radius`` of ``centre`` along one axis."""
    low, high = (centre - radius) * (1.0 / TILE), (centre + radius) * (1.0 / TILE) + 1.0
    # Of numbers that are not negative, int() is the floor.
    return int(min(max(low, 0.0), tiles)), int(min(max(high, 0.0), tiles))


@kernel(inline=True)
def box_tiles(x, y, radius_x, radius_y, width, height):
    """How many tiles the box of a Gaussian touches: room for at least as many slots as it will need."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    x0, x1 = _tile_range(np.float64(x), np.float64(radius_x), np.float64(tiles_x))
    y0, y1 = _tile_range(np.float64(y), np.float64(radius_y), np.float64(tiles_y))
    return (x1 - x0) * (y1 - y0)


@kernel
def share_slots(start, stop, room, first, total):
    """Where the slots of Gaussians ``start <= g < stop`` begin if each has ``room[g]``, and how many they are at all.

    One range only, which is fast enough (numpy takes three times as long for it). first [G] int32, total [1] int64.
    """
    at = 0
    for g in range(max(start, 0), stop):
        first[g] = at
        at += room[g]
    total[0] = at


@kernel
def find_tiles(
    start, stop, means2d, conics, alphas, radii, colors, images_a_color_set, width, height, records, first, last,
    slot_tile, slot_rows,
):  # fmt: skip
    """Pack the records of the Gaussians ``start <= g < stop``, and write a slot for every tile that each touches.

    The ellipse is a dx^2 + 2 b dx dy + c dy^2 <= level. Over a column of tiles, its rows reach from the lower to the
    upper branch of y(x) = (-b x +- sqrt(c level - (a c - b^2) x^2)) / c; the extreme is at the ellipse's own extreme
    where that lies in the column, and at one of the column's edges otherwise. ``last[g]`` ends up behind the slots.
    """
    count = colors.shape[1]
    tiles_x = (width + TILE - 1) // TILE
    for g in range(max(start, 0), stop):
        last[g] = first[g]
        if radii[g, 0] <= 0:
            continue
        _pack(records, g, means2d, conics, alphas, colors, g // count // images_a_color_set, g % count)
        x, y = np.float64(means2d[g, 0]), np.float64(means2d[g, 1])
        a, b, c = np.float64(conics[g, 0]), np.float64(conics[g, 1]), np.float64(conics[g, 2])
        level = 2.0 * np.float64(math.log(np.float32(255.0) * alphas[g])) + _SLACK
        det = a * c - b * b
        reach_x, reach_y = np.float64(radii[g, 0]), np.float64(radii[g, 1])
        exact = det > 0.0 and c > 0.0
        inv_c, extreme = 0.0, 0.0
        if exact:
            inv_c = 1.0 / c
            top = math.sqrt(level * a / det)
            extreme = -b * top / a
            reach_x, reach_y = min(reach_x, math.sqrt(level * c / det)), min(reach_y, top)
        x0, x1 = _tile_range(x, reach_x, np.float64(tiles_x))
        at = first[g]
        for column in range(x0, x1):
            low, high = -reach_y, reach_y
            if exact:
                # Outermost pixel centres of the column, relative to the Gaussian's.
                left = max(column * TILE + 0.5 - x, -reach_x)
                right = min(column * TILE + (TILE - 0.5) - x, reach_x)
                if left > right:
                    continue
                if extreme < left or extreme > right:
                    edge = left if extreme < left else right
                    high = min(high, (-b * edge + math.sqrt(max(c * level - det * edge * edge, 0.0))) * inv_c)
                if -extreme < left or -extreme > right:
                    edge = left if -extreme < left else right
                    low = max(low, (-b * edge - math.sqrt(max(c * level - det * edge * edge, 0.0))) * inv_c)
            row0 = int(max(math.ceil(y + low - 0.5), 0.0))
            row1 = int(min(math.floor(y + high - 0.5) + 1.0, np.float64(height)))
            if row0 >= row1:
                continue
            for line in range(row0 // TILE, (row1 - 1) // TILE + 1):
                slot_tile[at] = line * tiles_x + column
                slot_rows[at] = max(row0 - line * TILE, 0) | min(row1 - line * TILE, TILE) << 8
                at += 1
        last[g] = at


@kernel(inline=True)
def _pack(records, g, means2d, conics, alphas, colors, color_set, n):
    """Centre, conic (scaled so that alpha = opacity * 2^p), opacity, colour."""
    records[g, 0], records[g, 1] = means2d[g, 0], means2d[g, 1]
    records[g, 2] = np.float32(-0.5 * LOG2E) * conics[g, 0]
    records[g, 3] = np.float32(-LOG2E) * conics[g, 1]
    records[g, 4] = np.float32(-0.5 * LOG2E) * conics[g, 2]
    records[g, 5] = alphas[g]
    channels = colors.shape[2]
    for k in range(channels):
        records[g, 6 + k] = colors[color_set, n, k]
    for k in range(channels, 3):
        records[g, 6 + k] = np.float32(0)


@kernel
def fill_tiles(start, stop, depths, radii, first, last, slot_tile, slot_rows, entries, tile_start, tile_stop):
    """Deal the Gaussians of the images ``start <= i < stop`` out to their tiles, front to back."""
    images, count = depths.shape
    tiles = tile_start.shape[0] // images
    for i in range(start, stop):
        order, visible = _depth_order(depths[i], radii[i * count : (i + 1) * count])
        mine = tile_stop[i * tiles : (i + 1) * tiles]
        mine[:] = 0
        for k in range(visible):
            g = i * count + order[k]
            for slot in range(first[g], last[g]):
                mine[slot_tile[slot]] += 1
        at = first[i * count]
        for tile in range(tiles):
            held = mine[tile]
            tile_start[i * tiles + tile] = at
            mine[tile] = at
            at += held
        for k in range(visible):
            g = i * count + order[k]
            for slot in range(first[g], last[g]):
                tile = slot_tile[slot]
                at = mine[tile]
                mine[tile] = at + 1
                entries[at, 0], entries[at, 1], entries[at, 2] = g, slot_rows[slot], slot


@kernel(inline=True)
def _depth_order(depths, radii):
    """The visible Gaussians by depth, ties by index: a radix sort of the float's bits (depths are positive)."""
    keys, keys_b = np.empty(depths.shape[0], np.uint32), np.empty(depths.shape[0], np.uint32)
    ids, ids_b = np.empty(depths.shape[0], np.int32), np.empty(depths.shape[0], np.int32)
    bits = depths.view(np.uint32)
    size = 0
    for n in range(depths.shape[0]):
        if radii[n, 0] > 0:
            keys[size], ids[size] = bits[n], n
            size += 1
    counts = np.empty(1 << _DIGIT, np.int32)
    mask = np.uint32((1 << _DIGIT) - 1)
    for turn in range(3):
        shift = np.uint32(turn * _DIGIT)
        counts[:] = 0
        for j in range(size):
            counts[(keys[j] >> shift) & mask] += 1
        at = 0
        for k in range(1 << _DIGIT):
            held = counts[k]
            counts[k] = at
            at += held
        for j in range(size):
            digit = (keys[j] >> shift) & mask
            at = counts[digit]
            counts[digit] = at + 1
            keys_b[at], ids_b[at] = keys[j], ids[j]
        keys, keys_b = keys_b, keys
        ids, ids_b = ids_b, ids
    return ids, size
