"""SSIM: its value against two other implementations, its gradient against float64 autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fourdgs.errors import InputError
from fourdgs.raster import ssim
from fourdgs.raster.ssim import _plain


def pictures(shape=(2, 40, 33, 3), seed=0, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(
        torch.rand(shape[0], shape[3], 6, 6, generator=generator), size=shape[1:3], mode="bilinear"
    ).permute(0, 2, 3, 1)
    return smooth.contiguous(), (smooth + noise * torch.randn(shape, generator=generator)).clamp(0, 1)


def test_value_is_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = pictures()
    _, full = functional.structural_similarity_index_measure(
        a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), sigma=1.5, data_range=1.0, return_full_image=True
    )
    # torchmetrics pads by reflection; the inner part is what valid padding gives.
    assert abs(float(ssim(a, b)) - float(full[..., 5:-5, 5:-5].mean())) < 2e-5


def test_value_is_skimages():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pictures()
    values = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        _, picture = metrics.structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2,
            full=True,
        )  # fmt: skip
        values.append(picture[5:-5, 5:-5].mean())
    assert abs(float(ssim(a, b)) - np.mean(values)) < 1e-5


@pytest.mark.parametrize("shape", [(1, 11, 11, 3), (2, 40, 33, 3), (1, 12, 64, 1), (1, 30, 30, 5)])
def test_value_and_gradients_are_float64s(shape):
    a, b = (picture.requires_grad_() for picture in pictures(shape))
    exact = [picture.detach().double().requires_grad_() for picture in (a, b)]
    value, truth = ssim(a, b), _plain(*exact)
    assert abs(float(value.detach()) - float(truth.detach())) < 1e-5
    (3 * value).backward()
    (3 * truth).backward()
    for ours, theirs in zip((a, b), exact, strict=True):
        assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_only_the_gradient_asked_for():
    a, b = pictures()
    both = [picture.clone().requires_grad_() for picture in (a, b)]
    ssim(*both).backward()
    for k in range(2):
        pair = [a.clone(), b.clone()]
        pair[k].requires_grad_()
        ssim(*pair).backward()
        assert torch.equal(pair[k].grad, both[k].grad) and pair[1 - k].grad is None


def test_properties():
    a, b = pictures()
    assert abs(float(ssim(a, a)) - 1) < 1e-5
    assert abs(float(ssim(a, b)) - float(ssim(b, a))) < 1e-6
    assert ssim(a, b) < ssim(a, 0.5 * (a + b)) < 1
    flipped = ssim(a.flip(1, 2), b.flip(1, 2))
    assert abs(float(ssim(a, b)) - float(flipped)) < 1e-6
    flat = torch.ones(1, 16, 16, 3)
    assert float(ssim(flat, flat)) == pytest.approx(1, abs=2e-7)
    assert float(ssim(flat, 0.8 * flat)) == pytest.approx((1.6 + 1e-4) / (1.64 + 1e-4), abs=1e-5)


def test_repeats_and_does_not_depend_on_the_threads():
    a, b = pictures((3, 64, 50, 3))
    results = []
    before = torch.get_num_threads()
    for threads in (2, 2, 1):
        torch.set_num_threads(threads)
        x = a.clone().requires_grad_()
        value = ssim(x, b)
        value.backward()
        results.append((value.detach(), x.grad))
    torch.set_num_threads(before)
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0]) and torch.equal(grad, results[0][1])


def test_bad_shapes_are_refused():
    a, b = pictures()
    with pytest.raises(InputError):
        ssim(a, b[:, 1:])
    with pytest.raises(InputError):
        ssim(a[:, :10], b[:, :10])
