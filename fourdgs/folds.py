"""Leave-one-camera-out: splits that hold every camera out once, and what they say beside a single held-out frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .capture import Capture
from .errors import InputError
from .evaluate import bootstrap
from .gaussians import look_at_point
from .runs import Run

_COINCIDENT = 1e-3  # chord on the unit sphere below which two cameras count as one place


def folds(capture: Capture, k: int = 6, seed: int = 0) -> list[Capture]:
    """The capture split ``k`` times, so that every camera is held out in exactly one fold.

    All frames of a camera are held out together: a frame beside its neighbour in time is no test. Every frame given
    takes part, whatever its split was, so select before (``capture.select(source="orbit")``). The cameras of a fold
    stand as far apart as they can: on a ring each fold is an even ring, and no two neighbours are held out at once
    (where ``k`` is at least 2), so what is held out is interpolated from both sides.

    Args:
        k: folds, from 2 to the number of cameras, where it is leave-one-camera-out (Stone 1974) proper.
        seed: with which camera the dealing starts; another seed is another partition where ``k`` does not divide the
            cameras evenly, and otherwise the same one in another order.

    Returns:
        k captures of all the frames, with split ``test`` on the fold's cameras and ``train`` on the others.

    Raises:
        InputError: fewer than two folds, or more folds than cameras.
    """
    names = list(dict.fromkeys(capture.frames["camera"]))
    if not 2 <= int(k) <= len(names):
        remedy = "give frames from different views camera names of their own" if len(names) < 2 else "lower k"
        raise InputError(f"is {k}, with {len(names)} cameras it must be from 2 to that", field="k", remedy=remedy)
    fold = dict(zip(names, _deal(_directions(capture, names), int(k), seed), strict=True))
    numbers = capture.frames["camera"].map(fold)
    return [capture.with_split(np.where(numbers == number, "test", "train").tolist()) for number in range(int(k))]


def fold_summary(tables: Sequence[Run | pd.DataFrame], value: str = "psnr_db") -> dict[str, float | int]:
    """What the folds say together, beside what one held-out frame would have said.

    Args:
        tables: the finished runs of the folds (their held-out rows are read), or their tables from `fd.evaluate`.
            Frames measured more than once (several seeds) are averaged first.

    Returns:
        mean, low, high: over all held-out frames, with the 95 % interval that resamples cameras (`bootstrap`; that
        the folds share most of their training frames is not in it: no estimator of that variance is unbiased, Bengio
        and Grandvalet 2004). one_low, one_high: the lowest and the highest figure that a single held-out frame would
        have given, and one_sd the standard deviation over which frame it is. frames, cameras, folds.

    Raises:
        InputError: no held-out row, or a frame that two folds held out under different cameras.
    """
    held = []
    for number, table in enumerate(tables):
        table = table.metrics if isinstance(table, Run) else table
        if len(table):
            held.append(table[table["split"] == "test"].assign(_fold=number))
    rows = pd.concat(held, ignore_index=True) if held else pd.DataFrame(columns=["frame", "camera", value, "_fold"])
    rows = rows[np.isfinite(rows[value].astype(float))]
    if not len(rows):
        raise InputError("no fold has a held-out frame that was measured", remedy="fd.evaluate each with split='test'")
    if rows.groupby("frame")["camera"].nunique().max() > 1:
        raise InputError("a frame has different cameras in two tables", remedy="give the folds of one capture")
    each = rows.groupby(["frame", "camera"], as_index=False)[value].mean()
    values = each[value].to_numpy()
    low, high = bootstrap(values, each["camera"])
    return {
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "one_low": float(values.min()),
        "one_high": float(values.max()),
        "one_sd": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        "frames": len(each),
        "cameras": int(each["camera"].nunique()),
        "folds": int(rows["_fold"].nunique()),
    }


def fold_sentence(name: str, figures: Mapping[str, float | int], unit: str = "dB") -> str:
    """`fold_summary` in a Markdown sentence."""
    return (
        f"{name}: **{figures['mean']:.1f} {unit}** [{figures['low']:.1f}, {figures['high']:.1f}] over "
        f"{figures['frames']} held-out frames of {figures['cameras']} cameras in {figures['folds']} folds; a single "
        f"held-out frame would have said anything from {figures['one_low']:.1f} to {figures['one_high']:.1f} {unit} "
        f"(standard deviation {figures['one_sd']:.1f})."
    )


def _directions(capture: Capture, names: list[str]) -> np.ndarray:
    """[n, 3] unit vectors from the point that the cameras look at to the mean place of each."""
    focus, _ = look_at_point(capture)
    places = pd.DataFrame(capture.cameras.positions.double().cpu().numpy() - focus)
    means = places.groupby(capture.frames["camera"].to_numpy()).mean().loc[names].to_numpy()
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _deal(directions: np.ndarray, k: int, seed: int) -> np.ndarray:
    """[n] the fold of each direction: dealt out in turn along the azimuth, then swapped while that spreads the folds.

    The measure of spread is the energy of like charges on a sphere (Thomson's problem), within folds only. Dealing is
    already the best on a ring; swaps are what spreads folds over several rings or a dome.
    """
    count = len(directions)
    axis = np.linalg.svd(directions - directions.mean(axis=0))[2][-1]
    side = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    azimuth = np.arctan2(directions @ np.cross(axis, side), directions @ side)
    order = np.roll(np.lexsort((directions @ axis, np.round(azimuth, 6))), -(seed % count))
    fold = np.empty(count, np.int64)
    fold[order] = np.arange(count) % k
    charge = 1 / np.maximum(np.linalg.norm(directions[:, None] - directions[None], axis=-1), _COINCIDENT)
    np.fill_diagonal(charge, 0)
    for _ in range(20 * count):
        member = np.eye(k)[fold]  # [n, k]
        felt = charge @ member  # [n, k] the potential of each fold at each camera
        own = felt[np.arange(count), fold]
        other = felt[:, fold]  # [n, n]: at i, of the fold of j
        change = other + other.T - 2 * charge - own[:, None] - own[None]
        change[fold[:, None] == fold[None]] = 0
        best = np.unravel_index(change.argmin(), change.shape)
        if change[best] >= -1e-9:
            break
        fold[list(best)] = fold[list(best[::-1])]
    return fold
