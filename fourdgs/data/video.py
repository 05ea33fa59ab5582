"""Videos and captures: frames out of a clip, a clip as a capture, pictures into an MP4.

`write_video` lies in `fourdgs.data.video_encode` and what is done about colours, rotation and damage in
`fourdgs.data.video_decode`; this module is where all of it is found.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..cameras import Cameras, orbit
from ..capture import Capture
from ..errors import InputError
from ..files import hash_file, hash_json, write_aside, write_json
from .transforms import write_transforms
from .video_decode import Clip, Selection, Shot
from .video_encode import write_video

__all__ = ["Video", "read_video", "video_capture", "write_video"]

VERSION = 1
"""Counts up whenever the same video would give other pictures."""

RECIPE = "video.json"
"""The file in a capture's folder that says which frames of which video its pictures are."""

_MEMORY_SHARE = 0.5
"""Of the free memory, what frames may take: whoever reads them wants to work on them too."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames of a clip.

    Attributes:
        frames: uint8 [n, H, W, 3], sRGB, straight.
        times_s: float64 [n], seconds since the clip's first picture, growing.
        fps: frames a second of what is here, in the mean; of the file's header where there is one frame only.
        note: what was damaged, missing or guessed, in sentences; "" where nothing was.
        color: the matrix and range that the colours were converted with, in words.
        alpha: uint8 [n, H, W], or None where the video has none.
        shown: (width, height) at which a player shows the clip; that of the frames where no size was asked for.
    """

    frames: np.ndarray
    times_s: np.ndarray
    fps: float
    note: str = ""
    color: str = ""
    alpha: np.ndarray | None = None
    shown: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width = self.frames.shape[1:3]
        span = f"{self.times_s[0]:.3f} to {self.times_s[-1]:.3f} s"
        note = f", note: {self.note}" if self.note else ""
        return f"Video({len(self)} frames of {width}x{height}, {span}, {self.fps:.5g} fps, {self.color}{note})"


def read_video(
    path: str | Path,
    *,
    every: int = 1,
    start_s: float | None = None,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Video:
    """Frames of a video, in memory.

    A damaged or truncated file gives the frames that decode; `Video.note` and a warning say what is wrong.

    Args:
        every: take every nth frame of the range, its first one included.
        start_s, end_s: seconds since the clip's first picture; a frame with ``start_s <= time < end_s`` is in. None:
            from the front, to the end.
        size: (width, height) of the frames, each pixel the mean of the area it covers; None: as a player shows them.
        progress: show a bar.

    Raises:
        InputError: the file is missing, is no video, has no frame that decodes in the range, or its frames do not
            fit into memory.
        MissingDependency: PyAV is not installed.
    """
    video = _read(Path(path), Selection.checked(every, start_s, end_s, size), progress)
    _warn(path, video.note)
    return video


def video_capture(
    path: str | Path,
    camera: Cameras | None = None,
    *,
    folder: str | Path | None = None,
    source: str | None = None,
    camera_name: str | None = None,
    split: str = "train",
    fov_x_deg: float = 36.0,
    radius: float = 4.0,
    every: int = 1,
    start_s: float | None = None,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = True,
) -> Capture:
    """A clip as a capture: its frames, with times that run from 0 (the first one taken) to 1 (the last one).

    Args:
        camera: one camera (it stood still), or one for each frame taken. Its picture size may be any scale of the
            clip's; its own times are not used. None: a camera on +z at ``radius`` from the origin, looking at it.
        folder: write the frames there as PNG, and at last a transforms file; a few frames are held in memory at a
            time. A run that was broken off goes on where it was; after a finished one only the transforms file is
            written again (with another camera, source or split, if those changed). None: the frames stay in memory.
        source: the frames' source; None: the file's name without its ending.
        camera_name: None: the source. Cameras that move get a number behind it, one for each pose.
        split: train, val or test.
        fov_x_deg, radius: of the camera that is made where none is given: degrees across the picture as shown, and
            units of the world.
        every, start_s, end_s, size, progress: see `read_video`.

    Returns:
        The capture. Where one frame alone is taken it is a still: it has no time.

    Raises:
        InputError: see `read_video`; or the cameras do not fit, or ``folder`` holds something else.
        MissingDependency: PyAV is not installed.
        OutputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    source = source or path.stem
    chosen = Selection.checked(every, start_s, end_s, size)
    memory: list[Any] = []
    if folder is None:
        root, video = path, _read(path, chosen, progress)
        made = _Made(video.times_s.tolist(), video.frames.shape[2:0:-1], video.shown, video.note)
        images = [""] * len(video)
        memory = list(zip(video.frames, [None] * len(video) if video.alpha is None else video.alpha, strict=True))
    else:
        root = Path(folder)
        made = _extract(path, root, chosen, progress)
        images = [str((root / _file_name(index)).resolve()) for index in range(len(made.times_s))]
    _warn(path, made.note)
    times = _normalised(made.times_s)
    if camera is None:
        camera = orbit(1, radius, fov_x_deg=fov_x_deg, width=made.shown[0], height=made.shown[1])
    cameras = _fitted(camera, made, path).with_times(times)
    names = [f"{source}/{index:05d}" for index in range(len(images))]
    values = {
        "frame": names,
        "camera": _camera_names(camera_name or source, cameras),
        "time": times,
        "source": source,
        "split": split,
        "image": images,
        "mask": "",
        "width": made.size[0],
        "height": made.size[1],
    }
    capture = Capture(root, pd.DataFrame(values), cameras, dict(zip(names, memory, strict=False)))
    if folder is not None:
        write_transforms(capture, root, pictures="keep")
    return capture


def free_memory() -> int:
    """Bytes that this process can still take without swapping: the machine's, or its control group's."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass  # not Linux, or no such group: what is known so far stands
    return max(0, free)


# --- frames in memory ---


def _read(path: Path, chosen: Selection, progress: bool) -> Video:
    budget = _MEMORY_SHARE * free_memory()
    shots: list[Shot | None] = []
    taken = 0
    with Clip(path) as clip:
        expected = clip.expected(chosen)
        for shot in _bar(clip.shots(chosen), expected, path, progress):
            each = shot.rgb.nbytes + (0 if shot.alpha is None else shot.alpha.nbytes)
            taken += each
            if max(taken, expected * each) > budget:
                raise InputError(
                    f"{max(len(shots) + 1, expected)} frames of {shot.rgb.shape[1]}x{shot.rgb.shape[0]} take "
                    f"{max(taken, expected * each) / 1e9:.1f} GB, more than half of the free memory",
                    file=path,
                    field="frames",
                    remedy="take every nth frame, a range of time or a smaller size; video_capture(..., folder=...) "
                    "holds a few frames at a time",
                )
            shots.append(shot)
        if not shots:
            raise _nothing(clip, chosen)
        times_s = np.array([shot.time_s for shot in shots])
        fps = (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else float(clip.rate)
        note, color, shown = clip.note, clip.color, clip.size
    frames = np.empty((len(shots), *shots[0].rgb.shape), np.uint8)
    has_alpha = any(shot.alpha is not None for shot in shots)
    alpha = np.full(frames.shape[:3], 255, np.uint8) if has_alpha else None
    for index, shot in enumerate(shots):
        frames[index] = shot.rgb
        if shot.alpha is not None:
            alpha[index] = shot.alpha
        shots[index] = None  # or all frames would be held twice
    return Video(frames, times_s, float(fps), note, color, alpha, shown)


def _bar(shots: Any, expected: int, path: Path, progress: bool) -> Any:
    return tqdm(shots, total=expected or None, desc=path.name, unit="frame", disable=not progress, leave=False)


def _nothing(clip: Clip, chosen: Selection) -> InputError:
    if clip.pictures:
        span = f"from {chosen.start_s:g} s" + ("" if math.isinf(chosen.end_s) else f" to {chosen.end_s:g} s")
        message = f"has no frame {span}; its last one that decodes is at {clip.duration_s:.3f} s"
        return InputError(message, file=clip.path, field="start_s, end_s", remedy="choose another range")
    message = "has no frame that can be decoded" + (f": {clip.note}" if clip.note else "")
    return InputError(message, file=clip.path, field="video", remedy="export it again as MP4 (H.264)")


def _warn(path: str | Path, note: str) -> None:
    if note:
        warnings.warn(f"{path}: {note}", stacklevel=3)


# --- frames in a folder ---


@dataclass(frozen=True)
class _Made:
    """What is known of frames that were taken: seconds, (width, height) of them and of the clip as shown, the note."""

    times_s: list[float]
    size: tuple[int, int]
    shown: tuple[int, int]
    note: str


def _extract(path: Path, folder: Path, chosen: Selection, progress: bool) -> _Made:
    """Write the frames that the folder lacks, and note there what they are."""
    if not path.is_file():
        raise InputError("is missing" if not path.exists() else "is not a file", file=path, field="video")
    recipe = {"version": VERSION, "video": hash_file(path), **asdict(chosen)}
    recipe["end_s"] = None if math.isinf(chosen.end_s) else chosen.end_s  # JSON has no infinity
    made = _resume(folder, recipe)
    if made is not None:
        return made
    with Clip(path) as clip, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        pending: deque[Future] = deque()
        times_s, size = [], None
        written = frozenset(index for index in _written(folder))
        for index, shot in enumerate(_bar(clip.shots(chosen, written), clip.expected(chosen), path, progress)):
            if not index:
                size = shot.rgb.shape[1::-1]
                if not written:
                    write_json(folder / RECIPE, {"clip": path.name, "hash": hash_json(recipe), "recipe": recipe})
            times_s.append(shot.time_s)
            if index not in written:
                pending.append(pool.submit(_save, folder / _file_name(index), shot))
            while len(pending) > 8:
                pending.popleft().result()
        for future in pending:
            future.result()
        if not times_s:
            raise _nothing(clip, chosen)
        made = _Made(times_s, size, clip.size, clip.note)
    write_json(
        folder / RECIPE,
        {"clip": path.name, "hash": hash_json(recipe), "recipe": recipe, "made": asdict(made)},
    )
    return made


def _resume(folder: Path, recipe: dict[str, Any]) -> _Made | None:
    """What was made where all of it is there; None where there is still something to write.

    Raises:
        InputError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    remedy = "choose a new folder, or remove this one"
    try:
        there = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        same = there["hash"] == hash_json(recipe)
        made = _Made(**there["made"]) if "made" in there else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("is there already and not empty", file=folder, field="folder", remedy=remedy) from error
    if not same:
        message = "holds frames of another video, or another range, step or size of this one"
        raise InputError(message, file=folder, field="folder", remedy=remedy)
    if made is not None and len(_written(folder)) == len(made.times_s):
        return made
    for leftover in (folder / _file_name(0)).parent.glob(".*.png"):  # of a run that was killed in the middle of one
        leftover.unlink(missing_ok=True)
    return None


def _written(folder: Path) -> list[int]:
    files = (folder / _file_name(0)).parent.glob("[0-9]*.png")
    return [int(file.stem) for file in files if file.stem.isdigit()]


def _file_name(index: int) -> str:
    return f"pictures/{index:05d}.png"


def _save(file: Path, shot: Shot) -> None:
    pixels = shot.rgb if shot.alpha is None else np.dstack([shot.rgb, shot.alpha])
    with write_aside(file) as aside:
        Image.fromarray(pixels).save(aside, compress_level=4)


# --- cameras and times ---


def _normalised(times_s: list[float]) -> np.ndarray:
    """[n] in [0, 1]; NaN for a single frame, which is a still."""
    times = np.array(times_s, dtype=np.float64) - times_s[0]
    return times / times[-1] if len(times) > 1 else np.full(1, np.nan)


def _fitted(camera: Cameras, made: _Made, path: Path) -> Cameras:
    """One camera per frame, at the frames' size."""
    count = len(made.times_s)
    if len(camera) not in (1, count):
        raise InputError(
            f"{len(camera)} cameras for {count} frames",
            file=path,
            field="camera",
            remedy="give one camera that stood still, or one for each frame taken",
        )
    for width, height in camera.sizes.unique(dim=0).tolist():
        if not any(_same_shape((width, height), size) for size in (made.size, made.shown)):
            raise InputError(
                f"its pictures are {width}x{height}, no scale of the clip's {made.shown[0]}x{made.shown[1]}",
                file=path,
                field="camera",
                remedy="give the camera that took this clip, at any scale of it",
            )
    camera = camera if len(camera) == count else camera[[0] * count]
    return camera.resized(*made.size)


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes may be one shape at two scales, each side rounded to whole pixels."""
    # h = r w + e and H = r W + E with |e|, |E| <= 1/2 give |h W - H w| <= (w + W) / 2.
    return abs(one[1] * other[0] - other[1] * one[0]) <= (one[0] + other[0]) / 2


def _camera_names(name: str, cameras: Cameras) -> list[str]:
    poses = [view.tobytes() for view in np.round(cameras.viewmats.cpu().numpy(), 6) + 0.0]
    numbers: dict[bytes, int] = {}
    for pose in poses:
        numbers.setdefault(pose, len(numbers))
    return [name if len(numbers) == 1 else f"{name}{numbers[pose]:04d}" for pose in poses]
