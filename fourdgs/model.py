"""A scene that can be rendered: Gaussians, how they move, and the background behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .cameras import Cameras, Views
from .gaussians import KEYS, Gaussians
from .headed import headed, save_headed
from .motion import Motion
from .motions import make_motion
from .raster import rasterize
from .raster.cuda import draw


class RenderOutput(NamedTuple):
    """Pictures of a model, on the model's device."""

    rgb: Tensor  # [C, H, W, 3] in [0, 1] but for overshoot, over the background
    alpha: Tensor  # [C, H, W, 1] opacity
    depth: Tensor  # [C, H, W, 1] expected depth along z, world units; 0 where nothing is


@dataclass(frozen=True)
class Model:
    """Gaussians, a motion model, and the colour behind them."""

    gaussians: Gaussians
    motion: Motion
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def at(self, times: Tensor) -> Gaussians:
        """The Gaussians at ``times`` [T]; NaN gives the canonical scene."""
        return self.motion.at(self.gaussians, times)

    def to(self, device: torch.device | str) -> Model:
        """A copy of the Gaussians, and the motion model itself, on another device."""
        return replace(self, gaussians=self.gaussians.to(device), motion=self.motion.to(device))

    def save(self, path: str | Path) -> None:
        """Write the model as one safetensors file, whole or not at all."""
        tensors = {f"gaussians.{key}": value for key, value in self.gaussians.items().items()}
        tensors |= {f"motion.{key}": value for key, value in self.motion.state_dict().items()}
        about = {"motion": self.motion.name, "settings": self.motion.settings(), "background": list(self.background)}
        save_headed(path, about, tensors)

    @staticmethod
    def load(path: str | Path) -> Model:
        """Read a model that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a model.
        """
        with headed(path, "a model", "give a file written by Model.save") as (about, tensors):
            motion = make_motion(about["motion"], about["settings"])
            motion.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("motion.")})
            gaussians = Gaussians(**{key: tensors[f"gaussians.{key}"] for key in KEYS})
        return Model(gaussians, motion, tuple(about["background"]))


def render_gaussians(
    gaussians: Gaussians, cameras: Cameras | Views, background: Tensor, *, render_mode: str = "RGB"
) -> tuple[Tensor, Tensor]:
    """Rasterise Gaussians over ``background`` [3]; each tensor is one for all cameras [N, ...] or one each [C, N, ...].

    Args:
        cameras: as `Views` they are drawn without a wait for the GPU.
        render_mode: RGB or RGB+ED, the expected depth as a fourth channel.

    Returns:
        colours [C, H, W, 3 or 4] and opacity [C, H, W, 1].
    """
    views = cameras.views() if isinstance(cameras, Cameras) else cameras
    if gaussians.means.is_cuda and len(gaussians):
        return draw(gaussians, views, background, depth=render_mode == "RGB+ED")
    count = len(views.viewmats)
    each = gaussians.at_each(count)
    active = [
        each.means, functional.normalize(each.quats, dim=-1), each.scales.exp(), each.opacities.sigmoid(), each.sh
    ]  # fmt: skip
    rgb, alpha, _ = rasterize(
        *active,
        views.viewmats[:, None],
        views.Ks[:, None],
        views.width,
        views.height,
        sh_degree=gaussians.sh_degree,
        backgrounds=background.expand(count, 1, 3),
        render_mode=render_mode,
    )
    return rgb[:, 0], alpha[:, 0]


@torch.no_grad()
def render(model: Model, cameras: Cameras, *, chunk: int | None = None) -> RenderOutput:
    """Pictures of the model from ``cameras``, each at its own time.

    Args:
        chunk: cameras per rasterisation (by default 8, on CUDA 32); more take more memory.
    """
    parts = list(render_chunks(model, cameras, chunk=chunk))
    return RenderOutput(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@torch.no_grad()
def render_chunks(model: Model, cameras: Cameras, *, chunk: int | None = None) -> Iterator[RenderOutput]:
    """Like `render`, some cameras at a time, so that a long path need not fit in memory."""
    for rgb, alpha in _drawn(model, cameras, chunk, "RGB+ED"):
        yield RenderOutput(rgb[..., :3], alpha, rgb[..., 3:])


@torch.no_grad()
def render_bytes(model: Model, cameras: Cameras, *, chunk: int | None = None) -> Iterator[Tensor]:
    """Pictures as a viewer sees them, uint8 [n, H, W, 3] on the host, some cameras at a time.

    On a GPU they become 8 bits there, and leave it while the next ones are drawn.
    """
    before = None
    for rgb, _ in _drawn(model, cameras, chunk, "RGB"):
        pictures = rgb.clamp(0, 1).mul_(255).round_().to(torch.uint8)
        if not rgb.is_cuda:
            yield pictures
            continue
        host = torch.empty(pictures.shape, dtype=torch.uint8, pin_memory=True)
        host.copy_(pictures, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        if before is not None:
            before[1].synchronize()
            yield before[0]
        before = host, arrived
    if before is not None:
        before[1].synchronize()
        yield before[0]


def _drawn(model: Model, cameras: Cameras, chunk: int | None, render_mode: str) -> Iterator[tuple[Tensor, Tensor]]:
    device = model.gaussians.means.device
    chunk = (32 if device.type == "cuda" else 8) if chunk is None else chunk
    background = torch.tensor(model.background, device=device)
    every = cameras.to("cpu").views()  # on a GPU the sizes and the centres would be waited for
    for start in range(0, len(cameras), chunk):
        views = every.take(slice(start, start + chunk)).to(device)
        posed = model.motion.pose(model.gaussians, views.times) if model.motion.moves else model.gaussians
        yield render_gaussians(posed, views, background, render_mode=render_mode)
