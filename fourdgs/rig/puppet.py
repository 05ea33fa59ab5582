"""A talking head made of formulas: a second rig, of no licence, for tests and benchmarks.

World: y up, the face towards +z, the person's left at +x. Lengths below are before the fit into the unit ball; the head
is about 1.4 high.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..data.track import HEAD
from .linear import LinearRig
from .names import ARKIT

FIT = 0.98
"""Radius of the ball about the origin that holds the puppet at rest, as the embedded avatar's."""

_SIZE = np.array([0.50, 0.70, 0.58])  # half axes of the skull
_MOUTH_Y, _MOUTH_W = -0.335, 0.17  # its height and half its width
_EYE = np.array([0.19, 0.06, 0.435])  # centre of the left eye
_EYE_R, _LID_R = 0.088, 0.102
_OPEN_DEG = 27.0  # of the upper lid's edge above the gaze
_SKIN, _LIP, _HAIR, _SHIRT = (224, 172, 140), (186, 78, 84), (70, 44, 30), (58, 84, 130)
_JAW = np.array([0.0, -0.08, 0.05])  # a point of the jaw's hinge

_TUGS: dict[str, tuple[tuple[float, float, float], float, tuple[float, float, float]]] = {
    "mouthSmile": ((0.17, -0.33, 0.49), 0.11, (0.05, 0.075, -0.02)),
    "mouthFrown": ((0.17, -0.33, 0.49), 0.10, (0.02, -0.06, 0.0)),
    "mouthStretch": ((0.17, -0.33, 0.49), 0.11, (0.07, -0.01, -0.03)),
    "mouthDimple": ((0.17, -0.33, 0.49), 0.07, (0.035, 0.01, -0.05)),
    "mouthPress": ((0.10, -0.335, 0.53), 0.06, (0.0, 0.0, -0.02)),
    "cheekSquint": ((0.26, -0.09, 0.44), 0.10, (0.0, 0.04, 0.02)),
    "noseSneer": ((0.06, -0.12, 0.60), 0.06, (0.0, 0.04, 0.0)),
    "browOuterUp": ((0.27, 0.21, 0.46), 0.11, (0.0, 0.08, 0.0)),
    "browDown": ((0.17, 0.21, 0.50), 0.13, (-0.01, -0.06, 0.01)),
}
"""One-sided actions that tug the skin: the left side's middle, its reach (a Gaussian's sigma) and the way."""


@dataclass
class _Clay:
    """Vertices, faces, colours and what moves them, gathered sheet by sheet."""

    points: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)
    carried: list[np.ndarray] = field(default_factory=list)  # [v, 2] shares of the neck's and the head's joint
    moves: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, points, faces, colors, moves=None, carried=(0.0, 1.0)) -> None:
        """``colors`` and ``carried``: one or a row a vertex; ``moves``: action -> [v, 3]."""
        start = sum(map(len, self.points))
        self.points.append(points)
        self.faces.append(np.asarray(faces) + start)
        self.colors.append(np.broadcast_to(np.asarray(colors, float), (len(points), 3)))
        self.carried.append(np.broadcast_to(np.asarray(carried, float), (len(points), 2)))
        self.moves.append(moves or {})


def puppet_rig(detail: float = 1.0) -> LinearRig:
    """The puppet: 52 face actions named as in ARKit and the three head angles, in degrees; vertex colours.

    Args:
        detail: times the rows and columns of all sheets; at 1 it has about 4,000 vertices.
    """
    clay = _Clay()
    _add_skull(clay, detail)
    for side in (1, -1):
        _add_eye(clay, side, detail)
        _add_brow(clay, side, detail)
        centre, size = np.array([side * 0.50, -0.03, -0.02]), np.array([0.05, 0.13, 0.08])
        points, faces = _ball(_n(8, detail), _n(12, detail))
        clay.add(centre + size * points, faces, np.array(_SKIN) * 0.96)
    _add_bust(clay, detail)
    points = np.concatenate(clay.points)
    deltas = np.zeros((len(ARKIT), len(points), 3))
    start = 0
    for part, moves in zip(clay.points, clay.moves, strict=True):
        for name, move in moves.items():
            deltas[ARKIT.index(name), start : start + len(part)] += move
        start += len(part)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    scale = FIT / np.linalg.norm(points - middle, axis=1).max()
    joints = (np.array([[0, -0.80, -0.10], [0, -0.52, -0.06]]) - middle) * scale
    frames, binds = np.tile(np.eye(4), (2, 2, 1, 1))
    frames[:, :3, 3], binds[:, :3, 3] = np.diff(joints, axis=0, prepend=np.zeros((1, 3))), -joints
    axes = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])  # yaw, pitch, roll about y, x, z
    return LinearRig.make(
        (points - middle) * scale,
        np.concatenate(clay.faces),
        (*ARKIT, *HEAD),
        deltas * scale,
        parents=(-1, 0),
        weights=np.concatenate(clay.carried),
        frames=frames,
        binds=binds,
        turns=np.array([0.4, 0.6])[:, None, None] * axes,
        colors=np.clip(np.concatenate(clay.colors), 0, 255).astype(np.uint8),
    )


# --- the skull with its mouth ---


def _add_skull(clay: _Clay, detail: float) -> None:
    rows, columns = _n(40, detail), 2 * _n(25, detail)
    # More rows at the mouth, more columns in front.
    fine = np.linspace(-np.pi / 2, np.pi / 2, 2000)
    mouth = np.arcsin(_MOUTH_Y / _SIZE[1])
    density = 1 + 2.2 * np.exp(-(((fine - mouth) / 0.22) ** 2)) + 0.8 * np.exp(-(((fine - 0.15) / 0.3) ** 2))
    position = np.cumsum(density) / density.sum() * (rows + 1)
    lat = np.interp(np.arange(rows, 0, -1), position, fine)
    middle = int(np.argmin(np.abs(lat - mouth)))
    turn = np.arange(columns) / columns * 2 * np.pi - np.pi
    lon = turn - 0.6 * np.sin(turn)
    lat, lon = np.meshgrid(lat, lon, indexing="ij")
    ball = np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], -1)
    grid = np.arange(rows * columns).reshape(rows, columns)
    sphere = np.concatenate([ball.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]])
    round_, across = np.roll(grid, -1, 1), sphere[grid[middle], 0] * _SIZE[0]
    # The slit: between its corners the rows below have a rim of their own.
    inside = np.flatnonzero((np.abs(across) < _MOUTH_W) & (sphere[grid[middle], 2] > 0))
    rim = np.arange(len(sphere), len(sphere) + len(inside))
    lower_grid = grid.copy()
    lower_grid[middle, inside] = rim
    sphere = np.concatenate([sphere, sphere[grid[middle, inside]]])
    below = np.concatenate([np.repeat(np.arange(rows) > middle, columns), [False, True], np.ones(len(inside), bool)])
    faces = []
    for row in range(rows - 1):
        upper = lower_grid[row] if row >= middle else grid[row]
        faces += _band(upper, grid[row + 1])
    faces += [(len(ball.reshape(-1, 3)), a, b) for a, b in zip(grid[0], round_[0], strict=True)]
    faces += [(len(ball.reshape(-1, 3)) + 1, b, a) for a, b in zip(grid[-1], round_[-1], strict=True)]
    points, hair = _sculpt(sphere * _SIZE)
    moves = _skin_moves(points, below)
    clay.add(points, faces, _skin_colors(points, hair), moves)
    corners = grid[middle, [inside[0] - 1, inside[-1] + 1]]
    _add_cavity(clay, points, moves, grid[middle, inside], rim, corners, detail)


def _sculpt(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A face out of an ellipsoid [v, 3], and how much hair [v] covers each place."""
    x, y, z = points.T
    front = np.clip(z / 0.2, 0, 1)
    out = points.copy()
    narrow = np.interp(y, (-0.70, -0.30, 0.1), (0.72, 0.93, 1.0))  # the jaw is narrower than the temples
    out[:, 0] *= narrow
    ridge = np.interp(y, (-0.24, -0.17, 0.10, 0.2), (0.0, 1.0, 0.25, 0.0))
    out[:, 2] += front * 0.15 * ridge * np.exp(-((x / (0.050 + 0.025 * (y < -0.1))) ** 2))
    for side in (1, -1):
        away = ((x - side * _EYE[0]) / 0.11) ** 2 + ((y - _EYE[1]) / 0.085) ** 2
        out[:, 2] -= front * 0.06 * np.exp(-away)
        away = ((x - side * 0.25) / 0.13) ** 2 + ((y + 0.14) / 0.11) ** 2
        out[:, 2] += front * 0.03 * np.exp(-away)
    out[:, 2] += front * 0.05 * np.exp(-((x / 0.13) ** 2) - ((y + 0.56) / 0.09) ** 2)  # chin
    lips = (np.abs(y - _MOUTH_Y) / 0.045) ** 2 + (x / (1.05 * _MOUTH_W)) ** 4
    out[:, 2] += front * 0.035 * np.exp(-lips)
    line = np.interp(z, (-0.45, -0.2, 0.05, 0.22, 0.5), (-0.42, -0.2, 0.05, 0.32, 0.43))
    hair = np.clip((y - line) / 0.05, 0, 1)
    out *= (1 + 0.07 * hair)[:, None]
    return out, hair


def _skin_colors(points: np.ndarray, hair: np.ndarray) -> np.ndarray:
    x, y, z = points.T
    colors = np.tile(np.array(_SKIN, float), (len(points), 1))
    for side in (1, -1):
        away = ((x - side * 0.25) / 0.11) ** 2 + ((y + 0.16) / 0.10) ** 2
        colors += np.exp(-away)[:, None] * np.array([10, -28, -22]) * (z > 0)[:, None]
    edge = ((y - _MOUTH_Y) / 0.056) ** 2 + (x / (1.05 * _MOUTH_W)) ** 2
    lips = np.clip((1.15 - edge) / 0.3, 0, 1) * (z > 0)
    colors += lips[:, None] * (np.array(_LIP) - colors)
    strands = 1 + 0.22 * np.sin(38 * np.arctan2(x, z) + 3 * np.sin(9 * y))
    return colors + hair[:, None] * (np.array(_HAIR) * strands[:, None] - colors)


def _skin_moves(points: np.ndarray, below: np.ndarray) -> dict[str, np.ndarray]:
    """What the actions do to the skin; ``below`` [v] tells the lower lip and the jaw from what is above the slit."""
    x, y, z = points.T
    under = np.clip(_MOUTH_Y - y, 0, None)
    opening = np.sqrt(np.clip(1 - (x / _MOUTH_W) ** 2, 0, 1))
    jaw = below * np.clip((z + 0.05) / 0.35, 0, 1) * (1 - (1 - opening) * np.exp(-((under / 0.12) ** 2)))
    # Near the mouth only, each lip for itself.
    near = np.exp(-((x / 0.16) ** 2) - ((y - _MOUTH_Y) / 0.10) ** 2) * (z > 0)
    lower, upper = near * below, near * ~below
    moves = {"jawOpen": jaw[:, None] * _about_x(points, _JAW, 17.0)}
    moves["jawForward"] = jaw[:, None] * np.array([0, 0, 0.06])
    moves["jawLeft"], moves["jawRight"] = (jaw[:, None] * np.array([side * 0.06, 0, 0]) for side in (1, -1))
    moves["mouthLeft"], moves["mouthRight"] = (near[:, None] * np.array([side * 0.06, 0, 0]) for side in (1, -1))
    moves["mouthClose"] = -moves["jawOpen"] * (np.exp(-((under / 0.06) ** 2)) * opening)[:, None] * 0.9
    inwards = np.stack([-x, 0 * x, 0.07 + 0 * x], 1)
    moves["mouthPucker"] = near[:, None] * inwards * (0.5, 1, 1)
    part = (opening * (upper - lower))[:, None]
    moves["mouthFunnel"] = near[:, None] * inwards * (0.35, 1, 0.9) + part * np.array([0, 0.05, 0])
    moves["mouthRollLower"] = lower[:, None] * np.array([0, 0.01, -0.04])
    moves["mouthRollUpper"] = upper[:, None] * np.array([0, -0.01, -0.04])
    moves["mouthShrugLower"] = lower[:, None] * np.array([0, 0.01, 0.03])
    moves["mouthShrugUpper"] = upper[:, None] * np.array([0, 0.01, 0.03])
    moves["browInnerUp"] = _tug(points, (0, 0.23, 0.54), 0.13, (0, 0.06, 0))
    moves["cheekPuff"] = sum(_tug(points, (side * 0.28, -0.27, 0.40), 0.11, (side * 0.06, 0, 0.05)) for side in (1, -1))
    for name, (middle, reach, way) in _TUGS.items():
        for side, word in ((1, "Left"), (-1, "Right")):
            mirror = np.array([side, 1, 1])
            moves[name + word] = _tug(points, mirror * middle, reach, mirror * way)
    for side, word in ((1, "Left"), (-1, "Right")):
        half = 1 / (1 + np.exp(-side * x / 0.025))
        moves[f"mouthLowerDown{word}"] = (lower * opening * half)[:, None] * np.array([0, -0.065, 0.01])
        moves[f"mouthUpperUp{word}"] = (upper * opening * half)[:, None] * np.array([0, 0.055, 0.01])
    return moves


def _add_cavity(clay: _Clay, points, moves, upper, lower, corners, detail: float) -> None:
    """A dark pocket behind the slit, whose rims are the lips', a row of teeth and a tongue."""
    depth = _n(7, detail)
    share = np.arange(1, depth + 1) / (depth + 1)  # from the upper to the lower rim
    opening = np.sqrt(np.clip(1 - (points[upper, 0] / _MOUTH_W) ** 2, 0, 1))
    pocket = np.stack([0 * share, 0.09 * np.sin(2 * np.pi * share), -0.30 * np.sin(np.pi * share)], 1)
    # [depth, k, 3], then the rims and the corners, as vertices of their own.
    inner = points[upper] + pocket[:, None] * opening[:, None]
    sheet = np.concatenate([points[upper], inner.reshape(-1, 3), points[lower], points[corners]])
    count = len(upper)
    rows = np.arange((depth + 2) * count).reshape(depth + 2, count)
    faces = []
    for one, two in zip(rows[:-1], rows[1:], strict=True):
        faces += [t for a, b, c, d in zip(one, one[1:], two, two[1:], strict=False) for t in ((a, c, d), (a, d, b))]
        faces += [(rows.size, two[0], one[0]), (rows.size + 1, one[-1], two[-1])]
    along = np.concatenate([[0], share, [1]])[:, None, None]
    mixed = {}
    for name, move in moves.items():
        both = (1 - along) * move[upper] + along * move[lower]
        mixed[name] = np.concatenate([both.reshape(-1, 3), move[corners]])
    deep = np.repeat(np.sin(np.pi * along[:, 0, 0]), count)
    colors = np.array(_LIP) * 0.8 + deep[:, None] ** 0.5 * (np.array([34, 8, 12]) - np.array(_LIP) * 0.8)
    clay.add(sheet, faces, np.concatenate([colors, np.tile(np.array(_LIP, float), (2, 1))]), mixed)
    across = np.linspace(-0.62, 0.62, _n(13, detail)) * _MOUTH_W
    gum = np.interp(across, points[upper, 0], points[upper, 2]) - 0.085
    teeth = np.stack([np.stack([across, across * 0 + _MOUTH_Y + height, gum], 1) for height in (0.05, -0.004)])
    faces = _sheet(2, len(across))
    clay.add(teeth.reshape(-1, 3), faces, (240, 234, 220))
    ball, faces = _ball(_n(6, detail), _n(10, detail))
    tongue = np.array([0, _MOUTH_Y - 0.04, 0.33]) + ball * (0.085, 0.022, 0.14)
    moves = {"jawOpen": 0.9 * _about_x(tongue, _JAW, 17.0)}
    out = np.array([0, -0.01, 0.20]) * np.clip((tongue[:, 2:] - 0.2) / 0.15, 0, 1)
    clay.add(tongue, faces, (176, 70, 78), moves | {"tongueOut": out})


# --- eyes and brows ---


def _add_eye(clay: _Clay, side: int, detail: float) -> None:
    word, centre = ("Left" if side > 0 else "Right"), _EYE * (side, 1, 1)
    points, faces = _ball(_n(13, detail), _n(18, detail))
    points = points[:, [0, 2, 1]] * (1, -1, 1)  # a pole looks ahead
    angle = np.degrees(np.arccos(np.clip(points[:, 2], -1, 1)))
    colors = np.tile(np.array([246, 244, 240], float), (len(points), 1))
    colors[angle < 33] = (70, 120, 96)
    colors[angle < 16] = (12, 12, 14)
    ball = centre + _EYE_R * points
    moves = {}
    for name, turn in (("Up", (-22, 0)), ("Down", (22, 0)), ("In", (0, -25 * side)), ("Out", (0, 25 * side))):
        moved = _about_x(ball, centre, turn[0]) if turn[0] else _about_y(ball, centre, turn[1])
        moves[f"eyeLook{name}{word}"] = moved
    clay.add(ball, faces, colors, moves)
    for upper in (True, False):
        _add_lid(clay, centre, word, upper, detail)


def _add_lid(clay: _Clay, centre: np.ndarray, word: str, upper: bool, detail: float) -> None:
    """A shell over the eye; it slides about the eye's x axis, most at its edge."""
    rows, columns = _n(8, detail), _n(13, detail)
    sign = 1 if upper else -1
    across = np.radians(np.linspace(-76, 76, columns))
    edge = np.radians(_OPEN_DEG if upper else 20.0) * np.cos(across) ** 1.5
    back = np.linspace(0, 1, rows)[:, None]
    rest = edge + back * (np.radians(140) - edge)  # [rows, columns], from the edge to behind

    def shell(angle: np.ndarray) -> np.ndarray:
        angle = sign * angle
        wide = np.broadcast_to(across, angle.shape)
        way = [np.sin(wide), np.cos(wide) * np.sin(angle), np.cos(wide) * np.cos(angle)]
        return centre + _LID_R * np.stack(way, -1).reshape(-1, 3)

    give = (1 - back) ** 1.5 * np.cos(across) ** 1.5
    slides = {"eyeBlink": 44.0, "eyeSquint": 8.0, "eyeWide": -12.0} if upper else {"eyeBlink": 4.0, "eyeSquint": 11.0}
    moves = {f"{name}{word}": shell(rest - np.radians(by) * give) - shell(rest) for name, by in slides.items()}
    faces = np.array(_sheet(rows, columns))
    colors = np.tile(np.array(_SKIN, float) * 0.93, (rows * columns, 1))
    colors[:columns] = (60, 36, 30) if upper else np.array(_SKIN) * 0.8  # lashes
    clay.add(shell(rest), faces[:, ::-1] if upper else faces, colors, moves)


def _add_brow(clay: _Clay, side: int, detail: float) -> None:
    """A flat tube along an arch above the eye."""
    along, around = np.linspace(0, 1, _n(12, detail)), np.arange(8) / 8 * 2 * np.pi
    spine = np.stack(
        [0.075 + 0.21 * along, 0.235 - 0.02 * along + 0.04 * np.sin(np.pi * along * 0.85), 0.535 - 0.155 * along**1.6],
        1,
    )
    thick = (0.5 + 0.9 * np.sin(np.pi * (0.1 + 0.8 * along)))[:, None]
    ring = np.stack([0 * around, 0.022 * np.sin(around), 0.022 * np.cos(around)], 1)
    points = spine[:, None] + thick[:, :, None] * ring  # [n, 8, 3]
    points = np.concatenate([points.reshape(-1, 3), spine[:1] - (0.01, 0, 0), spine[-1:] + (0.01, 0, 0)])
    grid = np.arange(len(along) * 8).reshape(-1, 8)
    faces = [t for one, two in zip(grid[:-1], grid[1:], strict=True) for t in _band(two, one)]
    faces += [(grid.size, b, a) for a, b in zip(grid[0], np.roll(grid[0], -1), strict=True)]
    faces += [(grid.size + 1, a, b) for a, b in zip(grid[-1], np.roll(grid[-1], -1), strict=True)]
    faces = np.array(faces)[:, ::-1]
    mirror = np.array([side, 1, 1])
    moves = {
        name: move for name, move in _skin_moves(points * mirror, np.zeros(len(points), bool)).items() if "brow" in name
    }
    clay.add(points * mirror, faces if side > 0 else faces[:, ::-1], np.array(_HAIR) * 0.8, moves)


# --- neck and shoulders ---


def _add_bust(clay: _Clay, detail: float) -> None:
    columns = _n(32, detail)
    heights = (-0.40, -0.55, -0.65, -0.75, -0.85, -0.88, -0.93, -1.02, -1.15, -1.30)
    wide = (0.24, 0.235, 0.235, 0.25, 0.28, 0.36, 0.60, 0.82, 0.92, 0.95)
    thick = (0.24, 0.235, 0.235, 0.245, 0.26, 0.29, 0.34, 0.38, 0.40, 0.41)
    levels = np.linspace(0, 9, _n(17, detail))
    height, wide, thick = (np.interp(levels, np.arange(10), table) for table in (heights, wide, thick))
    turn = np.arange(columns) / columns * 2 * np.pi
    rings = np.stack(
        [wide[:, None] * np.sin(turn), height[:, None] + 0 * turn, thick[:, None] * np.cos(turn) - 0.12], -1
    )
    grid = np.arange(rings.shape[0] * columns).reshape(-1, columns)
    faces = [t for one, two in zip(grid[:-1], grid[1:], strict=True) for t in _band(one, two)]
    last = rings[-1].mean(axis=0)
    faces += [(grid.size, b, a) for a, b in zip(grid[-1], np.roll(grid[-1], -1), strict=True)]
    points = np.concatenate([rings.reshape(-1, 3), [last]])
    shirt = np.append(np.repeat(levels >= 4.5, columns), True)
    stripes = np.sign(np.sin(points[:, 1] * 45 + 0.1))
    cloth = np.array(_SHIRT) * (1 + 0.18 * stripes[:, None])
    colors = np.where(shirt[:, None], cloth, np.array(_SKIN) * 0.93)
    free = np.clip((points[:, 1] + 0.86) / 0.40, 0, 1)
    free = free * free * (3 - 2 * free)
    clay.add(points, faces, colors, None, np.stack([2 * free * (1 - free), free**2], 1))


# --- shapes ---


def _n(count: int, detail: float) -> int:
    return max(3, round(count * detail))


def _band(upper: np.ndarray, lower: np.ndarray) -> list[tuple]:
    """Triangles between two closed rings, seen from outside with ``upper`` above and the rings running to the right."""
    after, below = np.roll(upper, -1), np.roll(lower, -1)
    return [t for a, b, c, d in zip(upper, after, lower, below, strict=True) for t in ((a, c, d), (a, d, b))]


def _sheet(rows: int, columns: int) -> list[tuple]:
    grid = np.arange(rows * columns).reshape(rows, columns)
    corners = (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:])
    return [t for a, b, c, d in zip(*(part.ravel() for part in corners), strict=True) for t in ((a, c, d), (a, d, b))]


def _ball(rows: int, columns: int) -> tuple[np.ndarray, list[tuple]]:
    """A unit ball of ``rows`` rings and two poles on y."""
    lat, lon = np.linspace(np.pi / 2, -np.pi / 2, rows + 2)[1:-1, None], np.arange(columns) / columns * 2 * np.pi
    rings = np.stack([np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon, np.cos(lat) * np.cos(lon)], -1)
    grid = np.arange(rows * columns).reshape(rows, columns)
    faces = [t for one, two in zip(grid[:-1], grid[1:], strict=True) for t in _band(one, two)]
    faces += [(grid.size, a, b) for a, b in zip(grid[0], np.roll(grid[0], -1), strict=True)]
    faces += [(grid.size + 1, b, a) for a, b in zip(grid[-1], np.roll(grid[-1], -1), strict=True)]
    return np.concatenate([rings.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]]), faces


def _about_x(points: np.ndarray, centre: np.ndarray, angle_deg: float) -> np.ndarray:
    """How far points go when turned about an axis along x: what is in front goes down."""
    c, s = np.cos(np.radians(angle_deg)) - 1, np.sin(np.radians(angle_deg))
    x, y, z = (points - centre).T
    return np.stack([0 * x, c * y - s * z, s * y + c * z], 1)


def _about_y(points: np.ndarray, centre: np.ndarray, angle_deg: float) -> np.ndarray:
    """The same about y: what is in front goes to +x."""
    c, s = np.cos(np.radians(angle_deg)) - 1, np.sin(np.radians(angle_deg))
    x, y, z = (points - centre).T
    return np.stack([c * x + s * z, 0 * y, c * z - s * x], 1)


def _tug(points: np.ndarray, middle, reach: float, way) -> np.ndarray:
    near = np.exp(-((points - middle) ** 2).sum(axis=1) / (2 * reach**2))
    return near[:, None] * np.asarray(way)
