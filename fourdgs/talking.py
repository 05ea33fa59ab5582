"""A trained avatar that talks: a track or a sound in, an MP4 out, from any camera path.

    talk(run, "speech.wav", "talking.mp4")
    talk(run, "take3.csv", "talking.mp4", audio="take3.wav", cameras="dolly", size=800)

or ``python -m fourdgs.media RUN --talk speech.wav --out talking.mp4``. The avatar is a run, or its model, of the motion
``rig``. Every frame's values of the rig are taken from the track at the frame's own moment, and the frames are drawn
as those of any other camera path (`fourdgs.media.render_path`), many at once.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .cameras import Cameras
from .capture import Capture
from .drive import DriveTrack, from_audio, load_track
from .drive.names import is_action
from .driven import rig_values
from .errors import InputError
from .files import write_json
from .gaussians import Gaussians
from .live import eight_bits
from .media.film import manifest_path, render_path
from .model import Model, render_gaussians
from .nearer import no_sharper
from .paths import CameraPath, frame_count, recipe, whole_number
from .resample import fitted
from .rigged import Rigged
from .runs import Run, load_run, phase
from .typical_view import read_typical_view

if TYPE_CHECKING:
    from .rig.base import Rig

SWING_S = 8.0
"""Seconds of the default camera path from one side to the other and back."""

_SLACK_S = 0.1  # a track that ends so little before the sound needs no words
_CHUNK = 8
_FOV_DEG = 30.0
_BOTH = ("Left", "Right")


def _both(name: str, weight: float = 1.0) -> dict[str, float]:
    return {name + side: weight for side in _BOTH}


EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "ah": {"jawOpen": 0.85} | _both("mouthLowerDown", 0.5) | _both("mouthUpperUp", 0.3),
    "oh": {"jawOpen": 0.3, "mouthFunnel": 0.85, "mouthPucker": 0.35},
    "oo": {"jawOpen": 0.12, "mouthFunnel": 0.25, "mouthPucker": 0.95},
    "ee": {"jawOpen": 0.3} | _both("mouthStretch", 0.55) | _both("mouthUpperUp", 0.35),
    "lips pressed": {"mouthRollLower": 0.35, "mouthRollUpper": 0.3} | _both("mouthPress", 0.4),
    "smile": _both("mouthSmile", 0.9) | _both("cheekSquint", 0.4),
    "frown": _both("mouthFrown", 0.9) | _both("browDown", 0.8),
    "surprise": {"jawOpen": 0.6, "browInnerUp": 0.9} | _both("browOuterUp", 0.9) | _both("eyeWide", 0.9),
    "lids shut": _both("eyeBlink"),
    "head to its left": {"headYaw": 25.0},
    "head down": {"headPitch": 15.0},
}
"""Faces to look at, by name: values of ARKit's actions and head angles."""


def talk(
    run: Run | Model | str | Path,
    performance: DriveTrack | str | Path,
    path: str | Path,
    cameras: Cameras | CameraPath | str | None = None,
    *,
    fps: float | Fraction = 25,
    size: int | Sequence[int] | None = None,
    audio: str | Path | None = None,
    fit: str = "auto",
    capture: Capture | None = None,
    background: Sequence[float] | None = None,
    chunk: int | None = None,
    quality: float = 18,
    progress: bool = True,
    again: bool = False,
) -> Path:
    """Write an MP4 in which the avatar does what a track says, or moves its mouth with a sound.

    Frame k shows the track at k / ``fps`` seconds. With sound the film is as long as that, rounded up to a whole frame,
    and the sound lies under it; else as long as the track, whose first value is the first frame. A track that begins
    after the sound or ends before it is held at its ends, with a warning; so are controls named that the rig has not.
    A residual that the run learned belongs to its own clip and is left out. The manifest beside the MP4 says who talks
    and for how long; what is there already is left as it is (`render_path`).

    Args:
        run: a run of the motion ``rig``, its folder, its model, or a model file.
        performance: a track, or its file (`fourdgs.drive.load_track`); or a sound file, to which the mouth moves
            (`fourdgs.drive.from_audio`) and which is heard.
        cameras: cameras, a recipe or a path's name, brought to the film's length as ``fit`` says (see
            `CameraPath.lasting`); their times are not used, and as many cameras as the film has frames are taken as
            they are. By default a swing before the face. A name is framed about the rig.
        size: pixels, one number or width and height; by default those of ``cameras``, or 512.
        audio: what is heard, where ``performance`` is a track.
        capture: the training frames: the film is no sharper than these were (`nearer.no_sharper`), for larger or
            nearer pictures would show slits and needles. A run keeps what this takes; a model on its own, and a run of
            before that was kept, is drawn as sharp as it is without.

    Raises:
        InputError: no rigged avatar, a track that drives nothing of its rig, a file that cannot be read, or a setting
            that cannot be. MissingDependency: PyAV is not installed. OutputError: the MP4 cannot be written.
    """
    model, who = avatar(run)
    track, audio = performed(performance, audio, fps)
    rate = _rate(fps)
    start_s, length_s = (float(track.times_s[0]), track.duration_s) if audio is None else (0.0, _heard(audio))
    if not length_s > 0:
        remedy = "give audio=, or a track of at least two times"
        raise InputError("has one time, and there is no sound", field="performance", remedy=remedy)
    if audio is not None:
        _say_what_is_held(track, length_s, float(rate))
    frames = frame_count(length_s, float(rate))
    acting = played(model, track, start_s + np.arange(frames) / float(rate))
    filmed = _filmed(model, cameras, size, length_s, float(rate), frames, fit)
    acting = as_learned(acting, who, capture, filmed)
    with phase([who], "render") if who is not None else contextlib.nullcontext():
        out = render_path(
            acting, filmed, path, rate, audio=audio, fit="stretch", background=background, chunk=chunk,
            quality=quality, progress=progress, again=again,
        )  # fmt: skip
    about = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    moving = [name for name, used in zip(track.controls, track.values.any(axis=0), strict=True) if used]
    said = {"run": "model" if who is None else who.name, "track_s": round(track.duration_s, 6)}
    said["controls"] = [name for name in moving if name in model.motion.rig.controls]
    if about.get("talk") != said:
        write_json(manifest_path(out), about | {"talk": said})
    return out


def avatar(run: Run | Model | str | Path) -> tuple[Model, Run | None]:
    """A model that a rig drives, and its run where it has one; of a run or a file, on CUDA where that is.

    Raises:
        InputError: something else, or a model of another motion.
    """
    found, name = None, "model"
    if isinstance(run, Model):
        model = run
    elif isinstance(run, str | Path) and Path(run).suffix == ".safetensors":
        model, name = Model.load(run), str(run)
    elif isinstance(run, Run | str | Path):
        found = load_run(run.path if isinstance(run, Run) else run)
        model, name = found.model, found.name
    else:
        raise InputError(f"is a {type(run).__name__}", field="run", remedy="give a run, its folder or a model")
    if not isinstance(model.motion, Rigged):
        remedy = 'train one with TrainConfig(motion="rig") and train(..., rig=...)'
        raise InputError(f"{name} moves as {model.motion.name!r}, no rig drives it", field="run", remedy=remedy)
    if not isinstance(run, Model) and torch.cuda.is_available():
        model = model.to("cuda")
    return model, found


def performed(
    performance: DriveTrack | str | Path, audio: str | Path | None = None, fps: float | Fraction = 25
) -> tuple[DriveTrack, Path | None]:
    """The track of a performance, and what is heard with it: of a sound file, a track with ``fps`` values a second.

    Raises:
        InputError: it is neither a track nor a file of one or of a sound; a sound for a sound.
    """
    heard = None if audio is None else Path(audio)
    if isinstance(performance, DriveTrack):
        return performance, heard
    if not isinstance(performance, str | Path):
        remedy = "give a DriveTrack, or a file of a track (.csv, .json) or of a sound"
        raise InputError(f"is a {type(performance).__name__}", field="performance", remedy=remedy)
    file = Path(performance)
    if file.suffix.lower() in (".csv", ".json"):
        return load_track(file), heard
    if heard is not None:
        remedy = "leave audio out, or make the track with fourdgs.drive.from_audio"
        raise InputError("is a sound already, and audio another", file=file, field="performance", remedy=remedy)
    return from_audio(file, fps=float(_rate(fps))), file


def played(model: Model, track: DriveTrack, times_s: Any) -> Model:
    """The avatar with the track at seconds [T] laid evenly over its own time from 0 to 1.

    Controls of the rig that the track has not stay neutral; those of the track that the rig has not are named in a
    warning.

    Raises:
        InputError: the track has none of the rig's controls.
    """
    values = rig_values(model.motion.rig, track, times_s, field="performance")
    motion = model.motion.driven(np.linspace(0, 1, len(values)).astype(np.float32), values)
    return replace(model, motion=motion)


def posed(model: Model, drive: Tensor) -> Gaussians:
    """The avatar's Gaussians for values ``drive`` [A] of its rig: tensors [N, ...], as at rest."""
    at = model.motion.at_drive(model.gaussians, drive[None])
    return at.replace(means=at.means[0], quats=at.quats[0], scales=at.scales[0])


@torch.no_grad()
def expressions(
    run: Run | Model | str | Path,
    faces: Mapping[str, Mapping[str, float]] | None = None,
    *,
    size: int = 192,
    azimuth_deg: float = 0.0,
    capture: Capture | None = None,
) -> dict[str, np.ndarray]:
    """Pictures, uint8 [size, size, 3], of the avatar with each of these faces, by their names.

    Args:
        faces: named values of the rig's controls; by default those of `EXPRESSIONS` that the rig can make.
        capture: as for `talk`.

    Raises:
        InputError: no rigged avatar; a control that the rig has not.
    """
    model, who = avatar(run)
    rig = model.motion.rig
    if faces is None:
        faces = {name: face for name, face in EXPRESSIONS.items() if set(face) <= set(rig.controls)}
    drives = torch.stack([rig.drive(face) for face in faces.values()])  # [T, A]
    camera = replace(swing(model, size=size), frames=1, azimuth_deg=azimuth_deg, times=None).cameras()
    model = as_learned(model, who, capture, camera)
    background = torch.tensor(model.background, device=drives.device)
    pictures: list[np.ndarray] = []
    for part in drives.split(_CHUNK):
        gaussians = model.motion.at_drive(model.gaussians, part)
        seen = camera[[0] * len(part)].to(part.device)
        rgb, _ = render_gaussians(gaussians, seen, background)
        pictures += list(eight_bits(rgb.cpu()))
    return dict(zip(faces, pictures, strict=True))


def swing(model: Model, fps: float = 25, size: int | Sequence[int] = 512) -> CameraPath:
    """The default path: before the avatar's face, from one side to the other and back in `SWING_S` seconds."""
    middle, radius = face_sphere(model.motion.rig)
    width, height = _size(size)
    distance = radius / np.sin(np.radians(_FOV_DEG / 2))
    return CameraPath(
        frames=max(1, round(SWING_S * fps)), name="swing", azimuth_deg=(-25.0, 25.0), elevation_deg=(4.0, 4.0),
        radius=(distance, distance), travel="palindrome", easing="smooth", target=middle, fov_x_deg=_FOV_DEG,
        width=width, height=height,
    )  # fmt: skip


@torch.no_grad()
def face_sphere(rig: Rig) -> tuple[tuple[float, float, float], float]:
    """Centre and radius, world units, of a ball about the face with room for head and shoulders.

    The face is what ARKit's actions move; a rig that has none of them is taken whole.
    """
    rest = rig.rest.double()
    whole = _ball(rest)
    columns = [column for column, name in enumerate(rig.controls) if is_action(name)]
    moved = torch.zeros(len(rest), dtype=torch.bool, device=rest.device)
    for part in torch.tensor(columns, dtype=torch.int64).split(_CHUNK):
        drive = rig.neutral.repeat(len(part), 1)
        drive[torch.arange(len(part)), part] += 1
        way = (rig.vertices(drive) - rig.rest).norm(dim=-1)  # [a, V]
        most = way.amax(1, keepdim=True)
        moved |= ((way > 0.25 * most) & (most > 1e-4 * whole[1])).any(0)
    if not moved.any():
        return whole
    middle, radius = _ball(rest[moved])
    return middle, min(2 * radius, whole[1])


def crop_about(camera: Cameras, middle: Sequence[float], radius: float) -> tuple[slice, slice]:
    """Rows and columns of one camera's picture that hold a ball, as far as they lie in it."""
    view, K = camera.viewmats[0].double().cpu(), camera.Ks[0].double().cpu()
    place = view[:3, :3] @ torch.tensor(middle, dtype=torch.float64) + view[:3, 3]
    if not float(place[2]) > radius:
        raise InputError("does not look at the ball from outside", field="camera")
    at, reach = (K @ place / place[2])[:2], radius * K[[0, 1], [0, 1]] / place[2]
    sizes = camera.sizes[0].tolist()
    low, high = (at - reach).round().int().tolist(), (at + reach).round().int().tolist()
    columns, rows = (
        slice(max(0, start), max(min(stop, size), max(0, start) + 1))
        for start, stop, size in zip(low, high, sizes, strict=True)
    )
    return rows, columns


def _ball(points: Tensor) -> tuple[tuple[float, float, float], float]:
    middle = (points.amin(0) + points.amax(0)) / 2
    return tuple(middle.tolist()), max(float((points - middle).norm(dim=-1).max()), 1e-6)


def before(model: Model, name: str | None, fps: float = 25) -> CameraPath:
    """A path by its name (`fourdgs.paths.PATHS`) about the avatar; None: `swing`. Raises InputError: unknown."""
    own = swing(model, fps)
    if name is None:
        return own
    path = recipe(name).framed(target=own.target, up=own.up, radius=own.radius[0], fov_x_deg=own.fov_x_deg)
    return replace(path, width=own.width, height=own.height)


# --- inside ---


def as_learned(model: Model, who: Run | None, capture: Capture | None, cameras: Cameras | CameraPath) -> Model:
    """The model no sharper than a capture's pictures, by default those that its run was trained on."""
    seen = read_typical_view(who.info, who.path / "run.json") if capture is None and who is not None else capture
    if seen is None:
        return model
    return no_sharper(model, seen, cameras if isinstance(cameras, Cameras) else cameras.cameras())


def _rate(fps: Any) -> Fraction:
    try:
        rate = Fraction(fps)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"is {fps!r}, must be a number", field="fps") from error
    if not 0 < rate <= 1000:
        raise InputError(f"is {fps}, must be above 0, up to 1000", field="fps")
    return rate


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    """Width and height."""
    both = [size, size] if isinstance(size, int | np.integer) else list(size)
    if len(both) != 2:
        raise InputError(f"is {size!r}", field="size", remedy="give pixels: one number, or width and height")
    return whole_number(both[0], "size"), whole_number(both[1], "size")


def _heard(audio: Path) -> float:
    from .data.video_encode import sound_duration

    return sound_duration(audio)


def _say_what_is_held(track: DriveTrack, length_s: float, fps: float) -> None:
    """One warning where the track begins after the sound or ends at another time."""
    start, end, slack = float(track.times_s[0]), float(track.times_s[-1]), max(_SLACK_S, 1 / fps)
    words = []
    if start > slack:
        words.append(f"begins {start:.2f} s after the sound, and is held at its first values until then")
    if end < length_s - slack:
        words.append(f"ends {length_s - end:.2f} s before the sound, and is held at its last values")
    elif end > length_s + slack:
        words.append(f"goes on for {end - length_s:.2f} s after the sound, and is cut there")
    if words:
        warnings.warn(f"the track {'; it '.join(words)}", stacklevel=3)


def _filmed(
    model: Model, cameras: Any, size: Any, length_s: float, fps: float, frames: int, fit: str
) -> Cameras | CameraPath:
    """One camera a frame, whose times run evenly from 0 to 1: the track's, as `played` lays it."""
    if isinstance(cameras, Cameras):
        if size is not None:
            width, height = _size(size)
            cameras = cameras.resized(width, height)
        if len(cameras) != frames:
            cameras = fitted(cameras, frames, fit)
        return cameras.to("cpu").with_times(np.linspace(0, 1, frames).astype(np.float32))
    if cameras is None or isinstance(cameras, str):
        cameras = before(model, cameras, fps)
    elif not isinstance(cameras, CameraPath):
        remedy = "give Cameras, a CameraPath or a path's name"
        raise InputError(f"is a {type(cameras).__name__}", field="cameras", remedy=remedy)
    if size is not None:
        width, height = _size(size)
        cameras = replace(cameras, width=width, height=height)
    # Rounded up by us, not again: the film's frames are the track's.
    lasting = replace(cameras.lasting(length_s, fps, fit), frames=frames)
    return replace(lasting, times="along", time_range=(0.0, 1.0), time_cycles=1)
