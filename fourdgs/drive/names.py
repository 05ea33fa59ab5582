"""The names of controls: ARKit's 52 face actions, and the angles of the head and the eyes in degrees."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from ..data.track import HEAD

_PAIRS = (
    "browDown browOuterUp cheekSquint eyeBlink eyeLookDown eyeLookIn eyeLookOut eyeLookUp eyeSquint eyeWide "
    "mouthDimple mouthFrown mouthLowerDown mouthPress mouthSmile mouthStretch mouthUpperUp noseSneer"
).split()
_SINGLE = (
    "browInnerUp cheekPuff jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel mouthLeft mouthPucker "
    "mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper tongueOut"
).split()

ARKIT = tuple(sorted([*_SINGLE, *(name + side for name in _PAIRS for side in ("Left", "Right"))]))
"""The 52 face actions of ARKit (ARFaceAnchor.BlendShapeLocation), weights in [0, 1]."""

EYES = tuple(f"{side}Eye{angle}" for side in ("left", "right") for angle in ("Yaw", "Pitch", "Roll"))
"""Angles of the eyes in degrees."""

_ACTIONS = frozenset(ARKIT)
_ANGLES = frozenset((*HEAD, *EYES))
_KNOWN = {name.lower(): name for name in (*ARKIT, *HEAD, *EYES)}


def plain_name(name: str) -> str:
    """A control's name as the library has it, in tracks and in rigs.

    ARKit's actions and the angles become lowerCamel whatever their case (``JawOpen``), the way they say left and right
    (``eyeBlink_L``, ``eyeBlink.R``, ``EyeBlinkL``), what parts their words (``Eye_Blink_Left``, ``mouth smile left``)
    and what stands before them (``blendShape1.jawOpen``, ``A25_Jaw_Open`` of Character Creator); every other name stays
    as it is, without blanks around it.
    """
    name = name.strip()
    return _KNOWN.get(name.lower()) or _KNOWN.get(_letters(name), name)


def _letters(name: str) -> str:
    """The letters that tell an action, however it is written: small ones of its last part, its side in full."""
    last = re.split(r"[.:|/]", re.sub(r"\.([LRlr])$", r"_\1", name))[-1]
    last = re.sub(r"^[A-Z]\d\d_", "", last)
    last = re.sub(r"([\s_-][LRlr]|(?<=[a-z])[LR])$", lambda end: "left" if end[1][-1] in "Ll" else "right", last)
    return re.sub(r"[\s_-]", "", last).lower()


def halves(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """ARKit's actions that are not among the names, but whose two halves are: where their left and right halves are.

    ICT-FaceKit has ``browInnerUp_L`` and ``browInnerUp_R``, ARKit one ``browInnerUp``.
    """
    at = {_letters(name): index for index, name in enumerate(names)}
    there = {action: (at.get(f"{action.lower()}left"), at.get(f"{action.lower()}right")) for action in _SINGLE}
    return {
        action: (left, right)
        for action, (left, right) in there.items()
        if action not in names and left is not None and right is not None
    }


def is_action(name: str) -> bool:
    """Whether it is one of ARKit's actions, whose weights lie in [0, 1]."""
    return name in _ACTIONS


def is_angle(name: str) -> bool:
    """Whether it is an angle of the head or of an eye."""
    return name in _ANGLES


def near(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.6) -> list[str]:
    """The names that someone who wrote ``name`` may have meant, best first, then those that have it in them."""
    word, lower = name.lower(), {other.lower(): other for other in known}
    like = difflib.get_close_matches(word, lower, n=most, cutoff=cutoff)
    like += [other for other in lower if len(word) > 3 and word in other and other not in like]
    return [lower[found] for found in like[:most]]


def near_names(name: str, known: Sequence[str]) -> str:
    """Words for an error about an unknown name: the known ones most like it, or the first of all."""
    like = near(name, known, most=4, cutoff=0.5)
    if like:
        return f"near: {', '.join(like)}"
    shown = ", ".join(known[:8])
    return f"known: {shown}{', ...' if len(known) > 8 else ''}" if known else "it has no controls"


def listed(names: Sequence[str], known: Iterable[str] = (), most: int = 4) -> str:
    """Names in a sentence, the first few of them, each with what it is near to: ``jawOpn (jawOpen?), smile``."""
    known = list(known)
    words = []
    for name in names[:most]:
        others = near(name, known)
        words.append(f"{name} ({' or '.join(others)}?)" if others else name)
    return ", ".join(words) + (f" and {len(names) - most} more" if len(names) > most else "")
