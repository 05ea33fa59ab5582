"""Few rigid parts: what holds for any twists, and that a turning part is found."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdgs import Gaussians, InputError
from fourdgs.basis import hamilton, rotation_quats
from fourdgs.binding import turned
from fourdgs.bones import Bones
from fourdgs.model import Model
from fourdgs.motions import make_motion

TIMES = torch.tensor([0.0, 0.3, 1.0, math.nan])


def scene(count: int = 60, seed: int = 0) -> Gaussians:
    random = torch.Generator().manual_seed(seed)
    return Gaussians.from_points(torch.randn(count, 3, generator=random).numpy(), torch.rand(count, 3).numpy())


def moving(seed: int = 0, bones: int = 3) -> tuple[Bones, Gaussians]:
    gaussians, model = scene(seed=seed), Bones(bones=bones, knots=7, radius=1.5, seed=seed)
    model.begin(gaussians)
    with torch.no_grad():
        random = torch.Generator().manual_seed(seed + 1)
        model.turns += 0.3 * torch.randn(model.turns.shape, generator=random)
        model.bias += torch.randn(bones, generator=random)
    return model, gaussians


def test_it_starts_as_the_identity_and_is_canonical_without_a_time():
    gaussians = scene()
    model = Bones(knots=7)
    model.begin(gaussians)
    for key, value in model.at(gaussians, TIMES).items().items():
        torch.testing.assert_close(value, gaussians.items()[key].expand_as(value), msg=key)
    model, gaussians = moving()
    torch.testing.assert_close(model.at(gaussians, TIMES).means[3], gaussians.means)
    assert (model.at(gaussians, TIMES).means[1] - gaussians.means).norm(dim=1).min() > 1e-3


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_one_bone_moves_all_rigidly(seed):
    model, gaussians = moving(seed, bones=1)
    posed = model.at(gaussians, TIMES[:3])
    before = torch.cdist(gaussians.means, gaussians.means)
    for moment in range(3):
        torch.testing.assert_close(torch.cdist(posed.means[moment], posed.means[moment]), before, atol=3e-3, rtol=1e-3)
        # The Gaussians turn as their places do.
        change = hamilton(posed.quats[moment], gaussians.quats * torch.tensor([1.0, -1, -1, -1]))
        offsets = gaussians.means - gaussians.means[:1]
        torch.testing.assert_close(
            turned(change[:1].expand(len(offsets), 4), offsets), posed.means[moment] - posed.means[moment][:1],
            atol=2e-4, rtol=1e-3,
        )  # fmt: skip


def test_weights_depend_on_the_place_alone_and_sum_to_one():
    model, gaussians = moving()
    weights = model.weights(gaussians.means)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(gaussians)))
    assert (weights >= 0).all()
    shuffled = torch.randperm(len(gaussians))
    torch.testing.assert_close(model.weights(gaussians.means[shuffled]), weights[shuffled])


def test_gradients_are_right():
    gaussians = scene(5)
    model = Bones(bones=2, knots=5)
    model.begin(gaussians)
    model.double()
    with torch.no_grad():
        model.turns += 0.2 * torch.randn_like(model.turns)
    means = gaussians.means.double()

    def posed(turns, centres, sizes, bias):
        parameters = {"turns": turns, "centres": centres, "sizes": sizes, "bias": bias}
        doubles = Gaussians(**{key: value.double() for key, value in gaussians.replace(means=means).items().items()})
        given = torch.func.functional_call(_Posed(model), {f"model.{k}": v for k, v in parameters.items()}, (doubles,))
        return given

    inputs = [
        value.detach().clone().requires_grad_() for value in (model.turns, model.centres, model.sizes, model.bias)
    ]
    assert torch.autograd.gradcheck(posed, inputs)


class _Posed(torch.nn.Module):
    def __init__(self, model: Bones):
        super().__init__()
        self.model = model

    def forward(self, gaussians: Gaussians) -> torch.Tensor:
        posed = self.model.pose(gaussians, torch.tensor([0.2, 0.9], dtype=torch.float64))
        return torch.cat([posed.means, posed.quats], -1)


def test_a_head_that_turns_is_found_from_the_half_that_is_seen():
    """Two balls, the upper turns; only points in front are given. What is behind must go along."""
    random = torch.Generator().manual_seed(0)
    ball = torch.nn.functional.normalize(torch.randn(600, 3, generator=random), dim=1)
    places = torch.cat([ball[:300] * 0.5 + torch.tensor([0.0, 0.6, 0]), ball[300:] * 0.5 - torch.tensor([0.0, 0.6, 0])])
    gaussians = Gaussians.from_points(places.numpy(), torch.rand(600, 3, generator=random).numpy())
    times = torch.linspace(0, 1, 5)
    angle = 0.3 * torch.sin(2 * math.pi * times)
    turn = rotation_quats(torch.stack([0 * angle, angle, 0 * angle], 1))  # about y
    truth = turned(turn[:, None].expand(5, 300, 4), places[:300].expand(5, 300, 3))
    truth = torch.cat([truth, places[300:].expand(5, 300, 3)], 1)
    seen = places[:, 2] > 0
    model = Bones(bones=2, knots=7)
    model.begin(gaussians)
    optimiser = torch.optim.Adam([
        {"params": [model.turns], "lr": 1e-2}, {"params": [model.centres, model.sizes, model.bias], "lr": 3e-3}
    ])  # fmt: skip
    for _ in range(300):
        optimiser.zero_grad()
        loss = (model.pose(gaussians, times).means - truth)[:, seen].square().sum(-1).mean()
        loss.backward()
        optimiser.step()
    error = (model.pose(gaussians, times).means - truth).norm(dim=-1)
    still = (places - truth).norm(dim=-1)
    assert error[:, ~seen].mean() < 0.25 * still[:, ~seen].mean()


def test_it_can_be_made_again_and_says_what_is_wrong():
    model, gaussians = moving()
    again = make_motion("bones", model.settings())
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.at(gaussians, TIMES).means, model.at(gaussians, TIMES).means)
    for field, values in (("knots", {"knots": 3}), ("bones", {"bones": 0})):
        with pytest.raises(InputError, match=field):
            Bones(**values)


def test_a_model_with_bones_is_saved_and_read_again(tmp_path):
    gaussians = scene()
    model = Bones()
    model.begin(gaussians)
    Model(gaussians, model).save(tmp_path / "model.safetensors")
    assert torch.equal(Model.load(tmp_path / "model.safetensors").motion.centres, model.centres)
