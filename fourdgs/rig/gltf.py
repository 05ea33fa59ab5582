"""Avatars in glTF: morph targets and skins to a `LinearRig`, animations to a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.track import HEAD
from ..errors import InputError
from .gltf_file import GltfFile
from .gltf_tree import Tree, read_tree
from .linear import LinearRig
from .names import arkit_name

PATHS = {"rotation": "rotate", "translation": "move", "scale": "scale"}
"""What an animation drives of a node, and the word for it in a control: ``Head.rotateX`` and so on."""


def load_gltf_rig(path: str | Path) -> LinearRig:
    """The rig in a .glb or .gltf file; all its meshes are one.

    Controls are the morph targets by name (ARKit's spelling where it is one of its actions; the same name on several
    meshes is one control), then ``<node>.rotateX``, ``Y``, ``Z``, in degrees about the node's own axes from its rest,
    for the joints of skins and for nodes that an animation turns, ``.moveX`` in units and ``.scaleX`` (1 at rest)
    for those that one moves or scales. A joint named head gives ``headYaw``, ``headPitch``, ``headRoll`` as well.

    Colours are the vertices'; textures are not read.

    Raises:
        InputError: the file cannot be read, is packed (Draco, meshopt, KTX2: the text says how to unpack it), or holds
            no triangle or nothing that moves.
    """
    try:
        file = GltfFile(path)
        return _Reader(file, read_tree(file)).rig()
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(str(error), file=path) from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"is not as glTF says it must be: {error!r}", file=path, remedy="export it anew") from error


@dataclass
class _Part:
    """One primitive where it stands before anything moves."""

    points: np.ndarray  # [v, 3]
    faces: np.ndarray  # [f, 3]
    deltas: dict[str, np.ndarray]  # control -> [v, 3]
    weights: dict[int, np.ndarray]  # joint of the rig -> [v]
    uv: np.ndarray | None
    colors: np.ndarray | None


class _Reader:
    """Collects joints, controls and parts of one file."""

    def __init__(self, file: GltfFile, tree: Tree):
        self.file, self.tree = file, tree
        self.neutral: dict[str, float] = {}  # of each action, in the order in which they are met
        self.parents: list[int] = []
        self.frames: list[np.ndarray] = []
        self.binds: list[np.ndarray | None] = []
        self.joint_of: dict[int, int] = {}
        self.columns: dict[str, list[tuple[str, int, int]]] = {}  # control -> table, joint, axis
        self._place_joints()

    def _place_joints(self) -> None:
        """Joints for the nodes that can move, and the controls that move them."""
        driven = moving_paths(self.file, self.tree)
        bones = {node for skin in self.file.rows("skins") for node in skin["joints"] if node in self.tree.parents}
        self.tree.moving = bones | set(driven)
        plain = {name for mesh in range(len(self.file.rows("meshes"))) for name in target_names(self.file, mesh)}
        for node in self.tree.order:
            if node not in self.tree.moving:
                continue
            above, chain = self.tree.up_to_moving(self.tree.parents[node])
            parent, frame = self.joint_of.get(above, -1), chain @ self.tree.rest(node)[0]
            if (
                node in bones
                and _is_head(self.tree.name(node))
                and not plain & set(HEAD)
                and HEAD[0] not in self.columns
            ):
                parent, frame = self._place_head(parent, frame)
            joint = self._add_joint(parent, frame, None)
            self.joint_of[node] = joint
            for path in PATHS:
                if path in driven.get(node, ()) or (path == "rotation" and node in bones):
                    table = {"rotation": "turns", "translation": "moves", "scale": "grows"}[path]
                    for axis in range(3):
                        name = f"{self.tree.name(node)}.{PATHS[path]}{'XYZ'[axis]}"
                        self.columns[name] = [(table, joint, axis)]

    def _place_head(self, parent: int, frame: np.ndarray) -> tuple[int, np.ndarray]:
        """A joint above the head's that turns about the axes of the world; the parent and frame that remain for it."""
        world = frame
        above = parent
        while above >= 0:
            world, above = self.frames[above] @ world, self.parents[above]
        upright = np.eye(4)
        upright[:3, 3] = world[:3, 3]
        between = np.linalg.inv(world @ np.linalg.inv(frame)) @ upright
        joint = self._add_joint(parent, between, None)
        for name, axis in zip(HEAD, (1, 0, 2), strict=True):
            self.columns[name] = [("turns", joint, axis)]
        return joint, np.linalg.inv(upright) @ world

    def _add_joint(self, parent: int, frame: np.ndarray, bind: np.ndarray | None) -> int:
        self.parents.append(parent)
        self.frames.append(frame)
        self.binds.append(bind)
        return len(self.parents) - 1

    def _carrier(self, node: int, bind: np.ndarray) -> int:
        """The joint that carries what is bound by ``bind`` [4, 4] to a node; a node with two binds gets another."""
        joint = self.joint_of[node]
        if self.binds[joint] is None:
            self.binds[joint] = bind
        if np.array_equal(self.binds[joint], bind):
            return joint
        for child, parent in enumerate(self.parents):
            if parent == joint and child not in self.joint_of.values() and np.array_equal(self.binds[child], bind):
                return child
        return self._add_joint(joint, np.eye(4), bind)

    def rig(self) -> LinearRig:
        """All parts as one rig."""
        parts = [part for node in self.tree.order for part in self._parts(node)]
        parts = [part for part in parts if len(part.faces)]
        if not parts:
            remedy = "export a mesh with its shape keys or its armature"
            raise InputError("holds no triangle", file=self.file.path, field="meshes", remedy=remedy)
        controls = [*self.neutral, *self.columns]
        if not controls:
            remedy = "export it with its shape keys or its armature"
            raise InputError(
                "nothing in it moves: no morph target, skin or animation", file=self.file.path, remedy=remedy
            )
        starts = np.cumsum([0, *(len(part.points) for part in parts)])
        deltas = np.zeros((len(self.neutral), starts[-1], 3), np.float32)
        weights = np.zeros((starts[-1], len(self.parents)), np.float32)
        for part, start in zip(parts, starts, strict=False):
            rows = slice(start, start + len(part.points))
            for name, offsets in part.deltas.items():
                deltas[controls.index(name), rows] += offsets
            for joint, share in part.weights.items():
                weights[rows, joint] += share
        rig = LinearRig.make(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
            controls,
            deltas,
            parents=self.parents,
            weights=weights,
            uv=_joined([part.uv for part in parts], starts, 2, np.float32(0)),
            colors=_joined([part.colors for part in parts], starts, 3, np.uint8(255)),
            **self._joints(),
        )
        neutral = [*self.neutral.values(), *(float(name.rpartition(".")[2][:5] == "scale") for name in self.columns)]
        rig._set(neutral=np.array(neutral, np.float32))
        return rig

    def _joints(self) -> dict[str, np.ndarray]:
        """The arrays of the joints that `LinearRig.make` takes."""
        count = len(self.parents)
        tables = {name: np.zeros((count, 3, len(self.columns)), np.float32) for name in ("turns", "moves", "grows")}
        for column, entries in enumerate(self.columns.values()):
            for table, joint, axis in entries:
                tables[table][joint, axis, column] = 1
        binds = [np.eye(4) if bind is None else bind for bind in self.binds]
        return tables | {"frames": np.reshape(self.frames, (count, 4, 4)), "binds": np.reshape(binds, (count, 4, 4))}

    # --- one node's mesh ---

    def _parts(self, node: int) -> list[_Part]:
        row = self.file.row("nodes", node)
        if "mesh" not in row:
            return []
        mesh = self.file.row("meshes", row["mesh"])
        names = target_names(self.file, row["mesh"])
        start = row.get("weights") or mesh.get("weights") or [0.0] * len(names)
        for name, value in zip(names, start, strict=False):
            self.neutral.setdefault(name, float(value))
        parts = []
        for primitive in mesh["primitives"]:
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                self.file.refuse("KHR_draco_mesh_compression")
            if primitive.get("mode", 4) in (4, 5, 6):
                parts.append(self._part(node, primitive, names, start))
        return parts

    def _part(self, node: int, primitive: dict, names: list[str], start: list[float]) -> _Part:
        attributes = primitive["attributes"]
        points = self.file.array(attributes["POSITION"]).astype(np.float64)
        deltas: dict[str, np.ndarray] = {}
        for name, target, value in zip(names, primitive.get("targets", []), start, strict=False):
            if "POSITION" not in target:
                continue
            offsets = self.file.array(target["POSITION"]).astype(np.float64)
            if offsets.shape != points.shape:
                message = f"target {name!r} has {len(offsets)} vertices, its mesh {len(points)}"
                raise InputError(message, file=self.file.path, field="meshes")
            points, deltas[name] = points + value * offsets, offsets
        faces = self._faces(primitive, len(points))
        row = self.file.row("nodes", node)
        if "skin" in row and "JOINTS_0" in attributes:
            weights = self._skin_weights(row["skin"], attributes, len(points))
        else:
            above, chain = self.tree.up_to_moving(node)
            if above is None:
                points = points @ chain[:3, :3].T + chain[:3, 3]
                deltas = {name: offsets @ chain[:3, :3].T for name, offsets in deltas.items()}
                weights = {}
            else:
                weights = {self._carrier(above, chain): np.ones(len(points))}
            if np.linalg.det(self._world(node)) < 0:  # a mirrored part shows its triangles from behind
                faces = faces[:, ::-1]
        uv = self._optional(attributes, "TEXCOORD_0", len(points))
        colors = self._optional(attributes, "COLOR_0", len(points))
        return _Part(
            points, faces, deltas, weights,
            None if uv is None else uv[:, :2] * (1, -1) + (0, 1),  # glTF's v runs downwards
            None if colors is None else _encode(colors[:, :3]),
        )  # fmt: skip

    def _world(self, node: int) -> np.ndarray:
        turn, at = np.eye(3), node
        while at is not None:
            place, scale = self.tree.rest(at)
            turn, at = (place @ scale)[:3, :3] @ turn, self.tree.parents[at]
        return turn

    def _optional(self, attributes: dict, name: str, count: int) -> np.ndarray | None:
        if name not in attributes:
            return None
        values = self.file.array(attributes[name])
        return values.astype(np.float64) if len(values) == count else None

    def _faces(self, primitive: dict, count: int) -> np.ndarray:
        """[f, 3] of triangles, a strip or a fan."""
        index = np.arange(count)
        if "indices" in primitive:
            index = self.file.array(primitive["indices"])[:, 0].astype(np.int64)
        if len(index) and index.max() >= count:
            message = f"a triangle names vertex {index.max()} of {count}"
            raise InputError(message, file=self.file.path, field="meshes", remedy="export the file anew")
        mode = primitive.get("mode", 4)
        if mode == 4:
            return index[: len(index) // 3 * 3].reshape(-1, 3)
        if mode == 6:
            return np.stack([np.full(max(len(index) - 2, 0), index[0]), index[1:-1], index[2:]], 1)
        faces = np.stack([index[:-2], index[1:-1], index[2:]], 1)
        faces[1::2] = faces[1::2, [1, 0, 2]]
        return faces

    def _skin_weights(self, number: int, attributes: dict, count: int) -> dict[int, np.ndarray]:
        """The joints of the rig that carry the vertices, each with its shares [v], which add up to 1."""
        skin = self.file.row("skins", number)
        nodes = skin["joints"]
        binds = np.tile(np.eye(4), (len(nodes), 1, 1))
        if "inverseBindMatrices" in skin:
            binds = self.file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
        table = np.zeros((count, len(nodes)))
        for group in range(sum(name.startswith("JOINTS_") for name in attributes)):
            joints = self.file.array(attributes[f"JOINTS_{group}"]).astype(np.int64)
            shares = self.file.array(attributes[f"WEIGHTS_{group}"])
            if joints.shape != shares.shape or len(joints) != count or joints.max(initial=0) >= len(nodes):
                raise InputError("names joints that its skin has not", file=self.file.path, field=f"JOINTS_{group}")
            np.add.at(table, (np.arange(count)[:, None], joints), shares)
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
        weights: dict[int, np.ndarray] = {}
        for column in np.flatnonzero(table.any(axis=0)):
            above, chain = self.tree.up_to_moving(nodes[column])
            joint = self._carrier(above, chain @ binds[column])
            weights[joint] = weights.get(joint, 0) + table[:, column]
        return weights


def target_names(file: GltfFile, number: int) -> list[str]:
    """The controls of a mesh's morph targets, in their order; none is there twice."""
    mesh = file.row("meshes", number)
    count = max((len(primitive.get("targets", [])) for primitive in mesh["primitives"]), default=0)
    own = mesh.get("name") or f"mesh{number}"
    places = [mesh, *mesh["primitives"]]  # where exporters put the names
    given = next((row["extras"]["targetNames"] for row in places if "targetNames" in (row.get("extras") or {})), [])
    names = [arkit_name(str(name)) for name in given[:count]]
    names += [f"{own}.{index}" for index in range(len(names), count)]
    seen: Counter = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name}.{seen[name]}"
    return names


def moving_paths(file: GltfFile, tree: Tree) -> dict[int, set[str]]:
    """What animations change of the nodes of a scene: node -> some of `PATHS`; what stays at rest is left out."""
    found: dict[int, set[str]] = {}
    for animation in file.rows("animations"):
        for channel in animation["channels"]:
            node, path = channel["target"].get("node"), channel["target"]["path"]
            if node not in tree.parents or path not in PATHS or "matrix" in file.row("nodes", node):
                continue
            values = file.array(animation["samplers"][channel["sampler"]]["output"])
            rest = file.row("nodes", node).get(path, {"rotation": (0, 0, 0, 1), "translation": 0, "scale": 1}[path])
            span = np.abs(np.asarray(values) - np.asarray(rest)).max(initial=0)
            if span > 1e-6:
                found.setdefault(node, set()).add(path)
    return found


def _is_head(name: str) -> bool:
    return name.replace(":", "_").rpartition("_")[2].lower() == "head"


def _joined(tables: list[np.ndarray | None], starts: np.ndarray, width: int, plain: np.generic) -> np.ndarray | None:
    if all(table is None for table in tables):
        return None
    whole = np.full((starts[-1], width), plain)
    for table, start in zip(tables, starts, strict=False):
        if table is not None:
            whole[start : start + len(table)] = table
    return whole


def _encode(linear: np.ndarray) -> np.ndarray:
    """[..., 3] uint8 sRGB of linear colours (glTF 2.0, 3.9.2; IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    low, high = 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.rint(255 * np.where(linear <= 0.0031308, low, high)).astype(np.uint8)
