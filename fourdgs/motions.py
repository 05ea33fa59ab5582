"""The motion models by name, and how one starts out on a capture."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from .basis import Basis, knots_for
from .bones import Bones
from .capture import Capture
from .config import TrainConfig
from .errors import InputError
from .motion import Deform, Motion, Static
from .rigged import Rigged
from .velocity import Velocity

if TYPE_CHECKING:
    from .rig.base import Rig

MOTIONS: dict[str, type[Motion]] = {model.name: model for model in (Static, Deform, Velocity, Basis, Bones, Rigged)}


def make_motion(name: str, settings: dict) -> Motion:
    """A motion model by its name.

    Raises:
        InputError: no model has that name.
    """
    if name not in MOTIONS:
        raise InputError(f"{name!r} is unknown", field="motion", remedy=f"use {' or '.join(MOTIONS)}")
    return MOTIONS[name](**settings)


def motion_for(
    config: TrainConfig, capture: Capture, centre: np.ndarray, radius: float, rig: Rig | Rigged | None = None
) -> Motion:
    """The motion model of a config for training frames of a scene about ``centre`` [3], ``radius`` wide (world units).

    Times between training times are what the models must get right, so their freedom in time follows the capture's.

    Args:
        rig: what drives the Gaussians of the motion ``rig``; it is copied.

    Raises:
        InputError: the motion ``rig`` without a rig, or frames with times and a rig without a track.
    """
    times = capture.frames["time"].dropna().unique()
    if config.motion == Rigged.name:
        return _rigged(rig, capture, bool(len(times)))
    still = bool(capture.frames["time"].isna().any())
    settings: dict = {"seed": config.seed, "radius": radius}
    if config.motion == "static":
        settings = {}
    elif config.motion == "deform":
        settings |= {"centre": centre.tolist()}
    elif config.motion == "velocity":
        # Frames without a time see each Gaussian at its own moment: one for all, or they'd see a mixture of moments.
        interval = 1 / max(len(times) - 1, 1)
        settings |= {
            "shortest": min(0.5 * interval, 0.1), "duration": config.duration or None, "spread": 0.0 if still else 1.0
        }  # fmt: skip
    elif config.motion == "basis":
        settings |= {"trajectories": config.trajectories, "knots": knots_for(len(times))}
    elif config.motion == "bones":
        settings |= {"bones": config.bones, "knots": knots_for(len(times))}
    return make_motion(config.motion, settings)


def _rigged(rig: Rig | Rigged | None, capture: Capture, timed: bool) -> Rigged:
    if rig is None:
        raise InputError("is 'rig', and there is no rig", field="motion", remedy="give train(..., rig=load_rig(path))")
    motion = copy.deepcopy(rig) if isinstance(rig, Rigged) else Rigged(copy.deepcopy(rig))
    if timed and not len(motion.track_times):
        what = "some frames have a time, and the rig has no track that says how it stands then"
        remedy = "give Rigged(rig, track=(times, values)), or train on the frames without a time only"
        raise InputError(what, file=capture.root, field="rig", remedy=remedy)
    return motion
