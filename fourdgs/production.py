"""Which run is in production: a pointer that changes in one step, with the history of who moved it and why.

The pointer ``<name>.json`` lies in the folder of the runs. One rename writes a move of it and its entry in the history
together; nothing is ever deleted by it. A promotion that was refused is an entry too: a negative result stays.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import InputError
from .evaluate import bootstrap
from .files import hash_file, locked, write_json
from .runs import Run, held_out, load_run, now, run_folders, update_info
from .workspace import place

METRIC = "psnr_db"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TAKEN = ("run", "hypothesis")  # names of files that mean something else in a folder of runs


@dataclass(frozen=True)
class Promotion:
    """An entry of a pointer's history.

    Attributes:
        name: the pointer's.
        action: promoted, rolled back or refused.
        run: the folder of the run that was promoted, returned to or refused; below the runs' folder relative to it.
        replaced: the run that was in production, in the same way (and still is, where the new one was refused); None
            at first.
        when: UTC.
        by: who did it.
        reason: in their words.
        forced: whether it was done although the verdict spoke against it.
        verdict: of the run against the one in production on the held-out frames that they share: ``word`` (better,
            worse, undecided, incomparable, first), ``text`` (a sentence), and where they could be compared ``mean``,
            ``low``, ``high`` (dB, paired, new minus old; 95 % bootstrap over cameras), ``frames``, ``cameras``.
        model_sha256: of the run's model.
    """

    name: str
    action: str
    run: str
    replaced: str | None
    when: str
    by: str
    reason: str
    forced: bool
    verdict: dict[str, Any]
    model_sha256: str | None


def promote(
    run: Run | str | Path,
    name: str = "production",
    *,
    reason: str = "",
    force: bool = False,
    root: str | Path | None = None,
    by: str | None = None,
) -> Promotion:
    """Put a finished, evaluated run into production.

    It is refused, and the refusal kept in the history, where it is worse than the run in production beyond the
    interval of their paired difference in PSNR on the held-out frames that both were measured on (with one camera,
    which gives no interval: worse at all); and where they cannot be compared: no shared frame, or other pictures under
    the same names. Runs trained on different frames are compared like any others. The run that is in production already
    is left there, and nothing is written.

    Args:
        name: the pointer; several may stand side by side.
        reason: kept in the history.
        force: do it all the same; needs a reason.
        root: the folder of the runs; by default ``runs`` of the project.
        by: who does it; by default the user of the operating system.

    Raises:
        InputError: it is refused, whatever the reason; the run is not finished, or its model is not the one that was
            trained (``force`` does not help with these).
        OutputError: the pointer cannot be written.
    """
    if force and not reason.strip():
        raise InputError("is empty", field="reason", remedy="force takes a reason, which is kept in the history")
    run, file = _complete(run), _file(name, root)
    with locked(_lock(file)):
        history = _read(file)
        current = _current(history)
        folder, digest = _relative(run.path, file.parent), hash_file(run.path / "model.safetensors")
        if current is not None and (current.run, current.model_sha256) == (folder, digest):
            return current
        verdict = _verdict(run, current, file.parent)
        entry = Promotion(
            name, "promoted", folder, replaced=current and current.run, when=now(), by=by or user(),
            reason=reason.strip(), forced=False, verdict=verdict, model_sha256=digest,
        )  # fmt: skip
        if verdict["word"] in ("worse", "incomparable"):
            if not force:
                _write(file, [*history, replace(entry, action="refused")])
                remedy = verdict.get("remedy", "force=True with a reason puts it there all the same")
                raise InputError(verdict["text"], file=run.path, field=name, remedy=remedy)
            entry = replace(entry, forced=True)
        # Before the pointer moves: from then on no training may overwrite this run.
        promoted = Run(run.path).info.get("promoted", [])
        if name not in promoted:
            update_info(run.path, promoted=[*promoted, name])
        _write(file, [*history, entry])
    return entry


def rollback(
    name: str = "production", *, reason: str = "", root: str | Path | None = None, by: str | None = None
) -> Promotion:
    """Return to the run that was in production before the one that is; twice goes back twice.

    Raises:
        InputError: there was none, or it is not complete any more.
        OutputError: the pointer cannot be written.
    """
    file = _file(name, root)
    with locked(_lock(file)):
        history = _read(file)
        stack = _stack(history)
        if len(stack) < 2:
            raise InputError("there is no earlier run to return to", file=file, remedy="promote another run")
        left, back = stack[-1], stack[-2]
        run = _checked(back, file.parent)
        verdict = _verdict(run, left, file.parent)
        entry = Promotion(
            name, "rolled back", back.run, replaced=left.run, when=now(), by=by or user(),
            reason=reason.strip(), forced=False, verdict=verdict, model_sha256=back.model_sha256,
        )  # fmt: skip
        _write(file, [*history, entry])
    return entry


def production(name: str = "production", *, root: str | Path | None = None) -> Run:
    """The run in production.

    Raises:
        InputError: nothing was promoted; or the run has been moved or changed since.
    """
    file = _file(name, root)
    current = _current(_read(file))
    if current is None:
        raise InputError("nothing has been promoted", file=file, remedy="fd.promote(run)")
    return _checked(current, file.parent)


def production_history(name: str = "production", *, root: str | Path | None = None) -> pd.DataFrame:
    """All that was ever promoted, rolled back or refused, the oldest first.

    Returns:
        when, action, run, replaced, by, reason, forced, verdict, mean, low, high (dB; NaN where nothing was compared),
        frames, cameras, and standing of the run now: in production, replaced, rolled back or refused.
    """
    history = _read(_file(name, root))
    standing = _standings(history)
    rows = []
    for entry in history:
        verdict = entry.verdict
        figures = {key: math.nan if verdict.get(key) is None else verdict[key] for key in ("mean", "low", "high")}
        counts = {key: verdict.get(key, 0) for key in ("frames", "cameras")}
        words = {key: getattr(entry, key) for key in ("when", "action", "run", "replaced", "by", "reason", "forced")}
        rows.append(words | {"verdict": verdict["text"]} | figures | counts | {"standing": standing[entry.run]})
    words = ["when", "action", "run", "replaced", "by", "reason", "forced", "verdict"]
    return pd.DataFrame(rows, columns=[*words, "mean", "low", "high", "frames", "cameras", "standing"])


def challengers(
    folder: str | Path = "runs", name: str = "production", *, root: str | Path | None = None
) -> pd.DataFrame:
    """Every finished run below a folder against the one in production, as `promote` would judge it.

    Returns:
        run (its path), verdict (better, worse, undecided, incomparable), mean, low, high (dB, paired), frames, cameras
        and text, the best first.

    Raises:
        InputError: nothing is in production.
    """
    current = production(name, root=root)
    theirs, rows = held_out(current.metrics), []
    for path in run_folders(place(folder)):
        run = Run(path)
        if path.resolve() == current.path.resolve() or not _is_finished(run):
            continue
        verdict = compare_metrics(held_out(run.metrics), theirs)
        figures = {key: math.nan if verdict.get(key) is None else verdict[key] for key in ("mean", "low", "high")}
        counts = {key: verdict.get(key, 0) for key in ("frames", "cameras")}
        rows.append({"run": str(path), "verdict": verdict["word"], **figures, **counts, "text": verdict["text"]})
    columns = ["run", "verdict", "mean", "low", "high", "frames", "cameras", "text"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean", ascending=False, ignore_index=True)


def standings(folder: Path) -> dict[Path, str]:
    """By the run's folder: in production, replaced, rolled back or refused, of every pointer in ``folder``.

    Where there are several pointers, the name of each is said.
    """
    found: dict[Path, list[tuple[str, str]]] = {}
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        if not _NAME.fullmatch(file.stem) or file.stem in _TAKEN:
            continue
        try:
            history = _read(file)
        except InputError:
            continue  # some other JSON file
        for run, standing in _standings(history).items():
            found.setdefault((folder / run).resolve(), []).append((file.stem, standing))
    several = len({name for values in found.values() for name, _ in values}) > 1
    return {
        run: ", ".join(f"{name}: {standing}" if several else standing for name, standing in values)
        for run, values in found.items()
    }


def compare_metrics(new: pd.DataFrame, old: pd.DataFrame) -> dict[str, Any]:
    """The verdict (see `Promotion`) of one run's held-out metrics against another's.

    Frames are the same where name and ``truth`` are, which holds for a metric on the same picture from the same pose.
    """

    def incomparable(text: str, remedy: str) -> dict[str, Any]:
        return {"word": "incomparable", "text": text, "remedy": remedy}

    again = "evaluate both on the same capture, or force=True with a reason"
    for table, which in ((new, "this run"), (old, "the run in production")):
        if not len(table):
            return incomparable(f"{which} was not measured on held-out frames", "fd.evaluate(run, capture)")
        if "truth" not in table:
            text = f"{which} was measured before frames were told apart by their pictures"
            return incomparable(text, "evaluate it again: fd.evaluate(run, capture)")
    # By position: with hundreds of runs to compare, pandas' merge would take most of the time.
    there = pd.Index(old["frame"]).get_indexer(new["frame"])
    rows = np.flatnonzero(there >= 0)
    if not len(rows):
        return incomparable("no held-out frame is shared with the run in production", again)
    truths = (new["truth"].to_numpy()[rows], old["truth"].to_numpy()[there[rows]])
    other = int((truths[0] != truths[1]).sum())
    if other:
        text = f"{other} of {len(rows)} shared frames have another picture, pose or background in the two evaluations"
        return incomparable(text, again)
    after, before = new[METRIC].to_numpy(np.float64)[rows], old[METRIC].to_numpy(np.float64)[there[rows]]
    finite = np.isfinite(after) & np.isfinite(before)
    rows, gain = rows[finite], after[finite] - before[finite]
    if not len(rows):
        return incomparable("no shared frame has a finite PSNR in both", again)
    cameras = new["camera"].to_numpy()[rows]
    low, high = bootstrap(gain, cameras)
    result = {"mean": float(gain.mean()), "low": low, "high": high, "frames": len(rows), "cameras": len(set(cameras))}
    known = math.isfinite(result["low"])
    if known:
        word = "better" if result["low"] > 0 else "worse" if result["high"] < 0 else "undecided"
    else:
        word = "worse" if result["mean"] < 0 else "undecided"
    bounds = f" [{result['low']:+.2f}, {result['high']:+.2f}]" if known else " (one camera, no interval)"
    text = (
        f"{word}: {result['mean']:+.2f} dB{bounds} of held-out PSNR against the run in production "
        f"({result['frames']} frames, {result['cameras']} cameras, paired)"
    )
    figures = {key: value if math.isfinite(value) else None for key, value in result.items()}
    return {"word": word, "text": text, "metric": METRIC, **figures}


def user() -> str:
    """The name of the operating system's user, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


# --- inside ----------------------------------------------------------------------------------------------------------


def _verdict(run: Run, current: Promotion | None, folder: Path) -> dict[str, Any]:
    mine = held_out(run.metrics)
    if current is None:
        if not len(mine):
            return {
                "word": "incomparable",
                "text": "this run was not measured on held-out frames",
                "remedy": "fd.evaluate(run, capture)",
            }
        finite = mine[METRIC][np.isfinite(mine[METRIC])]
        text = f"the first: {finite.mean():.2f} dB of held-out PSNR ({len(finite)} frames)"
        return {"word": "first", "text": text}
    try:
        theirs = held_out(_checked(current, folder).metrics)
    except InputError as error:
        remedy = "bring it back, or force=True with a reason"
        return {"word": "incomparable", "text": f"the run in production cannot be used: {error}", "remedy": remedy}
    verdict = compare_metrics(mine, theirs)
    trained = [one.info["capture"].get("digest", "")[:12] for one in (run, _open(current, folder))]
    if trained[0] != trained[1]:
        verdict |= {"trained_on": trained, "text": f"{verdict['text']}; trained on other frames than that one"}
    return verdict


def _complete(run: Run | str | Path) -> Run:
    """A finished run whose model is the one that was trained.

    Raises:
        InputError: it is not.
    """
    run = load_run(run.path if isinstance(run, Run) else run)
    known = run.info.get("model_sha256")
    model = run.path / "model.safetensors"
    if known is not None and hash_file(model) != known:
        remedy = "train it again: remove run.json and use overwrite=True"
        raise InputError("is not the model that the training wrote", file=model, remedy=remedy)
    return run


def _checked(entry: Promotion, folder: Path) -> Run:
    """The run of an entry, complete and unchanged since.

    Raises:
        InputError: it is not.
    """
    run = _complete(_open(entry, folder))
    if entry.model_sha256 is not None and hash_file(run.path / "model.safetensors") != entry.model_sha256:
        remedy = "fd.rollback(), or promote another run"
        raise InputError("has another model than when it was promoted", file=run.path, remedy=remedy)
    return run


def _is_finished(run: Run) -> bool:
    try:
        return run.finished
    except InputError:
        return False


def _open(entry: Promotion, folder: Path) -> Run:
    return Run(folder / entry.run)


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _file(name: str, root: str | Path | None) -> Path:
    if not _NAME.fullmatch(name) or name in _TAKEN:
        remedy = "use letters, digits, - and _, and none of " + ", ".join(_TAKEN)
        raise InputError(f"{name!r} cannot name a pointer", field="name", remedy=remedy)
    return place("runs" if root is None else root) / f"{name}.json"


def _lock(file: Path) -> Path:
    return file.with_name(f".{file.stem}.lock")


def _read(file: Path) -> list[Promotion]:
    """The history in a pointer's file; empty where there is none.

    Raises:
        InputError: the file is damaged, or is no pointer.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        history = [Promotion(**entry) for entry in content["history"]]
        current = _current(history)
        if content["run"] != (current and current.run) or not all(
            isinstance(entry.verdict, Mapping) and {"word", "text"} <= set(entry.verdict) for entry in history
        ):
            raise ValueError("its run is not what its history leads to")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "restore it from a copy: it holds the history"
        raise InputError(f"is no pointer that can be read: {error}", file=file, remedy=remedy) from error
    return history


def _write(file: Path, history: list[Promotion]) -> None:
    current = _current(history)
    entries = [asdict(entry) for entry in history]
    write_json(file, {"format": 1, "run": current and current.run, "history": entries})


def _stack(history: list[Promotion]) -> list[Promotion]:
    """The promotions that stand, the one in production last: a rollback takes the last away."""
    stack: list[Promotion] = []
    for entry in history:
        if entry.action == "promoted":
            stack.append(entry)
        elif entry.action == "rolled back" and stack:
            stack.pop()
    return stack


def _current(history: list[Promotion]) -> Promotion | None:
    stack = _stack(history)
    return stack[-1] if stack else None


def _standings(history: list[Promotion]) -> dict[str, str]:
    """What became of every run of a history; the last thing that befell it counts."""
    found: dict[str, str] = {}
    for entry in history:
        if entry.action == "promoted" and entry.replaced is not None:
            found[entry.replaced] = "replaced"
        if entry.action == "rolled back":
            found[entry.replaced or ""] = "rolled back"
        found[entry.run] = "refused" if entry.action == "refused" else "in production"
    current = _current(history)
    if current is not None:
        found[current.run] = "in production"
    return found
