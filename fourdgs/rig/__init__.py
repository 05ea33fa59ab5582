"""Animatable meshes: named controls in, vertices out, batched and differentiable."""

from .anny import anny_rig
from .base import KINDS, Rig, make_rig, read_rig
from .check import check_rig
from .gltf import load_gltf_rig
from .gltf_animation import gltf_animations, load_gltf_animation
from .linear import LinearRig
from .load import load_rig
from .meshes import load_deltas_rig, load_sequence_rig
from .names import ARKIT
from .puppet import puppet_rig
from .sequence import SequenceRig
from .transfer import Transfer, transfer

__all__ = [
    "ARKIT",
    "KINDS",
    "LinearRig",
    "Rig",
    "SequenceRig",
    "Transfer",
    "anny_rig",
    "check_rig",
    "gltf_animations",
    "load_deltas_rig",
    "load_gltf_animation",
    "load_gltf_rig",
    "load_rig",
    "load_sequence_rig",
    "make_rig",
    "puppet_rig",
    "read_rig",
    "transfer",
]
