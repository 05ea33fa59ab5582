"""Whether the training frames are close enough in time for what moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .finding import Finding, Remedy
from .survey import Survey
from .viewpoints import some_names, viewpoints


@dataclass(frozen=True)
class Gap:
    """The longest stretch of time without a training frame.

    Attributes:
        start, end: normalised times. usual: the median gap between consecutive training times.
        speed_px: how fast what moves does so, thumbnail pixels per unit of normalised time; NaN where unmeasurable.
    """

    start: float
    end: float
    usual: float
    speed_px: float

    @property
    def motion_px(self) -> float:
        """How far things move within the gap, thumbnail pixels."""
        return (self.end - self.start) * self.speed_px


_CHANGE = 4.0
"""Grey levels: below, a change is noise (8-bit rounding, JPEG) and, as a gradient, too flat to show motion."""


def measure_gap(survey: Survey) -> Gap | None:
    """The longest gap between training times, or before the first or after the last where held-out frames lie there.

    None where fewer than three training times are.
    """
    times = survey.frames["time"].to_numpy()
    train = np.unique(times[survey.train][~np.isnan(times[survey.train])])
    if len(train) < 3:
        return None
    test = times[survey.test][~np.isnan(times[survey.test])]
    ends = np.concatenate([train, [min(test.min(), train[0]), max(test.max(), train[-1])] if len(test) else []])
    ends = np.unique(ends)
    gaps = np.diff(ends)
    longest = int(np.argmax(gaps))
    usual = float(np.median(np.diff(train)))
    return Gap(float(ends[longest]), float(ends[longest + 1]), usual, measure_speed(survey))


def measure_speed(survey: Survey, cameras: int = 4, moments: int = 12) -> float:
    """How fast what moves does so, thumbnail pixels per unit of normalised time; NaN where it cannot be told.

    From fixed cameras: the sum of the changes |I(t + d) - I(t)| over that of the gradients |grad I|, on changed pixels
    of the grey picture (normal flow; Horn and Schunck, 1981: I_t = -grad I . v). True for steps of a pixel or two, and
    too low beyond, so it takes consecutive frames. Where changes over two steps are less than sqrt(2) times those over
    one, as for independent pictures, motion does not last from frame to frame, and no speed can be told.

    Args:
        cameras, moments: at most so many are looked at, spread.
    """
    points, times = viewpoints(survey), survey.frames["time"].to_numpy()
    train = survey.train[points.time[survey.train] >= 0]
    change, gradient, twice, span = 0.0, 0.0, 0.0, 0.0
    views, counts = np.unique(points.view[train], return_counts=True)
    views = views[np.argsort(-counts, kind="stable")][:cameras]
    for view in views:
        for source in pd.unique(survey.frames["source"].iloc[train[points.view[train] == view]]):
            rows = train[(points.view[train] == view) & (survey.frames["source"].to_numpy()[train] == source)]
            rows = rows[np.argsort(times[rows], kind="stable")]
            if len(rows) < 3 or not _steady(survey, rows):
                continue
            usual = np.median(np.diff(times[rows]))
            starts = np.flatnonzero(np.abs(times[rows][2:] - times[rows][:-2] - 2 * usual) < 0.2 * usual)
            for start in starts[np.unique(np.linspace(0, len(starts) - 1, min(moments, len(starts))).astype(int))]:
                first, second, third = (_grey(survey, row) for row in rows[start : start + 3])
                step = np.abs(second - first)
                slope = np.hypot(*np.gradient((first + second) / 2))
                moved = (step > _CHANGE) & (slope > _CHANGE)
                change, gradient = change + step[moved].sum(), gradient + slope[moved].sum() * usual
                twice, span = twice + np.abs(third - first)[moved].sum(), span + step[moved].sum()
    if gradient <= 0 or twice < math.sqrt(2) * span:
        return math.nan
    return float(change / gradient)


def _steady(survey: Survey, rows: np.ndarray) -> bool:
    """Whether the camera stood still to a tenth of a thumbnail's pixel: its own motion would pass for the subject's."""
    if len({survey.rgb[row].shape for row in rows}) > 1:
        return False
    forwards = survey.cameras.forwards.double().cpu().numpy()[rows]
    directions = viewpoints(survey).directions[rows]
    focal = float(survey.cameras.Ks[int(rows[0]), 0, 0])
    turned = np.linalg.norm(forwards - forwards[:1], axis=1).max() * focal
    shifted = np.linalg.norm(directions - directions[:1], axis=1).max() * survey.size / 2
    return bool(turned + shifted < 0.1)


def _grey(survey: Survey, row: int) -> np.ndarray:
    return 255 * survey.over(row).mean(axis=-1)


def check_time_gap(survey: Survey) -> list[Finding]:
    """time_gap: a hole in time within which things move more than two thumbnail pixels.

    A thing that moves v L pixels in a gap of length L may have gone half of that out and back: interpolation over the
    gap is then off by a pixel. A gap counts as a hole at twice the usual one; that the usual one is long, everywhere,
    shows in `measure_speed` or not at all.
    """
    gap = measure_gap(survey)
    if gap is None or not gap.motion_px > 2 or gap.end - gap.start < 2 * gap.usual:
        return []
    message = (
        f"No training frame shows the time from {gap.start:.3f} to {gap.end:.3f}, "
        f"{(gap.end - gap.start) / gap.usual:.0f} times the usual gap; what moves goes about {gap.motion_px:.0f} "
        f"pixels of {survey.size} in that time."
    )
    times = survey.frames["time"].to_numpy()
    edge = [row for row in survey.train if times[row] in (gap.start, gap.end)]
    evidence = pd.DataFrame(
        [
            {
                "start": gap.start,
                "end": gap.end,
                "usual gap": gap.usual,
                "speed (pixels per clip)": gap.speed_px,
                "motion in the gap (pixels)": gap.motion_px,
            }
        ]
    )
    remedy = Remedy("Add frames from that time, or hold no frames out there and say that the model has not seen it.")
    return [Finding("time_gap", "warning", message, evidence, "timeline", remedy, some_names(survey, np.array(edge)))]


CHECKS = (check_time_gap,)
