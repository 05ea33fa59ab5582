from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import RADIUS, ball_cameras, ball_capture

from fourdgs import Cameras, Gaussians, InputError
from fourdgs.gaussians import hull_points
from fourdgs.surface_points import surface_points

COARSE = {"resolution": 40}


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """Four views of a ball: its hull has corners."""
    return ball_capture(tmp_path_factory.mktemp("ball"), ball_cameras(4, 96))


def off(points: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(points, axis=1) - RADIUS)


def true_colors(points: np.ndarray) -> np.ndarray:
    return 0.5 + 0.45 * np.sin(5 * points * (RADIUS / np.linalg.norm(points, axis=1))[:, None])


def test_points_and_colours_are_nearer_to_the_surface_than_the_hulls(ball):
    hull, from_hull = hull_points(ball, 3000, resolution=72)
    points, colors = surface_points(ball, 3000, resolution=44)  # voxels of about the same size
    assert off(points).mean() < 0.85 * off(hull).mean()
    assert np.quantile(off(points), 0.9) < 0.85 * np.quantile(off(hull), 0.9)
    errors = [np.abs(c - true_colors(p)).mean() for p, c in ((points, colors), (hull, from_hull))]
    assert errors[0] < 0.08 and errors[0] < errors[1]
    assert colors.min() >= 0 and colors.max() <= 1


def test_what_few_views_have_in_their_picture_is_no_part_of_the_hull(tmp_path):
    """Seven narrow views leave corners beyond the ball that only two or three of them could rule out."""
    seven = ball_capture(tmp_path, ball_cameras(7, 48))
    points, _ = surface_points(seven, 2000, reach=0, **COARSE)
    assert off(points).max() < 0.2


def test_without_a_reach_they_are_on_the_hull_and_a_reach_only_goes_inwards(ball):
    still, _ = surface_points(ball, 4000, reach=0, **COARSE)
    moved, _ = surface_points(ball, 4000, **COARSE)
    assert np.linalg.norm(still, axis=1).min() > RADIUS - 0.1  # the hull contains the ball, up to two voxels
    # One seed draws the same voxels and the same noise.
    assert np.linalg.norm(moved, axis=1).mean() < np.linalg.norm(still, axis=1).mean()
    assert 0 < np.linalg.norm(moved - still, axis=1).max() < 0.2


def test_a_scene_of_one_colour_leaves_the_hull_as_it_is(ball):
    """Where colours say nothing the surface stays: agreement is as good anywhere."""
    grey = {row: (np.full_like(rgb, 120), alpha) for row, (rgb, alpha) in enumerate(ball.memory.values())}
    still, _ = surface_points(ball.with_pictures(grey), 1000, reach=0, **COARSE)
    moved, colors = surface_points(ball.with_pictures(grey), 1000, **COARSE)
    np.testing.assert_allclose(moved, still, atol=1e-6)
    np.testing.assert_allclose(colors, 120 / 255, atol=1e-3)


def test_a_world_in_other_units_and_elsewhere_gives_the_same_points(ball):
    views = ball.cameras.viewmats.double().clone()
    shift = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    views[:, :3, 3] = 10 * views[:, :3, 3] - views[:, :3, :3] @ shift  # x -> 10 x + shift
    cameras = Cameras(views, ball.cameras.Ks, ball.cameras.sizes, ball.cameras.times)
    one, _ = surface_points(ball, 2000, **COARSE)
    other, _ = surface_points(ball.with_frames(cameras=cameras), 2000, **COARSE)
    back = (other - shift.numpy()) / 10
    # A voxel on the rim of a mask may fall to either side by rounding, and another then stands in its row.
    assert off(back).mean() == pytest.approx(off(one).mean(), rel=0.1)


def test_one_seed_one_set_of_points_and_any_count(ball):
    one, two, other = (surface_points(ball, 500, seed=seed, **COARSE)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    many, colors = surface_points(ball, 20_000, **COARSE)
    assert many.shape == colors.shape == (20_000, 3) and many.dtype == colors.dtype == np.float32
    assert len(Gaussians.from_points(many, colors)) == 20_000


def test_opaque_frames_beside_masked_ones_do_not_spoil_the_surface(ball):
    first = ball.memory[ball.frames["frame"][0]][0]
    mixed = surface_points(ball.with_pictures({0: (first, None)}), 1000, **COARSE)
    without = surface_points(ball.select(rows=[1, 2, 3]), 1000, **COARSE)
    assert np.array_equal(mixed[0], without[0]) and np.array_equal(mixed[1], without[1])


def test_what_cannot_be_is_refused(ball):
    pictures = list(ball.memory.values())
    with pytest.raises(InputError, match="no alpha or masks"):
        surface_points(ball.with_pictures({row: (rgb, None) for row, (rgb, _) in enumerate(pictures)}), 10)
    empty = {row: (rgb, np.zeros_like(alpha)) for row, (rgb, alpha) in enumerate(pictures)}
    with pytest.raises(InputError, match="share no volume"):
        surface_points(ball.with_pictures(empty), 10)
    with pytest.raises(InputError, match="reach"):
        surface_points(ball, 10, reach=-1)
