"""Which motion model suits a capture, from its cameras, its times and how much its pictures change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .capture import Capture, true_pictures
from .gaussians import VIEWS, look_at_point
from .thinning import spread

# Measured (benchmarks/README.md): few views with stills beside them, bones 1.4 dB above basis and deform; one view at a
# time from a moving camera, basis 0.9 dB above deform; 24 views, deform. Where between them to change is a guess.

STILL_DB = 40.0
"""A fixed camera whose pictures their own mean explains so well shows noise, not motion: 40 dB is an RMS error of 2.5
of 255, what a camera's noise and a video's coding leave."""

WIDE_DEG = 10.0
"""Where each frame has a time and a camera of its own, and neighbours in time are further apart than this, times are
labels on stills rather than a video: a hand-held camera moves a degree or two a frame."""

FEW_VIEWS = 4
"""With fewer views at a time most of what moves is seen from one side, and only shared trajectories tie the rest."""

MANY_VIEWS = 12
"""With so many, each moment could nearly be reconstructed by itself, and free Gaussians are held by the pictures."""

FAR_DB = 20.0
"""Where the mean picture explains no more than this, things move by more than their own size, appear and go: too far
for one canonical scene to follow."""

SAME_PLACE = 1e-3
"""Cameras whose view matrices differ by less, in radians and in distances to what they look at, are one view."""

_PICTURES = 16  # over time, of one camera
_WIDTH = 160  # pixels: noise is averaged away, motion is not


@dataclass(frozen=True)
class Choice:
    """A motion model's name, and one sentence that says why."""

    name: str
    reason: str


def choose_motion(capture: Capture) -> Choice:
    """The motion model for a capture (its training frames): static, deform, velocity, basis or bones.

    Reads at most a few pictures, of one fixed camera over time where there is such a camera.

    Raises:
        InputError: one of these pictures cannot be read.
    """
    times = capture.frames["time"].to_numpy()
    timed = np.flatnonzero(~np.isnan(times))
    moments = np.unique(times[timed].round(4), return_inverse=True)[1]
    if not len(timed):
        return Choice("static", "No frame has a time, so there is no motion to learn.")
    if moments.max() == 0:
        return Choice("static", "All frames with a time have the same one, so there is no motion to learn.")
    views = _views(capture)[timed]
    pairs = np.unique(np.stack([moments, views]), axis=1)
    per_moment, per_view = np.bincount(pairs[0]), np.bincount(pairs[1])
    if per_view.max() == 1 and per_moment.max() == 1:
        step = _step_deg(capture, timed[np.argsort(times[timed], kind="stable")])
        if step > WIDE_DEG:
            return Choice(
                "static",
                f"Every frame has a time and a camera of its own, {step:.0f} degrees from the next: what moves cannot "
                "be told from what the cameras see from elsewhere.",
            )
    change = _still_db(capture, timed, moments, views)
    if change >= STILL_DB:
        return Choice("static", f"Nothing moves: a still picture explains a fixed camera's frames to {change:.0f} dB.")
    stills = len(np.unique(_views(capture)[np.isnan(times)]))
    return _by_views(int(np.median(per_moment)), stills, change)


def _by_views(views: int, stills: int, change: float) -> Choice:
    """By the usual views at a time, the still ones, and the mean picture's PSNR (NaN: no fixed camera)."""
    seen = f"{views} view{'s' if views > 1 else ''} at a time"
    if views < FEW_VIEWS and stills >= VIEWS:
        return Choice(
            "bones",
            f"With {seen} and {stills} still views, the stills give the shape, and few rigid parts take what no camera "
            'sees along (few_cameras also sets canonical="stills").',
        )
    if views < FEW_VIEWS:
        return Choice(
            "basis",
            f"With {seen}, a few trajectories that all Gaussians share keep what no camera sees from drifting.",
        )
    if views >= MANY_VIEWS and change < FAR_DB:
        return Choice(
            "velocity",
            f"With {seen} and motion so large that a still picture explains a fixed camera's frames to {change:.0f} "
            "dB only, Gaussians that fly and fade freely are held by the pictures.",
        )
    return Choice("deform", f"With {seen}, a field over space and time is seen from enough sides to be learned.")


def _views(capture: Capture) -> np.ndarray:
    """[n] number of the view of each frame: frames of one pose share it, whatever their cameras are called."""
    viewmats = capture.cameras.viewmats.double().cpu().numpy()[:, :3].copy()
    centre, _ = look_at_point(capture)
    distance = np.linalg.norm(capture.cameras.positions.double().cpu().numpy() - centre, axis=1)
    viewmats[:, :, 3] /= max(float(np.median(distance)), 1e-12)
    return np.unique((viewmats.reshape(-1, 12) / SAME_PLACE).round(), axis=0, return_inverse=True)[1].reshape(-1)


def _step_deg(capture: Capture, rows: np.ndarray) -> float:
    """The median angle between the cameras of neighbouring rows, at the point that they look at, degrees."""
    centre, _ = look_at_point(capture)
    offsets = capture.cameras.positions.double().cpu().numpy()[rows] - centre
    directions = offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-12)
    chords = np.linalg.norm(np.diff(directions, axis=0), axis=1)
    return float(np.median(np.degrees(2 * np.arcsin(np.minimum(1, chords / 2)))))


def _still_db(capture: Capture, rows: np.ndarray, moments: np.ndarray, views: np.ndarray) -> float:
    """PSNR of the mean over time of the pictures that one fixed camera sees; NaN where no camera is fixed.

    Of the view of one source with most moments, since sources may differ in background and colour. The variance is the
    unbiased one, so that few pictures do not look stiller than many.
    """
    sources = capture.frames["source"].to_numpy()[rows]
    best: np.ndarray = rows[:0]
    for view, source in sorted(set(zip(views.tolist(), sources.tolist(), strict=True))):
        mine = np.flatnonzero((views == view) & (sources == source))
        mine = mine[np.unique(moments[mine], return_index=True)[1]]
        if len(mine) > len(best):
            best = rows[mine]
    if len(best) < 2:
        return math.nan
    some = capture.select(rows=best[spread(len(best), _PICTURES)])
    width, height = (int(size) for size in some.cameras.sizes[0])
    share = min(1.0, _WIDTH / width)
    some = some.resized(max(1, round(width * share)), max(1, round(height * share)))
    seen = true_pictures(*some.pictures(), torch.ones(3)).float() / 255  # [T, h, w, 3]
    return -10 * math.log10(max(float(seen.var(dim=0).mean()), 1e-10))
