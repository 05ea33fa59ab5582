"""Sheets of pictures: what a capture holds, and renders against the truth."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import CHART_WIDTH, SHEET_WIDTH, as_array, style

LARGEST = 2.5  # inches: the widest that one picture of a sheet is drawn
THUMBNAIL = 256  # pixels: the largest side at which one picture of a sheet is drawn


def contact_sheet(
    images: Sequence[Any], titles: Sequence[str] | None = None, columns: int = 6, title: str = ""
) -> Figure:
    """Pictures in a grid, each under its title.

    Args:
        images: pictures ``[H, W, 3]`` or ``[H, W, 4]`` (straight alpha, drawn over light grey), float in [0, 1] or
            uint8, of any sizes.
        titles: one a picture.
    """
    if len(images) == 0:
        raise InputError("there are no pictures to draw", field="images")
    if titles is not None and len(titles) != len(images):
        raise InputError(f"{len(titles)} titles for {len(images)} pictures", field="titles")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    pictures = [as_picture(image) for image in images]
    aspect = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    width = SHEET_WIDTH if columns > 4 else CHART_WIDTH
    cell = min(width / columns, LARGEST)
    width = cell * columns
    lines = max((-(-len(text) // max(8, int(cell * 13))) for text in titles or []), default=0)
    height = rows * (cell * aspect + 0.09 + 0.14 * lines) + (0.4 if title else 0.05)
    with style():
        fig = Figure(figsize=(width, height), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        for index, axis in enumerate(axes):
            if index >= len(pictures):
                axis.set_visible(False)
                continue
            draw_picture(axis, pictures[index])
            if titles is not None:
                _title(axis, titles[index], cell)
        if title:
            fig.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return fig


def comparison(
    rows: Sequence[tuple[str, Sequence[Any]]],
    truth: Sequence[Any],
    titles: Sequence[str] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    errors: bool = True,
    error_max: float | None = None,
) -> Figure:
    """Renders against the ground truth, one run a row, with error maps at one scale for the whole figure.

    Args:
        rows: ``(name, pictures)``: for each run, its pictures of the same V views, each ``[H, W, 3]``, float in [0, 1]
            or uint8.
        truth: the V true pictures, of the same sizes.
        titles: one a view, above the columns.
        notes: for a run's name, one short text a view, for instance ``"27.3 dB"``, drawn into the picture's corner.
        errors: also draw, to the right of the pictures, the absolute error averaged over the channels.
        error_max: the error that is drawn brightest; by default the 99.5th percentile over all of them.
    """
    views = len(truth)
    for name, images in rows:
        if len(images) != views:
            raise InputError(f"{len(images)} pictures of {name!r} for {views} true ones", field="rows")
    true = [as_picture(image)[..., :3] for image in truth]
    names = ["ground truth", *(name for name, _ in rows)]
    pictures = [true, *([as_picture(image)[..., :3] for image in images] for _, images in rows)]
    for name, row in zip(names, pictures, strict=True):
        if any(a.shape != b.shape for a, b in zip(row, true, strict=True)):
            raise InputError(f"the pictures of {name!r} differ in size from the true ones", field="rows")
    maps = [[np.abs(a - b).mean(-1) for a, b in zip(row, true, strict=True)] for row in pictures[1:]]
    if error_max is None:
        flat = [values.ravel() for row in maps for values in row]
        error_max = max(float(np.percentile(np.concatenate(flat), 99.5)), 1 / 255) if flat else 1.0
    columns = views * (2 if errors else 1)
    aspect = max(picture.shape[0] / picture.shape[1] for picture in true)
    width = SHEET_WIDTH if columns > 4 else CHART_WIDTH
    margins = 0.3 + (0.7 if errors else 0)
    side = min((width - margins) / columns, LARGEST)
    width = side * columns + margins
    with style():
        fig = Figure(figsize=(width, len(pictures) * (side * aspect + 0.06) + 0.35), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        axes = fig.subplots(len(pictures), columns, squeeze=False)
        heat = None
        for r, row in enumerate(pictures):
            for v in range(views):
                draw_picture(axes[r, v], row[v])
                note = (notes or {}).get(names[r])
                if note is not None:
                    _corner(axes[r, v], note[v])
                if errors and r > 0:
                    heat = draw_picture(axes[r, views + v], maps[r - 1][v], cmap="inferno", vmin=0, vmax=error_max)
                elif errors:
                    axes[r, views + v].set_visible(False)
                if titles is not None and r == 0:
                    _title(axes[0, v], titles[v], side)
                if errors and r == 1:
                    _title(axes[1, views + v], "error", side)
            axes[r, 0].set_ylabel(names[r], fontsize=8.5, color="#222222", labelpad=3)
        if heat is not None:
            bar = fig.colorbar(heat, ax=axes[1:, views:], fraction=0.03, pad=0.02, aspect=30, extend="max")
            bar.set_label("absolute error", fontsize=8.5)
            bar.ax.tick_params(labelsize=8)
            bar.outline.set_visible(False)
    return fig


def as_picture(image: Any) -> np.ndarray:
    """One picture as float32 in [0, 1], ``[h, w, C]``, averaged down to `THUMBNAIL` pixels by whole factors."""
    array = as_array(image)
    if array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise InputError(f"a picture is [H, W, 3] or [H, W, 4], not {list(array.shape)}", field="images")
    array = array.astype(np.float32) / 255 if array.dtype == np.uint8 else array.astype(np.float32)
    array = np.clip(np.nan_to_num(array), 0, 1)
    factor = -(-max(array.shape[:2]) // THUMBNAIL)
    if factor > 1:
        h, w = (size // factor for size in array.shape[:2])
        blocks = array[: h * factor, : w * factor].reshape(h, factor, w, factor, -1)
        array = blocks.mean((1, 3))
    return array


def draw_picture(axis: Axes, array: np.ndarray, **options: Any) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.set_facecolor("#dcdcdc")
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color("#cfcfcf")
        spine.set_linewidth(0.6)
    return axis.imshow(array, **options)


def _title(axis: Axes, text: str, width: float) -> None:
    """A small title, broken into lines that fit ``width`` inches."""
    text = textwrap.fill(text, max(8, int(width * 13)))
    axis.set_title(text, fontsize=8.5, fontweight="normal", loc="center", pad=3)


def _corner(axis: Axes, text: str) -> None:
    box = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axis.text(0.97, 0.03, text, transform=axis.transAxes, ha="right", va="bottom", fontsize=7.5, bbox=box)
