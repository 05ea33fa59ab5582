"""What must hold on a CUDA device; skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians
from test_motion import shaken

import fourdgs as fd
from fourdgs import Model, Static, TrainConfig
from fourdgs.model import render_gaussians

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


def picture_and_gradients(device: str, sh_degree: int = 1) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A weighted sum of a picture's colours, and its gradients to every parameter."""
    gaussians = random_gaussians(2000, sh_degree=sh_degree).to(device)
    leaves = {key: value.clone().requires_grad_() for key, value in gaussians.items().items()}
    cameras = ball_cameras(2, 61).to(device)
    posed = Static().at(fd.Gaussians(**leaves), cameras.times)
    rgb, _ = render_gaussians(posed, cameras, torch.tensor([0.2, 0.4, 0.6], device=device))
    weight = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(0)).to(device)
    (rgb * weight).sum().backward()
    return rgb.detach().cpu(), {key: value.grad.cpu() for key, value in leaves.items()}


def test_both_engines_draw_the_same_picture_with_the_same_gradients():
    (cpu, slopes), (gpu, expected) = picture_and_gradients("cpu"), picture_and_gradients("cuda")
    assert float((cpu - gpu).abs().mean()) < 1e-4
    for key, value in slopes.items():
        assert float((value - expected[key]).norm() / expected[key].norm()) < 1e-3, key


def test_a_model_renders_alike_on_both(tmp_path):
    model, cameras = Model(random_gaussians(500), shaken()), ball_cameras(4, 40, times=[0.0, 0.3, 1.0, float("nan")])
    here = fd.render(model, cameras)
    there = fd.render(model.to("cuda"), cameras)
    for first, second in zip(here, there, strict=True):
        assert float((first - second.cpu()).abs().mean()) < 1e-3


def test_training_reaches_the_same_quality_on_both(tmp_path):
    capture = ball_capture(tmp_path, ball_cameras(6, 48, times=np.linspace(0, 1, 6)))
    config = TrainConfig(motion="deform", iterations=400, gaussians=400)
    figures = {"cpu": [], "cuda": []}
    for device, seed in ((device, seed) for device in figures for seed in range(2)):
        run = fd.train(capture, replace(config, seed=seed), tmp_path / f"{device}{seed}", device=device, progress=False)
        figures[device].append(fd.evaluate(run, capture, split="train", progress=False)["psnr_db"].mean())
    assert abs(np.mean(figures["cpu"]) - np.mean(figures["cuda"])) < 0.7, figures


def test_a_run_resumes_on_the_gpu(tmp_path, monkeypatch):
    from fourdgs.trainer import Trainer

    capture = ball_capture(tmp_path, ball_cameras(6, 48, times=np.linspace(0, 1, 6)))
    config = TrainConfig(motion="deform", iterations=60, gaussians=200, checkpoint_every=20, refine_every=10)
    step = Trainer.take_step

    def stops(self):
        if self.step == 45:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "take_step", stops)
    with pytest.raises(KeyboardInterrupt):
        fd.train(capture, config, tmp_path / "run", device="cuda", progress=False)
    monkeypatch.undo()
    run = fd.train(capture, config, tmp_path / "run", device="cuda", progress=False)
    assert run.finished and len(run.model.gaussians) > 100  # what had grown before the stop is there
