"""Figures about a dataset: where its cameras stand, what they saw when, and how bright it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from ..errors import InputError
from .style import BLACK, BLUE, CHART_WIDTH, GREEN, MARKERS, VERMILION, as_array, colors_for, style


def frusta(
    positions: Any,
    forwards: Any,
    groups: Sequence[str] | None = None,
    up: Sequence[float] = (0, 1, 0),
    fov_deg: float = 30,
    target: Sequence[float] | None = (0, 0, 0),
) -> Figure:
    """Cameras from above and from the side, coloured by group; a number says how many share one place.

    Args:
        positions: ``[C, 3]`` world units.
        forwards: ``[C, 3]`` viewing directions; their length does not matter.
        groups: a name a camera, for instance its source.
        up: the world's up axis.
        fov_deg: the opening at which the frusta are drawn.
        target: marked with a cross; None for no mark.
    """
    places = as_array(positions).astype(float).reshape(-1, 3)
    looks = as_array(forwards).astype(float).reshape(-1, 3)
    names = np.asarray(["cameras"] * len(places) if groups is None else [str(group) for group in groups])
    if not len(places) == len(looks) == len(names) or len(places) == 0:
        raise InputError(f"{len(places)} positions, {len(looks)} forwards, {len(names)} groups", field="positions")
    looks = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-12)
    right, high, front, labels = _plan_axes(np.asarray(up, float))
    scale = np.ptp(places, axis=0).max() or 1.0
    colors = colors_for(list(names))
    with style():
        fig = Figure(figsize=(CHART_WIDTH, 4.3), layout="constrained")
        axes = fig.subplots(1, 2)
        # From above with the front below, and from the right-hand side with the front to the left.
        views = (
            ("from above", right, -front, labels[0], labels[2]),
            ("from the side", -front, high, labels[2], labels[1]),
        )
        for axis, (title, across, upward, x_label, y_label) in zip(axes, views, strict=True):
            flat = places @ np.stack([across, upward], 1)  # [C, 2]
            direction = looks @ np.stack([across, upward], 1)  # [C, 2]
            _draw_frusta(axis, flat, direction, names, colors, 0.14 * scale, np.radians(fov_deg) / 2)
            if target is not None:
                axis.plot(*(np.asarray(target, float) @ np.stack([across, upward], 1)), "+", color=BLACK, ms=10)
            axis.set(title=title, xlabel=x_label, ylabel=y_label)
            axis.set_aspect("equal", adjustable="datalim")
            axis.margins(0.2)
        for axis in axes:
            _positive_towards_front(axis, axis is axes[0])
        counts = [f"{name} ({(names == name).sum()})" for name in colors]
        handles = [Patch(color=color) for color in colors.values()]
        fig.legend(handles, counts, loc="outside lower center", ncols=min(len(handles), 5))
    return fig


def _plan_axes(up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, str, str]]:
    high = up / np.linalg.norm(up)
    axis = int(np.abs(high).argmax())
    # For y up the front is +z, for z up it is +x, for x up it is +y: always the next axis.
    front = np.eye(3)[(axis + 1) % 3]
    front = front - high * (front @ high)
    front /= np.linalg.norm(front)
    right = np.cross(high, front)
    if np.isclose(abs(high[axis]), 1):
        return right, high, front, ("xyz"[(axis + 2) % 3], "xyz"[axis], "xyz"[(axis + 1) % 3])
    return right, high, front, ("across", "up", "front")


def _positive_towards_front(axis: Axes, above: bool) -> None:
    """Tick labels of the front axis carry the world's sign, although it is drawn pointing down or left."""
    ticks = axis.yaxis if above else axis.xaxis
    ticks.set_major_formatter(lambda value, _: f"{-value + 0:g}".replace("-", "\N{MINUS SIGN}"))


def _draw_frusta(axis, flat, direction, names, colors, depth, half_angle) -> None:
    cos, sin = np.cos(half_angle), np.sin(half_angle)
    turn = np.asarray([[cos, sin], [-sin, cos]])
    keys = pd.DataFrame(np.round(flat, 6)).assign(name=names)
    drawn: dict[tuple[float, float], int] = {}
    for (x, y, name), rows in keys.groupby([0, 1, "name"], sort=False).groups.items():
        look = direction[rows[0]]
        corners = flat[rows[0]] + depth * np.stack([look @ turn, look @ turn.T]) / cos
        axis.add_patch(Polygon([flat[rows[0]], *corners], closed=True, fc=colors[name], ec=colors[name], alpha=0.25))
        axis.plot(x, y, "o", color=colors[name], ms=4)
        if len(rows) > 3:
            level = drawn.setdefault((x, y), 0)
            drawn[x, y] += 1
            away = -look / max(np.linalg.norm(look), 1e-9) if np.linalg.norm(look) > 0.2 else np.asarray([0, 1])
            axis.annotate(
                f"\N{MULTIPLICATION SIGN}{len(rows)}", (x, y), xytext=tuple(away * (11 + 13 * level)),
                textcoords="offset points", ha="center", va="center", fontsize=8, color=colors[name],
            )  # fmt: skip
    axis.autoscale_view()


def coverage(camera: Sequence[str], time: Any, source: Sequence[str] | None = None, bins: int = 24) -> Figure:
    """How many frames each camera has at each time, with frames without a time apart and the sources in a bar.

    Args:
        camera: the camera's name, one a frame.
        time: in [0, 1], NaN for a frame without a time, one a frame.
        source: the source's name, one a frame.
        bins: columns that the time is counted in.
    """
    table = pd.DataFrame({"camera": [str(name) for name in camera], "time": as_array(time).astype(float)})
    table["source"] = "frames" if source is None else [str(name) for name in source]
    if table.empty:
        raise InputError("there are no frames to draw", field="camera")
    cameras = sorted(table["camera"].unique())
    rows = table["camera"].map({name: row for row, name in enumerate(cameras)}).to_numpy()
    timeless = table["time"].isna().to_numpy()
    columns = np.clip((table["time"].fillna(0) * bins).astype(int).to_numpy(), 0, bins - 1)
    counts = np.zeros((len(cameras), bins))
    np.add.at(counts, (rows[~timeless], columns[~timeless]), 1)
    still = np.bincount(rows[timeless], minlength=len(cameras))[:, None].astype(float)
    top = max(counts.max(), still.max(), 1)
    colors = colors_for(list(table["source"]))
    with style():
        height = min(max(1.9 + 0.22 * len(cameras), 2.6), 7)
        fig = Figure(figsize=(CHART_WIDTH, height), layout="constrained")
        left, middle, right = fig.subplots(1, 3, sharey=True, width_ratios=[0.6, 6, 2.4])
        norm = mpl.colors.LogNorm(0.6, max(top, 2))
        cmap = mpl.colormaps["viridis_r"].with_extremes(bad="#f2f2f2")
        for axis, values, span in ((left, still, (0, 1)), (middle, counts, (0, 1))):
            shown = np.ma.masked_equal(values, 0)
            heat = axis.pcolormesh(
                np.linspace(*span, values.shape[1] + 1), np.arange(len(cameras) + 1) - 0.5, shown, cmap=cmap,
                norm=norm, edgecolors="white", linewidth=0.8,
            )  # fmt: skip
            axis.grid(False)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        left.set(xticks=[0.5], xticklabels=["no\ntime"])
        middle.set(xlabel="time", title="frames by camera and time")
        shown_rows = range(0, len(cameras), max(1, -(-len(cameras) // 26)))
        left.set_yticks(list(shown_rows), [cameras[row] for row in shown_rows], fontsize=8)
        left.invert_yaxis()
        _stack_sources(right, table, cameras, colors)
        if not timeless.any():
            left.set(xticks=[], facecolor="white")
        if top > 1:
            bar = fig.colorbar(heat, ax=[left, middle], location="bottom", fraction=0.05, aspect=40, shrink=0.6)
            bar.set_label("frames in a cell", fontsize=9)
            ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= top]
            bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
            bar.ax.minorticks_off()
            bar.outline.set_visible(False)
    return fig


def _stack_sources(axis: Axes, table: pd.DataFrame, cameras: list[str], colors: dict[str, str]) -> None:
    start = np.zeros(len(cameras))
    for name, color in colors.items():
        counts = table[table["source"] == name]["camera"].value_counts().reindex(cameras, fill_value=0).to_numpy()
        axis.barh(np.arange(len(cameras)), counts, left=start, color=color, height=0.7, label=name)
        start += counts
    axis.set(xlabel="frames", title="by source")
    axis.tick_params(axis="y", length=0, labelleft=False)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(colors) > 1:
        axis.legend(loc="best", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")


def brightness(pixels: Mapping[str, Any], bins: int = 48) -> Figure:
    """How bright and how tinted each source is: channel means and spreads, and histograms of the luma.

    Args:
        pixels: for each source, some of its pixels (foreground, where there is a mask), ``[P, 3]``, float in [0, 1] or
            uint8.
    """
    if not pixels:
        raise InputError("there are no pixels to draw", field="pixels")
    values = {str(name): as_array(array).reshape(-1, 3) for name, array in pixels.items()}
    values = {name: array / 255 if array.dtype == np.uint8 else array for name, array in values.items()}
    colors = colors_for(list(values))
    with style():
        fig = Figure(figsize=(CHART_WIDTH, max(2.7, 1.5 + 0.45 * len(values))), layout="constrained")
        left, right = fig.subplots(1, 2, width_ratios=[1.15, 1])
        for row, (_name, array) in enumerate(values.items()):
            for channel, (letter, color) in enumerate(zip("RGB", (VERMILION, GREEN, BLUE), strict=True)):
                y = row + (channel - 1) * 0.24
                mean, spread = float(array[:, channel].mean()), float(array[:, channel].std())
                left.plot([max(mean - spread, 0), min(mean + spread, 1)], [y, y], color=color, lw=1.2, alpha=0.6)
                left.plot(mean, y, MARKERS[channel], color=color, ms=5)
                left.annotate(
                    f"{letter} {mean:.2f}", (min(mean + spread, 1), y), xytext=(4, 0), textcoords="offset points",
                    va="center", fontsize=7, color="#333333",
                )  # fmt: skip
        left.set_yticks(range(len(values)), list(values))
        left.set(xlim=(0, 1.08), ylim=(len(values) - 0.5, -0.5), title="channel means")
        left.set_xlabel("channel value: mean \N{PLUS-MINUS SIGN} one sd")
        left.grid(False, axis="y")
        for name, array in values.items():
            luma = array @ np.asarray([0.2126, 0.7152, 0.0722])  # Rec. 709, on stored (non-linear) values
            density, edges = np.histogram(luma, bins=bins, range=(0, 1))
            right.stairs(density / max(density.sum(), 1) * 100, edges, color=colors[name], lw=1.6, label=name)
        right.set(xlim=(0, 1), ylim=(0, None), xlabel="luma", ylabel="% of the pixels")
        right.set_title("histograms")
        right.legend()
    return fig
