"""Names of face actions: ARKit's 52, and how other makers write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..drive.names import ARKIT

_OF_LOWER = {name.lower(): name for name in (*ARKIT, "headYaw", "headPitch", "headRoll")}


def arkit_name(name: str) -> str:
    """The ARKit name of an action that another maker wrote: `eyeBlink_L`, `EyeBlinkLeft`, `head.jawOpen`.

    A name that is none of ARKit's in any spelling comes back as it is.
    """
    last = re.split(r"[.:|/]", re.sub(r"\.([LR])$", r"_\1", name))[-1]
    long = re.sub(r"[_-]?(?:left)$|_l$", "left", last, flags=re.IGNORECASE)
    long = re.sub(r"[_-]?(?:right)$|_r$", "right", long, flags=re.IGNORECASE)
    return _OF_LOWER.get(long.lower(), name)


def is_left(name: str) -> bool | None:
    """Whether an action is of the person's left side; None where its name is of no side.

    A direction (mouthLeft, jawLeft) moves both sides and is of none.
    """
    found = re.search(r"(Left|Right)$", arkit_name(name))
    if found is None or name in ("mouthLeft", "mouthRight", "jawLeft", "jawRight"):
        return None
    return found.group() == "Left"


def near_names(name: str, known: Sequence[str]) -> str:
    """Words for an error about an unknown name: the known ones most like it, or the first of all."""
    lower = {other.lower(): other for other in known}
    like = [lower[word] for word in difflib.get_close_matches(name.lower(), lower, n=4, cutoff=0.5)]
    if like:
        return f"near: {', '.join(like)}"
    shown = ", ".join(known[:8])
    return f"known: {shown}{', ...' if len(known) > 8 else ''}" if known else "it has no controls"
