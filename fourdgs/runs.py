"""Runs on disk: a folder with the config, where everything came from, the model, its curve and its metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from . import provenance as sources
from .config import TrainConfig
from .errors import InputError
from .files import write_aside, write_json
from .model import Model


@dataclass(frozen=True)
class Run:
    """One training run: a folder that holds ``run.json``, ``model.safetensors``, ``curve.csv``, ``metrics.csv``."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """``run.json``: state, config, capture, code, versions, hardware, seconds by phase."""
        return read_info(self.path)

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.info["state"] == "finished"

    @cached_property
    def config(self) -> TrainConfig:
        """The settings that the run was trained with."""
        return TrainConfig.from_dict(self.info["config"])

    @cached_property
    def model(self) -> Model:
        """The final checkpoint, on the CPU."""
        return Model.load(self.path / "model.safetensors")

    @property
    def curve(self) -> pd.DataFrame:
        """One row a look: step, seconds (of training alone), loss, gaussians, psnr_train_db, psnr_db."""
        return _read_table(self.path / "curve.csv")

    @property
    def metrics(self) -> pd.DataFrame:
        """One row an evaluated frame, as `evaluate` wrote it; empty before."""
        path = self.path / "metrics.csv"
        return _read_table(path) if path.exists() else pd.DataFrame()

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.info['state']}, {self.info['config']['motion']})"


def read_info(path: str | Path) -> dict[str, Any]:
    """The ``run.json`` of a run's folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = Path(path) / "run.json"
    remedy = "give the folder that fd.train wrote"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("there is no run here", file=file, remedy=remedy) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=file, remedy=remedy) from error
    for key in ("state", "config", "capture"):
        if key not in info:
            raise InputError("is missing", file=file, field=key, remedy=remedy)
    return info


def load_run(path: str | Path) -> Run:
    """Open a finished run.

    Raises:
        InputError: there is no run, or its training did not end.
    """
    run = Run(Path(path))
    if not run.finished:
        raise InputError("the training did not end", file=run.path, remedy="call fd.train again: it goes on from there")
    return run


def runs(folder: str | Path = "runs") -> pd.DataFrame:
    """A table of the runs below a folder: name, state, motion, iterations, seed, frames, seconds, started, path."""
    rows = []
    for file in sorted(Path(folder).glob("**/run.json")):
        info = read_info(file.parent)
        config = info["config"]
        rows.append(
            {
                "name": file.parent.name,
                "state": info["state"],
                **{key: config[key] for key in ("motion", "iterations", "seed")},
                "frames": info["capture"]["frames"],
                "seconds": sum(info.get("phases_s", {}).values()),
                "started": info.get("started"),
                "path": str(file.parent),
            }
        )
    columns = ["name", "state", "motion", "iterations", "seed", "frames", "seconds", "started", "path"]
    return pd.DataFrame(rows, columns=columns)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with write_aside(path) as aside:
        table.to_csv(aside, index=False, float_format="%.6g")


def update_info(path: Path, **changes: Any) -> dict[str, Any]:
    """Change some keys of a run's ``run.json``."""
    info = read_info(path) | changes
    write_json(path / "run.json", info)
    return info


def provenance() -> dict[str, Any]:
    """What a result depends on beside its config: code, versions, hardware."""
    versions, hardware, state = sources.versions(), sources.hardware(), sources.code_state()
    code = {"fourdgs": versions.get("fourdgs-lab")}
    if state is not None:
        code |= {"commit": state["commit"], "dirty": state["modified"]}
    hardware |= {"threads": torch.get_num_threads(), "gpu": next(iter(hardware["gpus"]), None)}
    return {"code": code, "versions": versions, "hardware": hardware}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=path, remedy="train or evaluate the run again") from error
