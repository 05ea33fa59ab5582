from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import random_gaussians

from fourdgs import InputError
from fourdgs.velocity import FAINTEST, Velocity, annealed, initial_velocities, times_share


def fitted(motion, gaussians, times, loss_of, rates, steps=600):
    """The motion, fitted with Adam to a loss of what it gives at ``times``."""
    groups = [{"params": [value], "lr": rates[name]} for name, value in motion.named_parameters()]
    optimiser = torch.optim.Adam(groups, eps=1e-15)
    for step in range(steps):
        for group, name in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = annealed(step / steps, rates[name], 0.01 * rates[name])
        loss = loss_of(motion.at(gaussians, times))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return motion


RATES = {"velocity": 3e-2, "moment": 1e-2, "fading": 5e-2, "span": 2e-2}


def test_straight_flights_are_found_and_right_between_and_beyond_the_training_times():
    gaussians = random_gaussians(60)
    true = 0.5 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    motion = Velocity(radius=1.5)
    motion.begin(gaussians)
    times = torch.linspace(0.2, 0.8, 7)
    where = gaussians.means + true * (times[:, None, None] - motion.moment.detach()[:, None])
    fitted(motion, gaussians, times, lambda moved: (moved.means - where).square().mean(), RATES)
    held_out = torch.tensor([0.0, 0.33, 0.51, 1.0])
    moved = motion.at(gaussians, held_out).means.detach()
    # The t0 move, too, and with them where each Gaussian is; that is held against the truth as it was seen.
    want = where[0].detach() + true * (held_out - times[0])[:, None, None]
    assert float((moved - want).norm(dim=-1).mean()) < 0.02 * float(true.norm(dim=-1).mean())


def test_what_appears_and_goes_is_found_from_a_start_that_is_always_there():
    gaussians = random_gaussians(50)
    gaussians = gaussians.replace(opacities=torch.full((50,), 2.0))
    random = torch.Generator().manual_seed(2)
    when = 0.3 + 0.4 * torch.rand(50, generator=random)
    true = torch.exp(-0.5 * ((torch.linspace(0, 1, 41)[:, None] - when) / 0.15) ** 2)
    motion = Velocity(shortest=0.02)
    motion.begin(gaussians)
    motion.place(times=torch.full((50,), 0.5))
    times, truth = torch.linspace(0, 1, 41)[::4], true[::4]
    sigma = gaussians.opacities.sigmoid()

    def loss(moved):
        return (moved.opacities.sigmoid() - sigma * truth).square().mean()

    fitted(motion, gaussians, times, loss, RATES, steps=1000)
    found = motion.at(gaussians, torch.linspace(0, 1, 41)).opacities.sigmoid().detach() / sigma
    assert float((found - true).square().mean().sqrt()) < 0.05
    assert float((1 - true).square().mean().sqrt()) > 0.5


def test_fading_comes_back_from_its_bounds():
    """Adam's momentum carries it over; a gradient that leads inside must not be lost there."""
    gaussians = random_gaussians(4)
    motion = Velocity()
    motion.begin(gaussians)
    motion.place(times=torch.zeros(4))
    for start, sign in ((-0.2, 1), (0.0, 1), (1.3, -1)):
        with torch.no_grad():
            motion.fading.fill_(start)
        motion.zero_grad()
        (sign * motion.presence(torch.tensor([0.5]))).sum().backward()
        assert (motion.fading.grad * sign < 0).all()
        motion.zero_grad()
        (-sign * motion.presence(torch.tensor([0.5]))).sum().backward()
        assert not motion.fading.grad.any()


def test_presence_has_one_peak_and_a_floor():
    motion = Velocity(shortest=0.05)
    motion.begin(random_gaussians(3))
    motion.place(times=torch.tensor([0.2, 0.5, 0.9]))
    with torch.no_grad():
        motion.fading.copy_(torch.tensor([0.0, 0.6, 2.0]))
        motion.span.fill_(-20.0)
    presence = motion.presence(torch.linspace(0, 1, 101))
    assert torch.equal(presence[:, 0], torch.ones(101))
    assert float(presence[:, 1].detach().min()) == pytest.approx(0.4)
    assert float(presence[:, 2].detach().min()) == pytest.approx(FAINTEST, rel=1e-3)
    for column, peak in ((1, 50), (2, 90)):
        steps = presence[:, column].diff()
        assert (steps[:peak] >= 0).all() and (steps[peak:] <= 0).all()
    # A duration never falls below the shortest, however small its parameter.
    assert float(presence[55, 1].detach()) == pytest.approx(0.4 + 0.6 * math.exp(-0.5), rel=1e-3)


def test_a_start_with_a_duration_is_the_papers():
    gaussians = random_gaussians(20)
    motion = Velocity(duration=0.1)
    motion.begin(gaussians)
    assert len(motion.moment.unique()) == 20
    for index, moment in enumerate(motion.moment.tolist()):
        presence = motion.presence(torch.tensor([moment, moment + 0.1, moment + 5]))[:, index]
        torch.testing.assert_close(presence.detach(), torch.tensor([1.0, math.exp(-0.5), FAINTEST]), atol=1e-3, rtol=0)
    again = Velocity(**motion.settings())
    again.load_state_dict(motion.state_dict())
    assert torch.equal(again.presence(torch.tensor([0.4])), motion.presence(torch.tensor([0.4])))


def test_logits_of_dimmed_opacities():
    logits = torch.tensor([-30.0, -5.0, 0.0, 3.0, 12.0, 30.0, 60.0], dtype=torch.float64)
    share = torch.tensor([1e-3, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)[:, None]
    dimmed = times_share(logits, share)
    torch.testing.assert_close(dimmed.sigmoid(), logits.sigmoid() * share)
    assert torch.equal(dimmed[-1], logits)
    assert torch.isfinite(times_share(logits.float(), share.float())).all()


def test_the_opacity_penalty_does_not_shorten_lives():
    gaussians, times = random_gaussians(30), torch.tensor([0.1, 0.6])
    gaussians = gaussians.replace(opacities=gaussians.opacities.requires_grad_())
    motion = Velocity(duration=0.2)
    motion.begin(gaussians)
    penalty = motion.opacity_penalty(gaussians, times)
    want = (gaussians.opacities.sigmoid() * motion.presence(times)).mean()
    assert float(penalty.detach()) == pytest.approx(float(want.detach()))
    penalty.backward()
    assert (gaussians.opacities.grad > 0).all()
    assert all(value.grad is None for value in motion.parameters())


def test_regularisation_grows_with_speed_and_fading():
    motion = Velocity(radius=2.0)
    assert float(motion.regularisation()) == 0  # with no Gaussian yet, too
    motion.begin(random_gaussians(5))
    motion.place(velocities=torch.tensor([[2.0, -4.0, 0.0]]).expand(5, 3))
    assert float(motion.regularisation().detach()) == pytest.approx(0.3)
    with torch.no_grad():
        motion.fading.fill_(0.5)
    assert float(motion.regularisation().detach()) == pytest.approx(0.35)


def test_annealed_goes_from_first_to_last_by_equal_factors():
    assert annealed(0.0, 1e-2, 1e-4) == pytest.approx(1e-2)
    assert annealed(0.5, 1e-2, 1e-4) == pytest.approx(1e-3)
    assert annealed(1.0, 1e-2, 1e-4) == pytest.approx(1e-4)


@pytest.mark.parametrize("settings", [{"radius": 0}, {"shortest": -1}, {"shortest": 0.2, "duration": 0.1}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError):
        Velocity(**settings)


# --- velocities from neighbours ----------------------------------------------------------------------------------


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T


def egg(seed: int, count: int = 1500) -> np.ndarray:
    direction = np.random.default_rng(seed).normal(size=(count, 3))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True) * (0.5, 0.3, 0.4)


def relative_error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(((found - true) ** 2).sum(1).mean() / (true**2).sum(1).mean()))


def test_velocities_of_a_cloud_that_shifts_by_many_gaps_between_its_points():
    times, shift = [0.0, 0.25, 0.5], np.array([0.6, 0.2, 0.0])
    clouds = [egg(0) + shift * time for time in times]
    found = initial_velocities(clouds, times)
    assert [value.dtype for value in found] == [np.float32] * 3
    for value in found:  # at the last time it is found by looking back
        assert relative_error(value, np.broadcast_to(shift, value.shape)) < 0.05


def test_colours_tell_how_a_surface_slides_along_itself():
    """Other points of the surface are seen each time, as a hull gives them."""
    times, angle, shift = [0.0, 0.25], 0.2, np.array([0.1, 0.0, 0.0])
    still = [egg(1), egg(2)]
    clouds = [still[0], turned(still[1], angle) + shift]
    colors = [0.5 + 0.4 * np.sin(9 * points) for points in still]
    true = (turned(still[0], angle) + shift - still[0]) / 0.25
    assert relative_error(initial_velocities(clouds, times, colors)[0], true) < 0.1
    assert relative_error(initial_velocities(clouds, times)[0], true) > 0.3


def test_few_points_have_velocities_too():
    found = initial_velocities([np.zeros((1, 3)), np.ones((2, 3))], [0.0, 0.5])
    np.testing.assert_allclose(found[0], [[2, 2, 2]])
    np.testing.assert_allclose(found[1], [[2, 2, 2]] * 2)


@pytest.mark.parametrize(
    ("points", "times", "colors"),
    [
        ([np.ones((3, 3))], [0.0], None),
        ([np.ones((3, 3)), np.ones((3, 3))], [0.5, 0.5], None),
        ([np.ones((3, 3)), np.ones((0, 3))], [0.0, 0.5], None),
        ([np.ones((3, 3)), np.ones((3, 3))], [0.0, 0.5], [np.ones((3, 3)), np.ones((2, 3))]),
    ],
)
def test_points_that_have_no_velocity_are_refused(points, times, colors):
    with pytest.raises(InputError):
        initial_velocities(points, times, colors)
