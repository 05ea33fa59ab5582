"""What each remedy is worth with few cameras: rows of an ablation, trained and measured under one protocol.

The protocol: the final checkpoint, several seeds, frames that no row has trained on, full frame and foreground,
interior and edge cameras apart, floaters along a path, and static 3DGS beside everything that moves.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from . import story
from .capture import Capture, true_pictures
from .config import TrainConfig
from .errors import InputError
from .evaluate import bootstrap, evaluate
from .floaters import floaters
from .metrics import psnr_db, quantise
from .model import render_chunks
from .runs import Run, write_table
from .train import train

PLAIN = {"init": "box", "sh_degree": 3, "opacity_penalty": 0.0, "scale_penalty": 0.0}
"""Static 3DGS as it is usually trained, but with relocation under a fixed budget in the place of its densification."""

HELD_OUT = ("still", "talking")


@dataclass(frozen=True)
class Trial:
    """A row of an ablation: what it trains on, and what it changes.

    Attributes:
        frames: of the training split: orbit (still views, no time), untouched (and the clip as it comes), story (the
            same, the stills at times of their own), clip (and the clip as the doctor's remedies leave it).
    """

    name: str
    label: str
    frames: str = "orbit"
    settings: Mapping[str, Any] = field(default_factory=dict)


_RGB = {"init": "surface"}
_STILLS = {"canonical": "stills", "warmup": 0.5, "sampling": "balanced"}
_BONES = _STILLS | {"motion": "bones"}
_RESTING = _STILLS | {"rest_penalty": 1.0}

STILLS: tuple[Trial, ...] = (
    Trial("plain", "static 3DGS: random box, SH of degree 3", settings=PLAIN),
    Trial("hull", "+ points from the visual hull", settings=PLAIN | {"init": "hull"}),
    Trial("surface", "+ points from where colours agree", settings=PLAIN | {"init": "surface"}),
    Trial("rgb", "+ colours without SH", settings=PLAIN | {"init": "surface", "sh_degree": 0}),
    Trial("base", "+ penalties on opacity and scale", settings=_RGB),
    Trial("sh1", "base, SH of degree 1", settings=_RGB | {"sh_degree": 1}),
    Trial("isotropic", "base, round Gaussians", settings=_RGB | {"isotropic": True}),
    Trial("drop", "base, DropGaussian 0.2", settings=_RGB | {"drop": 0.2}),
    Trial("backgrounds", "base, random backgrounds", settings=_RGB | {"random_background": True}),
    Trial("covisibility", "base, covisibility weights", settings=_RGB | {"covisibility": 0.75}),
    Trial("poses", "base, poses refined (prior 0.1 degrees)", settings=_RGB | {"pose_prior_deg": 0.1}),
    Trial("penalties", "base, penalties ten times", settings=_RGB | {"opacity_penalty": 0.01, "scale_penalty": 0.01}),
    Trial("exploration", "base, exploration noise", settings=_RGB | {"noise": 1.0}),
    Trial("fewer", "base, a third of the Gaussians", settings=_RGB | {"gaussians": "third"}),
    Trial("early", "base, ends when a validation camera says so", settings=_RGB | {"patience": 3}),
)
"""Ten still views: remedies of static 3DGS, those up to base each on top of the one before."""

CLIP: tuple[Trial, ...] = (
    Trial("orbit", "static, without the clip", settings=_RGB),
    Trial("static", "static", "clip", {"sampling": "balanced"}),
    Trial("story", "deform, as the story trained it", "story", {"motion": "deform", "init": "auto"}),
    Trial("deform", "deform, uniform sampling", "clip", {"motion": "deform"}),
    Trial("deform_balanced", "+ balanced sampling", "clip", {"motion": "deform", "sampling": "balanced"}),
    Trial(
        "deform_rest",
        "+ penalty on distances moved",
        "clip",
        {"motion": "deform", "sampling": "balanced", "rest_penalty": 1.0},
    ),
    Trial("deform_stills", "+ the scene from stills alone", "clip", _RESTING | {"motion": "deform"}),
    Trial("basis_stills", "basis, the same", "clip", _RESTING | {"motion": "basis"}),
    Trial("velocity_stills", "velocity, the same", "clip", _RESTING | {"motion": "velocity"}),
    Trial("bones_all", "bones, all frames teach the scene", "clip", {"motion": "bones", "sampling": "balanced"}),
    Trial("bones", "bones, the scene from stills alone", "clip", _BONES),
    Trial("bones_backgrounds", "+ random backgrounds", "clip", _BONES | {"random_background": True}),
    Trial("bones_colour", "bones, colours of the clip learned", "clip", _BONES | {"source_look": "colour"}),
    Trial(
        "bones_raw",
        "bones, raw clip, its look learned",
        "untouched",
        _BONES | {"source_look": "smooth"},
    ),
)
"""Ten still views and a talking clip of one camera: how motion is kept from harming, and made to help."""


def training_frames(capture: Capture, trial: Trial, remedied: Capture | None = None) -> Capture:
    """The frames that a trial trains on.

    Args:
        remedied: orbit and clip after the doctor's remedies; by default they are applied here.
    """
    if trial.frames == "orbit":
        return capture.select(split="train", source="orbit")
    both = capture.select(split="train", source=["orbit", "clip"])
    if trial.frames == "untouched":
        return both
    if trial.frames == "story":
        times = both.frames["time"].to_numpy(copy=True)
        stills = np.flatnonzero(np.isnan(times))
        times[stills] = np.linspace(0, 1, len(stills))
        return both.with_times(times)
    return story.doctored(both) if remedied is None else remedied


def trial_config(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The settings of a trial: the base, with its changes."""
    changes = dict(trial.settings)
    if changes.get("gaussians") == "third":
        changes["gaussians"] = base.gaussians // 3
    if "patience" in changes:
        changes["evaluate_every"] = max(1, base.iterations // 40)
    return replace(base, **changes)


def measure(
    capture: Capture,
    frames: Capture,
    config: TrainConfig,
    out: Path,
    *,
    sources: Sequence[str] = HELD_OUT,
    validation: Capture | None = None,
    subject: Capture | None = None,
    moving: Mapping[str, np.ndarray] | None = None,
    **more: Any,
) -> pd.DataFrame:
    """Train a run and measure it on held-out sources: a row each.

    Args:
        subject: still frames with masks, whose hull floaters are told by.
        moving: [H, W] bool by frame, what moves in the picture: gives ``psnr_moving_db``.

    Returns:
        source, frames, cameras, psnr_db with its interval low_db and high_db (over cameras), psnr_fg_db, ssim,
        psnr_interior_db and psnr_edge_db, seconds, views, gaussians, psnr_train_db, outside, specks, depth_outliers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(frames, config, out, validation=validation if config.patience else None, progress=False, **more)
    info = {
        "gaussians": int(run.info["gaussians"]),
        "views": config.iterations * config.batch,
        "seconds": float(run.info["phases_s"]["train"]),
        "psnr_train_db": float(evaluate(run, frames, split=None, progress=False).psnr_db.mean()),
    }
    rows = []
    for source in sources:
        held_out = capture.select(split="test", source=source)
        table = evaluate(run, held_out, progress=False)
        air = floaters(run, held_out.cameras, subject, progress=False).mean()
        rows.append({"source": source} | _means(table) | info | air[["outside", "specks", "depth_outliers"]].to_dict())
        if moving is not None:
            rows[-1]["psnr_moving_db"] = _psnr_within(run, held_out, moving)
    return pd.DataFrame(rows)


def _means(table: pd.DataFrame) -> dict[str, float]:
    """Of a metrics table: the mean PSNR with its interval over cameras, and that of interior and of edge cameras."""
    low, high = bootstrap(table["psnr_db"].to_numpy(), table["camera"])
    edge = table["edge"].astype(bool)
    return {
        "frames": len(table),
        "cameras": int(table["camera"].nunique()),
        "psnr_db": float(table["psnr_db"].mean()),
        "low_db": low,
        "high_db": high,
        "psnr_fg_db": float(table["psnr_fg_db"].mean()),
        "ssim": float(table["ssim"].mean()),
        "psnr_interior_db": float(table["psnr_db"][~edge].mean()),
        "psnr_edge_db": float(table["psnr_db"][edge].mean()),
    }


def _psnr_within(run: Run, held_out: Capture, masks: Mapping[str, np.ndarray]) -> float:
    """The mean over frames of each one's PSNR inside its mask; of those that have a mask with a pixel in it."""
    names = held_out.frames["frame"].tolist()
    rows = [row for row, name in enumerate(names) if name in masks and masks[name].any()]
    if not rows:
        return float("nan")
    held_out = held_out.select(rows=rows)
    truths = true_pictures(*held_out.pictures(), torch.tensor(run.model.background)).float() / 255
    inside = torch.stack([torch.from_numpy(masks[name]) for name in held_out.frames["frame"]])
    rendered = quantise(torch.cat([part.rgb.cpu() for part in render_chunks(run.model, held_out.cameras)]))
    return float(psnr_db(rendered, truths, inside).mean())


def ablate(
    capture: Capture,
    trials: Sequence[Trial],
    base: TrainConfig,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    remedied: Capture | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train and measure every trial with every seed, one after the other; finished ones are only opened.

    Runs lie in ``out/<trial>-s<seed>``, the table in ``out/metrics.csv``, written anew after every run.

    Returns:
        trial, label, seed and the columns of `measure`, a row for each held-out source.
    """
    out, tables = Path(out), []
    validation = capture.select(split="val") if (capture.frames["split"] == "val").any() else None
    bar = tqdm([(trial, seed) for seed in seeds for trial in trials], desc="ablation", disable=not progress)
    for trial, seed in bar:
        bar.set_postfix_str(f"{trial.name}, seed {seed}")
        tables.append(ablate_one(capture, trial, base, out, seed, remedied=remedied, validation=validation))
        write_table(out / "metrics.csv", pd.concat(tables, ignore_index=True))
    return pd.concat(tables, ignore_index=True)


def ablate_one(
    capture: Capture,
    trial: Trial,
    base: TrainConfig,
    out: Path,
    seed: int,
    *,
    remedied: Capture | None = None,
    validation: Capture | None = None,
    **more: Any,
) -> pd.DataFrame:
    """One run of an ablation, measured: see `measure`."""
    frames = training_frames(capture, trial, remedied)
    config = replace(trial_config(trial, base), seed=seed)
    sources = [name for name in HELD_OUT if name in set(capture.frames["source"])]
    subject = capture.select(split="train", source="orbit")
    table = measure(
        capture, frames, config, out / f"{trial.name}-s{seed}", sources=sources, validation=validation,
        subject=subject, **more,
    )  # fmt: skip
    table.insert(0, "seed", seed)
    table.insert(0, "label", trial.label)
    table.insert(0, "trial", trial.name)
    return table


def gains(table: pd.DataFrame, against: str, source: str, value: str = "psnr_db") -> pd.DataFrame:
    """Of each trial against another: the mean over seeds and its spread, and the mean difference seed by seed.

    Returns:
        A row a trial, in the table's order: label, mean_db, least_db, most_db, gain_db, gain_least_db, gain_most_db,
        seeds. Differences are between runs of one seed, over the seeds that both have.

    Raises:
        InputError: the table has no such trial or source.
    """
    rows = table[table["source"] == source]
    if against not in set(rows["trial"]):
        remedy = f"there are {', '.join(dict.fromkeys(rows['trial']))}" if len(rows) else "see the column source"
        raise InputError(f"no trial {against!r} of {source!r}", field="against", remedy=remedy)
    reference = rows[rows["trial"] == against].set_index("seed")[value]
    found = []
    for name in dict.fromkeys(rows["trial"]):
        mine = rows[rows["trial"] == name]
        values = mine.set_index("seed")[value]
        difference = (values - reference).dropna()
        found.append({
            "trial": name, "label": mine["label"].iloc[0], "mean_db": values.mean(), "least_db": values.min(),
            "most_db": values.max(), "gain_db": difference.mean(), "gain_least_db": difference.min(),
            "gain_most_db": difference.max(), "seeds": len(values),
        })  # fmt: skip
    return pd.DataFrame(found)
