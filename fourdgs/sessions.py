"""A training's hold on its folder: one at a time, what it is written down first, its log, how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrainConfig
from .errors import InputError, OutputError
from .files import hash_file, locked, write_json
from .hypothesis import Hypothesis, registered
from .runs import FORMAT, LOCK, change_info, now, price_per_hour, provenance, read_info, state_of
from .unseen import training_views

if TYPE_CHECKING:
    from .capture import Capture

LOGGER = logging.getLogger("fourdgs")
RESULTS = ("checkpoint.safetensors", "model.safetensors", "curve.csv", "metrics.csv", "log.txt")


class Session:
    """One stretch of a training, from its start or a checkpoint to its end; see `hold`."""

    def __init__(self, path: Path):
        self.path = path
        self.done = False  # the run is finished, and was so before
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds of a block to a phase."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def goes_on(self, step: int) -> None:
        """Write down the step that this stretch starts from, and the seconds so far."""
        info = read_info(self.path)
        sessions = info["sessions"][:-1] + [info["sessions"][-1] | {"step": step}]
        change_info(self.path, sessions=sessions, phases_s=self._phases(info))
        LOGGER.info("%s at step %d", "going on" if step else "starting", step)

    def finish(self, **found: Any) -> None:
        """Say that the run is finished: the last thing that is written, after the model and the curve."""
        info = read_info(self.path)
        change_info(
            self.path,
            state="finished",
            ended=now(),
            phases_s=self._phases(info),
            model_sha256=hash_file(self.path / "model.safetensors"),
            **found,
        )
        LOGGER.info("finished")
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Say that the run failed, and why; what it cost so far is kept."""
        phases = self._phases(read_info(self.path))
        change_info(self.path, state="failed", ended=now(), phases_s=phases, error=reason)

    def _phases(self, info: dict[str, Any]) -> dict[str, float]:
        # Loading the data is paid for at every start; a checkpoint brings its seconds of training along.
        before = info["sessions"][-1].get("data_s", 0.0)
        rounded = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        return info["phases_s"] | rounded | {"data": round(before + self.seconds.get("data", 0.0), 3)}


def stands_finished(path: Path, identity: dict[str, Any]) -> bool:
    """Whether the run of this identity is in ``path``, finished and tidy: then nothing need be written, nor locked."""
    if not (path / "run.json").exists() or (path / "checkpoint.safetensors").exists():
        return False
    info = read_info(path)
    return state_of(path, info) == "finished" and not _differing(info, identity)


def _differing(info: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """What of an identity another run's ``run.json`` has otherwise.

    A setting that came after a run counts as its default: new ones start out as what was done before them.
    """
    there = info | {"config": TrainConfig().to_dict() | dict(info["config"])}
    return [key for key in identity if there.get(key) != identity[key]]


@contextlib.contextmanager
def hold(
    path: Path,
    identity: dict[str, Any],
    capture: Capture,
    *,
    held_out: Capture | None = None,
    overwrite: bool = False,
    hypothesis: str | Path | Hypothesis | None = None,
    waiting: Callable[[], None] | None = None,
) -> Iterator[Session]:
    """Hold a run's folder for a training of ``identity``, and write down what it is before it starts.

    An exception makes the run ``failed``, with its text in ``run.json`` and ``log.txt``; an interruption or a kill
    leaves it ``running``. Both go on from the last checkpoint when they are trained again.

    Args:
        identity: config and capture, as in ``run.json``: what makes two runs the same.
        hypothesis: see `train`.
        waiting: called once where another process or thread trains this run: this one waits for it.

    Raises:
        InputError: the folder holds another run; it was promoted and is to be overwritten; results without a
            ``run.json``.
        OutputError: the folder cannot be written.
    """
    session = Session(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file, not a folder (choose another output folder)")
    with locked(path / LOCK, waiting):
        session.done = _clear(path, identity, overwrite) == "finished"
        for name in (*RESULTS, "run.json"):  # what a killed writer left aside
            stem, _, ending = name.rpartition(".")
            for file in path.glob(f".{stem}-*.{ending}"):
                file.unlink(missing_ok=True)
        if session.done:
            (path / "checkpoint.safetensors").unlink(missing_ok=True)
            yield session
            return
        write_json(path / "run.json", _start(path, identity, capture, held_out, hypothesis))
        with logged(path / "log.txt"):
            try:
                yield session
            except Exception as error:
                LOGGER.error("failed: %s", traceback.format_exc())
                # A full disk is a likely reason, and then this cannot be written either.
                with contextlib.suppress(OutputError):
                    session.fail(f"{type(error).__name__}: {error}")
                raise
            except BaseException as error:
                LOGGER.error("interrupted: %s", type(error).__name__)
                raise


def _clear(path: Path, identity: dict[str, Any], overwrite: bool) -> str:
    """The state of the run of this identity in ``path``, ``absent`` where there is none; clears one that is to go."""
    if not (path / "run.json").exists():
        left = [name for name in RESULTS if (path / name).exists()]
        if left and not overwrite:
            raise InputError(
                f"holds {', '.join(left)} without a run.json",
                file=path,
                remedy="choose another folder, or overwrite=True",
            )
        for name in left:
            (path / name).unlink()
        return "absent"
    info = read_info(path)
    changed = _differing(info, identity)
    if not changed and info["state"] != "replaced":
        return state_of(path, info)
    if not overwrite and info["state"] != "replaced":
        remedy = "choose another folder, or overwrite=True"
        raise InputError(f"holds a run of another {' and '.join(changed)}", file=path, remedy=remedy)
    if info.get("promoted"):
        remedy = "choose another folder: what was in production is kept"
        raise InputError(f"was promoted to {', '.join(info['promoted'])}", file=path, remedy=remedy)
    # Marked first and removed last: a kill in between leaves nothing that the new run could take for its own.
    change_info(path, state="replaced")
    for name in (*RESULTS, "run.json"):
        (path / name).unlink(missing_ok=True)
    return "absent"


def _start(
    path: Path,
    identity: dict[str, Any],
    capture: Capture,
    held_out: Capture | None,
    hypothesis: str | Path | Hypothesis | None,
) -> dict[str, Any]:
    """The ``run.json`` of a run that begins or goes on."""
    before = read_info(path) if (path / "run.json").exists() else {}
    known, begun = provenance(), now()
    spent = before.get("phases_s", {})
    session = {"started": begun, "code": known["code"], "step": 0, "data_s": spent.get("data", 0.0)}
    info = {
        "state": "running",
        "format": FORMAT,
        **identity,
        "capture_recipe": _recipe_of(capture.root),
        "views": training_views(capture),
        "held_out": None if held_out is None else describe(held_out),
        **known,
        "seeds": {"train": identity["config"]["seed"]},
        # What was written before the first start stands; nothing can be written before it any more.
        "hypothesis": before["hypothesis"] if "hypothesis" in before else registered(hypothesis, path),
        "started": before.get("started", begun),
        "sessions": [*before.get("sessions", []), session],
        "phases_s": spent,
    }
    price = price_per_hour()
    price = before.get("price_per_hour") if price is None else price
    promoted = before.get("promoted")
    return info | ({} if price is None else {"price_per_hour": price}) | ({"promoted": promoted} if promoted else {})


def describe(capture: Capture) -> dict[str, Any]:
    """What identifies the frames of a capture, as JSON values."""
    sources = capture.frames["source"].value_counts().sort_index()
    return {
        "name": capture.name,
        "digest": capture.digest(),
        "frames": len(capture),
        "sources": {str(name): int(count) for name, count in sources.items()},
        "size": [capture.cameras.width, capture.cameras.height],
    }


def _recipe_of(folder: Path) -> dict[str, Any] | None:
    """The ``recipe.json`` that a capture was made by; None where there is none that can be read."""
    try:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        return json.loads(json.dumps(recipe, allow_nan=False)) if isinstance(recipe, dict) else None
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append what the library says, and Python's warnings, to a file; both are shown as ever, too.

    Warnings belong to the process: of two trainings in threads of one process each log may hold the other's.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    form.converter = time.gmtime
    handler.setFormatter(form)
    level = LOGGER.level
    LOGGER.addHandler(handler)
    if LOGGER.getEffectiveLevel() > logging.INFO:
        LOGGER.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():  # also lets a warning be shown again that an earlier training has shown
            shown = warnings.showwarning

            def show(message, category, filename, lineno, file=None, line=None) -> None:
                shown(message, category, filename, lineno, file, line)
                text = f"{category.__name__}: {message} ({Path(filename).name}:{lineno})"
                handler.handle(LOGGER.makeRecord(LOGGER.name, logging.WARNING, filename, lineno, text, (), None))

            warnings.showwarning = show
            yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        handler.close()
