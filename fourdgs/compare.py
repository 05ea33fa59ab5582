"""Runs side by side on the same held-out frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .capture import Capture
from .model import render
from .pictures import composite
from .runs import Run


class Views(NamedTuple):
    """Some held-out frames: the truth, and what each run makes of them."""

    titles: list[str]  # the frames' sources
    truths: list[np.ndarray]  # [H, W, 3] in [0, 1]
    pictures: list[tuple[str, list[np.ndarray]]]  # by run: its pictures of these frames
    notes: dict[str, list[str]]  # by run: the PSNR of each picture, as text


def held_out_views(runs: Mapping[str, Run], capture: Capture, per_source: int = 2) -> Views:
    """A few held-out frames of every source under every run, each at the time at which the run was measured.

    Args:
        runs: evaluated runs by the name that they are to have.
        per_source: frames of each source, spread over it.
    """
    test = capture.select(split="test")
    groups = test.frames.groupby("source", sort=False).indices.values()
    rows = [group[len(group) * k // (per_source + 1)] for group in groups for k in range(per_source)]
    picked = test.select(rows=rows)
    background = np.asarray(next(iter(runs.values())).model.background, np.float32)
    truths = [composite(picked.image(i), picked.alpha(i), background) for i in range(len(picked))]
    pictures, notes = [], {}
    for name, run in runs.items():
        measured = run.metrics.set_index("frame").loc[picked.frames["frame"]]
        cameras = picked.cameras.with_times(measured["time"].to_numpy())
        pictures.append((name, list(render(run.model, cameras).rgb.clamp(0, 1).numpy())))
        notes[name] = [f"{value:.1f} dB" for value in measured["psnr_db"]]
    return Views(picked.frames["source"].tolist(), truths, pictures, notes)
