"""What a training run is told: frozen, made of JSON values, checked when made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import InputError

_FIELD = ("lr_planes", "lr_mlp", "lr_motion")
_STEPS = ("iterations", "refine_every", "evaluate_every", "checkpoint_every")  # counted in steps


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run; the same object serves notebooks, papermill and ``run.json``.

    Raises:
        InputError: a value of the wrong type or out of range, naming the field.
    """

    motion: str = "static"  # static | deform | velocity | basis | bones | rig | auto (by cameras and times)
    iterations: int = 3000  # training steps, the warm-up included
    warmup: float = 0.2  # share of the iterations in which a moving model stays static (4DGaussians' coarse stage)
    batch: int = 1  # cameras a step
    sampling: str = "uniform"  # uniform over frames | balanced over sources | balanced over camera | time
    canonical: str = "all"  # whose frames teach the scene without a time: all | stills (those with a time: motion only)
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)  # behind frames with alpha, and behind the model
    init: str = "auto"  # auto | surface | hull | frusta | box
    gaussians: int = 4000  # the budget
    initial: float = 0.5  # share of the budget at the start
    sh_degree: int = 0  # 0 to 3; -1: by the number of cameras
    isotropic: bool = False  # round Gaussians
    drop: float = 0.0  # share of the Gaussians left out of a step, growing up to this (DropGaussian)
    random_background: bool = False  # a new one at each step behind frames with alpha
    source_look: str = "none"  # learned for each source, dropped at test: none | colour | + background: flat | smooth
    pose_prior_deg: float = 0.0  # poses of cameras are learned, within about so much; 0: fixed
    covisibility: float = 0.0  # how much less pixels count that show what no other camera sees
    patience: int = 0  # looks without a better validation PSNR before the training ends early; 0: never
    ssim_weight: float = 0.2
    lr_means: float = 4e-4  # times the scene's radius; decays to a hundredth
    lr_scales: float = 1e-2
    lr_quats: float = 2e-3
    lr_opacities: float = 5e-2
    lr_sh: float = 1e-2  # degree 0; the higher degrees learn at a twentieth
    lr_planes: float = 2e-3  # the field's planes; decays to a tenth
    lr_mlp: float = 2e-4  # the field's decoder; decays to a tenth
    lr_motion: float = 1.0  # times the own rates of velocity and basis, which decay to a tenth
    duration: float = 0.15  # velocity: how long Gaussians last at first, of the clip; 0: always
    trajectories: int = 12  # basis: shared ones
    bones: int = 3  # bones: rigid parts
    opacity_penalty: float = 0.001  # mean opacity, and
    scale_penalty: float = 0.001  # mean scale over the scene's radius: together they let unneeded Gaussians die
    motion_penalty: float = 0.01  # times the motion model's own regularisation
    rest_penalty: float = 0.0  # mean distance that Gaussians are moved by, over the radius: what need not move stays
    rig_penalty: float = 0.1  # rig: Gaussians out of its surface's plane, or over what goes elsewhere (lips)
    noise: float = 0.0  # exploration, times the learning rate of the means; no help from a visual hull
    refine_every: int = 100
    refine_until: float = 0.7  # share of the iterations
    evaluate_every: int = 0  # steps between looks at train and held-out PSNR; 0: never
    checkpoint_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _checked(field.name, field.type, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        _one_of("sampling", self.sampling, ("uniform", "balanced", "camera", "time"))
        _one_of("canonical", self.canonical, ("all", "stills"))
        _one_of("source_look", self.source_look, ("none", "colour", "flat", "smooth"))
        _one_of("init", self.init, ("auto", "surface", "hull", "frusta", "box"))
        _one_of("motion", self.motion, ("static", "deform", "velocity", "basis", "bones", "rig", "auto"))
        for name, low, high in (
            ("iterations", 1, None), ("warmup", 0, 1), ("batch", 1, None), ("gaussians", 4, None), ("initial", 0, 1),
            ("sh_degree", -1, 3), ("ssim_weight", 0, 1), ("refine_every", 1, None), ("refine_until", 0, 1),
            ("evaluate_every", 0, None), ("checkpoint_every", 1, None), ("lr_means", 0, None), ("lr_scales", 0, None),
            ("lr_quats", 0, None), ("lr_opacities", 0, None), ("lr_sh", 0, None), ("lr_planes", 0, None),
            ("lr_mlp", 0, None), ("opacity_penalty", 0, None), ("scale_penalty", 0, None),
            ("motion_penalty", 0, None), ("noise", 0, None), ("lr_motion", 0, None), ("duration", 0, None),
            ("rest_penalty", 0, None), ("rig_penalty", 0, None), ("trajectories", 1, None), ("bones", 1, None),
            ("drop", 0, 0.9), ("pose_prior_deg", 0, None), ("covisibility", 0, 1), ("patience", 0, None),
        ):  # fmt: skip
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise InputError(f"{value!r} is out of range", field=name, remedy=f"give a value {bounds}")

    def batched(self, batch: int) -> TrainConfig:
        """A config that sees as many frames with ``batch`` cameras a step: fewer steps, each with higher rates.

        The rates of the Gaussians grow with the batch to the power of 0.75, those of a motion's field to that of
        0.25: of the powers tried these came nearest to one camera a step (``benchmarks/README.md`` has the figures;
        the square root, as theory has it for Adam, Malladi et al., NeurIPS 2022, loses 0.2 to 0.3 dB). Penalties and
        shares stay.
        """
        ratio = batch / self.batch
        steps = {name: max(1, round(getattr(self, name) / ratio)) for name in _STEPS if getattr(self, name)}
        names = [field.name for field in fields(self) if field.name.startswith("lr_")]
        rates = {name: getattr(self, name) * ratio ** (0.25 if name in _FIELD else 0.75) for name in names}
        return replace(self, batch=batch, **steps, **rates)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self) | {"background": list(self.background)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainConfig:
        """The config that `to_dict` gave.

        Raises:
            InputError: an unknown setting.
        """
        known = [field.name for field in fields(TrainConfig)]
        for name in values:
            if name not in known:
                raise InputError("is no setting of a training", field=str(name), remedy=f"known: {', '.join(known)}")
        return TrainConfig(**values)


def _checked(name: str, kind: str, value: Any) -> Any:
    """The value in its field's type; ints pass as floats, bools as neither."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "int" and number and value == int(value):
        return int(value)
    if kind == "float" and number:
        return float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind.startswith("tuple") and isinstance(value, list | tuple) and len(value) == 3:
        return tuple(_checked(name, "float", part) for part in value)
    raise InputError(f"{value!r} is not a {kind}", field=name, remedy="see TrainConfig")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{value!r} is unknown", field=name, remedy=f"use {', '.join(known)}")
