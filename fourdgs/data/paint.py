"""Paint for the presenter: a texture atlas computed from where each texel lies on the body.

No picture is read. Every texel knows its place in space (decimetres, neutral pose) and its part; colours are functions
of the two and of seeded noise. Colours are sRGB.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..pictures import to_8_bits
from .figure import PARTS, Figure, hair_cover

_SHIRTS = (
    # ground, broad stripes, narrow stripes, dots
    ((0.13, 0.22, 0.47), (0.80, 0.24, 0.20), (0.95, 0.80, 0.36), (0.90, 0.88, 0.82)),
    ((0.10, 0.36, 0.34), (0.88, 0.52, 0.16), (0.93, 0.86, 0.66), (0.86, 0.30, 0.34)),
    ((0.38, 0.14, 0.36), (0.20, 0.52, 0.62), (0.96, 0.78, 0.42), (0.92, 0.84, 0.86)),
)


def paint(figure: Figure, seed: int = 0) -> np.ndarray:
    """The texture [h, w, 3] uint8 of a figure, row 0 on top."""
    face, share = _bake(figure)
    inside = face >= 0
    corners = figure.faces[face[inside]]  # [n, 3]
    place = np.einsum("nk,nkd->nd", share[inside], figure.points[corners])  # [n, 3]
    part = figure.parts[face[inside]]
    noise = _Noise(seed)
    colors = np.full((len(place), 3), 0.5)
    brushes = {
        "skin": _skin, "mouth": _mouth, "sockets": _sockets, "shirt": _shirt, "tongue": _tongue,
        "eye_left": _eye, "eye_right": _eye, "teeth_upper": _teeth, "teeth_lower": _teeth, "hem": _hem,
    }  # fmt: skip
    for index, name in enumerate(PARTS):
        rows = part == index
        if rows.any():
            colors[rows] = brushes[name](place[rows], figure.marks, noise, name)
    texture = np.zeros((*face.shape, 3), np.uint8)
    texture[inside] = to_8_bits(colors)
    # Charts bleed outwards, so that filtering at their borders finds no foreign colour.
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return texture[tuple(nearest)]


def _bake(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """For each texel the triangle that covers its centre [h, w] (-1 = none) and the corners' shares [h, w, 3]."""
    width, height = figure.atlas
    face = np.full((height, width), -1, np.int32)
    share = np.zeros((height, width, 3), np.float32)
    corners = figure.uv[figure.faces]  # [F, 3, 2]
    low = np.floor(corners.min(axis=1)).astype(int) - 1
    high = np.ceil(corners.max(axis=1)).astype(int) + 1
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    twice = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    for index in np.flatnonzero(np.abs(twice) > 1e-9):
        (x0, y0), (x1, y1) = low[index], high[index]
        x0, y0 = max(x0, 0), max(y0, 0)
        dx = np.arange(x0, x1)[None, :] + 0.5 - corners[index, 0, 0]
        dy = np.arange(y0, y1)[:, None] + 0.5 - corners[index, 0, 1]
        b = (dx * edge_b[index, 1] - dy * edge_b[index, 0]) / twice[index]
        c = (dy * edge_a[index, 0] - dx * edge_a[index, 1]) / twice[index]
        cover = (b >= -1e-6) & (c >= -1e-6) & (b + c <= 1 + 1e-6)
        window = np.s_[y0 : y0 + cover.shape[0], x0 : x0 + cover.shape[1]]
        face[window][cover] = index
        share[window][cover] = np.stack([1 - b - c, b, c], axis=-1)[cover]
    return face, share


class _Noise:
    """Smooth seeded noise over space: a lattice of random numbers, interpolated, which repeats far away."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([seed, 2])
        self.lattices = [self.rng.uniform(-1, 1, (32, 32, 32)) for _ in range(3)]

    def __call__(self, places: np.ndarray, per_dm: float | np.ndarray, channel: int = 0) -> np.ndarray:
        """[n] in about [-1, 1], with ``per_dm`` (a number, or one per axis) lattice points a decimetre."""
        return ndimage.map_coordinates(self.lattices[channel], (places * per_dm).T, order=1, mode="grid-wrap")

    def layers(self, places: np.ndarray, per_dm: float, channel: int = 0) -> np.ndarray:
        """[n], three octaves."""
        return sum(0.5**k * self(places, per_dm * 2.1**k, channel) for k in range(3)) / 1.4


def _step(values: np.ndarray, width: float) -> np.ndarray:
    """A soft edge: 0 below -width / 2, 1 above width / 2."""
    t = np.clip(values / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _mix(base: np.ndarray, color: np.ndarray | tuple, amount: np.ndarray) -> np.ndarray:
    return base + amount[:, None] * (np.asarray(color) - base)


def _bump(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2) - (y / height) ** 2)


def _skin(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    eyes = (marks["eye_left"] + marks["eye_right"]) / 2
    gap = marks["eye_left"][0]
    mouth = marks["slit"].mean(axis=0)
    x, y, z = (place - eyes).T
    front = _step(z + 0.15, 0.4)
    color = np.tile([0.87, 0.68, 0.57], (len(place), 1))
    color += noise.layers(place, 1.5)[:, None] * [0.018, 0.026, 0.024]
    color += noise.layers(place, 9.0, 1)[:, None] * [0.018, 0.018, 0.016]
    # Blood: cheeks, nose, chin, ears.
    red = 0.55 * _bump(np.abs(x) - 1.45 * gap, y + 0.5, 0.3, 0.22) * front
    red += 0.4 * _bump(x, y + 0.42, 0.16, 0.2) * front
    red += 0.25 * _bump(x, y - (mouth - eyes)[1] + 0.3, 0.25, 0.14) * front
    red += 0.35 * _step(np.abs(x) - 0.74, 0.1) * (np.abs(y + 0.1) < 0.5)
    color = _mix(color, (0.84, 0.47, 0.42), red)
    # The sockets of the eyes are a little darker, and the lids carry a line.
    for eye in ("eye_left", "eye_right"):
        dx, dy = (place - marks[eye])[:, :2].T
        shade = 0.35 * _bump(dx, dy - 0.08, 0.27, 0.17) * front
        color = _mix(color, (0.55, 0.35, 0.33), shade)
        far = np.linalg.norm(place - marks[eye], axis=1)
        line = _step(0.168 - far, 0.022) * _step(dy + 0.01, 0.06)
        color = _mix(color, (0.12, 0.07, 0.06), 0.85 * line)
        # Brows: an arch over each eye, of slanting hairs.
        side = np.sign(marks[eye][0])
        across = dx * side
        arch = 0.255 + 0.045 * np.cos((across - 0.06) / 0.30 * 1.4) - 0.02 * across
        thick = 0.045 * np.clip(1.15 - np.abs(across + 0.02) / 0.36, 0, 1) ** 0.6
        hairs = 0.75 + 0.25 * noise(np.stack([across - 0.5 * dy, dy, 0 * dy], 1), np.array([70.0, 12.0, 1.0]), 2)
        ends = _step(across + 0.165, 0.10) * _step(0.36 - across, 0.1)
        brow = _step(thick - np.abs(dy - arch), 0.03) * ends * front
        color = _mix(color, (0.17, 0.10, 0.07), np.clip(brow * hairs, 0, 1))
    color = _lips(color, place, marks, noise)
    return _hair(color, place, marks, noise)


def _lips(color: np.ndarray, place: np.ndarray, marks: dict, noise: _Noise) -> np.ndarray:
    slit = marks["slit"]
    middle = (slit.min(axis=0) + slit.max(axis=0)) / 2
    half = float(np.ptp(slit[:, 0])) / 2
    dx, dy, dz = (place - middle).T
    across = np.clip(1 - (dx / (half * 1.08)) ** 2, 0, 1)
    upper = 0.125 * across**0.8 * (1 - 0.22 * np.exp(-((dx / 0.06) ** 2)))
    lower = 0.165 * across**0.7
    edge = np.where(dy > 0, upper - dy, lower + dy)
    amount = _step(edge, 0.03) * (dz > -0.5) * (np.abs(dx) < half * 1.08)
    shade = np.array([0.74, 0.33, 0.34]) + 0.05 * noise(place, np.array([40.0, 8.0, 8.0]), 2)[:, None]
    shade = shade - 0.09 * (dy > 0)[:, None]
    return color + (0.9 * amount)[:, None] * (shade - color)


def _hair(color: np.ndarray, place: np.ndarray, marks: dict, noise: _Noise) -> np.ndarray:
    cover = hair_cover(place, marks)
    crown = marks["head"] + (0.0, 0.9, -0.35)
    dx, dy, dz = (place - crown).T
    turn = np.arctan2(dx, dz)
    fall = np.hypot(dx, dz)
    strand = np.stack([np.cos(turn), np.sin(turn), 0.06 * fall + 0.04 * dy], axis=1)
    streaks = 0.6 * noise(strand, 42.0, 0) + 0.4 * noise(strand, 95.0, 1)
    light = np.clip(0.5 + 0.5 * streaks, 0, 1)[:, None]
    hair = np.array([0.13, 0.08, 0.06]) * (1 - light) + np.array([0.42, 0.27, 0.17]) * light
    bands = _step(noise(strand, 6.0, 2) - 0.35, 0.3)
    hair = _mix(hair, (0.55, 0.36, 0.20), 0.45 * bands)
    ragged = cover + 0.05 * noise(strand, 60.0, 2)
    return color + _step(ragged - 0.03, 0.07)[:, None] * (hair - color)


def _mouth(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    depth = np.clip((marks["slit"][:, 2].max() - place[:, 2]) / 0.5, 0, 1)
    color = np.tile([0.58, 0.24, 0.25], (len(place), 1))
    return _mix(color, (0.20, 0.05, 0.06), depth)


def _sockets(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    return np.tile([0.62, 0.36, 0.33], (len(place), 1))


def _tongue(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    return np.array([0.72, 0.34, 0.36]) + 0.05 * noise.layers(place, 8.0)[:, None]


def _teeth(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    middle = marks["slit"].mean(axis=0)
    turn = np.arctan2(place[:, 0], place[:, 2] - (middle[2] - 0.35))
    gaps = np.abs((turn / 0.30) % 1 - 0.5)
    color = np.tile([0.95, 0.92, 0.85], (len(place), 1))
    return _mix(color, (0.62, 0.50, 0.44), 0.7 * _step(gaps - 0.45, 0.08))


def _eye(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    ray = place - marks[name]
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(ray[:, 2], -1, 1)))
    turn = np.arctan2(ray[:, 1], ray[:, 0])
    spokes = noise(np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1), 9.0, 1)
    color = np.tile([0.94, 0.92, 0.90], (len(place), 1))
    color = _mix(color, (0.85, 0.62, 0.58), 0.5 * _step(angle - 55, 40))
    iris = np.array([0.24, 0.42, 0.46]) + 0.16 * spokes[:, None] * [0.6, 1.0, 1.0]
    iris = _mix(iris, (0.50, 0.36, 0.18), _step(17 - angle, 9) * 0.8)
    iris = _mix(iris, (0.06, 0.11, 0.14), _step(angle - 24.5, 4))
    color = color + _step(28 - angle, 3)[:, None] * (iris - color)
    color = _mix(color, (0.02, 0.02, 0.03), _step(12 - angle, 2.5))
    # A painted catch light keeps its place on the eye; it makes the look alive without a specular term.
    glint = np.hypot(ray[:, 0] + 0.17, ray[:, 1] - 0.20)
    return _mix(color, (1.0, 1.0, 1.0), _step(0.09 - glint, 0.05))


def _hem(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    return np.array([0.16, 0.15, 0.18]) + 0.02 * noise.layers(place, 4.0)[:, None]


def _shirt(place: np.ndarray, marks: dict, noise: _Noise, name: str) -> np.ndarray:
    ground, broad, narrow, dots = (np.array(c) for c in _SHIRTS[int(noise.rng.integers(len(_SHIRTS)))])
    x, y, z = place.T
    warp = 0.03 * noise(place, 1.3, 1)
    # Planes through space rather than a cloth's own threads: no seam, no pole, and the same on both sides.
    u = np.sqrt(x * x + 0.01) - 0.45 * z + warp
    v = y + 0.15 * z + warp
    color = np.tile(ground, (len(place), 1))
    color = _mix(color, broad, 0.62 * _step(0.14 - np.abs((v / 1.04) % 1 - 0.5), 0.04))
    color = _mix(color, broad * 0.7, 0.5 * _step(0.12 - np.abs((u / 0.92) % 1 - 0.5), 0.04))
    color = _mix(color, narrow, 0.85 * _step(0.035 - np.abs((v / 1.04 + 0.5) % 1 - 0.5), 0.03))
    color = _mix(color, narrow, 0.6 * _step(0.04 - np.abs((u / 0.92 + 0.5) % 1 - 0.5), 0.03))
    row = np.floor(v / 0.52)
    du = (u / 0.46 + 0.5 * (row % 2)) % 1 - 0.5
    dv = (v / 0.52) % 1 - 0.5
    color = _mix(color, dots, 0.9 * _step(0.21 - np.hypot(du, dv), 0.07))
    weave = noise(place, 26.0, 0)
    return color * (1 + 0.05 * weave + 0.06 * noise.layers(place, 2.0, 2))[:, None]
