"""Small captures with known truth for the tests: a coloured ball, ray-traced, that may move sideways with time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from fourdgs import Cameras, Capture

RADIUS = 0.6


def ball_cameras(count: int, size: int, *, start_deg: float = 0.0, times=None) -> Cameras:
    """Cameras around the origin at radius 4 and varied elevation."""
    angle = np.radians(start_deg) + np.arange(count) * 2 * math.pi / count
    height = 0.8 * np.sin(3 * angle)
    positions = np.stack([4 * np.sin(angle), height, 4 * np.cos(angle)], -1)
    return Cameras.look_at(positions, (0, 0, 0), fov_x_deg=30.0, width=size, height=size, times=times)


def ball_picture(viewmat: np.ndarray, K: np.ndarray, size: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """rgb and alpha, uint8, of a ball centred at (shift, 0, 0), coloured by its own surface position."""
    grid = (np.arange(size * 2) + 0.5) / 2  # twice the pixels, averaged below
    u, v = np.meshgrid(grid, grid)
    ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1) @ viewmat[:3, :3]
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    origin = -viewmat[:3, :3].T @ viewmat[:3, 3] - np.array([shift, 0, 0])
    along = ray @ origin
    inside = along**2 - (origin @ origin - RADIUS**2)
    hit = inside > 0
    point = origin + ray * (-along - np.sqrt(np.maximum(inside, 0)))[..., None]
    color = np.where(hit[..., None], 0.5 + 0.45 * np.sin(5 * point), 0)
    fine = np.concatenate([color, hit[..., None]], -1).reshape(size, 2, size, 2, 4).mean((1, 3))
    alpha = fine[..., 3]
    rgb = fine[..., :3] / np.maximum(alpha, 1e-6)[..., None]
    return (rgb * 255).round().astype(np.uint8), (alpha * 255).round().astype(np.uint8)


def ball_capture(
    root, cameras: Cameras, *, source: str = "orbit", split: str = "train", move: float = 0.5, camera: str = ""
) -> Capture:
    """A capture in memory, of one camera if it has a name.

    The ball stands at ``move * (time - 0.5)``, and at 0 in frames without a time.
    """
    rows, memory = [], {}
    for index in range(len(cameras)):
        time = float(cameras.times[index])
        shift = 0.0 if math.isnan(time) else move * (time - 0.5)
        name = f"{split}/{source}/{index:04d}"
        memory[name] = ball_picture(
            cameras.viewmats[index].double().numpy(), cameras.Ks[index].double().numpy(), cameras.width, shift
        )
        rows.append(
            {
                "frame": name,
                "camera": camera or f"{source}{index:02d}",
                "time": time,
                "source": source,
                "split": split,
                "image": "",
                "mask": "",
                "width": cameras.width,
                "height": cameras.height,
            }  # fmt: skip
        )
    return Capture(root, pd.DataFrame(rows), cameras, memory)


def random_gaussians(count: int, seed: int = 0, sh_degree: int = 0):
    """Raw Gaussians in the unit ball, [N]."""
    from fourdgs import Gaussians

    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    return Gaussians(
        means=0.4 * normal(count, 3),
        quats=normal(count, 4),
        scales=-2.5 + 0.3 * normal(count, 3),
        opacities=normal(count),
        sh0=0.5 * normal(count, 1, 3),
        shN=0.1 * normal(count, (sh_degree + 1) ** 2 - 1, 3),
    )
