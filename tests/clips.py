"""Short clips for the tests of mattes and colors: the embedded one, small, and drawn ones whose alpha is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fourdgs.cameras import Cameras
from fourdgs.capture import Capture
from fourdgs.data import alpha
from fourdgs.data.load import load_capture

SIZE = 96


def small_alpha(tmp_path_factory) -> Capture:
    """The embedded capture's orbit and clips, nine frames each; made once a test session."""
    patch = pytest.MonkeyPatch()
    patch.setattr(alpha, "CLIP_FRAMES", 9)
    try:
        folder = tmp_path_factory.getbasetemp() / "clips_alpha"
        alpha.make_alpha(folder, SIZE, grid=(1, 1), progress=False)
    finally:
        patch.undo()
    return load_capture(folder).select(source=["orbit", "clip", "clip_clean"])


def to_8_bits(values) -> np.ndarray:
    return np.clip(np.rint(np.asarray(values) * 255), 0, 255).astype(np.uint8)


def subject(shift: float = 0.0, size: int = SIZE, color=(0.75, 0.55, 0.45)) -> tuple[np.ndarray, np.ndarray]:
    """A striped head on shoulders, sideways by ``shift`` pixels: rgb [S, S, 3] and its exact alpha [S, S]."""
    fine = 4
    y, x = (np.mgrid[: size * fine, : size * fine] + 0.5) / fine
    x = x - shift
    head = ((x - 0.5 * size) / (0.16 * size)) ** 2 + ((y - 0.4 * size) / (0.22 * size)) ** 2 < 1
    body = ((x - 0.5 * size) / (0.3 * size)) ** 2 + ((y - 0.95 * size) / (0.35 * size)) ** 2 < 1
    cover = (head | body).reshape(size, fine, size, fine).mean(axis=(1, 3))
    y, x = np.mgrid[:size, :size] + 0.5
    stripes = 0.85 + 0.15 * np.sin((x - shift) / size * 40)
    rgb = np.asarray(color) * stripes[..., None]
    shirt = np.array([0.55, 0.15, 0.2]) * stripes[..., None] ** 2
    return np.where((y > 0.62 * size)[..., None], shirt, rgb), cover


def over(rgb: np.ndarray, cover: np.ndarray, background) -> np.ndarray:
    return rgb * cover[..., None] + np.asarray(background) * (1 - cover[..., None])


def clip(pictures, covers=None, source: str = "clip", camera: str = "front") -> Capture:
    """Pictures [n, H, W, 3] in [0, 1] (and alphas) of a camera that stands still, in memory."""
    pictures = to_8_bits(pictures)
    covers = None if covers is None else to_8_bits(covers)
    count, height, width = pictures.shape[:3]
    times = np.linspace(0, 1, count)
    cameras = Cameras.look_at(
        np.tile([0.0, 0.0, 3.0], (count, 1)), fov_x_deg=30.0, width=width, height=height, times=times
    )
    names = [f"{source}/{number:03d}" for number in range(count)]
    table = {"frame": names, "camera": camera, "time": times, "source": source, "split": "train", "image": ""}
    frames = pd.DataFrame({**table, "mask": "", "width": width, "height": height})
    memory = {name: (pictures[k], None if covers is None else covers[k]) for k, name in enumerate(names)}
    return Capture("clips", frames, cameras, memory)


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union of two alphas, cut at a half."""
    return ((one > 0.5) & (two > 0.5)).sum() / ((one > 0.5) | (two > 0.5)).sum()
