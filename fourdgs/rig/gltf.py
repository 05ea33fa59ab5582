"""Avatars in glTF: morph targets and skins to a `LinearRig`, animations to a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.track import HEAD
from ..errors import InputError
from .gltf_controls import PATHS, head_nodes, moving_paths, target_names
from .gltf_file import GltfFile
from .gltf_tree import Tree, read_tree
from .linear import LinearRig
from .names import whole_actions


def load_gltf_rig(path: str | Path) -> LinearRig:
    """The rig in a .glb, .gltf or .vrm file; all its meshes are one, and vertices of no triangle are left out.

    Controls are the morph targets by name (ARKit's spelling where it is one of its actions; the same name on several
    meshes is one control, which begins where the first of them that is not 0 does), ARKit's actions that are there in
    two halves (``browInnerUp_L`` and ``_R``), then ``<node>.rotateX``, ``Y``, ``Z``, in degrees about the node's own
    axes from its rest, for the joints of skins and for nodes that an animation turns, ``.moveX`` in units and
    ``.scaleX`` (1 at rest) for those that one moves or scales. A joint that is a head by its name, or by a VRM's word,
    gives ``headYaw``, ``headPitch``, ``headRoll`` as well.

    A VRM of version 0, which looks along -z, is turned to +z. Colours are the vertices'; textures are not read.

    Raises:
        InputError: the file cannot be read, is packed (Draco, meshopt: the text says how to unpack it), or holds no
            triangle or nothing that moves.
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
        self.neutral = self._starts()
        self.parents: list[int] = []
        self.frames: list[np.ndarray] = []
        self.binds: list[np.ndarray | None] = []
        self.joint_of: dict[int, int] = {}
        self.columns: dict[str, list[tuple[str, int, int]]] = {}  # control -> table, joint, axis
        self._place_joints()

    def _starts(self) -> dict[str, float]:
        """Of each action, in the order in which they are met, where it begins: in all meshes that have it alike."""
        starts: dict[str, float] = {}
        for row in (self.file.row("nodes", node) for node in self.tree.order):
            if "mesh" not in row:
                continue
            names = target_names(self.file, row["mesh"])
            given = row.get("weights") or self.file.row("meshes", row["mesh"]).get("weights") or []
            for name, value in zip(names, [*given, *[0.0] * len(names)], strict=False):
                starts[name] = starts.get(name) or float(value)
        return starts

    def _place_joints(self) -> None:
        """Joints for the nodes that can move, and the controls that move them."""
        driven = moving_paths(self.file, self.tree)
        bones = {node for skin in self.file.rows("skins") for node in skin["joints"] if node in self.tree.parents}
        self.tree.moving = bones | set(driven)
        heads = head_nodes(self.file) & bones if not set(HEAD) & set(self.neutral) else set()
        for node in self.tree.order:
            if node not in self.tree.moving:
                continue
            above, chain = self.tree.up_to_moving(self.tree.parents[node])
            parent, frame = self.joint_of.get(above, -1), chain @ self.tree.rest(node)[0]
            if node in heads and HEAD[0] not in self.columns:
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
        if not self.neutral and not self.columns:
            remedy = "export it with its shape keys or its armature"
            raise InputError(
                "nothing in it moves: no morph target, skin or animation", file=self.file.path, remedy=remedy
            )
        starts = np.cumsum([0, *(len(part.points) for part in parts)])
        actions = list(self.neutral)
        deltas = np.zeros((len(actions), starts[-1], 3), np.float32)
        weights = np.zeros((starts[-1], len(self.parents)), np.float32)
        for part, start in zip(parts, starts, strict=False):
            rows = slice(start, start + len(part.points))
            for name, offsets in part.deltas.items():
                deltas[actions.index(name), rows] += offsets
            for joint, share in part.weights.items():
                weights[rows, joint] += share
        actions, deltas = whole_actions(actions, deltas)
        rig = LinearRig.make(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
            [*actions, *self.columns],
            deltas,
            parents=self.parents,
            weights=weights,
            uv=_joined([part.uv for part in parts], starts, 2, np.float32(0)),
            colors=_joined([part.colors for part in parts], starts, 3, np.uint8(255)),
            **self._joints(),
        )
        scales = (float(name.rpartition(".")[2][:5] == "scale") for name in self.columns)
        rig._set(neutral=np.array([*(self.neutral.get(name, 0.0) for name in actions), *scales], np.float32))
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
        names, parts = target_names(self.file, row["mesh"]), []
        for primitive in self.file.row("meshes", row["mesh"])["primitives"]:
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                self.file.refuse("KHR_draco_mesh_compression")
            if primitive.get("mode", 4) in (4, 5, 6):
                parts.append(self._part(node, primitive, names))
        return parts

    def _part(self, node: int, primitive: dict, names: list[str]) -> _Part:
        attributes = primitive["attributes"]
        points = self.file.array(attributes["POSITION"]).astype(np.float64)
        count = len(points)
        # Primitives often share the vertices of the whole mesh, of which each uses a few.
        used, faces = np.unique(self._faces(primitive, count), return_inverse=True)
        points, faces = points[used], faces.reshape(-1, 3)
        deltas: dict[str, np.ndarray] = {}
        for name, target in zip(names, primitive.get("targets", []), strict=False):
            if "POSITION" not in target:
                continue
            offsets = self.file.array(target["POSITION"]).astype(np.float32)
            if offsets.shape != (count, 3):
                message = f"target {name!r} has {len(offsets)} vertices, its mesh {count}"
                raise InputError(message, file=self.file.path, field="meshes")
            deltas[name] = offsets[used]
            points = points + self.neutral[name] * deltas[name]
        row = self.file.row("nodes", node)
        if "skin" in row and "JOINTS_0" in attributes:
            weights = self._skin_weights(row["skin"], attributes, count, used)
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
        uv = self._optional(attributes, "TEXCOORD_0", count, used)
        colors = self._optional(attributes, "COLOR_0", count, used)
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

    def _optional(self, attributes: dict, name: str, count: int, used: np.ndarray) -> np.ndarray | None:
        if name not in attributes:
            return None
        values = self.file.array(attributes[name])
        return values[used].astype(np.float64) if len(values) == count else None

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

    def _skin_weights(self, number: int, attributes: dict, count: int, used: np.ndarray) -> dict[int, np.ndarray]:
        """The joints of the rig that carry the vertices ``used`` [v], each with its shares [v], which add up to 1."""
        skin = self.file.row("skins", number)
        nodes = skin["joints"]
        binds = np.tile(np.eye(4), (len(nodes), 1, 1))
        if "inverseBindMatrices" in skin:
            binds = self.file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
        table = np.zeros((len(used), len(nodes)))
        for group in range(sum(name.startswith("JOINTS_") for name in attributes)):
            joints = self.file.array(attributes[f"JOINTS_{group}"]).astype(np.int64)
            shares = self.file.array(attributes[f"WEIGHTS_{group}"])
            if joints.shape != shares.shape or len(joints) != count or joints.max(initial=0) >= len(nodes):
                raise InputError("names joints that its skin has not", file=self.file.path, field=f"JOINTS_{group}")
            np.add.at(table, (np.arange(len(used))[:, None], joints[used]), shares[used])
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
        weights: dict[int, np.ndarray] = {}
        for column in np.flatnonzero(table.any(axis=0)):
            above, chain = self.tree.up_to_moving(nodes[column])
            joint = self._carrier(above, chain @ binds[column])
            weights[joint] = weights.get(joint, 0) + table[:, column]
        return weights


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
