"""Cut a source's subject out of its background: every frame gets an alpha, and colours without the background's.

The result is a new Capture with pictures in memory; the files are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from ..capture import Capture, read_picture, resize_picture
from ..errors import InputError
from ..pictures import has_alpha_channel, to_8_bits
from .backdrop import Backdrop, estimate_backdrop, frame_gains, small_size
from .chroma import cover, screen_alpha, screen_channel, screen_noise
from .chroma import despill as _despill
from .colors import rows_of
from .difference import difference_alpha, speck_size, unmix, without_small

METHODS = ("auto", "alpha", "plate", "backdrop", "chroma")

_THRESHOLD = 0.04
"""A difference from the plate (largest channel, of 1) that is subject for sure in pictures without noise: ten steps of
8 bits, a few more than shadows, coding and an estimated backdrop are off."""

_Cut = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(row, rgb [H, W, 3] in [0, 1]) -> (the subject's colours [H, W, 3], alpha [H, W])."""


def matte(
    capture: Capture,
    source: str,
    plate: Any = None,
    threshold: float | None = None,
    *,
    method: str | Callable[[np.ndarray], Any] = "auto",
    prior: str | None = None,
    despill: bool = True,
    progress: bool = False,
) -> Capture:
    """Give the frames of a source an alpha.

    Methods:
        ``"auto"``: what `matte_method` says, for the frames that have no alpha yet; those that have one stay as they
        are. The others take all frames, but for ``"alpha"``, which asks that they have one and changes nothing.

        ``"plate"``: the difference to a picture of the empty scene. Where a picture differs clearly from it, it is
        subject; along the outline the alpha is the least-squares solution of C = a F + (1 - a) B, with B from the
        plate and F a sure subject color nearby, the one that explains the pixel best. Colors are unmixed from the
        plate there. The camera must stand still and the light must not change.

        ``"backdrop"``: the same against a smooth backdrop (flat, a gradient, a lit wall) that is estimated from the
        pictures; see `estimate_backdrop`. The camera may move, and the exposure may drift.

        ``"chroma"``: a green or blue screen; see `screen_alpha`. Soft where hair is.

        A function from a picture, uint8 [H, W, 3], to its alpha [H, W], in [0, 1], 0 to 255 as uint8, or bool: the
        place for a model. It is called once a frame, in order.

    Args:
        source: the frames to cut out.
        plate: a file, or [H, W, 3] uint8 or float in [0, 1].
        threshold: for plate and backdrop: the difference (largest channel, of 1) above which a pixel is subject for
            sure. None: 0.04 or, where that is more, three times the noise that the backdrop was estimated with.
        prior: for backdrop: a source with alpha that shares the camera, such as the still orbit of a talking clip.
        despill: for chroma: take the screen's light off the subject.

    Raises:
        InputError: no frame has that source; the method cannot be or lacks what it needs; the plate cannot be read or
            does not fit; the background is no smooth backdrop; nothing stands out; the function gave something else.
    """
    rows = rows_of(capture, source)
    if not callable(method):
        if method not in METHODS:
            remedy = f"use one of {', '.join(METHODS)}, or a function from picture to alpha"
            raise InputError(f"is {method!r}", field="method", remedy=remedy)
        if method in ("auto", "alpha"):
            rows = _without_alpha(capture, rows)
            if method == "alpha" and rows:
                raise InputError(
                    f"{len(rows)} frames of {source!r} have no alpha, for one {capture.frames.frame[rows[0]]}",
                    file=capture.root,
                    field="alpha",
                    remedy="use another method, or give masks",
                )
            if not rows:
                return capture
        if method == "auto":
            method = _choose(capture, rows, plate)
    if method == "plate" and plate is None:
        raise InputError("is needed for the method 'plate'", field="plate", remedy="give a picture of the empty scene")
    if callable(method):
        cut = _hook(capture, method)
    elif method == "plate":
        cut = _against_plate(plate, _THRESHOLD if threshold is None else threshold)
    elif method == "backdrop":
        backdrops = estimate_backdrop(capture, source, prior=prior, rows=rows, progress=progress)
        cut = _against_backdrop(backdrops, threshold)
    else:
        cut = _against_screen(capture, source, rows, despill, progress)
    return _cut_out(capture, rows, cut, strict=method == "plate", progress=progress)


def matte_method(capture: Capture, source: str, plate: Any = None) -> str:
    """The method that ``matte(method="auto")`` takes: alpha where all frames have one, plate where one is given,
    chroma where a screen's green or blue is on most of the rim and not in the subject, else backdrop.

    Raises:
        InputError: no frame has that source.
    """
    rows = _without_alpha(capture, rows_of(capture, source))
    return _choose(capture, rows, plate) if rows else "alpha"


def _choose(capture: Capture, rows: list[int], plate: Any) -> str:
    if plate is not None:
        return "plate"
    channel = screen_channel(capture, rows)
    return "backdrop" if channel is None or _wears_it(capture, rows[0], channel) else "chroma"


def _wears_it(capture: Capture, row: int, channel: int) -> bool:
    """Whether a screen's key would make holes in the subject (blue clothes before a blue wall), by one frame.

    That is, whether it sees through a fiftieth and more of what stands out from the backdrop, away from the outline.
    """
    height, width = small_size(int(capture.frames.height[row]), int(capture.frames.width[row]))
    small = capture.select(rows=[row]).resized(width, height)
    try:
        backdrop = estimate_backdrop(small, small.sources[0])[0]
    except InputError:
        return False  # creases, or an uneven screen: a key can do with it, a difference cannot
    rgb, plate = small.image(0), backdrop.picture()
    alpha = difference_alpha(rgb, plate, max(_THRESHOLD, 3 * backdrop.noise), outside=backdrop.bars())
    inner = ndimage.binary_erosion(alpha == 1, iterations=3)
    return bool((cover(rgb, plate, channel)[inner] < 0.5).sum() > 0.02 * inner.sum())


def _without_alpha(capture: Capture, rows: list[int]) -> list[int]:
    """The rows whose pictures are opaque. One that has an opaque alpha counts as such, unless others are cut out."""

    def has_channel(row: int) -> bool:
        frame, image, mask = (capture.frames[name].iloc[row] for name in ("frame", "image", "mask"))
        if frame in capture.memory:
            return capture.memory[frame][1] is not None
        return bool(mask) or has_alpha_channel(image)

    channel = {row for row in rows if has_channel(row)}
    if any(bool((capture.alpha(row) < 1).any()) for row in sorted(channel)):
        return [row for row in rows if row not in channel]
    return rows


def _cut_out(capture: Capture, rows: list[int], cut: _Cut, strict: bool, progress: bool) -> Capture:
    """Frame by frame, so that memory holds the results and one picture."""
    pictures, empty = {}, []
    for row in tqdm(rows, desc="matte", unit="frame", disable=not progress):
        colors, alpha = cut(row, capture.image(row))
        if not (alpha > 0.5).any():
            empty.append(row)
        if empty and (strict or len(empty) == len(rows)):
            raise InputError(
                "nothing stands out from the plate" if strict else "nothing stands out in any frame",
                file=capture.root,
                field=f"frame {capture.frames.frame[empty[0]]}",
                remedy="give this clip's own plate, or a lower threshold",
            )
        pictures[row] = (to_8_bits(colors), to_8_bits(alpha))
    return capture.with_pictures(pictures)


# --- the methods ---------------------------------------------------------------------------------------------------


def _against_plate(plate: Any, threshold: float) -> _Cut:
    plates: dict[tuple[int, int], np.ndarray] = {}

    def cut(_: int, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = rgb.shape[:2]
        if size not in plates:
            plates[size] = _plate(plate, size)
        alpha = difference_alpha(rgb, plates[size], threshold)
        return unmix(rgb, plates[size], alpha), alpha

    return cut


def _against_backdrop(backdrops: dict[int, Backdrop], threshold: float | None) -> _Cut:
    latest = _Latest()

    def cut(row: int, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        backdrop = backdrops[row]
        plate, seen, bars, core = latest(backdrop)
        plate = plate * frame_gains(rgb, plate, seen)
        # The noise is 1.9 standard deviations; three times that lets one pixel of a hundred million go.
        least = max(_THRESHOLD, 3 * backdrop.noise) if threshold is None else threshold
        if core is not None:
            # Where a prior expects subject, less will do as evidence.
            least = np.where(core, min(least, max(2 * backdrop.noise, 4 / 255)), least)
        alpha = difference_alpha(rgb, plate, least, outside=bars, inside=core)
        return unmix(rgb, plate, alpha), alpha

    return cut


def _against_screen(capture: Capture, source: str, rows: list[int], despill: bool, progress: bool) -> _Cut:
    channel = screen_channel(capture, rows)
    if channel is None:
        raise InputError(
            f"{source!r} was not shot before a green or blue screen: its rim is of other colors",
            file=capture.root,
            field="method",
            remedy="use method 'backdrop', or give a plate",
        )
    backdrops = estimate_backdrop(capture, source, colored=channel, rows=rows, progress=progress)
    same = {id(backdrop): [] for backdrop in backdrops.values()}
    for row, backdrop in backdrops.items():
        same[id(backdrop)].append(row)
    noises, latest = {}, _Latest()

    def cut(row: int, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        backdrop = backdrops[row]
        plate, seen, bars, _ = latest(backdrop)
        if id(backdrop) not in noises:
            noises[id(backdrop)] = screen_noise(capture, same[id(backdrop)], backdrop, channel)
        plate = plate * frame_gains(rgb, plate, seen)
        alpha = screen_alpha(rgb, plate, channel, noises[id(backdrop)])
        alpha = np.where(bars | ~without_small(alpha > 0, speck_size(alpha)), 0, alpha)
        # Half a pixel of screen is too much to divide out where video has smeared the colors.
        colors = unmix(rgb, plate, alpha, 0.6)
        return _despill(colors, channel) if despill else colors, alpha

    return cut


def _hook(capture: Capture, function: Callable[[np.ndarray], Any]) -> _Cut:
    def cut(row: int, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = function(to_8_bits(rgb))
        given = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        field, size = f"frame {capture.frames.frame[row]}", rgb.shape[:2]
        if given.shape != size:
            what = f"the matte's shape is {list(given.shape)}, must be {list(size)}"
            raise InputError(what, field=field, remedy="give one alpha a pixel")
        if given.dtype.kind not in "fub" or (given.dtype.kind == "u" and given.dtype != np.uint8):
            what = f"the matte's type is {given.dtype}"
            raise InputError(what, field=field, remedy="give floats in [0, 1], uint8 or bool")
        alpha = given.astype(np.float32) / (255 if given.dtype == np.uint8 else 1)
        if not (np.isfinite(alpha).all() and alpha.min() >= 0 and alpha.max() <= 1):
            what = f"the matte ranges from {alpha.min():g} to {alpha.max():g}"
            raise InputError(what, field=field, remedy="give floats in [0, 1], uint8 or bool")
        bare = alpha < 0.02
        if not bare.any() or bare.all():
            return rgb, alpha
        # The background of an outline pixel is unknown; the nearest bare one stands for it.
        nearest = ndimage.distance_transform_edt(~bare, return_distances=False, return_indices=True)
        return unmix(rgb, rgb[tuple(nearest)], alpha), alpha

    return cut


class _Latest:
    """What one backdrop gives at full size, kept until another is asked for: frames of a view follow each other."""

    def __init__(self) -> None:
        self._of: Backdrop | None = None
        self._parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None] | None = None

    def __call__(self, backdrop: Backdrop) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """(picture [H, W, 3], seen, bars and core, each bool [H, W]; core may be None)."""
        if self._of is not backdrop:
            core = None if backdrop.core is None else backdrop.large(backdrop.core)
            self._parts = backdrop.picture(), backdrop.large(backdrop.seen), backdrop.bars(), core
            self._of = backdrop
        return self._parts


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
            colors = to_8_bits(colors)
    height, width = colors.shape[:2]
    if abs(width * size[0] - height * size[1]) > max(width, height):
        raise InputError(
            f"is {width}x{height}, the pictures are {size[1]}x{size[0]}",
            file=name,
            field="plate",
            remedy="give a plate from the same camera",
        )
    return resize_picture((colors, None), size[1], size[0])[0].astype(np.float32) / 255
