"""What `01_dataset` shows of a capture and of its diagnosis: tables, words, and arrays for `fourdgs.plots`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import ndimage

from .cameras import Cameras
from .capture import Capture
from .doctor.appearance import known_backgrounds
from .doctor.finding import Finding
from .doctor.remedies import apply_remedies, plan
from .doctor.survey import Survey
from .doctor.tints import known_colors, subject
from .doctor.viewpoints import draws, viewpoints
from .errors import InputError
from .thinning import some

if TYPE_CHECKING:
    from .doctor.diagnose import Diagnosis

SHOWN = ("pictures", "backdrop", "sources", "cameras", "timeline")
"""What `Finding.plot` says of findings that a picture of the frames shows; others are about the table of frames."""

MARKS = {"error": "\N{HEAVY MULTIPLICATION X}", "warning": "\N{BLACK UP-POINTING TRIANGLE}", "info": "\N{BULLET}"}
"""As in `plots.diagnosis`."""

_AROUND = {"cutout": "transparent", "backdrop": "a backdrop", "room": "a room"}


# --- what there is -----------------------------------------------------------------------------------------------


def overview(survey: Survey) -> pd.DataFrame:
    """One row a split and source.

    Returns:
        split, source, frames, cameras, still (frames without a time), times (distinct ones), steps (share of the
        training steps that its frames get, in per cent; NaN for held-out ones), around (what most of its frames show
        around the subject).
    """
    frames = survey.frames.assign(steps=100 * draws(survey), kind=known_backgrounds(survey)["kind"].to_numpy())
    rows = []
    for (split, source), part in frames.groupby(["split", "source"], sort=False):
        row = {"split": split, "source": source, "frames": len(part), "cameras": part["camera"].nunique()}
        row |= {"still": int(part["time"].isna().sum()), "times": part["time"].nunique()}
        row["steps"] = part["steps"].sum() if split == "train" else math.nan
        rows.append(row | {"around": _AROUND[part["kind"].mode().iloc[0]]})
    return pd.DataFrame(rows)


def sheet(capture: Capture, per_source: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """Pictures [H, W, 3] over white, float in [0, 1], and their titles: a few of every source, spread over it."""
    images, titles = [], []
    for source, part in capture.frames.groupby("source", sort=False):
        for row in some(part.index.tolist(), per_source):
            images.append(capture.image(int(row), (1.0, 1.0, 1.0)))
            titles.append(", ".join(dict.fromkeys([source, _moment(part.loc[row, "time"])])))
    return images, titles


def upright(cameras: Cameras) -> tuple[float, float, float]:
    """The world's axis that is nearest to the cameras' mean upward direction, as a unit vector."""
    mean = -cameras.viewmats[:, 1, :3].double().mean(0).numpy()
    axis = int(np.abs(mean).argmax())
    return tuple((np.eye(3)[axis] * (1.0 if mean[axis] >= 0 else -1.0)).tolist())


def focus(survey: Survey) -> np.ndarray:
    """[3] the point that the cameras look at; see `fourdgs.doctor.viewpoints`."""
    return viewpoints(survey).focus


def looks(survey: Survey, most: int = 8) -> dict[str, dict[str, Any]]:
    """What each source shows, for `plots.sources`; the ``most`` sources with most frames.

    Around the subject is what is joined to the border of the picture without crossing the subject, which comes from the
    frame's mask, the masks of other frames of its view, or the hull of all masks; where no frame has a mask, it is
    the outer eighth of the picture. The subject's tint is that of `measure_colors`: against a reference that shares
    its views, or from near views. Held-out sources have none.
    """
    backgrounds, tints = known_backgrounds(survey), known_colors(survey).set_index("source")
    found = {}
    largest = survey.frames["source"].value_counts().index[:most]
    held_out = survey.frames.groupby("source")["split"].agg(lambda splits: (splits != "train").all())
    for source in sorted(largest, key=lambda name: bool(held_out[name])):
        rows = np.flatnonzero((survey.frames["source"] == source).to_numpy())
        few = some(rows.tolist(), 9)
        shown = few[len(few) // 2]
        around = _around(survey, shown)
        rgba = np.dstack([survey.rgb[shown], survey.alpha[shown]])
        look = {"picture": rgba, "around": around}
        pixels = [survey.rgb[row][subject(survey, row)] for row in few]
        look["pixels"] = np.concatenate(pixels)
        look["words"] = _words_around(backgrounds.loc[rows], masked=not subject(survey, shown).all())
        found[str(source)] = look | _tint(tints, str(source), survey.frames["split"].iloc[shown])
    return found


def _around(survey: Survey, row: int) -> np.ndarray:
    """What is joined to the border and not subject, [h, w] bool; see `looks`."""
    solid = subject(survey, row)
    if solid.all() or not solid.any():
        height, width = solid.shape
        edge = max(1, min(height, width) // 8)
        rim = np.ones_like(solid)
        rim[edge : height - edge, edge : width - edge] = False
        return rim
    # `subject` keeps two or three pixels clear of the outline, and so must what is around.
    numbers = ndimage.label(~ndimage.binary_dilation(solid, np.ones((3, 3)), iterations=5))[0]
    border = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    return np.isin(numbers, np.setdiff1d(border, 0))


def _words_around(backgrounds: pd.DataFrame, masked: bool) -> str:
    kind = backgrounds["kind"].mode().iloc[0]
    share = float((backgrounds["kind"] == kind).mean())
    part = "" if share == 1 else f" in {100 * share:.0f} %"
    if kind == "cutout":
        return f"transparent{part}"
    red, green, blue = backgrounds.loc[backgrounds["kind"] == kind, ["red", "green", "blue"]].mean()
    words = f"{kind}{part}, mean RGB\n{red:.2f}, {green:.2f}, {blue:.2f}"
    return words if masked else f"{words}\n(no mask: the rim)"


def _tint(tints: pd.DataFrame, source: str, split: str) -> dict[str, Any]:
    if source not in tints.index:
        return {"note": "held out" if split != "train" else "cannot be told"}
    row = tints.loc[source]
    if not row["reference"]:
        return {"note": "nothing to compare with"}
    reference = row["reference"] if row["reference"] != source else "its held-out frames"
    return {"ratios": 1 / np.array([row["red"], row["green"], row["blue"]], float), "reference": reference}


# --- the diagnosis in words --------------------------------------------------------------------------------------


def expected(diagnosis: Diagnosis, again: Diagnosis | None = None) -> list[tuple[str, float, float]]:
    """Rows of (label, PSNR, standard deviation) in dB: as it is, and after what `apply_remedies` would do.

    With the diagnosis of the remedied capture, ``again``: as it was, and as it is now.
    """
    now = diagnosis.prediction
    after = now.cured([finding.code for finding in plan(diagnosis)]) if again is None else again.prediction
    labels = ("as it is", "after the remedies") if again is None else ("as it was", "as it is now")
    rows = [(label, made.psnr_db, made.uncertainty_db) for label, made in zip(labels, (now, after), strict=True)]
    return rows if again is not None or plan(diagnosis) else rows[:1]


def verdict(diagnosis: Diagnosis, again: Diagnosis | None = None) -> str:
    """`Diagnosis.verdict` as Markdown: its first sentence stands out, and so does the PSNR before and after."""
    first, _, rest = (again or diagnosis).verdict().partition(". ")
    levels = [f"**{_decibels(level, spread)}** {label}" for label, level, spread in expected(diagnosis, again)]
    return f"**{first.rstrip('.')}.** {rest}\n\nHeld-out PSNR to expect: {', '.join(levels)}."


def findings_table(findings: Iterable[Finding]) -> str:
    """A Markdown table of the findings above info, worst first: severity, and in one cell what, how much, what to do.

    Sentences share one cell, so that they wrap on a narrow screen instead of leaving it.
    """
    rows = [finding for finding in findings if finding.severity != "info"]
    if not rows:
        return "Nothing was found that would cost decibels."
    lines = ["| severity | finding and remedy |", "|:---|:---|"]
    for finding in rows:
        text = f"**{_spoken(finding)}, {_cost(finding)}.** {finding.message}{_remedy(finding)}"
        lines.append(f"| {MARKS[finding.severity]} **{finding.severity}** | {_cell(text)} |")
    return "\n".join(lines)


def _spoken(finding: Finding) -> str:
    return finding.code.replace("_", " ").capitalize()


def _cost(finding: Finding) -> str:
    if not math.isfinite(finding.predicted_loss_db):
        return "cost not known"
    return f"costs {_decibels(finding.predicted_loss_db, finding.uncertainty_db)}"


def _decibels(level: float, spread: float) -> str:
    """A level, which no line break tears apart."""
    words = f"{level:.1f}" + (f" \N{PLUS-MINUS SIGN} {spread:.1f}" if math.isfinite(spread) else "")
    return f"{words} dB".replace(" ", "\N{NO-BREAK SPACE}")


def _remedy(finding: Finding) -> str:
    if not finding.remedy.text:
        return ""
    who = "`apply_remedies` does it" if finding.remedy.action else "by hand"
    return f" **To do** ({who}): {finding.remedy.text}"


def _cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return re.sub(r"[ \t\r\n]+", " ", text).replace("|", "\\|").strip()


def notes(findings: Iterable[Finding]) -> str:
    """The findings that are only good to know, as a Markdown list; "" where there are none."""
    return "\n".join(
        f"- {_spoken(finding)}: {_cell(finding.message)}" for finding in findings if finding.severity == "info"
    )


# --- pictures of findings, before and after ----------------------------------------------------------------------


def cases(
    capture: Capture, findings: Iterable[Finding], most: int = 3, pictures: int = 5
) -> list[tuple[list[Finding], list[np.ndarray], list[str]]]:
    """The worst findings that can be seen, each with pictures [H, W, 4] of frames that it names, and their titles.

    Findings about the same cameras of the same sources share their pictures. None is of severity info.
    """
    rows = {name: row for row, name in enumerate(capture.frames["frame"])}
    groups: dict[tuple, tuple[list[Finding], list[int]]] = {}
    for finding in findings:
        # The worst come first: they are shown, not a spread over all.
        some = [rows[name] for name in finding.frames if name in rows][:pictures]
        if finding.severity == "info" or finding.plot not in SHOWN or not some:
            continue
        seen = tuple(sorted(set(capture.frames.loc[some, ["source", "camera"]].itertuples(index=False, name=None))))
        groups.setdefault(seen, ([], some))[0].append(finding)
    return [
        (found, [_rgba(capture, row) for row in some], [_title(capture, row) for row in some])
        for found, some in list(groups.values())[:most]
    ]


def caption(findings: Iterable[Finding]) -> str:
    """What findings say, as the Markdown caption of a figure."""
    return " ".join(f"**{_spoken(finding)}.** {_cell(finding.message)}" for finding in findings)


def named(capture: Capture, findings: Iterable[Finding], plot: str) -> np.ndarray:
    """[n] bool: the frames that findings above info with this plot name."""
    names = {
        name for finding in findings if finding.plot == plot and finding.severity != "info" for name in finding.frames
    }
    return capture.frames["frame"].isin(names).to_numpy()


def remedied(capture: Capture, findings: Iterable[Finding]) -> tuple[Capture, str]:
    """What `apply_remedies` makes of a capture, and a Markdown list of what was done; "" for nothing.

    A remedy that fails is left out, and the list says so.
    """
    lines = []
    for finding in plan(findings):
        try:
            capture = apply_remedies(capture, [finding])
            lines.append(f"- {_cell(finding.remedy.text)}")
        except InputError as error:
            lines.append(f"- *Not done* ({_spoken(finding).lower()}): {_cell(str(error))}")
    return capture, "\n".join(lines)


def changed(before: Capture, after: Capture, most: int = 5) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Pictures [H, W, 4] that remedies changed, as they were and as they are, and their titles; few of every source."""
    old = {name: row for row, name in enumerate(before.frames["frame"])}
    new = {name: row for row, name in enumerate(after.frames["frame"])}
    touched = [name for name in new if name in old and before.memory.get(name) is not after.memory.get(name)]
    table = after.frames[after.frames["frame"].isin(touched)]
    chosen = []
    for _, part in table.groupby("source", sort=False):
        chosen += some(part.index.tolist(), max(1, most // table["source"].nunique()))
    names = [after.frames["frame"].iloc[row] for row in chosen[:most]]
    pairs = [(_rgba(before, old[name]), _rgba(after, new[name])) for name in names]
    return [one for one, _ in pairs], [two for _, two in pairs], [_title(after, new[name]) for name in names]


def _rgba(capture: Capture, row: int) -> np.ndarray:
    rgb, alpha = capture.picture(row)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8) if alpha is None else alpha])


def _title(capture: Capture, row: int) -> str:
    """Source, camera and time, without what the title already says."""
    frame = capture.frames.iloc[row]
    camera = f"camera {frame['camera']}" if frame["camera"].isdigit() else frame["camera"]
    words = dict.fromkeys([frame["source"], camera, _moment(frame["time"])])
    return ", ".join(words)


def _moment(time: float) -> str:
    return "still" if math.isnan(time) else f"t\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{time:.2f}"
