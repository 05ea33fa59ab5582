"""Grids of pictures: a valid capture, the same however often it is interrupted, and never read half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from fourdgs.cameras import Cameras, orbit
from fourdgs.data import grid, streaming
from fourdgs.data.grid import render_grid, ring_cameras
from fourdgs.data.load import load_capture
from fourdgs.data.meshes import Mesh, load_mesh
from fourdgs.data.orbit import render_mesh
from fourdgs.errors import InputError, OutputError

TIMES = (0.0, 0.5, 1.0)


def ball() -> Mesh:
    """A coloured ball that moves sideways; the process that is killed below imports it."""
    shape = trimesh.creation.icosphere(2, radius=0.4)
    points = np.asarray(shape.vertices)
    colors = np.rint(127 + 300 * points).astype(np.uint8)
    return Mesh(points, np.asarray(shape.faces), None, None, colors, lambda time: points + (0.6 * time - 0.3, 0, 0))


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return ball()


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return orbit(4, 4.0, 10.0, width=40, height=32)


@pytest.fixture(scope="module")
def whole(mesh, cameras, tmp_path_factory):
    """Made in one go."""
    return render_grid(mesh, cameras, TIMES, tmp_path_factory.mktemp("whole") / "grid", progress=False)


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _stamps(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- what is made -------------------------------------------------------------------------------------------------


def test_every_camera_at_every_time_reads_back_as_it_was_asked_for(whole, mesh, cameras):
    capture = load_capture(whole)
    assert len(capture) == 12 and capture.sources == ["grid"] and capture.splits == ["train"]
    table = capture.frames.groupby("camera").time.apply(list)
    assert list(table.index) == ["grid00", "grid01", "grid02", "grid03"] and all(
        times == [0, 0.5, 1] for times in table
    )
    number = capture.frames.camera.str.removeprefix("grid").astype(int).tolist()
    np.testing.assert_allclose(capture.cameras.viewmats, cameras[number].viewmats, atol=1e-6)
    np.testing.assert_allclose(capture.cameras.Ks, cameras[number].Ks, rtol=1e-6)
    wanted = render_mesh(mesh, capture.cameras, progress=False)
    rgb, alpha = capture.pictures()
    np.testing.assert_array_equal(np.concatenate([rgb, alpha[..., None]], axis=-1), wanted)


def test_stills_have_no_time_and_may_be_of_a_mesh_that_does_not_move(cameras, tmp_path):
    still = trimesh.creation.icosphere(1, radius=0.4)
    folder = render_grid(still, cameras, [None], tmp_path / "a/stills", source="orbit", size=20, progress=False)
    capture = load_capture(folder)
    assert capture.frames.time.isna().all() and set(capture.frames.source) == {"orbit"}
    assert (capture.cameras.width, capture.cameras.height) == (20, 16)
    assert '"time": null' in (folder / "transforms_train.json").read_text()


def test_held_out_cameras_and_times_are_for_testing_and_changing_them_draws_nothing(whole, mesh, cameras, monkeypatch):
    before = _stamps(whole)
    monkeypatch.setattr(streaming, "iterate_pictures", None)  # would fail if anything were drawn
    render_grid(mesh, cameras, TIMES, whole, test_cameras=[1], test_times=[2], progress=False)
    frames = load_capture(whole).frames
    held = (frames.camera == "grid01") | (frames.time == 1)
    assert (frames.split == np.where(held, "test", "train")).all() and held.sum() == 3 + 4 - 1
    render_grid(mesh, cameras, TIMES, whole, split="val", progress=False)
    assert load_capture(whole).splits == ["val"]
    render_grid(mesh, cameras, TIMES, whole, progress=False)
    after = _stamps(whole)
    assert load_capture(whole).splits == ["train"] and before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if name.endswith(".png"))


def test_it_is_made_once_and_says_where(whole, mesh, cameras, monkeypatch, capsys):
    before = _stamps(whole)
    monkeypatch.setattr(streaming, "iterate_pictures", None)
    assert render_grid(mesh, cameras, TIMES, whole) == whole
    assert _stamps(whole) == before
    assert str(whole) in capsys.readouterr().out


# --- interruptions ------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from PIL import Image
from fourdgs.cameras import orbit
from fourdgs.data.grid import render_grid
from test_grid import ball
save, count = Image.Image.save, [0]
def fatal(self, path, **options):
    count[0] += 1
    if count[0] > 5:  # in the middle of the sixth file
        save(self, path, **options)
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, path, **options)
Image.Image.save = fatal
render_grid(ball(), orbit(4, 4.0, 10.0, width=40, height=32), (0.0, 0.5, 1.0), sys.argv[1], progress=False)
"""


def test_killed_in_the_middle_of_a_picture_it_goes_on_to_the_same_bytes(whole, mesh, cameras, tmp_path):
    folder, part = tmp_path / "grid", tmp_path / "grid.part"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["grid.part"]
    kept = {path: path.stat().st_mtime_ns for path in part.rglob("*.png") if not path.name.startswith(".")}
    assert 0 < len(kept) <= 5 and all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in kept)
    assert [path for path in part.rglob(".*") if path.is_file()], "no half-written file: nothing is tested here"
    for place in (folder, part):
        with pytest.raises(InputError):
            load_capture(place)
    render_grid(mesh, cameras, TIMES, folder, progress=False)
    assert _contents(folder) == _contents(whole)
    stamps = _stamps(folder)
    assert all(stamps[str(path.relative_to(part))] == stamp for path, stamp in kept.items())
    assert [path.name for path in tmp_path.iterdir()] == ["grid"]


@pytest.mark.parametrize("after", [1, 4, 11])
def test_interrupted_as_often_as_you_like_it_ends_the_same(whole, mesh, cameras, tmp_path, monkeypatch, capsys, after):
    """Stopped after every ``after`` pictures, until a run needs no more than that."""
    iterate, runs = streaming.iterate_pictures, 0

    def stop(*values, **options):
        for count, picture in enumerate(iterate(*values, **options)):
            if count == after:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(streaming, "iterate_pictures", stop)
    while not (tmp_path / "grid").exists():
        runs += 1
        try:
            render_grid(mesh, cameras, TIMES, tmp_path / "grid")
        except KeyboardInterrupt:
            assert f"stopped: {runs * after} pictures are kept in {tmp_path / 'grid.part'}" in capsys.readouterr().out
    assert runs == -(-12 // after)
    assert _contents(tmp_path / "grid") == _contents(whole)


@pytest.mark.parametrize("fault", ["lost", "truncated", "empty", "other size", "no transforms"])
def test_what_is_broken_in_a_finished_folder_is_mended_and_nothing_else(whole, mesh, cameras, tmp_path, fault):
    folder = render_grid(mesh, cameras, TIMES, tmp_path / "grid", progress=False)
    before, victim = _stamps(folder), "grid/grid01/0002.png"
    if fault == "lost":
        (folder / victim).unlink()
    elif fault == "no transforms":
        victim = "transforms_train.json"
        (folder / victim).unlink()
    elif fault == "other size":
        Image.new("RGBA", (32, 40)).save(folder / victim)
    else:
        os.truncate(folder / victim, 0 if fault == "empty" else (folder / victim).stat().st_size - 1)
    render_grid(mesh, cameras, TIMES, folder, progress=False)
    after = _stamps(folder)
    assert _contents(folder) == _contents(whole)
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {victim, "transforms_train.json", "recipe.json"} and victim in changed


def test_a_full_disk_is_one_error_and_keeps_what_is_done(mesh, cameras, tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def full(self, *values, **options):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return save(self, *values, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        render_grid(mesh, cameras, TIMES, tmp_path / "grid", progress=False)
    assert len(list((tmp_path / "grid.part").rglob("*.png"))) == 3
    monkeypatch.undo()
    assert len(load_capture(render_grid(mesh, cameras, TIMES, tmp_path / "grid", progress=False))) == 12


def test_two_at_work_in_one_folder_are_kept_apart(mesh, cameras, tmp_path):
    part = tmp_path / "grid.part"
    part.mkdir()
    with streaming._alone(part), pytest.raises(InputError, match="another process is at work"):
        render_grid(mesh, cameras, TIMES, tmp_path / "grid", progress=False)
    render_grid(mesh, cameras, TIMES, tmp_path / "grid", progress=False)


# --- recipes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """A folder of one picture, and the call that made it."""
    mesh = load_mesh(trimesh.creation.icosphere(1, radius=0.4))
    asked = {"mesh": mesh, "cameras": orbit(1, 4.0, width=16, height=16), "times": [None], "folder": tmp_path / "one"}
    render_grid(**asked, progress=False)
    return asked


@pytest.mark.parametrize("state", ["finished", "begun"])
def test_another_recipe_is_refused_and_replaces_only_when_told(tiny, state, monkeypatch):
    folder, part = tiny["folder"], tiny["folder"].with_name("one.part")
    if state == "begun":
        folder.rename(part)
        (part / "transforms_train.json").unlink()
    before = _contents(part if state == "begun" else folder)
    other = tiny | {"supersample": 2, "cameras": orbit(2, 4.0, width=16, height=16)}
    with pytest.raises(InputError, match=r"another recipe \(another cameras, names, supersample\).*overwrite=True"):
        render_grid(**other, progress=False)
    assert _contents(part if state == "begun" else folder) == before
    if state == "finished":  # what there was stays until the new one is whole
        with monkeypatch.context() as patch:
            patch.setattr(grid, "write_transforms", lambda *values, **options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                render_grid(**other, overwrite=True, progress=False)
        assert _contents(folder) == before
    assert len(load_capture(render_grid(**other, overwrite=True, progress=False))) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_the_hash_knows_all_that_is_drawn(tiny):
    mesh, cameras = tiny["mesh"], tiny["cameras"]
    count = len(mesh.points)
    moved = replace(mesh, points=mesh.points + (0, 1e-3, 0))
    textured = replace(mesh, uv=np.zeros((count, 2)), texture=np.zeros((2, 2, 3), np.uint8))
    changes = [
        {"mesh": moved},
        {"mesh": replace(mesh, colors=np.zeros((count, 3), np.uint8))},
        {"mesh": textured},
        {"mesh": replace(textured, texture=textured.texture + np.uint8(1))},
        {"mesh": replace(textured, uv=textured.uv + 0.1)},
        {"mesh": replace(mesh, faces=mesh.faces[:-1])},
        {"motion": lambda time: mesh.points + 0.01},
        {"cameras": orbit(1, 4.1, width=16, height=16)},
        {"cameras": orbit(1, 4.0, fov_x_deg=31, width=16, height=16)},
        {"size": 17},
        {"supersample": 1},
        {"shading": False},
        {"source": "other"},
        {"names": ["front"]},
    ]
    for change in changes:
        with pytest.raises(InputError, match="another recipe"):
            render_grid(**(tiny | change), progress=False)
    # The same thing said otherwise is the same recipe: nothing is refused, nothing is drawn.
    before = _stamps(tiny["folder"])
    same = {"mesh": replace(mesh, points=mesh.points.copy()), "cameras": cameras.with_times(0.5), "size": (16, 16)}
    render_grid(**(tiny | same), engine="pyvista", motion=lambda time: mesh.points, progress=False)
    assert _stamps(tiny["folder"]) == before


def test_what_is_not_ours_is_not_touched(tiny, tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    for name in ("mine", "yours"):
        if name == "yours":
            place.rename(tmp_path / "yours.part")
        with pytest.raises(InputError, match="holds something else"):
            render_grid(**(tiny | {"folder": tmp_path / name}), overwrite=True, progress=False)
    assert (tmp_path / "yours.part/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"times": []}, "times: is empty"),
        ({"times": [0.5, 1.5]}, "times: holds 1.5"),
        ({"times": [None, None]}, "times: holds a time twice"),
        ({"times": [0.0, 1.0]}, "times: the mesh does not move"),
        ({"test_cameras": [1]}, "test_cameras: names 1"),
        ({"test_times": [-1]}, "test_times: names -1"),
        ({"names": ["a", "b"]}, "names: must be 1"),
        ({"names": ["../up"]}, "names: '../up' cannot name a folder"),
        ({"source": "a/b"}, "source: 'a/b' cannot name a folder"),
        ({"split": "training"}, "split: is 'training'"),
        ({"supersample": 0}, "supersample"),
        ({"engine": "blender"}, "engine"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_touched(tiny, change, words):
    before = _stamps(tiny["folder"])
    with pytest.raises(InputError, match=words):
        render_grid(**(tiny | change), overwrite=True, progress=False)
    assert _stamps(tiny["folder"]) == before


# --- pictures and cameras -----------------------------------------------------------------------------------------


def test_png_gives_back_every_pixel(tmp_path):
    random = np.random.default_rng(0)
    for shape in ((7, 5, 4), (5, 7, 3), (64, 64, 4)):
        picture = random.integers(0, 256, shape).astype(np.uint8)
        picture[: shape[0] // 2] = 9
        streaming.write_png(tmp_path / "a.png", picture)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)
        assert streaming.is_whole(tmp_path / "a.png", (shape[1], shape[0]))


@pytest.mark.parametrize("up", [(0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("size", [80, (160, 80), (80, 160)])
def test_ring_cameras_hold_the_whole_mesh_in_the_picture_and_fill_it(up, size):
    shape = trimesh.creation.icosphere(2, radius=2.0)
    mesh = load_mesh(Mesh(np.asarray(shape.vertices) + (5.0, -3.0, 1.0), np.asarray(shape.faces)))
    cameras = ring_cameras(mesh, 6, elevations_deg=(0, 15, 30), up=up, size=size)
    outward = (cameras.positions.double().numpy() - (5, -3, 1)) / 2
    level = np.degrees(np.arcsin(outward @ np.array(up, float) / np.linalg.norm(outward, axis=1)))
    np.testing.assert_allclose(level, [0, 15, 30] * 2, atol=1e-3)
    for picture in render_mesh(mesh, cameras, progress=False)[..., 3]:
        assert not (picture[0].any() or picture[-1].any() or picture[:, 0].any() or picture[:, -1].any())
        assert picture.any(axis=0 if picture.shape[0] > picture.shape[1] else 1).mean() > 0.85


def test_ring_cameras_make_room_for_the_motion(mesh):
    still, moving = (ring_cameras(mesh, 2, times=times, size=32) for times in ([0.5], TIMES))
    middle = np.array([0.0, 0, 0])
    near, far = (np.linalg.norm(cameras.positions.numpy() - middle, axis=1) for cameras in (still, moving))
    np.testing.assert_allclose(far / near, (0.4 + 0.3) / 0.4, rtol=2e-2)


def test_command_line(tmp_path, capsys):
    trimesh.creation.icosphere(1, radius=3.0).export(tmp_path / "ball.glb")
    words = ["--mesh", str(tmp_path / "ball.glb"), "--cameras", "3", "--size", "24", "18", "--out", str(tmp_path / "a")]
    assert grid.main([*words, "--test-cameras", "1", "--elevations", "10"]) == 0
    capture = load_capture(tmp_path / "a")
    assert capture.frames.split.tolist().count("test") == 1 and capture.frames.time.isna().all()
    assert (capture.cameras.width, capture.cameras.height) == (24, 18)
    assert str(tmp_path / "a") in capsys.readouterr().out
    assert grid.main([*words, "--elevations", "20"]) == 1
    assert "another recipe (another cameras)" in capsys.readouterr().err
    assert grid.main([*words, "--elevations", "20", "--overwrite"]) == 0
    assert grid.main([*words, "--times", "5"]) == 1
    assert "does not move" in capsys.readouterr().err
    assert grid.main(["--mesh", str(tmp_path / "none.glb"), "--out", str(tmp_path / "b")]) == 1
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_command_line_draws_the_talking_avatar(tmp_path):
    words = ["--avatar", "--cameras", "2", "--times", "3", "--size", "24", "--out", str(tmp_path / "a")]
    assert grid.main(words) == 0
    capture = load_capture(tmp_path / "a")
    assert sorted(set(capture.frames.time)) == [0, 0.5, 1] and len(capture) == 6
    recipe = json.loads((tmp_path / "a/recipe.json").read_text())
    assert recipe["pictures"] == 6 and recipe["recipe"]["supersample"] == 4
