"""Runs side by side on the same held-out frames: a paired table, a verdict in words, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .cameras import Cameras
from .capture import Capture
from .compare_figures import Shown, Views, figures, held_out_views, views_of
from .errors import InputError
from .evaluate import bootstrap_means, evaluate
from .runs import Run, held_out, load_run, run_folders
from .unseen import KINDS

__all__ = ["Comparison", "Shown", "Views", "compare", "held_out_views"]
INSIDE, EDGE = "inside the rig", "at its edge"
MEASURES = ("psnr_db", "psnr_fg_db", "ssim", "lpips")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs on the frames that all of them were measured on; see `compare`.

    Attributes:
        runs: by name; several runs under one name are its seeds.
        measured: one row a run, seed and shared frame: run, seed, then the columns of `evaluate`.
        baseline: the name that differences are taken against.
        capture: where the true pictures are; None where only figures are wanted.
    """

    runs: dict[str, list[Run]]
    measured: pd.DataFrame
    baseline: str
    capture: Capture | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a run: means over the shared frames, and the paired difference to the baseline.

        Columns: run, motion, mean and its interval (psnr_db, low, high), psnr_fg_db, ssim, lpips (where measured),
        difference, difference_low, difference_high (dB, this run minus the baseline, frame by frame), outcome
        (baseline, better, worse, or undecided where the interval spans 0 or one camera gives none), frames, cameras,
        seeds, gaussians. Intervals are 95 % and resample cameras.
        """
        frames = self._frames("psnr_db")
        rows = self._rows(frames)
        rows.insert(1, "motion", [self.runs[name][0].info["config"]["motion"] for name in frames])
        place = 5
        for measure in MEASURES[1:]:
            if measure in self.measured:
                each = self._frames(measure)
                rows.insert(place, measure, each.where(np.isfinite(each)).mean().reindex(frames.columns).to_numpy())
                place += 1
        rows["outcome"] = [self._outcome(row) for row in rows.itertuples()]
        rows["seeds"] = [len(self.runs[name]) for name in rows["run"]]
        rows["gaussians"] = [self.runs[name][0].info.get("gaussians") for name in rows["run"]]
        return rows

    @cached_property
    def by_kind(self) -> pd.DataFrame:
        """The same, apart: held-out cameras, held-out times, both; and cameras inside the rig and at its edge.

        What a frame is depends on what a run was trained on, so each run is measured on its own frames of a kind, and
        paired with the baseline on those. Empty for runs of which the training views are not known.
        """
        frames, tables = self._frames("psnr_db"), []
        for part, column, value in [
            *((kind, "kind", kind) for kind in KINDS),
            *((name, "edge", value) for name, value in ((INSIDE, False), (EDGE, True))),
        ]:
            if column not in self.measured:
                continue
            mine = self._grid((self.measured[column] == value).to_numpy(dtype=np.float64)) > 0.5
            if mine.any():
                rows = self._rows(frames, mine)
                tables.append(rows.assign(part=part)[rows["frames"] > 0])
        if not tables:
            return pd.DataFrame(columns=["run", "part", "psnr_db", "low", "high"])
        table = pd.concat(tables, ignore_index=True)
        return table[["run", "part", *(name for name in table if name not in ("run", "part"))]]

    @cached_property
    def verdict(self) -> str:
        """What the table says, in Markdown; static 3DGS is named in it, or that there is none."""
        rows = self.table.set_index("run")
        base = rows.loc[self.baseline]
        static = base["motion"] == "static"
        name = f"static 3DGS (`{self.baseline}`)" if static else f"`{self.baseline}`"
        parts = [f"Against {name}, {_figure(base['psnr_db'], base['low'], base['high'])}"]
        for outcome in ("better", "worse", "undecided"):
            found = rows[rows["outcome"] == outcome].sort_values("difference", ascending=False)
            listed = [
                f"`{run}` {_figure(row.difference, row.difference_low, row.difference_high, signed=True)}"
                for run, row in zip(found.index, found.itertuples(), strict=True)
            ]
            if listed:
                more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
                parts.append(f"{outcome}: {', '.join(listed[:6])}{more}")
        frames, cameras = int(base["frames"]), int(base["cameras"])
        counted = f"{frames} held-out frames" if frames > 1 else "one held-out frame"
        seeds = sorted(set(rows["seeds"]))
        times = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(
            f"{counted} of {cameras} camera{'s' if cameras > 1 else ''}, paired, {times} seed"
            f"{'s' if seeds[-1] > 1 else ''} a run"
        )
        sentence = "; ".join(parts) + "."
        if not static:
            sentence += " No static 3DGS run was measured on these frames, so what motion is worth is not known."
        elif len(rows) == 1:
            sentence += " No other run is there to compare."
        return sentence

    @cached_property
    def notes(self) -> list[str]:
        """What a reader has to know about the figures, a sentence each."""
        from .lpips import why_absent

        found = []
        several = len(self.table) - 1
        if several > 4:
            found.append(
                f"Of {several} intervals at 95 % about {max(1, round(several / 20))} miss the truth by chance."
            )
        if "lpips" not in self.measured:
            found.append(why_absent() or "LPIPS was not measured: these runs were evaluated without its weights.")
        if self.by_kind.empty:
            found.append("These runs do not say what they were trained on: kinds of frames are not told apart.")
        return found

    def worst(self, count: int = 1) -> pd.DataFrame:
        """The frames that each run does worst: run, frame, camera, time, source, psnr_db, and the baseline's."""
        frames = self._frames("psnr_db")
        about = self.measured.drop_duplicates("frame").set_index("frame")[["camera", "time", "source"]]
        tables = []
        for name in frames:
            lowest = frames[name].nsmallest(count)
            part = about.loc[lowest.index].reset_index().assign(run=name, psnr_db=lowest.to_numpy())
            tables.append(part.assign(baseline_db=frames.loc[lowest.index, self.baseline].to_numpy()))
        table = pd.concat(tables, ignore_index=True)
        return table[["run", "frame", "camera", "time", "source", "psnr_db", "baseline_db"]]

    def pictures(self, frames: Sequence[str] | None = None, names: Sequence[str] | None = None) -> Views:
        """The truth and every run's pictures of some frames; by default two of each source.

        Args:
            frames: names of shared frames, in the order wanted. names: of runs; the first seed of each is shown.

        Raises:
            InputError: the comparison has no capture, or a frame or run is not in it.
        """
        if self.capture is None:
            raise InputError("there are no true pictures", field="capture", remedy="fd.compare(runs, capture)")
        shown = {name: self._run(name) for name in (list(self.runs)[:8] if names is None else names)}
        shared = self._frames("psnr_db").index
        if frames is None:
            return held_out_views(shown, self.capture.select(where=lambda table: table["frame"].isin(shared)))
        strange = sorted(set(frames) - set(shared))
        if strange:
            raise InputError(f"{strange[0]!r} is not among the shared frames", field="frames")
        rows = [int(np.flatnonzero(self.capture.frames["frame"] == name)[0]) for name in frames]
        return views_of(shown, self.capture.select(rows=rows))

    def figures(self, names: Sequence[str] | None = None) -> dict[str, Shown]:
        """Figures with their captions, by the name that `plots.show` is to give them; see `compare_figures`."""
        return figures(self, names)

    def along(self, cameras: Cameras, *, progress: bool = True) -> pd.DataFrame:
        """Flicker and ghosting of every run along one camera path (first seeds): run, then `path_summary`'s columns."""
        from .path_quality import path_quality, path_summary

        rows = []
        for name in self.runs:
            measured = path_quality(self._run(name), cameras, progress=progress)
            rows.append({"run": name} | path_summary(measured))
        return pd.DataFrame(rows)

    def video(self, path: str | Path, cameras: Any, names: Sequence[str] | None = None, **settings: Any) -> Path:
        """The same camera path under every run, side by side in one MP4.

        Args:
            cameras, settings: as `media.render_path` takes them. names: of runs; the first seed of each is shown.
        """
        from .media import render_path

        shown = {name: self._run(name) for name in (self.runs if names is None else names)}
        return render_path(shown, cameras, path, **settings)

    def _run(self, name: str) -> Run:
        if name not in self.runs:
            raise InputError(f"{name!r} is not compared", field="names", remedy=f"use {', '.join(self.runs)}")
        return self.runs[name][0]

    def _frames(self, measure: str) -> pd.DataFrame:
        """[frames, runs] of a measure, the mean over seeds, in the order of the first run's frames."""
        frames = pd.Index(self.measured["frame"].drop_duplicates(), name="frame")
        return pd.DataFrame(self._grid(self.measured[measure].to_numpy(np.float64)), frames, list(self.runs))

    def _grid(self, values: np.ndarray) -> np.ndarray:
        """[frames, runs] of one value a row of ``measured``, the mean over seeds; NaN where there is none."""
        rows, columns = self._places
        shape = (rows.max() + 1, len(self.runs))
        sums, counts = np.zeros(shape), np.zeros(shape)
        known = ~np.isnan(values)
        np.add.at(sums, (rows[known], columns[known]), values[known])
        np.add.at(counts, (rows[known], columns[known]), 1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row of ``measured`` the number of its frame, in order of appearance, and of its run."""
        order = {name: number for number, name in enumerate(self.runs)}
        return pd.factorize(self.measured["frame"])[0], self.measured["run"].map(order).to_numpy(np.int64)

    def _rows(self, frames: pd.DataFrame, mine: np.ndarray | None = None) -> pd.DataFrame:
        """Means, intervals and paired differences of [frames, runs], of the frames in ``mine`` (of the same shape)."""
        cameras = self.measured.drop_duplicates("frame").set_index("frame").loc[frames.index, "camera"].astype(str)
        values = frames.to_numpy(dtype=np.float64)
        values = np.where(np.isfinite(values) & (True if mine is None else mine), values, np.nan)
        base = frames[self.baseline].to_numpy(dtype=np.float64)[:, None]
        apart = values - np.where(np.isfinite(base), base, np.nan)
        table = pd.DataFrame({"run": list(frames.columns)})
        for name, low, high, what in (
            ("psnr_db", "low", "high", values),
            ("difference", "difference_low", "difference_high", apart),
        ):
            count = (~np.isnan(what)).sum(axis=0)
            table[name] = np.where(count > 0, np.nansum(what, axis=0) / np.maximum(count, 1), np.nan)
            table[low], table[high] = bootstrap_means(what, cameras)
        table["frames"] = (~np.isnan(values)).sum(axis=0)
        code, names = pd.factorize(cameras)
        seen = np.zeros((len(names), len(table)), bool)
        place = np.nonzero(~np.isnan(values))
        seen[code[place[0]], place[1]] = True
        table["cameras"] = seen.sum(axis=0)
        return table

    def _outcome(self, row: Any) -> str:
        if row.run == self.baseline:
            return "baseline"
        return "better" if row.difference_low > 0 else "worse" if row.difference_high < 0 else "undecided"


def compare(
    runs: Sequence[Run | str | Path] | Mapping[str, Run | Sequence[Run]],
    capture: Capture | None = None,
    *,
    baseline: str | Run | None = None,
    progress: bool = True,
) -> Comparison:
    """Hold runs against one another on the same held-out frames, and against static 3DGS.

    What was measured is taken from each run's ``metrics.csv``; a run that lacks a held-out frame of ``capture``, or
    was held against another picture than the others (cut out in one run's capture, as it came in another's), is
    evaluated on it first. Without ``capture`` such frames are left out.

    Args:
        runs: finished runs or their folders; or by the name that they are to have, several under one name being its
            seeds.
        capture: the held-out frames to compare on are those of split test; None takes all that the runs share, and is
            enough for tables.
        baseline: what differences are taken against, a name or a run; by default the first static run, or else a
            finished static run in the folder of one of the runs that was measured on the same frames, which then joins
            the table; failing both, the first run.

    Raises:
        InputError: no run, a run that is not finished, an unknown baseline, or no frame that all runs share.
    """
    named = _named(runs)
    if isinstance(baseline, Run):
        path = baseline.path
        known = next((name for name, group in named.items() if group[0].path == path), None)
        if known is None:
            known = _free(path.name, named)
            named[known] = [load_run(path)]
        baseline = known
    if baseline is not None and baseline not in named:
        raise InputError(f"{baseline!r} is not compared", field="baseline", remedy=f"use {', '.join(named)}")
    if capture is not None:
        capture = capture.select(split="test")
        _measure([run for group in named.values() for run in group], capture, progress)
    tables = {name: [held_out(run.metrics) for run in group] for name, group in named.items()}
    flat = [table for group in tables.values() for table in group]
    shared = _shared(flat, None if capture is None else set(capture.frames["frame"]))
    if baseline is None:
        baseline = next((name for name, group in named.items() if _static(group[0])), None)
    if baseline is None:
        beside = _static_beside([run for group in named.values() for run in group], flat, shared)
        baseline = next(iter(named)) if beside is None else _free(beside.name, named)
        if beside is not None:
            named = {baseline: [beside]} | named
            tables[baseline] = [held_out(beside.metrics)]
    kept = set(shared)
    parts = [
        table[table["frame"].isin(kept)].assign(run=name, seed=run.info["config"]["seed"])
        for name, group in named.items()
        for run, table in zip(group, tables[name], strict=True)
    ]
    measured = pd.concat(parts, ignore_index=True)
    measured = measured[["run", "seed", *(column for column in measured if column not in ("run", "seed"))]]
    return Comparison(named, measured, baseline, capture)


def _measure(runs: Sequence[Run], capture: Capture, progress: bool) -> None:
    """Evaluate the runs on the frames that they lack, or that were not the same picture for all."""
    tables = [held_out(run.metrics) for run in runs]
    disputed = _disputed(tables)
    for run, table in zip(runs, tables, strict=True):
        known = set(table["frame"]) - disputed if len(table) else set()
        lacking = ~capture.frames["frame"].isin(known).to_numpy()
        if lacking.any():
            evaluate(run, capture.select(rows=lacking), progress=progress)


def _named(runs: Sequence[Run | str | Path] | Mapping[str, Run | Sequence[Run]]) -> dict[str, list[Run]]:
    """Finished runs by name, a list of seeds each."""
    if not len(runs):
        raise InputError("there is nothing to compare", field="runs", remedy="give finished runs or their folders")
    if isinstance(runs, Mapping):
        named = {str(name): list(group) if isinstance(group, list | tuple) else [group] for name, group in runs.items()}
    else:
        named = {}
        for run in runs:
            path = run.path if isinstance(run, Run) else Path(run)
            named[_free(path.name, named, path.parent.name)] = [run]
    named = {
        name: [load_run(run.path if isinstance(run, Run) else run) for run in group] for name, group in named.items()
    }
    empty = [name for name, group in named.items() if not group]
    if empty:
        raise InputError(f"there is no run under {empty[0]!r}", field="runs")
    return named


def _free(name: str, taken: Mapping[str, Any], folder: str = "") -> str:
    """The name, with its folder or a number where it is taken."""
    candidates = [name, f"{folder}/{name}" if folder else name]
    return next((one for one in candidates if one not in taken), None) or next(
        one for one in (f"{name} ({number})" for number in range(2, len(taken) + 3)) if one not in taken
    )


def _shared(tables: Sequence[pd.DataFrame], among: set[str] | None = None) -> list[str]:
    """The frames that all tables hold (and ``among``), measured against the same truth, in the first one's order."""
    names = set.intersection(*(set(table["frame"]) if len(table) else set() for table in tables)) - _disputed(tables)
    names &= names if among is None else among
    if not names:
        raise InputError(
            "the runs share no held-out frame that was measured against the same picture",
            field="runs",
            remedy="fd.compare(runs, capture) measures all of them on the capture's frames",
        )
    return [name for name in tables[0]["frame"] if name in names]


def _disputed(tables: Sequence[pd.DataFrame]) -> set[str]:
    """The frames that were held against different pictures, by the tables that say against which."""
    truths: dict[str, str] = {}
    disputed = set()
    for table in tables:
        if "truth" not in table:
            continue
        for name, truth in zip(table["frame"], table["truth"], strict=True):
            if isinstance(truth, str) and truths.setdefault(name, truth) != truth:
                disputed.add(name)
    return disputed


def _static(run: Run) -> bool:
    return run.info["config"]["motion"] == "static"


def _static_beside(runs: Sequence[Run], tables: Sequence[pd.DataFrame], shared: Sequence[str]) -> Run | None:
    """A finished static run in a folder of one of the runs, measured on all the shared frames.

    One that was trained on the same frames as one of the runs comes first, then one of the same seed.
    """
    captures = {run.info["capture"]["digest"] for run in runs}
    seeds = {run.info["config"]["seed"] for run in runs}
    found, wanted = [], set(shared)
    for path in (path for parent in dict.fromkeys(run.path.parent for run in runs) for path in run_folders(parent)):
        run = Run(path)
        try:
            if not (_static(run) and run.finished):
                continue
            table = held_out(run.metrics)
        except (InputError, KeyError):
            continue  # a broken neighbour does not matter here
        if len(table) and wanted <= set(table["frame"]) and not wanted & _disputed([*tables, table]):
            info = run.info
            found.append((info["capture"]["digest"] not in captures, info["config"]["seed"] not in seeds, path))
    return Run(min(found)[2]) if found else None


def _figure(mean: float, low: float, high: float, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    bounds = f" [{low:{form}}, {high:{form}}]" if np.isfinite(low) else ""
    return f"{mean:{form}} dB{bounds}"
