"""Figures about runs: curves, PSNR by frame, means with their intervals, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import InputError
from .style import BLUE, CHART_WIDTH, GREY, MARKERS, PALETTE, VERMILION, colors_for, style


def curves(table: pd.DataFrame, threshold: float | None = 30.0, columns: int = 3) -> Figure:
    """PSNR on the training frames and on held-out frames by step, the gap between them shaded.

    Args:
        table: columns ``step``, ``psnr_train_db``, ``psnr_db`` (held out); NaN where one was not measured. With a
            column ``run``, one panel a run on common axes.
        threshold: a level in dB to draw a line at; None for none.
        columns: panels in a row.
    """
    _need(table, "step", "psnr_train_db", "psnr_db")
    groups = list(table.groupby("run", sort=False)) if "run" in table else [("", table)]
    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    with style():
        fig = Figure(figsize=(CHART_WIDTH, 3.2 if rows == 1 else 0.5 + 2.1 * rows), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, (name, part) in zip(axes, groups, strict=False):
            _draw_curve(axis, part, threshold)
            axis.set_title(str(name), fontsize=10)
        for axis in axes[len(groups) :]:
            axis.set_visible(False)
        for axis in axes[max(len(groups) - columns, 0) : len(groups)]:
            axis.tick_params(labelbottom=True)
        fig.supxlabel("step", fontsize=10, color="#333333")
        fig.supylabel("PSNR, dB", fontsize=10, color="#333333")
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def _draw_curve(axis: Axes, part: pd.DataFrame, threshold: float | None) -> None:
    part = part.sort_values("step")
    train = part.dropna(subset=["psnr_train_db"])
    held_out = part.dropna(subset=["psnr_db"])
    if len(train) and len(held_out):
        steps = np.union1d(train["step"], held_out["step"])
        inside = (steps >= max(train["step"].min(), held_out["step"].min())) & (
            steps <= min(train["step"].max(), held_out["step"].max())
        )
        upper = np.interp(steps, train["step"], train["psnr_train_db"])
        lower = np.interp(steps, held_out["step"], held_out["psnr_db"])
        axis.fill_between(steps, upper, lower, where=inside, color=VERMILION, alpha=0.12, lw=0, label="gap")
    ends = []
    for rows, column, color, marker, label in (
        (train, "psnr_train_db", BLUE, "s", "train"),
        (held_out, "psnr_db", VERMILION, "o", "held out"),
    ):
        every = max(1, len(rows) // 12)
        axis.plot(rows["step"], rows[column], color=color, marker=marker, ms=4, markevery=every, label=label)
        if len(rows):
            ends.append((float(rows["step"].iloc[-1]), float(rows[column].iloc[-1]), color))
    # The last values, read off the end of each line, above and below it so that they stay apart.
    ends.sort(key=lambda end: -end[1])
    for index, (step, value, color) in enumerate(ends):
        axis.annotate(
            f"{value:.1f}", (step, value), xytext=(0, 6 if index == 0 else -6), textcoords="offset points", ha="right",
            va="bottom" if index == 0 else "top", fontsize=8.5, color=color, fontweight="bold",
        )  # fmt: skip
    axis.margins(y=0.14)
    if threshold is not None:
        axis.axhline(threshold, color=GREY, ls=(0, (4, 3)), lw=1, label=f"{threshold:g} dB")


def psnr_per_frame(table: pd.DataFrame, x: str = "time", y: str = "psnr_db", threshold: float | None = 30.0) -> Figure:
    """PSNR of every frame, a colour and marker for each run; with a column ``source``, one panel a source.

    Args:
        table: columns ``run`` and ``y``, and ``x`` where it is a column; otherwise frames are counted in table order.
            Frames of one run at the same ``x`` (other cameras) are dots, their mean is the line.
        x: ``"time"``, ``"camera"`` or any column; where all of it is NaN (stills), frames are counted.
    """
    _need(table, "run", y)
    panels = list(table.groupby("source", sort=False)) if "source" in table else [("", table)]
    runs = list(dict.fromkeys(table["run"].astype(str)))
    colors = dict(zip(runs, (PALETTE[i % len(PALETTE)] for i in range(len(runs))), strict=True))
    markers = dict(zip(runs, (MARKERS[i % len(MARKERS)] for i in range(len(runs))), strict=True))
    with style():
        legend_rows = -(-(len(runs) + 1) // 3)
        fig = Figure(figsize=(CHART_WIDTH, 2.9 + 0.2 * legend_rows), layout="constrained")
        axes = fig.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for axis, (source, panel) in zip(axes, panels, strict=True):
            counted = x not in panel or panel[x].isna().all()
            for run in runs:
                rows = panel[panel["run"].astype(str) == run]
                if rows.empty:
                    continue
                place = pd.Series(np.arange(len(rows)), index=rows.index) if counted else rows[x]
                means = rows[y].groupby(place, sort=not counted).mean()
                many = len(means) < len(rows)
                if many:
                    axis.plot(place, rows[y], markers[run], color=colors[run], ms=3, alpha=0.35, mec="none")
                axis.plot(
                    means.index, means, color=colors[run], marker=markers[run], ms=3.5, lw=1.1,
                    markevery=max(1, len(means) // 24), label=run,
                )  # fmt: skip
            if threshold is not None:
                axis.axhline(threshold, color=GREY, ls=(0, (4, 3)), lw=1, label=f"{threshold:g} dB")
            if not counted and not pd.api.types.is_numeric_dtype(panel[x]):
                _thin_labels(axis, 12 // len(panels) + 2)
            axis.set(title=str(source), xlabel="frame" if counted else x)
        axes[0].set_ylabel("PSNR, dB")
        found = {line.get_label(): line for axis in axes for line in axis.get_lines()}
        labels = [*runs, *([] if threshold is None else [f"{threshold:g} dB"])]
        fig.legend([found[key] for key in labels], labels, loc="outside upper left", ncols=min(3, len(labels)))
    return fig


def _thin_labels(axis: Axes, most: int) -> None:
    """Every so many of the names on the x axis, slanted, so that they can be read."""
    ticks = list(axis.get_xticks())
    names = [label.get_text() for label in axis.get_xticklabels()]
    every = -(-len(ticks) // most)
    axis.set_xticks(ticks[::every], names[::every], rotation=40, ha="right", rotation_mode="anchor")


def intervals(
    table: pd.DataFrame,
    label: str = "run",
    group: str | None = None,
    threshold: float | None = 30.0,
    xlabel: str = "PSNR, dB (mean and 95% interval)",
) -> Figure:
    """A dot and an interval for every row of a summary, with the line that it is held against.

    Args:
        table: columns ``mean``, ``low``, ``high``, optionally ``n`` (frames, printed), and ``label``. Rows with a NaN
            mean are left out; a NaN ``low`` or ``high`` draws the dot alone.
        label: the column whose values name the lines, top to bottom as they come.
        group: a column (split, source) told apart by colour and marker within each line.
        threshold: the level to draw; None for none.
    """
    _need(table, "mean", "low", "high", label, *([group] if group else []))
    table = table[table["mean"].notna()]
    names = list(dict.fromkeys(table[label].astype(str)))
    groups = list(dict.fromkeys(table[group].astype(str))) if group else [""]
    colors = colors_for(groups) if group else {"": BLUE}
    step = 0.62 / len(groups)
    with style():
        height = 1.2 + len(names) * max(0.34, 0.24 * len(groups)) + (0.25 if group else 0)
        fig = Figure(figsize=(CHART_WIDTH, height), layout="constrained")
        axis = fig.subplots()
        for row, name in enumerate(names):
            if row % 2:
                axis.axhspan(row - 0.5, row + 0.5, color="#f6f6f6", lw=0, zorder=0)
            for index, key in enumerate(groups):
                lines = table[table[label].astype(str) == name]
                if group:
                    lines = lines[lines[group].astype(str) == key]
                y = row + (index - (len(groups) - 1) / 2) * step
                for line in lines.itertuples():
                    _draw_interval(axis, line, y, colors[key], MARKERS[index % len(MARKERS)])
        for index, key in enumerate(groups):
            if group:
                axis.plot([], [], MARKERS[index % len(MARKERS)], color=colors[key], ls="-", label=key)
        if threshold is not None:
            axis.axvline(threshold, color="#333333", ls=(0, (4, 3)), lw=1.2, zorder=1)
            axis.annotate(
                f"{threshold:g} dB", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=8.5, color="#333333",
            )  # fmt: skip
        axis.set_yticks(range(len(names)), names)
        axis.set(ylim=(len(names) - 0.5, -0.5), xlabel=xlabel)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(False, axis="y")
        left, right = axis.get_xlim()
        axis.set_xlim(left, right + 0.17 * (right - left))  # room for the numbers
        if group:
            fig.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=len(groups))
    return fig


def _draw_interval(axis: Axes, line, y: float, color: str, marker: str) -> None:
    if np.isfinite(line.low) and np.isfinite(line.high):
        axis.plot([line.low, line.high], [y, y], color=color, lw=2, alpha=0.55, solid_capstyle="round", zorder=2)
    axis.plot(line.mean, y, marker, color=color, ms=6, zorder=3)
    right = line.high if np.isfinite(line.high) else line.mean
    count = f"  n={int(line.n)}" if hasattr(line, "n") and np.isfinite(line.n) else ""
    axis.annotate(
        f"{line.mean:.1f}{count}", (right, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8,
        color="#444444", zorder=4, bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.85},
    )  # fmt: skip


def timeline(phases: Sequence[tuple[str, float]] | pd.DataFrame, title: str = "") -> Figure:
    """What took how long, one bar a phase, each starting where the one before it ended.

    Args:
        phases: ``(name, seconds)`` in order, or a table with columns ``name``, ``seconds`` and optionally ``start_s``
            (by default the phases follow one another) and ``group`` (told apart by colour).
    """
    table = phases if isinstance(phases, pd.DataFrame) else pd.DataFrame(list(phases), columns=["name", "seconds"])
    _need(table, "name", "seconds")
    if table.empty:
        raise InputError("there are no phases to draw", field="phases")
    seconds = table["seconds"].to_numpy(float)
    start = table["start_s"].to_numpy(float) if "start_s" in table else np.cumsum(seconds) - seconds
    groups = table["group"].astype(str) if "group" in table else pd.Series([""] * len(table))
    colors = colors_for(list(groups)) if "group" in table else {"": BLUE}
    span = float((start + seconds).max())
    unit, factor = ("s", 1.0) if span < 180 else ("min", 60.0) if span < 3 * 3600 else ("h", 3600.0)
    with style():
        fig = Figure(figsize=(CHART_WIDTH, 1.1 + 0.3 * len(table)), layout="constrained")
        axis = fig.subplots()
        for row, (begin, length, key) in enumerate(zip(start, seconds, groups, strict=True)):
            axis.barh(row, length / factor, left=begin / factor, color=colors[key], height=0.66)
            late = begin + length > 0.8 * span and begin > 0.25 * span
            axis.annotate(
                _duration(length), ((begin if late else begin + length) / factor, row), xytext=(-5 if late else 5, 0),
                textcoords="offset points", va="center", ha="right" if late else "left", fontsize=8.5, color="#333333",
            )  # fmt: skip
        axis.set_yticks(range(len(table)), table["name"].astype(str))
        axis.set(ylim=(len(table) - 0.5, -0.5), xlim=(0, span / factor * 1.1 or 1), xlabel=f"time, {unit}", title=title)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(False, axis="y")
        if "group" in table:
            fig.legend([Patch(color=color) for color in colors.values()], list(colors), loc="outside lower center",
                       ncols=len(colors))  # fmt: skip
    return fig


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min {seconds % 60:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _need(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        known = ", ".join(map(str, table.columns))
        raise InputError(f"the table lacks {', '.join(missing)}", field="table", remedy=f"it has {known}")
