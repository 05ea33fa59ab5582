"""A first look at a capture: what its sources are made of, and some of their pictures and pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .capture import Capture


def overview(capture: Capture) -> pd.DataFrame:
    """One row a split and source.

    Returns:
        split, source, frames, cameras, still (frames without a time), times (distinct ones), background (share of the
        pixels that are transparent), red, green, blue (means of the opaque pixels, in [0, 1]).
    """
    rows = []
    for (split, source), part in capture.frames.groupby(["split", "source"], sort=False):
        some = _spread(part.index.to_numpy(), 12)
        rgb, alpha = capture.pictures(some)
        seen = rgb.reshape(-1, 3) if alpha is None else rgb[alpha > 127]
        means = seen.double().mean(0) / 255
        row = {"split": split, "source": source, "frames": len(part), "cameras": part["camera"].nunique()}
        row |= {"still": int(part["time"].isna().sum()), "times": part["time"].nunique()}
        row |= {"background": 0.0 if alpha is None else float((alpha < 128).double().mean())}
        rows.append(row | dict(zip(("red", "green", "blue"), means.tolist(), strict=True)))
    return pd.DataFrame(rows)


def sheet(capture: Capture, per_source: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """Pictures [H, W, 3] over white, float in [0, 1], and their titles: a few of every source, spread over it."""
    images, titles = [], []
    for source, part in capture.frames.groupby("source", sort=False):
        for row in _spread(part.index.to_numpy(), per_source):
            time = part.loc[row, "time"]
            images.append(capture.image(int(row), (1.0, 1.0, 1.0)))
            titles.append(f"{source}, {'still' if np.isnan(time) else f't = {time:.2f}'}")
    return images, titles


def foreground_pixels(capture: Capture, per_source: int = 20_000, seed: int = 0) -> dict[str, np.ndarray]:
    """Some opaque pixels of each source, uint8 [P, 3]."""
    random, pixels = np.random.default_rng(seed), {}
    for source, part in capture.frames.groupby("source", sort=False):
        rgb, alpha = capture.pictures(_spread(part.index.to_numpy(), 12))
        seen = (rgb.reshape(-1, 3) if alpha is None else rgb[alpha > 127]).numpy()
        pixels[str(source)] = seen[random.choice(len(seen), min(per_source, len(seen)), replace=False)]
    return pixels


def remarks(capture: Capture) -> list[str]:
    """What stands out in the training frames, each a Markdown sentence with its figures."""
    frames = capture.frames[capture.frames["split"] == "train"]
    if not len(frames):
        return ["There are no training frames."]
    share = frames["camera"].value_counts(normalize=True)
    # The number of equally used cameras that would be as even: exp of the entropy (Hill number of order 1).
    effective = float(np.exp(-(share * np.log(share)).sum()))
    found = [
        f"{len(frames)} training frames come from {len(share)} cameras; `{share.index[0]}` took "
        f"{100 * share.iloc[0]:.0f} % of them. They count as {effective:.1f} evenly used cameras."
    ]
    timed = frames[frames["time"].notna()]
    if len(timed):
        views = timed.groupby(timed["time"].round(4))["camera"].nunique()
        found.append(
            f"At {len(views)} times there are {views.min()} to {views.max()} cameras; "
            f"{100 * (views == 1).mean():.0f} % of the times are seen by one camera only."
        )
    still = int(frames["time"].isna().sum())
    if still:
        found.append(f"{still} training frames have no time: they show the canonical scene.")
    return found


def _spread(rows: np.ndarray, most: int) -> list[int]:
    """At most so many of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))].tolist()
