"""Make pictures of different origin go together: cut a clip out of its backdrop, match its colours to the stills.

Both give a new Capture with pictures in memory; the files are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, optimize

from ..capture import Capture, read_picture, resize_picture
from ..errors import InputError

_MIN_PIXELS = 40
"""Fewer agreeing pixels than this cannot carry a colour match."""


_EXPONENTS = (0.4, 2.5)
"""Gammas beyond these are no gammas."""

_OWN_COST = 1e-3
"""What it takes for a pixel of the outline to have a colour that is nowhere near it, as a squared difference."""

_STEP_COST = 1e-5
"""What a subject colour loses for lying a pixel further away."""


def matte(capture: Capture, source: str, plate: Any, threshold: float = 0.04) -> Capture:
    """Give the frames of a source an alpha, from their difference to the empty backdrop (a clean plate).

    Where a picture differs clearly from the plate it is subject; along the outline the alpha is the least-squares
    solution of C = a F + (1 - a) B, with B from the plate and F a sure subject colour nearby, the one that explains
    the pixel best. Colours are unmixed from the plate there. The camera must stand still and the light must not change.

    Args:
        source: the frames to cut out. plate: a file, or [H, W, 3] uint8 or float in [0, 1].
        threshold: difference (largest channel, of 1) above which a pixel is subject for sure; a little above the
            picture's noise.

    Raises:
        InputError: no frame has that source, the plate cannot be read or does not fit, or nothing stands out.
    """
    rows = _rows(capture, source)
    plates: dict[tuple[int, int], np.ndarray] = {}
    pictures = {}
    for row in rows:
        rgb = capture.image(row)
        size = rgb.shape[:2]
        if size not in plates:
            plates[size] = _plate(plate, size)
        alpha = _alpha(rgb, plates[size], threshold)
        if not (alpha > 0.5).any():
            raise InputError(
                "nothing stands out from the plate",
                file=capture.root,
                field=f"frame {capture.frames.frame[row]}",
                remedy="give this clip's own plate, or a lower threshold",
            )
        pictures[row] = (_to_8_bits(_unmix(rgb, plates[size], alpha)), _to_8_bits(alpha))
    return capture.with_pictures(pictures)


@dataclass(frozen=True)
class ColorMatch:
    """A colour map: c -> matrix @ [c ** exponents, 1], clipped to [0, 1].

    Attributes:
        exponents: [3]. matrix: [3, 4]. rmse: root mean square of what it leaves, on the pixels it trusts.
        pixels: how many it was fitted to.
    """

    exponents: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    rmse: float
    pixels: int

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """Float [..., 3] in [0, 1] to the same."""
        matrix = np.asarray(self.matrix)
        powered = np.clip(rgb, 0, 1) ** np.asarray(self.exponents)
        return np.clip(powered @ matrix[:, :3].T + matrix[:, 3], 0, 1).astype(rgb.dtype)


def match_colors(capture: Capture, source: str, reference: str) -> Capture:
    """Recolour a source so that it looks as the reference does, judged by the cameras that both share.

    Args:
        source: the frames to recolour. reference: the frames that set the look; they stay as they are.

    Raises:
        InputError: see `color_match`.
    """
    match = color_match(capture, source, reference)
    pictures = {}
    for row in _rows(capture, source):
        rgb, alpha = capture.image(row), capture.alpha(row)
        opaque = bool((alpha == 1).all())
        pictures[row] = (_to_8_bits(match.apply(rgb)), None if opaque else _to_8_bits(alpha))
    return capture.with_pictures(pictures)


def color_match(capture: Capture, source: str, reference: str) -> ColorMatch:
    """The map of `match_colors`, fitted.

    On each shared camera the median over time of the source is held against the median of the reference, where both
    are opaque, a pixel away from their outlines and not clipped.

    Raises:
        InputError: the two share no camera, or too little of the picture is opaque in both.
    """
    frames = capture.frames
    cameras = sorted(set(frames.camera[frames.source == source]) & set(frames.camera[frames.source == reference]))
    _rows(capture, source), _rows(capture, reference)
    if not cameras:
        raise InputError(
            f"{source!r} and {reference!r} share no camera",
            file=capture.root,
            field="camera",
            remedy="name the camera that both were shot with in the frames' key 'camera'",
        )
    before, after = [], []
    for camera in cameras:
        one, one_alpha = _median(capture, source, camera)
        two, two_alpha = _median(capture, reference, camera)
        if one.shape != two.shape:
            two, two_alpha = _fit_size(two, two_alpha, one.shape[:2])
        inside = ndimage.binary_erosion((one_alpha > 0.99) & (two_alpha > 0.99), iterations=2, border_value=1)
        inside &= (np.minimum(one, two) > 0.01).all(axis=-1) & (np.maximum(one, two) < 0.99).all(axis=-1)
        before.append(one[inside])
        after.append(two[inside])
    before, after = np.concatenate(before), np.concatenate(after)
    if len(before) < _MIN_PIXELS:
        raise InputError(
            f"only {len(before)} pixels are opaque in both {source!r} and {reference!r}",
            file=capture.root,
            field="alpha",
            remedy="matte both, and check that the shared camera sees the same pose",
        )
    return fit_colors(before, after)


def fit_colors(before: np.ndarray, after: np.ndarray, rounds: int = 12) -> ColorMatch:
    """Fit a `ColorMatch` to pairs of colours [n, 3] in (0, 1), some of which may be wrong.

    A power law per channel takes up gammas, then an affine 3 x 4 map gains, offsets and crosstalk. The map is solved
    for by least squares, reweighted with Tukey's biweight so that what moved does not count; the exponents minimise
    what it leaves (variable projection), from the slopes of the logarithms onwards. A channel with hardly any spread
    keeps the exponent 1.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    one = np.ones((len(before), 1))
    exponents, free = np.ones(3), np.zeros(3, dtype=bool)
    for channel in range(3):
        logs = np.log(np.maximum(before[:, channel : channel + 1], 1e-3))
        free[channel] = np.ptp(np.quantile(logs, (0.05, 0.95))) > 0.2
        if free[channel]:
            # In logarithms a dark pixel's rounding is large, so it counts by its brightness.
            target = np.log(np.maximum(after[:, channel : channel + 1], 1e-3))
            slope = _robust(np.concatenate([logs, one], axis=1), target, before[:, channel], rounds)[0][0, 0]
            exponents[channel] = np.clip(slope, *_EXPONENTS)
    for _ in range(3 if free.any() else 1):
        solution, weights = _robust(np.concatenate([before**exponents, one], axis=1), after, one[:, 0], rounds)
        if free.any():
            exponents[free] = _refine(before, after, weights, exponents, free)
    solution, weights = _robust(np.concatenate([before**exponents, one], axis=1), after, one[:, 0], rounds)
    left = np.square(np.concatenate([before**exponents, one], axis=1) @ solution - after).mean(axis=1)
    rmse = float(np.sqrt((weights * left).sum() / max(weights.sum(), 1e-9)))
    return ColorMatch(tuple(exponents.tolist()), tuple(map(tuple, solution.T.tolist())), rmse, len(before))


def _refine(
    before: np.ndarray, after: np.ndarray, weights: np.ndarray, exponents: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """The free exponents that leave least when the affine map is solved for."""
    chosen = np.linspace(0, len(before) - 1, min(len(before), 4000)).astype(int)
    root = np.sqrt(weights[chosen])[:, None]
    target, one = after[chosen] * root, np.ones((len(chosen), 1))

    def left(values: np.ndarray) -> np.ndarray:
        powers = exponents.copy()
        powers[free] = values
        design = np.concatenate([before[chosen] ** powers, one], axis=1) * root
        return (design @ np.linalg.lstsq(design, target, rcond=None)[0] - target).ravel()

    return optimize.least_squares(left, exponents[free], bounds=_EXPONENTS, max_nfev=20).x


# --- matting -----------------------------------------------------------------------------------------------------


def _alpha(rgb: np.ndarray, plate: np.ndarray, threshold: float) -> np.ndarray:
    """[H, W] float32 in [0, 1]."""
    difference = np.abs(rgb - plate).max(axis=-1)
    solid = difference > threshold
    # Specks outside and pinholes inside are noise; larger holes (between arm and body) are real.
    small = max(4, round(2e-4 * solid.size))
    solid = _without_small(solid, small)
    solid = ~_without_small(~solid, small)
    core = ndimage.binary_erosion(solid, np.ones((3, 3)), border_value=1)
    if not core.any():
        return solid.astype(np.float32)
    alpha = core.astype(np.float32)
    band = ndimage.binary_dilation(solid, np.ones((3, 3))) & ~core
    alpha[band] = _shares(rgb, plate, core, solid, np.argwhere(band))
    # A share this small or large is rounding, not cover.
    return np.where(alpha < 0.02, 0, np.where(alpha > 0.98, 1, alpha)).astype(np.float32)


def _shares(rgb: np.ndarray, plate: np.ndarray, core: np.ndarray, solid: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[n] how much of each pixel [n, 2] is subject.

    Each sure subject colour F nearby explains the pixel as a F + (1 - a) B with its own best a; the one that leaves
    least (and lies nearest, where several do) decides. The subject is patterned, so the nearest alone would not do,
    and where none explains a pixel that stands out, it is a colour of its own and all subject.
    """
    reach = 4
    padded = np.pad(rgb, ((reach, reach), (reach, reach), (0, 0)))
    sure = np.pad(core, reach)
    row, column = pixels.T
    seen = rgb[row, column] - plate[row, column]  # [n, 3]
    best = np.where(solid[row, column], _OWN_COST, np.inf)
    share = np.where(solid[row, column], 1.0, 0.0)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            at = row + dy + reach, column + dx + reach
            full = padded[at] - plate[row, column]
            a = np.clip((seen * full).sum(axis=1) / np.maximum(np.square(full).sum(axis=1), 1e-6), 0, 1)
            cost = np.square(seen - a[:, None] * full).sum(axis=1) + _STEP_COST * (dy * dy + dx * dx)
            better = sure[at] & (cost < best)
            best = np.where(better, cost, best)
            share = np.where(better, a, share)
    return share


def _without_small(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Without its connected parts of fewer than ``pixels``."""
    label, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return (sizes >= pixels)[label]


def _unmix(rgb: np.ndarray, plate: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """F of C = a F + (1 - a) B; where a is too small to divide by, the nearest F."""
    cover = alpha[..., None]
    colors = np.clip((rgb - (1 - cover) * plate) / np.maximum(cover, 1e-3), 0, 1)
    weak = alpha < 0.25
    if weak.all():
        return colors
    nearest = ndimage.distance_transform_edt(weak, return_distances=False, return_indices=True)
    return colors[tuple(nearest)]


def _plate(plate: Any, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1]."""
    name = Path(plate) if isinstance(plate, str | Path) else None
    if name is not None:
        colors, _ = read_picture(name)
    else:
        colors = np.asarray(plate)
        if colors.ndim != 3 or colors.shape[-1] != 3:
            raise InputError(f"has shape {list(colors.shape)}, must be [H, W, 3]", field="plate")
        if np.issubdtype(colors.dtype, np.floating):
            colors = _to_8_bits(colors)
    height, width = colors.shape[:2]
    if abs(width * size[0] - height * size[1]) > max(width, height):
        raise InputError(
            f"is {width}x{height}, the pictures are {size[1]}x{size[0]}",
            file=name,
            field="plate",
            remedy="give a plate from the same camera",
        )
    return resize_picture((colors, None), size[1], size[0])[0].astype(np.float32) / 255


# --- colours -----------------------------------------------------------------------------------------------------


def _median(capture: Capture, source: str, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """The median over time, rgb [H, W, 3] and the least alpha [H, W], of a source at a camera."""
    rows = np.flatnonzero((capture.frames.source == source) & (capture.frames.camera == camera))
    # A few dozen frames fix a median; more of a long clip would only cost time.
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 41)).round().astype(int))]
    rgb, alpha = capture.pictures(rows)
    middle = np.median(rgb.numpy(), axis=0).astype(np.float32) / 255
    if alpha is None:
        return middle, np.ones(middle.shape[:2], np.float32)
    return middle, alpha.numpy().min(axis=0).astype(np.float32) / 255


def _fit_size(rgb: np.ndarray, alpha: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    colors, cover = resize_picture((_to_8_bits(rgb), _to_8_bits(alpha)), size[1], size[0])
    return colors.astype(np.float32) / 255, cover.astype(np.float32) / 255


def _robust(design: np.ndarray, target: np.ndarray, prior: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Least squares [k, c] and its weights [n], which fall to 0 far off (Tukey's biweight, scale from the MAD)."""
    weights = np.ones(len(design))
    for _ in range(rounds):
        root = np.sqrt(weights * prior)[:, None]
        solution = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        left = np.linalg.norm(design @ solution - target, axis=1)
        # 1 / 255 is the pictures' own rounding: nothing finer is an outlier.
        cut = 4.685 * max(1.4826 * float(np.median(left)), 1 / 255)
        weights = np.clip(1 - (left / cut) ** 2, 0, None) ** 2
    return solution, weights


def _rows(capture: Capture, source: str) -> list[int]:
    rows = np.flatnonzero(capture.frames.source == source).tolist()
    if not rows:
        raise InputError(
            f"no frame has the source {source!r}",
            file=capture.root,
            field="source",
            remedy=f"there are {', '.join(capture.sources)}",
        )
    return rows


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
