"""COLMAP reconstructions: what pycolmap writes is read, text and binary alike; what is damaged is one error."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import HEIGHT, WIDTH, save_picture

from fourdgs.cameras import orbit
from fourdgs.data import colmap
from fourdgs.data.load import load_capture
from fourdgs.errors import InputError
from fourdgs.lens import Lens

pycolmap = pytest.importorskip("pycolmap")
CAMERAS = orbit(4, width=WIDTH, height=HEIGHT)
PINHOLE = ("PINHOLE", (10.0, 11.0, 6.5, 4.25))


def reconstruct(folder: Path, cameras: list[tuple] = (PINHOLE,), text: bool = False, names: tuple = (), **size) -> Path:
    """A reconstruction of four images with observations, and its pictures, in ``folder``; returns that."""
    whole = pycolmap.Reconstruction()
    for number, (model, params) in enumerate(cameras, 1):
        camera = pycolmap.Camera(model=model, width=size.get("width", WIDTH), height=HEIGHT, params=params)
        camera.camera_id = number
        whole.add_camera_with_trivial_rig(camera)
    for number in range(4):
        name = names[number] if names else f"walk/im_{number}.png"
        image = pycolmap.Image(name, np.random.default_rng(number).uniform(0, 8, (5, 2)), 1 + number % len(cameras))
        image.image_id = 10 + number
        view = CAMERAS.viewmats[number].double().numpy()
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(view[:3, :3]), view[:3, 3])
        whole.add_image_with_trivial_frame(image, pose)
        save_picture(folder / "images" / name, number)
    sparse = folder / "sparse/0"
    sparse.mkdir(parents=True)
    (whole.write_text if text else whole.write_binary)(str(sparse))
    return folder


@pytest.mark.parametrize("text", [False, True])
def test_poses_intrinsics_and_pictures(tmp_path, text):
    capture = load_capture(reconstruct(tmp_path, text=text))
    assert capture.frames.frame.tolist() == [f"walk/im_{number}" for number in range(4)]
    assert capture.splits == ["train"] and capture.frames.time.isna().all() and capture.frames.camera.nunique() == 4
    assert (capture.cameras.viewmats - CAMERAS.viewmats).abs().max() < 1e-6
    fx, fy, cx, cy = PINHOLE[1]
    assert torch.equal(capture.cameras.Ks[2], torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    assert Path(capture.frames.image[3]) == (tmp_path / "images/walk/im_3.png").resolve()
    assert capture.pictures()[0].shape == (4, HEIGHT, WIDTH, 3) and "distortion" not in capture.frames


def test_text_and_binary_are_one_capture_in_every_layout(tmp_path):
    digest = load_capture(reconstruct(tmp_path / "bin")).digest()
    folder = reconstruct(tmp_path / "txt", text=True)
    assert load_capture(folder).digest() == digest
    for place in ("sparse", "colmap/sparse/0", ""):
        moved = tmp_path / f"to-{place.replace('/', '-')}"
        shutil.copytree(folder / "images", moved / "images")
        shutil.copytree(folder / "sparse/0", moved / place, dirs_exist_ok=True)
        assert load_capture(moved).digest() == digest
    # Older files have neither rigs nor frames; a reconstruction may also come without points.
    for name in ("rigs", "frames", "points3D"):
        (folder / f"sparse/0/{name}.txt").unlink()
    assert load_capture(folder).digest() == digest


@pytest.mark.parametrize("name", sorted(colmap.MODELS))
def test_every_model_shows_a_point_where_colmap_does(tmp_path, name):
    model, layout, terms = colmap.MODELS[name]
    focals = (10.0,) if layout == "fcc" else (10.0, 10.5)
    params = [*focals, 6.0, 4.0, *(0.08 / 4**position for position in range(len(terms)))]
    capture = load_capture(reconstruct(tmp_path, [(name, params)]))
    camera = pycolmap.Camera(model=name, width=WIDTH, height=HEIGHT, params=params)
    ray = np.array([0.15, -0.1, 1.0])
    if "distortion" in capture.frames:
        lens = Lens.parse(capture.frames.distortion[0])
        assert lens.model == model
        u, v = lens.distort(ray[:1], ray[1:2])
        # The pinhole has the ray at a pixel; the map leads from there to where COLMAP has it in the stored picture.
        seen = capture.cameras.Ks[0].double().numpy() @ ray
        fx, fy, cx, cy = lens.pinhole()
        assert np.allclose(seen[:2], [fx * ray[0] + cx, fy * ray[1] + cy], atol=1e-5)
    else:
        assert not terms and model == "OPENCV"
        u, v, _ = capture.cameras.Ks[0].double().numpy() @ ray
    assert np.allclose([np.ravel(u)[0], np.ravel(v)[0]], camera.img_from_cam(ray[None])[0], atol=1e-6)
    assert capture.image(0).shape == (HEIGHT, WIDTH, 3)


def test_models_that_are_no_lens_here_are_named(tmp_path):
    with pytest.raises(InputError, match="camera 1: model: is FOV.*image_undistorter") as caught:
        load_capture(reconstruct(tmp_path, [("FOV", (10.0, 10.0, 6.0, 4.0, 0.5))]))
    assert caught.value.file == tmp_path / "sparse/0/cameras.bin"


def test_test_every_holds_out_by_name(tmp_path):
    folder = reconstruct(tmp_path, names=("b_10.png", "b_2.png", "c.png", "a.png"))
    capture = load_capture(folder, test_every=2)
    held = capture.select(split="test").frames.frame.tolist()
    assert held == ["a", "b_10"], "of a, b_2, b_10, c"
    assert load_capture(folder, splits="test", test_every=2).frames.frame.tolist() == held
    with pytest.raises(InputError, match="no frames, there are train"):
        load_capture(folder, splits=["test"])
    for bad in (1, 0, 2.5, True):
        with pytest.raises(InputError, match="at least 2"):
            load_capture(folder, test_every=bad)


def test_masks_are_found_by_either_name(tmp_path):
    folder = reconstruct(tmp_path)
    save_picture(folder / "masks/walk/im_0.png.png", 7, "L")
    save_picture(folder / "masks/walk/im_2.png", 8, "L")
    masks = load_capture(folder).frames["mask"]
    assert [bool(mask) for mask in masks] == [True, False, True, False]


def test_missing_and_wrong_pictures(tmp_path):
    folder = reconstruct(tmp_path)
    (folder / "images/walk/im_1.png").unlink()
    with pytest.raises(InputError, match="image walk/im_1.png: name: no file"):
        load_capture(folder)
    with pytest.warns(UserWarning, match="1 picture is missing and was skipped: image walk/im_1.png"):
        assert len(load_capture(folder, missing="skip")) == 3
    save_picture(folder / "images/walk/im_1.png", size=(9, 9))
    with pytest.raises(InputError, match="is 9x9, its camera 1 is 12x8"):
        load_capture(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [("../../out.png", "leaves"), ("walk/../../../out.png", "leaves"), ("/etc/hostname", "no file .*a/images/etc")],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name, words):
    folder = reconstruct(tmp_path / "home/a", text=True)
    save_picture(tmp_path / "home/out.png")
    images = folder / "sparse/0/images.txt"
    images.write_text(images.read_text().replace("walk/im_2.png", name))
    with pytest.raises(InputError, match=words):
        load_capture(folder)


DAMAGE = [
    # file, change, words
    ("images", lambda data: data[:-30], "a record goes on behind its"),
    ("images", lambda data: data + b"more", "4 bytes follow its last record"),
    ("images", lambda data: struct.pack("<Q", 2**60) + data[8:], "a record goes on behind"),
    ("images", lambda data: b"", "a record goes on behind its 0 bytes"),
    ("cameras", lambda data: data[:20], "a record goes on behind its 20 bytes"),
    ("cameras", lambda data: data[:12] + struct.pack("<i", 99) + data[16:], "unknown model 99"),
    ("cameras", lambda data: data[:8] + struct.pack("<I", 77) + data[12:], "damaged"),
]


@pytest.mark.parametrize(("name", "change", "words"), DAMAGE)
def test_damaged_binaries_are_one_error(tmp_path, name, change, words):
    file = reconstruct(tmp_path) / f"sparse/0/{name}.bin"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(InputError, match=words) as caught:
        load_capture(tmp_path)
    assert caught.value.file.parent == file.parent and caught.value.field and caught.value.remedy


@pytest.mark.parametrize("count", [2**61, 2**40])
def test_points_and_observations_are_never_asked_for(tmp_path, count):
    """pycolmap would take the count of points for true and ask for that much memory."""
    folder = reconstruct(tmp_path)
    (folder / "sparse/0/points3D.bin").write_bytes(struct.pack("<Q", count))
    assert len(load_capture(folder)) == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [("10 ", "ten "), ("walk/im_0.png", ""), ("PINHOLE 12", "PINHOLE"), ("PINHOLE", "PINEHOLE"), ("6.5", "nan")],
)
def test_damaged_text_is_one_error(tmp_path, old, new):
    folder = reconstruct(tmp_path, text=True) / "sparse/0"
    for name in ("cameras", "images"):
        text = "\n".join(x for x in (folder / f"{name}.txt").read_text().split("\n") if not x.startswith("#"))
        (folder / f"{name}.txt").write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_capture(tmp_path)
    assert caught.value.file.parent == folder and caught.value.field
