from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians

from fourdgs import InputError
from fourdgs.model import render_gaussians
from fourdgs.pose_refine import PoseCorrection, rigid

WHITE = torch.ones(3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def corrections(count: int = 6, size: int = 32, **prior) -> tuple[PoseCorrection, torch.Tensor]:
    viewmats = ball_cameras(count, size).viewmats
    return PoseCorrection(viewmats, list(range(count)), radius=1.0, **prior), viewmats


def learned(made: PoseCorrection, values: torch.Tensor) -> PoseCorrection:
    with torch.no_grad():
        made.twist.copy_(values)
    return made


@pytest.mark.parametrize("size", [0.0, 1e-4, 0.05, 0.0999, 0.1001, 1.0, 3.0])
def test_rigid_is_the_exponential_of_the_twist(size):
    twists = noise(5, 6).double()
    twists = size * twists / twists[:, :3].norm(dim=1, keepdim=True)
    generator = torch.zeros(5, 4, 4, dtype=torch.float64)
    x, y, z = twists[:, :3].T
    for (i, j), value in zip([(0, 1), (0, 2), (1, 2)], (-z, y, -x), strict=True):
        generator[:, i, j], generator[:, j, i] = value, -value
    generator[:, :3, 3] = twists[:, 3:]
    torch.testing.assert_close(rigid(twists), torch.linalg.matrix_exp(generator), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("size", [0.0, 0.03, 0.7])
def test_rigid_has_the_right_gradient_even_at_nothing(size):
    assert torch.autograd.gradcheck(rigid, (size * noise(2, 6).double()).requires_grad_())


def test_at_the_start_nothing_is_changed():
    made, viewmats = corrections()
    assert torch.equal(made.apply(viewmats, torch.arange(6)), viewmats)
    assert made.regularisation().item() == 0 and made.sizes().abs().max() == 0


def test_a_motion_of_all_cameras_with_the_world_is_no_correction():
    """If each camera is given the twist by which it sees one small motion of the world, nothing is left of it."""
    made, viewmats = corrections(sigma_deg=1.0, sigma_share=0.02)
    world = 1e-3 * noise(6).double()
    seen = viewmats.double() @ rigid(world) @ torch.linalg.inv(viewmats.double())  # V g V^-1
    turn = torch.stack([seen[:, 2, 1], seen[:, 0, 2], seen[:, 1, 0]], -1)
    common = torch.cat([turn, seen[:, :3, 3]], -1).float() / made.sigma
    left = learned(made, common).twists().norm() / (common * made.sigma).norm()
    assert left < 5e-3  # turning and shifting commute to first order


def test_removing_what_is_common_is_a_projection_and_never_lengthens():
    made, _ = corrections()
    once = learned(made, noise(6, 6)).twists() / made.sigma
    assert once.norm() < made.twist.norm()
    torch.testing.assert_close(learned(made, once.detach()).twists() / made.sigma, once, atol=1e-4, rtol=1e-3)


def test_one_camera_alone_has_nothing_to_correct():
    made = PoseCorrection(ball_cameras(3, 8).viewmats[:1], [0], radius=1.0)
    assert learned(made, noise(1, 6)).twists().abs().max() < 1e-5


def test_corrected_poses_are_rigid_and_frames_of_one_camera_share_theirs():
    viewmats = ball_cameras(3, 8).viewmats[[0, 0, 1, 2, 1]]
    made = learned(PoseCorrection(viewmats, [0, 0, 1, 2, 1], radius=1.0), 3 * noise(3, 6))
    rows = torch.tensor([4, 2, 1, 0, 3])
    new = made.apply(viewmats[rows], rows)
    rotation = new[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(new[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(5, 4))
    assert torch.equal(new[0], new[1]) and torch.equal(new[2], new[3]) and (new[4] - viewmats[3]).abs().max() > 1e-3


def test_centres_follow_the_corrected_poses():
    made, _ = corrections()
    views = ball_cameras(6, 32).views()
    new = learned(made, noise(6, 6)).correct(views, torch.arange(6))
    torch.testing.assert_close(new.positions, torch.linalg.inv(new.viewmats)[:, :3, 3], atol=1e-5, rtol=1e-5)


def test_the_gradient_through_the_rasteriser_is_that_of_moving_the_gaussians():
    """Turning a camera is turning the scene the other way: both ways to the same gradient of the same picture."""
    gaussians, cameras = random_gaussians(60), ball_cameras(1, 24)
    weights = noise(1, 24, 24, 3)
    twist = torch.zeros(1, 6, requires_grad=True)
    views = cameras.views()
    rgb, _ = render_gaussians(gaussians, views._replace(viewmats=rigid(twist) @ views.viewmats), WHITE)
    (by_view,) = torch.autograd.grad((rgb * weights).sum(), twist)
    view = views.viewmats[0].clone()
    means = gaussians.means.clone().requires_grad_()
    turn = torch.zeros(1, 6, requires_grad=True)
    motion = torch.linalg.inv(view) @ rigid(turn)[0] @ view
    moved = means.detach() @ motion[:3, :3].T + motion[:3, 3]
    quats = turned(gaussians.quats, view[:3, :3].T @ turn[0, :3])
    rgb, _ = render_gaussians(gaussians.replace(means=moved, quats=quats), views, WHITE)
    (by_scene,) = torch.autograd.grad((rgb * weights).sum(), turn)
    assert by_view.norm() > 1
    torch.testing.assert_close(by_view, by_scene, rtol=1e-3, atol=1e-3 * float(by_view.norm()))


def turned(quats: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Quaternions wxyz after a small turn by a rotation vector, to first order."""
    w, v = quats[:, :1], quats[:, 1:]
    half = (vector / 2).expand_as(v)
    return quats + torch.cat([-(half * v).sum(-1, keepdim=True), half * w + torch.linalg.cross(half, v)], dim=-1)


def test_cameras_that_are_off_by_a_degree_are_found_back():
    gaussians, cameras = random_gaussians(150, seed=3), ball_cameras(6, 40)
    gaussians = gaussians.replace(opacities=gaussians.opacities + 1)
    views, rows = cameras.views(), torch.arange(6)
    truth, _ = render_gaussians(gaussians, views, WHITE)
    off = PoseCorrection(views.viewmats, rows.tolist(), radius=1.0, sigma_deg=1.0, sigma_share=0.02)
    axes = torch.nn.functional.normalize(noise(6, 3, seed=5), dim=1)
    learned(off, torch.cat([axes, torch.zeros(6, 3)], 1))  # a degree each, less what they have in common
    wrong = views._replace(viewmats=off.apply(views.viewmats, rows).detach())
    made = PoseCorrection(wrong.viewmats, rows.tolist(), radius=1.0, sigma_deg=1.0, sigma_share=0.02)
    before = apart(wrong.viewmats, views.viewmats)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(80):
        rgb, _ = render_gaussians(gaussians, made.correct(wrong, rows), WHITE)
        loss = (rgb - truth).abs().mean() + 1e-4 * made.regularisation()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = apart(made.apply(wrong.viewmats, rows).detach(), views.viewmats)
    assert before.mean() > 0.5 and after.mean() < before.mean() / 5


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The angles [C] between the rotations of view matrices, degrees; by their chord, for small ones."""
    return 2 * torch.asin((one[:, :3, :3] - other[:, :3, :3]).norm(dim=(1, 2)) / math.sqrt(8)) * 180 / math.pi


def test_the_prior_is_that_of_its_units():
    made, _ = corrections(sigma_deg=0.5, sigma_share=0.01)
    values = learned(made, noise(6, 6)).twists()
    expected = 0.5 * ((values[:, :3] / math.radians(0.5)) ** 2 + (values[:, 3:] / 0.01) ** 2).sum(1).mean()
    torch.testing.assert_close(made.regularisation(), expected)


def test_frames_of_a_capture_share_by_camera_and_pose(tmp_path):
    cameras = ball_cameras(3, 8)[[0, 1, 2, 0]].with_times(np.linspace(0, 1, 4))
    capture = ball_capture(tmp_path, cameras)
    names = capture.with_frames(capture.frames.assign(camera=["a", "b", "c", "a"]))
    assert PoseCorrection.of(names).camera.tolist() == [0, 1, 2, 0]
    moving = capture.with_frames(capture.frames.assign(camera="one"))
    assert PoseCorrection.of(moving).camera.tolist() == [0, 1, 2, 0]


def test_what_cannot_be_is_refused():
    viewmats = ball_cameras(2, 8).viewmats
    with pytest.raises(InputError, match="sigma_deg"):
        PoseCorrection(viewmats, [0, 1], radius=1.0, sigma_deg=0.0)
    with pytest.raises(InputError, match="viewmats"):
        PoseCorrection(viewmats, [0], radius=1.0)
    with pytest.raises(InputError, match="cameras"):
        PoseCorrection(viewmats, [0, 2], radius=1.0)
