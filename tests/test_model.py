from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from scenes import ball_cameras, random_gaussians
from test_motion import shaken

import fourdgs as fd
from fourdgs import InputError, Model, Static


def test_a_saved_model_renders_the_same_pictures(tmp_path):
    model = Model(random_gaussians(60, sh_degree=1), shaken(), (0.2, 0.4, 0.6))
    cameras = ball_cameras(3, 24, times=[0.0, 0.6, 1.0])
    model.save(tmp_path / "model.safetensors")
    again = Model.load(tmp_path / "model.safetensors")
    for first, second in zip(fd.render(model, cameras), fd.render(again, cameras), strict=True):
        assert torch.equal(first, second)
    assert again.background == model.background


def test_chunks_do_not_change_pictures():
    model, cameras = Model(random_gaussians(60), shaken()), ball_cameras(5, 24, times=[0.0, 0.2, 0.4, 0.6, 1.0])
    for first, second in zip(fd.render(model, cameras), fd.render(model, cameras, chunk=2), strict=True):
        assert torch.equal(first, second)


def test_where_nothing_is_the_background_shows_and_depth_is_zero():
    gaussians = random_gaussians(4)
    away = gaussians.replace(means=gaussians.means + 100)
    out = fd.render(Model(away, Static(), (0.1, 0.5, 0.9)), ball_cameras(2, 16))
    assert torch.allclose(out.rgb, torch.tensor([0.1, 0.5, 0.9]).expand_as(out.rgb))
    assert float(out.alpha.abs().max()) == float(out.depth.abs().max()) == 0


def test_depth_is_the_distance_along_the_axis():
    blob = random_gaussians(4)
    solid = blob.replace(means=torch.zeros(4, 3), scales=torch.full((4, 3), -3.0), opacities=torch.full((4,), 6.0))
    out = fd.render(Model(solid, Static()), ball_cameras(1, 33))
    distance = float(ball_cameras(1, 33).positions[0].norm())
    assert float(out.depth[0, 16, 16, 0]) == pytest.approx(distance, rel=1e-4)


def test_damaged_files_are_one_clear_message(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Model.load(tmp_path / "absent")
    (tmp_path / "garbage").write_bytes(b"nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    for name in ("garbage", "other"):
        with pytest.raises(InputError, match=f"{name}.*cannot|{name}.*can be read"):
            Model.load(tmp_path / name)
