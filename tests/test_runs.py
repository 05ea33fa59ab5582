"""Runs on disk: what is read, listed, priced and written at once. Runs are made up; training is tested elsewhere."""

from __future__ import annotations

import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import made_up_run, measured
from scenes import ball_cameras

import fourdgs as fd
from fourdgs import InputError, OutputError
from fourdgs.files import locked
from fourdgs.production import challengers, promote
from fourdgs.runs import (
    PRICE,
    Run,
    held_out,
    keep_metrics,
    phase,
    price_per_hour,
    read_info,
    set_price,
    truth_digests,
    update_info,
)


def test_a_run_of_the_first_format_is_read(tmp_path):
    path = made_up_run(tmp_path / "old", measured(30), format=1)
    info = read_info(path)
    for key in ("lock_sha256", "seeds", "sessions", "model_sha256", "hypothesis", "capture_recipe", "price_per_hour"):
        info.pop(key, None)
    (path / "run.json").write_text(json.dumps(info))
    run = fd.load_run(path)
    assert run.log == "" and list(run.costs["phase"]) == ["train", "evaluate"] and run.costs["cost"].isna().all()
    listed = fd.runs(tmp_path).iloc[0]
    assert listed["state"] == "finished" and listed["psnr_db"] == pytest.approx(30, abs=2)


def test_a_newer_format_is_one_clear_message(tmp_path):
    with pytest.raises(InputError, match="format: is 99, newer.*update fourdgs"):
        fd.load_run(made_up_run(tmp_path / "new", format=99))


def test_the_table_holds_what_tells_runs_apart(tmp_path):
    hypothesis = {"digest": "ab" * 32}
    made_up_run(tmp_path / "a" / "one", measured(30), price_per_hour=3.6, hypothesis=hypothesis)
    made_up_run(tmp_path / "a" / "two")
    table = fd.runs(tmp_path).set_index("name")
    one, two = table.loc["one"], table.loc["two"]
    test = Run(tmp_path / "a" / "one").metrics.query("split == 'test'")
    assert one["psnr_db"] == pytest.approx(test["psnr_db"].mean()) and one["test_frames"] == len(test)
    assert math.isnan(two["psnr_db"]) and two["test_frames"] == 0 and math.isnan(two["cost"])
    assert one["cost"] == pytest.approx(one["seconds"] / 1000) and one["hypothesis"] == "ab" * 6
    assert one["capture"] == "c" * 12 and one["commit"] == "d" * 40 and not one["dirty"] and one["gaussians"] == 60


def test_training_frames_infinite_psnr_and_other_times_are_left_out_of_the_mean(tmp_path):
    table = measured(30)
    test = table["split"] == "test"
    table.loc[~test, "psnr_db"] = 90
    table.loc[table.index[test][0], "psnr_db"] = np.inf
    again = table[test].assign(frame=table["frame"][test] + "@0.5", source="still@0.5", psnr_db=1.0)
    made_up_run(tmp_path / "a", pd.concat([table, again]))
    row = fd.runs(tmp_path).iloc[0]
    assert row["psnr_db"] == pytest.approx(table["psnr_db"][test][1:].mean()) and row["test_frames"] == test.sum() - 1


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"state": "finished"}', '{"state":"finished","config":{},"capture":{}}']
)
def test_one_broken_run_does_not_hide_the_others(tmp_path, damage):
    made_up_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(damage)
    assert dict(fd.runs(tmp_path)[["name", "state"]].values) == {"bad": "damaged", "good": "finished"}


def test_damaged_metrics_and_a_lost_model_are_said(tmp_path):
    (made_up_run(tmp_path / "a", measured(30)) / "metrics.csv").write_text("nothing\n1\n")
    (made_up_run(tmp_path / "b") / "model.safetensors").unlink()
    assert list(fd.runs(tmp_path)["state"]) == ["damaged", "damaged"]
    with pytest.raises(InputError, match="did not end"):
        fd.load_run(tmp_path / "b")


def test_what_is_hidden_and_what_is_no_run_is_not_listed(tmp_path):
    made_up_run(tmp_path / ".half-x3f" / "a")
    (tmp_path / "notes.json").write_text("{}")
    assert fd.runs(tmp_path).empty and fd.runs(tmp_path / "nowhere").empty
    assert list(fd.runs(tmp_path).columns[:9]) == [
        "name", "state", "motion", "iterations", "seed", "frames", "seconds", "started", "path"
    ]  # fmt: skip


def test_names_that_look_like_numbers_stay_names(tmp_path):
    table = measured(30).assign(truth="1234567890123456")
    table["frame"] = [f"{i:04d}" for i in range(len(table))]
    run = Run(made_up_run(tmp_path / "a", table))
    assert run.metrics["frame"].tolist() == table["frame"].tolist() and set(run.metrics["truth"]) == {
        "1234567890123456"
    }


# --- writing ---------------------------------------------------------------------------------------------------------


def test_rows_written_at_once_are_all_kept(tmp_path):
    run = Run(made_up_run(tmp_path / "a"))
    before = run.info["phases_s"]["evaluate"]
    parts = [measured(30).assign(frame=lambda table, k=k: f"{k}/" + table["frame"]) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: keep_metrics(run, part, 1.0), parts))
    assert len(run.metrics) == sum(map(len, parts)) == read_info(run.path)["evaluated"]
    assert read_info(run.path)["phases_s"]["evaluate"] == before + 8


def test_a_frame_measured_again_replaces_its_row(tmp_path):
    run = Run(made_up_run(tmp_path / "a", measured(30)))
    keep_metrics(run, measured(20).head(3), 0.0)
    assert len(run.metrics) == len(measured(30)) and run.metrics["frame"].is_unique


def test_what_is_not_finished_is_not_measured(tmp_path):
    run = Run(made_up_run(tmp_path / "a", state="running"))
    with pytest.raises(InputError, match="did not end"):
        keep_metrics(run, measured(30), 1.0)
    assert not (run.path / "metrics.csv").exists()


def test_phases_add_up_and_cost_what_the_hour_costs(tmp_path):
    run = Run(made_up_run(tmp_path / "a"))
    for _ in range(2):
        with phase(run, "render"):
            time.sleep(0.02)
    with pytest.raises(RuntimeError), phase(run, "report"):  # paid for, though it failed
        raise RuntimeError
    with pytest.raises(InputError, match="'lunch' is unknown.*render"), phase(run, "lunch"):
        pass
    set_price(run, 7200)
    costs = run.costs.set_index("phase")
    assert list(costs.index) == ["train", "evaluate", "render", "report"]
    assert costs.loc["render", "seconds"] >= 0.04
    assert costs["cost"].to_numpy() == pytest.approx(2 * costs["seconds"].to_numpy())


def test_runs_share_what_a_phase_of_theirs_took_and_nothing_is_counted_twice(tmp_path):
    one, other = (Run(made_up_run(tmp_path / name)) for name in "ab")
    with phase([one, other.path], "report"):
        with phase(one, "render"):
            time.sleep(0.1)
        time.sleep(0.06)
    spent = [read_info(run.path)["phases_s"] for run in (one, other)]
    assert spent[0]["render"] >= 0.1 and "render" not in spent[1]
    assert spent[0]["report"] == spent[1]["report"] and 0.06 <= 2 * spent[0]["report"] < 0.1
    with phase([], "render"):  # of no run
        pass
    with pytest.raises(InputError, match="there is no run here"), phase(tmp_path / "c", "render"):
        pytest.fail("began without a run")


def test_a_run_that_cannot_be_written_is_no_reason_to_lose_the_result(tmp_path, monkeypatch):
    run = Run(made_up_run(tmp_path / "a"))

    def full(path, value):
        raise OutputError(f"{path}: cannot be written: read-only")

    monkeypatch.setattr(sys.modules["fourdgs.runs"], "write_json", full)
    with pytest.warns(UserWarning, match="the seconds of 'render' are not kept.*read-only"), phase(run, "render"):
        pass
    assert "render" not in read_info(run.path)["phases_s"]


def test_the_price_comes_from_the_environment_or_afterwards(tmp_path, monkeypatch):
    run = Run(made_up_run(tmp_path / "a"))
    monkeypatch.delenv(PRICE, raising=False)
    assert price_per_hour() is None
    monkeypatch.setenv(PRICE, " 2.5 ")
    assert price_per_hour() == 2.5
    for wrong in ("dear", "-1", "nan", "inf"):
        monkeypatch.setenv(PRICE, wrong)
        with pytest.raises(InputError, match=f"{PRICE}.*is no price"):
            price_per_hour()
    assert set_price(run, 0).info["price_per_hour"] == 0 and (run.costs["cost"] == 0).all()


def test_a_lock_is_held_by_one_and_let_go_of_by_an_error(tmp_path):
    told = []
    with pytest.raises(KeyError), locked(tmp_path / "a" / "lock"):
        raise KeyError
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "a" / "lock"):
            future = pool.submit(_hold, tmp_path / "a" / "lock", told)
            while not told:
                time.sleep(0.01)
            assert told == ["waits"] and not future.done()
        future.result(timeout=20)
    assert told == ["waits", "holds"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another output folder"), locked(tmp_path / "file" / "lock"):
        pass


def _hold(path: Path, told: list[str]) -> None:
    with locked(path, lambda: told.append("waits")):
        told.append("holds")


def test_changes_made_at_once_are_all_kept(tmp_path):
    path = made_up_run(tmp_path / "a")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: update_info(path, **{f"key{k}": k}), range(16)))
    assert {f"key{k}": k for k in range(16)}.items() <= read_info(path).items()


# --- truth -----------------------------------------------------------------------------------------------------------


def test_the_digest_of_a_truth_follows_picture_and_pose_not_the_time():
    cameras = ball_cameras(2, 8, times=[0.0, 1.0])
    pictures = torch.randint(0, 255, (2, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first = truth_digests(pictures, cameras)
    assert len(set(first)) == 2 and all(len(text) == 16 for text in first)
    assert truth_digests(pictures, cameras.with_times(0.5)) == first
    assert truth_digests(pictures[1:], cameras[[1]]) == first[1:]
    other = pictures.clone()
    other[0, 3, 3, 0] ^= 1
    assert [a == b for a, b in zip(truth_digests(other, cameras), first, strict=True)] == [False, True]
    assert not set(truth_digests(pictures, ball_cameras(2, 8, start_deg=5))) & set(first)


# --- many ------------------------------------------------------------------------------------------------------------


def test_two_hundred_runs_of_five_hundred_frames_are_listed_and_compared_in_five_seconds(tmp_path):
    for number in range(200):
        made_up_run(tmp_path / f"run{number:03d}", measured(28 + number / 100, frames=500, cameras=25, seed=number))
    promote(tmp_path / "run000", root=tmp_path)
    begun = time.process_time()  # of this process: other work on the machine is not what is tested
    table = fd.runs(tmp_path)
    against = challengers(tmp_path, root=tmp_path)
    seconds = time.process_time() - begun
    assert len(table) == 200 and len(against) == 199 and (table["test_frames"] == 500).all()
    gains = against.set_index("run")["mean"]
    means = table.set_index("path")["psnr_db"]
    assert gains.to_dict() == pytest.approx((means - means.iloc[0]).drop(means.index[0]).to_dict(), abs=1e-3)
    assert seconds < 5, f"{seconds:.1f} s"


def test_held_out_rows_of_nothing_are_nothing():
    assert held_out(pd.DataFrame()).empty
