"""Damaged captures: each loads, pictures and all, or is one InputError; none hangs, none reads a file outside."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from captures import HEIGHT, WIDTH, good_content, save_picture
from mutations import encode, garble, mutate
from PIL import Image

from fourdgs.cameras import orbit
from fourdgs.data.load import load_capture
from fourdgs.errors import InputError

LIMIT_S = 2.0
PATHS = [
    "images/r_1",
    "./images//r_1.png",
    "images\\r_1.png",
    "images/../images/r_1.png",
    "../secret.png",
    "images/../../secret.png",
    "..\\secret.png",
    "/secret.png",
    "C:\\secret.png",
    "~/secret.png",
    "file:///secret.png",
    "link.png",
    "folder/secret.png",
    "loop.png",
    "pipe.png",
    "images",
    ".",
    "..",
    "/dev/zero",
    "/dev/stdin",
    "transforms.json",
]
OPENED: set[str] = set()
WATCHING = [False]


def _watch(event: str, arguments: tuple) -> None:
    if WATCHING[0] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED.add(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_watch)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A good capture's folder, with everything beside and inside it that must not be read."""
    save_picture(tmp_path / "secret.png")
    (tmp_path / "outside").mkdir()
    save_picture(tmp_path / "outside/secret.png")
    root = tmp_path / "capture"
    save_picture(root / "mask.png", 3, "L")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    return root


class Outcomes(Counter):
    """Loads one capture after another, and counts what came of it."""

    def load(self, folder: Path, name: str, **options) -> None:
        OPENED.clear()
        start = time.process_time()  # of the processor: other programs do not count
        WATCHING[0] = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                capture = load_capture(folder, **options)
                for row in range(len(capture)):
                    capture.picture(row)
            outcome = "loads"
            homes = [folder.resolve(), (folder.parent / "cache").resolve()]  # frames of videos are put there
            for path in [*capture.frames.image, *capture.frames["mask"]]:
                inside = any(Path(path).resolve().is_relative_to(home) for home in homes)
                assert not path or inside, f"{name}: {path}"
            values = [capture.cameras.Ks, capture.cameras.viewmats]
            assert all(bool(value.isfinite().all()) for value in values), f"{name}: cameras that are not finite"
        except InputError as error:
            outcome = "error"
            assert error.file is not None and str(error).startswith(str(error.file)), f"{name}: {error}"
            assert Path(error.file).resolve().is_relative_to(folder.resolve()), f"{name}: {error}"
            assert error.field or "JSON" in str(error) or "cannot be read" in str(error), f"{name}: {error}"
            assert len(str(error)) < 3000, f"{name}: an error of {len(str(error))} characters"
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        finally:
            WATCHING[0] = False
        used = time.process_time() - start
        assert used < LIMIT_S, f"{name} took {used:.1f} s"
        secrets = {path for path in OPENED if "secret" in path}
        assert not secrets, f"{name} opened {secrets}"
        self[outcome] += 1


def test_the_watch_sees_what_is_opened(folder):
    WATCHING[0] = True
    Image.open(folder / "link.png").close()
    WATCHING[0] = False
    assert {path for path in OPENED if "secret" in path}
    OPENED.clear()


def test_500_mutated_transforms(folder):
    content = good_content(folder)
    Image.open(folder / "images/r_0.png").save(folder / "images/r_0.jpg")
    content["frames"][0]["file_path"] = "images/r_0.jpg"
    content["frames"][1]["mask_path"] = "mask.png"
    outcomes = Outcomes()
    for seed in range(500):
        rng = random.Random(seed)
        changed = mutate(content, rng, [*PATHS, str(folder / "images/r_1.png"), str(folder.parent / "secret.png")])
        (folder / "transforms.json").write_bytes(encode(changed, rng))
        outcomes.load(folder, f"seed {seed}")
    # Both happen often, or the mutations say nothing.
    assert outcomes["loads"] > 50 and outcomes["error"] > 200, outcomes


def test_mutated_pictures(folder, tmp_path):
    content = good_content(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    kinds = {"a.png": "RGBA", "b.png": "P", "c.jpg": "RGB", "d.webp": "RGBA", "e.jpg": "L", "f.png": "LA"}
    outcomes = Outcomes()
    for name, mode in kinds.items():
        Image.fromarray(pixels).convert(mode).save(folder / name)
        whole = (folder / name).read_bytes()
        content["frames"] = [content["frames"][0] | {"file_path": name}]
        (folder / "transforms.json").write_text(json.dumps(content))
        for seed in range(40):
            (folder / name).write_bytes(garble(whole, random.Random(seed)))
            outcomes.load(folder, f"{name} seed {seed}")
    assert outcomes["loads"] > 10 and outcomes["error"] > 100, outcomes


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG whose header promises much and whose data is a few bytes."""
    header = chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(100_000, 100_000), "cannot be read as a picture"),
        (png(9000, 9000), "at most 67,108,864 pixels"),
        (png(2**31 - 1, 2**31 - 1), "cannot be read as a picture"),
        (png(WIDTH, HEIGHT, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))), "cannot be read as a picture"),
        (png(WIDTH, HEIGHT, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))), "cannot be read as a picture"),
    ],
    ids=["100,000 wide", "9000 wide", "2^31 wide", "text", "profile"],
)
def test_bombs_are_refused(folder, data, words):
    content = good_content(folder)
    (folder / "transforms.json").write_text(json.dumps(content))
    (folder / "images/r_1.png").write_bytes(data)
    outcomes = Outcomes()
    outcomes.load(folder, words)
    assert outcomes["error"] == 1
    with pytest.raises(InputError, match=words):
        load_capture(folder).image(2)


def test_mutated_cameras_json(folder):
    cameras = orbit(3, width=WIDTH, height=HEIGHT)
    records = [
        {"name": name, "images": f"views/{name}", "K": cameras.Ks[0].tolist(), "w2c": view, "width": WIDTH}
        for name, view in zip("abc", cameras.viewmats.double().tolist(), strict=True)
    ]
    for name in "abc":
        for number in range(2):
            save_picture(folder / f"views/{name}/{number}.png")
    content = {"convention": "opencv", "cameras": records}
    paths = [*PATHS, "folder", "views/a", "views", str(folder.parent / "outside"), "../outside", "images/../../outside"]
    outcomes = Outcomes()
    for seed in range(150):
        rng = random.Random(seed)
        (folder / "cameras.json").write_bytes(encode(mutate(content, rng, paths), rng))
        outcomes.load(folder, f"seed {seed}", missing=rng.choice([None, "skip"]))
    assert outcomes["loads"] > 15 and outcomes["error"] > 60, outcomes


def test_mutated_videos(folder, monkeypatch):
    pytest.importorskip("av")
    from fourdgs.data.video import write_video

    monkeypatch.setenv("FOURDGS_CACHE", str(folder.parent / "cache"))
    clip = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    whole = write_video(clip, folder / "a.mp4", progress=False).read_bytes()
    record = {"name": "a", "fov": 40, "w2c": np.eye(4).tolist(), "video": "a.mp4", "convention": "opencv"}
    (folder / "cameras.json").write_text(json.dumps([record]))
    outcomes = Outcomes()
    for seed in range(40):
        (folder / "a.mp4").write_bytes(garble(whole, random.Random(seed)))
        outcomes.load(folder, f"seed {seed}")
    assert outcomes["loads"] > 5 and outcomes["error"] > 5, outcomes


def test_mutated_calibrations(folder):
    pytest.importorskip("yaml")
    for name in "ab":
        save_picture(folder / f"{name}/0.png")
    cameras = {
        name: {
            "camera_matrix": [[10.0, 0.0, 6.0], [0.0, 10.0, 4.0], [0.0, 0.0, 1.0]],
            "distortion_coefficients": [0.05, 0.01, 0.0, 0.0],
            "R": [0.1, 0.2, 0.3],
            "T": [0.0, 0.0, 4.0],
            "image_size": [WIDTH, HEIGHT],
        }
        for name in "ab"
    }
    toml = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in camera.items())
        for name, camera in cameras.items()
    )
    outcomes = Outcomes()
    for seed in range(120):
        rng = random.Random(seed)
        kind = ("toml", "yml", "json")[seed % 3]
        whole = encode(mutate(cameras, rng, PATHS), rng) if kind == "json" else toml.encode()
        if kind == "yml":  # JSON is YAML
            whole = b"%YAML:1.0\n---\n" + encode(mutate(cameras, rng, PATHS), random.Random(0x5EED)).strip()
        if kind == "toml":
            whole = garble(whole, rng)
        file = folder / f"calib.{kind}"
        file.write_bytes(whole[:100_000])
        outcomes.load(folder, f"{kind} seed {seed}")
        file.unlink()
    assert outcomes["loads"] > 5 and outcomes["error"] > 60, outcomes


@pytest.mark.parametrize("text", [False, True])
def test_mutated_colmap(folder, text):
    pytest.importorskip("pycolmap")
    from test_colmap import reconstruct

    reconstruct(folder, text=text)
    extension = "txt" if text else "bin"
    sparse, outcomes = folder / "sparse/0", Outcomes()
    shutil.copytree(sparse, folder / "good")
    for seed in range(60):
        rng = random.Random(seed)
        name = rng.choice(["cameras", "images", "images", "points3D", "frames"])
        whole = (folder / f"good/{name}.{extension}").read_bytes()
        (sparse / f"{name}.{extension}").write_bytes(garble(whole, rng))
        outcomes.load(folder, f"{name}.{extension} seed {seed}", missing=rng.choice([None, "skip"]))
        shutil.copyfile(folder / f"good/{name}.{extension}", sparse / f"{name}.{extension}")
    assert outcomes["loads"] > 5 and outcomes["error"] > 15, outcomes
