"""Explicit motion: each Gaussian flies straight, and may be there for some of the time only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import InputError
from .gaussians import Gaussians
from .per_gaussian import PerGaussian

if TYPE_CHECKING:
    from .config import TrainConfig

FAINTEST = 1e-3
"""The least presence: below what a rasteriser draws (1/255), and above zero so that gradients stay finite."""

FIRST_DURATION = 0.12
"""Units of time, of Gaussians that are always there at first: how long they would last once they start to fade."""

_MOST_FADING = 1 - FAINTEST

ROUNDS = 4
"""Of matching points, for each width of the average."""


class Velocity(PerGaussian):
    """Gaussians that fly straight and fade in and out, after FreeTimeGS (Wang et al., CVPR 2025), its motion
    function and temporal opacity:

        mean(t) = mean + v (t - t0)
        opacity(t) = opacity * p(t),  p(t) = floor + (1 - floor) exp(-((t - t0) / duration)^2 / 2)

    The paper's temporal opacity is that with floor 0. The floor is the persistent part: at 1, where it starts, the
    Gaussian is always there, and what does not change needs no chain of Gaussians that take over from each other.
    Frames without a time see every Gaussian where it is at its own t0, fully present.

    Parameters, by Gaussian: ``velocity`` [N, 3] in radii per unit of time, ``moment`` [N] (t0, units of time),
    ``fading`` [N] (1 - floor, clamped to [0, 1 - FAINTEST]), ``span`` [N] (log of duration - shortest).

    Args:
        count: N, for `load_state_dict`; before a training, `begin` sets it.
        radius: of the scene, world units per unit of velocity.
        shortest: the least duration, units of time. About half the interval between training times, so that Gaussians
            cannot live at one training time only and leave a hole between two.
        duration: units of time. Where given, Gaussians start as the paper's do, faint away from their t0, and the model
            does not start as the identity. Better (+2 dB in a trial) where things turn back: a straight flight
            through the whole clip is then a bad place to start from.
        spread: the t0 start evenly at random within so much of the clip about its middle; 0: all in its middle.
        seed: of the random start.

    Raises:
        InputError: a radius or duration that is not positive, or a duration that is not above the shortest.
    """

    name = "velocity"
    ROWS: ClassVar[tuple[str, ...]] = ("velocity", "moment", "fading", "span")

    def __init__(
        self,
        count: int = 0,
        radius: float = 1.0,
        shortest: float = 0.02,
        duration: float | None = None,
        spread: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        self.radius, self.shortest, self.spread, self.seed = float(radius), float(shortest), float(spread), int(seed)
        self.duration = None if duration is None else float(duration)
        if not self.radius > 0 or not self.shortest > 0:
            field, value = ("shortest", self.shortest) if self.radius > 0 else ("radius", self.radius)
            raise InputError(f"is {value:g}", field=field, remedy="give a positive number")
        if self.duration is not None and not self.duration > self.shortest:
            remedy = "give more, or a smaller shortest"
            raise InputError(f"is {self.duration:g}, not above {self.shortest:g}", field="duration", remedy=remedy)
        for name, value in self._rows(int(count)).items():
            setattr(self, name, nn.Parameter(value))

    def settings(self) -> dict:
        """The constructor's arguments, N as it is now."""
        lives = {"shortest": self.shortest, "duration": self.duration, "spread": self.spread}
        return {"count": self.count, "radius": self.radius} | lives | {"seed": self.seed}

    def _rows(self, count: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        always = self.duration is None
        span = math.log(FIRST_DURATION if always else self.duration - self.shortest)
        return {
            "velocity": torch.zeros(count, 3),
            "moment": 0.5 + self.spread * (torch.rand(count, generator=random) - 0.5),
            "fading": torch.full((count,), 0.0 if always else _MOST_FADING),
            "span": torch.full((count,), span),
        }

    def _start(self, gaussians: Gaussians) -> dict[str, Tensor]:
        return {name: value.to(gaussians.means) for name, value in self._rows(len(gaussians)).items()}

    @torch.no_grad()
    def place(self, velocities: Tensor | None = None, times: Tensor | None = None) -> None:
        """Start, after `begin`, from what is known of the points that the Gaussians are made of.

        Args:
            velocities: [N, 3] world units per unit of time, e.g. from `initial_velocities`.
            times: [N] the t0, units of time: when the points were seen.
        """
        if velocities is not None:
            self.velocity.copy_(velocities / self.radius)
        if times is not None:
            self.moment.copy_(times)

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """What `at` gives; what is no place and no opacity keeps its shape [N, ...]."""
        self._check(gaussians)
        since = self._since(times)
        means = gaussians.means + self.radius * self.velocity * since[..., None]
        return gaussians.replace(means=means, opacities=times_share(gaussians.opacities, self._presence(since)))

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """As tried on a ball that turns back; presence is more delicate where it starts faint."""
        fading = 5e-2 if self.duration is None else 1e-3
        rates = {"velocity": 3e-2, "moment": 1e-2, "span": 2e-2, "fading": fading}
        return {name: config.lr_motion * rate for name, rate in rates.items()}

    def presence(self, times: Tensor) -> Tensor:
        """p(t) at ``times`` [T]: [T, N] in [FAINTEST, 1]; 1 where a time is NaN."""
        return self._presence(self._since(times))

    def _since(self, times: Tensor) -> Tensor:
        """Time since each Gaussian's own, [T, N]; 0 where there is no time, which makes it canonical exactly."""
        timed = ~torch.isnan(times)[:, None]
        return torch.where(timed, torch.nan_to_num(times, nan=0.0)[:, None] - self.moment, 0.0)

    def _presence(self, since: Tensor) -> Tensor:
        duration = self.shortest + self.span.exp()
        # As 1 + fading (exp(-z) - 1), and not as floor + ...: then it is 1 to the last bit where it must be.
        return 1 + _bounded(self.fading, 0.0, _MOST_FADING) * torch.expm1(-0.5 * (since / duration).square())

    def opacity_penalty(self, gaussians: Gaussians, times: Tensor) -> Tensor:
        """The 4D regularisation of FreeTimeGS, a scalar: the mean over T and N of opacity * stop_gradient(p(t)).

        High opacities early in a training keep gradients from what lies behind; the presence is held, or shorter lives
        would be the cheaper way to please it.
        """
        return (gaussians.opacities.sigmoid() * self.presence(times).detach()).mean()

    def regularisation(self) -> Tensor:
        """A tenth of the mean speed (sum of |components|, radii per unit of time) and of the mean fading.

        What need not move or fade to explain the pictures stays and lasts; at times and from sides that no camera
        sees, that is the better guess. The tenth lets one weight serve all motion models.
        """
        if not self.count:
            return self.velocity.new_zeros(())
        return 0.1 * (self.velocity.abs().sum(-1) + _bounded(self.fading, 0.0, _MOST_FADING)).mean()


def annealed(share: float, first: float, last: float) -> float:
    """A learning rate at a share of the training: first^(1 - share) * last^share (as FreeTimeGS).

    For velocities it starts high, while Gaussians look for their way, and ends low, while they settle.
    """
    return first ** (1 - share) * last**share


def times_share(logits: Tensor, share: Tensor) -> Tensor:
    """The logit of ``sigmoid(logits) * share``, of any shapes that broadcast; exactly ``logits`` where the share is 1.

    From s = sigmoid(o): log(s share / (1 - s share)) = o + log(share) - log(1 + exp(o) (1 - share)).
    """
    # exp(80) is still a float32, and no opacity has such a logit.
    return logits + share.log() - torch.log1p(logits.clamp(max=80.0).exp() * (1 - share))


class _Bounded(torch.autograd.Function):
    """Clamp, with the gradient of one that a step against it leads back inside."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = low, high
        return value.clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor):
        (value,) = ctx.saved_tensors
        low, high = ctx.bounds
        stuck = ((value <= low) & (v > 0)) | ((value >= high) & (v < 0))
        return torch.where(stuck, 0.0, v), None, None


def _bounded(value: Tensor, low: float, high: float) -> Tensor:
    """``value.clamp(low, high)`` that is not dead at its bounds: a gradient that leads inside passes."""
    return _Bounded.apply(value, low, high)


def initial_velocities(
    points: Sequence[np.ndarray],
    times: Sequence[float],
    colors: Sequence[np.ndarray] | None = None,
    *,
    color_distance: float = 1.0,
    smooth: Sequence[int] = (256, 64),
) -> list[np.ndarray]:
    """Velocities of points from where their neighbours are a moment later (FreeTimeGS takes the nearest).

    The nearest neighbour of a surface's point is mostly the point next to it, not itself. So the shift is averaged,
    applied, and matched again: first over all points, then over ever fewer neighbours, a rigid motion before its
    bends. Colours tell how far a surface has slid along itself, which places alone cannot.

    Args:
        points: for each of T >= 2 times, rising, points [M_t, 3], world units.
        times: [T] units of time.
        colors: of the points, [M_t, 3] in [0, 1].
        color_distance: what a difference of 1 in a colour counts for, in RMS distances of the points from their mean.
        smooth: how many neighbours each round averages over; at most all there are.

    Returns:
        for each time [M_t, 3] float32, world units per unit of time; at the last time, looking back.

    Raises:
        InputError: fewer than two times, times that do not rise, a time without points, or colours of other counts.
    """
    clouds = [np.asarray(cloud, dtype=np.float64).reshape(-1, 3) for cloud in points]
    paints = [np.zeros_like(cloud) for cloud in clouds] if colors is None else [np.asarray(c) for c in colors]
    counts = [len(cloud) for cloud in clouds]
    if len(clouds) < 2 or len(times) != len(clouds) or not (np.diff(times) > 0).all() or not all(counts):
        remedy = "give points for each of two or more rising times"
        raise InputError(f"{counts} points at the times {list(times)[:8]}", field="points", remedy=remedy)
    if [len(paint) for paint in paints] != counts:
        raise InputError("are not as many as the points", field="colors", remedy="give a colour to each point")
    scale = color_distance * float(np.sqrt(clouds[0].var(axis=0).sum()))
    velocities = []
    for index in range(len(clouds)):
        other = index + 1 if index + 1 < len(clouds) else index - 1
        shift = _shift(clouds[index], clouds[other], scale * paints[index], scale * paints[other], smooth)
        velocities.append((shift / (times[other] - times[index])).astype(np.float32))
    return velocities


def _shift(here: np.ndarray, there: np.ndarray, paint: np.ndarray, paint_there: np.ndarray, smooth) -> np.ndarray:
    """How far each of the points [M, 3] has moved until ``there`` [L, 3]; paints are colours as lengths."""
    own, target = cKDTree(here), cKDTree(np.concatenate([there, paint_there], axis=1))
    shift = np.zeros_like(here)
    for neighbours in (len(here), *smooth):
        everyone = neighbours >= len(here)
        near = None if everyone else own.query(here, k=max(int(neighbours), 2))[1]  # [M, neighbours]
        for _ in range(ROUNDS):
            _, match = target.query(np.concatenate([here + shift, paint], axis=1))
            step = there[match] - here
            shift = np.broadcast_to(step.mean(axis=0), here.shape) if everyone else step[near].mean(axis=1)
    return shift
