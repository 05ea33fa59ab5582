"""instant-ngp's files: pictures that are not there are skipped, counted, and never silently."""

from __future__ import annotations

import warnings

import pytest
from captures import frame, good_content, write

from fourdgs.data.load import load_capture
from fourdgs.data.transforms import read_transforms
from fourdgs.errors import InputError


@pytest.fixture
def content(tmp_path) -> dict:
    """Three pictures that are there, four that are not."""
    content = good_content(tmp_path)
    content["frames"] += [frame(number) for number in range(3, 7)]
    return content


def test_missing_pictures_are_one_warning_with_the_count_and_the_first_names(tmp_path, content):
    write(tmp_path, content | {"aabb_scale": 16})
    with pytest.warns(UserWarning) as caught:
        capture = load_capture(tmp_path)
    assert len(capture) == 3 and len(caught) == 1
    words = str(caught[0].message)
    assert "4 pictures are missing and were skipped" in words
    assert "images/r_3" in words and "images/r_5" in words and "images/r_6" not in words


def test_one_warning_for_all_splits(tmp_path, content):
    for split in ("train", "test"):
        write(tmp_path, content, f"transforms_{split}.json")
    with pytest.warns(UserWarning, match="8 pictures are missing") as caught:
        capture = load_capture(tmp_path, missing="skip")
    assert len(caught) == 1 and len(capture) == 6


def test_other_files_and_other_wishes_raise(tmp_path, content):
    with pytest.raises(InputError, match="no file .*r_3.png"):
        load_capture(write(tmp_path, content))
    write(tmp_path, content | {"aabb_scale": 16})
    with pytest.raises(InputError, match="no file .*r_3.png"):
        load_capture(tmp_path, missing="error")
    for reader in (load_capture, read_transforms):
        with pytest.raises(InputError, match="must be one of error, skip"):
            reader(tmp_path, missing="ignore")


def test_nothing_left_is_an_error(tmp_path, content):
    content["frames"] = content["frames"][3:]
    with pytest.raises(InputError, match="all 4 pictures are missing; the first: .*r_3.png"):
        load_capture(write(tmp_path, content | {"aabb_scale": 1}))


def test_only_what_is_missing_is_skipped(tmp_path, content):
    content["aabb_scale"] = 4
    for bad, words in (("../out.png", "leaves the capture's folder"), (3, "must be a string")):
        content["frames"][3]["file_path"] = bad
        with pytest.raises(InputError, match=words):
            load_capture(write(tmp_path, content))
    content["frames"] = content["frames"][:3]
    content["frames"][1]["mask_path"] = "masks/gone.png"
    with pytest.raises(InputError, match="mask_path: no file"):
        load_capture(write(tmp_path, content))


def test_lists_of_names_may_name_what_was_skipped(tmp_path, content):
    content |= {"aabb_scale": 4, "test_filenames": ["images/r_3.png", "images/r_1.png"]}
    with pytest.warns(UserWarning, match="4 pictures"):
        capture = load_capture(write(tmp_path, content))
    assert capture.select(split="test").frames.frame.tolist() == ["images/r_1"]


def test_a_whole_file_is_read_without_a_word(tmp_path):
    content = good_content(tmp_path) | {"aabb_scale": 16, "scale": 0.33, "offset": [0.5, 0.5, 0.5]}
    for number, entry in enumerate(content["frames"]):
        entry["file_path"] = f"./images/r_{number}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_capture(write(tmp_path, content))) == 3
