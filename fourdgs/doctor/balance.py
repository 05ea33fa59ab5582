"""How the steps of a training run are spread over cameras and sources."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .finding import Finding, Remedy
from .survey import Survey
from .viewpoints import draws, effective_number, some_names, viewpoints


def measure_balance(survey: Survey, by: str = "camera") -> pd.DataFrame:
    """How training steps are spread over views or sources, the most drawn first.

    Args:
        by: ``camera`` (views, by the name of their first frame's camera) or ``source``.

    Returns:
        name, frames, share (of the training steps: frames by their ``weight``), views (share of all training views
        that it shows). ``attrs``: number, effective (exp of the entropy of ``share``).
    """
    points, share = viewpoints(survey), draws(survey)
    train = survey.train
    names = survey.frames["source"].to_numpy() if by == "source" else None
    keys = points.view[train] if names is None else names[train]
    views = max(len(points.views(train)), 1)
    rows = []
    for key in pd.unique(keys):
        mine = train[keys == key]
        name = survey.frames["camera"].iloc[mine[0]] if names is None else key
        seen = len(points.views(mine))
        rows.append({"name": name, "frames": len(mine), "share": share[mine].sum(), "views": seen / views})
    table = pd.DataFrame(rows, columns=["name", "frames", "share", "views"])
    table = table.sort_values("share", ascending=False, ignore_index=True)
    table.attrs.update(number=len(table), effective=effective_number(table["share"].to_numpy()))
    return table


def check_balance(survey: Survey) -> list[Finding]:
    """camera_dominates: the entropy of the cameras' shares is under half of what even shares have, so that N cameras
    count as fewer than sqrt(N). source_dominates: a source takes over half of the steps and twice its share of views.
    """
    found = []
    remedy = Remedy("Draw every source equally often in training (weights by source).", "balance", {})
    cameras = measure_balance(survey)
    number, effective = cameras.attrs["number"], cameras.attrs["effective"]
    if number >= 3 and effective < number**0.5:
        top = cameras.iloc[0]
        message = (
            f"{number} training cameras count as only {effective:.1f} evenly used ones, because {top['name']!r} takes "
            f"{100 * top['share']:.0f} % of the training steps ({top['frames']} of {cameras['frames'].sum()} frames)."
        )
        # Below two there is not even a pair to triangulate with.
        severity = "error" if effective < 2 else "warning"
        frames = _frames_of(survey, survey.frames["camera"] == top["name"])
        evidence = cameras.drop(columns="views").head(20)
        found.append(Finding("camera_dominates", severity, message, evidence, "coverage", remedy, frames))
    sources = measure_balance(survey, "source")
    top = sources.iloc[0] if len(sources) else None
    if len(sources) > 1 and top["share"] > 0.5 and top["share"] > 2 * top["views"]:
        message = (
            f"Source {top['name']!r} takes {100 * top['share']:.0f} % of the training steps but shows only "
            f"{100 * top['views']:.0f} % of the training views ({top['frames']} of {sources['frames'].sum()} frames)."
        )
        frames = _frames_of(survey, survey.frames["source"] == top["name"])
        found.append(Finding("source_dominates", "warning", message, sources.head(20), "sources", remedy, frames))
    return found


def _frames_of(survey: Survey, mine: pd.Series) -> tuple[str, ...]:
    return some_names(survey, np.flatnonzero(mine & (survey.frames["split"] == "train")))


CHECKS = (check_balance,)
