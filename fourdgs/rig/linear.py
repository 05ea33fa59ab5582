"""A rig of face actions and joints: offsets that add up, then linear blend skinning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Rig
from .welding import weld_columns


class LinearRig(Rig):
    """Base vertices + the sum of D actions' offsets, carried by a tree of J joints (linear blend skinning).

    The first D controls weigh the actions; the other C = A - D ones turn, move and grow the joints. A joint's place in
    its parent is ``frame [move + turn * grow]``: turned by roll about its z, then pitch about its x, then yaw about
    its y. What a vertex' weights lack to 1 stands still.

    Attributes:
        base: [V, 3] before skinning. deltas: [D, V, 3]. weights: [V, J].
        parents: J numbers of joints, each below its child's, or -1. frames: [J, 4, 4] rest places in the parents.
        binds: [J, 4, 4] from base vertices' space to the joint's.
        turns, moves, grows: [J, 3, C] degrees about, units along, and share of growth along the joint's x, y, z, for
            one unit of each control.
    """

    kind: ClassVar[str] = "linear"

    def __init__(
        self,
        controls: Sequence[str],
        vertices: int,
        faces: int,
        actions: int,
        parents: Sequence[int] = (),
        uv: bool = False,
        colors: bool = False,
    ):
        super().__init__(controls, vertices, faces, uv, colors)
        joints, others = len(parents), len(self.controls) - actions
        self.parents = tuple(int(parent) for parent in parents)
        self.register_buffer("base", torch.zeros(vertices, 3))
        self.register_buffer("deltas", torch.zeros(actions, vertices, 3))
        self.register_buffer("weights", torch.zeros(vertices, joints))
        self.register_buffer("frames", torch.eye(4).repeat(joints, 1, 1))
        self.register_buffer("binds", torch.eye(4).repeat(joints, 1, 1))
        for name in ("turns", "moves", "grows"):
            self.register_buffer(name, torch.zeros(joints, 3, others))
        for child, parent in enumerate(self.parents):
            if not -1 <= parent < child:
                raise ValueError(f"joint {child} has parent {parent}, must be -1 or a lower number")

    @classmethod
    def make(
        cls,
        base: Any,
        faces: Any,
        controls: Sequence[str],
        deltas: Any = None,
        *,
        parents: Sequence[int] = (),
        weld: Any = None,
        uv: Any = None,
        colors: Any = None,
        **joints: Any,
    ) -> LinearRig:
        """A rig from arrays; ``joints`` are the attributes of that name, where there are joints.

        Args:
            weld: by default found: vertices that are together at rest and that everything moves alike.

        Raises:
            InputError: shapes do not fit, a value is not finite, or a control has the name of another.
        """
        actions = 0 if deltas is None else len(deltas)
        rig = cls(controls, len(base), len(faces), actions, parents, uv is not None, colors is not None)
        rig._set(base=base, faces=faces, deltas=deltas, uv=uv, colors=colors, **joints)
        rig._settle(weld)
        return rig

    def settings(self) -> dict:
        """The constructor's arguments."""
        return super().settings() | {"actions": len(self.deltas), "parents": list(self.parents)}

    @torch.no_grad()
    def _settle(self, weld: Any) -> None:
        """Fill ``rest``, and ``weld`` where it is not given."""
        self.rest.copy_(self.vertices(self.neutral[None])[0])
        if weld is None:
            generator = torch.Generator().manual_seed(0)
            mix = torch.rand(3, len(self.deltas), generator=generator) + 0.5
            moves = torch.einsum("kd,dvc->vkc", mix, self.deltas).flatten(1)
            weld = weld_columns(self.rest, moves, self.weights @ torch.rand(len(self.parents), 2, generator=generator))
        self._set(weld=weld)

    def vertices(self, drive: Tensor) -> Tensor:
        """[T, V, 3] for ``drive`` [T, A].

        Raises:
            InputError: ``drive`` has another number of columns.
        """
        values = self._values(drive)
        count, actions = len(values), len(self.deltas)
        points = self.base.expand(count, -1, -1)
        if actions:
            points = points + (values[:, :actions] @ self.deltas.flatten(1)).view(count, len(self.base), 3)
        if not self.parents:
            return points if actions else points.clone()
        # What a joint does beyond standing still, so that missing weight stands still.
        carried = (
            self.transforms(values[:, actions:])[:, :, :3] - torch.eye(4, dtype=points.dtype, device=points.device)[:3]
        )  # [T, J, 3, 4]
        blended = (self.weights @ carried.flatten(2)).view(count, len(self.base), 3, 4)
        return points + (blended[..., :3] @ points[..., None])[..., 0] + blended[..., 3]

    def transforms(self, values: Tensor) -> Tensor:
        """[T, J, 4, 4] from base to posed vertices, for ``values`` [T, C] of the joints' controls less neutral."""
        angles, shift, growth = (
            torch.einsum("jxc,tc->tjx", part, values) for part in (self.turns, self.moves, self.grows)
        )
        local = torch.zeros(*angles.shape[:2], 4, 4, dtype=angles.dtype, device=angles.device)
        local[..., :3, :3] = rotations(torch.deg2rad(angles)) * (1 + growth)[..., None, :]
        local[..., :3, 3] = shift
        local[..., 3, 3] = 1
        local = self.frames @ local
        placed: list[Tensor] = []
        for parent, own in zip(self.parents, local.unbind(1), strict=True):
            placed.append(own if parent < 0 else placed[parent] @ own)
        return torch.stack(placed, 1) @ self.binds


def rotations(angles: Tensor) -> Tensor:
    """[..., 3, 3] for ``angles`` [..., 3], radians: about z by the last, then about x by the first, then about y."""
    cp, cy, cr = angles.cos().unbind(-1)
    sp, sy, sr = angles.sin().unbind(-1)
    rows = [
        cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp,
        cp * sr, cp * cr, -sp,
        cy * sp * sr - sy * cr, sy * sr + cy * sp * cr, cy * cp,
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
