"""The preset for few cameras: which motion for which frames, and that it trains."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenes import ball_cameras, ball_capture

import fourdgs as fd
from fourdgs.capture import merge
from fourdgs.few_cameras import CLIP, HELPS

BASE = fd.TrainConfig(iterations=12, gaussians=60, seed=3)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> dict[str, fd.Capture]:
    root = tmp_path_factory.mktemp("few")
    still = ball_capture(root, ball_cameras(6, 24, times=torch.full((6,), math.nan)))
    clip = ball_capture(root, ball_cameras(6, 24, times=torch.linspace(0, 1, 6)), source="clip", move=0.2)
    return {"still": still, "clip": clip, "both": merge([still, clip])}


def test_stills_alone_do_not_move(frames):
    config = fd.few_cameras(frames["still"], BASE)
    assert config == replace(BASE, **HELPS, motion="static")


def test_a_clip_beside_stills_moves_in_rigid_parts_and_leaves_the_scene_to_the_stills(frames):
    config = fd.few_cameras(frames["both"], BASE)
    assert config == replace(BASE, **HELPS, **CLIP)


def test_without_stills_the_motion_is_chosen_from_the_capture(frames):
    config = fd.few_cameras(frames["clip"], BASE)
    assert config.motion == fd.choose_motion(frames["clip"]).name
    assert config.canonical == "all"
    assert config.init == "auto"  # no three cameras see one moment


@pytest.mark.parametrize("name", ["still", "clip", "both"])
def test_what_it_says_can_be_trained(frames, tmp_path, name):
    run = fd.train(frames[name], fd.few_cameras(frames[name], BASE), tmp_path / name, progress=False)
    assert run.info["state"] == "finished"
