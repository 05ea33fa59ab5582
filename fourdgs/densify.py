"""Gaussians where they are needed, under a fixed budget: relocation of the dead, growth, and exploration noise.

After "3D Gaussian Splatting as Markov Chain Monte Carlo" (Kheradmand et al., NeurIPS 2024), written from the paper. It
runs alike on the CPU and on CUDA, where gsplat's own strategies need compiled kernels.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.optim import Optimizer

DEAD_OPACITY = 0.005
_MOST_COPIES = 16  # the alternating sum loses its digits in more copies, and nobody needs them


@functools.cache
def _factors(device: torch.device) -> Tensor:
    """Row n - 1: the factors of o', o'^2, ... for n copies; the inner sums of eq. 9 are sum_i C(i-1, k) = C(n, k+1)."""
    rows = [
        [math.comb(n, k + 1) * (-1) ** k / math.sqrt(k + 1) for k in range(_MOST_COPIES)]
        for n in range(1, _MOST_COPIES + 1)
    ]
    return torch.tensor(rows, dtype=torch.float64, device=device)


def split_copies(opacity: Tensor, scale: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity and scale that ``copies`` coincident Gaussians need to look like the one they replace.

    Eq. 9 of the paper: ``o' = 1 - (1 - o)^(1/n)`` and ``s' = s o / sum_i sum_k C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1)``.

    Args:
        opacity: [M] in (0, 1).
        scale: [M, 3] standard deviations.
        copies: [M] integers >= 1, the number of Gaussians afterwards.

    Returns:
        opacity [M] and scale [M, 3] of each copy.
    """
    copies = copies.clamp(1, _MOST_COPIES)
    # With every o' small the sum is o' n; all is done in float64, for the terms alternate.
    new = 1 - (1 - opacity.double()) ** (1 / copies.double())
    powers = new[:, None] ** torch.arange(1, _MOST_COPIES + 1, device=new.device)
    total = (_factors(new.device)[copies.long() - 1] * powers).sum(-1)
    ratio = (opacity.double() / total).to(scale.dtype)
    return new.to(opacity.dtype), scale * ratio[:, None]


class Budget:
    """Keeps at most ``most`` Gaussians, and puts them where opacity says that they matter.

    Args:
        parameters: the trained tensors by gsplat key, each ``[N, ...]``; replaced in place when N changes.
        optimisers: one optimiser per key, with that key's tensor as its only parameter.
        generator: the run's random numbers.
        carried: tensors ``[N, ...]`` that are not trained and go where their Gaussians go; rows are written in place,
            and the tensors replaced in this dict when N changes.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        optimisers: dict[str, Optimizer],
        generator: torch.Generator,
        most: int,
        growth: float = 0.1,
        carried: dict[str, Tensor] | None = None,
    ):
        self.carried = {} if carried is None else carried
        self.parameters, self.optimisers, self.generator = parameters, optimisers, generator
        self.most, self.growth = most, growth

    @torch.no_grad()
    def refine(self, fixed: Tensor | None = None) -> int:
        """Move dead Gaussians onto live ones and grow towards the budget; the number of Gaussians afterwards.

        Args:
            fixed: [N] bool, Gaussians that neither go elsewhere nor are copied.
        """
        opacity = self._weights(fixed)
        dead = opacity <= DEAD_OPACITY
        dead = torch.nonzero(dead if fixed is None else dead & ~fixed).flatten()
        if not (opacity > DEAD_OPACITY).any():  # nothing is left to copy; let the optimiser revive what it can
            return len(opacity)
        if len(dead):
            source = self._sample(opacity, len(dead), without=dead)
            self._copy(source, dead)
        count = len(opacity)
        extra = min(self.most, math.ceil(count * (1 + self.growth))) - count
        if extra > 0:
            self._append(self._sample(self._weights(fixed), extra))
        return len(self.parameters["opacities"])

    @torch.no_grad()
    def explore(self, rate: float) -> None:
        """Noise on the means, shaped by each Gaussian's covariance and strongest where opacity is low (eq. 8).

        Args:
            rate: the step in world units, the learning rate of the means times a constant.
        """
        means, scales = self.parameters["means"], self.parameters["scales"].exp()
        faint = torch.sigmoid(-100 * (self.parameters["opacities"].sigmoid() - DEAD_OPACITY))
        noise = torch.randn(means.shape, generator=self.generator, device=means.device)
        rotation = rotation_matrices(self.parameters["quats"])  # [N, 3, 3]
        local = torch.einsum("nji,nj->ni", rotation, noise) * scales.square()
        means += rate * faint[:, None] * torch.einsum("nij,nj->ni", rotation, local)

    def _weights(self, fixed: Tensor | None) -> Tensor:
        opacity = self.parameters["opacities"].sigmoid()
        return opacity if fixed is None else opacity.masked_fill(fixed, 0)

    def _sample(self, opacity: Tensor, count: int, without: Tensor | None = None) -> Tensor:
        weight = opacity.clone()
        if without is not None:
            weight[without] = 0
        return torch.multinomial(weight, count, replacement=True, generator=self.generator)

    def _share(self, source: Tensor) -> None:
        """Divide opacity and scale of every sampled Gaussian among itself and its copies."""
        copies = torch.bincount(source, minlength=len(self.parameters["opacities"])) + 1
        chosen = torch.nonzero(copies > 1).flatten()
        opacity, scale = split_copies(
            self.parameters["opacities"][chosen].sigmoid(), self.parameters["scales"][chosen].exp(), copies[chosen]
        )
        self.parameters["opacities"][chosen] = torch.logit(opacity.clamp(DEAD_OPACITY, 1 - 1e-6))
        self.parameters["scales"][chosen] = scale.log()
        for key in self.parameters:
            for value in self._moments(key):
                value[chosen] = 0

    def _copy(self, source: Tensor, target: Tensor) -> None:
        self._share(source)
        for key, parameter in self.parameters.items():
            parameter[target] = parameter[source]
            for value in self._moments(key):
                value[target] = 0
        for value in self.carried.values():
            value[target] = value[source]

    def _append(self, source: Tensor) -> None:
        self._share(source)
        for key in list(self.parameters):
            optimiser = self.optimisers[key]
            old = self.parameters[key]
            new = torch.nn.Parameter(torch.cat([old, old[source]]))
            state = optimiser.state.pop(old, None)
            if state is not None:
                for name, value in state.items():
                    if value.shape == old.shape:
                        state[name] = torch.cat([value, torch.zeros_like(value[source])])
                optimiser.state[new] = state
            optimiser.param_groups[0]["params"] = [new]
            self.parameters[key] = new
        for key, value in self.carried.items():
            self.carried[key] = torch.cat([value, value[source]])

    def _moments(self, key: str) -> list[Tensor]:
        parameter = self.parameters[key]
        state = self.optimisers[key].state.get(parameter, {})
        return [value for value in state.values() if torch.is_tensor(value) and value.shape == parameter.shape]


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4] of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
