"""Which frames may be compared: cameras that see one state of the subject, and which of them suffice."""

from __future__ import annotations

import numpy as np

from ..cameras import Cameras
from ..thinning import spread
from .epipolar import centres_of
from .survey import Survey


def pose_numbers(cameras: Cameras) -> np.ndarray:
    """[C] a number for each distinct camera (pose and lens, to a millionth), in the order of their first rows."""
    values = [cameras.viewmats.flatten(1), cameras.Ks.flatten(1), cameras.sizes]
    table = np.round(np.concatenate([value.double().cpu().numpy() for value in values], axis=1), 6) + 0.0
    _, first, number = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first, kind="stable"), kind="stable")[number.ravel()]


def moments(survey: Survey, rows: np.ndarray, fewest: int = 2) -> list[np.ndarray]:
    """Groups of rows that show the subject in one state, from distinct cameras, ``fewest`` at least.

    Rows of one source and one time (or none) make a group; where a source has no group, its rows are put together
    with those of other such sources at the same time.
    """
    numbers, frames = pose_numbers(survey.cameras), survey.frames
    sources, times = frames["source"].to_numpy(), frames["time"].round(6).fillna(-1.0).to_numpy()

    def groups(among: np.ndarray, keys: list[tuple]) -> list[np.ndarray]:
        found: dict[tuple, dict[int, int]] = {}
        for row, key in zip(among.tolist(), keys, strict=True):
            found.setdefault(key, {}).setdefault(int(numbers[row]), row)
        return [np.array(sorted(group.values())) for group in found.values() if len(group) >= fewest]

    rows = np.asarray(rows)
    first = groups(rows, list(zip(sources[rows], times[rows], strict=True)))
    served = {sources[group[0]] for group in first}
    rest = np.array([row for row in rows.tolist() if sources[row] not in served], dtype=np.int64)
    return first + groups(rest, list(times[rest]))


def some_moments(survey: Survey, groups: list[np.ndarray], most: int) -> list[np.ndarray]:
    """For each source at most so many rows: moments evenly over the time, whole where that is possible."""
    by_source: dict[str, list[np.ndarray]] = {}
    for group in groups:
        by_source.setdefault(survey.frames["source"].iloc[group[0]], []).append(group)
    chosen = []
    centres = centres_of(survey.cameras)
    for found in by_source.values():
        count = max(1, min(len(found), int(most / np.mean([len(group) for group in found]))))
        for index in spread(len(found), count):
            group = found[index]
            chosen.append(group[spread_out(centres[group], most // count)])
    return chosen


def spread_out(centres: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most so many cameras, each the farthest from those before it, in rising order."""
    if len(centres) <= most:
        return np.arange(len(centres))
    chosen = [0]
    distance = np.linalg.norm(centres - centres[0], axis=1)
    while len(chosen) < most:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(centres - centres[chosen[-1]], axis=1))
    return np.array(sorted(set(chosen)))


def some_pairs(centres: np.ndarray, most: int) -> np.ndarray:
    """[Q, 2] pairs of n cameras: all, or for each ``most`` others from the nearest to the farthest."""
    count = len(centres)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    far = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    order = np.argsort(far - np.eye(count), axis=1, kind="stable")[:, 1:]
    chosen = order[:, spread(count - 1, most)]
    return _unique(chosen)


def near_pairs(centres: np.ndarray, forwards: np.ndarray, most: int) -> np.ndarray:
    """[Q, 2] pairs of cameras that stand and look alike: each with its ``most`` nearest.

    Nearness is the distance in units of the cameras' spread, plus the angle between the axes in radians.
    """
    count = len(centres)
    extent = max(np.linalg.norm(centres - centres.mean(0), axis=1).max(initial=0.0), 1e-12)
    far = np.linalg.norm(centres[:, None] - centres[None], axis=-1) / extent
    far = far + np.arccos(np.clip(forwards @ forwards.T, -1, 1)) + np.diag(np.full(count, np.inf))
    return _unique(np.argsort(far, axis=1, kind="stable")[:, : min(most, count - 1)])


def _unique(partners: np.ndarray) -> np.ndarray:
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(partners) for j in row}
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
