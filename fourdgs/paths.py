"""Camera paths: recipes of numbers that give cameras, and the story's own.

    cameras = paths.spiral(frames=500, width=800, height=800)         # Cameras
    recipe = paths.spiral.recipe(frames=500, width=800, height=800)   # the same as a CameraPath: JSON, lengths, loops
    cameras = recipe.lasting(63.2, fps=25).cameras()                  # as long as an audio file, without a seam

Elevation is the camera's height above the target's horizon: **positive looks down from above**. Tools in the wake of
NeRF's synthetic scenes name the camera's pitch instead, whose -30 is +30 here; the story's "elevation -30 +- 10"
(from above) is ``elevation_deg=30, swing_deg=10``. Its "yaw" is the azimuth: 0 is on +z, and it grows towards +x.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .cameras import Cameras, on_sphere
from .errors import InputError
from .files import write_json

__all__ = ["PATHS", "CameraPath", "arc", "dolly", "frame_count", "orbit", "recipe", "spiral", "tilt"]

EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda s: s,
    "smooth": lambda s: s * s * (3 - 2 * s),  # speed 0 at both ends
    "smoother": lambda s: s**3 * (s * (6 * s - 15) + 10),  # and acceleration 0
}
TRAVELS = ("once", "loop", "palindrome")
TIMES = ("along", "loop", "palindrome")
FITS = ("auto", "loop", "palindrome", "stretch")


@dataclass(frozen=True)
class CameraPath:
    """The recipe of a camera path on spheres about a target. One number for a pair means that both ends are alike.

    Attributes:
        frames: cameras.
        name: for people and file names.
        azimuth_deg, elevation_deg, radius: (start, end) of a pass. Elevation: positive is above, looking down.
        swing_deg, swings: a sine on the elevation: its amplitude, and how many periods a pass has.
        travel: ``once`` runs from start to end, both included. ``loop`` runs ``cycles`` times from start to end, the
            last frame a step short of the end, which is the start again where the path is closed. ``palindrome``
            runs ``cycles`` times there and back, the last frame a step short of the start.
        easing: of a pass: linear, smooth (rests at its ends) or smoother (no jerk there either).
        times: ``along`` runs once through ``time_range``, both ends included. ``loop`` runs ``time_cycles`` times
            through it and jumps back, for scenes whose end leads to their beginning. ``palindrome`` runs
            ``time_cycles`` times there and back. A number is the time of all frames, None: no time (the canonical
            scene).
        target, up, fov_x_deg, width, height: of the cameras, see `fourdgs.cameras.orbit`.

    Raises:
        InputError: a value that cannot be.
    """

    frames: int = 250
    name: str = "path"
    azimuth_deg: tuple[float, float] = (0.0, 360.0)
    elevation_deg: tuple[float, float] = (0.0, 0.0)
    radius: tuple[float, float] = (4.0, 4.0)
    swing_deg: float = 0.0
    swings: float = 1.0
    travel: str = "once"
    cycles: int = 1
    easing: str = "linear"
    times: str | float | None = "along"
    time_range: tuple[float, float] = (0.0, 1.0)
    time_cycles: int = 1
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    fov_x_deg: float = 36.0
    width: int = 400
    height: int = 400

    def __post_init__(self) -> None:
        for name in ("frames", "cycles", "time_cycles", "width", "height"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        for name in ("azimuth_deg", "elevation_deg", "radius", "time_range"):
            object.__setattr__(self, name, _numbers(getattr(self, name), 2, name))
        for name in ("target", "up"):
            object.__setattr__(self, name, _numbers(getattr(self, name), 3, name))
        for name in ("swing_deg", "swings", "fov_x_deg"):
            object.__setattr__(self, name, _numbers(getattr(self, name), 1, name)[0])
        for name, known in (("travel", TRAVELS), ("easing", EASINGS)):
            known_word(getattr(self, name), known, name)
        if isinstance(self.times, str):
            known_word(self.times, TIMES, "times")
        elif self.times is not None:
            object.__setattr__(self, "times", _numbers(self.times, 1, "times")[0])
        given = [self.times] if isinstance(self.times, float) else []
        if not all(0 <= value <= 1 for value in [*given, *self.time_range]):
            raise InputError("a time must be in [0, 1]", field="time_range" if not given else "times")
        if self.travel == "once" and self.cycles != 1:
            raise InputError(f"is {self.cycles}, but the path runs once", field="cycles", remedy="travel='loop'")
        if not min(self.radius) > 0:
            raise InputError(f"is {list(self.radius)}, must be positive", field="radius")
        if not isinstance(self.name, str) or not self.name:
            raise InputError("must be a word", field="name")

    # --- cameras ---

    def cameras(self) -> Cameras:
        """The path's cameras, with their times."""
        passed = self._passed()
        azimuth, elevation, radius = (
            start + (end - start) * passed for start, end in (self.azimuth_deg, self.elevation_deg, self.radius)
        )
        elevation = elevation + self.swing_deg * np.sin(2 * np.pi * self.swings * passed)
        return on_sphere(
            np.radians(azimuth),
            np.radians(elevation),
            radius,
            target=self.target,
            up=self.up,
            fov_x_deg=self.fov_x_deg,
            width=self.width,
            height=self.height,
            times=self._times(),
        )

    def _passed(self) -> np.ndarray:
        """[frames] how far along a pass each frame is, eased."""
        return EASINGS[self.easing](passes(self.frames, self.travel, self.cycles))

    def _times(self) -> np.ndarray:
        """[frames], NaN where there is no time."""
        if not isinstance(self.times, str):
            return np.full(self.frames, np.nan if self.times is None else self.times)
        start, end = self.time_range
        return start + (end - start) * passes(self.frames, self.times.replace("along", "once"), self.time_cycles)

    @property
    def returns(self) -> bool:
        """Whether the camera comes back to its start after the last frame."""
        around = self.azimuth_deg[1] - self.azimuth_deg[0]
        same = self.elevation_deg[0] == self.elevation_deg[1] and self.radius[0] == self.radius[1]
        whole = math.isclose(around, 360 * round(around / 360), abs_tol=1e-6)
        swung = self.swing_deg == 0 or math.isclose(self.swings, round(self.swings), abs_tol=1e-6)
        return self.travel == "palindrome" or (self.travel == "loop" and same and whole and swung)

    @property
    def closed(self) -> bool:
        """Whether the last frame leads to the first, in place and in time: a player can repeat it without a seam.

        Time that loops counts as such: whether the scene's end leads to its beginning is the scene's affair.
        """
        return self.returns and (self.times != "along" or self.time_range[0] == self.time_range[1])

    # --- lengths ---

    def lasting(self, duration_s: float, fps: float = 25, fit: str = "auto") -> CameraPath:
        """The same path with as many frames as ``duration_s`` has, whole cycles of it at nearly its own speed.

        The number of cycles is the nearest whole one, and at least one, so the speed gives way a little (and a lot
        where the path is longer than the duration). The result is `closed`, but for ``stretch``.

        Args:
            duration_s: seconds. fps: frames a second.
            fit: ``loop`` goes round and round, ``palindrome`` there and back; ``auto``: loop where the camera returns
                to its start, else palindrome. Time that runs along becomes a palindrome in either. ``stretch`` takes
                the path as it is, slower or faster.

        Raises:
            InputError: a path that does not return is to loop; a duration or rate that is not positive.
        """
        known_word(fit, FITS, "fit")
        frames = frame_count(duration_s, fps)
        if fit == "stretch":
            return replace(self, frames=frames)
        changes: dict[str, Any] = {"frames": frames}
        rounds = frames / self.frames  # how often the path as it is fits in
        if fit == "auto":
            fit = "loop" if self.returns else "palindrome"
        if fit == "loop" and not self.returns:
            remedy = "use fit='palindrome', or whole turns and travel='loop'"
            raise InputError(f"{self.name!r} does not come back to its start", field="fit", remedy=remedy)
        if self.travel == "palindrome" or fit == "loop":
            changes |= {"cycles": max(1, round(self.cycles * rounds))}
        else:  # there and back takes twice as long as a pass
            changes |= {"travel": "palindrome", "cycles": max(1, round(self.cycles * rounds / 2))}
        if self.times == "along":
            changes |= {"times": "palindrome", "time_cycles": max(1, round(rounds / 2))}
        elif isinstance(self.times, str):
            changes |= {"time_cycles": max(1, round(self.time_cycles * rounds))}
        return replace(self, **changes)

    def framed(self, *, target: Any, up: Any, radius: float, fov_x_deg: float) -> CameraPath:
        """The same path about another scene: its radii scaled so that it starts at ``radius``."""
        factor = _numbers(radius, 1, "radius")[0] / self.radius[0]
        radii = (self.radius[0] * factor, self.radius[1] * factor)
        return replace(self, target=target, up=up, radius=radii, fov_x_deg=fov_x_deg)

    # --- JSON ---

    def to_dict(self) -> dict[str, Any]:
        """JSON scalars and lists; `from_dict` gives the path back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_dict(values: Any) -> CameraPath:
        """A path of what `to_dict` gave; what is missing has its default.

        Raises:
            InputError: unknown names, or values that cannot be.
        """
        if not isinstance(values, dict):
            raise InputError(f"is a {type(values).__name__}, must be an object", field="path")
        known = [field.name for field in fields(CameraPath)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            raise InputError(f"{', '.join(unknown)}: unknown", field="path", remedy=f"use {', '.join(known)}")
        return CameraPath(**values)

    def save(self, file: str | Path) -> Path:
        """Write the recipe as JSON, whole or not at all."""
        write_json(file, self.to_dict())
        return Path(file)

    @staticmethod
    def load(file: str | Path) -> CameraPath:
        """Read what `save` wrote. Raises InputError where it cannot be."""
        try:
            values = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot be read: {error}", file=file, remedy="give a file of CameraPath.save") from error
        try:
            return CameraPath.from_dict(values)
        except InputError as error:
            raise InputError(str(error), file=file) from error


# --- the paths ---


def _gives_cameras(make: Callable[..., CameraPath]) -> Callable[..., Cameras]:
    """The function that gives a recipe's cameras; the recipe itself is its ``recipe(...)``."""

    @functools.wraps(make)
    def cameras(*args: Any, **settings: Any) -> Cameras:
        return make(*args, **settings).cameras()

    cameras.__signature__ = inspect.signature(make).replace(return_annotation="Cameras")  # type: ignore[attr-defined]
    cameras.recipe = make  # type: ignore[attr-defined]
    return cameras


@_gives_cameras
def orbit(
    frames: int = 250,
    radius: float = 4.0,
    elevation_deg: float = 0.0,
    azimuth_start_deg: float = 0.0,
    turns: float = 1.0,
    **settings: Any,
) -> CameraPath:
    """A full orbit at one height, closed where ``turns`` is whole. ``settings``: further fields of `CameraPath`."""
    azimuth = (azimuth_start_deg, azimuth_start_deg + 360 * turns)
    return _path("orbit", frames, azimuth, elevation_deg, radius, {"travel": "loop"} | settings)


@_gives_cameras
def spiral(
    frames: int = 500,
    radius: float = 4.0,
    elevation_deg: float = 30.0,
    swing_deg: float = 10.0,
    azimuth_start_deg: float = 0.0,
    turns: float = 1.5,
    **settings: Any,
) -> CameraPath:
    """The story's: 500 frames over 1.5 turns, looking down at 30 degrees that a sine moves by 10, at radius 4."""
    azimuth = (azimuth_start_deg, azimuth_start_deg + 360 * turns)
    return _path("spiral", frames, azimuth, elevation_deg, radius, {"swing_deg": swing_deg} | settings)


@_gives_cameras
def dolly(
    frames: int = 250,
    radius: Any = (4.0, 2.5),
    elevation_deg: Any = 0.0,
    azimuth_deg: Any = (-45.0, 45.0),
    **settings: Any,
) -> CameraPath:
    """The story's dolly-in: from yaw -45 to 45 degrees while the radius shrinks from 4 to 2.5."""
    return _path("dolly", frames, azimuth_deg, elevation_deg, radius, settings)


@_gives_cameras
def arc(
    frames: int = 250,
    radius: Any = 4.0,
    elevation_deg: Any = 55.0,
    azimuth_deg: Any = (-60.0, 60.0),
    **settings: Any,
) -> CameraPath:
    """The story's top-down arc, at 55 degrees above. (It does not say how far round: 120 degrees about the front.)"""
    return _path("arc", frames, azimuth_deg, elevation_deg, radius, settings)


@_gives_cameras
def tilt(
    frames: int = 250,
    radius: Any = 4.0,
    elevation_deg: Any = (30.0, -30.0),
    azimuth_deg: Any = 75.0,
    **settings: Any,
) -> CameraPath:
    """The story's profile tilt: at yaw 75 degrees, from 30 degrees above (its -30) to 30 below (its 30)."""
    return _path("tilt", frames, azimuth_deg, elevation_deg, radius, settings)


PATHS: dict[str, Callable[..., Cameras]] = {"orbit": orbit, "spiral": spiral, "dolly": dolly, "arc": arc, "tilt": tilt}


def recipe(name: str, /, **settings: Any) -> CameraPath:
    """The recipe of a path by its name, one of `PATHS`, with some of its settings changed.

    Raises:
        InputError: an unknown name or setting.
    """
    known_word(name, PATHS, "path")
    return PATHS[name].recipe(**settings)  # type: ignore[attr-defined]


def _path(name: str, frames: Any, azimuth: Any, elevation: Any, radius: Any, settings: dict[str, Any]) -> CameraPath:
    own = {"name": name, "frames": frames, "azimuth_deg": azimuth, "elevation_deg": elevation, "radius": radius}
    return CameraPath.from_dict(own | settings)


def frame_count(duration_s: float, fps: float) -> int:
    """Frames that cover ``duration_s`` seconds: duration x fps, rounded up, so that no sound is cut off."""
    if not (math.isfinite(duration_s) and duration_s > 0 and math.isfinite(fps) and fps > 0):
        raise InputError(f"{duration_s} s at {fps} frames a second", field="duration_s", remedy="give positive numbers")
    return max(1, math.ceil(duration_s * float(fps) - 1e-6))


# --- inside ---


def passes(frames: int, travel: str, cycles: int) -> np.ndarray:
    """[frames] in [0, 1]: once from 0 to 1; or so many times from 0 to 1, or there and back, a step short of it."""
    if travel == "once":
        return np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    # Whole numbers, so that each cycle begins at 0 exactly where it begins on a frame.
    share = (np.arange(frames) * cycles % frames) / frames
    return share if travel == "loop" else 1 - np.abs(1 - 2 * share)


def whole_number(value: Any, name: str) -> int:
    """A whole number of at least 1, or an InputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"is {value!r}, must be a whole number of at least 1", field=name)
    return int(value)


def _numbers(value: Any, count: int, name: str) -> tuple[float, ...]:
    """``count`` finite numbers; one number stands for two alike."""
    try:
        values = np.asarray(value if count > 2 or np.ndim(value) else [value] * count)
    except ValueError:  # lists of different lengths
        values = np.empty(0)
    if values.shape != (count,) or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        expected = "a finite number" if count == 1 else f"{count} finite numbers"
        raise InputError(f"is {value!r}, must be {expected}", field=name)
    return tuple(float(item) for item in values)


def known_word(value: Any, names: Any, field: str) -> None:
    """An InputError where ``value`` is none of ``names``."""
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{value!r} is unknown", field=field, remedy=f"use {', '.join(names)}")
