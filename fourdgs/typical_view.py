"""The training view whose pixels are of the usual size, kept with a run: how sharp its model may be drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .cameras import Cameras
from .capture import Capture
from .errors import InputError
from .gaussians import Gaussians
from .model import Model
from .nearer import pixel_size


class TypicalView(NamedTuple):
    """One training view; it stands for its capture where only the size of pixels counts (`nearer.no_sharper`)."""

    cameras: Cameras  # one


def typical_view(capture: Capture, model: Model) -> dict[str, Any] | None:
    """Of training frames the one whose pixels are of the median size where the model is, JSON values for ``run.json``.

    Returns:
        ``frame``; ``viewmat`` (16 numbers, row by row) and ``K`` (9), as text that float32 comes back from without
        loss; ``size``, width and height in pixels; ``pixel``, `nearer.pixel_size` of this view and of all of them,
        world units. None where no pixel has a size: the model is empty, or not finite.
    """
    if not len(model.gaussians):
        return None
    # At the middle of the Gaussians, which is looked for once: one that lies there has the same.
    middle = model.gaussians.means.detach().median(dim=0, keepdim=True).values.cpu()
    one = {key: value[:1] for key, value in model.gaussians.to("cpu").items().items()}
    there = replace(model, gaussians=Gaussians(**one | {"means": middle}))
    sizes = np.array([pixel_size(camera, there) for camera in capture.cameras])
    if not np.isfinite(sizes).all():
        return None
    row = int(np.argsort(sizes, kind="stable")[(len(sizes) - 1) // 2])  # torch's median: the lower of two middle ones
    camera = capture.cameras[row]
    return {
        "frame": str(capture.frames["frame"].iloc[row]),
        "viewmat": _text(camera.viewmats),
        "K": _text(camera.Ks),
        "size": camera.sizes[0].tolist(),
        "pixel": float(f"{sizes[row]:.6g}"),
    }


def read_typical_view(info: Mapping[str, Any], file: Path) -> TypicalView | None:
    """The view that a ``run.json`` keeps; None where it was written before views were kept.

    Args:
        file: what errors name.

    Raises:
        InputError: it is damaged.
    """
    kept = info.get("typical_view")
    if kept is None:
        return None
    try:
        viewmat, K = (np.array(kept[key].split(), np.float32) for key in ("viewmat", "K"))
        cameras = Cameras(viewmat.reshape(1, 4, 4), K.reshape(1, 3, 3), np.array([kept["size"]], np.int64), [math.nan])
        if not (np.isfinite(viewmat).all() and np.isfinite(K).all() and K[0] > 0):
            raise ValueError("a number is not finite, or the focal length not positive")
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        remedy = "train the run again, or give capture="
        raise InputError(f"cannot be read: {error}", file=file, field="typical_view", remedy=remedy) from error
    return TypicalView(cameras)


def _text(values: Any) -> str:
    return " ".join(f"{value:.9g}" for value in values.flatten().tolist())
