"""Checks of the Triton kernels against torch, for tensors of a device; in Triton's interpreter they run on the CPU."""

from __future__ import annotations

import torch

from fourdgs.cuda.adam import adam_steps
from fourdgs.cuda.hexplane import fused_features
from fourdgs.cuda.photometric import Photometric
from fourdgs.hexplane import sampled_features
from fourdgs.raster.ssim import _plain


def close(a: torch.Tensor, b: torch.Tensor, within: float) -> None:
    error = float((a - b).detach().norm() / b.detach().norm().clamp(min=1e-12))
    assert error < within, error


def check_photometric(device: str, height: int, width: int) -> None:
    """The loss and its gradient, of rows of a store in any order and one twice."""
    random = torch.Generator().manual_seed(height)
    store = (torch.rand(5, height, width, 3, generator=random) * 255).to(torch.uint8).to(device)
    rows = torch.tensor([3, 0, 3], device=device)
    truth = store[rows].float() / 255
    noise = torch.rand(truth.shape, generator=random).to(device)
    rendered = (truth + 0.3 * (noise - 0.5)).requires_grad_()
    with torch.no_grad():
        rendered[0, : height // 2] = truth[0, : height // 2]  # where |a - b| has no slope
    for weight in (0.0, 0.2, 1.0):
        plain = (1 - weight) * (rendered - truth).abs().mean() + weight * (1 - _plain(rendered, truth))
        fused = Photometric.apply(rendered, store, rows, weight)
        close(fused, plain, 1e-5)
        close(*(torch.autograd.grad(1.7 * value, rendered)[0] for value in (fused, plain)), 1e-4)


def check_features(device: str, count: int, channels: int) -> None:
    """HexPlane features and their gradients, of places and times inside, on the border and outside."""
    random = torch.Generator().manual_seed(count)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random).to(device).requires_grad_()

    space = [some(3, size, size, channels) for size in (8, 13)]
    time = [some(3, 5, size, channels) for size in (8, 13)]
    place = (2.4 * some(count, 3) - 1.2).detach()
    times = torch.tensor([0.0, 0.33, 1.0, 0.9], device=device)
    fused, plain = (form(space, time, place, times) for form in (fused_features, sampled_features))
    close(fused, plain, 1e-5)
    v = some(*plain.shape).detach()
    pairs = [torch.autograd.grad((value * v).sum(), [*space, *time]) for value in (fused, plain)]
    for a, b in zip(*pairs, strict=True):
        close(a, b, 1e-4)


def check_adam(device: str) -> None:
    """Steps of two optimisers with rates of their own, against torch's, and a tensor that has no gradient."""
    start = [torch.randn(size, 3, device=device) for size in (50, 3000)]
    both = []
    for _ in range(2):
        values = [torch.nn.Parameter(value.clone()) for value in [*start, start[0]]]
        both.append([torch.optim.Adam([value], lr=0.01 * (k + 1), eps=1e-15) for k, value in enumerate(values)])
    for _ in range(20):
        slopes = [torch.randn_like(value) for value in start]
        for optimisers in both:
            for optimiser, slope in zip(optimisers, slopes, strict=False):
                optimiser.param_groups[0]["params"][0].grad = slope.clone()
        for optimiser in both[0]:
            optimiser.step()
        adam_steps(both[1])
    for ours, torchs in zip(both[1], both[0], strict=True):
        a, b = ours.param_groups[0]["params"][0], torchs.param_groups[0]["params"][0]
        close(a, b, 1e-5)
        for key, value in torchs.state[b].items():
            close(ours.state[a][key].float().cpu(), value.float().cpu(), 1e-5)
        assert all(parameter.grad is None for parameter in ours.param_groups[0]["params"])


def check(device: str) -> None:
    """All of them."""
    for size in ((11, 11), (37, 53), (16, 200)):
        check_photometric(device, *size)
    for count, channels in ((1, 16), (150, 16), (64, 4)):
        check_features(device, count, channels)
    check_adam(device)


if __name__ == "__main__":
    check("cpu")
