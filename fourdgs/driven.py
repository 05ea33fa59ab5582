"""A rig and the track that drives it, from files or from memory; and both in one file, for who loads it by its path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .drive import DriveTrack, load_track
from .drive.names import listed
from .errors import InputError
from .headed import headed, save_headed
from .rigged import Rigged
from .workspace import place

if TYPE_CHECKING:
    from .rig.base import Rig

_REMEDY = "give a rig's file, a Rig or a Rigged, or a pair of a rig and its track"


def rig_values(rig: Rig, track: DriveTrack, times_s: Any = None, field: str = "track") -> Tensor:
    """The values [T, A] of a rig's controls at seconds [T] of a track; None: at the track's own times.

    Controls of the rig that the track has not stay neutral; those of the track that the rig has not are named in a
    warning.

    Args:
        field: what errors name.

    Raises:
        InputError: the track has none of the rig's controls.
    """
    shared = set(track.controls) & set(rig.controls)
    if not shared:
        message = f"has none of the rig's controls, but {listed(track.controls, rig.controls)}"
        remedy = f"rename them with renamed(); the rig has {', '.join(rig.controls[:8])}, ..."
        raise InputError(message, field=field, remedy=remedy)
    values = track.to(rig.controls).tensor(times_s).to(rig.rest)
    silent = [column for column, name in enumerate(rig.controls) if name not in shared]
    values[:, silent] = rig.neutral[silent]
    return values


def driven(rig: Rig, track: DriveTrack) -> Rigged:
    """A rig that plays a track: a capture's times 0 and 1 are the track's first and last, as with a ``drive_file``.

    For a part of a track, or where its clock is another: ``track.between(12.0, 16.8)``.

    Raises:
        InputError: the track has none of the rig's controls.
    """
    seconds = track.times_s - track.times_s[0]
    times = seconds / max(float(seconds[-1]), 1e-9)  # of a single time: 0
    return Rigged(rig, (times.astype(np.float32), rig_values(rig, track)))


def driven_from(given: Any, field: str = "rig") -> Rigged:
    """The rig that somebody means: a file (see `fourdgs.rig.load_rig`), a `Rig` or a `Rigged`; or a pair of a file or
    a `Rig`, and the track that drives it, a file (`fourdgs.drive.load_track`) or a `DriveTrack`.

    Raises:
        InputError: it is none of these, or a file cannot be read.
    """
    from .rig import Rig, load_rig

    rig, track = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
    if isinstance(rig, str | Path):
        rig = load_rig(place(rig))
    if isinstance(track, str | Path):
        track = load_track(place(track))
    if isinstance(rig, Rigged) and track is None:
        return rig
    if not isinstance(rig, Rig) or not isinstance(track, DriveTrack | None):
        kinds = ", ".join(type(part).__name__ for part in ((rig,) if track is None else (rig, track)))
        raise InputError(f"is a {kinds}", field=field, remedy=_REMEDY)
    return Rigged(rig) if track is None else driven(rig, track)


# --- for who loads it elsewhere ---


def as_files(given: Any, folder: Path, field: str = "rig") -> tuple[dict[str, str], str]:
    """What another process needs to load a rig, JSON values for `from_files`; and the rig's `Rigged.digest`.

    Files are named by their paths. What is in memory is first written into ``folder``, named by its content: made once.

    Raises:
        InputError: see `driven_from`. OutputError: the folder cannot be written.
    """
    motion = driven_from(given, field)
    parts = list(given) if isinstance(given, tuple | list) else [given]
    if all(isinstance(part, str | Path) for part in parts):
        paths = [str(place(part).absolute()) for part in parts]
        return dict(zip(("rig", "track"), paths, strict=False)), motion.digest()
    path = folder / f"{_content(motion)[:16]}.safetensors"
    if not path.exists():
        save_headed(path, {"rigged": motion.settings()}, motion.state_dict())
    return {"rigged": str(path)}, motion.digest()


def from_files(files: Mapping[str, str]) -> Rigged:
    """The rig that `as_files` told of.

    Raises:
        InputError: a file is missing, damaged or of something else.
    """
    if "rigged" not in files:
        return driven_from((files["rig"], files.get("track")))
    with headed(files["rigged"], "a rig with its track", "run the sweep again") as (about, tensors):
        motion = Rigged(**about["rigged"])
        motion.load_state_dict(tensors)
    return motion


def _content(motion: Rigged) -> str:
    """64 hex digits of all that a `Rigged` holds; its `digest` leaves out what a training makes anew."""
    whole = hashlib.sha256(json.dumps(motion.settings(), sort_keys=True).encode())
    for key, value in sorted(motion.state_dict().items()):
        whole.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
