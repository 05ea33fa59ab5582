"""Where the sources of a capture disagree in looks: what is behind the subject, its colours, its size and outline.

Colours are measured in `tints`, size and outline in `shapes`, backgrounds here. Every measure is a mean squared
difference as training sees it, over the white background. Which source is the odd one out is decided by what the
held-out frames show, never by a name.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from ..thinning import spread
from .finding import Finding, Remedy
from .masks import known_masks, missing_masks, severity_of
from .shapes import check_scale, check_silhouettes, measure_shapes
from .survey import Survey, remembered
from .tints import check_colors, color_gap, fitted, measure_colors, median_picture
from .viewpoints import draws, quoted, viewpoints

__all__ = [
    "CHECKS",
    "check_backgrounds",
    "check_colors",
    "check_scale",
    "check_silhouettes",
    "color_gap",
    "known_backgrounds",
    "measure_backgrounds",
    "measure_colors",
    "measure_shapes",
    "source_backgrounds",
]

SMOOTH = 0.03
"""A rim whose colours a quadratic explains to this (root mean square, of 1) is a backdrop and not a room: twice what
sensor noise and coding leave at thumbnail size."""


# --- what is behind the subject ----------------------------------------------------------------------------------


def known_backgrounds(survey: Survey) -> pd.DataFrame:
    """`measure_backgrounds`, worked out once, and kept while the survey lives."""
    return remembered(survey, "backgrounds", lambda: measure_backgrounds(survey))


def measure_backgrounds(survey: Survey) -> pd.DataFrame:
    """What each frame shows around its subject, over white.

    Around the subject is: outside the silhouettes that other frames of the same view have; without such, the rim of
    the picture but for its lower quarter, where a bust is cut off. (The middle of a room is not looked at.)

    Returns:
        one row a frame: frame, source, split, camera; kind (cutout: transparent around the subject; backdrop: opaque
        and smooth; room: opaque and not smooth); red, green, blue (means there, of 1); outside (share of the picture);
        background_mse (mean squared difference to white there: the error where cutouts are the rule).
    """
    masks, view = known_masks(survey), viewpoints(survey).view
    cutouts = masks["state"].isin(("mask", "empty", "inverted")).to_numpy()
    area = masks["area"].to_numpy()
    usual = 1 - float(np.median(area[masks["state"] == "mask"])) if (masks["state"] == "mask").any() else np.nan
    silhouettes = {number: _silhouette(survey, masks, view, number) for number in np.unique(view[~cutouts])}
    table = survey.frames[["frame", "source", "split", "camera"]].copy()
    kinds, values = [], np.zeros((len(survey), 5))
    for row in range(len(survey)):
        if cutouts[row]:
            kinds.append("cutout")
            values[row] = 1, 1, 1, 1 - area[row], 0
            continue
        rgb = survey.rgb[row].astype(np.float32) / 255
        shape = silhouettes[view[row]]
        free = _rim(rgb.shape[:2]) if shape is None else ~fitted(shape, rgb.shape[:2])
        if not free.any():
            kinds.append("room")
            values[row] = *rgb.mean((0, 1)), 0, 0
            continue
        kinds.append("backdrop" if _roughness(rgb, free) < SMOOTH else "room")
        outside = usual if shape is None and not np.isnan(usual) else float(free.mean())
        values[row] = *rgb[free].mean(0), outside, float(((rgb[free] - 1) ** 2).mean())
    table["kind"] = kinds
    table[["red", "green", "blue", "outside", "background_mse"]] = values
    return table


def _silhouette(survey: Survey, masks: pd.DataFrame, view: np.ndarray, number: int) -> np.ndarray | None:
    """Where the subject is in any masked frame of a view, and three pixels around, [h, w] bool."""
    rows = np.flatnonzero((view == number) & (masks["state"] == "mask").to_numpy())
    if not len(rows):
        return None
    shape = survey.alpha[rows[0]].shape
    rows = [row for row in rows[spread(len(rows), 24)] if survey.alpha[row].shape == shape]
    union = np.max([survey.alpha[row] for row in rows], axis=0) > 16
    return ndimage.binary_dilation(union, np.ones((3, 3)), iterations=3)


def _rim(shape: tuple[int, int]) -> np.ndarray:
    """The outermost sixteenth of a picture on three sides, [h, w] bool."""
    height, width = shape
    edge = max(1, min(shape) // 16)
    rim = np.zeros(shape, bool)
    rim[:edge] = rim[:, :edge] = rim[:, width - edge :] = True
    rim[height - height // 4 :] = False
    return rim


def _roughness(rgb: np.ndarray, where: np.ndarray) -> float:
    """Root mean square, of 1, of what a quadratic in x and y leaves of the colours there."""
    y, x = np.nonzero(where)
    pick = spread(len(y), 400)
    y, x = y[pick], x[pick]
    u, v = 2 * x / rgb.shape[1] - 1, 2 * y / rgb.shape[0] - 1
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    colors = rgb[y, x].astype(np.float64)
    left = colors - design @ np.linalg.lstsq(design, colors, rcond=None)[0]
    # A median: a hand or a shoulder across the rim does not make it a room.
    return float(1.4826 * np.median(np.abs(left)))


def source_backgrounds(survey: Survey) -> pd.DataFrame:
    """`measure_backgrounds` by source, against what is the rule in the capture.

    The rule is the cutout where any frame is one, since a backdrop can be taken away and not invented. Where all is
    opaque, it is what the held-out frames show (without any: the source with most views); two sources are then compared
    at views they share, and smooth backdrops by their colours. Two rooms from different views cannot be compared.

    Returns:
        one row a split and source: split, source, frames, share (of the training steps; 0 for held-out ones), kind
        (the most common), red, green, blue, outside, background_mse (mean over its frames' surroundings; NaN where it
        cannot be compared), picture_mse (the same times outside: of the whole picture), reference.
    """
    table = known_backgrounds(survey)
    share = draws(survey)
    rule = "cutout" if (table["kind"] == "cutout").any() else ""
    reference = "" if rule else _opaque_reference(survey)
    rows = []
    for (split, source), part in table.groupby(["split", "source"], sort=False):
        row = {"split": split, "source": source, "frames": len(part), "share": float(share[part.index].sum())}
        row["kind"] = part["kind"].mode().iloc[0]
        row |= part[["red", "green", "blue", "outside", "background_mse"]].mean().to_dict()
        row["picture_mse"] = float((part["background_mse"] * part["outside"]).mean())
        row["reference"] = "cutout"
        if not rule:
            row["reference"] = reference
            row["background_mse"] = _opaque_difference(survey, table, part.index.to_numpy(), reference)
            row["picture_mse"] = row["background_mse"] * row["outside"]
        rows.append(row)
    return pd.DataFrame(rows)


def _opaque_reference(survey: Survey) -> str:
    frames, view = survey.frames, viewpoints(survey).view
    some = frames[frames["split"] == "test"]
    some = frames[frames["split"] == "train"] if not len(some) else some
    counts = pd.Series(view[some.index], index=some.index).groupby(some["source"]).nunique()
    return str(counts.idxmax())


def _opaque_difference(survey: Survey, table: pd.DataFrame, rows: np.ndarray, reference: str) -> float:
    """Mean squared difference of the backgrounds of some opaque frames and of a reference; NaN where it is unknown."""
    view = viewpoints(survey).view
    others = np.flatnonzero((table["source"] == reference).to_numpy())
    others = np.setdiff1d(others, rows)
    common = np.intersect1d(view[rows], view[others])
    if not len(others):
        return float("nan")
    differences = []
    for number in common[spread(len(common), 8)]:
        one, two = (median_picture(survey, side[view[side] == number])[0] for side in (rows, others))
        if one.shape == two.shape:
            free = _rim(one.shape[:2])
            gain = np.median((two[free] + 0.01) / (one[free] + 0.01), axis=0)  # another exposure is another finding
            differences.append(np.median(((one[free] * gain - two[free]) ** 2).mean(-1)))
    if differences:
        return float(np.mean(differences))
    plain = [table.loc[side][table.loc[side, "kind"] == "backdrop"] for side in (rows, others)]
    if min(len(plain[0]) / len(rows), len(plain[1]) / len(others)) < 0.5:
        return float("nan")
    colors = [part[["red", "green", "blue"]].to_numpy() for part in plain]
    # Views of one wall differ among themselves; only what goes beyond that is another wall.
    own = max(float(np.var(part, axis=0).mean()) for part in colors)
    return max(0.0, float(((colors[0].mean(0) - colors[1].mean(0)) ** 2).mean()) - own)


def check_backgrounds(survey: Survey) -> list[Finding]:
    """sources_differ_background: a source shows a backdrop that the others, or the held-out frames, do not."""
    table, masks, found = source_backgrounds(survey), known_masks(survey), []
    held_out = set(table.loc[table["split"] == "test", "source"])
    for row in table.itertuples():
        rows = np.flatnonzero(((masks["source"] == row.source) & (masks["split"] == row.split)).to_numpy())
        if row.kind == "cutout" or row.split == "val" or np.isnan(row.background_mse):
            continue
        if len(missing_masks(masks, rows)):
            continue  # a part of its frames only: mask_missing
        if row.reference != "cutout" and row.source == row.reference:
            continue
        severity = severity_of(row.picture_mse * (row.share if row.split == "train" else 1.0))
        if not severity:
            continue
        off, name = np.sqrt(row.background_mse), f"{row.source!r}"
        against = table[(table["kind"] == "cutout") & (table["source"] != row.source)]["source"].tolist()
        if row.reference != "cutout":
            what = f"another background than {row.reference!r}: it is off by {off:.2f} of 1 (root mean square)"
        else:
            others = quoted(sorted(set(against))) if against else "the others"
            what = (
                f"its own background where {others} {'shows' if len(set(against)) == 1 else 'show'} none: around the "
                f"subject it is off by {off:.2f} of 1 (root mean square, over white)"
            )
        part = f"{100 * row.share:.0f} % of the training samples" if row.split == "train" else "held-out frames"
        ceiling = -10 * np.log10(max(row.picture_mse, 1e-9))
        message = (
            f"{name} ({part}) shows {what}; a model that learns it cannot score above {ceiling:.0f} dB on views that "
            "do not have it."
        )
        if row.split != "train" and row.source not in held_out:
            continue
        evidence = table.drop(columns="reference")
        remedy = Remedy(
            f"Cut the subject of {name} out of its background.",
            "matte",
            {"source": row.source, "method": "auto", "prior": _prior(survey, masks, row.source)},
        )
        frames = tuple(survey.frames["frame"].iloc[rows[spread(len(rows), 6)]])
        found.append(Finding("sources_differ_background", severity, message, evidence, "backdrop", remedy, frames))
    return found


def _prior(survey: Survey, masks: pd.DataFrame, source: str) -> str | None:
    """A training source with masks that shares a view with this one."""
    view, mine = viewpoints(survey).view, (masks["source"] == source).to_numpy()
    masked = (masks["state"] == "mask").to_numpy() & (masks["split"] == "train").to_numpy() & ~mine
    shared = masked & np.isin(view, view[mine])
    names = masks.loc[shared, "source"].value_counts()
    return None if names.empty else str(names.index[0])


CHECKS = (check_backgrounds, check_colors, check_scale, check_silhouettes)
