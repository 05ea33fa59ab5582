from __future__ import annotations

import inspect
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fourdgs as fd
from fourdgs import Cameras, InputError, paths
from fourdgs.cameras import orbit
from fourdgs.paths import EASINGS, PATHS, CameraPath, frame_count, recipe
from fourdgs.resample import closes, fitted

TARGET = (0.3, -0.2, 0.5)


def steps(cameras: Cameras, wrap: bool = False) -> np.ndarray:
    """[C - 1] (or [C], the last one back to the first) distances between neighbours."""
    positions = cameras.positions.double().numpy()
    return np.linalg.norm(np.diff(positions, axis=0, append=positions[:1] if wrap else None), axis=1) if wrap else (
        np.linalg.norm(np.diff(positions, axis=0), axis=1)
    )  # fmt: skip


def spherical(cameras: Cameras, target=(0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Azimuth and elevation in degrees and radius [C], for y up; worked out here, not by the library."""
    x, y, z = (cameras.positions.double().numpy() - np.asarray(target)).T
    radius = np.sqrt(x * x + y * y + z * z)
    return np.degrees(np.unwrap(np.arctan2(x, z))), np.degrees(np.arcsin(y / radius)), radius


def jumps(cameras: Cameras) -> np.ndarray:
    """[C] how far the time moves from each camera to the next, the last one's to the first."""
    times = cameras.times.double().numpy()
    return np.abs(np.diff(times, append=times[0]))


path_recipes = st.builds(
    CameraPath,
    frames=st.integers(1, 40),
    azimuth_deg=st.tuples(st.floats(-360, 360), st.floats(-360, 360)),
    elevation_deg=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    radius=st.tuples(st.floats(0.5, 9), st.floats(0.5, 9)),
    swing_deg=st.floats(-30, 30),
    swings=st.floats(0, 3),
    travel=st.sampled_from(["loop", "palindrome"]),
    cycles=st.integers(1, 3),
    easing=st.sampled_from(sorted(EASINGS)),
    times=st.sampled_from(["along", "loop", "palindrome", None, 0.0, 0.3]),
    time_range=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    time_cycles=st.integers(1, 3),
    target=st.tuples(*[st.floats(-2, 2)] * 3),
    up=st.sampled_from([(0, 1, 0), (0, 0, 1), (0, -1, 0), (0.2, 0.9, -0.4)]),
    fov_x_deg=st.floats(10, 120),
    width=st.integers(8, 99),
    height=st.integers(8, 99),
)


# --- properties of every path ---


@settings(max_examples=150, deadline=None)
@given(path_recipes)
def test_the_target_is_in_the_middle_and_the_radius_as_asked(path):
    cameras = path.cameras()
    assert len(cameras) == path.frames and (cameras.width, cameras.height) == (path.width, path.height)
    target = cameras.viewmats.double() @ torch.tensor([*path.target, 1.0], dtype=torch.float64)
    pixel = (cameras.Ks.double() @ target[:, :3, None])[..., 0]
    pixel = pixel[:, :2] / pixel[:, 2:]
    middle = torch.tensor([path.width / 2, path.height / 2]).double()
    assert (pixel - middle).abs().max() < 1e-3
    low, high = sorted(path.radius)
    assert (target[:, 2] > low - 1e-4).all() and (target[:, 2] < high + 1e-4).all()
    half = math.degrees(math.atan(path.width / 2 / float(cameras.Ks[0, 0, 0])))
    assert 2 * half == pytest.approx(path.fov_x_deg, rel=1e-5)
    times = cameras.times.numpy()
    assert np.isnan(times).all() if path.times is None else ((times >= 0) & (times <= 1)).all()


@settings(max_examples=100, deadline=None)
@given(path_recipes)
def test_a_recipe_survives_json(path):
    again = CameraPath.from_dict(json.loads(json.dumps(path.to_dict(), allow_nan=False)))
    assert again == path
    assert torch.equal(again.cameras().viewmats, path.cameras().viewmats)


@settings(max_examples=100, deadline=None)
@given(path_recipes.filter(lambda path: path.frames > 1), st.floats(0.2, 30), st.sampled_from([24, 25, 30]))
def test_a_path_brought_to_a_length_has_it_and_is_closed(path, duration_s, fps):
    longer = path.lasting(duration_s, fps)
    assert longer.closed
    assert longer.frames == len(longer.cameras())
    assert duration_s <= longer.frames / fps + 1e-6 < duration_s + 1 / fps + 2e-6
    assert longer.lasting(duration_s, fps) == longer  # and stays as it is
    kept = {field.name for field in fields(path)} - {"frames", "travel", "cycles", "times", "time_cycles"}
    assert all(getattr(longer, name) == getattr(path, name) for name in kept)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("duration_s", [3.0, 20.0, 47.3])
def test_a_path_brought_to_a_length_has_no_seam(name, duration_s):
    cameras = recipe(name, frames=250).lasting(duration_s, 25).cameras()
    assert len(cameras) == math.ceil(duration_s * 25)
    moved, times = steps(cameras, wrap=True), jumps(cameras)
    assert moved[-1] <= moved[:-1].max() * 1.001 + 1e-6
    assert times[-1] <= times[:-1].max() * 1.001 + 1e-6
    # Slower or faster by no more than the whole number of rounds makes it, and so in every step.
    assert times.max() < 0.05 and moved.max() < 10 * moved.mean()
    assert closes(cameras)


def test_the_seam_that_a_straight_repetition_would_have_is_seen():
    for name in ("spiral", "dolly", "arc", "tilt"):
        assert not recipe(name).closed and not closes(recipe(name).cameras())
    assert not recipe("orbit").closed and recipe("orbit").returns  # in place, but its time jumps back
    assert not closes(recipe("orbit").cameras()) and closes(recipe("orbit", times=None).cameras())
    assert recipe("orbit", times="palindrome").closed and closes(recipe("orbit", times="palindrome").cameras())
    assert recipe("orbit", times="loop").closed
    assert not recipe("orbit", turns=1.5, times=None).returns
    assert not closes(recipe("orbit", turns=1.5, times=None).cameras())
    assert recipe("spiral", turns=2, travel="loop").returns
    assert not recipe("spiral", turns=2, travel="loop", swings=1.25).returns


# --- the paths themselves ---


def test_orbit_is_the_orbit_of_cameras():
    ours = paths.orbit(12, 3.0, 20.0, 40.0, -2.0, target=TARGET, width=30, height=20, fov_x_deg=50, times=0.5)
    theirs = orbit(12, 3.0, 20.0, 40.0, -2.0, target=TARGET, width=30, height=20, fov_x_deg=50, times=0.5)
    assert all(torch.equal(getattr(ours, n), getattr(theirs, n)) for n in ("viewmats", "Ks", "sizes", "times"))


def test_orbit_has_equal_steps_all_round():
    moved = steps(paths.orbit(90, 4.0, 15.0), wrap=True)
    assert np.ptp(moved) < 1e-5
    assert moved[0] == pytest.approx(2 * 4 * math.cos(math.radians(15)) * math.sin(math.pi / 90), rel=1e-5)


def test_spiral_is_the_storys():
    cameras = paths.spiral()
    azimuth, elevation, radius = spherical(cameras)
    assert len(cameras) == 500
    assert azimuth[-1] - azimuth[0] == pytest.approx(540, abs=1e-3)
    assert np.ptp(np.diff(azimuth)) < 1e-3
    assert radius == pytest.approx(np.full(500, 4.0), abs=1e-5)
    assert (elevation.min(), elevation.max()) == pytest.approx((20, 40), abs=1e-3)  # from above: their -30 +- 10
    assert elevation[[0, 249, 499]] == pytest.approx([30, 30, 30], abs=0.1)
    assert cameras.times[[0, 499]].tolist() == [0, 1] and bool((cameras.times.diff() > 0).all())


def test_dolly_arc_and_tilt_are_the_storys():
    azimuth, elevation, radius = spherical(paths.dolly(101))
    assert (azimuth[0], azimuth[-1], radius[0], radius[-1]) == pytest.approx((-45, 45, 4, 2.5), abs=1e-3)
    assert radius[50] == pytest.approx(3.25, abs=1e-5) and np.abs(elevation).max() < 1e-3
    _, elevation, radius = spherical(paths.arc(21))
    assert elevation == pytest.approx(np.full(21, 55.0), abs=1e-3)
    azimuth, elevation, radius = spherical(paths.tilt(61))
    assert azimuth == pytest.approx(np.full(61, 75.0), abs=1e-3)
    assert elevation == pytest.approx(np.linspace(30, -30, 61), abs=1e-3)


def test_a_positive_elevation_looks_down():
    above = paths.arc(5)
    assert bool((above.positions[:, 1] > 3).all()) and bool((above.forwards[:, 1] < -0.8).all())
    # The pose that tools after NeRF's synthetic scenes give for a pitch of -30 degrees at radius 4, z up there.
    nerf = np.array([0, 4 * math.cos(math.radians(30)), 4 * math.sin(math.radians(30))])
    ours = paths.orbit(1, 4.0, 30.0).positions[0].numpy()
    assert ours[1] == pytest.approx(nerf[2], abs=1e-6)


def test_every_path_takes_the_common_settings_and_says_so():
    given_settings = {"target": TARGET, "up": (0, 0, 1), "fov_x_deg": 50.0, "width": 64, "height": 48, "times": None}
    for name, path in PATHS.items():
        cameras = path(frames=7, **given_settings)
        assert isinstance(cameras, Cameras) and (cameras.width, cameras.height) == (64, 48)
        assert cameras.times.isnan().all()
        assert path.recipe(frames=7, **given_settings) == recipe(name, frames=7, **given_settings)
        signature = inspect.signature(path)
        assert signature.return_annotation == "Cameras" and "frames" in signature.parameters and path.__doc__
        assert getattr(fd.paths, name) is path


# --- travel, time, easing ---


def test_a_palindrome_retraces_its_steps():
    cameras = recipe("dolly", frames=20, travel="palindrome", times="palindrome").cameras()
    for k in range(1, 10):
        assert torch.allclose(cameras.viewmats[k], cameras.viewmats[20 - k], atol=1e-6)
        assert float(cameras.times[k]) == pytest.approx(float(cameras.times[20 - k]), abs=1e-6)
    assert float(cameras.times[10]) == 1 and float(cameras.times[0]) == 0
    assert np.ptp(jumps(cameras)) < 1e-6
    _, _, radius = spherical(cameras)
    assert radius[10] == pytest.approx(2.5, abs=1e-5)


def test_cycles_repeat():
    once = recipe("spiral", frames=10, travel="palindrome", times="loop", time_range=(0.2, 0.8))
    thrice = replace(once, frames=30, cycles=3, time_cycles=3).cameras()
    for part in (slice(0, 10), slice(10, 20), slice(20, 30)):
        assert torch.allclose(thrice.viewmats[part], once.cameras().viewmats, atol=1e-6)
        assert torch.allclose(thrice.times[part], 0.2 + 0.06 * torch.arange(10.0), atol=1e-6)


def test_time_runs_along_from_end_to_end_or_stands_still():
    assert recipe("arc", frames=5, time_range=(1, 0)).cameras().times.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert recipe("arc", frames=3, times=0.25).cameras().times.tolist() == [0.25] * 3
    assert recipe("arc", frames=1).cameras().times.tolist() == [0]


@pytest.mark.parametrize("easing", EASINGS)
def test_easing_keeps_the_ends_and_the_direction(easing):
    azimuth, _, _ = spherical(recipe("arc", frames=201, easing=easing).cameras())
    assert (azimuth[0], azimuth[100], azimuth[-1]) == pytest.approx((-60, 0, 60), abs=1e-3)
    speed = np.diff(azimuth)
    assert (speed > 0).all() and np.abs(speed - speed[::-1]).max() < 1e-3
    first = speed[0] / speed.mean()
    assert first == pytest.approx(1, abs=1e-3) if easing == "linear" else first < 0.05


def test_lasting_keeps_nearly_the_own_speed():
    path = recipe("orbit", frames=250)  # 10 s
    for duration_s, turns in ((9, 1), (14, 1), (16, 2), (60, 6), (2, 1)):
        assert path.lasting(duration_s, 25).cycles == turns
        azimuth, _, _ = spherical(path.lasting(duration_s, 25).cameras())
        assert azimuth[1] - azimuth[0] == pytest.approx(360 * turns / (duration_s * 25), rel=1e-3)
    there_and_back = recipe("spiral", frames=500).lasting(85, 25)  # 40 s there and back
    assert (there_and_back.travel, there_and_back.cycles, there_and_back.time_cycles) == ("palindrome", 2, 2)
    stretched = recipe("spiral").lasting(30, 25, "stretch")
    assert stretched == replace(recipe("spiral"), frames=750)
    assert recipe("orbit", times=0.5).lasting(30, 25).times == 0.5


def test_a_path_that_does_not_return_cannot_loop():
    with pytest.raises(InputError, match="does not come back.*palindrome"):
        recipe("dolly").lasting(10, 25, "loop")
    assert recipe("orbit").lasting(10, 25, "palindrome").travel == "palindrome"


def test_framed_scales_all_radii():
    path = recipe("dolly").framed(target=(1, 2, 3), up=(0, 0, 1), radius=8.0, fov_x_deg=20.0)
    assert path.radius == (8.0, 5.0) and path.target == (1, 2, 3) and path.up == (0, 0, 1) and path.fov_x_deg == 20


@pytest.mark.parametrize("duration_s, fps, frames", [(2, 25, 50), (2.001, 25, 51), (0.1, 30, 3), (0.001, 25, 1)])
def test_frames_cover_the_duration(duration_s, fps, frames):
    assert frame_count(duration_s, fps) == frames


# --- files and faults ---


def test_a_recipe_file(tmp_path):
    file = recipe("spiral", frames=9, times=None).save(tmp_path / "path.json")
    assert CameraPath.load(file) == recipe("spiral", frames=9, times=None)
    for text in ("", "[]", '{"frames": 0}', '{"speed": 3}', '{"frames": 3'):
        file.write_text(text)
        with pytest.raises(InputError, match="path.json"):
            CameraPath.load(file)
    with pytest.raises(InputError, match="cannot be read"):
        CameraPath.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change, text",
    [
        ({"frames": 0}, "frames"),
        ({"frames": 2.5}, "frames"),
        ({"frames": True}, "frames"),
        ({"width": -1}, "width"),
        ({"radius": 0}, "radius"),
        ({"radius": (4, math.nan)}, "radius"),
        ({"azimuth_deg": (1, 2, 3)}, "azimuth_deg"),
        ({"azimuth_deg": [[1], [2, 3]]}, "azimuth_deg"),
        ({"elevation_deg": "high"}, "elevation_deg"),
        ({"target": 0}, "target"),
        ({"times": "backwards"}, "along, loop, palindrome"),
        ({"times": 1.5}, "times"),
        ({"times": math.nan}, "times"),
        ({"time_range": (0, 2)}, "time_range"),
        ({"easing": "bounce"}, "smooth"),
        ({"travel": ["loop"]}, "travel"),
        ({"cycles": 2}, "runs once"),
        ({"speed": 2}, "speed"),
        ({"name": ""}, "name"),
    ],
)
def test_faults_are_named(change, text):
    with pytest.raises(InputError, match=text):
        recipe("arc", **change)


def test_faults_that_show_with_the_cameras():
    with pytest.raises(InputError, match="up"):
        recipe("arc", up=(0, 0, 0)).cameras()
    with pytest.raises(InputError, match="fov_x_deg"):
        recipe("arc", fov_x_deg=180.0).cameras()
    with pytest.raises(InputError, match="orbit, spiral"):
        recipe("helix")
    for duration_s, fps in ((0, 25), (-1, 25), (math.nan, 25), (3, 0)):
        with pytest.raises(InputError, match="positive"):
            recipe("arc").lasting(duration_s, fps)
    with pytest.raises(InputError, match="fit"):
        recipe("arc").lasting(3, 25, "bounce")


# --- cameras without a recipe ---


def test_resampled_cameras_are_those_of_the_recipe():
    dense, wanted = recipe("spiral", frames=400).cameras(), recipe("spiral", frames=91).cameras()
    near = fitted(dense, 91, "stretch")
    assert (near.positions - wanted.positions).norm(dim=-1).max() < 1e-3
    assert (near.viewmats - wanted.viewmats).abs().max() < 1e-3
    assert (near.times - wanted.times).abs().max() < 1e-6
    assert torch.equal(near.Ks, wanted.Ks) and torch.equal(near.sizes, wanted.sizes)


def test_resampling_to_the_same_number_changes_nothing():
    for name, fit, times in (("orbit", "loop", None), ("spiral", "stretch", "along")):
        cameras = recipe(name, frames=30, times=times).cameras()
        same = fitted(cameras, 30, fit)
        assert (same.viewmats - cameras.viewmats).abs().max() < 1e-6
        assert torch.allclose(same.times, cameras.times, atol=1e-6, equal_nan=True)


def test_resampled_cameras_have_no_seam():
    for name in PATHS:
        cameras = recipe(name, frames=50).cameras()
        for frames in (50, 77, 300):
            longer = fitted(cameras, frames)
            assert len(longer) == frames
            moved, times = steps(longer, wrap=True), jumps(longer)
            assert moved[-1] <= moved[:-1].max() * 1.01 and times[-1] <= times[:-1].max() * 1.01


def test_resampled_rotations_are_rotations_and_times_never_cross_a_cut():
    cameras = recipe("spiral", frames=12, times="loop", time_cycles=3).cameras()
    longer = fitted(cameras, 100, "stretch")
    rotations = longer.viewmats[:, :3, :3].double()
    assert (rotations @ rotations.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-5
    # Time counts 0, 1/4, 1/2, 3/4 and jumps back; where it jumps, nothing between is made up.
    falling = longer.times.diff() < -1e-6
    assert int(falling.sum()) == 2 and float(longer.times.diff()[falling].max()) < -0.7
    mixed = Cameras.concatenate([cameras[:6], cameras[6:].with_times(None)])
    times = fitted(mixed, 40, "stretch").times
    assert int(times.isnan().sum()) == 20 and not times[:20].isnan().any()


def test_resampling_faults():
    cameras = recipe("dolly", frames=9).cameras()
    with pytest.raises(InputError, match="does not lead to the first"):
        fitted(cameras, 30, "loop")
    with pytest.raises(InputError, match="no camera"):
        fitted(cameras[[]], 30)
    with pytest.raises(InputError, match="frames"):
        fitted(cameras, 0)
    with pytest.raises(InputError, match="fit"):
        fitted(cameras, 3, "wobble")
    one = fitted(cameras[0], 5)
    assert len(one) == 5 and torch.equal(one.viewmats, cameras.viewmats[:1].expand(5, 4, 4))
