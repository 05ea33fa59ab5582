"""Where a rigged avatar errs: mouth, eyes, brows, the rest of the head, and elsewhere, told apart by the rig itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from .capture import Capture
from .drive.names import EYES, HEAD
from .errors import InputError
from .live import eight_bits
from .model import Model, render
from .rig.base import Rig
from .rig_start import depth_picture
from .rigged import Rigged

_SIDES = ("Left", "Right")
REGIONS: dict[str, tuple[str, ...]] = {
    "mouth": ("mouthPucker", "mouthFunnel", "mouthRollLower", "mouthRollUpper"),
    "eyes": (*(f"eye{way}{side}" for way in ("Blink", "LookUp", "LookDown", "LookIn") for side in _SIDES), *EYES),
    "brows": ("browInnerUp", *(f"brow{way}{side}" for way in ("OuterUp", "Down") for side in _SIDES)),
    "rest of the head": HEAD,
}
"""What moves each part; the first one that holds a triangle has it."""

ELSEWHERE = "elsewhere"

_MOVED = 0.4  # of the farthest way that a control moves any vertex


@torch.no_grad()
def region_faces(rig: Rig) -> dict[str, np.ndarray]:
    """The triangles [F] bool of each region; every triangle is in one, and regions without any are left out.

    A triangle is in a region where each of its corners goes at least 0.4 of the way that one of its controls moves
    anything.
    """
    faces = rig.faces.cpu()
    free = torch.ones(len(faces), dtype=torch.bool)
    found: dict[str, np.ndarray] = {}
    for region, names in REGIONS.items():
        held = torch.zeros(len(faces), dtype=torch.bool)
        for column in [column for column, name in enumerate(rig.controls) if name in names]:
            drive = rig.neutral.clone()[None]
            drive[0, column] += 1
            way = (rig.vertices(drive)[0] - rig.rest).norm(dim=-1).cpu()
            if float(way.max()) > 0:
                held |= (way > _MOVED * way.max())[faces].all(1)
        found[region] = (held & free).numpy()
        free &= ~held
    found[ELSEWHERE] = free.numpy()
    return {region: held for region, held in found.items() if held.any()}


@torch.no_grad()
def region_errors(models: Mapping[str, Model], motion: Rigged, capture: Capture) -> pd.DataFrame:
    """PSNR of each region of a rig as it shows in a capture's pictures, pooled over all of its pixels.

    Args:
        models: by name.
        motion: the rig with the track that the capture's times belong to.

    Returns:
        A row a region and model: region, model, psnr_db, pixels (the region's, of all frames), frames.

    Raises:
        InputError: there is no frame.
    """
    if not len(capture):
        raise InputError("there is no frame", field="capture")
    parts, rig = region_faces(motion.rig), motion.rig
    faces, cameras = rig.faces.cpu().numpy(), capture.cameras
    squares, pixels = {name: np.zeros(len(parts)) for name in models}, np.zeros(len(parts), np.int64)
    for i in range(len(capture)):
        drive = motion.drive_at(cameras.times[i : i + 1].to(rig.rest))
        vertices = rig.vertices(drive)[0].double().cpu().numpy()
        depths = np.stack([depth_picture(vertices, faces[held], cameras, i) for held in parts.values()])
        nearest = np.where(np.isfinite(depths).any(0), depths.argmin(0), len(parts))  # [H, W]
        pixels += np.bincount(nearest.ravel(), minlength=len(parts) + 1)[: len(parts)]
        for name, model in models.items():
            truth = eight_bits(capture.image(i, model.background)).astype(np.float64)
            drawn = eight_bits(render(model, cameras[i].to(model.gaussians.means.device)).rgb[0].cpu())
            error = ((drawn - truth) / 255) ** 2
            weights = error.mean(-1).ravel()
            squares[name] += np.bincount(nearest.ravel(), weights, minlength=len(parts) + 1)[: len(parts)]
    rows = [
        {"region": region, "model": name, "psnr_db": _psnr_db(squares[name][k], pixels[k]), "pixels": int(pixels[k])}
        for k, region in enumerate(parts)
        for name in models
    ]
    return pd.DataFrame(rows).assign(frames=len(capture))


def _psnr_db(squares: float, pixels: int) -> float:
    if not pixels:
        return float("nan")
    return float(-10 * np.log10(max(squares / pixels, 1e-10)))
