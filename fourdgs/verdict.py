"""From the metrics of several runs to the story's table, its verdict, and sentences that carry the figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from .capture import Capture
from .evaluate import paired, summary
from .hypothesis import Hypothesis, judge, load_hypothesis
from .runs import Run
from .story import ROWS

THRESHOLD_DB = 30.0
KINDS = {
    "train": "training frames",
    "still": "held-out still views",
    "still@0.5": "the same still views, asked for at time 0.5",
    "talking": "held-out talking frames",
}


def measurements(runs: Sequence[Run]) -> pd.DataFrame:
    """The metrics of several runs of the story in one table.

    Returns:
        A row a frame and run: row, seed, kind (``train``, or the source of a held-out frame), then the columns of
        `evaluate`.
    """
    tables = []
    for run in runs:
        table = run.metrics
        name, _, seed = run.name.rpartition("-s")
        kind = table["source"].where(table["split"] != "train", "train")
        tables.append(table.assign(row=name, seed=int(seed), kind=kind))
    columns = ["row", "seed", "kind"]
    table = pd.concat(tables, ignore_index=True)
    return table[columns + [column for column in table if column not in columns]]


def means_table(table: pd.DataFrame, value: str = "psnr_db") -> pd.DataFrame:
    """Means by row and kind, in the story's order.

    Returns:
        row, label, kind, mean, low, high (95 % bootstrap over cameras), frames, cameras, seeds.
    """
    means = summary(table, by=("row", "kind"), value=value)
    rows, kinds = list(ROWS), kinds_of(means)
    means["_order"] = [rows.index(row) * len(kinds) + kinds.index(kind) for row, kind in means[["row", "kind"]].values]
    means = means.sort_values("_order").drop(columns="_order").reset_index(drop=True)
    means.insert(1, "label", [ROWS[name].label for name in means["row"]])
    return means


def wide_table(table: pd.DataFrame, value: str = "psnr_db") -> pd.DataFrame:
    """A report's table: a line a row of the story, a column a kind of frames, ``mean [low, high]``."""
    means = means_table(table, value)
    means = means[np.isfinite(means["mean"])]
    if means.empty:
        return pd.DataFrame({"row": ["no frame has alpha, so no foreground is known"]})
    lines: dict[str, dict[str, str]] = {}
    for row in means.itertuples():
        bounds = f" [{row.low:.1f}, {row.high:.1f}]" if np.isfinite(row.low) else ""
        lines.setdefault(row.row, {})[row.kind] = f"{row.mean:.1f}{bounds}"
    wide = pd.DataFrame.from_dict(lines, orient="index")
    return wide[kinds_of(means)].fillna("").rename_axis("row").reset_index()


def introduction(rows: Sequence[str], threshold_db: float = THRESHOLD_DB) -> str:
    """What the rows are a test of, in Markdown."""
    if "v3" in rows:
        return (
            "An avatar was captured as an orbit of still views and a talking clip from one fixed camera. Trained on "
            "the orbit views alone, 4DGS looked good; with the clip added it fell apart. Was that the ceiling of the "
            "method, or a fault of the dataset? The test was set before the runs: held-out PSNR of "
            f"{threshold_db:g} dB or more on talking frames."
        )
    return (
        "Does letting the scene move pay on this capture? Every row is measured on the same held-out frames, against "
        f"static 3DGS and against a line that was set before the runs: {threshold_db:g} dB of held-out PSNR."
    )


def expectation(capture: Capture, threshold_db: float = THRESHOLD_DB) -> Hypothesis:
    """The test of the story as a hypothesis to register before the runs.

    Of the held-out talking frames where the capture has such, as the embedded one does, and else of all held-out ones.
    """
    talks = (capture.frames["source"] == "talking") & (capture.frames["split"] == "test")
    frames = "talking frames" if talks.any() else "frames"
    return Hypothesis(
        f"A row's training frames are enough to show held-out {frames} at {threshold_db:g} dB or more.",
        threshold_db=threshold_db,
        source="talking" if talks.any() else None,
        outcomes={"above": "a real jump", "below": "a ceiling, of the method or of the row's frames"},
    )


def legend(means: pd.DataFrame) -> str:
    """What the rows of a table are, as a Markdown list."""
    return "\n".join(f"- `{name}`: {ROWS[name].label}" for name in dict.fromkeys(means["row"]))


def kinds_of(means: pd.DataFrame) -> list[str]:
    """The kinds of frames in a table, training frames first, each held-out kind before its variants."""
    there = set(means["kind"])
    return [*(kind for kind in KINDS if kind in there), *sorted(there - set(KINDS))]


def evidence(means: pd.DataFrame) -> str:
    """How much stands behind a table of means, as a sentence."""
    parts = []
    for kind in kinds_of(means):
        frames, cameras = (means.loc[means["kind"] == kind, name] for name in ("frames", "cameras"))
        span = f"{frames.min()}" if frames.min() == frames.max() else f"{frames.min()} to {frames.max()}"
        lens = f"{cameras.min()}" if cameras.min() == cameras.max() else f"{cameras.min()} to {cameras.max()}"
        parts.append(f"{kind_words(kind)}: {span} frames of {lens} cameras")
    seeds = sorted(set(means["seeds"]))
    runs = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{'; '.join(parts)}; {runs} seed{'s' if seeds[-1] > 1 else ''} a row, no folds."


def verdict(means: pd.DataFrame, kind: str = "talking", threshold_db: float = THRESHOLD_DB) -> pd.DataFrame:
    """The binary test: is a row's held-out PSNR at or above the threshold that was set before the runs?

    Returns:
        row, label, mean, low, high and verdict: ``above``, ``below``, or ``undecided`` where the interval spans the
        threshold or one camera gives no interval.
    """
    chosen = means[means["kind"] == kind].copy()
    above, below = chosen["low"] >= threshold_db, chosen["high"] < threshold_db
    chosen["verdict"] = np.select([above, below], ["above", "below"], "undecided")
    return chosen[["row", "label", "mean", "low", "high", "verdict"]].reset_index(drop=True)


def cite(hypothesis: Hypothesis | str | Path, runs: Sequence[Run]) -> str:
    """What was written down before the runs, and what they say to it, in Markdown.

    Args:
        hypothesis: it, its file, or the folder of runs that it lies in.

    Raises:
        InputError: there is no hypothesis, or a run was not measured on its frames.
    """
    if not isinstance(hypothesis, Hypothesis):
        hypothesis = load_hypothesis(hypothesis)
    found = judge(hypothesis, runs)
    when = f"on {hypothesis.written_at}" if hypothesis.written_at else "at no known time"
    metric = "foreground PSNR" if hypothesis.metric == "psnr_fg_db" else "PSNR"
    frames = f"split `{hypothesis.split}`" + (f", source `{hypothesis.source}`" if hypothesis.source else "")
    early = "before the runs" if found["before"].all() else "but not before every run"
    lines = [
        f"Written down {when} (sha256 `{hypothesis.digest[:12]}`), {early}: *{hypothesis.statement}* The line is "
        f"{hypothesis.threshold_db:g} dB of {metric} on {frames}.",
        "",
    ]
    if found["before"].all():  # said once, in the first row's words
        first = found["evidence"].iloc[0]
        more = " (the same for every row, each at its own start)" if found["evidence"].nunique() > 1 else ""
        lines[0] += f" Registered: {first}{more}."
        signs = [""] * len(found)
    else:
        signs = [
            f"Registered: {row.evidence}." if row.before else f"**Not pre-registered**: {row.evidence}."
            for row in found.itertuples()
        ]
    for row, sign in zip(found.itertuples(), signs, strict=True):
        bounds = f"[{row.low:.1f}, {row.high:.1f}]" if np.isfinite(row.low) else "(one camera, no interval)"
        meaning = row.meaning
        if row.verdict == "undecided" and not meaning:
            meaning = "the interval spans the line" if np.isfinite(row.low) else "one camera decides nothing"
        lines.append(
            f"- `{row.row}`: {row.mean:.1f} dB {bounds}, {row.frames} frames of {row.cameras} cameras, "
            f"{row.seeds} seed{'s' if row.seeds > 1 else ''}: **{row.verdict}**: {meaning}. {sign}".rstrip()
        )
    return "\n".join(lines)


def difference(
    table: pd.DataFrame, first: str, second: str, kind: str, second_kind: str | None = None
) -> dict[str, float | int]:
    """The paired difference ``second - first`` in PSNR (dB) of two rows, on the held-out frames of one kind.

    ``second_kind``: a variant of the kind for the second row, such as the same frames asked for at a time.
    """
    sides = []
    for row, asked in ((first, kind), (second, second_kind or kind)):
        side = table[(table["row"] == row) & (table["kind"] == asked)]
        # A variant's frames are named after the frames that they are a variant of: name@time.
        side = side.assign(frame=side["frame"].str.partition("@")[0] if "@" in asked else side["frame"])
        sides.append(side.groupby(["frame", "camera"], as_index=False)["psnr_db"].mean())
    return paired(*sides)


def sentences(table: pd.DataFrame) -> list[str]:
    """What the story's rows say, each a Markdown sentence with its figures; only of the rows that are there."""
    there = set(table["row"])
    questions = [
        ("static", "v3", "still", "Adding the 121 clip frames as they come"),
        ("v3", "v3_remedied", "still", "Matting, colour-matching and balancing the same clip"),
        ("v3_remedied", "v3_doctor", "still", "The doctor's own remedies, against those made by hand,"),
        ("static", "v3_remedied", "still", "Beside static 3DGS on the ten orbit views, the remedied `v3`"),
        ("static", "v3_remedied", "talking", "On talking frames the remedied `v3`, against static 3DGS,"),
        ("timeless", "v2", "still", "Giving each still view a time of its own, behind a static warm-up,"),
        ("timeless", "v2_cold", "still", "Giving each still view a time of its own without the warm-up"),
        ("timeless", "v2_cold", "still still@0.5", "The same model, asked for them at time 0.5 instead of at none,"),
        ("v1", "v2", "still", "Training four times as long"),
        ("static", "grid", "talking", "The grid of cameras and times, against static 3DGS on ten stills,"),
        ("static_all", "deform_all", None, "Letting the scene move"),
    ]
    found = []
    for first, second, kind, words in questions:
        if not {first, second} <= there:
            continue
        for asked in [kind] if kind else sorted(set(table["kind"]) - {"train"}):
            asked, _, variant = asked.partition(" ")
            if variant and variant not in set(table["kind"]):
                continue
            change = difference(table, first, second, asked, variant or None)
            bounds = f" [{change['low']:+.1f}, {change['high']:+.1f}]" if np.isfinite(change["low"]) else ""
            found.append(
                f"{words} changed the PSNR of {kind_words(asked)} by **{change['mean']:+.1f} dB**{bounds} "
                f"({change['frames']} frames, {change['cameras']} cameras, paired)."
            )
    return found


def conclusion(table: pd.DataFrame) -> str:
    """Whether the clip's fall was the dataset's fault, as a Markdown sentence; empty without the rows to tell.

    The dataset is to blame when the fall is beyond its interval and the remedies, with no new picture, bring back at
    least 80 % of it.
    """
    if not {"static", "v3", "v3_remedied"} <= set(table["row"]):
        return ""
    fall, back = difference(table, "static", "v3", "still"), difference(table, "v3", "v3_remedied", "still")
    if not fall["high"] < -1:
        return "Adding the clip as it comes made held-out still views not clearly worse: there is nothing to explain."
    figures = f"of {-fall['mean']:.1f} dB lost on still views, {back['mean']:.1f} dB came back"
    if back["low"] >= 0.8 * -fall["mean"]:
        return (
            f"**The fall is the dataset's fault, not the ceiling of the method:** {figures} without a new picture, by "
            "cutting the clip out of its studio, matching its colours and showing both sources equally often."
        )
    return f"**The remedies do not explain the fall:** {figures}."


def kind_words(kind: str) -> str:
    """A kind of frames in words."""
    return KINDS.get(kind, f"held-out frames of {kind}")


def headline(decided: pd.DataFrame, kind: str = "talking", threshold_db: float = THRESHOLD_DB) -> str:
    """The verdict in one Markdown sentence."""
    best = decided.loc[decided["mean"].idxmax()]
    names = {
        word: ", ".join(f"`{row}`" for row in decided["row"][decided["verdict"] == word])
        for word in ("above", "undecided")
    }
    parts = [f"The line of {threshold_db:g} dB on {kind_words(kind)}: {names['above'] or 'no row'} at or above it"]
    if names["undecided"]:
        parts.append(f"{names['undecided']} undecided")
    parts.append(f"the best is `{best['row']}` with {best['mean']:.1f} dB")
    return "; ".join(parts) + "."


def timeline(runs: Sequence[Run], before: Sequence[tuple[str, float]] = ()) -> pd.DataFrame:
    """What took how long: the given phases, then each run where it really lay in time.

    Rendering and reports come whenever somebody asks, and again: `Run.costs` has them. A report that showed what it
    took itself could not be built twice and be the same.

    Args:
        before: ``(name, seconds)`` of what came before the first run.

    Returns:
        name, seconds, start_s (from the first phase's start) and group (the phase), in order of start.
    """
    rows, clock = [], 0.0
    for name, seconds in before:
        rows.append({"name": name, "seconds": seconds, "start_s": clock, "group": "data"})
        clock += seconds
    starts = [datetime.fromisoformat(run.info["started"]).timestamp() for run in runs]
    for run, start in sorted(zip(runs, starts, strict=True), key=lambda pair: pair[1]):
        phases = run.info["phases_s"]
        spent = {"train": phases["train"], "evaluate": phases.get("look", 0.0) + phases.get("evaluate", 0.0)}
        # A fraction of a second of it would be a bar of a figure for nothing.
        if phases.get("data", 0) >= 1:
            spent = {"data": phases["data"]} | spent
        place = clock + start - min(starts)
        for phase, seconds in spent.items():
            rows.append({"name": f"{run.name} {phase}", "seconds": seconds, "start_s": place, "group": phase})
            place += seconds
    return pd.DataFrame(rows)
