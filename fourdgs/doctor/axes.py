"""Poses in the wrong convention: the mistakes that exporters make, what undoes each, and the evidence for it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..cameras import Cameras
from ..errors import InputError
from .epipolar import Matches, centres_of, disagreements_of, rays_of
from .silhouettes import Depths, explained

AXES = {
    "opengl_to_opencv": "the camera-to-world matrices have OpenCV axes (y down, z forward), not OpenGL's",
    "invert": "the matrices are world-to-camera, not camera-to-world",
    "invert_opencv": "the matrices are world-to-camera with OpenCV axes",
    "transpose_rotation": "the rotations are transposed, the positions are not",
    "positions_from_z_up": "the positions are those of a z-up world, the rotations are not",
    "positions_to_z_up": "the rotations are those of a z-up world, the positions are not",
}
"""What may be wrong with poses, by the name of what undoes it. Turning the whole world (z up for y up) is not among
them: it changes no picture."""

ENOUGH = 0.7
"""Poses under which so much agrees are no matter of conventions."""

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
_UP = {
    "positions_from_z_up": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "positions_to_z_up": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


def apply_axes(cameras: Cameras, how: str) -> Cameras:
    """Cameras whose files were written in another convention, as they were meant.

    Args:
        how: a key of `AXES`. "opengl_to_opencv", "invert" and "transpose_rotation" undo themselves, and the first
            gives back the very same numbers.

    Raises:
        InputError: ``how`` is none of `AXES`.
    """
    if how not in AXES:
        raise InputError(f"is {how!r}, must be one of {', '.join(AXES)}", field="how")
    views = cameras.viewmats.double().cpu().numpy()
    if how == "opengl_to_opencv":
        new = _FLIP @ views
    elif how == "invert":
        new = _FLIP @ _inverse(views) @ _FLIP
    elif how == "invert_opencv":
        new = _inverse(views) @ _FLIP
    else:
        poses = _inverse(views) @ _FLIP  # as in the file
        if how == "transpose_rotation":
            poses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1).copy()
        else:
            poses[:, :3, 3] = poses[:, :3, 3] @ _UP[how].T
        new = _FLIP @ _inverse(poses)
    # Adding nothing turns -0 into 0.
    return Cameras(torch.from_numpy(new + 0.0).to(cameras.device), cameras.Ks, cameras.sizes, cameras.times)


def _inverse(poses: np.ndarray) -> np.ndarray:
    """Of rigid motions [C, 4, 4]: the rotation's numbers stay as they are."""
    result = np.zeros_like(poses)
    result[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    result[:, :3, 3] = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    result[:, 3, 3] = 1
    return result


def silhouette_scores(depths: Depths, cameras: Cameras) -> pd.DataFrame:
    """How much of the silhouettes the others explain (median over cameras), as given and with each of `AXES` undone.

    The rest is tried only where less than `ENOUGH` is explained as given. Columns ``how`` ("" = as given), ``agree``.
    """
    rows = [("", float(np.median(explained(depths, cameras))))]
    if rows[0][1] < ENOUGH:
        for how in AXES:
            rows.append((how, float(np.median(explained(depths, apply_axes(cameras, how))))))
    return pd.DataFrame(rows, columns=["how", "agree"])


def match_scores(matches: Matches, tolerance_px: float = 2.0) -> pd.DataFrame:
    """The share of matches that meet to ``tolerance_px`` before both cameras, as `silhouette_scores` gives it."""
    rows = [("", _meeting(matches, matches.cameras, tolerance_px))]
    if rows[0][1] < ENOUGH:
        for how in AXES:
            rows.append((how, _meeting(matches, apply_axes(matches.cameras, how), tolerance_px)))
    return pd.DataFrame(rows, columns=["how", "agree"])


def _meeting(matches: Matches, cameras: Cameras, tolerance_px: float) -> float:
    centres = centres_of(cameras)
    found, shares = disagreements_of(matches, cameras), []
    for (first, second), points in zip(matches.pairs.tolist(), matches.points, strict=True):
        at = (found.first == first) & (found.second == second)
        if not at.any():
            continue
        rays, _ = rays_of(cameras[[first, second]], points.transpose(1, 0, 2))
        base = centres[second] - centres[first]
        # Where the rays a and b come nearest: base = s a - t b, least squares; both s and t must be ahead.
        a, b = rays
        ab, da, db = (a * b).sum(-1), a @ base, b @ base
        # Far points have s and t near infinity of either sign, so rays within a pixel of parallel count as ahead.
        parallel = (1 - ab**2) * float(cameras.Ks[first, 0, 0]) ** 2 < 1
        ahead = ((da - ab * db > 0) & (ab * da - db > 0)) | (parallel & (ab > 0))
        shares.append(ahead.mean() * (np.abs(found.error_px[at]) < tolerance_px).mean())
    return float(np.mean(shares)) if shares else float("nan")
