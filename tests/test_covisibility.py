from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import ball_cameras
from scipy.spatial.transform import Rotation

from fourdgs import Cameras, Gaussians, InputError
from fourdgs.covisibility import (
    covisibility_weights,
    distinct_views,
    lack,
    pixels_seen_by,
    rendered_depths,
    seen_by,
)

RADIUS, SIZE = 0.6, 48


def shell(count: int = 1500) -> Gaussians:
    """An opaque ball: Gaussians on its surface."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z**2)
    points = RADIUS * np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1)
    return Gaussians.from_points(points, np.full((count, 3), 0.5), opacity=0.95)


@pytest.fixture(scope="module")
def ball():
    gaussians, cameras = shell(), ball_cameras(6, SIZE)
    return gaussians, cameras, rendered_depths(gaussians, cameras)


def facing(gaussians: Gaussians, cameras: Cameras) -> torch.Tensor:
    """The sine of a camera's height over each Gaussian's horizon on the ball, [C, N]."""
    toward = cameras.positions[:, None] - gaussians.means
    return (torch.nn.functional.normalize(toward, dim=-1) * gaussians.means / RADIUS).sum(-1)


def test_a_ball_is_seen_by_the_cameras_over_its_horizon(ball):
    gaussians, cameras, _ = ball
    height = facing(gaussians, cameras)
    counts = seen_by(gaussians, cameras)
    surely, perhaps = (height > 0.4).sum(0), (height > -0.1).sum(0)
    assert (counts >= surely).all() and (counts <= perhaps).all()


def test_the_order_of_cameras_and_their_repeats_change_nothing(ball):
    gaussians, cameras, depths = ball
    again = seen_by(gaussians, cameras[[5, 3, 1, 1, 0, 2, 4, 4, 4]])
    assert torch.equal(seen_by(gaussians, cameras), again)
    assert distinct_views(cameras[[0, 0, 2, 2, 1]], depths[[0, 0, 2, 2, 1]]).tolist() == [0, 2, 4]


def test_scene_and_cameras_turned_together_change_nothing(ball):
    gaussians, cameras, _ = ball
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.from_numpy(Rotation.from_rotvec([0.4, -1.1, 0.3]).as_matrix())
    turn[:3, 3] = torch.tensor([0.5, -2.0, 1.0])
    means = (gaussians.means.double() @ turn[:3, :3].T + turn[:3, 3]).float()
    moved = Cameras(cameras.viewmats.double() @ torch.linalg.inv(turn), cameras.Ks, cameras.sizes, cameras.times)
    before, after = seen_by(gaussians, cameras), seen_by(gaussians.replace(means=means), moved)
    assert (before != after).float().mean() < 0.01  # rounding on the edge of a pixel


def test_more_cameras_never_lower_a_count(ball):
    gaussians, cameras, _ = ball
    assert (seen_by(gaussians, cameras) >= seen_by(gaussians, cameras[:4])).all()


def test_what_is_behind_or_outside_of_all_pictures_is_not_seen(ball):
    gaussians, cameras, _ = ball
    lone = shell(4)
    places = torch.tensor([[0.0, 0, 0], [0.0, 0, 50], [9.0, 9, 0], [0.0, 1.0, 0]])
    both = Gaussians(
        **{
            key: torch.cat([value, places if key == "means" else lone.items()[key]])
            for key, value in gaussians.items().items()
        }
    )
    both.scales[-4:] = -6
    counts = seen_by(both, cameras)[-4:]
    assert counts[0] == 0  # the middle of the ball
    assert counts[2] == 0 and counts[3] == len(cameras)  # outside of every picture; over the ball, in all


def test_pixels_agree_with_the_gaussians_that_they_show(ball):
    _, cameras, depths = ball
    counts = pixels_seen_by(depths, cameras)
    shown = depths > 0
    assert (counts[~shown] == 0).all() and (counts[shown] >= 1).all() and (counts <= len(cameras)).all()
    # The middle of a picture faces its camera and, at 60 degrees, both neighbours; three more are behind the ball.
    assert (counts[:, SIZE // 2, SIZE // 2] == 3).all()


def test_one_camera_alone_is_one_view_however_many_frames(ball):
    _, cameras, depths = ball
    counts = pixels_seen_by(depths[[0, 0, 0]], cameras[[0, 0, 0]])
    assert counts.unique().tolist() == [0, 1]
    weights = covisibility_weights(depths[[0, 0, 0]], cameras[[0, 0, 0]], floor=0.4)
    torch.testing.assert_close(weights, torch.where(depths[[0, 0, 0]] > 0, 0.4, 1.0))


def test_weights_are_one_where_enough_views_see_and_where_nothing_is(ball):
    _, cameras, depths = ball
    cameras, depths = cameras[[0, 1, 2, 4]], depths[[0, 1, 2, 4]]
    weights = covisibility_weights(depths, cameras, enough=3, floor=0.2)
    counts = pixels_seen_by(depths, cameras)
    assert counts.unique().tolist() == [0, 1, 2, 3]
    assert (weights[(counts == 0) | (counts >= 3)] == 1).all()
    torch.testing.assert_close(weights[counts == 2], torch.full_like(weights[counts == 2], 0.6))
    assert float(weights.min()) == pytest.approx(0.2)


def test_lack_falls_from_one_to_nothing():
    assert lack(torch.arange(6), enough=4).tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0])


def test_what_cannot_be_is_refused(ball):
    gaussians, cameras, depths = ball
    with pytest.raises(InputError, match="depths"):
        pixels_seen_by(depths[:2], cameras)
    with pytest.raises(InputError, match="slack"):
        seen_by(gaussians, cameras, slack=-1)
    with pytest.raises(InputError, match="enough"):
        lack(torch.ones(2), enough=1)
    with pytest.raises(InputError, match="floor"):
        covisibility_weights(depths, cameras, floor=2)
    with pytest.raises(InputError, match="cameras"):
        seen_by(gaussians, cameras[[]])
