"""A track: what each control of a rig does over time."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import write_aside
from .names import listed

if TYPE_CHECKING:
    import torch

FORMAT = "fourdgs-drive-1"

MAX_ROWS = 10_000_000
"""Of a track that is resampled or repeated: a day at 120 a second. More is a slip of the pen."""

UNKNOWN = ("warn", "error")


@dataclass(frozen=True, eq=False)
class DriveTrack:
    """Values of A controls at K times. Never changed in place: every method gives a new one.

    Attributes:
        times_s: [K] float64, strictly rising.
        controls: A names: ARKit's face actions (weights), `HEAD` and eye angles (degrees), or any others.
        values: [K, A] float32, finite. 0 is neutral.

    Raises:
        InputError: shapes that do not fit, times that do not rise, a value that is not finite, a name twice.
    """

    times_s: np.ndarray
    controls: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        try:
            times = np.array(self.times_s, dtype=np.float64).reshape(-1)
            values = np.array(self.values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"is not made of numbers: {error}", field="values") from error
        controls = (self.controls,) if isinstance(self.controls, str) else tuple(self.controls)
        object.__setattr__(self, "times_s", _read_only(times))
        object.__setattr__(self, "controls", controls)
        object.__setattr__(self, "values", _read_only(values))
        _check(times, controls, values)

    def __len__(self) -> int:
        return len(self.times_s)

    def __repr__(self) -> str:
        return f"DriveTrack({len(self)} times, {self.duration_s:.2f} s, {len(self.controls)} controls)"

    @property
    def duration_s(self) -> float:
        """From the first time to the last."""
        return float(self.times_s[-1] - self.times_s[0])

    def at(self, times_s: Any) -> np.ndarray:
        """[T, A] float32 at any seconds ([T], or one): linear in between, the end's values before and after."""
        wanted = np.atleast_1d(np.asarray(times_s, dtype=np.float64)).reshape(-1)
        if not np.isfinite(wanted).all():
            raise InputError("holds a NaN or an infinity", field="times_s")
        if len(self) == 1:
            return np.repeat(self.values, len(wanted), axis=0)
        wanted = np.clip(wanted, self.times_s[0], self.times_s[-1])
        after = np.clip(np.searchsorted(self.times_s, wanted, side="right"), 1, len(self) - 1)
        start, end = self.times_s[after - 1], self.times_s[after]
        share = ((wanted - start) / (end - start)).astype(np.float32)[:, None]
        return self.values[after - 1] * (1 - share) + self.values[after] * share

    def tensor(self, times_s: Any = None, device: Any = None) -> torch.Tensor:
        """`at` as a tensor, for `Rig.vertices`; without times, the values as they are [K, A]."""
        import torch

        return torch.from_numpy(self.values.copy() if times_s is None else self.at(times_s)).to(device)

    # --- other tracks from this one ---

    def to(self, controls: Sequence[str], unknown: str = "warn") -> DriveTrack:
        """The track for a rig: its controls in its order, those that the track has not at 0.

        Args:
            controls: e.g. ``rig.controls``.
            unknown: what controls of the track are that are not among these: "warn" names them in one warning, and
                goes on without them; "error" refuses. One that is 0 throughout says nothing, and is let go.

        Raises:
            InputError: see ``unknown``; a name twice.
        """
        if unknown not in UNKNOWN:
            raise InputError(f"is {unknown!r}, must be one of {', '.join(UNKNOWN)}", field="unknown")
        controls = tuple(controls)
        moves = self.values.any(axis=0)
        strangers = [
            name for name, moved in zip(self.controls, moves, strict=True) if moved and name not in set(controls)
        ]
        if strangers:
            message = f"has what the rig has not: {listed(strangers, controls)}"
            if unknown == "error":
                raise InputError(message, field="controls", remedy="rename them with renamed(), or unknown='warn'")
            warnings.warn(f"the track {message}; left out", stacklevel=2)
        values = np.zeros((len(self), len(controls)), np.float32)
        rows = {name: index for index, name in enumerate(self.controls)}
        for index, name in enumerate(controls):
            if name in rows:
                values[:, index] = self.values[:, rows[name]]
        return DriveTrack(self.times_s, controls, values)

    def renamed(self, names: Mapping[str, str]) -> DriveTrack:
        """With other names for some controls: ``{"jawOpen": "Fcl_MTH_A"}`` for a rig of VRoid's.

        Raises:
            InputError: it has no such control.
        """
        self._known(names, "names")
        return DriveTrack(self.times_s, tuple(names.get(name, name) for name in self.controls), self.values)

    def scaled(self, factors: Mapping[str, float]) -> DriveTrack:
        """With some controls times a factor, e.g. ``{"headYaw": -1}`` where a file counts turns the other way."""
        self._known(factors, "factors")
        each = np.array([factors.get(name, 1.0) for name in self.controls], np.float32)
        return DriveTrack(self.times_s, self.controls, self.values * each)

    def resampled(self, fps: float) -> DriveTrack:
        """At ``fps`` values a second from its first time on, as far as it goes."""
        count = np.floor(self.duration_s * _rate(fps) * (1 + 1e-9) + 1e-6) + 1
        _few(count)
        times = self.times_s[0] + np.arange(int(count)) / float(fps)
        return DriveTrack(times, self.controls, self.at(times))

    def shifted(self, seconds: float) -> DriveTrack:
        """The same, later by so many seconds."""
        return DriveTrack(self.times_s + float(seconds), self.controls, self.values)

    def between(self, start_s: float, end_s: float) -> DriveTrack:
        """The part from one time to another, both included, within what there is; its times are kept."""
        start, end = max(float(start_s), self.times_s[0]), min(float(end_s), self.times_s[-1])
        if not start <= end:
            message = f"{start_s:g} to {end_s:g} s is outside {self.times_s[0]:g} to {self.times_s[-1]:g} s"
            raise InputError(message, field="start_s, end_s")
        inner = self.times_s[(self.times_s > start) & (self.times_s < end)]
        times = np.unique(np.concatenate([[start], inner, [end]]))
        return DriveTrack(times, self.controls, self.at(times))

    def followed_by(self, other: DriveTrack, blend_s: float | None = None) -> DriveTrack:
        """This track, and then another, whose controls may differ (those that one has not are 0 there).

        Args:
            blend_s: seconds from the last value of this to the first of the other, linear in between; None: as
                between the last two values of this track, or 0.1 s where it has one only.
        """
        if blend_s is None:
            blend_s = float(self.times_s[-1] - self.times_s[-2]) if len(self) > 1 else 0.1
        if not 0 < blend_s < np.inf:
            raise InputError(f"is {blend_s:g}, must be positive", field="blend_s", remedy="0.1 hides a jump")
        controls = (*self.controls, *(name for name in other.controls if name not in self.controls))
        _few(len(self) + len(other))
        times = [self.times_s, other.times_s - other.times_s[0] + (self.times_s[-1] + blend_s)]
        values = [self.to(controls).values, other.to(controls).values]
        return DriveTrack(np.concatenate(times), controls, np.concatenate(values))

    def looped(self, times: int, blend_s: float | None = None) -> DriveTrack:
        """The track so many times on end, from its end to its start as in `followed_by`."""
        if isinstance(times, bool) or int(times) != times or times < 1:
            raise InputError(f"is {times!r}, must be a whole number of at least 1", field="times")
        _few(len(self) * int(times))
        track = self
        for _ in range(int(times) - 1):
            track = track.followed_by(self, blend_s)
        return track

    def palindrome(self) -> DriveTrack:
        """Forwards and then backwards: it ends where it began, so that it may be looped without a jump."""
        back = 2 * self.times_s[-1] - self.times_s[-2::-1]
        return DriveTrack(
            np.concatenate([self.times_s, back]), self.controls, np.concatenate([self.values, self.values[-2::-1]])
        )

    # --- files ---

    def save(self, path: str | Path) -> Path:
        """Write it as ``time_s, jawOpen, ...`` in .csv, or as .json; `load_track` reads both back without loss.

        Raises:
            InputError: another ending. OutputError: the file cannot be written or the disk is full.
        """
        path = Path(path)
        if path.suffix.lower() not in (".csv", ".json"):
            raise InputError(f"ends in {path.suffix!r}", file=path, field="path", remedy="name it something.csv")
        with write_aside(path) as aside, open(aside, "w", encoding="utf-8", newline="") as handle:
            if path.suffix.lower() == ".csv":
                rows = csv.writer(handle, lineterminator="\n")
                rows.writerow(["time_s", *self.controls])
                for time, row in zip(self.times_s.tolist(), self.values, strict=True):
                    rows.writerow([repr(time), *(f"{value:.9g}" for value in row)])
            else:
                values = [[float(f"{value:.9g}") for value in row] for row in self.values]
                content = {"format": FORMAT, "controls": list(self.controls)}
                json.dump(content | {"times_s": self.times_s.tolist(), "values": values}, handle)
        return path

    def _known(self, names: Mapping[str, Any], field: str) -> None:
        unknown = [name for name in names if name not in self.controls]
        if unknown:
            message = f"names what the track has not: {listed(unknown, self.controls)}"
            raise InputError(message, field=field, remedy=f"it has {', '.join(self.controls[:60])}")


def _check(times: np.ndarray, controls: tuple[str, ...], values: np.ndarray) -> None:
    if not len(times):
        raise InputError("has no time", field="times_s")
    if not np.isfinite(times).all():
        raise InputError("holds a NaN or an infinity", field="times_s")
    if (np.diff(times) <= 0).any():
        index = int(np.argmax(np.diff(times) <= 0))
        message = f"is {times[index + 1]:g} s after {times[index]:g} s (value {index + 2}), must rise"
        raise InputError(message, field="times_s", remedy="sort the times, and leave out what is there twice")
    for name in controls:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"holds {name!r}, must be names", field="controls")
    doubled = [name for index, name in enumerate(controls) if name in controls[:index]]
    if doubled:
        raise InputError(f"{doubled[0]!r} is there more than once", field="controls", remedy="name every control once")
    if values.shape != (len(times), len(controls)):
        message = f"has the shape {list(values.shape)}, must be [{len(times)}, {len(controls)}]"
        raise InputError(message, field="values", remedy="give a row for each time, a column for each control")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        message = f"{controls[column]} is {values[row, column]} at {times[row]:g} s, must be finite"
        raise InputError(message, field="values", remedy="give its value, or leave that time out")


def _rate(fps: Any) -> float:
    if isinstance(fps, bool) or not isinstance(fps, int | float | np.number) or not 0 < fps <= 1000:
        raise InputError(f"is {fps!r}, must be a number above 0, up to 1000", field="fps")
    return float(fps)


def _few(count: float) -> None:
    if not count <= MAX_ROWS:
        raise InputError(f"comes to {count:,.0f} times, at most {MAX_ROWS:,}", field="times_s", remedy="lower fps")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
