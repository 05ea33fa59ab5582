"""How much of what moves is seen from several sides before it has moved: angular EMF, and views per moment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .finding import Finding, Remedy
from .survey import Survey
from .viewpoints import CELL, NARROW_DEG, Viewpoints, some_names, standing, steps_deg, viewpoints


@dataclass(frozen=True)
class Emf:
    """Angular effective multi-view factor of a sequence of cameras, one a time; see `angular_emf`.

    Attributes:
        omega_deg_per_clip: degrees per unit of normalised time, the whole clip being 1.
        omega_deg_per_s: degrees per second; NaN where no duration is known.
        path_deg: the sum of the angles. step_deg: their mean, degrees per frame.
    """

    omega_deg_per_clip: float
    omega_deg_per_s: float
    path_deg: float
    step_deg: float


def angular_emf(
    positions: np.ndarray,
    times: np.ndarray,
    focus: np.ndarray,
    *,
    fps: float | None = None,
    duration_s: float | None = None,
) -> Emf:
    """How fast the camera goes about the scene (Gao et al., "Monocular Dynamic View Synthesis: A Reality Check",
    NeurIPS 2022, section 3, and its code DyCheck):

        omega = fps * mean_t arccos(<a - o_t, a - o_(t+1)> / (|a - o_t| |a - o_(t+1)|)), in degrees per second,

    with the cameras o_t in the order of time and the scene's look-at point a, triangulated from the optical axes by
    least squares. A small omega is a monocular capture; a large one shows the scene from all sides before it moves,
    which is as good as several cameras (DyCheck's documentation gives 212 for a sequence that alternates between two).

    Normalised times have no seconds. So the factor is given per clip: the sum of the angles over the span of times,
    which for evenly spaced frames is the mean angle times frames per clip. With ``duration_s`` (of the normalised
    [0, 1]) it is divided by that; with ``fps`` it is the formula above, and times only order the frames.

    Args:
        positions: [T, 3] camera centres. times: [T]; frames of one time must not be in it twice.
        focus: [3] the point a.
    """
    order = np.argsort(times, kind="stable")
    offsets = np.asarray(positions, np.float64)[order] - focus
    directions = offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-12)
    steps = steps_deg(directions)
    if not len(steps):
        return Emf(0.0, math.nan, 0.0, 0.0)
    path, step = float(steps.sum()), float(steps.mean())
    per_clip = path / max(float(np.ptp(times)), 1e-9)
    per_second = math.nan
    if fps is not None:
        per_second = step * fps
    elif duration_s is not None:
        per_second = per_clip / duration_s
    return Emf(per_clip, per_second, path, step)


def measure_emf(
    survey: Survey, rows: np.ndarray | None = None, *, fps: float | None = None, duration_s: float | None = None
) -> Emf:
    """`angular_emf` of some rows (all timed training frames where None); of each moment, the first frame counts."""
    points = viewpoints(survey)
    rows = survey.train if rows is None else np.asarray(rows)
    rows = rows[points.time[rows] >= 0]
    rows = rows[np.unique(points.time[rows], return_index=True)[1]]
    times = survey.frames["time"].to_numpy()[rows]
    positions = survey.cameras.positions.double().cpu().numpy()[rows]
    return angular_emf(positions, times, points.focus, fps=fps, duration_s=duration_s)


def measure_multiview(survey: Survey) -> pd.DataFrame:
    """Whether moments are seen from several sides: one row a source with timed training frames.

    A source's frames here are those of cameras that look on for more than half of its time, where there are such: a
    clip stays a clip when stills with made-up times are mixed in.

    Returns:
        source, frames, times, views, views_per_time (median over its times of the views in all training frames),
        alone (share of its frames with no view more than `NARROW_DEG` off at what is one moment to the motion model,
        `CELL`), extent_deg (of its own views), omega_deg_per_clip and path_deg (angular EMF;
        NaN where it has several views at a time).
    """
    points = viewpoints(survey)
    times = survey.frames["time"].to_numpy()
    timed = survey.train[points.time[survey.train] >= 0]
    result = []
    per_time = _views_per_time(points, timed)
    for source, rows in _standing_by_source(survey).items():
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int))]
        near = [timed[np.abs(times[timed] - times[row]) <= CELL / 2] for row in some]
        moments = np.unique(points.time[rows])
        own = _views_per_time(points, rows)
        # The factor is that of one camera; where several look on at once there is nothing that it would measure.
        single = max(own.values()) == 1
        emf = measure_emf(survey, rows) if single else Emf(math.nan, math.nan, math.nan, math.nan)
        result.append(
            {
                "source": source,
                "frames": len(rows),
                "times": len(moments),
                "views": len(points.views(rows)),
                "views_per_time": float(np.median([per_time[moment] for moment in moments])),
                "alone": float(np.mean([points.extent_deg(group) < NARROW_DEG for group in near])),
                "extent_deg": points.extent_deg(rows),
                "omega_deg_per_clip": emf.omega_deg_per_clip,
                "path_deg": emf.path_deg,
            }
        )
    columns = ["source", "frames", "times", "views", "views_per_time", "alone"]
    return pd.DataFrame(result, columns=[*columns, "extent_deg", "omega_deg_per_clip", "path_deg"])


def _standing_by_source(survey: Survey) -> dict[str, np.ndarray]:
    """See `measure_multiview`."""
    points = viewpoints(survey)
    timed = survey.train[points.time[survey.train] >= 0]
    sources = survey.frames["source"].to_numpy()
    groups = {}
    for source in pd.unique(sources[timed]):
        rows = timed[sources[timed] == source]
        stands = standing(survey, rows)
        groups[str(source)] = rows[stands] if stands.any() else rows
    return groups


def _views_per_time(points: Viewpoints, rows: np.ndarray) -> dict[int, int]:
    pairs = np.unique(np.stack([points.time[rows], points.view[rows]], axis=1), axis=0)
    moments, counts = np.unique(pairs[:, 0], return_counts=True)
    return dict(zip(moments.tolist(), counts.tolist(), strict=True))


def check_multiview(survey: Survey) -> list[Finding]:
    """no_multiview_signal: the views of a source's moments span less than `NARROW_DEG`, for most of its frames.

    An error where no training frame shows the scene from elsewhere either, and held-out frames ask for that.
    """
    points = viewpoints(survey)
    table = measure_multiview(survey)
    found = []
    for row in table[(table["alone"] > 0.5) & (table["extent_deg"] < NARROW_DEG)].itertuples():
        if row.times < 2:
            continue
        asked = points.nearest_deg(survey.train, survey.test)
        hopeless = points.extent_deg(survey.train) < NARROW_DEG and asked.max(initial=0.0) > NARROW_DEG
        moves = "stands still (angular EMF 0)"
        if row.extent_deg > 0:
            moves = f"turns by {row.extent_deg:.1f} degrees (angular EMF {row.omega_deg_per_clip:.0f} degrees per clip)"
        message = (
            f"The {row.frames} frames of source {row.source!r} at {row.times} times come from one camera that {moves}, "
            f"and for {100 * row.alone:.0f} % of them no other camera looks on: what moves is seen from one side only."
        )
        remedy = Remedy(
            "Add cameras at the same times, bind the Gaussians to a rig that knows how the subject moves, or promise "
            "no other views of it than this camera's."
        )
        severity = "error" if hopeless else "warning"
        names = some_names(survey, _standing_by_source(survey)[row.source])
        found.append(Finding("no_multiview_signal", severity, message, table, "coverage", remedy, names))
    return found


CHECKS = (check_multiview,)
