"""What the masks of a capture say about themselves: missing, inverted, or partly wrong.

Three witnesses, none of which is a file name. A cutout leaves the rim of the picture free and keeps the middle. The
silhouettes of one source look alike, so an inverted one points the other way. And silhouettes of one moment, from
different sides, must carve one body (the visual hull): what one view shows, no other may cut away.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from ..thinning import spread
from .finding import Finding, Remedy
from .hull import hull_blame, shrink
from .pose_error import FLOOR_PX, pose_error
from .survey import Survey, remembered
from .viewpoints import draws, quoted

GRID = 32
"""Silhouettes are held against each other at this size."""

_SOLID, _CLEAR = 239, 16
"""Alpha from here up is opaque, and up to here transparent: a sixteenth of the way, well past an encoder's noise."""

_FLAT = 2.0
"""Colours that vary by less (standard deviation, levels of 255) are one colour: twice the rounding of 8 bits."""

_VIEWS, _MOMENTS = 32, 4
"""Views of a moment, and moments along time, that are looked at: a few seconds of work at most."""

_LEAST_VIEWS = 5
"""Views that must see a moment before a dispute about its body can be pinned on one of them."""

_WINDOW = 5
"""Frames (two on either side) whose silhouettes vote on the middle one."""

_SOUND = 1e-3
"""The mean squared error that a sound capture is trained to: 30 dB."""

_HARM_DB = (("error", 1.5), ("warning", 0.4), ("info", 0.04))
"""What an error beside that costs: 1.5 dB is more than two ways of making one capture may differ by; 0.4 dB is a tenth
of `_SOUND`; 0.04 dB a hundredth, which is less than a change of the seed does."""

STATES = ("none", "mask", "inverted", "empty")
"""none: opaque all over. mask: a cutout. inverted: the surroundings are kept and the subject cut out. empty: nothing
is opaque."""


def measure_masks(survey: Survey) -> pd.DataFrame:
    """What every frame's mask is like.

    Returns:
        one row a frame, in the survey's order: frame, source, camera, split, time; state (see `STATES`); area (mean
        alpha); border (mean alpha in the outermost ring, a sixteenth of the picture wide); inner (in the middle half);
        inverted (how much speaks for it, in [-1, 1]); time_fault (share of the silhouette that its neighbours in time
        dispute, beyond what motion does); view_fault (share that other views of the moment dispute) and displaced (the
        same where it is all on one side, which wrong poses do as well: see the findings about those); NaN where there
        is nothing to compare with; mask_fault in [0, 1], the worse of time_fault and view_fault (1 where the mask is
        inverted or empty, 0 where there is none).
    """
    frames = survey.frames
    table = frames[["frame", "source", "camera", "split", "time"]].copy()
    small = np.stack([shrink(alpha, GRID, GRID) for alpha in survey.alpha]) / 255  # [n, GRID, GRID]
    edge, quarter = max(1, GRID // 16), GRID // 4
    ring = np.ones((GRID, GRID), bool)
    ring[edge:-edge, edge:-edge] = False
    table["area"] = small.mean((1, 2))
    table["border"] = small[:, ring].mean(1)
    table["inner"] = small[:, quarter:-quarter, quarter:-quarter].mean((1, 2))
    opaque = survey.opaque
    table["inverted"] = _inversion(survey, table, small, ~opaque)
    # An inversion must be told with a margin: half a picture of evidence either way is 1.
    state = np.where(opaque, "none", np.where(table["inverted"] > 0.1, "inverted", "mask"))
    state = np.where([alpha.max() <= _CLEAR for alpha in survey.alpha], "empty", state)
    table["state"] = state
    table["time_fault"] = _time_faults(survey, table)
    table["view_fault"], table["displaced"] = _view_faults(survey, table)
    # Moments that were not sampled are as those of their source that were.
    usual = table[state == "mask"].groupby(["split", "source"])["view_fault"].transform("mean").reindex(table.index)
    fault = np.fmax(table["time_fault"], table["view_fault"].fillna(usual)).fillna(0.0).clip(0, 1)
    table["mask_fault"] = np.where(np.isin(state, ("inverted", "empty")), 1.0, np.where(opaque, 0.0, fault))
    return table


def severity_of(mse: float) -> str:
    """How bad a mean squared error is that a fault puts into the pictures; "" where it is nothing."""
    loss_db = 10 * np.log10(1 + max(mse, 0.0) / _SOUND)
    return next((name for name, least in _HARM_DB if loss_db >= least), "")


def known_masks(survey: Survey) -> pd.DataFrame:
    """`measure_masks`, worked out once, and kept while the survey lives."""
    return remembered(survey, "masks", lambda: measure_masks(survey))


# --- inverted ----------------------------------------------------------------------------------------------------


def _inversion(survey: Survey, table: pd.DataFrame, small: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """[n] how much speaks for an inverted mask, in [-1, 1]; NaN without a mask.

    A frame's own witness is where it is opaque (rim against middle) and where its colours vary (a subject has more
    of them than a wiped surround). The frames of a source vote together: their silhouettes' common shape is the first
    singular vector of alpha - 1/2, and an inverted frame lies on its other side.
    """
    border, inner = table["border"].to_numpy(), table["inner"].to_numpy()
    colors = np.array([_hidden_colors(survey, i) if masked[i] else 0.0 for i in range(len(table))])
    # A rim that is mostly opaque speaks for it as far as the middle is free: a close-up is opaque all over.
    own = np.clip(border - inner + (1 - inner) * (2 * border - 1) + 0.5 * colors, -1, 1)
    score = np.where(masked, own, np.nan)
    for _, rows in table.groupby("source").indices.items():
        rows = rows[masked[rows]]
        if len(rows) < 3:
            continue
        flat = small[rows].reshape(len(rows), -1) - 0.5
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        sides = flat @ np.linalg.svd(flat[spread(len(rows), 200)], full_matrices=False)[2][0]  # [n] cosines
        together = float((sides * own[rows]).mean())
        clear = np.abs(sides) > 0.3  # else it shares too little with the others for their vote
        score[rows] = np.where(clear, np.clip(np.sign(sides) * together, -1, 1), own[rows])
    return score


def _hidden_colors(survey: Survey, i: int) -> float:
    """In [-1, 1]: 1 where the transparent part has all the colour variation and the opaque part none."""
    rgb, alpha = survey.rgb[i][::2, ::2], survey.alpha[i][::2, ::2]  # a quarter of the pixels fixes a spread
    hidden, shown = rgb[alpha <= _CLEAR], rgb[alpha >= _SOLID]
    if len(hidden) < 16 or len(shown) < 16:
        return 0.0
    behind, before = float(hidden.std(axis=0).mean()), float(shown.std(axis=0).mean())
    if behind < _FLAT:  # wiped by whoever wrote the file: that they are gone says little, unless all is
        return 0.0 if before < _FLAT else -0.5
    return 1.0 if before < _FLAT else float(np.clip(np.log(behind / before) / np.log(4), -1, 1))


# --- partly wrong: in time ---------------------------------------------------------------------------------------


def _time_faults(survey: Survey, table: pd.DataFrame) -> np.ndarray:
    """[n] how far a silhouette is from the median of its neighbours in time at the same camera, beyond the usual."""
    faults = np.full(len(table), np.nan)
    usable = (table["state"] == "mask").to_numpy() & table["time"].notna().to_numpy()
    for rows in table[usable].groupby(["source", "camera", "split"]).groups.values():
        rows = np.asarray(rows)[np.argsort(table["time"].to_numpy()[rows], kind="stable")]
        poses = survey.cameras.viewmats[rows].double().numpy()
        shapes = {survey.alpha[row].shape for row in rows}
        if len(rows) < _WINDOW or len(shapes) > 1 or np.abs(poses - poses[0]).max() > 1e-4:
            continue
        solid = np.stack([survey.alpha[row] for row in rows]) > 127
        # The nearest others in time: two on either side, at an end the first or last five but itself.
        first = np.clip(np.arange(len(rows)) - _WINDOW // 2, 0, len(rows) - _WINDOW)
        total = np.cumsum(np.concatenate([np.zeros_like(solid[:1], np.int32), solid]), axis=0, dtype=np.int32)
        voters = total[first + _WINDOW] - total[first] - solid  # [n, h, w]
        # Where its neighbours agree among themselves and not with it: what moves is where they disagree.
        wrong = ((voters == 0) & solid) | ((voters == _WINDOW - 1) & ~solid)
        # A rim of a pixel or two is motion, or its absence; holes, pieces and shifts are thicker.
        wrong = ndimage.binary_opening(wrong, np.ones((1, 3, 3)))
        share = wrong.sum((1, 2)) / np.maximum(solid.sum((1, 2)), 0.01 * solid[0].size)
        # Motion, too, makes a frame the odd one: twice what is usual at this camera is still motion.
        faults[rows] = np.maximum(share - 2 * np.median(share), 0)
    return faults


# --- partly wrong: between views ---------------------------------------------------------------------------------


def _view_faults(survey: Survey, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[n] the share of a silhouette that other views of the same moment dispute; that which is one outline's shift."""
    faults, shifts = np.full(len(table), np.nan), np.full(len(table), np.nan)
    for rows in _moments(survey, table):
        blame, displaced = hull_blame(survey, rows)
        faults[rows] = np.where(displaced, 0.0, blame)
        shifts[rows] = np.where(displaced, blame, 0.0)
    if np.nansum(faults) > 0 and (np.nansum(shifts) > np.nansum(faults) or _poses_explain(survey)):
        # The poses are off: then they explain what else is in dispute as well.
        faults, shifts = np.where(np.isnan(faults), np.nan, 0.0), faults + shifts
    return faults, shifts


def _poses_explain(survey: Survey) -> bool:
    """Whether other poses, of more than a few cameras, would make the outlines agree."""
    found = pose_error(survey)
    known = found.by == "silhouettes" and found.px > 3 * found.other_px
    return known and found.rest_px > FLOOR_PX * found.scale


def _moments(survey: Survey, table: pd.DataFrame) -> list[np.ndarray]:
    """Rows of masked frames that show one moment from several sides; a few of such moments, spread over time."""
    usable = np.flatnonzero(table["state"] == "mask")
    if not len(usable):
        return []
    times = table["time"].to_numpy()[usable]
    poses = np.round(survey.cameras.viewmats[usable].double().numpy().reshape(len(usable), -1), 3)
    found = []
    for time in [np.nan, *np.unique(np.round(times[~np.isnan(times)], 4))]:
        same = np.isnan(times) if np.isnan(time) else np.abs(times - time) < 1e-4
        rows = usable[same]
        _, first = np.unique(poses[same], axis=0, return_index=True)
        rows = rows[np.sort(first)]
        if len(rows) >= _LEAST_VIEWS:
            found.append(rows[spread(len(rows), _VIEWS)])
    still, moving = [rows for rows in found if np.isnan(table["time"][rows[0]])], []
    moving = [rows for rows in found if not np.isnan(table["time"][rows[0]])]
    return still + [moving[k] for k in spread(len(moving), _MOMENTS)]


# --- findings ----------------------------------------------------------------------------------------------------


def check_inverted(survey: Survey) -> list[Finding]:
    """mask_inverted: frames whose subject is cut out and whose surroundings are kept."""
    masks = known_masks(survey)
    wrong = masks[masks["state"] == "inverted"]
    if not len(wrong):
        return []
    per_source = wrong.groupby(["split", "source"], sort=False)
    evidence = per_source.agg(
        frames=("frame", "size"), border=("border", "mean"), middle=("inner", "mean"), evidence=("inverted", "mean")
    ).reset_index()
    whole = masks[masks["state"] != "none"].groupby(["split", "source"])["frame"].size()
    evidence["of"] = [int(whole[row.split, row.source]) for row in evidence.itertuples()]
    # Where every single mask is the same way round, somebody may have meant it.
    meant = len(wrong) == int((masks["state"] != "none").sum()) and float(wrong["inverted"].mean()) < 0.5
    message = (
        f"In {len(wrong)} frames of {quoted(sorted(set(wrong['source'])))} the mask is the wrong way round: the "
        f"middle of the picture is {100 * (1 - wrong['inner'].mean()):.0f} % transparent and its rim "
        f"{100 * wrong['border'].mean():.0f} % opaque."
    )
    remedy = Remedy("Invert the masks of these frames.", "invert_masks", {"frames": list(wrong["frame"])})
    frames = tuple(wrong.sort_values("inverted", ascending=False)["frame"].head(20))
    return [Finding("mask_inverted", "warning" if meant else "error", message, evidence, "pictures", remedy, frames)]


def check_missing(survey: Survey) -> list[Finding]:
    """mask_missing: frames without a mask in a source that has masks. (A whole source without: see `appearance`.)"""
    masks, found = known_masks(survey), []
    for source, part in masks.groupby("source", sort=False):
        rows = missing_masks(masks, part.index.to_numpy())
        if not len(rows):
            continue
        table = masks.loc[rows]
        errors = np.array([_surround_error(survey, masks, row) for row in rows])
        train = np.isin(table["split"], "train")
        harm = float(errors[train].sum() * draws(survey)[rows[train]].mean()) if train.any() else float(errors.max())
        evidence = part.assign(missing=part.index.isin(rows)).groupby("split", sort=False)
        evidence = evidence.agg(frames=("frame", "size"), missing=("missing", "sum"), area=("area", "mean"))
        message = (
            f"{len(rows)} of {len(part)} frames of {source!r} have no mask, though the others do: they teach their "
            f"background as part of the subject (over white it is off by {np.sqrt(errors.mean()):.2f} of 1 on average)."
        )
        remedy = Remedy(
            f"Cut the {len(rows)} frames of {source!r} out of their background, or leave them out.",
            "matte",
            {"source": source, "method": "auto", "prior": None},
        )
        worst = tuple(table["frame"].iloc[np.argsort(-errors, kind="stable")][:20])
        # Even over a white background somebody left masks out by mistake: worth a word.
        severity = severity_of(harm) or "info"
        found.append(Finding("mask_missing", severity, message, evidence.reset_index(), "pictures", remedy, worst))
    return found


def missing_masks(masks: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Those of a source's rows that have no mask, where others of the same split have one; none where all agree.

    A close-up may be subject all over; it counts as such where the source's masks leave hardly anything free.
    """
    found = []
    for split in masks.loc[rows, "split"].unique():
        some = rows[(masks.loc[rows, "split"] == split).to_numpy()]
        bare = (masks.loc[some, "state"] == "none").to_numpy()
        if bare.any() and not bare.all() and float(masks.loc[some[~bare], "area"].median()) < 0.9:
            found.append(some[bare])
    return np.concatenate(found) if found else np.zeros(0, int)


def _surround_error(survey: Survey, masks: pd.DataFrame, row: int) -> float:
    """Mean squared difference to white of what a bare frame shows where its source's masks leave the picture free."""
    source, state = masks.loc[row, "source"], masks["state"]
    others = masks.index[(masks["source"] == source) & (state == "mask")].to_numpy()
    if not len(others):
        return 0.0
    small = np.stack([shrink(survey.alpha[k], GRID, GRID) for k in others[spread(len(others), 24)]]).mean(0) / 255
    error = shrink(((survey.rgb[row] / 255.0 - 1) ** 2).mean(-1), GRID, GRID)
    return float((error * (small < 0.02)).mean())  # clear of the subject in all of them


def check_wrong(survey: Survey) -> list[Finding]:
    """mask_wrong: masks that are partly wrong, by what the neighbours in time and the other views show."""
    masks, found = known_masks(survey), []
    share = draws(survey)
    for (split, source), part in masks[masks["state"].isin(("mask", "empty"))].groupby(["split", "source"], sort=False):
        fault = part["mask_fault"].to_numpy()
        contrast = np.mean([_contrast(survey, row) for row in part.index[spread(len(part), 24)]])
        weight = share[part.index] if split == "train" else np.full(len(part), 1 / len(part))
        area = np.maximum(part["area"].to_numpy(), part["area"].median())  # an empty mask hides what others show
        harm = float((fault * area * weight).sum() * contrast)
        severity = severity_of(harm)
        if severity in ("", "info"):
            continue
        worst = part.sort_values("mask_fault", ascending=False).head(20)
        columns = ["frame", "camera", "time", "area", "time_fault", "view_fault", "mask_fault"]
        message = (
            f"The masks of {source!r} contradict their neighbours in time or the other views: on average "
            f"{100 * fault.mean():.1f} % of the silhouette is in dispute, in the worst frame {100 * fault.max():.0f} %."
        )
        remedy = Remedy("Look at these frames and make their masks again (or, if those are right, check the poses).")
        found.append(
            Finding("mask_wrong", severity, message, worst[columns], "pictures", remedy, tuple(worst["frame"]))
        )
    return found


def _contrast(survey: Survey, row: int) -> float:
    """Mean squared difference of the subject's colours from white."""
    solid = survey.alpha[row] >= _SOLID
    return float(((survey.rgb[row][solid] / 255.0 - 1) ** 2).mean()) if solid.any() else 0.0


CHECKS = (check_inverted, check_missing, check_wrong)
