"""One picture at a time: read, resize, and set on a background."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import InputError

Picture = tuple[np.ndarray, np.ndarray | None]
"""rgb uint8 [H, W, 3] straight, alpha uint8 [H, W] or None where opaque."""


def composite(rgb: Any, alpha: Any, background: Any) -> Any:
    """Straight colour over a background: rgb * alpha + background * (1 - alpha).

    Args:
        rgb: float [..., H, W, 3], numpy or torch. alpha: [..., H, W] or [..., H, W, 1].
        background: three numbers, or anything that broadcasts against ``rgb``.

    Returns:
        Like ``rgb``, with its dtype.
    """
    torched = isinstance(rgb, Tensor)
    if not (rgb.is_floating_point() if torched else np.issubdtype(rgb.dtype, np.floating)):
        raise TypeError(f"composite works on floats in [0, 1], not on {rgb.dtype}")
    if torched:
        alpha = torch.as_tensor(alpha, dtype=rgb.dtype, device=rgb.device)
        background = torch.as_tensor(background, dtype=rgb.dtype, device=rgb.device)
    else:
        alpha, background = np.asarray(alpha, dtype=rgb.dtype), np.asarray(background, dtype=rgb.dtype)
    if alpha.ndim < rgb.ndim:
        alpha = alpha[..., None]
    return rgb * alpha + background * (1 - alpha)


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] (clipped) to uint8, rounded."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def read_picture(image: str | Path, mask: str | Path = "") -> Picture:
    """A picture file, with its alpha channel times its mask file, at the size it is stored in.

    Raises:
        InputError: a file is gone, broken, or of more than 8 bits a channel.
    """
    with _opened(image, "picture") as file:
        file.load()
        if _has_alpha(file):
            pixels = np.asarray(file.convert("RGBA"))
            rgb, alpha = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
        else:
            rgb, alpha = np.asarray(file.convert("RGB")), None
    if mask:
        with _opened(mask, "mask_path") as file:
            cover = np.asarray(file.convert("L"))
        if cover.shape != rgb.shape[:2]:
            raise InputError(
                f"is {cover.shape[1]}x{cover.shape[0]}, its picture is {rgb.shape[1]}x{rgb.shape[0]}",
                file=mask,
                field="mask_path",
            )
        # Both give a share of the pixel, so they multiply; +127 rounds.
        alpha = cover if alpha is None else ((alpha.astype(np.uint16) * cover + 127) // 255).astype(np.uint8)
    return rgb, alpha


def resize_picture(picture: Picture, width: int, height: int) -> Picture:
    """A picture at another size, each new pixel the exact mean of the area it covers, weighted by opacity."""
    rgb, alpha = picture
    if rgb.shape[:2] == (height, width):
        return picture
    down, across = _areas(rgb.shape[0], height), _areas(rgb.shape[1], width)
    cover = np.empty((0, 0), np.uint8) if alpha is None else np.ascontiguousarray(alpha)
    colors, opacity = _averaged(np.ascontiguousarray(rgb), cover, *down, *across)
    return colors, None if alpha is None else opacity


@functools.lru_cache(maxsize=64)
def _areas(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[after] the first and one past the last old pixel that each new one covers; [after, most] float32 shares."""
    edges = np.arange(after + 1) * (before / after)
    first = np.minimum(np.floor(edges[:-1] + 1e-9).astype(np.int64), before - 1)
    last = np.clip(np.ceil(edges[1:] - 1e-9).astype(np.int64), first + 1, before)
    old = first[:, None] + np.arange((last - first).max())
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return first, last, (np.clip(overlap, 0, None) * (after / before)).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _averaged(rgb, alpha, top, bottom, down, left, right, across):
    """Area averages; an empty ``alpha`` means opaque all over."""
    height, width, masked = len(top), len(left), alpha.size > 0
    colors, opacity = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    line = np.zeros((rgb.shape[1], 4), np.float32)
    for row in range(height):
        line[:] = 0
        for y in range(top[row], bottom[row]):
            share = down[row, y - top[row]]
            for x in range(rgb.shape[1]):
                weight = share * alpha[y, x] if masked else share * np.float32(255)
                for channel in range(3):
                    line[x, channel] += weight * rgb[y, x, channel]
                line[x, 3] += weight
        for column in range(width):
            red = green = blue = total = np.float32(0)
            for x in range(left[column], right[column]):
                share = across[column, x - left[column]]
                red += share * line[x, 0]
                green += share * line[x, 1]
                blue += share * line[x, 2]
                total += share * line[x, 3]
            if total > 0:
                colors[row, column, 0] = min(255, np.rint(red / total))
                colors[row, column, 1] = min(255, np.rint(green / total))
                colors[row, column, 2] = min(255, np.rint(blue / total))
                opacity[row, column] = min(255, np.rint(total))
    return colors, opacity


def picture_header(path: str | Path, field: str) -> tuple[int, int]:
    """(width, height) of a picture, from its header alone. Raises InputError as `read_picture` does."""
    with _opened(path, field) as file:
        return file.size


@contextlib.contextmanager
def _opened(path: str | Path, field: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            if file.mode in ("I", "F") or file.mode.startswith("I;"):
                remedy = "save it with 8 bits a channel"
                raise InputError(f"has the pixel type {file.mode!r}", file=path, field=field, remedy=remedy)
            yield file
    except FileNotFoundError as error:
        raise InputError("is missing", file=path, field=field, remedy="restore it, or take its frame out") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        remedy = "export it again as PNG or JPEG"
        raise InputError(f"cannot be read as a picture: {error}", file=path, field=field, remedy=remedy) from error


def _has_alpha(file: Image.Image) -> bool:
    return file.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in file.info


def has_alpha_channel(path: str | Path) -> bool:
    """Whether a picture file has an alpha channel, from its header alone."""
    with _opened(path, "picture") as file:
        return _has_alpha(file)
