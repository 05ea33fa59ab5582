"""Frozen, doubled, blurred and badly masked frames, made on purpose in small captures of a ball."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkup import by_code, look
from scenes import ball_cameras, ball_capture
from scipy import ndimage

from fourdgs.capture import merge
from fourdgs.data.load import load_capture
from fourdgs.doctor import masks, quality
from fourdgs.doctor.hull import hull_blame, shrink

SIZE = 64
SHARED = Path(__file__).parents[2] / "shared" / "data"


def codes(capture, checks=quality.CHECKS):
    return by_code(capture, checks)


@pytest.fixture(scope="module")
def stills():
    return ball_capture(Path("ball"), ball_cameras(12, SIZE))


@pytest.fixture(scope="module")
def clip():
    """25 frames of one camera; the ball crosses half the picture."""
    cameras = ball_cameras(1, SIZE)[[0] * 25].with_times(np.linspace(0, 1, 25))
    return ball_capture(Path("ball"), cameras, source="clip", camera="front", move=1.0)


@pytest.fixture(scope="module")
def textured():
    """20 opaque pictures with fine detail that slides slowly, as a panning camera sees it."""
    wall = ndimage.gaussian_filter(np.random.default_rng(3).uniform(0, 255, (SIZE, SIZE + 40, 3)), (0.6, 0.6, 0))
    wall = np.clip((wall - 127) * 2 + 127, 0, 255)
    cameras = ball_cameras(1, SIZE)[[0] * 20].with_times(np.linspace(0, 1, 20))
    capture = ball_capture(Path("wall"), cameras, source="pan", camera="front")
    return capture.with_pictures(
        {i: (np.ascontiguousarray(wall[:, 2 * i : 2 * i + SIZE]).astype(np.uint8), None) for i in range(20)}
    )


def with_alpha(capture, rows, change):
    pictures = {}
    for row in rows:
        rgb, alpha = capture.picture(row)
        pictures[row] = rgb, change(alpha)
    return capture.with_pictures(pictures)


def hole(radius):
    y, x = np.mgrid[:SIZE, :SIZE]
    return lambda alpha: np.where((x - SIZE / 2) ** 2 + (y - SIZE / 2) ** 2 < radius**2, 0, alpha).astype(np.uint8)


def smear(rgb, length, axis):
    """A box as long as the motion, in sixteenths of a pixel."""
    steps = (np.arange(16) + 0.5) / 16 - 0.5
    shift = [(0, 0, 0)] * 16 if not length else [np.roll([step * length, 0, 0], axis) for step in steps]
    moved = [ndimage.shift(rgb.astype(float), offset, order=1, mode="nearest") for offset in shift]
    return np.rint(np.mean(moved, axis=0)).astype(np.uint8)


# --- clean -------------------------------------------------------------------------------------------------------


def test_clean_captures_are_quiet(stills, clip):
    assert codes(stills) == {}
    assert codes(clip) == {}
    assert codes(merge([stills, clip])) == {}


def test_clean_masks_dispute_nothing(stills):
    table = masks.measure_masks(look(stills))
    assert (table["state"] == "mask").all()
    assert table["mask_fault"].max() == 0


# --- masks -------------------------------------------------------------------------------------------------------


def test_inverting_twice_is_the_identity_and_once_is_seen(stills):
    def turned(capture, rows):
        return with_alpha(capture, rows, lambda alpha: 255 - alpha)

    score = masks.measure_masks(look(stills))["inverted"].to_numpy()
    for rows in ([3], [0, 4, 8], range(12)):  # single ones, some, all
        once = turned(stills, rows)
        table = masks.measure_masks(look(once))
        wrong = np.isin(np.arange(12), list(rows))
        assert np.array_equal(table["state"] == "inverted", wrong)
        assert (table["mask_fault"][wrong] == 1).all()
        finding = codes(once)["mask_inverted"]
        assert finding.severity == "error" and finding.remedy.action == "invert_masks"
        named = finding.remedy.arguments["frames"]
        assert set(named) == set(stills.frames.frame[wrong])
        back = turned(once, [list(stills.frames.frame).index(name) for name in named])
        np.testing.assert_allclose(masks.measure_masks(look(back))["inverted"], score, atol=1e-6)


def test_an_off_centre_subject_is_not_inverted_and_its_inverse_is(clip):
    moved = clip.with_pictures(
        {i: tuple(np.roll(value, (20, 22), (0, 1)) for value in clip.picture(i)) for i in range(len(clip))}
    )
    assert "mask_inverted" not in codes(moved)
    wrong = with_alpha(moved, [7, 11], lambda alpha: 255 - alpha)
    assert set(codes(wrong)["mask_inverted"].frames) == set(clip.frames.frame.iloc[[7, 11]])


def test_disputed_share_is_the_holes_share_and_names_the_frame(stills):
    for radius in (5, 8):
        broken = with_alpha(stills, [4], hole(radius))
        table = masks.measure_masks(look(broken))
        before = stills.picture(4)[1]
        share = 1 - hole(radius)(before).sum() / before.sum()
        assert table["mask_fault"].idxmax() == 4
        assert table["mask_fault"][4] == pytest.approx(share, rel=0.4)
        assert table["mask_fault"].drop(4).max() < 0.25 * table["mask_fault"][4]


def test_larger_holes_dispute_more(stills):
    faults = [
        masks.measure_masks(look(with_alpha(stills, (0, 4, 8), hole(radius))))["mask_fault"].mean()
        for radius in (0, 4, 6, 9)
    ]
    assert faults[0] == 0 and all(np.diff(faults) > 0)
    assert codes(with_alpha(stills, (0, 4, 8), hole(6)))["mask_wrong"].severity == "error"


def test_a_hole_in_a_clip_is_seen_against_its_neighbours(clip):
    table = masks.measure_masks(look(with_alpha(clip, [12], hole(5))))
    assert table["time_fault"].idxmax() == 12 and table["time_fault"][12] > 0.05
    assert table["time_fault"].drop(12).max() < 0.01


def test_wrong_poses_are_not_called_wrong_masks(stills):
    from fourdgs.cameras import Cameras

    views = stills.cameras.viewmats.clone()
    rng = np.random.default_rng(0)
    for view in views:
        view[0, 3] += float(rng.normal(0, 0.08))  # two pixels sideways
    cameras = stills.cameras
    table = masks.measure_masks(
        look(stills.with_frames(cameras=Cameras(views, cameras.Ks, cameras.sizes, cameras.times)))
    )
    assert table["displaced"].max() > 0.03
    assert table["mask_fault"].max() == 0


def test_hull_blame_is_blind_to_the_order_of_views(stills):
    found = look(with_alpha(stills, [2, 7], hole(7)))
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(hull_blame(found, order)[0], hull_blame(found, np.arange(12))[0][order], atol=0.02)


def test_an_empty_mask_is_wrong_all_over(stills):
    finding = codes(with_alpha(stills, [5], lambda alpha: 0 * alpha))["mask_wrong"]
    assert finding.frames[0] == stills.frames.frame[5] and finding.evidence["mask_fault"].iloc[0] == 1


def test_missing_masks_are_found_unless_the_subject_fills_the_picture(stills):
    def bare(capture, rows, wall=90):
        pictures = {}
        for row in rows:
            rgb, alpha = capture.picture(row)
            cover = alpha[..., None] / 255
            pictures[row] = (rgb * cover + wall * (1 - cover)).astype(np.uint8), None
        return capture.with_pictures(pictures)

    finding = codes(bare(stills, [1, 5]))["mask_missing"]
    assert finding.severity == "error" and set(finding.frames) == set(stills.frames.frame.iloc[[1, 5]])
    assert finding.remedy.action == "matte" and finding.remedy.arguments["source"] == "orbit"
    assert codes(bare(stills, [1, 5], wall=255))["mask_missing"].severity == "info"  # white is what training sees
    assert codes(bare(stills, range(12))) == {}  # a whole source: `appearance` compares it with others
    full = with_alpha(
        stills, range(12), lambda alpha: np.where(np.arange(SIZE) < 1, 0, 255 + 0 * alpha).astype(np.uint8)
    )
    assert codes(bare(full, [1, 5])) == {}


# --- frozen and doubled ------------------------------------------------------------------------------------------


def frozen(capture, start, length, noise=0.0):
    rng = np.random.default_rng(1)
    rgb, alpha = capture.picture(start)
    pictures = {}
    for row in range(start + 1, start + length):
        values = rgb + rng.normal(0, noise, rgb.shape)
        pictures[row] = np.clip(np.rint(values), 0, 255).astype(np.uint8), alpha
    return capture.with_pictures(pictures)


@pytest.mark.parametrize("noise", [0.0, 0.7])  # an exact copy, and one that went through an encoder
def test_a_freeze_is_found_whole(clip, noise):
    finding = codes(frozen(clip, 8, 6, noise))["frozen_clip"]
    assert finding.remedy.action == "drop_duplicates"
    assert finding.remedy.arguments["frames"] == list(clip.frames.frame.iloc[9:14])
    assert finding.severity == "warning"
    assert finding.evidence.iloc[0]["start"] == pytest.approx(9 / 24, abs=1e-3)


def test_two_equal_frames_are_doubled_and_not_a_freeze(clip):
    found = codes(frozen(clip, 8, 2))
    assert "frozen_clip" not in found
    assert found["near_duplicates"].severity == "info"
    assert found["near_duplicates"].remedy.arguments["frames"] == [clip.frames.frame[9]]


def test_slow_motion_is_no_freeze(clip):
    slow = ball_capture(
        Path("ball"), clip.cameras, source="clip", camera="front", move=0.25
    )  # a tenth of a pixel a frame
    found = codes(slow)
    assert "frozen_clip" not in found or found["frozen_clip"].severity == "info"


def test_one_picture_under_two_cameras_is_a_mistake(stills):
    swapped = stills.with_pictures({row: stills.picture(2) for row in (6, 9)})
    finding = codes(swapped, (quality.check_duplicates,))["near_duplicates"]
    assert finding.severity == "error" and "another camera" in finding.message
    assert set(finding.frames) == set(stills.frames.frame.iloc[[6, 9]])


def test_held_out_frames_are_left_to_the_check_for_leaks(clip):
    held = frozen(clip, 8, 6).with_split(["train"] * 9 + ["test"] * 16)
    assert codes(held, (quality.check_frozen, quality.check_duplicates)) == {}


# --- blur --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "name"), [(1, "x"), (0, "y")])
def test_sharpness_falls_with_the_length_of_the_smear(textured, axis, name):
    kept = []
    for length in (0, 1, 2, 3, 5):
        rgb, _ = textured.picture(10)
        table = quality.measure_blur(look(textured.with_pictures({10: (smear(rgb, length, axis), None)})))
        kept.append(table["sharpness"][10])
        if length >= 2:
            assert table["angle"][10] == name and quality.blurred(table)[10]
            assert table["smear_px"][10] == pytest.approx(length, rel=0.5)
            assert quality.blurred(table).sum() == 1
    assert kept[0] > 0.9 and all(np.diff(kept) < 0)


def test_blur_ignores_contrast_and_brightness(textured):
    dim = textured.with_pictures({10: ((textured.picture(10)[0] * 0.4).astype(np.uint8), None)})
    assert quality.measure_blur(look(dim))["sharpness"][10] > 0.85


def test_blurred_frames_are_named(textured):
    pictures = {row: (smear(textured.picture(row)[0], 4, 1), None) for row in (3, 9, 15)}
    finding = codes(textured.with_pictures(pictures))["motion_blur"]
    assert set(finding.frames) == set(textured.frames.frame.iloc[[3, 9, 15]])
    assert finding.severity == "warning" and "rows" in finding.message


# --- parts -------------------------------------------------------------------------------------------------------


def test_shrink_keeps_the_mean_and_repeats_what_is_small():
    values = np.random.default_rng(0).uniform(size=(64, 96, 3))
    small = shrink(values, 32, 32)
    assert small.shape == (32, 32, 3)
    np.testing.assert_allclose(small.mean((0, 1)), values.mean((0, 1)), atol=1e-6)
    assert shrink(np.arange(3.0)[:, None], 6, 1)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_severity_grows_with_the_error():
    names = [masks.severity_of(mse) for mse in (0, 1e-6, 2e-5, 2e-4, 1e-3, 0.1)]
    assert names == ["", "", "info", "warning", "error", "error"]


@pytest.mark.parametrize("name", ["moving_books", "four_cameras"])
def test_real_captures(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    found = codes(load_capture(folder))
    # The first two frames of each of four_cameras' clips are one picture, encoded twice.
    assert set(found) == ({"near_duplicates"} if name == "four_cameras" else set())
    assert all(finding.severity == "info" for finding in found.values())
