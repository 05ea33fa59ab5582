from __future__ import annotations

import pytest
import torch
from scenes import random_gaussians
from toy_rig import tent_rig

from fourdgs import Deform, InputError
from fourdgs.motions import MOTIONS, make_motion

TIMES = torch.tensor([0.0, 0.3, 1.0, float("nan")])
SETTINGS = {
    "static": {},
    "deform": {"centre": [0.0, 0.0, 0.0], "radius": 1.5, "resolutions": [8, 16]},
    "velocity": {},
    "bones": {},
    "basis": {},
    "rig": {"rig": tent_rig()},
}


def shaken(seed: int = 0) -> Deform:
    """A deformation away from its start."""
    motion = make_motion("deform", SETTINGS["deform"])
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return motion


@pytest.mark.parametrize("name", MOTIONS)
def test_every_motion_starts_as_the_identity(name):
    gaussians = random_gaussians(40)
    motion = make_motion(name, SETTINGS[name])
    motion.begin(gaussians)
    moved = motion.at(gaussians, TIMES)
    for key, value in moved.items().items():
        assert value.shape == (4, *getattr(gaussians, key).shape)
        assert torch.equal(value, getattr(gaussians, key).expand_as(value)), key


@pytest.mark.parametrize("name", MOTIONS)
def test_motion_never_writes_into_what_it_is_given(name):
    gaussians = random_gaussians(40)
    before = {key: value.clone() for key, value in gaussians.items().items()}
    motion = shaken() if name == "deform" else make_motion(name, SETTINGS[name])
    motion.begin(gaussians)
    motion.at(gaussians, TIMES)
    assert all(torch.equal(value, before[key]) for key, value in gaussians.items().items())


@pytest.mark.parametrize("name", MOTIONS)
def test_a_pose_is_what_at_gives_but_for_the_copies(name):
    gaussians = random_gaussians(40)
    motion = make_motion(name, SETTINGS[name])
    motion.begin(gaussians)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=random)
    posed, moved = motion.pose(gaussians, TIMES), motion.at(gaussians, TIMES)
    for key, value in moved.items().items():
        assert value.shape == (4, *getattr(gaussians, key).shape)
        assert torch.equal(getattr(posed, key).expand_as(value), value), key


def test_a_frame_without_a_time_sees_the_canonical_scene():
    gaussians = random_gaussians(40)
    moved = shaken().at(gaussians, TIMES)
    assert torch.equal(moved.means[3], gaussians.means)
    assert not torch.equal(moved.means[0], gaussians.means) and not torch.equal(moved.means[0], moved.means[2])
    alone = shaken().at(gaussians, TIMES[3:])
    assert torch.equal(alone.means[0], gaussians.means)


def test_a_batch_of_times_equals_one_time_after_another():
    gaussians, motion = random_gaussians(40), shaken()
    batch = motion.at(gaussians, TIMES)
    for index in range(len(TIMES)):
        single = motion.at(gaussians, TIMES[index : index + 1])
        torch.testing.assert_close(single.means[0], batch.means[index])
        torch.testing.assert_close(single.scales[0], batch.scales[index])


def test_order_of_gaussians_does_not_matter():
    gaussians, motion = random_gaussians(40), shaken()
    order = torch.randperm(40)
    shuffled = gaussians.replace(**{key: value[order] for key, value in gaussians.items().items()})
    torch.testing.assert_close(motion.at(shuffled, TIMES).means, motion.at(gaussians, TIMES).means[:, order])


def test_gradients_against_finite_differences():
    gaussians, motion = random_gaussians(6), shaken().double()
    gaussians = gaussians.replace(**{key: value.double() for key, value in gaussians.items().items()})
    times, parameter = TIMES[:3].double(), motion.time[0]
    weight = torch.randn(3, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total():
        return (motion.at(gaussians, times).means * weight).sum()

    total().backward()
    place = tuple(int(i) for i in torch.nonzero(parameter.grad.abs() == parameter.grad.abs().max())[0])
    step = 1e-6
    with torch.no_grad():
        parameter[place] += step
        high = total()
        parameter[place] -= 2 * step
        low = total()
    assert float((high - low) / (2 * step)) == pytest.approx(float(parameter.grad[place]), rel=1e-5)


def test_motion_is_continuous_in_time():
    gaussians, motion = random_gaussians(40), shaken()
    times = torch.linspace(0.2, 0.8, 601)
    means = motion.at(gaussians, times).means
    steps = (means[1:] - means[:-1]).norm(dim=-1).max()
    assert steps < (means.amax(0) - means.amin(0)).norm(dim=-1).max() / 20


def test_regularisation_is_zero_at_the_start_and_grows():
    start = make_motion("deform", SETTINGS["deform"])
    assert start.regularisation().item() == 0
    assert shaken().regularisation().item() > 0


def test_settings_make_the_same_model_again():
    motion = shaken()
    again = make_motion("deform", motion.settings())
    again.load_state_dict(motion.state_dict())
    gaussians = random_gaussians(10)
    assert torch.equal(again.at(gaussians, TIMES).means, motion.at(gaussians, TIMES).means)


def test_an_unknown_motion_names_the_known_ones():
    with pytest.raises(InputError, match="static or deform"):
        make_motion("teleport", {})
