from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, OutputError, TrainConfig, checkpoint, provenance
from fourdgs.files import hash_file
from fourdgs.runs import change_info
from fourdgs.trainer import Trainer

CONFIG = TrainConfig(
    motion="deform", iterations=40, gaussians=120, refine_every=10, checkpoint_every=15, evaluate_every=20
)
BOX = replace(CONFIG, init="box")  # a hull takes longer than the steps
SHORT = replace(BOX, iterations=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    times = np.linspace(0, 1, 6)
    return ball_capture(tmp_path_factory.mktemp("moving"), ball_cameras(6, 32, times=times))


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    return ball_capture(tmp_path_factory.mktemp("still"), ball_cameras(8, 40))


@pytest.fixture(scope="module")
def run(moving, tmp_path_factory):
    return fd.train(moving, CONFIG, tmp_path_factory.mktemp("runs") / "a", held_out=moving, progress=False)


def parameters(model: fd.Model) -> torch.Tensor:
    tensors = [*model.gaussians.items().values(), *model.motion.state_dict().values()]
    return torch.cat([value.detach().flatten() for value in tensors])


def test_training_learns_views_that_it_never_saw(still, tmp_path):
    unseen = ball_capture(tmp_path, ball_cameras(5, 40, start_deg=20), split="test")
    config = TrainConfig(iterations=600, gaussians=600, ssim_weight=0.2)
    trainer = Trainer(still, config, CPU)
    before = fd.evaluate(trainer.model(), unseen, progress=False)
    after = fd.evaluate(fd.train(still, config, tmp_path / "run", progress=False), unseen, progress=False)
    assert after["psnr_db"].mean() > before["psnr_db"].mean() + 5
    assert after["psnr_db"].mean() > 26
    assert after["psnr_fg_db"].mean() < after["psnr_db"].mean()


def test_a_run_of_before_a_setting_came_is_still_that_run(still, tmp_path):
    config = TrainConfig(iterations=20, gaussians=50)
    run = fd.train(still, config, tmp_path / "run", progress=False)
    change_info(run.path, config={key: value for key, value in run.info["config"].items() if key != "rest_penalty"})
    before = (run.path / "model.safetensors").stat().st_mtime_ns
    again = fd.train(still, config, tmp_path / "run", progress=False)
    assert again.finished and (run.path / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="run of another config"):
        fd.train(still, replace(config, rest_penalty=0.5), tmp_path / "run", progress=False)


@pytest.mark.parametrize("motion", ["deform", "velocity", "basis"])
def test_a_rest_penalty_holds_what_need_not_move(tmp_path, motion):
    cameras = fd.Cameras.concatenate([ball_cameras(4, 32, times=np.full(4, time)) for time in (0.0, 0.5, 1.0)])
    capture = ball_capture(tmp_path, cameras)  # nothing moves
    moved = []
    for penalty in (0.0, 1.0):
        config = TrainConfig(motion=motion, iterations=150, gaussians=100, warmup=0.0, rest_penalty=penalty)
        trainer = Trainer(capture, config, CPU)
        for _ in range(150):
            assert torch.isfinite(trainer.take_step())
        posed = trainer.motion.at(trainer.gaussians(), torch.linspace(0, 1, 5))
        moved.append(float((posed.means - trainer.parameters["means"]).norm(dim=-1).mean().detach()))
    assert 0 <= moved[1] < 0.3 * moved[0], moved


def test_deform_learns_motion_that_static_cannot(tmp_path):
    cameras = fd.Cameras.concatenate([ball_cameras(6, 32, times=np.full(6, time)) for time in (0.0, 0.5, 1.0)])
    capture = ball_capture(tmp_path, cameras, move=0.8)
    config = TrainConfig(iterations=500, gaussians=300, warmup=0.1, lr_planes=1e-2, lr_mlp=1e-3)
    figures = {}
    for motion in ("static", "deform"):
        trained = fd.train(capture, replace(config, motion=motion), tmp_path / motion, progress=False)
        figures[motion] = fd.evaluate(trained, capture, split="train", progress=False)["psnr_db"].mean()
    assert figures["deform"] > figures["static"] + 3


def test_the_same_seed_gives_the_same_numbers(run, moving, tmp_path):
    again = fd.train(moving, CONFIG, tmp_path / "b", held_out=moving, progress=False)
    assert torch.equal(parameters(run.model), parameters(again.model))
    pd.testing.assert_frame_equal(run.curve.drop(columns="seconds"), again.curve.drop(columns="seconds"))
    other = fd.train(moving, replace(CONFIG, seed=1), tmp_path / "c", progress=False)
    assert not torch.equal(parameters(run.model), parameters(other.model))


def test_a_stopped_run_resumes_to_the_same_result(run, moving, tmp_path, monkeypatch):
    step = Trainer.take_step

    def stops(self):
        if self.step == 37:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "take_step", stops)
    with pytest.raises(KeyboardInterrupt):
        fd.train(moving, CONFIG, tmp_path / "d", held_out=moving, progress=False)
    monkeypatch.undo()
    assert fd.Run(tmp_path / "d").info["state"] == "running"
    with pytest.raises(InputError, match="did not end"):
        fd.load_run(tmp_path / "d")
    resumed = fd.train(moving, CONFIG, tmp_path / "d", held_out=moving, progress=False)
    assert torch.equal(parameters(run.model), parameters(resumed.model))
    pd.testing.assert_frame_equal(run.curve.drop(columns="seconds"), resumed.curve.drop(columns="seconds"))


def test_a_finished_run_is_not_trained_again(run, moving, monkeypatch):
    monkeypatch.setattr(Trainer, "take_step", lambda self: pytest.fail("trained again"))
    again = fd.train(moving, CONFIG, run.path, progress=False)
    assert torch.equal(parameters(run.model), parameters(again.model))


def test_another_recipe_does_not_overwrite_a_run(run, moving):
    with pytest.raises(InputError, match="run of another config.*overwrite=True"):
        fd.train(moving, replace(CONFIG, seed=5), run.path, progress=False)
    with pytest.raises(InputError, match="run of another capture"):
        fd.train(moving.select(rows=[0, 1, 2, 3]), CONFIG, run.path, progress=False)


def test_overwrite_replaces(moving, tmp_path):
    fd.train(moving, SHORT, tmp_path / "e", progress=False)
    run = fd.train(moving, replace(SHORT, seed=9), tmp_path / "e", overwrite=True, progress=False)
    assert run.config.seed == 9


def test_a_run_tells_where_it_came_from(run, moving):
    info = run.info
    assert info["state"] == "finished" and info["capture"]["digest"] == moving.digest()
    assert info["capture"]["sources"] == {"orbit": 6} and info["versions"]["torch"]
    assert TrainConfig.from_dict(info["config"]) == CONFIG == run.config
    assert list(run.curve["step"]) == [20, 40] and {"psnr_train_db", "psnr_db"} <= set(run.curve)
    assert {file.name for file in run.path.iterdir()} == {
        "run.json",
        "model.safetensors",
        "curve.csv",
        "log.txt",
        ".lock",
    }
    assert info["model_sha256"] == hash_file(run.path / "model.safetensors") and info["seeds"] == {"train": CONFIG.seed}
    assert info["held_out"]["digest"] == moving.digest() and info["lock_sha256"] == provenance.lock_hash()
    assert set(info["phases_s"]) == {"data", "train", "look"} and all(value > 0 for value in info["phases_s"].values())
    assert info["started"] <= info["ended"] and [session["step"] for session in info["sessions"]] == [0]


def test_the_recipe_of_the_capture_is_kept(moving, tmp_path):
    for name, text, expected in (("a", '{"hash": "x", "size": 32}', {"hash": "x", "size": 32}), ("b", "no", None)):
        made = replace(moving, root=tmp_path / name)
        made.root.mkdir()
        (made.root / "recipe.json").write_text(text)
        assert fd.train(made, SHORT, tmp_path / f"run-{name}", progress=False).info["capture_recipe"] == expected


def test_the_log_has_messages_warnings_and_what_went_wrong(moving, tmp_path, monkeypatch):
    def breaks(self):
        warnings.warn("a lens is dirty", stacklevel=1)
        if self.step == 20:
            raise RuntimeError("the lamp went out")
        return step(self)

    step = Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", breaks)
    for _ in range(2):
        with pytest.warns(UserWarning, match="dirty"), pytest.raises(RuntimeError, match="lamp"):
            warnings.simplefilter("default")  # once a place, as outside of tests
            fd.train(moving, BOX, tmp_path / "a", progress=False)
    failed = fd.Run(tmp_path / "a")
    assert failed.info["state"] == "failed" and failed.info["error"] == "RuntimeError: the lamp went out"
    assert [session["step"] for session in failed.info["sessions"]] == [0, 15]
    # Python shows a warning once a place; every training's log has it all the same.
    assert failed.log.count("UserWarning: a lens is dirty") == 2 and failed.log.count("Traceback") == 2
    assert "going on at step 15" in failed.log and "step 20, seconds" in failed.log
    with pytest.raises(InputError, match="did not end: RuntimeError: the lamp went out"):
        fd.load_run(tmp_path / "a")
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = fd.train(moving, BOX, tmp_path / "a", progress=False)
    assert done.finished and "error" not in done.info and done.info["started"] == failed.info["started"]


def test_who_comes_second_waits_and_trains_nothing(moving, tmp_path, monkeypatch):
    steps = []
    step = Trainer.take_step
    monkeypatch.setattr(Trainer, "take_step", lambda self: steps.append(1) or step(self))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: fd.train(moving, BOX, tmp_path / "a", progress=False), range(2)))
    assert len(steps) == BOX.iterations and all(run.finished for run in both)


def test_results_without_a_run_are_not_taken_for_its_own(moving, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match=r"holds metrics.csv without a run.json"):
        fd.train(moving, SHORT, tmp_path / "a", progress=False)
    assert (tmp_path / "a" / "metrics.csv").read_text() == "mine"


def test_a_half_replaced_run_leaves_nothing_to_the_next(moving, tmp_path, monkeypatch):
    run = fd.train(moving, SHORT, tmp_path / "a", progress=False)
    fd.evaluate(run, moving, split="train", progress=False)
    unlink, names = Path.unlink, []

    def killed(self, missing_ok=False):
        names.append(self.name)
        if self.name == "curve.csv":
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        fd.train(moving, replace(SHORT, seed=1), tmp_path / "a", overwrite=True, progress=False)
    monkeypatch.undo()
    assert (tmp_path / "a" / "metrics.csv").exists() and not fd.Run(tmp_path / "a").finished
    other = fd.train(moving, replace(SHORT, seed=1), tmp_path / "a", progress=False)
    assert other.finished and not len(other.metrics)


def test_a_run_that_lost_its_model_is_trained_again(moving, tmp_path):
    run = fd.train(moving, SHORT, tmp_path / "a", progress=False)
    before = (run.path / "model.safetensors").read_bytes()
    (run.path / "model.safetensors").unlink()
    assert not fd.Run(run.path).finished
    fd.train(moving, SHORT, tmp_path / "a", progress=False)
    assert (run.path / "model.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_one_clear_message(moving, tmp_path):
    trainer = Trainer(moving, CONFIG, CPU)
    for name, content in {"garbage": b"no", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.*delete it"):
            checkpoint.restore(trainer, tmp_path / name)
    save_file({"step": torch.tensor(1)}, tmp_path / "partial")
    with pytest.raises(InputError, match="partial"):
        checkpoint.restore(trainer, tmp_path / "partial")


def test_an_output_folder_that_is_a_file_is_refused(moving, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="choose another output folder"):
        fd.train(moving, CONFIG, tmp_path / "file", progress=False)
    with pytest.raises(OutputError, match="choose another output folder"):
        fd.train(moving, CONFIG, tmp_path / "file" / "below", progress=False)


def test_during_the_warm_up_nothing_moves(moving):
    trainer = Trainer(moving, replace(CONFIG, warmup=1.0), CPU)
    start = [value.clone() for value in trainer.motion.parameters()]
    for _ in range(5):
        trainer.take_step()
    assert all(torch.equal(a, b) for a, b in zip(start, trainer.motion.parameters(), strict=True))
