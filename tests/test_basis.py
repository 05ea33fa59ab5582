from __future__ import annotations

import math

import pytest
import torch
from scenes import random_gaussians

from fourdgs import InputError
from fourdgs.basis import Basis, hamilton, knots_for, rotation_quats, spline_shares
from fourdgs.densify import rotation_matrices

TRAIN = torch.linspace(0, 1, 12)
HELD_OUT = (TRAIN[1:] + TRAIN[:-1]) / 2
RATES = {"curves": 3e-3, "weights": 1e-2, "offsets": 1e-2}


def swaying(gaussians, times: torch.Tensor) -> torch.Tensor:
    """True means [T, N, 3]: three parts of the scene go to and fro, each in its own way, and blend into each other."""
    phase = 2 * math.pi * times[:, None]
    shares = torch.softmax(4 * gaussians.means, -1)  # [N, 3]
    paths = torch.stack([torch.sin(phase), torch.sin(1.3 * phase + 1) - 0.5, torch.cos(0.7 * phase)], 1)  # [T, 3, 1]
    ways = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.0, 0.3], [-0.1, 0.2, 0.1]])
    return gaussians.means + shares @ (paths * ways)


def fit(parameters: dict, predict, penalty, gaussians, steps: int = 1200) -> tuple[float, float]:
    """Fit to the true means, a time a step; RMS errors at training and at held-out times, as shares of the motion."""
    groups = [{"params": [value], "lr": RATES[name]} for name, value in parameters.items()]
    optimiser = torch.optim.Adam(groups, eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / steps))
    truth, random = swaying(gaussians, TRAIN), torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(TRAIN), (2,), generator=random)
        loss = (predict(TRAIN[index]) - truth[index]).square().sum(-1).mean() + penalty()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    def error(times):
        true = swaying(gaussians, times)
        return float(((predict(times) - true).square().sum() / (true - gaussians.means).square().sum()).sqrt().detach())

    return error(TRAIN), error(HELD_OUT)


def test_held_out_times_are_right_where_free_knots_fail():
    """24 free knots on 12 training times: half of them never hear of a frame and stay where they were."""
    gaussians = random_gaussians(80)
    for knots in (knots_for(len(TRAIN)), 24):
        motion = Basis(trajectories=4, knots=knots)
        motion.begin(gaussians)
        train, held_out = fit(
            dict(motion.named_parameters()),
            lambda times, motion=motion: motion.at(gaussians, times).means,
            lambda motion=motion: 1e-3 * motion.regularisation(),
            gaussians,
        )
        assert train < 0.05 and held_out < 0.06

    free = torch.nn.Parameter(torch.zeros(24, 80, 3))

    def between_knots(times):
        hats = (1 - (23 * times[:, None] - torch.arange(24)).abs()).clamp(min=0)  # [T, 24]
        return gaussians.means + torch.einsum("tp,pnd->tnd", hats, free)

    train, held_out = fit({"offsets": free}, between_knots, lambda: 0.0, gaussians)
    assert train < 0.05 and held_out > 0.25


def test_a_turning_body_is_one_trajectory_that_turns():
    """Half a turn of all Gaussians: one twist does it, one direction to go to does not."""
    gaussians = random_gaussians(60)
    turn = torch.tensor([0.3, 2.0, -0.5])
    results = {}
    for se3 in (False, True):
        motion = Basis(trajectories=1, knots=4, se3=se3)
        motion.begin(gaussians)
        goal = rotation_matrices(rotation_quats(turn * TRAIN[:, None]))  # [T, 3, 3]
        goal = torch.einsum("tij,nj->tni", goal, gaussians.means)
        optimiser = torch.optim.Adam(motion.parameters(), lr=3e-2)
        for _ in range(400):
            loss = (motion.at(gaussians, TRAIN).means - goal).square().sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        results[se3] = float(loss.detach() / (goal - gaussians.means).square().sum(-1).mean())
    assert results[True] < 1e-3 and results[False] > 0.3
    # Their own axes turn along: the same turn as the matrices', up to the length of the quaternions.
    turned = rotation_matrices(motion.at(gaussians, torch.tensor([1.0])).quats[0])
    want = rotation_matrices(rotation_quats(turn)) @ rotation_matrices(gaussians.quats)
    assert float((turned - want).abs().max().detach()) < 0.1


def test_a_twist_is_the_exponential_of_its_matrix():
    """Against the 4x4 matrix exponential, with angles from none over tiny to more than half a turn."""
    gaussians = random_gaussians(7)
    gaussians = gaussians.replace(**{key: value.double() for key, value in gaussians.items().items()})
    motion = Basis(trajectories=1, knots=4, se3=True, radius=2.0).double()
    motion.begin(gaussians)
    for size in (0.0, 1e-9, 1e-4, 1e-2, 0.3, 4.0):
        twist = torch.tensor([0.3, -0.2, 0.5, 0.6 * size, -0.64 * size, 0.48 * size], dtype=torch.float64)
        with torch.no_grad():
            motion.curves.copy_(twist.expand(4, 1, 6))
            motion.weights.fill_(1)
        moved = motion.at(gaussians, torch.tensor([0.4], dtype=torch.float64))
        (moved.means.sum() + moved.quats.sum()).backward()
        assert all(torch.isfinite(value.grad).all() for value in motion.parameters())
        w, v = twist[3:], 2.0 * twist[:3]
        matrix = torch.zeros(4, 4, dtype=torch.float64)
        matrix[:3, :3] = torch.tensor([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
        matrix[:3, 3] = v
        whole = torch.linalg.matrix_exp(matrix)
        pivot = motion.pivots[0]
        torch.testing.assert_close(moved.means[0], (gaussians.means - pivot) @ whole[:3, :3].T + whole[:3, 3] + pivot)
        want = whole[:3, :3] @ rotation_matrices(gaussians.quats)
        torch.testing.assert_close(rotation_matrices(moved.quats[0]), want)


def test_quaternions_multiply_as_their_matrices():
    random = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 20, 4, generator=random, dtype=torch.float64)
    both = rotation_matrices(first) @ rotation_matrices(second)
    torch.testing.assert_close(rotation_matrices(hamilton(first, second)), both)


def test_float32_rotations_are_smooth_where_the_series_ends():
    angles = torch.linspace(0.15, 0.25, 2001)  # of half of which the square passes 0.01
    quats = rotation_quats(angles[:, None] * torch.tensor([0.6, 0.0, 0.8]))
    want = torch.stack([(angles / 2).cos(), (angles / 2).sin()], -1)
    torch.testing.assert_close(torch.stack([quats[:, 0], quats[:, 1:].norm(dim=-1)], -1), want, atol=2e-7, rtol=0)


@pytest.mark.parametrize("knots", [4, 5, 8, 30])
def test_spline_shares(knots):
    """They sum to 1, four at most are not 0, and control points on a line give the line."""
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    shares = spline_shares(times, knots)
    assert shares.shape == (101, knots) and (shares >= 0).all() and ((shares > 1e-12).sum(1) <= 4).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(101, dtype=torch.float64))
    line = (torch.arange(knots, dtype=torch.float64) - 1) / (knots - 3)
    torch.testing.assert_close(shares @ line, times)
    assert torch.equal(spline_shares(torch.tensor([-1.0, 2.0]), knots), spline_shares(torch.tensor([0.0, 1.0]), knots))


def test_regularisation_is_the_bend_of_what_gaussians_do():
    motion = Basis(trajectories=3, knots=7)
    motion.begin(random_gaussians(20))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        motion.curves.copy_(torch.randn(7, 3, 3, generator=random))
        motion.weights.copy_(torch.randn(20, 3, generator=random))
        offsets = torch.einsum("nk,pkd->pnd", motion.weights, motion.curves)
        want = offsets.diff(n=2, dim=0).square().sum(-1).mean()
        torch.testing.assert_close(motion.regularisation(), want)
        # The same motion, written with small curves and large weights, is no better.
        motion.curves /= 10
        motion.weights *= 10
        torch.testing.assert_close(motion.regularisation(), want)
        motion.curves.copy_(torch.linspace(0, 1, 7)[:, None, None].expand(7, 3, 3))
        assert float(motion.regularisation()) < 1e-10


def test_neighbours_start_alike():
    gaussians = random_gaussians(400)
    motion = Basis(trajectories=6)
    motion.begin(gaussians)
    weights = motion.weights.detach()
    torch.testing.assert_close(weights.sum(1), torch.ones(400))
    distance = torch.cdist(gaussians.means, gaussians.means)
    unlike = torch.cdist(weights, weights)
    assert unlike[distance < 0.1].mean() < 0.3 * unlike[distance > 1].mean()
    assert (weights.amax(0) > 0.3).all()  # each trajectory is somebody's


def test_fewer_gaussians_than_trajectories():
    gaussians = random_gaussians(5)
    motion = Basis(trajectories=8)
    motion.begin(gaussians)
    assert motion.weights.shape == (5, 8) and torch.isfinite(motion.weights).all()


def test_knots_follow_the_times():
    assert [knots_for(times) for times in (1, 2, 8, 60, 1000)] == [4, 4, 10, 62, 128]


@pytest.mark.parametrize("settings", [{"knots": 3}, {"trajectories": 0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Basis(**settings)
