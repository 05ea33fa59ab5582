"""Gaussians left out at random, so that those behind them are trained as well.

With few cameras the Gaussians nearest to them explain every training picture and take all the gradient; what lies
behind is never seen, and the fit does not carry over to other views. DropGaussian (Park, Ryu and Kim, CVPR 2025)
leaves out each Gaussian with a probability that grows over the training, and makes up for it in the opacity of the
others. Nothing is left out at test.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import InputError
from .gaussians import Gaussians

GONE = -30.0
"""The logit of what is left out: an opacity of 1e-13, which no engine draws."""

_ROOM = 1e-2  # of 1 - opacity before scaling; what would come out above one stops about this short of it


def drop_rate(step: int, steps: int, most: float = 0.2) -> float:
    """The share that is left out at a step: ``most * step / steps`` (the paper's r_t = gamma t / t_total).

    Raises:
        InputError: ``most`` is not in [0, 1).
    """
    if not 0 <= most < 1:
        raise InputError(f"is {most}, must be at least 0 and below 1", field="most", remedy="0.1 to 0.3 is usual")
    return most * min(max(step / max(steps, 1), 0.0), 1.0)


def drop(gaussians: Gaussians, rate: float, generator: torch.Generator | None = None) -> Gaussians:
    """The Gaussians with each left out with probability ``rate``, the others' opacity divided by ``1 - rate``.

    None is taken away: those left out are transparent, and have no gradient in this step. At any leading times
    [T, N, ...] the same ones are left out. Nothing waits for a GPU.

    Args:
        rate: in [0, 1), on the host.
        generator: random numbers, on the Gaussians' device.

    Raises:
        InputError: a rate that cannot be.
    """
    if not 0 <= rate < 1:
        raise InputError(f"is {rate}, must be at least 0 and below 1", field="rate")
    if rate == 0:
        return gaussians
    logits = gaussians.opacities
    kept = torch.rand(len(gaussians), generator=generator, device=logits.device) >= rate  # [N]
    return gaussians.replace(opacities=torch.where(kept, scaled_logits(logits, 1 / (1 - rate)), GONE))


def scaled_logits(logits: Tensor, factor: float) -> Tensor:
    """The logits of ``factor`` times the opacities, for a factor of at least one; they keep a gradient everywhere.

    With o = 1 / (1 + exp(-l)) the odds of f o are f exp(l) / (1 - (f - 1) exp(l)). Where f o would reach one, the
    divisor stops at a hundredth: the logit goes on rising with a slope of one, where a clamped opacity would have none.
    """
    rest = 1 - (factor - 1) * logits.clamp(max=20.0).exp()
    return logits + math.log(factor) - rest.clamp(min=_ROOM).log()
