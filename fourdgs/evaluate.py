"""Held-out pictures against their truth: one row a frame, and means with honest intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .capture import Capture, true_pictures
from .errors import InputError
from .lpips import lpips, why_absent
from .metrics import psnr_db, ssim
from .model import Model, render_chunks
from .runs import Run, keep_metrics, truth_digests
from .unseen import Views, at_edge, kinds, read_views, training_views

__all__ = ["COLUMNS", "bootstrap", "bootstrap_means", "evaluate", "paired", "summary", "training_views"]
COLUMNS = ("frame", "camera", "time", "source", "split", "psnr_db", "psnr_fg_db", "ssim", "kind", "edge")


def evaluate(
    run: Run | Model,
    capture: Capture,
    split: str | Sequence[str] | None = "test",
    source: str | Sequence[str] | None = None,
    *,
    training: Capture | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Render every frame of a split and measure it.

    Args:
        run: a finished run, whose ``metrics.csv`` then holds these rows too, or a bare model.
        capture: where the true pictures are; frames with alpha are set on the model's background.
        split, source: which frames; None means all.
        training: the frames that a bare model was trained on, for ``kind`` and ``edge``; a run knows its own.

    Returns:
        One row a frame: frame, camera, time, source, split, psnr_db, psnr_fg_db (foreground only, NaN for frames
        without alpha), ssim, kind (one of `unseen.KINDS`: what of it training had not seen; NaN where the training
        frames are not known), edge (whether its camera looks from outside the training views, see `unseen.at_edge`),
        and lpips where its weights are on this machine; ``attrs["lpips"]`` says why not, where they are not.

    Raises:
        InputError: no frame is selected.
    """
    begun = time.perf_counter()
    model = run.model if isinstance(run, Run) else run
    chosen = capture.select(split=split, source=source)
    rgb, alpha = chosen.pictures()
    truths = true_pictures(rgb, alpha, torch.tensor(model.background))
    table = chosen.frames[list(COLUMNS[:5])].reset_index(drop=True)
    missing = why_absent()
    measured = _measure(model, chosen, truths, alpha, not missing, progress)
    table = pd.concat([table, measured[["psnr_db", "psnr_fg_db", "ssim"]]], axis=1)
    views = _views(run, training)
    positions = chosen.cameras.positions.double().cpu().numpy()
    table["kind"] = np.nan if views is None else kinds(views, positions, table["time"])
    table["edge"] = np.nan if views is None else at_edge(views, positions)
    if missing:
        table.attrs["lpips"] = missing
    else:
        table["lpips"] = measured["lpips"]
    if isinstance(run, Run):
        digests = truth_digests(truths, chosen.cameras)
        keep_metrics(run, table.assign(truth=digests), time.perf_counter() - begun)
    return table


def _measure(
    model: Model, chosen: Capture, truths: Tensor, alpha: Tensor | None, learned: bool, progress: bool
) -> pd.DataFrame:
    """psnr_db, psnr_fg_db, ssim, and lpips if ``learned``, of every frame; truths [n, H, W, 3], alpha [n, H, W]."""
    rows: list[tuple[Any, ...]] = []
    bar = tqdm(total=len(chosen), desc="evaluate", disable=not progress, leave=False)
    for output in render_chunks(model, chosen.cameras.to(model.gaussians.means.device)):
        part = slice(len(rows), len(rows) + len(output.rgb))
        truth = truths[part].float() / 255
        mask = None
        if alpha is not None:
            mask = alpha[part] > 127
            # A frame that is opaque all over has no mask, so no foreground is known.
            mask = mask & ~mask.flatten(1).all(1)[:, None, None]
        rendered = output.rgb.cpu()
        full, similar = psnr_db(rendered, truth), ssim(rendered, truth)
        front = torch.full_like(full, torch.nan) if mask is None else psnr_db(rendered, truth, mask)
        apart = lpips(rendered, truth) if learned else torch.full_like(full, torch.nan)
        rows += list(zip(full.tolist(), front.tolist(), similar.tolist(), apart.tolist(), strict=True))
        bar.update(len(truth))
    bar.close()
    return pd.DataFrame(rows, columns=["psnr_db", "psnr_fg_db", "ssim", "lpips"], dtype=np.float64)


def _views(run: Run | Model, training: Capture | None) -> Views | None:
    """The views that a model was trained on; None where nobody says, as with runs of before they were kept."""
    if training is not None:
        return read_views(training_views(training))
    described = run.info.get("views") if isinstance(run, Run) else None
    return None if described is None else read_views(described, run.path / "run.json")


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
    low, high = bootstrap_means(np.asarray(values)[:, None], groups, resamples=resamples, level=level, seed=seed)
    return float(low[0]), float(high[0])


def bootstrap_means(
    values: np.ndarray, groups: Sequence, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`bootstrap` of many columns at once, every one resampled alike: values [n, R] with NaN where one has no value.

    Returns:
        low, high: [R]; NaN where a column has values of fewer than two groups, or an infinite one.
    """
    values = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(len(names)))
    there = ~np.isnan(values)[order]
    sums, counts = (
        np.add.reduceat(part, starts, axis=0) for part in (np.where(there, values[order], 0), there.astype(np.float64))
    )  # [groups, R]
    low, high = np.full((2, values.shape[1]), np.nan)
    enough = ((counts > 0).sum(axis=0) > 1) & np.isfinite(sums).all(axis=0)
    # Columns that lack the same groups are resampled together, among the groups that they have.
    patterns, pattern_of = np.unique(counts[:, enough] > 0, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        columns, count = np.flatnonzero(enough)[pattern_of == number], int(pattern.sum())
        drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
        drawn += count * np.arange(resamples)[:, None]
        times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)
        means = (times @ sums[pattern][:, columns]) / (times @ counts[pattern][:, columns])
        low[columns], high[columns] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


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
