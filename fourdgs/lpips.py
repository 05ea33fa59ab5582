"""LPIPS, where its weights lie on this machine. Nothing here opens a connection."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import InputError, MissingDependency
from .metrics import quantise

BACKBONE, LINEAR = "alexnet-owt-*.pth", ("lpips_alex.pth", "alex.pth")
_CHANNELS = (64, 192, 384, 256, 256)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the paper's own input scaling
SMALLEST = 31  # pixels: below, AlexNet's second pooling has nothing left


class Weights(NamedTuple):
    """The two files that LPIPS takes."""

    backbone: Path  # torchvision's AlexNet trained on ImageNet
    linear: Path  # the five layers that were fitted to human judgements


def find_weights(folder: str | Path | None = None) -> Weights:
    """The weights on disk.

    Args:
        folder: where to look first; by default ``$FOURDGS_LPIPS``. Then torch's own folder of downloads
            (``$TORCH_HOME/hub/checkpoints``) for the backbone, and the package torchmetrics, which carries the linear
            layers, for those.

    Raises:
        MissingDependency: one of the files is nowhere; the text says which, and where it was looked for.
    """
    given = folder or os.environ.get("FOURDGS_LPIPS", "")
    first = [Path(given).expanduser()] if given else []
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    torch_home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
    backbones = [*first, torch_home / "hub" / "checkpoints"]
    backbone = next((file for place in backbones for file in sorted(place.glob(BACKBONE))), None)
    linears = [*first, *_of_torchmetrics()]
    linear = next((place / name for place in linears for name in LINEAR if (place / name).is_file()), None)
    for found, name, places in ((backbone, BACKBONE, backbones), (linear, " or ".join(LINEAR), linears)):
        if found is None:
            looked = ", ".join(str(place) for place in places) or "no folder: torchmetrics is not installed"
            raise MissingDependency(
                f"LPIPS has no weights here: no {name} in {looked} (put it there, or set FOURDGS_LPIPS to its folder; "
                "nothing is downloaded)"
            )
    return Weights(backbone, linear)


def why_absent() -> str:
    """Why there is no LPIPS on this machine, in a sentence; empty where there is."""
    try:
        find_weights()
    except MissingDependency as error:
        return str(error)
    return ""


def lpips(rendered: Tensor, truth: Tensor, weights: Weights | None = None) -> Tensor:
    """Learned perceptual image patch similarity of each picture, 0 for equal ones (Zhang et al., CVPR 2018, eq. 1).

    Version 0.1 with AlexNet, the one that its authors advise for measuring: features of the five ReLU layers, scaled
    to unit length over the channels; the squared differences weighed by the linear layers, averaged over the picture.

    Args:
        rendered, truth: [B, H, W, 3] in [0, 1]; both are rounded to 8 bits first.
        weights: by default `find_weights`.

    Returns:
        [B] float64; NaN for pictures smaller than `SMALLEST` pixels.

    Raises:
        InputError: the shapes differ, or a file holds something else.
        MissingDependency: there are no weights.
    """
    if rendered.shape != truth.shape:
        raise InputError(f"pictures of shapes {tuple(rendered.shape)} and {tuple(truth.shape)} cannot be compared")
    if min(rendered.shape[1:3]) < SMALLEST:
        return torch.full((len(rendered),), float("nan"), dtype=torch.float64)
    layers, linear = _load(weights or find_weights())
    both = quantise(torch.cat([rendered, truth])).permute(0, 3, 1, 2).float().cpu()
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (_SHIFT, _SCALE))
    x, total = (2 * both - 1 - shift) / scale, torch.zeros(len(rendered), dtype=torch.float64)
    with torch.no_grad():
        for layer, weight in zip(layers, linear, strict=True):
            x = layer(x)
            unit = x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
            first, second = unit.chunk(2)
            total += functional.conv2d((first - second).square(), weight).mean((1, 2, 3)).double()
    return total


def _of_torchmetrics() -> list[Path]:
    spec = importlib.util.find_spec("torchmetrics")  # without importing it
    if spec is None or spec.origin is None:
        return []
    return [Path(spec.origin).parent / "functional" / "image" / "lpips_models"]


def _alexnet() -> nn.Sequential:
    """The convolutions of AlexNet as torchvision numbers them (Krizhevsky 2014, "One weird trick")."""
    a, b, c, d, e = _CHANNELS
    return nn.Sequential(
        nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(a, b, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
        nn.Conv2d(d, e, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _load(weights: Weights) -> tuple[list[nn.Sequential], list[Tensor]]:
    """The layers up to each of the five ReLUs, and the linear weights [1, C, 1, 1]."""
    network = _alexnet()
    state = _read(weights.backbone)
    linear = _read(weights.linear)
    try:
        network.load_state_dict({key[9:]: value for key, value in state.items() if key.startswith("features.")})
        layers = [linear[f"lin{index}.model.1.weight"].float() for index in range(5)]
        if [tuple(layer.shape) for layer in layers] != [(1, count, 1, 1) for count in _CHANNELS]:
            raise KeyError("linear layers of another network")
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"is not what LPIPS with AlexNet takes: {reason}", file=weights.backbone) from error
    ends = (0, 2, 5, 8, 10, 12)
    parts = [network[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return [part.eval() for part in parts], layers


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has many; none of them names the file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"cannot be read as weights: {reason}", file=file) from error
