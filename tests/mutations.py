"""Mutations of files for the fuzz tests: random, seeded, and aware of what the files mean."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

NUMBERS = [0, -1, 1, 2, 0.5, 1e-320, -1e308, 1e308, 1e30, 10**30, 10**400, 2**63, float("nan"), float("inf"), -0.0]
WORDS = ["", " ", "x", "\0", "\ud800", "0.5", "null", "é" * 20, "x" * 100_000, "a" * 5000 + ".png", "\n\r\t", "OPENCV"]
KINDS = [None, True, False, [], {}, [[]], [None], [1, 2, 3], [[1, 0, 0, 0]] * 4, {"data": [1], "rows": 1, "cols": 1}]
KEYS = {
    "k1": [0.1, -0.3, 1e9, -1e300],
    "k2": [0.05, -5],
    "k4": [0.1],
    "p1": [0.01, 3],
    "camera_model": ["OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "SIMPLE_RADIAL", "EQUIRECTANGULAR", "PINHOLE"],
    "is_fisheye": [True, 1],
    "aabb_scale": [1, 16],
    "weight": [2, 0, -1],
    "time": [0, 1, 0.3, 1.5],
    "w": [12, 13, 1e9],
    "camera_angle_x": [0.5, 3.2, 1e-300],
    "fl_x": [1e-9, 12, 1e12],
    "cx": [-1e7, 5],
    "test_filenames": [["images/r_1.png"], ["gone"], [["images/r_1.png"]], "images/r_1.png"],
    "train_filenames": [["images/r_0.jpg"], []],
    "frame_id": ["same", "", "../up"],
    "mask_path": ["images/r_1.png", "mask.png"],
    "source": ["clip", "\ud800"],
    "distortion_coefficients": [[0.1, 0, 0, 0], [-1e9] * 4, [0.1] * 20],
    "fisheye": [True, "yes"],
    "convention": ["opengl", "colmap"],
    "split": ["test", "holdout"],
    "fov": [40, 0.6, 400],
}


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: (container, key)."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [slot for key in keys for slot in [(value, key), *slots(value[key])]]


def mutate(content: Any, rng: random.Random, paths: list[str]) -> Any:
    """A JSON value with one to three values replaced, removed, doubled, swapped or added."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = slots(content)
        if not places:
            return content
        # Most places of a file are numbers of a pose; most of what can go wrong is not.
        fields = [place for place in places if isinstance(place[0], dict)]
        box, key = rng.choice(fields if fields and rng.random() < 0.7 else places)
        paths_here = [place for place in places if place[1] in ("file_path", "mask_path", "video", "images", "name")]
        action = rng.randrange(8)
        if action == 0:
            box[key] = rng.choice(NUMBERS)
        elif action == 1:
            box[key] = rng.choice(WORDS)
        elif action == 2:
            box[key] = copy.deepcopy(rng.choice([*KINDS, "DEEP 3", "DEEP 200", "DEEP 900"]))
        elif action == 3 and paths_here:
            box, key = rng.choice(paths_here)
            box[key] = rng.choice(paths)
        elif action == 4:
            del box[key]
        elif action == 5 and isinstance(box, list):
            box.insert(rng.randrange(len(box) + 1), copy.deepcopy(box[key]))
        elif action == 6:
            other, name = rng.choice(places)
            box[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(box[key])
        else:
            boxes = [place for place, _ in places if isinstance(place, dict)]
            if boxes:
                name = rng.choice(sorted(KEYS))
                rng.choice(boxes)[name] = copy.deepcopy(rng.choice(KEYS[name]))
    return content


def garble(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut short, with bits flipped, bytes overwritten, a piece doubled or removed, or none of it left."""
    if not data:
        return b"\0"
    at, action = rng.randrange(len(data)), rng.randrange(6)
    if action == 0:
        return data[:at]
    if action == 1:
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 3, 20])):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if action == 2:
        return data[:at] + rng.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7]) + data[at + 8 :]
    if action == 3:
        return data[:at] + data[max(0, at - 20) :]
    if action == 4:
        return data[:at] + data[at + rng.randrange(1, 30) :]
    return rng.randbytes(rng.randrange(200))


def encode(content: Any, rng: random.Random) -> bytes:
    """A JSON value as a file, now and then in a way that no JSON is."""
    text = json.dumps(content)
    for depth in (3, 200, 900):  # a list in a list in a list
        text = text.replace(f'"DEEP {depth}"', "[" * depth + "]" * depth)
    action = rng.randrange(24)
    if action == 0:
        return text.encode("utf-16")
    if action == 1:
        return json.dumps(content, ensure_ascii=False).replace("a", "\xe9").encode("latin-1", "replace")
    if action == 2:
        return b"\xef\xbb\xbf" + text.encode()
    if action == 3:
        return text.replace('"frames"', '"frames": [], "frames"', 1).encode()
    if action == 4:
        return text.replace('"time": ', '"time": 7, "time": ').encode()
    if action == 5:
        return b"[" * 100_000 + text.encode()
    if action == 6:
        return text.replace("0.5", "9" * 6000).encode()
    if action == 7:
        return text.encode() + b"\n{}"
    if action == 8:
        return garble(text.encode(), rng)
    return text.encode()
