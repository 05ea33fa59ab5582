"""The error of poses in pixels, from silhouettes or matched features: one figure, and one for each camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..cameras import Cameras
from ..errors import MissingDependency
from ..thinning import spread
from .epipolar import (
    KEPT,
    Disagreements,
    Matches,
    centres_of,
    corrections,
    disagreements_of,
    match_pictures,
    mend_cameras,
)
from .silhouettes import NOISE_PX, Outlines, outline_rays, outlines, tangencies
from .survey import Survey, remembered
from .views import moments, near_pairs, pose_numbers, some_moments, some_pairs, spread_out

ROWS = 96
"""Frames of a source whose outlines are compared."""

PARTNERS = 12
"""Other cameras that each is compared with: 24 tangencies for the four numbers it may be off by."""

PICTURES = 16
"""Pictures of a moving camera in which features are sought; decoding and SIFT take about 0.1 s each."""

PRIOR_PX = 0.3
"""Scale of the errors that a solved camera still has, in thumbnail pixels (Laplace): bundle adjustment ends at half a
pixel to a pixel of a picture some four times as large."""

MATCH_NOISE_PX = 0.3
"""How well SIFT places a feature (0.2 px measured as the median on a real capture), in pixels of the picture."""

BLUR_PX = 1.0
"""Poses that are wrong by more than this average neighbouring pixels: detail is lost. In pixels of the capture."""

FLOOR_PX = 0.45
"""Three times what true poses show on clean alpha (0.07 to 0.14), in thumbnail pixels."""

FEWEST = 6
"""Disagreements below which nothing is said."""


@dataclass(frozen=True, eq=False)
class PoseError:
    """How far the poses are off.

    Attributes:
        px: root mean square displacement of the subject that wrong poses (or lenses) account for, in pixels of the
            capture; NaN where it cannot be measured. thumbnail_px, deg: the same in pixels of the thumbnails, and as
            an angle.
        other_px: what no change of the cameras explains, in the same pixels: noise, moving things, wrong masks.
        rest_px: like ``px`` with ``other_px``, among the cameras that are no outliers; NaN where these meet nowhere.
        zoom: by how much all focal lengths seem too long (0.1 = 10 %). zoom_share: how much that alone explains of
            the squared disagreements.
        scale: pixels of the capture in one of a thumbnail.
        by: "silhouettes", "matches" or "".
        one_moment: whether frames of one moment were compared; else the subject's motion counts as error.
        cameras: a row for each camera, the worst first: ``camera``, ``frame`` (the first), ``disagreement_px`` (with
            the other cameras), what best explains all of these (``error_px`` and ``error_deg`` of the pose,
            ``focal_error``: 0.1 = 10 % too long), and ``outlier``.
        disagreements: how many figures stand behind it. frames: how many frames.
    """

    px: float
    thumbnail_px: float
    deg: float
    other_px: float
    rest_px: float
    zoom: float
    zoom_share: float
    scale: float
    by: str
    one_moment: bool
    cameras: pd.DataFrame
    disagreements: int
    frames: int


_COLUMNS = ["camera", "frame", "disagreement_px", "error_px", "error_deg", "focal_error", "outlier"]
_UNKNOWN = PoseError(*[math.nan] * 8, "", True, pd.DataFrame(columns=_COLUMNS), 0, 0)


def pose_error(survey: Survey) -> PoseError:
    """Measure the poses: by silhouettes where frames have them, by matched features otherwise.

    Silhouettes of one source and moment are compared (up to `ROWS` frames a source); where each camera has its own
    moment, one frame a camera, and ``one_moment`` is False. Features are sought in some 20 pictures.
    """
    return remembered(survey, "pose_error", lambda: _pose_error(survey))


def _pose_error(survey: Survey) -> PoseError:
    rows, groups, one_moment = _outline_groups(survey)
    if len(rows) >= 2:
        found = _by_silhouettes(survey, rows, groups, one_moment)
        if found.disagreements >= FEWEST:
            return found
    measured = [_by_matches(survey, rows, matches) for rows, matches in shared_features(survey).values()]
    measured = [found for found in measured if found.disagreements >= FEWEST]
    return max(measured, key=lambda found: found.disagreements, default=_UNKNOWN)


def masked_rows(survey: Survey) -> np.ndarray:
    """Rows with a silhouette: between a five-hundredth and 95 % of the picture."""
    share = np.array([(alpha >= 128).mean() for alpha in survey.alpha])
    return np.flatnonzero(survey.has_alpha & (share > 0.002) & (share < 0.95))


def _outline_groups(survey: Survey) -> tuple[np.ndarray, list[np.ndarray], bool]:
    """Rows to compare, groups of positions in them, and whether each group is of one moment."""
    masked, centres = masked_rows(survey), centres_of(survey.cameras)
    groups, one_moment = some_moments(survey, moments(survey, masked), ROWS), True
    if not groups and len(masked):
        one_moment = False
        _, first = np.unique(pose_numbers(survey.cameras)[masked], return_index=True)
        rows = masked[np.sort(first)]
        groups = [rows[spread_out(centres[rows], ROWS)]] if len(rows) >= 3 else []
    rows = np.concatenate(groups) if groups else np.zeros(0, np.int64)
    ends = np.cumsum([len(group) for group in groups])
    return rows, [np.arange(end - len(group), end) for group, end in zip(groups, ends, strict=True)], one_moment


def _by_silhouettes(survey: Survey, rows: np.ndarray, groups: list[np.ndarray], one_moment: bool) -> PoseError:
    cameras = survey.cameras[rows]
    shapes = outlines([survey.alpha[row] for row in rows], cameras)
    centres = centres_of(cameras)
    pairs = np.concatenate([group[some_pairs(centres[group], PARTNERS)] for group in groups])

    def measure(now: Cameras) -> Disagreements:
        return tangencies(outline_rays(shapes, now), pairs)

    # A camera's outlines at several moments err alike, so more moments are no more reason to blame it.
    prior = PRIOR_PX / len(groups)
    return _summary(survey, rows, cameras, measure, "silhouettes", one_moment, NOISE_PX, prior, _reach(shapes))


def _by_matches(survey: Survey, rows: np.ndarray, matches: Matches) -> PoseError:
    factor = matches.cameras.sizes[:, 0].double().numpy() / survey.frames["width"].to_numpy()[rows]
    noise = MATCH_NOISE_PX * float(np.median(factor))
    thumbnail = survey.cameras.sizes[rows, 0].double().numpy() / matches.cameras.sizes[:, 0].double().numpy()
    # The matches of one pair err alike (a lens, a drift), so they count as some four.
    prior = PRIOR_PX / float(np.median(thumbnail)) * 4 / KEPT
    reach = matches.cameras.sizes.double().numpy().min(axis=1) / 3
    times = survey.frames["time"].to_numpy()[rows]
    one_moment = all(times[a] == times[b] or np.isnan(times[[a, b]]).all() for a, b in matches.pairs)

    def measure(now: Cameras) -> Disagreements:
        return disagreements_of(matches, now)

    return _summary(survey, rows, matches.cameras, measure, "matches", one_moment, noise, prior, reach)


def _summary(survey, rows, cameras, measure, by, one_moment, noise, prior, reach) -> PoseError:
    """The figures of disagreements: ``measure`` gives them for cameras, all pixels are those of ``cameras``."""
    given = measure(cameras)
    if len(given) < FEWEST:
        return _UNKNOWN
    unknown = pose_numbers(cameras)
    first = np.unique(unknown, return_index=True)[1]
    Ks = cameras.Ks.double().numpy()[first]
    pixels = np.sqrt(Ks[:, 0, 0] * Ks[:, 1, 1])
    total, left = np.zeros((len(first), 4)), given
    # The slopes are those of small errors; more rounds serve large ones.
    for _ in range(5):
        change, _ = corrections(left, unknown, pixels, reach[first], noise, prior)
        after = measure(mend_cameras(cameras, (total + change)[unknown]))
        if len(after) < len(given) / 2 or _typical(after, by) > _typical(left, by):
            break
        total, left = total + change, after
        if np.abs(change[:, :3] * pixels[:, None]).max() < noise:
            break
    rms_given, rms_left = _typical(given, by), min(_typical(left, by), _typical(given, by))
    local = np.einsum("nij,nj->ni", cameras.viewmats[first, :3, :3].double().numpy(), total[:, :3])
    # A roll moves the rim along, half of which shows across it.
    moved = np.sqrt(pixels**2 * (local[:, :2] ** 2).sum(1) + (local[:, 2] * reach[first]) ** 2 / 2)
    full = survey.frames["width"].to_numpy()[rows] / cameras.sizes[:, 0].double().numpy()
    scale, small = float(np.median(full)), survey.cameras.sizes[rows, 0].double().numpy()
    small = float(np.median(small / cameras.sizes[:, 0].double().numpy()))
    error = math.sqrt(2 * max(rms_given**2 - rms_left**2, 0.0))
    names = survey.frames.iloc[rows[first]]
    table = pd.DataFrame(
        {
            "camera": names["camera"].to_numpy(),
            "frame": names["frame"].to_numpy(),
            "disagreement_px": _by_camera(given, unknown, by) * scale,
            "error_px": moved * full[first],
            "error_deg": np.degrees(moved / pixels),
            "focal_error": np.expm1(total[:, 3]),
        }
    )
    # Rayleigh: among equally good cameras one in 60,000 has four times the median error; and the solution, which
    # blames as few cameras as it can, makes small errors smaller still.
    bound = max(6 * float(np.median(moved)) * scale, BLUR_PX, FLOOR_PX / small * scale)
    zoom_bound = max(6 * float(table["focal_error"].abs().median()), 0.02)
    # An explanation may be large where the disagreement is not (a turn along the epipolar lines): no outlier.
    table["outlier"] = (table["error_px"] > bound) | (table["focal_error"].abs() > zoom_bound)
    table["outlier"] &= table["disagreement_px"] > max(BLUR_PX, FLOOR_PX / small * scale)
    good = ~table["outlier"].to_numpy()
    rest = given[good[unknown[given.first]] & good[unknown[given.second]]]
    zoom, unzoomed = _common_zoom(given)
    table = table.sort_values(["outlier", "error_px"], ascending=False, kind="stable").reset_index(drop=True)
    return PoseError(
        px=error * scale,
        thumbnail_px=error * small,
        deg=math.degrees(error / float(np.median(pixels))),
        other_px=math.sqrt(2) * rms_left * scale,
        rest_px=math.sqrt(2) * _typical(rest, by) * scale if len(rest) else math.nan,
        zoom=math.expm1(zoom),
        zoom_share=1 - (_typical(replace(given, error_px=unzoomed), by) / max(rms_given, 1e-12)) ** 2,
        scale=scale / small,
        by=by,
        one_moment=bool(one_moment),
        cameras=table,
        disagreements=len(given),
        frames=len(rows),
    )


def _typical(found: Disagreements, by: str) -> float:
    """Root mean square; of matches that of the pairs' medians, since some matches are wrong."""
    if by == "silhouettes":
        return float(np.sqrt((found.error_px**2).mean()))
    _, pair = np.unique(np.stack([found.first, found.second]), axis=1, return_inverse=True)
    table = pd.Series(np.abs(found.error_px)).groupby(pair.ravel()).median()
    return float(np.sqrt((table**2).mean()))


def _by_camera(found: Disagreements, unknown: np.ndarray, by: str) -> np.ndarray:
    """[U] what `_typical` is for all, of the disagreements that each camera has a part in; 0 where it has none."""
    result = np.zeros(unknown.max() + 1)
    for number in range(len(result)):
        part = (unknown[found.first] == number) | (unknown[found.second] == number)
        if part.any():
            result[number] = math.sqrt(2) * _typical(found[part], by)
    return result


def _common_zoom(found: Disagreements) -> tuple[float, np.ndarray]:
    """The logarithm of a focal length that all share (least absolute deviations), and the errors [P] without it."""
    slope = found.slopes[:, :, 3].sum(axis=1)
    weight, zoom = np.ones(len(found)), 0.0
    for _ in range(20):
        zoom = float((weight * slope) @ found.error_px) / max(float((weight * slope) @ slope), 1e-12)
        weight = 1 / np.maximum(np.abs(found.error_px - zoom * slope), 1e-2)
    return zoom, found.error_px - zoom * slope


def _reach(shapes: Outlines) -> np.ndarray:
    """[n] pixels from the middle of an outline to its rim."""
    middle = (shapes.points.max(axis=1) + shapes.points.min(axis=1)) / 2
    return np.maximum(np.linalg.norm(shapes.points - middle[:, None], axis=-1).mean(axis=1), 1.0)


def shared_features(survey: Survey) -> dict[str, tuple[np.ndarray, Matches]]:
    """For each source without silhouettes: rows, and the matches of their pictures. Empty without OpenCV."""
    return remembered(survey, "matches", lambda: _find_matches(survey))


def _find_matches(survey: Survey) -> dict[str, tuple[np.ndarray, Matches]]:
    opaque, numbers, result = survey.opaque, pose_numbers(survey.cameras), {}
    for source, table in survey.frames.groupby("source", sort=False):
        rows = table.index.to_numpy()
        rows = rows[opaque[rows]]
        if len(np.unique(numbers[rows])) < 2:
            continue
        rows, pairs = _picture_pairs(survey, rows)
        cameras = survey.capture.cameras[rows]
        try:
            matches = match_pictures(lambda i, rows=rows: survey.picture(int(rows[i]))[0], cameras, pairs)
        except MissingDependency:
            return {}
        if len(matches.pairs):
            result[source] = (rows, matches)
    return result


def _picture_pairs(survey: Survey, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some `PICTURES` of one source's rows, and pairs of positions among them: neighbours in space at one moment, or
    in time where one camera moves."""
    centres, forwards = centres_of(survey.cameras), survey.cameras.viewmats[:, 2, :3].double().cpu().numpy()
    groups = moments(survey, rows)
    if not groups:
        rows = rows[np.argsort(survey.frames["time"].to_numpy()[rows], kind="stable")]
        rows = rows[spread(len(rows), PICTURES)]
        pairs = [(i, i + step) for step in (1, 2) for i in range(len(rows) - step)]
        return rows, np.array(pairs, dtype=np.int64).reshape(-1, 2)
    count = max(1, min(len(groups), PICTURES // max(len(group) for group in groups)))
    chosen, pairs, start = [], [], 0
    for index in spread(len(groups), count):
        group = groups[index]
        near = near_pairs(centres[group], forwards[group], 2)
        if len(group) > PICTURES:
            # Neighbours of a few cameras that are spread out; all of them would be too many pictures.
            seeds = spread_out(centres[group], PICTURES // 3)
            near = near[np.isin(near, seeds).any(axis=1)]
            used, near = np.unique(near, return_inverse=True)
            group, near = group[used], near.reshape(-1, 2)
        chosen.append(group)
        pairs.append(near + start)
        start += len(group)
    return np.concatenate(chosen), np.concatenate(pairs)
