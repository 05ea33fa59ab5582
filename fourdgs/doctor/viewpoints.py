"""Where the cameras of a capture stand about what they look at, and which frames count as one view, or one time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..gaussians import look_at_point
from ..thinning import spread
from .survey import Survey, remembered

FAR_DEG = 25.0
"""Views further apart have next to nothing in common that a picture could tie them by: no combination of detector and
descriptor finds matches reliably past 25 to 30 degrees (Moreels and Perona, "Evaluation of features detectors and
descriptors based on 3D objects", IJCV 2007)."""

CELL = 1 / 24
"""Times nearer than this are one to the motion model: `Deform` has 24 columns in time."""

NARROW_DEG = math.degrees(math.atan(10 / 128))
"""4.5 degrees. With two views this far apart an error of a thumbnail's pixel (1/128 of the picture) moves a point by a
tenth of the subject's size in depth: size / 128 / tan(angle). Closer views say next to nothing about depth."""

SAME_NAME_DEG = 5.0
"""Frames under one camera name that stray less are one camera with noisy poses; with more, it is a moving camera."""

_SAME_DISTANCE = 0.1


@dataclass(frozen=True, eq=False)
class Viewpoints:
    """The frames of a survey, as seen from the point that their cameras look at.

    Attributes:
        focus: [3] the point nearest to all optical axes, least squares over distinct poses (`look_at_point`).
        radius: of the ball about it that most cameras see whole, world units.
        directions: [n, 3] unit vectors from the focus to the cameras. distances: [n] world units.
        view: [n] number of the view; frames share one where their cameras have one name, or stand so near to each
            other that the subject's depth shifts their pictures by less than a thumbnail's pixel.
        time: [n] number of the moment, counted along time; -1 where a frame has no time. Frames share one where they
            are less than half the usual step of the quickest camera apart (and half of `CELL`), so that cameras that
            are not quite synchronised still meet.
        means: [views, 3] the direction of each view.
    """

    focus: np.ndarray
    radius: float
    directions: np.ndarray
    distances: np.ndarray
    view: np.ndarray
    time: np.ndarray
    means: np.ndarray

    def views(self, rows: np.ndarray) -> np.ndarray:
        """The distinct views among some rows."""
        return np.unique(self.view[rows])

    def extent_deg(self, rows: np.ndarray) -> float:
        """The largest angle between two directions among some rows, degrees; 0 for one view."""
        some = self.means[self.views(rows)]
        return float(angles_deg(some, some).max()) if len(some) > 1 else 0.0

    def nearest_deg(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """[test] the angle from each test row to the nearest of the train rows' views, degrees; 0 without any."""
        if not len(test) or not len(train):
            return np.zeros(len(test))
        return angles_deg(self.directions[test], self.means[self.views(train)]).min(axis=1)


def standing(survey: Survey, rows: np.ndarray) -> np.ndarray:
    """[rows] bool: whether a frame's view is there, in at least three of the rows, for over half of the rows' time."""
    view = viewpoints(survey).view[rows]
    times = survey.frames["time"].to_numpy()[rows]
    stands = np.zeros(len(rows), bool)
    for one in np.unique(view):
        mine = view == one
        stands[mine] = mine.sum() >= 3 and np.ptp(times[mine]) > np.ptp(times) / 2
    return stands


def angles_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles between all pairs of unit vectors [a, 3] and [b, 3], degrees [a, b]."""
    return np.degrees(np.arccos(np.clip(first @ second.T, -1, 1)))


def steps_deg(directions: np.ndarray) -> np.ndarray:
    """Angles between neighbours in a list of unit vectors [m, 3], degrees [m - 1]."""
    # By the chord: the arc cosine of nearly one is noise.
    chord = np.linalg.norm(np.diff(directions, axis=0), axis=-1)
    return np.degrees(2 * np.arcsin(np.minimum(1.0, chord / 2)))


def viewpoints(survey: Survey) -> Viewpoints:
    """The viewpoints of a survey; worked out once, and kept while the survey lives."""
    return remembered(survey, "viewpoints", lambda: _viewpoints(survey))


def _viewpoints(survey: Survey) -> Viewpoints:
    cameras = survey.cameras
    # A clip of one camera must not outvote the others, so each pose is asked once.
    poses = np.round(cameras.viewmats.double().cpu().numpy().reshape(len(survey), 16), 5)
    once = np.sort(np.unique(poses, axis=0, return_index=True)[1])
    focus, radius = look_at_point(survey.capture.select(rows=once))
    offsets = cameras.positions.double().cpu().numpy() - focus
    distances = np.linalg.norm(offsets, axis=1)
    directions = offsets / np.maximum(distances, 1e-12)[:, None]
    view = _views(survey, directions, distances)
    sums = np.zeros((view.max() + 1, 3))
    np.add.at(sums, view, directions)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1), 1e-12)[:, None]
    times = survey.frames["time"].to_numpy(dtype=np.float64)
    return Viewpoints(
        focus.astype(np.float64), radius, directions, distances, view, _moments(times, view), means
    )  # fmt: skip


def _views(survey: Survey, directions: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """See `Viewpoints.view`."""
    forwards = survey.cameras.forwards.double().cpu().numpy()
    focal = survey.cameras.Ks[:, 0, 0].double().cpu().numpy()
    turned = np.arctan(survey.cameras.sizes[:, 0].double().cpu().numpy() / 2 / focal) / 2  # a quarter of the field
    # A point at the subject's rim stands about size / 2 pixels from the axis; a step of 2 / size shifts it by one.
    near = math.cos(2 / max(survey.size, 16))
    names = survey.frames["camera"].to_numpy()
    units: list[np.ndarray] = []
    for rows in survey.frames.groupby("camera", sort=False).indices.values():
        mean = directions[rows].mean(axis=0)
        strays = directions[rows] @ (mean / max(np.linalg.norm(mean), 1e-12))
        fixed = strays.min() >= math.cos(math.radians(SAME_NAME_DEG))
        units += [np.asarray(rows)] if fixed else [np.array([row]) for row in rows]
    view = np.zeros(len(names), np.int64)
    leaders = np.zeros(len(units), np.int64)  # rows of the first frame of each view
    count = 0
    for rows in units:
        row = rows[0]
        some = leaders[:count]
        same = (directions[some] @ directions[row] >= near) & (
            np.abs(np.log(np.maximum(distances[some], 1e-12) / max(distances[row], 1e-12))) < _SAME_DISTANCE
        )
        same &= forwards[some] @ forwards[row] >= math.cos(turned[row])
        if same.any():
            view[rows] = int(np.argmax(same))
            continue
        leaders[count], view[rows] = row, count
        count += 1
    return view


def _moments(times: np.ndarray, view: np.ndarray) -> np.ndarray:
    """See `Viewpoints.time`."""
    moment = np.full(len(times), -1, np.int64)
    timed = np.flatnonzero(~np.isnan(times))
    if not len(timed):
        return moment
    steps = []
    for one in np.unique(view[timed]):
        gaps = np.diff(np.unique(times[timed][view[timed] == one]))
        gaps = gaps[gaps > 1e-6]
        steps += [float(np.median(gaps))] if len(gaps) else []
    near = min([CELL / 2] + [0.45 * step for step in steps]) if steps else 1e-4  # not quite half: cameras may alternate
    values, inverse = np.unique(times[timed], return_inverse=True)
    numbers = np.zeros(len(values), np.int64)
    start = values[0]
    for index in range(1, len(values)):
        new = values[index] - start > near
        start = values[index] if new else start
        numbers[index] = numbers[index - 1] + new
    moment[timed] = numbers[inverse]
    return moment


def draws(survey: Survey) -> np.ndarray:
    """[n] how large a share of the training steps each frame gets; 0 outside split train. Sums to 1."""
    frames = survey.frames
    weight = frames["weight"].to_numpy(dtype=np.float64) if "weight" in frames else np.ones(len(frames))
    weight = np.where(frames["split"] == "train", weight, 0.0)
    return weight / max(weight.sum(), 1e-300)


def effective_number(shares: np.ndarray) -> float:
    """How many equally large shares would be as even: exp of the entropy (Hill number of order 1; Hill, 1973)."""
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def quoted(names: list[str], most: int = 3) -> str:
    """Names in a sentence: 'a', 'b' and 4 more."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def some_names(survey: Survey, rows: np.ndarray, most: int = 20) -> tuple[str, ...]:
    """Names of at most so many of the rows, spread over them."""
    rows = np.asarray(rows)
    return tuple(survey.frames["frame"].iloc[rows[spread(len(rows), most)]]) if len(rows) else ()
