"""Are the cameras where the files say? Axis conventions, the common point, and the error of poses in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..cameras import Cameras
from .axes import AXES, apply_axes, match_scores, silhouette_scores
from .epipolar import centres_of
from .finding import Finding, Remedy
from .pose_error import BLUR_PX, FLOOR_PX, PoseError, masked_rows, pose_error, shared_features
from .silhouettes import NOISE_PX, silhouette_depths
from .survey import Survey, remembered
from .views import moments, pose_numbers, spread_out

__all__ = ["AXES", "CHECKS", "LookAt", "PoseError", "apply_axes", "axis_scores", "look_at", "pose_error"]

PICTURES = 16
"""Cameras whose silhouettes are tried under each convention."""


# --- conventions ---


def axis_scores(survey: Survey) -> pd.DataFrame:
    """How well the pictures agree under the poses as given, and under each undone convention.

    Per source with at least three cameras at one moment: silhouettes, where it has alpha; else features, where its
    pictures share any. Sources with neither have no rows.

    Returns:
        columns ``source``, ``by`` ("silhouettes" or "matches"), ``how`` ("" = as given), ``agree`` (0 to 1) and
        ``cameras``.
    """
    return remembered(survey, "axis_scores", lambda: _axis_scores(survey))


def _axis_scores(survey: Survey) -> pd.DataFrame:
    tables, centres = [], centres_of(survey.cameras)
    sources, masked = survey.frames["source"].to_numpy(), masked_rows(survey)
    groups = moments(survey, masked, fewest=3)
    if not groups:
        # Each camera at its own time: a moving subject is still where it was, more or less.
        _, first = np.unique(pose_numbers(survey.cameras)[masked], return_index=True)
        groups = [
            rows
            for source in survey.capture.sources
            if len(rows := masked[np.sort(first[sources[masked[first]] == source])]) >= 3
        ]
    largest: dict[str, np.ndarray] = {}
    for group in groups:
        if len(group) > len(largest.get(sources[group[0]], ())):
            largest[sources[group[0]]] = group
    for source, group in largest.items():
        group = group[spread_out(centres[group], PICTURES)]
        scores = silhouette_scores(silhouette_depths([survey.alpha[row] for row in group]), survey.cameras[group])
        tables.append(scores.assign(source=source, by="silhouettes", cameras=len(group)))
    if not tables:
        for source, (rows, matches) in shared_features(survey).items():
            scores = match_scores(matches)
            tables.append(scores.assign(source=source, by="matches", cameras=len(rows)))
    columns = ["source", "by", "how", "agree", "cameras"]
    return pd.concat(tables)[columns].reset_index(drop=True) if tables else pd.DataFrame(columns=columns)


def check_axes(survey: Survey) -> list[Finding]:
    """axis_convention: the pictures contradict the poses as given and agree once a known mistake is undone."""
    scores = axis_scores(survey)
    verdicts = {}
    for source, table in scores.groupby("source", sort=False):
        best = table.loc[table["agree"].idxmax()] if table["agree"].notna().any() else None
        given = float(table["agree"].iloc[0])
        if best is None or not best["how"]:
            continue
        # Undone, nearly all fits and did not before; or much does, and before nearly nothing. All else is noise. (Of
        # cameras on a short arc, some mistakes leave half of the matches in agreement.)
        agree = float(best["agree"])
        if (given < 0.7 and agree > 0.9) or (given < 0.3 and agree > max(0.6, given + 0.4)):
            verdicts.setdefault(best["how"], []).append((source, given, agree))
    findings = []
    for how, sources in verdicts.items():
        names = [source for source, _, _ in sources]
        everything = set(names) == set(scores["source"])
        if everything:
            names = sorted(set(names) | set(_unheard(survey, scores, how)))
        arguments: dict = {"how": how}
        if set(names) != set(survey.frames["source"]):
            arguments["sources"] = names
        _, given, agree = sources[0]
        what = "of " + ", ".join(names) if "sources" in arguments else "as given"
        by = "silhouettes" if (scores["by"] == "silhouettes").any() else "matched points"
        rows = np.flatnonzero(survey.frames["source"].isin(names))[:20]
        findings.append(
            Finding(
                "axis_convention",
                "error",
                f"The poses {what} contradict the pictures: {given:.0%} of the {by} agree, and {agree:.0%} once it is "
                f"undone that {AXES[how]}.",
                scores.sort_values(["source", "agree"], ascending=[True, False]).head(20).round(3),
                "cameras",
                Remedy(f"Read the poses as they were meant ({how}).", "flip_axes", arguments),
                tuple(survey.frames["frame"].iloc[rows]),
            )
        )
    return findings


def _unheard(survey: Survey, scores: pd.DataFrame, how: str) -> list[str]:
    """Sources that could not be tested, and whose cameras see the common point only once ``how`` is undone."""
    mended = apply_axes(survey.cameras, how)
    point, result = robust_look_at(mended).centre, []
    for source in sorted(set(survey.frames["source"]) - set(scores["source"])):
        rows = np.flatnonzero(survey.frames["source"] == source)
        if _sees(mended[rows], point)[0].mean() > _sees(survey.cameras[rows], point)[0].mean():
            result.append(source)
    return result


# --- the common point ---


@dataclass(frozen=True, eq=False)
class LookAt:
    """The point that the cameras look at.

    Attributes:
        centre: [3], nearest to the optical axes (least absolute distances).
        sees: [C] whether it is before the camera and in its picture. angle_deg: [C] between it and the optical axis.
        parallel: the axes are so nearly parallel that they have no such point; then nothing of this means anything.
    """

    centre: np.ndarray
    sees: np.ndarray
    angle_deg: np.ndarray
    parallel: bool


def look_at(survey: Survey) -> LookAt:
    """`LookAt` of the survey's distinct cameras, in the order of their first rows."""
    _, first = np.unique(pose_numbers(survey.cameras), return_index=True)
    return robust_look_at(survey.cameras[np.sort(first)])


def robust_look_at(cameras: Cameras) -> LookAt:
    """`LookAt` of cameras, by reweighted least squares, so that a few odd ones do not move it."""
    centres, forwards = centres_of(cameras), cameras.viewmats[:, 2, :3].double().cpu().numpy()
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    # Axes that differ by less than some 8 degrees: as in `gaussians.look_at_point`.
    parallel = bool(np.linalg.eigvalsh(across.mean(0))[0] <= 0.02)
    spread = max(float(np.linalg.norm(centres - centres.mean(0), axis=1).max()), 1e-9)
    point, weight = centres.mean(0), np.ones(len(centres))
    for _ in range(20):
        system = (across * weight[:, None, None]).sum(0) + 1e-9 * np.eye(3)
        point = np.linalg.solve(system, (weight[:, None] * (across @ centres[:, :, None])[..., 0]).sum(0))
        miss = np.linalg.norm((across @ (point - centres)[:, :, None])[..., 0], axis=1)
        weight = 1 / np.maximum(miss / spread, 1e-3)
    sees, angle = _sees(cameras, point)
    return LookAt(point, sees, angle, parallel)


def _sees(cameras: Cameras, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    views, Ks = cameras.viewmats.double().cpu().numpy(), cameras.Ks.double().cpu().numpy()
    local = views[:, :3, :3] @ point + views[:, :3, 3]
    pixel = np.einsum("nij,nj->ni", Ks, local)[:, :2] / np.maximum(local[:, 2:], 1e-12)
    sees = (local[:, 2] > 0) & (pixel >= 0).all(1) & (pixel <= cameras.sizes.double().cpu().numpy()).all(1)
    length = np.maximum(np.linalg.norm(local, axis=1), 1e-12)
    return sees, np.degrees(np.arccos(np.clip(local[:, 2] / length, -1, 1)))


def check_common_point(survey: Survey) -> list[Finding]:
    """no_common_point: cameras that do not look at what the others look at. Silent where check_axes knows why."""
    numbers = pose_numbers(survey.cameras)
    found = look_at(survey)
    if found.parallel or len(found.sees) < 3 or check_axes(survey):
        return []
    away = np.flatnonzero(~found.sees)
    seen = found.sees.mean()
    # Below one half the point is nobody's subject; a few that look elsewhere matter only where they look away.
    behind = found.angle_deg[away] > 90
    if seen >= 0.5 and not (behind.any() and seen >= 0.75):
        return []
    if seen >= 0.5:
        away = away[behind]
    first = np.array([np.flatnonzero(numbers == number)[0] for number in away])
    order = np.argsort(-found.angle_deg[away], kind="stable")[:20]
    names = survey.frames.iloc[first[order]]
    evidence = pd.DataFrame(
        {
            "camera": names["camera"].to_numpy(),
            "frame": names["frame"].to_numpy(),
            "angle_deg": found.angle_deg[away][order].round(1),
        }
    )
    if seen < 0.5:
        message = (
            f"The cameras do not look at a common point: {found.sees.sum()} of {len(found.sees)} have the point "
            "nearest to all their axes in the picture."
        )
        text = "Check the convention of the poses; a scene shot from its inside outwards needs init='frusta'."
        if np.median(found.angle_deg) > 90:
            message = message[:-1] + ", and most look away from it."
            text = (
                "Either the scene lies all around the cameras, or the poses have OpenCV axes and were read as OpenGL: "
                "then fourdgs.doctor.poses.apply_axes(cameras, 'opengl_to_opencv') mends them."
            )
    else:
        message = f"{len(away)} of {len(found.sees)} cameras look away from what all the others look at."
        text = "Check the poses of these frames, or take them out."
    return [Finding("no_common_point", "warning", message, evidence, "cameras", Remedy(text), tuple(evidence["frame"]))]


# --- the error of poses ---


def check_poses(survey: Survey) -> list[Finding]:
    """poses_off: silhouettes or matched points disagree by more pixels than their noise. Silent after check_axes."""
    if check_axes(survey):
        return []
    found = pose_error(survey)
    scores = axis_scores(survey)
    common = scores.loc[(scores["how"] == "") & (scores["by"] == "silhouettes"), "agree"].max()
    return _judge(found, float(common)) if found.by else []


def _judge(found: PoseError, common: float) -> list[Finding]:
    """``common``: how much of the silhouettes the others explain; NaN where that was not measured."""
    bound = BLUR_PX if found.by == "matches" else max(BLUR_PX, FLOOR_PX * found.scale)
    bad = found.cameras[found.cameras["outlier"]]
    what = "silhouettes" if found.by == "silhouettes" else "matched points"
    measured = f"({found.disagreements} comparisons of {what} in {found.frames} frames)"
    causes = "Poses, intrinsics or masks" if found.by == "silhouettes" else "Poses or intrinsics"
    if _zoomed(found):
        message = (
            f"All focal lengths seem {abs(found.zoom):.0%} too {'long' if found.zoom > 0 else 'short'} for the poses: "
            f"that explains {found.zoom_share:.0%} of how the pictures disagree {measured}."
        )
        text = "Check the field of view in the files, and whether the pictures were cropped."
    elif len(bad) and not found.rest_px > bound:
        message = f"{_blame(found, bad, bound)} {measured}."
        text = f"Check poses, lenses and masks of these frames, or take them out; the first is {bad['frame'].iloc[0]}."
    elif found.px > bound:
        message = (
            f"{causes} are off by {found.px:.1f} pixels ({found.deg:.2f} degrees) on average over "
            f"{len(found.cameras)} cameras {measured}."
        )
        text = "Refine the poses (COLMAP's bundle adjustment with the poses as a start), or measure them again."
    elif found.by == "silhouettes" and found.one_moment and found.other_px > 4 * bound:
        message = (
            f"Silhouettes disagree by {found.other_px:.1f} pixels in a way that no change of the cameras explains "
            f"{measured}."
        )
        return [_finding("info", message, found, "Look at the masks; did the subject move between them?")]
    else:
        return []
    if found.one_moment and common < 0.3:
        message = message[:-1] + f"; only {common:.0%} of the silhouettes have a volume in common."
        return [_finding("error", message, found, text)]
    if found.one_moment or found.by == "matches":
        return [_finding("warning", message, found, text)]
    message = message[:-1] + "; frames of different times were compared, so the subject's motion counts too."
    return [_finding("info", message, found, text)]


def _zoomed(found: PoseError) -> bool:
    """Whether a common focal length stands out: by 3 % (true poses on clean alpha show 1 %), and as the best of causes.

    Beyond 30 % lens and poses cannot be told apart: pictures without parallax look like an endless lens.

    A common error moves cameras against each other but little; twice the noise of outlines is enough of it.
    """
    stands_out = math.hypot(found.px, found.other_px) > 2 * math.sqrt(2) * NOISE_PX * found.scale
    return 0.03 < abs(found.zoom) < 0.3 and found.zoom_share > 0.6 and (found.by == "matches" or stands_out)


def _blame(found: PoseError, bad: pd.DataFrame, bound: float) -> str:
    names = ", ".join(bad["camera"].astype(str).head(5)) + (", ..." if len(bad) > 5 else "")
    how = f"off by up to {bad['error_px'].max():.1f} pixels ({bad['error_deg'].max():.2f} degrees)"
    if bad["error_px"].max() <= bound:
        lens = float(bad.loc[bad["focal_error"].abs().idxmax(), "focal_error"])
        how = f"given a focal length {abs(lens):.0%} too {'long' if lens > 0 else 'short'}"
    rest = "" if np.isnan(found.rest_px) else f", while the others agree to within {max(found.rest_px, 0.1):.1f} pixels"
    return f"{len(bad)} of {len(found.cameras)} cameras ({names}) {'is' if len(bad) == 1 else 'are'} {how}{rest}"


def _finding(severity: str, message: str, found: PoseError, text: str) -> Finding:
    frames = tuple(found.cameras.loc[found.cameras["outlier"], "frame"].head(20))
    return Finding("poses_off", severity, message, found.cameras.head(20).round(4), "cameras", Remedy(text), frames)


CHECKS = (check_axes, check_common_point, check_poses)
