"""The motion models by name, and how one starts out on a capture."""

from __future__ import annotations

import numpy as np

from .basis import Basis, knots_for
from .capture import Capture
from .config import TrainConfig
from .errors import InputError
from .motion import Deform, Motion, Static
from .velocity import Velocity

MOTIONS: dict[str, type[Motion]] = {model.name: model for model in (Static, Deform, Velocity, Basis)}


def make_motion(name: str, settings: dict) -> Motion:
    """A motion model by its name.

    Raises:
        InputError: no model has that name.
    """
    if name not in MOTIONS:
        raise InputError(f"{name!r} is unknown", field="motion", remedy=f"use {' or '.join(MOTIONS)}")
    return MOTIONS[name](**settings)


def motion_for(config: TrainConfig, capture: Capture, centre: np.ndarray, radius: float) -> Motion:
    """The motion model of a config for training frames of a scene about ``centre`` [3], ``radius`` wide (world units).

    Times between training times are what the models must get right, so their freedom in time follows the capture's.
    """
    times = capture.frames["time"].dropna().unique()
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
    return make_motion(config.motion, settings)
