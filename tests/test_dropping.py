from __future__ import annotations

import pytest
import torch
from scenes import ball_cameras, random_gaussians

from fourdgs import InputError
from fourdgs.dropping import GONE, drop, drop_rate, scaled_logits
from fourdgs.model import render_gaussians


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_rate_grows_from_nothing_to_its_most():
    rates = [drop_rate(step, 100, 0.3) for step in range(0, 101, 10)]
    assert rates == sorted(rates) and rates[0] == 0 and rates[-1] == pytest.approx(0.3)
    assert drop_rate(500, 100, 0.3) == pytest.approx(0.3)


def test_nothing_is_left_out_at_a_rate_of_nought():
    gaussians = random_gaussians(10)
    assert drop(gaussians, 0.0) is gaussians


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_the_mean_opacity_stays_what_it_was(rate):
    gaussians = random_gaussians(20_000)
    gaussians = gaussians.replace(opacities=gaussians.opacities - 2)  # none of them reaches one
    after = drop(gaussians, rate, seeded()).opacities
    assert float((after == GONE).float().mean()) == pytest.approx(rate, abs=0.015)
    assert float(after.sigmoid().mean()) == pytest.approx(float(gaussians.opacities.sigmoid().mean()), rel=0.03)


def test_scaled_logits_are_those_of_the_scaled_opacities():
    logits = torch.linspace(-12, 1.2, 200, dtype=torch.float64)
    torch.testing.assert_close(scaled_logits(logits, 1.25).sigmoid(), 1.25 * logits.sigmoid(), rtol=1e-9, atol=0)


def test_scaled_logits_rise_and_have_a_gradient_even_where_the_opacity_is_full():
    logits = torch.tensor([-5.0, 0.0, 1.386, 3.0, 30.0, 200.0], requires_grad=True)
    scaled = scaled_logits(logits, 1.25)
    scaled.sum().backward()
    assert (scaled.diff() > 0).all() and (scaled >= logits).all()
    assert torch.isfinite(logits.grad).all() and (logits.grad >= 1).all()


def test_the_gradient_is_the_slope_of_what_is_drawn():
    logits = torch.randn(30, dtype=torch.float64, generator=seeded()).sub(1.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: scaled_logits(values, 1.2), logits)


def test_what_is_left_out_has_no_gradient_and_the_rest_has():
    gaussians = random_gaussians(400)
    logits = gaussians.opacities.clone().requires_grad_()
    dropped = drop(gaussians.replace(opacities=logits), 0.5, seeded())
    dropped.opacities.sigmoid().sum().backward()
    gone = dropped.opacities == GONE
    assert gone.any() and (logits.grad[gone] == 0).all() and (logits.grad[~gone] > 0).all()


def test_what_is_left_out_is_not_drawn():
    gaussians = random_gaussians(60)
    dropped = drop(gaussians, 0.5, seeded())
    kept = dropped.opacities != GONE
    fewer = type(gaussians)(**{key: value[kept] for key, value in dropped.items().items()})
    camera = ball_cameras(2, 32)
    torch.testing.assert_close(
        render_gaussians(dropped, camera, torch.ones(3))[0], render_gaussians(fewer, camera, torch.ones(3))[0]
    )


def test_one_seed_one_choice_and_the_input_is_left_alone():
    gaussians = random_gaussians(100)
    before = gaussians.opacities.clone()
    one, two, other = (drop(gaussians, 0.3, seeded(seed)).opacities for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other) and torch.equal(gaussians.opacities, before)


def test_the_same_ones_are_left_out_at_all_times():
    gaussians = random_gaussians(100)
    moving = gaussians.replace(opacities=gaussians.opacities + torch.randn(3, 1, generator=seeded()))
    gone = drop(moving, 0.3, seeded()).opacities == GONE
    assert gone.shape == (3, 100) and (gone == gone[0]).all()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(InputError, match="rate"):
        drop(random_gaussians(5), rate)
    with pytest.raises(InputError, match="most"):
        drop_rate(1, 2, rate)
