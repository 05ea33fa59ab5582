"""What a camera path looks like where nobody photographed it: flicker and ghosts, frame by frame."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .cameras import Cameras
from .errors import InputError
from .flicker import flicker
from .ghosts import ghosts
from .model import Model
from .runs import Run

DEFINITIONS = {
    "flicker": "difference to steady motion between the neighbouring frames, grey levels (`flicker.flicker`)",
    "ghost": "light from a second layer, share of the subject's light (`ghosts.ghosts`)",
    "see_through": "light from behind inside the silhouette, share (`ghosts.ghosts`)",
}


def path_quality(model: Run | Model, cameras: Cameras, *, progress: bool = True) -> pd.DataFrame:
    """Flicker and ghosting along a camera path, which held-out PSNR misses. No truth is needed.

    All three are relative: compare runs on the same path (as `fd.compare` does), not figures of different paths.

    Args:
        cameras: the path, of one picture size; flicker needs times that run along it.

    Returns:
        One row a frame: frame (number), time, and what `DEFINITIONS` says: flicker (NaN at the ends and without
        times), ghost, see_through.

    Raises:
        InputError: the path is empty.
    """
    if not len(cameras):
        raise InputError("the path has no camera", field="cameras", remedy="make one with fd.paths.orbit(frames=...)")
    table = pd.DataFrame({"frame": np.arange(len(cameras)), "time": cameras.times.double().cpu().numpy()})
    table["flicker"] = flicker(model, cameras, progress=progress)
    return pd.concat([table, ghosts(model, cameras, progress=progress)], axis=1)


def path_summary(table: pd.DataFrame) -> dict[str, float]:
    """Means and worst frames of a `path_quality` table.

    Returns:
        For each measure its mean and, as ``<measure>_worst``, its largest value; frames. No interval: frames of one
        path are no independent evidence.
    """
    found: dict[str, float] = {"frames": len(table)}
    for name in DEFINITIONS:
        found |= {name: float(table[name].mean()), f"{name}_worst": float(table[name].max())}
    return found
