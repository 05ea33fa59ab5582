"""What the controls of a glTF file are called, and what its animations move."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from ..drive.names import plain_name
from .gltf_file import GltfFile
from .gltf_tree import Tree

PATHS = {"rotation": "rotate", "translation": "move", "scale": "scale"}
"""What an animation drives of a node, and the word for it in a control: ``Head.rotateX`` and so on."""

_REST = {"rotation": (0, 0, 0, 1), "translation": (0, 0, 0), "scale": (1, 1, 1)}

_STILL = 1e-4
"""Of a quaternion, a scale, and of the farthest joint from its parent: what exporters and packers leave of rounding."""


def target_names(file: GltfFile, number: int) -> list[str]:
    """The controls of a mesh's morph targets, in their order; none is there twice."""
    mesh = file.row("meshes", number)
    count = max((len(primitive.get("targets", [])) for primitive in mesh["primitives"]), default=0)
    own = mesh.get("name") or f"mesh{number}"
    names = [plain_name(name) for name in _given_names(mesh)[:count]]
    names += [f"{own}.{index}" for index in range(len(names), count)]
    seen: Counter = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name}.{seen[name]}"
    return names


def _given_names(mesh: dict) -> list[str]:
    """Where exporters put the names of targets, though the format has no place for them; [] where they are not."""
    for row in (mesh, *mesh["primitives"]):
        extras = row.get("extras")
        names = extras.get("targetNames") if isinstance(extras, dict) else None
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    return []


def moving_paths(file: GltfFile, tree: Tree) -> dict[int, set[str]]:
    """What animations change of the nodes of a scene: node -> some of `PATHS`; what stays at rest is left out."""
    found: dict[int, set[str]] = {}
    reach = max((np.abs(tree.rest(node)[0][:3, 3]).max() for node in tree.order), default=0) or 1
    for animation in file.rows("animations"):
        for channel in animation["channels"]:
            node, path = channel["target"].get("node"), channel["target"]["path"]
            if node not in tree.parents or path not in PATHS or "matrix" in file.row("nodes", node):
                continue
            sampler = animation["samplers"][channel["sampler"]]
            values = file.array(sampler["output"])
            if sampler.get("interpolation") == "CUBICSPLINE":
                values = values[1::3]  # each between its tangents
            away = _away(path, values, np.asarray(file.row("nodes", node).get(path, _REST[path])))
            if away > _STILL * (reach if path == "translation" else 1):
                found.setdefault(node, set()).add(path)
    return found


def _away(path: str, values: np.ndarray, rest: np.ndarray) -> float:
    """How much values [K, n] change; or a tenth of how far they stand from those at rest [n], if that is more."""
    if path == "rotation":  # a quaternion and its negative are one turn
        values = np.where((values @ rest)[:, None] < 0, -values, values)
    if not len(values):
        return 0.0
    return float(max(np.ptp(values, axis=0).max(), np.abs(values - rest).max() / 10))


def head_nodes(file: GltfFile) -> set[int]:
    """Nodes that are heads: the one that a VRM names, or else those that are called so."""
    vrm = file.extension("VRM").get("humanoid", {}).get("humanBones", [])
    named = {bone.get("node") for bone in vrm if bone.get("bone") == "head"}
    named |= {file.extension("VRMC_vrm").get("humanoid", {}).get("humanBones", {}).get("head", {}).get("node")}
    named.discard(None)
    return named or {node for node, row in enumerate(file.rows("nodes")) if _is_head(row.get("name") or "")}


def _is_head(name: str) -> bool:
    """Whether it is a head's name: ``Head``, ``mixamorig:Head``, ``J_Bip_C_Head``, ``Bip01 Head``, ``head_jnt``."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    while words and words[-1] in ("jnt", "joint", "bone", "bind", "m", "c", "x"):
        words.pop()
    return bool(words) and words[-1] == "head"
