"""Motion of low freedom: a few trajectories that all Gaussians share, each in its own mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from .errors import InputError
from .gaussians import Gaussians
from .per_gaussian import PerGaussian

if TYPE_CHECKING:
    from .config import TrainConfig

ORDER = 4
"""Control points that a cubic B-spline needs, and that each of its times hears."""

MOST_KNOTS = 128

_SAMPLE = 4096  # Gaussians that the first centres are sought among
_ROUNDS = 10


class Basis(PerGaussian):
    """K shared trajectories with weights for each Gaussian: x_n(t) = x_n + sum_k w_nk b_k(t).

    The factorisation is DynMF's (Kratimenos et al., ECCV 2024); that of SE(3) motions, Shape of Motion's
    (Wang et al., 2024), which blends matrices where this blends twists and takes their exponential. The
    trajectories are uniform cubic B-splines over the clip, so that they are twice differentiable in time, and few
    frames decide over each of their control points. They start at zero, so that the model starts as the identity.

    With ``se3`` a trajectory is a twist (w, v) about the pivot p_k. At the Gaussian's mean x the blended twist is
    w = sum_k w_nk w_k and v = sum_k w_nk (v_k + w_k x (x - p_k)); its exponential moves the mean by V(w) v and turns
    the Gaussian by exp(w), with V the left Jacobian of SO(3). Spherical harmonics are not turned.

    Parameters: ``curves`` [P, K, 3], shared control points in radii; with ``se3`` [P, K, 6], then a rotation vector in
    radians. By Gaussian: ``weights`` [N, K], at the start a soft assignment to K places (rows sum to 1), later free.

    Args:
        count: N, for `load_state_dict`; before a training, `begin` sets it.
        trajectories: K.
        knots: P, control points over the clip; see `knots_for`.
        se3: whether trajectories turn, too.
        radius: of the scene, world units per unit of a trajectory.
        seed: of the K places.

    Raises:
        InputError: fewer control points than a cubic needs, or no trajectory.
    """

    name = "basis"
    ROWS: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(
        self,
        count: int = 0,
        trajectories: int = 12,
        knots: int = 8,
        se3: bool = False,
        radius: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        for field, value, least in (("knots", knots, ORDER), ("trajectories", trajectories, 1)):
            if value < least:
                raise InputError(f"is {value}", field=field, remedy=f"give at least {least}")
        self.trajectories, self.knots, self.se3 = int(trajectories), int(knots), bool(se3)
        self.radius, self.seed = float(radius), int(seed)
        self.curves = nn.Parameter(torch.zeros(self.knots, self.trajectories, 6 if self.se3 else 3))
        self.weights = nn.Parameter(torch.zeros(int(count), self.trajectories))
        self.register_buffer("pivots", torch.zeros(self.trajectories, 3))  # world units

    def settings(self) -> dict:
        """The constructor's arguments, N as it is now."""
        shape = {"trajectories": self.trajectories, "knots": self.knots, "se3": self.se3}
        return {"count": self.count} | shape | {"radius": self.radius, "seed": self.seed}

    @torch.no_grad()
    def _start(self, gaussians: Gaussians) -> dict[str, Tensor]:
        # On the CPU, so that every device starts alike.
        means = gaussians.means.detach().float().cpu()
        random = torch.Generator().manual_seed(self.seed)
        pivots = centres_of(means, self.trajectories, random)
        self.pivots = pivots.to(gaussians.means)
        self.curves = nn.Parameter(torch.zeros_like(self.curves).to(gaussians.means))
        return {"weights": _nearness(means, pivots).to(gaussians.means)}

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """What `at` gives; what is no place and no rotation keeps its shape [N, ...]."""
        self._check(gaussians)
        curves = self._curves(times)  # [T, K, 3 or 6]
        if not self.se3:
            return gaussians.replace(means=gaussians.means + self.radius * (self.weights @ curves))
        twists = blended_twists(self.weights, curves, self.pivots, gaussians.means, self.radius)
        means, quats = moved_by(*twists, gaussians.means, gaussians.quats)
        return gaussians.replace(means=means, quats=quats)

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """As tried on moving balls."""
        return {"curves": 3e-3 * config.lr_motion, "weights": 1e-2 * config.lr_motion}

    def _curves(self, times: Tensor) -> Tensor:
        """The trajectories at ``times`` [T]: [T, K, 3 or 6]; zero where there is no time."""
        return torch.einsum("tp,pkd->tkd", spline_shares(times, self.knots), self.curves)

    def regularisation(self) -> Tensor:
        """Mean over Gaussians and knots of the squared second difference of what the control points move them by.

        In squared radii (and radians): sum_kl <d_k, d_l> S_kl with the second differences d [P - 2, K, .] of the
        curves and S = W^T W / N. A penalty on the curves alone would only make them small and the weights large.
        """
        bend = bent(self.curves)
        alike = self.weights.T @ self.weights / max(self.count, 1)  # [K, K]
        return torch.einsum("pkd,kl,pld->", bend, alike, bend) / len(bend)


def knots_for(times: int) -> int:
    """How many control points suit so many distinct training times: an interpolating spline's, T + 2.

    On the embedded avatar's own performance (held-out times, error as a share of the motion's RMS) that is right from
    8 training times to 121, with the bend penalised, while fewer than two thirds of T cannot follow the lips: with 60
    times 0.009, against 0.40 for 8 control points. What keeps the freedom low is K and the penalty.
    """
    return min(max(times + 2, ORDER), MOST_KNOTS)


def spline_shares(times: Tensor, knots: int) -> Tensor:
    """Shares of ``knots`` control points in a uniform cubic B-spline over [0, 1] at ``times`` [T]: [T, knots].

    The cardinal B-spline at distance d: (4 - 6 d^2 + 3 d^3) / 6 up to 1, (2 - d)^3 / 6 up to 2 (de Boor, "A Practical
    Guide to Splines", 1978). Rows sum to 1, or are 0 where there is no time. Times outside [0, 1] count as its ends.
    """
    place = torch.nan_to_num(times, nan=0.0).clamp(0, 1) * (knots - ORDER + 1) + 1
    distance = (place[:, None] - torch.arange(knots, device=times.device, dtype=times.dtype)).abs()
    near = (4 - 6 * distance.square() + 3 * distance**3) / 6
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(torch.isnan(times)[:, None], 0.0, torch.where(distance < 1, near, far))


def bent(curves: Tensor) -> Tensor:
    """Second differences [P - 2, ...] of control points [P, ...]."""
    return curves[2:] - 2 * curves[1:-1] + curves[:-2]


def blended_twists(
    weights: Tensor, curves: Tensor, pivots: Tensor, means: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """Velocities (world units) and rotation vectors at places, both [T, N, 3]: twists about K pivots, blended.

    Args:
        weights: [N, K]. curves: [T, K, 6], velocities in radii and rotation vectors. pivots: [K, 3] world units.
        means: [N, 3] the places, world units.
    """
    origin = pivots.mean(0)  # near the scene, where cancellation costs no digits
    push, turn = radius * curves[..., :3], curves[..., 3:]
    push = push - torch.linalg.cross(turn, (pivots - origin).expand_as(turn))
    push, turn = weights @ push, weights @ turn  # [T, N, 3]
    return push + torch.linalg.cross(turn, (means - origin).expand_as(turn)), turn


def moved_by(push: Tensor, turn: Tensor, means: Tensor, quats: Tensor) -> tuple[Tensor, Tensor]:
    """Means [T, N, 3] and quaternions [T, N, 4] after the exponentials of twists [T, N, 3] about the means [N, 3]."""
    return means + _jacobian_times(turn, push), hamilton(rotation_quats(turn), quats)


def rotation_quats(turn: Tensor) -> Tensor:
    """Unit quaternions wxyz [..., 4] of rotation vectors [..., 3] (radians); smooth at zero, and exact there."""
    square = turn.square().sum(-1, keepdim=True) / 4  # of the half angle
    half, small = _root(square)
    ratio = torch.where(small, 1 - square / 6, half.sin() / half)  # sin(h) / h
    real = torch.where(small, 1 - square / 2 + square.square() / 24, half.cos())
    return torch.cat([real, 0.5 * ratio * turn], -1)


def hamilton(first: Tensor, second: Tensor) -> Tensor:
    """Products of quaternions wxyz [..., 4]: the rotation ``second``, then ``first``."""
    a, b = first[..., :1], first[..., 1:]
    c, d = second[..., :1], second[..., 1:]
    b, d = torch.broadcast_tensors(b, d)
    return torch.cat([a * c - (b * d).sum(-1, keepdim=True), a * d + c * b + torch.linalg.cross(b, d)], -1)


def _jacobian_times(turn: Tensor, push: Tensor) -> Tensor:
    """V(w) v of the exponential of SE(3), for w and v [..., 3].

    V = I + (1 - cos a) / a^2 [w] + (a - sin a) / a^3 [w]^2 with a = |w| (Murray, Li, Sastry, "A Mathematical
    Introduction to Robotic Manipulation", 1994, eq. 2.36).
    """
    square = turn.square().sum(-1, keepdim=True)
    angle, small = _root(square)
    once = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle.square())
    twice = torch.where(small, 1 / 6 - square / 120, (angle - angle.sin()) / angle**3)
    across = torch.linalg.cross(turn, push)
    return push + once * across + twice * torch.linalg.cross(turn, across)


def _root(square: Tensor) -> tuple[Tensor, Tensor]:
    """Square roots, and where they are so small that a series is better; there 1, which keeps gradients finite."""
    small = square < 1e-2 if square.dtype == torch.float32 else square < 1e-6
    return torch.where(small, 1.0, square).sqrt(), small


def centres_of(points: Tensor, count: int, random: torch.Generator) -> Tensor:
    """``count`` places [count, 3] among points [N, 3]: Lloyd's k-means of some of them (IEEE Trans. IT, 1982)."""
    if len(points) > _SAMPLE:
        points = points[torch.randperm(len(points), generator=random)[:_SAMPLE]]
    start = torch.randperm(len(points), generator=random)
    centres = points[start.repeat(-(-count // max(len(start), 1)))[:count]].clone()
    for _ in range(_ROUNDS):
        mine = torch.nn.functional.one_hot(torch.cdist(points, centres).argmin(1), count).to(points)  # [N, count]
        total = mine.sum(0)
        centres = torch.where(total[:, None] > 0, mine.T @ points / total.clamp(min=1)[:, None], centres)
    return centres


def _nearness(points: Tensor, centres: Tensor) -> Tensor:
    """Shares of the centres in each point, [N, K], that fall with distance over half the gap between centres."""
    square = torch.cdist(points, centres).square()
    width = square.amin(1).mean().clamp(min=1e-12)
    return torch.softmax(-0.5 * square / width, dim=1)
