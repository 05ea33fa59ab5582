"""Small captures on disk for the tests of readers: pictures of noise under a good transforms file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fourdgs.cameras import orbit

WIDTH, HEIGHT = 12, 8


def pose(azimuth_deg: float = 0.0) -> list:
    return orbit(1, azimuth_start_deg=azimuth_deg).to_opengl()[0].tolist()


def save_picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def write(folder: Path, content: dict, name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def frame(number: int, **more) -> dict:
    return {"file_path": f"images/r_{number}.png", "transform_matrix": pose(30 * number), **more}


def good_content(folder: Path) -> dict:
    """A good file of three frames, with its pictures on disk; tests break it."""
    for number in range(3):
        save_picture(folder / f"images/r_{number}.png", number)
    head = {"fl_x": 10.0, "fl_y": 11.0, "cx": 6.0, "cy": 4.5, "w": WIDTH, "h": HEIGHT}
    return {**head, "frames": [frame(0, time=0.5), frame(1, time=0.25), frame(2)]}
