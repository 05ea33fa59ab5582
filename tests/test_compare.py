from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, TrainConfig, plots
from fourdgs.compare import compare
from fourdgs.compare_figures import gap_opening
from fourdgs.evaluate import paired, summary


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A ring that trains, views between at the same time, and the same views later."""
    root = tmp_path_factory.mktemp("capture")

    def at(time, count=6):
        return np.full(count, time)

    later = ball_capture(root, ball_cameras(3, 32, start_deg=25, times=at(1.0, 3)), source="later", split="test")
    between = ball_capture(root, ball_cameras(3, 32, start_deg=25, times=at(0.0, 3)), source="between", split="test")
    names = {"later": [f"view{row}" for row in range(3)]}
    later = later.with_frames(later.frames.assign(camera=names["later"]))
    between = between.with_frames(between.frames.assign(camera=names["later"]))
    return fd.merge([ball_capture(root, ball_cameras(6, 32, times=at(0.0))), between, later])


@pytest.fixture(scope="module")
def trained(capture, tmp_path_factory):
    """Three finished runs: static, deform, and deform of another seed."""
    out = tmp_path_factory.mktemp("runs")
    frames = capture.select(split="train")
    for name, settings in {
        "still": {"motion": "static"},
        "moves": {"motion": "deform"},
        "again": {"motion": "deform", "seed": 1},
    }.items():
        rates = {"warmup": 0.0, "lr_planes": 1e-2, "lr_mlp": 1e-2}
        config = TrainConfig(iterations=40, gaussians=100, evaluate_every=8, **rates, **settings)
        fd.train(frames, config, out / name, held_out=capture.select(split="test"), progress=False)
    return out


@pytest.fixture
def runs(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def made_up(root, name: str, values, *, motion: str = "deform", cameras=None, **columns) -> fd.Run:
    """A finished run of which only the table is real."""
    folder = root / name
    folder.mkdir(parents=True)
    config = TrainConfig(motion=motion).to_dict()
    info = {"state": "finished", "format": 1, "config": config, "capture": {"digest": "0", "frames": 1}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "model.safetensors").write_bytes(b"not read")
    count = len(values)
    table = {"frame": [f"f{row}" for row in range(count)], "camera": cameras or [f"c{row}" for row in range(count)]}
    table |= {"time": 0.5, "source": "still", "split": "test", "psnr_db": values, "psnr_fg_db": 20.0, "ssim": 0.9}
    pd.DataFrame(table | columns).to_csv(folder / "metrics.csv", index=False)
    return fd.Run(folder)


HARD = np.array([22.0, 31.0, 27.0, 35.0, 24.0, 29.0])


# --- tables ---


def test_the_table_is_what_summary_and_paired_say(tmp_path):
    random = np.random.default_rng(0)
    cameras = [f"c{row // 4}" for row in range(24)]
    values = random.normal(28, 3, size=(2, 24))
    base = made_up(tmp_path, "base", values[0], motion="static", cameras=cameras)
    other = made_up(tmp_path, "other", values[1], cameras=cameras)
    row = compare([base, other]).table.set_index("run").loc["other"]
    mean, apart = summary(other.metrics).iloc[0], paired(base.metrics, other.metrics)
    assert (row["psnr_db"], row["low"], row["high"]) == pytest.approx((mean["mean"], mean["low"], mean["high"]))
    found = (row["difference"], row["difference_low"], row["difference_high"])
    assert found == pytest.approx((apart["mean"], apart["low"], apart["high"]))
    assert (row["frames"], row["cameras"], row["seeds"], row["ssim"]) == (24, 6, 1, 0.9)


def test_outcomes_follow_the_paired_interval_and_not_the_means(tmp_path):
    noise = np.array([2.0, -2.0, 2.0, -2.0, 2.0, -1.0])
    made = [
        made_up(tmp_path, "base", HARD, motion="static"),
        made_up(tmp_path, "up", HARD + 0.2),
        made_up(tmp_path, "down", HARD - 0.2),
        made_up(tmp_path, "noisy", HARD + noise),
    ]
    found = compare(made)
    assert dict(zip(found.table["run"], found.table["outcome"], strict=True)) == {
        "base": "baseline", "up": "better", "down": "worse", "noisy": "undecided",
    }  # fmt: skip
    assert "static 3DGS (`base`)" in found.verdict and "better: `up` +0.2 dB [+0.2, +0.2]" in found.verdict
    assert "6 held-out frames of 6 cameras" in found.verdict


def test_one_camera_decides_nothing(tmp_path):
    one = ["c"] * 6
    made = [made_up(tmp_path, "a", HARD, motion="static", cameras=one), made_up(tmp_path, "b", HARD + 9, cameras=one)]
    assert list(compare(made).table["outcome"]) == ["baseline", "undecided"]


def test_static_is_found_beside_the_runs_or_missed(tmp_path):
    made = made_up(tmp_path / "alone", "moves", HARD)
    assert "No static 3DGS run" in compare([made]).verdict
    run = made_up(tmp_path / "together", "moves", HARD)
    made_up(tmp_path / "together", "a_static", HARD - 1, motion="static")
    made_up(tmp_path / "together", "static_of_other_frames", HARD[:3], motion="static")
    found = compare([run])
    assert found.baseline == "a_static" and list(found.table["run"]) == ["a_static", "moves"]
    assert found.table["difference"][1] == pytest.approx(1)


def test_only_shared_frames_count(tmp_path):
    first = made_up(tmp_path, "first", HARD, motion="static")
    second = made_up(tmp_path, "second", HARD[:4] + 1)
    assert list(compare([first, second]).table["frames"]) == [4, 4]
    third = made_up(tmp_path, "third", HARD, frame=[f"g{row}" for row in range(6)])
    with pytest.raises(InputError, match="share no held-out frame"):
        compare([first, third])


def test_frames_held_against_other_pictures_are_not_the_same(tmp_path):
    first = made_up(tmp_path, "first", HARD, motion="static", truth="aaaa")
    second = made_up(tmp_path, "second", HARD, truth=["aaaa", "bbbb", "aaaa", "bbbb", "aaaa", "aaaa"])
    unknown = made_up(tmp_path, "unknown", HARD)
    assert list(compare([first, second, unknown]).measured["frame"].unique()) == ["f0", "f2", "f4", "f5"]


def test_kinds_are_each_runs_own(tmp_path):
    edge = [True, True, False, False, False, False]
    first = made_up(tmp_path, "first", HARD, motion="static", kind=["held-out camera"] * 6, edge=edge)
    kinds = ["held-out camera"] * 2 + ["held-out both"] * 4
    second = made_up(tmp_path, "second", HARD + [1, 1, 2, 2, 2, 2], kind=kinds, edge=edge)
    table = compare([first, second]).by_kind.set_index(["part", "run"])
    assert table["frames"].to_dict() == {
        ("held-out camera", "first"): 6, ("held-out camera", "second"): 2, ("held-out both", "second"): 4,
        ("inside the rig", "first"): 4, ("inside the rig", "second"): 4,
        ("at its edge", "first"): 2, ("at its edge", "second"): 2,
    }  # fmt: skip
    assert table.loc[("held-out both", "second"), "difference"] == pytest.approx(2)
    assert table.loc[("at its edge", "second"), "difference"] == pytest.approx(1)


def test_runs_that_do_not_know_their_kinds_say_so(tmp_path):
    found = compare([made_up(tmp_path, "first", HARD, motion="static")])
    assert found.by_kind.empty and any("kinds of frames" in note for note in found.notes)


def test_seeds_of_one_name_are_averaged(tmp_path):
    base = made_up(tmp_path, "base", HARD, motion="static")
    seeds = [made_up(tmp_path, f"s{seed}", HARD + seed) for seed in (1, 2, 3)]
    row = compare({"base": base, "three": seeds}).table.set_index("run").loc["three"]
    assert (row["seeds"], row["frames"], row["difference"]) == (3, 6, pytest.approx(2))


def test_the_worst_frames_of_each(tmp_path):
    base = made_up(tmp_path, "base", HARD, motion="static")
    other = made_up(tmp_path, "other", HARD[::-1].copy())
    table = compare([base, other]).worst(2)
    assert list(table["frame"]) == ["f0", "f4", "f5", "f1"]
    assert list(table["baseline_db"]) == [22, 24, 29, 31]


@pytest.mark.parametrize(("baseline", "match"), [("nobody", "'nobody' is not compared"), (None, "nothing to compare")])
def test_what_cannot_be_compared(tmp_path, baseline, match):
    made = [made_up(tmp_path, "a", HARD)] if baseline else []
    with pytest.raises(InputError, match=match):
        compare(made, baseline=baseline)


def test_two_hundred_runs_of_five_hundred_frames_in_five_seconds(tmp_path):
    random = np.random.default_rng(0)
    cameras = [f"c{row % 24}" for row in range(500)]
    for number in range(200):
        motion = "deform" if number else "static"
        made_up(
            tmp_path, f"r{number:03d}", random.normal(30, 2, 500), motion=motion, cameras=cameras,
            kind="held-out camera", edge=False, truth="0",
        )  # fmt: skip
    for _ in range(3):  # others may share the machine
        begun = time.perf_counter()
        listed = fd.runs(tmp_path)
        found = compare(sorted(tmp_path.iterdir()))
        assert len(listed) == len(found.table) == 200 and len(found.by_kind) == 400 and found.verdict
        took = time.perf_counter() - begun
        if took < 5:
            return
    pytest.fail(f"took {took:.1f} s")


# --- with a capture ---


def test_runs_are_measured_where_they_were_not(runs, capture):
    found = compare([runs / "still", runs / "moves"], capture, progress=False)
    assert list(found.table["frames"]) == [6, 6] and found.baseline == "still"
    assert set(found.by_kind["part"]) == {"held-out camera", "held-out both", "inside the rig"}
    before = (runs / "still" / "metrics.csv").stat().st_mtime_ns
    again = compare([runs / "still", runs / "moves"], capture, progress=False)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert (runs / "still" / "metrics.csv").stat().st_mtime_ns == before
    some = compare([runs / "still", runs / "moves"], capture.select(source="later"), progress=False)
    assert list(some.table["frames"]) == [3, 3]


def test_a_run_held_against_another_picture_is_measured_again(runs, capture):
    compare([runs / "still", runs / "moves"], capture, progress=False)
    path = runs / "moves" / "metrics.csv"
    table = pd.read_csv(path)
    true = table["psnr_db"][1]
    table.loc[1, ["psnr_db", "truth"]] = [99.0, "0123456789abcdef"]
    table.to_csv(path, index=False)
    found = compare([runs / "still", runs / "moves"], capture, progress=False)
    moved = found.measured[(found.measured["run"] == "moves")].set_index("frame")
    assert len(moved) == 6 and moved.loc[table["frame"][1], "psnr_db"] == pytest.approx(true, abs=1e-4)


def test_figures_are_drawn_with_their_words(runs, capture, tmp_path):
    found = compare({"still": runs / "still", "moves": [runs / "moves", runs / "again"]}, capture, progress=False)
    drawn = found.figures()
    assert set(drawn) == {"paired", "rig", "curves", "side-by-side", "worst"}
    with plots.figures_into(tmp_path / "figures"):
        for name, shown in drawn.items():
            plots.show(shown.figure, name, alt=shown.alt, caption=shown.caption)
            assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5000
    assert found.verdict in drawn["paired"].caption
    lowest = found.worst().set_index("run")["frame"]
    assert lowest["moves"] in drawn["worst"].alt and "still" in drawn["rig"].alt


def test_pictures_are_those_asked_for(runs, capture):
    found = compare([runs / "still", runs / "moves"], capture, progress=False)
    wanted = list(found.measured["frame"].unique()[[4, 1]])
    views = found.pictures(wanted, ["moves"])
    chosen = capture.select(where=lambda frames: frames["frame"].isin(wanted))
    order = [list(chosen.frames["frame"]).index(name) for name in wanted]
    assert [name for name, _ in views.pictures] == ["moves"] and len(views.truths) == 2
    rendered = fd.render(fd.Run(runs / "moves").model, chosen.cameras).rgb.clamp(0, 1).numpy()
    np.testing.assert_allclose(np.stack(views.pictures[0][1]), rendered[order], atol=1e-6)
    with pytest.raises(InputError, match="not among the shared frames"):
        found.pictures(["nothing"])
    with pytest.raises(InputError, match="'other' is not compared"):
        found.pictures(wanted, ["other"])
    with pytest.raises(InputError, match="no true pictures"):
        compare([runs / "still"]).pictures()


def test_a_path_is_measured_under_every_run(runs, capture):
    found = compare([runs / "still", runs / "moves"], capture, progress=False)
    table = found.along(ball_cameras(3, 24, times=np.array([0.2, 0.4, 0.6])), progress=False).set_index("run")
    assert (
        table.loc["still", "flicker"] < 1e-5 and table.loc["moves", "flicker"] > 1e-3 and (table["frames"] == 3).all()
    )


def test_runs_stand_side_by_side_in_a_video(runs, capture, tmp_path):
    av = pytest.importorskip("av")
    found = compare([runs / "still", runs / "moves"], capture, progress=False)
    path = found.video(tmp_path / "both.mp4", ball_cameras(4, 32, times=np.linspace(0, 1, 4)), progress=False)
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 4 and frames[0].width >= 64


# --- where the gap opened ---


def curve(gap) -> pd.DataFrame:
    steps = 250 * np.arange(1, len(gap) + 1)
    held = 25 + 0.1 * np.arange(len(gap))
    return pd.DataFrame({"step": steps, "psnr_train_db": held + gap, "psnr_db": held})


@pytest.mark.parametrize("place", [3, 8, 14])
def test_the_gap_opens_where_it_was_made_to(place):
    steps = np.arange(1, 21)
    gap = 0.5 + 4 * np.maximum(np.log(steps / steps[place]), 0)
    assert gap_opening(curve(gap)) == 250 * (place + 1)
    noisy = gap + np.random.default_rng(0).normal(scale=0.15, size=20)
    assert abs(gap_opening(curve(noisy)) / 250 - (place + 1)) <= 2


def test_a_gap_that_was_there_from_the_start_opened_then():
    late = 20 + 3 * np.maximum(np.log(np.arange(1, 21) / 10), 0)
    assert gap_opening(curve(late)) == 250
    assert gap_opening(curve(3 * np.log(1 + np.arange(1.0, 21)))) == 250


def test_a_gap_that_closes_or_is_hardly_known_did_not_open():
    assert np.isnan(gap_opening(curve(5 - 0.2 * np.arange(20))))
    assert np.isnan(gap_opening(curve(np.array([1.0, 2, 3]))))
    assert np.isnan(gap_opening(pd.DataFrame({"step": [1], "psnr_train_db": [1.0]})))


def test_a_plan_needs_places_and_runs():
    table = pd.DataFrame({"run": "a", "camera": "c", "x": [1.0], "y": [0.0], "psnr_db": [30.0]})
    assert plots.rig_plan(table).axes
    with pytest.raises(InputError, match="lacks x"):
        plots.rig_plan(table.drop(columns="x"))
    with pytest.raises(InputError, match="no camera to draw"):
        plots.rig_plan(table[:0])
    with pytest.raises(InputError, match="lacks run"):
        plots.gap_curves(curve(np.arange(5.0)), {})
