"""Green and blue screens: alpha from how much of the screen's colour a pixel holds, and colours without its light."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..capture import Capture
from ..thinning import some
from .backdrop import LEAST_DOMINANCE, Backdrop, content_of, dominance, frame_gains, inside_of, rim_of, small_size

_HAIRLINE = 0.008
"""How deep hair is seen through, of the long side; green deeper in the subject is light that the screen throws."""

_BLOCK = 2
"""Radius of the guided filter in pixels: video stores one colour for two by two pixels, but light for each."""

_SMOOTH = 1e-4
"""The guided filter's epsilon: steps of less than a hundredth in light are noise."""


def screen_channel(capture: Capture, rows: list[int]) -> int | None:
    """The channel (1 green, 2 blue) of the screen that some frames were shot before, or None.

    A screen it is where one of the two exceeds the other channels by a tenth on more than half of the picture's rim.
    """
    shares = []
    for row in some(rows, 5):
        rgb = capture.image(row)
        small = small_size(*rgb.shape[:2])
        inside = inside_of(content_of([rgb]), rgb.shape[:2], small)
        thumbnail = capture.select(rows=[row]).resized(small[1], small[0]).image(0)
        rim = thumbnail[rim_of(inside)]
        shares.append([(dominance(rim, channel) > LEAST_DOMINANCE).mean() if len(rim) else 0 for channel in (1, 2)])
    share = np.median(shares, axis=0)
    return int(share.argmax()) + 1 if share.max() > 0.5 else None


def screen_noise(capture: Capture, rows: list[int], backdrop: Backdrop, channel: int) -> float:
    """The cover that the bare screen seems to have for its noise and creases: 99 % of its pixels have less."""
    plate, bare = backdrop.picture(), backdrop.large(ndimage.binary_erosion(backdrop.seen, iterations=2))
    values = []
    for row in some(rows, 3):
        rgb = capture.image(row)
        values.append(cover(rgb, plate * frame_gains(rgb, plate, bare), channel)[bare])
    values = np.concatenate(values)
    # More than a third is no noise, and hair would go with it.
    return float(np.clip(np.quantile(values, 0.99) if len(values) else 0, 0.02, 0.33))


def cover(rgb: np.ndarray, plate: np.ndarray, channel: int) -> np.ndarray:
    """[H, W] float32 in [0, 1]: the share of each pixel that is not screen.

    In C = a F + (1 - a) B the screen's dominance D (its channel less the larger of the others) tells
    a = 1 - D(C) / D(B) where the subject has none, as grey, skin and hair (after Vlahos' color difference). And since
    F is nowhere below black, a is at least 1 - C / B in every channel, which is what keeps dark hair dark. What has
    more of the screen's color than the screen is something else; with half as much again it is all subject.
    """
    share = dominance(rgb, channel) / np.maximum(dominance(plate, channel), LEAST_DOMINANCE / 2)
    by_light = 1 - (rgb / np.maximum(plate, 2 / 255)).min(axis=-1)
    return np.clip(np.maximum(np.maximum(1 - share, 2 * (share - 1)), by_light), 0, 1).astype(np.float32)


def screen_alpha(rgb: np.ndarray, plate: np.ndarray, channel: int, noise: float) -> np.ndarray:
    """[H, W] float32 in [0, 1]: `cover` without noise, whole inside the subject, its edge as sharp as the picture's.

    Args:
        rgb: [H, W, 3] in [0, 1]. plate: the bare screen, alike. noise: see `screen_noise`.
    """
    alpha = np.clip((cover(rgb, plate, channel) - noise) / (1 - noise), 0, 1)
    # Subject that the frame cuts goes on beyond it.
    depth = ndimage.distance_transform_edt(np.pad(alpha > 0.5, 1, mode="edge"))[1:-1, 1:-1]
    hairline = max(2.0, _HAIRLINE * max(alpha.shape))
    inside = np.clip(depth / hairline - 0.5, 0, 1)
    inside = inside * inside * (3 - 2 * inside)
    alpha = (alpha + (1 - alpha) * inside).astype(np.float32)
    band = (alpha > 0) & (alpha < 1)
    if band.any():
        rows, columns = (np.flatnonzero(band.any(axis=axis)) for axis in (1, 0))
        reach = 2 * _BLOCK + 1
        box = tuple(slice(max(0, at[0] - reach), at[-1] + reach + 1) for at in (rows, columns))
        alpha[box] = np.clip(guided_filter(rgb[box], alpha[box], _BLOCK, _SMOOTH), 0, 1)
    return np.where(alpha < 0.03, 0, np.where(alpha > 0.97, 1, alpha)).astype(np.float32)


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Values [H, W] smoothed such that their edges lie where the guide's [H, W, 3] do.

    He, Sun and Tang 2010, "Guided image filtering", equations 14 to 16: in each window the values are an affine
    function of the guide's colours, a ridge regression with epsilon; each pixel gets the mean of its windows'.
    """

    def mean(picture: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(picture, 2 * radius + 1, mode="nearest")

    colors = [np.ascontiguousarray(guide[..., c], dtype=np.float64) for c in range(3)]
    values = values.astype(np.float64)
    means, level = [mean(color) for color in colors], mean(values)
    with_values = [mean(color * values) - m * level for color, m in zip(colors, means, strict=True)]
    # The 3 x 3 covariance of each window, symmetric, inverted by its cofactors.
    pairs = {(i, j): mean(colors[i] * colors[j]) - means[i] * means[j] for i in range(3) for j in range(i, 3)}
    xx, yy, zz = (pairs[i, i] + epsilon for i in range(3))
    xy, xz, yz = pairs[0, 1], pairs[0, 2], pairs[1, 2]
    inverse = [
        [yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy],
        [xz * yz - xy * zz, xx * zz - xz * xz, xy * xz - xx * yz],
        [xy * yz - xz * yy, xy * xz - xx * yz, xx * yy - xy * xy],
    ]
    determinant = xx * inverse[0][0] + xy * inverse[1][0] + xz * inverse[2][0]
    slopes = [sum(line[k] * with_values[k] for k in range(3)) / determinant for line in inverse]
    offset = level - sum(slope * m for slope, m in zip(slopes, means, strict=True))
    smooth = sum(mean(slope) * color for slope, color in zip(slopes, colors, strict=True)) + mean(offset)
    return smooth.astype(np.float32)


def despill(rgb: np.ndarray, channel: int) -> np.ndarray:
    """Colours [H, W, 3] without the light that the screen threw on them: its channel is at most the larger other."""
    clean = rgb.copy()
    others = [c for c in range(3) if c != channel]
    clean[..., channel] = np.minimum(rgb[..., channel], rgb[..., others].max(axis=-1))
    return clean
