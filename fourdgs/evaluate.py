"""Held-out pictures against their truth: one row a frame, and means with honest intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .capture import Capture, true_pictures
from .errors import InputError
from .metrics import psnr_db, ssim
from .model import Model, render_chunks
from .runs import Run, read_info, update_info, write_table

COLUMNS = ("frame", "camera", "time", "source", "split", "psnr_db", "psnr_fg_db", "ssim")


def evaluate(
    run: Run | Model,
    capture: Capture,
    split: str | Sequence[str] | None = "test",
    source: str | Sequence[str] | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Render every frame of a split and measure it.

    Args:
        run: a finished run, whose ``metrics.csv`` then holds these rows too, or a bare model.
        capture: where the true pictures are; frames with alpha are set on the model's background.
        split, source: which frames; None means all.

    Returns:
        One row a frame: frame, camera, time, source, split, psnr_db, psnr_fg_db (foreground only, NaN for frames
        without alpha), ssim.

    Raises:
        InputError: no frame is selected.
    """
    begun = time.perf_counter()
    model = run.model if isinstance(run, Run) else run
    chosen = capture.select(split=split, source=source)
    device = model.gaussians.means.device
    rgb, alpha = chosen.pictures()
    truths = true_pictures(rgb, alpha, torch.tensor(model.background))
    rows, start = [], 0
    bar = tqdm(total=len(chosen), desc="evaluate", disable=not progress, leave=False)
    for output in render_chunks(model, chosen.cameras.to(device)):
        part = slice(start, start + len(output.rgb))
        start = part.stop
        truth = truths[part].float() / 255
        mask = None
        if alpha is not None:
            mask = alpha[part] > 127
            # A frame that is opaque all over has no mask, so no foreground is known.
            mask = mask & ~mask.flatten(1).all(1)[:, None, None]
        rendered = output.rgb.cpu()
        full, similar = psnr_db(rendered, truth), ssim(rendered, truth)
        front = torch.full_like(full, torch.nan) if mask is None else psnr_db(rendered, truth, mask)
        rows += list(zip(full.tolist(), front.tolist(), similar.tolist(), strict=True))
        bar.update(len(truth))
    bar.close()
    table = chosen.frames[list(COLUMNS[:5])].reset_index(drop=True)
    table[list(COLUMNS[5:])] = np.array(rows, dtype=np.float64).reshape(-1, 3)
    if isinstance(run, Run):
        _keep(run, table, time.perf_counter() - begun)
    return table


def _keep(run: Run, table: pd.DataFrame, seconds: float) -> None:
    """Add rows to a run's ``metrics.csv``; a frame measured again replaces its old row."""
    old = run.metrics
    if len(old):
        table = pd.concat([old[~old["frame"].isin(table["frame"])], table], ignore_index=True)
    write_table(run.path / "metrics.csv", table)
    phases = read_info(run.path).get("phases_s", {})
    phases["evaluate"] = round(phases.get("evaluate", 0.0) + seconds, 3)
    update_info(run.path, evaluated=len(table), phases_s=phases)


def bootstrap(
    values: np.ndarray, groups: Sequence, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """A percentile bootstrap interval of the mean that resamples whole groups (cameras), not frames or pixels.

    Frames of one camera err together; resampling them one by one would pretend to more evidence than there is
    (cluster bootstrap, Davison and Hinkley 1997, section 3.8).

    Args:
        values: [n]; groups: the group of each, [n].

    Returns:
        low, high; both NaN with fewer than two groups.
    """
    values = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    sums, counts = np.bincount(index, values), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summary(table: pd.DataFrame, by: Sequence[str] = ("source",), value: str = "psnr_db") -> pd.DataFrame:
    """Means of a metrics table by some of its columns, with 95 % intervals that resample cameras.

    Returns:
        A row a group: the columns of ``by``, mean, low, high, frames, cameras, and seeds where the table has them.
    """
    rows = []
    for names, group in table.groupby(list(by), sort=False, dropna=False):
        measured = group[np.isfinite(group[value])]
        low, high = bootstrap(measured[value].to_numpy(), measured["camera"])
        row = dict(zip(by, names, strict=True)) | {
            "mean": float(measured[value].mean()) if len(measured) else float("nan"),
            "low": low,
            "high": high,
            "frames": int(measured["frame"].nunique()),
            "cameras": int(measured["camera"].nunique()),
        }
        if "seed" in group:
            row["seeds"] = int(group["seed"].nunique())
        rows.append(row)
    return pd.DataFrame(rows)


def paired(first: pd.DataFrame, second: pd.DataFrame, value: str = "psnr_db") -> dict[str, float | int]:
    """The mean difference ``second - first`` over the frames that both tables hold, with its interval.

    Returns:
        mean, low, high (dB for PSNR), frames, cameras.

    Raises:
        InputError: the tables share no frame.
    """
    both = first.merge(second, on="frame", suffixes=("_first", "_second"))
    if not len(both):
        raise InputError("the two tables share no frame", remedy="evaluate both runs on the same split")
    difference = (both[f"{value}_second"] - both[f"{value}_first"]).to_numpy()
    low, high = bootstrap(difference, both["camera_first"])
    cameras = int(both["camera_first"].nunique())
    return {"mean": float(difference.mean()), "low": low, "high": high, "frames": len(both), "cameras": cameras}
