"""The puppet with Gaussians scattered over it: an avatar that needs no training."""

from __future__ import annotations

import functools

import torch

from fourdgs import Gaussians, Model
from fourdgs.rig import Rig, puppet_rig
from fourdgs.rigged import Rigged


@functools.cache
def puppet() -> Rig:
    """A coarse one."""
    return puppet_rig(0.4)


def puppet_model(count: int = 300, rig: Rig | None = None, background=(0.9, 0.8, 0.7)) -> Model:
    rig = puppet() if rig is None else rig
    random = torch.Generator().manual_seed(0)
    face = torch.randint(len(rig.faces), (count,), generator=random)
    points = rig.rest[rig.faces[face]].mean(1)
    cloud = Gaussians.from_points(points.numpy(), torch.rand(count, 3, generator=random).numpy(), opacity=0.8)
    motion = Rigged(rig)
    motion.begin(cloud)
    motion.place(face)
    return Model(cloud, motion, background)
