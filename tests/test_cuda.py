"""What training and rendering on CUDA is made of: fused kernels, the feed of pictures, words for what is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians
from test_motion import shaken

import fourdgs as fd
from fourdgs import InputError, Model, Static, TrainConfig, checkpoint
from fourdgs.cuda import available
from fourdgs.errors import MissingDependency, OutOfMemory
from fourdgs.feed import Feed
from fourdgs.model import render_bytes, render_gaussians
from fourdgs.raster import api
from fourdgs.runs import Run
from fourdgs.trainer import Trainer

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=on_gpu)]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_are_right_in_tritons_interpreter():
    command = [sys.executable, str(Path(__file__).with_name("fused_kernels.py"))]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_kernels_are_right_on_the_gpu():
    from fused_kernels import check

    check("cuda")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_feed_gives_the_pictures_of_every_step(device, streamed, monkeypatch):
    if streamed and device == "cpu":
        pytest.skip("nothing is streamed on the CPU")
    if streamed:
        monkeypatch.setattr("fourdgs.feed.RESIDENT_SHARE", 0.0)
    pictures = torch.randint(0, 255, (7, 90, 120, 3), dtype=torch.uint8)
    feed = Feed(pictures, torch.device(device))
    assert feed.streamed == streamed and ("streamed" in feed.where) == streamed
    for steps, batch in ((5, 3), (1, 3), (40, 2)):
        rows = torch.randint(0, 7, (steps, batch))
        feed.begin(rows)
        for step in range(steps):
            store, at = feed.next()
            assert torch.equal(store[at].cpu(), pictures[rows[step]])
    assert torch.equal(feed.pictures(torch.tensor([2, 2, 0])).cpu(), pictures[[2, 2, 0]])


@pytest.mark.parametrize("device", DEVICES)
def test_one_set_of_gaussians_for_all_cameras_is_the_same_as_one_each(device):
    views = ball_cameras(3, 40).views().to(device)
    background = torch.tensor([0.1, 0.5, 0.9], device=device)
    for degree in (0, 2):
        gaussians = random_gaussians(300, sh_degree=degree).to(device)
        shared = render_gaussians(gaussians, views, background, render_mode="RGB+ED")
        apart = render_gaussians(Static().at(gaussians, views.times), views, background, render_mode="RGB+ED")
        for a, b in zip(shared, apart, strict=True):
            assert float((a - b).abs().mean()) < 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("motion", [Static, shaken])
def test_pictures_in_bytes_are_the_rendering_rounded(device, motion):
    model = Model(random_gaussians(300), motion()).to(device)
    cameras = ball_cameras(7, 40, times=np.linspace(0, 1, 7))
    whole = (fd.render(model, cameras).rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    parts = list(render_bytes(model, cameras, chunk=3))
    assert [len(part) for part in parts] == [3, 3, 1] and all(part.device.type == "cpu" for part in parts)
    difference = (torch.cat(parts).int() - whole.int()).abs()
    assert int(difference.max()) <= (0 if device == "cpu" else 1)


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    return dict(trainer.parameters) | trainer.motion.state_dict()


def test_a_batched_config_sees_as_many_frames():
    config = TrainConfig(iterations=20_000, refine_every=100, evaluate_every=500, checkpoint_every=1000)
    for batch in (1, 2, 4, 8):
        batched = config.batched(batch)
        assert batched.batch == batch and batched.iterations * batch == config.iterations
        assert batched.evaluate_every * batch == pytest.approx(500, rel=0.02)
        assert batched.lr_means >= config.lr_means and batched.ssim_weight == config.ssim_weight
    assert config.batched(1) == config
    assert config.batched(4).lr_sh == pytest.approx(config.batched(2).batched(4).lr_sh)


@pytest.mark.parametrize("motion", ["deform", "velocity", "basis"])
def test_a_stopped_run_ends_up_the_same_wherever_it_stopped(tmp_path, motion):
    capture = ball_capture(tmp_path, ball_cameras(6, 32, times=np.linspace(0, 1, 6)))
    config = TrainConfig(motion=motion, iterations=90, gaussians=100, batch=2, refine_every=10)
    whole = Trainer(capture, config, torch.device("cpu"))
    for _ in range(90):
        whole.take_step()
    assert len(whole.parameters["means"]) > 80  # of 50 at the start
    for stop in (1, 37, 64, 65):  # in the middle of a plan, at its end, after it
        first = Trainer(capture, config, torch.device("cpu"))
        for _ in range(stop):
            first.take_step()
        checkpoint.save(first, tmp_path / "checkpoint.safetensors")
        second = Trainer(capture, config, torch.device("cpu"))
        checkpoint.restore(second, tmp_path / "checkpoint.safetensors")
        while second.step < 90:
            second.take_step()
        for (name, value), other in zip(everything(whole).items(), everything(second).values(), strict=True):
            assert torch.equal(value, other), (stop, name)


# --- words for what is missing ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_one_clear_error(tmp_path):
    capture = ball_capture(tmp_path, ball_cameras(4, 16))
    with pytest.raises(InputError, match=r"device: is 'cuda', but .*leave it out to train on the CPU"):
        fd.train(capture, TrainConfig(iterations=1), tmp_path / "run", device="cuda", progress=False)


def test_memory_that_runs_out_says_what_to_lower(tmp_path, monkeypatch):
    capture = ball_capture(tmp_path, ball_cameras(4, 16))

    def too_much(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "take_step", too_much)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 7 * 2**30)
    config = TrainConfig(iterations=5, gaussians=77, batch=3)
    with pytest.raises(OutOfMemory, match=r"step 0 of 5 \(8.0 GB.*batch \(3\), gaussians \(77\).*16 x 16"):
        fd.train(capture, config, tmp_path / "run", progress=False)
    assert not Run(tmp_path / "run").finished


@pytest.mark.parametrize(
    ("version", "fits"), [("1.4.0", False), ("1.5.2", False), ("1.5.3", True), ("1.10.0+cu", True)]
)
def test_an_old_gsplat_is_named(monkeypatch, version, fits):
    kernels = types.SimpleNamespace(_C=object())
    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(__version__=version, rasterization=len))
    monkeypatch.setitem(sys.modules, "gsplat.cuda", types.SimpleNamespace(_backend=kernels))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    api.gsplat_function.cache_clear()
    try:
        if fits:
            assert api.gsplat_function() is len
        else:
            with pytest.raises(MissingDependency, match=rf"gsplat {version} is too old: pip install gsplat==1.5.3"):
                api.gsplat_function()
    finally:
        api.gsplat_function.cache_clear()


@pytest.mark.parametrize(
    ("lacking", "words"),
    [("triton", "pip install triton"), ("compiler", "apt install gcc"), ("device", "no CUDA device"), ("", None)],
)
def test_what_the_fused_kernels_lack_is_named_once(monkeypatch, lacking, words):
    monkeypatch.delenv(available.SWITCH, raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: lacking != "device")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if lacking == "triton" else name)
    monkeypatch.setattr(available.shutil, "which", lambda name: None if lacking == "compiler" else name)
    available.why_not_fused.cache_clear()
    available.fused.cache_clear()
    try:
        reason = available.why_not_fused()
        assert (reason is None) if words is None else (words in reason)
        if lacking in ("triton", "compiler"):
            with pytest.warns(UserWarning, match="training is slower"):
                assert not available.fused()
        assert available.fused() == (words is None)  # and no further warning
    finally:
        available.why_not_fused.cache_clear()
        available.fused.cache_clear()
