"""A capture that is written is the capture that is read again; folders are written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from captures import HEIGHT, WIDTH, save_picture

from fourdgs.cameras import Cameras
from fourdgs.capture import Capture
from fourdgs.data.transforms import read_transforms, write_transforms
from fourdgs.errors import InputError, OutputError
from fourdgs.lens import Lens


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


def test_weights_survive_and_ones_are_not_written(tmp_path):
    capture = small_capture(tmp_path)
    assert '"weight"' not in (write_transforms(capture, tmp_path / "plain") / "transforms_train.json").read_text()
    capture = capture.with_frames(capture.frames.assign(weight=[1.0, 2.5, 1, 0.125, 1, 1, 1]))
    again = read_transforms(write_transforms(capture, tmp_path / "out"))
    before = dict(zip(capture.frames.frame, capture.frames.weight, strict=True))
    assert dict(zip(again.frames.frame, again.frames.weight, strict=True)) == before
    assert (tmp_path / "out/transforms_train.json").read_text().count('"weight"') == 1
    assert again.digest() == capture.digest()


def test_undistorted_pictures_are_written_undistorted(tmp_path):
    lens = Lens.of("OPENCV", (-0.2, 0.05), (11, 11, WIDTH / 2, HEIGHT / 2), (WIDTH, HEIGHT))
    capture = small_capture(tmp_path)
    capture = capture.with_frames(capture.frames.assign(distortion=[lens.text()] + [""] * 6))
    with pytest.raises(InputError, match="undistorted"):
        write_transforms(capture, tmp_path, pictures="keep")
    again = read_transforms(write_transforms(capture, tmp_path / "out"))
    assert "distortion" not in again.frames
    first = again.frames.frame.tolist().index(capture.frames.frame[0])
    assert np.array_equal(again.image(first), capture.image(0)) and np.array_equal(again.alpha(first), capture.alpha(0))
    assert not np.array_equal(capture.image(0), small_capture(tmp_path).image(0))
