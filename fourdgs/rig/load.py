"""Rigs from whatever a user has: one call that finds out what it is."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .base import Rig, read_rig
from .gltf import load_gltf_rig
from .meshes import load_deltas_rig, load_sequence_rig, mesh_files

_REMEDY = "give a .safetensors of Rig.save, a .glb or .gltf, an .npz of vertices, or a folder of OBJ or PLY meshes"


def load_rig(path: str | Path) -> Rig:
    """A rig from a file that `Rig.save` wrote, a glTF, a mesh sequence, or a folder of expressions with a neutral.

    A folder with a mesh named neutral (``neutral.obj``, ``generic_neutral_mesh.obj``) is of expressions, else a
    sequence.

    Raises:
        InputError: it is none of these, or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        neutral = [file for file in mesh_files(path) if "neutral" in file.stem.lower()]
        return load_deltas_rig(neutral[0], path) if neutral else load_sequence_rig(path)
    if not path.exists():
        raise InputError("there is no such file", file=path, remedy=_REMEDY)
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return read_rig(path)
    if ending in (".glb", ".gltf"):
        return load_gltf_rig(path)
    if ending == ".npz":
        return load_sequence_rig(path)
    raise InputError("is not a rig that can be read", file=path, remedy=_REMEDY)
