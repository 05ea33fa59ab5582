from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from avatars import puppet, puppet_model
from toy_rig import tent_rig

import fourdgs as fd
from fourdgs import InputError, Model, Static
from fourdgs.capture import Capture
from fourdgs.drive import speech_like
from fourdgs.regions import region_errors, region_faces
from fourdgs.talking import played, swing


def test_every_triangle_is_in_one_region_and_the_mouth_is_below_the_eyes():
    rig = puppet()
    parts = region_faces(rig)
    assert list(parts) == ["mouth", "eyes", "brows", "rest of the head", "elsewhere"]
    assert np.array_equal(sum(held.astype(int) for held in parts.values()), np.ones(len(rig.faces)))
    height = {name: float(rig.rest[rig.faces[torch.from_numpy(held)]][..., 1].mean()) for name, held in parts.items()}
    assert height["elsewhere"] < height["mouth"] < height["eyes"] < height["brows"]
    assert list(region_faces(tent_rig())) == ["rest of the head", "elsewhere"]  # what is near its axis hardly turns


@pytest.fixture(scope="module")
def scene():
    """An avatar, the track that moves it, and pictures of it as they come out of a camera."""
    model = puppet_model(400)
    acting = played(model, speech_like(1.0, 1), np.linspace(0, 1, 5))
    cameras = swing(model, size=40).cameras()[[0, 50, 100]].with_times([0.1, 0.5, 0.9])
    return acting, cameras


def taken(model: Model, cameras: fd.Cameras, root) -> Capture:
    """A capture, in memory, of what the model looks like."""
    pictures = (fd.render(model, cameras).rgb.clamp(0, 1) * 255).round().byte().numpy()
    names, sides = [f"talking/{k}" for k in range(len(cameras))], cameras.sizes.T.tolist()
    same = {"source": "talking", "split": "test", "image": "", "mask": ""}
    rows = {"frame": names, "camera": names, "time": cameras.times.tolist(), "width": sides[0], "height": sides[1]}
    opaque = np.full(pictures.shape[1:3], 255, np.uint8)
    memory = {name: (picture, opaque) for name, picture in zip(names, pictures, strict=True)}
    return Capture(root, pd.DataFrame(rows).assign(**same), cameras, memory)


def test_an_error_in_the_mouth_is_seen_there_alone(scene, tmp_path):
    acting, cameras = scene
    capture = taken(acting, cameras, tmp_path)
    held = torch.from_numpy(region_faces(acting.motion.rig)["mouth"])[acting.motion.face]
    loud = torch.where(held[:, None, None], acting.gaussians.sh0 + 1.5, acting.gaussians.sh0)
    other = Model(acting.gaussians.replace(sh0=loud), acting.motion, acting.background)
    still = Model(acting.gaussians, Static(), acting.background)
    table = region_errors({"same": acting, "other": other, "still": still}, acting.motion, capture)
    psnr = table.pivot(index="region", columns="model", values="psnr_db")
    assert (psnr["same"] > 60).all() and psnr["other"].idxmin() == "mouth" and psnr["other"].min() < 25
    assert psnr["other"]["elsewhere"] > psnr["other"]["mouth"] + 6
    assert (psnr["still"] < 45).sum() >= 4 and (table["frames"] == 3).all() and (table["pixels"] > 0).all()
    with pytest.raises(InputError, match="no frame"):
        region_errors({"same": acting}, acting.motion, capture.select(rows=[]))
