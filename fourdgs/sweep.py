"""Folds, seeds and parameters as one table, each row of it a run.

    table = fd.sweep.grid(motion=["static", "deform"], seed=[0, 1, 2], fold=range(6), folds=6)
    runs = fd.sweep(table, "data/alpha", "runs/folds")

Interrupt it, kill it, run it again: what is finished is opened, what is not goes on from its last checkpoint.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import driven, farm, story
from .capture import Capture
from .config import TrainConfig
from .data.load import load_capture
from .data.writing import write_transforms
from .errors import InputError
from .files import hash_json
from .folds import folds as split_in_folds
from .rigged import Rigged
from .runs import Run, runs
from .workspace import place

if TYPE_CHECKING:
    from distributed import Client

SELECTORS = {
    "name": str, "capture": str, "rig": str, "row": str, "source": list, "fold": int, "folds": int, "scale": float,
}  # fmt: skip
"""Columns of a sweep's table that are no settings of a training, with what their cells hold; see `sweep`."""
_SETTINGS = tuple(field.name for field in fields(TrainConfig))
_LONGEST = 100  # characters of a made-up name


def sweep(
    configs: pd.DataFrame | Sequence[Mapping[str, Any]],
    captures: str | Path | Capture | Mapping[str, str | Path | Capture],
    out: str | Path = "runs",
    *,
    rigs: Any = None,
    scheduler: str | Client | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train and measure a run for each row of a table, many at a time.

    The columns of the table are settings of `TrainConfig` (the default where a row says nothing: NaN or None) and

    ===========  ==================================================================================================
    ``name``     the run's folder below ``out``; by default made of the selectors, of the settings that are not the
                 default, and of the seed, so that it does not depend on the other rows: ``deform-lr_mlp=0.001-s2``
    ``capture``  which one, where ``captures`` names several
    ``rig``      which one, where ``rigs`` names several; for rows of ``motion="rig"``
    ``row``      a row of the story (`story.ROWS`), with its frames and its changes to the settings
    ``source``   train on these sources only, a name or a list; held-out frames stay all
    ``fold``     hold out this fold (from 0) of as many as ``folds`` says (see `folds.folds`), among all frames of the
                 sources that are trained on; frames of other sources stay as they are
    ``scale``    shrinks the pictures
    ===========  ==================================================================================================

    Every run is trained on the frames of the split ``train`` and measured on these and on those of the split ``test``.
    A run that is finished is opened; one that was stopped goes on from its last checkpoint. Where a worker dies, its
    run goes on at another one with the same result (on the CPU). One that fails does not stop the others: its traceback
    is in the file that the column ``log`` names, and it is tried again when the sweep is.

    Args:
        captures: a capture, or several by name. Workers load them by path. A capture in memory (also one that was
            selected from, matted or retimed) is first written to ``out/.captures``, as `write_transforms` does it:
            for large ones give the path. Frames with columns of your own lose these.
        out: the folder of the runs.
        rigs: what drives rows of ``motion="rig"``, one or several by name: a rig's file (`fourdgs.rig.load_rig`), or a
            pair of that and a track's (`fourdgs.drive.load_track`; its first and last time are the capture's 0 and 1),
            which workers load by path. A `Rig`, a `Rigged`, or a pair with a `DriveTrack`, in memory, is first written
            to ``out/.rigs``.
        scheduler: address of a dask scheduler of your own (``dask scheduler``, and on each machine, for each GPU,
            ``CUDA_VISIBLE_DEVICES=0 dask worker tcp://... --nthreads 1``), or a `distributed.Client`. Workers may come
            and go at any time; each makes one run at a time, with as many threads as dask gives it. They need this
            library in the same version, and ``out`` and captures given as paths under the same path as here. By
            default a ``LocalCluster`` of processes on this machine, one a GPU or else one a core, which listens on
            127.0.0.1 only, without a dashboard, and ends with the sweep.
        workers: how many processes; only without a scheduler of your own. More than there are GPUs share them.
        progress: one bar over the steps of all runs that are not finished yet, and a line for each failure.

    Security: dask's own protocol unpickles what it is sent, so whoever reaches a scheduler's or a worker's port runs
    code there as its user. Keep the ports of your own cluster inside your own network, or use ``tls://`` (dask's
    ``distributed.comm.tls`` settings, or a `Client` with a `Security`). Nothing is unpickled from captures or runs.

    Returns:
        A row a run, in the order of the table: name, state (finished or failed), the table's own columns, error, log
        (of a failure the traceback, else the run's ``log.txt``), worker and attempts (of this call; "" and 0 where
        nothing was to be done), path, and what `fd.runs` says of it.

    Raises:
        InputError: a row that cannot be meant (an unknown column or value, two rows of one name), a capture or a rig
            that is not there, a scheduler that is not reached; before anything is trained.
        OutputError: ``out`` cannot be written. MissingDependency: no dask.distributed.
    """
    out = place(out).absolute()
    if scheduler is not None and workers is not None:
        raise InputError("is for processes on this machine", field="workers", remedy="leave it out, or the scheduler")
    places = _places(captures, out)
    recipes = _recipes(configs, places, _rigs(rigs, out))
    finished = _finished(recipes, out)
    jobs = {
        number: farm.Job(out / recipe.name, recipe.config.iterations, recipe.task())
        for number, recipe in enumerate(recipes)
        if not finished[number]
    }
    outcomes = farm.work_through(
        list(jobs.values()), _train, out, scheduler=scheduler, workers=workers, progress=progress, desc="sweep"
    )
    return _table(recipes, out, dict(zip(jobs, outcomes, strict=True)))


def grid(**lists: Any) -> pd.DataFrame:
    """A table with a row for every combination; the last column varies fastest.

    Args:
        lists: for each column its values, or a single one (a string, a number, a tuple) that every row has.

    Raises:
        InputError: a column without values.
    """
    columns = {}
    for name, values in lists.items():
        several = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | tuple)
        columns[name] = list(values) if several else [values]
        if not columns[name]:
            raise InputError("has no values", field=name, remedy="give at least one")
    cells = itertools.product(*columns.values())
    return pd.DataFrame([dict(zip(columns, row, strict=True)) for row in cells], columns=list(columns))


def folds(capture: Capture, k: int = 6) -> pd.DataFrame:
    """A table with a row for each of ``k`` folds of a capture: columns ``fold`` and ``folds``.

    With seeds and parameters: ``folds(capture, 6).merge(grid(seed=[0, 1, 2]), how="cross")``.

    Raises:
        InputError: fewer than two folds, or more than the capture has cameras.
    """
    return grid(fold=range(len(split_in_folds(capture, k))), folds=k)


# `fd.sweep` is the function, and hides the module of that name.
sweep.grid, sweep.folds = grid, folds


# --- what a run is ---


@dataclass(frozen=True)
class _Recipe:
    """One run: what its row of the table says, checked and complete."""

    name: str
    given: dict[str, Any]  # the cells of its row that say something
    path: str  # of the capture
    config: TrainConfig
    rig: tuple[dict[str, str], str] | None = None  # its files, and its digest

    def task(self) -> dict[str, Any]:
        """What a worker is told, JSON values."""
        selectors = {key: self.given[key] for key in ("row", "source", "fold", "folds", "scale") if key in self.given}
        rig = {} if self.rig is None else {"rig": self.rig[0]}
        return {"capture": self.path, "config": self.config.to_dict(), **selectors, **rig}


def _train(task: dict[str, Any], folder: Path, progress: Callable[[int], None]) -> None:
    """What a worker does: train one run and measure it."""
    frames, held_out = _frames(task, load_capture)
    config = TrainConfig.from_dict(task["config"])
    rig = driven.from_files(task["rig"]) if "rig" in task else None
    story.train_measured(frames, held_out, config, folder, _still_time(task), progress, rig)


def _frames(task: dict[str, Any], load: Callable[..., Capture]) -> tuple[Capture, Capture | None]:
    """The training frames of a run, and the held-out ones where there are any."""
    capture = load(task["capture"], scale=task.get("scale"))
    row, source = task.get("row"), task.get("source")
    if row is not None:
        source = list(story.row_of(row).sources) or None
    if "fold" in task:
        chosen = capture.frames["source"].isin(source or capture.sources).to_numpy()
        fold = split_in_folds(capture.select(rows=chosen), task["folds"])[task["fold"]]
        # Other sources are not trained on, and their held-out frames stay held out.
        split = capture.frames["split"].to_numpy(dtype=object, copy=True)
        split[chosen] = fold.frames["split"]
        capture = capture.with_split(split.tolist())
    frames = capture.select(split="train", source=source) if row is None else story.row_capture(capture, row)
    return frames, capture.select(split="test") if "test" in capture.splits else None


def _still_time(task: dict[str, Any]) -> float | None:
    return story.row_of(task["row"]).still_time if "row" in task else None


def _places(captures: Any, out: Path) -> dict[str, str]:
    """The path of each capture by its name, "" for an only one; those in memory are written first."""
    named = captures if isinstance(captures, Mapping) else {"": captures}
    if not named:
        raise InputError("there is none", field="captures", remedy="give a path, a Capture, or several by name")
    found = {}
    for name, capture in named.items():
        path = _written(capture, out) if isinstance(capture, Capture) else place(capture).absolute()
        if not path.exists():
            raise InputError("is not there", file=path, field="captures", remedy="give the folder of a capture")
        found[str(name)] = str(path)
    return found


def _written(capture: Capture, out: Path) -> Path:
    """A folder that holds this capture, named by its content: made once."""
    names = [capture.frames[column].tolist() for column in ("frame", "camera")]
    folder = out / ".captures" / hash_json([capture.digest(), names])[:16] / capture.name
    return folder if folder.exists() else write_transforms(capture, folder)


def _rigs(rigs: Any, out: Path) -> dict[str, tuple[dict[str, str], str]]:
    """Files and digest of each rig by its name, "" for an only one; those in memory are written first."""
    if rigs is None:
        return {}
    named = rigs if isinstance(rigs, Mapping) else {"": rigs}
    if not named:
        raise InputError("there is none", field="rigs", remedy="give a rig, several by name, or leave it out")
    return {str(name): driven.as_files(rig, out / ".rigs", "rigs") for name, rig in named.items()}


def _recipes(configs: Any, places: Mapping[str, str], rigs: Mapping[str, Any] | None = None) -> list[_Recipe]:
    rows = configs.to_dict("records") if isinstance(configs, pd.DataFrame) else [dict(row) for row in configs]
    if not rows:
        raise InputError("has no rows", field="configs", remedy="fd.sweep.grid(seed=[0, 1, 2]) makes three")
    recipes, seen = [], {}
    for number, row in enumerate(rows):
        try:
            recipe = _recipe({str(key): _plain(value) for key, value in row.items()}, places, rigs or {})
        except InputError as error:
            raise InputError(str(error), field=f"configs, row {number}") from error
        if recipe.name.lower() in seen:  # many file systems do not tell a from A
            message = f"row {number} and row {seen[recipe.name.lower()]} are both {recipe.name!r}"
            raise InputError(message, field="configs", remedy="name them apart, or take one out")
        seen[recipe.name.lower()] = number
        recipes.append(recipe)
    return recipes


def _recipe(row: dict[str, Any], places: Mapping[str, str], rigs: Mapping[str, Any]) -> _Recipe:
    given = {key: value for key, value in row.items() if value is not None}
    for key in row:
        if key not in _SETTINGS and key not in SELECTORS:
            raise InputError("is no column", field=key, remedy=f"known: {', '.join([*SELECTORS, *_SETTINGS])}")
    given |= {key: _selector(key, value) for key, value in given.items() if key in SELECTORS}
    if ("fold" in given) != ("folds" in given):
        raise InputError("is given without the other", field="fold, folds", remedy="give both, or neither")
    if "fold" in given and not 0 <= given["fold"] < given["folds"]:
        raise InputError(f"is {given['fold']} of {given['folds']}, they count from 0", field="fold")
    settings = {key: value for key, value in given.items() if key in _SETTINGS}
    base = TrainConfig.from_dict(settings)
    config = base
    if "row" in given:
        clash = ({"motion", "source"} | set(story.row_of(given["row"]).settings)) & set(given)
        if clash:
            remedy = "leave it to the row"
            raise InputError(f"the row {given['row']} sets it itself", field=", ".join(sorted(clash)), remedy=remedy)
        config = story.row_config(given["row"], base)
    return _Recipe(_name(given, base), given, _named(given, "capture", places), config, _rig(given, config, rigs))


def _rig(given: Mapping[str, Any], config: TrainConfig, rigs: Mapping[str, Any]) -> Any:
    """What drives the Gaussians of a row, of ``rigs``; None where no rig does."""
    moved = config.motion == Rigged.name
    if "rig" in given and not moved:
        remedy = "leave the cell empty, or motion='rig'"
        raise InputError(f"names {given['rig']!r} for the motion {config.motion!r}", field="rig", remedy=remedy)
    if moved and not rigs:
        remedy = "give fd.sweep(..., rigs='head.glb')"
        raise InputError("is 'rig', and there is no rig", field="motion", remedy=remedy)
    return _named(given, "rig", rigs) if moved else None


def _named(given: Mapping[str, Any], key: str, known: Mapping[str, Any]) -> Any:
    """What the cell of a column names, or the only one that there is."""
    name = given.get(key, "" if "" in known or len(known) > 1 else next(iter(known)))
    if name not in known:
        said = f"{name!r} is unknown" if key in given else "is not said"
        raise InputError(said, field=key, remedy=f"{key}s names {', '.join(map(repr, known))}")
    return known[name]


def _plain(value: Any) -> Any:
    """A cell of a table as JSON has it; None for one that says nothing."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _selector(key: str, value: Any) -> Any:
    kind = SELECTORS[key]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind is float and number and value > 0:
        return float(value)
    if kind is list:
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return value
    if kind is str and isinstance(value, str):
        if key != "name" or re.fullmatch(r"\w[\w.,=+@ -]*", value):
            return value
        raise InputError(f"{value!r} is no name of a folder", field=key, remedy="use letters, digits and -_.,=+@")
    what = {int: "whole number", float: "positive number", list: "name or list of names", str: "text"}[kind]
    raise InputError(f"{value!r} is no {what}", field=key)


def _name(given: Mapping[str, Any], base: TrainConfig) -> str:
    """The name of a run's folder, by what is given for it alone."""
    if "name" in given:
        return given["name"]
    words = [given[key] for key in ("capture", "rig", "row") if key in given]
    words += ["+".join(given["source"])] if "source" in given else []
    words += [] if "row" in given else [base.motion]
    words += [f"scale={given['scale']:g}"] if given.get("scale", 1.0) != 1 else []
    plain = TrainConfig()
    for key in _SETTINGS:
        value = getattr(base, key)
        if key not in ("motion", "seed") and value != getattr(plain, key):
            words.append(f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}")
    words += [f"fold={given['fold']}of{given['folds']}"] if "fold" in given else []
    whole = re.sub(r"[^\w.,=+@-]", "_", "-".join([*words, f"s{base.seed}"])).lstrip(".-+=@,")
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 9]}-{hash_json(whole)[:8]}"


# --- what is there already, and what came of it ---


def _finished(recipes: Sequence[_Recipe], out: Path) -> list[bool]:
    """Which runs are trained, on just these frames with just these settings, and measured.

    Anything else is left to `train`, which goes on with it or says what stands in the way.
    """
    loaded: dict[str, Any] = {}

    def load(*key: Any, **more: Any) -> Capture:
        name = repr((key, more))
        if name not in loaded:
            loaded[name] = load_capture(*key, **more)
        return loaded[name]

    def wanted(task: dict[str, Any]) -> tuple[str, set[str]]:
        # Runs that differ by seed or settings share their frames; reading all pictures for each would take minutes.
        name = hash_json({key: value for key, value in task.items() if key not in ("config", "rig")})
        if name not in loaded:
            frames, held_out = _frames(task, load)
            asked = story.asked_of(frames, held_out, _still_time(task))
            loaded[name] = frames.digest(), set().union(*(set(part.frames["frame"]) for part, _ in asked))
        return loaded[name]

    found = []
    for recipe in recipes:
        run, task = Run(out / recipe.name), recipe.task()
        try:
            done = (run.path / "run.json").exists() and run.finished and run.config == recipe.config
            done = done and run.info.get("rig") == (recipe.rig and recipe.rig[1])
            if done:
                digest, names = wanted(task)
                measured = set(run.metrics["frame"].astype(str)) if len(run.metrics) else set()
                done = run.info["capture"]["digest"] == digest and names <= measured
        except InputError:
            done = False
        found.append(done)
    return found


def _table(recipes: Sequence[_Recipe], out: Path, outcomes: Mapping[int, farm.Outcome]) -> pd.DataFrame:
    rows = []
    for number, recipe in enumerate(recipes):
        opened = farm.Outcome("finished", attempts=0)
        outcome, folder = outcomes.get(number, opened), out / recipe.name
        log = farm.Job(folder, 0, {}).failure if outcome.state == "failed" else folder / "log.txt"
        ended = {"error": outcome.error, "log": str(log) if log.exists() else "", "worker": outcome.worker}
        given = {key: value for key, value in recipe.given.items() if key != "name"}
        rows.append({"name": recipe.name, "state": outcome.state, **given, **ended, "attempts": outcome.attempts})
    table = pd.DataFrame(rows).assign(path=[str(out / recipe.name) for recipe in recipes])
    listed = runs(out)
    listed["path"] = [str(Path(path).absolute()) for path in listed["path"]]
    new = [column for column in listed if column not in table or column == "path"]
    return table.merge(listed[new], on="path", how="left")
