"""Checks of the Triton kernels against torch, for tensors of a device; in Triton's interpreter they run on the CPU."""

from __future__ import annotations

import torch

from fourdgs.cuda.adam import adam_steps
from fourdgs.cuda.hexplane import fused_features
from fourdgs.cuda.penalties import size_penalty
from fourdgs.cuda.photometric import Photometric
from fourdgs.cuda.pose import pose
from fourdgs.cuda.smoothness import time_plane_penalty
from fourdgs.hexplane import sampled_features
from fourdgs.raster.ssim import _plain


def close(a: torch.Tensor, b: torch.Tensor, within: float) -> None:
    error = float((a - b).detach().norm() / b.detach().norm().clamp(min=1e-12))
    assert error < within, error


def scattered(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, no two of them next to each other in memory."""
    return torch.stack([tensor, tensor], -1)[..., 0]


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


def check_features(device: str, count: int, channels: int, rows: tuple[int, int], times: list[float]) -> None:
    """HexPlane features and their gradients, of places and times inside, on the border and outside.

    Tensors that are not contiguous give the same.
    """
    random = torch.Generator().manual_seed(count)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random).to(device).requires_grad_()

    space = [some(3, size, size, channels) for size in (8, 13)]
    time = [some(3, many, size, channels) for many, size in zip(rows, (8, 13), strict=True)]
    place = (2.4 * some(count, 3) - 1.2).detach()
    times = torch.tensor(times, device=device)
    fused, plain = (form(space, time, place, times) for form in (fused_features, sampled_features))
    close(fused, plain, 1e-5)
    v = some(*plain.shape).detach()
    pairs = [torch.autograd.grad((value * v).sum(), [*space, *time]) for value in (fused, plain)]
    for a, b in zip(*pairs, strict=True):
        close(a, b, 1e-4)
    apart = [scattered(plane) for plane in (*space, *time, place, times)]
    close(fused_features(apart[:2], apart[2:4], *apart[4:]), plain, 1e-5)


def check_smoothness(device: str, *shapes: tuple[int, int, int, int]) -> None:
    """The penalty on time planes, some of whose numbers are one, and its gradient."""
    planes = [(0.5 + torch.randn(shape, device=device)).requires_grad_() for shape in shapes]
    with torch.no_grad():
        for plane in planes:
            plane[0, :, ::2] = 1
    plain = sum(0.01 * (plane - 1).abs().mean() for plane in planes)
    for plane in planes:
        if plane.shape[1] > 2:
            plain = plain + (plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]).square().mean()
    fused = time_plane_penalty(planes)
    close(fused, plain, 1e-5)
    for a, b in zip(*(torch.autograd.grad(1.7 * value, planes) for value in (fused, plain)), strict=True):
        close(a, b, 1e-4)
    close(time_plane_penalty([scattered(plane) for plane in planes]), plain, 1e-5)


def check_sizes(device: str, count: int) -> None:
    """The penalty on opacities and scales, and its gradient."""
    opacities, scales = ((3 * torch.randn(count, *rest, device=device)).requires_grad_() for rest in ((), (3,)))
    for weights in ((0.01, 0.3), (0.0, 1), (2, 0.0)):
        plain = weights[0] * opacities.sigmoid().mean() + weights[1] * scales.exp().mean()
        fused = size_penalty(opacities, scales, *weights)
        close(fused, plain, 1e-5)
        pairs = [torch.autograd.grad(1.7 * value, [opacities, scales]) for value in (fused, plain)]
        for a, b in zip(*pairs, strict=True):
            close(a, b, 1e-4)
    close(size_penalty(scattered(opacities), scattered(scales), *weights), plain, 1e-5)


def check_pose(device: str, count: int, timed: list[bool]) -> None:
    """Posed Gaussians and the gradients of all that they are made of; canonical ones where the offset is NaN."""
    timed = torch.tensor(timed, device=device)
    inputs = [torch.randn(shape, device=device).requires_grad_() for shape in ((count, 3), (count, 4), (count, 3))]
    offset = torch.randn(len(timed), count, 10, device=device)
    offset = torch.where(timed[:, None, None], offset, torch.nan).requires_grad_()
    inputs.append(offset)
    counted = torch.where(timed[:, None, None], offset, 0.0)
    plain = [value + part for value, part in zip(inputs, counted.split((3, 4, 3), -1), strict=False)]
    plain[0] = inputs[0] + 1.3 * counted[..., :3]
    v = [torch.randn_like(value) for value in plain]
    expected = torch.autograd.grad(plain, inputs, v)
    forms = [(inputs, timed), (inputs, 2 * timed.float()), ([scattered(value) for value in inputs], scattered(timed))]
    for given, asked in forms:
        fused = pose(*given, asked, 1.3)
        for a, b, still in zip(fused, plain, inputs, strict=False):
            close(a, b, 1e-5)
            assert torch.equal(a[~timed], still.expand_as(a)[~timed])
        for a, b in zip(torch.autograd.grad(fused, inputs, [scattered(value) for value in v]), expected, strict=True):
            close(a, b, 1e-5)


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
    inner = [0.0, 0.33, 1.0, 0.9]
    check_features(device, 1, 16, (5, 5), inner)
    check_features(device, 150, 16, (5, 24), inner)
    check_features(device, 64, 4, (1, 2), [*inner, -0.2, 1.3])
    check_features(device, 3, 32, (3, 4), [0.5])
    check_smoothness(device, (3, 24, 8, 16), (3, 24, 37, 16))
    check_smoothness(device, (3, 1, 8, 4), (3, 2, 5, 1), (3, 3, 1, 1), (3, 4, 13, 4))
    for count in (1, 2, 150, 1500):
        check_sizes(device, count)
    for count, timed in ((1, [True]), (1, [False]), (150, [True, False, True]), (128, [True] * 4)):
        check_pose(device, count, timed)
    check_adam(device)


if __name__ == "__main__":
    check("cpu")
