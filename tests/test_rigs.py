"""A folder or a video per camera, with a calibration file or a cameras.json: poses, order, times, masks, lenses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import HEIGHT, WIDTH, save_picture

from fourdgs.cameras import orbit
from fourdgs.data.load import load_capture
from fourdgs.data.transforms import read_transforms, write_transforms
from fourdgs.errors import InputError
from fourdgs.lens import Lens

NAMES = ("cam2", "cam10", "left")
CAMERAS = orbit(3, elevation_deg=15, width=WIDTH, height=HEIGHT)
VIEWS = CAMERAS.viewmats.double().numpy()
K = CAMERAS.Ks[0].double().tolist()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FOURDGS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(folder: Path, count: int = 4, seed: int = 0) -> Path:
    for number in range(count):
        save_picture(folder / f"f_{number}.png", seed + number)
    return folder


def views(**more) -> list[dict]:
    """Records of three views as a cameras.json has them."""
    return [{"name": name, "K": K, "w2c": view.tolist(), **more} for name, view in zip(NAMES, VIEWS, strict=True)]


def rig(root: Path, content: object = None, count: int = 4) -> Path:
    """Three folders of pictures, and a cameras.json."""
    for number, name in enumerate(NAMES):
        pictures(root / name, count, 10 * number)
    content = {"convention": "opencv", "cameras": views()} if content is None else content
    (root / "cameras.json").write_text(json.dumps(content))
    return root


def same_cameras(capture) -> bool:
    rows = [NAMES.index(name) for name in capture.frames.camera]
    return bool((capture.cameras.viewmats - CAMERAS.viewmats[rows]).abs().max() < 1e-6)


# --- cameras.json ---


def test_views_with_a_folder_each(tmp_path):
    capture = load_capture(rig(tmp_path / "a", count=11))
    assert len(capture) == 33 and capture.splits == ["train"] and same_cameras(capture)
    assert torch.equal(capture.cameras.Ks, CAMERAS.Ks[:1].expand(33, 3, 3))
    left = capture.select(where=lambda frames: frames.camera == "left")
    assert left.frames.frame.tolist() == [f"left/f_{number}" for number in range(11)], "in natural order"
    assert left.frames.time.tolist() == pytest.approx(np.linspace(0, 1, 11).tolist())
    assert load_capture(tmp_path / "a/cameras.json").digest() == capture.digest()
    written = read_transforms(write_transforms(capture, tmp_path / "out"))
    assert written.digest() == capture.digest()


def test_every_way_to_write_a_pose_is_one_pose(tmp_path):
    digest = load_capture(rig(tmp_path / "first")).digest()
    opengl = np.diag([1.0, -1, -1, 1])
    ways = {
        "w2c": lambda view: {"w2c": view.tolist(), "convention": "opencv"},
        "rows": lambda view: {"world_to_camera": view[:3].tolist(), "convention": "OpenCV"},
        "c2w": lambda view: {"c2w": np.linalg.inv(view).tolist(), "convention": "opencv"},
        "gl": lambda view: {"camera_to_world": (np.linalg.inv(view) @ opengl).tolist(), "convention": "opengl"},
        "glw2c": lambda view: {"w2c": (opengl @ view).tolist(), "convention": "opengl"},
        "rt": lambda view: {"R": view[:3, :3].tolist(), "T": view[:3, 3].tolist(), "convention": "opencv"},
    }
    for name, way in ways.items():
        records = [{"name": n, "K": K, **way(view)} for n, view in zip(NAMES, VIEWS, strict=True)]
        capture = load_capture(rig(tmp_path / name, records))
        assert capture.digest() == digest, name
    by_name = {record.pop("name"): record for record in views(convention="opencv")}
    assert load_capture(rig(tmp_path / "mapping", by_name)).digest() == digest
    assert load_capture(rig(tmp_path / "views", {"convention": "opencv", "views": by_name})).digest() == digest


def test_every_way_to_write_intrinsics(tmp_path):
    fx, cx, cy = K[0][0], K[0][2], K[1][2]
    angle = 2 * np.arctan(WIDTH / 2 / fx)
    digest = load_capture(rig(tmp_path / "first")).digest()
    for number, optics in enumerate(
        (
            {"fx": fx, "fy": fx, "cx": cx, "cy": cy},
            {"fl_x": fx},
            {"fov": np.degrees(angle)},
            {"fov_x_deg": np.degrees(angle)},
            {"camera_angle_x": angle, "image_width": WIDTH, "image_height": HEIGHT},
            {"fov_y_deg": 2 * np.degrees(np.arctan(HEIGHT / 2 / fx))},
        )
    ):
        records = [{key: value for key, value in view.items() if key != "K"} for view in views(convention="opencv")]
        capture = load_capture(rig(tmp_path / str(number), [record | optics for record in records]))
        assert capture.digest() == digest, optics


def test_4danyone_s_export(tmp_path):
    """Its keys, and videos that are not in folders of their own; see README of its repository, docs/output.md."""
    pytest.importorskip("av")
    from fourdgs.data.video import write_video

    size, frames = (32, 48), 5
    cameras = orbit(3, width=size[0], height=size[1])
    records = []
    for number in range(3):
        clip = np.full((frames, size[1], size[0], 3), 40 * number + 60, np.uint8)
        clip += (10 * np.arange(frames, dtype=np.uint8))[:, None, None, None]
        write_video(clip, tmp_path / f"videos/dense/{number:02d}.mp4", progress=False)
        records.append(
            {
                "camera_id": number,
                "layer_index": 0,
                "pitch": 0,
                "yaw": 120.0 * number,
                "K": cameras.Ks[number].tolist(),
                "camera_to_world": np.linalg.inv(cameras.viewmats[number].double().numpy()).tolist(),
                "image_width": size[0],
                "image_height": size[1],
                "video": f"videos/dense/{number:02d}.mp4",
                "skeleton_video": f"skeletons/{number:02d}.mp4",
            }
        )
    head = {"camera_model": "OPENCV", "world_frame": "canonical_human_world", "camera_frame": "opencv_camera"}
    content = {**head, "front_camera_ids": [0], "framing": {"radius": 3.0}, "cameras": records}
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    capture = load_capture(tmp_path, test_every=3)
    assert len(capture) == 15 and capture.frames.camera.nunique() == 3
    assert set(capture.select(split="test").frames.camera) == {"0"}, "whole cameras are held out"
    for row, (camera, time) in enumerate(zip(capture.frames.camera, capture.frames.time, strict=True)):
        expected = 40 * int(camera) + 60 + 10 * round(time * 4)
        assert abs(capture.image(row).mean() * 255 - expected) < 3
        assert (capture.cameras.viewmats[row] - cameras.viewmats[int(camera)]).abs().max() < 1e-6
    # The frames are decoded once: they are kept by the content of the video.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert len(kept) == 15
    shutil.move(tmp_path / "videos", tmp_path / "moved")
    (tmp_path / "cameras.json").write_text(json.dumps(content).replace("videos/dense", "moved/dense"))
    assert load_capture(tmp_path).frames.image.nunique() == 15
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")} == kept


def test_masks_splits_sources_and_lenses(tmp_path):
    records = views(convention="opencv", source="studio")
    records[1] |= {"split": "test", "distortion_coefficients": [0.05, 0, 0, 0], "fisheye": True}
    records[2] |= {"masks": "mattes", "images": "left"}
    folder = rig(tmp_path, records)
    for number in range(4):
        save_picture(folder / f"cam2/masks/f_{number}.png", number, "L")
    save_picture(folder / "mattes/f_3.png", 3, "L")
    capture = load_capture(folder)
    assert capture.sources == ["studio"]
    assert capture.select(split="test").frames.camera.unique().tolist() == ["cam10"]
    masks = capture.frames[capture.frames["mask"] != ""].frame.tolist()
    assert sorted(masks) == ["cam2/f_0", "cam2/f_1", "cam2/f_2", "cam2/f_3", "left/f_3"]
    lens = Lens.parse(capture.select(split="test").frames.distortion[0])
    assert lens.model == "OPENCV_FISHEYE" and lens.coefficients == (0.05, 0, 0, 0)
    assert (capture.select(split="train").frames.distortion == "").all()
    with pytest.raises(InputError, match="test_every: is 2, but the capture says itself which frames are test"):
        load_capture(folder, test_every=2)


def test_cameras_of_different_length_and_stills(tmp_path):
    folder = rig(tmp_path / "a")
    (folder / "cam2/f_3.png").unlink()
    with pytest.warns(UserWarning, match="different numbers of frames: cam2 3, cam10 4, left 4"):
        capture = load_capture(folder)
    times = capture.frames[capture.frames.camera == "cam2"].time.tolist()
    assert times == pytest.approx([0, 1 / 3, 2 / 3]), "they start together"
    assert load_capture(rig(tmp_path / "b", count=1)).frames.time.isna().all()


def change(position: int = 1, **values):
    def apply(records: list[dict]) -> object:
        records[position].update(values)
        return records

    return apply


BAD_VIEWS = [
    (lambda r: [], "cameras", "must be a list"),
    (lambda r: {"cameras": 3}, "cameras", "must be a list"),
    (lambda r: "no", "cameras", "must be a list"),
    (lambda r: [v | {"convention": None} for v in r], "convention", "is missing"),
    (change(convention="colmap"), "convention", "'colmap', must be opencv or opengl"),
    (change(convention=3), "convention", "must be a string"),
    (change(w2c=None), "w2c", "is missing"),
    (change(w2c=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]), "w2c", r"shape \[3, 3\], must be 3x4 or 4x4"),
    (change(w2c=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, "1", 0]]), "w2c", "'1', must be a number"),
    (change(w2c=[[1, 0, 0, 0], [0, 1, 0], [0, 0, 1, 0]]), "w2c", "must be 3x4 or 4x4 numbers"),
    (change(w2c=(np.eye(4) * 2).tolist()), "w2c", "last row|scale"),
    (change(K=None), "K", "is missing"),
    (change(K=[[1, 0, 0]]), "K", r"must be 3x3"),
    (change(K=[[10, 1, 6], [0, 10, 4], [0, 0, 1]]), "K", "must be fx 0 cx"),
    (change(K=[[-10, 0, 6], [0, 10, 4], [0, 0, 1]]), "K", "is -10, must be positive"),
    (change(K=None, fov=0.9), "fov", "looks like radians"),
    (change(K=None, fov=200), "fov", "radians, must be between"),
    (change(width=99), "width", "is 99x[?], but .* is 12x8"),
    (change(name="cam2"), "name", "'cam2' is that of another camera too"),
    (change(name="gone"), "name", "'gone' has neither a folder nor a video; there are: cam10, cam2, left"),
    (change(images="gone"), "images", "no folder"),
    (change(images="../outside"), "images", "leaves the capture's folder"),
    (change(video="../out.mp4"), "video", "leaves the capture's folder"),
    (change(video="left/f_0.png"), "video", "f_0.png"),
    (change(masks="/etc"), "masks", "leaves the capture's folder"),
    (change(split="holdout"), "split", "must be one of"),
    (change(distortion=[1e300, 0, 0, 0]), "distortion", "no undistorted picture"),
    (change(distortion=[0.1] * 9), "distortion", "has 9 terms"),
    (change(fisheye="yes"), "fisheye", "must be true or false"),
]


@pytest.mark.parametrize(("alter", "key", "words"), BAD_VIEWS)
def test_a_bad_view_is_one_error(tmp_path, alter, key, words):
    folder = rig(tmp_path / "home", alter(views(convention="opencv")))
    pictures(tmp_path / "outside")
    with pytest.raises(InputError, match=words) as caught:
        load_capture(folder)
    error = caught.value
    assert error.file.is_relative_to(folder.resolve()) and error.remedy
    assert error.field.endswith(key)


def test_missing_views_may_be_skipped(tmp_path):
    folder = rig(tmp_path)
    shutil.rmtree(folder / "cam10")
    with pytest.raises(InputError, match="'cam10' has neither"):
        load_capture(folder)
    with pytest.warns(UserWarning, match="1 camera is missing and was skipped: view 1"):
        assert set(load_capture(folder, missing="skip").frames.camera) == {"cam2", "left"}


# --- folders and a calibration ---


def rodrigues(view: np.ndarray) -> list[float]:
    return pytest.importorskip("cv2").Rodrigues(view[:3, :3])[0].ravel().tolist()


def pose2sim(terms: tuple = (0.0, 0.0, 0.0, 0.0), prefix: str = "", fisheye: bool = False) -> str:
    """A Calib.toml of the three cameras; OpenCV's principal point counts from the middle of the first pixel."""
    lines = []
    for name, view in zip(NAMES, VIEWS, strict=True):
        matrix = [[K[0][0], 0.0, K[0][2] - 0.5], [0.0, K[1][1], K[1][2] - 0.5], [0.0, 0.0, 1.0]]
        lines += [f"[{prefix}{name}]", f'name = "{prefix}{name}"', f"size = [ {WIDTH}.0, {HEIGHT}.0]"]
        lines += [f"matrix = {matrix}", f"distortions = {list(terms)}", f"rotation = {rodrigues(view)}"]
        lines += [f"translation = {view[:3, 3].tolist()}", f"fisheye = {str(fisheye).lower()}", ""]
    return "\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0"])


def opencv_yaml(view: np.ndarray, header: str = "%YAML:1.0\n---\n") -> str:
    """What cv2.FileStorage writes for one camera."""

    def matrix(name: str, values: np.ndarray) -> str:
        data = ", ".join(f"{value:.16e}" for value in values.ravel())
        lines = [f"{name}: !!opencv-matrix", f"rows: {len(values)}", f"cols: {values.size // len(values)}", "dt: d"]
        return "\n   ".join([*lines, f"data: [ {data} ]"]) + "\n"

    optics = np.array(K) - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    text = header + f"image_width: {WIDTH}\nimage_height: {HEIGHT}\n" + matrix("camera_matrix", optics)
    return (
        text
        + matrix("distortion_coefficients", np.zeros((1, 5)))
        + matrix("R", view[:3, :3])
        + matrix("T", view[:3, 3:])
    )


def test_pose2sim_opencv_and_cameras_json_are_one_capture(tmp_path):
    digest = load_capture(rig(tmp_path / "json")).digest()
    for layout in ("Calib_scene.toml", "calibration/Calib.toml"):
        folder = rig(tmp_path / layout.replace("/", "-"))
        (folder / "cameras.json").unlink()
        (folder / layout).parent.mkdir(exist_ok=True)
        (folder / layout).write_text(pose2sim())
        assert load_capture(folder).digest() == digest
        assert load_capture(folder / layout).digest() == digest
    folder = rig(tmp_path / "yaml")
    (folder / "cameras.json").unlink()
    for name, view in zip(NAMES, VIEWS, strict=True):
        (folder / name / "calibration.yml").write_text(opencv_yaml(view))
    assert load_capture(folder).digest() == digest
    folder = rig(tmp_path / "one-json")
    (folder / "cameras.json").unlink()
    entries = {
        name: {"camera_matrix": (np.array(K) - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]).tolist(),
               "R": view[:3, :3].tolist(), "T": view[:3, 3].tolist()}
        for name, view in zip(NAMES, VIEWS, strict=True)
    }  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps(entries))
    assert load_capture(folder).digest() == digest


def test_what_opencv_writes_is_read(tmp_path):
    cv2 = pytest.importorskip("cv2")
    folder = rig(tmp_path)
    (folder / "cameras.json").unlink()
    for extension in ("yml", "json"):
        for name, view in zip(NAMES, VIEWS, strict=True):
            store = cv2.FileStorage(str(folder / name / f"calib.{extension}"), cv2.FileStorage_WRITE)
            store.write("camera_matrix", np.array(K))
            store.write("distortion_coefficients", np.array([[-0.05, 0.15, -1e-4, 6e-5]]))
            store.write("R", view[:3, :3])
            store.write("T", view[:3, 3:])
            store.release()
        capture = load_capture(folder)
        assert same_cameras(capture)
        lens = Lens.parse(capture.frames.distortion[0])
        assert lens.coefficients[:4] == (-0.05, 0.15, -1e-4, 6e-5) and lens.intrinsics[2] == K[0][2] + 0.5
        for name in NAMES:
            (folder / name / f"calib.{extension}").unlink()


def test_names_that_hold_one_another(tmp_path):
    """Pose2Sim calls a camera int_cam2_img and its folder or video cam2."""
    folder = rig(tmp_path / "a")
    (folder / "cameras.json").unlink()
    (folder / "Calib.toml").write_text(pose2sim(prefix="int_", terms=(-0.05, 0.01, 0.0, 0.0)))
    capture = load_capture(folder)
    assert set(capture.frames.camera) == {"int_cam2", "int_cam10", "int_left"}
    for camera, image in zip(capture.frames.camera, capture.frames.image, strict=True):
        assert Path(image).parent.name == camera.removeprefix("int_")
    assert (capture.frames.distortion != "").all()
    shutil.move(folder / "cam2", folder / "cam3")
    with pytest.raises(InputError, match="'int_cam2' has neither a folder nor a video; there are: cam10, cam3, left"):
        load_capture(folder)
    shutil.copytree(folder / "cam3", folder / "cam2")
    shutil.copytree(folder / "cam3", folder / "images/cam2")
    with pytest.raises(InputError, match="may be cam2 or images/cam2"):
        load_capture(folder)


def left(**values: str) -> str:
    """A Calib.toml of one camera, ``left``, with other values."""
    good = {"matrix": "[[9,0,6],[0,9,4],[0,0,1]]", "rotation": "[0,0,0]", "translation": "[0,0,0]"}
    return "\n".join(["[left]", *(f"{key} = {value}" for key, value in (good | values).items())])


STORED = "left: {K: !!opencv-matrix {rows: 3, cols: 9, data: [1, 2]}, R: [0, 0, 0], T: [0, 0, 0]}"
BAD_CALIBRATIONS = [
    ("Calib.toml", "matrix = [", "toml", "not valid TOML"),
    ("Calib.toml", "[metadata]\nerror = 0.0", "cameras", "holds no camera"),
    ("Calib.toml", left().replace("left", "right"), "name", "neither a folder"),
    ("Calib.toml", left(matrix="3"), "matrix", "must be 3x3 numbers"),
    ("Calib.toml", left(matrix="[[1]]", rotation="[0,0,1]"), "matrix", "must be 3x3"),
    ("Calib.toml", "[left]\nmatrix = [[1]]", "R and T", "is missing"),
    ("Calib.toml", left(rotation="[nan,0,0]"), "rotation", "finite"),
    ("Calib.toml", left(rotation="[0,0]"), "rotation", "must be 3x3 or 3"),
    ("Calib.toml", left(size="[1,2]"), "size", "is 1x2, but"),
    ("Calib.toml", left(distortions="[-1e9,0,0,0]"), "distortion", "no undistorted picture"),
    ("calib.yml", "a: [1, 2", "yaml", "not valid YAML"),
    ("calib.yml", "a: &x [1]\nb: *x", "yaml", "aliases are not read"),
    ("calib.yml", "a: !!python/object/apply:os.getcwd []", "yaml", "not valid YAML"),
    ("calib.yml", STORED, "K", "9 columns, and has 2"),
    ("calib.yml", "[" * 3000, "yaml", "not valid YAML"),
    ("calib.json", "[1]", "cameras", "must be an object"),
]


@pytest.mark.parametrize(("name", "text", "key", "words"), BAD_CALIBRATIONS)
def test_a_bad_calibration_is_one_error(tmp_path, name, text, key, words):
    folder = rig(tmp_path)
    (folder / "cameras.json").unlink()
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_capture(folder)
    assert caught.value.file == folder / name and caught.value.field.endswith(key) and caught.value.remedy


def test_links_that_lead_out_are_refused(tmp_path):
    folder = rig(tmp_path / "home")
    outside = pictures(tmp_path / "outside")
    (folder / "cam2/f_1.png").unlink()
    (folder / "cam2/f_1.png").symlink_to(outside / "f_1.png")
    with pytest.raises(InputError, match="leaves the capture's folder"):
        load_capture(folder)
    shutil.rmtree(folder / "cam2")
    (folder / "cam2").symlink_to(outside)
    with pytest.raises(InputError, match="leaves the capture's folder"):
        load_capture(folder)
