from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError
from fourdgs.folds import _deal, fold_sentence, fold_summary, folds


@pytest.fixture(scope="module")
def orbit(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("orbit"), ball_cameras(12, 8))


def held(fold: fd.Capture) -> list[str]:
    return sorted(set(fold.frames.loc[fold.frames["split"] == "test", "camera"]))


def sphere(random: np.random.Generator, count: int) -> np.ndarray:
    points = random.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def nearest_deg(directions: np.ndarray, fold: np.ndarray) -> float:
    """The smallest angle between two cameras of one fold."""
    cosines = np.where((fold[:, None] == fold) & ~np.eye(len(fold), dtype=bool), directions @ directions.T, -1)
    return float(np.degrees(np.arccos(np.clip(cosines.max(), -1, 1))))


def test_every_camera_is_held_out_once_and_trains_otherwise(orbit):
    parts = folds(orbit, 5)
    assert sorted(name for part in parts for name in held(part)) == sorted(orbit.frames["camera"])
    for part in parts:
        assert list(part.frames["frame"]) == list(orbit.frames["frame"]) and set(part.splits) == {"train", "test"}
        assert part.select(split="train").frames["camera"].isin(held(part)).sum() == 0


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 30), seed=st.integers(0, 5), data=st.data())
def test_folds_differ_by_one_camera_at_most(count, seed, data):
    k = data.draw(st.integers(2, count))
    sizes = np.bincount(_deal(sphere(np.random.default_rng(count), count), k, seed), minlength=k)
    assert sizes.sum() == count and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_fold_of_a_ring_is_an_even_ring(orbit, seed):
    for part in folds(orbit, 4, seed):
        rows = [int(name.removeprefix("orbit")) for name in held(part)]
        assert (np.diff(rows) == 4).all() and len(rows) == 3


def test_a_dome_is_spread_better_than_by_chance():
    elevation, azimuth = np.meshgrid(np.radians([0, 30, 60]), np.radians(np.arange(0, 360, 45)))
    level = np.cos(elevation)
    dome = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], -1).reshape(-1, 3)
    random = np.random.default_rng(0)
    chance = [nearest_deg(dome, random.permutation(np.arange(24) % 6)) for _ in range(200)]
    assert nearest_deg(dome, _deal(dome, 6, 0)) > np.quantile(chance, 0.99)


def test_all_frames_of_a_camera_are_held_out_together(tmp_path):
    times = [0.0, 0.5, 1.0]
    clips = fd.Cameras.concatenate([ball_cameras(4, 8, times=np.full(4, time)) for time in times])
    capture = ball_capture(tmp_path, clips)
    capture = capture.with_frames(capture.frames.assign(camera=[f"c{row % 4}" for row in range(12)]))
    assert [len(part.select(split="test")) for part in folds(capture, 4)] == [3, 3, 3, 3]


@pytest.mark.parametrize("k", [0, 1, 13])
def test_more_folds_than_cameras_are_refused(orbit, k):
    with pytest.raises(InputError, match=f"k: is {k}, with 12 cameras"):
        folds(orbit, k)


def test_one_camera_cannot_be_split(tmp_path):
    clip = fd.Cameras.concatenate([ball_cameras(1, 8).with_times(time) for time in (0.0, 1.0)])
    with pytest.raises(InputError, match="names of their own"):
        folds(ball_capture(tmp_path, clip, camera="front"), 2)


def tables(values: list[float]) -> list[pd.DataFrame]:
    rows = [{"frame": f"f{i}", "camera": f"c{i}", "split": "test", "psnr_db": value} for i, value in enumerate(values)]
    train = {"frame": "t", "camera": "t", "split": "train", "psnr_db": 99.0}
    return [pd.DataFrame([row, train]) for row in rows]


def test_the_summary_says_what_one_frame_would_have_said():
    figures = fold_summary(tables([20.0, 30.0, 25.0, 25.0]))
    assert figures["mean"] == 25 and (figures["one_low"], figures["one_high"]) == (20, 30)
    assert 20 <= figures["low"] < 25 < figures["high"] <= 30
    assert figures["one_sd"] == pytest.approx(np.std([20, 30, 25, 25], ddof=1))
    assert (figures["frames"], figures["cameras"], figures["folds"]) == (4, 4, 4)
    assert "**25.0 dB**" in fold_sentence("x", figures) and "from 20.0 to 30.0 dB" in fold_sentence("x", figures)


def test_seeds_are_averaged_before_frames_are_counted():
    once, again = tables([20.0, 30.0]), tables([24.0, 34.0])
    figures = fold_summary([*once, *again])
    assert (figures["mean"], figures["frames"], figures["one_low"], figures["one_high"]) == (27, 2, 22, 32)


def test_a_summary_of_nothing_is_an_error():
    with pytest.raises(InputError, match="held-out frame"):
        fold_summary([pd.DataFrame()])
    moved = tables([20.0])[0].assign(camera="elsewhere")
    with pytest.raises(InputError, match="different cameras"):
        fold_summary([*tables([20.0]), moved])
