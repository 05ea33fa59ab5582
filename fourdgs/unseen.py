"""What a held-out frame has that training had not: another camera, time, or both; inside the rig or at its edge.

Decided against the training frames themselves, not by the names of splits or sources. A run keeps them in its
``run.json`` as `training_views` writes them, so that a frame can be told apart long after the capture has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .capture import Capture
from .errors import InputError
from .gaussians import look_at_point

TRAINING, CAMERA, TIME, BOTH, PAIR = (
    "training frame", "held-out camera", "held-out time", "held-out both", "held-out pair",
)  # fmt: skip
KINDS = (TRAINING, CAMERA, TIME, BOTH, PAIR)
"""Where a frame stands to the training set. ``held-out pair``: both its camera and its time were trained, but apart."""

SAME_VIEW = 0.02
"""Cameras are one view where their centres are nearer than this share of the distance to the subject (1.1 degrees as
seen from it): on the strict side, since a held-out camera beside a training camera tests nothing. Where a camera looks
does not count: turning about its centre shows no other side of anything."""

SAME_TIME = 1e-4
"""Times nearer than this are one: less than half a step of any clip of up to 5,000 frames. No time is a time of its
own: it is the canonical scene."""

LOCAL_DEG = 60.0
"""Only training views this near surround a held-out one: what faces it is foreshortened to half in them."""


class Views(NamedTuple):
    """The distinct views of a training set."""

    focus: np.ndarray  # [3] the point that the cameras look at
    distance: float  # the median distance of the views from it, world units
    names: list[str]  # [V] of the cameras
    positions: np.ndarray  # [V, 3] camera centres, world
    times: list[np.ndarray]  # [V] of the times seen from each, NaN for frames without one

    @property
    def directions(self) -> np.ndarray:
        """[V, 3] unit vectors from the focus to the views."""
        return _unit(self.positions - self.focus)

    @property
    def spacing_deg(self) -> float:
        """The median angle from a view to its nearest neighbour, seen from the focus; 0 for fewer than two."""
        if len(self.positions) < 2:
            return 0.0
        cosines = self.directions @ self.directions.T
        np.fill_diagonal(cosines, -1)
        return float(np.degrees(np.median(np.arccos(np.clip(cosines.max(axis=1), -1, 1)))))


def training_views(capture: Capture) -> dict[str, Any]:
    """The views and times of some frames, as compact JSON: a line a view, runs of consecutive times as ``0-120``.

    Returns:
        ``focus`` and ``distance`` (world units), ``times`` (the distinct ones, in order), and ``views``: ``x y z |
        indices into times, or none | camera``.
    """
    focus, _ = look_at_point(capture)
    positions = capture.cameras.positions.double().cpu().numpy()
    distance = float(np.median(np.linalg.norm(positions - focus, axis=1)))
    times = capture.frames["time"].to_numpy(dtype=np.float64)
    distinct = np.unique(times[~np.isnan(times)])
    view, leaders = _merge(positions, SAME_VIEW / 4 * distance)
    lines = []
    for number, leader in enumerate(leaders):
        mine = times[view == number]
        seen = ["none"] if np.isnan(mine).any() else []
        seen += _spans(np.searchsorted(distinct, np.unique(mine[~np.isnan(mine)])))
        name = str(capture.frames["camera"].iloc[leader])
        lines.append(f"{_numbers(positions[leader])} | {' '.join(seen)} | {name}")
    return {"focus": _numbers(focus), "distance": float(f"{distance:.6g}"), "times": _numbers(distinct), "views": lines}


def read_views(described: Mapping[str, Any], file: Any = None) -> Views:
    """What `training_views` wrote.

    Raises:
        InputError: it is damaged.
    """
    try:
        times = np.array(described["times"].split(), dtype=np.float64)
        names, positions, seen = [], [], []
        for line in described["views"]:
            place, spans, name = line.split(" | ", 2)
            mine = [np.nan] if "none" in spans else []
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", spans):
                mine += times[int(first) : int(last or first) + 1].tolist()
            names.append(name)
            positions.append(np.array(place.split(), dtype=np.float64))
            seen.append(np.array(mine))
        focus = np.array(described["focus"].split(), dtype=np.float64)
        views = Views(focus, float(described["distance"]), names, np.stack(positions), seen)
        if views.positions.shape[1:] != (3,) or focus.shape != (3,):
            raise ValueError("a place does not have three coordinates")
        return views
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = "train the run again"
        raise InputError(f"cannot be read: {error}", file=file, field="views", remedy=remedy) from error


def kinds(views: Views, positions: np.ndarray, times: Sequence[float]) -> list[str]:
    """Where each frame stands to the training set, one of `KINDS`.

    Args:
        positions: [n, 3] camera centres, world. times: [n], NaN for none.
    """
    reach = SAME_VIEW * views.distance
    known = np.unique(np.concatenate(views.times))
    answers = []
    for place, time in zip(np.asarray(positions, np.float64), times, strict=True):
        near = np.flatnonzero(np.linalg.norm(views.positions - place, axis=1) < reach)
        if any(_has(views.times[view], time) for view in near):
            answers.append(TRAINING)
        elif _has(known, time):
            answers.append(PAIR if len(near) else CAMERA)
        else:
            answers.append(TIME if len(near) else BOTH)
    return answers


def at_edge(views: Views, positions: np.ndarray) -> np.ndarray:
    """Whether cameras look from outside the hull of the training views: extrapolated, where others are interpolated.

    The hull is taken of directions from the focus (the cone that they span), of the training views within `LOCAL_DEG`
    only, so that a ring does not surround what looks straight down on it. A camera is at the edge where it is further
    outside than half the usual step between neighbouring training views, which is how far from its nearest neighbour
    a camera in between may be: a ring is a thin hull.

    Args:
        positions: [n, 3] camera centres, world.

    Returns:
        [n] bool.
    """
    train = views.directions
    margin = max(views.spacing_deg / 2, np.degrees(SAME_VIEW))
    return np.array([_outside_deg(train, one) > margin for one in _unit(np.asarray(positions) - views.focus)], bool)


def _outside_deg(train: np.ndarray, direction: np.ndarray) -> float:
    local = train[train @ direction > np.cos(np.radians(LOCAL_DEG))]
    if not len(local):
        return 90.0
    from scipy.optimize import nnls  # slow to import

    _, rest = nnls(local.T, direction)  # the nearest point of the cone; the rest is the sine of the angle to it
    return float(np.degrees(np.arcsin(min(rest, 1.0))))


def _merge(positions: np.ndarray, near: float) -> tuple[np.ndarray, list[int]]:
    """The view of each row, [n], and the first row of each view; rows nearer than ``near`` to it belong to it."""
    view, leaders = np.empty(len(positions), np.int64), []
    for row, place in enumerate(positions):
        apart = np.linalg.norm(positions[leaders] - place, axis=1) if leaders else np.empty(0)
        if len(apart) and apart.min() < near:
            view[row] = apart.argmin()
        else:
            view[row] = len(leaders)
            leaders.append(row)
    return view, leaders


def _has(times: np.ndarray, time: float) -> bool:
    return bool(np.isnan(times).any()) if np.isnan(time) else bool((np.abs(times - time) < SAME_TIME).any())


def _spans(indices: np.ndarray) -> list[str]:
    """Increasing whole numbers as ``["0-4", "7"]``."""
    if not len(indices):
        return []
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return [f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts]


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in np.asarray(values, np.float64) + 0.0)  # no "-0"


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
