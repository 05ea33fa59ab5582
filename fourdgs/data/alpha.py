"""The embedded capture `alpha`: twelve orbit stills, a talking clip, a grid, and ground truth kept for testing.

What it holds (D-NeRF files, pictures in ``<split>/<source>/``):

- ``orbit``: 12 stills of the still avatar, 30 degrees apart; 10 of split train, 2 of split val; no time.
- ``clip``: 121 frames at the front camera of the orbit, talking, on a studio backdrop and graded with another white
  balance and a gamma, as generated clips are; opaque. ``clip_plate.png`` is the empty backdrop.
- ``clip_clean``: the same frames, RGBA, as the orbit was shot.
- ``grid``: cameras x times, talking, RGBA.
- ``still`` and ``talking`` (split test): 24 views of the still avatar between and off the orbit; 12 other cameras x 5
  times talking.

The recipe is hashed into ``recipe.json``: a folder that holds the same recipe is not made again, and one whose making
was interrupted, by a kill too, is gone on with (see `streaming`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import cameras as _cameras
from ..cameras import Cameras
from ..errors import InputError, command_line
from ..files import hash_json, write_json
from ..pictures import composite, to_8_bits
from . import avatar as _avatar
from .streaming import growing_folder, is_whole, stream_pictures, write_png

VERSION = 1
"""Counts up whenever the same recipe would give other pictures."""

FULL_GRID = (24, 60)
THIN_GRID = (12, 10)

RADIUS = 4.0
FOV_X_DEG = 30.0  # the ball that holds the avatar spans 28.4 degrees at this radius
ORBIT_ELEVATION_DEG = 10.0
VALIDATION = (4, 9)
"""Orbit views kept out of training."""

CLIP_FRAMES = 121
CLIP_GAINS = (1.12, 0.97, 0.82)
CLIP_GAMMA = 0.93
_PNG = {"compress_level": 4}
"""Kept, like the mipmaps, as it was first: a capture is known by the bytes of its pictures."""

_TALKING_ELEVATIONS_DEG = (-5.0, 5.0, 15.0, 25.0, 0.0, 20.0)


@dataclass(frozen=True)
class _Source:
    """Pictures of one source: where from, when, and under which split."""

    name: str
    split: str
    cameras: Cameras
    names: tuple[str, ...]  # of the cameras, row by row
    numbers: tuple[int, ...] = ()  # of the files, where they do not count from 0


def make_alpha(
    folder: str | Path = "data/alpha",
    size: int = 128,
    seed: int = 0,
    grid: tuple[int, int] = THIN_GRID,
    progress: bool = True,
) -> Path:
    """Make the capture, or find it made.

    Args:
        folder: there when it is whole; until then the pictures are in ``<folder>.part``, where an interrupted making
            goes on. A folder, or a part, with another recipe of this capture is replaced.
        size: width and height of the pictures, pixels.
        seed: of the avatar and its performance.
        grid: (cameras, times) of the source ``grid``; `FULL_GRID` is the story's.
        progress: show bars.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, or a number cannot be.
        MissingDependency: anny, pyvista or an off-screen OpenGL is missing.
        OutputError: the folder cannot be written or the disk is full.
    """
    folder, grid = Path(folder), (int(grid[0]), int(grid[1]))
    if int(size) < 16:
        raise InputError(f"is {size}, must be at least 16 pixels", field="size")
    if min(grid) < 1:
        raise InputError(f"is {grid}, must be (cameras, times), each at least 1", field="grid")
    recipe = alpha_recipe(int(size), int(seed), grid)
    if _is_made(folder, recipe):
        return folder
    with growing_folder(folder, recipe, "alpha", overwrite=True, progress=progress) as part:
        subject = _avatar.build(int(seed))
        sources = _sources(int(size), grid)
        _shoot(subject, sources, part, progress)
        for split in ("train", "val", "test"):
            _write_split(part, split, [source for source in sources if source.split == split])
    return folder


def alpha_recipe(size: int, seed: int, grid: tuple[int, int]) -> dict[str, Any]:
    """All that the pictures depend on, as JSON."""
    return {
        "alpha": VERSION,
        "avatar": _avatar.recipe(seed),
        "size": size,
        "grid": list(grid),
        "radius": RADIUS,
        "fov_x_deg": FOV_X_DEG,
        "orbit_elevation_deg": ORBIT_ELEVATION_DEG,
        "validation": list(VALIDATION),
        "clip": {"frames": CLIP_FRAMES, "gains": list(CLIP_GAINS), "gamma": CLIP_GAMMA},
    }


def studio(size: int) -> np.ndarray:
    """The clip's empty backdrop [size, size, 3], float32 sRGB, before grading: a lit teal wall with dark corners."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size + 0.5 / size
    wall = np.array([0.20, 0.36, 0.38], np.float32) + (0.55 - y)[..., None] * np.array([0.10, 0.12, 0.16], np.float32)
    glow = np.exp(-((x - 0.66) ** 2 + (y - 0.36) ** 2) / 0.09)[..., None]
    wall = wall + glow * np.array([0.20, 0.16, 0.10], np.float32)
    floor = 1 / (1 + np.exp(-(y - 0.86) / 0.03))[..., None]
    wall = wall + floor * (np.array([0.24, 0.21, 0.20], np.float32) - wall) * 0.7
    vignette = 1 - 0.55 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)[..., None] / 0.5
    return np.clip(wall * vignette, 0, 1)


def grade(rgb: np.ndarray) -> np.ndarray:
    """The clip's look: channel gains, then a gamma, on float sRGB in [0, 1]."""
    return np.clip(rgb * np.asarray(CLIP_GAINS, rgb.dtype), 0, 1) ** CLIP_GAMMA


# --- cameras -----------------------------------------------------------------------------------------------------


def _at(azimuths_deg: Any, elevations_deg: Any, size: int, times: Any = None) -> Cameras:
    """Cameras on the sphere of radius `RADIUS`; azimuth 0 looks at the face, growing towards +x."""
    azimuth, elevation = np.radians(np.broadcast_arrays(azimuths_deg, elevations_deg))
    level = np.cos(elevation)
    positions = RADIUS * np.stack([level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)], axis=-1)
    return Cameras.look_at(positions, fov_x_deg=FOV_X_DEG, width=size, height=size, times=times)


def _sources(size: int, grid: tuple[int, int]) -> list[_Source]:
    orbit = _cameras.orbit(12, RADIUS, ORBIT_ELEVATION_DEG, fov_x_deg=FOV_X_DEG, width=size, height=size)
    kept = [index for index in range(12) if index not in VALIDATION]
    clip = orbit[[0] * CLIP_FRAMES].with_times(np.arange(CLIP_FRAMES) / (CLIP_FRAMES - 1))
    front = ("orbit00",) * CLIP_FRAMES

    views, moments = grid
    # Testing looks from azimuths 15 + 30 k. Modulo 30 the grid's azimuths lie 30 / (views / gcd) apart; the offset puts
    # 15 in the middle between two of them.
    azimuths = 360 * np.arange(views) / views + 15 - 15 * math.gcd(views, 12) / views
    elevations = np.where(np.arange(views) % 2 == 0, 2.0, 20.0)
    moments_at = np.linspace(0, 1, moments) if moments > 1 else np.array([0.5])
    grid_cameras = _at(np.repeat(azimuths, moments), np.repeat(elevations, moments), size, np.tile(moments_at, views))
    between = 15 + 30 * np.arange(12)
    still = _at(
        np.concatenate([between, between - 9]),
        np.concatenate([np.full(12, ORBIT_ELEVATION_DEG), np.tile((-4.0, 24.0), 6)]),
        size,
    )
    times = (np.arange(5) + 0.5) / 5 + 1 / 240  # between the clip's frames
    talking = _at(np.repeat(between, 5), np.repeat(np.tile(_TALKING_ELEVATIONS_DEG, 2), 5), size, np.tile(times, 12))
    return [
        _Source("orbit", "train", orbit[kept], _numbered("orbit", kept), tuple(kept)),
        _Source("orbit", "val", orbit[list(VALIDATION)], _numbered("orbit", VALIDATION), VALIDATION),
        _Source("clip_clean", "train", clip, front),
        _Source("clip", "train", clip, front),
        _Source("grid", "train", grid_cameras, _numbered("grid", np.repeat(np.arange(views), moments))),
        _Source("still", "test", still, _numbered("still", range(24))),
        _Source("talking", "test", talking, _numbered("talking", np.repeat(np.arange(12), 5))),
    ]


def _numbered(name: str, numbers: Any) -> tuple[str, ...]:
    return tuple(f"{name}{number:02d}" for number in numbers)


# --- pictures and files ------------------------------------------------------------------------------------------


def _file_path(source: _Source, row: int) -> str:
    number = source.numbers[row] if source.numbers else row
    return f"{source.split}/{source.name}/{number:04d}"


def _shoot(subject: Any, sources: list[_Source], folder: Path, progress: bool) -> None:
    """Draw and write the pictures that are missing. The clip is graded from the drawing of the clean one."""
    drawn = [source for source in sources if source.name != "clip"]
    clip = next(source for source in sources if source.name == "clip")
    plate = studio(clip.cameras.width)
    if not is_whole(folder / "clip_plate.png", (clip.cameras.width, clip.cameras.height)):
        write_png(folder / "clip_plate.png", to_8_bits(grade(plate)), _PNG)
    rows = [(source, row) for source in drawn for row in range(len(source.cameras))]

    def files(source: _Source, row: int) -> list[str]:
        return [f"{_file_path(one, row)}.png" for one in ([source, clip] if source.name == "clip_clean" else [source])]

    def develop(index: int, picture: np.ndarray) -> list[np.ndarray]:
        return [picture, _on_stage(picture, plate)] if rows[index][0].name == "clip_clean" else [picture]

    everything = Cameras.concatenate([source.cameras for source in drawn])
    stream_pictures(
        subject, everything, [files(*row) for row in rows], folder, develop=develop, png=_PNG, progress=progress,
        description=folder.name.removesuffix(".part"), mipmaps=True,
    )  # fmt: skip


def _on_stage(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """An RGBA picture [H, W, 4] before the backdrop, graded: [H, W, 3] uint8."""
    values = picture.astype(np.float32) / 255
    return to_8_bits(grade(composite(values[..., :3], values[..., 3], plate)))


def _write_split(folder: Path, split: str, sources: list[_Source]) -> None:
    frames = []
    for source in sources:
        poses = source.cameras.to_opengl().tolist()
        times = source.cameras.times.double().tolist()
        for row, (pose, time) in enumerate(zip(poses, times, strict=True)):
            frames.append(
                {
                    "file_path": _file_path(source, row),
                    "time": None if np.isnan(time) else round(time, 7),
                    "source": source.name,
                    "camera": source.names[row],
                    "transform_matrix": pose,
                }
            )
    cameras = sources[0].cameras
    K = cameras.Ks[0].double()
    head = {
        "camera_angle_x": float(np.radians(FOV_X_DEG)),
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
    }
    write_json(folder / f"transforms_{split}.json", {**head, "frames": frames})


def _is_made(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether ``folder`` holds this recipe's capture, with all its pictures."""
    try:
        made = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(made, dict) or made.get("hash") != hash_json(recipe):
        return False
    files = all((folder / f"transforms_{split}.json").is_file() for split in ("train", "val", "test"))
    return files and sum(1 for _ in folder.rglob("*.png")) == made.get("pictures")


@command_line
def main(arguments: list[str] | None = None) -> int:
    """``python -m fourdgs.data.alpha --folder data/alpha --size 128 [--full-grid]``."""
    parser = argparse.ArgumentParser(prog="python -m fourdgs.data.alpha", description="Make the embedded capture.")
    parser.add_argument("--folder", default="data/alpha")
    parser.add_argument("--size", type=int, default=128, help="width and height of the pictures, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", type=int, nargs=2, default=THIN_GRID, metavar=("CAMERAS", "TIMES"))
    parser.add_argument("--full-grid", action="store_true", help=f"the same as --grid {FULL_GRID[0]} {FULL_GRID[1]}")
    given = parser.parse_args(arguments)
    print(make_alpha(given.folder, given.size, given.seed, FULL_GRID if given.full_grid else tuple(given.grid)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
