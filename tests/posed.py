"""Captures in memory with known poses, and ways to spoil them: five balls with silhouettes, and a textured room."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from checkup import look
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fourdgs.cameras import Cameras
from fourdgs.capture import Capture
from fourdgs.doctor.epipolar import centres_of, rays_of
from fourdgs.doctor.survey import Survey
from fourdgs.doctor.views import pose_numbers

SIZE = 96


def ring(count: int, *, times=None, size: int = SIZE, seed: int = 0) -> Cameras:
    """Cameras around the origin at radius 4 and varied elevations."""
    random = np.random.default_rng(seed)
    angle = 2 * math.pi * (np.arange(count) + 0.3 * random.uniform(size=count)) / count
    height = random.uniform(-1.0, 1.8, count)
    positions = np.stack([4 * np.sin(angle), height, 4 * np.cos(angle)], -1)
    return Cameras.look_at(positions, (0, 0, 0), fov_x_deg=32.0, width=size, height=size, times=times)


def blobs_mask(cameras: Cameras, i: int, shift: float = 0.0) -> np.ndarray:
    """The silhouette uint8 [h, w] of five balls with no symmetry, each pixel the mean of 3 x 3 samples."""
    random = np.random.default_rng(5)
    centres, radii = random.uniform(-0.5, 0.5, (5, 3)) + [shift, 0, 0], random.uniform(0.15, 0.4, 5)
    size = int(cameras.sizes[i, 0])
    grid = (np.arange(3 * size) + 0.5) / 3
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(1, -1, 2)
    rays = rays_of(cameras[[i]], points)[0][0]
    origin = centres_of(cameras[[i]])[0]
    inside = np.zeros(len(rays), bool)
    for centre, radius in zip(centres, radii, strict=True):
        along = rays @ (centre - origin)
        inside |= (along > 0) & (((centre - origin) ** 2).sum() - along**2 < radius**2)
    return (inside.reshape(size, 3, size, 3).mean((1, 3)) * 255).round().astype(np.uint8)


def looked_at(pictures: list, cameras: Cameras, *, sources=None, names=None) -> Survey:
    """A survey of pictures (rgb, alpha or None) in memory."""
    count = len(cameras)
    memory = {f"f{i:03d}": picture for i, picture in enumerate(pictures)}
    table = pd.DataFrame(
        {
            "frame": list(memory),
            "camera": names or [f"c{number:03d}" for number in pose_numbers(cameras)],
            "time": cameras.times.double().numpy(),
            "source": sources or ["capture"] * count,
            "split": "train",
            "image": "",
            "mask": "",
            "width": cameras.sizes[:, 0].numpy(),
            "height": cameras.sizes[:, 1].numpy(),
        }
    )
    return look(Capture("memory", table, cameras, memory))


def masked(cameras: Cameras, masks: list[np.ndarray], **more) -> Survey:
    return looked_at([(np.full((*mask.shape, 3), 128, np.uint8), mask) for mask in masks], cameras, **more)


def with_cameras(found: Survey, cameras: Cameras) -> Survey:
    """The same pictures under other poses and lenses."""
    pictures = [found.capture.memory[name] for name in found.frames["frame"]]
    return looked_at(pictures, cameras, sources=list(found.frames["source"]), names=list(found.frames["camera"]))


def turned(cameras: Cameras, rotations: np.ndarray) -> Cameras:
    """Each camera turned about its centre by a rotation vector in its own axes [C, 3], radians."""
    views = cameras.viewmats.double().numpy()
    views[:, :3] = Rotation.from_rotvec(rotations).as_matrix() @ views[:, :3]
    return Cameras(torch.from_numpy(views), cameras.Ks, cameras.sizes, cameras.times)


def zoomed(cameras: Cameras, factors) -> Cameras:
    Ks = cameras.Ks.clone()
    Ks[:, [0, 1], [0, 1]] *= torch.as_tensor(np.broadcast_to(factors, len(cameras)).copy(), dtype=torch.float32)[
        :, None
    ]
    return Cameras(cameras.viewmats, Ks, cameras.sizes, cameras.times)


def noise(count: int, deg: float, seed: int) -> tuple[np.ndarray, float]:
    """Rotation vectors, and the root mean square by which they move the middle of the picture, radians."""
    rotations = np.radians(deg) * np.random.default_rng(seed).normal(size=(count, 3))
    return rotations, math.sqrt((rotations[:, :2] ** 2).sum(1).mean())


def seen(cameras: Cameras, points: np.ndarray) -> np.ndarray:
    """[C, P, 2] pixels of points [P, 3]."""
    local = np.einsum("nij,pj->npi", cameras.viewmats[:, :3, :3].double(), points)
    local += cameras.viewmats[:, None, :3, 3].double().numpy()
    pixels = np.einsum("nij,npj->npi", cameras.Ks.double(), local)
    return pixels[..., :2] / pixels[..., 2:]


def room_survey() -> Survey:
    """Opaque pictures of two textured walls and a floor, by a camera that moves; each picture at its own time."""
    count, size = 8, 192
    angle = np.radians(np.linspace(-14, 14, count))
    positions = np.stack([3 * np.sin(angle), 0.5 + 0.3 * np.sin(9 * angle), 3 * np.cos(angle)], -1)
    times = np.linspace(0, 1, count)
    cameras = Cameras.look_at(positions, (0, 0, -0.5), fov_x_deg=55.0, width=size, height=size, times=times)
    random = np.random.default_rng(3)
    coarse = [ndimage.gaussian_filter(random.uniform(0, 1, (400, 400, 3)), (s, s, 0), mode="wrap") for s in (1, 3, 8)]
    texture = sum((layer - layer.mean()) / layer.std() for layer in coarse)
    texture = np.clip(128 + 40 * texture, 0, 255)
    planes = [(2, -1.5), (0, -1.6), (0, 1.6), (1, -1.0), (1, 1.6)]  # axis and where: back, sides, floor, ceiling
    grid = (np.arange(2 * size) + 0.5) / 2
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(1, -1, 2)
    pictures = []
    for i in range(count):
        rays, origin = rays_of(cameras[[i]], points)[0][0], centres_of(cameras[[i]])[0]
        depth, color = np.full(len(rays), np.inf), np.zeros((len(rays), 3))
        for number, (axis, where) in enumerate(planes):
            with np.errstate(divide="ignore"):
                along = (where - origin[axis]) / rays[:, axis]
            hit = (along > 0) & (along < depth)
            depth[hit] = along[hit]
            place = np.delete(origin + rays[hit] * along[hit, None], axis, axis=1) * 60 + 100 * number
            color[hit] = np.stack(
                [ndimage.map_coordinates(texture[..., k], place.T, order=1, mode="grid-wrap") for k in range(3)], -1
            )
        fine = color.reshape(size, 2, size, 2, 3).mean((1, 3))
        pictures.append((fine.round().astype(np.uint8), None))
    return looked_at(pictures, cameras)


def as_read(cameras: Cameras, how: str) -> Cameras:
    """What becomes of true cameras whose file was written with a mistake, by way of the file's own matrices."""
    flip = np.diag([1.0, -1, -1, 1])
    views = cameras.viewmats.double().numpy()
    file = np.linalg.inv(views) @ flip
    if how == "opengl_to_opencv":
        file = np.linalg.inv(views)
    elif how == "invert":
        file = np.linalg.inv(file)
    elif how == "invert_opencv":
        file = views
    elif how == "transpose_rotation":
        file[:, :3, :3] = file[:, :3, :3].transpose(0, 2, 1).copy()
    else:
        x, y, z = file[:, :3, 3].T.copy()
        file[:, :3, 3] = np.stack((x, -z, y) if how == "positions_from_z_up" else (x, z, -y), -1)
    return Cameras.from_opengl(file, cameras.Ks, sizes=cameras.sizes, times=cameras.times)
