"""Pictures side by side, under a strip that names them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 4
"""Pixels between pictures that stand side by side."""


def hstack(pictures: Sequence[np.ndarray], strip: np.ndarray | None = None) -> np.ndarray:
    """Pictures side by side with a white gap, uint8: [n, H, W, 3] each, under a strip [h, all of it, 3] if given."""
    parts: list[np.ndarray] = []
    for index, each in enumerate(pictures):
        if index:
            parts.append(np.full((*each.shape[:2], GAP, 3), 255, np.uint8))
        parts.append(each)
    row = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
    if strip is None:
        return row
    return np.concatenate([np.broadcast_to(strip, (len(row), *strip.shape)), row], axis=1)


def label_strip(labels: Sequence[str], width: int, height: int) -> np.ndarray:
    """A white strip, uint8 [h, W, 3], with a label over each of the columns of ``width`` x ``height`` pixels that
    `hstack` sets side by side; with it the whole picture has an even height."""
    tall = max(16, round(height / 14))
    tall += (tall + height) % 2
    strip = Image.new("RGB", (len(labels) * width + (len(labels) - 1) * GAP, tall), "white")
    draw = ImageDraw.Draw(strip)
    for index, label in enumerate(labels):
        font, text = _fitting(label, width - 2 * GAP, round(0.72 * tall))
        left = index * (width + GAP) + width / 2
        draw.text((left, tall / 2), text, fill=(32, 32, 32), font=font, anchor="mm")
    return np.asarray(strip)


def _fitting(label: str, width: int, size: int) -> tuple[Any, str]:
    """The label in the largest letters that fit, cut where the smallest do not."""
    for points in range(size, 7, -1):
        font = _font(points)
        if font.getlength(label) <= width:
            return font, label
    font = _font(8)
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return font, label + "…"


def _font(points: int) -> Any:
    # Pillow's own font has no Cyrillic; matplotlib, which is always installed, brings one that has.
    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if file.exists():
            return ImageFont.truetype(str(file), points)
    return ImageFont.load_default(points)
