"""Names of face actions in rigs: those of `fourdgs.drive.names`, and which side an action is of."""

from __future__ import annotations

import re

import numpy as np

from ..drive.names import ARKIT, halves, plain_name

__all__ = ["ARKIT", "is_left", "whole_actions"]


def is_left(name: str) -> bool | None:
    """Whether an action is of the person's left side; None where its name is of no side.

    A direction (mouthLeft, jawLeft) moves both sides and is of none.
    """
    name = plain_name(name)
    found = re.search(r"(Left|_L)$|(Right|_R)$", name)
    if found is None or name in ("mouthLeft", "mouthRight", "jawLeft", "jawRight"):
        return None
    return found[1] is not None


def whole_actions(names: list[str], deltas: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Actions and their offsets [D, V, 3], with those of ARKit's that are there in halves as the halves' sum."""
    both = halves(names)
    sums = [deltas[left] + deltas[right] for left, right in both.values()]
    return [*names, *both], np.concatenate([deltas, np.stack(sums)]) if sums else deltas
