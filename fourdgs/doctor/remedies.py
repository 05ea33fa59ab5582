"""What the doctor can undo by itself: each action takes a capture and gives a new one; no file is touched."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..capture import Capture
from ..errors import InputError
from .finding import SEVERITIES, Finding


def apply_remedies(
    capture: Capture,
    findings: Iterable[Finding],
    *,
    codes: Sequence[str] | None = None,
    severity: str = "warning",
) -> Capture:
    """A new capture in which the findings are dealt with, as far as a machine can.

    Poses come first, then which frames there are, then their pictures (masks, mattes, colours), then times, then how
    often each is drawn, since the later need the earlier.

    Args:
        findings: of this capture, see `diagnose`.
        codes: only these findings; by default all that can be remedied.
        severity: findings below this are left alone (where ``codes`` does not name them).

    Raises:
        InputError: a finding is of another capture, or a remedy fails; the text names it.
    """
    for finding in plan(findings, codes=codes, severity=severity):
        try:
            capture = ACTIONS[finding.remedy.action](capture, **finding.remedy.arguments)
        except InputError as error:
            remedy = f"apply the others with codes=[...] without {finding.code!r}, and: {error.remedy or 'see above'}"
            raise InputError(str(error), file=error.file, field=f"remedy of {finding.code}", remedy=remedy) from error
    return capture


def plan(
    findings: Iterable[Finding], *, codes: Sequence[str] | None = None, severity: str = "warning"
) -> list[Finding]:
    """The findings that `apply_remedies` would act on, in the order in which it would.

    Raises:
        InputError: an unknown severity or action.
    """
    if severity not in SEVERITIES:
        raise InputError(f"{severity!r} is unknown", field="severity", remedy=f"use {', '.join(SEVERITIES)}")
    least, order = SEVERITIES.index(severity), list(ACTIONS)
    chosen: dict[str, Finding] = {}
    for finding in findings:
        action = finding.remedy.action
        wanted = finding.code in codes if codes is not None else SEVERITIES.index(finding.severity) >= least
        if not action or not wanted:
            continue
        if action not in ACTIONS:
            raise InputError(f"{action!r} is unknown", field=f"remedy of {finding.code}", remedy=f"known: {order}")
        # Two findings may ask for the same thing, such as a balance of sources and one of cameras.
        chosen.setdefault(f"{action} {sorted(finding.remedy.arguments.items())}", finding)
    return sorted(chosen.values(), key=lambda finding: order.index(finding.remedy.action))


# --- actions: each takes a capture and the arguments that a finding gives ---


def flip_axes(capture: Capture, how: str, sources: Sequence[str] | None = None) -> Capture:
    """Camera poses (of some sources) in the convention that was meant; see `fourdgs.doctor.axes.apply_axes`."""
    from .axes import apply_axes

    rows = np.ones(len(capture), bool) if sources is None else capture.frames["source"].isin(list(sources)).to_numpy()
    cameras, turned = capture.cameras, apply_axes(capture.cameras[rows], how)
    viewmats = cameras.viewmats.clone()
    viewmats[torch.from_numpy(np.flatnonzero(rows))] = turned.viewmats
    return capture.with_frames(cameras=replace(cameras, viewmats=viewmats))


def resize(capture: Capture, width: int, height: int) -> Capture:
    """All pictures at one size."""
    return capture.resized(width, height)


def drop_frames(capture: Capture, frames: Sequence[str]) -> Capture:
    """The capture without these frames."""
    rows = _rows(capture, frames)
    return capture.select(rows=np.setdiff1d(np.arange(len(capture)), rows))


def invert_masks(capture: Capture, frames: Sequence[str]) -> Capture:
    """What was transparent is opaque in these frames, and the other way round."""
    pictures = {}
    for row in _rows(capture, frames).tolist():
        rgb, alpha = capture.picture(row)
        if alpha is None:
            raise InputError("has no mask to invert", file=capture.root, field=f"frame {capture.frames.frame[row]}")
        pictures[row] = (rgb, 255 - alpha)
    return capture.with_pictures(pictures)


def matte(capture: Capture, source: str, method: str = "auto", prior: str | None = None, **options: Any) -> Capture:
    """A source cut out of its backdrop; see `fourdgs.data.matte.matte`."""
    from ..data.matte import matte as cut

    return cut(capture, source, method=method, prior=prior, **options)


def match_colors(capture: Capture, source: str, reference: str) -> Capture:
    """A source recoloured to look as another; see `fourdgs.data.colors.match_colors`."""
    from ..data.colors import match_colors as match

    return match(capture, source, reference)


def drop_times(capture: Capture, sources: Sequence[str] | None = None, frames: Sequence[str] | None = None) -> Capture:
    """Training frames of these sources (or these frames) become still: they show the scene, and no moment of it."""
    table = capture.frames
    hit = (table["split"] == "train") & table["source"].isin(list(sources or table["source"].unique()))
    if frames is not None:
        hit = pd.Series(np.isin(np.arange(len(table)), _rows(capture, frames)))
    return capture.with_times(np.where(hit, np.nan, table["time"].to_numpy()))


def balance(capture: Capture) -> Capture:
    """Weights under which the training sources are drawn equally often; with one source, its cameras.

    A camera that filmed for long is then seen no more often than one that took a single picture.
    """
    table = capture.frames
    train = table["split"] == "train"
    by = "source" if table.loc[train, "source"].nunique() > 1 else "camera"
    count = table.loc[train].groupby(by)["frame"].transform("size")
    weight = pd.Series(1.0, table.index)
    # The rarest keeps its weight of 1 times the most frequent's count: whole ratios, never below 1.
    weight[train] = count.max() / count
    return capture.with_frames(table.assign(weight=weight))


ACTIONS: dict[str, Callable[..., Capture]] = {
    "flip_axes": flip_axes,
    "drop_leaked": drop_frames,
    "drop_duplicates": drop_frames,
    "resize": resize,
    "invert_masks": invert_masks,
    "matte": matte,
    "match_colors": match_colors,
    "drop_times": drop_times,
    "balance": balance,
}
"""By the name in `Remedy.action`, in the order in which they are applied."""


def _rows(capture: Capture, frames: Sequence[str]) -> np.ndarray:
    """Rows of frames by name; those that another remedy has taken out already are passed over."""
    rows = np.flatnonzero(capture.frames["frame"].isin(list(frames)))
    if not len(rows):
        warnings.warn(f"none of the frames {list(frames)[:3]} is in the capture any more", stacklevel=2)
    return rows
