from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs import InputError, OutputError, TrainConfig
from fourdgs.train import Trainer

CONFIG = TrainConfig(
    motion="deform", iterations=40, gaussians=120, refine_every=10, checkpoint_every=15, evaluate_every=20
)
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
    short = replace(CONFIG, iterations=4)
    fd.train(moving, short, tmp_path / "e", progress=False)
    run = fd.train(moving, replace(short, seed=9), tmp_path / "e", overwrite=True, progress=False)
    assert run.config.seed == 9


def test_a_run_tells_where_it_came_from(run, moving):
    info = run.info
    assert info["state"] == "finished" and info["capture"]["digest"] == moving.digest()
    assert info["capture"]["sources"] == {"orbit": 6} and info["versions"]["torch"]
    assert TrainConfig.from_dict(info["config"]) == CONFIG == run.config
    assert list(run.curve["step"]) == [20, 40] and {"psnr_train_db", "psnr_db"} <= set(run.curve)
    assert {file.name for file in run.path.iterdir()} == {"run.json", "model.safetensors", "curve.csv"}


def test_a_damaged_checkpoint_is_one_clear_message(moving, tmp_path):
    trainer = Trainer(moving, CONFIG, CPU)
    for name, content in {"garbage": b"no", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.*delete it"):
            trainer.restore(tmp_path / name)
    save_file({"step": torch.tensor(1)}, tmp_path / "partial")
    with pytest.raises(InputError, match="partial"):
        trainer.restore(tmp_path / "partial")


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
