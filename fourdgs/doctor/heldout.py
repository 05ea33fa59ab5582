"""Whether the held-out frames can carry a figure: enough of them, unseen in training, and of one size with the rest."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from .finding import Finding, Remedy
from .survey import Survey
from .viewpoints import quoted, some_names, viewpoints

CAMERA_SD_DB = 2.0
"""How much PSNR scatters from one held-out camera to the next: 0.9 to 2.8 dB over the 19 rows of the project's own
reports, 2.1 dB root mean square."""

SAME_LEVELS, SAME_PEAK = 0.5, 3
"""Thumbnails that differ by less, mean and maximum in grey levels, are one picture: rounding, or saved once more."""

_SKETCH = 16


# --- enough ---


def interval_db(cameras: int, scatter_db: float = CAMERA_SD_DB) -> float:
    """Half the width of the 95 % interval of a mean PSNR over so many held-out cameras, dB; inf for fewer than two.

    Student's t with cameras - 1 degrees of freedom, times the scatter over sqrt(cameras): frames of one camera share
    its difficulty, so it is cameras that count.
    """
    if cameras < 2:
        return math.inf
    from scipy.stats import t as student  # slow to import, for one number

    return float(student.ppf(0.975, cameras - 1) * scatter_db / math.sqrt(cameras))


def measure_held_out(survey: Survey) -> pd.DataFrame:
    """One row a source of split test: source, frames, cameras (distinct views), times, still (frames without one),
    interval_db (`interval_db` of its cameras)."""
    points, test = viewpoints(survey), survey.test
    frames = survey.frames.iloc[test]
    rows = []
    for source, mine in frames.groupby("source", sort=False).indices.items():
        views = len(points.views(test[mine]))
        times = points.time[test[mine]]
        row = {"source": source, "frames": len(mine), "cameras": views, "times": len(np.unique(times[times >= 0]))}
        rows.append(row | {"still": int((times < 0).sum()), "interval_db": interval_db(views)})
    return pd.DataFrame(rows, columns=["source", "frames", "cameras", "times", "still", "interval_db"])


def check_held_out(survey: Survey) -> list[Finding]:
    """no_held_out: nothing to measure on. held_out_thin: so few cameras that the figure could be anywhere.

    A warning where the interval is wider than 3 dB either way (4 cameras and fewer), which is more than most choices
    in training make; info where it is wider than the scatter of single cameras (5 and 6).
    """
    if not len(survey.train):
        return []
    if not len(survey.test):
        validation = int((survey.frames["split"] == "val").sum())
        message = (
            f"None of the {len(survey)} frames is held out for testing, so nothing can be said about views or times "
            "that were not trained."
        )
        text = "Hold out whole cameras (every eighth, say), not frames of cameras that train."
        if validation:
            text = f"The {validation} frames of split val could serve, where nothing was chosen by them. Else: " + text
        splits = survey.frames.groupby("split").size().reset_index(name="frames")
        return [Finding("no_held_out", "warning", message, splits, "coverage", Remedy(text))]
    evidence = measure_held_out(survey)
    cameras = len(viewpoints(survey).views(survey.test))
    half = interval_db(cameras)
    if half <= CAMERA_SD_DB:
        return []
    frames = f"{len(survey.test)} held-out frame" + ("s" if len(survey.test) > 1 else "")
    if cameras == 1:
        message = (
            f"{frames} of one camera: its PSNR has no interval, since another camera may differ by "
            f"{CAMERA_SD_DB:.0f} dB or more."
        )
    else:
        message = (
            f"{frames} of {cameras} cameras: the interval of their mean PSNR would be about +-{half:.1f} dB wide "
            f"(cameras scatter by {CAMERA_SD_DB:.0f} dB)."
        )
    text = "Hold out at least 7 cameras, or report each frame alone and call it by its name."
    severity = "warning" if half > 3 else "info"
    names = some_names(survey, survey.test)
    return [Finding("held_out_thin", severity, message, evidence, "coverage", Remedy(text), names)]


# --- unseen ---


def measure_leaks(survey: Survey) -> pd.DataFrame:
    """Held-out frames that training shows: one row a pair, with the first reason that holds.

    Returns:
        frame, train_frame, why: ``file`` (one file), ``picture`` (thumbnails as good as equal: see `SAME_LEVELS`; of
        each held-out frame the 8 nearest are compared), or ``camera and time`` (poses equal to a hundredth of a
        thumbnail's pixel and one time, or none in both).
    """
    names = survey.frames["frame"].to_numpy()
    pairs: dict[tuple[int, int], str] = {}
    for found, why in (
        (_same_file(survey), "file"),
        (_same_picture(survey), "picture"),
        (_same_place(survey), "camera and time"),
    ):
        for pair in found:
            pairs.setdefault(pair, why)
    rows = [(names[test], names[train], why) for (test, train), why in sorted(pairs.items())]
    return pd.DataFrame(rows, columns=["frame", "train_frame", "why"])


def _same_file(survey: Survey) -> list[tuple[int, int]]:
    images, names = survey.frames["image"].to_numpy(), survey.frames["frame"]
    # A picture in memory stands in for its file and may be another one.
    real = [bool(image) and name not in survey.capture.memory for image, name in zip(images, names, strict=True)]
    train: dict[str, list[int]] = {}
    for row in survey.train[np.array(real, bool)[survey.train]]:
        train.setdefault(images[row], []).append(int(row))
    return [(int(row), other) for row in survey.test if real[row] for other in train.get(images[row], [])]


def _same_picture(survey: Survey) -> list[tuple[int, int]]:
    """By a sketch of 16 x 16 grey cells first; candidates are compared at full thumbnail size."""
    test, train = survey.test, survey.train
    if not len(test) or not len(train):
        return []
    sketches = {int(row): _sketch(survey, row) for row in (*test, *train)}
    known = np.stack([sketches[int(row)] for row in train])
    squares = (known**2).sum(axis=1)
    pairs = []
    for row in test:
        sketch = sketches[int(row)]
        square = squares + (sketch**2).sum() - 2 * known @ sketch
        # A cell's mean never differs by more than a pixel in it; and a rounding.
        near = np.flatnonzero(square <= len(sketch) * SAME_PEAK**2 + 1.0)
        # Of a clip in which little moves all are near; the same picture is among the nearest of them.
        near = train[near[np.argsort(square[near], kind="stable")[:8]]]
        pairs += [(int(row), int(other)) for other in near if _equal(survey, row, other)]
    return pairs


def _sketch(survey: Survey, row: int) -> np.ndarray:
    grey = 255 * survey.over(row).mean(axis=-1)
    lines = [np.linspace(0, size, _SKETCH + 1).astype(int)[:-1] for size in grey.shape]
    sums = np.add.reduceat(np.add.reduceat(grey, lines[0], axis=0), lines[1], axis=1)
    areas = np.outer(*(np.diff(np.append(line, size)) for line, size in zip(lines, grey.shape, strict=True)))
    return (sums / np.maximum(areas, 1)).ravel()


def _equal(survey: Survey, first: int, second: int) -> bool:
    if survey.rgb[first].shape != survey.rgb[second].shape:
        return False
    difference = 255 * np.abs(survey.over(first) - survey.over(second))
    return bool(difference.mean() < SAME_LEVELS and difference.max() <= SAME_PEAK)


def _same_place(survey: Survey) -> list[tuple[int, int]]:
    times = survey.frames["time"].to_numpy(dtype=np.float64)
    scale = max(float(np.median(viewpoints(survey).distances)), 1e-12)
    views = survey.cameras.viewmats.double().cpu().numpy()
    centres = survey.cameras.positions.double().cpu().numpy() / scale
    near = 0.02 / survey.size  # radians, or distances in units of the subject's: a hundredth of a pixel at the rim
    pairs, train = [], survey.train
    for row in survey.test:
        still = np.isnan(times[row])
        same = np.isnan(times[train]) if still else np.abs(times[train] - times[row]) < 1e-6
        same &= np.linalg.norm(centres[train] - centres[row], axis=1) < near
        same &= np.linalg.norm(views[train, :3, :3] - views[row, :3, :3], axis=(1, 2)) < near
        pairs += [(int(row), int(other)) for other in train[same]]
    return pairs


def check_leaks(survey: Survey) -> list[Finding]:
    """held_out_leaked: training shows held-out frames."""
    leaks = measure_leaks(survey)
    if not len(leaks):
        return []
    each = leaks.drop_duplicates("frame")
    ways = {"file": "the same file", "picture": "the same picture", "camera and time": "the same camera and time"}
    counts = ", ".join(f"{count} by {ways[why]}" for why, count in each["why"].value_counts().items())
    message = (
        f"{len(each)} of {len(survey.test)} held-out frames are in the training set too ({counts}), so the figure "
        f"measures memory: {quoted(list(each['frame']))}."
    )
    text = "Take the held-out frames out of the training set."
    remedy = Remedy(text, "drop_leaked", {"frames": list(pd.unique(leaks["train_frame"]))})
    names = tuple(each["frame"].head(20))
    return [Finding("held_out_leaked", "error", message, leaks.head(20), "pictures", remedy, names)]


# --- sizes ---


def check_resolution(survey: Survey) -> list[Finding]:
    """mixed_resolution: an error among the frames of a split, which is trained or measured at one size; else info."""
    frames = survey.frames.iloc[np.concatenate([survey.train, survey.test])]
    sizes = frames.groupby(["width", "height"]).size().reset_index(name="frames")
    if len(sizes) < 2:
        return []
    sizes = sizes.sort_values("frames", ascending=False, ignore_index=True)
    usual = sizes.iloc[0]
    shape = usual["width"] / usual["height"]
    alike = sizes[(sizes["width"] / sizes["height"] / shape - 1).abs() < 0.02]
    # Enlarging invents detail, so all go to the smallest that has the usual shape.
    width, height = (int(value) for value in alike.sort_values("width")[["width", "height"]].iloc[0])
    listed = ", ".join(f"{row.width}x{row.height} ({row.frames})" for row in sizes.head(4).itertuples())
    mixed = [split for split, part in frames.groupby("split") if len(part[["width", "height"]].drop_duplicates()) > 1]
    if mixed:
        message = f"The frames of split {' and '.join(mixed)} have different sizes, and go in at one: {listed}."
    else:
        message = f"Held-out frames have another size than training frames, so figures do not compare: {listed}."
    text = f"Resize all to {width}x{height}."
    if len(alike) < len(sizes):
        strange = [f"{row.width}x{row.height}" for row in sizes.itertuples() if row.Index not in alike.index]
        text += f" {quoted(strange)} have another shape: their pixels will not be square, which the cameras allow for."
    remedy = Remedy(text, "resize", {"width": width, "height": height})
    odd = frames.index[((frames["width"] != usual["width"]) | (frames["height"] != usual["height"])).to_numpy()]
    names, severity = some_names(survey, odd.to_numpy()), "error" if mixed else "info"
    return [Finding("mixed_resolution", severity, message, sizes.head(20), "pictures", remedy, names)]


CHECKS = (check_held_out, check_leaks, check_resolution)
