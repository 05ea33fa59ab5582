from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians

from fourdgs import InputError, merge
from fourdgs.gaussians import SH_C0
from fourdgs.model import render_gaussians
from fourdgs.source_look import SourceLook, reference_source

WHITE = (1.0, 1.0, 1.0)


def look(degree: int = 0, **more) -> SourceLook:
    made = SourceLook(["clip", "orbit", "phone"], "orbit", degree=degree, **more)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return made


def pictures(count: int = 3, height: int = 10, width: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    alpha = torch.rand(count, height, width, 1, generator=random)
    return torch.rand(count, height, width, 3, generator=random) * alpha, alpha


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_at_the_start_it_is_the_composite_over_the_background(degree):
    rgb, alpha = pictures()
    made = SourceLook(["clip", "orbit", "phone"], "orbit", degree=degree, background=(0.2, 0.5, 0.9))
    expected = rgb + (1 - alpha) * torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(made.apply(rgb, alpha, torch.arange(3)), expected)
    assert made.regularisation().item() == 0


@pytest.mark.parametrize("degree", [0, 2])
def test_the_reference_stays_the_identity_whatever_is_learned(degree):
    rgb, alpha = pictures()
    made = look(degree)
    seen = made.apply(rgb, alpha, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(seen[1], rgb[1] + (1 - alpha[1]))
    assert (seen[0] - (rgb[0] + (1 - alpha[0]))).abs().max() > 0.05
    (seen.square().sum() + made.regularisation()).backward()
    for parameter in (made.colour, made.backdrop):
        assert (parameter.grad[1] == 0).all() and (parameter.grad[[0, 2]] != 0).all()


def test_mapping_the_picture_is_mapping_each_gaussian():
    gaussians, cameras, made = random_gaussians(80), ball_cameras(2, 24), look()
    gaussians = gaussians.replace(sh0=gaussians.sh0.clamp(-1, 1))  # renderers cut colours off at black
    black, matrix = torch.zeros(3), made.matrices()[0]
    colours = (gaussians.sh0[:, 0] * SH_C0 + 0.5) @ matrix[:, :3].T + matrix[:, 3]
    assert (colours > 0).all()
    rgb, alpha = render_gaussians(gaussians, cameras, black)
    mapped = gaussians.replace(sh0=((colours - 0.5) / SH_C0)[:, None])
    expected, _ = render_gaussians(mapped, cameras, black)
    expected = expected + (1 - alpha) * made.backdrops(24, 24)[0]
    torch.testing.assert_close(made.apply(rgb, alpha, torch.tensor([0, 0])), expected, atol=1e-5, rtol=1e-4)


def test_a_backdrop_is_the_same_at_another_size():
    made = look(3)
    fine = made.backdrops(60, 40)
    coarse = fine.view(3, 20, 2, 30, 2, 3).mean((2, 4))
    torch.testing.assert_close(coarse, made.backdrops(30, 20), atol=2e-3, rtol=0)
    assert fine[0].std() > 0.05 and (fine[1] == 1).all()


def test_matted_sources_keep_their_background_and_learn_their_colours():
    made = look(2, matted=["orbit", "phone"])
    seen = made.backdrops(8, 6)
    assert (seen[1:] == 1).all() and (seen[0] != 1).any()
    assert (made.matrices()[2] != made.identity).any()


def test_a_white_balance_and_a_gradient_behind_are_found():
    rgb, alpha = pictures(2, 24, 24)
    gains, ramp = torch.tensor([1.12, 0.97, 0.82]), torch.linspace(0.3, 0.7, 24)[:, None]
    truth = rgb[:1] * gains + (1 - alpha[:1]) * ramp[None, :, :, None].expand(1, 24, 24, 3)
    truth = torch.cat([truth, rgb[1:] + (1 - alpha[1:])])
    made = SourceLook(["clip", "orbit"], "orbit", degree=1, starts={"clip": (0.5, 0.5, 0.5)})
    optimiser = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(300):
        loss = (made.apply(rgb, alpha, torch.arange(2)) - truth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(made.matrices()[0, :, :3], torch.diag(gains), atol=0.05, rtol=0)
    torch.testing.assert_close(made.backdrops(24, 24)[0, :, 0], ramp.expand(24, 3), atol=0.05, rtol=0)


def test_the_penalty_grows_with_the_colours_and_leaves_a_flat_backdrop_free():
    made = SourceLook(["clip", "orbit"], "orbit", degree=1)
    with torch.no_grad():
        made.backdrop[0, 0] = 3
    assert made.regularisation().item() == 0
    with torch.no_grad():
        made.colour[0, 0, 0] = 0.1
        first = made.regularisation().item()
        made.colour *= 2
    assert made.regularisation().item() == pytest.approx(4 * first) and first > 0


def test_the_state_goes_through_a_dictionary():
    made, again = look(2), SourceLook(["clip", "orbit", "phone"], "orbit", degree=2)
    again.load_state_dict(made.state_dict())
    rgb, alpha = pictures()
    assert torch.equal(made(rgb, alpha, torch.arange(3)), again(rgb, alpha, torch.arange(3)))


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("ball")
    orbit = ball_capture(root, ball_cameras(4, 16))
    times = np.linspace(0, 1, 6)
    clip = ball_capture(root, ball_cameras(1, 16)[[0] * 6].with_times(times), source="clip", camera="front")
    grey = {row: (np.full((16, 16, 3), 51, np.uint8), None) for row in range(6)}
    return merge([orbit, clip.with_pictures(grey)])


def test_the_reference_is_the_source_with_masks_and_backdrops_start_at_the_edges(two_sources):
    assert reference_source(two_sources) == "orbit"
    made = SourceLook.of(two_sources, degree=1)
    assert made.sources == ("clip", "orbit") and made.reference == "orbit"
    torch.testing.assert_close(made.backdrops(4, 4)[0], torch.full((4, 4, 3), 0.2))
    assert made.rows(["orbit", "clip", "orbit"]).tolist() == [1, 0, 1]


def test_an_alpha_channel_that_is_opaque_is_no_mask(two_sources):
    opaque = {row: (rgb, np.full(rgb.shape[:2], 255, np.uint8)) for row, (rgb, _) in enumerate(memory(two_sources))}
    assert reference_source(two_sources.with_pictures(opaque)) == "orbit"  # of more cameras
    assert float(SourceLook.of(two_sources.with_pictures(opaque)).backed.sum()) == 1  # all but the reference


def memory(capture):
    return [capture.memory[name] for name in capture.frames["frame"]]


def test_what_cannot_be_is_refused(two_sources):
    with pytest.raises(InputError, match="no source 'x'"):
        SourceLook(["a"], "x")
    with pytest.raises(InputError, match="each once"):
        SourceLook(["a", "a"], "a")
    with pytest.raises(InputError, match="degree"):
        SourceLook(["a"], "a", degree=4)
    with pytest.raises(InputError, match="no source 'tv'"):
        SourceLook.of(two_sources).rows(["tv"])
