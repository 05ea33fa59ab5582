"""Cameras: one convention inside, another in files, and the numbers that follow from both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fourdgs.cameras import Cameras, orbit
from fourdgs.errors import InputError

LOOK = {"fov_x_deg": 50.0, "width": 64, "height": 48}


def project(cameras: Cameras, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, 3] world points to [C, N, 2] pixels and [C, N] depths, straight from the definition."""
    views, Ks = cameras.viewmats.double(), cameras.Ks.double()
    inside = points.double() @ views[:, :3, :3].transpose(1, 2) + views[:, None, :3, 3]
    homogeneous = inside @ Ks.transpose(1, 2)
    return homogeneous[..., :2] / homogeneous[..., 2:], inside[..., 2]


def random_cameras(count: int, seed: int = 0) -> Cameras:
    positions = np.random.default_rng(seed).normal(size=(count, 3)) + [0, 0, 5]
    return Cameras.look_at(positions, times=np.linspace(0, 1, count), **LOOK)


def random_points(count: int = 50) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).uniform(-0.5, 0.5, (count, 3)))


def test_look_at_puts_the_target_in_the_middle():
    targets = np.random.default_rng(1).uniform(-1, 1, (8, 3))
    positions = np.random.default_rng(2).normal(size=(8, 3)) * 4
    cameras = Cameras.look_at(positions, targets, **LOOK)
    pixels, depths = project(cameras, torch.from_numpy(targets))
    middle = torch.stack([pixels[i, i] for i in range(8)])
    assert torch.allclose(middle, torch.tensor([32.0, 24.0]).double().expand(8, 2), atol=1e-4)
    distance = torch.from_numpy(np.linalg.norm(targets - positions, axis=1))
    assert torch.allclose(depths.diagonal(), distance, atol=1e-5)
    assert torch.allclose(cameras.positions.double(), torch.from_numpy(positions), atol=1e-5)
    assert torch.allclose(
        cameras.forwards.double() * distance[:, None], torch.from_numpy(targets - positions), atol=1e-5
    )


def test_ninety_degrees_reach_one_unit_aside_at_depth_one():
    camera = Cameras.look_at([0, 0, 2], fov_x_deg=90, width=200, height=100)
    assert torch.allclose(camera.Ks[0], torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]), atol=1e-4)
    # From +z, the world's x goes to the right; at depth 2 the picture's right edge is 2 aside, its top edge 1 up.
    pixels, _ = project(camera, torch.tensor([[2.0, 0, 0], [0, 1, 0], [-2, -1, 0]]))
    assert torch.allclose(pixels[0], torch.tensor([[200.0, 50], [100, 0], [0, 100]]).double(), atol=1e-4)


def test_what_is_higher_in_the_world_is_higher_in_the_picture():
    cameras = orbit(12, elevation_deg=20)
    pixels, depths = project(cameras, torch.tensor([[0, 0.3, 0], [0, -0.3, 0.0]]))
    assert (depths > 0).all()
    assert (pixels[:, 0, 1] < pixels[:, 1, 1]).all()


def test_azimuth_starts_on_z_and_grows_towards_x():
    cameras = orbit(4, radius=3, target=(1, 2, 3))
    expected = torch.tensor([[0.0, 0, 3], [3, 0, 0], [0, 0, -3], [-3, 0, 0]]) + torch.tensor([1.0, 2, 3])
    assert torch.allclose(cameras.positions, expected, atol=1e-5)
    started = orbit(1, radius=2, azimuth_start_deg=90, elevation_deg=30).positions[0]
    assert started.tolist() == pytest.approx([2 * math.cos(math.radians(30)), 1, 0], abs=1e-5)
    backwards = orbit(4, turns=-1, radius=1).positions[1]
    assert backwards.tolist() == pytest.approx([-1, 0, 0], abs=1e-5)


def test_an_orbit_holds_its_target_at_the_poles_too():
    for elevation in (-90, -40, 0, 89.99, 90):
        cameras = orbit(5, elevation_deg=elevation, target=(0.1, 0.2, 0.3), times=0.25)
        pixels, depths = project(cameras, torch.tensor([[0.1, 0.2, 0.3]]))
        assert torch.allclose(pixels, torch.full_like(pixels, 200), atol=1e-2)
        assert torch.allclose(depths, torch.full_like(depths, 4), atol=1e-5)
        assert (cameras.times == 0.25).all()


def test_an_orbit_fits_any_up():
    for up in ((0, 0, 1), (0, -2, 0), (1, 1, 0)):
        axis = torch.nn.functional.normalize(torch.tensor(up).float(), dim=0)
        cameras = orbit(6, up=up, elevation_deg=30)
        assert torch.allclose(cameras.positions @ axis, torch.full((6,), 2.0), atol=1e-5)
        pixels, _ = project(cameras, torch.stack([0.2 * axis, -0.2 * axis]))
        assert (pixels[:, 0, 1] < pixels[:, 1, 1] - 1).all()
        assert torch.allclose(pixels[:, 0, 0], pixels[:, 1, 0], atol=1e-2)
    # y up turned to z up, as Blender has it: the front is on -y.
    assert orbit(4, radius=1, up=(0, 0, 1)).positions[0].tolist() == pytest.approx([0, -1, 0], abs=1e-6)


def test_opengl_and_back_changes_no_bit():
    for cameras in (random_cameras(20), orbit(24, elevation_deg=17), orbit(4, elevation_deg=90)):
        again = Cameras.from_opengl(cameras.to_opengl(), cameras.Ks, sizes=cameras.sizes, times=cameras.times)
        assert torch.equal(again.viewmats, cameras.viewmats)
        assert torch.equal(again.Ks, cameras.Ks)
        assert torch.equal(again.times.nan_to_num(-1), cameras.times.nan_to_num(-1))
        assert torch.equal(again.sizes, cameras.sizes)


def test_opengl_identity_looks_along_minus_z_with_y_up():
    camera = Cameras.from_opengl(np.eye(4)[None], fov_x_deg=90, sizes=(100, 100), times=None)
    assert camera.forwards[0].tolist() == [0, 0, -1]
    assert camera.times.isnan().all()
    pixels, depths = project(camera, torch.tensor([[0.5, 0.25, -1.0]]))
    assert depths[0, 0] == 1
    assert pixels[0, 0].tolist() == pytest.approx([75, 37.5])
    moved = np.eye(4)
    moved[:3, 3] = [1, 2, 3]
    assert Cameras.from_opengl([moved], focal=10, sizes=(4, 4)).positions[0].tolist() == [1, 2, 3]


def test_resizing_then_projecting_is_projecting_then_scaling():
    cameras, points = random_cameras(5), random_points()
    before, _ = project(cameras, points)
    after, _ = project(cameras.resized(20, 96), points)
    assert torch.allclose(after, before * torch.tensor([20 / 64, 96 / 48]).double(), atol=1e-4)
    each = cameras.resized(torch.tensor([8, 16, 32, 64, 128]), 48)
    assert each.sizes[:, 0].tolist() == [8, 16, 32, 64, 128]
    assert torch.equal(each[3].Ks, cameras[3].Ks)


def test_any_index_gives_a_batch():
    cameras = random_cameras(6)
    for index, rows in (
        (2, [2]),
        (-1, [5]),
        (np.int64(3), [3]),
        (slice(1, None, 2), [1, 3, 5]),
        ([4, 0], [4, 0]),
        (torch.tensor([1, 1]), [1, 1]),
        (torch.tensor(3), [3]),
        ([True, False, False, False, False, True], [0, 5]),
        (np.arange(6) > 3, [4, 5]),
        (torch.arange(6) < 1, [0]),
        ([], []),
    ):
        assert torch.equal(cameras[index].viewmats, cameras.viewmats[rows])
        assert torch.equal(cameras[index].times, cameras.times[rows])
    assert [len(camera) for camera in cameras] == [1] * 6
    with pytest.raises(IndexError):
        cameras[6]
    joined = Cameras.concatenate(list(cameras))
    assert torch.equal(joined.viewmats, cameras.viewmats) and len(joined) == 6


def test_one_width_or_an_error():
    small, large = orbit(2, width=10, height=20), orbit(1, width=30, height=20)
    assert (small.width, small.height) == (10, 20)
    mixed = Cameras.concatenate([small, large])
    assert mixed.height == 20
    with pytest.raises(InputError, match="2 different widths"):
        _ = mixed.width


def test_times_are_in_the_unit_interval_or_none():
    cameras = random_cameras(3)
    assert cameras.with_times(None).times.isnan().all()
    assert cameras.with_times(0.5).times.tolist() == [0.5] * 3
    assert cameras.with_times([0, float("nan"), 1]).times.isnan().tolist() == [False, True, False]
    for bad in (1.5, [0, 0, -0.1], [0, 1], [0.0] * 4):
        with pytest.raises(InputError, match="times"):
            cameras.with_times(bad)


def _pose(change):
    pose = np.eye(4)
    change(pose)
    return pose[None]


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        (_pose(lambda p: p.__setitem__((0, 3), np.nan)), "not finite"),
        (_pose(lambda p: p.__setitem__((1, 1), np.inf)), "not finite"),
        (_pose(lambda p: p.__setitem__((0, 0), -1)), "mirrors"),
        (_pose(lambda p: p.__setitem__((slice(3), slice(3)), 2 * np.eye(3))), "scale of 2"),
        (_pose(lambda p: p.__setitem__((0, 1), 0.3)), "not a rotation"),
        (_pose(lambda p: p.__setitem__((slice(3), slice(3)), 0)), "not a rotation"),
        (_pose(lambda p: p.__setitem__((3, 0), 1)), "last row"),
        (np.eye(3)[None], "shape"),
    ],
)
def test_poses_that_are_no_rigid_motion_are_refused(pose, words):
    with pytest.raises(InputError, match=words) as caught:
        Cameras.from_opengl(pose, fov_x_deg=50, sizes=(8, 8))
    assert caught.value.field == "c2w"


def test_a_rotation_rounded_to_three_digits_is_accepted():
    rounded = random_cameras(5).to_opengl().numpy()
    rounded[:, :3, :3] = rounded[:, :3, :3].round(4)
    assert len(Cameras.from_opengl(rounded, fov_x_deg=50, sizes=(8, 8))) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one"),
        ({"focal": 5, "fov_x_deg": 50}, "exactly one"),
        ({"fov_x_deg": 180}, "between 0 and 180"),
        ({"focal": 0}, "positive"),
        ({"focal": -3}, "positive"),
        ({"focal": float("nan")}, "positive"),
        ({"Ks": np.eye(2)}, "shape"),
        ({"focal": 5, "sizes": (0, 8)}, "sizes"),
        ({"focal": 5, "times": 2}, "times"),
    ],
)
def test_intrinsics_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Cameras.from_opengl(np.eye(4)[None], **{"sizes": (8, 8), **arguments})


def test_a_look_that_is_not_defined_is_refused():
    with pytest.raises(InputError, match="sits on its target"):
        Cameras.look_at([1, 1, 1], [1, 1, 1], **LOOK)
    with pytest.raises(InputError, match="looks along it"):
        Cameras.look_at([0, 4, 0], **LOOK)
    assert len(Cameras.look_at([0, 4, 0], up=(0, 0, -1), **LOOK)) == 1
    for arguments in ({"frames": 0}, {"frames": 2, "radius": 0}, {"frames": 2, "up": (0, 0, 0)}):
        with pytest.raises(InputError):
            orbit(**arguments)


def test_shapes_that_do_not_fit_are_refused():
    good = random_cameras(2)
    with pytest.raises(InputError, match=r"Ks: has shape \[1, 3, 3\], must be \[2, 3, 3\]"):
        Cameras(good.viewmats, good.Ks[:1], good.sizes, good.times)
    with pytest.raises(InputError, match="nothing"):
        Cameras.concatenate([])
    with pytest.raises(InputError, match="at least one pixel"):
        good.resized(0, 5)


def test_dtypes_are_the_house_s():
    cameras = orbit(2)
    assert [value.dtype for value in (cameras.viewmats, cameras.Ks, cameras.sizes, cameras.times)] == [
        torch.float32,
        torch.float32,
        torch.int64,
        torch.float32,
    ]
    assert cameras.to_opengl().dtype == torch.float64
    assert cameras.to("cpu").device == torch.device("cpu")
    assert "2 of 400x400" in repr(cameras)
