"""Figures that hold runs against one another: PSNR on the rig's plan, and curves with the step where they parted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..errors import InputError
from .results import curves
from .style import CHART_WIDTH, GREY, as_array, style

LABELLED = 26  # cameras in a panel, up to which each gets its figure


def rig_plan(
    table: pd.DataFrame, training: Mapping[str, Any] | None = None, value: str = "psnr_db", label: str = "PSNR, dB"
) -> Figure:
    """Held-out cameras where they stand, seen from above and coloured by a figure of theirs; a panel a run, one scale.

    Args:
        table: columns ``run``, ``camera``, ``x``, ``y`` (the ground, any units, the subject at 0, 0) and ``value``.
        training: for a run's name, the places of its training views, [V, 2]; drawn as crosses.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    missing = [name for name in ("run", "camera", "x", "y", value) if name not in table]
    if missing or table.empty:
        what = f"the table lacks {', '.join(missing)}" if missing else "there is no camera to draw"
        raise InputError(what, field="table")
    runs = list(dict.fromkeys(table["run"].astype(str)))
    training = {str(name): as_array(places) for name, places in (training or {}).items()}
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    side = CHART_WIDTH / max(columns, 2)
    finite = table[value][np.isfinite(table[value])]
    scale = Normalize(float(finite.min()), float(finite.max()))
    reach = 1.25 * max(
        float(np.abs(table[["x", "y"]].to_numpy()).max()),
        *(float(np.abs(places).max(initial=0)) for places in training.values()),
        1e-9,
    )
    with style():
        fig = Figure(figsize=(min(CHART_WIDTH, side * columns + 0.9), side * rows + 0.3), layout="constrained")
        axes = fig.subplots(rows, columns, squeeze=False).ravel()
        drawn = None
        for axis, run in zip(axes, runs, strict=False):
            drawn = _draw_plan(axis, table[table["run"].astype(str) == run], training.get(run), value, scale)
            axis.set_title(run, fontsize=10)
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        for axis in axes[len(runs) :]:
            axis.set_visible(False)
        bar = fig.colorbar(drawn, ax=list(axes[: len(runs)]), fraction=0.04, pad=0.02, aspect=24)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8.5)
        bar.outline.set_visible(False)
    return fig


def _draw_plan(axis: Axes, part: pd.DataFrame, trained: Any, value: str, scale: Normalize) -> Any:
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.plot(0, 0, "o", color="#dddddd", ms=14, zorder=1)
    if trained is not None and len(trained):
        axis.plot(trained[:, 0], trained[:, 1], "x", color=GREY, ms=5, mew=1.1, zorder=2)
    drawn = axis.scatter(
        part["x"],
        part["y"],
        c=part[value],
        cmap="viridis",
        norm=scale,
        s=44,
        edgecolors="white",
        linewidths=0.7,
        zorder=3,
    )
    if len(part) <= LABELLED:
        for row in part.itertuples():
            outward = np.array([row.x, row.y]) / max(np.hypot(row.x, row.y), 1e-12)
            axis.annotate(
                f"{getattr(row, value):.0f}", (row.x, row.y), xytext=tuple(11 * outward), textcoords="offset points",
                ha="center", va="center", fontsize=7, color="#444444",
            )  # fmt: skip
    return drawn


def gap_curves(table: pd.DataFrame, opened: Mapping[str, float], threshold: float | None = None) -> Figure:
    """`curves`, with a line at the step where the gap between training and held-out frames opened.

    Args:
        table: as `curves` takes it, with a column ``run``.
        opened: the step by the run's name; NaN or absent for none.
    """
    if "run" not in table:
        raise InputError("the table lacks run", field="table")
    fig = curves(table, threshold=threshold)
    with style():
        for axis, (name, _) in zip(fig.axes, table.groupby("run", sort=False), strict=False):
            step = opened.get(str(name), float("nan"))
            if np.isfinite(step):
                axis.axvline(step, color="#333333", ls=(0, (1, 2)), lw=1.1)
                first = step <= table.loc[table["run"] == name, "step"].min()
                text = "open from the first look on" if first else f"opens at {step:.0f}"
                axis.annotate(
                    text, (step, 0.03), xycoords=("data", "axes fraction"), xytext=(4, 0),
                    textcoords="offset points", fontsize=8, color="#333333",
                )  # fmt: skip
    return fig
