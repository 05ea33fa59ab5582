"""Captures: selecting, resizing and overriding leave frames, cameras and pictures in step."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fourdgs.cameras import orbit
from fourdgs.capture import (
    Capture,
    merge,
    natural,
    sort_frames,
)
from fourdgs.data.load import load_capture
from fourdgs.data.transforms import write_transforms
from fourdgs.errors import InputError
from fourdgs.pictures import composite, read_picture, resize_picture

WIDTH, HEIGHT = 12, 8


def pixels(seed: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


def make(folder: Path, count: int = 6, channels: int = 4, **columns) -> Capture:
    """`count` frames from an orbit, the first half of source "still" without times, the rest "clip" with."""
    half = count // 2
    times = [np.nan] * half + np.linspace(0, 1, count - half).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(pixels(number, channels)).save(folder / f"p{number}.png")
    table = {
        "frame": [f"f{number}" for number in range(count)],
        "camera": [f"c{number}" for number in range(count)],
        "time": times,
        "source": ["still"] * half + ["clip"] * (count - half),
        "split": ["train"] * (count - 1) + ["test"],
        "image": [str(folder / f"p{number}.png") for number in range(count)],
        "mask": "",
        "width": WIDTH,
        "height": HEIGHT,
    }
    cameras = orbit(count, width=WIDTH, height=HEIGHT, times=times)
    return Capture(folder, pd.DataFrame({**table, **columns}), cameras)


@pytest.fixture
def capture(tmp_path) -> Capture:
    return make(tmp_path / "alpha")


def in_step(part: Capture, whole: Capture) -> bool:
    rows = [whole.frames.frame.tolist().index(name) for name in part.frames.frame]
    return torch.equal(part.cameras.viewmats, whole.cameras.viewmats[rows]) and all(
        np.array_equal(part.image(i), whole.image(row)) for i, row in enumerate(rows)
    )


# --- selecting and changing ---


def test_selections_keep_cameras_and_pictures_in_step(capture):
    for part, names in (
        (capture.select(split="test"), ["f5"]),
        (capture.select(source="still"), ["f0", "f1", "f2"]),
        (capture.select(split="train", source=["clip"]), ["f3", "f4"]),
        (capture.select(where=lambda frames: frames.time > 0.4), ["f4", "f5"]),
        (capture.select(rows=[4, 0]), ["f4", "f0"]),
        (capture.select(rows=[5, 4, 0], split="train"), ["f4", "f0"]),
        (capture.select(rows=np.arange(6) < 2), ["f0", "f1"]),
        (capture.select(rows=slice(None, None, 3)), ["f0", "f3"]),
        (capture.select(rows=torch.tensor([2])), ["f2"]),
        (capture.select(rows=capture.frames.time.isna()), ["f0", "f1", "f2"]),
        (capture.select(), [f"f{number}" for number in range(6)]),
    ):
        assert part.frames.frame.tolist() == names
        assert list(part.frames.index) == list(range(len(names))) and len(part) == len(names)
        assert in_step(part, capture)


def test_a_selection_of_nothing_is_an_error_that_says_what_there_is(capture):
    with pytest.raises(InputError, match="split 'val'.*3 of split 'train' source 'still'"):
        capture.select(split="val")
    with pytest.raises(InputError, match="source 'orbit'"):
        capture.select(source="orbit")
    with pytest.raises(InputError):
        capture.select(rows=[])
    with pytest.raises(InputError, match="6 frames"):
        capture.select(rows=[6])


def test_properties(capture, tmp_path):
    assert (capture.name, capture.sources, capture.splits) == ("alpha", ["clip", "still"], ["train", "test"])
    assert capture.has_alpha and not make(tmp_path / "rgb", channels=3).has_alpha
    assert "6 frames (train 5, test 1)" in repr(capture)


def test_times_change_in_table_and_cameras_alike(capture):
    timed = capture.with_times(np.linspace(0, 1, 6))
    assert timed.frames.time.tolist() == pytest.approx(timed.cameras.times.tolist())
    assert capture.with_times(None).frames.time.isna().all()
    assert capture.with_times(torch.full((6,), 0.5)).frames.time.eq(0.5).all()
    assert capture.frames.time.isna().sum() == 3, "the capture itself has not changed"
    with pytest.raises(InputError, match="times"):
        capture.with_times([2.0] * 6)


def test_with_split(capture):
    assert capture.with_split("val").splits == ["val"]
    assert capture.with_split(["train", "val", "test"] * 2).select(split="val").frames.frame.tolist() == ["f1", "f4"]
    with pytest.raises(InputError, match="'holdout', must be one of"):
        capture.with_split("holdout")


def test_frames_that_are_sorted_or_renamed_bring_their_cameras_and_pictures(capture):
    capture = capture.with_pictures({1: (pixels(77), None)})
    turned = capture.with_frames(capture.frames.iloc[::-1])
    assert turned.frames.frame.tolist() == ["f5", "f4", "f3", "f2", "f1", "f0"]
    assert in_step(turned, capture)
    renamed = capture.with_frames(capture.frames.assign(frame=list("uvwxyz")))
    assert np.array_equal(renamed.image(1), capture.image(1)) and "v" in renamed.memory
    fewer = capture.with_frames(capture.frames.iloc[[1, 3]].assign(time=[0.5, 0.25], note="kept"))
    assert fewer.cameras.times.tolist() == [0.5, 0.25] and fewer.frames.note.tolist() == ["kept"] * 2
    assert in_step(fewer, capture)


def test_changing_a_table_after_the_fact_changes_no_capture(capture):
    table = capture.frames.copy()
    other = Capture(capture.root, table, capture.cameras)
    table.loc[0, "source"] = "changed"
    assert other.sources == ["clip", "still"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.frames.assign(frame="same"), "more than once"),
        (lambda c: c.frames.drop(columns="mask"), "lacks the columns"),
        (lambda c: c.frames.iloc[:0], "no frame"),
        (lambda c: c.frames.assign(image=""), "neither a file nor a picture"),
        (lambda c: c.frames.assign(width=9), "disagree"),
        (lambda c: c.frames.assign(time=0.5), "disagree"),
        (lambda c: c.frames.assign(time=7.0), r"\[0, 1\]"),
        (lambda c: c.frames.iloc[:2], "2 frames and 6 cameras"),
    ],
)
def test_tables_that_make_no_capture_are_refused(capture, change, words):
    with pytest.raises(InputError, match=words) as caught:
        capture.with_frames(change(capture), capture.cameras)
    assert caught.value.file == capture.root


# --- pictures ---


def test_pictures_are_the_files_pixels(capture):
    rgb, alpha = capture.pictures(progress=True)
    assert rgb.dtype == alpha.dtype == torch.uint8
    for row in range(6):
        assert np.array_equal(rgb[row].numpy(), pixels(row, 4)[..., :3])
        assert np.array_equal(alpha[row].numpy(), pixels(row, 4)[..., 3])
        assert np.array_equal(capture.image(row), pixels(row, 4)[..., :3].astype(np.float32) / 255)
        assert np.array_equal(capture.alpha(row), pixels(row, 4)[..., 3].astype(np.float32) / 255)
    assert np.array_equal(capture.pictures([3, 1])[0][1], rgb[1])
    assert capture.image(-1).dtype == np.float32


def test_opaque_pictures_have_no_alpha(tmp_path):
    capture = make(tmp_path, channels=3)
    assert capture.pictures()[1] is None
    assert (capture.alpha(0) == 1).all()
    assert np.array_equal(capture.image(0, background=(1, 0, 0)), capture.image(0))
    half = capture.with_pictures({2: (pixels(2), pixels(9, 1)[..., 0])})
    _, alpha = half.pictures()
    assert (alpha[0] == 255).all() and np.array_equal(alpha[2], pixels(9, 1)[..., 0])


def test_mask_times_alpha_and_every_mode(tmp_path):
    cover = np.array([[0, 128], [255, 255]], np.uint8)
    Image.fromarray(cover).save(tmp_path / "mask.png")
    rgba = np.full((2, 2, 4), 200, np.uint8)
    for mode, expected in (("RGBA", [[0, 100], [200, 200]]), ("RGB", cover.tolist()), ("L", cover.tolist())):
        Image.fromarray(rgba).convert(mode).save(tmp_path / "image.png")
        rgb, alpha = read_picture(tmp_path / "image.png", tmp_path / "mask.png")
        assert (rgb == 200).all() and alpha.tolist() == expected
    Image.fromarray(np.stack([cover * 0 + 50, cover], axis=-1)).save(tmp_path / "grey.png")  # LA
    rgb, alpha = read_picture(tmp_path / "grey.png")
    assert (rgb == 50).all() and alpha.tolist() == cover.tolist()
    palette = Image.fromarray((cover > 0).astype(np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255] * 128)
    palette.save(tmp_path / "palette.png", transparency=0)
    rgb, alpha = read_picture(tmp_path / "palette.png")
    assert rgb[1, 1].tolist() == [0, 0, 255] and alpha.tolist() == [[0, 255], [255, 255]]


def test_files_that_go_bad_later_are_named(capture):
    path = Path(capture.frames.image[2])
    path.write_bytes(path.read_bytes()[:60])
    for call in (capture.pictures, lambda: capture.image(2)):
        with pytest.raises(InputError, match="cannot be read as a picture") as caught:
            call()
        assert caught.value.file == path
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        capture.pictures()


def test_composite_is_one_formula_for_numpy_and_torch():
    rgb = pixels(0).astype(np.float32) / 255
    alpha = pixels(1, 1)[..., 0].astype(np.float32) / 255
    background = (0.2, 0.4, 1.0)
    expected = rgb * alpha[..., None] + np.array(background) * (1 - alpha[..., None])
    for a in (alpha, alpha[..., None]):
        assert composite(rgb, a, background) == pytest.approx(expected, abs=1e-6)
        result = composite(torch.from_numpy(rgb), torch.from_numpy(a), background)
        assert result.dtype == torch.float32 and result.numpy() == pytest.approx(expected, abs=1e-6)
    batch = composite(np.stack([rgb] * 2), np.stack([alpha] * 2), np.zeros((2, 1, 1, 3)))
    assert batch == pytest.approx(np.stack([rgb * alpha[..., None]] * 2), abs=1e-6)
    assert composite(rgb, np.zeros_like(alpha), background)[0, 0] == pytest.approx(background)
    with pytest.raises(TypeError, match="uint8"):
        composite(pixels(0), alpha, background)


def test_a_picture_over_a_background(capture):
    assert capture.image(0, (0, 1, 0)) == pytest.approx(composite(capture.image(0), capture.alpha(0), (0, 1, 0)))


# --- resizing ---


def test_whole_factors_average_blocks():
    rgb = pixels(0)
    small, alpha = resize_picture((rgb, None), WIDTH // 4, HEIGHT // 2)
    blocks = rgb.reshape(HEIGHT // 2, 2, WIDTH // 4, 4, 3).mean(axis=(1, 3))
    assert alpha is None and np.abs(small - blocks).max() <= 0.5 + 1e-3


def test_any_factor_keeps_the_mean():
    rgb, alpha = pixels(0), pixels(1, 1)[..., 0]
    for width, height in ((5, 3), (7, 8), (1, 1), (WIDTH * 2, HEIGHT + 1)):
        small, cover = resize_picture((rgb, alpha), width, height)
        assert small.shape == (height, width, 3) and cover.shape == (height, width)
        weight = alpha[..., None] / 255
        assert cover.mean() == pytest.approx(alpha.mean(), abs=1)
        assert (small * (cover[..., None] / 255)).mean() == pytest.approx((rgb * weight).mean(), abs=1)


def test_what_is_transparent_does_not_bleed_into_what_is_not():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:, 1:] = [200, 100, 50]
    alpha = np.where(rgb[..., 0] > 0, 255, 0).astype(np.uint8)
    small, cover = resize_picture((rgb, alpha), 2, 2)
    assert cover.tolist() == [[128, 255]] * 2
    assert (small == [200, 100, 50]).all()


def test_resized_captures_load_small_with_cameras_to_match(capture):
    for small in (capture.resized(6, 4), capture.scaled(0.5)):
        rgb, alpha = small.pictures()
        assert tuple(rgb.shape) == (6, 4, 6, 3) and tuple(alpha.shape) == (6, 4, 6)
        assert (small.cameras.width, small.cameras.height) == (6, 4)
        assert torch.allclose(small.cameras.Ks[:, :2], capture.cameras.Ks[:, :2] / 2)
        picture, cover = resize_picture((pixels(3, 4)[..., :3], pixels(3, 4)[..., 3]), 6, 4)
        assert np.array_equal(rgb[3], picture) and np.array_equal(alpha[3], cover)
        assert small.image(3).shape == (4, 6, 3)
        assert np.array_equal(small.scaled(2).image(3), capture.image(3)), "sizes are asked for, not piled up"
    for bad in (0, -1, float("nan")):
        with pytest.raises(InputError, match="scale"):
            capture.scaled(bad)
    assert capture.scaled(1e-9).cameras.sizes.tolist() == [[1, 1]] * 6


def test_mixed_sizes_are_loaded_one_by_one(capture):
    mixed = capture.resized(torch.tensor([6, 12, 12, 12, 12, 12]), HEIGHT)
    with pytest.raises(InputError, match="different sizes.*resized"):
        mixed.pictures()
    assert mixed.image(0).shape == (HEIGHT, 6, 3)
    assert tuple(mixed.pictures(rows=slice(1, None))[0].shape) == (5, HEIGHT, WIDTH, 3)


# --- pictures in memory ---


def test_pictures_in_memory_stand_in_and_leave_the_files_alone(capture):
    before = Path(capture.frames.image[4]).read_bytes()
    rgb, alpha = pixels(40), pixels(41, 1)[..., 0]
    other = capture.with_pictures({4: (rgb, alpha), 0: (torch.from_numpy(pixels(42)), None)})
    assert np.array_equal(other.pictures()[0][4], rgb) and np.array_equal(other.pictures()[1][4], alpha)
    assert np.array_equal(other.image(0) * 255, pixels(42).astype(np.float32))
    assert np.array_equal(capture.pictures()[0][4], pixels(4, 4)[..., :3])
    assert Path(capture.frames.image[4]).read_bytes() == before
    part = other.select(rows=[5, 4])
    assert list(part.memory) == ["f4"] and np.array_equal(part.pictures()[0][1], rgb)
    small, cover = resize_picture((rgb, alpha), 6, 4)
    assert np.array_equal(other.scaled(0.5).pictures()[0][4], small)
    assert np.array_equal(other.scaled(0.5).pictures()[1][4], cover)
    with pytest.raises(ValueError, match="read-only"):
        other.memory["f4"][0][0, 0] = 0


@pytest.mark.parametrize(
    "picture",
    [
        (pixels(0)[:4], None),
        (pixels(0).astype(np.float32), None),
        (pixels(0), pixels(0)),
        (pixels(0), pixels(0, 1)[..., 0] / 255),
        (None, None),
    ],
)
def test_pictures_that_do_not_fit_are_refused(capture, picture):
    with pytest.raises(InputError, match="must be uint8"):
        capture.with_pictures({0: picture})


def test_a_capture_may_have_no_files_at_all(tmp_path):
    frames = make(tmp_path).frames.assign(image="")
    cameras = orbit(6, width=WIDTH, height=HEIGHT, times=frames.time.to_numpy())
    capture = Capture(tmp_path, frames, cameras, {f"f{i}": (pixels(i), None) for i in range(6)})
    assert np.array_equal(capture.pictures()[0][5], pixels(5)) and not capture.has_alpha


# --- digests ---


def test_the_same_content_has_the_same_digest_wherever_it_lies(capture, tmp_path):
    write_transforms(capture, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "far/away/two")
    one, two = load_capture(tmp_path / "one"), load_capture(tmp_path / "far/away/two")
    assert one.digest() == two.digest() and len(one.digest()) == 64
    assert one.select(split="train").digest() == load_capture(tmp_path / "one", splits=["train"]).digest()


def test_any_change_of_content_changes_the_digest(capture):
    moved = orbit(6, radius=4.01, width=WIDTH, height=HEIGHT, times=capture.cameras.times)
    wider = orbit(6, fov_x_deg=37, width=WIDTH, height=HEIGHT, times=capture.cameras.times)
    digests = [
        capture.digest(),
        capture.with_times(0.5).digest(),
        capture.with_times(None).digest(),
        capture.with_split("train").digest(),
        capture.with_frames(capture.frames.assign(source="x")).digest(),
        capture.with_frames(cameras=moved).digest(),
        capture.with_frames(cameras=wider).digest(),
        capture.scaled(0.5).digest(),
        capture.select(rows=range(5)).digest(),
        capture.with_pictures({0: (pixels(0), None)}).digest(),
        capture.with_pictures({0: (pixels(1), None)}).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert capture.with_pictures({0: (pixels(0), None)}).digest() == digests[-2]
    path = Path(capture.frames.image[3])
    Image.fromarray(pixels(99, 4)).save(path)
    assert capture.digest() not in digests


# --- merging and sorting ---


def test_merging_the_parts_gives_the_whole(capture):
    capture = capture.with_pictures({3: (pixels(50), None)})
    whole = merge([capture.select(source="clip"), capture.select(source="still")])
    order = sort_frames(capture.frames)
    assert whole.frames.frame.tolist() == capture.frames.frame.iloc[order].tolist()
    assert whole.frames.camera.tolist() == capture.frames.camera.iloc[order].tolist()
    assert in_step(whole, capture) and list(whole.memory) == ["f3"]


def test_merging_strangers_keeps_their_names_apart(tmp_path):
    one, two = make(tmp_path / "one", source="capture"), make(tmp_path / "two", source="capture")
    assert merge([one.select(rows=[0, 1]), two.select(rows=[2, 3])]).sources == ["one", "two"]
    moved = two.with_frames(cameras=orbit(6, elevation_deg=5, width=WIDTH, height=HEIGHT, times=two.cameras.times))
    both = merge([one, moved])
    assert len(both) == 12 and both.frames.frame.is_unique and both.frames.camera.nunique() == 12
    assert {"one/f0", "two/f0"} <= set(both.frames.frame) and {"one/c0", "two/c0"} <= set(both.frames.camera)
    assert merge([one, two]).frames.camera.nunique() == 6, "the same cameras keep their names"
    with pytest.raises(InputError, match="more than once"):
        merge([one, one])
    with pytest.raises(InputError, match="nothing"):
        merge([])


def test_frames_are_sorted_by_time_never_by_name_first(tmp_path):
    base = make(tmp_path).with_times([0.5, 0.5, np.nan, 0.1, 0.0, 0.0])
    names = ["r_10", "r_2", "z", "b", "c", "a"]
    table = base.frames.assign(frame=names, camera="x", source="s", split=["train"] * 4 + ["test", "val"])
    assert [names[row] for row in sort_frames(table)] == ["z", "b", "r_2", "r_10", "a", "c"]
    table["camera"] = ["cam9", "cam10"] + ["x"] * 4
    assert [names[row] for row in sort_frames(table)][2:4] == ["r_10", "r_2"]
    assert natural("r_2") < natural("r_10") < natural("r_x") and natural("2") < natural("10")


def test_load_capture_takes_a_scale(capture, tmp_path):
    write_transforms(capture, tmp_path / "out")
    small = load_capture(str(tmp_path / "out"), scale=0.5)
    assert (small.cameras.width, small.cameras.height) == (6, 4)
    assert small.select(split="test").image(0).shape == (4, 6, 3)
