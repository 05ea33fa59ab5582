"""Tracks from files: what face capture on a telephone or in a browser leaves behind, and our own CSV and JSON."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ..data.fields import read_json, read_text
from ..errors import InputError
from .landmarker import is_landmarker, read_landmarker
from .names import ARKIT, is_action, is_angle, listed, plain_name
from .tables import read_table
from .track import DriveTrack

MAX_BYTES = 2**28
"""Of one file: some 20 minutes of all of ARKit's controls at 60 a second, ten digits each."""

FAR = 2.0
"""An action's weight beyond this is in other units (per cent); beyond 1 by a little, the tracker's own enthusiasm."""

_RATES = (24, 25, 30, 48, 50, 60, 100, 120, 240)


def load_track(path: str | Path, fps: float | None = None) -> DriveTrack:
    """Read a track; its first value is at 0 s. ARKit's names come out as `ARKIT` has them, angles in degrees.

    =========================  ================================================================================
    a file with                what is read
    =========================  ================================================================================
    ``Timecode`` (.csv)        Live Link Face: ``HH:MM:SS:FF.sss`` (FF counts at ``fps``), ``BlendshapeCount``,
                               ``EyeBlinkLeft`` ... ``HeadYaw`` ... in radians. Rows that saw no face (count 0, or
                               empty) are left out with a warning. The app's makers publish no definition of the
                               angles' signs: look at a few seconds, and ``track.scaled({"headYaw": -1})``
    ``time_s`` (.csv)          our own: ``time_s, jawOpen, headYaw, ...`` in seconds, weights, degrees
    frames (.json)             MediaPipe Face Landmarker's results, see `landmarker.read_landmarker`
    ``controls`` (.json)       our own: ``{"controls": [...], "times_s": [...], "values": [[...], ...]}``
    =========================  ================================================================================

    Args:
        fps: what the frames of a timecode count at. None: the least usual rate that their numbers fit into (of a file
            of less than a second, 60 or more, with a warning), which takes 24 for 25 only where no frame 24 is there.

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
        track = _from_json(path)
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
    lower = [name.lower() for name in table.names]
    if "timecode" in lower:
        return _live_link(path, table, lower, fps)
    clock = next((name for name in ("time_s", "time", "timestamp_ms") if name in lower), None)
    if clock is None:
        message = f"has no column time_s or Timecode, but {listed(table.names)}"
        raise InputError(message, file=path, field="line 1", remedy="add time_s, in seconds")
    column = lower.index(clock)
    others = [index for index in range(len(lower)) if index != column]
    lines = [line for line in range(len(table.rows)) if any(table.rows[line])]
    times = np.array([table.number(line, column) for line in lines]) * (1e-3 if clock == "timestamp_ms" else 1)
    if not others:
        raise InputError("has no control", file=path, field="line 1", remedy="add a column such as jawOpen")
    values = np.array([[table.number(line, index) for index in others] for line in lines])
    return _track(path, times, [table.names[index] for index in others], values, [table.line(line) for line in lines])


def _live_link(path: Path, table, lower: list[str], fps: float | None) -> DriveTrack:
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
    seen, blind = [], 0
    for line, row in enumerate(table.rows):
        if not any(row):
            continue
        no_face = (count is not None and row[count] == "0") or not any(row[index] for index in others)
        blind += no_face
        seen += [] if no_face else [line]
    if not seen:
        raise InputError("has no row with a face", file=path, field="rows", remedy="record it again")
    if blind:
        warnings.warn(f"{path}: {blind} of {blind + len(seen)} rows saw no face; left out", stacklevel=4)
    times = _seconds(path, [(table.rows[line][clock], table.line(line)) for line in seen], fps)
    values = np.array([[table.number(line, index) for index in others] for line in seen])
    angles = np.array([is_angle(name) for name in names])
    if angles.any():
        if np.abs(values[:, angles]).max() > 2 * np.pi:
            warnings.warn(f"{path}: has angles beyond a whole turn of radians; taken as degrees", stacklevel=4)
        else:
            values[:, angles] = np.degrees(values[:, angles])
    return _track(path, times, names, values, [table.line(line) for line in seen])


def _seconds(path: Path, codes: list[tuple[str, int]], fps: float | None) -> np.ndarray:
    """Seconds of timecodes HH:MM:SS:FF.sss, which may pass midnight; the frames count at ``fps``."""
    parts = np.empty((len(codes), 4))
    for index, (code, line) in enumerate(codes):
        try:
            numbers = [float(part) for part in code.replace(";", ":").split(":")]
            if len(numbers) != 4 or not all(0 <= number < 1000 for number in numbers):
                raise ValueError(code)
        except ValueError as error:
            message = f"is {code[:40]!r}, must be HH:MM:SS:FF or HH:MM:SS:FF.sss"
            raise InputError(message, file=path, field=f"line {line}: Timecode", remedy="export it again") from error
        parts[index] = numbers
    whole = parts[:, :3] @ np.array([3600.0, 60.0, 1.0])
    last = np.floor(parts[:, 3].max())
    if fps is None:
        turns = (np.diff(whole) != 0).any()
        fps = next((rate for rate in _RATES if rate > last and (turns or rate >= 60)), None)
        if fps is None:
            raise InputError(f"counts frames up to {last:g}", file=path, field="Timecode", remedy="give fps")
        if not turns:
            message = f"is within one second, so its frames are taken to count at {fps} a second; fps says otherwise"
            warnings.warn(f"{path}: {message}", stacklevel=5)
    elif last >= fps:
        message = f"counts frames up to {last:g}, but fps is {fps:g}"
        raise InputError(message, file=path, field="fps", remedy="leave fps out, or give the recording's")
    times = whole + parts[:, 3] / fps
    return times + 86400.0 * np.cumsum(np.concatenate([[0], np.diff(times) < -43200]))


# --- JSON ---


def _from_json(path: Path) -> DriveTrack:
    if not path.stat().st_size:
        raise InputError("is empty", file=path, remedy="export it again")
    content = read_json(path, MAX_BYTES)
    if is_landmarker(content):
        times, names, values, places = read_landmarker(path, content)
        return _track(path, times, names, values, places, "frame")
    if not isinstance(content, dict) or "controls" not in content:
        message = "is no track: neither a list of MediaPipe frames (face_blendshapes), nor controls, times_s and values"
        raise InputError(message, file=path, remedy="export it again, or write a .csv with time_s, jawOpen, ...")
    names = content["controls"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise InputError("must be a list of names", file=path, field="controls")
    arrays = []
    for key in ("times_s", "values"):
        try:
            if not isinstance(content.get(key), list):
                raise ValueError("missing, or no list")
            arrays.append(np.array(content[key], dtype=np.float64))
        except (ValueError, TypeError, OverflowError) as error:
            message = f"must be numbers, a row of {len(names)} for each time: {error}"
            raise InputError(message, file=path, field=key, remedy="write the track again") from error
    times, values = arrays
    if times.ndim != 1 or values.shape != (len(times), len(names)):
        message = f"has the shape {list(values.shape)} for {times.size} times and {len(names)} controls"
        raise InputError(message, file=path, field="values", remedy="give a row for each time, a column for each")
    return _track(path, times, names, values, list(range(1, len(times) + 1)), "value")


# --- all of them ---


def _track(path: Path, times: np.ndarray, names, values: np.ndarray, places: list[int], word="line") -> DriveTrack:
    """Check what was read, and begin it at 0 s. ``places``: the line (or number) of each row, for errors."""
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
