"""Pre-registration: what a run is to show, and what each outcome would mean, written down before it starts.

::

    fd.register(fd.Hypothesis("The grid reaches what the clip cannot", threshold_db=30, source="talking",
                              outcomes={"above": "a real jump", "below": "a ceiling"}), "runs/grid")
    fd.train(capture, config, "runs/grid/deform-s0")        # finds runs/grid/hypothesis.json, and keeps it in run.json
    verdict.cite("runs/grid", [run])                        # what it says now, and whether it was there before

What shows that it was there before the run: the run's own ``run.json``, written as the training starts, holds the whole
text; its date; and, where the file lies in a git repository, the commit that it is unchanged since. Whoever can edit
all of these can forge them; only the commit, once pushed elsewhere, is out of the writer's own hands.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import hash_json, locked, write_json

if TYPE_CHECKING:
    import pandas as pd

    from .runs import Run

FILE = "hypothesis.json"
METRICS = ("psnr_db", "psnr_fg_db")
WORDS = ("above", "below", "undecided")


@dataclass(frozen=True)
class Hypothesis:
    """A threshold for the mean of a metric, and what its three outcomes would mean.

    Attributes:
        statement: what is expected, in a sentence.
        threshold_db: the line. ``above``: the whole 95 % interval is at or above it; ``below``: all of it is below;
            ``undecided``: it spans the line, or one camera gives no interval.
        metric: ``psnr_db`` (full frame) or ``psnr_fg_db`` (foreground alone).
        split: of the frames that are measured.
        source: their source; None is all of the split.
        outcomes: what each outcome would mean: ``above`` and ``below``, and ``undecided`` if more is to be said of it.
        written_at: UTC; set by `register`.

    Raises:
        InputError: a part is missing or cannot be.
    """

    statement: str
    threshold_db: float
    metric: str = "psnr_db"
    split: str = "test"
    source: str | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)
    written_at: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.statement, str) or not self.statement.strip():
            raise InputError("is empty", field="statement", remedy="say what the run is to show")
        number = isinstance(self.threshold_db, int | float) and not isinstance(self.threshold_db, bool)
        if not number or not math.isfinite(self.threshold_db):
            raise InputError(f"{self.threshold_db!r} is no number", field="threshold_db", remedy="give it in dB")
        if self.metric not in METRICS:
            raise InputError(f"{self.metric!r} is unknown", field="metric", remedy=f"use {' or '.join(METRICS)}")
        for name in ("split", "source", "written_at"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "source" and value is None):
                raise InputError(f"{value!r} is no text", field=name)
        given = self.outcomes
        if not isinstance(given, Mapping) or not all(isinstance(text, str) for text in given.values()):
            raise InputError(f"{given!r} is no table of texts", field="outcomes")
        if not {"above", "below"} <= set(given) <= set(WORDS):
            remedy = "say what above and below would mean, and undecided if you like"
            raise InputError(f"has {sorted(given)}", field="outcomes", remedy=remedy)
        if self.written_at:
            _time(self.written_at)
        object.__setattr__(self, "outcomes", {word: given[word] for word in WORDS if word in given})
        object.__setattr__(self, "threshold_db", float(self.threshold_db))

    @property
    def digest(self) -> str:
        """64 hex digits of all that it says, its date included."""
        return hash_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Its attributes as JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Hypothesis:
        """The hypothesis that `to_dict` gave; keys that are none of its attributes are left out.

        Raises:
            InputError: a part is missing or cannot be.
        """
        known = {name.name: values[name.name] for name in fields(Hypothesis) if name.name in values}
        for name in ("statement", "threshold_db"):
            if name not in known:
                raise InputError("is missing", field=name)
        return Hypothesis(**known)


def register(hypothesis: Hypothesis, out: str | Path) -> Path:
    """Write a hypothesis down, with the time, before its runs.

    Args:
        out: a ``.json`` file, best one that git keeps; or the folder of the runs, which then find it by themselves as
            ``hypothesis.json``.

    Returns:
        The file. One that says the same already is left as it is, with its date.

    Raises:
        InputError: another hypothesis is there: what was registered is not changed.
        OutputError: the file cannot be written.
    """
    out = Path(out)
    file = out if out.suffix == ".json" else out / FILE
    with locked(file.parent / f".{file.stem}.lock"):
        if file.exists():
            standing = load_hypothesis(file)
            if replace(standing, written_at="") != replace(hypothesis, written_at=""):
                remedy = "write the new one to another file, or beside other runs: what was registered is not changed"
                raise InputError("another hypothesis was registered here", file=file, remedy=remedy)
            return file
        stamped = replace(hypothesis, written_at=datetime.now(UTC).isoformat(timespec="seconds"))
        write_json(file, stamped.to_dict())
    return file


def load_hypothesis(path: str | Path) -> Hypothesis:
    """Read a hypothesis: its file, or the folder of runs that it lies in.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    remedy = "write it with fd.register"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("there is no hypothesis here", file=file, remedy=remedy) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=file, remedy=remedy) from error
    if not isinstance(values, dict):
        raise InputError("is no JSON object", file=file, remedy=remedy)
    try:
        return Hypothesis.from_dict(values)
    except InputError as error:
        raise InputError(str(error), file=file) from error


def registered(hypothesis: str | Path | Hypothesis | None, out: Path) -> dict[str, Any] | None:
    """What ``run.json`` keeps of the hypothesis that a run in ``out`` starts under; None without one.

    Its whole content, its digest, and the commit that its file is unchanged since (None where git does not keep it).

    Raises:
        InputError: a file that cannot be read, or a hypothesis without a date.
    """
    beside = out.parent / FILE
    if hypothesis is None:
        if not beside.is_file():
            return None
        hypothesis = beside
    commit = None
    if not isinstance(hypothesis, Hypothesis):
        file = Path(hypothesis) / FILE if Path(hypothesis).is_dir() else Path(hypothesis)
        hypothesis, commit = load_hypothesis(file), _commit_of(file)
    if not hypothesis.written_at:
        raise InputError("is empty", field="written_at", remedy="write it down with fd.register, before the run")
    return hypothesis.to_dict() | {"digest": hypothesis.digest, "commit": commit}


def precedence(hypothesis: Hypothesis, run: Run) -> tuple[bool, str]:
    """Whether a run was trained under a hypothesis, and what shows it, in words."""
    kept = run.info.get("hypothesis")
    started = run.info.get("started", "")
    if not kept:
        return False, "the run does not name it"
    if kept.get("digest") != hypothesis.digest:
        return False, "the run was trained under another"
    # The copy in run.json has to be the text that its digest is of, too.
    if not started or Hypothesis.from_dict(kept).digest != hypothesis.digest:
        return False, "the run's copy of it was changed"
    if _time(hypothesis.written_at) > _time(started):
        return False, f"it is dated {hypothesis.written_at}, after the run's start {started}"
    commit = kept.get("commit")
    if commit and _time(commit["time"]) <= _time(started):
        return True, f"commit {commit['commit'][:10]} of {commit['time']} holds it, the run started {started}"
    return True, f"dated {hypothesis.written_at}, kept by the run as it started {started}; not in git before it"


def judge(hypothesis: Hypothesis, runs: Sequence[Run]) -> pd.DataFrame:
    """What evaluated runs say to a hypothesis. Runs of one name but for their seed (``name-s0``) count as one row.

    Returns:
        A line a row: row, seeds, mean, low, high (dB; 95 % bootstrap over cameras), frames, cameras, verdict (above,
        below, undecided), meaning (the outcome's own words), before (bool: all of its runs were trained under it) and
        evidence (what shows it, or what is amiss).

    Raises:
        InputError: a run was not measured on such frames.
    """
    import pandas as pd

    from .evaluate import summary

    tables: dict[str, list[pd.DataFrame]] = {}
    signs: dict[str, list[tuple[bool, str]]] = {}
    for run in runs:
        row, table = _row_of(run.name), run.metrics
        if len(table):
            table = table[(table["split"] == hypothesis.split)]
            # A frame that was asked for at another time too (source name@time) is evidence of its own, if asked for.
            named = table["source"].astype(str)
            wanted = ~named.str.contains("@", regex=False) if hypothesis.source is None else named == hypothesis.source
            table = table[wanted & table[hypothesis.metric].notna()]
        if not len(table):
            what = f"no {hypothesis.metric} of split {hypothesis.split!r}"
            what += f" source {hypothesis.source!r}" if hypothesis.source else ""
            raise InputError(f"has {what}", file=run.path / "metrics.csv", remedy="fd.evaluate(run, capture)")
        tables.setdefault(row, []).append(table.assign(row=row, seed=run.info["config"]["seed"]))
        signs.setdefault(row, []).append(precedence(hypothesis, run))
    whole = pd.concat([table for parts in tables.values() for table in parts], ignore_index=True)
    found = summary(whole, by=("row",), value=hypothesis.metric)
    found["verdict"] = [outcome(hypothesis, low, high) for low, high in zip(found["low"], found["high"], strict=True)]
    found["meaning"] = [hypothesis.outcomes.get(word, "") for word in found["verdict"]]
    found["before"] = [all(before for before, _ in signs[row]) for row in found["row"]]
    # The weakest of several runs speaks for the row.
    found["evidence"] = [min(signs[row], key=lambda sign: sign[0])[1] for row in found["row"]]
    order = ["row", "seeds", "mean", "low", "high", "frames", "cameras", "verdict", "meaning", "before", "evidence"]
    return found[order]


def outcome(hypothesis: Hypothesis, low: float, high: float) -> str:
    """above, below or undecided, of an interval (dB); NaN bounds decide nothing."""
    if low >= hypothesis.threshold_db:
        return "above"
    return "below" if high < hypothesis.threshold_db else "undecided"


def _row_of(name: str) -> str:
    row, mark, seed = name.rpartition("-s")
    return row if mark and seed.isdigit() else name


def _commit_of(file: Path) -> dict[str, str] | None:
    """The commit that a file is unchanged since, ``{"commit", "time"}``; None where git does not hold it as it is."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words, "--", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if git("status", "--porcelain", "--ignored"):
            return None
        commit, _, time = git("log", "-1", "--format=%H %cI").partition(" ")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "time": time} if commit else None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{text!r} is no time", field="written_at", remedy="ISO 8601, such as fd.register sets"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
