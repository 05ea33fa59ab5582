"""Flicker: what changes from frame to frame beyond what steady motion, or the truth, explains.

Held-out PSNR looks at frames one by one, so a surface that trembles about its true place loses little of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from .cameras import Cameras
from .capture import Capture, true_pictures
from .errors import InputError
from .gaussians import Gaussians
from .model import Model, render_chunks, render_gaussians
from .runs import Run

LEVELS = 255.0  # figures are in grey levels of 8 bits


@torch.no_grad()
def flicker(model: Run | Model, cameras: Cameras, *, progress: bool = True) -> np.ndarray:
    """How far each frame of a path is from what steady motion between its neighbours would show, in grey levels.

    Each Gaussian is put where it would be at the frame's time on its way between where it is at the times of the
    frames before and after (position, turn, log scale, opacity and colour), and this is rendered from the frame's own
    camera. The mean absolute difference to the frame, over the channels and the pixels that the subject covers in
    either, is the flicker. It is the second difference in time, taken of the scene and weighed by the picture: no
    optical flow to be estimated as in the warping error of Lai et al. (ECCV 2018, section 4), nothing that the
    camera's motion, occlusion or resampling could add, and 0 for whatever stands still or moves evenly.

    Limits: the figure belongs to a path and its frame rate (a quarter of the step leaves a sixteenth of a smooth
    acceleration, but all of a tremble), so compare runs on one path; true acceleration counts, so hold a figure
    against `temporal_error` or another run, not against 0; popping as the camera turns is not in it.

    Args:
        cameras: the path, [C], with times.

    Returns:
        [C]; NaN where a frame has no neighbours, no time, or time turns back there.
    """
    model = model.model if isinstance(model, Run) else model
    device = model.gaussians.means.device
    background = torch.tensor(model.background, device=device)
    times = cameras.times.double().cpu()
    found = np.full(len(cameras), np.nan)
    for index in tqdm(range(1, len(cameras) - 1), desc="flicker", disable=not progress, leave=False):
        before, now, after = times[index - 1 : index + 2].tolist()
        if not (now - before) * (after - now) >= 0:  # a NaN, too
            continue
        camera = cameras[index].to(device)
        here = model.at(torch.tensor([now], device=device, dtype=torch.float32))
        sides = model.at(torch.tensor([before, after], device=device, dtype=torch.float32))
        share = 0.5 if after == before else (now - before) / (after - before)
        pictures, alphas = zip(
            *(render_gaussians(scene, camera, background) for scene in (here, _between(sides, share))), strict=True
        )
        seen = torch.maximum(*alphas)[..., 0] > 0.5  # [1, H, W]
        difference = (pictures[0].clamp(0, 1) - pictures[1].clamp(0, 1)).abs().mean(-1)
        if bool(seen.any()):
            found[index] = LEVELS * float(difference[seen].double().mean())
    return found


def _between(sides: Gaussians, share: float) -> Gaussians:
    """One set of Gaussians, [1, N, ...], at ``share`` of the way from the first of two to the second."""
    mixed = {key: torch.lerp(value[:1], value[1:], share) for key, value in sides.items().items()}
    turns = functional.normalize(sides.quats, dim=-1)
    # q and -q are one rotation; halfway between unit quaternions is halfway along the turn.
    sign = (turns[:1] * turns[1:]).sum(-1, keepdim=True).sign() + 0.5
    mixed["quats"] = torch.lerp(turns[:1], turns[1:] * sign.sign(), share)
    return Gaussians(**mixed)


@torch.no_grad()
def temporal_error(
    model: Run | Model,
    capture: Capture,
    split: str | Sequence[str] | None = "test",
    source: str | Sequence[str] | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """The change from one frame of a camera to its next, against the true change, where there is a truth.

    In the manner of tLP (Chu et al., ACM Transactions on Graphics 39, 2020, section 5), which holds the change between
    rendered frames against that between true ones, with absolute differences of pixels in LPIPS's place. A still error
    cancels out; what trembles, lags or stands still where it should move does not.

    Args:
        capture: frames of fixed cameras at several times; those of one camera are taken in order of time.

    Returns:
        One row a camera: camera, pairs (of frames), change and true_change (mean absolute change), error (mean
        absolute difference of the two changes); grey levels, over the pixels that the true subject covers in either
        frame (all, where there is no alpha).

    Raises:
        InputError: no camera has two frames with different times.
    """
    model = model.model if isinstance(model, Run) else model
    chosen = capture.select(split=split, source=source)
    rows = []
    groups = chosen.frames[chosen.frames["time"].notna()].groupby("camera", sort=False).groups
    groups = {name: list(index) for name, index in groups.items() if chosen.frames.loc[index, "time"].nunique() > 1}
    if not groups:
        remedy = "give frames of a fixed camera at several times"
        raise InputError("no camera has frames at two times", file=capture.root, field="time", remedy=remedy)
    for name, index in tqdm(groups.items(), desc="temporal error", disable=not progress, leave=False):
        order = sorted(index, key=lambda row: chosen.frames.loc[row, "time"])
        one = chosen.select(rows=order)
        rgb, alpha = one.pictures()
        truth = true_pictures(rgb, alpha, torch.tensor(model.background)).float() / 255
        made = torch.cat([part.rgb.clamp(0, 1).cpu() for part in render_chunks(model, one.cameras)])
        seen = torch.ones(truth.shape[:3], dtype=torch.bool) if alpha is None else alpha > 127
        rows.append({"camera": name, "pairs": len(one) - 1} | _changes(made, truth, seen[1:] | seen[:-1]))
    return pd.DataFrame(rows)


def _changes(made: Tensor, truth: Tensor, seen: Tensor) -> dict[str, float]:
    """Mean absolute changes of frames [n, H, W, 3] and their disagreement, grey levels, over ``seen`` [n - 1, H, W]."""
    made, truth = made.double().diff(dim=0), truth.double().diff(dim=0)
    parts = {"change": made, "true_change": truth, "error": made - truth}
    return {key: LEVELS * float(value.abs().mean(-1)[seen].mean()) for key, value in parts.items()}
