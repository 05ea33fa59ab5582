"""Lenses that are no pinhole, and the pinhole that their pictures are turned into.

A lens maps a viewing direction (x, y) = (X/Z, Y/Z) to a distorted (x', y'), and the picture has it at
u = fx x' + cx, v = fy y' + cy, where the centre of the left-top pixel is (0.5, 0.5). With r^2 = x^2 + y^2:

    OPENCV          x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
                    y' = y (the same) + p1 (r^2 + 2 y^2) + 2 p2 x y
    OPENCV_FISHEYE  (x', y') = (x, y) t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8) / r  with  t = atan(r)

(OpenCV, modules calib and fisheye, "Detailed Description"; the first is Brown's model with a rational radial term, the
second Kannala and Brandt, PAMI 2006.) COLMAP's SIMPLE_RADIAL, RADIAL, FULL_OPENCV and the fisheye models of these two
kinds are the same formulas with fewer terms.
"""

from __future__ import annotations

import functools
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError, MissingDependency
from .pictures import Picture

TERMS = {
    "OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
"""The coefficients of each model, in OpenCV's order."""

WIDEST_DEG = 60.0
"""Half the field of view that the pinhole may have each way. At this angle a pinhole spends four times the pixels a
degree that it spends in the middle (1 / cos^2), so that a wider one would blur the middle to show the rim."""

LONGEST_SIDE = 32766
"""Of a picture that is undistorted: OpenCV's remap counts pixels in 16 bits."""

_STRONGEST = 8.0
"""Factor on the focal length beyond which no pinhole is looked for: with an eighth of the lens's field of view left,
the coefficients are mistaken."""

_LEAST_AREA = 0.03
"""Of the stored picture under a pixel at the rim of the pinhole, against one in the middle. Where it comes to nothing
the lens folds over; short of that one stored pixel is smeared over many. A fisheye without further terms has 0.07 in
the corner of a square at `WIDEST_DEG`."""

_CACHE_BYTES = 400 * 2**20  # of remap grids: some 30 cameras of two million pixels


@dataclass(frozen=True)
class Lens:
    """A lens as calibrated.

    Attributes:
        model: a key of `TERMS`.
        coefficients: as many as the model has terms.
        intrinsics: fx, fy, cx, cy in pixels of the stored picture, pixel centres at +0.5.
        size: (width, height) of the stored picture.
    """

    model: str
    coefficients: tuple[float, ...]
    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]

    @classmethod
    def of(cls, model: str, terms: Sequence[float], intrinsics: Sequence[float], size: tuple[int, int]) -> Lens | None:
        """A lens of the first few terms of its model; None where it is a pinhole.

        Raises:
            InputError: too many terms, or no pinhole picture can be had from it.
        """
        names = TERMS[model]
        if len(terms) > len(names):
            message = f"has {len(terms)} terms, {model} has {len(names)}: {', '.join(names)}"
            raise InputError(message, field="distortion", remedy="give the coefficients in OpenCV's order")
        whole = tuple(float(term) for term in terms) + (0.0,) * (len(names) - len(terms))
        if model == "OPENCV" and not any(whole):
            return None
        lens = cls(model, whole, tuple(float(value) for value in intrinsics), (int(size[0]), int(size[1])))
        lens.pinhole()
        return lens

    def text(self) -> str:
        """Compact JSON: what a capture's column ``distortion`` holds."""
        values = {"model": self.model, "k": self.coefficients, "K": self.intrinsics, "size": self.size}
        return json.dumps(values, separators=(",", ":"), allow_nan=False)

    @classmethod
    def parse(cls, text: str) -> Lens:
        """The inverse of `text`. Raises InputError where it is not one."""
        return _parse(text)

    def distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the picture has the directions (x, y) = (X/Z, Y/Z): pixels u, v, of their shape."""
        fx, fy, cx, cy = self.intrinsics
        with np.errstate(all="ignore"):  # what overflows is no number, and is seen to by whoever asks
            square = x * x + y * y
            if self.model == "OPENCV":
                k1, k2, p1, p2, k3, k4, k5, k6 = self.coefficients
                radial = 1 + square * (k1 + square * (k2 + square * k3))
                radial = radial / (1 + square * (k4 + square * (k5 + square * k6)))
                across = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
                down = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
            else:
                k1, k2, k3, k4 = self.coefficients
                radius = np.sqrt(square)
                angle = np.arctan(radius)
                turn = angle * angle
                bent = angle * (1 + turn * (k1 + turn * (k2 + turn * (k3 + turn * k4))))
                factor = np.where(radius > 1e-9, bent / np.maximum(radius, 1e-9), 1.0)
                across, down = x * factor, y * factor
            return fx * across + cx, fy * down + cy

    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy of the widest pinhole of the same size all of whose pixels the stored picture has.

        Principal point and shape of the pixels are the lens's own; only the focal length differs. It sees at most
        `WIDEST_DEG` each way.

        Raises:
            InputError: there is none: the coefficients fold the picture over, or the principal point is outside it.
        """
        return _pinhole(self)


def undistort(picture: Picture, text: str) -> Picture:
    """A stored picture as the pinhole `Lens.pinhole` sees it, of the same size (bilinear; colours weighted by alpha).

    Args:
        picture: rgb uint8 [H, W, 3] straight, alpha uint8 [H, W] or None. text: what `Lens.text` gave.

    Raises:
        InputError: the picture has another size than the lens. MissingDependency: OpenCV is not installed.
    """
    lens = Lens.parse(text)
    rgb, alpha = picture
    if rgb.shape[1::-1] != lens.size:
        size, said = "x".join(map(str, rgb.shape[1::-1])), "x".join(map(str, lens.size))
        remedy = "calibrate at the size of the pictures"
        raise InputError(f"the picture is {size}, its lens is that of {said}", field="distortion", remedy=remedy)
    cv2 = _cv2()
    grid = _GRIDS.get(text, lens)
    if alpha is None:
        return cv2.remap(rgb, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), None
    values = np.empty((*alpha.shape, 4), np.float32)
    values[..., 3] = alpha
    np.multiply(rgb, (values[..., 3] / 255)[..., None], out=values[..., :3])
    values = cv2.remap(values, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    values[..., :3] *= (255 / np.maximum(values[..., 3], 1e-3))[..., None]
    values = np.rint(values, out=values).clip(0, 255, out=values).astype(np.uint8)
    return np.ascontiguousarray(values[..., :3]), np.ascontiguousarray(values[..., 3])


def pixel_map(lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the pinhole picture lies in the stored one: u, v float32 [H, W], pixel centres at +0.5."""
    (width, height), (fx, fy, cx, cy) = lens.size, lens.pinhole()
    u, v = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    x = (np.arange(width) + 0.5 - cx) / fx
    for top in range(0, height, 128):  # in strips, so that the intermediates stay in the processor's cache
        rows = slice(top, min(top + 128, height))
        y = (np.arange(rows.start, rows.stop) + 0.5 - cy) / fy
        u[rows], v[rows] = lens.distort(*np.meshgrid(x, y))
    # `pinhole` looks at a coarse grid: between its points the rim may be over by a hundredth of a pixel.
    return u.clip(0.5, width - 0.5), v.clip(0.5, height - 0.5)


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            "undistorting pictures needs the package OpenCV: pip install opencv-python-headless"
        ) from error
    return cv2


class _Grids:
    """Remap grids by lens, the latest ones kept up to a number of bytes; safe to use from many threads."""

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0
        self.kept: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, text: str, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            if text in self.kept:
                self.kept.move_to_end(text)
                return self.kept[text]
        cv2 = _cv2()
        u, v = pixel_map(lens)
        grid = cv2.convertMaps(u - 0.5, v - 0.5, cv2.CV_16SC2)  # OpenCV's first pixel is centred at 0
        with self.lock:
            if text not in self.kept:
                self.kept[text] = grid
                self.used += sum(part.nbytes for part in grid)
            while self.used > self.limit and len(self.kept) > 1:
                _, old = self.kept.popitem(last=False)
                self.used -= sum(part.nbytes for part in old)
        return grid


_GRIDS = _Grids(_CACHE_BYTES)


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Lens:
    try:
        values = json.loads(text)
        lens = Lens(
            values["model"],
            tuple(float(value) for value in values["k"]),
            tuple(float(value) for value in values["K"]),
            tuple(int(value) for value in values["size"]),
        )
        if len(lens.coefficients) != len(TERMS[lens.model]) or len(lens.intrinsics) != 4 or len(lens.size) != 2:
            raise ValueError("wrong number of values")
    except (ValueError, KeyError, TypeError) as error:
        remedy = "write what fourdgs.lens.Lens.text gives, or an empty string"
        raise InputError(f"is no lens: {error}", field="distortion", remedy=remedy) from error
    return lens


@functools.lru_cache(maxsize=4096)
def _pinhole(lens: Lens) -> tuple[float, float, float, float]:
    (width, height), (fx, fy, cx, cy) = lens.size, lens.intrinsics
    if max(lens.size) > LONGEST_SIDE:
        message = f"the picture is {width}x{height}, at most {LONGEST_SIDE} pixels a side can be undistorted"
        raise InputError(message, field="distortion", remedy="scale the pictures down")
    reach = max(cx / fx, (width - cx) / fx, cy / fy, (height - cy) / fy)
    # At this scale of the focal lengths the pinhole sees WIDEST_DEG on its longest side.
    low = reach / math.tan(math.radians(WIDEST_DEG))
    if not _fits(lens, low):
        high = low
        while high < _STRONGEST and not _fits(lens, high):
            high *= 1.1
        if high >= _STRONGEST:
            raise InputError(
                "no undistorted picture can be had from it: the lens folds the picture over or leads out of it",
                field="distortion",
                remedy="check the coefficients and the principal point, or undistort with the tool that calibrated",
            )
        low = high / 1.1
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if _fits(lens, middle) else (middle, high)
        low = high
    # Rounded up, so that the last bits of a processor do not show in a camera.
    scale = math.ceil(low * 1e5) / 1e5
    return fx * scale, fy * scale, cx, cy


def _fits(lens: Lens, scale: float) -> bool:
    """Whether the pinhole with focal lengths ``scale`` times the lens's is inside the stored picture, without folds."""
    (width, height), (fx, fy, cx, cy) = lens.size, lens.intrinsics
    columns, rows = np.meshgrid(np.linspace(0.5, width - 0.5, 33), np.linspace(0.5, height - 0.5, 33))

    def stored(across: float, down: float) -> np.ndarray:
        x, y = (columns + across - cx) / (scale * fx), (rows + down - cy) / (scale * fy)
        return np.stack(lens.distort(x, y))  # [2, 33, 33]

    u, v = stored(0, 0)
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return False
    outside = max(0.5 - u.min(), u.max() - width + 0.5, 0.5 - v.min(), v.max() - height + 0.5)
    if outside > 1e-6 * max(width, height):  # rounding
        return False
    with np.errstate(all="ignore"):
        du, dv = stored(0.25, 0) - stored(-0.25, 0), stored(0, 0.25) - stored(0, -0.25)
        area = 4 * (du[0] * dv[1] - du[1] * dv[0])  # of the stored picture that a pixel of the pinhole shows
        return bool((area * scale**2 > _LEAST_AREA).all())
