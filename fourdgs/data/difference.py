"""Alpha from the difference between a picture and its empty background, and colors without the background's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_OWN_COST = 1e-3
"""What it takes for a pixel of the outline to have a color that is nowhere near it, as a squared difference."""

_STEP_COST = 1e-5
"""What a subject color loses for lying a pixel further away."""

_SQUARE = np.ones((3, 3))


def difference_alpha(
    rgb: np.ndarray,
    plate: np.ndarray,
    threshold: float | np.ndarray,
    *,
    outside: np.ndarray | None = None,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """[H, W] float32 in [0, 1].

    Args:
        rgb, plate: [H, W, 3] in [0, 1]. threshold: the largest channel's difference above which a pixel has subject
            in it; one, or [H, W].
        outside: bool [H, W] where there is none. inside: bool [H, W]; a hole that lies in it whole is filled.
    """
    solid = np.abs(rgb - plate).max(axis=-1) > threshold
    if outside is not None:
        solid &= ~outside
    # Specks outside and pinholes inside are noise; larger holes (between arm and body) are real.
    small = speck_size(solid)
    solid = without_small(solid, small)
    solid = ~without_small(~solid, small)
    if inside is not None:
        label, _ = ndimage.label(~solid)
        beyond = np.unique(label[~inside])
        solid |= ~np.isin(label, beyond)
    core = ndimage.binary_erosion(solid, _SQUARE, border_value=1)
    if not core.any():
        return solid.astype(np.float32)
    alpha = core.astype(np.float32)
    band = ndimage.binary_dilation(solid, _SQUARE) & ~core
    alpha[band] = _shares(rgb, plate, core, solid, np.argwhere(band))
    # A share this small or large is rounding, not cover.
    return np.where(alpha < 0.02, 0, np.where(alpha > 0.98, 1, alpha)).astype(np.float32)


def _shares(rgb: np.ndarray, plate: np.ndarray, core: np.ndarray, solid: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[n] how much of each pixel [n, 2] is subject.

    Each sure subject color F nearby explains the pixel as a F + (1 - a) B with its own best a; the one that leaves
    least (and lies nearest, where several do) decides. The subject is patterned, so the nearest alone would not do,
    and where none explains a pixel that stands out, it is a color of its own and all subject.
    """
    reach = 4
    offsets = range(-reach, reach + 1)
    padded = np.pad(rgb, ((reach, reach), (reach, reach), (0, 0)))
    sure = np.pad(core, reach)
    row, column = pixels.T
    seen = rgb[row, column] - plate[row, column]  # [n, 3]
    best = np.where(solid[row, column], _OWN_COST, np.inf)
    share = np.where(solid[row, column], 1.0, 0.0)
    for dy in offsets:
        for dx in offsets:
            at = row + dy + reach, column + dx + reach
            full = padded[at] - plate[row, column]
            a = np.clip((seen * full).sum(axis=1) / np.maximum(np.square(full).sum(axis=1), 1e-6), 0, 1)
            cost = np.square(seen - a[:, None] * full).sum(axis=1) + _STEP_COST * (dy * dy + dx * dx)
            better = sure[at] & (cost < best)
            best = np.where(better, cost, best)
            share = np.where(better, a, share)
    return share


def unmix(rgb: np.ndarray, plate: np.ndarray, alpha: np.ndarray, least: float = 0.25) -> np.ndarray:
    """F of C = a F + (1 - a) B, [H, W, 3]; where a is less than ``least``, too small to divide by, the nearest F."""
    cover = alpha[..., None]
    colors = np.clip((rgb - (1 - cover) * plate) / np.maximum(cover, 1e-3), 0, 1)
    weak = alpha < least
    if weak.all():
        return colors
    nearest = ndimage.distance_transform_edt(weak, return_distances=False, return_indices=True)
    return colors[tuple(nearest)]


def speck_size(picture: np.ndarray) -> int:
    """Fewer connected pixels of a picture [H, W] than this are noise."""
    return max(4, round(2e-4 * picture.shape[0] * picture.shape[1]))


def without_small(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask [H, W] without its connected parts of fewer than ``pixels``."""
    label, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return (sizes >= pixels)[label]
