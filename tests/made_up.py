"""Runs that were never trained, for the tests of what is done with runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fourdgs import TrainConfig
from fourdgs.files import hash_file


def measured(level: float, *, frames: int = 24, cameras: int = 6, seed: int = 0, noise: float = 0.3) -> pd.DataFrame:
    """Metrics about a level: the difficulty of a frame is the same whatever the seed; four more frames were trained on.

    Returns:
        As in ``metrics.csv``: ``frames`` held-out frames of ``cameras`` cameras.
    """
    hard = np.random.default_rng(123).normal(scale=3, size=frames + 4)
    values = level + hard - hard[:frames].mean() + noise * np.random.default_rng(seed).normal(size=frames + 4)
    train = np.arange(frames + 4) >= frames
    return pd.DataFrame(
        {
            "frame": [f"{'train' if t else 'test'}/still/{i:04d}" for i, t in enumerate(train)],
            "camera": [f"cam{i % cameras:02d}" for i in range(frames + 4)],
            "time": np.nan,
            "source": "still",
            "split": np.where(train, "train", "test"),
            "psnr_db": values,
            "psnr_fg_db": values - 5,
            "ssim": 0.9,
            "truth": [f"{i:016x}" for i in range(frames + 4)],
        }
    )


def made_up_run(path: Path, metrics: pd.DataFrame | None = None, **changes) -> Path:
    """The folder of a finished run whose model is a few bytes; ``changes`` go into its ``run.json``."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(path.name.encode())
    info = {
        "state": "finished",
        "format": 2,
        "config": TrainConfig(iterations=8, gaussians=60).to_dict(),
        "capture": {"name": "made-up", "digest": "c" * 64, "frames": 4, "sources": {"still": 4}, "size": [8, 8]},
        "code": {"fourdgs": "0.1.0", "commit": "d" * 40, "dirty": False},
        "started": "2026-11-20T10:00:00+00:00",
        "ended": "2026-11-20T10:01:00+00:00",
        "phases_s": {"train": 50.0, "evaluate": 2.0},
        "gaussians": 60,
        "model_sha256": hash_file(path / "model.safetensors"),
    }
    (path / "run.json").write_text(json.dumps(info | changes))
    if metrics is not None:
        metrics.to_csv(path / "metrics.csv", index=False)
    return path
