"""Motion of few rigid parts: bones that pull on what is near them, for clips of one camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .basis import ORDER, bent, blended_twists, centres_of, moved_by, spline_shares
from .errors import InputError
from .gaussians import Gaussians
from .motion import Motion

if TYPE_CHECKING:
    from .config import TrainConfig

_SAMPLE = 4096  # Gaussians that the first centres and sizes are sought among
_BEND = 100.0  # of the second differences: one motion_penalty serves all models


class Bones(Motion):
    """K bones that move rigidly, and skinning weights that depend on the place alone.

    The weights are those of BANMo (Yang et al., CVPR 2022, eq. 7) without its residual: w_k(x) = softmax_k(b_k - |(x -
    c_k) / s_k|^2 / 2), with centres c_k, axis-aligned sizes s_k and biases b_k. So what no camera sees (the back of a
    head) goes with what it is part of, where free weights for each Gaussian would drift. Each bone has a twist about
    its first centre, a uniform cubic B-spline over the clip; the twists are blended, and their exponential moves and
    turns the Gaussian (see `Basis`). All start at zero, so that the model starts as the identity.

    Parameters: ``turns`` [P, K, 6], control points of the twists: a velocity in radii, then a rotation vector in
    radians. ``centres`` [K, 3] world units, ``sizes`` [K, 3] log of world units, ``bias`` [K].

    Args:
        bones: K.
        knots: P, control points over the clip; see `knots_for`.
        radius: of the scene, world units per unit of a velocity.
        seed: of the first centres, which `begin` spreads over the Gaussians (k-means).

    Raises:
        InputError: fewer control points than a cubic needs, or no bone.
    """

    name = "bones"

    def __init__(self, bones: int = 3, knots: int = 8, radius: float = 1.0, seed: int = 0):
        super().__init__()
        for field, value, least in (("knots", knots, ORDER), ("bones", bones, 1)):
            if value < least:
                raise InputError(f"is {value}", field=field, remedy=f"give at least {least}")
        self.radius, self.seed = float(radius), int(seed)
        self.turns = nn.Parameter(torch.zeros(int(knots), int(bones), 6))
        self.centres = nn.Parameter(torch.zeros(int(bones), 3))
        self.sizes = nn.Parameter(torch.zeros(int(bones), 3))
        self.bias = nn.Parameter(torch.zeros(int(bones)))
        self.register_buffer("pivots", torch.zeros(int(bones), 3))  # world units

    def settings(self) -> dict:
        """The constructor's arguments."""
        knots, bones, _ = self.turns.shape
        return {"bones": bones, "knots": knots, "radius": self.radius, "seed": self.seed}

    @torch.no_grad()
    def begin(self, gaussians: Gaussians) -> None:
        """Spread the bones over the Gaussians; from then on the model is the identity."""
        # On the CPU, so that every device starts alike.
        means = gaussians.means.detach().float().cpu()
        random = torch.Generator().manual_seed(self.seed)
        centres = centres_of(means, len(self.centres), random)
        some = means[torch.randperm(len(means), generator=random)[:_SAMPLE]]
        near = torch.cdist(some, centres).amin(1).square().mean().sqrt().clamp(min=1e-6 * self.radius)
        like = gaussians.means
        self.pivots.data = centres.to(like)
        self.centres.data = centres.clone().to(like)
        self.sizes.data = near.log().repeat(*centres.shape).to(like)
        self.bias.data = torch.zeros_like(self.bias).to(like)
        self.turns.data = torch.zeros_like(self.turns).to(like)

    def weights(self, places: Tensor) -> Tensor:
        """How much each bone pulls at ``places`` [N, 3], world units: [N, K], rows sum to 1."""
        apart = (places[:, None] - self.centres) * (-self.sizes).exp()  # [N, K, 3]
        return torch.softmax(self.bias - 0.5 * apart.square().sum(-1), dim=1)

    def at(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """Gaussians at ``times`` [T]; where a time is NaN, the canonical ones."""
        return self.pose(gaussians, times).at_each(len(times))

    def pose(self, gaussians: Gaussians, times: Tensor) -> Gaussians:
        """The same; what is no place and no rotation keeps its shape [N, ...]."""
        share = spline_shares(times, len(self.turns))  # [T, P]
        curves = torch.einsum("tp,pkd->tkd", share, self.turns)
        twists = blended_twists(
            self.weights(gaussians.means.detach()), curves, self.pivots, gaussians.means, self.radius
        )
        means, quats = moved_by(*twists, gaussians.means, gaussians.quats)
        return gaussians.replace(means=means, quats=quats)

    def learning_rates(self, config: TrainConfig) -> dict[str, float]:
        """As tried on the embedded avatar's clip; three times as fast costs 0.7 dB there, a third as fast 0.4."""
        rates = {"turns": 1e-3, "centres": 3e-4 * self.radius, "sizes": 1e-3, "bias": 1e-3}
        return {name: config.lr_motion * rate for name, rate in rates.items()}

    def regularisation(self) -> Tensor:
        """A hundred times the mean square of the second differences of the control points (radii and radians)."""
        return _BEND * bent(self.turns).square().mean()
