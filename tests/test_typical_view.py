"""The view that a run keeps, for who draws it later from nearer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import made_up_run
from scenes import ball_cameras, ball_capture, random_gaussians

import fourdgs as fd
from fourdgs import InputError, Model, Static, TrainConfig
from fourdgs.nearer import no_sharper, pixel_size
from fourdgs.runs import change_info, read_info
from fourdgs.typical_view import read_typical_view, typical_view


def some_cameras(count: int, seed: int) -> fd.Cameras:
    """Around the origin, at many distances and focal lengths."""
    random = np.random.default_rng(seed)
    places = random.normal(size=(count, 3))
    places *= random.uniform(2, 9, (count, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    single = [
        fd.Cameras.look_at(place[None], (0, 0, 0), fov_x_deg=float(random.uniform(15, 70)), width=12, height=12)
        for place in places
    ]
    return fd.Cameras.concatenate(single)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_its_pixels_are_the_size_of_all_and_survive_the_file(count, tmp_path):
    cameras = some_cameras(count, count)
    capture = replace(ball_capture(tmp_path, ball_cameras(count, 12)), cameras=cameras)
    for seed in range(3):
        model = Model(random_gaussians(30, seed), Static())
        kept = json.loads(json.dumps({"typical_view": typical_view(capture, model)}))
        view = read_typical_view(kept, tmp_path)
        assert pixel_size(view.cameras, model) == pixel_size(cameras, model)
        assert kept["typical_view"]["pixel"] == pytest.approx(pixel_size(cameras, model), rel=1e-5)
        row = capture.frames["frame"].tolist().index(kept["typical_view"]["frame"])
        for name in ("viewmats", "Ks", "sizes"):
            assert torch.equal(getattr(view.cameras, name)[0], getattr(cameras, name)[row])
        near = cameras[[row]].resized(48, 48)
        same = no_sharper(model, view, near).gaussians.scales, no_sharper(model, capture, near).gaussians.scales
        assert torch.equal(*same) and not torch.equal(same[0], model.gaussians.scales)


def test_a_training_keeps_it(tmp_path):
    capture = ball_capture(tmp_path, ball_cameras(5, 16))
    run = fd.train(capture, TrainConfig(iterations=4, gaussians=20, init="box"), tmp_path / "run", progress=False)
    view = read_typical_view(run.info, run.path)
    assert pixel_size(view.cameras, run.model) == pixel_size(capture.cameras, run.model)
    change_info(run.path, typical_view=None)
    assert read_typical_view(read_info(run.path), run.path) is None
    again = fd.train(capture, run.config, tmp_path / "run", progress=False)  # of before it was kept: opened as it is
    assert "typical_view" not in again.info


def test_a_model_without_a_place_has_none(tmp_path):
    capture, gaussians = ball_capture(tmp_path, ball_cameras(3, 12)), random_gaussians(3)
    nothing = fd.Gaussians(**{key: value[:0] for key, value in gaussians.items().items()})
    lost = gaussians.replace(means=torch.full((3, 3), torch.nan))
    assert typical_view(capture, Model(nothing, Static())) is typical_view(capture, Model(lost, Static())) is None


@pytest.mark.parametrize(
    "change",
    [{"K": "1 2"}, {"viewmat": None}, {"K": "nan 0 0 0 1 0 0 0 1"}, {"K": "0 0 0 0 1 0 0 0 1"}, {"size": "x"}],
)
def test_a_damaged_one_is_one_clear_message(change, tmp_path):
    capture = ball_capture(tmp_path, ball_cameras(3, 12))
    kept = typical_view(capture, Model(random_gaussians(3), Static())) | change
    path = made_up_run(tmp_path / "run", typical_view=kept)
    with pytest.raises(InputError, match=r"run.json: typical_view: cannot be read: .*capture="):
        read_typical_view(read_info(path), path / "run.json")
    with pytest.raises(InputError, match="typical_view"):
        read_typical_view({"typical_view": "no"}, path)
