"""What is wrong with single frames: frozen, doubled, smeared by motion, badly masked."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from . import masks
from .finding import Finding, Remedy
from .hull import shrink
from .survey import Survey, remembered
from .viewpoints import draws, viewpoints

SAME_RMS = 1.0
"""Levels of 255. Two encodings of one picture differ by less at thumbnail size (0.6 to 0.7 was measured on a real
H.264 clip whose first frame is doubled; its other neighbours differ by 1.3 and more)."""

SAME_BLOCK = 1.0
"""Levels: likewise the mean over a block of an eighth of the picture, so that a mouth that moves is not the same."""

_ROUNDING = 0.3
"""Levels: the standard deviation of rounding to 8 bits is 0.29."""

_BLOCKS = 16
_RUN = 3
"""Equal frames in a row that make a freeze. Two are what a change of the frame rate leaves behind."""

BLURRED = 0.6
"""Of the fine detail that a frame's neighbours have; a smear of two pixels leaves 0.4 to 0.55 (box filter, measured on
renders and on real video)."""

_FLOOR = 0.5
"""`Survey.detail` of a picture with no fine detail at all."""

_LEAST = 0.04
"""Beyond `_FLOOR`: a shift of the picture by one pixel changes a soft picture's detail by as much."""

_NEIGHBOURS = 9


# --- frozen and doubled ------------------------------------------------------------------------------------------


def known_duplicates(survey: Survey) -> pd.DataFrame:
    """`measure_duplicates`, worked out once, and kept while the survey lives."""
    return remembered(survey, "duplicates", lambda: measure_duplicates(survey))


def measure_duplicates(survey: Survey) -> pd.DataFrame:
    """Which training frames show the same picture as an earlier one of their source.

    Two frames are the same where their thumbnails, over white, differ by no more than an encoder does: `SAME_RMS` all
    over (less where one time step usually changes less than four times that) and `SAME_BLOCK` in any block. Candidates
    come from blockwise means; only they are compared pixel by pixel.

    Returns:
        one row a repeated frame: frame, source, camera, time; of (the frame that it repeats: the first of its kind);
        rms (levels of 255); same_view; same_time; run (how many frames in a row, by time at one camera, are equal to
        the run's first; 1 where its neighbours differ).
    """
    frames = survey.frames
    view = viewpoints(survey).view
    rows = survey.train
    first = np.full(len(survey), -1)
    rms = np.full(len(survey), np.nan)
    for part in frames.iloc[rows].groupby(["source", "width", "height"], sort=False).indices.values():
        members = rows[part]
        members = members[np.argsort(frames["time"].to_numpy()[members], kind="stable")]
        _repeats(survey, members, first, rms)
    found = np.flatnonzero(first >= 0)
    of = first[found]
    times = frames["time"].to_numpy()
    table = frames.iloc[found][["frame", "source", "camera", "time"]].copy()
    table["of"] = frames["frame"].to_numpy()[of]
    table["rms"] = rms[found]
    table["same_view"] = view[found] == view[of]
    equal_times = np.isclose(times[found], times[of], atol=1e-6) | (np.isnan(times[found]) & np.isnan(times[of]))
    table["same_time"] = equal_times
    table["run"] = _runs(survey, first)[found]
    return table


def _repeats(survey: Survey, rows: np.ndarray, first: np.ndarray, rms: np.ndarray) -> None:
    """Fill ``first`` (the earliest equal row) and ``rms`` for rows in order of time."""
    if len(rows) < 2:
        return
    pictures = np.stack([survey.over(row) * 255 for row in rows])
    blocks = shrink(np.moveaxis(pictures, 0, -1), _BLOCKS, _BLOCKS)  # [B, B, 3, n]
    blocks = np.ascontiguousarray(np.moveaxis(blocks, -1, 0).reshape(len(rows), -1), dtype=np.float64)
    limit = _same(survey, rows, pictures)
    squares = (blocks**2).sum(1)
    originals = np.ones(len(rows), bool)  # slow change adds up to a new picture: nothing is compared with a repeat
    for place in range(1, len(rows)):
        before = np.flatnonzero(originals[:place])
        gap = squares[before] + squares[place] - 2 * (blocks[before] @ blocks[place])
        for other in before[gap / blocks.shape[1] <= limit**2 + 1e-3]:
            if np.abs(blocks[other] - blocks[place]).max() > SAME_BLOCK:
                continue
            value = float(np.sqrt(np.mean((pictures[place] - pictures[other]) ** 2)))
            if value <= limit:
                first[rows[place]], rms[rows[place]] = rows[other], value
                originals[place] = False
                break


def _same(survey: Survey, rows: np.ndarray, pictures: np.ndarray) -> float:
    """Levels of 255: differences up to here are an encoder's. At most a quarter of what one time step usually changes
    at this source, so that a subject who merely pauses is not called frozen; never below the rounding of 8 bits."""
    times = survey.frames["time"].to_numpy()[rows]
    cameras = survey.frames["camera"].to_numpy()[rows]
    line = np.lexsort((times, cameras))
    line = line[~np.isnan(times[line])]
    steps = [(a, b) for a, b in zip(line[:-1], line[1:], strict=True) if cameras[a] == cameras[b]]
    steps = [steps[k] for k in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 400)).astype(int))]
    change = np.array([np.sqrt(np.mean((pictures[a] - pictures[b]) ** 2)) for a, b in steps])
    change = change[change > SAME_RMS]
    return SAME_RMS if not len(change) else float(np.clip(np.median(change) / 4, _ROUNDING, SAME_RMS))


def _runs(survey: Survey, first: np.ndarray) -> np.ndarray:
    """[n] the length of the run of equal frames, by time at one camera, that a frame is in."""
    frames, run = survey.frames, np.ones(len(survey), int)
    rows = survey.train
    rows = rows[frames["time"].notna().to_numpy()[rows]]
    for part in frames.iloc[rows].groupby(["source", "camera"], sort=False).indices.values():
        line = rows[part]
        line = line[np.argsort(frames["time"].to_numpy()[line], kind="stable")]
        kind = np.where(first[line] >= 0, first[line], line)
        starts = np.flatnonzero(np.r_[True, kind[1:] != kind[:-1]])
        lengths = np.diff(np.r_[starts, len(line)])
        run[line] = np.repeat(lengths, lengths)
    return run


def check_frozen(survey: Survey) -> list[Finding]:
    """frozen_clip: three and more equal frames in a row while time goes on."""
    table, found = known_duplicates(survey), []
    frames = survey.frames
    held = table[(table["run"] >= _RUN) & ~table["same_time"]]
    for source, part in held.groupby("source", sort=False):
        timed = frames[(frames["source"] == source) & (frames["split"] == "train") & frames["time"].notna()]
        share = len(part) / len(timed)
        runs = part.groupby(["camera", "of"], sort=False).agg(
            repeats=("frame", "size"), start=("time", "min"), end=("time", "max"), rms=("rms", "max")
        )
        evidence = runs.reset_index().sort_values("repeats", ascending=False).head(20)
        longest = evidence.iloc[0]
        message = (
            f"{len(part)} of the {len(timed)} timed frames of {source!r} repeat the frame before them while time goes "
            f"on; the longest freeze lasts {longest.repeats + 1:.0f} frames, from {longest.start:.3f} to "
            f"{longest.end:.3f}."
        )
        remedy = Remedy(
            f"Leave the {len(part)} repeats out: they teach that nothing moves.",
            "drop_duplicates",
            {"frames": list(part["frame"])},
        )
        # A tenth of a clip at a standstill is a tenth of its times shown wrong.
        severity = "warning" if share >= 0.1 else "info"
        names = tuple(part["frame"].head(20))
        found.append(Finding("frozen_clip", severity, message, evidence, "timeline", remedy, names))
    return found


def check_duplicates(survey: Survey) -> list[Finding]:
    """near_duplicates: frames that show the same picture, in no freeze."""
    table, found = known_duplicates(survey), []
    train = survey.frames[survey.frames["split"] == "train"]
    table = table[(table["run"] < _RUN) | table["same_time"]]
    for source, part in table.groupby("source", sort=False):
        of = int((train["source"] == source).sum())
        moved = part[~part["same_view"]]
        message = f"Of the {of} training frames of {source!r}, {len(part)} show the same picture as an earlier one"
        if len(moved):
            message += f", {len(moved)} of them under another camera: a picture or a pose is at the wrong frame"
        remedy = Remedy(f"Leave the repeats out ({len(part)}).", "drop_duplicates", {"frames": list(part["frame"])})
        # Repeats only shift the weights a little; the same picture from another pose is a wrong frame.
        severity = "error" if len(moved) > 0.1 * of else "warning" if len(moved) or len(part) > 0.1 * of else "info"
        evidence = part.sort_values("same_view").head(20)
        columns = ["frame", "of", "camera", "time", "rms", "same_view", "same_time"]
        names = tuple(evidence["frame"])
        found.append(Finding("near_duplicates", severity, message + ".", evidence[columns], "pictures", remedy, names))
    return found


# --- blurred -----------------------------------------------------------------------------------------------------


def measure_blur(survey: Survey) -> pd.DataFrame:
    """How much of the fine detail of its neighbours a frame has.

    `Survey.detail` minus the 1/2 of a picture without any, along x and y, over the median of the same among the frames
    next in time at its camera or, where the camera moves, in its source; without times, among its source. What
    the subject turns towards the camera changes it too: the spread within the group says by how much.

    Returns:
        one row a frame: frame, source, camera, split, time; x, y (detail kept along the picture's axes, 1 = as much as
        the neighbours); sharpness (the smaller); usual (the spread of its logarithm in the group: one standard
        deviation, from the median absolute deviation); smear_px (how long a smear would do that, roughly, at the
        capture's own size; at most 8); angle ("x", "y", "both": along what it is smeared). NaN where it has fewer than
        four neighbours, or these no fine detail.
    """
    frames = survey.frames
    table = frames[["frame", "source", "camera", "split", "time"]].copy()
    kept = np.full((len(survey), 2), np.nan)
    spread = np.full(len(survey), np.nan)
    fine = np.maximum(survey.detail - _FLOOR, 0.01)
    for rows, timed in _neighbourhoods(survey):
        some = fine[rows]
        known = ~np.isnan(some).any(1)
        rows, some = rows[known], some[known]
        if len(rows) < 5:
            continue
        if timed and len(rows) >= _NEIGHBOURS:
            usual = ndimage.median_filter(some, (_NEIGHBOURS, 1), mode="nearest")
        else:
            usual = np.median(some, axis=0)
        # What has hardly any fine detail cannot lose it.
        kept[rows] = np.where(usual > _LEAST, some / usual, np.nan)
        logs = np.log(kept[rows].min(1))
        if not np.isnan(logs).all():
            spread[rows] = 1.4826 * np.nanmedian(np.abs(logs - np.nanmedian(logs)))
    table["x"], table["y"] = kept.T
    table["sharpness"] = kept.min(1)
    table["usual"] = spread
    ratio = kept[:, 0] / kept[:, 1]
    # Box filters, measured on renders and on real video (which differ by a third): a scale to read, not a gauge.
    table["smear_px"] = np.interp(-table["sharpness"], [-1.0, -0.75, -0.48, -0.34, -0.18, -0.1], [0, 1, 2, 3, 5, 8])
    table["angle"] = np.where(ratio < 0.8, "x", np.where(ratio > 1.25, "y", "both"))
    return table


def _neighbourhoods(survey: Survey) -> list[tuple[np.ndarray, bool]]:
    """Rows that may be compared, in order of time where they have one."""
    frames, found = survey.frames, []
    times = frames["time"].to_numpy()
    for _, part in frames.groupby("source", sort=False):
        rows = part.index.to_numpy()
        still, timed = rows[np.isnan(times[rows])], rows[~np.isnan(times[rows])]
        found += [(still, False)] if len(still) else []
        if not len(timed):
            continue
        cameras = frames.loc[timed].groupby("camera", sort=False).indices.values()
        lines = [timed[part] for part in cameras]
        if max(len(line) for line in lines) < 5:  # a moving camera with names of its own: one line
            lines = [timed]
        found += [(line[np.argsort(times[line], kind="stable")], True) for line in lines]
    return found


def blurred(table: pd.DataFrame) -> np.ndarray:
    """[n] bool: less than `BLURRED` of its neighbours' detail, and further off than three times their spread."""
    low = table["sharpness"].to_numpy() < BLURRED
    return low & (np.log(table["sharpness"].to_numpy()) < -3 * table["usual"].to_numpy())


def check_blur(survey: Survey) -> list[Finding]:
    """motion_blur: frames that have lost fine detail that their neighbours have."""
    table, found = measure_blur(survey), []
    bad = table[blurred(table)]
    for (split, source), part in bad.groupby(["split", "source"], sort=False):
        of = int(((table["split"] == split) & (table["source"] == source)).sum())
        part = part.sort_values("sharpness")
        worst = part.iloc[0]
        way = {"x": "along the rows", "y": "along the columns", "both": "in both directions"}[worst["angle"]]
        message = (
            f"{len(part)} of the {of} {split} frames of {source!r} are blurred against their neighbours; the worst, "
            f"{worst['frame']!r}, keeps {100 * worst['sharpness']:.0f} % of the fine detail, lost {way}, as after a "
            f"smear of about {worst['smear_px']:.0f} pixels."
        )
        share = draws(survey)[part.index].sum() if split == "train" else len(part) / of
        remedy = Remedy(
            "Leave these frames out, or take sharper ones near them in time: a model of sharp pictures cannot match "
            "them."
            if split == "train"
            else "Hold sharper frames out: no model can be measured on these."
        )
        severity = "warning" if share >= 0.1 else "info"  # a tenth of what is trained, or judged, on
        columns = ["frame", "camera", "time", "sharpness", "x", "y", "smear_px", "usual"]
        names = tuple(part["frame"].head(20))
        found.append(Finding("motion_blur", severity, message, part[columns].head(20), "pictures", remedy, names))
    return found


CHECKS = (*masks.CHECKS, check_frozen, check_duplicates, check_blur)
