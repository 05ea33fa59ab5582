"""Mattes and colour matches, held against the clean clip that the embedded capture also holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fourdgs.data import alpha, hybrid
from fourdgs.data.load import load_capture
from fourdgs.errors import InputError

SIZE = 96


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A short clip: nine frames."""
    patch = pytest.MonkeyPatch()
    patch.setattr(alpha, "CLIP_FRAMES", 9)
    try:
        folder = alpha.make_alpha(tmp_path_factory.mktemp("data") / "alpha", SIZE, grid=(1, 1), progress=False)
    finally:
        patch.undo()
    return load_capture(folder).select(source=["orbit", "clip", "clip_clean"])


@pytest.fixture(scope="module")
def cut(capture):
    return hybrid.matte(capture, "clip", capture.root / "clip_plate.png")


@pytest.fixture(scope="module")
def matched(cut):
    return hybrid.match_colors(cut, "clip", "orbit")


def _pairs(capture):
    """(clip row, clean row) at the same time."""
    frames = capture.frames
    return list(zip(*(np.flatnonzero(frames.source == name) for name in ("clip", "clip_clean")), strict=True))


def _psnr(capture):
    def error(one, two):
        return np.mean((capture.image(one, (1, 1, 1)) - capture.image(two, (1, 1, 1))) ** 2)

    return float(np.mean([-10 * np.log10(error(*pair)) for pair in _pairs(capture)]))


def test_matte_is_the_clean_clips_alpha(cut):
    for row, clean in _pairs(cut):
        one, two = cut.alpha(row), cut.alpha(clean)
        overlap = ((one > 0.5) & (two > 0.5)).sum() / ((one > 0.5) | (two > 0.5)).sum()
        assert overlap > 0.98
        assert np.abs(one - two).mean() < 0.01
        soft = (two > 0.05) & (two < 0.95)
        assert np.abs(one - two)[soft].mean() < 0.2


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


def test_specks_go_and_holes_close_but_real_gaps_stay():
    plate = np.full((80, 80, 3), 0.4, np.float32)
    rgb = plate.copy()
    rgb[20:60, 20:60] = (0.9, 0.2, 0.1)
    rgb[30:40, 30:40] = 0.4  # a real gap
    rgb[50, 50] = 0.4  # a pinhole
    rgb[5, 5] = 0.9  # a speck
    cover = hybrid._alpha(rgb, plate, 0.04)
    assert cover[5, 5] == 0 and cover[50, 50] > 0.9 and cover[35, 35] == 0 and cover[25, 25] == 1


def test_plate_may_be_an_array_of_another_size(capture, cut):
    plate = alpha.grade(alpha.studio(2 * SIZE))
    other = hybrid.matte(capture, "clip", plate)
    row = _pairs(capture)[0][0]
    assert np.abs(other.alpha(row) - cut.alpha(row)).mean() < 0.01


def test_resized_captures_are_matted_at_their_size(capture):
    small = hybrid.matte(capture.resized(48, 48), "clip", capture.root / "clip_plate.png")
    row, clean = _pairs(small)[0]
    assert small.alpha(row).shape == (48, 48)
    assert np.abs(small.alpha(row) - small.alpha(clean)).mean() < 0.02


def test_bad_requests_are_named(capture):
    plate = capture.root / "clip_plate.png"
    with pytest.raises(InputError, match="no frame has the source 'film'.*clip"):
        hybrid.matte(capture, "film", plate)
    with pytest.raises(InputError, match="nowhere.png"):
        hybrid.matte(capture, "clip", capture.root / "nowhere.png")
    with pytest.raises(InputError, match="plate.*same camera"):
        hybrid.matte(capture, "clip", np.zeros((96, 48, 3)))
    with pytest.raises(InputError, match="shape"):
        hybrid.matte(capture, "clip", np.zeros((96, 96)))
    with pytest.raises(InputError, match="nothing stands out"):
        hybrid.matte(capture, "clip", plate, threshold=2.0)


def test_no_shared_camera_or_no_overlap_is_named(capture):
    renamed = capture.frames.assign(camera=capture.frames.camera.where(capture.frames.source != "clip", "phone"))
    with pytest.raises(InputError, match="share no camera"):
        hybrid.match_colors(replace(capture, frames=renamed), "clip", "orbit")
    row = int(np.flatnonzero(capture.frames.frame == "train/orbit/0000")[0])
    empty = capture.with_pictures({row: (np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.uint8))})
    with pytest.raises(InputError, match="only 0 pixels"):
        hybrid.match_colors(empty, "clip", "orbit")
