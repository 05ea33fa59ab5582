"""The subject's colours in one source against another: brightness, white balance, gamma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from ..data.colors import fit_colors
from ..thinning import spread
from .finding import Finding, Remedy
from .hull import body_cells, inside_masks, project
from .masks import known_masks, severity_of
from .shapes import train_sources
from .survey import Survey, remembered
from .viewpoints import angles_deg, draws, viewpoints

NEAR_DEG = 30.0
"""Views this close still show half of the same surface: on a ball, what lies within 90 - 30 / 2 degrees of both."""

_LEVELS = np.linspace(0.1, 0.9, 9)
"""Quantiles that stand for a view's colours; the tails are highlights and outlines."""

_FRAMES = 9
"""Frames, spread over time, that stand for a view: a median of nine is within a third of a level of that of all."""


@dataclass(frozen=True)
class ColorGap:
    """How the subject's colours in one source differ from those in another.

    Attributes:
        source, reference: names. how: "shared views", "near views" or "" where nothing can be said.
        color_mse: mean squared difference of the subject's colours that a change of colours explains.
        noise: what the same measure gives for sources that agree: one standard deviation.
        gains: [3] mean of the reference over mean of the source, red, green, blue. gamma: exponent that takes the
            source to the reference, mean over channels; 1 where it cannot be told.
        pixels: how many colours, or pairs of views, it rests on.
    """

    source: str
    reference: str
    how: str = ""
    color_mse: float = np.nan
    noise: float = np.nan
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    pixels: int = 0

    @property
    def known(self) -> bool:
        """Whether anything can be said."""
        return bool(self.how)

    @property
    def clear(self) -> bool:
        """Whether there is a difference beyond twice the noise."""
        return self.known and self.color_mse > 2 * self.noise


def color_gap(survey: Survey, rows: np.ndarray, others: np.ndarray) -> ColorGap:
    """How the subject's colours in some rows differ from those in others.

    At views that both share, medians over time are compared pixel by pixel where both show the subject; a colour map
    (`fit_colors`) sorts out what moved. Otherwise each view is compared with the nearest of the other side (up to
    `NEAR_DEG` away) by the quantiles of its subject's colours, and the same done between views of one side says how
    much of that is the change of view.
    """
    names = str(survey.frames["source"].iloc[rows[0]]), str(survey.frames["source"].iloc[others[0]])
    view = viewpoints(survey).view
    common = np.intersect1d(view[rows], view[others])
    before, after = [], []
    for number in common[spread(len(common), 12)]:
        one, two = (median_picture(survey, side[view[side] == number]) for side in (rows, others))
        if one[0].shape != two[0].shape:
            continue
        inside = ndimage.binary_erosion(one[1] & two[1], iterations=2, border_value=1)
        inside &= (np.minimum(one[0], two[0]) > 0.01).all(-1) & (np.maximum(one[0], two[0]) < 0.99).all(-1)
        before.append(one[0][inside])
        after.append(two[0][inside])
    if sum(map(len, before)) >= 40:  # as `color_match` asks for
        return _paired_gap(names, np.concatenate(before), np.concatenate(after))
    return _near_gap(survey, names, rows, others)


def _paired_gap(names: tuple[str, str], before: np.ndarray, after: np.ndarray) -> ColorGap:
    pick = spread(len(before), 4000)
    before, after = before[pick].astype(np.float64), after[pick].astype(np.float64)
    match = fit_colors(before, after)
    left = np.sqrt(((match.apply(before) - after) ** 2).mean(1))
    still = left <= 3 * max(1.4826 * float(np.median(left)), 1 / 255)  # what moved is no colour difference
    gap = float(((before - after)[still] ** 2).mean())
    rest = float((left[still] ** 2).mean())
    gains = after[still].mean(0) / np.maximum(before[still].mean(0), 1e-3)
    # What the map leaves is motion and rounding, and part of the gap too.
    gap = max(0.0, gap - rest)
    gamma = float(np.mean(match.exponents))
    return ColorGap(*names, "shared views", gap, rest, tuple(gains.tolist()), gamma, len(before))


def _near_gap(survey: Survey, names: tuple[str, str], rows: np.ndarray, others: np.ndarray) -> ColorGap:
    """From the quantiles of the subject's colours in near views; see `color_gap`."""
    mine, theirs = _view_colors(survey, rows), _view_colors(survey, others)
    if not mine or not theirs:
        return ColorGap(*names)
    directions = viewpoints(survey).means
    between, apart = _nearest_differences(mine, theirs, directions)
    if not len(between):
        return ColorGap(*names)
    spreads = [_nearest_differences(side, side, directions)[0] for side in (theirs, mine)]
    spreads = [values for values in spreads if len(values) >= 3]
    shift = between.mean(0)  # [levels, 3]
    if spreads:
        noise = float((np.concatenate(spreads) ** 2).mean()) / max(1, min(len(between), len(mine), len(theirs)))
    elif len(between) >= 3:
        noise = float(between.var(0, ddof=1).mean()) / len(between)
    else:
        return ColorGap(*names)  # one view against one: nothing says what the change of view does
    means = [np.mean([side[v].mean(0) for v in side], axis=0) for side in (theirs, mine)]
    pairs = means[0] / np.maximum(means[0] - shift.mean(0), 1e-3)
    gap = max(0.0, float((shift**2).mean()) - noise)
    return ColorGap(*names, "near views", gap, noise, tuple(np.asarray(pairs).tolist()), 1.0, len(between))


def _nearest_differences(one: dict, two: dict, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each view of ``one``: the nearest other of ``two`` minus it [m, levels, 3], and how far it is [m] degrees."""
    keys, others = np.array(list(one)), np.array(list(two))
    angle = angles_deg(directions[keys], directions[others])
    if one is two:
        angle = np.where(keys[:, None] == others[None], np.inf, angle)
    nearest, least = angle.argmin(1), angle.min(1)
    kept = np.flatnonzero(least <= NEAR_DEG)
    return np.array([two[others[nearest[k]]] - one[keys[k]] for k in kept]), least[kept]


def _view_colors(survey: Survey, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Quantiles [levels, 3] of the subject's colours, by view."""
    view, found = viewpoints(survey).view, {}
    for number in np.unique(view[rows]):
        some = rows[view[rows] == number]
        colors = [survey.rgb[row][subject(survey, row)] for row in some[spread(len(some), 3)]]
        colors = np.concatenate(colors)
        if len(colors) >= 40:
            found[int(number)] = np.quantile(colors / 255, _LEVELS, axis=0)
    return found


def subject(survey: Survey, row: int) -> np.ndarray:
    """Where a frame shows the subject for sure, [h, w] bool.

    From its own mask; without one, from the silhouettes that other frames of its view have; else from the visual hull
    of all masks. Everywhere, where no frame has a mask.
    """
    masks, view = known_masks(survey), viewpoints(survey).view
    if masks.loc[row, "state"] == "mask":
        return ndimage.binary_erosion(survey.alpha[row] > 250, iterations=2, border_value=1)
    masked = (masks["state"] == "mask").to_numpy()
    shape = survey.rgb[row].shape[:2]
    if not masked.any():
        return np.ones(shape, bool)
    if masks.loc[row, "state"] != "none":
        return np.zeros(shape, bool)
    same = np.flatnonzero(masked & (view == view[row]))
    if len(same):
        alphas = [survey.alpha[k] for k in same[spread(len(same), 24)]]
        alphas = [alpha for alpha in alphas if alpha.shape == alphas[0].shape]
        return ndimage.binary_erosion(fitted(np.min(alphas, axis=0) > 250, shape), iterations=3, border_value=1)
    return ndimage.binary_erosion(_shadow(survey, row), iterations=3)


def _shadow(survey: Survey, row: int) -> np.ndarray:
    """The visual hull of all masked views, seen by a frame's camera, [h, w] bool."""
    hull = remembered(survey, "hull", lambda: _hull(survey))
    shape = survey.rgb[row].shape[:2]
    seen = np.zeros(shape, bool)
    if len(hull):
        x, y, fits = project(survey.cameras, row, hull)
        seen[y[fits].astype(int), x[fits].astype(int)] = True
    return ndimage.binary_closing(seen, iterations=2)


def _hull(survey: Survey) -> np.ndarray:
    """[cells, 3] the visual hull of the masked views, at most 24 of them; empty for fewer than three."""
    masks, view = known_masks(survey), viewpoints(survey).view
    rows = np.flatnonzero((masks["state"] == "mask").to_numpy())
    rows = rows[np.unique(view[rows], return_index=True)[1]]
    rows = rows[spread(len(rows), 24)]
    if len(rows) < 3:
        return np.zeros((0, 3))
    cameras, solid = survey.cameras[rows], [survey.alpha[row] > 127 for row in rows]
    cells = body_cells(cameras, solid)
    if not len(cells):
        return cells
    inside, seen = inside_masks(cameras, solid, cells)
    # A tenth of the views may be wrong, or at another moment.
    return cells[(seen & ~inside).sum(0) <= 0.1 * seen.sum(0)]


def median_picture(survey: Survey, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median over time, float [h, w, 3], and where all show the subject, [h, w] bool."""
    rows = rows[spread(len(rows), _FRAMES)]
    shape = survey.rgb[rows[0]].shape
    rows = [row for row in rows if survey.rgb[row].shape == shape]
    middle = np.median(np.stack([survey.rgb[row] for row in rows]), axis=0) / 255
    return middle, np.logical_and.reduce([subject(survey, row) for row in rows])


def known_colors(survey: Survey) -> pd.DataFrame:
    """`measure_colors`, worked out once, and kept while the survey lives."""
    return remembered(survey, "colors", lambda: measure_colors(survey))


def measure_colors(survey: Survey) -> pd.DataFrame:
    """How the subject's colours of each training source differ from the look that counts.

    That look is the held-out frames'; sources that agree with them speak for them where they share a view with
    another, because pixels say more than statistics. Without held-out frames it is that of the source with most views.

    Returns:
        one row a training source: source, share (of the training steps), reference (source, or "" where nothing can be
        said), how, color_mse, noise, red, green, blue (the gains that take it to the reference), gamma, area (share of
        the picture that is subject), picture_mse (color_mse times area: of the whole picture).
    """
    view = viewpoints(survey).view
    train = train_sources(survey)
    views = {name: len(np.unique(view[rows])) for name, rows in train.items()}
    gaps = _color_gaps(survey, train, views)
    masks, share = known_masks(survey), draws(survey)
    masked = masks["state"] == "mask"
    area = float(masks.loc[masked, "area"].median()) if masked.any() else 1.0
    table = []
    for name, rows in train.items():
        gap = gaps[name]
        row = {"source": name, "share": float(share[rows].sum()), "reference": gap.reference if gap.known else ""}
        row |= {"how": gap.how, "color_mse": gap.color_mse, "noise": gap.noise}
        row |= dict(zip(("red", "green", "blue"), gap.gains, strict=True)) | {"gamma": gap.gamma}
        table.append(row | {"area": area, "picture_mse": gap.color_mse * area})
    return pd.DataFrame(table)


def _color_gaps(survey: Survey, train: dict[str, np.ndarray], views: dict[str, int]) -> dict[str, ColorGap]:
    """The gap of each training source to the look that counts; see `measure_colors`."""
    order = sorted(train, key=lambda name: -views[name])
    if len(survey.test):
        gaps = {name: color_gap(survey, train[name], survey.test) for name in train}
        trusted = [name for name in order if gaps[name].known and not gaps[name].clear]
    else:
        gaps = {name: ColorGap(name, "") for name in train}
        trusted = order[:1]
    agreed: list[str] = []
    for name in order:
        pairs = [color_gap(survey, train[name], train[other]) for other in agreed]
        pairs = [gap for gap in pairs if gap.how == "shared views" or (gap.known and not gaps[name].known)]
        if pairs:
            gaps[name] = min(pairs, key=lambda gap: (gap.how != "shared views", gap.noise))
        if name in trusted and not gaps[name].clear:
            agreed.append(name)
    return gaps


def check_colors(survey: Survey) -> list[Finding]:
    """sources_differ_color: the subject is brighter, darker or of another tint in one source."""
    table, found = known_colors(survey).copy(), []  # a finding hands it out
    train = set(survey.frames["source"].iloc[survey.train])
    clear = (table["reference"] != "") & (table["color_mse"] > 2 * table["noise"])
    for row in table[clear].itertuples():
        severity = severity_of(row.picture_mse * row.share)
        if severity in ("", "info"):
            continue
        gains = np.array([row.red, row.green, row.blue])
        light = 100 * (1 / gains.mean() - 1)
        tint = (1 / gains) / np.mean(1 / gains)
        strongest = int(np.argmax(np.abs(tint - 1)))
        color = ("red", "green", "blue")[strongest]
        words = [f"{abs(light):.0f} % {'brighter' if light > 0 else 'darker'}"] if abs(light) >= 1 else []
        if abs(tint[strongest] - 1) >= 0.01:
            words.append(f"{100 * abs(tint[strongest] - 1):.0f} % {'more' if tint[strongest] > 1 else 'less'} {color}")
        if abs(row.gamma - 1) >= 0.03:
            words.append(f"of gamma {1 / row.gamma:.2f}")
        message = (
            f"The subject in {row.source!r} ({100 * row.share:.0f} % of the training samples) is "
            f"{', '.join(words) or 'of other colours'} against {row.reference!r}: off by {np.sqrt(row.color_mse):.3f} "
            f"of 1 (root mean square, from {row.how}), which holds the foreground's PSNR to "
            f"{-10 * np.log10(row.color_mse):.0f} dB."
        )
        if row.reference in train:
            text = f"Match the colours of {row.source!r} to those of {row.reference!r}."
            remedy = Remedy(text, "match_colors", {"source": row.source, "reference": row.reference})
        else:  # training pictures are never fitted to the frames that they will be judged by
            remedy = Remedy(f"Add training frames that look like {row.reference!r}, or grade {row.source!r} by hand.")
        rows = np.flatnonzero((survey.frames["source"] == row.source) & (survey.frames["split"] == "train"))
        frames = tuple(survey.frames["frame"].iloc[rows[spread(len(rows), 6)]])
        found.append(Finding("sources_differ_color", severity, message, table, "sources", remedy, frames))
    return found


def fitted(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at another size, nearest pixels."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]
