"""What the motion models with parameters for each Gaussian have in common."""

from __future__ import annotations

import json

import pytest
import torch
from scenes import random_gaussians
from toy_rig import tent_rig

from fourdgs import InputError
from fourdgs.basis import Basis
from fourdgs.per_gaussian import PerGaussian
from fourdgs.rigged import Rigged
from fourdgs.velocity import Velocity

TIMES = torch.tensor([0.0, 0.3, 1.0, float("nan")])


TRACK = ([-0.5, 1.5], [[-0.2, -10.0], [0.6, 50.0]])
MODELS = {
    "velocity": lambda: Velocity(radius=1.5, shortest=0.03),
    "basis": lambda: Basis(radius=1.5, trajectories=4, knots=6),
    "basis se3": lambda: Basis(radius=1.5, trajectories=4, knots=6, se3=True),
    "rig": lambda: Rigged(tent_rig(), TRACK),
    "rig and basis": lambda: Rigged(tent_rig(), TRACK, Basis(radius=1.5, trajectories=4, knots=6)),
}
each_model = pytest.mark.parametrize("model", MODELS)


def shaken(model: str, gaussians, seed: int = 0) -> PerGaussian:
    """A model away from its start."""
    motion = MODELS[model]()
    motion.begin(gaussians)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in motion.named_parameters():
            size = 0.02 if name == "offsets" else 0.3
            change = size * torch.randn(parameter.shape, generator=random).to(parameter)
            parameter += change.abs() if name == "fading" else change
    return motion


def rows_of(motion: PerGaussian, rows: torch.Tensor) -> dict:
    """The trained and the carried rows of some Gaussians, for `adopt`."""
    trained = {name: torch.nn.Parameter(value.detach()[rows]) for name, value in motion.per_gaussian().items()}
    return trained | {name: value[rows] for name, value in motion.carried().items()}


def double(gaussians):
    return gaussians.replace(**{key: value.double() for key, value in gaussians.items().items()})


@each_model
def test_starts_as_the_identity(model):
    gaussians, motion = random_gaussians(40), MODELS[model]()
    if isinstance(motion, Rigged):  # it moves by what it is told
        motion.track_values[:] = motion.rig.neutral
    motion.begin(gaussians)
    for key, value in motion.at(gaussians, TIMES).items().items():
        assert value.shape == (4, *getattr(gaussians, key).shape)
        assert torch.equal(value, getattr(gaussians, key).expand_as(value)), key
    assert motion.regularisation().item() == 0


@each_model
def test_the_start_is_not_dead(model):
    """Two steps of descent from the identity reach every parameter that moves or dims Gaussians."""
    gaussians, motion = random_gaussians(40), MODELS[model]()
    motion.begin(gaussians)
    before = {name: value.detach().clone() for name, value in motion.named_parameters()}
    optimiser = torch.optim.Adam(motion.parameters(), lr=1e-2)
    target = motion.at(gaussians, TIMES).means.detach() + torch.tensor([0.2, 0.1, -0.3]) * TIMES[:, None, None]
    for _ in range(2):
        moved = motion.at(gaussians, TIMES[:3])
        loss = (moved.means - target[:3]).square().mean() + moved.opacities.sigmoid().mean()
        loss = loss + moved.quats.square()[..., 1].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in motion.named_parameters():
        assert (value != before[name]).any(), name


@each_model
def test_no_time_is_the_canonical_scene(model):
    gaussians = random_gaussians(40)
    motion = shaken(model, gaussians)
    moved = motion.at(gaussians, TIMES)
    for key, value in moved.items().items():
        assert torch.equal(value[3], getattr(gaussians, key)), key
    assert not torch.equal(moved.means[0], gaussians.means) and not torch.equal(moved.means[0], moved.means[2])


@each_model
def test_frames_without_a_time_teach_the_motion_nothing(model):
    gaussians = random_gaussians(40)
    motion = shaken(model, gaussians)
    moved = motion.at(gaussians, TIMES[[3, 1]])
    sum(value[0].square().sum() for value in moved.items().values() if value.requires_grad).backward()
    for name, value in motion.named_parameters():
        assert value.grad is None or not value.grad.any(), name


@each_model
def test_is_pure(model):
    gaussians = random_gaussians(40)
    motion = shaken(model, gaussians)
    before = {key: value.clone() for key, value in [*gaussians.items().items(), *motion.state_dict().items()]}
    first, second = motion.at(gaussians, TIMES), motion.at(gaussians, TIMES)
    after = dict([*gaussians.items().items(), *motion.state_dict().items()])
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(torch.equal(value, second.items()[key]) for key, value in first.items().items())


@each_model
def test_a_batch_of_times_equals_one_time_after_another(model):
    gaussians = random_gaussians(40)
    motion = shaken(model, gaussians)
    batch = motion.at(gaussians, TIMES)
    for index in range(len(TIMES)):
        single = motion.at(gaussians, TIMES[index : index + 1])
        for key, value in batch.items().items():
            torch.testing.assert_close(single.items()[key][0], value[index])


@each_model
def test_order_of_gaussians_does_not_matter(model):
    gaussians = random_gaussians(40)
    motion, order = shaken(model, gaussians), torch.randperm(40)
    batch = motion.at(gaussians, TIMES)
    shuffled = gaussians.replace(**{key: value[order] for key, value in gaussians.items().items()})
    motion.adopt(rows_of(motion, order))
    for key, value in motion.at(shuffled, TIMES).items().items():
        torch.testing.assert_close(value, batch.items()[key][:, order])


@each_model
def test_gradients_against_finite_differences(model):
    gaussians = double(random_gaussians(5))
    motion = shaken(model, random_gaussians(5)).double()
    with torch.no_grad():
        if model == "velocity":
            motion.fading.clamp_(0.1, 0.9)  # at a bound the gradient is one-sided on purpose
    names = ["means", "quats", "opacities"]
    inputs = [gaussians.items()[name].clone().requires_grad_() for name in names]
    values = {name: value.detach().clone().requires_grad_() for name, value in motion.named_parameters()}

    def all_of(*tensors):
        given = gaussians.replace(**dict(zip(names, tensors[:3], strict=True)))
        owned = dict(zip(values, tensors[3:], strict=True))
        moved = torch.func.functional_call(_At(motion), {f"motion.{k}": v for k, v in owned.items()}, (given,))
        return moved.means, moved.quats, moved.opacities

    assert torch.autograd.gradcheck(all_of, (*inputs, *values.values()))


class _At(torch.nn.Module):
    def __init__(self, motion):
        super().__init__()
        self.motion = motion

    def forward(self, gaussians):
        return self.motion.at(gaussians, TIMES[:3].double())


@each_model
def test_motion_is_smooth_in_time(model):
    """Steps of a third are a third as large, and changes of steps a ninth."""
    gaussians = double(random_gaussians(40))
    motion = shaken(model, random_gaussians(40)).double()

    def changes(count):
        moved = motion.at(gaussians, torch.linspace(0, 1, count, dtype=torch.float64))
        paths = torch.cat([moved.means, moved.quats, moved.opacities[..., None]], -1).detach()
        return float(paths.diff(dim=0).abs().max()), float(paths.diff(n=2, dim=0).abs().max())

    (coarse, coarse_bend), (fine, fine_bend) = changes(301), changes(901)
    assert fine == pytest.approx(coarse / 3, rel=0.1)
    assert fine_bend < 1e-9 or fine_bend == pytest.approx(coarse_bend / 9, rel=0.15)


@each_model
def test_settings_and_state_make_the_same_model_again(model):
    gaussians = random_gaussians(12)
    motion = shaken(model, gaussians)
    settings = json.loads(json.dumps(motion.settings()))
    assert settings["count"] == 12
    again = type(motion)(**settings)
    again.load_state_dict(motion.state_dict())
    moved, same = motion.at(gaussians, TIMES), again.at(gaussians, TIMES)
    assert all(torch.equal(value, same.items()[key]) for key, value in moved.items().items())
    assert again.settings() == motion.settings()


@each_model
def test_the_same_seed_starts_alike(model):
    gaussians = random_gaussians(40)
    first, second = MODELS[model](), MODELS[model]()
    first.begin(gaussians)
    second.begin(gaussians)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@each_model
def test_grows_with_its_gaussians(model):
    """A copied row moves as its source does, and the settings know the new number."""
    gaussians = random_gaussians(10)
    motion = shaken(model, gaussians)
    before = motion.at(gaussians, TIMES)
    rows = torch.tensor([*range(10), 3, 3, 7])
    new = rows_of(motion, rows)
    motion.adopt(new)
    there = dict(motion.named_parameters()) | dict(motion.named_buffers())
    assert all(there[name] is value for name, value in new.items())
    grown = gaussians.replace(**{key: value[rows] for key, value in gaussians.items().items()})
    for key, value in motion.at(grown, TIMES).items().items():
        torch.testing.assert_close(value, before.items()[key][:, rows])
    assert motion.settings()["count"] == 13


@each_model
def test_another_number_of_gaussians_is_refused(model):
    motion = MODELS[model]()
    with pytest.raises(InputError, match="0 Gaussians and is asked for 10.*begin"):
        motion.at(random_gaussians(10), TIMES)
    motion.begin(random_gaussians(9))
    with pytest.raises(InputError, match="9 Gaussians and is asked for 10"):
        motion.at(random_gaussians(10), TIMES)
    with pytest.raises(InputError, match=[*motion.ROWS, *motion.CARRIED][0]):
        motion.adopt({})
    wrong = {name: value[..., None] for name, value in rows_of(motion, torch.arange(9)).items()}
    with pytest.raises(InputError, match="per_gaussian|carried"):
        motion.adopt(wrong)


@each_model
@pytest.mark.gpu
def test_cuda_agrees_and_never_waits(model):
    gaussians = random_gaussians(500)
    motion = shaken(model, gaussians)
    here = motion.at(gaussians, TIMES)
    there, times, on = motion.cuda(), TIMES.cuda(), gaussians.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = there.at(on, times)
        (moved.means.sum() + moved.opacities.sum() + there.regularisation()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for key, value in here.items().items():
        torch.testing.assert_close(moved.items()[key].cpu(), value, atol=1e-5, rtol=1e-4)
