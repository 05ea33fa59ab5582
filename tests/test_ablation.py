from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError
from fourdgs.ablation import CLIP, PLAIN, STILLS, Trial, ablate, gains, training_frames, trial_config

BASE = fd.TrainConfig(iterations=80, gaussians=60, init="surface")


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablation")
    orbit = ball_capture(root, ball_cameras(5, 20), move=0)
    clip = ball_capture(root, ball_cameras(1, 20)[[0] * 4].with_times([0, 0.3, 0.7, 1]), source="clip", camera="front")
    still = ball_capture(root, ball_cameras(2, 20, start_deg=35), source="still", split="test", move=0)
    talking = ball_capture(root, ball_cameras(2, 20, start_deg=40, times=[0.2, 0.8]), source="talking", split="test")
    return fd.merge([orbit, clip, still, talking])


def test_every_trial_is_a_valid_run_that_no_other_is():
    names = [trial.name for trial in (*STILLS, *CLIP)]
    assert len(set(names)) == len(names)
    for trials in (STILLS, CLIP):
        made = [(trial.frames, trial_config(trial, BASE)) for trial in trials]
        assert all(made[a] != made[b] for a in range(len(made)) for b in range(a))
    assert trial_config(next(t for t in STILLS if t.name == "fewer"), BASE).gaussians == BASE.gaussians // 3
    assert trial_config(next(t for t in STILLS if t.name == "early"), BASE).evaluate_every > 0
    # The ladder: each step changes some of what the one before it had, and ends at the base's own settings.
    ladder = {trial.name: trial_config(trial, BASE) for trial in STILLS}
    assert ladder["base"] == BASE and all(getattr(ladder["plain"], key) == value for key, value in PLAIN.items())


def test_a_config_keeps_what_the_trial_does_not_name():
    for trial in (*STILLS, *CLIP):
        config = trial_config(trial, BASE)
        named = {*trial.settings, *(["evaluate_every"] if "patience" in trial.settings else [])}
        same = [key for key in vars(BASE) if key not in named]
        assert all(getattr(config, key) == getattr(BASE, key) for key in same)


def test_no_trial_trains_on_what_is_held_out(capture):
    remedied = capture.select(split="train")
    for trial in (*STILLS, *CLIP):
        frames = training_frames(capture, trial, remedied).frames
        assert set(frames["split"]) == {"train"}
        assert ("clip" in set(frames["source"])) == (trial.frames != "orbit")
    story = training_frames(capture, Trial("s", "", "story")).frames
    stills = story[story["source"] == "orbit"]["time"]
    assert list(stills) == pytest.approx(np.linspace(0, 1, 5))
    clip = capture.frames[capture.frames["source"] == "clip"]["time"]
    assert list(story[story["source"] == "clip"]["time"]) == list(clip)
    assert capture.frames[capture.frames["source"] == "orbit"]["time"].isna().all()  # the capture is as it was


def test_trials_are_trained_once_and_then_opened(capture, tmp_path):
    trials = [Trial("small", "small", settings={"gaussians": 40}), Trial("untouched", "with the clip", "untouched")]
    base = fd.TrainConfig(iterations=4, gaussians=60, init="box")
    table = ablate(capture, trials, base, tmp_path, seeds=(0, 1), progress=False)
    assert table.groupby(["trial", "seed", "source"]).size().eq(1).all() and len(table) == 2 * 2 * 2
    assert set(table["source"]) == {"still", "talking"} and table["psnr_db"].notna().all()
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert written["psnr_db"].to_numpy() == pytest.approx(table["psnr_db"].to_numpy(), rel=1e-5)
    states = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    assert len({path.parent for path in states}) == 4
    again = ablate(capture, trials, base, tmp_path, seeds=(0, 1), progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")} == states
    columns = ["trial", "seed", "source", "psnr_db", "psnr_fg_db", "ssim", "seconds"]
    pd.testing.assert_frame_equal(again[columns], table[columns])


scores = st.lists(st.floats(5, 45), min_size=3, max_size=3)


@given(scores, scores, st.floats(-5, 5))
def test_gains_are_differences_of_one_seed(a, b, shift):
    rows = [("a", k, v) for k, v in enumerate(a)] + [("b", k, v) for k, v in enumerate(b)]
    table = pd.DataFrame(rows, columns=["trial", "seed", "psnr_db"]).assign(source="still", label="")
    found = gains(table, "a", "still").set_index("trial")
    own = found.loc["a", ["gain_db", "gain_least_db", "gain_most_db"]]
    assert (own == 0).all() and list(found["seeds"]) == [3, 3]
    difference = np.subtract(b, a)
    expected = [difference.mean(), difference.min(), difference.max()]
    assert list(found.loc["b", own.index]) == pytest.approx(expected, abs=1e-9)
    assert found.loc["b", "gain_db"] == pytest.approx(found.loc["b", "mean_db"] - found.loc["a", "mean_db"], abs=1e-9)
    # A shift of everything is none; the other way round the sign turns.
    moved = gains(table.assign(psnr_db=table["psnr_db"] + shift), "a", "still").set_index("trial")
    assert moved.loc["b", "gain_db"] == pytest.approx(found.loc["b", "gain_db"], abs=1e-9)
    turned = gains(table, "b", "still").set_index("trial").loc["a"]
    assert turned["gain_db"] == pytest.approx(-found.loc["b", "gain_db"], abs=1e-9)
    assert turned["gain_least_db"] == pytest.approx(-found.loc["b", "gain_most_db"], abs=1e-9)


def test_gains_take_only_seeds_that_both_have():
    rows = [("a", 0, 30.0), ("a", 1, 20.0), ("b", 1, 21.0), ("b", 2, 99.0), ("c", 3, 5.0)]
    table = pd.DataFrame(rows, columns=["trial", "seed", "psnr_db"]).assign(source="still", label="")
    found = gains(table, "a", "still").set_index("trial")
    assert found.loc["b", "gain_db"] == 1 and found.loc["b", "seeds"] == 2
    assert np.isnan(found.loc["c", "gain_db"])


def test_an_unknown_reference_is_refused_with_those_there_are():
    table = pd.DataFrame({"trial": ["a"], "label": [""], "seed": [0], "source": ["still"], "psnr_db": [1.0]})
    with pytest.raises(InputError, match="no trial 'z'.*there are a"):
        gains(table, "z", "still")
    with pytest.raises(InputError, match="no trial 'a' of 'talking'"):
        gains(table, "a", "talking")
