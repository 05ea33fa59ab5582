"""Motion models: Gaussians at given times. Each is pure, and the identity at initialisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from .cuda.available import fused
from .gaussians import Gaussians
from .hexplane import hexplane_features

if TYPE_CHECKING:
    from .config import TrainConfig


class Motion(nn.Module):
    """The protocol: `at` gives the Gaussians at some times and never writes into those it is given."""

    name = "motion"
    TOLD: ClassVar[bool] = False
    """Whether it is told how things move: then there is nothing to wait for in a static warm-up."""

    @property
    def moves(self) -> bool:
        """Whether its Gaussians are ever elsewhere than in the canonical scene."""
        return True

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """Gaussians at ``times`` [T] in [0, 1], each tensor with a leading T; NaN asks for the canonical scene."""
        raise TypeError(f"{type(self).__name__} does not say how its Gaussians move")

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """The same as `at`, but tensors that no time changes may keep their shape [N, ...]: nothing is copied."""
        return self.at(gaussians, times)

    def begin(self, gaussians: Gaussians) -> None:
        """Get ready to be trained with these Gaussians, on their device; from then on it is the identity."""

    def per_gaussian(self) -> dict[str, nn.Parameter]:
        """The parameters whose first axis is N, by their name in ``named_parameters()``; see `PerGaussian`."""
        return {}

    def carried(self) -> dict[str, Tensor]:
        """The buffers whose first axis is N, by their name in ``named_buffers()``; see `PerGaussian`."""
        return {}

    def adopt(self, parameters: dict[str, nn.Parameter] | dict[str, Tensor]) -> None:
        """Put tensors in the place of those that `per_gaussian` and `carried` gave; N may be another."""

    def follow(self, gaussians: Gaussians) -> None:
        """Take note, now and then in a training, of where the Gaussians have gone."""

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """The first learning rate of each parameter, by name; in a training they decay to a tenth."""
        return {name: config.lr_motion for name, _ in self.named_parameters()}

    def opacity_penalty(self, gaussians: Gaussians, times: Tensor) -> Tensor | None:
        """The mean opacity at ``times`` [T], a scalar; None where times don't change it."""
        return None

    def displacement(self, gaussians: Gaussians, posed: Gaussians) -> Tensor | None:
        """How far it has learned to move the means of ``posed``, just made of ``gaussians``: [T, N, 3] world units.

        None where nothing has been learned that could drift.
        """
        return posed.means - gaussians.means if posed.means.dim() == 3 else None

    def regularisation(self) -> Tensor:
        """A penalty on the model's own parameters, a scalar; 0 where there is nothing to keep smooth."""
        return torch.zeros(())

    def settings(self) -> dict:
        """What the constructor needs to make this model again, as JSON values."""
        return {}


class Static(Motion):
    """Nothing moves: plain 3D Gaussian splatting, the baseline of every table."""

    name = "static"

    @property
    def moves(self) -> bool:
        """No, but where a subclass says so by an `at` of its own."""
        return type(self).at is not Static.at

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """The same Gaussians at every time, expanded without copying."""
        return gaussians.at_each(len(times))


class Deform(Motion):
    """Canonical Gaussians and a field over position and time that moves, turns and scales them.

    The field is a HexPlane (Cao and Johnson, CVPR 2023; the product of planes as in K-Planes, Fridovich-Keil et al.,
    CVPR 2023, eq. 1): features of the planes xy, xz, yz, xt, yt, zt are multiplied, the resolutions concatenated, and
    a small MLP decodes them into offsets of means, quaternions and log scales, as in 4D Gaussian Splatting
    (Wu et al., CVPR 2024, section 4.2). The last layer starts at zero, so that the model starts as the identity.
    """

    name = "deform"

    def __init__(
        self,
        centre: list[float],
        radius: float,
        resolutions: list[int] = (24, 48),
        time_resolution: int = 24,
        channels: int = 16,
        width: int = 64,
        seed: int = 0,
    ):
        super().__init__()
        self._settings = {
            "centre": [float(value) for value in centre],
            "radius": float(radius),
            "resolutions": list(resolutions),
            "time_resolution": time_resolution,
            "channels": channels,
            "width": width,
        }
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("centre", torch.tensor(self._settings["centre"]), persistent=False)
        self.radius = float(radius)
        # Planes of space start random, planes of time at one: at first every time looks the same.
        self.space = nn.ParameterList(
            nn.Parameter(0.1 + 0.4 * torch.rand(3, size, size, channels, generator=random)) for size in resolutions
        )
        self.time = nn.ParameterList(
            nn.Parameter(torch.ones(3, time_resolution, size, channels)) for size in resolutions
        )
        self.hidden = nn.Linear(channels * len(resolutions), width)
        self.head = nn.Linear(width, 10)
        with torch.no_grad():
            bound = self.hidden.in_features**-0.5
            self.hidden.weight.uniform_(-bound, bound, generator=random)
            self.hidden.bias.zero_()
            self.head.weight.zero_()
            self.head.bias.zero_()

    def settings(self) -> dict:
        """The constructor's arguments."""
        return dict(self._settings)

    def features(self, means: Tensor, times: Tensor) -> Tensor:
        """HexPlane features [T, N, channels * levels] at ``means`` [N, 3] (world) and ``times`` [T] in [0, 1]."""
        place = ((means - self.centre) / self.radius).clamp(-1, 1)  # [N, 3]
        return hexplane_features(list(self.space), list(self.time), place, times)

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """Gaussians at ``times`` [T]; where a time is NaN, the canonical ones."""
        return self.pose(gaussians, times).at_each(len(times))

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """The same; what is no place, rotation or size keeps its shape."""
        timed = ~torch.isnan(times)
        if times.device.type == "cpu" and not timed.any():  # on a GPU the question would stall the host
            return gaussians
        features = self.features(gaussians.means.detach(), torch.nan_to_num(times, nan=0.0))
        offset = self.head(torch.relu(self.hidden(features)))  # [T, N, 10]
        if offset.is_cuda and fused():
            from .cuda.pose import pose

            places = pose(gaussians.means, gaussians.quats, gaussians.scales, offset, timed, self.radius)
            return gaussians.replace(**dict(zip(("means", "quats", "scales"), places, strict=True)))
        offset = torch.where(timed[:, None, None], offset, 0.0)
        moved, turned, grown = offset.split((3, 4, 3), -1)
        return gaussians.replace(
            means=gaussians.means + self.radius * moved,
            quats=gaussians.quats + turned,
            scales=gaussians.scales + grown,
        )

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """One for the planes, one for what decodes them."""
        names = (name for name, _ in self.named_parameters())
        return {name: config.lr_planes if name.startswith(("space", "time")) else config.lr_mlp for name in names}

    def regularisation(self) -> Tensor:
        """Smoothness of the time planes (second difference) and their distance from one (K-Planes, section 4.3)."""
        if self.head.weight.is_cuda and fused():
            from .cuda.smoothness import time_plane_penalty

            return time_plane_penalty(list(self.time))
        total = self.head.weight.new_zeros(())
        for plane in self.time:
            if plane.shape[1] > 2:
                bend = plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]
                total = total + bend.square().mean()
            total = total + 0.01 * (plane - 1).abs().mean()
        return total
