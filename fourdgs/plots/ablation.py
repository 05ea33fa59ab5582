"""What remedies gain, with their spread over seeds; and PSNR over the cameras and times of a thinned grid."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from ..errors import InputError
from .results import _need
from .style import CHART_WIDTH, VERMILION, as_array, colors_for, style

_COLUMNS = ("label", "mean_db", "gain_db", "gain_least_db", "gain_most_db")
_DARK = "#333333"
_BIG = 12  # points: a chart is 7.6 inches wide, and is read on telephones of 400 pixels too
_FRAME = (6.5, 4.6)  # inches, about: of the axes of a grid's law
_WRAP = 27  # characters of a label in a line


def gains(panels: Mapping[str, pd.DataFrame] | pd.DataFrame, least_db: float | None = None) -> Figure:
    """Bars of what each trial gains over its reference, a line for the spread over seeds, and the mean printed beside.

    Args:
        panels: tables by title, one panel each with a scale of its own: columns of `fourdgs.ablation.gains`, and
            optionally ``source``, whose values are bars beside each other, told apart by colour. A reference is a row
            whose gain is 0 in every seed.
        least_db: losses beyond this are cut there, with the figure printed; None for none.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    panels = {"": panels} if isinstance(panels, pd.DataFrame) else dict(panels)
    for table in panels.values():
        _need(table, *_COLUMNS)
    if not sum(map(len, panels.values())):
        raise InputError("there are no gains to draw", field="panels")
    sources = list(dict.fromkeys(name for table in panels.values() for name in _sources(table)))
    colors = colors_for(sources)
    rows = [table["label"].nunique() for table in panels.values()]
    each = 0.24 + 0.22 * len(sources)
    with style():
        height = 0.75 + each * sum(rows) + 0.65 * len(panels)
        fig = Figure(figsize=(CHART_WIDTH, height), layout="constrained")
        axes = fig.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": rows}).ravel()
        for axis, (title, table) in zip(axes, panels.items(), strict=True):
            _draw_gains(axis, table, sources, colors, least_db)
            if title:
                axis.set_title(title, fontsize=_BIG)
        axes[-1].set_xlabel("gain in PSNR, dB", fontsize=_BIG)
        if len(sources) > 1:
            fig.legend([Patch(color=colors[name]) for name in sources], sources, loc="outside upper left",
                       ncols=len(sources), fontsize=_BIG)  # fmt: skip
    return fig


def _sources(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["source"].astype(str))) if "source" in table else [""]


def _draw_gains(axis: Axes, table: pd.DataFrame, sources: list[str], colors: dict, least_db: float | None) -> None:
    labels = list(dict.fromkeys(table["label"].astype(str)))
    cut = -np.inf if least_db is None else least_db
    step = 0.78 / len(sources)
    for row, label in enumerate(labels):
        if row % 2:
            axis.axhspan(row - 0.5, row + 0.5, color="#f6f6f6", lw=0, zorder=0)
        lines = table[table["label"].astype(str) == label]
        keys = lines["source"].astype(str) if "source" in lines else pd.Series([""] * len(lines), lines.index)
        for index, source in enumerate(sources):
            for line in lines[keys == source].itertuples():
                _draw_gain(axis, line, row + (index - (len(sources) - 1) / 2) * step, step, colors[source], cut)
    axis.axvline(0, color="#777777", lw=1, zorder=2)
    axis.set_yticks(range(len(labels)), [textwrap.fill(label, _WRAP) for label in labels], fontsize=_BIG - 1)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=_BIG - 1)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")
    # Room for the figures beyond both ends of the bars.
    reach = np.maximum(table[["gain_db", "gain_least_db", "gain_most_db"]].to_numpy(float), cut)
    low, high = min(0.0, np.nanmin(reach, initial=0)), max(0.0, np.nanmax(reach, initial=0))
    span = max(high - low, 0.1)
    axis.set_xlim(low - (0.16 if low < 0 else 0.02) * span, high + 0.16 * span)
    axis.annotate("mean", (1, 1), xycoords="axes fraction", xytext=(34, 4), textcoords="offset points", ha="right",
                  fontsize=_BIG - 1, color=_DARK)  # fmt: skip


def _draw_gain(axis: Axes, line: Any, y: float, step: float, color: str, cut: float) -> None:
    gain, least, most = (max(float(value), cut) for value in (line.gain_db, line.gain_least_db, line.gain_most_db))
    shown = np.isfinite(line.gain_db)
    if shown:
        axis.barh(y, gain, height=0.86 * step, color=color, alpha=0.8, zorder=1)
        axis.plot([least, most], [y, y], color=_DARK, lw=1.6, solid_capstyle="butt", zorder=3)
    is_reference = shown and line.gain_least_db == line.gain_most_db == 0
    # A loss is written at its own end, unless it is cut there: then inside, where the bar has room.
    if not shown or is_reference:
        words, end, side = ("" if not shown else "reference"), 0.0, 1
    elif line.gain_db < cut:
        words, end, side = f"\N{MINUS SIGN}{-line.gain_db:.1f}", cut, 1
    else:
        words = f"{line.gain_db:+.2f}".replace("-", "\N{MINUS SIGN}")
        end, side = (most, 1) if line.gain_db >= 0 else (least, -1)
    text = axis.annotate(
        words, (end, y), xytext=(5 * side, 0), textcoords="offset points", ha="left" if side > 0 else "right",
        va="center", fontsize=_BIG - 2, color=_DARK, zorder=4,
    )  # fmt: skip
    if shown and line.gain_db < cut:
        text.set_color("white")
        axis.plot(cut, y, "<", color=color, ms=9, clip_on=False, zorder=4)
    axis.annotate(
        f"{line.mean_db:.1f}", (1, y), xycoords=("axes fraction", "data"), xytext=(34, 0), textcoords="offset points",
        ha="right", va="center", fontsize=_BIG - 2, color=_DARK,
    )  # fmt: skip


def grid_law(
    cells: pd.DataFrame, contours: Mapping[float, tuple[Any, Any]] | None = None, threshold: float | None = 30.0
) -> Figure:
    """Measured cells of a thinned grid as squares with their PSNR, and the levels of a law fitted to them.

    Args:
        cells: columns ``cameras``, ``times``, ``psnr_db``.
        contours: by level in dB, the curve as cameras and times, [n] each; those without a point are left out.
        threshold: the level that is drawn thick.

    Raises:
        InputError: a column is missing, or there is no cell.
    """
    _need(cells, "cameras", "times", "psnr_db")
    if cells.empty:
        raise InputError("there is no cell to draw", field="cells")
    limits = [(float(cells[name].min()) / reach, float(cells[name].max()) * 1.3)
              for name, reach in (("cameras", 1.3), ("times", 1.5))]  # fmt: skip
    values = cells["psnr_db"].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    scale = Normalize(low, high if high > low else low + 1)
    with style():
        fig = Figure(figsize=(CHART_WIDTH, 5.6), layout="constrained")
        axis = fig.subplots()
        axis.set(xscale="log", yscale="log", xlim=limits[0], ylim=limits[1])
        axis.grid(False)
        taken: list[list[float]] = []
        for level, curve in sorted((contours or {}).items(), key=lambda item: (item[0] != threshold, -item[0])):
            _draw_level(axis, float(level), as_array(curve[0]), as_array(curve[1]), limits, level == threshold, taken)
        axis.scatter(cells["cameras"], cells["times"], c=values, cmap="viridis", norm=scale, s=1500, marker="s",
                     edgecolors="white", linewidths=1.5, zorder=3)  # fmt: skip
        for cell in cells.itertuples():
            dark = scale(cell.psnr_db) < 0.6
            axis.annotate(f"{cell.psnr_db:.1f}", (cell.cameras, cell.times), ha="center", va="center", zorder=4,
                          fontsize=_BIG, color="white" if dark else "black")  # fmt: skip
        for line, name in ((axis.xaxis, "cameras"), (axis.yaxis, "times")):
            levels = sorted(cells[name].unique())
            line.set_major_locator(FixedLocator(levels))
            line.set_minor_locator(NullLocator())
            line.set_ticklabels([f"{level:g}" for level in levels], fontsize=_BIG)
        axis.set_xlabel("cameras", fontsize=_BIG)
        axis.set_ylabel("times", fontsize=_BIG)
    return fig


def _draw_level(
    axis: Axes, level: float, cameras: np.ndarray, times: np.ndarray, limits: list, thick: bool, taken: list
) -> None:
    """A level's line, and its name unless another lies there: ``taken`` are their places, inches; its own is added."""
    inside = (cameras >= limits[0][0]) & (cameras <= limits[0][1]) & (times >= limits[1][0]) & (times <= limits[1][1])
    cameras, times = cameras[inside], times[inside]
    if not len(cameras):
        return
    color = VERMILION if thick else "#8a8a8a"
    axis.plot(cameras, times, color=color, lw=3.4 if thick else 1.2, zorder=2, solid_capstyle="round")
    # Named where the curve leaves the frame, above it or to its right: no cell lies there. Levels that leave it
    # below are not named, but for the one that matters.
    above, below = times[0] > limits[1][1] / 1.05, cameras[-1] < limits[0][1] / 1.05
    if below and not above and not thick:
        return
    place, offset, sides = (limits[0][1], times[-1]), (5, 0), ("left", "center")
    if above:
        place, offset, sides = (cameras[0], limits[1][1]), (0, 3), ("center", "bottom")
    elif below:
        place, offset, sides = (cameras[-1], times[-1]), (4, 2), ("left", "bottom")
    spot = [size * math.log(value / low) / math.log(high / low)
            for size, value, (low, high) in zip(_FRAME, place, limits, strict=True)]  # fmt: skip
    if any(abs(spot[0] - x) < 0.6 and abs(spot[1] - y) < 0.24 for x, y in taken):
        return
    taken.append(spot)
    axis.annotate(
        f"{level:g} dB" if thick else f"{level:g}", place, xytext=offset, textcoords="offset points", ha=sides[0],
        va=sides[1], fontsize=_BIG, fontweight="bold" if thick else "normal", color=color if thick else "#666666",
        annotation_clip=False, zorder=4,
    )  # fmt: skip
