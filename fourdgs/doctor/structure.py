"""How a capture's table of cameras and times is filled: what tells a change of view from a movement, and who is seen.

Questions about the held-out frames are asked in `heldout`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..thinning import spread
from . import balance, heldout, timing
from .finding import Finding, Remedy
from .multiview import measure_emf
from .silhouettes import outlines, tangencies
from .survey import Survey, remembered
from .viewpoints import CELL, FAR_DEG, NARROW_DEG, some_names, standing, steps_deg, viewpoints

OUTLINE_NOISE_PX = 0.075
"""What true poses leave of disagreement between clean outlines: 0.055 pixels root mean square over 56 sets of stills
and single moments of four avatars at 96 pixels (0.028 to 0.084 each), and a third more for masks less clean."""

_MOST_STILL = 24


# --- views and times ---


@dataclass(frozen=True, eq=False)
class Walk:
    """Timed training frames whose view changes with time.

    Attributes:
        source: theirs; "" where they are of several.
        rows: in the order of time.
        views, times: distinct ones.
        view_known_from_time, time_known_from_view: I / H(view) and I / H(time), where I is the mutual information of
            the camera x time table and H an entropy (Theil's uncertainty coefficient); 1: the one gives the other away.
        step_deg: median angle between the views of consecutive times.
        extent_deg: the largest angle between two views.
        cell_views, cell_angle_deg: medians over the frames of how many views there are of the moments that the motion
            model cannot tell from the frame's (`CELL`), in all training frames, and of the angle that they span.
    """

    source: str
    rows: np.ndarray
    views: int
    times: int
    view_known_from_time: float
    time_known_from_view: float
    step_deg: float
    extent_deg: float
    cell_views: float
    cell_angle_deg: float

    @property
    def where(self) -> str:
        """For sentences."""
        return f"source {self.source!r}" if self.source else "the capture"


def measure_walks(survey: Survey) -> list[Walk]:
    """Groups of timed training frames, by source, in which a view is left again for others.

    A camera that looks on for more than half of its source's time is no part of a walk, so a grid of fixed cameras has
    none. Sources of fewer than three views are taken together.
    """
    points = viewpoints(survey)
    timed = survey.train[points.time[survey.train] >= 0]
    rest, walks = [], []
    sources = survey.frames["source"].to_numpy()
    for source in pd.unique(sources[timed]):
        rows = timed[sources[timed] == source]
        if len(points.views(rows)) < 3:
            rest.append(rows)
            continue
        walks.append(_walk(survey, str(source), rows[~standing(survey, rows)], timed))
    if rest:
        rows = np.concatenate(rest)
        walks.append(_walk(survey, "", rows[~standing(survey, rows)], timed))
    return [walk for walk in walks if walk is not None]


def _walk(survey: Survey, source: str, rows: np.ndarray, timed: np.ndarray) -> Walk | None:
    points = viewpoints(survey)
    times = survey.frames["time"].to_numpy()
    rows = rows[np.lexsort((points.view[rows], times[rows]))]
    view, moment = points.view[rows], points.time[rows]
    if len(np.unique(view)) < 3 or len(np.unique(moment)) < 3:
        return None
    information, of_view, of_time = mutual_information(view, moment)
    first = np.unique(moment, return_index=True)[1]
    counts, spans = [], []
    for row in rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int))]:
        near = timed[np.abs(times[timed] - times[row]) <= CELL / 2]
        counts.append(len(points.views(near)))
        spans.append(points.extent_deg(near))
    return Walk(
        source,
        rows,
        len(np.unique(view)),
        len(first),
        information / max(of_view, 1e-12),
        information / max(of_time, 1e-12),
        float(np.median(steps_deg(points.means[view[first]]))),
        points.extent_deg(rows),
        float(np.median(counts)),
        float(np.median(spans)),
    )


def mutual_information(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Mutual information of two lists of labels, and their entropies, nats (Shannon, 1948; plug-in estimates).

    With few frames the estimate is too high by about (cells - rows - columns + 1) / 2n; a table with one frame in every
    row and column has I = H(first) = H(second) whatever the labels.
    """
    pairs = np.stack([first, second], axis=1)

    def entropy(values: np.ndarray) -> float:
        share = np.unique(values, axis=0, return_counts=True)[1] / len(values)
        return float(-(share * np.log(share)).sum())

    one, two = entropy(pairs[:, :1]), entropy(pairs[:, 1:])
    return max(0.0, one + two - entropy(pairs)), one, two


# --- did anything move? ---


@dataclass(frozen=True)
class Stillness:
    """What the outlines of frames say about movement between them.

    Attributes:
        frames, tangencies: looked at. error_px: root mean square disagreement of the outlines, thumbnail pixels.
        limit_px: as much as a still scene gives in 99 of 100 cases.
        still: True: as a still scene; False: something moved, or the poses are off; None: the pictures do not tell.
    """

    frames: int
    tangencies: int
    error_px: float
    limit_px: float
    still: bool | None


def measure_stillness(survey: Survey, rows: np.ndarray) -> Stillness:
    """Whether frames, each of another view and time, could show one rigid scene that stands still.

    The statistic is the root mean square disagreement of epipolar tangencies over all pairs of at most 24 frames
    (`silhouettes.tangencies`): zero for any still subject under true poses, whatever its shape. Noise of the outlines
    gives each tangency the standard deviation s = `OUTLINE_NOISE_PX`; a frame's outline, which all its pairs share, has
    about two independent errors, so under the null hypothesis (nothing moved) error^2 / s^2 is about chi-squared with
    2 n degrees of freedom over 2 n. Measured on four avatars: 0.028 to 0.084 pixels for still frames; 0.108 to 0.43 for
    4 to 24 views of the talking head at as many times, where the limits are 0.119 to 0.093 (one of 16 was below).

    What it cannot see: movement within the outline (a mouth from the front). What it cannot tell apart: a subject that
    moves as a whole, and a pose that is off. Opaque frames have no outline, and give None.
    """
    points = viewpoints(survey)
    rows = np.asarray(rows)
    rows = rows[np.sort(np.unique(points.view[rows], return_index=True)[1])]
    rows = rows[spread(len(rows), _MOST_STILL)]
    shapes = outlines([survey.alpha[row] for row in rows], survey.cameras[rows])
    usable = np.flatnonzero(shapes.usable)
    pairs = np.array([(i, j) for i in usable for j in usable if i < j], dtype=np.int64).reshape(-1, 2)
    error = tangencies(shapes, pairs).error_px
    count = len(usable)
    if count < 3 or len(error) < 2 * count:
        return Stillness(count, len(error), math.nan, math.nan, None)
    from scipy.stats import chi2  # slow to import, for one number

    limit = OUTLINE_NOISE_PX * math.sqrt(chi2.ppf(0.99, 2 * count) / (2 * count))
    size = float(np.sqrt(np.mean(error**2)))
    return Stillness(count, len(error), size, limit, size <= limit)


def known_walks(survey: Survey) -> list[tuple[Walk, Stillness]]:
    """`measure_walks`, each with its `measure_stillness`; worked out once, and kept while the survey lives."""

    def measure() -> list[tuple[Walk, Stillness]]:
        return [(walk, measure_stillness(survey, walk.rows)) for walk in measure_walks(survey)]

    return remembered(survey, "walks", measure)


# --- checks ---


def is_confounded(walk: Walk, stillness: Stillness) -> bool:
    """Whether nothing tells the change of view from a movement.

    Not where three views and a wide angle meet in what is one moment to the motion model (two triangulate, the third
    contradicts). Else: where the subject stands still, so that all change is that of the view and a motion model may
    explain it away; or where consecutive views are too far apart to be matched with each other (`FAR_DEG`).
    """
    together = walk.cell_views >= 3 and walk.cell_angle_deg >= FAR_DEG
    alone = walk.view_known_from_time > 0.9
    return alone and not together and (bool(stillness.still) or walk.step_deg > FAR_DEG)


def check_camera_and_time(survey: Survey) -> list[Finding]:
    """camera_time_confounded, still_frames_timed, one_view_per_time."""
    found = []
    for walk, stillness in known_walks(survey):
        evidence = _walk_evidence(walk, stillness)
        names = some_names(survey, walk.rows)
        if is_confounded(walk, stillness):
            found.append(_confounded(survey, walk, stillness, evidence, names))
        elif walk.view_known_from_time > 0.9 and walk.extent_deg >= NARROW_DEG and not stillness.still:
            found.append(_one_view(survey, walk, evidence, names))
        if stillness.still:
            found.append(_still(survey, walk, stillness, evidence, names))
    return found


def _confounded(survey, walk: Walk, stillness: Stillness, evidence, names) -> Finding:
    message = (
        f"In {walk.where} each of {walk.views} views is seen at a time of its own ({walk.times} times, consecutive "
        f"ones {walk.step_deg:.0f} degrees apart), so nothing tells a change of view from a movement, and a moving "
        "model may learn a picture for each time in place of one shape."
    )
    if stillness.still:
        remedy = _drop_times(survey, walk)
    else:
        remedy = Remedy(
            "Show each moment from several views (at least 3), or, if the subject held still for these frames, take "
            "their times off: a still frame has none."
        )
    return Finding("camera_time_confounded", "error", message, evidence, "coverage", remedy, names)


def _still(survey, walk: Walk, stillness: Stillness, evidence, names) -> Finding:
    message = (
        f"The {len(walk.rows)} frames of {walk.where} carry {walk.times} different times, but their outlines fit one "
        f"still scene to {stillness.error_px:.2f} pixels of {survey.size} (a scene that stands still gives up to "
        f"{stillness.limit_px:.2f}): nothing moved between them."
    )
    return Finding(
        "still_frames_timed", "warning", message, evidence, "coverage", _drop_times(survey, walk), names
    )  # fmt: skip


def _drop_times(survey: Survey, walk: Walk) -> Remedy:
    """Of whole sources where the walk is all that they have in training, else of its frames."""
    frames = survey.frames
    sources = frames["source"].iloc[walk.rows]
    timed = frames[(frames["split"] == "train") & frames["time"].notna() & frames["source"].isin(set(sources))]
    whole = len(timed) == len(walk.rows)
    chosen = {"sources": sorted(set(sources))} if whole else {"frames": list(frames["frame"].iloc[walk.rows])}
    text = "Take the times off these frames: they show the still scene, which has no time."
    return Remedy(text, "drop_times", chosen)


def _one_view(survey: Survey, walk: Walk, evidence: pd.DataFrame, names: tuple[str, ...]) -> Finding:
    emf = measure_emf(survey, walk.rows)
    message = (
        f"In {walk.where} every moment is seen by one camera only: {walk.times} times, {walk.views} views along a path "
        f"that turns {emf.path_deg:.0f} degrees about the scene ({walk.step_deg:.1f} from one time to the next)"
    )
    jumps = walk.cell_angle_deg >= FAR_DEG
    if jumps:
        message += ", which jumps so fast that neighbouring times stand in for other views of one moment."
    else:
        message += ", so the shape of what moves is a guess"
        asked = viewpoints(survey).nearest_deg(survey.train, survey.test)
        beside = len(asked) > 0 and np.median(asked) < NARROW_DEG
        message += ", and held-out frames beside the path cannot show how good a one." if beside else "."
    remedy = Remedy(
        "Film with several cameras at once, or move the camera fast about a slow subject; hold out a second camera."
    )
    evidence = evidence.assign(**{"angular EMF (degrees per clip)": emf.omega_deg_per_clip})
    return Finding("one_view_per_time", "info" if jumps else "warning", message, evidence, "coverage", remedy, names)


def _walk_evidence(walk: Walk, stillness: Stillness) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "source": walk.source or "several",
                "frames": len(walk.rows),
                "views": walk.views,
                "times": walk.times,
                "view known from time": walk.view_known_from_time,
                "time known from view": walk.time_known_from_view,
                "step (degrees)": walk.step_deg,
                "views per model moment": walk.cell_views,
                "angle per model moment (degrees)": walk.cell_angle_deg,
                "outlines disagree (pixels)": stillness.error_px,
                "still scenes at most (pixels)": stillness.limit_px,
            }
        ]
    )


CHECKS = (check_camera_and_time, *balance.CHECKS, *timing.CHECKS, *heldout.CHECKS)
