"""A scene that can be rendered: Gaussians, how they move, and the background behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from .cameras import Cameras
from .errors import InputError
from .files import write_aside
from .gaussians import KEYS, Gaussians
from .motion import Motion, make_motion
from .raster import rasterize


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
        tensors = {
            f"gaussians.{key}": value.detach().cpu().contiguous() for key, value in self.gaussians.items().items()
        }
        tensors |= {
            f"motion.{key}": value.detach().cpu().contiguous() for key, value in self.motion.state_dict().items()
        }
        about = {"motion": self.motion.name, "settings": self.motion.settings(), "background": list(self.background)}
        with write_aside(path) as aside:
            save_file(tensors, aside, metadata={"fourdgs": json.dumps(about)})

    @staticmethod
    def load(path: str | Path) -> Model:
        """Read a model that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a model.
        """
        remedy = "give a file written by Model.save"
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["fourdgs"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            motion = make_motion(about["motion"], about["settings"])
            motion.load_state_dict({k[7:]: v for k, v in tensors.items() if k.startswith("motion.")})
            gaussians = Gaussians(**{key: tensors[f"gaussians.{key}"] for key in KEYS})
        except FileNotFoundError:
            raise InputError("there is no such file", file=path, remedy=remedy) from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"is not a model that can be read: {error}", file=path, remedy=remedy) from error
        return Model(gaussians, motion, tuple(about["background"]))


def render_gaussians(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, *, render_mode: str = "RGB", absgrad: bool = False
) -> tuple[Tensor, Tensor, dict]:
    """Rasterise one set of Gaussians per camera (tensors [C, N, ...]) over ``background`` [3].

    Returns:
        colours [C, H, W, 3 or 4], opacity [C, H, W, 1], and the rasteriser's meta data.
    """
    rgb, alpha, meta = rasterize(
        gaussians.means,
        functional.normalize(gaussians.quats, dim=-1),
        gaussians.scales.exp(),
        gaussians.opacities.sigmoid(),
        gaussians.sh,
        cameras.viewmats[:, None],
        cameras.Ks[:, None],
        cameras.width,
        cameras.height,
        sh_degree=gaussians.sh_degree,
        backgrounds=background.expand(len(cameras), 1, 3),
        render_mode=render_mode,
        absgrad=absgrad,
    )
    return rgb[:, 0], alpha[:, 0], meta


@torch.no_grad()
def render(model: Model, cameras: Cameras, *, chunk: int = 8) -> RenderOutput:
    """Pictures of the model from ``cameras``, each at its own time.

    Args:
        chunk: cameras per rasterisation; more is faster on a GPU and takes more memory.
    """
    parts = list(render_chunks(model, cameras, chunk=chunk))
    return RenderOutput(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@torch.no_grad()
def render_chunks(model: Model, cameras: Cameras, *, chunk: int = 8) -> Iterator[RenderOutput]:
    """Like `render`, some cameras at a time, so that a long path need not fit in memory."""
    device = model.gaussians.means.device
    background = torch.tensor(model.background, device=device)
    for start in range(0, len(cameras), chunk):
        some = cameras[start : start + chunk].to(device)
        rgb, alpha, _ = render_gaussians(model.at(some.times), some, background, render_mode="RGB+ED")
        yield RenderOutput(rgb[..., :3], alpha, rgb[..., 3:])
