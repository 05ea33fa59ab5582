"""Every picture of a capture, decoded once: thumbnails and sharpness, which all checks work on."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..cameras import Cameras
from ..capture import Capture
from ..files import cache_folder, write_aside
from ..pictures import Picture, composite, resize_picture

THUMBNAIL = 128
_FORMAT = "1"
_LINES = 4
"""Sharpness is measured on every fourth line and column: a thousand of them fix a mean."""


@dataclass(frozen=True, eq=False)
class Survey:
    """A capture with what its pictures look like when small. Rows are those of ``capture.frames``.

    Attributes:
        capture: where it came from.
        cameras: at the thumbnails' sizes, which may be mixed.
        rgb: n thumbnails, uint8 [h, w, 3] straight. alpha: their opacity, uint8 [h, w]; 255 where there is none.
        has_alpha: [n] whether the picture has an alpha channel or a mask.
        detail: [n, 2] sharpness along x and y, at the capture's own size: the mean absolute difference of neighbours,
            over the same after averaging pairs. Free of contrast; 1/2 for a picture without fine detail, about 1
            and above for one that is sharp to the pixel, NaN where nothing is opaque.
        size: the thumbnails' longer side, pixels.
    """

    capture: Capture
    cameras: Cameras = field(repr=False)
    rgb: list[np.ndarray] = field(repr=False)
    alpha: list[np.ndarray] = field(repr=False)
    has_alpha: np.ndarray = field(repr=False)
    detail: np.ndarray = field(repr=False)
    size: int = THUMBNAIL

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def frames(self) -> pd.DataFrame:
        """The capture's table."""
        return self.capture.frames

    @property
    def train(self) -> np.ndarray:
        """Rows of split train."""
        return np.flatnonzero(self.frames["split"] == "train")

    @property
    def test(self) -> np.ndarray:
        """Rows of split test."""
        return np.flatnonzero(self.frames["split"] == "test")

    @property
    def opaque(self) -> np.ndarray:
        """[n] whether every pixel is opaque (to a rounding)."""
        return np.array([bool(alpha.min() >= 254) for alpha in self.alpha])

    def over(self, i: int, background: Iterable[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
        """Thumbnail i over a background, float32 [h, w, 3] in [0, 1]."""
        rgb = self.rgb[i].astype(np.float32) / 255
        return composite(rgb, self.alpha[i].astype(np.float32) / 255, tuple(background))

    def subset(self, rows: Any) -> Survey:
        """The same of some rows, with nothing decoded again."""
        index = np.arange(len(self))[rows]
        return Survey(
            self.capture.select(rows=index),
            self.cameras[index],
            [self.rgb[i] for i in index],
            [self.alpha[i] for i in index],
            self.has_alpha[index],
            self.detail[index],
            self.size,
        )

    def picture(self, i: int) -> Picture:
        """Frame i at the capture's own size, decoded again: rgb uint8 [H, W, 3], alpha uint8 [H, W] or None."""
        return self.capture.picture(i)


_MEMORY: WeakKeyDictionary[Survey, dict[str, Any]] = WeakKeyDictionary()


def remembered(survey: Survey, name: str, compute: Callable[[], Any]) -> Any:
    """What ``compute`` gave for this survey; several checks ask for the same. Nobody may change it."""
    memory = _MEMORY.setdefault(survey, {})
    if name not in memory:
        memory[name] = compute()
    return memory[name]


def survey(capture: Capture, size: int = THUMBNAIL, *, cache: bool = True, progress: bool = True) -> Survey:
    """Look at every picture of a capture.

    Args:
        size: the thumbnails' longer side in pixels; smaller pictures stay as they are.
        cache: keep the thumbnails of files (never of pictures in memory) for the next time, in the user's cache
            folder, under the files' paths, sizes and modification times.
        progress: show a bar.

    Raises:
        InputError: a picture cannot be read.
    """
    rows = list(capture.frames.itertuples(index=False))
    keys = [_key(capture, row, size) for row in rows]
    store = cache_folder() / f"survey-{hashlib.sha256(str(capture.root).encode()).hexdigest()[:16]}-{size}.npz"
    known = _read_store(store) if cache else {}
    todo = [index for index, key in enumerate(keys) if key not in known]
    found: dict[int, _Look] = {index: known[key] for index, key in enumerate(keys) if key in known}
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        looks = pool.map(lambda index: _look(capture, index, size), todo)
        bar = tqdm(looks, total=len(todo), desc="thumbnails", unit="frame", disable=not (progress and todo))
        for index, look in zip(todo, bar, strict=True):
            found[index] = look
    finally:
        pool.shutdown(cancel_futures=True)
    if cache and any(keys[index] for index in todo):
        # What was known of other splits of the same folder stays; the store never outgrows a few captures.
        fresh = {keys[index]: found[index] for index in range(len(rows)) if keys[index]}
        _write_store(store, fresh | dict(list(known.items())[: 2 * len(rows)]))
    looks = [found[index] for index in range(len(rows))]
    sizes = np.array([[look.rgb.shape[1], look.rgb.shape[0]] for look in looks])
    return Survey(
        capture,
        capture.cameras.resized(sizes[:, 0], sizes[:, 1]),
        [look.rgb for look in looks],
        [look.alpha for look in looks],
        np.array([look.has_alpha for look in looks]),
        np.array([look.detail for look in looks], dtype=np.float64).reshape(-1, 2),
        size,
    )


@dataclass(frozen=True)
class _Look:
    rgb: np.ndarray
    alpha: np.ndarray
    has_alpha: bool
    detail: tuple[float, float]


def _look(capture: Capture, index: int, size: int) -> _Look:
    rgb, alpha = capture.picture(index)
    detail = _detail(rgb, alpha)
    height, width = rgb.shape[:2]
    factor = min(1.0, size / max(height, width))
    small = max(1, round(width * factor)), max(1, round(height * factor))
    has_alpha = alpha is not None
    rgb, alpha = resize_picture((rgb, alpha), *small)
    return _Look(rgb, np.full(rgb.shape[:2], 255, np.uint8) if alpha is None else alpha, has_alpha, detail)


def _detail(rgb: np.ndarray, alpha: np.ndarray | None) -> tuple[float, float]:
    """See `Survey.detail`; on the green channel, which carries most of the light and of a sensor's resolution."""
    values = []
    for lines in (np.s_[::_LINES], np.s_[:, ::_LINES]):
        green = rgb[..., 1][lines].astype(np.int16)
        solid = None if alpha is None else alpha[lines] > 250
        if lines != np.s_[::_LINES]:
            green, solid = green.T, None if solid is None else solid.T
        values.append(_line_detail(green, solid))
    return values[0], values[1]


def _line_detail(lines: np.ndarray, solid: np.ndarray | None) -> float:
    lines = lines[:, : lines.shape[1] // 2 * 2]
    if lines.shape[1] < 4:
        return float("nan")
    fine = np.abs(np.diff(lines, axis=1))
    pairs = lines[:, ::2] + lines[:, 1::2]  # twice the mean
    coarse = np.abs(np.diff(pairs, axis=1))
    if solid is None:
        totals = fine.mean(), coarse.mean() / 2
    else:
        solid = solid[:, : lines.shape[1]]
        whole = solid[:, ::2] & solid[:, 1::2]
        both, near = solid[:, 1:] & solid[:, :-1], whole[:, 1:] & whole[:, :-1]
        if not near.any():
            return float("nan")
        totals = fine[both].mean(), coarse[near].mean() / 2
    return float(totals[0] / totals[1]) if totals[1] > 0 else float("nan")


# --- thumbnails kept ---


def _key(capture: Capture, row: Any, size: int) -> str:
    """What names a file's thumbnail; "" for a picture in memory."""
    if row.frame in capture.memory:
        return ""
    words = [_FORMAT, str(size), f"{row.width}x{row.height}", str(getattr(row, "distortion", ""))]
    for path in (row.image, row.mask):
        if path:
            try:
                status = Path(path).stat()
            except OSError:
                return ""  # the decoder has the better words for it
            words += [str(path), str(status.st_mtime_ns), str(status.st_size)]
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:32]


def _read_store(path: Path) -> dict[str, _Look]:
    """The looks in a store; none where it is missing or damaged: they are made again."""
    try:
        with np.load(path, allow_pickle=False) as data:
            keys, sizes, pixels = data["keys"], data["sizes"], data["pixels"]
            has_alpha, detail = data["has_alpha"], data["detail"]
        ends = np.cumsum(sizes.prod(axis=1) * 4)
        if len(keys) and ends[-1] != len(pixels):
            return {}
        looks = {}
        for index, key in enumerate(keys.tolist()):
            height, width = sizes[index]
            block = pixels[ends[index] - height * width * 4 : ends[index]].reshape(height, width, 4)
            rgb, alpha = np.ascontiguousarray(block[..., :3]), np.ascontiguousarray(block[..., 3])
            looks[key] = _Look(rgb, alpha, bool(has_alpha[index]), tuple(detail[index].tolist()))
        return looks
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile, zlib.error):
        return {}


def _write_store(path: Path, looks: dict[str, _Look]) -> None:
    kept = list(looks.values())
    blocks = [np.concatenate([look.rgb, look.alpha[..., None]], axis=-1).ravel() for look in kept]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            with open(aside, "wb") as file:
                np.savez(
                    file,
                    keys=np.array(list(looks)),
                    sizes=np.array([look.rgb.shape[:2] for look in kept]),
                    pixels=np.concatenate(blocks),
                    has_alpha=np.array([look.has_alpha for look in kept]),
                    detail=np.array([look.detail for look in kept]),
                )
    except OSError:
        pass  # a full or read-only cache costs time, not the diagnosis
