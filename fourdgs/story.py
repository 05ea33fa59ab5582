"""The rows of the story: which frames of the capture `alpha`, changed how, trained with what settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import farm
from .capture import Capture
from .config import TrainConfig
from .data.load import load_capture
from .errors import InputError
from .evaluate import evaluate
from .rigged import Rigged
from .runs import Run
from .train import train
from .workspace import place

DEMO = TrainConfig(iterations=5000, gaussians=6000, evaluate_every=250)  # minutes on two cores at 128 pixels
LONG, SHORT = 1.0, 0.25  # the story's 20,000 and 5,000 iterations, as shares of the base config's


@dataclass(frozen=True)
class Row:
    """One row of the story's table: which frames, changed how, trained with what."""

    name: str
    label: str  # one line for tables
    sources: tuple[str, ...]  # empty: every training frame
    settings: dict  # changes to the base config
    prepare: Callable[[Capture], Capture] = lambda capture: capture
    share: float = LONG  # of the base config's iterations
    still_time: float | None = None  # a time at which this model is asked for the still avatar as well


def own_times(capture: Capture) -> Capture:
    """Each frame at its own time k / (n - 1) in the order of its camera: what the story did to its still orbit."""
    return capture.with_times(np.linspace(0, 1, len(capture)))


def remedied(capture: Capture) -> Capture:
    """The clip cut out against its clean plate and matched in colour to the orbit, by hand."""
    from .data.hybrid import match_colors, matte

    cut = matte(capture, "clip", capture.root / "clip_plate.png")
    return match_colors(cut, "clip", "orbit")


def doctored(capture: Capture) -> Capture:
    """What the doctor makes of it by itself: nothing is told of which source is what."""
    from .doctor import apply_remedies, diagnose

    return apply_remedies(capture, diagnose(capture, progress=False))


def _alone(name: str, label: str, settings: dict, **more) -> Row:
    return Row(name, label, ("orbit",), settings, **more)


_TIMED = {"prepare": own_times, "still_time": 0.5}
ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        _alone("static", "static 3DGS, 10 orbit views", {"motion": "static"}),
        _alone("v1", "deform, each view its own time, a quarter as long", {}, share=SHORT, **_TIMED),
        _alone("v2", "deform, each view its own time", {}, **_TIMED),
        _alone("v2_cold", "the same without the static warm-up", {"warmup": 0.0}, **_TIMED),
        _alone("timeless", "deform, the orbit views without a time", {}),
        Row("v3", "deform, + the clip frames as they come, uniform sampling", ("orbit", "clip"), {}),
        Row(
            "v3_remedied",
            "deform, + the clip matted, colour-matched and balanced",
            ("orbit", "clip"),
            {"sampling": "balanced"},
            remedied,
        ),
        Row("v3_doctor", "deform, + the clip as the doctor's remedies leave it", ("orbit", "clip"), {}, doctored),
        Row("grid", "deform on the grid of cameras and times", ("grid",), {}),
        # For captures other than alpha.
        Row("static_all", "static 3DGS, every training frame", (), {"motion": "static"}),
        Row("deform_all", "deform, every training frame", (), {}),
    )
}
STORY = tuple(name for name, row in ROWS.items() if row.sources)


def ensure_capture(folder: str | Path = "data/alpha") -> Path:
    """The folder of a capture; the embedded ``data/alpha`` is made where it is missing.

    Raises:
        InputError: another folder, which does not exist.
    """
    found = place(folder)
    if found == place("data/alpha") and not found.exists():  # one that is there may be larger, and took long to make
        from .data.alpha import make_alpha

        return make_alpha(found)
    if not found.is_dir():
        raise InputError("there is no such folder", file=found, remedy="give a folder with transforms*.json")
    return found


def base_config(iterations: int, gaussians: int, seed: int = 0) -> TrainConfig:
    """The settings that every row starts from."""
    return replace(DEMO, iterations=iterations, gaussians=gaussians, seed=seed, evaluate_every=max(1, iterations // 20))


def row_of(name: str) -> Row:
    """A row by its name.

    Raises:
        InputError: there is no such row.
    """
    if name not in ROWS:
        raise InputError(f"{name!r} is unknown", field="row", remedy=f"use one of {', '.join(ROWS)}")
    return ROWS[name]


def row_capture(capture: Capture, name: str) -> Capture:
    """The training frames of a row."""
    row = row_of(name)
    return row.prepare(capture.select(split="train", source=list(row.sources) or None))


def row_config(name: str, base: TrainConfig) -> TrainConfig:
    """The settings of a row: the base, with the row's changes."""
    row = row_of(name)
    changes = {"motion": "deform"} | row.settings
    return replace(base, iterations=max(1, round(base.iterations * row.share)), **changes)


def train_row(
    capture: Capture,
    name: str,
    base: TrainConfig,
    out: str | Path = "runs",
    *,
    progress: bool | Callable[[int], None] = True,
) -> Run:
    """Train one row into ``out/<name>-s<seed>`` and measure it on its training frames and on all held-out ones.

    What is finished is not done again.
    """
    frames, held_out = row_capture(capture, name), capture.select(split="test")
    folder = Path(out) / f"{name}-s{base.seed}"
    return train_measured(frames, held_out, row_config(name, base), folder, row_of(name).still_time, progress)


def train_measured(
    frames: Capture,
    held_out: Capture | None,
    config: TrainConfig,
    folder: str | Path,
    still_time: float | None = None,
    progress: bool | Callable[[int], None] = True,
    rig: Rigged | None = None,
) -> Run:
    """Train into ``folder`` and measure what `asked_of` names; what is finished is not done again."""
    run = train(frames, config, folder, held_out=held_out, progress=progress, rig=rig)
    known = set(run.metrics["frame"]) if len(run.metrics) else set()
    for part, split in asked_of(frames, held_out, still_time):
        if not known.issuperset(part.frames["frame"]):
            evaluate(run, part, split=split, progress=progress is True)
    return Run(run.path)


def asked_of(frames: Capture, held_out: Capture | None, still_time: float | None = None) -> list[tuple[Capture, str]]:
    """What a run is measured on, each part with its split: training frames, held-out ones, still ones at a time."""
    asked = [(frames, "train")]
    if held_out is not None:
        asked.append((held_out, "test"))
        if still_time is not None and held_out.frames["time"].isna().any():
            asked.append((_still_at(held_out, still_time), "test"))
    return asked


def _still_at(held_out: Capture, time: float) -> Capture:
    """The still frames again under names of their own, asked for at a time instead of at none."""
    still = held_out.select(where=lambda frames: frames["time"].isna()).with_times(time)
    mark = f"@{time:g}"
    frames = still.frames.assign(frame=still.frames["frame"] + mark, source=still.frames["source"] + mark)
    return still.with_frames(frames)


def _train_job(task: dict, folder: Path, progress: Callable[[int], None]) -> None:
    """What a worker of `train_rows` does."""
    capture = load_capture(task["capture"], scale=task["scale"])
    train_row(capture, task["row"], TrainConfig.from_dict(task["base"]), folder.parent, progress=progress)


def train_rows(
    folder: str | Path,
    names: Sequence[str],
    base: TrainConfig,
    out: str | Path = "runs",
    *,
    seeds: int = 1,
    scale: float = 1.0,
    workers: int | None = None,
) -> list[Run]:
    """Train rows of the story, several at a time (one a GPU, or else one a core), and measure them.

    A small scene keeps one core busy and two barely busier, so a core a row finishes sooner than all cores a row.

    Args:
        folder: the capture.
        scale: shrinks its pictures.
        seeds: runs of each row, with seeds counted up from the base's.
        workers: processes; by default one a core, at most one a run.

    Raises:
        InputError: an unknown row or a broken capture; the other rows are trained first.
    """
    jobs = [(name, replace(base, seed=base.seed + seed)) for name in names for seed in range(seeds)]
    for name in names:
        row_of(name)
    capture = load_capture(folder, scale=scale)
    open_jobs = [(name, config) for name, config in jobs if not _finished(Path(out), name, config)]
    workers = min(workers or farm.slots(len(open_jobs)), len(open_jobs))
    if workers > 1:
        _train_side_by_side(Path(folder).absolute(), scale, open_jobs, Path(out).absolute(), workers)
    # What is finished is checked against its recipe and opened.
    done = {(name, config.seed) for name, config in jobs if _finished(Path(out), name, config)}
    return [train_row(capture, name, config, out, progress=(name, config.seed) not in done) for name, config in jobs]


def _finished(out: Path, name: str, config: TrainConfig) -> bool:
    folder = out / f"{name}-s{config.seed}"
    return (folder / "run.json").exists() and Run(folder).finished


def _train_side_by_side(
    folder: Path, scale: float, jobs: list[tuple[str, TrainConfig]], out: Path, workers: int
) -> None:
    """Train in several processes; the first failure is raised when the others are done."""
    # The longest first, so that no core is left alone with it.
    jobs = sorted(jobs, key=lambda job: -row_of(job[0]).share * (2 if row_of(job[0]).sources != ("orbit",) else 1))
    work = [
        farm.Job(
            out / f"{name}-s{config.seed}",
            row_config(name, config).iterations,
            {"capture": str(folder), "scale": scale, "row": name, "base": config.to_dict()},
        )
        for name, config in jobs
    ]
    farm.raise_first(work, farm.work_through(work, _train_job, out, workers=workers, desc="train rows"))
