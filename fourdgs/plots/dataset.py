"""Figures about a dataset: where its cameras stand, and what they saw when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from ..capture import natural
from ..errors import InputError
from .style import BLACK, CHART_WIDTH, GREY, as_array, colors_for, style

MOST_ROWS = 150
"""Cameras in a row of their own; more would be thinner than four pixels each."""

FEW_ROWS = 60
"""With more, rows are too thin for lines between them."""

MOST_COLUMNS = 60


def frusta(
    positions: Any,
    forwards: Any,
    groups: Sequence[str] | None = None,
    up: Sequence[float] = (0, 1, 0),
    fov_deg: float = 30,
    target: Sequence[float] | None = (0, 0, 0),
    held_out: Any = None,
) -> Figure:
    """Cameras from above and from the side, coloured by group; a number says how many to train on share a place.

    Args:
        positions: ``[C, 3]`` world units.
        forwards: ``[C, 3]`` viewing directions; their length does not matter.
        groups: a name a camera, for instance its source.
        up: the world's up axis.
        fov_deg: the opening at which the frusta are drawn.
        target: marked with a cross, where it is not far outside of where the cameras are; None for no mark.
        held_out: [C] bool; these are drawn hollow.
    """
    places = as_array(positions).astype(float).reshape(-1, 3)
    looks = as_array(forwards).astype(float).reshape(-1, 3)
    names = np.asarray(["cameras"] * len(places) if groups is None else [str(group) for group in groups])
    if not len(places) == len(looks) == len(names) or len(places) == 0:
        raise InputError(f"{len(places)} positions, {len(looks)} forwards, {len(names)} groups", field="positions")
    hollow = np.zeros(len(places), bool) if held_out is None else as_array(held_out).astype(bool)
    looks = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-12)
    right, high, front, labels = plan_axes(np.asarray(up, float))
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
            _draw_frusta(axis, flat, direction, names, hollow, colors, 0.14 * scale, np.radians(fov_deg) / 2)
            if target is not None and within_reach(np.asarray(target, float), places):
                axis.plot(*(np.asarray(target, float) @ np.stack([across, upward], 1)), "+", color=BLACK, ms=10)
            axis.set(title=title, xlabel=x_label, ylabel=y_label)
            axis.set_aspect("equal", adjustable="datalim")
            axis.margins(0.2)
        for axis in axes:
            _positive_towards_front(axis, axis is axes[0])
        camera_legend(fig, names, hollow, colors)
    return fig


def within_reach(target: np.ndarray, places: np.ndarray) -> bool:
    """Whether a point ``[3]`` can be drawn with cameras ``[C, 3]`` without making them small."""
    extent = float(np.ptp(places, axis=0).max())
    return extent == 0 or float(np.linalg.norm(target - places.mean(axis=0))) <= 3 * extent


def camera_legend(fig: Figure, names: np.ndarray, hollow: np.ndarray, colors: Mapping[str, str]) -> None:
    """What the colours of cameras mean, with how many frames there are of each, under a figure."""
    handles = [Patch(color=color) for color in colors.values()]
    labels = [f"{name} ({(names == name).sum()})" for name in colors]
    if hollow.any():
        handles.append(Patch(fc="none", ec=GREY, ls="--"))
        labels.append("hollow: held out")
    fig.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 5))


def plan_axes(up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, str, str]]:
    """Unit vectors to the right, up and to the front, right-handed, and the words at their axes."""
    high = up / np.linalg.norm(up)
    axis = int(np.abs(high).argmax())
    # For y up the front is +z, for z up it is +x, for x up it is +y: always the next axis.
    front = np.eye(3)[(axis + 1) % 3]
    front = front - high * (front @ high)
    front /= np.linalg.norm(front)
    right = np.cross(high, front)
    if np.isclose(abs(high[axis]), 1):
        # Where up is a negative axis, so is one of the others.
        signs = ["\N{MINUS SIGN}" if vector.sum() < 0 else "" for vector in (right, high)]
        return right, high, front, (
            signs[0] + "xyz"[(axis + 2) % 3], signs[1] + "xyz"[axis], "xyz"[(axis + 1) % 3],
        )  # fmt: skip
    return right, high, front, ("across", "up", "front")


def _positive_towards_front(axis: Axes, above: bool) -> None:
    """Tick labels of the front axis carry the world's sign, although it is drawn pointing down or left."""
    ticks = axis.yaxis if above else axis.xaxis
    ticks.set_major_formatter(lambda value, _: f"{-value + 0:g}".replace("-", "\N{MINUS SIGN}"))


def _draw_frusta(axis, flat, direction, names, hollow, colors, depth, half_angle) -> None:
    cos, sin = np.cos(half_angle), np.sin(half_angle)
    turn = np.asarray([[cos, sin], [-sin, cos]])
    keys = pd.DataFrame(np.round(flat, 6)).assign(name=names, hollow=hollow)
    drawn: dict[tuple[float, float], int] = {}
    for (x, y, name, empty), rows in keys.groupby([0, 1, "name", "hollow"], sort=False).groups.items():
        look = direction[rows[0]]
        corners = flat[rows[0]] + depth * np.stack([look @ turn, look @ turn.T]) / cos
        look_of = {"fc": "none", "ls": "--", "alpha": 0.7} if empty else {"fc": colors[name], "alpha": 0.25}
        axis.add_patch(Polygon([flat[rows[0]], *corners], closed=True, ec=colors[name], **look_of))
        axis.plot(x, y, "o", color=colors[name], mfc="white" if empty else colors[name], ms=4)
        if len(rows) > 3 and not empty:
            level = drawn.setdefault((x, y), 0)
            drawn[x, y] += 1
            away = -look / max(np.linalg.norm(look), 1e-9) if np.linalg.norm(look) > 0.2 else np.asarray([0, 1])
            axis.annotate(
                f"\N{MULTIPLICATION SIGN}{len(rows)}", (x, y), xytext=tuple(away * (11 + 13 * level)),
                textcoords="offset points", ha="center", va="center", fontsize=8, color=colors[name],
            )  # fmt: skip
    axis.autoscale_view()


def coverage(
    camera: Sequence[str],
    time: Any,
    source: Sequence[str] | None = None,
    weight: Any = None,
    bins: int | None = None,
) -> Figure:
    """How many frames each camera has at each time, and which share of the training each camera gets.

    Frames without a time stand in a column of their own. Beyond `MOST_ROWS` cameras, neighbours share a row.

    Args:
        camera: the camera's name, one a frame.
        time: in [0, 1], NaN for a frame without a time, one a frame.
        source: the source's name, one a frame.
        weight: how often the frame is drawn in training, relative to the others, one a frame; by default all alike.
            Where weights differ, outlines show what the camera's share would be without them.
        bins: columns that the time is counted in; by default one a moment, at most `MOST_COLUMNS`.
    """
    table = pd.DataFrame({"camera": [str(name) for name in camera], "time": as_array(time).astype(float)})
    table["source"] = "frames" if source is None else [str(name) for name in source]
    if table.empty:
        raise InputError("there are no frames to draw", field="camera")
    table["weight"] = 1.0 if weight is None else as_array(weight).astype(float)
    if not (np.isfinite(table["weight"]) & (table["weight"] > 0)).all():
        raise InputError("weights must be positive numbers", field="weight")
    cameras = sorted(table["camera"].unique(), key=natural)
    each = -(-len(cameras) // MOST_ROWS)
    table["row"] = table["camera"].map({name: index // each for index, name in enumerate(cameras)})
    still, timed = _counts(table, len(cameras[::each]), bins or _moments(table["time"]))
    panels = [counts for counts in (still, timed) if counts.any()]
    with style():
        fig = Figure(figsize=(CHART_WIDTH, min(max(2.1 + 0.22 * len(still), 2.8), 5.7)), layout="constrained")
        widths = [0.6 if counts is still else 6 for counts in panels]
        *heats, right = fig.subplots(1, len(panels) + 1, sharey=True, width_ratios=[*widths, 0.4 * max(widths)])
        _draw_counts(fig, dict(zip(heats, panels, strict=True)))
        if panels[0] is still:
            heats[0].set(xticks=[0.5], xticklabels=["no\ntime"])
        if panels[-1] is timed:
            single = "" if max(counts.max() for counts in panels) > 1 else " (a coloured cell is one frame)"
            heats[-1].set(xlabel=f"time{single}", title="frames by camera and time")
        shown = range(0, len(still), -(-len(still) // 26))
        heats[0].set_yticks(list(shown), [_row_name(cameras[row * each : (row + 1) * each]) for row in shown])
        heats[0].tick_params(axis="y", labelsize=8)
        heats[0].invert_yaxis()
        _draw_shares(right, table, len(still))
    return fig


def _moments(time: pd.Series) -> int:
    """Columns that hold one moment each where times are evenly spaced, or else a few.

    With n moments at k / (n - 1), floor(n time) counts them; only gaps larger than the usual step leave empty columns.
    """
    steps = np.diff(np.unique(time.dropna()))
    steps = steps[steps > 1e-6]
    if not len(steps):
        return 1
    intervals = max(1, round(1 / float(np.median(steps))))
    together = -(-intervals // MOST_COLUMNS)
    return intervals + 1 if intervals < MOST_COLUMNS else intervals // together


def _counts(table: pd.DataFrame, rows: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames without a time [rows, 1], and with one [rows, bins]."""
    still, timed = np.zeros((rows, 1)), np.zeros((rows, bins))
    none = table["time"].isna().to_numpy()
    row = table["row"].to_numpy()
    # Times have been through files: a thousandth of a column keeps 0.4999996 with 0.5.
    columns = np.clip((table["time"].fillna(0).to_numpy() * bins + 1e-3).astype(int), 0, bins - 1)
    np.add.at(still, (row[none], 0), 1)
    np.add.at(timed, (row[~none], columns[~none]), 1)
    return still, timed


def _draw_counts(fig: Figure, panels: Mapping[Axes, np.ndarray]) -> None:
    top = max(counts.max() for counts in panels.values())
    norm = mpl.colors.LogNorm(0.6, max(top, 2))
    cmap = mpl.colormaps["viridis_r"].with_extremes(bad="#f2f2f2")
    heat = None
    for axis, counts in panels.items():
        few = len(counts) <= FEW_ROWS
        lines = {"edgecolors": "white", "linewidth": 0.8 if counts.shape[1] <= 30 else 0.4} if few else {}
        columns, rows = np.linspace(0, 1, counts.shape[1] + 1), np.arange(len(counts) + 1) - 0.5
        shown = np.ma.masked_equal(counts, 0)
        heat = axis.pcolormesh(columns, rows, shown, cmap=cmap, norm=norm, rasterized=not few, **lines)
        axis.grid(False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    if top > 1:
        bar = fig.colorbar(heat, ax=list(panels), location="bottom", fraction=0.05, aspect=40, shrink=0.6)
        bar.set_label("frames in a cell", fontsize=9)
        ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if tick <= top]
        bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)


def _row_name(cameras: list[str]) -> str:
    """A row's label; long names lose their middle, since both ends tell cameras apart."""
    names = [name if len(name) <= 22 else f"{name[:8]}\N{HORIZONTAL ELLIPSIS}{name[-12:]}" for name in cameras]
    return names[0] if len(names) == 1 else f"{names[0]} (+{len(names) - 1})"


def _draw_shares(axis: Axes, table: pd.DataFrame, rows: int) -> None:
    """How much of the training each camera gets, its sources stacked."""
    colors = colors_for(list(table["source"]))
    share = 100 * table["weight"] / table["weight"].sum()
    start = np.zeros(rows)
    for name, color in colors.items():
        mine = (table["source"] == name).to_numpy()
        part = np.bincount(table["row"][mine], share[mine], minlength=rows)
        axis.barh(np.arange(rows), part, left=start, color=color, height=0.7 if rows <= FEW_ROWS else 1, label=name)
        start += part
    if np.ptp(share) > 1e-9 * share.max():
        plain = np.bincount(table["row"], minlength=rows) * 100 / len(table)
        if rows <= FEW_ROWS:
            axis.barh(np.arange(rows), plain, height=0.7, fc="none", ec=BLACK, lw=0.9, label="without weights")
        else:
            axis.stairs(plain, np.arange(rows + 1) - 0.5, orientation="horizontal", color=BLACK, lw=0.9,
                        label="without weights")  # fmt: skip
    axis.set(xlabel="% of the steps", title="share of training")
    axis.tick_params(axis="y", length=0, labelleft=False)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        axis.figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
