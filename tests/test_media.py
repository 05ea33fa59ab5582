from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import made_up_run
from scenes import ball_cameras, ball_capture, random_gaussians

import fourdgs as fd
from fourdgs import InputError, Model, OutputError, paths
from fourdgs.cameras import Cameras, on_sphere
from fourdgs.files import hash_file
from fourdgs.gaussians_io import write_ply
from fourdgs.media import GAP, film, framing, hstack, label_strip, manifest_path, render_path
from fourdgs.media.__main__ import main
from fourdgs.model import render, render_bytes
from fourdgs.motion import Static
from fourdgs.runs import read_info

pytest.importorskip("av")

from fourdgs.data.video import read_video, write_video  # noqa: E402
from fourdgs.data.video_encode import sound_duration  # noqa: E402

ROOT = Path(__file__).parents[1]
SMALL = {"width": 48, "height": 32, "fov_x_deg": 40.0}


class Swaying(Static):
    """A motion that can be told from its pictures: everything moves sideways with time."""

    name = "swaying"

    def at(self, gaussians, times):
        still = super().at(gaussians, times)
        shift = torch.stack([torch.nan_to_num(times) - 0.5, 0 * times, 0 * times], -1)[:, None]
        return still.replace(means=still.means + torch.nan_to_num(shift))


def model(seed: int = 0, motion=None) -> Model:
    gaussians = random_gaussians(60, seed=seed)
    return Model(gaussians.replace(opacities=gaussians.opacities + 2), motion or Swaying())


def film_of(runs, cameras, path, fps=25, **options) -> Path:
    return render_path(runs, cameras, path, fps, progress=False, **options)


def frames(path: Path) -> np.ndarray:
    return read_video(path, progress=False).frames


def manifest(path: Path) -> dict:
    return json.loads(manifest_path(path).read_text())


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def tone(path: Path, seconds: float, rate: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        time = np.arange(round(seconds * rate)) / rate
        file.writeframes((9000 * np.sin(2 * np.pi * 330 * time)).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    capture = ball_capture(folder, ball_cameras(6, 24))
    config = fd.TrainConfig(motion="static", iterations=12, gaussians=60, evaluate_every=6)
    return fd.train(capture, config, folder / "ball", progress=False)


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]


# --- one run ---


def test_the_video_is_what_the_model_renders(tmp_path):
    path = paths.recipe("spiral", frames=21, **SMALL)
    film_of(model(), path, tmp_path / "a.mp4", chunk=4)
    write_video(render(model(), path.cameras()).rgb, tmp_path / "b.mp4", progress=False)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert len(frames(tmp_path / "a.mp4")) == 21


def test_the_manifest_says_what_is_in_the_video(tmp_path, run):
    path = paths.recipe("dolly", frames=10, **SMALL)
    out = film_of(run, path, tmp_path / "a.mp4", 12.5)
    about = manifest(out)
    assert about["sha256"] == hash_file(out) and about["video"] == "a.mp4"
    assert (about["frames"], about["fps"], about["duration_s"]) == (10, 12.5, 0.8)
    assert (about["width"], about["height"]) == (48, 32) and frames(out).shape == (10, 32, 48, 3)
    assert paths.CameraPath.from_dict(about["path"]) == path
    (column,) = about["runs"]
    assert column["name"] == "ball" and column["gaussians"] == len(run.model.gaussians)
    assert column["capture"]["digest"] == run.info["capture"]["digest"]
    assert about["audio"] is None and about["fit"] is None and about["labels"] == []
    assert str(tmp_path) not in manifest_path(out).read_text()  # the same on another machine
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.mp4.json"]


def test_a_run_pays_for_its_rendering_and_for_no_other(tmp_path):
    run = fd.Run(made_up_run(tmp_path / "run"))
    model(motion=Static()).save(run.path / "model.safetensors")
    cameras, out = paths.recipe("arc", frames=6, **SMALL), tmp_path / "a.mp4"
    film_of({"bare": model(), "run": run.path}, cameras, out)
    seconds = read_info(run.path)["phases_s"]["render"]
    assert seconds > 0
    film_of({"bare": model(), "run": run}, cameras, out)  # it is there already
    assert read_info(run.path)["phases_s"]["render"] == seconds
    film_of(run, cameras, out, again=True)
    assert read_info(run.path)["phases_s"]["render"] > seconds


def test_what_is_there_is_left_and_what_changed_is_made_again(tmp_path):
    out, path = tmp_path / "a.mp4", paths.recipe("arc", frames=6, **SMALL)
    rendered = []

    def made(runs=None, cameras=path, **options) -> bool:
        film_of(runs or model(), cameras, out, **options)
        rendered.append(manifest_path(out).read_bytes())
        # A file that is written has another inode, since it is renamed into place.
        stamp = out.stat().st_ino, out.stat().st_mtime_ns
        before, made.stamp = made.stamp, stamp
        return stamp != before

    made.stamp = None
    assert made() and not made()
    assert rendered[0] == rendered[1]
    assert made(again=True) and rendered[2] == rendered[0]  # byte by byte: no date, no path, no speed
    assert made(model(1))
    assert made(cameras=replace(path, easing="smooth"))
    assert made(cameras=path.cameras()) and not made(cameras=path.cameras())
    assert made(cameras=path.cameras().with_times(0.5))
    assert made(fps=24) and made(quality=30) and made(labels=["one"]) and made(background=(0, 0, 0))
    assert made(duration_s=1.0)
    assert made(audio=tone(tmp_path / "a.wav", 1.0))
    assert not made(audio=tone(tmp_path / "same.wav", 1.0))
    assert made(audio=tone(tmp_path / "a.wav", 1.04))
    assert made(fit="stretch", audio=tmp_path / "a.wav")
    out.write_bytes(out.read_bytes()[:-1])
    made.stamp = (out.stat().st_ino, out.stat().st_mtime_ns)
    assert made(fit="stretch", audio=tmp_path / "a.wav")
    manifest_path(out).write_text("{")
    assert made(fit="stretch", audio=tmp_path / "a.wav")


def test_the_same_pictures_and_sound_give_the_same_bytes(tmp_path):
    y, x = np.mgrid[0:400, 0:400]
    waves = [[np.sin((x + 3 * k) / 7), np.cos((y - k) / 5), 0.9 * np.sin((x + y + k) / 9)] for k in range(12)]
    pictures = np.stack([128 + 100 * np.stack(channels, -1) for channels in waves]).astype(np.uint8)
    audio, random = tone(tmp_path / "a.wav", 0.4), np.random.default_rng(0)

    def given():
        for picture in pictures:
            # Leave other bytes where the encoder takes its memory: what it reads unwritten shows then.
            junk = [np.full(picture.nbytes, random.integers(255), np.uint8) for _ in range(5)]
            del junk
            yield picture

    hashes = {hash_file(write_video(given(), tmp_path / "a.mp4", audio=audio, progress=False)) for _ in range(5)}
    assert len(hashes) == 1


def test_pictures_are_encoded_while_others_render(tmp_path, monkeypatch):
    rendered, seen = [], []
    started = threading.Event()

    def chunks(_, cameras, *, chunk):
        for start in range(0, len(cameras), chunk):
            rendered.append(start)
            if start == 6 * chunk:
                assert started.wait(20)  # or nothing was encoded before the end
            yield torch.full((chunk, 32, 48, 3), 128, dtype=torch.uint8)

    def write(pictures, path, *args, **options):
        for picture in pictures:
            seen.append((len(rendered), threading.current_thread() is threading.main_thread()))
            started.set()
            assert picture.dtype == np.uint8 and (picture == 128).all()
        path.touch()

    monkeypatch.setattr(film, "render_bytes", chunks)
    monkeypatch.setattr(film, "write_video", write)
    film_of(model(), paths.orbit(40, **SMALL), tmp_path / "a.mp4", chunk=4)
    assert len(seen) == 40 and not any(main_thread for _, main_thread in seen)
    assert seen[0][0] < 7
    # No more chunks in memory than: two that wait, one that is encoded, one that waits to wait.
    assert all(ahead <= index // 4 + 4 for index, (ahead, _) in enumerate(seen))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_broken_rendering_leaves_what_was_there(tmp_path, monkeypatch, error):
    out = film_of(model(), paths.recipe("arc", frames=4, **SMALL), tmp_path / "a.mp4")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def chunks(_, cameras, *, chunk):
        yield from render_bytes(model(), cameras[:chunk])
        raise error("broke off")

    monkeypatch.setattr(film, "render_bytes", chunks)
    with pytest.raises(error, match="broke off"):
        film_of(model(), paths.recipe("arc", frames=40, **SMALL), out, chunk=2)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_broken_encoder_ends_the_rendering(tmp_path, monkeypatch):
    rendered = []

    def write(pictures, path, *args, **options):
        next(pictures)
        raise OutputError("the disk is full")

    def chunks(_, cameras, *, chunk):
        for start in range(0, len(cameras), chunk):
            rendered.append(start)
            yield torch.ones(chunk, 8, 8, 3, dtype=torch.uint8)

    monkeypatch.setattr(film, "write_video", write)
    monkeypatch.setattr(film, "render_bytes", chunks)
    with pytest.raises(OutputError, match="disk is full"):
        film_of(model(), paths.orbit(4000, **SMALL), tmp_path / "a.mp4", chunk=4)
    assert len(rendered) < 100 and not manifest_path(tmp_path / "a.mp4").exists()


def test_the_background_is_as_asked(tmp_path):
    path = paths.recipe("arc", frames=2, **SMALL)
    for color in ((0, 0, 0), (0.2, 0.6, 1.0)):
        corner = frames(film_of(model(), path, tmp_path / "a.mp4", background=color))[:, :4, :4]
        assert np.abs(corner - 255 * np.array(color)).max() < 6
        assert manifest(tmp_path / "a.mp4")["runs"][0]["background"] == list(color)


def test_a_ply_and_a_model_file_can_be_filmed(tmp_path):
    still = model(motion=Static())
    path = paths.recipe("arc", frames=3, **SMALL)
    write_ply(still.gaussians, tmp_path / "scene.ply")
    still.save(tmp_path / "model.safetensors")
    videos = [
        film_of(what, path, tmp_path / f"{index}.mp4").read_bytes()
        for index, what in enumerate((still, tmp_path / "scene.ply", str(tmp_path / "model.safetensors")))
    ]
    assert videos[0] == videos[1] == videos[2]
    assert manifest(tmp_path / "1.mp4")["runs"][0]["name"] == "scene"


# --- lengths and sound ---


@pytest.mark.parametrize("name", ["orbit", "arc"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_narration_sets_the_length_and_the_end_leads_to_the_beginning(tmp_path, name, plain):
    path = paths.recipe(name, frames=30, **SMALL)
    audio = tone(tmp_path / "voice.wav", 2.43)
    out = film_of(model(), path.cameras() if plain else path, tmp_path / "a.mp4", 20, audio=audio)
    pictures = frames(out)
    assert len(pictures) == 49  # 2.43 s at 20: rounded up, so that no sound is lost
    steps = [difference(a, b) for a, b in zip(pictures[:-1], pictures[1:], strict=True)]
    assert difference(pictures[-1], pictures[0]) <= 1.2 * max(steps)
    assert max(steps) < 0.5 * difference(pictures[0], pictures[24])  # or anything would be a small step
    assert sound_duration(out) == pytest.approx(2.45, abs=0.03)
    about = manifest(out)
    assert about["fit"] == "auto" and about["audio"]["duration_s"] == pytest.approx(2.43, abs=1e-3)
    assert about["audio"]["file"] == "voice.wav" and about["audio"]["sha256"] == hash_file(audio)


def test_a_palindrome_comes_back_the_way_it_went(tmp_path):
    out = film_of(model(), paths.recipe("dolly", frames=10, **SMALL), tmp_path / "a.mp4", 10, duration_s=2.0)
    pictures = frames(out)
    assert len(pictures) == 20
    for k in (1, 2, 3, 7, 8, 9):
        assert difference(pictures[k], pictures[20 - k]) < 0.3 * difference(pictures[k], pictures[(k + 10) % 20])


def test_a_duration_of_its_own_beats_that_of_the_audio(tmp_path):
    audio = tone(tmp_path / "a.wav", 1.0)
    path = paths.recipe("arc", frames=10, **SMALL)
    assert len(frames(film_of(model(), path, tmp_path / "a.mp4", 10, audio=audio, duration_s=3.0))) == 30
    assert len(frames(film_of(model(), path, tmp_path / "b.mp4", 10, audio=audio))) == 10
    assert len(frames(film_of(model(), path, tmp_path / "c.mp4", 10))) == 10


@pytest.mark.parametrize("seconds, rate", [(0.5, 8000), (1.2345, 44100), (2.0, 48000)])
def test_sound_is_counted(tmp_path, seconds, rate):
    assert sound_duration(tone(tmp_path / "a.wav", seconds, rate)) == pytest.approx(seconds, abs=1.5 / rate)
    # As MP4: AAC comes in whole frames of 1024 samples, the first one ahead of time.
    pictures = np.zeros((round(seconds * 30) + 1, 8, 8, 3), np.uint8)
    write_video(pictures, tmp_path / "a.mp4", 30, audio=tmp_path / "a.wav", progress=False)
    assert sound_duration(tmp_path / "a.mp4") == pytest.approx(seconds, abs=0.3)


def test_a_header_that_lies_does_not_set_the_length(tmp_path):
    data = bytearray(tone(tmp_path / "a.wav", 1.0).read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (2**31 - 1).to_bytes(4, "little")  # what a recorder that was cut off leaves
    (tmp_path / "a.wav").write_bytes(bytes(data))
    assert sound_duration(tmp_path / "a.wav") == pytest.approx(1.0, abs=0.01)


def test_files_without_sound_are_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound at all")
    silent = write_video(np.zeros((3, 8, 8, 3), np.uint8), tmp_path / "silent.mp4", progress=False)
    for file in (tmp_path / "a.wav", silent, tmp_path / "none.wav", tmp_path):
        with pytest.raises(InputError, match="audio"):
            film_of(model(), "arc", tmp_path / "a.mp4", audio=file)
    with pytest.raises(InputError, match="no sound"):
        sound_duration(tone(tmp_path / "empty.wav", 0))
    assert not (tmp_path / "a.mp4").exists()


# --- side by side ---


def test_columns_are_the_runs_under_their_labels(tmp_path):
    path = paths.recipe("arc", frames=4, **SMALL)
    both = frames(film_of({"left": model(0), "right": model(1)}, path, tmp_path / "a.mp4", quality=4))
    height, width = both.shape[1:3]
    assert (width, height % 2) == (2 * 48 + GAP, 0) and 32 < height < 60
    for index, seed in enumerate((0, 1)):
        left = index * (48 + GAP)
        alone = (render(model(seed), path.cameras()).rgb.clamp(0, 1) * 255).round().numpy()
        other = (render(model(1 - seed), path.cameras()).rgb.clamp(0, 1) * 255).round().numpy()
        shown = both[:, -32:, left : left + 48]
        assert difference(shown, alone) < 0.2 * difference(shown, other)
        strip = both[0, : height - 32, left : left + 48]
        assert strip.min() < 140 and strip.mean() > 180  # dark letters on white
    assert (both[:, :, 48 : 48 + GAP].astype(int) > 200).all()
    assert manifest(tmp_path / "a.mp4")["labels"] == ["left", "right"]


def test_labels_are_by_default_the_names_of_the_runs(tmp_path, run):
    film_of([run, run.path, model()], paths.recipe("arc", frames=2, **SMALL), tmp_path / "a.mp4")
    about = manifest(tmp_path / "a.mp4")
    assert about["labels"] == ["ball", "ball", "model"]
    assert about["runs"][0]["model"] == about["runs"][1]["model"] != about["runs"][2]["model"]


def test_a_strip_names_its_columns():
    strip = label_strip(["one", "три"], 90, 101)
    assert strip.shape[1] == 2 * 90 + GAP and (strip.shape[0] + 101) % 2 == 0
    left, right = strip[:, :90], strip[:, 90 + GAP :]
    for column in (left, right):
        dark = np.flatnonzero((column < 128).any(axis=(0, 2)))
        assert len(dark) > 5 and abs((dark[0] + dark[-1]) / 2 - 44.5) < 4  # in the middle
    assert not np.array_equal(left, right)
    # Letters that a font lacks all look the same.
    assert not np.array_equal(label_strip(["три"], 90, 101), label_strip(["жук"], 90, 101))
    for label in ("", "a name far too long for so narrow a column, at any size of its letters"):
        strip = label_strip([label], 60, 50)
        assert strip.shape[1] == 60 and (strip[:, :3] > 250).all() and (strip[:, -3:] > 250).all()


def test_hstack_keeps_pictures_as_they_are():
    a, b = (np.random.default_rng(k).integers(0, 255, (2, 6, 5, 3), np.uint8) for k in range(2))
    assert hstack([a]) is a
    row = hstack([a, b], np.zeros((4, 10 + GAP, 3), np.uint8))
    assert row.shape == (2, 10, 10 + GAP, 3) and not row[:, :4].any()
    assert np.array_equal(row[:, 4:, :5], a) and np.array_equal(row[:, 4:, -5:], b) and (row[:, 4:, 5:-5] == 255).all()


# --- framing ---


@pytest.mark.parametrize("up", [(0, 1, 0), (0, 0, 1), (0.6, 0.0, 0.8)])
@pytest.mark.parametrize("elevation_deg", [0.0, 35.0])
def test_framing_finds_target_up_radius_and_lens(tmp_path, up, elevation_deg):
    angles = np.radians(np.arange(7) * 40.0)
    elevations = np.radians(elevation_deg) + 0.2 * np.sin(3 * angles)
    cameras = on_sphere(angles, elevations, 3.0, target=(1, 2, 3), up=up, fov_x_deg=27, width=24, height=24, times=None)
    found = framing(ball_capture(tmp_path, cameras))
    assert found["target"] == pytest.approx([1, 2, 3], abs=1e-3)
    assert found["up"] == pytest.approx(list(up), abs=1e-3)
    assert (found["radius"], found["fov_x_deg"]) == pytest.approx((3, 27), abs=1e-3)
    framed = paths.recipe("orbit", frames=5).framed(**found).cameras()
    distance = (framed.positions - torch.tensor([1.0, 2.0, 3.0])).norm(dim=-1)
    assert distance.tolist() == pytest.approx([3] * 5, abs=1e-3)


def test_framing_of_one_camera_is_that_camera(tmp_path):
    camera = Cameras.look_at([0.0, 1.0, 4.0], (0.0, 1.0, 0.0), fov_x_deg=30, width=24, height=24)
    found = framing(ball_capture(tmp_path, camera))
    assert found["up"] == pytest.approx([0, 1, 0], abs=1e-5)
    assert all(math.isfinite(value) for value in [*found["target"], found["radius"], found["fov_x_deg"]])


# --- faults ---


def test_faults_are_named(tmp_path, run):
    def fails(text, runs=None, cameras="arc", path="a.mp4", **options):
        with pytest.raises(InputError, match=text):
            film_of(runs if runs is not None else model(), cameras, tmp_path / path, **options)

    fails("no run", runs=[])
    fails("there is no run here", runs=tmp_path)
    fails("is a int", runs=3)
    fails("one for each run", runs=[run, run], labels=["one"])
    fails("one for each run", labels="one")
    fails("background", background=(0, 0))
    fails("background", background=(0, 0, 255))
    fails("orbit, spiral, dolly", cameras="helix")
    fails("cameras", cameras=3)
    fails("no camera", cameras=paths.orbit(3)[[]])
    fails("name it something.mp4", path="a.avi", cameras=paths.recipe("arc", frames=2, **SMALL))
    fails("fps", fps=-1, cameras=paths.recipe("arc", frames=2, **SMALL))
    fails("fps", fps="fast")
    fails("chunk", chunk=0)
    fails("fit", fit="wobble", duration_s=2)
    fails("come back", fit="loop", duration_s=2)
    fails("positive", duration_s=0)
    mixed = Cameras.concatenate([paths.orbit(1, **SMALL), paths.orbit(1, width=20, height=20)])
    fails("different width", cameras=mixed)
    assert not list(tmp_path.glob("*.mp4*"))
    with pytest.raises(OutputError):
        (tmp_path / "file").touch()
        film_of(model(), paths.recipe("arc", frames=2, **SMALL), tmp_path / "file/a.mp4")


# --- the command line ---


def test_the_command_line(tmp_path, run, capsys):
    out = tmp_path / "a.mp4"
    sizes = ["--size", "48", "32", "--fov", "40", "--out", str(out), "--fps", "10"]
    assert main([str(run.path), "--path", "spiral", "--frames", "5", *sizes]) == 0
    assert "5 frames of 48x32, 0.5 s" in capsys.readouterr().out
    assert manifest(out)["path"]["name"] == "spiral"
    file = paths.recipe("tilt", frames=4).save(tmp_path / "path.json")
    audio = str(tone(tmp_path / "a.wav", 1.0))
    more = ["--path", str(file), "--times", "0.5", "--elevation", "12", "--audio", audio, "--easing", "smooth"]
    assert main([str(run.path), str(run.path), "--labels", "a", "b", "--background", "0", "0", "0", *more, *sizes]) == 0
    about = manifest(out)
    assert (about["frames"], about["path"]["times"], about["path"]["elevation_deg"]) == (10, 0.5, [12, 12])
    assert about["labels"] == ["a", "b"] and about["path"]["easing"] == "smooth"
    capsys.readouterr()
    for wrong in (["--path", "helix"], ["--times", "sometimes"], ["--size", "3", "4", "5"], ["--frames", "0"]):
        assert main([str(run.path), *sizes, *wrong]) == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert main([str(tmp_path / "none"), *sizes]) == 1


def test_the_module_runs_without_a_word(tmp_path, run):
    command = [sys.executable, "-m", "fourdgs.media", str(run.path), "--frames", "2", "--size", "32"]
    done = subprocess.run([*command, "--out", str(tmp_path / "a.mp4")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Warning" not in done.stderr and "Traceback" not in done.stderr
    assert len(frames(tmp_path / "a.mp4")) == 2
