"""Tracks from files: what face capture on a telephone or in a browser leaves behind, and our own CSV and JSON."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..data.fields import read_text
from ..errors import InputError
from .clocks import stamp_unit, timecode_seconds
from .jsons import Rows, read_rows
from .names import ARKIT, is_action, is_angle, listed, plain_name
from .tables import Table, read_table
from .track import DriveTrack

MAX_BYTES = 2**28
"""Of one file: some 20 minutes of all of ARKit's controls at 60 a second, ten digits each."""

FAR = 2.0
"""An action's weight beyond this is in other units (per cent); beyond 1 by a little, the tracker's own enthusiasm."""

_CLOCKS = {
    "time_s": 1, "timestamp_s": 1, "time": 1, "timestamp_ms": 1e-3, "time_ms": 1e-3, "timestamp": None, "timecode": 1
}  # fmt: skip
"""Columns of times and their units in seconds, the first that is there counts; None: to be seen by the steps."""

_FRAMES = ("frame", "frame_index", "frame_idx", "frame_number", "frame_id", "frameindex")
"""Columns that count frames, times only where ``fps`` is given."""

_ASIDE = ("_neutral", "blendshapecount", "face", "face_id", "face_index", "timestamp", "timestamp_ms", *_FRAMES)
"""Columns beside ARKit's actions that are no controls."""


def load_track(path: str | Path, fps: float | None = None) -> DriveTrack:
    """Read a track; its first value is at 0 s. ARKit's names come out as `ARKIT` has them, angles in degrees.

    =========================  ================================================================================
    a file with                what is read
    =========================  ================================================================================
    ``Timecode`` (.csv)        Live Link Face: ``HH:MM:SS:FF.sss`` (FF counts at ``fps``), ``BlendshapeCount``,
                               ``EyeBlinkLeft`` ... ``HeadYaw`` ... in radians. Rows that saw no face (count 0, or
                               empty) are left out with a warning. The app's makers publish no definition of the
                               angles' signs: look at a few seconds, and ``track.scaled({"headYaw": -1})``
    ``time_s`` (.csv)          our own: ``time_s, jawOpen, headYaw, ...`` in seconds, weights, degrees. Or others':
                               ``timeCode, blendShapes.JawOpen, ...`` of Audio2Face-3D; ``timestamp_ms``; a bare
                               ``timestamp`` of seconds, or of milliseconds if its steps are above 1; ``frame``, if
                               ``fps`` is given. A nameless first column (an index) and MediaPipe's ``_neutral`` are
                               let go
    ``name, score`` (.csv)     one weight a line beside such a time, as MediaPipe's results are often written
    frames (.json)             MediaPipe Face Landmarker's results, see `landmarker.read_landmarker`
    ``facsNames`` (.json)      Audio2Face: ``{"exportFps": 30, "facsNames": [...], "weightMat": [[...], ...]}``
    ``names`` (.json)          the BEAT data set: ``{"names": [...], "frames": [{"time": 0, "weights": [...]}]}``
    ``controls`` (.json)       our own: ``{"controls": [...], "times_s": [...], "values": [[...], ...]}``
    =========================  ================================================================================

    Args:
        fps: what the frames of a timecode count at, or those of a file that has no times. None: of a timecode the
            least usual rate that their numbers fit into (of a file of less than a second, 60 or more, with a warning),
            which takes 24 for 25 only where no frame 24 is there.

    Raises:
        InputError: for the first thing that is wrong, naming file, place and what to do: no time, times that do not
            rise, a value that is no finite number, a weight in per cent, a name twice, an empty file.
    """
    path = Path(path)
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"is {fps!r}, must be a number above 0, up to 1000", file=path, field="fps")
    if not path.is_file():
        raise InputError("is not there", file=path, remedy="give a .csv or .json file with a track")
    kind = path.suffix.lower()
    if kind == ".json":
        track = _track(path, read_rows(path, MAX_BYTES, fps))
    elif kind == ".csv":
        track = _from_csv(path, fps)
    else:
        remedy = "give a .csv or .json; of a sound, fourdgs.drive.from_audio makes a track"
        raise InputError(f"ends in {path.suffix!r}", file=path, field="path", remedy=remedy)
    _check_weights(path, track)
    return track


# --- CSV ---


def _from_csv(path: Path, fps: float | None) -> DriveTrack:
    table = read_table(path, read_text(path, MAX_BYTES))
    if table.names[:1] == [""]:  # pandas' index
        table = Table(path, table.names[1:], [row[1:] for row in table.rows], table.lines)
    lower = [name.lower() for name in table.names]
    clock = next((name for name in _CLOCKS if name in lower), None)
    if "timecode" in lower and any(mark in row[lower.index("timecode")] for row in table.rows[:1] for mark in ":;"):
        return _live_link(path, table, lower, fps)
    frames = next((name for name in _FRAMES if name in lower), None)
    if clock is None and (frames is None or fps is None):
        message = f"has no column time_s or Timecode, but {listed(table.names)}"
        remedy = "give fps, at which its frames count" if frames else "add time_s, in seconds"
        raise InputError(message, file=path, field="line 1", remedy=remedy)
    column = lower.index(clock or frames)
    name, score = (next((n for n in names if n in lower), None) for names in (("name", "category_name"), ("score",)))
    if name and score:
        table = _spread(path, table, column, lower.index(name), lower.index(score))
        lower, column = [name.lower() for name in table.names], 0
    face = any(is_action(plain_name(name)) for name in table.names)
    others = [index for index in range(len(lower)) if index != column and not (face and lower[index] in _ASIDE)]
    if not others:
        raise InputError("has no control", file=path, field="line 1", remedy="add a column such as jawOpen")
    seen = _seen(path, table, others)
    times = np.array([table.number(line, column) for line in seen])
    unit = 1 / fps if clock is None else _CLOCKS[clock] or stamp_unit(path, clock, times)
    values = np.array([[table.number(line, index) for index in others] for line in seen])
    names, lines = [table.names[index] for index in others], [table.line(line) for line in seen]
    return _track(path, Rows(times * unit, names, values, lines))


def _seen(path: Path, table: Table, columns: list[int], count: int | None = None) -> list[int]:
    """The rows that saw a face: those with a value, and no 0 in the column ``count``; of others a warning tells."""
    rows = [line for line, row in enumerate(table.rows) if any(row)]
    seen = [
        line
        for line in rows
        if any(table.rows[line][index] for index in columns) and (count is None or table.rows[line][count] != "0")
    ]
    if rows and not seen:
        raise InputError("has no row with a face", file=path, field="rows", remedy="record it again")
    if len(seen) < len(rows):
        warnings.warn(f"{path}: {len(rows) - len(seen)} of {len(rows)} rows saw no face; left out", stacklevel=5)
    return seen


def _spread(path: Path, table: Table, clock: int, name: int, score: int) -> Table:
    """A table with a column a control, from one with a line for each weight; controls not named at a time are 0."""
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        found.setdefault(row[clock], (line, {}))[1].setdefault(row[name], row[score])  # the first face counts
    names = list(dict.fromkeys(name for _, cells in found.values() for name in cells if name))
    rows = [[time, *(cells.get(name, "0") for name in names)] for time, (_, cells) in found.items()]
    return Table(path, [table.names[clock], *names], rows, [line for line, _ in found.values()])


def _live_link(path: Path, table: Table, lower: list[str], fps: float | None) -> DriveTrack:
    clock = lower.index("timecode")
    count = lower.index("blendshapecount") if "blendshapecount" in lower else None
    others = [index for index in range(len(lower)) if index not in (clock, count)]
    names = [plain_name(table.names[index]) for index in others]
    missing = [name for name in ARKIT if name not in names]
    if len(missing) == len(ARKIT):
        message = f"has none of ARKit's actions, but {listed(table.names)}"
        raise InputError(message, file=path, field="line 1", remedy="export it from Live Link Face again")
    if missing:
        warnings.warn(f"{path}: lacks {listed(missing)}, which are neutral in the track", stacklevel=4)
    seen = _seen(path, table, others, count)
    if not seen:
        raise InputError("has no row with a face", file=path, field="rows", remedy="record it again")
    times = timecode_seconds(path, [(table.rows[line][clock], table.line(line)) for line in seen], fps)
    values = np.array([[table.number(line, index) for index in others] for line in seen])
    angles = np.array([is_angle(name) for name in names])
    if angles.any():
        if np.abs(values[:, angles]).max() > 2 * np.pi:
            warnings.warn(f"{path}: has angles beyond a whole turn of radians; taken as degrees", stacklevel=4)
        else:
            values[:, angles] = np.degrees(values[:, angles])
    return _track(path, Rows(times, names, values, [table.line(line) for line in seen]))


# --- all of them ---


def _track(path: Path, rows: Rows) -> DriveTrack:
    """Check what was read, and begin it at 0 s."""
    times, names, values, places, word = rows
    names = [plain_name(name) for name in names]
    if not len(times):
        raise InputError("has no row of values", file=path, field="rows", remedy="record it again")
    for index, name in enumerate(names):
        if not name:
            raise InputError(f"column {index + 2} has no name", file=path, field="line 1", remedy="name it")
        if name in names[:index]:
            raise InputError(f"{name} is there more than once", file=path, field="line 1", remedy="leave one")
    with np.errstate(over="ignore"):  # beyond a float32's range is as bad as infinite
        values = np.asarray(values, dtype=np.float32).astype(np.float64).reshape(len(times), len(names))
    bad = ~(np.isfinite(times) & np.isfinite(values).all(axis=1))
    if bad.any():
        row = int(np.argmax(bad))
        wrong = [name for name, value in zip(names, values[row], strict=True) if not np.isfinite(value)] or ["the time"]
        message = f"{listed(wrong)} must be a finite number"
        remedy = "take that row out: what is in between is filled in"
        raise InputError(message, file=path, field=f"{word} {places[row]}", remedy=remedy)
    same = np.concatenate([[False], (np.diff(times) == 0) & (np.diff(values, axis=0) == 0).all(axis=1)])
    if same.any():
        warnings.warn(f"{path}: {int(same.sum())} rows repeat the one before, time and all; left out", stacklevel=4)
        times, values = times[~same], values[~same]
        places = [place for place, again in zip(places, same, strict=True) if not again]
    back = np.diff(times) <= 0
    if back.any():
        row = int(np.argmax(back)) + 1
        message = f"the time {times[row] - times[0]:.4g} s follows {times[row - 1] - times[0]:.4g} s, must rise"
        remedy = "sort the rows by time, and leave out what is there twice"
        raise InputError(message, file=path, field=f"{word} {places[row]}", remedy=remedy)
    return DriveTrack(times - times[0], tuple(names), values)


def _check_weights(path: Path, track: DriveTrack) -> None:
    actions = np.array([is_action(name) for name in track.controls])
    if not actions.any():
        return
    low, high = track.values[:, actions].min(axis=0), track.values[:, actions].max(axis=0)
    names = [name for name in track.controls if is_action(name)]
    for worst, index in ((high.max(), int(high.argmax())), (low.min(), int(low.argmin()))):
        if abs(worst) > FAR:
            message = f"is up to {worst:g}, must be in [0, 1]"
            raise InputError(message, file=path, field=names[index], remedy="divide per cent by 100")
    out = [name for name, a, b in zip(names, low, high, strict=True) if a < -0.05 or b > 1.05]
    if out:
        message = f"{listed(out)} leave [0, 1] (from {low.min():.3g} to {high.max():.3g}); kept as they are"
        warnings.warn(f"{path}: {message}", stacklevel=3)
