"""Mattes, held against alphas that are known: drawn clips, and the clean clip that the embedded capture also holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import SIZE, clip, over, overlap, subject, to_8_bits
from scipy import ndimage

from fourdgs.cameras import orbit
from fourdgs.data import alpha, hybrid
from fourdgs.data.chroma import cover, despill, guided_filter
from fourdgs.data.difference import difference_alpha
from fourdgs.data.load import load_capture
from fourdgs.data.transforms import write_transforms
from fourdgs.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"

y, x = np.mgrid[:SIZE, :SIZE] / SIZE
GREEN = np.array([0.15, 0.6, 0.25]) * (1.1 - 0.2 * x)[..., None]
BLUE = np.array([0.1, 0.2, 0.7]) * (1.1 - 0.2 * y)[..., None]
BACKDROPS = {
    "white": np.ones((SIZE, SIZE, 3)),
    "black": np.zeros((SIZE, SIZE, 3)),
    "grey": np.full((SIZE, SIZE, 3), 0.5),
    "gradient": 0.25 + 0.3 * x[..., None] * (1, 0.8, 0.2) + 0.2 * y[..., None] * (0.2, 0.5, 1),
    "lamp": 0.2 + 0.5 * np.exp(-((x - 0.7) ** 2 + (y - 0.3) ** 2) / 0.12)[..., None] * (0.8, 0.9, 1),
    "floor": 0.35 + 0.2 * (1 / (1 + np.exp(-(y - 0.8) / 0.04)))[..., None] * (0.1, 0.6, 1),
}
SHIFTS = (-3.0, -1.5, 0.0, 1.5, 3.0)


def _pairs(capture):
    """(clip row, clean row) at the same time."""
    frames = capture.frames
    return list(zip(*(np.flatnonzero(frames.source == name) for name in ("clip", "clip_clean")), strict=True))


def _drawn(backdrop, shifts=SHIFTS, **kwargs):
    """A swaying subject before a backdrop: the clip, and the true alphas."""
    drawn = [subject(shift, **kwargs) for shift in shifts]
    return np.stack([over(rgb, cover, backdrop) for rgb, cover in drawn]), np.stack([cover for _, cover in drawn])


def _alphas(capture, source="clip"):
    return np.stack([capture.alpha(row) for row in np.flatnonzero(capture.frames.source == source)])


# --- what is there stays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "alpha"])
def test_frames_with_an_alpha_stay_as_they_are(capture, cut, method):
    assert hybrid.matte(capture, "orbit", method=method) is capture
    assert hybrid.matte(cut, "clip", method=method) is cut
    assert hybrid.matte_method(cut, "clip") == "alpha"


def test_an_opaque_alpha_channel_is_no_matte():
    pictures, truth = _drawn(BACKDROPS["gradient"])
    found = hybrid.matte(clip(pictures, np.ones_like(truth)), "clip")
    assert overlap(_alphas(found), truth) > 0.98


def test_auto_cuts_only_the_frames_that_lack_an_alpha():
    pictures, truth = _drawn(BACKDROPS["gradient"])
    some = clip(pictures).with_pictures({0: (to_8_bits(pictures[0]), to_8_bits(np.full_like(truth[0], 0.25)))})
    found = hybrid.matte(some, "clip")
    assert found.memory["clip/000"] is some.memory["clip/000"]
    assert overlap(_alphas(found)[1:], truth[1:]) > 0.98


def test_nothing_else_is_touched(capture, cut):
    assert capture.memory == {}
    assert set(cut.memory) == set(capture.frames.frame[capture.frames.source == "clip"])
    assert cut.frames.equals(capture.frames)


# --- a plate -----------------------------------------------------------------------------------------------------


def test_matte_is_the_clean_clips_alpha(cut):
    for row, clean in _pairs(cut):
        one, two = cut.alpha(row), cut.alpha(clean)
        assert overlap(one, two) > 0.98
        assert np.abs(one - two).mean() < 0.01
        soft = (two > 0.05) & (two < 0.95)
        assert np.abs(one - two)[soft].mean() < 0.2


def test_specks_go_and_holes_close_but_real_gaps_stay():
    plate = np.full((80, 80, 3), 0.4, np.float32)
    rgb = plate.copy()
    rgb[20:60, 20:60] = (0.9, 0.2, 0.1)
    rgb[30:40, 30:40] = 0.4  # a real gap
    rgb[50, 50] = 0.4  # a pinhole
    rgb[5, 5] = 0.9  # a speck
    share = difference_alpha(rgb, plate, 0.04)
    assert share[5, 5] == 0 and share[50, 50] > 0.9 and share[35, 35] == 0 and share[25, 25] == 1
    # Where it is known that there is subject, the gap is a color like the plate's.
    inside = np.zeros((80, 80), bool)
    inside[22:58, 22:58] = True
    assert difference_alpha(rgb, plate, 0.04, inside=inside)[35, 35] == 1
    assert difference_alpha(rgb, plate, 0.04, outside=inside)[25, 25] == 0


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


# --- an estimated backdrop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [None, "orbit"])
def test_without_the_plate_the_matte_is_as_good_as_with_it(capture, cut, prior):
    assert hybrid.matte_method(capture, "clip") == "backdrop"
    found = hybrid.matte(capture, "clip", prior=prior)
    with_plate, without = (
        np.mean([overlap(one.alpha(row), one.alpha(clean)) for row, clean in _pairs(one)]) for one in (cut, found)
    )
    assert without > 0.985 and without > with_plate - 0.002


def test_the_backdrop_is_the_plate_where_seen_and_near_it_behind_the_subject(capture):
    backdrops = hybrid.estimate_backdrop(capture, "clip")
    assert list(backdrops) == np.flatnonzero(capture.frames.source == "clip").tolist()
    (backdrop,) = set(backdrops.values())  # one camera, one backdrop
    off = np.abs(backdrop.picture() - alpha.grade(alpha.studio(SIZE))).max(axis=-1)
    assert backdrop.picture().shape == (SIZE, SIZE, 3) and backdrop.picture().dtype == np.float32
    assert off[backdrop.seen].max() < 4 / 255
    assert off.max() < 12 / 255
    assert backdrop.noise < 2 / 255 and backdrop.rim == 1 and 0.6 < backdrop.coverage < 0.9


@pytest.mark.parametrize("name", BACKDROPS)
def test_a_subject_cut_by_the_frame_stands_out_from_any_smooth_backdrop(name):
    pictures, truth = _drawn(BACKDROPS[name])
    found = _alphas(hybrid.matte(clip(pictures), "clip", method="backdrop"))
    assert min(map(overlap, found, truth)) > 0.98
    assert np.abs(found - truth).mean() < 0.006


def test_the_subjects_color_does_not_hold_the_backdrop_s():
    pictures, truth = _drawn(BACKDROPS["white"])
    found = hybrid.matte(clip(pictures), "clip")
    true, cover = subject(SHIFTS[2])
    edge = (cover > 0.3) & (cover < 0.9)
    assert np.abs(found.image(2) - true)[edge].mean() < 0.06 < np.abs(pictures[2] - true)[edge].mean()


def test_a_mirrored_clip_has_the_mirrored_matte():
    pictures, _ = _drawn(BACKDROPS["lamp"])
    one, two = (_alphas(hybrid.matte(clip(p), "clip")) for p in (pictures, pictures[:, :, ::-1]))
    assert np.abs(one - two[:, :, ::-1]).mean() < 1e-3


def test_exposure_that_drifts_does_not_show_in_the_matte():
    pictures, truth = _drawn(BACKDROPS["lamp"])
    gains = np.linspace(0.85, 1.1, len(pictures))[:, None, None, None]
    steady, drifting = (_alphas(hybrid.matte(clip(p), "clip")) for p in (pictures, pictures * gains))
    assert np.abs(steady - drifting).mean() < 2e-3
    assert min(map(overlap, drifting, truth)) > 0.98


def test_noise_widens_the_threshold():
    pictures, truth = _drawn(BACKDROPS["gradient"])
    noisy = pictures + np.random.default_rng(0).normal(0, 3 / 255, pictures.shape)
    found = hybrid.matte(clip(noisy), "clip")
    assert min(map(overlap, _alphas(found), truth)) > 0.96
    assert not (_alphas(found)[:, :8] > 0).any()  # no speckles on the wall
    backdrop = hybrid.estimate_backdrop(clip(noisy), "clip")[0]
    assert 1.5 * 3 / 255 < backdrop.noise < 2.3 * 3 / 255


def test_a_camera_that_moves_has_a_backdrop_a_frame():
    pictures, truth = _drawn(BACKDROPS["lamp"], (-8.0, 0.0, 8.0))
    still = clip(pictures)
    moving = still.with_frames(cameras=orbit(3, width=SIZE, height=SIZE).with_times(still.frames.time.to_numpy()))
    backdrops = hybrid.estimate_backdrop(moving, "clip")
    assert len(set(backdrops.values())) == 3
    assert min(map(overlap, _alphas(hybrid.matte(moving, "clip")), truth)) > 0.98


def test_black_bars_are_not_subject():
    pictures, truth = _drawn(BACKDROPS["lamp"])
    pictures[:, -9:], pictures[:, :5], truth[:, -9:], truth[:, :5] = 0, 0, 0, 0
    found = _alphas(hybrid.matte(clip(pictures), "clip"))
    assert not found[:, -9:].any() and not found[:, :5].any()
    assert min(overlap(one[5:-10], two[5:-10]) for one, two in zip(found, truth, strict=True)) > 0.98


def test_a_prior_fills_what_is_colored_like_the_backdrop():
    pictures, truth = _drawn(BACKDROPS["grey"], (0.0,))
    patch = np.zeros((SIZE, SIZE), bool)
    patch[-26:-14, 40:56] = True
    pictures[:, patch] = 0.5
    both = hybrid.merge([clip(pictures), clip(pictures, truth, "orbit")])
    assert _alphas(hybrid.matte(both, "clip"))[0][patch].mean() < 0.2
    assert _alphas(hybrid.matte(both, "clip", prior="orbit"))[0][patch].mean() > 0.99


@pytest.mark.parametrize("name", ["moving_books", "four_cameras"])
def test_a_furnished_room_is_refused(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"shared/data/{name} is not on this machine")
    room = load_capture(SHARED / name).select(rows=slice(0, 40, 8))
    with pytest.raises(InputError, match="no smooth backdrop"):
        hybrid.matte(room, room.sources[0])


def test_texture_and_strong_noise_are_refused():
    rng = np.random.default_rng(0)
    texture = 0.5 + 0.15 * ndimage.gaussian_filter(rng.normal(0, 5, (SIZE, SIZE, 3)), (2, 2, 0))
    with pytest.raises(InputError, match="only .* goes on smoothly.*plate"):
        hybrid.matte(clip(_drawn(texture)[0]), "clip", method="backdrop")
    noisy = _drawn(BACKDROPS["grey"])[0] + rng.normal(0, 0.05, (len(SHIFTS), SIZE, SIZE, 3))
    with pytest.raises(InputError, match="off a smooth surface"):
        hybrid.matte(clip(noisy), "clip", method="backdrop")


# --- a screen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("screen", "channel"), [(GREEN, 1), (BLUE, 2)], ids=["green", "blue"])
def test_a_screen_is_keyed_and_its_light_taken_off(screen, channel):
    color, spill = np.full(3, 0.4), 0.06 * np.eye(3)[channel]
    pictures, truth = _drawn(screen, color=color + spill)
    rng = np.random.default_rng(0)
    noisy = clip(pictures + rng.normal(0, 1 / 255, pictures.shape))
    assert hybrid.matte_method(noisy, "clip") == "chroma"
    found = hybrid.matte(noisy, "clip")
    assert min(map(overlap, _alphas(found), truth)) > 0.98
    assert np.abs(_alphas(found) - truth).mean() < 0.01
    others = [c for c in range(3) if c != channel]
    for row in range(len(SHIFTS)):
        rgb = found.image(row)[_alphas(found)[row] > 0]
        assert (rgb[:, channel] <= rgb[:, others].max(axis=1) + 1e-6).all()
    spilled = hybrid.matte(noisy, "clip", despill=False)
    np.testing.assert_array_equal(_alphas(spilled), _alphas(found))
    head = np.s_[30:45, 44:52]
    left, taken = (one.image(2)[head].mean(axis=(0, 1)) for one in (spilled, found))
    assert left[channel] - left[0] > 0.03 > 0.01 > abs(taken[channel] - taken[0])


def test_strands_of_hair_keep_their_share():
    # Strands a third of a pixel wide and wider, grey on green: the key's share is their cover.
    rgb, cover_true = subject(0.0, color=(0.2, 0.2, 0.2))
    strands = np.zeros((SIZE, SIZE))
    strands[8:20, 40:56:3] = np.linspace(0.35, 0.8, 12)[:, None]
    rgb[8:20] = 0.2
    truth = np.maximum(cover_true, strands)
    found = _alphas(hybrid.matte(clip(over(rgb, truth, GREEN)[None]), "clip", method="chroma"))[0]
    on = strands > 0.3
    assert np.corrcoef(found[8:20][on[8:20]], truth[8:20][on[8:20]])[0, 1] > 0.95
    assert np.abs(found - truth)[8:20].mean() < 0.05


def test_cover_is_exact_for_grey_and_never_makes_a_color_negative():
    rng = np.random.default_rng(0)
    plate = np.tile(np.float32([0.2, 0.6, 0.3]), (40, 40, 1))
    share = rng.uniform(0, 1, (40, 40)).astype(np.float32)
    grey = rng.uniform(0, 1, (40, 40, 1)).astype(np.float32) * np.ones(3, np.float32)
    np.testing.assert_allclose(cover(over(grey, share, plate).astype(np.float32), plate, 1), share, atol=1e-5)
    any_color = rng.uniform(0, 1, (40, 40, 3)).astype(np.float32)
    left = any_color - (1 - cover(any_color, plate, 1))[..., None] * plate
    assert left.min() > -1e-5
    np.testing.assert_array_equal(despill(despill(any_color, 1), 1), despill(any_color, 1))


def test_guided_filter_keeps_flat_values_and_moves_edges_onto_the_guides():
    rng = np.random.default_rng(0)
    guide = rng.uniform(0, 1, (40, 40, 3)).astype(np.float32)
    np.testing.assert_allclose(guided_filter(guide, np.full((40, 40), 0.3, np.float32), 2, 1e-4), 0.3, atol=1e-5)
    # An affine function of the guide's colors is its own result.
    affine = 0.1 + guide @ np.array([0.2, 0.5, 0.1], np.float32)
    np.testing.assert_allclose(guided_filter(guide, affine, 2, 1e-9), affine, atol=1e-3)
    # An alpha known for two by two pixels only, as video stores colors, gets the full picture's edge.
    rows, columns = np.mgrid[:40, :40]
    true = np.clip(columns - 0.37 * rows - 12, 0, 1).astype(np.float32)
    coarse = true.reshape(20, 2, 20, 2).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1)
    guide = over(np.float32([0.7, 0.5, 0.4]), true, np.float32([0.2, 0.6, 0.3])).astype(np.float32)
    found = guided_filter(guide, coarse, 2, 1e-4)
    assert np.abs(found - true).mean() < 0.85 * np.abs(coarse - true).mean()


def test_blue_clothes_before_a_blue_wall_are_told_by_difference():
    pictures, truth = _drawn(np.broadcast_to([0.1, 0.12, 0.35], (SIZE, SIZE, 3)), color=(0.22, 0.35, 0.6))
    assert hybrid.matte_method(clip(pictures), "clip") == "backdrop"
    by_key = _alphas(hybrid.matte(clip(pictures), "clip", method="chroma"))
    assert overlap(_alphas(hybrid.matte(clip(pictures), "clip")), truth) > 0.98 > 0.9 > overlap(by_key, truth)


def test_a_real_green_screen():
    path = SHARED / "talking_clip" / "green_screen.mp4"
    if not path.is_file():
        pytest.skip("shared/data/talking_clip is not on this machine")
    av = pytest.importorskip("av")
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(3), file.decode(video=0), strict=False)]
    found = hybrid.matte(clip(np.stack(frames) / 255.0), "clip")
    covers = _alphas(found)
    assert not covers[:, :40].any(), "the wall above the head"
    assert not covers[:, 487:].any(), "the black bar"
    assert (covers[:, 420:480, 200:300] == 1).all(), "the chest"
    band = (covers > 0) & (covers < 1)
    assert 0.005 < band.mean() < 0.04, "soft along the outline, and only there"


# --- a function ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float", "uint8", "bool", "torch"])
def test_a_function_is_asked_once_a_frame_in_order(kind):
    pictures, truth = _drawn(BACKDROPS["lamp"])
    made, asked = clip(pictures), []
    give = {
        "float": lambda a: a,
        "uint8": to_8_bits,
        "bool": lambda a: a > 0.5,
        "torch": lambda a: torch.tensor(a, requires_grad=True),
    }[kind]

    def model(rgb):
        assert rgb.dtype == np.uint8
        asked.append(rgb)
        return give(truth[len(asked) - 1])

    found = hybrid.matte(made, "clip", method=model)
    np.testing.assert_array_equal(np.stack(asked), to_8_bits(pictures))
    expected = (truth > 0.5) if kind == "bool" else truth
    np.testing.assert_allclose(_alphas(found), expected, atol=0.5 / 255 + 1e-6)


def test_colors_under_a_functions_matte_lose_the_background():
    pictures, truth = _drawn(BACKDROPS["white"], (0.0,))
    found = hybrid.matte(clip(pictures), "clip", method=lambda rgb: truth[0])
    true, cover_true = subject(0.0)
    edge = (cover_true > 0.3) & (cover_true < 1)
    assert np.abs(found.image(0) - true)[edge].mean() < 0.02 < np.abs(pictures[0] - true)[edge].mean()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((4, 4)), r"shape is \[4, 4\], must be \[96, 96\]"),
        (np.full((SIZE, SIZE), np.nan), "ranges from nan"),
        (np.full((SIZE, SIZE), 1.5), "ranges from 1.5"),
        (np.full((SIZE, SIZE), 255, np.int64), "type is int64"),
        (None, "shape is"),
        (np.zeros((SIZE, SIZE)), "nothing stands out"),
    ],
    ids=["shape", "nan", "range", "type", "none", "empty"],
)
def test_a_bad_matte_names_the_frame(given, what):
    made = clip(_drawn(BACKDROPS["lamp"], (0.0, 1.0))[0])
    with pytest.raises(InputError, match=f"clip/000.*{what}"):
        hybrid.matte(made, "clip", method=lambda rgb: given)


# --- bad requests --------------------------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match="nothing stands out from the plate"):
        hybrid.matte(capture, "clip", plate, threshold=2.0)
    with pytest.raises(InputError, match="method: is 'magic'.*chroma"):
        hybrid.matte(capture, "clip", method="magic")
    with pytest.raises(InputError, match="plate: is needed"):
        hybrid.matte(capture, "clip", method="plate")
    with pytest.raises(InputError, match="9 frames of 'clip' have no alpha"):
        hybrid.matte(capture, "clip", method="alpha")
    with pytest.raises(InputError, match="not shot before a green or blue screen"):
        hybrid.matte(capture, "clip", method="chroma")


def test_bad_priors_are_named(capture):
    with pytest.raises(InputError, match="no frame has the source 'film'"):
        hybrid.matte(capture, "clip", prior="film")
    elsewhere = capture.select(where=lambda frames: (frames.source != "orbit") | (frames.camera != "orbit00"))
    with pytest.raises(InputError, match="prior: 'orbit' has no frame from the camera 'orbit00'"):
        hybrid.matte(elsewhere, "clip", prior="orbit")
    with pytest.raises(InputError, match="prior: 'clip' has no alpha"):
        hybrid.matte(capture, "clip", prior="clip")


def test_a_clip_with_nobody_in_it_is_named_but_an_empty_frame_may_be():
    wall = np.broadcast_to(BACKDROPS["lamp"], (4, SIZE, SIZE, 3))
    with pytest.raises(InputError, match="nothing stands out in any frame"):
        hybrid.matte(clip(wall), "clip")
    pictures, truth = _drawn(BACKDROPS["gradient"], (0.0, 0.0, 0.0))
    found = hybrid.matte(clip(np.concatenate([BACKDROPS["gradient"][None], pictures])), "clip")
    assert not _alphas(found)[0].any()
    assert min(map(overlap, _alphas(found)[1:], truth)) > 0.98


def test_a_matted_capture_written_out_is_a_capture_again(tmp_path, cut):
    write_transforms(cut, tmp_path / "matted")
    again = load_capture(tmp_path / "matted")
    first, same = (
        int(np.flatnonzero((one.frames.source == "clip") & (one.frames.time == 0))[0]) for one in (cut, again)
    )
    np.testing.assert_array_equal(again.alpha(same), cut.alpha(first))
    np.testing.assert_array_equal(again.image(same), cut.image(first))
    assert again.sources == cut.sources and hybrid.matte(again, "clip") is again
