"""The empty backdrop of a source, estimated from its pictures: a smooth surface that goes on behind the subject.

It starts from the rim of the picture, where a robust parabola and then ever more supple surfaces tell wall from
subject, and grows inwards as long as pixels go on smoothly: the subject stands out where they do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from ..capture import Capture
from ..errors import InputError
from ..thinning import some
from .colors import rows_of
from .surface import fit_surface, surface_at

_SIZE = 128
"""Long side in pixels at which the surface is estimated: it is smooth, so more would only cost time."""

_RIM = 0.04
"""Width of the rim that the estimate starts from, of the long side."""

_LEAST_RIM = 0.4
"""A subject cut by the frame covers one side and parts of two others; where more is no backdrop, there is none."""

_MOST_NOISE = 0.03
"""Of 1. A matte needs three times this to tell subject from backdrop; more hides a face before a wall."""

_STEEPEST = 1.5
"""Of the full range per picture length. A wall that went from white to black over less would be an edge; what follows
a furnished room's colors is two times steeper and more."""

_MARGIN = 0.06
"""How far the subject may be from where a prior has it, of the long side. What lies between is found again."""

LEAST_DOMINANCE = 0.1
"""By how much a screen's channel exceeds the others. At less than this, rounding alone makes alpha uncertain by 4 %."""

_BLACK = 16 / 255
"""Video black, with its coding noise."""


@dataclass(frozen=True, eq=False)
class Backdrop:
    """The backdrop of one frame, or of all frames of a camera that stands still.

    Attributes:
        coefficients: [3, m, m] of the spline. size: (height, width) of the pictures.
        content: (top, bottom, left, right) in pixels: what lies outside is a black bar of the video, not picture.
        seen: bool [h, w], small: where the backdrop was seen.
        core: bool [h, w], small: where a prior says that there surely is subject; or None.
        noise: what the pictures differ from the surface where it was seen, of 1: 1.4826 times the median of the
            largest channel's difference (about 1.9 standard deviations of a channel).
        rim: share of the picture's rim that fits the surface. Below `_LEAST_RIM` it is no backdrop.
    """

    coefficients: np.ndarray
    size: tuple[int, int]
    content: tuple[int, int, int, int]
    seen: np.ndarray
    core: np.ndarray | None
    noise: float
    rim: float

    @property
    def coverage(self) -> float:
        """Share of the picture in which the backdrop was seen; the rest is what the spline made of it."""
        return float(self.seen.mean())

    def picture(self) -> np.ndarray:
        """[H, W, 3] float32 in [0, 1]."""
        return np.clip(surface_at(self.coefficients, self.size), 0, 1).astype(np.float32)

    def large(self, mask: np.ndarray) -> np.ndarray:
        """A small mask [h, w] at the pictures' size, bool [H, W]."""
        rows, columns = (np.arange(n) * m // n for n, m in zip(self.size, mask.shape, strict=True))
        return mask[rows[:, None], columns]

    def bars(self) -> np.ndarray:
        """Bool [H, W]: the black bars."""
        outside = np.ones(self.size, dtype=bool)
        top, bottom, left, right = self.content
        outside[top:bottom, left:right] = False
        return outside


def estimate_backdrop(
    capture: Capture,
    source: str,
    *,
    prior: str | None = None,
    colored: int | None = None,
    rows: list[int] | None = None,
    progress: bool = False,
) -> dict[int, Backdrop]:
    """The backdrop of each frame of a source; frames from one pose share theirs, which all of them tell about.

    Args:
        prior: a source with alpha that shares the source's camera (by name). Where its subject is not, widened by 6 %
            of the picture, there is backdrop to start from, as well as the rim; narrowed by as much, it tells where a
            gap in the subject cannot be one.
        colored: the channel (0, 1, 2) of a green or blue screen: then all that has its color is backdrop.
        rows: only these frames of the source.

    Returns:
        Row -> `Backdrop`.

    Raises:
        InputError: what surrounds the subject is no smooth surface; the prior has no alpha or another camera.
    """
    rows = rows_of(capture, source) if rows is None else rows
    found = {}
    for group in tqdm(_standing(capture, rows), desc="backdrop", unit="view", disable=not progress):
        backdrop = _estimate(capture, source, group, prior, colored)
        found.update(dict.fromkeys(group, backdrop))
    return dict(sorted(found.items()))


def frame_gains(rgb: np.ndarray, plate: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """[3] by how much a frame [H, W, 3] is brighter than the backdrop [H, W, 3] of all frames, where that was seen.

    Takes up exposure that drifts or flickers. The median ratio, so that a subject that comes into view does not count.
    """
    row, column = np.nonzero(seen)
    step = max(1, len(row) // 20000)
    at = row[::step], column[::step]
    if len(at[0]) < 50:
        return np.ones(3, np.float32)
    return np.median(rgb[at] / np.maximum(plate[at], 2 / 255), axis=0).astype(np.float32)


def rim_of(content: np.ndarray, width: int | None = None) -> np.ndarray:
    """The outermost pixels of ``content``, bool [h, w]."""
    width = width or max(2, round(_RIM * max(content.shape)))
    return content & ~ndimage.binary_erosion(content, np.ones((3, 3)), iterations=width)


def small_size(height: int, width: int, longest: int = _SIZE) -> tuple[int, int]:
    """(height, width) with the long side at ``longest`` at most."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


# --- one camera ----------------------------------------------------------------------------------------------------


def _standing(capture: Capture, rows: list[int]) -> list[list[int]]:
    """Rows that look from one pose, through one lens, at one size, grouped."""
    views, Ks = (
        np.round(value.double().cpu().numpy().reshape(len(capture), -1), 3)
        for value in (capture.cameras.viewmats, capture.cameras.Ks)
    )
    groups: dict[tuple, list[int]] = {}
    for row in rows:
        frame = capture.frames.iloc[row]
        key = (frame.camera, frame.width, frame.height, views[row].tobytes(), Ks[row].tobytes())
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _estimate(capture: Capture, source: str, rows: list[int], prior: str | None, colored: int | None) -> Backdrop:
    size = int(capture.frames.height[rows[0]]), int(capture.frames.width[rows[0]])
    few = some(rows, 15)
    content = content_of([capture.image(row) for row in some(rows, 3)])
    small = small_size(*size)
    inside = inside_of(content, size, small)
    stack = capture.select(rows=few).resized(small[1], small[0]).pictures()[0].numpy().astype(np.float32) / 255
    rim = rim_of(inside)
    middle, still = _steady(stack, rim, inside)
    start, core = rim, None
    if prior is not None:
        most, least = _silhouette(capture, source, prior, rows[0], small)
        margin = max(1, round(_MARGIN * max(small)))
        away = inside & ~ndimage.binary_dilation(most > 0.02, _disc(margin))
        start = rim | away if away.any() else rim
        core = ndimage.binary_erosion(least > 0.98, _disc(margin), border_value=1)
    if colored is None:
        seen = _grow(middle, inside & still, start & still)
    else:
        color = dominance(middle, colored)
        screen = color[rim & (color > LEAST_DOMINANCE)]
        seen = inside & (color > 0.5 * (np.median(screen) if len(screen) else np.inf))
    backdrop = _finish(capture, rows, Backdrop(np.zeros(0), size, content, seen, core, 0, 0), middle, start)
    wrong = _what_is_wrong(backdrop, colored is not None)
    if wrong:
        raise InputError(
            f"what is behind {source!r} is no smooth backdrop: {wrong}",
            file=capture.root,
            field=f"frame {capture.frames.frame[rows[0]]}",
            remedy="give a picture of the empty scene as plate, or a function from picture to alpha as method",
        )
    return backdrop


def _finish(capture: Capture, rows: list[int], backdrop: Backdrop, middle: np.ndarray, start: np.ndarray) -> Backdrop:
    """The last fit, without the outline's mixed pixels, and how good it is at full size."""
    seen = backdrop.seen
    pure = ndimage.binary_erosion(seen, np.ones((3, 3)), border_value=1)
    share = float(seen[start].mean()) if start.any() else 0.0
    if pure.sum() < 50:
        return replace(backdrop, noise=math.inf, rim=share)
    weights = pure.astype(np.float64)
    for _ in range(4):
        coefficients = fit_surface(middle, weights)
        left = np.abs(surface_at(coefficients, middle.shape[:2]) - middle).max(axis=-1)
        weights = pure * _tukey(left, max(1.4826 * float(np.median(left[pure])), 1 / 255))
    backdrop = replace(backdrop, coefficients=coefficients)
    plate, mask = backdrop.picture(), backdrop.large(pure)
    left = []
    for row in some(rows, 3):
        rgb = capture.image(row)
        left.append(np.abs(rgb - plate * frame_gains(rgb, plate, mask)).max(axis=-1)[mask])
    return replace(backdrop, noise=1.4826 * float(np.median(np.concatenate(left))), rim=share)


def _what_is_wrong(backdrop: Backdrop, screen: bool) -> str:
    """Why it is no backdrop, or "". A screen is told by its color, so it may have creases and cover little."""
    if not math.isfinite(backdrop.noise):
        return "hardly any of it was seen"
    if screen:
        return ""
    if backdrop.rim < _LEAST_RIM:
        return f"only {100 * backdrop.rim:.0f} % of what surrounds it goes on smoothly"
    if backdrop.noise > _MOST_NOISE:
        return f"it is off a smooth surface by {255 * backdrop.noise:.0f} of 255"
    steepness = _steepness(surface_at(backdrop.coefficients, backdrop.seen.shape), backdrop.seen)
    if steepness > _STEEPEST:
        return f"its colors change by up to {100 * steepness / 10:.0f} % of their range over a tenth of the picture"
    return ""


def _steepness(surface: np.ndarray, seen: np.ndarray) -> float:
    """How steep a surface [h, w, 3] is where it was seen (99 % of it is less), per long side of the picture."""
    down, across = np.abs(np.diff(surface, axis=0)).max(axis=-1), np.abs(np.diff(surface, axis=1)).max(axis=-1)
    steps = np.concatenate([down[seen[1:] & seen[:-1]], across[seen[:, 1:] & seen[:, :-1]]])
    return float(np.quantile(steps, 0.99)) * max(seen.shape) if len(steps) else math.inf


def _grow(middle: np.ndarray, allowed: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Bool [h, w]: what goes on smoothly from the pixels to start with."""
    height, width = allowed.shape
    seen = np.zeros_like(allowed)
    if start.sum() < 20:
        return seen
    y, x = np.mgrid[:height, :width] / max(height, width)
    parabola = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)[start]
    seen[start] = _robust_inliers(parabola, middle[start])
    # From stiff to supple, so that what lies off falls out before the surface could bend to it.
    for stiffness in (10.0, 1.0, 0.1, 0.01):
        for _ in range(3):
            left = np.abs(surface_at(fit_surface(middle, seen.astype(np.float64), stiffness), (height, width)) - middle)
            left = left.max(axis=-1)
            seen = start & (left < np.clip(4 * 1.4826 * np.median(left[seen]), 3 / 255, 2 * _MOST_NOISE))
            if seen.sum() < 20:
                return seen
    weights = seen.astype(np.float64)
    for _ in range(max(height, width)):
        left = np.abs(surface_at(fit_surface(middle, weights), (height, width)) - middle).max(axis=-1)
        spread = max(1.4826 * float(np.median(left[seen])), 0.5 / 255)
        # Four spreads let one pixel of some thousands go; 3 / 255 is what rounding and a slightly stiff spline leave;
        # 0.06 is twice what a usable backdrop's noise may be.
        good = allowed & (left < np.clip(4 * spread, 3 / 255, 2 * _MOST_NOISE))
        # Three pixels at a time: less than half a spline interval, over which its extrapolation holds.
        grown = ndimage.binary_opening(ndimage.binary_dilation(seen, iterations=3) & good, np.ones((2, 2)))
        change = int((grown != seen).sum())
        seen = grown
        if change <= 2 or not seen.any():
            break
        weights = seen * _tukey(left, max(spread, 1 / 255))
    return seen


def _robust_inliers(design: np.ndarray, target: np.ndarray, rounds: int = 20) -> np.ndarray:
    weights = np.ones(len(design))
    for _ in range(rounds):
        root = np.sqrt(weights)[:, None]
        solution = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        left = np.abs(design @ solution - target).max(axis=1)
        weights = _tukey(left, max(1.4826 * float(np.median(left)), 1 / 255))
    return weights > 0.2


def _tukey(left: np.ndarray, spread: float) -> np.ndarray:
    """Tukey's biweight: 1 on the surface, 0 from 4.685 spreads on."""
    return np.clip(1 - (left / (4.685 * spread)) ** 2, 0, None) ** 2


def _steady(stack: np.ndarray, rim: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median over frames [n, h, w, 3], evened out in exposure, and bool [h, w] where nothing moved."""
    middle = np.median(stack, axis=0)
    level = np.median(middle[rim] if rim.any() else middle.reshape(-1, 3), axis=0)
    each = np.median(stack[:, rim] if rim.any() else stack.reshape(len(stack), -1, 3), axis=1)
    stack = stack * (np.maximum(level, 2 / 255) / np.maximum(each, 2 / 255))[:, None, None]
    middle = np.median(stack, axis=0)
    moved = np.median(np.abs(stack - middle).max(axis=-1), axis=0)
    usual = float(np.median(moved[rim])) if rim.any() else 0.0
    return middle, inside & (moved <= 3 * usual + 1.5 / 255)


# --- what is picture, what is subject --------------------------------------------------------------------------------


def content_of(pictures: list[np.ndarray]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right): without black bars, which end in a straight edge along most of a side."""
    light = np.max([picture.max(axis=-1) for picture in pictures], axis=0)
    limits = []
    for lines in (light, light.T):
        dark = (lines <= _BLACK).all(axis=1)
        for side in (dark, dark[::-1]):
            depth = int(np.argmin(side)) if not side.all() else 0
            ordered = lines if side is dark else lines[::-1]
            beyond = ordered[min(depth + 2, len(lines) - 1)]
            is_bar = 0 < depth < 0.4 * len(lines) and np.median(beyond) > 1.5 * _BLACK
            # One line more: the last one of a coded bar is a mixture.
            limits.append(depth + 1 if is_bar else 0)
    height, width = light.shape
    return limits[0], height - limits[1], limits[2], width - limits[3]


def inside_of(content: tuple[int, int, int, int], size: tuple[int, int], small: tuple[int, int]) -> np.ndarray:
    """Bool [h, w]: the small pixels that lie in the content whole."""
    inside = np.zeros(small, dtype=bool)
    top, left = (-(-content[k] * small[k // 2] // size[k // 2]) for k in (0, 2))
    bottom, right = (content[k] * small[k // 2] // size[k // 2] for k in (1, 3))
    inside[top:bottom, left:right] = True
    return inside


def _silhouette(
    capture: Capture, source: str, prior: str, row: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The most and the least alpha [h, w] that the prior's frames have at a row's camera."""
    camera = capture.frames.camera[row]
    rows = [k for k in rows_of(capture, prior) if capture.frames.camera[k] == camera]
    if not rows:
        raise InputError(
            f"{prior!r} has no frame from the camera {camera!r} of {source!r}",
            file=capture.root,
            field="prior",
            remedy="name a source that shares the camera, or none",
        )
    alpha = capture.select(rows=some(rows, 15)).resized(size[1], size[0]).pictures()[1]
    if alpha is None:
        remedy = "name a source with alpha, or none"
        raise InputError(f"{prior!r} has no alpha", file=capture.root, field="prior", remedy=remedy)
    alpha = alpha.numpy().astype(np.float32) / 255
    return alpha.max(axis=0), alpha.min(axis=0)


def dominance(rgb: np.ndarray, channel: int) -> np.ndarray:
    """[...] by how much one channel of colors [..., 3] exceeds the larger of the others."""
    others = [c for c in range(3) if c != channel]
    return rgb[..., channel] - rgb[..., others].max(axis=-1)


def _disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius
