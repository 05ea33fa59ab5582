"""transforms.json: what the field's files look like is read; what is wrong with one is said in one error."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import HEIGHT, WIDTH, frame, good_content, pose, save_picture, write
from PIL import Image

from fourdgs.cameras import orbit
from fourdgs.capture import merge
from fourdgs.data.load import load_capture
from fourdgs.data.transforms import read_transforms, write_transforms
from fourdgs.drive import DriveTrack
from fourdgs.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def content(tmp_path) -> dict:
    return good_content(tmp_path)


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
    for name, extension in zip(names, ("jpg", "jpeg", "PNG"), strict=True):
        save_picture(tmp_path / f"images/{name}.{extension}")
    for entry, name in zip(content["frames"], names, strict=True):
        entry["file_path"] = f"./images/{name}"
    capture = read_transforms(write(tmp_path, content))
    assert sorted(capture.frames.frame) == ["images/a.0", "images/b", "images/c"]
    assert sorted(Path(p).suffix for p in capture.frames.image) == [".PNG", ".jpeg", ".jpg"]


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


def test_a_picture_in_two_lists_is_two_frames_and_one_in_none_is_left_out_with_a_word(tmp_path, content):
    lists = {
        "train_filenames": ["images/r_0"],
        "val_filenames": ["images/r_1.png"],
        "test_filenames": ["images/r_1.png"],
    }
    with pytest.warns(UserWarning, match="1 frame is in none of the lists train_filenames, val_filenames"):
        capture = read_transforms(write(tmp_path, content | lists))
    assert capture.frames.frame.tolist() == ["images/r_0", "val/images/r_1", "test/images/r_1"]
    assert capture.splits == ["train", "val", "test"]
    # Without a list of what is for training, that is what is left.
    capture = read_transforms(write(tmp_path, content | {"test_filenames": ["images\\r_1.png"]}))
    assert len(capture.select(split="train")) == 2 and len(capture.select(split="test")) == 1
    with pytest.raises(InputError, match="names 'images/gone', which is the file_path of no frame") as caught:
        read_transforms(write(tmp_path, content | {"test_filenames": ["images/gone.png"]}))
    assert caught.value.field == "test_filenames"


def test_weights_are_a_column_where_any_frame_has_one(tmp_path, content):
    assert "weight" not in read_transforms(write(tmp_path, content)).frames
    content["frames"][0]["weight"] = 2.5
    capture = read_transforms(write(tmp_path, content))
    assert dict(zip(capture.frames.frame, capture.frames.weight, strict=True)) == {
        "images/r_0": 2.5,
        "images/r_1": 1,
        "images/r_2": 1,
    }


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
    (set_head(k3="none"), "k3", "must be a number", "quotes"),
    (set_head(k1=1e300), "distortion", "no undistorted picture", "coefficients"),
    (set_head(k1=-1e9, is_fisheye=True), "distortion", "no undistorted picture", "coefficients"),
    (set_head(k4=0.1), "k4", "is 0.1, but the camera model OPENCV has k1, k2, p1, p2, k3 only", "FULL_OPENCV"),
    (set_head(camera_model="PINHOLE", k1=0.1), "k1", "PINHOLE has no distortion", "OPENCV"),
    (set_head(is_fisheye=True, p1=0.1), "p1", "OPENCV_FISHEYE has k1, k2, k3, k4 only", "OPENCV"),
    (set_head(camera_model="EQUIRECTANGULAR"), "camera_model", "is EQUIRECTANGULAR, read are", "undistort"),
    (set_frame(weight=0), "weight", "is 0, must be positive", "remove"),
    (set_frame(weight="2"), "weight", "must be a number", "quotes"),
    (set_frame(file_path="huge.png"), "file_path", "at most 67,108,864 pixels", "scale"),
    (set_frame(fl_x=1e300), "fl_x", "focal length of 1e", "pixels"),
    (set_frame(fl_x=0.035), "fl_x", "focal length of 0.035 pixels", "millimetres"),
    (set_frame(cx=1e9), "cx", "is 1e", "pixels"),
    (set_pose(0, 3, 1e30), "transform_matrix", "away from the origin", "scale"),
    (set_frame(source="\ud800"), "source", "is no text", "UTF-8"),
    (set_frame(file_path=[[[[[[[["deep"]]]]]]]]), "file_path", "must be a string", "quotes"),
]


# The header of a PNG of 9,000 x 9,000 pixels: a quarter of a gigabyte, if one believed it.
HUGE = bytes.fromhex("89504e470d0a1a0a0000000d4948445200002328000023280802000000e2b7e5ed") + b"\0\0\0\x64IDAT"


@pytest.mark.parametrize(("change", "key", "words", "remedy"), IN_FRAME)
def test_a_bad_frame_is_one_error_with_file_frame_field_and_remedy(tmp_path, content, change, key, words, remedy):
    save_picture(tmp_path / "small.png", size=(3, 2))
    (tmp_path / "huge.png").write_bytes(HUGE)
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
    digits = b'{"frames": [{"time": ' + b"9" * 10_000 + b"}]}"
    for text in (b'{"frames": [', b"[]", b"\xff\xfe\x00bad", b"[" * 100_000, digits):
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


# --- what drives the frames ---


def driven(capture) -> dict:
    """The values by frame, None where a frame says nothing."""
    table = capture.drive
    return {
        name: None if row.isna().any() else row.to_dict()
        for name, (_, row) in zip(capture.frames.frame, table.iterrows(), strict=True)
    }


def test_a_frame_s_drive_is_columns_that_survive_select_and_merge(tmp_path, content):
    assert read_transforms(write(tmp_path, content)).drive is None
    content["frames"][0]["drive"] = {"JawOpen": 0.25, "headYaw": -3}
    content["frames"][2]["drive"] = {"flame.expr000": 1.5}
    capture = read_transforms(write(tmp_path, content))
    expected = {
        "images/r_0": {"jawOpen": 0.25, "headYaw": -3, "flame.expr000": 0},
        "images/r_1": None,
        "images/r_2": {"jawOpen": 0, "headYaw": 0, "flame.expr000": 1.5},
    }
    assert driven(capture) == expected
    assert "drive.jawOpen" in capture.frames.columns and capture.frames.frame[0] == "images/r_2"
    one = capture.select(where=lambda frames: frames.frame == "images/r_0")
    assert driven(one) == {"images/r_0": expected["images/r_0"]}
    (tmp_path / "other").mkdir()
    more = good_content(tmp_path / "other")
    more["frames"] = [more["frames"][0] | {"frame_id": "new", "drive": {"cheekPuff": 1}}]
    both = driven(merge([capture, read_transforms(write(tmp_path / "other", more))]))
    assert both["new"] == {"jawOpen": 0, "headYaw": 0, "flame.expr000": 0, "cheekPuff": 1}
    assert both["images/r_1"] is None and both["images/r_0"] == expected["images/r_0"] | {"cheekPuff": 0}


@pytest.mark.parametrize("span", [None, [0.5, 1.5]])
def test_a_track_drives_the_frames_that_have_a_time(tmp_path, content, span):
    track = DriveTrack([0, 0.5, 2.0], ("jawOpen", "headYaw"), [[0, 0], [1, 8], [0, -8]])
    track.save(tmp_path / "track.csv")
    content |= {"drive_file": "track.csv"} | ({} if span is None else {"drive_span_s": span})
    content["frames"].append(frame(3, time=1, drive={"jawOpen": 0.9}))
    save_picture(tmp_path / "images/r_3.png", 3)
    start, end = span or (0, 2)
    got = driven(read_transforms(write(tmp_path, content)))
    for name, time in (("images/r_0", 0.5), ("images/r_1", 0.25)):
        expected = dict(zip(track.controls, track.at(start + (end - start) * time)[0], strict=True))
        assert got[name] == pytest.approx(expected)
    assert got["images/r_2"] is None and got["images/r_3"] == {"jawOpen": 0.9, "headYaw": 0}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "frame 1 .*: drive: is 0.5, must be an object"),
        ({"jawOpen": "wide"}, "frame 1 .*: drive.jawOpen: is 'wide', must be a number"),
        ({"jawOpen": None}, "frame 1 .*: drive.jawOpen: is null"),
        ({"jawOpen": True}, "frame 1 .*: drive.jawOpen: is True"),
        ({"jawOpen": math.inf}, "frame 1 .*: drive.jawOpen: is inf, must be finite"),
        ({"jawOpen": 1, "JawOpen": 1}, "frame 1 .*: drive: names 'jawOpen' more than once"),
        ({" ": 1}, "frame 1 .*: drive: has the name"),
        ({f"c{index}": 0 for index in range(2000)}, "drive: has 2,000 controls, at most 1,024"),
    ],
)
def test_a_bad_drive_names_the_frame(tmp_path, content, value, words):
    content["frames"][1]["drive"] = value
    with pytest.raises(InputError, match=words) as told:
        read_transforms(write(tmp_path, content))
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"drive_file": "none.csv"}, "the file: drive_file: no file"),
        ({"drive_file": "../track.csv"}, "drive_file: .*leaves the capture's folder"),
        ({"drive_file": 3}, "drive_file: is 3, must be a string"),
        ({"drive_file": "bad.csv"}, "bad.csv: line 2: jawOpen: is 'x'"),
        ({"drive_file": "track.csv", "drive_span_s": [1, 1]}, "drive_span_s: .*two rising numbers"),
        ({"drive_file": "track.csv", "drive_span_s": [0, 3]}, "drive_span_s: .*goes from 0 to 2 s"),
        ({"drive_file": "track.csv", "drive_span_s": "all"}, "drive_span_s: is 'all', must be 2 numbers"),
    ],
)
def test_a_bad_track_is_one_error(tmp_path, content, head, words):
    DriveTrack([0, 2.0], ("jawOpen",), [[0], [1]]).save(tmp_path / "track.csv")
    (tmp_path / "bad.csv").write_text("time_s,jawOpen\n0,x\n")
    with pytest.raises(InputError, match=words):
        read_transforms(write(tmp_path, content | head))


def test_what_drives_the_frames_survives_the_round_trip_and_is_content(tmp_path, content):
    plain = read_transforms(write(tmp_path, content)).digest()
    DriveTrack([0, 2.0], ("jawOpen", "headYaw"), [[0.1, -7], [1 / 3, 20]]).save(tmp_path / "track.csv")
    content["drive_file"] = "track.csv"
    capture = read_transforms(write(tmp_path, content))
    back = read_transforms(write_transforms(capture, tmp_path / "again"))
    assert driven(back) == driven(capture) and driven(back)["images/r_2"] is None
    assert back.digest() == capture.digest() != plain
    content["frames"][2]["drive"] = {"jawOpen": 0.5}
    assert read_transforms(write(tmp_path, content)).digest() != capture.digest()
