"""Angular EMF, the ball that stands in for the subject, co-visibility and extrapolation: identities, then captures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checkup import by_code, look
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import ball_cameras, ball_capture
from test_doctor_structure import SIZE, clip, grid, held_out, moved

import fourdgs as fd
from fourdgs.doctor import coverage, multiview
from fourdgs.doctor.viewpoints import viewpoints


def codes(capture):
    return {code: finding.severity for code, finding in by_code(capture, coverage.CHECKS).items()}


def ring(root, count, *, arc_deg=360.0, start_deg=0.0, elevation_deg=10.0, fov_x_deg=30.0, **more):
    """Stills on a circle; `ball_cameras` varies their height."""
    step = arc_deg / count if arc_deg == 360 else arc_deg / max(count - 1, 1)
    azimuth, elevation = np.radians(start_deg + step * np.arange(count)), math.radians(elevation_deg)
    level = math.cos(elevation)
    positions = 4 * np.stack(
        [level * np.sin(azimuth), np.full(count, math.sin(elevation)), level * np.cos(azimuth)], -1
    )
    cameras = fd.Cameras.look_at(positions, fov_x_deg=fov_x_deg, width=SIZE, height=SIZE)
    return ball_capture(root, cameras, **more)


# --- angular EMF ---


def _circle(count, turns):
    angle = 2 * math.pi * turns * np.arange(count) / (count - 1)
    return np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1), np.arange(count) / (count - 1)


def test_the_factor_of_a_circle_is_its_turns():
    positions, times = _circle(100, 1.5)
    emf = multiview.angular_emf(3 * positions, times, np.zeros(3))
    assert emf.omega_deg_per_clip == pytest.approx(540) and emf.path_deg == pytest.approx(540)
    assert emf.step_deg == pytest.approx(540 / 99) and math.isnan(emf.omega_deg_per_s)
    assert multiview.angular_emf(positions[[0] * 9], times[:9], np.zeros(3)).path_deg == 0


def test_with_a_frame_rate_the_factor_is_the_mean_angle_times_it_and_with_a_duration_it_agrees():
    positions, times = _circle(61, 0.7)
    by_rate = multiview.angular_emf(positions, times, np.zeros(3), fps=30)
    by_time = multiview.angular_emf(positions, times, np.zeros(3), duration_s=2.0)
    assert by_rate.omega_deg_per_s == pytest.approx(252 / 60 * 30)
    assert by_time.omega_deg_per_s == pytest.approx(by_rate.omega_deg_per_s)  # 60 steps at 30 a second are 2 seconds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_the_factor_does_not_depend_on_scale_place_or_order(seed, scale):
    random = np.random.default_rng(seed)
    positions, times, focus = random.normal(size=(12, 3)) + 3, random.permutation(12) / 11, random.normal(size=3)
    expected = multiview.angular_emf(positions, times, focus)
    shift, order = random.normal(size=3), random.permutation(12)
    other = multiview.angular_emf(scale * positions[order] + shift, times[order], scale * focus + shift)
    assert other.omega_deg_per_clip == pytest.approx(expected.omega_deg_per_clip)
    back = multiview.angular_emf(positions, 1 - times, focus)
    assert back.path_deg == pytest.approx(expected.path_deg)


def test_the_factor_of_a_capture_uses_the_point_that_its_cameras_look_at(tmp_path):
    cameras = ring(tmp_path, 20, arc_deg=90).cameras.with_times(np.linspace(0, 1, 20))
    seen = look(moved(ball_capture(tmp_path, cameras)))
    # A circle at 10 degrees of height: less than 90 degrees about the focus.
    step = math.degrees(math.acos(1 - 2 * (math.cos(math.radians(10)) * math.sin(math.radians(90 / 38))) ** 2))
    assert multiview.measure_emf(seen).path_deg == pytest.approx(19 * step, rel=1e-4)


def test_a_clip_of_one_camera_has_no_multiview_signal_and_a_grid_has(tmp_path):
    stills = ball_capture(tmp_path, ball_cameras(12, SIZE))
    assert codes(fd.merge([stills, clip(tmp_path)]))["no_multiview_signal"] == "warning"
    assert "no_multiview_signal" not in codes(grid(tmp_path))
    assert "no_multiview_signal" not in codes(fd.merge([grid(tmp_path, 6, 30), clip(tmp_path)]))
    assert "no_multiview_signal" not in codes(stills)


def test_a_clip_alone_that_is_asked_for_other_views_is_hopeless(tmp_path):
    assert codes(fd.merge([clip(tmp_path), held_out(tmp_path)]))["no_multiview_signal"] == "error"
    assert codes(clip(tmp_path))["no_multiview_signal"] == "warning"


# --- the ball ---


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_nearer_camera_reaches_less_far_around(first, second):
    low, high = sorted((first, second))
    assert coverage.reach_deg(high, 1) <= coverage.reach_deg(low, 1) <= coverage.GRAZING_DEG
    assert coverage.reach_deg(0, 1) == pytest.approx(60)
    # The triangle of centre, element and camera: the angles at centre and camera make the incidence.
    reach = math.radians(coverage.reach_deg(low, 1))
    incidence = math.atan2(math.sin(reach), math.cos(reach) - low)
    assert math.degrees(incidence) == pytest.approx(60)


def test_what_is_seen_ends_at_the_reach(tmp_path):
    seen = look(ring(tmp_path, 12, elevation_deg=0))
    points = viewpoints(seen)
    limit = coverage.reach_deg(points.radius, 4.0)
    assert limit == pytest.approx(
        60 - math.degrees(math.asin(math.sin(math.radians(15)) * math.sin(math.pi / 3))), 1e-3
    )
    angle = np.radians(limit + np.array([-0.5, 0.5]))
    normals = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1)
    assert coverage.seen_by(seen, np.array([0]), normals).tolist() == [[True, False]]


def test_twelve_cameras_do_for_a_field_of_view_of_thirty_and_more_for_a_wider_one(tmp_path):
    needed = [coverage.measure_cameras(look(ring(tmp_path, 12, fov_x_deg=fov))).needed for fov in (10, 30, 60, 80)]
    assert needed[1] == 12 and needed == sorted(needed) and needed[-1] > 12


def test_each_part_is_seen_as_often_as_the_cameras_reach(tmp_path):
    for count in (6, 9, 24):
        demand = coverage.measure_cameras(look(ring(tmp_path, count, elevation_deg=0)))
        assert demand.depth == pytest.approx(count * 3 * demand.spacing_deg / 360, rel=0.05)
        assert demand.views == count and demand.around


def test_the_demand_does_not_depend_on_the_world(tmp_path):
    whole = fd.merge([ring(tmp_path, 7), held_out(tmp_path)])
    first, second = coverage.measure_cameras(look(whole)), coverage.measure_cameras(look(moved(whole)))
    assert first.needed == second.needed and first.depth == pytest.approx(second.depth, abs=0.02)


@pytest.mark.parametrize(("count", "severity"), [(3, "error"), (6, "warning"), (10, "info"), (12, None), (24, None)])
def test_fewer_cameras_are_worse(tmp_path, count, severity):
    assert codes(ring(tmp_path, count)).get("too_few_cameras") == severity


def test_an_arc_needs_fewer_cameras_until_other_views_are_asked_for(tmp_path):
    arc = ring(tmp_path, 4, arc_deg=60, start_deg=-30)
    demand = coverage.measure_cameras(look(arc))
    assert not demand.around and demand.needed <= 4 and "too_few_cameras" not in codes(arc)
    assert coverage.measure_cameras(look(fd.merge([arc, held_out(tmp_path)]))).needed >= 12


# --- at the same time ---


def test_a_dense_ring_shows_everything_twice_at_each_time_and_three_wide_cameras_do_not(tmp_path):
    dense, wide = (coverage.measure_covisibility(look(grid(tmp_path, count, 4))) for count in (12, 3))
    assert len(dense) == len(wide) == 4 and (dense["views"] == 12).all() and (wide["views"] == 3).all()
    # Above and below, a rim of the ball is in reach of a single camera of the ring.
    assert dense["covisible"].min() > 0.8 and wide["covisible"].max() < 0.1
    assert "low_covisibility" not in codes(grid(tmp_path, 12, 4))
    assert codes(grid(tmp_path, 3, 4))["low_covisibility"] == "warning"


def test_one_camera_at_a_time_is_no_matter_of_covisibility(tmp_path):
    assert "low_covisibility" not in codes(clip(tmp_path))


# --- held-out views ---


def test_a_view_between_two_is_half_a_spacing_off_and_inside(tmp_path):
    whole = fd.merge(
        [
            ring(tmp_path, 12, elevation_deg=0),
            ring(tmp_path, 12, start_deg=15, elevation_deg=0, split="test", source="still"),
        ]
    )
    table = coverage.measure_extrapolation(look(whole))
    assert len(table) == 12
    np.testing.assert_allclose(table["nearest_deg"], 15, atol=0.01)
    np.testing.assert_allclose(table["outside_deg"], 0, atol=0.01)


def test_a_view_past_the_end_of_an_arc_is_outside_by_as_much_as_it_is_off(tmp_path):
    train = ring(tmp_path, 9, arc_deg=80, start_deg=-40, elevation_deg=0)
    test = ring(tmp_path, 1, start_deg=70, elevation_deg=0, split="test", source="still")
    [row] = coverage.measure_extrapolation(look(fd.merge([train, test]))).itertuples()
    assert row.nearest_deg == pytest.approx(30, abs=0.01) and row.outside_deg == pytest.approx(30, abs=0.01)
    assert codes(fd.merge([train, test]))["held_out_outside"] == "warning"


def test_a_training_view_is_no_extrapolation(tmp_path):
    train = ring(tmp_path, 12)
    table = coverage.measure_extrapolation(look(fd.merge([train, ring(tmp_path, 12, split="test", source="still")])))
    assert table["nearest_deg"].max() < 0.1 and table["outside_deg"].max() < 0.1
    assert coverage.measure_extrapolation(look(train)).empty
