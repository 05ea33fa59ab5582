from __future__ import annotations

import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians

import fourdgs as fd
from fourdgs import Model, Static
from fourdgs.metrics import psnr_db
from fourdgs.nearer import no_sharper, pixel_size
from fourdgs.raster.api import rasterize

CAMERAS = ball_cameras(3, 24)


@pytest.fixture(scope="module")
def needles() -> Model:
    """Gaussians much thinner than a pixel, each of which the rasteriser's blur makes one wide."""
    gaussians = random_gaussians(150)
    return Model(gaussians.replace(scales=torch.full_like(gaussians.scales, -6.0)), Static())


def shrunk(pictures: torch.Tensor, factor: int) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def test_a_pixel_is_smaller_from_nearer_and_in_larger_pictures(needles):
    size = pixel_size(CAMERAS, needles)
    assert size == pytest.approx(4 / float(CAMERAS.Ks[0, 0, 0]), rel=0.05)
    assert pixel_size(CAMERAS.resized(96, 96), needles) == pytest.approx(size / 4)


def test_from_as_near_and_from_farther_nothing_changes(needles, tmp_path):
    capture = ball_capture(tmp_path, CAMERAS)
    for cameras in (CAMERAS, CAMERAS.resized(12, 12)):
        assert no_sharper(needles, capture, cameras) is needles


def test_larger_pictures_show_what_small_ones_did(needles, tmp_path):
    capture, large = ball_capture(tmp_path, CAMERAS), CAMERAS.resized(96, 96)
    taught = fd.render(needles, CAMERAS).rgb.clamp(0, 1)
    as_is = shrunk(fd.render(needles, large).rgb.clamp(0, 1), 4)
    grown = shrunk(fd.render(no_sharper(needles, capture, large), large).rgb.clamp(0, 1), 4)
    before, after = (float(psnr_db(each, taught).mean()) for each in (as_is, grown))
    assert after > 30 and after > before + 8
    assert float(needles.gaussians.scales.max()) == -6.0  # the model that was given is as it was


def test_the_blur_is_the_rasterisers():
    import inspect

    from fourdgs.nearer import EPS2D

    assert inspect.signature(rasterize).parameters["eps2d"].default == EPS2D
