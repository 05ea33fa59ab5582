"""What every reader hands over: one row a frame, and the capture that they make."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..cameras import Cameras
from ..capture import Capture, sort_frames
from ..errors import InputError
from ..lens import Lens
from .fields import MissingFile


@dataclass
class FrameRow:
    """A frame as read: what becomes a row of the table, and its camera.

    Attributes:
        camera: None where the file names none; then cameras are told apart by pose and intrinsics.
        size: (width, height) of the picture. intrinsics: fx, fy, cx, cy, pixels, as calibrated.
        pose: [4, 4] camera-to-world, OpenGL axes. lens: None for a pinhole.
        weight: None where the file says nothing. given: the picture's path as the file writes it.
    """

    name: str
    camera: str | None
    time: float
    source: str
    split: str
    image: Path
    mask: str
    size: tuple[int, int]
    intrinsics: tuple[float, float, float, float]
    pose: np.ndarray = field(repr=False)
    lens: Lens | None = None
    weight: float | None = None
    given: str = ""

    def in_split(self, split: str) -> FrameRow:
        """A copy in another split."""
        return replace(self, split=split)

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy of the picture as it is loaded, that is without its distortion."""
        return self.intrinsics if self.lens is None else self.lens.pinhole()


def warn_of_missing(path: Path, gone: list[MissingFile], rows: list[FrameRow], what: str = "picture") -> None:
    """One warning about what was skipped. Raises InputError where no frame is left."""
    if not gone:
        return
    if not rows:
        message = f"all {len(gone)} {what}s are missing; the first: {gone[0]}"
        raise InputError(message, file=path, field="frames", remedy=f"restore the {what}s")
    words = "; ".join(str(error.field).rpartition(": ")[0] for error in gone[:3])
    more = ", ..." if len(gone) > 3 else ""
    count = f"1 {what} is missing and was" if len(gone) == 1 else f"{len(gone)} {what}s are missing and were"
    warnings.warn(f"{path}: {count} skipped: {words}{more}", stacklevel=4)


def capture_of(root: Path, rows: list[FrameRow]) -> Capture:
    """Rows to a Capture: name the cameras, keep frame names apart, sort."""
    counts = Counter(row.name for row in rows)
    taken = {row.camera for row in rows}
    derived: dict[tuple, str] = {}
    numbers = (name for name in (f"cam{number:03d}" for number in range(10**9)) if name not in taken)
    for row in rows:
        # A picture may be in two splits (the doctor has a word about that); its two frames still need two names.
        if counts[row.name] > 1:
            row.name = f"{row.split}/{row.name}"
        if row.camera is None:
            key = (np.round(row.pose, 6).tobytes(), row.intrinsics, row.size, row.lens)
            row.camera = derived[key] if key in derived else derived.setdefault(key, next(numbers))
    values = {
        "frame": [row.name for row in rows],
        "camera": [row.camera for row in rows],
        "time": [row.time for row in rows],
        "source": [row.source for row in rows],
        "split": [row.split for row in rows],
        "image": [str(row.image) for row in rows],
        "mask": [row.mask for row in rows],
        "width": [row.size[0] for row in rows],
        "height": [row.size[1] for row in rows],
    }
    if any(row.weight is not None for row in rows):
        values["weight"] = [1.0 if row.weight is None else row.weight for row in rows]
    if any(row.lens is not None for row in rows):
        values["distortion"] = ["" if row.lens is None else row.lens.text() for row in rows]
    frames = pd.DataFrame(values)
    Ks = np.zeros((len(rows), 3, 3))
    for K, row in zip(Ks, rows, strict=True):
        fx, fy, cx, cy = row.pinhole
        K[:] = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    cameras = Cameras.from_opengl(
        np.stack([row.pose for row in rows]), Ks, sizes=[row.size for row in rows], times=values["time"]
    )
    order = sort_frames(frames)
    return Capture(root, frames.iloc[order], cameras[order])
