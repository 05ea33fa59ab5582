"""Captures from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..capture import Capture
from .transforms import read_transforms


def load_capture(path: str | Path, splits: Sequence[str] | None = None, scale: float | None = None) -> Capture:
    """Read a folder with ``transforms.json`` or ``transforms_{train,val,test}.json`` (or one such file).

    Args:
        splits: read only these. scale: shrink (or enlarge) the pictures by this factor when they are loaded.

    Raises:
        InputError: naming file, frame and field, and what to do; see `fourdgs.data.transforms`.
    """
    capture = read_transforms(path, splits=splits)
    return capture if scale is None else capture.scaled(scale)
