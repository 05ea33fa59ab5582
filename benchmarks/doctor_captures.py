"""Captures with known faults, for `benchmarks/doctor.py`: small pools of clean pictures, and recipes that spoil them.

A pool is one avatar from many cameras, RGBA, 96 pixels: stills on a ring, a grid of cameras and times, a clip at one
camera, and held-out frames. A recipe takes some of it and adds faults. Avatars 0 to 3 serve to fit the predictor,
avatars 4 and 5 to judge it, so nothing that is judged was seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fourdgs.cameras import Cameras
from fourdgs.capture import Capture
from fourdgs.data.alpha import studio
from fourdgs.files import hash_json, write_aside

SIZE = 96
RADIUS = 4.0
FOV_X_DEG = 30.0
FITTING, JUDGING = (0, 1, 2, 3), (4, 5)
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """What a capture is made of, and what is wrong with it."""

    avatar: int
    stills: int = 0  # on the ring, evenly spread over `arc_deg`, at most 24
    arc_deg: float = 360.0
    still_times: bool = False  # each still at a time of its own
    clip: int = 0  # frames of one front camera
    grid: tuple[int, int] = (0, 0)  # cameras, times
    backdrop: float = 0.0  # of the clip, or of every second camera of the grid where there is no clip; 0: cut out
    tint: float = 0.0  # likewise; 1: the gains below
    pose_noise_deg: float = 0.0  # standard deviation about every axis, of training cameras about the subject
    mask: str = ""  # missing | inverted | eroded
    mask_share: float = 0.0  # of the training frames
    balanced: bool = False  # weights that make sources even

    @property
    def key(self) -> str:
        """16 hex digits that name it."""
        return hash_json({"version": VERSION, "size": SIZE, **asdict(self)})[:16]

    @property
    def label(self) -> str:
        """One line."""
        parts = [f"avatar {self.avatar}"]
        parts += [f"{self.stills} stills" + (f"/{self.arc_deg:g}" if self.arc_deg < 360 else "")] * bool(self.stills)
        parts += ["own times"] * self.still_times + [f"clip {self.clip}"] * bool(self.clip)
        parts += [f"grid {self.grid[0]}x{self.grid[1]}"] * bool(self.grid[0])
        parts += [f"{name} {value:g}" for name, value in (("backdrop", self.backdrop), ("tint", self.tint)) if value]
        parts += [f"poses {self.pose_noise_deg:g} deg"] * bool(self.pose_noise_deg)
        parts += [f"masks {self.mask} {self.mask_share:g}"] * bool(self.mask) + ["balanced"] * self.balanced
        return ", ".join(parts)


def recipes() -> list[Recipe]:
    """The matrix: every fault alone and graded, then random pairs of them, on each of the avatars."""
    random, found = np.random.default_rng(0), []
    for avatar in (*FITTING, *JUDGING):
        found += [Recipe(avatar, stills=n) for n in random.choice([4, 6, 8, 10, 16, 24], 3, replace=False).tolist()]
        found.append(Recipe(avatar, stills=int(random.choice([6, 10])), arc_deg=float(random.choice([120, 180, 240]))))
        found.append(Recipe(avatar, stills=int(random.choice([8, 10, 16])), still_times=True))
        for shape in random.permutation([(4, 4), (6, 10), (12, 5), (12, 10), (24, 4), (24, 20)])[:4].tolist():
            found.append(Recipe(avatar, grid=tuple(shape)))
        for _ in range(4):  # stills and a clip, from clean to the worst
            found.append(Recipe(avatar, **_clip(random)))
        found.append(Recipe(avatar, **{**_clip(random), "backdrop": 1.0, "tint": 1.0, "clip": 60}))
        for noise in (0.5, 1.5):
            found.append(Recipe(avatar, stills=int(random.choice([10, 16])), pose_noise_deg=noise))
        for mask in ("missing", "inverted", "eroded"):
            share = float(random.choice([0.1, 0.3, 1.0] if mask == "missing" else [0.1, 0.3]))
            found.append(Recipe(avatar, **_base(random), mask=mask, mask_share=share))
        for _ in range(5):  # two faults at once
            faults = {"pose_noise_deg": float(random.choice([0.3, 0.7, 1.0]))} if random.random() < 0.6 else {}
            if random.random() < 0.5 or not faults:
                faults |= {
                    "mask": str(random.choice(["missing", "eroded"])),
                    "mask_share": float(random.choice([0.1, 0.3])),
                }
            found.append(Recipe(avatar, **(_clip(random) if random.random() < 0.6 else _base(random)), **faults))
    return list({recipe.key: recipe for recipe in found}.values())


def _base(random: np.random.Generator) -> dict:
    if random.random() < 0.5:
        return {"stills": int(random.choice([8, 10, 16]))}
    return {"grid": tuple(random.choice([[8, 5], [12, 5], [12, 10]]).tolist())}


def _clip(random: np.random.Generator) -> dict:
    return {
        "stills": int(random.choice([6, 10, 16])),
        "clip": int(random.choice([10, 30, 60])),
        "backdrop": float(random.choice([0.0, 0.0, 0.3, 1.0])),
        "tint": float(random.choice([0.0, 0.0, 0.5, 1.0])),
        "balanced": bool(random.random() < 0.35),
    }


# --- pools ---


def ring(count: int, arc_deg: float, elevation_deg: float | np.ndarray, start_deg: float = 0.0) -> Cameras:
    """Cameras around the subject, the middle of the arc in front; azimuth 0 looks at the face."""
    azimuth = (
        start_deg + np.arange(count) * arc_deg / count
        if arc_deg >= 360
        else np.linspace(-arc_deg / 2, arc_deg / 2, count)
    )
    return _at(azimuth, elevation_deg)


def _at(azimuth_deg: np.ndarray, elevation_deg: float | np.ndarray, times: np.ndarray | None = None) -> Cameras:
    azimuth, elevation = np.radians(np.broadcast_arrays(azimuth_deg, elevation_deg))
    level = np.cos(elevation)
    positions = RADIUS * np.stack([level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)], axis=-1)
    return Cameras.look_at(positions, fov_x_deg=FOV_X_DEG, width=SIZE, height=SIZE, times=times)


def _parts(recipe: Recipe) -> dict[str, tuple[Cameras, list[str], str]]:
    """Cameras (with times), camera names and split of each source."""
    parts = {}
    if recipe.stills:
        cameras = ring(recipe.stills, recipe.arc_deg, 10.0)
        if recipe.still_times:
            cameras = cameras.with_times(np.linspace(0, 1, recipe.stills))
        parts["orbit"] = cameras, [f"orbit{i:02d}" for i in range(recipe.stills)], "train"
    if recipe.clip:
        at = ring(1, 360, 10.0)[[0] * recipe.clip].with_times(np.linspace(0, 1, recipe.clip))
        # An orbit that is a full circle starts at the clip's own camera.
        name = "orbit00" if recipe.stills and recipe.arc_deg >= 360 else "front"
        parts["clip"] = at, [name] * recipe.clip, "train"
    if recipe.grid[0]:
        views, moments = recipe.grid
        azimuth, elevation = 360 * np.arange(views) / views + 7.5, np.where(np.arange(views) % 2 == 0, 2.0, 20.0)
        times = np.linspace(0, 1, moments)
        cameras = _at(np.repeat(azimuth, moments), np.repeat(elevation, moments), np.tile(times, views))
        parts["grid"] = cameras, [f"grid{i:02d}" for i in np.repeat(np.arange(views), moments)], "train"
    between = 15 + 30 * np.arange(12)
    parts["still"] = _at(between, np.tile((10.0, -2.0, 22.0), 4)), [f"still{i:02d}" for i in range(12)], "test"
    moments = np.tile((np.arange(3) + 0.5) / 3 + 1 / 240, 12)
    elevation = np.repeat(np.tile((-5.0, 5.0, 15.0, 25.0, 0.0, 20.0), 2), 3)
    names = [f"talking{i:02d}" for i in np.repeat(np.arange(12), 3)]
    parts["talking"] = _at(np.repeat(between, 3), elevation, moments), names, "test"
    return parts


def draw(chosen: list[Recipe], folder: Path) -> None:
    """Draw the clean pictures of recipes into ``folder``, one npz a recipe; what is there is not drawn again."""
    from tqdm.auto import tqdm

    from fourdgs.data import avatar
    from fourdgs.data.orbit import render_mesh

    seen: dict[tuple, np.ndarray] = {}
    for recipe in tqdm([r for r in chosen if not (folder / f"{r.key}.npz").exists()], desc="draw", unit="capture"):
        subject, arrays = avatar.build(recipe.avatar), {}
        for source, (cameras, _, _) in _parts(recipe).items():
            if source == "orbit":
                cameras = cameras.with_times(None)  # the subject stands still, whatever the file will say
            keys = [
                (recipe.avatar, view.tobytes(), float(time))
                for view, time in zip(cameras.viewmats.numpy(), cameras.times, strict=True)
            ]
            keys = [(a, v, "still" if np.isnan(t) else t) for a, v, t in keys]
            missing = [i for i, key in enumerate(keys) if key not in seen]
            if missing:
                drawn = render_mesh(subject, cameras[missing], progress=False)
                seen.update({keys[i]: picture for i, picture in zip(missing, drawn, strict=True)})
            arrays[source] = np.stack([seen[key] for key in keys])
        with write_aside(folder / f"{recipe.key}.npz") as aside, open(aside, "wb") as file:
            np.savez_compressed(file, **arrays)


def capture(recipe: Recipe, folder: Path) -> Capture:
    """The capture of a recipe, its pictures in memory, from what `draw` drew."""
    random = np.random.default_rng(int(recipe.key, 16))
    with np.load(folder / f"{recipe.key}.npz", allow_pickle=False) as data:
        drawn = {name: data[name] for name in data.files}
    rows, cameras, pictures = [], [], []
    for source, (part, names, split) in _parts(recipe).items():
        if split == "train" and recipe.pose_noise_deg:
            part = _shaken(part, names, recipe.pose_noise_deg, random)
        looks = [(picture[..., :3].copy(), picture[..., 3].copy()) for picture in drawn[source]]
        if source == "clip" or (source == "grid" and not recipe.clip):
            odd = [source == "clip" or int(name[4:]) % 2 == 1 for name in names]
            looks = [_spoiled(look, recipe, random) if bad else look for look, bad in zip(looks, odd, strict=True)]
        if split == "train" and recipe.mask:
            hit = random.random(len(looks)) < recipe.mask_share
            hit[random.integers(len(looks))] = True
            looks = [_masked(look, recipe.mask, random) if bad else look for look, bad in zip(looks, hit, strict=True)]
        for i, (name, look) in enumerate(zip(names, looks, strict=True)):
            rows.append({"frame": f"{split}/{source}/{i:04d}", "camera": name, "source": source, "split": split})
            pictures.append(look)
        cameras.append(part)
    whole = Cameras.concatenate(cameras)
    frames = pd.DataFrame(rows).assign(time=whole.times.double().numpy(), image="", mask="", width=SIZE, height=SIZE)
    if recipe.balanced:
        count = frames.groupby(["split", "source"])["frame"].transform("size")
        frames["weight"] = np.where(frames["split"] == "train", count.max() / count, 1.0)
    memory = dict(zip(frames["frame"], pictures, strict=True))
    return Capture(folder / recipe.key, frames, whole, memory)


def _spoiled(look: tuple[np.ndarray, np.ndarray], recipe: Recipe, random: np.random.Generator) -> tuple:
    """Another white balance, and a backdrop between white and the studio's."""
    rgb, alpha = look[0].astype(np.float32) / 255, look[1].astype(np.float32)[..., None] / 255
    gains = 1 + recipe.tint * (np.array([1.12, 0.97, 0.82], np.float32) - 1)
    rgb = np.clip(rgb * gains, 0, 1)
    if not recipe.backdrop:
        return np.rint(rgb * 255).astype(np.uint8), look[1]
    hue = np.roll(studio(SIZE), recipe.avatar, axis=-1)  # each avatar's studio is of another colour
    wall = np.clip((1 - recipe.backdrop + recipe.backdrop * hue) * gains, 0, 1)
    seen = rgb * alpha + wall * (1 - alpha) + random.normal(0, 0.004, rgb.shape)
    return np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8), None


def _masked(look: tuple, fault: str, random: np.random.Generator) -> tuple:
    from scipy import ndimage

    rgb, alpha = look
    if alpha is None:
        return look
    if fault == "missing":
        wall = np.full(3, 255 * random.uniform(0.3, 0.7))
        cover = alpha[..., None] / 255.0
        return np.rint(rgb * cover + wall * (1 - cover)).astype(np.uint8), None
    if fault == "inverted":
        wall = np.full_like(rgb, 128)
        return np.where(alpha[..., None] > 0, rgb, wall), 255 - alpha
    return rgb, ndimage.grey_erosion(alpha, size=(7, 7))


def _shaken(cameras: Cameras, names: list[str], noise_deg: float, random: np.random.Generator) -> Cameras:
    """Every camera (not every frame) turned about the subject and about itself by a little."""
    import torch

    views = cameras.viewmats.double().numpy().copy()
    turns = {name: (_turn(random, noise_deg), _turn(random, noise_deg / 4)) for name in dict.fromkeys(names)}
    for view, name in zip(views, names, strict=True):
        about, own = turns[name]
        # About the subject by the noise; about itself by a quarter, since that moves the picture four radii as much.
        view[:] = own @ view @ about
    return Cameras(torch.from_numpy(views).float(), cameras.Ks, cameras.sizes, cameras.times)


def _turn(random: np.random.Generator, noise_deg: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(random.normal(0, noise_deg, 3))).as_matrix()
    return matrix
