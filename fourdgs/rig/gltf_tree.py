"""The nodes of a glTF scene: where each stands, and which of them move as joints."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from .gltf_file import GltfFile


@dataclass
class Tree:
    """Nodes of a scene, parents before children.

    Attributes:
        order: numbers of the nodes. parents: node -> its parent, or None. moving: those that joints stand for.
        front: [4, 4] turns the whole scene to face +z.
    """

    file: GltfFile
    order: list[int]
    parents: dict[int, int | None]
    moving: set[int] = field(default_factory=set)
    front: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        self.named: dict[str, list[int]] = {}

    def name(self, node: int) -> str:
        """The node's name in controls: its own where no other node has it; a joint's own where only meshes have it."""
        if not self.named:
            for other in self.order:
                self.named.setdefault(self.file.row("nodes", other).get("name") or f"node{other}", []).append(other)
        row = self.file.row("nodes", node)
        own = row.get("name") or f"node{node}"
        same = self.named[own]
        rivals = [other for other in same if "mesh" in row or "mesh" not in self.file.row("nodes", other)]
        return own if len(rivals) < 2 else f"{own}.{same.index(node)}"

    def rest(self, node: int) -> tuple[np.ndarray, np.ndarray]:
        """[4, 4] place and turn of a node in its parent, and [4, 4] its scale, which comes before them."""
        row = self.file.row("nodes", node)
        if "matrix" in row:
            return self._numbers(row["matrix"], 16, node).reshape(4, 4).T, np.eye(4)
        place = np.eye(4)
        turn = self._numbers(row.get("rotation", (0, 0, 0, 1)), 4, node)
        if not turn.any():
            raise InputError("has a rotation of zeros", file=self.file.path, field=f"nodes[{node}]")
        place[:3, :3] = turn_of(turn)
        place[:3, 3] = self._numbers(row.get("translation", (0, 0, 0)), 3, node)
        return place, np.diag([*self._numbers(row.get("scale", (1, 1, 1)), 3, node), 1.0])

    def up_to_moving(self, node: int | None) -> tuple[int | None, np.ndarray]:
        """The nearest moving node at or above ``node`` and what [4, 4] leads there, its own scale included.

        Where none moves: None, and what leads into the world, which faces +z.
        """
        chain = np.eye(4)
        while node is not None:
            place, scale = self.rest(node)
            if node in self.moving:
                return node, scale @ chain
            chain = place @ scale @ chain
            node = self.parents[node]
        return None, self.front @ chain

    def _numbers(self, values: list, count: int, node: int) -> np.ndarray:
        numbers = np.asarray(values, np.float64)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            message = f"has a transform of other than {count} numbers"
            raise InputError(message, file=self.file.path, field=f"nodes[{node}]")
        return numbers


def read_tree(file: GltfFile) -> Tree:
    """The nodes of the file's scene (of all its roots where it has none)."""
    nodes = file.rows("nodes")
    below = [row.get("children", []) for row in nodes]
    if file.rows("scenes"):
        roots = file.row("scenes", file.json.get("scene", 0)).get("nodes", [])
    else:
        children = {child for row in below for child in row}
        roots = [node for node in range(len(nodes)) if node not in children]
    tree, waiting = Tree(file, [], {}), [(root, None) for root in reversed(roots)]
    if file.extension("VRM"):  # version 0; its successor, VRMC_vrm, faces +z as glTF does
        tree.front = np.diag([-1.0, 1.0, -1.0, 1.0])
    while waiting:
        node, parent = waiting.pop()
        file.row("nodes", node)
        if node in tree.parents:
            raise InputError(f"node {node} has two parents", file=file.path, field="nodes", remedy="export it anew")
        tree.order.append(node)
        tree.parents[node] = parent
        waiting += [(child, node) for child in reversed(below[node])]
    return tree


def turn_of(quaternion: np.ndarray) -> np.ndarray:
    """[..., 3, 3] for quaternions [..., 4], x y z w as glTF has them, of any length but 0."""
    x, y, z, w = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return np.stack(rows, -1).reshape(*x.shape, 3, 3)


def angles_of(turn: np.ndarray) -> np.ndarray:
    """[..., 3] degrees about x, y and z for rotations [..., 3, 3]: the inverse of `linear.rotations`."""
    pitch = np.arcsin(np.clip(-turn[..., 1, 2], -1, 1))
    roll = np.arctan2(turn[..., 1, 0], turn[..., 1, 1])
    yaw = np.arctan2(turn[..., 0, 2], turn[..., 2, 2])
    return np.degrees(np.stack([pitch, yaw, roll], -1))
