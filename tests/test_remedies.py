"""The remedies that a config switches on: what each must leave alone, and that a training with all of them resumes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import Gaussians, InputError, TrainConfig
from fourdgs.capture import merge
from fourdgs.remedies import from_stills
from fourdgs.trainer import Trainer, degree_for, samplers_of

CPU = torch.device("cpu")
CONFIG = TrainConfig(iterations=30, gaussians=80, initial=1.0, init="box", refine_every=10, checkpoint_every=12)
ALL = replace(
    CONFIG, motion="bones", warmup=0.3, canonical="stills", sampling="balanced", drop=0.2, random_background=True,
    source_look="smooth", pose_prior_deg=0.2, covisibility=0.5, isotropic=True, rest_penalty=0.5, batch=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> fd.Capture:
    """A ball: some frames without a time, some with; two sources."""
    times = torch.cat([torch.full((8,), math.nan), torch.linspace(0, 1, 8)])
    cameras = ball_cameras(16, 24, times=times)
    still, moving = cameras[:8], cameras[8:]
    root = tmp_path_factory.mktemp("mixed")
    return merge([ball_capture(root, still), ball_capture(root, moving, source="clip")])


def step(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.take_step()
    return {key: value.detach().clone() for key, value in trainer.gaussians().items().items()}


def test_a_training_with_every_remedy_resumes_to_the_bit(mixed, tmp_path, monkeypatch):
    whole = fd.train(mixed, ALL, tmp_path / "whole", progress=False)

    class Stopped(Exception):
        pass

    def stop(steps: int) -> None:
        stop.taken += steps
        if stop.taken == 17:
            raise Stopped

    stop.taken = 0
    with pytest.raises(Stopped):
        fd.train(mixed, ALL, tmp_path / "cut", progress=stop)
    again = fd.train(mixed, ALL, tmp_path / "cut", progress=False)
    for key, value in whole.model.gaussians.items().items():
        assert torch.equal(value, again.model.gaussians.items()[key]), key
    for key, value in whole.model.motion.state_dict().items():
        assert torch.equal(value, again.model.motion.state_dict()[key]), key


def test_frames_with_a_time_teach_the_motion_alone():
    random = torch.Generator().manual_seed(0)
    canonical = Gaussians.from_points(torch.randn(9, 3, generator=random).numpy(), torch.rand(9, 3).numpy())
    leaves = {key: value.clone().requires_grad_() for key, value in canonical.items().items()}
    push = torch.zeros(3, requires_grad=True)
    posed = Gaussians(**{key: value.detach() for key, value in leaves.items()})
    posed = posed.replace(means=(posed.means + push).expand(2, -1, -1))
    times = torch.tensor([0.5, math.nan])
    both = from_stills(Gaussians(**leaves), posed, times)
    for key, value in both.items().items():
        assert torch.equal(value[1], leaves[key]), key
    timed = sum(value[0].sum() for value in both.items().values() if value.requires_grad)
    grads = torch.autograd.grad(timed, [push, *leaves.values()], allow_unused=True, retain_graph=True)
    assert grads[0].abs().sum() > 0
    assert all(grad is None or not grad.any() for grad in grads[1:])
    still = both.means[1].sum() + both.opacities[1].sum()
    grads = torch.autograd.grad(still, [push, leaves["means"], leaves["opacities"]], allow_unused=True)
    assert not grads[0].any()
    assert grads[1].all() and grads[2].all()


def test_with_stills_alone_no_frame_of_the_clip_changes_the_scene(mixed):
    config = replace(CONFIG, canonical="stills", motion="bones", warmup=0.0, sampling="time")
    trainer = Trainer(mixed, config, CPU)
    timed = torch.nonzero(~torch.isnan(mixed.cameras.times)).flatten()
    trainer.expect(timed[:4][:, None])
    before = {key: value.detach().clone() for key, value in trainer.gaussians().items().items()}
    penalties = replace(config, opacity_penalty=0.0, scale_penalty=0.0)
    trainer.config = penalties
    for _ in range(4):
        after = step(trainer)
    for key in before:
        torch.testing.assert_close(after[key], before[key], msg=key)
    assert trainer.motion.turns.abs().max() > 0


def test_warm_up_on_stills_draws_no_frame_with_a_time(mixed):
    config = replace(CONFIG, canonical="stills", motion="bones", warmup=0.5)
    trainer = Trainer(mixed, config, CPU)
    trainer._plan()
    times = mixed.cameras.times[trainer.planned.flatten()]
    assert torch.isnan(times[:15]).all()
    assert not torch.isnan(times[15:]).all()
    timed = mixed.with_times(0.5)
    with pytest.raises(InputError, match="every frame has a time"):
        samplers_of(timed, config)


def test_round_gaussians_stay_round(mixed, tmp_path):
    run = fd.train(mixed, replace(CONFIG, isotropic=True), tmp_path / "run", progress=False)
    scales = run.model.gaussians.scales
    assert torch.equal(scales, scales[:, :1].expand_as(scales))
    assert scales[:, 0].std() > 0


@pytest.mark.parametrize("remedy", [{"random_background": True}, {"drop": 0.3}, {"source_look": "colour"}])
def test_what_a_remedy_learns_or_draws_is_not_in_the_model(mixed, tmp_path, remedy):
    """The model renders over its own background whatever it was trained over."""
    run = fd.train(mixed, replace(CONFIG, **remedy), tmp_path / "run", progress=False)
    names = set(fd.Model.load(run.path / "model.safetensors").motion.state_dict())
    assert not names
    assert run.model.background == CONFIG.background


def test_random_backgrounds_change_truth_and_picture_alike(mixed):
    """A perfect model has no loss, whatever the background is."""
    trainer = Trainer(mixed, replace(CONFIG, random_background=True), CPU)
    rows = torch.arange(len(mixed))
    store, where = trainer.feed.pictures(rows), rows
    plain = store.float() / 255
    clear = (255 - mixed.pictures()[1]).float() / 255
    fresh = torch.rand(len(rows), 3)
    truth, place = trainer.remedies.truth(store, where, rows, fresh)
    expected = plain + clear[..., None] * (fresh - 1)[:, None, None]
    torch.testing.assert_close(truth[place].float() / 255, expected, atol=0.003, rtol=0)


def test_validation_ends_a_training_that_gets_worse(mixed, tmp_path):
    """To a camera that shows the grey of the start all over, every step towards the ball is a step away."""
    config = replace(CONFIG, iterations=40, evaluate_every=2, patience=2)
    some = mixed.select(rows=[0, 3])
    grey = {name: (0 * rgb + 140, 0 * alpha + 255) for name, (rgb, alpha) in some.memory.items()}
    run = fd.train(mixed, config, tmp_path / "run", validation=replace(some, memory=grey), progress=False)
    assert run.curve["step"].iloc[-1] < 40
    seen = run.curve["psnr_validation_db"]
    assert max(seen[-2:]) <= max(seen[:-2])
    with pytest.raises(InputError, match="patience"):
        fd.train(mixed, config, tmp_path / "none", progress=False)


@pytest.mark.parametrize(("cameras", "degree"), [(3, 0), (20, 1), (60, 2), (120, 3)])
def test_colours_by_angle_need_cameras(cameras, degree):
    assert degree_for(cameras) == degree


def test_a_training_takes_the_degree_that_its_cameras_allow(mixed):
    assert Trainer(mixed, replace(CONFIG, sh_degree=-1), CPU).gaussians().sh_degree == 0
