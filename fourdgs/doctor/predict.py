"""The held-out PSNR to expect of a capture, and what each fault takes from it.

Errors of different origin add up as mean squared errors, so that beside a large one a small one hardly counts. Each
origin is a power law in what `facts` measures, with coefficients fitted to trainings of small synthetic captures of
which every fault is known (``benchmarks/doctor.py``, which also says how far off it is on captures that it has not
seen). The level is that of a bust over white at 96 pixels with the default settings; on other scenes the losses mean
more than the level.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np

from .facts import Asked, Facts, measure_facts
from .survey import Survey

COEFFICIENTS = {
    # name: (start and prior mean, prior standard deviation); a "log" is a natural logarithm.
    "log base": (-8.0, 1.0),  # what even a dense clean capture leaves
    "log views": (-7.0, 1.0), "views power": (3.0, 0.5),  # of the angle to the nearest views, in units of 20 degrees
    "log poses": (-6.5, 1.0), "poses power": (1.5, 0.5),  # of thumbnail pixels
    "log dominance": (-7.0, 2.0),
    "log background": (0.0, 1.0), "log background power": (0.0, 0.7),  # of the share of frames that are wrong, less 1
    "log color": (0.0, 1.0), "log color power": (-0.7, 0.7),
    "leak": (-2.0, 1.0),  # logit of how much frames of the other kind (timed, still) count
    "log mask": (-1.0, 1.5), "log mask power": (-2.0, 1.5),
    "log unseen": (-8.0, 1.0),  # the still scene, where no training frame shows it
    "log confounded still": (-8.0, 1.5), "log confounded moving": (-8.0, 1.5),
    "log motion": (0.0, 1.0), "log patience": (-2.5, 1.0),  # the time over which motion is forgotten
}  # fmt: skip

USUAL_MOTION = 7e-4
"""Stands for a motion that no fixed camera lets one measure: the mean over the talking avatars of the benchmark."""

COMPONENTS = {
    "axis_convention": "poses", "poses_off": "poses", "no_common_point": "poses",
    "camera_dominates": "balance", "source_dominates": "balance",
    "camera_time_confounded": "confounded", "still_frames_timed": "confounded",
    "sources_differ_background": "background", "sources_differ_color": "color",
    "mask_missing": "background", "mask_inverted": "mask", "mask_wrong": "mask",
    "too_few_cameras": "views", "time_gap": "motion", "no_multiview_signal": "motion", "one_view_per_time": "motion",
}  # fmt: skip
"""Which origin of error each finding is about; findings that are not here have no predicted loss."""


def parts(facts: Facts, values: dict[str, float]) -> dict[str, dict[str, float]]:
    """Mean squared error of the held-out frames, by kind (still, moving) and origin."""
    return {
        kind: _parts(facts, getattr(facts, kind), kind, values)
        for kind in ("still", "moving")
        if getattr(facts, kind).frames
    }


def _parts(facts: Facts, asked: Asked, kind: str, values: dict[str, float]) -> dict[str, float]:
    leak = 1 / (1 + math.exp(-values["leak"]))
    like = facts.timed == (kind == "moving")
    # Frames of the asked kind teach most; where there are none, the others are all there is.
    share = facts.weight * np.where(like, 1.0, leak)
    share = share / share.sum()
    found = {
        "base": math.exp(values["log base"]),
        "views": math.exp(values["log views"]) * (asked.angle_deg / 20) ** values["views power"],
        "poses": math.exp(values["log poses"]) * facts.pose_px ** values["poses power"],
        "balance": math.exp(values["log dominance"]) * facts.dominance,
    }
    for name in ("background", "color", "mask"):
        # A power mean: a minority is mostly outvoted, and one wrong frame says little about what many are a bit off.
        power = 1 + math.exp(values[f"log {name} power"])
        mean = float((share * getattr(facts, name) ** (1 / power)).sum()) ** power
        found[name] = math.exp(values[f"log {name}"]) * mean
    found["confounded"] = math.exp(values[f"log confounded {kind}"]) * facts.confounded
    if kind == "still":
        found["unseen"] = math.exp(values["log unseen"]) * float(not (~facts.timed).any() and not facts.confounded)
    else:
        motion = USUAL_MOTION if math.isnan(asked.motion_mse) else asked.motion_mse
        seen = min(max((asked.views - 1) / 2, 0.0), 1.0) * math.exp(-asked.gap / math.exp(values["log patience"]))
        found["motion"] = math.exp(values["log motion"]) * motion * (1 - seen)
    return found


def psnr_of(facts: Facts, values: dict[str, float]) -> dict[str, float]:
    """PSNR by kind (still, moving, and both weighted by their frames), dB."""
    found = parts(facts, values)
    levels = {kind: -10 * math.log10(sum(part.values())) for kind, part in found.items()}
    count = {kind: getattr(facts, kind).frames for kind in levels}
    return levels | {"both": sum(levels[kind] * count[kind] for kind in levels) / max(sum(count.values()), 1)}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What to expect of a training.

    Attributes:
        facts: what it rests on. psnr_db: mean over all held-out frames; still_db, moving_db: over those without and
            with a time, NaN where there are none. uncertainty_db: one standard deviation of ``psnr_db``.
    """

    facts: Facts
    psnr_db: float
    still_db: float
    moving_db: float
    uncertainty_db: float

    def loss_db(self, code: str) -> tuple[float, float]:
        """What the finding takes from the mean PSNR, given all else, and its standard deviation, dB.

        NaN twice where it is not among `COMPONENTS`.
        """
        if code not in COMPONENTS:
            return math.nan, math.nan
        cured = _cured(self.facts, COMPONENTS[code])
        gains = [psnr_of(cured, v)["both"] - psnr_of(self.facts, v)["both"] for v in _fitted()["samples"]]
        gain = psnr_of(cured, _fitted()["values"])["both"] - self.psnr_db
        return max(gain, 0.0), float(np.std(gains))

    def cured(self, codes: list[str]) -> Prediction:
        """What to expect once these findings are dealt with."""
        facts = self.facts
        for name in dict.fromkeys(COMPONENTS[code] for code in codes if code in COMPONENTS):
            facts = _cured(facts, name)
        return _predict(facts)

    @property
    def strange(self) -> list[str]:
        """In what the capture is unlike those that the predictor was fitted to."""
        seen = _fitted()["reach"]
        found = [
            f"{name} {value:.2g}, fitted up to {seen[name]:.2g}"
            for name, value in self.facts.reach().items()
            if value > seen[name]
        ]
        if not self.facts.cutouts:
            found.append("no frame is cut out of its background, as all scenes were that it was fitted to")
        return found

    def sentence(self) -> str:
        """The figures, in words."""
        kinds = [("still frames", self.still_db), ("frames at a time", self.moving_db)]
        kinds = [f"{level:.0f} dB on {name}" for name, level in kinds if not math.isnan(level)]
        each = f" ({', '.join(kinds)})" if len(kinds) > 1 else ""
        text = f"Expected held-out PSNR: about {self.psnr_db:.0f} dB{each}, give or take {self.uncertainty_db:.0f}."
        if self.strange:
            text += f" That is an extrapolation: {'; '.join(self.strange)}."
        return text


def predict(survey: Survey) -> Prediction:
    """The held-out PSNR to expect; see the module."""
    return _predict(measure_facts(survey))


def _predict(facts: Facts) -> Prediction:
    fitted = _fitted()
    levels = psnr_of(facts, fitted["values"])
    spread = np.std([psnr_of(facts, values)["both"] for values in fitted["samples"]])
    uncertainty = math.hypot(fitted["error_db"], float(spread))
    kinds = (levels.get("still", math.nan), levels.get("moving", math.nan))
    found = Prediction(facts, levels["both"], *kinds, uncertainty)
    # Nothing was measured out there: twice the error, not as a statistic but as a warning.
    return replace(found, uncertainty_db=2 * uncertainty) if found.strange else found


def _cured(facts: Facts, component: str) -> Facts:
    """The facts as they would be without one origin of error."""
    if component in ("background", "color", "mask"):
        return facts.without(component)
    if component == "balance":
        return facts.balanced()
    if component == "poses":
        return replace(facts, pose_px=0.0)
    if component == "confounded":
        return replace(facts, confounded=0.0, timed=facts.timed & (facts.confounded < 1))
    if component == "views":  # as many as a published rule of thumb asks for: one every 15 degrees
        near = {name: replace(getattr(facts, name), angle_deg=min(getattr(facts, name).angle_deg, 12.5))
                for name in ("still", "moving")}  # fmt: skip
        return replace(facts, **near)
    return replace(facts, moving=replace(facts.moving, gap=0.0, views=max(facts.moving.views, 3.0)))


@functools.lru_cache(maxsize=1)
def _fitted() -> dict:
    """The coefficients, some samples of them, and the error that they leave, as ``benchmarks/doctor.py fit`` wrote."""
    text = resources.files(__package__).joinpath("predictor.json").read_text(encoding="utf-8")
    content = json.loads(text)
    names = list(COEFFICIENTS)
    samples = [dict(zip(names, sample, strict=True)) for sample in content["samples"]]
    return {**content, "samples": samples}
