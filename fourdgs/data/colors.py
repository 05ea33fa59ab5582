"""Make the colours of one source look like those of another.

Where both saw the same view, pixels are paired; where they did not, the subject's colour statistics are matched.
Recoloured pictures are kept in memory; the files are not touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..capture import Capture, resize_picture
from ..errors import InputError
from ..pictures import to_8_bits
from ..thinning import some

_MIN_PIXELS = 40
"""Fewer agreeing pixels than this cannot carry a colour match."""

_EXPONENTS = (0.4, 2.5)
"""Gammas beyond these are no gammas."""

_FRAMES = 41
"""A few dozen frames fix a median or a distribution; more of a long clip would only cost time."""

_LEVELS = np.linspace(0.03, 0.97, 48)
"""The quantiles that carry a statistical match: without the tails, which are highlights, outlines and clipping."""

_NEAR_DEG = 2.0
"""Reference cameras this much further off than the nearest one show as good a view of the subject."""

_FARTHEST_DEG = 75.0
"""Beyond, two views show too little of the same: on a head, statistics did good from 59 degrees and harm from 88."""


@dataclass(frozen=True)
class ColorMatch:
    """A colour map: c -> matrix @ [c ** exponents, 1], clipped to [0, 1].

    Attributes:
        exponents: [3]. matrix: [3, 4].
        rmse: root mean square of what it leaves: of the pixel pairs it trusts or, matched by statistics, of the
            colours' quantiles.
        pixels: how many it was fitted to.
        how: what it was estimated from, in words; begins with "shared cameras" or "subject statistics".
        uncertainty: how far off mapped colours may be, root mean square of 1. Of pixel pairs: how much the maps of the
            left and the right half of them disagree. Of statistics: how far the same method is from the identity
            between views of the reference as far apart, which need no match. NaN where it cannot be measured.
    """

    exponents: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    rmse: float
    pixels: int
    how: str = ""
    uncertainty: float = math.nan

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """Float [..., 3] in [0, 1] to the same."""
        matrix = np.asarray(self.matrix)
        powered = np.clip(rgb, 0, 1) ** np.asarray(self.exponents)
        return np.clip(powered @ matrix[:, :3].T + matrix[:, 3], 0, 1).astype(rgb.dtype)


def match_colors(capture: Capture, source: str, reference: str) -> Capture:
    """Recolour a source so that it looks as the reference does; see `color_match`.

    Args:
        source: the frames to recolour. reference: the frames that set the look; they stay as they are.

    Raises:
        InputError: see `color_match`.
    """
    match = color_match(capture, source, reference)
    pictures = {}
    for row in rows_of(capture, source):
        rgb, alpha = capture.image(row), capture.alpha(row)
        opaque = bool((alpha == 1).all())
        pictures[row] = (to_8_bits(match.apply(rgb)), None if opaque else to_8_bits(alpha))
    return capture.with_pictures(pictures)


def color_match(capture: Capture, source: str, reference: str) -> ColorMatch:
    """The map of `match_colors`, fitted.

    On each camera that both share (by name or, where no name is shared, by pose and lens) the median over time of the
    source is held against the median of the reference, where both are opaque, a pixel away from their outlines and not
    clipped.

    Without a shared camera the subject's colours are matched by their distribution, channel by channel (the optimal
    transport in one dimension matches quantiles), by a gain and an offset: the reference frames whose cameras look from
    nearest stand for the reference. That is a guess, since another view shows other parts of the subject; the result
    says so in ``how`` and ``uncertainty``.

    Raises:
        InputError: too little of the picture is opaque in both; only one of the two has been matted; or their nearest
            views of the subject are more than 75 degrees apart.
    """
    rows, others = rows_of(capture, source), rows_of(capture, reference)
    pairs, names = _shared(capture, rows, others)
    if not pairs:
        return _match_statistics(capture, source, reference)
    before, after, left = [], [], []
    for mine, theirs in pairs:
        one, one_alpha = _median(capture, mine)
        two, two_alpha = _median(capture, theirs)
        if one.shape != two.shape:
            two, two_alpha = _fit_size(two, two_alpha, one.shape[:2])
        inside = ndimage.binary_erosion((one_alpha > 0.99) & (two_alpha > 0.99), iterations=2, border_value=1)
        inside &= (np.minimum(one, two) > 0.01).all(axis=-1) & (np.maximum(one, two) < 0.99).all(axis=-1)
        before.append(one[inside])
        after.append(two[inside])
        column = np.nonzero(inside)[1]
        left.append(column < np.median(column) if len(column) else column > 0)
    before, after, left = np.concatenate(before), np.concatenate(after), np.concatenate(left)
    if len(before) < _MIN_PIXELS:
        raise InputError(
            f"only {len(before)} pixels are opaque in both {source!r} and {reference!r}",
            file=capture.root,
            field="alpha",
            remedy="matte both, and check that the shared camera sees the same pose",
        )
    match = fit_colors(before, after)
    uncertainty = math.nan
    if min(left.sum(), (~left).sum()) >= _MIN_PIXELS:
        halves = [fit_colors(before[half], after[half]).apply(before) for half in (left, ~left)]
        # Either half is a map from half the evidence: their mean is off by half of what lies between them.
        uncertainty = float(np.sqrt(np.mean((halves[0] - halves[1]) ** 2)) / 2)
    return ColorMatch(match.exponents, match.matrix, match.rmse, match.pixels, f"shared cameras: {names}", uncertainty)


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
    return ColorMatch(tuple(exponents.tolist()), tuple(map(tuple, solution.T.tolist())), rmse, len(before), "pairs")


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

    from scipy import optimize  # slow to import

    return optimize.least_squares(left, exponents[free], bounds=_EXPONENTS, max_nfev=20).x


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


# --- without a shared camera -------------------------------------------------------------------------------------


def _match_statistics(capture: Capture, source: str, reference: str) -> ColorMatch:
    rows, others = some(rows_of(capture, source), _FRAMES), rows_of(capture, reference)
    cut = [any(bool((capture.alpha(row) < 1).any()) for row in some(side, 5)) for side in (rows, others)]
    if cut[0] != cut[1]:
        bare, matted = (reference, source) if cut[0] else (source, reference)
        raise InputError(
            f"{bare!r} is opaque and {matted!r} is not: their backgrounds would be matched with each other",
            file=capture.root,
            field="alpha",
            remedy=f"matte {bare!r} first",
        )
    subjects: dict[int, np.ndarray] = {}

    def colors_of(frames: list[int]) -> np.ndarray:
        for row in set(frames) - set(subjects):
            subjects[row] = _subject(capture, row)
        pooled = np.concatenate([subjects[row] for row in frames])
        if len(pooled) < _MIN_PIXELS:
            name = capture.frames.source[frames[0]]
            remedy = "check its mattes"
            raise InputError(
                f"{len(pooled)} opaque pixels in {name!r}", file=capture.root, field="alpha", remedy=remedy
            )
        return pooled

    axes = capture.cameras.viewmats.cpu().numpy()[:, 2, :3]  # [n, 3] where each looks
    nearest, angle_deg = _nearest(axes, rows, others)
    if cut[0] and angle_deg > _FARTHEST_DEG:
        raise InputError(
            f"{source!r} and {reference!r} share no camera, and their nearest look from {angle_deg:.0f} degrees apart",
            file=capture.root,
            field="camera",
            remedy="they show different sides of the subject: take a reference picture from the camera of the source",
        )
    before = colors_of(rows)
    scale, offset, rmse = _transport(before, colors_of(nearest))
    matrix = tuple((*row, float(shift)) for row, shift in zip(np.diag(scale).tolist(), offset, strict=True))
    what = "subject statistics" if cut[0] else "subject statistics (whole pictures: neither has an alpha)"
    how = f"{what}: gain and offset of each channel, against reference views {angle_deg:.0f} degrees away"
    # The views used against the reference's others, as far apart as the two are: that should give the identity.
    errors = []
    for one, two in _pairs_apart(axes, nearest, others, angle_deg):
        own = colors_of([one])
        gain, shift, _ = _transport(own, colors_of([two]))
        errors.append(np.mean((own * gain + shift - own) ** 2))
    uncertainty = float(np.sqrt(np.mean(errors))) if errors else math.nan
    return ColorMatch((1.0, 1.0, 1.0), matrix, rmse, len(before), how, uncertainty)


def _transport(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Gain [3] and offset [3] from one set of colours [n, 3] to another [m, 3], and what is left of the quantiles.

    The least-squares line through the paired quantiles of each channel. A channel of one tone gets an offset alone.
    """
    one, two = np.quantile(before, _LEVELS, axis=0), np.quantile(after, _LEVELS, axis=0)
    center, target = one.mean(axis=0), two.mean(axis=0)
    spread = np.mean((one - center) ** 2, axis=0)
    gain = np.mean((one - center) * (two - target), axis=0) / np.maximum(spread, 1e-12)
    # A spread within the pictures' rounding has no slope.
    gain = np.where(spread > (1 / 255) ** 2, np.clip(gain, 0.25, 4.0), 1.0)
    offset = target - gain * center
    return gain, offset, float(np.sqrt(np.mean((one * gain + offset - two) ** 2)))


def _subject(capture: Capture, row: int, most: int = 2000) -> np.ndarray:
    """[n, 3] colours of a frame's subject, away from its outline, evenly thinned to ``most``."""
    rgb, alpha = capture.image(row), capture.alpha(row)
    inside = ndimage.binary_erosion(alpha > 0.99, iterations=2, border_value=1)
    colors = rgb[inside].astype(np.float64)
    return colors[np.unique(np.linspace(0, len(colors) - 1, min(len(colors), most)).astype(int))]


def _nearest(axes: np.ndarray, rows: list[int], others: list[int]) -> tuple[list[int], float]:
    """For each of ``rows`` one of ``others`` that looks from nearest (by turns, where several do); the mean angle."""
    angles = np.degrees(np.arccos(np.clip(axes[rows] @ axes[others].T, -1, 1)))  # [n, m]
    chosen = []
    for position, to_all in enumerate(angles):
        near = np.flatnonzero(to_all <= to_all.min() + _NEAR_DEG)
        chosen.append(others[near[position % len(near)]])
    return chosen, float(angles.min(axis=1).mean())


def _pairs_apart(
    axes: np.ndarray, rows: list[int], others: list[int], angle_deg: float, most: int = 12
) -> list[tuple[int, int]]:
    """Pairs of one of ``rows`` and one of ``others`` that look from ``angle_deg`` apart.

    Where there is none, from the next more there is.
    """
    one, two = (np.asarray(some(side, _FRAMES)) for side in (sorted(set(rows)), others))
    apart = np.degrees(np.arccos(np.clip(axes[one] @ axes[two].T, -1, 1)))
    enough = (apart >= 0.8 * angle_deg - _NEAR_DEG) & (one[:, None] != two)
    if not enough.any():
        return []
    fitting = np.argwhere(enough & (apart <= max(1.2 * angle_deg, apart[enough].min()) + _NEAR_DEG))
    fitting = fitting[np.linspace(0, len(fitting) - 1, min(len(fitting), most)).astype(int)]
    return [(int(one[a]), int(two[b])) for a, b in fitting]


# --- the shared view ---------------------------------------------------------------------------------------------


def _shared(capture: Capture, rows: list[int], others: list[int]) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Rows of either side that saw the same view, and the names of those cameras.

    By name; where no name is shared, by pose and lens (to a thousandth, relative).
    """
    camera = capture.frames.camera
    common = sorted(set(camera[rows]) & set(camera[others]))
    if common:
        split = [[[row for row in side if camera[row] == name] for side in (rows, others)] for name in common]
        return [(mine, theirs) for mine, theirs in split], ", ".join(common)
    K = capture.cameras.Ks.double().cpu().numpy()
    sizes = capture.cameras.sizes.double().cpu().numpy()
    lens = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1) / np.tile(sizes, 2)
    views = capture.cameras.viewmats.double().cpu().numpy()
    shift = views[:, :3, 3] / max(float(np.abs(views[:, :3, 3]).max()), 1e-9)
    keys = np.concatenate([views[:, :3, :3].reshape(len(views), 9), shift, lens], axis=1)
    pairs, names, free = [], [], list(others)
    for name in sorted(set(camera[rows])):
        mine = [row for row in rows if camera[row] == name]
        theirs = [row for row in free if np.abs(keys[row] - keys[mine[0]]).max() < 1e-3]
        if theirs and np.abs(keys[mine] - keys[mine[0]]).max() < 1e-3:
            pairs.append((mine, theirs))
            names.append(f"{name} = {camera[theirs[0]]}")
    return pairs, ", ".join(names)


def _median(capture: Capture, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The median over some frames, rgb [H, W, 3], and the least alpha [H, W]."""
    rgb, alpha = capture.pictures(some(rows, _FRAMES))
    middle = np.median(rgb.numpy(), axis=0).astype(np.float32) / 255
    if alpha is None:
        return middle, np.ones(middle.shape[:2], np.float32)
    return middle, alpha.numpy().min(axis=0).astype(np.float32) / 255


def _fit_size(rgb: np.ndarray, alpha: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    colors, cover = resize_picture((to_8_bits(rgb), to_8_bits(alpha)), size[1], size[0])
    return colors.astype(np.float32) / 255, cover.astype(np.float32) / 255


# --- for all that makes new pictures of a source ------------------------------------------------------------------


def rows_of(capture: Capture, source: str) -> list[int]:
    """The rows of a source. Raises InputError where there is none."""
    rows = np.flatnonzero(capture.frames.source == source).tolist()
    if not rows:
        raise InputError(
            f"no frame has the source {source!r}",
            file=capture.root,
            field="source",
            remedy=f"there are {', '.join(capture.sources)}",
        )
    return rows
