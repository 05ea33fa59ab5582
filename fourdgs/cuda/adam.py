"""Adam's step for many optimisers, one launch a tensor that fills the GPU and nothing else on the host.

torch's fused step is written for the few large tensors of a network: Gaussians are many small ones, each with its own
rate, on which it runs two or three blocks, and its Python costs more than its kernel. The state is torch's own, so that
densification and checkpoints see no difference. Kingma and Ba, "Adam", ICLR 2015, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import triton
import triton.language as tl
from torch.optim import Adam

_BLOCK = 1024


@torch.no_grad()
def adam_steps(optimisers: Iterable[Adam]) -> None:
    """What ``optimiser.step()`` and ``zero_grad(set_to_none=True)`` do, for each; no weight decay, no AMSGrad."""
    work = []
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.numel():
                    work.append((parameter, group, _state(optimiser, parameter)))
    if not work:
        return
    torch._foreach_add_([state["step"] for _, _, state in work], 1)
    for parameter, group, state in work:
        count, (beta1, beta2) = parameter.numel(), group["betas"]
        _adam[(triton.cdiv(count, _BLOCK),)](
            parameter, parameter.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"], state["step"], count,
            float(group["lr"]), beta1, beta2, 1 - beta1, 1 - beta2, group["eps"], BLOCK=_BLOCK,
        )  # fmt: skip
        parameter.grad = None


def _state(optimiser: Adam, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    state = optimiser.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state


@triton.jit(do_not_specialize=["count", "rate", "beta1", "beta2", "rest1", "rest2", "eps"])
def _adam(
    parameter, gradient, mean, square, step, count, rate, beta1, beta2, rest1, rest2, eps, BLOCK: tl.constexpr
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < count
    g = tl.load(gradient + n, inside, 0.0)
    m = tl.load(mean + n, inside, 0.0)
    v = tl.load(square + n, inside, 0.0)
    # 1 - beta, rounded once: the difference of float32s is off by 3e-5 of itself for a beta of 0.999.
    m += rest1 * (g - m)
    v += rest2 * (g * g - v)
    t = tl.load(step)
    unbiased1 = 1 - tl.exp2(t * tl.log2(beta1))
    unbiased2 = 1 - tl.exp2(t * tl.log2(beta2))
    change = rate / unbiased1 * m / (tl.sqrt(v) / tl.sqrt(unbiased2) + eps)
    tl.store(parameter + n, tl.load(parameter + n, inside, 0.0) - change, inside)
    tl.store(mean + n, m, inside)
    tl.store(square + n, v, inside)
