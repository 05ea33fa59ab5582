"""One picture at a time: read, resize, and set on a background."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    down, across = _area_weights(rgb.shape[0], height), _area_weights(rgb.shape[1], width)
    values = rgb.astype(np.float32)
    if alpha is not None:
        opacity = alpha.astype(np.float32)[..., None]
        values = np.concatenate([values * (opacity / 255), opacity], axis=-1)
    channels = values.shape[-1]
    values = (down @ values.reshape(rgb.shape[0], -1)).reshape(height, rgb.shape[1], channels)
    values = across @ values  # [height, width, channels]
    if alpha is not None:
        opacity = values[..., 3:]
        values = np.concatenate([values[..., :3] / np.maximum(opacity / 255, 1e-6), opacity], axis=-1)
    values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(values[..., :3]), None if alpha is None else np.ascontiguousarray(values[..., 3])


@functools.lru_cache(maxsize=16)
def _area_weights(before: int, after: int) -> np.ndarray:
    """[after, before] float32: the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(after + 1) * (before / after)
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return (np.clip(overlap, 0, None) * (after / before)).astype(np.float32)


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
