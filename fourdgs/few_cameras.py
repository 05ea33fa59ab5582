"""The settings for captures of few cameras: what the ablation shows to help, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from .capture import Capture
from .choose_motion import choose_motion
from .config import TrainConfig
from .gaussians import VIEWS

HELPS = {"init": "auto", "sh_degree": 0, "random_background": True}
"""On ten still views (``benchmarks/few_cameras_results.csv``): starting where colours agree, as "auto" does where it
can, colours without SH and random backgrounds. Left at their defaults, since they did no good there: round Gaussians,
DropGaussian, covisibility weights, refined poses, exploration noise, SH of degree 1, an early end."""

CLIP = {"motion": "bones", "canonical": "stills", "warmup": 0.5, "sampling": "balanced"}
"""With a clip of few cameras beside still views: the scene from the stills alone, motion of few rigid parts."""


def few_cameras(capture: Capture, base: TrainConfig | None = None) -> TrainConfig:
    """A config for training frames of few cameras.

    With still views (frames without a time, of 3 cameras or more) beside frames with times: `CLIP`. With still views
    alone: static. Else the motion model that `choose_motion` finds. In all cases `HELPS`; random backgrounds
    change nothing where frames have no masks.

    Args:
        base: the other settings, by default those of ``TrainConfig()``.
    """
    base = TrainConfig() if base is None else base
    frames = capture.frames
    timeless = frames["time"].isna().to_numpy()
    if timeless.all():
        motion = {"motion": "static"}
    elif frames["camera"][timeless].nunique() >= VIEWS:
        motion = CLIP
    else:
        motion = {"motion": choose_motion(capture).name}
    return replace(base, **HELPS, **motion)
