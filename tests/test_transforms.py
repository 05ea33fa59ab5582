"""transforms.json: what the field's files look like is read; what is wrong with one is said in one error."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fourdgs.cameras import Cameras, orbit
from fourdgs.capture import Capture
from fourdgs.data.load import load_capture
from fourdgs.data.transforms import read_transforms, write_transforms
from fourdgs.errors import InputError, OutputError

SHARED = Path(__file__).parents[2] / "shared" / "data"
WIDTH, HEIGHT = 12, 8


def pose(azimuth_deg: float = 0.0) -> list:
    return orbit(1, azimuth_start_deg=azimuth_deg).to_opengl()[0].tolist()


def save_picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


def write(folder: Path, content: dict, name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def frame(number: int, **more) -> dict:
    return {"file_path": f"images/r_{number}.png", "transform_matrix": pose(30 * number), **more}


@pytest.fixture
def content(tmp_path) -> dict:
    """A good file of three frames, with its pictures on disk; tests break it."""
    for number in range(3):
        save_picture(tmp_path / f"images/r_{number}.png", number)
    head = {"fl_x": 10.0, "fl_y": 11.0, "cx": 6.0, "cy": 4.5, "w": WIDTH, "h": HEIGHT}
    return {**head, "frames": [frame(0, time=0.5), frame(1, time=0.25), frame(2)]}


# --- what is read ---


def test_one_file_is_all_train_sorted_by_time_with_none_first(tmp_path, content):
    capture = read_transforms(write(tmp_path, content))
    assert list(capture.frames.frame) == ["images/r_2", "images/r_1", "images/r_0"]
    assert capture.frames.time.tolist()[1:] == [0.25, 0.5] and math.isnan(capture.frames.time[0])
    assert capture.splits == ["train"] and capture.sources == ["capture"]
    assert capture.cameras.Ks[0].tolist() == [[10, 0, 6], [0, 11, 4.5], [0, 0, 1]]
    assert capture.cameras.sizes.tolist() == [[WIDTH, HEIGHT]] * 3
    assert torch.equal(capture.cameras.viewmats[2], orbit(1).viewmats[0])
    assert capture.frames.camera.nunique() == 3
    assert capture.root == tmp_path.resolve() and Path(capture.frames.image[0]).is_absolute()


def test_d_nerf_folders_without_extensions_and_with_an_angle(tmp_path):
    for split, times in (("train", [1.0, 0.0]), ("val", [0.5]), ("test", [0.25])):
        frames = []
        for number, time in enumerate(times):
            save_picture(tmp_path / f"{split}/r_{number:03d}.png", number, "RGBA")
            file_path = f"./{split}/r_{number:03d}"
            frames.append({"file_path": file_path, "rotation": 0.1, "time": time, "transform_matrix": pose(number)})
        write(tmp_path, {"camera_angle_x": math.pi / 2, "frames": frames}, f"transforms_{split}.json")
    capture = read_transforms(tmp_path)
    assert list(capture.frames.frame) == ["train/r_001", "train/r_000", "val/r_000", "test/r_000"]
    assert capture.splits == ["train", "val", "test"]
    assert capture.cameras.Ks[0].flatten().tolist() == pytest.approx([6, 0, 6, 0, 6, 4, 0, 0, 1])
    assert capture.has_alpha
    assert read_transforms(tmp_path, splits=["val"]).splits == ["val"]
    assert read_transforms(tmp_path / "transforms_test.json").splits == ["test"]
    assert len(read_transforms(tmp_path, splits="train")) == 2


def test_a_file_without_any_time_is_static(tmp_path, content):
    for entry in content["frames"]:
        entry.pop("time", None)
    content["frames"][0]["time"] = None
    capture = read_transforms(write(tmp_path, content))
    assert capture.frames.time.isna().all() and capture.cameras.times.isnan().all()
    assert list(capture.frames.frame) == ["images/r_0", "images/r_1", "images/r_2"]


def test_a_frame_s_own_intrinsics_go_before_the_file_s(tmp_path, content):
    save_picture(tmp_path / "images/r_1.png", size=(20, 10))
    content["frames"][1] |= {"fl_x": 7, "fl_y": 8.0, "cx": 9.5, "cy": 5, "w": 20.0, "h": 10}
    capture = read_transforms(write(tmp_path, content))
    row = capture.frames.index[capture.frames.frame == "images/r_1"][0]
    assert capture.cameras.Ks[row].tolist() == [[7, 0, 9.5], [0, 8, 5], [0, 0, 1]]
    assert capture.cameras.sizes[row].tolist() == [20, 10]
    assert capture.cameras.sizes[0].tolist() == [WIDTH, HEIGHT]


def test_extensions_are_found_and_dots_in_names_are_no_extension(tmp_path, content):
    names = ["a.0", "b", "c"]
    for name, extension in zip(names, ("jpg", "jpeg", "webp"), strict=True):
        save_picture(tmp_path / f"images/{name}.{extension}")
    for entry, name in zip(content["frames"], names, strict=True):
        entry["file_path"] = f"./images/{name}"
    capture = read_transforms(write(tmp_path, content))
    assert sorted(capture.frames.frame) == ["images/a.0", "images/b", "images/c"]
    assert sorted(Path(p).suffix for p in capture.frames.image) == [".jpeg", ".jpg", ".webp"]


def test_a_mask_becomes_the_alpha(tmp_path, content):
    save_picture(tmp_path / "masks/r_0.png", 7, "L")
    content["frames"][0]["mask_path"] = "masks/r_0.png"
    capture = read_transforms(write(tmp_path, content)).select(where=lambda frames: frames["mask"] != "")
    assert len(capture) == 1 and capture.has_alpha
    _, alpha = capture.pictures()
    assert np.array_equal(alpha[0].numpy(), np.asarray(Image.open(tmp_path / "masks/r_0.png")))


def test_cameras_are_named_or_told_apart_by_pose_and_intrinsics(tmp_path, content):
    content["frames"][1]["transform_matrix"] = pose(0)  # as frame 0
    content["frames"][2] |= {"transform_matrix": pose(0), "fl_x": 30}
    capture = read_transforms(write(tmp_path, content))
    by_name = dict(zip(capture.frames.frame, capture.frames.camera, strict=True))
    assert by_name["images/r_0"] == by_name["images/r_1"] != by_name["images/r_2"]
    content["frames"][0]["camera"] = "cam000"
    content["frames"][1]["camera"] = 3
    content["frames"][2]["source"] = "clip"
    capture = read_transforms(write(tmp_path, content))
    by_name = dict(zip(capture.frames.frame, capture.frames.camera, strict=True))
    assert by_name == {"images/r_0": "cam000", "images/r_1": "3", "images/r_2": "cam001"}
    assert capture.sources == ["capture", "clip"]


def test_nerfstudio_s_split_lists_and_unknown_keys(tmp_path, content):
    content |= {"test_filenames": ["images/r_1.png"], "train_filenames": ["./images/r_0.png", "images/r_2.png"]}
    content |= {"applied_transform": [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]], "aabb_scale": 16, "ply_file": "a.ply"}
    content |= {"camera_model": "OPENCV", "k1": 0, "k2": 0.0, "p1": 0, "p2": 0}
    content["frames"][0] |= {"colmap_im_id": 4, "sharpness": 12.5}
    capture = read_transforms(write(tmp_path, content))
    assert capture.select(split="test").frames.frame.tolist() == ["images/r_1"]
    assert torch.equal(capture.select(rows=capture.frames.frame == "images/r_0").cameras.viewmats, orbit(1).viewmats)


def test_one_picture_in_two_splits_is_two_frames(tmp_path, content):
    write(tmp_path, content, "transforms_train.json")
    write(tmp_path, content | {"frames": content["frames"][:1]}, "transforms_test.json")
    names = set(read_transforms(tmp_path).frames.frame)
    assert names == {"train/images/r_0", "images/r_1", "images/r_2", "test/images/r_0"}


@pytest.mark.parametrize(("folder", "counts"), [("moving_books", (75, 11)), ("four_cameras", (300, 100))])
def test_real_captures_load(folder, counts):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"the real capture {folder} is not beside this repository")
    capture = load_capture(SHARED / folder)
    assert tuple(len(capture.select(split=split)) for split in ("train", "test")) == counts
    assert (capture.frames.groupby("split", sort=False).time.is_monotonic_increasing).all()
    assert capture.frames.camera.nunique() == (86 if folder == "moving_books" else 4)
    small = capture.scaled(0.25).select(rows=slice(0, 4))
    rgb, alpha = small.pictures()
    assert alpha is None and tuple(rgb.shape) == (4, small.cameras.height, small.cameras.width, 3)
    assert 20 < rgb.float().mean() < 235


# --- what is refused ---


def set_frame(**values):
    def change(content):
        content["frames"][1].update(values)

    return change


def set_head(**values):
    return lambda content: content.update(values)


def set_pose(row, column, value):
    def change(content):
        content["frames"][1]["transform_matrix"][row][column] = value

    return change


def drop(key):
    return lambda content: content["frames"][1].pop(key, None) or content.pop(key, None)


def scale_pose(factor):
    def change(content):
        matrix = np.array(content["frames"][1]["transform_matrix"])
        matrix[:3, :3] *= factor
        content["frames"][1]["transform_matrix"] = matrix.tolist()

    return change


IN_FRAME = [
    # change, key, words of the message, words of the remedy
    (set_frame(file_path="images/gone.png"), "file_path", "no file", "restore"),
    (set_frame(file_path="images/gone"), "file_path", r"tried gone\.png, gone\.jpg, gone\.jpeg, gone\.webp", "restore"),
    (set_frame(file_path="../images/r_1.png"), "file_path", "leaves the capture's folder", "move"),
    (set_frame(file_path="images/../../r_1.png"), "file_path", "leaves the capture's folder", "move"),
    (set_frame(file_path="..\\r_1.png"), "file_path", "leaves the capture's folder", "move"),
    (set_frame(file_path="/etc/hostname"), "file_path", "leaves the capture's folder", "move"),
    (set_frame(file_path="images/\0.png"), "file_path", "not a usable path", "move"),
    (set_frame(file_path=17), "file_path", "17, must be a string", "quotes"),
    (set_frame(file_path=""), "file_path", "must be a string", "quotes"),
    (drop("file_path"), "file_path", "missing", "picture"),
    (set_frame(file_path="images"), "file_path", "no file", "restore"),
    (set_frame(mask_path="../mask.png"), "mask_path", "leaves the capture's folder", "move"),
    (set_frame(mask_path="images/none.png"), "mask_path", "no file", "restore"),
    (set_frame(mask_path="small.png"), "mask_path", "mask is 3x2, its picture 12x8", "size"),
    (set_frame(file_path="small.png"), "w", "is 12, but the picture .* is 3x2", "correct"),
    (set_head(h=9), "h", "is 9, but the picture .* is 12x8", "correct"),
    (set_frame(w="12"), "w", "'12', must be a number", "quotes"),
    (set_frame(w=12.5), "w", "12.5, must be a whole number", "size"),
    (set_frame(file_path="broken.png"), "file_path", "cannot be read as a picture", "export"),
    (set_frame(file_path="deep.png"), "file_path", "pixel type", "8 bits"),
    (set_pose(0, 3, float("nan")), "transform_matrix", "nan, must be finite", "solve"),
    (set_pose(1, 1, float("inf")), "transform_matrix", "inf, must be finite", "solve"),
    (set_pose(1, 1, 10**400), "transform_matrix", "must be finite", "solve"),
    (set_pose(1, 1, "1"), "transform_matrix", "holds '1'", "4x4"),
    (set_pose(1, 1, True), "transform_matrix", "holds True", "4x4"),
    (set_pose(0, 0, 0.5), "transform_matrix", "not a rotation", "solve"),
    (set_pose(3, 3, 2), "transform_matrix", "last row", "solve"),
    (scale_pose(1.01), "transform_matrix", "scale of 1.01", "scale"),
    (scale_pose(-1), "transform_matrix", "mirrors", "solve"),
    (set_frame(transform_matrix=np.eye(3).tolist()), "transform_matrix", "rows of four", "4x4"),
    (set_frame(transform_matrix=np.eye(4)[:2].tolist()), "transform_matrix", "has 2 rows", "4x4"),
    (set_frame(transform_matrix="eye"), "transform_matrix", "rows of four", "4x4"),
    (drop("transform_matrix"), "transform_matrix", "missing", "4x4"),
    (set_frame(time=1.5), "time", r"is 1.5, must be in \[0, 1\]", "normalise"),
    (set_frame(time=-0.1), "time", r"is -0.1, must be in \[0, 1\]", "normalise"),
    (set_frame(time=float("nan")), "time", "must be finite", ""),
    (set_frame(time="0.5"), "time", "'0.5', must be a number", "quotes"),
    (set_frame(time=True), "time", "True, must be a number", "quotes"),
    (set_frame(time=[0.5]), "time", "must be a number", "quotes"),
    (set_frame(source=3), "source", "must be a string", "quotes"),
    (set_frame(camera=1.5), "camera", "must be a string", "quotes"),
    (set_frame(camera=True), "camera", "must be a string", "quotes"),
    (set_frame(fl_x=0), "fl_x", "is 0, must be positive", "pixels"),
    (set_frame(fl_y=-5), "fl_y", "is -5, must be positive", "pixels"),
    (set_frame(fl_x="10"), "fl_x", "must be a number", "quotes"),
    (set_frame(cx={}), "cx", "must be a number", "quotes"),
    (set_frame(k1=0.02), "k1", "distorted", "undistort"),
    (set_head(p2=-1e-3), "p2", "distorted", "undistort"),
    (set_head(k3="none"), "k3", "must be a number", "quotes"),
    (set_head(camera_model="OPENCV_FISHEYE"), "camera_model", "only pinhole", "undistort"),
    (set_head(is_fisheye=True), "camera_model", "only pinhole", "undistort"),
]


@pytest.mark.parametrize(("change", "key", "words", "remedy"), IN_FRAME)
def test_a_bad_frame_is_one_error_with_file_frame_field_and_remedy(tmp_path, content, change, key, words, remedy):
    save_picture(tmp_path / "small.png", size=(3, 2))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n but no more")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(tmp_path / "deep.png")
    change(content)
    file = write(tmp_path, content) / "transforms.json"
    with pytest.raises(InputError, match=words) as caught:
        read_transforms(tmp_path)
    error = caught.value
    assert error.file == file and str(file) in str(error)
    # Whatever the file's head says wrongly is met in its first frame.
    assert error.field.startswith(("frame 0", "frame 1")) and error.field.endswith(f": {key}")
    assert remedy in error.remedy and str(error).endswith(f"({error.remedy})")


IN_FILE = [
    (lambda c: c.update(frames=[]), "frames", "split 'train' has no frames"),
    (lambda c: c.update(frames={"a": 1}), "frames", "must be a list"),
    (lambda c: c.update(frames=["a"]), "frames", "must be a list"),
    (lambda c: c.pop("frames"), "frames", "must be a list"),
    (lambda c: c["frames"].append(c["frames"][1]), "file_path", "that of frame 1 too"),
    (lambda c: [f.update(frame_id="x") for f in c["frames"]], "frame_id", "'x' is that of frame 0 too"),
    (lambda c: c.update(test_filenames="r_1"), "test_filenames", "must be a list of strings"),
    (lambda c: (c.pop("fl_x"), c.pop("fl_y")), "fl_x", "missing"),
    (lambda c: (c.pop("fl_x"), c.pop("fl_y"), c.update(camera_angle_x=4)), "camera_angle_x", "between 0 and pi"),
]


@pytest.mark.parametrize(("change", "key", "words"), IN_FILE)
def test_a_bad_file_is_one_error(tmp_path, content, change, key, words):
    change(content)
    with pytest.raises(InputError, match=words) as caught:
        read_transforms(write(tmp_path, content))
    assert caught.value.file == tmp_path / "transforms.json"
    assert caught.value.field.endswith(key) and caught.value.remedy


def test_invalid_json_and_missing_files(tmp_path):
    with pytest.raises(InputError, match="holds no transforms file.*transforms_{train,val,test}.json"):
        read_transforms(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        read_transforms(tmp_path / "nowhere")
    for text in (b'{"frames": [', b"[]", b"\xff\xfe\x00bad", b"[" * 100_000):
        (tmp_path / "transforms.json").write_bytes(text)
        with pytest.raises(InputError) as caught:
            read_transforms(tmp_path)
        assert caught.value.file == tmp_path / "transforms.json" and caught.value.remedy


def test_a_split_that_is_empty_is_named_with_what_there_is(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(InputError, match="split 'val' has no frames, there are train.*transforms_val.json"):
        read_transforms(tmp_path, splits=["train", "val"])
    with pytest.raises(InputError, match="must be one of train, val, test"):
        read_transforms(tmp_path, splits=["validation"])
    with pytest.raises(InputError, match="no frame with split 'test'.*there are 3 of split 'train'"):
        read_transforms(tmp_path).select(split="test")


def test_a_link_out_of_the_folder_is_refused(tmp_path, content):
    folder = tmp_path / "capture"
    for number in range(3):
        save_picture(folder / f"images/r_{number}.png")
    (folder / "images/r_1.png").unlink()
    os.symlink(tmp_path / "images/r_1.png", folder / "images/r_1.png")
    with pytest.raises(InputError, match="leaves the capture's folder"):
        read_transforms(write(folder, content))
    content["frames"][1]["file_path"] = "images/r_1"
    with pytest.raises(InputError, match="link that leaves the capture's folder"):
        read_transforms(write(folder, content))
    (folder / "images/r_1.png").unlink()
    os.symlink("r_0.png", folder / "images/r_1.png")  # a link inside is a file like any other
    assert len(read_transforms(write(folder, content))) == 3


# --- writing ---


def small_capture(folder: Path, memory: bool = False, mixed: bool = False) -> Capture:
    """Seven frames in three splits and three sources, with times and without, of every kind of picture."""
    rng = np.random.default_rng(5)
    sizes = [(WIDTH, HEIGHT)] * 6 + [(5, 9) if mixed else (WIDTH, HEIGHT)]
    cameras = Cameras.look_at(
        rng.normal(size=(7, 3)) * 3, fov_x_deg=40, width=WIDTH, height=HEIGHT, times=[0, 0.1, 1 / 3, 1] + [np.nan] * 3
    ).resized(torch.tensor(sizes)[:, 0], torch.tensor(sizes)[:, 1])
    table = []
    for index, size in enumerate(sizes):
        image = folder / f"raw/p{index}.{'jpg' if index == 1 else 'png'}"
        save_picture(image, index, "RGBA" if index % 2 == 0 else "RGB", size)
        mask = folder / f"raw/m{index}.png" if index == 3 else ""
        if mask:
            save_picture(mask, 50, "L", size)
        table.append((f"some/frame {index}", f"c{index % 3}", image, mask, *size))
    frames = pd.DataFrame(table, columns=["frame", "camera", "image", "mask", "width", "height"])
    frames = frames.astype({"image": str, "mask": str}).assign(
        time=[0, 0.1, 1 / 3, 1] + [np.nan] * 3,
        split=["train"] * 3 + ["val"] + ["test"] * 3,
        source=["a", "b", "b", "a", "a", "b", "c"],
    )
    capture = Capture(folder, frames, cameras)
    if memory:
        rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        alpha = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        capture = capture.with_pictures({0: (rgb, alpha), 3: (rgb[::-1], None)})
    return capture


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_writing_and_reading_gives_the_capture_back(tmp_path, memory, mixed):
    before = small_capture(tmp_path, memory, mixed)
    assert write_transforms(before, tmp_path / "out") == tmp_path / "out"
    after = read_transforms(tmp_path / "out")
    order = [after.frames.frame.tolist().index(name) for name in before.frames.frame]
    after = after.select(rows=order)
    columns = ["frame", "camera", "time", "source", "split", "width", "height"]
    pd.testing.assert_frame_equal(after.frames[columns], before.frames[columns], check_dtype=False)
    assert torch.equal(after.cameras.viewmats, before.cameras.viewmats)
    assert torch.equal(after.cameras.Ks, before.cameras.Ks)
    assert torch.equal(after.cameras.times.nan_to_num(-1), before.cameras.times.nan_to_num(-1))
    for row in range(len(before)):
        assert np.array_equal(after.image(row), before.image(row))
        assert np.array_equal(after.alpha(row), before.alpha(row))
        if before.frames.frame[row] not in before.memory:
            assert Path(after.frames.image[row]).read_bytes() == Path(before.frames.image[row]).read_bytes()
    if not memory:
        assert after.digest() == before.digest()
    # And once more: a capture that was read is written as it was.
    write_transforms(read_transforms(tmp_path / "out"), tmp_path / "again")
    for name in ("transforms_train.json", "transforms_test.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "again" / name).read_text()


def test_what_is_written_is_what_the_field_reads(tmp_path):
    write_transforms(small_capture(tmp_path).select(split=["train", "test"]), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "transforms_test.json",
        "transforms_train.json",
    ]
    train, test = (json.loads((tmp_path / f"out/transforms_{s}.json").read_text()) for s in ("train", "test"))
    assert math.tan(train["camera_angle_x"] / 2) == pytest.approx(math.tan(math.radians(20)))
    assert train["w"] == WIDTH and "fl_x" not in train["frames"][0]
    assert [frame["time"] for frame in train["frames"]] == [0, 0.1, 1 / 3]
    assert [frame["time"] for frame in test["frames"]] == [None] * 3
    assert test["frames"][0]["source"] == "a" and test["frames"][0]["camera"] == "c1"
    write_transforms(small_capture(tmp_path, mixed=True), tmp_path / "mixed")
    mixed = json.loads((tmp_path / "mixed/transforms_test.json").read_text())
    assert mixed["frames"][-1]["w"] == 5 and "fl_x" not in mixed


def test_a_resized_capture_is_written_at_its_new_size(tmp_path):
    small = small_capture(tmp_path).scaled(0.5)
    write_transforms(small, tmp_path / "out")
    again = read_transforms(tmp_path / "out")
    assert (again.cameras.width, again.cameras.height) == (WIDTH // 2, HEIGHT // 2)
    assert np.array_equal(again.image(0), small.image(0))
    assert torch.equal(again.cameras.Ks, small.cameras.Ks)


def test_pictures_already_in_place_are_kept(tmp_path):
    capture = small_capture(tmp_path)
    write_transforms(capture, tmp_path, pictures="keep")
    again = read_transforms(tmp_path)
    assert sorted(again.frames.image) == sorted(capture.frames.image)
    assert read_transforms(tmp_path, splits="train").digest() == capture.select(split="train").digest()
    for bad in (small_capture(tmp_path, memory=True), capture.scaled(0.5)):
        with pytest.raises(InputError, match="copy"):
            write_transforms(bad, tmp_path, pictures="keep")
    with pytest.raises(InputError, match="does not lie in it"):
        write_transforms(capture, tmp_path / "elsewhere", pictures="keep")


def test_names_that_file_systems_refuse_are_written_all_the_same(tmp_path):
    capture = small_capture(tmp_path)
    names = ["../../up", "a:b?*", "A", "a", "x/../y", "..", "ä ö/ü"]
    capture = capture.with_frames(capture.frames.assign(frame=names))
    write_transforms(capture, tmp_path / "out")
    again = read_transforms(tmp_path / "out")
    assert sorted(again.frames.frame) == sorted(names)
    assert all(Path(path).resolve().is_relative_to((tmp_path / "out").resolve()) for path in again.frames.image)
    assert not (tmp_path / "up.png").exists()


def test_a_folder_is_never_replaced_unasked(tmp_path):
    capture, target = small_capture(tmp_path), tmp_path / "out"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty"):
            write_transforms(capture, target, overwrite=overwrite)
    assert (target / "thesis.tex").read_text() == "years of work"
    (target / "thesis.tex").unlink()
    write_transforms(capture.select(split="train"), target)
    with pytest.raises(InputError, match="overwrite=True"):
        write_transforms(capture, target)
    write_transforms(capture.select(split="test"), target, overwrite=True)
    assert read_transforms(target).splits == ["test"]


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    capture, home = small_capture(tmp_path), tmp_path / "home"
    Path(capture.frames.image[2]).unlink()
    with pytest.raises(InputError, match="missing"):
        write_transforms(capture, home / "out")
    assert list(home.iterdir()) == []

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write_transforms(capture.select(rows=[0]), home / "out")
    assert list(home.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_transforms(capture, tmp_path / "file" / "out")
