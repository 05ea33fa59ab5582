"""The few numbers about a capture that held-out PSNR can be foretold from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..thinning import spread
from .appearance import known_backgrounds, source_backgrounds
from .masks import known_masks
from .pose_error import pose_error
from .structure import is_confounded, known_walks
from .survey import Survey
from .tints import known_colors
from .viewpoints import angles_deg, viewpoints

_WRONG_MASK = 0.1
"""Share of a silhouette in dispute above which its mask is wrong; poses a degree off leave a few hundredths."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Held-out frames of one kind: still (without a time) or timed.

    Attributes:
        frames: how many. angle_deg: mean angle to the two nearest training views, degrees.
        motion_mse: mean squared change of a fixed camera's pictures over time, over white; 0 for still ones.
        gap: mean distance in time to the nearest training moment. views: mean number of views at that moment.
    """

    frames: int
    angle_deg: float
    motion_mse: float = 0.0
    gap: float = 0.0
    views: float = 0.0


@dataclass(frozen=True, eq=False)
class Facts:
    """What `predict` works on. Arrays have one entry for each of the m training frames.

    Attributes:
        weight: how often it is drawn. timed: whether it has a time. view, source: numbers.
        background, color: mean squared error that its surroundings and its subject's colours bring in, against the
            held-out frames' look, over the whole picture. mask: how wrong its mask is, in [0, 1], times the the
            silhouette's share of the picture.
        cutouts: whether any frame, held-out ones too, shows nothing but the subject.
        pose_px: of the thumbnails; see `pose_error`. confounded: share of the draws that each show a view of their own
            at a time of their own.
        still, moving: the held-out frames without and with a time.
    """

    weight: np.ndarray
    timed: np.ndarray
    view: np.ndarray
    source: np.ndarray
    background: np.ndarray
    color: np.ndarray
    mask: np.ndarray
    cutouts: bool
    pose_px: float
    confounded: float
    still: Asked
    moving: Asked

    @property
    def dominance(self) -> float:
        """0 where all views are drawn as often, near 1 where one takes it all: 1 - effective number / number."""
        share = np.bincount(self.view, self.weight)
        share = share[share > 0] / self.weight.sum()
        return float(1 - np.exp(-(share * np.log(share)).sum()) / len(share))

    def reach(self) -> dict[str, float]:
        """The figures that a prediction should not go beyond."""
        angles = [asked.angle_deg for asked in (self.still, self.moving) if asked.frames]
        return {
            "angle to the nearest views, degrees": max(angles, default=0.0),
            "pose error, pixels": self.pose_px,
        }

    def balanced(self) -> Facts:
        """With weights as `remedies.balance` gives them."""
        groups = self.source if len(np.unique(self.source)) > 1 else self.view
        return replace(self, weight=1 / np.bincount(groups)[groups])

    def without(self, name: str) -> Facts:
        """With one of the arrays background, color, mask at 0."""
        return replace(self, **{name: np.zeros_like(self.weight)})


def measure_facts(survey: Survey) -> Facts:
    """Measure them. Where nothing is held out, frames in the middle between neighbouring training views are asked."""
    train, points = survey.train, viewpoints(survey)
    frames = survey.frames.iloc[train]
    weight = frames["weight"].to_numpy(np.float64) if "weight" in frames else np.ones(len(train))
    masks = known_masks(survey).iloc[train]
    area = np.where(masks["state"] == "inverted", 1.0, masks["area"])
    error = _pose_px(survey)
    confounded = [walk.rows for walk, stillness in known_walks(survey) if is_confounded(walk, stillness)]
    alone = np.isin(train, np.concatenate(confounded)) if confounded else np.zeros(len(train), bool)
    still, moving = _asked(survey)
    return Facts(
        weight=weight,
        timed=frames["time"].notna().to_numpy(),
        view=np.unique(points.view[train], return_inverse=True)[1],
        source=np.unique(frames["source"].to_numpy(str), return_inverse=True)[1],
        background=_backgrounds(survey)[train],
        color=_colors(survey)[train],
        mask=masks["mask_fault"].to_numpy(np.float64) * area.astype(np.float64),
        cutouts=bool((known_masks(survey)["state"] != "none").any()),
        pose_px=error,
        confounded=float(weight[alone].sum() / weight.sum()),
        still=still,
        moving=moving,
    )


def _pose_px(survey: Survey) -> float:
    """Pose error in thumbnail pixels; 0 where it cannot be measured. A wrong mask must not count as a wrong pose."""
    fault = known_masks(survey)["mask_fault"].to_numpy(np.float64)
    # Poses that are off put masks in dispute a little, and all of them; single masks stand far out from that.
    sound = fault <= max(_WRONG_MASK, 2 * float(np.median(fault[survey.train])))
    seen = survey if sound.all() or sound[survey.train].mean() < 0.5 else survey.subset(np.flatnonzero(sound))
    error = pose_error(seen).thumbnail_px
    return 0.0 if np.isnan(error) else float(error)


def _backgrounds(survey: Survey) -> np.ndarray:
    """[n] mean squared error over the whole picture that each frame's surroundings are, against the rule."""
    table = known_backgrounds(survey)
    if (table["kind"] == "cutout").any():
        return (table["background_mse"] * table["outside"]).to_numpy(np.float64)
    by_source = source_backgrounds(survey).set_index(["split", "source"])["picture_mse"].fillna(0.0)
    return by_source.reindex(list(zip(table["split"], table["source"], strict=True))).to_numpy(np.float64)


def _colors(survey: Survey) -> np.ndarray:
    """[n] likewise of the subject's colours in a training frame's source."""
    table = known_colors(survey)
    clear = (table["reference"] != "") & (table["color_mse"] > 2 * table["noise"])
    by_source = table["picture_mse"].where(clear, 0.0).set_axis(table["source"])
    return by_source.reindex(survey.frames["source"]).fillna(0.0).to_numpy(np.float64)


def _asked(survey: Survey) -> tuple[Asked, Asked]:
    points, train, test = viewpoints(survey), survey.train, survey.test
    times = survey.frames["time"].to_numpy(np.float64)
    if not len(test):
        angle = _own_angle(survey)
        timed = train[~np.isnan(times[train])]
        moving = Asked(len(timed), angle, motion_mse(survey, timed), 0.0, 1.0) if len(timed) else Asked(0, angle)
        return Asked(len(train) - len(timed), angle), moving
    means = points.means[points.views(train)]
    angles = np.sort(angles_deg(points.directions[test], means), axis=1)[:, :2].mean(axis=1)
    late = ~np.isnan(times[test])
    still = Asked(int((~late).sum()), float(angles[~late].mean()) if (~late).any() else 0.0)
    if not late.any():
        return still, Asked(0, 0.0)
    gap, views = _support(survey, times[test[late]])
    rows = np.flatnonzero(~np.isnan(times))
    return still, Asked(int(late.sum()), float(angles[late].mean()), motion_mse(survey, rows), gap, views)


def _own_angle(survey: Survey) -> float:
    """Half the mean angle between a training view and its two nearest, degrees."""
    points = viewpoints(survey)
    means = points.means[points.views(survey.train)]
    if len(means) < 3:
        return 90.0
    return float(np.sort(angles_deg(means, means), axis=1)[:, 1:3].mean()) / 2


def _support(survey: Survey, asked: np.ndarray) -> tuple[float, float]:
    """See `Asked.gap` and `Asked.views`."""
    points, train = viewpoints(survey), survey.train
    train = train[points.time[train] >= 0]
    if not len(train):
        return 1.0, 0.0
    times = survey.frames["time"].to_numpy(np.float64)[train]
    gaps, views = [], []
    for time in np.unique(asked):
        nearest = train[np.abs(times - time).argmin()]
        gaps.append(np.abs(times - time).min())
        views.append(len(points.views(train[points.time[train] == points.time[nearest]])))
    counts = np.unique(asked, return_counts=True)[1]
    return float(np.average(gaps, weights=counts)), float(np.average(views, weights=counts))


def motion_mse(survey: Survey, rows: np.ndarray, views: int = 12, moments: int = 12) -> float:
    """Mean squared change over time of what a fixed camera sees, over white; the median over views.

    The mean of the unbiased variance over pixels and channels, of at most so many moments at so many views; held-out
    frames are asked first, since training frames may have faults that change with time. NaN where no view of one
    source has two moments.
    """
    table = survey.frames.iloc[rows][["source", "split"]].assign(view=viewpoints(survey).view[rows], row=rows)
    found: dict[bool, list[float]] = {True: [], False: []}
    for (split, _, _), part in table.groupby(["split", "source", "view"], sort=False):
        held_out, part = split != "train", part["row"].to_numpy()
        if len(part) < 2 or len(found[held_out]) >= views or len({survey.rgb[row].shape for row in part}) > 1:
            continue
        part = part[spread(len(part), moments)]
        stack = np.stack([survey.over(row) for row in part])
        found[held_out].append(float(stack.var(axis=0, ddof=1).mean()))
    chosen = found[True] or found[False]
    return float(np.median(chosen)) if chosen else float("nan")
