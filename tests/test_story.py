from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, TrainConfig, story
from fourdgs.data.transforms import write_transforms
from fourdgs.trainer import Trainer

BASE = TrainConfig(iterations=8, gaussians=60, evaluate_every=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small capture with the sources of the story: still orbit, clip of one camera, still and talking test frames."""
    root = tmp_path_factory.mktemp("story")
    front = ball_cameras(1, 24)
    clip = fd.Cameras.concatenate([front.with_times(time) for time in np.linspace(0, 1, 6)])
    parts = [
        ball_capture(root, ball_cameras(5, 24)),
        ball_capture(root, clip, source="clip", camera="front"),
        ball_capture(root, ball_cameras(3, 24, start_deg=30), source="still", split="test"),
        ball_capture(root, ball_cameras(3, 24, start_deg=50, times=[0.0, 0.5, 1.0]), source="talking", split="test"),
    ]
    return write_transforms(fd.merge(parts), root / "capture")


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return story.train_rows(folder, ["static", "v2"], BASE, out, seeds=2, workers=1)


def test_every_row_of_the_story_is_there():
    assert story.STORY == ("static", "v1", "v2", "v2_cold", "timeless", "v3", "v3_remedied", "v3_doctor", "grid")


def test_rows_change_the_base_config_and_nothing_else():
    for name, row in story.ROWS.items():
        config = story.row_config(name, BASE)
        expected = replace(
            BASE, **({"motion": "deform"} | row.settings), iterations=max(1, round(BASE.iterations * row.share))
        )
        assert config == expected
    assert story.row_config("v1", BASE).iterations * 4 == story.row_config("v2", BASE).iterations
    assert story.row_config("v2_cold", BASE).warmup == 0 < story.row_config("v2", BASE).warmup


def test_v2_gives_each_view_a_time_of_its_own_and_timeless_none(folder):
    capture = fd.load_capture(folder)
    times = story.row_capture(capture, "v2").frames["time"]
    assert np.allclose(times, np.arange(5) / 4)
    assert story.row_capture(capture, "timeless").frames["time"].isna().all()
    assert capture.select(source="orbit").frames["time"].isna().all()  # the capture itself is untouched


def test_v3_adds_the_clip_as_it_comes(folder):
    chosen = story.row_capture(fd.load_capture(folder), "v3").frames
    assert chosen["source"].value_counts().to_dict() == {"clip": 6, "orbit": 5}


def test_no_row_trains_on_held_out_frames(folder):
    capture = fd.load_capture(folder)
    for name in ("static", "v2", "v3", "static_all"):
        assert set(story.row_capture(capture, name).frames["split"]) == {"train"}


def test_unknown_rows_and_missing_sources_are_named(folder):
    with pytest.raises(InputError, match=r"'v9' is unknown.*static"):
        story.train_rows(folder, ["static", "v9"], BASE, "unused")
    with pytest.raises(InputError, match="grid"):
        story.row_capture(fd.load_capture(folder), "grid")
    with pytest.raises(InputError, match="there is no such folder"):
        story.ensure_capture("data/nothing-here")


def test_a_capture_that_is_there_is_never_made_again(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "data" / "alpha")
    before = fd.load_capture(tmp_path / "data" / "alpha").digest()
    assert fd.load_capture(story.ensure_capture("data/alpha")).digest() == before


def test_runs_are_measured_on_training_and_held_out_frames(runs):
    assert [run.name for run in runs] == ["static-s0", "static-s1", "v2-s0", "v2-s1"]
    for run in runs:
        counts = run.metrics.groupby(["split", "source"]).size().to_dict()
        assert counts.pop(("test", "still@0.5"), 0) == (3 if run.name.startswith("v2") else 0)
        assert counts == {("test", "still"): 3, ("test", "talking"): 3, ("train", "orbit"): 5}
    # A model whose stills had times is asked for the still avatar without a time, as every model, and at one as well.
    times = runs[2].metrics.set_index("source")["time"]
    assert times["still"].isna().all() and (times["still@0.5"] == 0.5).all()


def test_what_is_finished_is_not_trained_again(runs, folder, monkeypatch):
    before = [(run.path / "model.safetensors").stat().st_mtime_ns for run in runs]
    monkeypatch.setattr(Trainer, "take_step", lambda self: pytest.fail("trained again"))
    story.train_rows(folder, ["static", "v2"], BASE, runs[0].path.parent, seeds=2)
    assert before == [(run.path / "model.safetensors").stat().st_mtime_ns for run in runs]


def test_rows_side_by_side_give_the_same_numbers_as_one_after_another(runs, folder, tmp_path):
    side = story.train_rows(folder, ["static", "v2"], BASE, tmp_path, workers=2)
    for one, other in zip(runs[::2], side, strict=True):
        # Threads differ, so sums may be rounded in another order.
        assert np.allclose(one.metrics["psnr_db"], other.metrics["psnr_db"], atol=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_training_leaves_no_worker_behind(folder, tmp_path):
    code = (
        "import sys; from fourdgs import story, TrainConfig\n"
        "if __name__ == '__main__':\n"
        "    base = TrainConfig(iterations=10**6, gaussians=60)\n"
        "    story.train_rows(sys.argv[1], ['static', 'v2'], base, sys.argv[2])\n"
    )
    script = tmp_path / "train.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(tmp_path / "runs")], stderr=subprocess.DEVNULL
    )
    children: list[str] = []
    try:
        until(lambda: len(list(tmp_path.glob("runs/*/run.json"))) == 2, 100)
        # A process is the child of the thread that started it.
        tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")
        children = [child for file in tasks for child in file.read_text().split()]
        assert len([child for child in children if alive(child)]) >= 2
        parent.kill()
        parent.wait()
        until(lambda: not any(map(alive, children)), 30)
    finally:
        # A failed test must not train on for ever either.
        for process in [str(parent.pid), *children]:
            if alive(process):
                os.kill(int(process), signal.SIGKILL)
        parent.wait()


def alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_runs_are_listed(runs):
    table = fd.runs(runs[0].path.parent)
    assert list(table["name"]) == ["static-s0", "static-s1", "v2-s0", "v2-s1"]
    assert (table["state"] == "finished").all() and (table["frames"] == 5).all()
