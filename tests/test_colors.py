"""Color matches, held against maps that are known and against the clean clip that the embedded capture also holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clips import SIZE, clip, subject, to_8_bits

from fourdgs.data import alpha, hybrid
from fourdgs.errors import InputError


@pytest.fixture(scope="module")
def matched(cut):
    return hybrid.match_colors(cut, "clip", "orbit")


def _psnr(capture):
    frames = capture.frames
    pairs = zip(*(np.flatnonzero(frames.source == name) for name in ("clip", "clip_clean")), strict=True)
    errors = [np.mean((capture.image(one, (1, 1, 1)) - capture.image(two, (1, 1, 1))) ** 2) for one, two in pairs]
    return float(np.mean(-10 * np.log10(errors)))


def _without(capture, *cameras):
    """Without the orbit's views from some cameras."""
    return capture.select(where=lambda frames: (frames.source != "orbit") | ~frames.camera.isin(cameras))


# --- a shared camera -----------------------------------------------------------------------------------------------


def test_matted_and_matched_clip_is_the_clean_clip(capture, cut, matched):
    assert _psnr(matched) > 30
    assert _psnr(matched) > _psnr(cut) + 3 > _psnr(capture) + 15


def test_nothing_else_is_touched(capture, matched):
    assert capture.memory == {}
    others = np.flatnonzero(capture.frames.source != "clip")
    assert not {capture.frames.frame[row] for row in others} & set(matched.memory)
    assert set(matched.memory) == set(capture.frames.frame[capture.frames.source == "clip"])
    assert matched.frames.equals(capture.frames)


def test_match_inverts_the_grade(cut):
    match = hybrid.color_match(cut, "clip", "orbit")
    colors = np.random.default_rng(0).uniform(0.05, 0.75, (500, 3))
    np.testing.assert_allclose(match.apply(alpha.grade(colors)), colors, atol=0.02)
    assert match.rmse < 0.01 and match.pixels > 500
    assert match.how == "shared cameras: orbit00" and match.uncertainty < 0.005


def test_an_unmatted_clip_cannot_fool_the_match_where_alpha_is_missing(capture):
    # The clip is opaque, the reference is not: only what is opaque in both counts, which is the subject.
    match = hybrid.color_match(capture, "clip", "orbit")
    colors = np.random.default_rng(0).uniform(0.1, 0.7, (100, 3))
    np.testing.assert_allclose(match.apply(alpha.grade(colors)), colors, atol=0.04)


def test_matching_what_matches_changes_nothing(capture):
    same = hybrid.color_match(capture, "clip_clean", "orbit")
    colors = np.random.default_rng(0).uniform(0.05, 0.8, (100, 3))
    np.testing.assert_allclose(same.apply(colors), colors, atol=0.01)


def test_fit_takes_gain_offset_gamma_and_crosstalk():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.05, 0.95, (2000, 3))
    mix = np.array([[0.7, 0.1, 0.02], [0.05, 0.8, 0.0], [0.0, 0.1, 0.75]])
    after = before**1.15 @ mix.T + (0.02, 0.0, 0.03)
    match = hybrid.fit_colors(before, after)
    assert np.abs(match.apply(before) - after).max() < 0.01


def test_fit_is_not_moved_by_a_third_of_wrong_pairs():
    rng = np.random.default_rng(1)
    before = rng.uniform(0.05, 0.9, (3000, 3))
    after = before * (0.8, 1.05, 1.1)
    wrong = after.copy()
    wrong[:900] = rng.uniform(0, 1, (900, 3))
    match = hybrid.fit_colors(before, wrong)
    assert np.abs(match.apply(before[900:]) - after[900:]).max() < 0.02


def test_fit_of_a_single_tone_stays_calm():
    before = np.full((200, 3), 0.5) + np.random.default_rng(0).normal(0, 0.004, (200, 3))
    match = hybrid.fit_colors(before, before * 0.9)
    assert match.exponents == (1.0, 1.0, 1.0)
    assert np.abs(match.apply(before) - before * 0.9).max() < 0.01


def test_a_camera_of_another_name_is_the_same_if_pose_and_lens_are(cut):
    renamed = cut.frames.assign(camera=cut.frames.camera.where(cut.frames.source != "clip", "phone"))
    named, unnamed = (hybrid.color_match(one, "clip", "orbit") for one in (cut, replace(cut, frames=renamed)))
    assert unnamed.how == "shared cameras: phone = orbit00"
    assert (unnamed.exponents, unnamed.matrix) == (named.exponents, named.matrix)
    further = cut.cameras.viewmats.clone()
    further[np.flatnonzero(cut.frames.source == "clip"), 2, 3] *= 1.1
    other = replace(cut, frames=renamed, cameras=replace(cut.cameras, viewmats=further))
    assert hybrid.color_match(other, "clip", "orbit").how.startswith("subject statistics")


# --- none ------------------------------------------------------------------------------------------------------------


def test_without_a_shared_camera_the_nearest_views_tell_and_nearly_as_well(cut, matched):
    apart = _without(cut, "orbit00")
    match = hybrid.color_match(apart, "clip", "orbit")
    assert match.how.startswith("subject statistics") and "30 degrees" in match.how
    assert match.exponents == (1.0, 1.0, 1.0)
    assert _psnr(hybrid.match_colors(apart, "clip", "orbit")) > _psnr(matched) - 1.5 > _psnr(cut) + 2


def test_the_uncertainty_covers_the_error_and_grows_with_the_angle(cut):
    colors = np.concatenate(
        [cut.image(row)[cut.alpha(row) == 1] for row in np.flatnonzero(cut.frames.source == "clip_clean")]
    )
    uncertain, errors = [], []
    for cameras in ([], ["orbit00"], ["orbit00", "orbit01", "orbit11"]):
        match = hybrid.color_match(_without(cut, *cameras), "clip", "orbit")
        uncertain.append(match.uncertainty)
        errors.append(float(np.sqrt(np.mean((match.apply(alpha.grade(colors)) - colors) ** 2))))
    assert uncertain[0] < uncertain[1] < uncertain[2] and errors[0] < errors[1] < errors[2]
    assert all(claim > error for claim, error in zip(uncertain[1:], errors[1:], strict=True))


def test_views_of_other_sides_are_refused(cut):
    far = _without(cut, "orbit00", "orbit01", "orbit02", "orbit10", "orbit11")
    with pytest.raises(InputError, match="nearest look from 8[0-9] degrees apart.*different sides"):
        hybrid.color_match(far, "clip", "orbit")


def _two(shift: float = 4.0, gain=(1.0, 1.0, 1.0), offset: float = 0.0):
    """A subject, and the same at another place and with other colors, from cameras a few degrees apart."""
    rgb, cover = subject(0.0, color=(0.6, 0.5, 0.4))
    moved, moved_cover = subject(shift, color=(0.6, 0.5, 0.4))
    both = hybrid.merge(
        [clip([rgb] * 3, [cover] * 3), clip([moved * gain + offset] * 3, [moved_cover] * 3, "still", "side")]
    )
    views = both.cameras.viewmats.clone()
    turn = np.radians(8)
    views[np.flatnonzero(both.frames.source == "still"), :3, :3] = views.new_tensor(
        [[np.cos(turn), 0, np.sin(turn)], [0, -1, 0], [np.sin(turn), 0, -np.cos(turn)]]
    )
    return replace(both, cameras=replace(both.cameras, viewmats=views))


def test_a_subject_that_only_moved_needs_no_match():
    match = hybrid.color_match(_two(), "clip", "still")
    assert match.how.startswith("subject statistics") and match.rmse < 0.01
    colors = np.random.default_rng(0).uniform(0.1, 0.7, (100, 3))
    np.testing.assert_allclose(match.apply(colors), colors, atol=0.02)


@pytest.mark.parametrize(("gain", "offset"), [((1.2, 0.9, 0.7), 0.0), ((0.8, 0.8, 0.8), 0.05)])
def test_gain_and_offset_of_the_reference_are_found(gain, offset):
    same, other = (hybrid.color_match(one, "clip", "still") for one in (_two(), _two(4.0, gain, offset)))
    colors = np.random.default_rng(0).uniform(0.15, 0.65, (100, 3))
    np.testing.assert_allclose(other.apply(colors), same.apply(colors) * gain + offset, atol=0.015)


def test_whole_pictures_are_matched_where_neither_is_cut_out():
    both = _two(0.0, (1.1, 0.9, 0.8))
    opaque = both.with_pictures({row: (to_8_bits(both.image(row)), None) for row in range(len(both))})
    match = hybrid.color_match(opaque, "clip", "still")
    assert "whole pictures" in match.how
    np.testing.assert_allclose(np.diag(np.array(match.matrix)[:, :3]), (1.1, 0.9, 0.8), atol=0.03)


def test_a_single_reference_picture_leaves_the_uncertainty_open():
    both = _two()
    one = both.select(where=lambda frames: (frames.source == "clip") | frames.frame.str.endswith("000"))
    assert np.isnan(hybrid.color_match(one, "clip", "still").uncertainty)


# --- bad requests ----------------------------------------------------------------------------------------------------


def test_too_little_in_common_is_named(capture):
    row = int(np.flatnonzero(capture.frames.frame == "train/orbit/0000")[0])
    empty = capture.with_pictures({row: (np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.uint8))})
    with pytest.raises(InputError, match="only 0 pixels are opaque in both"):
        hybrid.match_colors(empty, "clip", "orbit")
    with pytest.raises(InputError, match="no frame has the source 'film'"):
        hybrid.match_colors(capture, "clip", "film")


def test_a_subject_is_not_matched_with_a_room(capture):
    with pytest.raises(InputError, match="'clip' is opaque and 'orbit' is not.*matte 'clip' first"):
        hybrid.match_colors(_without(capture, "orbit00"), "clip", "orbit")
    both = _two()
    none = np.zeros((SIZE, SIZE), np.uint8)
    nothing = both.with_pictures({row: (to_8_bits(both.image(row)), none) for row in range(3)})
    with pytest.raises(InputError, match="0 opaque pixels in 'clip'"):
        hybrid.match_colors(nothing, "clip", "still")
