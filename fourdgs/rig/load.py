"""Rigs from whatever a user has: one call that finds out what it is."""

from __future__ import annotations

from pathlib import Path

from ..drive.names import is_action, plain_name
from ..errors import InputError
from .base import Rig, read_rig
from .gltf import load_gltf_rig
from .meshes import load_deltas_rig, load_sequence_rig, mesh_files

_REMEDY = (
    "give a .safetensors of Rig.save, a .glb, .gltf or .vrm, an .npz of vertices, or a folder of OBJ or PLY meshes; "
    "Blender exports others as .glb"
)


def load_rig(path: str | Path) -> Rig:
    """A rig from a file that `Rig.save` wrote, a glTF, a mesh sequence, or a folder of expressions with a neutral.

    A folder with a mesh named neutral (``neutral.obj``, ``generic_neutral_mesh.obj``) is of expressions, else a
    sequence. What other programs keep (.fbx, .usdz, .blend) is to be exported as .glb.

    Raises:
        InputError: it is none of these, or cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        files = mesh_files(path)
        neutral = [file for file in files if "neutral" in file.stem.lower()]
        if not neutral and sum(is_action(plain_name(file.stem)) for file in files) > 2:
            remedy = "name it neutral.obj, or say which it is: load_deltas_rig(neutral, folder)"
            raise InputError("holds expressions, but no mesh named neutral", file=path, remedy=remedy)
        return load_deltas_rig(neutral[0], path) if neutral else load_sequence_rig(path)
    if not path.exists():
        raise InputError("there is no such file", file=path, remedy=_REMEDY)
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return read_rig(path)
    if ending in (".glb", ".gltf", ".vrm"):
        return load_gltf_rig(path)
    if ending == ".npz":
        return load_sequence_rig(path)
    if ending in (".obj", ".ply"):
        remedy = "give the folder of all its meshes; one still mesh is made to talk by fourdgs.rig.transfer"
        raise InputError("is one mesh, which does not move", file=path, remedy=remedy)
    raise InputError("is not a rig that can be read", file=path, remedy=_REMEDY)
