"""The settings for captures of few cameras: what the ablation shows to help, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .capture import Capture
from .choose_motion import choose_motion
from .config import TrainConfig
from .gaussians import VIEWS

HELPS = {"init": "surface", "sh_degree": 0, "random_background": True}
"""On ten still views (``benchmarks/few_cameras_results.csv``): starting where colours agree, colours without SH and
random backgrounds. Left at their defaults, since they did no good there: round Gaussians, DropGaussian, covisibility
weights, refined poses, exploration noise, SH of degree 1, an early end."""

CLIP = {"motion": "bones", "canonical": "stills", "warmup": 0.5, "sampling": "balanced"}
"""With a clip of few cameras beside still views: the scene from the stills alone, motion of few rigid parts."""


def few_cameras(capture: Capture, base: TrainConfig | None = None) -> TrainConfig:
    """A config for training frames of few cameras.

    With still views (frames without a time, of 3 cameras or more) beside frames with times: `CLIP`. With still views
    alone: static. Else the motion model that `choose_motion` finds. In all cases what of `HELPS` the capture allows:
    random backgrounds change nothing, and the surface is not sought, where frames have no masks.

    Args:
        base: the other settings, by default those of ``TrainConfig()``.
    """
    base = TrainConfig() if base is None else base
    frames = capture.frames
    timeless = frames["time"].isna().to_numpy()
    changes = HELPS | ({} if capture.has_alpha else {"init": "auto"})
    if timeless.all():
        changes = changes | {"motion": "static"}
    elif frames["camera"][timeless].nunique() >= VIEWS:
        changes = changes | CLIP
    else:
        changes = changes | {"motion": choose_motion(capture).name}
    if changes["init"] == "surface" and not _masked_at_one_moment(capture):
        changes["init"] = "auto"
    return replace(base, **changes)


def _masked_at_one_moment(capture: Capture) -> bool:
    """Whether enough cameras see one moment, so that a surface can be looked for."""
    frames = capture.frames
    moments = frames["time"].fillna(-1.0).to_numpy()
    return bool(max(frames["camera"][moments == moment].nunique() for moment in np.unique(moments)) >= VIEWS)
