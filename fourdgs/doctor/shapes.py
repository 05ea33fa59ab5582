"""Whether sources that look from one camera show the subject at one size and in one outline."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from ..thinning import spread
from .finding import Finding, Remedy
from .masks import known_masks, severity_of
from .survey import Survey, remembered
from .viewpoints import draws, viewpoints

_SCALES = np.exp(np.linspace(np.log(0.6), np.log(1 / 0.6), 61))
"""Sizes that are tried, 1.7 % apart: half a pixel at the rim of a thumbnail's subject."""

_ALIKE = 0.5
"""Correlation of edges below which two pictures are not of one thing, and say nothing about its size."""

_FRAMES = 9


def train_sources(survey: Survey) -> dict[str, np.ndarray]:
    """The training rows of each source."""
    groups = survey.frames.iloc[survey.train].groupby("source").indices
    return {str(name): survey.train[part] for name, part in groups.items()}


def known_shapes(survey: Survey) -> pd.DataFrame:
    """`measure_shapes`, worked out once, and kept while the survey lives."""
    return remembered(survey, "shapes", lambda: measure_shapes(survey))


def measure_shapes(survey: Survey) -> pd.DataFrame:
    """Size, place and outline of the subject between training sources that share a view.

    Where both have masks: from the silhouettes that are solid in most of a view's frames. Where one has not: from the
    edges inside the other's silhouette, which are looked for at other sizes and places by normalised correlation; its
    own background does not matter. The source with most views is the reference of the others.

    Returns:
        one row a pair: source, reference, view (camera name), share (of the training steps), how ("masks", "edges"),
        scale (of the source over the reference), dx, dy (shift, in share of the width and height), overlap
        (intersection over union of the silhouettes, as they are), own (the least overlap of a frame of the source with
        its own median: what motion does), alike (correlation of edges; 1 from masks), extent (half the subject's
        size in thumbnail pixels), area (of the reference's silhouette).
    """
    masks, view, share = known_masks(survey), viewpoints(survey).view, draws(survey)
    frames = survey.frames
    train = train_sources(survey)
    order = sorted(train, key=lambda name: (-len(np.unique(view[train[name]])), name))
    masked = (masks["state"] == "mask").to_numpy()
    bare = (masks["state"] == "none").to_numpy()
    table = []
    for place, name in enumerate(order):
        for reference in order[:place]:
            common = np.intersect1d(view[train[name]], view[train[reference]])
            for number in common[spread(len(common), 4)]:
                one, two = (side[view[side] == number] for side in (train[name], train[reference]))
                if masked[one].all() and masked[two].all():
                    row = _from_masks(survey, one, two)
                elif bare[one].all() and masked[two].all():
                    row = _from_edges(survey, one, two)
                else:
                    row = None
                if row is not None:
                    head = {"source": name, "reference": reference, "view": frames["camera"].iloc[one[0]]}
                    table.append(head | {"share": float(share[train[name]].sum())} | row)
    columns = "source reference view share how scale dx dy overlap own alike extent area".split()
    return pd.DataFrame(table, columns=columns)


def _solid(survey: Survey, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames' silhouettes [n, h, w] and what is solid in most of them [h, w], bool."""
    rows = rows[spread(len(rows), 4 * _FRAMES)]
    shape = survey.alpha[rows[0]].shape
    solid = np.stack([survey.alpha[row] for row in rows if survey.alpha[row].shape == shape]) > 127
    return solid, np.median(solid, axis=0) > 0.5


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


def _from_masks(survey: Survey, one: np.ndarray, two: np.ndarray) -> dict | None:
    every, first = _solid(survey, one)
    second = _solid(survey, two)[1]
    if first.shape != second.shape or not first.any() or not second.any():
        return None
    height, width = first.shape
    places = [np.array(np.nonzero(mask)).mean(1) for mask in (first, second)]
    shift = (places[0] - places[1]) / (height, width)
    area = float(second.mean())
    return {
        "how": "masks",
        "scale": float(np.sqrt(first.sum() / second.sum())),
        "dx": float(shift[1]),
        "dy": float(shift[0]),
        "overlap": _overlap(first, second),
        "own": min(_overlap(frame, first) for frame in every),
        "alike": 1.0,
        "extent": float(np.sqrt(second.sum() / np.pi)),
        "area": area,
    }


def _edges(rgb: np.ndarray) -> np.ndarray:
    """[h, w] strength of edges, of a picture in [0, 1]; its root, so that a few strong ones do not decide."""
    grey = ndimage.gaussian_filter(rgb.mean(-1), 0.7)
    return np.sqrt(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)))


def _from_edges(survey: Survey, one: np.ndarray, two: np.ndarray) -> dict | None:
    """One without masks, against two with them."""
    solid = _solid(survey, two)[1]
    shape = survey.rgb[one[0]].shape
    one = np.array([row for row in one[spread(len(one), _FRAMES)] if survey.rgb[row].shape == shape])
    middle = np.median(np.stack([survey.rgb[row] for row in one]), axis=0) / 255
    model = np.median(np.stack([survey.rgb[row] for row in two[spread(len(two), _FRAMES)]]), axis=0) / 255
    if middle.shape != model.shape or solid.sum() < 64:
        return None
    inside = ndimage.binary_erosion(solid)  # its own outline depends on what is behind it
    search, edges = _Search(_edges(middle)), _edges(model)
    values = [search.best(edges, inside, scale) for scale in _SCALES]
    best = int(np.argmax([value for value, _ in values]))
    alike, (dy, dx) = values[best]
    scale = _SCALES[best]
    if 0 < best < len(_SCALES) - 1:  # a parabola through the best three
        left, top, right = (values[best + k][0] for k in (-1, 0, 1))
        bend = left - 2 * top + right
        if bend < 0:
            scale *= np.exp(0.5 * (left - right) / bend * np.log(_SCALES[1] / _SCALES[0]))
    moved = _moved(inside.astype(float), scale, dy, dx) > 0.5
    return {
        "how": "edges",
        "scale": float(scale),
        "dx": dx / middle.shape[1],
        "dy": dy / middle.shape[0],
        "overlap": _overlap(moved, inside),
        "own": 1.0,
        "alike": float(alike),
        "extent": float(np.sqrt(solid.sum() / np.pi)),
        "area": float(solid.mean()),
    }


def _moved(picture: np.ndarray, scale: float, dy: float = 0.0, dx: float = 0.0) -> np.ndarray:
    """A picture [h, w] enlarged about its middle, then shifted by pixels."""
    middle = (np.array(picture.shape) - 1) / 2
    offset = middle - (middle + (dy, dx)) / scale
    return ndimage.affine_transform(picture, np.full(2, 1 / scale), offset=offset, order=1)


class _Search:
    """Where, and how well, a model's inside is found in a picture, at any size; the picture is transformed once."""

    def __init__(self, picture: np.ndarray):
        self.size = [2 * n for n in picture.shape]
        self.reach = [n // 4 for n in picture.shape]
        self.picture, self.squares = (np.fft.rfft2(values, self.size) for values in (picture, picture**2))

    def _slide(self, spectrum: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Sums of the picture times the kernel, by shift, up to a quarter of the picture either way."""
        whole = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(kernel, self.size)), self.size)
        rows, columns = (np.arange(-r, r + 1) for r in self.reach)
        return whole[np.ix_(rows, columns)]

    def best(self, model: np.ndarray, inside: np.ndarray, scale: float) -> tuple[float, tuple[int, int]]:
        """The best normalised correlation of the enlarged model's inside, and the shift (dy, dx) for it."""
        weight = (_moved(inside.astype(float), scale) > 0.5).astype(float)
        count = weight.sum()
        if count < 64:
            return 0.0, (0, 0)
        shown = _moved(model, scale)
        shown = (shown - (shown * weight).sum() / count) * weight
        sums, squares = self._slide(self.picture, weight), self._slide(self.squares, weight)
        spreads = np.sqrt(np.maximum(squares - sums**2 / count, 1e-12) * max((shown**2).sum(), 1e-12))
        found = self._slide(self.picture, shown) / spreads
        at = np.unravel_index(int(found.argmax()), found.shape)
        return float(found[at]), (int(at[0]) - self.reach[0], int(at[1]) - self.reach[1])


def check_scale(survey: Survey) -> list[Finding]:
    """sources_differ_scale: at a shared camera one source shows the subject larger, smaller or elsewhere."""
    found = []
    table = known_shapes(survey)
    for row in _worst(table[table["alike"] >= _ALIKE]).itertuples():
        size = abs(np.log(row.scale)) * row.extent
        shift = float(np.hypot(row.dx, row.dy)) * survey.size
        # Silhouettes that move differ in area; then only a difference beyond their motion is one of size.
        grown = abs(row.scale**2 - 1) > 2 * (1 - row.own)
        if not grown or max(size, shift) < 1.5:
            continue
        message = (
            f"From camera {row.view!r}, {row.source!r} shows the subject {row.scale:.3f} times as large as "
            f"{row.reference!r} and {100 * np.hypot(row.dx, row.dy):.1f} % of the picture away: {max(size, shift):.1f} "
            f"pixels at the rim of a thumbnail (from {row.how})."
        )
        remedy = Remedy(
            f"Scale the pictures of {row.source!r} by {1 / row.scale:.3f} about their middle and shift them back, or "
            "correct the focal length and principal point of its camera."
        )
        frames = _names(survey, row.source, row.view)
        # Three pixels of a thumbnail are more than any detail that is to be learnt.
        severity = "error" if max(size, shift) >= 3 else "warning"
        found.append(Finding("sources_differ_scale", severity, message, table, "sources", remedy, frames))
    return found


def check_silhouettes(survey: Survey) -> list[Finding]:
    """sources_differ_silhouette: at a shared camera the outlines differ by more than the subject's motion."""
    found, table = [], known_shapes(survey)
    part = table[table["how"] == "masks"]
    for row in _worst(part).itertuples():
        beyond = (1 - row.overlap) - (1 - row.own)
        severity = severity_of(max(0.0, beyond) * row.area * row.share * 0.25)
        if severity in ("", "info") or beyond < 0.05:
            continue
        message = (
            f"From camera {row.view!r}, the silhouettes of {row.source!r} and {row.reference!r} overlap by "
            f"{100 * row.overlap:.0f} %, though those of {row.source!r} agree among themselves to "
            f"{100 * row.own:.0f} %: another pose, another crop, or another way of cutting out."
        )
        remedy = Remedy(f"Look at {row.source!r} and {row.reference!r} side by side; make both masks in the same way.")
        frames = _names(survey, row.source, row.view)
        found.append(Finding("sources_differ_silhouette", severity, message, table, "sources", remedy, frames))
    return found


def _worst(table: pd.DataFrame) -> pd.DataFrame:
    """One view of each source: the one that is off most."""
    if not len(table):
        return table
    off = (np.log(table["scale"]).abs() + np.hypot(table["dx"], table["dy"])).rename("off")
    return table.loc[off.groupby(table["source"]).idxmax()]


def _names(survey: Survey, source: str, camera: str) -> tuple[str, ...]:
    frames = survey.frames
    some = frames[(frames["source"] == source) & (frames["camera"] == camera)]["frame"]
    return tuple(some.iloc[spread(len(some), 6)])


CHECKS = (check_scale, check_silhouettes)
