from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians

import fourdgs as fd
from fourdgs import InputError, Model, Static
from fourdgs.evaluate import COLUMNS, bootstrap, bootstrap_means, paired, summary


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("ball"), ball_cameras(3, 24), split="test")


def table(values, cameras) -> pd.DataFrame:
    frames = [f"f{i}" for i in range(len(values))]
    return pd.DataFrame({"frame": frames, "camera": cameras, "source": "still", "psnr_db": values})


def test_a_model_measured_against_its_own_pictures_is_perfect(capture):
    model = Model(random_gaussians(50), Static(), (0.0, 0.0, 0.0))
    rendered = fd.render(model, capture.cameras)
    pictures = (rendered.rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    own = capture.with_pictures({row: (picture, None) for row, picture in enumerate(pictures)})
    measured = fd.evaluate(model, own, progress=False)
    assert (measured["psnr_db"] == np.inf).all() and np.allclose(measured["ssim"], 1)
    assert measured["psnr_fg_db"].isna().all()


def test_rows_follow_the_contract(capture):
    model = Model(random_gaussians(50), Static())
    measured = fd.evaluate(model, capture, progress=False)
    assert tuple(measured.columns) == COLUMNS and list(measured["frame"]) == list(capture.frames["frame"])
    alone = fd.evaluate(model, capture.select(rows=[1]), progress=False)
    assert alone["psnr_db"][0] == measured["psnr_db"][1]


def test_without_training_frames_nothing_is_said_of_kinds(capture):
    measured = fd.evaluate(Model(random_gaussians(5), Static()), capture, progress=False)
    assert measured[["kind", "edge"]].isna().all(axis=None)


def test_kinds_are_those_against_the_training_frames(capture):
    model, trained = Model(random_gaussians(5), Static()), capture.select(rows=[0, 1])
    measured = fd.evaluate(model, capture, training=trained, progress=False)
    assert list(measured["kind"]) == ["training frame", "training frame", "held-out camera"]
    assert list(measured["edge"]) == [False, False, True]


def test_a_run_keeps_its_views_and_its_table_the_kinds(tmp_path):
    ring = ball_capture(tmp_path, ball_cameras(6, 24, times=np.full(6, 0.5)))
    new = ball_capture(tmp_path, ball_cameras(6, 24, start_deg=20, times=np.full(6, 0.5)), source="new", split="test")
    later = ring.with_times(1.0).with_split("test")
    later = later.with_frames(later.frames.assign(frame=[f"later/{row}" for row in range(6)]))
    run = fd.train(ring, fd.TrainConfig(iterations=2, gaussians=30), tmp_path / "run", progress=False)
    fd.evaluate(run, fd.merge([ring, new, later]), split=None, progress=False)
    table = fd.Run(run.path).metrics
    assert table.groupby("kind").size().to_dict() == {"held-out camera": 6, "held-out time": 6, "training frame": 6}
    assert table["edge"].dtype == bool and not table["edge"].any()
    assert tuple(table.columns) == (*COLUMNS, "truth")


def test_a_table_of_before_is_added_to(tmp_path):
    ring = ball_capture(tmp_path, ball_cameras(4, 24))
    run = fd.train(ring, fd.TrainConfig(iterations=2, gaussians=30), tmp_path / "run", progress=False)
    old = fd.evaluate(run, ring.select(rows=[0, 1]), split="train", progress=False)
    old.drop(columns=["kind", "edge"]).to_csv(run.path / "metrics.csv", index=False)
    fd.evaluate(run, ring.select(rows=[1, 2]), split="train", progress=False)
    table = fd.Run(run.path).metrics
    assert list(table["frame"]) == list(ring.frames["frame"][:3])
    assert list(table["kind"].isna()) == [True, False, False]
    assert summary(table)["frames"][0] == 3


def test_an_empty_split_is_an_error(capture):
    with pytest.raises(InputError, match="val"):
        fd.evaluate(Model(random_gaussians(5), Static()), capture, split="val", progress=False)


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    random, hits = np.random.default_rng(0), 0
    for trial in range(200):
        groups = np.repeat(np.arange(24), 5)
        values = random.normal(size=24)[groups] + 0.3 * random.normal(size=120)
        low, high = bootstrap(values, groups, resamples=400, seed=trial)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_frames_of_one_camera_are_no_more_evidence_than_the_camera():
    values = np.random.default_rng(1).normal(size=12)
    once = bootstrap(values, np.arange(12))
    again = bootstrap(np.repeat(values, 50), np.repeat(np.arange(12), 50))
    assert again == pytest.approx(once)


def test_one_camera_has_no_interval():
    assert np.isnan(bootstrap(np.ones(5), np.zeros(5))).all()


def test_many_columns_are_resampled_as_each_alone():
    random = np.random.default_rng(2)
    groups = random.integers(0, 9, 60)
    values = random.normal(size=(60, 4))
    values[groups == 3, 1] = np.nan  # a column that lacks a group
    values[::2, 2] = np.nan
    low, high = bootstrap_means(values, groups)
    for column in range(4):
        there = ~np.isnan(values[:, column])
        alone = bootstrap(values[there, column], groups[there])
        assert (low[column], high[column]) == pytest.approx(alone)


def test_the_bootstrap_is_that_of_scipy():
    from scipy.stats import bootstrap as reference

    values = np.random.default_rng(3).normal(size=30)
    theirs = reference((values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(0))
    ours = bootstrap(values, np.arange(30), resamples=20000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_nothing_and_infinity_have_no_interval():
    assert np.isnan(bootstrap(np.empty(0), [])).all()
    assert np.isnan(bootstrap(np.array([1.0, np.inf, 2.0]), np.arange(3))).all()


def test_summary_counts_frames_and_cameras():
    row = summary(table([10.0, 20, 30, np.nan], ["a", "a", "b", "b"])).iloc[0]
    assert (row["mean"], row["frames"], row["cameras"]) == (20, 3, 2)
    assert row["low"] < 20 < row["high"]


def test_paired_difference_ignores_what_frames_have_in_common():
    hard = np.array([10.0, 40, 15, 33])
    first, second = table(hard, list("abcd")), table(hard + 1, list("abcd"))
    result = paired(first, second)
    assert result == {"mean": 1.0, "low": 1.0, "high": 1.0, "frames": 4, "cameras": 4}
    with pytest.raises(InputError, match="share no frame"):
        paired(first, second.assign(frame="other"))
