"""The pictures and figures of a comparison, each with the words that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .capture import Capture
from .model import render
from .pictures import composite
from .runs import Run
from .unseen import Views as Trained
from .unseen import read_views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .compare import Comparison

MOST = 8  # runs in one figure
WORST = 4  # columns of the sheet of worst frames


class Views(NamedTuple):
    """Some held-out frames: the truth, and what each run makes of them."""

    titles: list[str]  # the frames' sources
    truths: list[np.ndarray]  # [H, W, 3] in [0, 1]
    pictures: list[tuple[str, list[np.ndarray]]]  # by run: its pictures of these frames
    notes: dict[str, list[str]]  # by run: the PSNR of each picture, as text


def held_out_views(runs: Mapping[str, Run], capture: Capture, per_source: int = 2) -> Views:
    """A few held-out frames of every source under every run, each at the time at which the run was measured.

    Args:
        runs: evaluated runs by the name that they are to have.
        per_source: frames of each source, spread over it.
    """
    test = capture.select(split="test")
    groups = test.frames.groupby("source", sort=False).indices.values()
    rows = [group[len(group) * k // (per_source + 1)] for group in groups for k in range(per_source)]
    return views_of(runs, test.select(rows=rows))


def views_of(runs: Mapping[str, Run], picked: Capture) -> Views:
    """These very frames under every run, in their order."""
    background = np.asarray(next(iter(runs.values())).model.background, np.float32)
    truths = [composite(picked.image(i), picked.alpha(i), background) for i in range(len(picked))]
    pictures, notes = [], {}
    for name, run in runs.items():
        measured = run.metrics.set_index("frame").loc[picked.frames["frame"]]
        cameras = picked.cameras.with_times(measured["time"].to_numpy())
        pictures.append((name, list(render(run.model, cameras).rgb.clamp(0, 1).numpy())))
        notes[name] = [f"{value:.1f} dB" for value in measured["psnr_db"]]
    return Views(picked.frames["source"].tolist(), truths, pictures, notes)


class Shown(NamedTuple):
    """A figure with its texts: ``plots.show(shown.figure, name, alt=shown.alt, caption=shown.caption)``."""

    figure: Figure
    alt: str
    caption: str


def figures(comparison: Comparison, names: Sequence[str] | None = None) -> dict[str, Shown]:
    """The figures of a comparison.

    Args:
        names: of the runs to draw; by default the first `MOST`.

    Returns:
        ``paired`` (differences to the baseline, by kind of frame where kinds are known), ``rig`` (PSNR per camera on
        the rig's plan), ``curves`` (training against held-out frames, and where the gap opened), and with a capture
        ``side-by-side`` and ``worst``; those that can be drawn.
    """
    from . import plots

    names = list(comparison.runs)[:MOST] if names is None else list(names)
    found = {"paired": _paired(comparison, names), "rig": _rig(comparison, names)}
    curves = _curves(comparison, names)
    if curves is not None:
        found["curves"] = curves
    if comparison.capture is not None:
        views = comparison.pictures(names=names)
        sheet = plots.comparison(views.pictures, views.truths, titles=views.titles, notes=views.notes)
        listed = ", ".join(f"`{name}`" for name in names)
        found["side-by-side"] = Shown(
            sheet,
            f"Held-out frames, the truth above, as rendered by {', '.join(names)}, with error maps at one scale.",
            f"Held-out frames: the truth, then {listed}; absolute errors at one scale.",
        )
        found["worst"] = _worst(comparison, names)
    return {name: shown for name, shown in found.items() if shown is not None}


def gap_opening(curve: pd.DataFrame) -> float:
    """The step at which training and held-out PSNR parted, by a broken stick; NaN where they did not.

    The gap is fitted as level up to a step and growing evenly with the logarithm of the step from there on (least
    squares over every look as the break; segmented regression, Hinkley 1969); the break that fits best is the answer.
    Where the level part is half of the last gap or more, it was open from the first look on, and that is the answer.

    Args:
        curve: columns step, psnr_train_db, psnr_db, as in a run's ``curve.csv``.

    Returns:
        The step; NaN with fewer than four looks at both, or where the gap never grows.
    """
    if not {"step", "psnr_train_db", "psnr_db"} <= set(curve):
        return float("nan")
    curve = curve.dropna(subset=["step", "psnr_train_db", "psnr_db"]).sort_values("step")
    gap = (curve["psnr_train_db"] - curve["psnr_db"]).to_numpy()
    steps = curve["step"].to_numpy(dtype=np.float64)
    if len(gap) < 4:
        return float("nan")
    place, best = np.log(np.maximum(steps, 1)), (np.inf, float("nan"))
    for index in range(len(gap) - 2):
        growth = np.maximum(place - place[index], 0)
        terms = np.stack([np.ones_like(growth), growth], axis=1)
        answer, *_ = np.linalg.lstsq(terms, gap, rcond=None)
        rest = float(((terms @ answer - gap) ** 2).sum())
        if answer[1] > 0 and rest < best[0] - 1e-12:
            best = rest, steps[0 if answer[0] >= (terms @ answer)[-1] / 2 else index]
    return best[1]


def _paired(comparison: Comparison, names: list[str]) -> Shown | None:
    from . import plots

    others = [name for name in names if name != comparison.baseline]
    if not others:
        return None
    whole = comparison.table.assign(part="all held-out frames")
    parts = comparison.by_kind
    table = whole if parts.empty or parts["part"].nunique() < 2 else pd.concat([whole, parts], ignore_index=True)
    table = table[table["run"].isin(others)]
    drawn = pd.DataFrame(
        {
            "run": table["run"],
            "part": table["part"],
            "mean": table["difference"],
            "low": table["difference_low"],
            "high": table["difference_high"],
            "n": table["frames"],
        }
    )
    order = {name: index for index, name in enumerate([*drawn["part"].unique(), *others])}
    # Parts first: the legend is in the order of their first rows.
    drawn = drawn.sort_values(["part", "run"], key=lambda column: column.map(order), kind="stable")
    label = f"PSNR against {comparison.baseline}, dB (paired, mean and 95% interval)"
    group = "part" if drawn["part"].nunique() > 1 else None
    figure = plots.intervals(drawn, group=group, threshold=0.0, xlabel=label)
    text = comparison.verdict.replace("`", "")
    return Shown(figure, text, comparison.verdict)


def _rig(comparison: Comparison, names: list[str]) -> Shown | None:
    from . import plots

    if comparison.capture is None:
        return None
    capture = comparison.capture
    views = {name: _views_of(comparison, name) for name in names}
    known = next((view for view in views.values() if view is not None), None)
    positions = capture.cameras.positions.double().cpu().numpy()
    focus = positions.mean(axis=0) if known is None else known.focus
    across, back = _plan_axes(capture.cameras.viewmats.double().cpu().numpy())
    spots = pd.DataFrame({"frame": capture.frames["frame"], "x": (positions - focus) @ across})
    spots["y"] = (positions - focus) @ back
    table = comparison.measured.merge(spots, on="frame")
    table = table[table["run"].isin(names) & np.isfinite(table["psnr_db"])]
    if table.empty:
        return None
    each = table.groupby(["run", "camera"], sort=False, as_index=False)[["x", "y", "psnr_db"]].mean()
    trained = {
        name: np.stack([(view.positions - focus) @ across, (view.positions - focus) @ back], axis=1)
        for name, view in views.items()
        if view is not None
    }
    figure = plots.rig_plan(each, trained)
    lowest = each.loc[each.groupby("run", sort=False)["psnr_db"].idxmin()]
    listed = "; ".join(f"{row.run}: {row.psnr_db:.1f} dB at {row.camera}" for row in lowest.itertuples())
    return Shown(
        figure,
        f"The rig from above, each held-out camera coloured by its PSNR. Lowest: {listed}.",
        "The rig from above: held-out cameras coloured by their mean PSNR, training views as crosses, the subject in "
        f"the middle, the front below. Lowest: {listed}.",
    )


def _views_of(comparison: Comparison, name: str) -> Trained | None:
    run = comparison.runs[name][0]
    described = run.info.get("views")
    return None if described is None else read_views(described, run.path / "run.json")


def _plan_axes(viewmats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two axes [3] of the ground as seen from above: to the right of, and away from, who stands at +z (or the first
    camera, where up is along z)."""
    up = -viewmats[:, 1, :3].mean(axis=0)  # a camera's y points down
    up /= max(np.linalg.norm(up), 1e-12)
    # Rigs are set up along an axis of the world, which the mean of a few tilted cameras only comes near to.
    nearest = np.abs(up).argmax()
    if abs(up[nearest]) > np.cos(np.radians(30)):
        up = np.sign(up[nearest]) * np.eye(3)[nearest]
    front = np.array([0.0, 0.0, 1.0]) if nearest != 2 else -viewmats[0, 2, :3]
    front = front - (front @ up) * up
    front /= max(np.linalg.norm(front), 1e-12)
    return np.cross(up, front), -front


def _curves(comparison: Comparison, names: list[str]) -> Shown | None:
    from . import plots

    tables: list[pd.DataFrame] = []
    for name in names:
        curve = comparison.runs[name][0].curve
        if {"step", "psnr_train_db", "psnr_db"} <= set(curve):
            tables.append(curve.assign(run=name))
    if not tables:
        return None
    opened = {str(table["run"].iloc[0]): gap_opening(table) for table in tables}
    figure = plots.gap_curves(pd.concat(tables, ignore_index=True), opened)
    ends: list[Any] = []
    for table in tables:
        last, name = table.sort_values("step").iloc[-1], str(table["run"].iloc[0])
        where = f"opened at step {opened[name]:.0f}" if np.isfinite(opened[name]) else "did not open"
        where = "open from the first look on" if opened[name] == table["step"].min() else where
        ends.append(f"{name}: {last['psnr_train_db'] - last['psnr_db']:.1f} dB at the end, {where}")
    return Shown(
        figure,
        f"Training and held-out PSNR by step, the gap shaded. {'; '.join(ends)}.",
        f"PSNR on training frames and on held-out ones, the gap between them shaded. {'; '.join(ends)}.",
    )


def _worst(comparison: Comparison, names: list[str]) -> Shown:
    from . import plots

    rows = comparison.worst(max(1, WORST // len(names)))
    rows = rows[rows["run"].isin(names)].drop_duplicates("frame")
    lost = (rows["psnr_db"] - rows["baseline_db"]).nsmallest(WORST).index  # where there are too many: the most lost
    rows = rows[rows.index.isin(lost)]
    views = comparison.pictures(list(rows["frame"]), names)
    titles = [f"{row.camera}, worst of {row.run}" for row in rows.itertuples()]
    figure = plots.comparison(views.pictures, views.truths, titles=titles, notes=views.notes)
    listed = "; ".join(f"{row.run}: {row.frame}, {row.psnr_db:.1f} dB" for row in rows.itertuples())
    return Shown(
        figure,
        f"The worst frames of the runs, under every run. {listed}.",
        f"The worst frames of the runs, under every run. {listed}.",
    )
