from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fourdgs import InputError
from fourdgs.metrics import psnr_db, quantise, ssim


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(0)
    truth = random.uniform(size=(3, 40, 32, 3)).astype(np.float32)
    noisy = truth + random.normal(scale=[[[[0.02]]], [[[0.1]]], [[[0.3]]]], size=truth.shape).astype(np.float32)
    return torch.from_numpy(noisy), torch.from_numpy(truth)


def test_psnr_is_that_of_the_8_bit_pictures(pair):
    for value, a, b in zip(psnr_db(*pair), *pair, strict=True):
        a8, b8 = ((x.clamp(0, 1) * 255).round().numpy().astype(np.uint8) for x in (a, b))
        assert float(value) == pytest.approx(peak_signal_noise_ratio(b8, a8, data_range=255), abs=1e-4)


def test_psnr_of_a_known_error():
    black = torch.zeros(1, 8, 8, 3)
    assert float(psnr_db(black, black + 51 / 255)) == pytest.approx(-20 * math.log10(0.2))
    assert float(psnr_db(black, black)) == math.inf


def test_a_mask_of_everything_changes_nothing_and_of_a_part_counts_that_part(pair):
    everywhere = torch.ones(3, 40, 32, dtype=torch.bool)
    torch.testing.assert_close(psnr_db(*pair, everywhere), psnr_db(*pair))
    half = everywhere.clone()
    half[:, 20:] = False
    torch.testing.assert_close(psnr_db(*pair, half), psnr_db(pair[0][:, :20], pair[1][:, :20]))
    assert psnr_db(*pair, ~everywhere).isnan().all()


def test_values_out_of_range_are_clipped_as_a_viewer_would():
    picture = torch.tensor([-1.0, 0.5, 2.0])
    assert quantise(picture).tolist() == pytest.approx([0, 128 / 255, 1])


def test_ssim_against_scikit_image(pair):
    for value, a, b in zip(ssim(*pair), *(quantise(x).double().numpy() for x in pair), strict=True):
        _, full = structural_similarity(
            a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        assert float(value) == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-5)


def test_both_against_torchmetrics(pair):
    from torchmetrics.functional.image import peak_signal_noise_ratio as their_psnr
    from torchmetrics.functional.image import structural_similarity_index_measure as their_ssim

    a, b = (quantise(picture).double().permute(0, 3, 1, 2) for picture in pair)
    peaks = their_psnr(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr_db(*pair), peaks, rtol=1e-6, atol=1e-6)
    for value, one, other in zip(ssim(*pair), a, b, strict=True):
        _, full = their_ssim(one[None], other[None], sigma=1.5, kernel_size=11, data_range=1.0, return_full_image=True)
        assert float(value) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=2e-5)


def test_ssim_of_a_picture_too_small_for_its_window_is_nan():
    assert ssim(torch.zeros(2, 10, 30, 3), torch.zeros(2, 10, 30, 3)).isnan().all()


def test_shapes_must_agree():
    with pytest.raises(InputError, match="cannot be compared"):
        psnr_db(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 5, 3))
