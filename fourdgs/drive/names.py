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
    """A control's name as the library has it.

    ARKit's actions and the angles become lowerCamel whatever their case and the way they say left and right
    (``JawOpen``, ``eyeBlink_L``: ``jawOpen``, ``eyeBlinkLeft``); every other name stays as it is, without blanks
    around it.
    """
    name = name.strip()
    if name.lower() in _KNOWN:
        return _KNOWN[name.lower()]
    match = re.fullmatch(r"(.+)[_.]([LR])", name, flags=re.IGNORECASE)
    if match is None:
        return name
    side = {"l": "left", "r": "right"}[match[2].lower()]
    return _KNOWN.get(match[1].lower() + side, name)


def is_action(name: str) -> bool:
    """Whether it is one of ARKit's actions, whose weights lie in [0, 1]."""
    return name in _ACTIONS


def is_angle(name: str) -> bool:
    """Whether it is an angle of the head or of an eye."""
    return name in _ANGLES


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names that someone who wrote ``name`` may have meant, best first."""
    lower = {other.lower(): other for other in known}
    return [lower[found] for found in difflib.get_close_matches(name.lower(), lower, n=most, cutoff=0.6)]


def listed(names: Sequence[str], known: Iterable[str] = (), most: int = 4) -> str:
    """Names in a sentence, the first few of them, each with what it is near to: ``jawOpn (jawOpen?), smile``."""
    known = list(known)
    words = []
    for name in names[:most]:
        others = near(name, known)
        words.append(f"{name} ({' or '.join(others)}?)" if others else name)
    return ", ".join(words) + (f" and {len(names) - most} more" if len(names) > most else "")
