"""What the doctor says about poses: conventions, the common point, and errors in pixels against known ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from checkup import look
from posed import (
    SIZE,
    as_read,
    blobs_mask,
    looked_at,
    masked,
    noise,
    ring,
    room_survey,
    seen,
    turned,
    with_cameras,
    zoomed,
)
from scenes import ball_cameras, ball_capture
from scipy.spatial.transform import Rotation

from fourdgs.cameras import Cameras, orbit
from fourdgs.data.load import load_capture
from fourdgs.doctor.axes import AXES
from fourdgs.doctor.epipolar import (
    Disagreements,
    centres_of,
    corrections,
    disagreement,
    mend_cameras,
    rays_of,
)
from fourdgs.doctor.pose_error import pose_error
from fourdgs.doctor.poses import CHECKS, apply_axes, axis_scores, check_axes, check_common_point, check_poses, look_at
from fourdgs.doctor.silhouettes import explained, outline, outlines, silhouette_depths, tangencies
from fourdgs.doctor.survey import Survey, survey
from fourdgs.doctor.views import moments, near_pairs, some_pairs, spread_out
from fourdgs.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def blobs() -> Survey:
    cameras = ring(12)
    return masked(cameras, [blobs_mask(cameras, i) for i in range(len(cameras))])


@pytest.fixture(scope="module")
def room() -> Survey:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    return room_survey()


# --- the measure itself ---


def test_slopes_are_the_derivatives_of_the_error():
    cameras = ring(2)
    points = seen(cameras, np.random.default_rng(0).uniform(-0.6, 0.6, (6, 3)))
    base = np.diff(centres_of(cameras), axis=0)[0]
    base = np.broadcast_to(base / np.linalg.norm(base), (6, 3))

    def error(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Errors of the cameras: the opposite of mending them.
        now = mend_cameras(cameras, -change)
        rays, pixels = rays_of(now, points)
        forwards = now.viewmats[:, 2, :3].double().numpy()
        return disagreement(base, rays.transpose(1, 0, 2), np.broadcast_to(forwards, (6, 2, 3)), pixels.T)

    slopes = error(np.zeros((2, 4)))[1]
    for camera in range(2):
        for which in range(4):
            step = np.zeros((2, 4))
            step[camera, which] = 1e-3
            numeric = (error(step)[0] - error(-step)[0]) / 2e-3
            # Poses are float32.
            np.testing.assert_allclose(slopes[:, camera, which], numeric, rtol=2e-3, atol=0.1)


def test_points_seen_by_both_cameras_never_disagree():
    random = np.random.default_rng(1)
    cameras, points = ring(2), random.uniform(-0.6, 0.6, (20, 3))
    rays = points[:, None] - centres_of(cameras)[None]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    base = np.diff(centres_of(cameras), axis=0)[0]
    base = np.broadcast_to(base / np.linalg.norm(base), (20, 3))
    forwards = np.broadcast_to(cameras.viewmats[:, 2, :3].double().numpy(), (20, 2, 3))
    error, _ = disagreement(base, rays, forwards, np.full((20, 2), 100.0))
    np.testing.assert_allclose(error, 0, atol=1e-9)


def test_independent_pixel_errors_give_errors_of_their_size():
    random = np.random.default_rng(2)
    cameras, points = ring(2), random.uniform(-0.6, 0.6, (4000, 3))
    rays, scale = rays_of(cameras, seen(cameras, points) + 0.7 * random.normal(size=(2, 4000, 2)))
    base = np.diff(centres_of(cameras), axis=0)[0]
    base = np.broadcast_to(base / np.linalg.norm(base), (4000, 3))
    forwards = np.broadcast_to(cameras.viewmats[:, 2, :3].double().numpy(), (4000, 2, 3))
    error, _ = disagreement(base, rays.transpose(1, 0, 2), forwards, scale.T)
    assert 0.65 < error.std() < 0.75


def test_an_outline_is_found_to_a_fraction_of_a_pixel():
    grid = (np.arange(8 * 40) + 0.5) / 8
    x, y = np.meshgrid(grid, grid)
    for cx, cy, radius in ((20.0, 20.0, 9.0), (18.37, 21.81, 11.23)):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        alpha = (inside.reshape(40, 8, 40, 8).mean((1, 3)) * 255).round().astype(np.uint8)
        points, cut = outline(alpha)
        assert not cut.any()
        np.testing.assert_allclose(np.hypot(*(points - [cx, cy]).T), radius, atol=0.15)


def test_an_outline_that_the_border_cuts_is_told_and_specks_are_notseen():
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:40, 8:30] = 255
    points, cut = outline(alpha)
    np.testing.assert_array_equal(cut, points[:, 1] > 39)
    speckled = alpha.copy()
    speckled[2, 37] = 255
    np.testing.assert_array_equal(outline(speckled)[0], points)
    assert len(outline(np.zeros((40, 40), np.uint8))[0]) == 0


def test_true_poses_leave_a_tenth_of_a_pixel(blobs):
    pairs = some_pairs(centres_of(blobs.cameras), 12)
    found = tangencies(outlines(blobs.alpha, blobs.cameras), pairs)
    assert len(found) > 100
    assert np.abs(found.error_px).max() < 0.4 and np.sqrt((found.error_px**2).mean()) < 0.12


def test_corrections_give_back_the_turn_of_one_bad_camera(blobs):
    rotation = np.zeros((12, 3))
    rotation[4] = [0.01, -0.012, 0.004]
    cameras = turned(blobs.cameras, rotation)
    found = tangencies(outlines(blobs.alpha, cameras), some_pairs(centres_of(cameras), 12))
    focal = cameras.Ks[:, 0, 0].double().numpy()
    errors, left = corrections(found, np.arange(12), focal, np.full(12, 25.0), 0.1, 0.3)
    mended = mend_cameras(cameras, errors)
    wrong = [
        np.degrees(Rotation.from_matrix((a @ b.mT).double().numpy()).magnitude())
        for a, b in ((cameras.viewmats[:, :3, :3], blobs.cameras.viewmats[:, :3, :3]),
                     (mended.viewmats[:, :3, :3], blobs.cameras.viewmats[:, :3, :3]))
    ]  # fmt: skip
    assert wrong[0][4] > 0.9 and wrong[1].max() < 0.15
    assert np.sqrt((left**2).mean()) < 0.12 < np.sqrt((found.error_px**2).mean()) / 3


def test_nothing_to_compare_gives_no_corrections():
    errors, left = corrections(Disagreements.concatenate([]), np.arange(2), np.ones(2), np.ones(2), 0.1, 0.3)
    assert errors.shape == (2, 4) and not errors.any() and not len(left)


# --- the error of poses ---


def test_estimates_grow_with_the_true_error_and_have_its_size(blobs):
    focal = float(blobs.cameras.Ks[0, 0, 0])
    ratios, last = [], pose_error(blobs).px
    assert last < 0.25
    for deg in (0.25, 0.5, 1.0, 2.0):
        values = []
        for seed in range(3):
            rotations, moved = noise(12, deg, seed)
            values.append(pose_error(with_cameras(blobs, turned(blobs.cameras, rotations))).px)
            ratios.append(values[-1] / (focal * moved))
        assert np.mean(values) > 1.5 * last
        last = float(np.mean(values))
    assert 0.85 < np.mean(ratios) < 1.3 and min(ratios) > 0.6 and max(ratios) < 1.6


def test_error_does_not_depend_on_where_the_world_is_or_how_large(blobs):
    rotations, _ = noise(12, 0.5, 0)
    cameras = turned(blobs.cameras, rotations)
    base = pose_error(with_cameras(blobs, cameras))
    world = np.eye(4)
    world[:3, :3] = Rotation.from_rotvec([0.5, -1.0, 0.3]).as_matrix()
    world[:3, 3] = [3.0, -1.0, 7.0]
    views = cameras.viewmats.double().numpy() @ world
    views[:, :3, 3] *= 20
    moved = Cameras(torch.from_numpy(views), cameras.Ks, cameras.sizes, cameras.times)
    other = pose_error(with_cameras(blobs, moved))
    assert other.px == pytest.approx(base.px, rel=0.02) and other.disagreements == base.disagreements


def test_one_bad_camera_is_named_and_the_others_are_not(blobs):
    rotation = np.zeros((12, 3))
    rotation[7, 1] = math.radians(1.0)
    found = with_cameras(blobs, turned(blobs.cameras, rotation))
    error = pose_error(found)
    assert list(error.cameras[error.cameras.outlier].camera) == ["c007"]
    assert error.cameras.error_deg.iloc[0] == pytest.approx(1.0, abs=0.25)
    assert error.rest_px < 0.3
    (finding,) = check_poses(found)
    assert finding.code == "poses_off" and finding.severity == "warning"
    assert finding.frames == ("f007",) and "1 of 12 cameras (c007)" in finding.message
    assert finding.evidence.camera.iloc[0] == "c007"


def test_poses_that_are_all_off_are_told_in_pixels_and_degrees(blobs):
    rotations, _ = noise(12, 1.0, 1)
    (finding,) = check_poses(with_cameras(blobs, turned(blobs.cameras, rotations)))
    assert finding.severity == "warning" and finding.message.startswith("Poses, intrinsics or masks are off by")


def test_a_wrong_focal_length_is_told_from_a_wrong_pose(blobs):
    factors = np.ones(12)
    factors[3] = 1.1
    one = with_cameras(blobs, zoomed(blobs.cameras, factors))
    row = pose_error(one).cameras.iloc[0]
    assert row.camera == "c003" and row.outlier and row.focal_error == pytest.approx(0.1, abs=0.02)
    (finding,) = check_poses(one)
    assert "focal length 1" in finding.message and "c003" in finding.message and "too long" in finding.message
    everyone = pose_error(with_cameras(blobs, zoomed(blobs.cameras, 0.9)))
    assert everyone.zoom == pytest.approx(-0.1, abs=0.04) and everyone.zoom_share > 0.6


def test_a_moving_subject_counts_only_where_no_two_cameras_share_a_moment():
    times = np.linspace(0, 1, 8)
    alone = ring(8, times=times)
    apart = masked(alone, [blobs_mask(alone, i, 0.4 * times[i]) for i in range(8)])
    error = pose_error(apart)
    assert not error.one_moment and math.hypot(error.px, error.other_px) > 1.5
    assert all(finding.severity == "info" for finding in check_poses(apart))
    base = ring(5)
    rows, when = np.tile(np.arange(5), 3), np.repeat([0.0, 0.5, 1.0], 5)
    shared = base[rows].with_times(when)
    together = masked(shared, [blobs_mask(shared, i, 0.4 * when[i]) for i in range(15)])
    error = pose_error(together)
    assert error.one_moment and error.px < 0.25 and len(error.cameras) == 5 and not check_poses(together)


def test_features_measure_poses_where_there_is_no_silhouette(room):
    focal = float(room.cameras.Ks[0, 0, 0]) * room.capture.frames.width[0] / room.size
    base = pose_error(room)
    assert base.by == "matches" and base.px < 0.5 and not [f for check in CHECKS for f in check(room)]
    rotations, moved = noise(8, 0.6, 0)
    shaken = with_cameras(room, turned(room.capture.cameras, rotations))
    assert pose_error(shaken).px == pytest.approx(focal * moved, rel=0.4)
    (finding,) = check_poses(shaken)
    assert finding.severity == "warning" and "matched points" in finding.message


# --- conventions ---


@pytest.mark.parametrize("how", AXES)
def test_every_mistake_is_named_and_undone(blobs, how):
    wrong = with_cameras(blobs, as_read(blobs.cameras, how))
    (finding,) = check_axes(wrong)
    assert finding.code == "axis_convention" and finding.severity == "error"
    assert finding.remedy.action == "flip_axes" and finding.remedy.arguments == {"how": how}
    back = apply_axes(wrong.capture.cameras, how)
    np.testing.assert_allclose(back.viewmats, blobs.cameras.viewmats, atol=2e-6)
    assert not check_poses(wrong) and not check_common_point(wrong)  # one fault, one finding


@pytest.mark.parametrize("how", ["opengl_to_opencv", "invert", "transpose_rotation"])
def test_features_name_the_mistake_too(room, how):
    (finding,) = check_axes(with_cameras(room, as_read(room.capture.cameras, how)))
    assert finding.remedy.arguments == {"how": how}


def test_the_flip_gives_back_the_very_same_poses(blobs):
    cameras = blobs.capture.cameras
    once = apply_axes(cameras, "opengl_to_opencv")
    assert not torch.equal(once.viewmats, cameras.viewmats)
    assert torch.equal(apply_axes(once, "opengl_to_opencv").viewmats, cameras.viewmats)
    # Bit by bit also through the file's own convention, which reads the OpenCV pose as an OpenGL one.
    read = as_read(cameras, "opengl_to_opencv")
    np.testing.assert_allclose(apply_axes(read, "opengl_to_opencv").viewmats, cameras.viewmats, atol=1e-6)
    with pytest.raises(InputError, match="must be one of"):
        apply_axes(cameras, "sideways")


def test_only_the_sources_that_are_wrong_are_named():
    cameras = ring(16)
    half = torch.arange(16) % 2 == 1
    views = torch.where(half[:, None, None], as_read(cameras, "opengl_to_opencv").viewmats, cameras.viewmats)
    mixed = Cameras(views, cameras.Ks, cameras.sizes, cameras.times)
    names = ["phone" if odd else "rig" for odd in half.tolist()]
    found = masked(mixed, [blobs_mask(cameras, i) for i in range(16)], sources=names)
    (finding,) = check_axes(found)
    assert finding.remedy.arguments == {"how": "opengl_to_opencv", "sources": ["phone"]}


def test_a_source_that_cannot_be_tested_follows_the_others():
    cameras = Cameras.concatenate([ring(10), ring(1, seed=4)])
    masks = [blobs_mask(cameras, i) for i in range(10)] + [np.full((SIZE, SIZE), 255, np.uint8)]
    sources = ["orbit"] * 10 + ["clip"]
    (finding,) = check_axes(masked(as_read(cameras, "opengl_to_opencv"), masks, sources=sources))
    assert finding.remedy.arguments == {"how": "opengl_to_opencv"}


def test_a_symmetric_subject_still_has_a_front():
    """A ball's outlines agree when all cameras look away from it; only what lies before them tells."""
    capture = ball_capture("memory", ball_cameras(8, 64), move=0.0)
    given = look(capture)
    assert not [finding for check in CHECKS for finding in check(given)]
    (finding,) = check_axes(with_cameras(given, as_read(capture.cameras, "opengl_to_opencv")))
    assert finding.remedy.arguments["how"] == "opengl_to_opencv"


def test_noise_is_no_convention(blobs):
    for deg in (2.0, 6.0):
        rotations, _ = noise(12, deg, 0)
        noisy = with_cameras(blobs, turned(blobs.cameras, rotations))
        assert not check_axes(noisy)
        assert [finding.code for finding in check_poses(noisy)] == ["poses_off"]


def test_silhouettes_are_explained_under_true_poses_and_not_under_random_ones(blobs):
    depths = silhouette_depths(blobs.alpha)
    assert explained(depths, blobs.cameras).min() == 1.0
    random = Rotation.random(12, random_state=0).as_rotvec()
    assert np.median(explained(depths, turned(blobs.cameras, random))) < 0.1


# --- the common point ---


def test_cameras_meet_where_they_were_aimed():
    positions = centres_of(ring(9))
    cameras = Cameras.look_at(positions, (0.3, -0.2, 0.5), fov_x_deg=30, width=32, height=32)
    found = look_at(masked(cameras, [np.full((32, 32), 255, np.uint8)] * 9))
    np.testing.assert_allclose(found.centre, (0.3, -0.2, 0.5), atol=1e-3)
    assert found.sees.all() and not found.parallel and found.angle_deg.max() < 0.1


def test_cameras_without_a_common_point_are_told():
    positions = centres_of(ring(9))
    blank = [np.full((32, 32), 255, np.uint8)] * 9
    outwards = Cameras.look_at(positions, 2 * positions, fov_x_deg=30, width=32, height=32)
    (finding,) = check_common_point(masked(outwards, blank))
    assert finding.code == "no_common_point" and finding.severity == "warning" and "look away" in finding.message
    aim = np.zeros((9, 3))
    aim[4] = 2 * positions[4]
    one = Cameras.look_at(positions, aim, fov_x_deg=30, width=32, height=32)
    (finding,) = check_common_point(masked(one, blank))
    assert finding.frames == ("f004",) and "1 of 9" in finding.message


def test_a_forward_facing_rig_has_no_common_point_and_needs_none():
    positions = np.random.default_rng(0).uniform(-0.5, 0.5, (9, 3)) * [1, 1, 0.1]
    cameras = Cameras.look_at(positions, positions + [0, 0, 5], fov_x_deg=50, width=32, height=32)
    assert not check_common_point(masked(cameras, [np.full((32, 32), 255, np.uint8)] * 9))


# --- nothing to say ---


def _quiet(found: Survey) -> None:
    assert [str(finding) for check in CHECKS for finding in check(found)] == []


def test_nothing_is_said_of_good_poses(blobs):
    _quiet(blobs)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_frames_are_no_fault(blobs, count):
    _quiet(blobs.subset(np.arange(count)))


def test_cameras_in_one_place_say_nothing(blobs):
    one = blobs.cameras[[0] * 12]
    _quiet(with_cameras(blobs, one))
    assert pose_error(with_cameras(blobs, one)).by == "" and math.isnan(pose_error(with_cameras(blobs, one)).px)


@pytest.mark.parametrize("damage", ["inverted", "empty", "full", "one inverted"])
def test_masks_that_say_nothing_are_not_held_against_the_poses(blobs, damage):
    masks = [mask.copy() for mask in blobs.alpha]
    for i, mask in enumerate(masks):
        if damage == "inverted" or (damage == "one inverted" and i == 2):
            masks[i] = 255 - mask
        elif damage in ("empty", "full"):
            masks[i] = np.full_like(mask, 0 if damage == "empty" else 255)
    _quiet(masked(blobs.cameras, masks))


def test_pictures_that_share_nothing_say_nothing():
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    random = np.random.default_rng(0)
    pictures = [(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), None) for _ in range(6)]
    found = looked_at(pictures, ring(6))
    _quiet(found)
    assert pose_error(found).by == "" and not len(axis_scores(found))


# --- which frames are compared ---


def test_moments_hold_distinct_cameras_at_one_time_of_one_source():
    base = ring(3)
    cameras = base[[0, 1, 2, 0, 1, 0, 2]].with_times([0, 0, 0, 1, 1, 1, math.nan])
    found = masked(cameras, [np.full((SIZE, SIZE), 255, np.uint8)] * 7, sources=["a"] * 5 + ["b"] * 2)
    assert [group.tolist() for group in moments(found, np.arange(7))] == [[0, 1, 2], [3, 4]]
    assert [group.tolist() for group in moments(found, np.arange(7), fewest=3)] == [[0, 1, 2]]
    # Sources of one camera each make a moment together.
    each = masked(base.with_times(0.5), [np.full((SIZE, SIZE), 255, np.uint8)] * 3, sources=["a", "b", "c"])
    assert [group.tolist() for group in moments(each, np.arange(3))] == [[0, 1, 2]]


def test_pairs_are_unique_and_reach_every_camera():
    centres = centres_of(ring(30))
    forwards = ring(30).viewmats[:, 2, :3].double().numpy()
    for pairs in (some_pairs(centres, 6), near_pairs(centres, forwards, 2), some_pairs(centres[:4], 12)):
        assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
        assert set(pairs.ravel()) == set(range(pairs.max() + 1))
    assert len(some_pairs(centres[:4], 12)) == 6
    assert len(some_pairs(centres[:1], 12)) == 0 and len(near_pairs(centres[:1], forwards[:1], 2)) == 0


def test_spread_out_takes_the_corners_first():
    line = np.stack([np.arange(11.0), np.zeros(11), np.zeros(11)], -1)
    assert spread_out(line, 3).tolist() == [0, 5, 10] and spread_out(line, 20).tolist() == list(range(11))


# --- real captures ---


@pytest.mark.parametrize("name", ["moving_books", "four_cameras"])
def test_real_poses_are_found_good_or_not_judged(name):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real capture {name} is not beside this repository")
    found = survey(load_capture(SHARED / name), progress=False)
    _quiet(found)
    error = pose_error(found)
    if name == "four_cameras":  # too wide apart for features
        assert error.by == ""
        return
    assert error.by == "matches" and error.px < 0.6
    rotations, moved = noise(len(found), 0.5, 0)
    shaken = found.capture.with_frames(cameras=turned(found.capture.cameras, rotations))
    shaken = pose_error(survey(shaken, progress=False))
    assert shaken.px == pytest.approx(float(found.capture.cameras.Ks[0, 0, 0]) * moved, rel=0.5)


def test_an_orbit_of_many_cameras_is_measured_in_part():
    cameras = orbit(150, fov_x_deg=32.0, width=48, height=48)
    found = masked(cameras, [blobs_mask(cameras, i) for i in range(150)])
    error = pose_error(found)
    assert error.frames <= 96 and error.px < 0.3
