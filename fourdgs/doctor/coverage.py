"""What the cameras see of the subject, from where, and at the same time: angles, and a ball in place of the subject.

Before training nobody knows the subject's shape. A ball about the point that the cameras look at, of the radius that
most of them see whole, stands in for it: a surface element is seen by a camera that has it in its picture, at less
than `GRAZING_DEG` from its normal. Occlusion by other things is ignored, so real coverage is lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import multiview
from .finding import Finding, Remedy
from .survey import Survey
from .viewpoints import FAR_DEG, NARROW_DEG, Viewpoints, angles_deg, quoted, viewpoints

GRAZING_DEG = 60.0
"""Here a surface is foreshortened to half: a picture samples it half as densely as from the front."""

VIEWS = 3
"""Cameras that ought to see each surface element: two triangulate it, the third can contradict them."""

_CAP_DEG = 60.0
"""Cameras all within this of their mean direction look from one side; others go around the subject."""


# --- the ball ---


@dataclass(frozen=True)
class Demand:
    """How many cameras it takes to see the subject from where it is looked at; see `measure_cameras`.

    Attributes:
        views: distinct training views. needed: as many would do.
        spacing_deg: between neighbours, so that `VIEWS` see each surface element.
        arc_deg: how far the cameras (training and held-out) go around. around: whether all the way.
        depth: mean number of training views that see a surface element of the part that is looked at.
        unseen, once: shares of that part which none sees, and which only one sees.
    """

    views: int
    needed: int
    spacing_deg: float
    arc_deg: float
    around: bool
    depth: float
    unseen: float
    once: float


def reach_deg(radius: float, distance: float) -> float:
    """How far about a ball a camera sees it at less than `GRAZING_DEG` from the normal, degrees from its direction.

    By the law of sines in the triangle of centre, surface element and camera: asin(r / d sin g) + reach = g.
    """
    grazing = math.radians(GRAZING_DEG)
    return math.degrees(grazing - math.asin(min(1.0, radius / max(distance, 1e-12)) * math.sin(grazing)))


def seen_by(survey: Survey, rows: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Which cameras see which elements of the ball, [rows, P] bool; normals [P, 3] are unit vectors."""
    points = viewpoints(survey)
    cameras = survey.cameras[rows]
    places = points.focus + points.radius * normals
    views = cameras.viewmats.double().cpu().numpy()
    local = np.einsum("cij,pj->cpi", views[:, :3, :3], places) + views[:, None, :3, 3]
    pixels = np.einsum("cij,cpj->cpi", cameras.Ks.double().cpu().numpy(), local)
    depth = np.maximum(local[..., 2], 1e-9)
    pixels = pixels[..., :2] / depth[..., None]
    inside = (
        (local[..., 2] > 0) & (pixels >= 0).all(-1) & (pixels <= cameras.sizes.double().cpu().numpy()[:, None]).all(-1)
    )
    rays = cameras.positions.double().cpu().numpy()[:, None] - places
    cosine = (rays * normals).sum(-1) / np.maximum(np.linalg.norm(rays, axis=-1), 1e-12)
    return inside & (cosine >= math.cos(math.radians(GRAZING_DEG)))


def measure_cameras(survey: Survey) -> Demand | None:
    """How many cameras there are, and how many would do for this radius and field of view.

    A camera at distance d sees a ball of radius r (r / d = sin of half the field of view, where it fills the picture)
    up to `reach_deg` from its own direction, so a ring of cameras shows each element `VIEWS` times where neighbours
    are 2 reach / 3 apart: 31 degrees for a field of view of 30, twelve cameras all around; 22 degrees for 60. Where
    cameras differ in height by more than a spacing, as many rings. The arc is that of all cameras, held-out ones too.

    None where there is no training frame.
    """
    points = viewpoints(survey)
    train = _one_a_view(points, survey.train)
    if not len(train):
        return None
    everyone = points.means[points.views(np.arange(len(survey)))]
    spacing = 2 * reach_deg(points.radius, float(np.median(points.distances[train]))) / VIEWS
    needed, normals, arc, around = _ask(everyone, max(spacing, 1.0))
    times_seen = seen_by(survey, train, normals).sum(axis=0)
    return Demand(
        len(train),
        max(needed, VIEWS),
        spacing,
        arc,
        around,
        float(times_seen.mean()),
        float((times_seen == 0).mean()),
        float((times_seen == 1).mean()),
    )


def _one_a_view(points: Viewpoints, rows: np.ndarray) -> np.ndarray:
    return rows[np.sort(np.unique(points.view[rows], return_index=True)[1])] if len(rows) else rows


def _ask(directions: np.ndarray, spacing: float) -> tuple[int, np.ndarray, float, bool]:
    """Cameras needed, a grid of directions over what they cover, its arc in degrees, and whether it goes around."""
    mean = directions.mean(axis=0)
    mean = mean / max(np.linalg.norm(mean), 1e-12)
    if angles_deg(mean[None], directions).max() <= _CAP_DEG:
        return _ask_patch(directions, mean, spacing)
    # Seen from above: the axis about which the cameras stand, the least of their spread.
    axis = np.linalg.svd(directions - directions.mean(axis=0))[2][-1]
    if len(directions) == 2:
        axis = np.cross(*directions)
        axis = axis / max(np.linalg.norm(axis), 1e-12)
    side = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.9 else [0, 1.0, 0])
    side /= np.linalg.norm(side)
    azimuth = np.sort(np.degrees(np.arctan2(directions @ np.cross(axis, side), directions @ side)) % 360)
    height = np.degrees(np.arcsin(np.clip(directions @ axis, -1, 1)))
    gaps = np.diff(np.append(azimuth, azimuth[0] + 360))
    # With no half of the circle empty the subject is among the cameras, and asked for from all around.
    around = len(azimuth) > 2 and gaps.max() <= 180
    arc = 360.0 if around else 360 - gaps.max()
    start = 0.0 if around else azimuth[(np.argmax(gaps) + 1) % len(azimuth)]
    rings = 1 + int(np.ptp(height) / spacing)
    heights = np.linspace(height.min(), height.max(), rings) if rings > 1 else np.array([height.mean()])
    needed = 0
    for one in heights:
        needed += max(1, math.ceil(arc * math.cos(math.radians(one)) / spacing - 1e-9)) + (not around)
    turn = np.radians(start + np.linspace(0, arc, 120))
    lifted = np.radians(heights)
    level = np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * np.cross(axis, side)
    normals = np.cos(lifted)[:, None, None] * level + np.sin(lifted)[:, None, None] * axis
    return needed, normals.reshape(-1, 3), float(arc), around


def _ask_patch(directions: np.ndarray, mean: np.ndarray, spacing: float) -> tuple[int, np.ndarray, float, bool]:
    """The same for cameras on one side: a rectangle along the two main axes of their spread."""
    flat = directions - (directions @ mean)[:, None] * mean
    main = np.linalg.svd(flat)[2][:2]
    main -= (main @ mean)[:, None] * mean
    main /= np.maximum(np.linalg.norm(main, axis=1, keepdims=True), 1e-12)
    across = np.degrees(np.arcsin(np.clip(flat @ main.T, -1, 1)))  # [n, 2]
    low, high = across.min(axis=0), across.max(axis=0)
    counts = [math.ceil((high[0] - low[0]) / spacing - 1e-9) + 1, int((high[1] - low[1]) / spacing) + 1]
    u, v = np.meshgrid(np.linspace(low[0], high[0], 40), np.linspace(low[1], high[1], 10))
    u, v = np.sin(np.radians(u.ravel())), np.sin(np.radians(v.ravel()))
    normals = u[:, None] * main[0] + v[:, None] * main[1]
    depth = np.sqrt(np.maximum(0.0, 1 - (normals**2).sum(axis=1)))
    return counts[0] * counts[1], normals + depth[:, None] * mean, float(high[0] - low[0]), False


def check_cameras(survey: Survey) -> list[Finding]:
    """too_few_cameras: fewer than `measure_cameras` asks for.

    An error where surface elements are seen less than once on average, a warning below twice (no triangulation), info
    below three times.
    """
    if len(viewpoints(survey).views(survey.train)) < 2:
        return []  # a single camera is no rig that lacks some; `check_multiview` and the held-out angles speak
    demand = measure_cameras(survey)
    if demand is None or demand.views >= demand.needed or demand.depth >= VIEWS:
        return []
    where = "all around" if demand.around else f"over {demand.arc_deg:.0f} degrees"
    message = (
        f"{demand.views} training cameras {where} see each part of the surface {demand.depth:.1f} times on average "
        f"({100 * demand.unseen:.0f} % of it never, {100 * demand.once:.0f} % once); {demand.needed} cameras "
        f"{demand.spacing_deg:.0f} degrees apart would show it {VIEWS} times at this distance and field of view."
    )
    evidence = pd.DataFrame(
        [
            {
                "training cameras": demand.views,
                "would do": demand.needed,
                "spacing (degrees)": demand.spacing_deg,
                "arc (degrees)": demand.arc_deg,
                "times seen": demand.depth,
                "never seen": demand.unseen,
                "seen once": demand.once,
            }
        ]
    )
    severity = "error" if demand.depth < 1 else "warning" if demand.depth < 2 else "info"
    remedy = Remedy(f"Add cameras in the widest gaps, up to {demand.needed} in all.")
    return [Finding("too_few_cameras", severity, message, evidence, "cameras", remedy)]


# --- at the same time ---


def measure_covisibility(survey: Survey) -> pd.DataFrame:
    """One row a training moment: time, views, angle_deg (to the nearest other view, median), covisible.

    ``covisible`` is the share of the ball's surface seen by any of the moment's cameras that two or more see. DyCheck
    asks for a tenth of the training frames, by optical flow; here it is geometry, per moment, since what moves is only
    there then. At most 200 moments are looked at, spread over the clip.
    """
    points = viewpoints(survey)
    times = survey.frames["time"].to_numpy()
    timed = survey.train[points.time[survey.train] >= 0]
    moments = np.unique(points.time[timed])
    normals = _even_directions(500)
    rows, known = [], {}
    for moment in moments[np.unique(np.linspace(0, len(moments) - 1, min(len(moments), 200)).astype(int))]:
        mine = _one_a_view(points, timed[points.time[timed] == moment])
        key = tuple(np.sort(points.view[mine]))
        if key not in known:
            seen = seen_by(survey, mine, normals).sum(axis=0)
            angles = angles_deg(points.means[list(key)], points.means[list(key)]) + 1e3 * np.eye(len(key))
            nearest = float(np.median(angles.min(axis=1))) if len(key) > 1 else math.nan
            known[key] = nearest, float((seen >= 2).sum() / max((seen >= 1).sum(), 1))
        rows.append([float(np.mean(times[mine])), len(mine), *known[key]])
    return pd.DataFrame(rows, columns=["time", "views", "angle_deg", "covisible"])


def _even_directions(count: int) -> np.ndarray:
    """[count, 3] unit vectors, evenly over the sphere (the golden spiral)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = index * math.pi * (3 - math.sqrt(5))
    level = np.sqrt(1 - height**2)
    return np.stack([level * np.cos(turn), height, level * np.sin(turn)], axis=-1)


def check_covisibility(survey: Survey) -> list[Finding]:
    """low_covisibility: of what the cameras of a moment see, two see less than half (median over moments).

    Moments with one view are `check_multiview`'s, so this speaks where most moments have several.
    """
    table = measure_covisibility(survey)
    several = table[table["views"] >= 2]
    if len(several) < len(table) / 2 or not len(several):
        return []
    share = float(several["covisible"].median())
    if share >= 0.5:
        return []
    message = (
        f"At each of {len(several)} times {several['views'].median():.0f} cameras look on, "
        f"{several['angle_deg'].median():.0f} degrees from the next; of the surface that they see, two or more see "
        f"{100 * share:.0f} %: the depth of the rest is a guess."
    )
    evidence = several.groupby("views")[["angle_deg", "covisible"]].median().reset_index().head(20)
    remedy = Remedy("Move the cameras closer together, or add some between them; masks and a rig or prior help, too.")
    return [Finding("low_covisibility", "warning", message, evidence, "cameras", remedy)]


# --- held-out views ---


def measure_extrapolation(survey: Survey) -> pd.DataFrame:
    """How far held-out views lie from training views, one row a view, the farthest first.

    Returns:
        frame, camera, source, nearest_deg (angle at the focus to the nearest training camera) and outside_deg (angle to
        the convex hull of the training directions: to the nearest non-negative combination of those within 60 degrees;
        0 inside).
    """
    points, test = viewpoints(survey), _one_a_view(viewpoints(survey), survey.test)
    columns = ["frame", "camera", "source", "nearest_deg", "outside_deg"]
    if not len(test) or not len(survey.train):
        return pd.DataFrame(columns=columns)
    train = points.means[points.views(survey.train)]
    nearest = points.nearest_deg(survey.train, test)
    angles = angles_deg(points.directions[test], train)
    outside = [
        _outside_deg(points.directions[row], train[angle <= max(_CAP_DEG, angle.min() + 1e-6)])
        for row, angle in zip(test, angles, strict=True)
    ]
    frames = survey.frames.iloc[test]
    table = pd.DataFrame(dict(zip(columns, [*(frames[name] for name in columns[:3]), nearest, outside], strict=True)))
    return table.sort_values(["nearest_deg", "outside_deg"], ascending=False, ignore_index=True)


def _outside_deg(direction: np.ndarray, others: np.ndarray) -> float:
    """Angle from a direction to the cone of others, degrees."""
    from scipy.optimize import nnls  # slow to import

    _, residual = nnls(others.T, direction)
    return math.degrees(math.asin(min(1.0, residual)))


def check_held_out_views(survey: Survey) -> list[Finding]:
    """held_out_outside: held-out views more than `FAR_DEG` from any training view, or as far outside their hull.

    A warning from a quarter of the views on (then their loss moves the mean by a quarter of it), else info.
    """
    table = measure_extrapolation(survey)
    far = table[(table["nearest_deg"] > FAR_DEG)]
    if not len(far):
        return []
    share = len(far) / len(table)
    outside = int((far["outside_deg"] > NARROW_DEG).sum())
    views = "view" if len(table) == 1 else "views"
    message = (
        f"{len(far)} of {len(table)} held-out {views} "
        f"{'is' if len(far) == 1 else 'are'} more than {FAR_DEG:.0f} degrees from the nearest training camera (up to "
        f"{far['nearest_deg'].max():.0f}; {outside} outside the hull of the training cameras, by up to "
        f"{far['outside_deg'].max():.0f}): the figure there measures guessing."
    )
    remedy = Remedy(
        "Report these views apart from the others, or add training cameras near them: " + quoted(list(far["camera"]))
    )
    severity = "warning" if share >= 0.25 else "info"
    names = tuple(far["frame"].head(20))
    return [Finding("held_out_outside", severity, message, table.head(20), "cameras", remedy, names)]


CHECKS = (*multiview.CHECKS, check_cameras, check_covisibility, check_held_out_views)
