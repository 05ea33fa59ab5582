"""Which few of many are looked at, where a few say as much as all."""

from __future__ import annotations

import numpy as np


def spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` positions, evenly from the first to the last: [m] int, rising; none of none."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def some(rows: list[int], most: int) -> list[int]:
    """At most ``most`` of some rows, spread evenly."""
    return [rows[position] for position in spread(len(rows), most)]
