"""The embedded capture: what it holds, that it is made once, and whole or not at all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from fourdgs.data import alpha, streaming
from fourdgs.data.load import load_capture
from fourdgs.errors import InputError, OutputError
from fourdgs.files import hash_json

SIZE, GRID = 48, (3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return alpha.make_alpha(tmp_path_factory.mktemp("data") / "alpha", SIZE, grid=GRID, progress=False)


@pytest.fixture(scope="module")
def capture(folder):
    return load_capture(folder)


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_it_holds_what_the_story_needs(capture):
    counts = capture.frames.groupby(["split", "source"]).size().to_dict()
    assert counts == {
        ("train", "orbit"): 10,
        ("val", "orbit"): 2,
        ("train", "clip"): 121,
        ("train", "clip_clean"): 121,
        ("train", "grid"): 6,
        ("test", "still"): 24,
        ("test", "talking"): 60,
    }
    assert (capture.frames.width == SIZE).all() and (capture.frames.height == SIZE).all()


def test_stills_have_no_time_and_moving_pictures_have_one(folder, capture):
    untimed = capture.frames.time.isna()
    assert set(capture.frames.source[untimed]) == {"orbit", "still"}
    assert not untimed[capture.frames.source.isin(["clip", "clip_clean", "grid", "talking"])].any()
    raw = json.loads((folder / "transforms_train.json").read_text())["frames"]
    assert [frame["time"] for frame in raw if frame["source"] == "orbit"] == [None] * 10
    clip = capture.select(source="clip")
    np.testing.assert_allclose(clip.frames.time, np.arange(121) / 120, atol=1e-6)


def test_orbit_is_twelve_views_thirty_degrees_apart(capture):
    orbit = capture.select(source="orbit")
    x, y, z = orbit.cameras.positions.double().numpy().T
    azimuth = np.degrees(np.arctan2(x, z)) % 360
    np.testing.assert_allclose(np.sort(azimuth.round(3) % 360), 30 * np.arange(12), atol=1e-2)
    np.testing.assert_allclose(np.degrees(np.arctan2(y, np.hypot(x, z))), 10, atol=1e-3)
    numbers = orbit.frames.camera.str.removeprefix("orbit").astype(int)
    np.testing.assert_allclose(azimuth, numbers * 30, atol=1e-2)
    assert set(numbers[orbit.frames.split == "val"]) == set(alpha.VALIDATION)


def test_clip_is_one_camera_the_front_of_the_orbit(capture):
    clip = capture.select(source=["clip", "clip_clean"])
    front = capture.select(where=lambda frames: frames.frame == "train/orbit/0000")
    assert set(clip.frames.camera) == {"orbit00"} == set(front.frames.camera)
    np.testing.assert_allclose(clip.cameras.viewmats, front.cameras.viewmats.expand(242, 4, 4), atol=1e-6)


def test_testing_uses_other_cameras_and_times(capture):
    training = capture.select(split=["train", "val"])
    testing = capture.select(split="test")
    assert not set(training.frames.camera) & set(testing.frames.camera)
    ours, theirs = (part.cameras.positions.double().numpy() for part in (training, testing))
    gap = np.linalg.norm(ours[:, None] - theirs[None], axis=-1).min()
    assert gap > 0.2  # at radius 4: about 3 degrees
    talking = testing.select(source="talking")
    assert talking.frames.camera.nunique() == 12 and talking.frames.time.nunique() == 5
    apart = np.abs(talking.frames.time.to_numpy()[:, None] - np.arange(121) / 120).min()
    assert apart > 1e-3


def test_the_subject_is_whole_and_fills_the_picture(capture):
    heights = []
    for row in np.flatnonzero(capture.frames.source != "clip"):
        cover = capture.alpha(row) > 0.5
        assert not (cover[0].any() or cover[-1].any() or cover[:, 0].any() or cover[:, -1].any())
        heights.append(cover.any(axis=1).mean())
    assert 0.7 < np.mean(heights) < 0.9


def test_clip_is_opaque_on_a_backdrop_with_another_white_balance(folder, capture):
    clip, clean = (capture.select(source=name) for name in ("clip", "clip_clean"))
    assert not clip.has_alpha and clean.has_alpha
    plate = np.asarray(Image.open(folder / "clip_plate.png")).astype(float) / 255
    outside = clean.alpha(40) == 0
    np.testing.assert_allclose(clip.image(40)[outside], plate[outside], atol=1e-6)
    assert plate.mean() < 0.5
    inside = clean.alpha(40) == 1
    wanted = alpha.grade(clean.image(40)[inside])
    np.testing.assert_allclose(clip.image(40)[inside], wanted, atol=2 / 255)
    ratio = clip.image(40)[inside].mean(axis=0) / clean.image(40)[inside].mean(axis=0)
    assert ratio[0] > 1.08 and ratio[2] < 0.95


def test_the_clip_moves_and_the_stills_do_not_talk(capture):
    clean = capture.select(source="clip_clean")
    pictures, _ = clean.pictures(range(0, 121, 10))
    assert pictures.float().std(dim=0).max() > 20
    lower = pictures[:, SIZE * 3 // 4 :].float().std(dim=0)
    assert lower.max() < 3  # the shirt stands still


def test_it_is_made_once(folder, monkeypatch):
    before = _files(folder)
    monkeypatch.setattr(alpha._avatar, "build", None)  # would fail if anything were made
    assert alpha.make_alpha(folder, SIZE, grid=GRID) == folder
    assert _files(folder) == before


def test_another_recipe_has_another_hash():
    recipes = [alpha.alpha_recipe(*values) for values in ((48, 0, GRID), (64, 0, GRID), (48, 1, GRID), (48, 0, (3, 3)))]
    assert len({json.dumps(recipe) for recipe in recipes}) == 4


def test_a_lost_picture_is_noticed(folder):
    recipe = alpha.alpha_recipe(SIZE, 0, GRID)
    assert alpha._is_made(folder, recipe)
    lost = folder / "train/clip/0007.png"
    kept = lost.read_bytes()
    lost.unlink()
    try:
        assert not alpha._is_made(folder, recipe)
    finally:
        lost.write_bytes(kept)


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_making_keeps_its_pictures_and_goes_on_to_the_same_capture(
    tmp_path, folder, monkeypatch, trouble
):
    target, part = tmp_path / "alpha", tmp_path / "alpha.part"
    save, calls = Image.Image.save, []

    def fail(self, *values, **options):
        calls.append(1)
        if len(calls) > 20:
            raise trouble
        return save(self, *values, **options)

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError if isinstance(trouble, OSError) else trouble):
        alpha.make_alpha(target, SIZE, grid=GRID, progress=False)
    monkeypatch.undo()
    assert not target.exists()
    kept = {path: path.stat().st_mtime_ns for path in part.rglob("*.png")}
    assert len(kept) == 20
    with pytest.raises(InputError, match="holds no capture"):
        load_capture(part)
    if isinstance(trouble, OSError):
        return  # what follows is the same for both
    times, write_png = [], streaming.write_png
    monkeypatch.setattr(streaming, "write_png", lambda path, *rest: times.append(path) or write_png(path, *rest))
    alpha.make_alpha(target, SIZE, grid=GRID, progress=False)
    assert not part.exists() and not set(kept) & set(times)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert all((folder / name).read_bytes() == (target / name).read_bytes() for name in names)


def test_interrupted_before_the_first_picture_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(alpha._avatar, "build", lambda seed: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        alpha.make_alpha(tmp_path / "alpha", SIZE, grid=GRID, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_of_this_capture_is_replaced_but_only_when_the_new_one_is_whole(tmp_path, monkeypatch):
    target = tmp_path / "alpha"
    monkeypatch.setattr(alpha, "CLIP_FRAMES", 3)
    alpha.make_alpha(target, 16, grid=(1, 1), progress=False)
    before = _files(target)
    with monkeypatch.context() as patch:
        patch.setattr(alpha, "_write_split", lambda *values: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            alpha.make_alpha(target, 17, grid=(1, 1), progress=False)
    assert _files(target) == before
    alpha.make_alpha(target, 18, grid=(1, 1), progress=False)  # the part of 17 is no use here
    assert load_capture(target).cameras.width == 18 and list(tmp_path.iterdir()) == [target]


def test_the_recipe_of_the_capture_everyone_has_is_the_same():
    """A changed hash would throw away, and make anew, the capture that reports and runs were made with."""
    recipe = alpha.alpha_recipe(128, 0, (12, 10))
    recipe["avatar"] = {"anny": "0.6.2", "recipe": 1, "seed": 0}
    assert hash_json(recipe) == "1c93c44085561fe7b097f25b6ac0063d36e7d095490a9e08580a0eedbca002e3"


def test_what_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha/thesis.txt").write_text("years of work")
    for recipe in (None, {"hash": "x", "recipe": {"grid": 1}}, {"cake": "two eggs"}):
        if recipe:
            (tmp_path / "alpha/recipe.json").write_text(json.dumps(recipe))
        with pytest.raises(InputError, match="holds something else"):
            alpha.make_alpha(tmp_path / "alpha", SIZE, grid=GRID)
    assert (tmp_path / "alpha/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(("size", "grid"), [(8, (2, 2)), (48, (0, 5))])
def test_bad_numbers_are_named(tmp_path, size, grid):
    with pytest.raises(InputError, match="size|grid"):
        alpha.make_alpha(tmp_path / "alpha", size, grid=grid)
    assert not (tmp_path / "alpha").exists()


@pytest.mark.parametrize("grid", [alpha.FULL_GRID, alpha.THIN_GRID, (3, 2)])
def test_grid_goes_all_around_in_the_middle_between_the_testing_cameras(grid):
    sources = {source.name: source for source in alpha._sources(64, grid) if source.name in ("grid", "talking")}
    assert len(sources["grid"].cameras) == grid[0] * grid[1]
    times = sources["grid"].cameras.times.reshape(grid).numpy()
    np.testing.assert_allclose(times, np.broadcast_to(np.linspace(0, 1, grid[1]), grid), atol=1e-6)

    def azimuths(source):
        x, _, z = source.cameras.positions.double().numpy().T
        return np.unique(np.degrees(np.arctan2(x, z)).round(3) % 360)

    there, asked = azimuths(sources["grid"]), azimuths(sources["talking"])
    assert len(there) == grid[0]
    apart = np.abs((asked[:, None] - there[None] + 180) % 360 - 180).min(axis=1)
    assert apart.min() > 7.4


def test_command_line(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(alpha, "make_alpha", lambda *values: asked.append(values) or values[0])
    assert alpha.main(["--folder", str(tmp_path), "--size", "400", "--full-grid"]) == 0
    alpha.main(["--grid", "4", "5", "--seed", "3"])
    assert asked == [(str(tmp_path), 400, 0, (24, 60)), ("data/alpha", 128, 3, (4, 5))]
    assert str(tmp_path) in capsys.readouterr().out
    monkeypatch.undo()
    assert alpha.main(["--folder", str(tmp_path / "a"), "--size", "3"]) == 1
    assert capsys.readouterr().err.startswith("error: size: is 3")


def test_field_of_view_holds_the_unit_ball():
    assert math.degrees(2 * math.asin(0.98 / alpha.RADIUS)) < alpha.FOV_X_DEG
