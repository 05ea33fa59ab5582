"""A performance for the presenter: what the face and the head do at each time of a clip.

`ExpressionTrack.at` gives, for any time in [0, 1], the weights of ARKit face actions and three head angles. It is a
pure, smooth (at least once differentiable) function of the time and of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEAD = ("headYaw", "headPitch", "headRoll")
"""Entries of a pose that are angles in degrees: turn to the presenter's left, nod down, lean to the right shoulder."""

_VISEMES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.85, "mouthLowerDownLeft": 0.5, "mouthLowerDownRight": 0.5, "mouthUpperUpLeft": 0.3,
     "mouthUpperUpRight": 0.3},  # ah
    {"jawOpen": 0.30, "mouthFunnel": 0.85, "mouthPucker": 0.35},  # oh
    {"jawOpen": 0.12, "mouthPucker": 0.95, "mouthFunnel": 0.25},  # oo
    {"jawOpen": 0.30, "mouthStretchLeft": 0.55, "mouthStretchRight": 0.55, "mouthSmileLeft": 0.3,
     "mouthSmileRight": 0.3, "mouthUpperUpLeft": 0.35, "mouthUpperUpRight": 0.35},  # ee
    {"mouthRollLower": 0.35, "mouthRollUpper": 0.3, "mouthPressLeft": 0.4, "mouthPressRight": 0.4},  # m, b, p
    {"jawOpen": 0.14, "mouthRollLower": 0.55, "mouthUpperUpLeft": 0.35, "mouthUpperUpRight": 0.35},  # f, v
    {"jawOpen": 0.55, "mouthShrugUpper": 0.2, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3},  # eh
)  # fmt: skip


@dataclass(frozen=True)
class ExpressionTrack:
    """A seeded performance. ``syllables`` and ``blinks`` are counts over the whole clip."""

    seed: int = 0
    syllables: int = 22
    blinks: int = 4

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 3])
        object.__setattr__(self, "_script", self._write(rng))

    def _write(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Knots of every curve: the seeded part, drawn once."""
        count = self.syllables
        order = rng.integers(0, len(_VISEMES), count)
        # No viseme twice in a row, and the first word opens the mouth.
        for index in range(1, count):
            if order[index] == order[index - 1]:
                order[index] = (order[index] + 1) % len(_VISEMES)
        order[0], order[count // 2] = 0, 0
        middles = (np.arange(count) + 0.5 + rng.uniform(-0.2, 0.2, count)) / count
        loud = rng.uniform(0.75, 1.0, count)
        # A breath between two sentences.
        loud *= np.where(np.abs(middles - 0.46) < 0.035, 0.1, 1.0)
        blinks = (np.arange(self.blinks) + rng.uniform(0.25, 0.75, self.blinks)) / self.blinks
        return {
            "order": order,
            "middles": middles,
            "loud": loud,
            "blinks": blinks,
            "phases": rng.uniform(0, 2 * np.pi, (8, 3)),
        }

    def at(self, time: float) -> dict[str, float]:
        """Weights in [0, 1] of face actions (those that are not 0), and the angles named in `HEAD`."""
        script, t = self._script, float(time)
        pose: dict[str, float] = {}
        width = 1.05 / self.syllables
        for middle, which, loud in zip(script["middles"], script["order"], script["loud"], strict=True):
            amount = loud * _hump((t - middle) / width)
            if amount > 0:
                for action, weight in _VISEMES[which].items():
                    pose[action] = pose.get(action, 0.0) + amount * weight
        blink = sum(_hump((t - middle) / 0.028) for middle in script["blinks"])
        for side in ("Left", "Right"):
            pose[f"eyeBlink{side}"] = blink
        smile = 0.45 * self._slow(0, t, 1.0) + 0.55 * _hump((t - 0.93) / 0.12)
        brows, look = self._slow(1, t, 2.0), 2 * self._slow(2, t, 1.5) - 1
        for side in ("Left", "Right"):
            pose[f"mouthSmile{side}"] = pose.get(f"mouthSmile{side}", 0.0) + 0.5 * smile
            pose[f"cheekSquint{side}"] = 0.35 * smile
            pose[f"browOuterUp{side}"] = 0.7 * brows
            pose[f"browDown{side}"] = 0.5 * self._slow(3, t, 1.5) * (1 - brows)
        pose["browInnerUp"] = 0.8 * brows
        gaze = {"Left": ("eyeLookOutLeft", "eyeLookInRight"), "Right": ("eyeLookInLeft", "eyeLookOutRight")}
        for side, sign in (("Left", 1.0), ("Right", -1.0)):
            for action in gaze[side]:
                pose[action] = 0.5 * _soft(sign * look)
        pose = {action: _saturate(weight) for action, weight in pose.items() if weight > 1e-9}
        # The head turns, nods and leans; each swings both ways and starts near the still pose.
        swing = [2 * self._slow(4 + k, t, rate) - 1 for k, rate in enumerate((1.6, 2.4, 1.3))]
        pose |= dict(zip(HEAD, (9.0 * swing[0], 4.5 * swing[1], 3.5 * swing[2]), strict=True))
        return pose

    def _slow(self, channel: int, t: float, turns: float) -> float:
        """A smooth wander in [0, 1] with about ``turns`` swings over the clip."""
        phase = self._script["phases"][channel]
        waves = np.sin(2 * np.pi * turns * t + phase[0]) + 0.5 * np.sin(2 * np.pi * 1.7 * turns * t + phase[1])
        return float(0.5 + 0.5 * waves / 1.5)


def _hump(x: float) -> float:
    """A bump of width 2 and height 1, once differentiable everywhere."""
    return float(np.cos(np.pi / 2 * x) ** 2) if abs(x) < 1 else 0.0


def _saturate(weight: float) -> float:
    """Weights that add up beyond 1 end there, without a kink."""
    return weight if weight < 0.9 else 0.9 + 0.1 * float(np.tanh((weight - 0.9) / 0.1))


def _soft(x: float) -> float:
    """max(x, 0), rounded so that it stays once differentiable."""
    return float(x * x * (2 - x)) if 0 < x < 1 else float(max(x, 0.0))
