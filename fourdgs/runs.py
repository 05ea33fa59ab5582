"""Runs on disk: a folder with the config, where everything came from, the model, its curve and its metrics.

``run.json`` is written first and says ``running``, ``failed`` or ``finished``; the last only when the model and the
curve are whole. Every file is written aside and renamed, so a reader never sees half of one. Times are in UTC.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import provenance as sources
from .config import TrainConfig
from .errors import InputError, OutputError
from .files import locked, write_aside, write_json
from .model import Model
from .workspace import place

if TYPE_CHECKING:
    from .cameras import Cameras

FORMAT = 2
"""Of ``run.json``. 1 had neither capture_recipe, held_out, lock_sha256, seeds, sessions, model_sha256 nor a log."""
PHASES = ("data", "train", "look", "evaluate", "render", "report")
PRICE = "FOURDGS_PRICE_PER_HOUR"
"""The environment variable that a training takes the price of an hour of its machine from, in any one currency."""
LOCK = ".lock"
# Names may look like numbers: a frame "0012" is not 12.
TEXT = dict.fromkeys(("frame", "camera", "source", "split", "truth"), str)
COLUMNS = (
    "name", "state", "motion", "iterations", "seed", "frames", "seconds", "started", "path", "psnr_db", "test_frames",
    "gaussians", "capture", "commit", "dirty", "cost", "hypothesis", "standing",
)  # fmt: skip


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
        """Whether training came to its end, and what it made is there."""
        return state_of(self.path, self.info) == "finished"

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
        """One row an evaluated frame, as `evaluate` wrote it, and ``truth`` (see `truth_digests`); empty before."""
        path = self.path / "metrics.csv"
        return _read_table(path) if path.exists() else pd.DataFrame()

    @property
    def costs(self) -> pd.DataFrame:
        """What the run took so far: phase, seconds, cost (NaN without a price), in the order of `PHASES`."""
        info = read_info(self.path)
        spent = info.get("phases_s", {})
        names = [*(name for name in PHASES if name in spent), *sorted(set(spent) - set(PHASES))]
        table = pd.DataFrame({"phase": names, "seconds": [float(spent[name]) for name in names]})
        price = info.get("price_per_hour")
        return table.assign(cost=table["seconds"] / 3600 * (math.nan if price is None else price))

    @property
    def log(self) -> str:
        """The library's messages and Python's warnings of its trainings; empty for a run that has no ``log.txt``."""
        path = self.path / "log.txt"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.info['state']}, {self.info['config']['motion']})"


def read_info(path: str | Path) -> dict[str, Any]:
    """The ``run.json`` of a run's folder.

    Raises:
        InputError: there is none, it is damaged, or a newer version of the library wrote it.
    """
    file = Path(path) / "run.json"
    remedy = "give the folder that fd.train wrote"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("there is no run here", file=file, remedy=remedy) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=file, remedy=remedy) from error
    for key in ("state", "config", "capture"):
        if not isinstance(info, dict) or key not in info:
            raise InputError("is missing", file=file, field=key, remedy=remedy)
    if info.get("format", 1) > FORMAT:
        raise InputError(
            f"is {info['format']}, newer than {FORMAT}", file=file, field="format", remedy="update fourdgs"
        )
    return info


def state_of(path: Path, info: dict[str, Any]) -> str:
    """running, failed, finished, replaced (was being overwritten), or damaged: finished, but its model is gone."""
    lost = info["state"] == "finished" and not (path / "model.safetensors").is_file()
    return "damaged" if lost else info["state"]


def load_run(path: str | Path) -> Run:
    """Open a finished run.

    Raises:
        InputError: there is no run, or its training did not end.
    """
    run = Run(Path(path))
    if not run.finished:
        reason = f": {run.info['error']}" if run.info.get("error") else ""
        raise InputError(
            f"the training did not end{reason}", file=run.path, remedy="call fd.train again: it goes on from there"
        )
    return run


def runs(folder: str | Path = "runs") -> pd.DataFrame:
    """A table of the runs below a folder.

    Returns:
        A row a run: name, state (see `state_of`; ``damaged`` also where ``run.json`` cannot be read), motion,
        iterations, seed, frames (trained on), seconds (of all phases), started, path; psnr_db and test_frames: mean and
        number of its held-out frames, NaN and 0 before `evaluate`; gaussians; capture (12 digits of the digest of the
        training frames); commit and dirty: the code; cost (NaN without a price); hypothesis (12 digits of the one
        written before it); standing: in production, replaced, rolled back or refused, by the pointers in ``folder``.
    """
    from .production import standings

    folder = place(folder)
    known = standings(folder)
    rows = [_row(path) | {"standing": known.get(path.resolve(), "")} for path in run_folders(folder)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def run_folders(folder: Path) -> list[Path]:
    """The folders with a ``run.json`` below a folder, sorted. What is hidden is half-written, and left out."""
    found = []
    for here, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        if "run.json" in files:
            found.append(Path(here))
    return sorted(found)


def _row(path: Path) -> dict[str, Any]:
    try:
        info = read_info(path)
        config, code = info["config"], info.get("code", {})
        spent = sum(info.get("phases_s", {}).values())
        price = info.get("price_per_hour")
        row = {
            "name": path.name,
            "state": state_of(path, info),
            **{key: config[key] for key in ("motion", "iterations", "seed")},
            "frames": info["capture"]["frames"],
            "seconds": spent,
            "started": info.get("started"),
            "path": str(path),
            "gaussians": info.get("gaussians"),
            "capture": info["capture"]["digest"][:12],
            "commit": code.get("commit"),
            "dirty": code.get("dirty"),
            "cost": math.nan if price is None else spent / 3600 * price,
            "hypothesis": (info.get("hypothesis") or {}).get("digest", "")[:12],
        }
        measured = _held_out_psnr(path / "metrics.csv")
    except (InputError, KeyError, TypeError, AttributeError):
        # One broken folder does not hide the others.
        return {"name": path.name, "state": "damaged", "path": str(path)}
    mean = float(measured.mean()) if len(measured) else math.nan
    return row | {"psnr_db": mean, "test_frames": len(measured)}


def _held_out_psnr(path: Path) -> np.ndarray:
    """The finite PSNR, dB, of the held-out frames that a run was measured on, [n]; none before it was."""
    try:
        table = pd.read_csv(path, usecols=["source", "split", "psnr_db"])
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return np.empty(0)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=path) from error
    values = held_out(table)["psnr_db"].to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def held_out(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of a metrics table that were held out, each frame once.

    A frame that was asked for at another time as well (source ``name@time``, see `story`) counts as itself alone.
    """
    if not len(metrics):
        return metrics
    return metrics[(metrics["split"] == "test") & ~metrics["source"].astype(str).str.contains("@", regex=False)]


# --- writing ---------------------------------------------------------------------------------------------------------


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with write_aside(path) as aside:
        table.to_csv(aside, index=False, float_format="%.6g")


def update_info(path: Path, **changes: Any) -> dict[str, Any]:
    """Change some keys of a run's ``run.json``; not inside ``locked(path / LOCK)``, see `change_info`."""
    with locked(path / LOCK):
        return change_info(path, **changes)


def change_info(path: Path, **changes: Any) -> dict[str, Any]:
    """`update_info` for who holds the run's lock already; a key that is given None goes."""
    info = {key: value for key, value in (read_info(path) | changes).items() if value is not None or key not in changes}
    write_json(path / "run.json", info)
    return info


def keep_metrics(run: Run, table: pd.DataFrame, seconds: float) -> None:
    """Add rows to a run's ``metrics.csv``, and the seconds that they took; a frame measured again replaces its old row.

    Args:
        table: as `evaluate` gives it, with ``truth`` beside it.

    Raises:
        InputError: the run is not finished: what was measured is not what it will be.
    """
    with locked(run.path / LOCK):
        load_run(run.path)
        old = run.metrics
        if len(old):
            table = pd.concat([old[~old["frame"].isin(table["frame"])], table], ignore_index=True)
        write_table(run.path / "metrics.csv", table)
        change_info(run.path, evaluated=len(table), phases_s=_with_seconds(run.path, "evaluate", seconds))


@contextlib.contextmanager
def phase(run: Run | str | Path | Sequence[Run | str | Path], name: str) -> Iterator[None]:
    """Count the seconds of a block as a phase of a run: ``with runs.phase(run, "render"): ...``.

    Several runs share them evenly; what another phase of theirs took within the block is not counted twice. Where a run
    cannot be written, as in an archive, a warning says so, and the block's own result stands.

    Raises:
        InputError: a name that is none of `PHASES`, or no run.
    """
    many = [run] if isinstance(run, Run | str | Path) else list(run)
    paths = [each.path if isinstance(each, Run) else Path(each) for each in many]
    if name not in PHASES:
        raise InputError(f"{name!r} is unknown", field="phase", remedy=f"use one of {', '.join(PHASES)}")
    before = sum(_seconds_but(path, name) for path in paths)
    begun = time.perf_counter()
    try:
        yield
    finally:
        spent = time.perf_counter() - begun
        try:
            spent = max(0.0, spent - sum(_seconds_but(path, name) for path in paths) + before)
            for path in paths:
                with locked(path / LOCK):
                    change_info(path, phases_s=_with_seconds(path, name, spent / len(paths)))
        except (InputError, OutputError) as error:
            warnings.warn(f"the seconds of {name!r} are not kept: {error}", stacklevel=3)


def _seconds_but(path: Path, name: str) -> float:
    """The seconds of all phases of a run but one."""
    return sum(seconds for phase, seconds in read_info(path).get("phases_s", {}).items() if phase != name)


def _with_seconds(path: Path, name: str, seconds: float) -> dict[str, float]:
    phases = read_info(path).get("phases_s", {})
    return phases | {name: round(phases.get(name, 0.0) + seconds, 3)}


def set_price(run: Run | str | Path, per_hour: float) -> Run:
    """Say afterwards what an hour of the run's machine cost, in any one currency; see also `PRICE`.

    Raises:
        InputError: no run, or a price that is no number of at least 0.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    update_info(path, price_per_hour=_checked_price(per_hour, "per_hour"))
    return Run(path)


def price_per_hour() -> float | None:
    """What the environment says that an hour of this machine costs; None where it says nothing.

    Raises:
        InputError: it is no number of at least 0.
    """
    text = os.environ.get(PRICE, "").strip()
    return _checked_price(text, PRICE) if text else None


def _checked_price(value: Any, field: str) -> float:
    try:
        price = float(value)
    except (TypeError, ValueError):
        price = math.nan
    if not (math.isfinite(price) and price >= 0):
        raise InputError(f"{value!r} is no price", field=field, remedy="give a number of at least 0, such as 2.5")
    return price


# --- what a run depends on -------------------------------------------------------------------------------------------


def truth_digests(truths: Tensor, cameras: Cameras) -> list[str]:
    """16 hex digits a frame that name what a rendering was held against, so that two runs' frames can be told the same.

    Args:
        truths: uint8 [n, H, W, 3], over the background that they were measured on.
        cameras: [n]; pose and intrinsics count, rounded as in `Capture.digest`. Times do not: they are what is asked of
            a model, not what is true.
    """
    numbers = [np.round(value.double().cpu().numpy(), 6) + 0.0 for value in (cameras.viewmats, cameras.Ks)]
    found = []
    for index, truth in enumerate(truths.numpy()):
        content = hashlib.sha256(repr(truth.shape).encode() + np.ascontiguousarray(truth).tobytes())
        for value in numbers:
            content.update(value[index].tobytes())
        found.append(content.hexdigest()[:16])
    return found


def provenance() -> dict[str, Any]:
    """What a result depends on beside its config: code, versions, their lock, hardware."""
    versions, hardware, state = sources.versions(), sources.hardware(), sources.code_state()
    code = {"fourdgs": versions.get("fourdgs-lab")}
    if state is not None:
        code |= {"commit": state["commit"], "dirty": state["modified"]}
    hardware |= {"threads": torch.get_num_threads(), "gpu": next(iter(hardware["gpus"]), None)}
    return {"code": code, "versions": versions, "lock_sha256": sources.lock_hash(), "hardware": hardware}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=TEXT)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=path, remedy="train or evaluate the run again") from error
