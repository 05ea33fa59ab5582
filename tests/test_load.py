"""load_capture finds out what a folder holds, and says what it looked for where it holds nothing."""

from __future__ import annotations

import json
import shutil

import pytest
from captures import good_content, save_picture, write

from fourdgs.data.load import load_capture
from fourdgs.errors import InputError


def test_nothing_recognised_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError) as caught:
        load_capture(tmp_path)
    words = str(caught.value)
    for name in ("transforms.json", "transforms_{train,val,test}.json", "cameras.json", "COLMAP", "sparse/0", "calib*"):
        assert name in words
    assert caught.value.file == tmp_path and caught.value.remedy
    with pytest.raises(InputError, match="is not there"):
        load_capture(tmp_path / "nowhere")
    (tmp_path / "clip.mp4").write_bytes(b"0")
    with pytest.raises(InputError, match="is a video.*video_capture"):
        load_capture(tmp_path / "clip.mp4")


def test_transforms_go_before_all_else(tmp_path):
    write(tmp_path, good_content(tmp_path))
    expected = load_capture(tmp_path).digest()
    (tmp_path / "cameras.json").write_text("[]")
    (tmp_path / "Calib.toml").write_text("")
    (tmp_path / "colmap/sparse/0").mkdir(parents=True)
    for name in ("cameras", "images"):
        (tmp_path / f"colmap/sparse/0/{name}.bin").write_bytes(b"")
    assert load_capture(tmp_path).digest() == expected
    assert load_capture(tmp_path / "transforms.json").digest() == expected
    (tmp_path / "transforms.json").unlink()
    with pytest.raises(InputError, match="cameras.json"):
        load_capture(tmp_path)
    (tmp_path / "cameras.json").unlink()
    with pytest.raises(InputError, match="cameras.bin"):
        load_capture(tmp_path)
    shutil.rmtree(tmp_path / "colmap")
    with pytest.raises(InputError, match="Calib.toml"):
        load_capture(tmp_path)


def test_test_every_on_a_file_without_splits(tmp_path):
    content = good_content(tmp_path)
    capture = load_capture(write(tmp_path, content), test_every=2, scale=0.5)
    assert capture.select(split="test").frames.frame.tolist() == ["images/r_2", "images/r_0"]
    assert capture.frames.split.tolist() == ["train", "test", "test"] and capture.cameras.width == 6
    write(tmp_path, content | {"test_filenames": ["images/r_1.png"]})
    with pytest.raises(InputError, match="says itself which frames are test"):
        load_capture(tmp_path, test_every=2)


def test_options_that_make_no_sense(tmp_path):
    write(tmp_path, good_content(tmp_path))
    with pytest.raises(InputError, match="must be one of error, skip"):
        load_capture(tmp_path, missing="maybe")
    with pytest.raises(InputError, match="must be one of train, val, test"):
        load_capture(tmp_path, splits="holdout", test_every=2)


def test_a_calibration_file_may_be_named(tmp_path):
    for name in ("a", "b"):
        save_picture(tmp_path / f"{name}/0.png")
    camera = {"K": [[10, 0, 6], [0, 10, 4], [0, 0, 1]], "R": [0, 0, 0], "T": [0, 0, 1]}
    for file, cameras in (("calib_all.json", "ab"), ("calib_one.json", "b")):
        (tmp_path / file).write_text(json.dumps({name: camera for name in cameras}))
    with pytest.raises(InputError, match="holds 2 calibration files: calib_all.json, calib_one.json"):
        load_capture(tmp_path)
    assert len(load_capture(tmp_path / "calib_all.json")) == 2
    assert load_capture(tmp_path / "calib_one.json").frames.camera.tolist() == ["b"]
