from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sweeping import SHORT, a_scheduler, parameters, small_capture, until

import fourdgs as fd
from fourdgs import InputError, TrainConfig, farm
from fourdgs.data.transforms import write_transforms
from fourdgs.files import locked
from fourdgs.folds import folds as split_in_folds
from fourdgs.sweep import folds, grid, sweep

CONFIG = TrainConfig(**SHORT)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    return small_capture(tmp_path_factory.mktemp("sweep") / "ball")


@pytest.fixture(scope="module")
def folder(memory, tmp_path_factory):
    return write_transforms(memory, tmp_path_factory.mktemp("written") / "ball")


@pytest.fixture(scope="module")
def scheduler():
    with a_scheduler() as address:
        yield address


@pytest.fixture(scope="module")
def swept(memory, scheduler, tmp_path_factory):
    """A sweep of which one run fails: its result, its table, its folder."""
    out = tmp_path_factory.mktemp("swept")
    table = [
        {**SHORT, "motion": "static"},
        {**SHORT, "motion": "static", "source": "nowhere"},
        {**SHORT, "motion": "deform", "seed": 3},
        {**SHORT, "fold": 1, "folds": 3},
    ]
    return sweep(table, memory, out, scheduler=scheduler, progress=False), table, out


@pytest.fixture()
def no_workers(monkeypatch):
    monkeypatch.setattr(farm, "_connected", lambda *_: pytest.fail("workers were started"))


# --- the table ---


def test_a_grid_has_every_combination_once():
    table = grid(motion=["static", "deform"], seed=range(3), background=(0.0, 0.0, 1.0), lr_mlp=np.array([1e-3, 1e-4]))
    assert len(table) == 12 and not table.astype(str).duplicated().any()
    assert list(table.columns) == ["motion", "seed", "background", "lr_mlp"]
    assert table["lr_mlp"].tolist()[:2] == [1e-3, 1e-4] and (table["background"] == (0.0, 0.0, 1.0)).all()
    with pytest.raises(InputError, match="seed: has no values"):
        grid(seed=[])


def test_folds_and_seeds_are_one_table(memory):
    table = folds(memory, 5).merge(fd.sweep.grid(seed=[0, 1]), how="cross")
    assert table.to_dict("list") == {"fold": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "folds": [5] * 10, "seed": [0, 1] * 5}
    with pytest.raises(InputError, match="11, with 10 cameras"):
        folds(memory, 11)


def names(table, tmp_path, folder) -> list[str]:
    from fourdgs.sweep import _places, _recipes

    return [recipe.name for recipe in _recipes(table, _places(folder, tmp_path))]


def test_names_do_not_depend_on_the_other_rows(folder, tmp_path):
    table = grid(motion=["static", "deform"], lr_mlp=[1e-3, TrainConfig().lr_mlp], seed=[0, 7], scale=[1, 0.5])
    together = names(table, tmp_path, folder)
    assert len(set(together)) == 16
    alone = [names(table.iloc[[row]], tmp_path, folder)[0] for row in range(16)]
    # A frame of another column's NaN, as pandas makes it of rows that differ.
    mixed = pd.concat([table, pd.DataFrame([{"row": "v2", "fold": 1, "folds": 4, "source": None}])])
    with_more = names(mixed, tmp_path, folder)
    assert together == alone == with_more[:16]
    assert together[0] == "static-lr_mlp=0.001-s0" and together[-1] == "deform-scale=0.5-s7"
    assert with_more[-1] == "v2-fold=1of4-s0"


def test_long_names_are_cut_and_stay_apart(folder, tmp_path):
    wide = {name: 0.0123456789 for name in ("lr_means", "lr_scales", "lr_quats", "lr_opacities", "lr_sh", "noise")}
    made = names([{**wide, "seed": 1}, {**wide, "seed": 2}], tmp_path, folder)
    assert len(set(made)) == 2 and all(len(name) <= 100 for name in made)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"iteration": 5}], "row 0: iteration: is no column"),
        ([{}, {"iterations": -5}], "row 1: iterations: -5 is out of range"),
        ([{"seed": 1}, {"seed": 1.0}], "row 1 and row 0 are both 'static-s1'"),
        ([{"name": "../up"}], "no name of a folder"),
        ([{"name": ".hidden"}], "no name of a folder"),
        ([{"fold": 1}], "without the other"),
        ([{"fold": 3, "folds": 3}], "3 of 3"),
        ([{"row": "v9"}], "'v9' is unknown"),
        ([{"row": "v2", "motion": "static"}], "motion: the row v2 sets it itself"),
        ([{"source": 5}], "source: 5 is no name or list"),
        ([{"scale": 0}], "scale: 0 is no positive number"),
        ([{"capture": "other"}], "capture: 'other' is unknown"),
        ([], "has no rows"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_before_anything_is_trained(
    table, message, folder, tmp_path, no_workers
):
    with pytest.raises(InputError, match=message):
        sweep(table, folder, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_capture_that_is_not_there_is_named(tmp_path, no_workers):
    with pytest.raises(InputError, match="nothing: captures: is not there"):
        sweep([{}], tmp_path / "nothing", tmp_path / "runs")


# --- runs ---


def test_one_that_fails_is_reported_and_the_others_finish(swept):
    result, table, out = swept
    assert result["state"].tolist() == ["finished", "failed", "finished", "finished"]
    failed = result.iloc[1]
    assert failed["error"].startswith("InputError: ") and "nowhere" in failed["error"]
    assert "Traceback" in Path(failed["log"]).read_text() and Path(failed["log"]).parent == out
    good = result.drop(index=1)
    assert (good["error"] == "").all() and (good["attempts"] == 1).all() and good["psnr_db"].between(5, 60).all()
    assert [Path(path).name for path in result["path"]] == result["name"].tolist()
    assert result["name"][2] == "deform-iterations=12-gaussians=60-refine_every=5-s3"
    assert result["seed"].tolist()[2] == 3 and result["fold"].tolist()[3] == 1


def test_a_run_of_a_sweep_is_the_run_that_train_makes(swept, memory, tmp_path):
    result, _, _ = swept
    torch.set_num_threads(1)
    config = replace(CONFIG, motion="deform", seed=3)
    alone = fd.train(memory.select(split="train"), config, tmp_path / "alone", progress=False)
    assert torch.equal(parameters(result["path"][2]), parameters(alone.path))
    metrics = fd.Run(Path(result["path"][2])).metrics
    assert metrics.groupby("split").size().to_dict() == {"test": 4, "train": 6}
    expected = fd.evaluate(alone.model, memory, progress=False)
    both = metrics.merge(expected, on="frame")
    assert len(both) == 4 and np.allclose(both["psnr_db_x"], both["psnr_db_y"], atol=1e-3)


def test_a_fold_holds_its_cameras_out(swept, memory):
    metrics = fd.Run(Path(swept[0]["path"][3])).metrics
    expected = split_in_folds(memory, 3)[1]
    for split in ("train", "test"):
        there = set(metrics["frame"][metrics["split"] == split])
        assert there == set(expected.frames["frame"][expected.frames["split"] == split])


def test_what_is_finished_is_opened_without_workers(swept, memory, no_workers):
    result, table, out = swept
    kept = [row for row in table if "source" not in row]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = sweep(pd.DataFrame(kept), memory, out, progress=False)
    assert (again["state"] == "finished").all() and (again["attempts"] == 0).all()
    assert again["name"].tolist() == result["name"].drop(index=1).tolist()
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_a_changed_capture_or_setting_is_no_finished_run(swept, memory):
    from fourdgs.sweep import _finished, _places, _recipes

    _, table, out = swept
    named = [{**table[0], "name": "static-iterations=12-gaussians=60-refine_every=5-s0"}]
    assert _finished(_recipes(named, _places(memory, out)), out) == [True]
    assert _finished(_recipes([named[0] | {"noise": 0.1}], _places(memory, out)), out) == [False]
    turned = memory.with_times(0.5)
    assert _finished(_recipes(named, _places(turned, out)), out) == [False]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_process_joins_by_address_and_takes_work(scheduler, folder, tmp_path):
    out = tmp_path / "joined"
    table = [{**SHORT, "name": name, "seed": seed} for seed, name in enumerate(("held", "b", "c"))]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--nthreads", "1", "--no-nanny"]
    command += ["--no-dashboard", "--host", "127.0.0.1", "--name", "second", "--local-directory", str(tmp_path)]
    found: list[pd.DataFrame] = []
    sweeping = threading.Thread(
        target=lambda: found.append(sweep(table, folder, out, scheduler=scheduler, progress=False))
    )
    second = None
    try:
        with locked(out / "held" / ".lock"):  # the first worker cannot begin, and is busy waiting
            sweeping.start()
            second = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            until(lambda: all((out / name / "metrics.csv").exists() for name in "bc"), 120)
            assert not (out / "held" / "run.json").exists()  # two never work in one folder
        sweeping.join(120)
        (result,) = found
        assert (result["state"] == "finished").all()
        assert result["worker"][1] == result["worker"][2] != result["worker"][0]
    finally:
        if second is not None:
            second.kill()
            second.wait()
