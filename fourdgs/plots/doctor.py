"""Figures of a diagnosis: what to expect, where the cameras stand in space, what sources show, and what changed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .dataset import camera_legend, plan_axes, within_reach
from .pictures import LARGEST, _title, as_picture, draw_picture
from .style import BLACK, BLUE, CHART_WIDTH, GREEN, GREY, MARKERS, SKY, VERMILION, as_array, colors_for, style

SEVERITY = {"error": (VERMILION, "X"), "warning": ("#B07000", "^"), "info": (SKY, "o")}
"""Colour and mark of each; the word stands beside them."""

MOST_CAMERAS = 240
"""Pyramids in one figure; of more, so many are drawn, evenly over their order."""

_CHECKS = (0.89, 0.81)
_CHANNELS = (("R", VERMILION, "-"), ("G", GREEN, "--"), ("B", BLUE, ":"))


# --- what to expect ----------------------------------------------------------------------------------------------


def diagnosis(table: pd.DataFrame, expected: Sequence[tuple[str, float, float]] = (), title: str = "") -> Figure:
    """The held-out PSNR to expect, and what each finding takes from it.

    Args:
        table: one row a finding, the worst first: ``severity`` (error, warning, info), ``finding`` (its code),
            ``loss_db`` and ``uncertainty_db`` (NaN where the loss is not known) and ``automatic`` (whether a remedy can
            be applied by a program).
        expected: rows of (label, PSNR in dB, one standard deviation), drawn above the findings.
        title: of the upper part.
    """
    missing = [name for name in ("severity", "finding", "loss_db", "uncertainty_db", "automatic") if name not in table]
    if missing:
        raise InputError(f"the table lacks {', '.join(missing)}", field="table")
    strange = set(table["severity"]) - set(SEVERITY)
    if strange:
        raise InputError(f"{strange.pop()!r} is no severity", field="severity", remedy=f"use {', '.join(SEVERITY)}")
    if table.empty and not len(expected):
        raise InputError("there is neither a finding nor an expectation to draw", field="table")
    heights = [0.42 * len(expected) + 0.75] * bool(len(expected)) + [0.4 * len(table) + 0.75] * (not table.empty)
    with style():
        fig = Figure(figsize=(CHART_WIDTH, sum(heights) + 0.15), layout="constrained")
        axes = list(fig.subplots(len(heights), 1, height_ratios=heights, squeeze=False).ravel())
        if len(expected):
            _draw_expected(axes.pop(0), expected, title or "held-out PSNR to expect")
        if axes:
            _draw_losses(axes[0], table)
    return fig


def _draw_expected(axis: Axes, expected: Sequence[tuple[str, float, float]], title: str) -> None:
    expected = [(label, level, spread if np.isfinite(spread) else 0.0) for label, level, spread in expected]
    for row, (_, level, spread) in enumerate(expected):
        axis.plot([level - spread, level + spread], [row, row], color=BLUE, lw=5, alpha=0.3, solid_capstyle="round")
        axis.plot(level, row, "o", color=BLUE, ms=8)
        words = f"{level:.1f} \N{PLUS-MINUS SIGN} {spread:.1f} dB" if spread else f"{level:.1f} dB"
        axis.annotate(words, (level, row), (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
    low = min(level - spread for _, level, spread in expected)
    high = max(level + spread for _, level, spread in expected)
    pad = max(1.0, 0.12 * (high - low))
    axis.set_yticks(range(len(expected)), [label for label, _, _ in expected])
    axis.set(xlim=(low - pad, high + pad), ylim=(len(expected) - 0.6, -0.75), title=title)
    axis.set_xlabel("PSNR, dB")
    axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    _only_rows(axis)


def _draw_losses(axis: Axes, table: pd.DataFrame) -> None:
    top = float(np.nanmax([1.0, *(table["loss_db"] + table["uncertainty_db"].fillna(0))]))
    for row, (severity, loss, spread, automatic) in enumerate(
        zip(table["severity"], table["loss_db"], table["uncertainty_db"], table["automatic"], strict=True)
    ):
        color, mark = SEVERITY[severity]
        words, at = "not known", 0.0
        if np.isfinite(loss):
            spread = spread if np.isfinite(spread) else 0.0
            axis.barh(row, loss, height=0.5, color=color, alpha=0.85)
            axis.plot([max(loss - spread, 0), loss + spread], [row, row], color=BLACK, lw=1.2)
            words, at = f"{loss:.1f} \N{PLUS-MINUS SIGN} {spread:.1f} dB", loss + spread
        axis.plot(-0.025, row, mark, color=color, ms=7, mew=0, clip_on=False, transform=axis.get_yaxis_transform())
        words += "" if automatic else ", by hand"
        axis.annotate(words, (at, row), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    labels = [
        f"{code.replace('_', ' ')}\n{severity}"
        for code, severity in zip(table["finding"], table["severity"], strict=True)
    ]
    axis.set_yticks(range(len(table)), labels, fontsize=8.5, linespacing=1.1)
    axis.tick_params(axis="y", pad=18)
    axis.set(
        xlim=(0, 1.45 * top),
        ylim=(len(table) - 0.5, -0.5),
        title="what each finding costs, all others being as they are",
    )
    axis.set_xlabel("held-out PSNR lost, dB")
    _only_rows(axis)


def _only_rows(axis: Axes) -> None:
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")


# --- cameras in space --------------------------------------------------------------------------------------------


def frustum_corners(viewmats: Any, Ks: Any, sizes: Any, depth: Any) -> np.ndarray:
    """Where the corners of the pictures are in the world, at a depth in front of each camera.

    Args:
        viewmats: ``[C, 4, 4]`` world-to-camera, OpenCV axes. Ks: ``[C, 3, 3]`` pixels. sizes: ``[C, 2]`` width, height.
        depth: along the optical axis, world units; one number, or ``[C]``.

    Returns:
        ``[C, 4, 3]``: top left, top right, bottom right, bottom left.
    """
    views, lenses, sizes = (as_array(values).astype(float) for values in (viewmats, Ks, sizes))
    ones = np.ones(len(views))
    across = np.stack([0 * ones, sizes[:, 0], sizes[:, 0], 0 * ones], axis=1)  # [C, 4]
    down = np.stack([0 * ones, 0 * ones, sizes[:, 1], sizes[:, 1]], axis=1)
    pixels = np.stack([across, down, np.ones_like(down)], axis=2)  # [C, 4, 3]
    rays = np.linalg.solve(lenses[:, None], pixels[..., None])[..., 0]  # depth 1
    local = rays * np.broadcast_to(depth, len(views)).astype(float)[:, None, None]
    return (local - views[:, None, :3, 3]) @ views[:, :3, :3]


def cameras(
    viewmats: Any,
    Ks: Any,
    sizes: Any,
    groups: Sequence[str] | None = None,
    held_out: Any = None,
    marked: Any = None,
    up: Sequence[float] = (0, 1, 0),
    target: Sequence[float] | None = None,
) -> Figure:
    """Cameras as pyramids in space, at one scale along all axes; the thick edge is the upper one of the picture.

    Frames from one pose are drawn once, with their number where they are many. Of cameras that stand closer than a
    pyramid would be seen, all are dots and some are pyramids.

    Args:
        viewmats, Ks, sizes: as in `frustum_corners`.
        groups: a name a camera, for instance its source.
        held_out: ``[C]`` bool; drawn hollow, with dashed lines.
        marked: ``[C]`` bool; drawn with a black ring, for instance those that a finding names.
        up: the world's up axis.
        target: a point that is marked with a cross, where it is not far outside of where the cameras are.
    """
    views = as_array(viewmats).astype(float)
    names = np.asarray(["cameras"] * len(views) if groups is None else [str(group) for group in groups])
    if not len(views) or len(names) != len(views):
        raise InputError(f"{len(views)} cameras, {len(names)} groups", field="viewmats")
    table = pd.DataFrame({"name": names})
    for column, flags in (("hollow", held_out), ("ringed", marked)):
        table[column] = False if flags is None else as_array(flags).astype(bool)
    across, high, front, labels = plan_axes(np.asarray(up, float))
    turn = np.stack([across, -front, high], axis=1)  # right-handed, with the front towards the reader
    table[["x", "y", "z"]] = -np.einsum("cji,cj->ci", views[:, :3, :3], views[:, :3, 3]) @ turn
    table[["look_x", "look_y", "look_z"]] = views[:, 2, :3] @ turn
    table = _distinct(table)
    depth = _pyramid_depth(table[["x", "y", "z"]].to_numpy())
    table["depth"] = depth * (1 + 0.45 * np.minimum(table["level"], 4))
    rows = table.index.to_numpy()
    corners = frustum_corners(views[rows], as_array(Ks)[rows], as_array(sizes)[rows], table["depth"]) @ turn
    points = table[["x", "y", "z"]].to_numpy()
    mark = None if target is None else np.asarray(target, float) @ turn
    mark = mark if mark is not None and within_reach(mark, points) else None
    with style():
        fig = Figure(figsize=(CHART_WIDTH, 5.0))
        axis = fig.add_axes((0.0, 0.1, 0.99, 0.9), projection="3d")
        colors = colors_for(list(names))
        _draw_pyramids(axis, table, corners, colors, _apart(table, depth))
        if mark is not None:
            axis.plot(*mark[:, None], "+", color=BLACK, ms=13, mew=1.8)
        extent = np.concatenate([points, corners.reshape(-1, 3)] + ([] if mark is None else [mark[None]]))
        _label_axes(axis, labels)
        _equal_box(axis, extent)
        camera_legend(fig, names, np.zeros(len(names), bool) if held_out is None else as_array(held_out), colors)
    return fig


def _distinct(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each pose of a group, ringed if any of its frames is; at most `MOST_CAMERAS`.

    Adds ``frames`` (how many share the pose) and ``level`` (counts groups at one place, so that all can be seen).
    """
    keys = (
        table[["x", "y", "z", "look_x", "look_y", "look_z"]].round(4).assign(name=table["name"], hollow=table["hollow"])
    )
    groups = keys.groupby(list(keys), sort=False).ngroup()
    table = table.assign(
        frames=groups.groupby(groups).transform("size"), ringed=table["ringed"].groupby(groups).transform("max")
    )
    table = table[~groups.duplicated()]
    if len(table) > MOST_CAMERAS:
        kept = np.linspace(0, len(table) - 1, MOST_CAMERAS).round().astype(int)
        table = table[np.isin(np.arange(len(table)), kept) | table["ringed"]]
    return table.assign(level=table[["x", "y", "z"]].round(4).groupby(["x", "y", "z"]).cumcount())


def _pyramid_depth(places: np.ndarray) -> float:
    """So large that a pyramid is seen, and so small that neighbours do not cover each other."""
    extent = float(np.ptp(places, axis=0).max())
    if extent == 0:
        return 1.0
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    apart[apart < 1e-6 * extent] = np.inf
    usual = float(np.median(apart.min(axis=1)))
    return float(np.clip(usual, 0.08 * extent, 0.2 * extent))


def _apart(table: pd.DataFrame, depth: float) -> np.ndarray:
    """Bool: whether a camera is drawn as a pyramid: no like one stands near and looks the same way, or it is ringed."""
    places, looks = table[["x", "y", "z"]].to_numpy(), table[["look_x", "look_y", "look_z"]].to_numpy()
    kind = table["name"] + table["hollow"].map({True: " held out", False: ""})
    chosen: list[int] = []
    for row in np.argsort(~table["ringed"].to_numpy(), kind="stable"):
        same = [other for other in chosen if kind.iloc[other] == kind.iloc[row]]
        near = np.linalg.norm(places[same] - places[row], axis=1) < 0.8 * depth
        if table["ringed"].iloc[row] or not (near & (looks[same] @ looks[row] > 0.9)).any():
            chosen.append(row)
    return np.isin(np.arange(len(table)), chosen)


def _draw_pyramids(
    axis: Any, table: pd.DataFrame, corners: np.ndarray, palette: Mapping[str, str], shown: np.ndarray
) -> None:
    from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

    points = table[["x", "y", "z"]].to_numpy()
    hollow, colors = table["hollow"].to_numpy(), [palette[name] for name in table["name"]]
    for empty, line in ((False, "-"), (True, (0, (2.5, 1.5)))):
        rows = np.flatnonzero(shown & (hollow == empty))
        if not len(rows):
            continue
        lines, paint = [], []
        for row in rows:
            around = corners[row]
            lines += [[points[row], corner] for corner in around] + [
                [around[k], around[(k + 1) % 4]] for k in (1, 2, 3)
            ]
            paint += [colors[row]] * 7
        axis.add_collection3d(Line3DCollection(lines, colors=paint, linewidths=0.9, linestyles=line))
        if not empty:
            faces = Poly3DCollection(corners[rows], alpha=0.25, linewidths=0)
            faces.set_facecolor([colors[row] for row in rows])
            axis.add_collection3d(faces)
    some = np.flatnonzero(shown)
    axis.add_collection3d(Line3DCollection(corners[some, :2], colors=[colors[row] for row in some], linewidths=2.6))
    fills = ["white" if empty else color for color, empty in zip(colors, hollow, strict=True)]
    axis.scatter(*points.T, s=np.where(shown, 16, 7), facecolors=fills, edgecolors=colors, depthshade=False)
    ringed = table["ringed"].to_numpy()
    if ringed.any():
        axis.scatter(*points[ringed].T, s=95, facecolors="none", edgecolors=BLACK, linewidths=1.4, depthshade=False)
    behind = points - 0.5 * table[["depth"]].to_numpy() * table[["look_x", "look_y", "look_z"]].to_numpy()
    for row in np.flatnonzero((table["frames"] > 3).to_numpy() & ~hollow):
        words = f"\N{MULTIPLICATION SIGN}{table['frames'].iloc[row]}"
        axis.text(*behind[row], words, color=colors[row], fontsize=8, ha="center", va="center")


def _equal_box(axis: Any, points: np.ndarray) -> None:
    """Limits and a box in which a unit is as long along every axis, as large as the figure allows."""
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    low, high = points.min(axis=0), points.max(axis=0)
    span = np.maximum(high - low, 0.3 * max((high - low).max(), 1e-9))  # a flat ring still gets a box to stand in
    low, high = (low + high) / 2 - 0.53 * span, (low + high) / 2 + 0.53 * span
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axis.set_box_aspect(high - low)
    # The drawing is a square as high as the axes, and the box should fill them but for the words around it.
    box = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
    x, y, _ = proj_transform(*box, axis.get_proj())
    given, side = axis.get_position(original=True), axis.viewLim.height
    width = side * given.width * axis.figure.get_figwidth() / (given.height * axis.figure.get_figheight())
    axis.set_box_aspect(high - low, zoom=min(0.84 * side / np.ptp(y), 0.8 * width / np.ptp(x)))


def _label_axes(axis: Any, labels: tuple[str, str, str]) -> None:
    across, up, front = labels
    axis.set_xlabel(across, labelpad=2)
    axis.set_ylabel(front, labelpad=2)
    axis.set_zlabel(up, labelpad=0)
    # The axis to the front is drawn from its far end: its ticks carry the world's sign.
    axis.yaxis.set_major_formatter(lambda value, _: f"{-value + 0:g}".replace("-", "\N{MINUS SIGN}"))
    axis.view_init(elev=24, azim=-62)
    for one in (axis.xaxis, axis.yaxis, axis.zaxis):
        one.set_pane_color((0.965, 0.965, 0.965, 1.0))
        one.line.set_color("#bbbbbb")
        one.set_tick_params(labelsize=8, pad=0)
        one.get_major_locator().set_params(nbins=5)
        one._axinfo["grid"].update(color="#dcdcdc", linewidth=0.7)


# --- what sources show -------------------------------------------------------------------------------------------


def sources(looks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A row a source: one of its frames, what it shows around the subject, the subject's colours, and its tint.

    Args:
        looks: for each source a mapping with ``picture`` (``[H, W, 4]`` straight alpha, float in [0, 1] or uint8),
            ``around`` (``[H, W]`` bool: what of the picture is around the subject), ``pixels`` (of the subject,
            ``[P, 3]``), ``words`` (about what is around) and either ``ratios`` (``[3]``: the subject's red, green and
            blue over those of the source ``reference``) or a ``note`` (why there are none).
    """
    if not looks:
        raise InputError("there are no sources to draw", field="looks")
    pixels = {name: _unit(look["pixels"]).reshape(-1, 3) for name, look in looks.items()}
    shapes = [np.shape(look["picture"])[:2] for look in looks.values()]
    aspect = float(np.clip(max(height / width for height, width in shapes), 0.5, 1.4))
    side = 1.55
    with style():
        fig = Figure(figsize=(CHART_WIDTH, len(looks) * (side * aspect + 0.42) + 0.35), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.03, h_pad=0.04, wspace=0.02, hspace=0.02)
        axes = fig.subplots(len(looks), 4, width_ratios=[1, 1, 1.5, 1.15], squeeze=False)
        ratios = [np.asarray(look["ratios"], float) for look in looks.values() if look.get("ratios") is not None]
        reach = max([10.0, *(115 * float(np.abs(ratio - 1).max()) for ratio in ratios)])  # per cent
        for row, (name, look) in enumerate(looks.items()):
            _draw_checked(axes[row, 0], look["picture"])
            axes[row, 0].set_ylabel(textwrap.fill(name, 16), fontweight="bold", labelpad=3)
            _draw_checked(axes[row, 1], look["picture"], as_array(look["around"]))
            axes[row, 1].set_xlabel(look["words"], fontsize=8, labelpad=2)
            for axis in axes[row, :2]:
                axis.set_anchor("N")
            _draw_channels(axes[row, 2], pixels[name], row == len(looks) - 1)
            _draw_ratios(axes[row, 3], look, reach, row == len(looks) - 1)
        for axis, title in zip(
            axes[0], ("a frame", "around the subject", "the subject's colours", "its tint"), strict=True
        ):
            axis.set_title(title)
    return fig


def _unit(values: Any) -> np.ndarray:
    values = as_array(values)
    return values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)


def _draw_checked(axis: Axes, picture: Any, only: np.ndarray | None = None) -> None:
    """A picture over a checkerboard; where ``only`` [H, W] is given, hatching covers the rest."""
    array = as_array(picture)
    array = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if array.shape[-1] == 4:
        height, width = array.shape[:2]
        y, x = np.mgrid[:height, :width] // max(1, max(height, width) // 12)
        tone = np.where((x + y) % 2, *_CHECKS)[..., None]
        array = array[..., :3] * array[..., 3:] + tone * (1 - array[..., 3:])
    if only is not None:
        array = np.dstack([array, only])
        axis.patch.set(hatch="////", edgecolor="#c4c4c4", linewidth=0)
    draw_picture(axis, as_picture(array))
    if only is not None:
        axis.set_facecolor("white")


def _draw_channels(axis: Axes, pixels: np.ndarray, last: bool) -> None:
    for channel, (letter, color, line) in enumerate(_CHANNELS):
        density, edges = np.histogram(pixels[:, channel], bins=32, range=(0, 1))
        share = 100 * density / max(density.sum(), 1)
        axis.plot((edges[1:] + edges[:-1]) / 2, share, color=color, ls=line, lw=1.5, label=letter)
    axis.set(xlim=(0, 1), ylim=(0, None))
    axis.tick_params(labelsize=8, labelbottom=last)
    axis.set_ylabel("% of pixels", fontsize=8, labelpad=2)
    axis.legend(loc="upper right", fontsize=7.5, handlelength=1.6, labelspacing=0.15, borderaxespad=0.1)
    if last:
        axis.set_xlabel("channel value", fontsize=8.5)


def _draw_ratios(axis: Axes, look: Mapping[str, Any], reach: float, last: bool) -> None:
    """By how many per cent each channel is above the reference's."""
    if look.get("ratios") is None:
        axis.set_axis_off()
        words = textwrap.fill(look.get("note", "cannot be told"), 20)
        axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center", fontsize=8.5, color=GREY)
        return
    axis.axvline(0, color=GREY, lw=1)
    for channel, (letter, color, _) in enumerate(_CHANNELS):
        percent = 100 * (float(look["ratios"][channel]) - 1)
        axis.plot([0, percent], [channel, channel], color=color, lw=5, alpha=0.35, solid_capstyle="butt")
        axis.plot(percent, channel, MARKERS[channel], color=color, ms=6)
        right = percent > 0
        words = f"{letter} {round(percent):+d} %".replace("-", "\N{MINUS SIGN}").replace("+0", "0")
        axis.annotate(
            words, (0, channel), (-6 if right else 6, 0), textcoords="offset points", fontsize=8,
            ha="right" if right else "left", va="center",
        )  # fmt: skip
    axis.set(xlim=(-reach, reach), ylim=(2.6, -0.6), yticks=[])
    axis.tick_params(labelsize=8, labelbottom=last)
    axis.spines["left"].set_visible(False)
    axis.grid(False, axis="y")
    axis.set_xlabel(f"% above {look['reference']}", fontsize=8, labelpad=2)


# --- before and after --------------------------------------------------------------------------------------------


def before_after(before: Sequence[Any], after: Sequence[Any], titles: Sequence[str] | None = None) -> Figure:
    """Pictures as they were, and below each what a remedy made of it; what is transparent shows a checkerboard.

    Args:
        before, after: as many pictures each, ``[H, W, 3]`` or ``[H, W, 4]`` (straight alpha), float in [0, 1] or uint8.
        titles: one a pair.
    """
    if not len(before) or len(before) != len(after) or (titles is not None and len(titles) != len(before)):
        raise InputError(f"{len(before)} pictures before, {len(after)} after", field="before, after")
    aspect = max(np.shape(picture)[0] / np.shape(picture)[1] for picture in before)
    cell = min((CHART_WIDTH - 0.3) / len(before), LARGEST)
    with style():
        fig = Figure(figsize=(cell * len(before) + 0.3, 2 * cell * aspect + 0.55), layout="constrained")
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
        axes = fig.subplots(2, len(before), squeeze=False)
        for row, (name, pictures) in enumerate((("before", before), ("after", after))):
            for axis, picture in zip(axes[row], pictures, strict=True):
                _draw_checked(axis, picture)
            axes[row, 0].set_ylabel(name, fontsize=9, labelpad=3)
        for axis, title in zip(axes[0], titles or [], strict=False):
            _title(axis, title, cell)
    return fig
