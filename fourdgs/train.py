"""Training: from a capture and a config to a run on disk that can be stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import checkpoint
from .capture import Capture
from .choose_motion import choose_motion
from .config import TrainConfig
from .errors import InputError, OutOfMemory
from .hypothesis import Hypothesis
from .rigged import Rigged
from .runs import Run, write_table
from .sessions import LOGGER, Session, describe, hold, stands_finished
from .trainer import Trainer
from .typical_view import typical_view

if TYPE_CHECKING:
    from .rig import Rig


def train(
    capture: Capture,
    config: TrainConfig,
    out: str | Path,
    *,
    held_out: Capture | None = None,
    validation: Capture | None = None,
    overwrite: bool = False,
    progress: bool | Callable[[int], None] = True,
    device: str | torch.device | None = None,
    hypothesis: str | Path | Hypothesis | None = None,
    rig: Rig | Rigged | None = None,
) -> Run:
    """Train a model on every frame of ``capture``.

    A folder that already holds the finished run of the same config on the same capture is returned as it is; an
    unfinished one goes on from its last checkpoint, with the same result as if it had never stopped (on the CPU).
    Where another process trains this very run, this one waits for it. The folder's ``log.txt`` has the library's
    messages and Python's warnings; ``$FOURDGS_PRICE_PER_HOUR``, or `runs.set_price` afterwards, gives the run a cost.

    Args:
        capture: the training frames; select them before (``capture.select(split="train")``).
        config: the settings.
        out: the run's folder.
        held_out: frames never trained on; a few of them are rendered for the curve every ``evaluate_every`` steps.
        validation: frames of cameras that are neither trained on nor tested on; with ``config.patience`` the training
            ends when it has seen them no better for so many looks.
        progress: a bar, nothing, or a function that is told of the steps taken as they are taken.
        overwrite: replace another run that stands in ``out``, unless it was promoted.
        device: ``cpu`` or ``cuda``; by default CUDA where there is one.
        hypothesis: what was written down before the run, or its file (see `hypothesis.register`); by default
            ``hypothesis.json`` beside ``out``, where there is one. Its words go into ``run.json``.
        rig: what drives the Gaussians of the motion ``rig``; with a track, frames with times teach it, too.

    Raises:
        InputError: ``out`` holds a run of another config or capture, or its checkpoint is damaged; a hypothesis that
            cannot be read.
        OutputError: the folder cannot be written.
        OutOfMemory: the GPU's memory is too small; the text says what to lower.
    """
    out = Path(out)
    config = _settled(capture, config, validation, out.name if progress is True else None)
    if config.motion == Rigged.name and rig is not None and not isinstance(rig, Rigged):
        rig = Rigged(rig)
    identity = _identity(capture, config, validation, rig)
    if stands_finished(out, identity):
        return _nothing_to_do(out, progress)
    waiting = partial(_wait, out.name)
    with hold(
        out, identity, capture, held_out=held_out, overwrite=overwrite, hypothesis=hypothesis, waiting=waiting
    ) as session:
        if session.done:
            return _nothing_to_do(out, progress)
        with session.phase("data"):
            trainer = _begun(out, capture, config, _device(device), rig)
        _take_steps(trainer, session, capture, held_out, validation, progress)
        model = trainer.model()
        model.save(out / "model.safetensors")
        write_table(out / "curve.csv", pd.DataFrame(trainer.curve))
        session.finish(gaussians=len(model.gaussians), typical_view=typical_view(capture, model))
    return Run(out)


def _settled(capture: Capture, config: TrainConfig, validation: Capture | None, name: str | None) -> TrainConfig:
    """The config with its motion chosen, checked against what there is; ``name``: say under it what was chosen."""
    if config.motion == "auto":
        choice = choose_motion(capture)
        config = replace(config, motion=choice.name)
        LOGGER.info(f"motion {choice.name}: {choice.reason}")
        if name is not None:
            tqdm.write(f"{name}: motion {choice.name}. {choice.reason}")
    if config.patience and (validation is None or not config.evaluate_every):
        remedy = "give train(validation=...) and evaluate_every, or leave patience at 0"
        raise InputError("needs validation frames and looks at them", field="patience", remedy=remedy)
    return config


def _identity(
    capture: Capture, config: TrainConfig, validation: Capture | None, rig: Rig | Rigged | None
) -> dict[str, Any]:
    """What makes two runs the same, as in ``run.json``."""
    identity: dict[str, Any] = {"config": config.to_dict(), "capture": describe(capture)}
    if config.patience:
        identity["validation"] = describe(validation)
    if isinstance(rig, Rigged) and config.motion == Rigged.name:
        identity["rig"] = rig.digest()
    return identity


def _wait(name: str) -> None:
    tqdm.write(f"{name}: waiting for another process, which trains this run")


def _begun(
    path: Path, capture: Capture, config: TrainConfig, device: torch.device, rig: Rig | Rigged | None
) -> Trainer:
    """A trainer at its start, or at the last checkpoint of the run in ``path``."""
    trainer = Trainer(capture, config, device, rig)
    if (path / "checkpoint.safetensors").exists():
        checkpoint.restore(trainer, path / "checkpoint.safetensors")
    return trainer


def _take_steps(
    trainer: Trainer,
    session: Session,
    capture: Capture,
    held_out: Capture | None,
    validation: Capture | None,
    progress: bool | Callable[[int], None],
) -> None:
    """From where the trainer stands to its end; the seconds are the session's, also of steps that fail."""
    session.goes_on(trainer.step)
    try:
        trainer.run(session.path, held_out, progress, validation)
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfMemory(_too_much(trainer, capture)) from error
    finally:
        session.seconds |= {"train": trainer.seconds, "look": trainer.look_seconds}


def _device(wanted: str | torch.device | None) -> torch.device:
    there = torch.cuda.is_available()
    device = torch.device(wanted or ("cuda" if there else "cpu"))
    if device.type == "cuda" and not there:
        lacks = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        remedy = "leave it out to train on the CPU, or install torch with CUDA and a driver for it (nvidia-smi)"
        raise InputError(f"is {str(device)!r}, but {lacks}", field="device", remedy=remedy)
    return device


def _too_much(trainer: Trainer, capture: Capture) -> str:
    """What to do where a GPU's memory was not enough."""
    config, free = trainer.config, torch.cuda.mem_get_info()
    size = f"{capture.frames.width.max()} x {capture.frames.height.max()}"
    return (
        f"the GPU's memory ran out at step {trainer.step} of {config.iterations} ({free[1] / 2**30:.1f} GB in all, "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB of it used here): lower batch ({config.batch}), gaussians "
        f"({config.gaussians}) or the pictures' size ({size}, capture.scaled(0.5)), or end what else runs there"
    )


def _nothing_to_do(out: Path, progress: bool | Callable[[int], None]) -> Run:
    if progress is True:
        tqdm.write(f"{out.name}: finished already; nothing to train")
    return Run(out)
