from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import RADIUS, ball_cameras, ball_capture
from scipy.spatial.transform import Rotation

from fourdgs import Cameras, Gaussians, InputError, Model, Static
from fourdgs.floaters import COLUMNS, Hull, floaters, outlier_share, speck_figures

SIZE = 64


def shell(count: int = 1500) -> Gaussians:
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z**2)
    points = RADIUS * 0.97 * np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1)
    return Gaussians.from_points(points, np.full((count, 3), 0.5), opacity=0.95, scale=0.5)


def with_specks(gaussians: Gaussians, places: torch.Tensor, size: float = 0.03) -> Gaussians:
    """The same and small opaque Gaussians at ``places`` [k, 3]."""
    new = Gaussians.from_points(np.eye(4, 3, dtype=np.float32), np.full((4, 3), 0.5), opacity=0.95)
    tensors = {key: value[:1].expand(len(places), *value.shape[1:]) for key, value in new.items().items()}
    tensors |= {"means": places, "scales": torch.full((len(places), 3), float(np.log(size)))}
    return Gaussians(**{key: torch.cat([value, tensors[key]]) for key, value in gaussians.items().items()})


def before(camera: Cameras, pixels: list[tuple[float, float]], depth: float) -> torch.Tensor:
    """World points [k, 3] at pixels (x, y) and a depth of one camera."""
    rays = torch.tensor([[x, y, 1.0] for x, y in pixels]) @ torch.linalg.inv(camera.Ks[0]).T
    return (rays * depth - camera.viewmats[0, :3, 3]) @ camera.viewmats[0, :3, :3]


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("ball"), ball_cameras(6, SIZE))


def table(gaussians: Gaussians, cameras: Cameras, subject=None, **more):
    return floaters(Model(gaussians, Static()), cameras, subject, progress=False, **more)


def test_a_clean_ball_has_none(capture):
    found = table(shell(), ball_cameras(5, SIZE, start_deg=20), capture)
    assert tuple(found.columns) == COLUMNS and len(found) == 5
    assert (found[["outside", "specks", "speck_light", "depth_outliers"]] == 0).all(axis=None)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_each_gaussian_alone_before_the_camera_is_one_speck(capture, count):
    camera = ball_cameras(4, SIZE, start_deg=20)[1]
    places = before(camera, [(5, 5), (58, 6), (6, 57), (58, 58), (4, 30)][:count], 2.5)
    found = table(with_specks(shell(), places), camera, capture).iloc[0]
    assert found.specks == count and 0 < found.speck_light < 0.1
    assert found.speck_light <= found.outside < 1.2 * found.speck_light  # their rims are too faint for a speck


def test_specks_before_the_subject_are_outliers_of_depth_and_light_from_outside(capture):
    camera = ball_cameras(4, SIZE, start_deg=20)[1]
    shares = []
    for count in (1, 4):
        places = before(camera, [(28, 28), (36, 36), (28, 37), (37, 28)][:count], 2.0)
        found = table(with_specks(shell(), places, size=0.008), camera, capture).iloc[0]
        assert found.specks == 0 and found.outside > 0
        shares.append(found.depth_outliers)
    assert 0 < shares[0] and shares[1] == pytest.approx(4 * shares[0], rel=0.5)


def test_scene_and_cameras_moved_together_give_the_same_figures(capture):
    motion = torch.eye(4, dtype=torch.float64)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.3])
    motion[:3, :3], motion[:3, 3] = torch.from_numpy(turn.as_matrix()), torch.tensor([0.5, -2.0, 1.0])

    def moved(cameras: Cameras) -> Cameras:
        return Cameras(cameras.viewmats.double() @ torch.linalg.inv(motion), cameras.Ks, cameras.sizes, cameras.times)

    path = ball_cameras(3, SIZE, start_deg=20)
    scene = with_specks(shell(), torch.cat([before(path[0], [(5, 5), (30, 30)], 2.5), torch.tensor([[0, 0.75, 0]])]))
    x, y, z, w = turn.as_quat()
    turned = scene.replace(
        means=(scene.means.double() @ motion[:3, :3].T + motion[:3, 3]).float(),
        quats=torch.tensor([[w, x, y, z]], dtype=torch.float32).expand(len(scene), 4),  # all were upright
    )
    one = table(scene, path, capture)
    other = table(turned, moved(path), capture.with_frames(cameras=moved(capture.cameras)))
    assert one.outside.max() > 0 and one.specks.max() > 0
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_the_wider_the_hull_the_less_is_outside(capture):
    scene = with_specks(shell(), torch.tensor([[0.0, RADIUS + 0.1 * k, 0.0] for k in range(5)]))
    found = [table(scene, ball_cameras(2, SIZE), capture, dilate=d).outside.mean() for d in (0.0, 0.1, 0.2, 0.5)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_the_hull_holds_the_ball_and_little_else(capture):
    hull = Hull(capture, 0.0)
    assert hull.holds(0.9 * shell().means).all()
    assert not hull.holds(1.6 * shell().means).any()
    assert not hull.holds(torch.tensor([[50.0, 0, 0]])).any()


def test_an_empty_scene_has_none(capture):
    faint = shell().replace(opacities=torch.full((1500,), -30.0))
    found = table(faint, ball_cameras(2, SIZE), capture)
    assert found.outside.isna().all() and (found.drop(columns="outside") == 0).all(axis=None)


def test_without_a_subject_nothing_is_said_of_outside():
    assert table(shell(), ball_cameras(2, SIZE)).outside.isna().all()


def test_specks_are_all_but_the_one_with_the_most_light():
    alpha = np.zeros((20, 20))
    alpha[2:9, 2:9] = 1
    alpha[15, 15] = alpha[16, 16] = 0.5  # by a corner: one
    alpha[2, 18] = 0.5
    alpha[12, 2] = 0.05  # too faint
    count, light = speck_figures(alpha)
    assert count == 2 and light == pytest.approx(1.5 / alpha.sum())


def test_a_plane_has_no_outliers_at_any_slope_and_a_spike_is_one():
    y, x = np.mgrid[:30, :30]
    shown = np.hypot(x - 14, y - 14) < 12
    for slope in (0.0, 1e-3, 0.1, 2.0):
        plane = 4 + slope * x + 0.5 * slope * y
        assert outlier_share(plane, shown) == 0
        plane[14, 14] -= 2 + 30 * slope
        assert outlier_share(plane, shown) == pytest.approx(1 / shown.sum())


def test_what_cannot_be_is_refused(capture):
    solid = capture.with_pictures({row: (rgb, None) for row, (rgb, _) in enumerate(capture.memory.values())})
    with pytest.raises(InputError, match="subject"):
        table(shell(), ball_cameras(1, SIZE), solid)
    with pytest.raises(InputError, match="dilate"):
        Hull(capture, -1)
