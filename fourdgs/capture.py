"""A capture: a table of frames, their cameras, and pictures that are loaded when asked for.

Pictures are sRGB as stored, with straight (not premultiplied) alpha beside them. A background comes in through
`composite` and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .cameras import Cameras
from .drive.frames import drive_table
from .errors import InputError
from .lens import undistort
from .pictures import Picture, composite, has_alpha_channel, read_picture, resize_picture

SPLITS = ("train", "val", "test")
COLUMNS = ("frame", "camera", "time", "source", "split", "image", "mask", "width", "height")
OPTIONAL = {"weight": 1.0, "distortion": ""}
"""Columns that need not be there, with what their absence means."""
DEFAULT_SOURCE = "capture"


@dataclass(frozen=True, eq=False)
class Capture:
    """Frames of a scene. Never empty, never changed in place: every method gives a new one.

    Attributes:
        root: the folder it came from.
        frames: one row a frame; columns ``frame`` (unique name), ``camera``, ``time`` (NaN = none), ``source``,
            ``split`` (train, val, test), ``image`` and ``mask`` (absolute paths; mask may be ""), ``width`` and
            ``height``. Optional: ``weight`` (how often a training frame is drawn, relative to the others; 1 where the
            column is not there) and ``distortion`` ("" or the lens that the file was taken with, as `lens.Lens.text`
            writes it: the picture is undistorted when it is loaded, and ``cameras`` holds the pinhole that comes of
            it; pictures in memory are left as they are), ``drive.<control>`` (see `drive`). Further columns are kept.
        cameras: row-aligned with ``frames``.
        memory: pictures by frame name that stand in for the files (the ``image`` of such a frame may be "").

    Raises:
        InputError: a column is missing, a name is doubled, a split or a time cannot be, cameras and table disagree.
    """

    root: Path
    frames: pd.DataFrame
    cameras: Cameras
    memory: Mapping[str, Picture] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        missing = [name for name in COLUMNS if name not in self.frames.columns]
        if missing:
            raise InputError(f"the table of frames lacks the columns {missing}", file=self.root, field="frames")
        frames = self.frames.reset_index(drop=True).astype({"time": np.float64, "width": np.int64, "height": np.int64})
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "memory", dict(self.memory))
        _check(self.root, frames, self.cameras, self.memory)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {(self.frames.split == split).sum()}" for split in self.splits)
        return f"Capture({self.name}: {len(self)} frames ({counts}), sources {', '.join(self.sources)})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.root.name

    @property
    def sources(self) -> list[str]:
        """The sources of its frames, sorted."""
        return sorted(self.frames.source.unique())

    @property
    def splits(self) -> list[str]:
        """The splits that have frames, in the order train, val, test."""
        present = set(self.frames.split)
        return [split for split in SPLITS if split in present]

    @property
    def drive(self) -> pd.DataFrame | None:
        """What drives a rig in each frame, [frames x controls]; NaN, or None for all, where nothing is said.

        From the columns ``drive.<control>``; see `fourdgs.drive.drive_table`, and `with_drive` beside it.
        """
        return drive_table(self.frames)

    @property
    def has_alpha(self) -> bool:
        """Whether any picture has an alpha channel or a mask (headers are read, pixels are not)."""
        for row in self.frames.itertuples():
            if row.frame in self.memory:
                if self.memory[row.frame][1] is not None:
                    return True
            elif row.mask or has_alpha_channel(row.image):
                return True
        return False

    # --- other captures from this one ---

    def select(
        self,
        split: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        where: Callable[[pd.DataFrame], Any] | None = None,
        rows: Any = None,
    ) -> Capture:
        """The frames that meet every condition given, in their order (or in that of ``rows``).

        Args:
            where: from the table of frames to a bool per row, e.g. ``lambda frames: frames.time < 0.5``.
            rows: positions, a slice or a bool mask.

        Raises:
            InputError: no frame is left; the text says what there is.
        """
        index = self._rows(rows)
        keep = np.ones(len(self), dtype=bool)
        for column, wanted in (("split", split), ("source", source)):
            if wanted is not None:
                keep &= self.frames[column].isin([wanted] if isinstance(wanted, str) else list(wanted)).to_numpy()
        if where is not None:
            keep &= np.asarray(where(self.frames), dtype=bool)
        index = index[keep[index]]
        if not len(index):
            asked = {"split": split, "source": source, "where": where and "a condition", "rows": rows}
            asked = ", ".join(f"{key} {value!r}" for key, value in asked.items() if value is not None)
            there = self.frames.groupby(["split", "source"], sort=False).size()
            raise InputError(
                f"no frame with {asked}",
                file=self.root,
                field="select",
                remedy="there are "
                + ", ".join(f"{n} of split {a!r} source {b!r}" for (a, b), n in there.items())
                + "; splits come from transforms_{train,val,test}.json or with_split",
            )
        return self._take(index)

    def with_frames(self, frames: pd.DataFrame | None = None, cameras: Cameras | None = None) -> Capture:
        """A copy with another table, other cameras, or both, checked.

        Without ``cameras``, each frame brings its own by name (by row, where names are new), and times follow the
        table. So do pictures in memory.
        """
        frames = self.frames if frames is None else frames
        rows = {name: row for row, name in enumerate(self.frames.frame)}
        names = list(frames["frame"])
        if all(name in rows for name in names):
            index = [rows[name] for name in names]
        elif len(names) == len(self):
            index = list(range(len(self)))
        elif cameras is None:
            raise InputError(f"{len(names)} frames for {len(self)} cameras: give both", file=self.root, field="cameras")
        else:
            index = [rows.get(name) for name in names]
        if cameras is None:
            cameras = self.cameras[index].with_times(frames["time"].to_numpy(dtype=np.float64))
        old = [None if row is None else self.frames.frame.iloc[row] for row in index]
        memory = {new: self.memory[name] for new, name in zip(names, old, strict=True) if name in self.memory}
        return Capture(self.root, frames, cameras, memory)

    def with_times(self, times: float | Sequence[float] | Tensor | np.ndarray | None) -> Capture:
        """A copy at other times, in the table and the cameras alike; None or NaN = no time."""
        cameras = self.cameras.with_times(times)
        values = float("nan") if times is None else times
        values = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        return self.with_frames(self.frames.assign(time=np.broadcast_to(values.ravel(), len(self))), cameras)

    def with_split(self, split: str | Sequence[str]) -> Capture:
        """A copy whose frames all have this split, or one each."""
        return self.with_frames(self.frames.assign(split=split if isinstance(split, str) else list(split)))

    def with_pictures(self, pictures: Mapping[int, Any]) -> Capture:
        """A copy in which other pictures stand in for the files, which are left alone.

        Args:
            pictures: row -> (rgb uint8 [H, W, 3] straight, alpha uint8 [H, W] or None), at the capture's present size.
                The arrays are kept, not copied.

        Raises:
            InputError: a type or a size does not fit the frame.
        """
        memory = dict(self.memory)
        for row, (rgb, alpha) in pictures.items():
            frame = self._row(row)
            size = (int(frame.height), int(frame.width))
            rgb, alpha = np.asarray(rgb), None if alpha is None else np.asarray(alpha)
            fits = rgb.dtype == np.uint8 and rgb.shape == (*size, 3)
            fits = fits and (alpha is None or (alpha.dtype == np.uint8 and alpha.shape == size))
            if not fits:
                shapes = [None if value is None else f"{value.dtype} {list(value.shape)}" for value in (rgb, alpha)]
                raise InputError(
                    f"rgb, alpha are {shapes}, must be uint8 {[*size, 3]} and uint8 {list(size)} or None",
                    file=self.root,
                    field=f"picture of frame {frame.frame}",
                )
            memory[frame.frame] = (_read_only(rgb), None if alpha is None else _read_only(alpha))
        return replace(self, memory=memory)

    def resized(self, width: Any, height: Any) -> Capture:
        """A copy with pictures of another size: averaged over areas when loaded, and the cameras follow."""
        cameras = self.cameras.resized(width, height)
        sizes = cameras.sizes.cpu().numpy()
        return replace(self, frames=self.frames.assign(width=sizes[:, 0], height=sizes[:, 1]), cameras=cameras)

    def scaled(self, factor: float) -> Capture:
        """A copy with pictures ``factor`` times as wide and high, each from its own size; see `resized`."""
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"is {factor}, must be a positive number", file=self.root, field="scale")
        sizes = (self.cameras.sizes * factor).round().clamp(min=1).long()
        return self.resized(sizes[:, 0], sizes[:, 1])

    # --- pictures ---

    def image(self, i: int, background: Sequence[float] | None = None) -> np.ndarray:
        """Frame i: float32 [H, W, 3] in [0, 1], straight as stored, or composited over ``background``."""
        rgb, alpha = self._picture(self._row(i))
        rgb = rgb.astype(np.float32) / 255
        if background is None:
            return rgb
        opacity = np.ones(rgb.shape[:2], np.float32) if alpha is None else alpha.astype(np.float32) / 255
        return composite(rgb, opacity, background)

    def alpha(self, i: int) -> np.ndarray:
        """Frame i's opacity: float32 [H, W] in [0, 1]; ones where the file has neither alpha nor mask."""
        rgb, alpha = self._picture(self._row(i))
        return np.ones(rgb.shape[:2], np.float32) if alpha is None else alpha.astype(np.float32) / 255

    def picture(self, i: int) -> Picture:
        """Frame i at the capture's size: rgb uint8 [H, W, 3] straight, alpha uint8 [H, W] or None where it has none."""
        return self._picture(self._row(i))

    def pictures(self, rows: Any = None, progress: bool = False) -> tuple[Tensor, Tensor | None]:
        """Many frames at once, loaded by a pool of threads.

        Returns:
            rgb uint8 [n, H, W, 3] straight, and alpha uint8 [n, H, W], or None where all of it is opaque.

        Raises:
            InputError: a file cannot be read, or the sizes differ.
        """
        index = self._rows(rows)
        sizes = self.frames.iloc[index][["width", "height"]].drop_duplicates().to_numpy().tolist()
        if len(sizes) > 1:
            raise InputError(
                f"the pictures have different sizes: {sizes[:8]}",
                file=self.root,
                field="width, height",
                remedy="capture.resized(width, height), or load them one by one",
            )
        width, height = sizes[0] if sizes else (0, 0)
        rgb = torch.empty(len(index), height, width, 3, dtype=torch.uint8)
        alpha = torch.full((len(index), height, width), 255, dtype=torch.uint8)
        into_rgb, into_alpha = rgb.numpy(), alpha.numpy()
        table = list(self.frames.iloc[index].itertuples(index=False))

        def load(position: int) -> bool:
            colors, opacity = self._picture(table[position])
            into_rgb[position] = colors
            if opacity is None:
                return False
            into_alpha[position] = opacity
            return bool(opacity.min() < 255)

        pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        try:
            results = pool.map(load, range(len(index)))
            bar = tqdm(results, total=len(index), desc="pictures", unit="frame", disable=not progress)
            transparent = sum(bar)
        finally:
            pool.shutdown(cancel_futures=True)
        return rgb, alpha if transparent else None

    def digest(self) -> str:
        """64 hex digits that name the content: poses, intrinsics, times, sources, splits, cameras, `drive`, pictures.

        The same wherever the folder lies; a picture in memory is named by its pixels, a file by its bytes.
        """
        rows = list(self.frames.itertuples(index=False))
        # Rounded, so that a pose that went through a file (double precision, other axes) is still the same pose.
        numbers = [
            np.round(value.double().cpu().numpy(), 6) + 0.0 for value in (self.cameras.viewmats, self.cameras.Ks)
        ]
        pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        try:
            pictures = list(pool.map(self._picture_digest, rows))
        finally:
            pool.shutdown(cancel_futures=True)
        whole, drive = hashlib.sha256(), self.drive
        for index, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
            time = None if math.isnan(row.time) else row.time
            words = [row.camera, time, row.source, row.split, row.width, row.height, picture]
            # Only where they say something: a capture without them keeps the name it always had.
            words += [
                [name, getattr(row, name)] for name, plain in OPTIONAL.items() if getattr(row, name, plain) != plain
            ]
            if drive is not None and not drive.iloc[index].isna().any():
                words.append({name: round(value, 6) + 0.0 for name, value in sorted(drive.iloc[index].items())})
            whole.update(json.dumps(words).encode() + b"".join(value[index].tobytes() for value in numbers))
        return whole.hexdigest()

    # --- inside ---

    def _take(self, index: np.ndarray) -> Capture:
        frames = self.frames.iloc[index].reset_index(drop=True)
        memory = {name: self.memory[name] for name in frames.frame if name in self.memory}
        return Capture(self.root, frames, self.cameras[index], memory)

    def _row(self, i: int) -> Any:
        # A tuple, not a Series: a Series has a method `mask` that hides the column.
        return next(self.frames.iloc[[int(i)]].itertuples(index=False))

    def _rows(self, rows: Any) -> np.ndarray:
        everything = np.arange(len(self))
        if rows is None:
            return everything
        if not isinstance(rows, slice):
            rows = np.atleast_1d(np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows))
            rows = rows if rows.size else rows.astype(np.int64)
        try:
            return everything[rows]
        except IndexError as error:
            raise InputError(f"there are {len(self)} frames: {error}", file=self.root, field="rows") from error

    def _picture(self, row: Any) -> Picture:
        picture = self.memory.get(row.frame)
        if picture is None:
            picture = read_picture(row.image, row.mask)
            if getattr(row, "distortion", ""):
                picture = _undistorted(picture, row)
        return resize_picture(picture, int(row.width), int(row.height))

    def _picture_digest(self, row: Any) -> str:
        digest = hashlib.sha256()
        if row.frame in self.memory:
            for value in self.memory[row.frame]:
                digest.update(b"-" if value is None else repr(value.shape).encode() + value.tobytes())
            return digest.hexdigest()
        for path in (row.image, row.mask):
            digest.update(Path(path).read_bytes() if path else b"-")
        return digest.hexdigest()


def true_pictures(rgb: Tensor, alpha: Tensor | None, background: Tensor) -> Tensor:
    """What `Capture.pictures` gave, as a viewer would see it over ``background`` [3], uint8 [n, H, W, 3].

    Without alpha that is ``rgb`` itself.
    """
    if alpha is None:
        return rgb
    seen = torch.empty_like(rgb)
    for start in range(0, len(rgb), 64):  # floats of all frames at once would be four times the pictures
        part = slice(start, start + 64)
        over = composite(rgb[part].float() / 255, alpha[part].float() / 255, background)
        seen[part] = (over * 255).round().to(torch.uint8)
    return seen


def merge(captures: Sequence[Capture]) -> Capture:
    """One capture of many, sorted as `sort_frames` does.

    Where two captures clash, the capture's name goes in front: frame names that are in both; the default source; and
    cameras that share a name but no pose.

    Raises:
        InputError: nothing to merge, or the same frames twice under one capture's name.
    """
    if not captures:
        raise InputError("nothing to merge", field="captures")
    names = pd.concat([pd.Series(c.frames.frame.unique()) for c in captures])
    doubled = set(names[names.duplicated()])
    several = len({capture.root for capture in captures}) > 1
    poses = [_poses_by_camera(capture) for capture in captures]
    tables, memory = [], {}
    for position, capture in enumerate(captures):
        prefix = capture.name
        strangers = {
            camera
            for camera, here in poses[position].items()
            if any(camera in other and not here & other[camera] for other in poses)
        }
        new = {name: f"{prefix}/{name}" if name in doubled and several else name for name in capture.frames.frame}
        frames = capture.frames.assign(frame=capture.frames.frame.map(new))
        frames["camera"] = [f"{prefix}/{name}" if name in strangers else name for name in frames.camera]
        if several:
            frames["source"] = frames.source.replace(DEFAULT_SOURCE, prefix)
        tables.append(frames)
        memory.update({new[name]: picture for name, picture in capture.memory.items()})
    frames = pd.concat(tables, ignore_index=True)
    frames = frames.fillna({name: plain for name, plain in OPTIONAL.items() if name in frames})
    cameras = Cameras.concatenate([capture.cameras for capture in captures])
    order = sort_frames(frames)
    return Capture(captures[0].root, frames.iloc[order], cameras[order], memory)


def sort_frames(frames: pd.DataFrame) -> np.ndarray:
    """[n] positions in the house's order: split, source, time (none first), camera, and the name last of all."""

    def key(position: int) -> tuple:
        row = rows[position]
        time = -1.0 if math.isnan(row.time) else row.time
        return SPLITS.index(row.split), row.source, time, natural(row.camera), natural(row.frame)

    rows = list(frames.itertuples(index=False))
    return np.array(sorted(range(len(rows)), key=key), dtype=np.int64)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key under which "r_2" comes before "r_10"."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"([0-9]+)", text)]


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _undistorted(picture: Picture, row: Any) -> Picture:
    try:
        return undistort(picture, row.distortion)
    except InputError as error:
        raise InputError(str(error), file=row.image) from error


def _poses_by_camera(capture: Capture) -> dict[str, set[bytes]]:
    views = np.round(capture.cameras.viewmats.cpu().numpy(), 4) + 0.0
    poses: dict[str, set[bytes]] = {}
    for name, view in zip(capture.frames.camera, views, strict=True):
        poses.setdefault(name, set()).add(view.tobytes())
    return poses


def _check(root: Path, frames: pd.DataFrame, cameras: Cameras, memory: Mapping[str, Picture]) -> None:
    """Raise InputError where a capture's parts do not make one."""
    if not len(frames):
        raise InputError("has no frame", file=root, field="frames")
    if len(frames) != len(cameras):
        raise InputError(f"has {len(frames)} frames and {len(cameras)} cameras", file=root, field="cameras")
    doubled = frames.frame[frames.frame.duplicated()]
    if len(doubled):
        remedy = "name every frame once"
        raise InputError(f"{doubled.iloc[0]!r} is there more than once", file=root, field="frame", remedy=remedy)
    strange = sorted(set(frames.split) - set(SPLITS), key=str)
    if strange:
        raise InputError(f"is {strange[0]!r}, must be one of {', '.join(SPLITS)}", file=root, field="split")
    nowhere = [row.frame for row in frames.itertuples() if not row.image and row.frame not in memory]
    if nowhere:
        raise InputError(f"frame {nowhere[0]!r} has neither a file nor a picture in memory", file=root, field="image")
    weights = frames["weight"].to_numpy(dtype=np.float64) if "weight" in frames else np.ones(1)
    if not (np.isfinite(weights) & (weights > 0)).all():
        worst = weights[~(np.isfinite(weights) & (weights > 0))][0]
        remedy = "leave a frame out instead of giving it no weight"
        raise InputError(f"is {worst:g}, must be a positive number", file=root, field="weight", remedy=remedy)
    times = frames.time.to_numpy()
    if ((times < 0) | (times > 1)).any():
        raise InputError(
            f"ranges to {np.nanmin(times):g} and {np.nanmax(times):g}, must be in [0, 1] or NaN",
            file=root,
            field="time",
            remedy="divide by the last time",
        )
    if not np.allclose(times, cameras.times.cpu().numpy(), atol=1e-6, equal_nan=True):
        raise InputError("the table and the cameras disagree", file=root, field="time", remedy="use with_times")
    if not np.array_equal(frames[["width", "height"]].to_numpy(), cameras.sizes.cpu().numpy()):
        raise InputError("the table and the cameras disagree", file=root, field="width, height", remedy="use resized")
