from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import RADIUS, ball_cameras, ball_capture, random_gaussians

from fourdgs import Gaussians, InputError, initial_gaussians
from fourdgs.gaussians import SH_C0, frusta_points, hull_points, look_at_point


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("ball"), ball_cameras(8, 48))


def test_hull_points_lie_on_the_ball_and_have_its_colours(ball):
    points, colors = hull_points(ball, 2000)
    distance = np.linalg.norm(points, axis=1)
    # The hull contains the ball; eight cameras and 48 pixels leave it a little larger.
    assert distance.min() > RADIUS - 0.1 and np.median(distance) < RADIUS + 0.12
    truth = 0.5 + 0.45 * np.sin(5 * points * (RADIUS / distance)[:, None])
    assert np.median(np.abs(colors - truth)) < 0.12


def test_hull_needs_masks(ball):
    solid = ball.with_pictures({row: (rgb, None) for row, (rgb, _) in enumerate(ball.memory.values())})
    with pytest.raises(InputError, match="no alpha or masks"):
        hull_points(solid, 10)
    assert len(initial_gaussians(solid, 50)) == 50  # auto falls back to frusta


def test_masks_that_share_no_volume_are_an_error(ball):
    empty = ball.with_pictures({row: (rgb, np.zeros_like(a)) for row, (rgb, a) in enumerate(ball.memory.values())})
    with pytest.raises(InputError, match="share no volume"):
        hull_points(empty, 10)


def test_opaque_frames_beside_masked_ones_do_not_spoil_the_hull(ball):
    name = ball.frames["frame"][0]
    mixed = ball.with_pictures({0: (ball.memory[name][0], None)})
    start = initial_gaussians(mixed, 500, how="hull")
    assert start.means.norm(dim=1).median() < RADIUS + 0.15


def test_frusta_points_project_to_the_pixel_they_took_their_colour_from(ball):
    points, colors = frusta_points(ball, 300, seed=3)
    rgb = ball.pictures()[0].numpy() / 255
    best = np.full(len(points), np.inf)
    for index in range(len(ball)):
        camera = points @ ball.cameras.viewmats[index, :3, :3].numpy().T + ball.cameras.viewmats[index, :3, 3].numpy()
        pixel = camera @ ball.cameras.Ks[index].numpy().T
        pixel = np.floor(pixel[:, :2] / pixel[:, 2:] + 1e-3).astype(int)
        seen = (camera[:, 2] > 0) & (pixel >= 0).all(1) & (pixel < 48).all(1)
        error = np.abs(rgb[index][pixel[seen, 1], pixel[seen, 0]] - colors[seen]).max(1)
        best[seen] = np.minimum(best[seen], error)
    # A point on a pixel's very edge may fall into the next one after rounding.
    assert (best < 1e-6).mean() > 0.97


def test_look_at_point_of_an_orbit_is_its_centre(ball):
    centre, radius = look_at_point(ball)
    assert np.abs(centre).max() < 1e-3
    assert radius == pytest.approx(4 * np.sin(np.radians(15)), rel=0.05)


def test_look_at_point_of_one_camera_is_before_it(ball):
    centre, _ = look_at_point(ball.select(rows=[0]))
    offset = centre - ball.cameras.positions[0].numpy()
    assert offset @ ball.cameras.forwards[0].numpy() > 0


def test_from_points_keeps_places_and_colours():
    random = np.random.default_rng(0)
    points, colors = random.normal(size=(50, 3)), random.uniform(size=(50, 3))
    start = Gaussians.from_points(points, colors, sh_degree=2)
    assert torch.allclose(start.means, torch.from_numpy(points).float())
    assert torch.allclose(start.sh0[:, 0] * SH_C0 + 0.5, torch.from_numpy(colors).float(), atol=1e-6)
    assert start.sh_degree == 2 and start.sh.shape == (50, 9, 3)


@pytest.mark.parametrize("points", [np.zeros((3, 3)), np.full((9, 3), np.nan)])
def test_unusable_points_are_refused(points):
    with pytest.raises(InputError, match="not enough"):
        Gaussians.from_points(points, points)


def test_in_box_stays_in_the_box_and_repeats():
    first, second = (Gaussians.in_box(100, (-1, 0, 2), (0, 1, 3), seed=4) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert (first.means >= torch.tensor([-1.0, 0, 2])).all() and (first.means <= torch.tensor([0.0, 1, 3])).all()


def test_unknown_start_is_an_error(ball):
    with pytest.raises(InputError, match="init"):
        initial_gaussians(ball, 10, how="magic")


def test_replace_leaves_the_original():
    start = random_gaussians(5)
    moved = start.replace(means=start.means + 1)
    assert not torch.equal(moved.means, start.means) and moved.quats is start.quats


def test_auto_starts_without_a_hull_where_masks_share_no_volume(ball):
    with pytest.raises(InputError, match="share no volume"):
        initial_gaussians(none_left(ball), 50, how="hull")
    with pytest.warns(UserWarning, match="no visual hull"):
        assert len(initial_gaussians(none_left(ball), 50)) == 50


def none_left(ball):
    """Masks that keep only a corner of each picture, another one for each half of the frames: nothing is in all."""
    pictures = {}
    for row, (rgb, alpha) in enumerate(ball.memory.values()):
        corner = np.zeros_like(alpha)
        corner[:4, :4] = 255
        pictures[row] = (rgb, corner if row % 2 else corner[::-1, ::-1].copy())
    return ball.with_pictures(pictures)
