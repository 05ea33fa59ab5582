from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import Gaussians, InputError, Model, Motion, Static
from fourdgs.flicker import flicker, temporal_error
from fourdgs.ghosts import BINS, _opened, ghosts, second_light
from fourdgs.metrics import psnr_db
from fourdgs.path_quality import DEFINITIONS, path_quality, path_summary

RADIUS = 0.5


class Moved(Motion):
    """A scene that is shifted along x by a function of time."""

    name = "moved"

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def at(self, gaussians: Gaussians, times: torch.Tensor) -> Gaussians:
        """The Gaussians, shifted by ``shift(time)``."""
        still = Static().at(gaussians, times)
        x = torch.tensor([self.shift(0.5 if math.isnan(time) else time) for time in times.tolist()])
        return still.replace(means=still.means + x[:, None, None] * torch.tensor([1.0, 0, 0]))


def ball(count: int = 4000, seed: int = 0) -> Gaussians:
    """An opaque ball: a shell of small Gaussians of many colours."""
    random = torch.Generator().manual_seed(seed)
    means = RADIUS * torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
    return Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), math.log(0.02)),
        opacities=torch.full((count,), 4.0),
        sh0=torch.randn(count, 1, 3, generator=random),
        shN=torch.zeros(count, 0, 3),
    )


def with_veil(scene: Gaussians, opacity: float, place=(0.0, 0.0, 1.0), size: float = 0.2) -> Gaussians:
    """The scene and one wide Gaussian of this peak opacity."""
    veil = Gaussians(
        means=torch.tensor([place]),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), math.log(size)),
        opacities=torch.logit(torch.tensor([opacity])),
        sh0=torch.zeros(1, 1, 3),
        shN=torch.zeros(1, 0, 3),
    )
    return Gaussians(**{key: torch.cat([value, veil.items()[key]]) for key, value in scene.items().items()})


def with_copy(scene: Gaussians, opacity: float, shift=(1.1, 0.0, 0.0)) -> Gaussians:
    """The scene and a thin copy of it beside it, each of its Gaussians of this opacity."""
    copy = scene.replace(
        means=scene.means + torch.tensor(shift), opacities=torch.full_like(scene.opacities, opacity).logit()
    )
    return Gaussians(**{key: torch.cat([value, copy.items()[key]]) for key, value in scene.items().items()})


def path(count: int = 6, size: int = 64, times=None) -> fd.Cameras:
    return ball_cameras(count, size, times=times)


def ghost(scene: Gaussians) -> float:
    return float(ghosts(Model(scene, Static()), path(), progress=False)["ghost"].mean())


# --- ghosts ---


def test_a_clean_scene_has_next_to_no_ghost():
    table = ghosts(Model(ball(), Static()), path(), progress=False)
    assert (table["ghost"] < 0.015).all() and (table["see_through"] < 0.01).all()


@pytest.mark.parametrize("place", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0)])
def test_a_veil_counts_the_more_the_denser_it_is(place):
    values = [ghost(with_veil(ball(), opacity, place)) for opacity in (0.02, 0.1, 0.2, 0.3, 0.4, 0.5)]
    assert (np.diff(values) > 0).all() and values[-1] > ghost(ball()) + 0.05


def test_a_ghost_copy_counts_the_more_the_denser_it_is():
    values = [ghost(with_copy(ball(), opacity)) for opacity in (0.001, 0.01, 0.02, 0.04)]
    assert (np.diff(values) > 0.01).all() and values[0] < ghost(ball()) + 0.01


def test_a_larger_ghost_counts_more():
    values = [ghost(with_veil(ball(), 0.4, (1.0, 0.0, 0.0), size)) for size in (0.1, 0.2, 0.3)]
    assert (np.diff(values) > 0.01).all()


def test_a_veil_that_costs_little_psnr_is_seen_as_a_ghost():
    cameras = path()
    clean, veiled = (Model(scene, Static()) for scene in (ball(), with_veil(ball(), 0.15, (0.0, 0.9, 0.0))))
    assert float(psnr_db(*(fd.render(model, cameras).rgb for model in (veiled, clean))).mean()) > 25
    assert ghost(veiled.gaussians) > 3 * ghost(clean.gaussians)


def test_an_opaque_thing_is_no_ghost():
    other = ball().replace(means=ball().means + torch.tensor([0.0, 1.2, 0.0]))
    two = Gaussians(**{key: torch.cat([value, other.items()[key]]) for key, value in ball().items().items()})
    assert ghost(two) < 0.04


def test_a_thin_subject_is_seen_through():
    thin = ball().replace(opacities=torch.full((4000,), -3.0))
    table = ghosts(Model(thin, Static()), path(), progress=False)
    assert table["see_through"].mean() > 0.05


def test_the_size_of_the_world_and_of_the_picture_do_not_matter():
    scene = with_veil(ball(), 0.3)
    large = scene.replace(means=10 * scene.means, scales=scene.scales + math.log(10))
    cameras = path(size=64)
    far = cameras.viewmats.clone()
    far[:, :3, 3] *= 10
    moved = fd.Cameras(far, cameras.Ks, cameras.sizes, cameras.times)
    one, other = (
        ghosts(Model(s, Static()), c, progress=False)["ghost"].to_numpy() for s, c in ((scene, cameras), (large, moved))
    )
    np.testing.assert_allclose(other, one, atol=0.01)
    finer = ghosts(Model(scene, Static()), path(size=128), progress=False)["ghost"].to_numpy()
    np.testing.assert_allclose(finer, one, rtol=0.25, atol=0.01)


def test_second_light_of_known_layers():
    weights = torch.zeros(5, BINS)
    weights[0, 4] = 1.0  # one opaque surface
    weights[1, 4:6] = 0.5  # one that is two slices thick
    weights[2, 2], weights[2, 20] = 0.3, 0.7  # a veil before a surface
    weights[3, 2] = 0.3  # a veil before the background
    np.testing.assert_allclose(second_light(weights[:, None, None])[:, 0, 0], [0, 0, 0.3, 0.3, 0], atol=1e-6)


def test_rims_are_opened_away_and_patches_stay():
    from scipy.ndimage import grey_opening

    picture = np.random.default_rng(0).uniform(size=(30, 40)).astype(np.float32)
    ours = _opened(torch.from_numpy(picture), 2).numpy()
    np.testing.assert_allclose(ours[4:-4, 4:-4], grey_opening(picture, size=(5, 5))[4:-4, 4:-4])
    line = torch.zeros(30, 40)
    line[:, 10:14] = 1
    assert _opened(line, 2).max() == 0
    line[:, 14] = 1
    assert torch.equal(_opened(line, 2), line)


# --- flicker ---


def flicker_of(shift, count: int = 9, size: int = 48, times=None) -> np.ndarray:
    times = np.linspace(0, 1, count) if times is None else times
    return flicker(Model(ball(600), Moved(shift)), path(count, size).with_times(times), progress=False)


def test_what_stands_or_moves_evenly_does_not_flicker():
    assert np.nanmax(flicker(Model(ball(300), Static()), path(5, 32, np.linspace(0, 1, 5)), progress=False)) == 0
    assert np.nanmax(flicker_of(lambda time: 0.5 * time)) < 0.02


def test_a_tremble_counts_the_more_the_wider_it_is():
    def tremble(width):
        return np.nanmean(flicker_of(lambda time: 0.5 * time + width * (-1) ** round(8 * time)))

    values = [tremble(width) for width in (0.0, 0.005, 0.01, 0.02)]
    assert (np.diff(values) > 0.3).all()


def test_the_camera_may_move_and_the_time_may_be_uneven():
    times = np.array([0.0, 0.1, 0.15, 0.4, 0.8, 1.0])
    found = flicker_of(lambda time: 0.4 * time, len(times), times=times)
    assert np.isnan(found[[0, -1]]).all() and found[1:-1].max() < 0.02


def test_finer_steps_leave_a_tremble_and_take_smooth_motion_away():
    def swing(time):
        return 0.1 * math.sin(2 * math.pi * time)

    coarse, fine = (np.nanmean(flicker_of(swing, count)) for count in (9, 33))
    assert fine < coarse / 6
    trembles = [
        np.nanmean(flicker_of(lambda time, n=count: 0.01 * (-1) ** round((n - 1) * time), count)) for count in (9, 33)
    ]
    assert trembles[1] == pytest.approx(trembles[0], rel=0.2)


def test_turning_back_and_no_time_have_no_flicker():
    there = [0.0, 0.25, 0.5, 0.25, 0.0, np.nan, 0.0, 0.25]
    found = flicker_of(lambda time: 0.3 * time, len(there), times=np.array(there))
    assert np.isfinite(found).tolist() == [False, True, False, True, False, False, False, False]


def test_a_pause_does_not_flicker():
    found = flicker_of(lambda time: time**2, 5, times=np.array([0.0, 0.5, 0.5, 0.5, 1.0]))
    assert found[2] == 0 and (found[[1, 3]] < 0.02).all()


# --- against the truth ---


def clip(tmp_path, size: int = 32, count: int = 6) -> fd.Capture:
    cameras = fd.Cameras.concatenate([ball_cameras(2, size, times=np.full(2, t)) for t in np.linspace(0, 1, count)])
    capture = ball_capture(tmp_path, cameras, split="test", move=0.6)
    return capture.with_frames(capture.frames.assign(camera=[f"c{row % 2}" for row in range(len(capture))]))


def test_the_truth_itself_has_no_temporal_error(tmp_path):
    model = Model(ball(300), Moved(lambda time: 0.4 * time))
    capture = clip(tmp_path)
    pictures = (fd.render(model, capture.cameras).rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    own = capture.with_pictures({row: (picture, None) for row, picture in enumerate(pictures)})
    table = temporal_error(model, own, progress=False)
    assert list(table["camera"]) == ["c0", "c1"] and (table["pairs"] == 5).all()
    assert (table["error"] < 0.6).all()  # rounding to 8 bits
    np.testing.assert_allclose(table["change"], table["true_change"], atol=0.6)


def test_standing_still_and_trembling_are_temporal_errors(tmp_path):
    capture = clip(tmp_path)
    still = temporal_error(Model(ball(300), Static()), capture, progress=False)
    assert (still["change"] == 0).all() and np.allclose(still["error"], still["true_change"])
    trembling = Model(ball(300), Moved(lambda time: 0.03 * (-1) ** round(5 * time)))
    assert (temporal_error(trembling, capture, progress=False)["error"] > still["error"]).all()


def test_frames_of_one_time_have_no_temporal_error(tmp_path):
    capture = ball_capture(tmp_path, ball_cameras(3, 16), split="test")
    with pytest.raises(InputError, match="no camera has frames at two times"):
        temporal_error(Model(ball(20), Static()), capture, progress=False)


# --- together ---


def test_a_path_has_a_row_a_frame_and_a_summary():
    model = Model(ball(300), Moved(lambda time: 0.2 * time))
    table = path_quality(model, path(4, 32, np.linspace(0, 1, 4)), progress=False)
    assert list(table) == ["frame", "time", *DEFINITIONS] and len(table) == 4
    figures = path_summary(table)
    assert figures["ghost"] == pytest.approx(table["ghost"].mean())
    assert figures["ghost_worst"] == table["ghost"].max() and figures["frames"] == 4
    with pytest.raises(InputError, match="no camera"):
        path_quality(model, path(4, 32)[[]], progress=False)


def test_a_path_that_sees_nothing_says_nothing():
    away = fd.Cameras.look_at((0, 0, 4), (0, 0, 9), fov_x_deg=30.0, width=32, height=32, times=0.5)
    table = path_quality(Model(ball(50), Static()), away, progress=False)
    assert table[["ghost", "see_through", "flicker"]].isna().all(axis=None)
