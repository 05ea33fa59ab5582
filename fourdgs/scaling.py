"""How held-out PSNR grows with the cameras and times of a grid: cells measured, a law fitted, and what a level needs.

A cell is a grid thinned to so many cameras and times, with a run trained on it. A few simple laws are fitted to all
cells; the one kept is that which errs least on cells that it was not fitted to, each left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .ablation import measure
from .capture import Capture
from .config import TrainConfig
from .errors import InputError
from .laws import FORMS, best_fit, fitted, left_out_errors
from .runs import write_table
from .workspace import place

LEAST_CELLS = 6
RESAMPLES = 400
_FAR = 1e6  # more cameras or times than this are none that anybody has


# --- fitting ---------------------------------------------------------------------------------------------------------


def _cells_of(table: pd.DataFrame, value: str, source: str) -> pd.DataFrame:
    """cameras, times, psnr_db (mean over seeds), seeds of each cell."""
    for column in ("grid_cameras", "grid_times", value):
        if column not in table:
            known = ", ".join(map(str, table.columns)) or "no columns"
            raise InputError("the table lacks this column", field=column, remedy=f"it has {known}")
    rows = table[table["source"] == source] if "source" in table else table
    rows = rows[np.isfinite(rows[["grid_cameras", "grid_times", value]].astype(np.float64)).all(axis=1)]
    if "trial" in rows and rows["trial"].nunique() > 1:
        names = ", ".join(map(str, rows["trial"].unique()))
        raise InputError(f"cells of several trials: {names}", field="trial", remedy="pass the rows of one")
    if (rows[["grid_cameras", "grid_times"]] < 1).any(axis=None):
        raise InputError("a cell has fewer than 1 camera or time", field="grid_cameras")
    cells = rows.groupby(["grid_cameras", "grid_times"])[value].agg(["mean", "count"]).reset_index()
    cells.columns = ["cameras", "times", "psnr_db", "seeds"]
    if len(cells) < LEAST_CELLS or min(cells["cameras"].nunique(), cells["times"].nunique()) < 2:
        raise InputError(
            f"{len(cells)} cells of {cells['cameras'].nunique()} numbers of cameras and {cells['times'].nunique()} of "
            f"times say too little of source {source!r}",
            field="table", remedy=f"measure at least {LEAST_CELLS} cells, of two numbers of each",
        )  # fmt: skip
    return cells


def fit_law(
    table: pd.DataFrame, *, value: str = "psnr_db", source: str = "talking", resamples: int = RESAMPLES, seed: int = 0
) -> Law:
    """The law of a thinned grid: of the forms `FORMS` the one that errs least on cells left out, one at a time.

    A form is tried where there are at least two cells more than it has parameters.

    Args:
        table: grid_cameras, grid_times and ``value``, in dB, a row a run; where it has a column ``source``, of the rows
            of ``source``. Runs of one cell (seeds) are averaged.
        resamples: fits to cells drawn with replacement, for the intervals. They hold the form for given.

    Raises:
        InputError: a missing column, cells of several trials, or too few cells.
    """
    cells = _cells_of(table, value, source)
    array = cells[["cameras", "times", "psnr_db"]].to_numpy(np.float64)
    rows, fits = [], {}
    for name, form in FORMS.items():
        if len(cells) < len(form.kinds) + 2:
            continue
        fits[name] = best_fit(form, array)
        errors = form.psnr(fits[name], array[:, 0], array[:, 1]) - array[:, 2]
        left_out = left_out_errors(form, array, fits[name])
        rows.append({
            "form": name, "psnr_db": form.words, "parameters": len(form.kinds),
            "left_out_db": math.sqrt((left_out**2).mean()), "worst_left_out_db": np.abs(left_out).max(),
            "fitted_db": math.sqrt((errors**2).mean()),
        })  # fmt: skip
    # A hundredth of a decibel is no reason for another parameter.
    order = pd.DataFrame(rows).sort_values("parameters", kind="stable")
    forms = order.iloc[order["left_out_db"].round(2).argsort(kind="stable")].reset_index(drop=True)
    name = forms["form"].iloc[0]
    random, count = np.random.default_rng(seed), len(cells)
    drawn = random.integers(0, count, (resamples, count, 1)) == np.arange(count)  # [R, n, n]
    weights = drawn.sum(1).astype(np.float64)
    draws = fitted(FORMS[name], array, weights, np.tile(fits[name], (resamples, 1)), steps=80)
    return Law(name, fits[name], cells, forms, draws)


# --- the law ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Needed:
    """How many times (or cameras) a level needs.

    Attributes:
        what: ``"times"`` or ``"cameras"``. given: how many of the other there are; may be infinite.
        count: the least whole number; infinite where none is enough. low, high: its 95 % interval over cells.
        limit_db: what no number of them exceeds; infinite where the law has no limit.
        measured: the largest number in the cells: a count above is extrapolated.
    """

    db: float
    what: str
    given: float
    count: float
    low: float
    high: float
    limit_db: float
    measured: int

    @property
    def enough(self) -> bool:
        """Whether any number is enough."""
        return math.isfinite(self.count)

    def words(self) -> str:
        """A sentence."""
        others = {"times": "cameras", "cameras": "times"}[self.what]
        given = f"{self.given:g} {others}" if math.isfinite(self.given) else f"any number of {others}"
        if not self.enough:
            chance = "" if math.isinf(self.low) else f"; the interval begins at {self.low:.0f}"
            if self.limit_db > self.db:
                return f"With {given} {self.db:g} dB needs more {self.what} than {_FAR:,.0f}{chance}."
            ends = f"they end at {self.limit_db:.1f} dB"
            return f"With {given} no number of {self.what} is enough for {self.db:g} dB: {ends}{chance}."
        high = f"{self.high:.0f}" if math.isfinite(self.high) else "none is enough"
        interval = "" if self.low == self.count == self.high else f" [{self.low:.0f}, {high}]"
        beyond = f", which is beyond the {self.measured} measured" if self.count > self.measured else ""
        return f"With {given} {self.db:g} dB needs {self.count:.0f} {self.what}{interval}{beyond}."


@dataclass(frozen=True)
class Law:
    """PSNR as a function of cameras and times, as `fit_law` finds it.

    Attributes:
        form: a key of `FORMS`. parameters: [k], in the space of the fit.
        cells: cameras, times, psnr_db, seeds: what it was fitted to.
        forms: of every form tried, best first: form, psnr_db (in words), parameters, left_out_db (the root mean square
            error on cells left out), worst_left_out_db, fitted_db (on all cells).
        draws: [R, k], the parameters on resampled cells.
    """

    form: str
    parameters: np.ndarray
    cells: pd.DataFrame = field(repr=False)
    forms: pd.DataFrame = field(repr=False)
    draws: np.ndarray = field(repr=False)

    def psnr_db(self, cameras: Any, times: Any) -> np.ndarray:
        """The fitted PSNR, dB, of cameras and times that broadcast; infinitely many are allowed."""
        return FORMS[self.form].psnr(self.parameters, cameras, times)

    def interval_db(self, cameras: float, times: float, level: float = 0.95) -> tuple[float, float]:
        """A percentile bootstrap interval of the fitted PSNR over cells, dB; NaN without draws."""
        if not len(self.draws):
            return float("nan"), float("nan")
        low, high = np.quantile(FORMS[self.form].psnr(self.draws, cameras, times), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def values(self) -> dict[str, float]:
        """The formula's parameters by their names in it."""
        form = FORMS[self.form]
        pairs = zip(form.names, form.kinds, self.parameters, strict=True)
        return {name: float(value if kind == "db" else np.exp(value)) for name, kind, value in pairs}

    def needed(self, db: float, *, cameras: float | None = None, times: float | None = None) -> Needed:
        """How many times a level needs with so many cameras, or how many cameras with so many times.

        Raises:
            InputError: not one of cameras and times, or one below 1.
        """
        if (cameras is None) == (times is None):
            raise InputError("give one of cameras and times", field="cameras")
        what, given = ("times", cameras) if times is None else ("cameras", times)
        if not given >= 1:
            raise InputError(f"{given} is not a number of them", field="cameras" if what == "times" else "times")
        counts = self._solve(db, given, what, np.concatenate([self.parameters[None], self.draws]))
        # Quantiles that interpolate would make nothing of infinity.
        low, high = np.quantile(counts[1:], [0.025, 0.975], method="nearest") if len(counts) > 1 else counts[[0, 0]]
        limit = self.psnr_db(given, np.inf) if what == "times" else self.psnr_db(np.inf, given)
        return Needed(float(db), what, float(given), float(counts[0]), float(low), float(high), float(limit),
                      int(self.cells[what].max()))  # fmt: skip

    def _solve(self, db: Any, given: Any, what: str, parameters: np.ndarray, whole: bool = True) -> np.ndarray:
        form = FORMS[self.form]
        if what == "cameras":
            parameters = parameters[..., list(form.swap)]
        found = form.times(parameters, db, given)
        if whole:
            found = np.maximum(np.ceil(found - 1e-9), 1)
        return np.where(found > _FAR, np.inf, found)

    def contour(self, db: float, reach: float = 1.0, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """Where the law has a level: cameras and times, [n] each, cameras rising; empty where it does not come by.

        Args:
            reach: how far beyond the measured numbers, as a factor.
        """
        spans = [(self.cells[name].min() / reach, self.cells[name].max() * reach) for name in ("cameras", "times")]
        cameras, times = (np.geomspace(*span, points) for span in spans)
        # Solved both ways: where the curve is steep in one it is flat in the other.
        found_cameras = self._solve(db, times, "cameras", self.parameters, whole=False)
        found_times = self._solve(db, cameras, "times", self.parameters, whole=False)
        c, t = np.concatenate([cameras, found_cameras]), np.concatenate([found_times, times])
        (c_low, c_high), (t_low, t_high) = spans
        inside = (c >= c_low) & (c <= c_high) & (t >= t_low) & (t <= t_high)
        order = np.lexsort((-t[inside], c[inside]))
        return c[inside][order], t[inside][order]

    def fewest_frames(self, db: float) -> tuple[int, int] | None:
        """Of the whole cameras up to the largest number measured, and times, those that reach a level with the fewest
        frames in all; None where none does."""
        cameras = np.arange(1, int(self.cells["cameras"].max()) + 1)
        frames = cameras * self._solve(db, cameras, "times", self.parameters)
        best = int(frames.argmin())
        return (int(cameras[best]), int(frames[best] / cameras[best])) if np.isfinite(frames[best]) else None


def answer(law: Law, db: float = 30.0) -> list[str]:
    """How many cameras and times a level needs, in sentences made from the cells and the fit."""
    cells = law.cells
    reached = cells[cells["psnr_db"] >= db]
    found = [f"{len(reached)} of {len(cells)} measured cells reach {db:g} dB"]
    if len(reached):
        row = reached.loc[(reached["cameras"] * reached["times"]).idxmin()]
        found[0] += (
            f"; the one with the fewest frames is {row.cameras:.0f} cameras x {row.times:.0f} times "
            f"({row.cameras * row.times:.0f} frames, {row.psnr_db:.1f} dB)"
        )
    found[0] += "."
    best = law.forms.iloc[0]
    found.append(
        f"The law: {best.psnr_db} with {', '.join(f'{name} = {value:.3g}' for name, value in law.values().items())}; "
        f"it errs by {best.left_out_db:.2f} dB (root mean square) on a cell left out, at worst by "
        f"{best.worst_left_out_db:.2f} dB."
    )
    found += [law.needed(db, cameras=count).words() for count in sorted(cells["cameras"].unique())]
    found.append(law.needed(db, times=int(cells["times"].max())).words())
    pair = law.fewest_frames(db)
    if pair:
        found.append(
            f"By the law the fewest frames for {db:g} dB are {pair[0]} cameras x {pair[1]} times, "
            f"{pair[0] * pair[1]} in all."
        )
    return found


def read_results(path: str | Path, *columns: str) -> pd.DataFrame:
    """A table of measurements (CSV), with at least these columns.

    A relative path is looked for from the working directory, then from the project's root.

    Raises:
        InputError: no such file, one that is no table, or a column that is not there.
    """
    path = place(path)
    if not path.is_file():
        raise InputError("there is no such table", file=path, remedy="give a CSV, or run_it to make one")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as CSV: {error}", file=path) from None
    missing = [column for column in columns if column not in table]
    if missing:
        known = ", ".join(map(str, table.columns))
        raise InputError("the table lacks this column", file=path, field=missing[0], remedy=f"it has {known}")
    return table


# --- measuring -------------------------------------------------------------------------------------------------------


def thinned(capture: Capture, cameras: int, times: int) -> Capture:
    """Of a grid's frames those of so many cameras and times, spread evenly; the first and the last time stay.

    Raises:
        InputError: the grid has fewer, or a number is below 1 (below 2 of times).
    """
    names = list(dict.fromkeys(capture.frames["camera"]))
    moments = np.unique(capture.frames["time"].dropna())
    if not (1 <= cameras <= len(names) and 2 <= times <= len(moments)):
        raise InputError(
            f"no {cameras} cameras x {times} times in a grid of {len(names)} x {len(moments)}", field="cameras",
            remedy="ask for fewer, or make the embedded capture with --full-grid",
        )  # fmt: skip
    kept = {names[int(k)] for k in np.arange(cameras) * len(names) / cameras}
    seen = moments[np.linspace(0, len(moments) - 1, times).round().astype(int)]
    rows = capture.frames["camera"].isin(kept) & capture.frames["time"].isin(seen)
    return capture.select(rows=np.flatnonzero(rows))


def measure_grid(
    capture: Capture,
    base: TrainConfig,
    out: str | Path,
    *,
    cameras: Sequence[int],
    times: Sequence[int],
    seeds: Sequence[int] = (0,),
    progress: bool = True,
) -> pd.DataFrame:
    """Train every cell of a thinned grid and measure it on held-out talking frames; finished ones are only opened.

    Runs lie in ``out/<cameras>x<times>-s<seed>``, the table in ``out/metrics.csv``, written anew after every run.

    Returns:
        trial (the motion), grid_cameras, grid_times, seed and the columns of `ablation.measure`.

    Raises:
        InputError: the capture has no source grid or talking, or the grid is smaller than a cell.
    """
    sources = set(capture.frames["source"])
    for name, split in (("grid", "train"), ("talking", "test")):
        if name not in sources:
            remedy = "the embedded capture has one" if split == "train" else "it needs held-out talking frames"
            raise InputError(f"the capture has no source {name!r}", file=capture.root, field="source", remedy=remedy)
    grid, out, tables = capture.select(split="train", source="grid"), Path(out), []
    cells = list(_in_order(cameras, times, seeds))
    chosen = {(c, t): thinned(grid, c, t) for _, c, t in cells}  # found wanting before anything is trained
    bar = tqdm(cells, desc="cells", disable=not progress)
    for seed, count, moments in bar:
        bar.set_postfix_str(f"{count} x {moments}, seed {seed}")
        config = replace(base, seed=seed)
        folder = out / f"{count}x{moments}-s{seed}"
        table = measure(capture, chosen[count, moments], config, folder, sources=["talking"])
        labels = {"trial": base.motion, "grid_cameras": count, "grid_times": moments, "seed": seed}
        tables.append(table.assign(**labels))
        write_table(out / "metrics.csv", pd.concat(tables, ignore_index=True))
    return pd.concat(tables, ignore_index=True)


def _in_order(cameras: Sequence[int], times: Sequence[int], seeds: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Seeds outermost: what is cut short has whole grids."""
    return ((int(s), int(c), int(t)) for s in seeds for c in cameras for t in times)
